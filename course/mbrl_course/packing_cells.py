"""Compares the cells of a student's notebook with those that were released."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

Notebook = dict[str, Any]
Cell = dict[str, Any]

SHOWN = 6  # names in a list, before "and N more"


class Cells:
    """A notebook's cells beside those of the release.

    Attributes:
        repaired: a copy of the notebook in which every cell of the release is there once.
        notes: what was put right in it.
    """

    def __init__(self, notebook: Notebook, original: Notebook) -> None:
        """Compares; both stay as they are."""
        self.original = {grade_id(cell): cell for cell in original["cells"] if grade_id(cell)}
        self._by_cell_id = {cell.get("id"): name for name, cell in self.original.items()}
        self._headings = _headings(original)
        self.notes: list[str] = []
        self.repaired = copy.deepcopy(notebook)
        self.repaired["cells"] = self._repair([cell for cell in notebook["cells"] if isinstance(cell, dict)])
        mark = {"mbrl_course": original["metadata"].get("mbrl_course", {})}
        self.repaired["metadata"] = {**notebook.get("metadata", {}), **mark}
        self.repaired |= {"nbformat": 4, "nbformat_minor": max(5, notebook.get("nbformat_minor", 5))}

    # what can be put right --------------------------------------------------------------------------

    def _repair(self, cells: list[Cell]) -> list[Cell]:
        names = self._names(cells)
        found: dict[str, list[Cell]] = {}
        result: list[Cell] = []
        for cell, name in zip(cells, names, strict=True):
            if not name:
                result.append(_without_mark(cell))
            elif name not in found:
                found[name] = [cell]
                result.append(_marked(cell, self.original[name]))
            elif is_solution(self.original[name]):
                found[name].append(cell)
            elif text(cell).strip() != text(self.original[name]).strip():
                result.append(_without_mark(cell))  # a copy that was changed is the student's own
        for cell in result:
            if name := cell.get("metadata", {}).get("nbgrader", {}).get("grade_id"):
                self._put_right(cell, name, found[name])
        result = self._with_missing(result)
        _unique_ids(result)
        return result

    def _names(self, cells: list[Cell]) -> list[str]:
        """The name of each cell in the release, or ""; by the cell's own id where a tool dropped the name."""
        names = [name if (name := grade_id(cell)) in self.original else "" for cell in cells]
        for index, cell in enumerate(cells):
            other = self._by_cell_id.get(cell.get("id"), "")
            if not names[index] and other and other not in names:
                names[index] = other
                self.notes.append(f"{self.label(other)}: its cell had lost its name, and has it again")
        return names

    def _put_right(self, cell: Cell, name: str, parts: list[Cell]) -> None:
        original = self.original[name]
        if not is_solution(original):
            if text(cell).strip() != text(original).strip():
                what = "its check was changed" if _is_test(original) else "its locked cell was changed"
                self.notes.append(f"{self.label(name)}: {what}; it is as released again, as in the grading")
            cell["source"] = original["source"]
            return
        if len(parts) > 1:
            cell["source"] = _joined([text(part) for part in parts], text(original))
            self.notes.append(
                f"{self.label(name)}: its cell was there {len(parts)} times (Split Cell and copying do "
                "that); the parts are one cell again"
            )

    def _with_missing(self, cells: list[Cell]) -> list[Cell]:
        """`cells` with those that are gone, each behind the one that precedes it in the release."""
        place = 0
        for name, original in self.original.items():
            index = next((i for i, cell in enumerate(cells) if grade_id(cell) == name), None)
            if index is not None:
                place = index + 1
                continue
            cells.insert(place, copy.deepcopy(original))
            place += 1
            if is_solution(original):
                self.notes.append(
                    f"{self.label(name)}: its cell was missing; the empty one of the release is there "
                    "instead. If you wrote it in another cell, move your code into this one and pack again"
                )
            else:
                what = "its check" if _is_test(original) else "its locked cell"
                self.notes.append(f"{self.label(name)}: {what} was missing and is there again")
        return cells

    # what only the student can mend -------------------------------------------------------------------

    def remarks(self) -> list[str]:
        """What to look at before handing in, in the order of the notebook."""
        found = []
        for name in self.original:
            if is_solution(self.original[name]):
                found += [f"{self.label(name)}: {what}" for what in self._remarks_on(name)]
        if not any(_is_test(cell) for cell in self.original.values()):
            cells = enumerate(self.repaired["cells"], 1)
            idle = [i for i, cell in cells if cell.get("cell_type") == "code" and _never_run(cell)]
            if idle:
                listed = ", ".join(map(str, idle[:SHOWN])) + (", ..." if len(idle) > SHOWN else "")
                what = "1 cell was" if len(idle) == 1 else f"{len(idle)} cells were"
                found.append(f"{what} never run, and what is not there can't be marked: number {listed}")
        return found

    def _remarks_on(self, name: str) -> Iterator[str]:
        cell, original = self._cell(name), self.original[name]
        bonus = " (it is a bonus)" if own(original).get("bonus") else ""
        if original["cell_type"] != "code":
            if text(cell).strip() in ("", text(original).strip()):
                yield "not answered yet"
            return
        if text(cell).strip() == text(original).strip() or not text(cell).strip():
            yield f"not written yet{bonus}"
            return
        try:
            unwritten = _unwritten(text(cell))
        except SyntaxError as error:
            yield f"the cell is no valid Python (line {error.lineno}: {error.msg})"
            return
        if unwritten:
            yield f"{', '.join(unwritten)} still says raise NotImplementedError{bonus}"
            return
        tests = self._tests(name)
        if _never_run(cell):
            yield "the cell was never run: run it, then the checks below it"
        elif any(_never_run(test) for test in tests):
            yield "not all of its checks were run"
        elif any(_count(test) < _count(cell) for test in tests):
            yield "the cell was run again after its checks: run the checks, too"
        for number, test in enumerate(tests, 1):
            if message := _error(test):
                which = f"check {number}" if len(tests) > 1 else "the check"
                yield f"{which} said, when it was last run: {message}"

    def summary(self) -> str:
        """How many exercises there are, and how many of them are written."""
        solutions = [name for name, cell in self.original.items() if is_solution(cell)]
        written = [
            name for name in solutions if not any(w in r for r in self._remarks_on(name) for w in _OPEN)
        ]
        code = any(self.original[name]["cell_type"] == "code" for name in solutions)
        noun = "exercise" if code else "question"
        verb = "written" if code else "answered"
        return f"{len(written)} of {len(solutions)} {noun}{'s' * (len(solutions) != 1)} {verb}"

    def label(self, name: str) -> str:
        """What people call a cell: "exercise 3.1 (Refit to the elites)"."""
        mark = own(self.original[name])
        if mark.get("number"):
            return f"exercise {mark['number']} ({mark.get('title', name)})"
        heading = self._headings.get(name, "")
        return f"{name} (in {heading!r})" if heading else name

    def _cell(self, name: str) -> Cell:
        return next(cell for cell in self.repaired["cells"] if grade_id(cell) == name)

    def _tests(self, name: str) -> list[Cell]:
        """The checks of an exercise, in the repaired notebook."""
        return [
            cell
            for cell in self.repaired["cells"]
            if _is_test(cell) and grade_id(cell).rpartition("-test-")[0] == name
        ]


