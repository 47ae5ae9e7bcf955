# ruff: noqa: D105, D107
"""The judge as the grading sees it: a pool of workers, a source and a submission in, marks and messages
out."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from .names import parse
from .notebook import (
    HIDDEN_BEGIN,
    HIDDEN_END,
    UnreadableError,
    files_beside,
    parse_notebook,
    read_bytes,
    source_cells,
)
from .notebook import visible_text as visible
from .plan import SourcePlan, Unit, plan_source, plan_submission
from .process import WorkerError, WorkerProcess
from .results import (
    CRASHED,
    GRADED,
    NOT_RUN,
    UNREADABLE,
    CellResult,
    GradingTask,
    JudgeLimits,
    SubmissionResult,
)

PRELOAD = (
    "numpy",
    "numpy.random",  # NumPy itself loads it late
    "torch",
    "IPython.core.interactiveshell",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
)
LITTLE = 1e-9
ATTEMPTS = 2  # a worker that the system ended, out of memory for instance, need not have met its fault


class Judge:
    """Grades submissions of any standard nbgrader source notebook; a context manager.

    Args:
        python_path: folders whose packages the student's code may import, such as the student edition.
        limits: what one submission may cost.
        workers: processes that grade at the same time.
        sandbox: False runs the student's code without bubblewrap: for a class that is trusted.
        preload: further modules to import once, before the first submission.
        ignore: patterns of names of files that lie beside a source but do not belong to it.
        hidden_markers: what begins and ends the hidden part of a test, where a course has its own.

    Raises:
        SandboxError: on entering, where this machine has no sandbox.
    """

    def __init__(
        self,
        *,
        python_path: Sequence[Path] = (),
        limits: JudgeLimits | None = None,
        workers: int = 1,
        sandbox: bool = True,
        preload: Sequence[str] = (),
        ignore: Sequence[str] = (),
        hidden_markers: tuple[str, str] = (HIDDEN_BEGIN, HIDDEN_END),
    ) -> None:
        self.limits = limits or JudgeLimits()
        self._python_path = [Path(path) for path in python_path]
        self._sandbox, self._count = sandbox, max(1, workers)
        self._preload = [*PRELOAD, *preload]
        self._ignore, self._hidden_markers = tuple(ignore), hidden_markers
        self._closed = False
        self._idle: queue.Queue[WorkerProcess] = queue.Queue()
        self._all: list[WorkerProcess] = []
        self._plans: dict[tuple[str, int], SourcePlan] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Judge:
        self._closed = False
        with ThreadPoolExecutor(self._count) as pool:
            self._all = [WorkerProcess(self._options(i)) for i in range(self._count)]
            for worker in pool.map(WorkerProcess.wait_until_ready, self._all):
                self._idle.put(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, also under a submission that they are grading."""
        with self._lock:
            self._closed = True
            workers, self._all = self._all, []
        for worker in workers:
            worker.close()

    def _options(self, index: int) -> dict[str, Any]:
        return {
            "limits": asdict(self.limits),
            "python_path": [str(path.resolve()) for path in self._python_path],
            "preload": self._preload,
            "index": index,
            "workers": self._count,
            "sandbox": self._sandbox,
        }

    # grading --------------------------------------------------------------------------------------

    def grade(self, source: Path, submission: Path, *, seconds: float | None = None) -> SubmissionResult:
        """What the notebook `submission` earns by the tests of the notebook `source`.

        Args:
            source: the instructor's notebook, with solutions and hidden tests.
            submission: the file that a student handed in; nothing about it is trusted.
            seconds: overrides the limit of one cell or test.

        Returns:
            The result; whatever is wrong with the submission is in it. It is CRASHED only where the judge
            failed.

        Raises:
            ValueError: `source` is not an nbgrader source notebook.
        """
        try:
            content = parse_notebook(read_bytes(Path(submission), self.limits.notebook_bytes))
        except UnreadableError as error:
            return SubmissionResult(UNREADABLE, str(error), _no_cells(self.plan(source)))
        files = files_beside(Path(submission), self.limits.extra_file_bytes)
        return self.grade_content(source, content, files, seconds=seconds)

    def grade_content(
        self,
        source: Path,
        content: dict[str, Any],
        files: Mapping[str, bytes] | None = None,
        *,
        seconds: float | None = None,
    ) -> SubmissionResult:
        """As `grade`, for a notebook that was read already.

        Args:
            source: the instructor's notebook.
            content: the submission's JSON, of format 4.
            files: what lay beside the submission, by path.
            seconds: overrides the limit of one cell or test.
        """
        started = time.monotonic()
        plan = self.plan(source)
        try:
            beside = files_beside(Path(source), self.limits.extra_file_bytes, self._ignore)
            beside |= dict(files or {})
            job, notes, behind = make_job(plan, content, source, beside, self.limits, seconds)
        except UnreadableError as error:
            return SubmissionResult(UNREADABLE, str(error), _no_cells(plan))
        except (RecursionError, MemoryError):
            return SubmissionResult(UNREADABLE, "the notebook's code is nested too deeply", _no_cells(plan))
        if not self._all:
            raise RuntimeError("the judge is not running: enter it first (with Judge(...) as judge)")
        for attempt in range(ATTEMPTS):
            worker = self._idle.get()
            try:
                found = worker.grade(job)
            except WorkerError as error:
                worker = self._replace(worker)
                found = {"crash": str(error)}
            finally:
                self._idle.put(worker)
            if not found["crash"] or attempt == ATTEMPTS - 1:
                break
        return _result(plan, found, notes, behind, time.monotonic() - started)

    def grade_many(
        self,
        tasks: Iterable[GradingTask],
        on_result: Callable[[GradingTask, SubmissionResult], None] | None = None,
    ) -> Iterator[tuple[GradingTask, SubmissionResult]]:
        """Grades with all workers; yields each task with its result as it comes.

        Args:
            tasks: what to grade.
            on_result: called with each result before it is yielded.
        """
        with ThreadPoolExecutor(self._count) as pool:
            futures: dict[Future[SubmissionResult], GradingTask] = {
                pool.submit(self.grade, task.source, task.submission, seconds=task.seconds): task
                for task in tasks
            }
            try:
                for future in as_completed(futures):
                    task, result = futures[future], future.result()
                    if on_result is not None:
                        on_result(task, result)
                    yield task, result
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def plan(self, source: Path) -> SourcePlan:
        """What the source notebook says, read once.

        Raises:
            ValueError: it is no notebook, or two of its cells have the same id.
        """
        path = Path(source)
        key = (str(path.resolve()), path.stat().st_mtime_ns)
        with self._lock:
            if key not in self._plans:
                cells = source_cells(parse_notebook(path.read_bytes()))
                for own, usual in zip(self._hidden_markers, (HIDDEN_BEGIN, HIDDEN_END), strict=True):
                    cells = [replace(cell, text=cell.text.replace(own, usual)) for cell in cells]
                names = [cell.id for cell in cells if cell.id]
                doubled = sorted({name for name in names if names.count(name) > 1})
                if doubled:
                    raise ValueError(f"{path.name}: more than one cell is called {', '.join(doubled)}")
                self._plans[key] = plan_source(cells)
            return self._plans[key]

    def _replace(self, worker: WorkerProcess) -> WorkerProcess:
        worker.close()
        if self._closed:
            raise RuntimeError("the judge was closed")
        fresh = WorkerProcess(worker.options)
        with self._lock:
            self._all.append(fresh)
        return fresh.wait_until_ready()


