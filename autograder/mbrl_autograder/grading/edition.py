"""The package as students of a week have it, so that graded code cannot import a solution."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mbrl_autograder.authoring.course import Course
from mbrl_autograder.authoring.release import student_wheel
from mbrl_course.weeks import UnknownWeekError, find_week


@contextmanager
def student_edition(root: Path, assignment: str) -> Iterator[tuple[Path, ...]]:
    """Folders to put before the installed packages while `assignment` of the course in `root` is graded.

    It is made from the checkout in `root`, or else from the one that this program is of: in a sandbox, a
    submission sees no package that is installed from elsewhere. None, where the assignment is no week of
    this course, or there is no checkout.
    """
    course = Course(root)
    try:
        week = find_week(assignment)
        course = course if course.package_dir.is_dir() else Course.here()
    except (UnknownWeekError, FileNotFoundError):
        yield ()
        return
    with tempfile.TemporaryDirectory(prefix="mbrl-course-") as folder:
        wheel = student_wheel(week, Path(folder), course)
        target = Path(folder) / "edition"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
        yield (target,)
