"""A small nbgrader course for tests: two exercises without torch, and one written question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ASSIGNMENT = "sums"
RIGHT = {
    "add": "def add(a, b):\n    return a + b",
    "double": "def double(x):\n    return 2 * x",
}


def metadata(grade_id: str, *, points: int | None = None, solution: bool = False) -> dict[str, Any]:
    """The nbgrader metadata of a cell."""
    values: dict[str, Any] = {
        "grade_id": grade_id,
        "grade": points is not None,
        "solution": solution,
        "locked": not solution,
        "task": False,
        "schema_version": 3,
    }
    if points is not None:
        values["points"] = points
    return {"nbgrader": values}


def solution(name: str) -> NotebookNode:
    """The source's solution cell."""
    head, body = RIGHT[name].split("\n")
    text = f"{head}\n    ### BEGIN SOLUTION\n{body}\n    ### END SOLUTION"
    return new_code_cell(text, metadata=metadata(name, solution=True))


def build_source() -> NotebookNode:
    """The source notebook with automatic points: add (3 points in two cells), double (2 points)."""
    hidden = "### BEGIN HIDDEN TESTS\nassert add(20, 22) == 42, 'the answer'  # HIDDEN\n### END HIDDEN TESTS"
    cells = [
        new_markdown_cell("# Sums", metadata=metadata("intro")),
        new_code_cell("import math", metadata=metadata("setup")),
        solution("add"),
        new_code_cell("assert add(1, 2) == 3", metadata=metadata("add-test-1", points=1)),
        new_code_cell(f"assert add(0, 0) == 0\n{hidden}", metadata=metadata("add-test-2", points=2)),
        solution("double"),
        new_code_cell("assert double(4) == 8, 'twice as much'", metadata=metadata("double-test-1", points=2)),
        new_code_cell("print(math.pi)"),
    ]
    return _numbered(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}))


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def experiments_source() -> NotebookNode:
    """The source notebook that is marked by hand."""
    cells = [
        new_markdown_cell("Why?", metadata=metadata("why")),
        new_markdown_cell("YOUR ANSWER HERE", metadata=metadata("q1", points=4, solution=True)),
        new_code_cell("raise RuntimeError('never run while grading')"),
    ]
    return _numbered(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}))


def _numbered(notebook: NotebookNode) -> NotebookNode:
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
    return notebook


def make_course(root: Path, *, experiments: bool = False) -> Path:
    """A course directory with the assignment's sources."""
    source = root / "source" / ASSIGNMENT
    source.mkdir(parents=True)
    nbformat.write(build_source(), source / "build.ipynb")
    if experiments:
        nbformat.write(experiments_source(), source / "experiments.ipynb")
    return root


def submitted(answers: dict[str, str] | None = None) -> NotebookNode:
    """What a student hands in: the release with `answers` in the solution cells."""
    notebook = build_source()
    for cell in notebook.cells:
        info = cell.metadata.get("nbgrader", {})
        if info.get("solution"):
            empty = RIGHT[info["grade_id"]].split("\n")[0] + "\n    raise NotImplementedError()"
            cell.source = (answers or {}).get(info["grade_id"], empty)
        elif info.get("grade"):
            cell.source = cell.source.split("\n### BEGIN HIDDEN")[0]
    return notebook


def hand_in(folder: Path, student: str, notebook: NotebookNode | str | bytes, name: str = "build") -> Path:
    """Writes DIR/<student>/sums/<name>.ipynb."""
    path = folder / student / ASSIGNMENT / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(notebook, bytes):
        path.write_bytes(notebook)
    else:
        text = notebook if isinstance(notebook, str) else nbformat.writes(notebook)
        path.write_text(text, encoding="utf-8")
    return path
