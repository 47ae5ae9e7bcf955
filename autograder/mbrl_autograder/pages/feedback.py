"""Feedback for students: a page for each notebook that says what was checked and what went wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbformat import NotebookNode

from mbrl_autograder.judge.notebook import HIDDEN_BEGIN, HIDDEN_END, grade_id, hidden_lines, visible_text
from mbrl_autograder.judge.results import (
    FAILED,
    NOT_RUN,
    PARTIAL,
    PASSED,
    STOPPED,
    TIMED_OUT,
    UNREADABLE,
    CellResult,
)

from . import cells as shown
from .html import number, page, text, write

if TYPE_CHECKING:  # the grading imports this package
    from mbrl_autograder.grading.model import Exercise, Outcome, Row

# For each status of a check: sign, colour, and what it means to a student.
SIGNS = {
    PASSED: ("✓", "good", "passed"),
    PARTIAL: ("◐", "part", "partly right"),
    FAILED: ("✗", "bad", "not passed"),
    TIMED_OUT: ("✗", "bad", "took too long"),
    STOPPED: ("✗", "bad", "your code ended its process"),
    NOT_RUN: ("–", "bad", "was not run"),
}
TOO_SLOW = "Some of your code took longer than a submission may. What did not finish earned nothing."
MAX_REST = 15_000_000  # characters of HTML, pictures included
HIDDEN_NOTE = "Further checks, which are not shown, test what the exercise's text says with other values."
_COURSE_PROSE = re.compile(r".*-[0-9a-f]{8}")  # ids that the course's build gives to its text


def write_feedback(
    folder: Path,
    assignment: str,
    row: Row,
    exercises: Sequence[Exercise],
    outcomes: Mapping[str, Outcome],
    comments: Mapping[tuple[str, str], str] | None = None,
    hidden_markers: tuple[str, str] = (HIDDEN_BEGIN, HIDDEN_END),
) -> list[Path]:
    """Writes a page for each notebook that was graded: FOLDER/NOTEBOOK.html.

    A page holds nothing of a hidden test, and nothing of the submission but text and pictures. A submission
    of which nothing could be read gets one page that says why.

    Args:
        folder: `feedback/STUDENT/ASSIGNMENT`; made where it is not there.
        assignment: such as "week03".
        row: the student's marks.
        exercises: all of the assignment's.
        outcomes: what came of each notebook, by its name.
        comments: what markers said, by notebook and cell.
        hidden_markers: what begins and ends the hidden part of a test.

    Returns:
        The pages' paths.
    """
    pages = []
    for name, outcome in outcomes.items():
        own = [exercise for exercise in exercises if exercise.notebook == name]
        said = {cell: comment for (notebook, cell), comment in (comments or {}).items() if notebook == name}
        body = _Page(assignment, name, row, own, outcome, said, hidden_markers).body(len(outcomes) > 1)
        pages.append(write(folder / f"{name}.html", page(f"{assignment} · {name} · {row.student}", body)))
    if not outcomes and row.status == UNREADABLE and exercises:
        name = exercises[0].notebook
        body = f'{_head(assignment, name, row)}<div class="notice">{text(_unread(row.reason))}</div>'
        pages.append(write(folder / f"{name}.html", page(f"{assignment} · {name} · {row.student}", body)))
    return pages


def _unread(reason: str) -> str:
    return f"What you handed in could not be graded: {reason}. Please hand it in again."


def _head(assignment: str, notebook: str, row: Row) -> str:
    kicker = f'<p class="kicker">{text(assignment)} · {text(notebook)}</p>'
    return f"{kicker}<h1>Feedback for {text(row.student)}</h1>"


@dataclass
class _Part:
    """The cells of a notebook that belong to one exercise."""

    title: str = ""
    numbered: bool = False  # the title is the exercise's own, not that of the section that it is in
    question: str = ""
    tests: dict[str, str] = field(default_factory=dict)  # their code
    cells: list[NotebookNode] = field(default_factory=list)  # the student's


class _Page:
    def __init__(
        self,
        assignment: str,
        name: str,
        row: Row,
        exercises: Sequence[Exercise],
        outcome: Outcome,
        comments: Mapping[str, str],
        hidden_markers: tuple[str, str],
    ) -> None:
        self.assignment, self.name, self.row = assignment, name, row
        self.exercises, self.outcome, self.comments = exercises, outcome, comments
        self.pictures = shown.Pictures()
        self.parts, self.others = _sorted_out(outcome.notebook, exercises)
        for part in self.parts.values():
            for name, code in part.tests.items():
                for mark, usual in zip(hidden_markers, (HIDDEN_BEGIN, HIDDEN_END), strict=True):
                    part.tests[name] = code = code.replace(mark, usual)

    def body(self, several: bool) -> str:
        parts = [self._summary(several)]
        if self.outcome.instead_of:
            parts.append(f'<div class="notice">{text(self._instead())}</div>')
        if self.outcome.status == TIMED_OUT:
            parts.append(f'<div class="notice">{TOO_SLOW}</div>')
        if self.outcome.status == UNREADABLE:
            parts.append(f'<div class="notice">{text(_unread(self.outcome.reason))}</div>')
        parts += [self._exercise(exercise) for exercise in self.exercises]
        if others := self._rest():
            parts.append(f'<section class="exercise"><h2>The rest of your notebook</h2>{others}</section>')
        return "\n".join(parts)

    def _instead(self) -> str:
        this = f"{self.name}.ipynb"
        return (
            f"This is about the {this} that you handed in before, which counts. The last time: "
            f"{self.outcome.instead_of}. If you meant to hand in a newer {this}, please do it again."
        )

    def _rest(self) -> str:
        """The other cells, as many as a page can bear."""
        parts, size = [], 0
        for index, cell in enumerate(self.others):
            if size > MAX_REST:
                parts.append(f'<p class="soft">({len(self.others) - index} more are not shown here)</p>')
                break
            parts.append(self._cell(cell))
            size += len(parts[-1])
        return "".join(parts)

    def _summary(self, several: bool) -> str:
        most = sum(exercise.max_score for exercise in self.exercises if not exercise.bonus)
        marks = [self.row.marks.get(exercise.id) for exercise in self.exercises]
        points = sum(mark for mark in marks if mark is not None)
        waiting = sum(mark is None for mark in marks)
        parts = [_head(self.assignment, self.name, self.row)]
        unit = "points" if most != 1 else "point"
        parts.append(f'<p class="total"><b>{number(points)}</b> of {number(most)} {unit}</p>')
        share = 100 * min(points / most, 1) if most else 0
        parts.append(f'<div class="bar"><div style="width: {share:.0f}%"></div></div>')
        notes = []
        if waiting:
            notes.append(f"{waiting} {'answer is' if waiting == 1 else 'answers are'} still to be marked")
        if several:
            notes.append(f"{self.assignment} in all: {number(self.row.total)} points so far")
        if self.row.penalty:
            notes.append(f"handed in late: {number(self.row.penalty)} points less")
        if any(exercise.bonus for exercise in self.exercises):
            notes.append("bonus points come on top")
        if notes:
            parts.append(f'<p class="soft small">{text("; ".join(notes))}</p>')
        return "".join(parts)

    def _exercise(self, exercise: Exercise) -> str:
        part = self.parts.get(exercise.id, _Part())
        mark = self.row.marks.get(exercise.id)
        most = f"{number(exercise.max_score)}{' bonus' if exercise.bonus else ''}"
        points = f"{most}, to be marked" if mark is None else f"{number(mark)} / {most}"
        title = text(part.title or exercise.id)
        if part.title and not part.numbered:  # several may stand below one heading
            title += f' <span class="soft small">{text(exercise.id)}</span>'
        colour = _colour(mark, exercise)
        inner = [f'<h2><span>{title}</span><span class="points {colour}">{points}</span></h2>']
        if not exercise.by_hand:
            results = {name: self.outcome.cells.get(name) for name in exercise.cells}
            inner.append(_checks(results, part.tests))
            automatic = sum(result.points for result in results.values() if result)
            if mark is not None and any(results.values()) and abs(mark - automatic) > 1e-6:
                inner.append('<p class="soft small">A marker changed the points of this exercise.</p>')
        inner += [self._comment(name) for name in exercise.cells if name in part.tests]
        if part.question:
            inner.append(f"<details><summary>the question</summary>{shown.prose(part.question)}</details>")
        inner += [self._cell(cell) for cell in part.cells]
        return f'<section class="exercise">{"".join(inner)}</section>'

    def _cell(self, cell: NotebookNode) -> str:
        if cell.cell_type == "code":
            if not cell.source.strip() and not cell.get("outputs"):
                return ""
            inner = shown.source(cell) + shown.outputs(cell, self.pictures)
        elif cell.cell_type == "heading":
            inner = f"<h3>{text(cell.source)}</h3>"
        else:
            inner = shown.written(cell)
        return inner + self._comment(grade_id(cell))

    def _comment(self, name: str) -> str:
        comment = self.comments.get(name, "").strip()
        return f'<div class="comment"><b>Comment:</b> {text(comment)}</div>' if comment else ""


def _colour(mark: float | None, exercise: Exercise) -> str:
    if mark is None:
        return "soft"
    return "good" if mark >= exercise.max_score - 1e-9 else "bad" if mark <= 0 else "part"


def _checks(results: Mapping[str, CellResult | None], tests: Mapping[str, str]) -> str:
    """The list of an exercise's checks."""
    items = []
    for index, (name, result) in enumerate(results.items(), 1):
        result = result or CellResult(0.0, 0.0, NOT_RUN)
        sign, colour, meaning = SIGNS.get(result.status, SIGNS[FAILED])
        code = tests.get(name, "")
        topic = _topic(code, result.status == PASSED)
        what = f'<b>Check {index}</b> <span class="{colour}">{meaning}</span>'
        what += f' <span class="soft">· {text(topic)}</span>' if topic else ""
        if result.status != PASSED and result.message:
            what += f'<p class="said">{text(result.message)}</p>'
        points = f"{number(result.points)} / {number(result.max_points)}" if result.max_points else ""
        items.append(
            f'<li><span class="{colour}" aria-hidden="true">{sign}</span><div class="what">{what}'
            f'{_visible(code)}</div><span class="points">{points}</span></li>'
        )
    return f'<ul class="checks">{"".join(items)}</ul>'


