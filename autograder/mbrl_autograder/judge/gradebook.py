# ruff: noqa: D107
"""Marks into nbgrader's gradebook: one transaction per submission, by one process, the same however often
it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

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

from .notebook import text_of
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

        The new files are written beside the old ones, then everything goes into the gradebook in one
        transaction, then the files are put in their places. So a process that is killed, or a disk that is
        full, leaves the gradebook as it was before or as it is afterwards. What a marker gave by hand stays;
        it is flagged for another look where the submission is another than the one that was marked.

        Args:
            student: an unknown one is added.
            notebooks: for each notebook by its name, what a marker reads, and what its tests earned.
            folder: `autograded/<student>/<assignment>`.
            timestamp: when it arrived (UTC, without a time zone, as nbgrader keeps it), for late penalties.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = {part.name: folder / f"{part.name}.ipynb" for part in self.assignment.notebooks}
        same = {
            name: _is_same(path, notebooks[name][0]) if name in notebooks else not path.exists()
            for name, path in files.items()
        }
        for name, (notebook, _) in notebooks.items():
            text = json.dumps(notebook, indent=1, ensure_ascii=False)
            (folder / f".{name}.ipynb.part").write_bytes(text.encode("utf-8", "replace"))
        db = self.gradebook.db
        try:
            with db.no_autoflush:
                submission = self._submission(student)
                submission.timestamp = timestamp
                for part in submission.notebooks:
                    self._set(part, notebooks.get(part.name), same[part.name])
                db.flush()
                late = submission.total_seconds_late
                for part in submission.notebooks:
                    part.late_submission_penalty = self._penalty(part, student, late) if late > 0 else None
            db.commit()
        except BaseException:
            db.rollback()
            raise
        for name in notebooks:
            (folder / f".{name}.ipynb.part").replace(folder / f"{name}.ipynb")
        for old in folder.glob("*.ipynb"):
            if old.stem not in notebooks:
                old.unlink()

    def _penalty(self, part: SubmittedNotebook, student: str, late: float) -> float | None:
        """What the plugin says, between nothing and all points, as in nbgrader."""
        self.gradebook.db.expire(part, ["score"])  # the database sums it
        points = float(part.score or 0.0)
        penalty = self.late.late_submission_penalty(student, points, late)
        return None if penalty is None else min(max(penalty, 0.0), points)

    def _submission(self, student: str) -> SubmittedAssignment:
        db = self.gradebook.db
        try:
            submission = self.gradebook.find_submission(self.assignment.name, student)
        except MissingEntry:
            try:
                person = self.gradebook.find_student(student)
            except MissingEntry:
                person = Student(id=student)
                db.add(person)
            submission = SubmittedAssignment(assignment=self.assignment, student=person)
            db.add(submission)
        parts = {part.name: part for part in submission.notebooks}
        added = False
        for notebook in self.assignment.notebooks:  # cells may have come since an earlier submission
            part = parts.get(notebook.name)
            if part is None:
                part = SubmittedNotebook(notebook=notebook, assignment=submission)
                db.add(part)
            graded = {grade.cell_id for grade in part.grades}
            commented = {comment.cell_id for comment in part.comments}
            new: list[Any] = [
                Grade(cell=cell, notebook=part)
                for cell in (*notebook.grade_cells, *notebook.task_cells)
                if cell.id not in graded
            ]
            new += [
                Comment(cell=cell, notebook=part)
                for cell in (*notebook.task_cells, *notebook.solution_cells)
                if cell.id not in commented
            ]
            db.add_all(new)
            added = added or bool(new)
        if added:
            db.flush()
        return submission

    def _set(
        self, part: SubmittedNotebook, given: tuple[NotebookNode, Mapping[str, CellResult]] | None, same: bool
    ) -> None:
        notebook, results = given if given is not None else (None, {})
        untouched = _untouched(notebook) if notebook is not None else {}
        for grade in part.grades:
            cell: BaseCell = grade.cell
            before = grade.auto_score
            if cell.name in results:
                grade.auto_score = min(results[cell.name].points, float(cell.max_score))
            elif notebook is None or untouched.get(cell.name, True):
                grade.auto_score = 0.0
            else:
                grade.auto_score = None
            if grade.manual_score is None:
                grade.needs_manual_grade = grade.auto_score is None
            elif not same or grade.auto_score != before:
                grade.needs_manual_grade = True
        for comment in part.comments:
            comment.auto_comment = "No response." if untouched.get(comment.cell.name, False) else None


def _is_same(path: Path, notebook: NotebookNode) -> bool:
    """Whether a marker has read the same cells before; the outputs of two runs may differ."""
    try:
        old = json.loads(path.read_text(encoding="utf-8"))["cells"]
        before = [(cell["cell_type"], text_of(cell)) for cell in old]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return before == [(cell.cell_type, cell.source) for cell in notebook.cells]


def _untouched(notebook: NotebookNode) -> dict[str, bool]:
    """For each cell with an id, whether it is as it was released."""
    found = {}
    for cell in notebook.cells:
        flags = cell.metadata.get("nbgrader")
        if isinstance(flags, dict) and flags.get("grade_id"):
            found[flags["grade_id"]] = flags.get("checksum") == compute_checksum(cell)
    return found
