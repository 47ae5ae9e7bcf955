"""Turns a checked source into an nbgrader source notebook, and notebooks into text that compares."""

from __future__ import annotations

import ast
import hashlib
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mbrl_autograder.authoring.course import PACKAGE
from mbrl_autograder.authoring.source import Cell, Source

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
METADATA_KEY = PACKAGE  # the course's own entry in the metadata of notebooks and cells
EXECUTED_KEY = "executed"  # what the outputs were made with; only in solutions/


def assemble(source: Source) -> NotebookNode:
    """The nbgrader source notebook of a source without problems, not executed: same text, same bytes."""
    exercises = {cell.exercise: cell for cell in source.of_kind("exercise")}
    counts: dict[str, int] = {}
    used: set[str] = set()
    cells = []
    for cell in source.cells:
        key = cell.exercise if cell.kind == "test" else cell.kind
        counts[key] = counts.get(key, 0) + 1
        grade_id = _grade_id(cell, counts[key])
        code = silent(cell.code) if cell.kind == "test" else cell.code
        node = new_code_cell(code) if cell.is_code else new_markdown_cell(_markdown(cell))
        node.id = _cell_id(cell, grade_id, node.source, used)
        node.metadata = _cell_metadata(cell, grade_id, exercises.get(cell.exercise))
        cells.append(node)
    metadata = {
        "kernelspec": dict(KERNEL),
        "language_info": {"name": "python"},
        METADATA_KEY: {"notebook": source.name, "week": source.week.id},
    }
    notebook = new_notebook(cells=cells, metadata=metadata)
    notebook.nbformat_minor = 5
    return notebook


def silent(code: str) -> str:
    """A test cell that shows no value: nbgrader takes the value of a last expression for partial credit."""
    last = ast.parse(code).body[-1:]
    if not last or not isinstance(last[0], ast.Expr):
        return code
    value = last[0].value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "print":
        return code
    lines = code.split("\n")
    line, column = (last[0].end_lineno or 1) - 1, last[0].end_col_offset
    text = lines[line].encode()  # columns count bytes
    lines[line] = (text[:column] + b";" + text[column:]).decode()
    return "\n".join(lines)


def to_text(notebook: NotebookNode) -> str:
    """A notebook as it is written to a file."""
    return nbformat.writes(notebook, version=4) + "\n"


def without_outputs(notebook: NotebookNode) -> NotebookNode:
    """A copy without outputs, execution counts, and the note of what they were made with."""
    bare = nbformat.from_dict(notebook)
    for cell in bare.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    bare.metadata.get(METADATA_KEY, {}).pop(EXECUTED_KEY, None)
    return bare


def header(cell: Cell) -> str:
    """The lines that open an exercise: number and title, then difficulty, minutes and points."""
    difficulty, minutes, points = cell["difficulty"], cell["minutes"], cell.points
    facts = [
        f"difficulty {'●' * difficulty}{'○' * (5 - difficulty)}",
        f"about {minutes} minute{'s' if minutes != 1 else ''}",
        f"{points:g} point{'s' if points != 1 else ''}",
        *(["bonus"] if cell.options.get("bonus") else []),
    ]
    return f"### Exercise {cell['number']} · {cell['title']}\n{' · '.join(facts)}"


def _markdown(cell: Cell) -> str:
    return f"{header(cell)}\n\n{cell.text}".strip() if cell.kind == "exercise" else cell.text


def _grade_id(cell: Cell, count: int) -> str:
    if cell.kind == "solution":
        return cell.exercise
    if cell.kind == "test":
        return f"{cell.exercise}-test-{count}"
    if cell.kind in ("setup", "given", "written"):
        return str(cell.options.get("id") or f"{cell.kind}-{count}")
    return ""


def _cell_id(cell: Cell, grade_id: str, text: str, used: set[str]) -> str:
    """An id of nbformat 4.5: the grade id, or one that only depends on the text."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    base = grade_id[:60] or f"{cell.exercise[:50] or cell.kind}-{digest}"
    name, number = base, 1
    while name in used:
        number += 1
        name = f"{base}-{number}"
    used.add(name)
    return name


def _cell_metadata(cell: Cell, grade_id: str, exercise: Cell | None) -> dict[str, Any]:
    if cell.kind == "parameters":
        return {"tags": ["parameters"], METADATA_KEY: {"kind": "parameters"}}
    if not grade_id:
        return {}
    graded, solved = cell.kind in ("test", "written"), cell.kind in ("solution", "written")
    nbgrader: dict[str, Any] = {
        "grade": graded,
        "grade_id": grade_id,
        "locked": not solved,
        "schema_version": 3,
        "solution": solved,
        "task": False,
    }
    if graded:
        nbgrader["points"] = cell.points
    own: dict[str, Any] = {"kind": cell.kind}
    if exercise is not None:
        own |= {"exercise": cell.exercise, "number": str(exercise["number"]), "title": exercise["title"]}
        own |= {"bonus": True} if exercise.options.get("bonus") else {}
    return {METADATA_KEY: own, "nbgrader": nbgrader}