_OPEN = ("not written yet", "not answered yet", "NotImplementedError", "no valid Python")


def text(cell: Cell) -> str:
    """A cell's text."""
    source = cell.get("source", "")
    found = "".join(part for part in source if isinstance(part, str)) if isinstance(source, list) else source
    return found.replace("\r\n", "\n") if isinstance(found, str) else ""


def _mark(cell: Cell, key: str) -> dict[str, Any]:
    metadata = cell.get("metadata")
    found = metadata.get(key) if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def grade_id(cell: Cell) -> str:
    """nbgrader's name of a cell, or ""."""
    name = _mark(cell, "nbgrader").get("grade_id")
    return name if isinstance(name, str) else ""


def own(cell: Cell) -> dict[str, Any]:
    """What the course's build says of a cell: exercise, number, title."""
    return _mark(cell, "mbrl_course")


def is_solution(cell: Cell) -> bool:
    """Whether a cell is for the student to fill in."""
    return bool(_mark(cell, "nbgrader").get("solution"))


def _is_test(cell: Cell) -> bool:
    return bool(_mark(cell, "nbgrader").get("grade")) and not is_solution(cell)


def _without_mark(cell: Cell) -> Cell:
    """The cell as an ordinary one."""
    cell = copy.deepcopy(cell)
    if isinstance(cell.get("metadata"), dict):
        cell["metadata"].pop("nbgrader", None)
    return cell


