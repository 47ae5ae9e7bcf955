"""The marker's page of a student: questions, answers, rubrics, and what the code showed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbformat import NotebookNode

from mbrl_autograder.judge.notebook import grade_id

from . import cells as shown
from .html import number, page, text, write

if TYPE_CHECKING:  # the grading imports this package
    from mbrl_autograder.grading.model import Exercise

NOTE = "For instructors: this page shows model answers and rubrics. Marks are given in the formgrader."


@dataclass(frozen=True)
class Marked:
    """A notebook with cells that are marked by hand.

    Attributes:
        name: such as "experiments".
        notebook: as it was handed in, sanitised.
        exercises: those of it that are marked by hand.
        answers: the source's model answers and rubrics, by grade_id.
        again: the notebook when it was run again, if it was.
        said: what came of that, in words.
    """

    name: str
    notebook: NotebookNode
    exercises: Sequence[Exercise]
    answers: Mapping[str, str]
    again: NotebookNode | None = None
    said: str = ""


def write_marking(path: Path, assignment: str, student: str, notebooks: Sequence[Marked]) -> Path:
    """Writes the page, which is for instructors alone; of the submission it has text and pictures only."""
    head = f'<p class="kicker">{text(assignment)}</p><h1>To mark: {text(student)}</h1>'
    body = [head, f'<p class="soft small">{NOTE}</p>']
    pictures = shown.Pictures()
    for marked in notebooks:
        body.append(f"<h2>{text(marked.name)}.ipynb</h2>")
        if marked.said:
            body.append(f'<div class="notice">{text(marked.said)}</div>')
        body += _cells(marked, pictures)
    return write(path, page(f"{assignment} · to mark · {student}", "\n".join(body), width="72rem"))


def _cells(marked: Marked, pictures: shown.Pictures) -> list[str]:
    most = {exercise.cells[0]: exercise.max_score for exercise in marked.exercises}
    again = {cell.id: cell for cell in marked.again.cells} if marked.again is not None else {}
    parts = []
    question = ""
    for cell in marked.notebook.cells:
        name = grade_id(cell)
        if name in most:
            parts.append(_answer(cell, name, most[name], question, marked.answers.get(name, "")))
        if cell.cell_type == "code":
            parts.append(_code(cell, again.get(cell.id), pictures, known=name not in most))
        elif name not in most:
            question = str(cell.source)
    return [part for part in parts if part]


def _answer(cell: NotebookNode, name: str, most: float, question: str, rubric: str) -> str:
    points = f'<span class="points soft">{number(most)} points</span>'
    inner = [f"<h2><span>{text(name)}</span>{points}</h2>"]
    if question:
        inner.append(f"<details><summary>the question</summary>{shown.prose(question)}</details>")
    if cell.cell_type != "code":
        inner.append(shown.written(cell))
    if rubric:
        inner.append(f'<h3>Model answer and rubric</h3><div class="notice">{shown.prose(rubric)}</div>')
    return f'<section class="exercise">{"".join(inner)}</section>'


def _code(cell: NotebookNode, again: NotebookNode | None, pictures: shown.Pictures, known: bool) -> str:
    """A cell's code, folded where it is no answer, and what it showed: handed in, and when run again."""
    if not cell.source.strip() and not cell.get("outputs"):
        return ""
    code = shown.source(cell)
    if known:
        first = next((line for line in str(cell.source).splitlines() if line.strip()), "")
        code = f"<details><summary>{text(first[:90])}</summary>{code}</details>"
    arrived = shown.outputs(cell, pictures)
    if again is None:
        return code + arrived
    both = [("handed in", arrived), ("run again", shown.outputs(again, pictures))]
    if not any(output for _, output in both):
        return code
    sides = (f'<div><p class="soft small">{title}</p>{output}</div>' for title, output in both)
    return f'{code}<div class="pair">{"".join(sides)}</div>'
