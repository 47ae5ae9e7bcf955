"""Writes what came of a submission into nbgrader's folders and gradebook, and reads the marks back.

One process writes; whoever runs the notebooks does not.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry, SubmittedNotebook
from nbgrader.utils import compute_checksum

from .course import Assignment
from .model import EARLIER, MISSING, Outcome, Row, Submission
from .notebooks import grade_id, is_test


def keep_submitted(assignment: Assignment, submission: Submission) -> None:
    """Copies what arrived, unchanged, into the course's `submitted/` folder."""
    target = assignment.course.folder("submitted", assignment.name, submission.student)
    sources = {path.resolve() for path in submission.files.values()}
    if any(source.parent == target for source in sources):
        return  # the class's folder is the course's own `submitted/`
    _fresh(target)
    for path in submission.files.values():
        shutil.copyfile(path, target / path.name, follow_symlinks=False)


def record(assignment: Assignment, student: str, outcomes: Mapping[str, Outcome]) -> None:
    """Writes `autograded/` and the gradebook for one student; a notebook without an outcome earns 0.

    What a marker gave by hand for an earlier version stays, and is flagged for another look, as nbgrader does
    it.

    Args:
        assignment: what was graded.
        student: whose submission it is; an unknown student is added to the gradebook.
        outcomes: what came of each notebook, by its name.
    """
    target = assignment.course.folder("autograded", assignment.name, student)
    _fresh(target)
    for name, outcome in outcomes.items():
        nbformat.write(outcome.notebook, target / f"{name}.ipynb")
    shutil.rmtree(assignment.course.folder("feedback", assignment.name, student), ignore_errors=True)
    with assignment.course.gradebook() as gradebook, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbgrader's own way of adding a submission makes SQLAlchemy warn
        gradebook.update_or_create_student(student)
        submission = gradebook.update_or_create_submission(assignment.name, student)
        for notebook in submission.notebooks:
            _set_grades(notebook, outcomes.get(notebook.name))
        gradebook.db.commit()


def _fresh(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _set_grades(notebook: SubmittedNotebook, outcome: Outcome | None) -> None:
    cells: dict[str, NotebookNode] = {}
    if outcome is not None:
        cells = {grade_id(cell): cell for cell in outcome.notebook.cells if grade_id(cell)}
    for grade in notebook.grades:
        cell = cells.get(grade.name)
        if outcome is None or cell is None:
            grade.auto_score = 0.0
        elif is_test(cell):
            grade.auto_score = float(outcome.scores.get(grade.name, 0.0))
        else:
            grade.auto_score = 0.0 if _is_untouched(cell) else None
        grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
    for comment in notebook.comments:
        cell = cells.get(comment.name)
        comment.auto_comment = "No response." if cell is not None and _is_untouched(cell) else None


def _is_untouched(cell: NotebookNode) -> bool:
    return bool(cell.metadata.nbgrader.get("checksum") == compute_checksum(cell))


def read_rows(assignment: Assignment, run: Mapping[str, tuple[str, str]]) -> list[Row]:
    """A line for each student of this run and of the gradebook, in the order of their names.

    Args:
        assignment: what was graded.
        run: status and reason of each student whose submission this run saw.
    """
    rows = []
    with assignment.course.gradebook() as gradebook:
        students = {student.id for student in gradebook.students} | set(run)
        for student in sorted(students):
            marks = _marks(gradebook, assignment, student)
            status, reason = run.get(student, (EARLIER, "graded in an earlier run"))
            if marks is None:
                marks = {exercise.id: 0.0 for exercise in assignment.exercises}
                if student not in run:
                    status, reason = MISSING, "nothing arrived"
            rows.append(Row(student, marks, status, reason, _pages(assignment, student)))
    return rows


def _marks(gradebook: Gradebook, assignment: Assignment, student: str) -> dict[str, float | None] | None:
    try:
        submission = gradebook.find_submission(assignment.name, student)
    except MissingEntry:
        return None
    grades = {
        (notebook.name, grade.name): grade for notebook in submission.notebooks for grade in notebook.grades
    }
    marks: dict[str, float | None] = {}
    for exercise in assignment.exercises:
        parts = [grades[exercise.notebook, cell] for cell in exercise.cells]
        unmarked = exercise.by_hand and any(
            part.auto_score is None and part.manual_score is None for part in parts
        )
        marks[exercise.id] = None if unmarked else float(sum(part.score for part in parts))
    return marks


def _pages(assignment: Assignment, student: str) -> tuple[Path, ...]:
    folder = assignment.course.folder("feedback", assignment.name, student)
    return tuple(sorted(folder.glob("*.html"))) if os.path.isdir(folder) else ()