def _visible(code: str) -> str:
    """The part of a test that students have in their notebooks, folded."""
    hidden = hidden_lines(code)
    seen = re.sub(r"\n{3,}", "\n\n", visible_text(code)).strip()
    note = f'<p class="soft small">{HIDDEN_NOTE}</p>' if hidden else ""
    if not seen:
        return note
    return f"<details><summary>what is checked</summary><pre>{text(seen)}</pre>{note}</details>"


def _topic(code: str, passed: bool) -> str:
    """What a check is about: its own closing words where it passed, else the values that it looks at."""
    try:
        calls = [node for node in ast.walk(ast.parse(visible_text(code))) if isinstance(node, ast.Call)]
    except (SyntaxError, ValueError, RecursionError):
        return ""
    called = [(node.func.id, _first_text(node)) for node in calls if isinstance(node.func, ast.Name)]
    if passed:
        return next((said.removeprefix("Right: ") for name, said in called if name == "print" and said), "")
    values = list(dict.fromkeys(said for name, said in called if name.startswith("check_") and said))
    return ", ".join(values[:4]) + (" and more" if len(values) > 4 else "")


def _first_text(call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _sorted_out(
    notebook: NotebookNode, exercises: Sequence[Exercise]
) -> tuple[dict[str, _Part], list[NotebookNode]]:
    """The cells of each exercise, and the others that are the student's, with headings to find one's way."""
    owner = {name: exercise for exercise in exercises for name in exercise.cells}
    by_own_id = {name.rpartition("-test-")[0]: owner[name] for name in owner if "-test-" in name}
    parts = {exercise.id: _Part() for exercise in exercises}
    others: list[NotebookNode] = []
    waiting: list[NotebookNode] = []
    heading = question = ""
    course = "mbrl_course" in notebook.metadata
    for cell in notebook.cells:
        flags, name = _flags(cell), grade_id(cell)
        if cell.cell_type == "markdown" and not flags.get("solution"):
            question = str(cell.source)
        own = _own(cell)
        if name in owner:
            part = parts[owner[name].id]
            part.numbered = bool(_title(own)) or heading.startswith("Exercise ")
            part.title = part.title or _title(own) or heading
            if owner[name].by_hand:
                part.cells.append(cell)
                part.question = question
            else:
                part.tests[name] = str(cell.source)
                part.cells += waiting
                waiting = []
        elif cell.cell_type == "code" and flags.get("solution"):
            if (exercise := by_own_id.get(str(own.get("exercise") or name))) is not None:
                parts[exercise.id].cells.append(cell)
            else:
                waiting.append(cell)
        elif cell.cell_type == "code":
            if not flags.get("locked") and not flags.get("grade"):
                others.append(cell)
        elif found := _heading(str(cell.source)):
            heading = found
            others.append(NotebookNode(cell_type="heading", source=heading, metadata={}))
        elif course and not flags and not _COURSE_PROSE.fullmatch(str(cell.get("id", ""))):
            others.append(cell)
    return parts, _with_use([*others, *waiting])


def _heading(markdown: str) -> str:
    """The first heading of a text, or ""."""
    for line in markdown[:5000].splitlines():
        if re.match(r" {0,3}#{1,6}\s", line) and (heading := line.strip().strip("#").strip()):
            return heading[:300]
    return ""


def _with_use(cells: list[NotebookNode]) -> list[NotebookNode]:
    """`cells` without headings below which nothing stands."""
    following = [*cells, None][1:]
    return [
        cell
        for cell, after in zip(cells, following, strict=True)
        if cell.cell_type != "heading" or (after is not None and after.cell_type != "heading")
    ]


def _title(own: Mapping[str, Any]) -> str:
    return " ".join(str(own[key]) for key in ("number", "title") if own.get(key))


def _own(cell: NotebookNode) -> dict[str, Any]:
    found = cell.metadata.get("mbrl_course")
    return found if isinstance(found, dict) else {}


def _flags(cell: NotebookNode) -> dict[str, Any]:
    found = cell.metadata.get("nbgrader")
    return found if isinstance(found, dict) else {}
