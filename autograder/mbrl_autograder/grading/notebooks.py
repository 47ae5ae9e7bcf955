"""Reads what arrived as a notebook, and puts the source's locked and test cells back into it."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearOutput, ClearSolutions, ComputeChecksums, LockCells
from traitlets.config import Config

COURSE_KEY = "mbrl_course"  # the build's own entry in the metadata of notebooks and cells


class NotANotebookError(ValueError):
    """The file's content is no notebook; the message says why."""


def read_notebook(path: Path) -> NotebookNode:
    """The notebook in `path`, upgraded to nbformat 4.5: BOM, CRLF and missing cell ids are mended.

    Raises:
        NotANotebookError: not UTF-8, not JSON, no notebook, or a format that nbformat does not know.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotANotebookError("the file is not UTF-8 text") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotANotebookError("the file is not JSON, so it is not a notebook") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells", content.get("worksheets")), list):
        raise NotANotebookError("the file is JSON, but not a notebook: it has no cells")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # missing and duplicate cell ids are mended by reading
            notebook = nbformat.reads(json.dumps(content), as_version=4)
            notebook = nbformat.v4.upgrade(notebook) if notebook.get("nbformat_minor", 0) < 5 else notebook
            _, notebook = nbformat.validator.normalize(notebook, strip_invalid_metadata=True)
            nbformat.validate(notebook)
    except Exception as error:  # nbformat raises many kinds for what is no notebook
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotANotebookError(f"the notebook's format is broken: {first[:160]}") from error
    return notebook


def grading_template(source: Path, config: Config) -> NotebookNode:
    """The source notebook without its solutions, but with the hidden tests and nbgrader's checksums.

    Args:
        source: the notebook with solutions.
        config: the course's nbgrader configuration (delimiters, stubs).
    """
    notebook = nbformat.read(source, as_version=4)
    resources: dict[str, Any] = {}
    for preprocessor in (LockCells, ClearSolutions, ClearOutput, ComputeChecksums):
        notebook, resources = preprocessor(config=config).preprocess(notebook, resources)
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
        if cell.id in ids:
            cell.id = nbformat.v4.new_markdown_cell().id
        ids.add(cell.id)
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


def stderr_to_stdout(cell: NotebookNode) -> None:
    """Keeps what a test cell wrote to stderr as ordinary output: a warning costs no points."""
    for output in cell.get("outputs", []):
        if output.get("output_type") == "stream":
            output["name"] = "stdout"
