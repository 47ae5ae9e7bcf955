"""Writes what came of a submission into nbgrader's folders and gradebook, and reads the marks back.

One process writes; whoever runs the notebooks does not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry, SubmittedAssignment
from nbgrader.preprocessors import AssignLatePenalties
from nbgrader.utils import parse_utc

from mbrl_autograder.judge.gradebook import GradebookWriter
from mbrl_autograder.judge.notebook import UnreadableError, read_bytes
from mbrl_autograder.judge.results import PASSED, CellResult

from .course import Assignment
from .model import EARLIER, MISSING, Outcome, Row, Submission
from .roster import numbers

TIMESTAMP = "timestamp.txt"  # nbgrader's `collect` writes it beside the notebooks
Comments = dict[tuple[str, str], str]


class Recorder:
    """Writes the marks of one assignment, and reads them.

    Args:
        assignment: what is graded; the gradebook knows it.
        gradebook: open.
    """

    def __init__(self, assignment: Assignment, gradebook: Gradebook) -> None:
        """Reads the course's configuration for late submissions."""
        self.assignment, self.gradebook = assignment, gradebook
        late = AssignLatePenalties(config=assignment.course.config)
        late.init_plugin()
        self._writer = GradebookWriter(gradebook, assignment.name, late.plugin_inst)

    def write(self, student: str, outcomes: Mapping[str, Outcome], timestamp: datetime | None) -> None:
        """Writes `autograded/` and the gradebook for one student; a notebook without an outcome earns 0.

        Args:
            student: whose submission it is; an unknown student is added to the gradebook.
            outcomes: what came of each notebook, by its name.
            timestamp: when it arrived, if that is known.
        """
        course, name = self.assignment.course, self.assignment.name
        shutil.rmtree(course.folder("feedback", name, student), ignore_errors=True)
        notebooks = {key: (one.notebook, _results(one)) for key, one in outcomes.items()}
        self._writer.write(student, notebooks, course.folder("autograded", name, student), timestamp)

    def rows(self, run: Mapping[str, Row], roster: Iterable[str] = ()) -> list[Row]:
        """A line for each student of this run, of the gradebook and of `roster`, in the order of their names.

        Args:
            run: the students whose submissions this run saw, with status, reason and flags.
            roster: further students.
        """
        recorded = {
            one.student_id: one for one in self.gradebook.assignment_submissions(self.assignment.name)
        }
        known = numbers(self.gradebook)
        students = set(known) | set(run) | set(roster)
        rows = []
        for student in sorted(students):
            submission = recorded.get(student)
            if student in run:
                status, reason, flags = run[student].status, run[student].reason, run[student].flags
            elif submission is not None:
                status, reason, flags = EARLIER, "graded in an earlier run", ()
            else:
                status, reason, flags = MISSING, "nothing arrived", ()
            pages, penalty = self._pages(student), 0.0
            if submission is not None:
                penalty = sum(part.late_submission_penalty or 0.0 for part in submission.notebooks)
            number = (run[student].number if student in run else "") or known.get(student, "")
            marks = self._marks(submission)
            rows.append(Row(student, marks, status, reason, pages, flags, penalty, number))
        return rows

    def _marks(self, submission: SubmittedAssignment | None) -> dict[str, float | None]:
        exercises = self.assignment.exercises
        if submission is None:
            return {exercise.id: 0.0 for exercise in exercises}
        grades = {(part.name, grade.name): grade for part in submission.notebooks for grade in part.grades}
        marks: dict[str, float | None] = {}
        for exercise in exercises:
            parts = [grades[key] for cell in exercise.cells if (key := (exercise.notebook, cell)) in grades]
            unmarked = exercise.by_hand and any(
                part.auto_score is None and part.manual_score is None for part in parts
            )
            marks[exercise.id] = None if unmarked else float(sum(part.score or 0.0 for part in parts))
        return marks

    def _pages(self, student: str) -> tuple[Path, ...]:
        folder = self.assignment.course.folder("feedback", self.assignment.name, student)
        return tuple(sorted(folder.glob("*.html")))

    def comments(self, student: str) -> Comments:
        """What markers wrote about a student's cells, by notebook and cell."""
        try:
            submission = self.gradebook.find_submission(self.assignment.name, student)
        except MissingEntry:
            return {}
        return {
            (part.name, comment.name): comment.manual_comment
            for part in submission.notebooks
            for comment in part.comments
            if comment.manual_comment
        }


def _results(outcome: Outcome) -> Mapping[str, CellResult]:
    """What the tests earned; an executor may say it in points alone."""
    return outcome.cells or {
        name: CellResult(points, points, PASSED) for name, points in outcome.scores.items()
    }


def keep_submitted(
    assignment: Assignment, submission: Submission, beside: Mapping[str, bytes] | None = None
) -> None:
    """Copies what arrived elsewhere, unchanged, into the course's `submitted/` folder.

    Notebooks of an earlier hand-in go, where they do not count on.

    Args:
        assignment: what was handed in.
        submission: its notebooks.
        beside: the files that lay beside them, by path.
    """
    target = assignment.course.folder("submitted", assignment.name, submission.student)
    if not submission.files or any(path.resolve().parent == target for path in submission.files.values()):
        return
    if target.is_symlink():
        target.unlink()
    target.mkdir(parents=True, exist_ok=True)
    wanted = {path.name: path for path in submission.files.values()}
    for old in [*target.glob("*.ipynb"), target / TIMESTAMP]:
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif old.name not in wanted and old.stem not in submission.earlier:
            old.unlink(missing_ok=True)
    stamp = _stamp(submission)
    wanted |= {TIMESTAMP: stamp} if stamp is not None else {}
    for name, path in wanted.items():
        draft = target / f".{name}.part"
        shutil.copyfile(path, draft, follow_symlinks=False)
        draft.replace(target / name)
    for name, content in (beside or {}).items():
        file = target / name
        if name not in wanted and name != TIMESTAMP and _can_hold(file, target):
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{file.name}.part")
            draft.write_bytes(content)
            draft.replace(file)


def _can_hold(file: Path, folder: Path) -> bool:
    """Whether a file can be written in `folder`: nothing on its way there is a link or another file."""
    way = [up for up in file.parents if up.is_relative_to(folder)]
    return not file.is_dir() and all(not up.is_symlink() and (up.is_dir() or not up.exists()) for up in way)


def arrival(submission: Submission) -> tuple[datetime | None, str]:
    """When a submission arrived, as nbgrader's `timestamp.txt` says; and what is wrong with that file."""
    stamp = _stamp(submission)
    if stamp is None:
        return None, ""
    try:
        text = read_bytes(stamp, 1000).decode().strip()
        return parse_utc(text), ""
    except (UnreadableError, ValueError, OverflowError, TypeError):
        return None, f"{TIMESTAMP} holds no time: taken as in time"


def _stamp(submission: Submission) -> Path | None:
    """The file beside the notebooks that arrived, in a folder that is the student's own.

    Earlier ones say when only where nothing else came.
    """
    for path in (submission.files or submission.notebooks).values():
        stamp = path.parent / TIMESTAMP
        own = submission.student in (path.parent.name, path.parent.parent.name)
        if own and stamp.is_file() and not stamp.is_symlink():
            return stamp
    return None
