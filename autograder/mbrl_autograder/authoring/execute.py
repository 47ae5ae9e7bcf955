"""Executes notebooks as a reader would, and keeps their outputs fit for version control."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from tqdm.auto import tqdm

WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS_BAR = re.compile(r"\d+%\|.*\||\d+it \[")
SLOW = 10.0
"""Cells that take more seconds are named, so that the author can tell how long they take."""
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class ExecutionError(Exception):
    """A cell raised, or wrote to stderr; `cell_id` says which."""

    def __init__(self, cell_id: str, message: str) -> None:
        """An error of the cell with this id."""
        self.cell_id, self.message = cell_id, message
        super().__init__(f'cell "{cell_id}": {message}')


def execute_notebook(
    notebook: NotebookNode,
    folder: Path,
    pythonpath: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    label: str = "",
    progress: bool = True,
) -> NotebookNode:
    """Runs all cells of a copy of `notebook` in a new kernel of this interpreter, and returns the copy.

    With a bar, cells that take more than `SLOW` seconds are named, with their seconds.

    Args:
        notebook: left as it is.
        folder: where the kernel runs.
        pythonpath: comes first on the kernel's path.
        parameters: replace what the cell tagged "parameters" sets, such as {"SCALE": "smoke"}.
        label: names the notebook in the progress bar.
        progress: whether to show a bar.

    Raises:
        ExecutionError: a cell raised an error, or wrote anything but progress bars to stderr.
    """
    result = nbformat.from_dict(notebook)
    if parameters:
        tagged = [cell for cell in result.cells if "parameters" in cell.metadata.get("tags", [])]
        if not tagged:
            raise ValueError(f"there is no parameters cell that could set {', '.join(parameters)}")
        for cell in tagged:
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    sources = [cell.source for cell in notebook.cells]
    total = sum(cell.cell_type == "code" for cell in result.cells)
    bar = tqdm(total=total, desc=label, unit="cell", disable=not progress, file=sys.stderr, leave=False)
    started = time.monotonic()

    def after_cell(cell: NotebookNode, cell_index: int, **_: Any) -> None:
        nonlocal started
        took, started = time.monotonic() - started, time.monotonic()
        if progress and took > SLOW:
            tqdm.write(f"{label}: cell {cell_index} took {took:.0f} s: {cell.source[:60]!r}", file=sys.stderr)
        bar.update()

    with bar:
        client = NotebookClient(
            result,
            timeout=None,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            store_widget_state=False,
            coalesce_streams=True,
            on_cell_executed=after_cell,
        )
        try:
            client.execute(env=_environment(pythonpath), stderr=subprocess.DEVNULL)  # the kernel's own log
        except CellExecutionError as error:
            raise ExecutionError(_failed_cell(result), _last_lines(error)) from None
        except DeadKernelError:
            raise ExecutionError(_failed_cell(result), "the kernel died") from None
    for cell, source in zip(result.cells, sources, strict=True):
        cell.source = source
    _clean(result)
    return result


def _environment(pythonpath: Path | None) -> dict[str, str]:
    environment = dict(os.environ)
    paths = [str(pythonpath)] if pythonpath else []
    environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment["TQDM_DISABLE"] = "1"  # a finished bar is no result
    environment.pop("MPLBACKEND", None)  # pictures belong into the notebook
    return environment


def _failed_cell(notebook: NotebookNode) -> str:
    """The last cell that was started: the one with the highest execution count, or with an error."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        if any(output.output_type == "error" for output in cell.outputs):
            return str(cell.id)
    started = [cell for cell in code if cell.execution_count]
    return str((started or code)[-1].id)


def _last_lines(error: CellExecutionError) -> str:
    traceback = ANSI.sub("", error.traceback).strip().splitlines()
    return f"{error.ename}: {error.evalue}\n    " + "\n    ".join(traceback[-14:])


def _clean(notebook: NotebookNode) -> None:
    """Drops what changes from run to run, and refuses what was written to stderr."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.metadata.pop("execution", None)
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                lines = [line for line in re.split(r"[\r\n]", output.text) if line.strip()]
                graded = cell.metadata.get("nbgrader", {}).get("grade", False)
                lines = lines if graded else [line for line in lines if not PROGRESS_BAR.search(line)]
                if lines:
                    raise ExecutionError(str(cell.id), "writes to stderr: " + "\n    ".join(lines[:6]))
                continue
            if WIDGET in output.get("data", {}):
                continue
            if "execution_count" in output:
                output.execution_count = None
            kept.append(output)
        cell.outputs = kept
