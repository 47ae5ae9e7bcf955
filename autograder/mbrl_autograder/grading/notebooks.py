"""Reads what arrived as a notebook, and puts the source's locked and test cells back into it."""

from __future__ import annotations

import ast
import copy
import json
import re
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearOutput, ClearSolutions, ComputeChecksums, LockCells
from traitlets.config import Config

from mbrl_autograder.judge.display import marked_notebook, safe_outputs
from mbrl_autograder.judge.notebook import UnreadableError as NotANotebookError
from mbrl_autograder.judge.notebook import grade_id as id_in
from mbrl_autograder.judge.notebook import parse_notebook, read_bytes, text_of
from mbrl_autograder.judge.plan import check_size

from .model import GradingError, Limits

COURSE_KEY = "mbrl_course"  # the build's own entry in the metadata of notebooks and cells
KINDS = ("code", "markdown", "raw")


def read_content(path: Path, limit: int = Limits.notebook_bytes) -> dict[str, Any]:
    """The JSON of the notebook in `path`, of format 4: an older format is converted.

    Raises:
        NotANotebookError: not a plain file of at most `limit` bytes, not UTF-8, not JSON, no notebook, a
            format that nobody knows, or more cells than anybody writes.
    """
    data = read_bytes(path, limit)
    try:
        content = parse_notebook(data)
    except NotANotebookError:
        older = _converted(data)
        if older is None:
            raise
        content = older
    if not any(isinstance(cell, dict) and cell.get("cell_type") in KINDS for cell in content["cells"]):
        raise NotANotebookError("the notebook has no cells")
    check_size(content)
    return content


def _converted(data: bytes) -> dict[str, Any] | None:
    """A notebook of formats 1 to 3 as one of format 4, or None where it is none."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
        if content.get("nbformat") not in (1, 2, 3):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            new: dict[str, Any] = json.loads(
                nbformat.writes(nbformat.reads(json.dumps(content), as_version=4))
            )
        return parse_notebook(json.dumps(new).encode())
    except Exception:  # nbformat raises many kinds for what is no notebook
        return None


def clean(content: dict[str, Any]) -> NotebookNode:
    """A notebook of format 4.5 with the cells of `content`: their texts, ids and outputs, as far as they fit.

    Outputs are reduced to text and pictures. What is not as it should be in a notebook (missing or doubled
    cell ids, odd metadata, further keys) is left out, so that it costs no marks and reaches no reader.
    """
    cells: list[dict[str, Any]] = []
    ids: set[str] = set()
    for number, raw in enumerate(content["cells"]):
        kind = raw.get("cell_type") if isinstance(raw, dict) else None
        if kind not in KINDS:
            continue
        name = id_in(raw)
        cell = {"cell_type": kind, "metadata": {}, "source": text_of(raw), "id": raw.get("id")}
        if not isinstance(cell["id"], str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cell["id"]):
            cell["id"] = f"arrived-{number}"
        cell["id"] = _free(cell["id"], ids)
        if name:
            cell["metadata"] = {"nbgrader": {"grade_id": name}}
        if kind == "code":
            cell |= {"outputs": safe_outputs(raw.get("outputs")), "execution_count": None}
        cells.append(cell)
    return nbformat.from_dict({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def _free(name: str, taken: set[str]) -> str:
    """`name`, or one like it that is not in `taken`; it is then."""
    number = len(taken)
    new = name
    while new in taken:
        new = f"{name[:50]}-{number}"
        number += 1
    taken.add(new)
    return new


def read_notebook(path: Path, limit: int = Limits.notebook_bytes) -> NotebookNode:
    """The notebook in `path`, cleaned (see `clean`).

    Raises:
        NotANotebookError: there is none (see `read_content`).
    """
    return clean(read_content(path, limit))


def grading_template(source: Path, config: Config) -> NotebookNode:
    """The source notebook without its solutions, but with the hidden tests and nbgrader's checksums.

    Args:
        source: the notebook with solutions.
        config: the course's nbgrader configuration (delimiters, stubs).

    Raises:
        GradingError: it is no notebook that nbgrader could release.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing cell ids
            notebook = nbformat.read(source, as_version=4)
        notebook.nbformat_minor = 5
        ids: set[str] = set()
        for number, cell in enumerate(notebook.cells):
            cell.id = _free(cell.get("id", f"source-{number}"), ids)
        resources: dict[str, Any] = {}
        for preprocessor in (LockCells, ClearSolutions, ClearOutput, ComputeChecksums):
            notebook, resources = preprocessor(config=config).preprocess(notebook, resources)
    except Exception as error:  # nbformat and nbgrader raise many kinds
        raise GradingError(f"{source} cannot be used as a source notebook: {error}") from error
    names = [grade_id(cell) for cell in notebook.cells if grade_id(cell)]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise GradingError(f"{source}: more than one cell is called {', '.join(doubled)}")
    return notebook


def grade_id(cell: NotebookNode) -> str:
    """The nbgrader id of `cell`, or "" where it has none (whatever its metadata are)."""
    metadata = cell.metadata.get("nbgrader")
    name = metadata.get("grade_id") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def is_test(cell: NotebookNode) -> bool:
    """True for a cell of automatic points: graded code that is not the student's."""
    metadata = cell.metadata.get("nbgrader", {})
    return bool(cell.cell_type == "code" and metadata.get("grade") and not metadata.get("solution"))