def _marked(cell: Cell, original: Cell) -> Cell:
    """The student's cell with the kind and the marks of the released one."""
    result = copy.deepcopy(original)
    result["source"] = cell.get("source", "")
    if isinstance(cell.get("id"), str):
        result["id"] = cell["id"]
    if original["cell_type"] == "code":
        same = cell.get("cell_type") == "code"
        result["outputs"] = copy.deepcopy(cell.get("outputs", [])) if same else []
        result["execution_count"] = cell.get("execution_count") if same else None
    return result


def _joined(parts: list[str], stub: str) -> str:
    """The parts of a cell that was split or copied, as one: untouched copies of the stub go."""
    touched = [part for part in parts if part.strip() not in ("", stub.strip())]
    return "\n".join(dict.fromkeys(touched)) if touched else stub


def _unique_ids(cells: list[Cell]) -> None:
    """Gives each cell an id of its own, as the format asks."""
    used: set[str] = set()
    for place, cell in enumerate(cells, 1):
        base = str(cell.get("id") or f"cell-{place}")[:56]
        name, number = base, 1
        while name in used:
            number += 1
            name = f"{base}-{number}"
        cell["id"] = name
        used.add(name)


def _unwritten(source: str) -> list[str]:
    """The functions that only raise NotImplementedError; "the cell" where it is not in a function.

    Raises:
        SyntaxError: the cell is not Python.
    """
    plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.split("\n"))
    tree = ast.parse(plain)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(_is_stub(part) for part in node.body):
            found.append(node.name)
    return found or (["the cell"] if any(_is_stub(part) for part in tree.body) else [])


def _is_stub(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Raise) or node.exc is None:
        return False
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def _never_run(cell: Cell) -> bool:
    return cell.get("execution_count") is None and not cell.get("outputs") and bool(text(cell).strip())


def _count(cell: Cell) -> int:
    count = cell.get("execution_count")
    return count if isinstance(count, int) else 0


def _error(cell: Cell) -> str:
    """The first line of the error below a cell, or ""."""
    for output in cell.get("outputs", []):
        if isinstance(output, dict) and output.get("output_type") == "error":
            lines = [str(output.get("ename", "Error")), *str(output.get("evalue", "")).strip().splitlines()]
            return (
                lines[1][:200]
                if len(lines) > 1 and lines[0] == "AssertionError"
                else ": ".join(lines[:2])[:200]
            )
    return ""


def _headings(notebook: Notebook) -> dict[str, str]:
    """For each named cell, the heading above it."""
    found: dict[str, str] = {}
    heading = ""
    for cell in notebook["cells"]:
        if name := grade_id(cell):
            found[name] = heading
        elif cell.get("cell_type") == "markdown":
            lines = [line for line in text(cell).splitlines() if line.startswith("#")]
            heading = lines[0].lstrip("# ").strip() if lines else heading
    return found
