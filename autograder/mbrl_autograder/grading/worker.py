"""Runs one notebook in a process of its own: `python -m mbrl_autograder.grading.worker FOLDER`.

FOLDER holds `job.json` (the notebook and its limits). Each cell's start, and its outputs when it has ended,
are appended to `cells.jsonl` at once, so that what a notebook did before it hung or died is known.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from .processes import adopt_orphans

DEAD_KERNEL = 3  # exit code
SKIP_TAG = "mbrl-course-skip"


def main(folder: Path) -> int:
    """Runs the job in `folder`; returns 0, or DEAD_KERNEL where the kernel ended before the notebook did."""
    adopt_orphans()
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    notebook = nbformat.from_dict(job["notebook"])
    for index in job["skip"]:
        notebook.cells[index].metadata.tags = [SKIP_TAG]
    with (folder / "cells.jsonl").open("w", encoding="utf-8") as stream:

        def write(**record: Any) -> None:
            stream.write(json.dumps(record) + "\n")
            stream.flush()

        def on_start(cell: NotebookNode, cell_index: int) -> None:
            if cell.cell_type == "code" and cell_index not in job["skip"]:
                write(start=cell_index)

        def on_executed(cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
            _note_error(cell, execute_reply["content"])
            outputs = cell.outputs
            if len(json.dumps(outputs)) > job["output_bytes"]:
                errors = [output for output in outputs if output.output_type == "error"][-1:]
                note = f"(outputs of more than {job['output_bytes']} bytes were dropped)\n"
                outputs = [nbformat.v4.new_output("stream", name="stdout", text=note), *errors]
            write(done=cell_index, outputs=outputs, execution_count=cell.get("execution_count"))

        client = NotebookClient(
            notebook,
            timeout=job["cell_seconds"],
            interrupt_on_timeout=True,
            error_on_timeout={"ename": "CellTimeoutError", "evalue": "", "traceback": []},
            allow_errors=True,
            skip_cells_with_tag=SKIP_TAG,
            extra_arguments=["--HistoryManager.hist_file=:memory:"],
            coalesce_streams=True,
            resources={"metadata": {"path": str(folder / "work")}},
            on_cell_execute=on_start,
            on_cell_executed=on_executed,
        )
        try:
            client.execute()
        except DeadKernelError:
            return DEAD_KERNEL
    return 0


def _note_error(cell: NotebookNode, reply: dict[str, Any]) -> None:
    """A cell that ended in an error shows one, even where IPython printed none, as after a time-out."""
    if reply["status"] != "error":
        return
    name = reply.get("ename", "Error")
    if not any(output.output_type == "error" and output.ename == name for output in cell.outputs):
        text = reply.get("evalue", "")
        cell.outputs.append(
            nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
        )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
