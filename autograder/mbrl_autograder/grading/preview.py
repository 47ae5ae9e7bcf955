"""The dry run: what would be graded, and what is wrong with each submission. Nothing is graded or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from mbrl_autograder.judge.notebook import grade_id, text_of

from .collect import collection
from .course import Assignment, Course
from .earlier import with_earlier
from .engine import assignment_name, errors_said, of_assignment
from .model import Limits, Submission
from .notebooks import COURSE_KEY, NotANotebookError, read_content
from .roster import identified, numbers

FINE, UNTOUCHED, OTHER, BROKEN, ABSENT = "ok", "untouched", "wrong one", "broken", "missing"
STUB = "raise NotImplementedError"


@dataclass(frozen=True)
class Line:
    """One student's: the state of each notebook, what is to be said, and whether anything can be graded."""

    student: str
    states: tuple[str, ...]
    remarks: str
    gradable: bool


@dataclass(frozen=True)
class Preview:
    """What a run would grade.

    Attributes:
        assignment: such as "week03".
        notebooks: their names, in the order of the lines' states.
        lines: one for each student of whom anything arrived.
        ignored: names of files that are nobody's submission.
    """

    assignment: str
    notebooks: tuple[str, ...]
    lines: tuple[Line, ...]
    ignored: tuple[str, ...]

    @property
    def ungradable(self) -> tuple[str, ...]:
        """The students of whom nothing can be graded."""
        return tuple(line.student for line in self.lines if not line.gradable)

    def __str__(self) -> str:
        """A table, and a summary below it."""
        head = ["student", *self.notebooks, "what to know"]
        table = [head, *([line.student, *line.states, line.remarks] for line in self.lines)]
        widths = [max(len(row[column]) for row in table) for column in range(len(head) - 1)]
        text = [
            "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
            for row in table
        ]
        text.insert(1, "-" * max(len(text[0]), sum(widths) + 2 * len(widths)))
        good = len(self.lines) - len(self.ungradable)
        text += ["", f"{good} of {len(self.lines)} can be graded; this was a dry run, nothing was graded"]
        if self.ignored:
            text.append(
                f"passed over: {', '.join(self.ignored[:20])}{' ...' if len(self.ignored) > 20 else ''}"
            )
        return "\n".join(text)


def preview(week: str, submissions: Path | None, course: Path, limits: Limits) -> Preview:
    """What `grade` with the same arguments would grade.

    Raises:
        GradingError: no such assignment, or no submissions.
        UnknownWeekError: neither a week nor an assignment of the course.
    """
    home = Course(course)
    assignment = Assignment(home, assignment_name(home, week))
    own = home.submitted_folder(assignment.name)
    found = collection(submissions or own, assignment.name, list(assignment.templates), limits)
    arrived: Sequence[Submission] = found.submissions
    if (submissions or own).resolve() == own:
        arrived, _ = of_assignment(assignment, arrived)
    else:
        arrived = identified(arrived, _known(home))
        arrived = [with_earlier(assignment, one, limits.notebook_bytes) for one in arrived]
    lines = tuple(_line(assignment, one, limits) for one in arrived)
    return Preview(assignment.name, tuple(assignment.templates), lines, found.ignored)


def _known(course: Course) -> dict[str, str]:
    """The gradebook's students and their numbers, where there is a gradebook."""
    if not course.has_gradebook:
        return {}
    with errors_said(course), course.gradebook() as gradebook:
        return numbers(gradebook)


def _line(assignment: Assignment, submission: Submission, limits: Limits) -> Line:
    states, remarks = [], [submission.reason] if submission.reason else []
    for name, template in assignment.templates.items():
        path = submission.notebooks.get(name)
        if path is None:
            states.append(ABSENT)
            continue
        try:
            content = read_content(path, limits.notebook_bytes)
        except NotANotebookError as error:
            states.append(BROKEN)
            remarks.append(f"{name}.ipynb: {error}")
            continue
        state, said = _state(content, template)
        states.append(state)
        remarks += [f"{name}.ipynb: {', '.join(said)}"] if said else []
    gradable = any(state in (FINE, UNTOUCHED) for state in states)
    return Line(submission.student, tuple(states), "; ".join(remarks), gradable)


def _state(content: dict[str, Any], template: NotebookNode) -> tuple[str, list[str]]:
    """The state of a notebook in a word, and what is to be said of it."""
    wanted = {grade_id(cell): text_of(cell) for cell in template.cells if _is_solution(cell)}
    cells = [cell for cell in content["cells"] if isinstance(cell, dict) and grade_id(cell) in wanted]
    names = [grade_id(cell) for cell in cells]
    missing = [name for name in wanted if name not in names]
    doubled = sorted({name for name in names if names.count(name) > 1})
    touched = any(
        text_of(cell).strip() != wanted[grade_id(cell)].strip() and STUB not in text_of(cell)
        for cell in cells
    )
    said = [f"{' and '.join(doubled)} more than once"] if doubled else []
    other = _of_another_week(content, template)
    if other:
        said.insert(0, f"a notebook of {other}")
    if wanted and len(missing) == len(wanted):
        return OTHER, [*said, "none of the assignment's cells is in it"]
    said += [f"without {', '.join(missing)}"] if missing else []
    return (FINE if touched or not wanted else UNTOUCHED), said


def _of_another_week(content: dict[str, Any], template: NotebookNode) -> str:
    metadata = content.get("metadata")
    own = metadata.get(COURSE_KEY) if isinstance(metadata, dict) else None
    week = own.get("week") if isinstance(own, dict) else None
    expected = template.metadata.get(COURSE_KEY, {}).get("week")
    return str(week)[:40] if week and expected and week != expected else ""


def _is_solution(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))
