"""The executor that ships: a notebook runs in a Jupyter kernel, under a process of its own with a deadline.

It protects the class from crashes, endless loops and broken files. It does not protect marks from a notebook
that sets out to forge them: tests run inside the student's process, as in stock nbgrader.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import determine_grade

from .course import exercise_of
from .model import CRASHED, GRADED, TIMED_OUT, Job, Outcome
from .notebooks import grade_id, is_test, stderr_to_stdout
from .processes import run_bounded
from .worker import DEAD_KERNEL

NOT_RUN = "NotRun"
TIMEOUT = "CellTimeoutError"
UNTOUCHED = "NotImplementedError"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def execute(job: Job) -> Outcome:
    """Runs and marks one notebook (see `model.Executor`)."""
    scratch = Path(tempfile.mkdtemp(prefix="mbrl-course-"))
    try:
        code = _run(job, scratch)
        records = _records(scratch / "cells.jsonl")
        log = (scratch / "log.txt").read_text(encoding="utf-8", errors="replace")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    notebook = copy.deepcopy(job.notebook)
    started = _fill(notebook, records, job.skip)
    status, reason = _judge_run(job, notebook, code, started, log)
    scores = {grade_id(cell): _score(cell) for cell in notebook.cells if is_test(cell)}
    return Outcome(notebook, scores, status, reason)


def _run(job: Job, scratch: Path) -> int | None:
    work = scratch / "work"
    work.mkdir()
    for path in job.data.iterdir():
        if path.suffix != ".ipynb" and not path.name.startswith((".", "__pycache__")):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, work / path.name)
    for index, cell in enumerate(job.notebook.cells):
        if cell.cell_type == "code" and index not in job.skip:
            cell.outputs, cell.execution_count = [], None
    content = {
        "notebook": job.notebook,
        "skip": sorted(job.skip),
        "cell_seconds": job.limits.cell_seconds,
        "output_bytes": job.limits.output_bytes,
    }
    (scratch / "job.json").write_text(json.dumps(content), encoding="utf-8")
    return run_bounded(
        [sys.executable, "-m", "mbrl_autograder.grading.worker", str(scratch)],
        seconds=job.limits.submission_seconds,
        cwd=scratch,
        env=environment(job.pythonpath),
        log=scratch / "log.txt",
    )


def environment(pythonpath: tuple[Path, ...] = ()) -> dict[str, str]:
    """The environment of a grading process: one thread for torch and numpy, and `pythonpath` first."""
    env = dict(os.environ)
    env.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONUTF8="1", NBGRADER_EXECUTION="autograde")
    if pythonpath:
        rest = [env["PYTHONPATH"]] if env.get("PYTHONPATH") else []
        env["PYTHONPATH"] = os.pathsep.join([*map(str, pythonpath), *rest])
    return env


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            records.append(json.loads(line))
        except ValueError:  # the last line of a process that was ended while it wrote
            break
    return records


def _fill(notebook: NotebookNode, records: list[dict[str, Any]], skip: frozenset[int]) -> int | None:
    """Puts the recorded outputs into `notebook`; returns the cell that was running at the end, if one was."""
    running: int | None = None
    done = set(skip)
    for record in records:
        if "start" in record:
            running = record["start"]
        else:
            cell = notebook.cells[record["done"]]
            cell.outputs = nbformat.from_dict(record["outputs"])
            cell.execution_count = record["execution_count"]
            running = None
            done.add(record["done"])
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source.strip() and index not in done:
            text = "this cell was not run to its end, because the notebook's process was ended"
            cell.outputs = [nbformat.v4.new_output("error", ename=NOT_RUN, evalue=text, traceback=[text])]
        if is_test(cell):
            stderr_to_stdout(cell)
    return running


def _score(cell: NotebookNode) -> float:
    try:
        score, _ = determine_grade(cell)
    except (
        ValueError,
        KeyError,
        TypeError,
    ):  # an output that claims more than the points
        return 0.0
    return float(score or 0.0)


def _judge_run(
    job: Job, notebook: NotebookNode, code: int | None, running: int | None, log: str
) -> tuple[str, str]:
    where = _place(notebook, running)
    if code is None:
        return TIMED_OUT, f"ended after {job.limits.submission_seconds:g} s in all, in {where}"
    if code == DEAD_KERNEL or (code != 0 and running is not None):
        return CRASHED, f"the kernel died in {where}"
    if code != 0:
        last = (log.strip().splitlines() or [f"exit code {code}"])[-1]
        return CRASHED, f"the notebook could not be run: {last[:160]}"
    slow = [i for i, cell in enumerate(notebook.cells) if i not in job.skip and TIMEOUT in _errors(cell)]
    if slow:
        more = f" and {len(slow) - 1} more" if len(slow) > 1 else ""
        return TIMED_OUT, f"longer than {job.limits.cell_seconds:g} s: {_place(notebook, slow[0])}{more}"
    return GRADED, _first_error(notebook, job.skip)


def _first_error(notebook: NotebookNode, skip: frozenset[int]) -> str:
    """The first error outside the tests, which explains those that follow; or that nothing was attempted."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and not is_test(cell) and index not in skip:
            for output in cell.outputs:
                if output.output_type == "error" and output.ename != UNTOUCHED:
                    text = _ESCAPES.sub("", output.evalue).strip().splitlines()
                    message = f"{output.ename}: {text[0][:100]}" if text else output.ename
                    return f"{_place(notebook, index)} raised {message}"
    tests = [cell for cell in notebook.cells if is_test(cell)]
    if tests and all(UNTOUCHED in _errors(cell) for cell in tests):
        return "no exercise was attempted"
    return ""


def _errors(cell: NotebookNode) -> set[str]:
    return {output.ename for output in cell.get("outputs", []) if output.output_type == "error"}


def _place(notebook: NotebookNode, index: int | None) -> str:
    """ "cell 7 (refit-test-2, exercise refit)"; cells are counted from 1, as a reader does."""
    if index is None:
        return "no cell"
    cell = notebook.cells[index]
    name = grade_id(cell)
    if not name:
        following = (grade_id(other) for other in notebook.cells[index:] if is_test(other))
        exercise = next((exercise_of(other) for other in following), "")
        return f"cell {index + 1}" + (f" (before the tests of {exercise})" if exercise else "")
    exercise = exercise_of(name)
    return (
        f"cell {index + 1} ({name}, exercise {exercise})"
        if exercise != name
        else f"cell {index + 1} ({name})"
    )
