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

    None, where `root` is no checkout of this course or the assignment none of its weeks.
    """
    course = Course(root)
    try:
        week = find_week(assignment)
    except UnknownWeekError:
        week = None
    if week is None or not course.package_dir.is_dir():
        yield ()
        return
    with tempfile.TemporaryDirectory(prefix="mbrl-course-") as folder:
        wheel = student_wheel(week, Path(folder), course)
        target = Path(folder) / "edition"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
        yield (target,)
