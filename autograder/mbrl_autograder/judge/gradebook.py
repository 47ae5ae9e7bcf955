# ruff: noqa: D107
"""Marks into nbgrader's gradebook: one transaction per submission, by one process, the same however often
it is done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import (
    Assignment,
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    Student,
    SubmittedAssignment,
    SubmittedNotebook,
)
from nbgrader.plugins import LateSubmissionPlugin
from nbgrader.utils import compute_checksum

from .results import CellResult


class GradebookWriter:
    """Writes `autograded/` and the gradebook of one assignment.

    Args:
        gradebook: nbgrader's, open; its URL may be any that nbgrader takes.
        assignment: the name of an assignment that the gradebook knows (`nbgrader generate_assignment`).
        late: nbgrader's plugin for late submissions, with the course's configuration.

    Raises:
        nbgrader.api.MissingEntry: the gradebook does not know the assignment.
    """

    def __init__(
        self, gradebook: Gradebook, assignment: str, late: LateSubmissionPlugin | None = None
    ) -> None:
        self.gradebook = gradebook
        self.late = late or LateSubmissionPlugin()
        self.assignment: Assignment = gradebook.find_assignment(assignment)

    def write(
        self,
        student: str,
        notebooks: Mapping[str, tuple[NotebookNode, Mapping[str, CellResult]]],
        folder: Path,
        timestamp: datetime | None = None,
    ) -> None:
        """Records one submission; a notebook of the assignment that is not given earns nothing.

        The files come first, each of them replaced at once; then everything in the gradebook in one
        transaction. So a
        process that is killed leaves the submission as it was before or as it is afterwards. What a marker
        gave by
        hand stays, and is flagged for another look.

        Args:
            student: an unknown one is added.
            notebooks: for each notebook by its name, what a marker reads, and what its tests earned.
            folder: `autograded/<student>/<assignment>`.
            timestamp: when it arrived (UTC, without a time zone, as nbgrader keeps it), for late penalties.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, (notebook, _) in notebooks.items():
            temporary = folder / f".{name}.ipynb.part"
            temporary.write_text(nbformat.writes(notebook), encoding="utf-8")
            temporary.replace(folder / f"{name}.ipynb")
        db = self.gradebook.db
        try:
            with db.no_autoflush:
                submission = self._submission(student)
                submission.timestamp = timestamp
                for part in submission.notebooks:
                    self._set(part, notebooks.get(part.name))
                db.flush()
                late = submission.total_seconds_late
                for part in submission.notebooks:
                    db.expire(part, ["score"])  # the database sums it
                    points = float(part.score or 0.0)
                    part.late_submission_penalty = (
                        self.late.late_submission_penalty(student, points, late) if late > 0 else None
                    )
            db.commit()
        except BaseException:
            db.rollback()
            raise

    def _submission(self, student: str) -> SubmittedAssignment:
        db = self.gradebook.db
        try:
            return self.gradebook.find_submission(self.assignment.name, student)
        except MissingEntry:
            pass
        try:
            person = self.gradebook.find_student(student)
        except MissingEntry:
            person = Student(id=student)
            db.add(person)
        submission = SubmittedAssignment(assignment=self.assignment, student=person)
        db.add(submission)
        for notebook in self.assignment.notebooks:
            part = SubmittedNotebook(notebook=notebook, assignment=submission)
            db.add(part)
            for cell in notebook.grade_cells:
                db.add(Grade(cell=cell, notebook=part))
            for cell in notebook.task_cells:
                db.add(Grade(cell=cell, notebook=part))
                db.add(Comment(cell=cell, notebook=part))
            for cell in notebook.solution_cells:
                db.add(Comment(cell=cell, notebook=part))
        db.flush()
        return submission

    def _set(
        self, part: SubmittedNotebook, given: tuple[NotebookNode, Mapping[str, CellResult]] | None
    ) -> None:
        notebook, results = given if given is not None else (None, {})
        untouched = _untouched(notebook) if notebook is not None else {}
        for grade in part.grades:
            cell: BaseCell = grade.cell
            if cell.name in results:
                grade.auto_score = min(results[cell.name].points, float(cell.max_score))
            elif notebook is None or untouched.get(cell.name, True):
                grade.auto_score = 0.0
            else:
                grade.auto_score = None
            grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
        for comment in part.comments:
            comment.auto_comment = "No response." if untouched.get(comment.cell.name, False) else None


def _untouched(notebook: NotebookNode) -> dict[str, bool]:
    """For each cell with an id, whether it is as it was released."""
    found = {}
    for cell in notebook.cells:
        flags = cell.metadata.get("nbgrader")
        if isinstance(flags, dict) and flags.get("grade_id"):
            found[flags["grade_id"]] = flags.get("checksum") == compute_checksum(cell)
    return found