def has_tests(template: NotebookNode) -> bool:
    """True where a notebook has automatic points; one without is marked by hand, as it was handed in."""
    return any(is_test(cell) for cell in template.cells)


def locked_text(notebook: NotebookNode) -> list[str]:
    """The ids of markdown cells that are locked: theirs is the source's text."""
    ids = []
    for cell in notebook.cells:
        flags = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and flags.get("locked") and not flags.get("solution"):
            ids.append(flags.get("grade_id", ""))
    return ids


def for_marker(notebook: NotebookNode) -> NotebookNode:
    """A restored notebook that is not run: as it was handed in, without live HTML or scripts."""
    return marked_notebook(notebook, {}, {}, locked_text(notebook))


def restore(notebook: NotebookNode, template: NotebookNode) -> NotebookNode:
    """`notebook` with everything that is not the student's taken from `template` again.

    A cell that the template knows by its nbgrader id gets the template's metadata and kind, and its text too
    where it is locked. Locked and test cells that are gone come back behind the cell that precedes them in
    the template; a test that stands above the solutions that it follows in the template moves below them.
    A second cell of the same id (JupyterLab's "split cell" makes them) stays as an ordinary
    cell, and so does one of an unknown id. Outputs of the notebook's own run stay; where the kernel spec
    differs, the template's is taken.
    """
    known = {grade_id(cell): cell for cell in template.cells if grade_id(cell)}
    cells: list[NotebookNode] = []
    present: set[str] = set()
    for cell in notebook.cells:
        name = grade_id(cell)
        cell.metadata.pop("nbgrader", None)
        if name in known and name not in present:
            present.add(name)
            cell = _restored(cell, known[name])
        cells.append(cell)
    cells = _tests_after_solutions(_with_missing(cells, known), list(known))
    ids: set[str] = set()
    for cell in cells:
        cell.id = _free(cell.id, ids)
    notebook.cells = cells
    notebook.metadata = copy.deepcopy(template.metadata)
    return notebook


def _with_missing(cells: list[NotebookNode], known: dict[str, NotebookNode]) -> list[NotebookNode]:
    """`cells` with the locked and test cells that are gone, each behind its predecessor in `known`."""
    cells = list(cells)
    position = -1
    for name, cell in known.items():
        index = next((i for i, other in enumerate(cells) if grade_id(other) == name), None)
        if index is not None:
            position = index
        elif not cell.metadata.nbgrader.get("solution"):
            position += 1
            cells.insert(position, copy.deepcopy(cell))
    return cells


def _tests_after_solutions(cells: list[NotebookNode], order: list[str]) -> list[NotebookNode]:
    """`cells` with each test below those solutions that precede it in `order`, and otherwise as they are."""
    solutions = {grade_id(cell) for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")}
    result: list[NotebookNode] = []
    waiting: list[NotebookNode] = []
    for cell in cells:
        (waiting if is_test(cell) else result).append(cell)
        solutions.discard(grade_id(cell))
        ready = [one for one in waiting if not solutions & set(order[: order.index(grade_id(one))])]
        waiting = [one for one in waiting if one not in ready]
        result += ready
    return result + waiting


def _restored(cell: NotebookNode, template: NotebookNode) -> NotebookNode:
    result = copy.deepcopy(template)
    if cell.cell_type == template.cell_type:
        result.id = cell.get("id", result.id)
        if result.cell_type == "code":
            result.outputs = cell.outputs
            result.execution_count = cell.execution_count
    if not _is_locked(template):
        result.source = cell.source
    return result


def _is_locked(cell: NotebookNode) -> bool:
    metadata = cell.metadata.nbgrader
    if metadata.get("solution"):
        return False
    return bool(metadata.get("grade") or metadata.get("locked") or metadata.get("task"))


def set_parameter(notebook: NotebookNode, name: str, value: str) -> None:
    """Writes a value into the first cell that assigns a plain value to `name`.

    Args:
        notebook: is changed.
        name: a parameter, such as "SCALE".
        value: as in Python; what is not is taken as a text.

    Raises:
        GradingError: no cell does; the message lists the parameters that there are.
    """
    try:
        literal = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        literal = value
    found: list[str] = []
    for cell in notebook.cells:
        for known, node in _parameters(cell):
            if known == name:
                lines = cell.source.encode().split(b"\n")
                before, after = lines[node.lineno - 1], lines[(node.end_lineno or node.lineno) - 1]
                new = before[: node.col_offset] + repr(literal).encode() + after[node.end_col_offset :]
                lines[node.lineno - 1 : node.end_lineno] = [new]
                cell.source = b"\n".join(lines).decode()
                return
            found.append(known)
    known = ", ".join(dict.fromkeys(one for one in found if one.isupper())) or "none"
    raise GradingError(f"the notebook has no parameter {name!r}; it has: {known}")


def _parameters(cell: NotebookNode) -> list[tuple[str, ast.expr]]:
    """The names that a cell gives plain values to, and these."""
    if cell.cell_type != "code":
        return []
    try:
        body = ast.parse(cell.source).body
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [
        (node.targets[0].id, node.value)
        for node in body
        if isinstance(node, ast.Assign) and len(node.targets) == 1
        if isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)
    ]