def make_job(
    plan: SourcePlan,
    content: dict[str, Any],
    source: Path,
    files: Mapping[str, bytes],
    limits: JudgeLimits,
    seconds: float | None = None,
) -> tuple[dict[str, Any], list[str], list[str]]:
    """The job for a worker, what was repaired, and the solution cells that stand behind every test."""
    units, notes, behind = plan_submission(plan, content)
    times = {"cell_seconds": seconds or limits.cell_seconds, "scratch_seconds": limits.scratch_seconds}
    job = {
        "tests": [
            {
                "id": test.id,
                "code": test.code,
                "visible": visible(test.code),
                "points": test.points,
                "hidden": sorted(test.hidden),
                "asks": sorted(test.asks),
                "binds": sorted(test.binds),
            }
            for test in plan.tests
        ],
        "modules": plan.modules,
        "prelude": plan.prelude,
        "imports": plan.imports,
        "student_names": sorted(plan.student_names),
        "shared": sorted(plan.shared),
        "operators": {name: sorted(found) for name, found in plan.operators.items()},
        "units": _plain(units),
        "reference": _plain(plan.reference),
        "plain_objects": plan.plain_objects,
        "files": {name: data.decode("latin-1") for name, data in files.items()},
        "folder": str(Path(source).resolve().parent),
        "limits": {**times, "submission_seconds": limits.submission_seconds},
    }
    return job, notes, behind


def _plain(units: Sequence[Unit]) -> list[dict[str, str]]:
    return [{"id": unit.id, "kind": unit.kind, "code": unit.code} for unit in units]


def _no_cells(plan: SourcePlan) -> dict[str, CellResult]:
    return {test.id: CellResult(0.0, test.points, NOT_RUN) for test in plan.tests}


def _result(
    plan: SourcePlan, found: dict[str, Any], notes: list[str], behind: list[str], seconds: float
) -> SubmissionResult:
    if found["crash"]:
        return SubmissionResult(CRASHED, found["crash"], _no_cells(plan), seconds=seconds)
    cells = {test.id: CellResult(max_points=test.points, **found["results"][test.id]) for test in plan.tests}
    flags = list(notes)
    for name in behind:
        cells, changed = _behind_tests(plan, cells, name)
        if changed:
            flags.append(
                f"the cell {name} stands behind every test and is not right: run in order, it earns nothing"
            )
    return SubmissionResult(GRADED, "", cells, found["outputs"], tuple(flags), seconds)


def _behind_tests(
    plan: SourcePlan, cells: dict[str, CellResult], solution: str
) -> tuple[dict[str, CellResult], bool]:
    """A right solution that was moved behind all tests keeps its points; a wrong one has those of a run in
    order."""
    binds = {
        name
        for cell in plan.cells
        if cell.id == solution and (tree := parse(cell.text))
        for name in _bound_by(tree)
    }
    own = [test for test in plan.tests if test.asks & binds]
    if all(cells[test.id].points >= test.points - LITTLE for test in own):
        return cells, False
    lost = {test.id: replace(cells[test.id], points=0.0) for test in own}
    return {**cells, **lost}, any(cells[test.id].points > 0 for test in own)


def _bound_by(tree: Any) -> set[str]:
    return {name for node in tree.body if (name := getattr(node, "name", None))}
