"""Runs a week's graded cells in this process: how tests try hundreds of wrong solutions quickly.

    assert set(run("week03").values()) == {None}                           # the reference keeps its points
    wrong = replace_in_solution("week03", "refit", "num_elites", "1")      # a mutant of the reference
    assert run("week03", {"refit": wrong}, exercises=["refit"])["refit-test-2"] is not None
    assert lost_points("week03", {"refit": wrong}) == 2

Setup, given and solution cells are executed as the notebook has them (with replaced solutions); each test
cell, hidden part included, then runs in a copy of their namespace. Nothing of `solutions/` is needed.
"""

from __future__ import annotations
import __future__

import contextlib
import copy
import io
import random
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from textwrap import dedent
from types import CodeType, ModuleType
from typing import Any

import nbformat
import numpy as np
import torch
from nbformat import NotebookNode

from mbrl_autograder.authoring import AuthoringError, Course
from mbrl_autograder.authoring.lint import load
from mbrl_autograder.authoring.notebook import METADATA_KEY, assemble
from mbrl_autograder.judge import Judge
from mbrl_autograder.judge.results import GRADED, PASSED
from mbrl_course.weeks import find_week

MODULE = "week_notebook"  # the name under which the notebook's classes find their annotations
Results = dict[str, str | None]
judges: list[
    Judge
] = []  # while there is one, `run` asks it: replaced solutions in its sandbox, tests outside


def run(
    week: str | int,
    replacements: Mapping[str, str] | None = None,
    *,
    exercises: Collection[str] | None = None,
    timeout: float = 30.0,
    course: Course | None = None,
) -> Results:
    """Runs the test cells of a week's build notebook.

    Args:
        week: such as "week03".
        replacements: source code that takes the place of an exercise's whole solution cell.
        exercises: run only the tests of these.
        timeout: seconds for each test cell.
        course: another checkout than this one.

    Returns:
        For each test cell's grade id, None where it passes, or what it says.

    Raises:
        AuthoringError: the notebook's source is refused.
        KeyError: a replacement or exercise that isn't there.
        Exception: whatever the cells above the tests raise, such as the SyntaxError of a replacement.
    """
    cells = notebook(week, course).cells
    known = {_meta(cell).get("exercise") for cell in cells if _meta(cell).get("kind") == "solution"}
    for exercise in [*(replacements or {}), *(exercises or ())]:
        if exercise not in known:
            raise KeyError(f"{week} has no exercise {exercise!r}; there are: {sorted(map(str, known))}")
    if judges:
        return _judged(judges[-1], cells, replacements or {}, exercises)
    module = ModuleType(MODULE)
    before = sys.modules.get(MODULE)
    sys.modules[MODULE] = module
    try:
        return dict(_run_cells(cells, module, replacements or {}, exercises, timeout))
    finally:
        if before is None:
            del sys.modules[MODULE]
        else:
            sys.modules[MODULE] = before


def lost_points(
    week: str | int, replacements: Mapping[str, str], *, course: Course | None = None, timeout: float = 30.0
) -> float:
    """How many points of the replaced exercises the replacements lose."""
    return _loss(week, replacements, course, timeout)[0]


def lost(week: str | int, exercise: str, source: str) -> tuple[float, str]:
    """The points that a whole solution cell loses, and all messages in one text."""
    return _loss(week, {exercise: dedent(source)}, None, 30.0)


def _loss(
    week: str | int, replacements: Mapping[str, str], course: Course | None, timeout: float
) -> tuple[float, str]:
    results = run(week, replacements, exercises=list(replacements), course=course, timeout=timeout)
    points = {c.metadata.nbgrader.grade_id: c.metadata.nbgrader.points for c in _tests(week, course)}
    messages = {grade_id: message for grade_id, message in results.items() if message is not None}
    return float(sum(points[grade_id] for grade_id in messages)), "\n".join(messages.values())


def exercise_points(week: str | int, *, course: Course | None = None) -> dict[str, float]:
    """The points of every exercise of a week."""
    points: dict[str, float] = {}
    for cell in _tests(week, course):
        exercise = _meta(cell)["exercise"]
        points[exercise] = points.get(exercise, 0.0) + cell.metadata.nbgrader.points
    return points


def solution(week: str | int, exercise: str, *, course: Course | None = None) -> str:
    """The reference's whole solution cell of an exercise."""
    for cell in notebook(week, course).cells:
        if _meta(cell).get("kind") == "solution" and _meta(cell)["exercise"] == exercise:
            return str(cell.source)
    raise KeyError(f"{week} has no exercise {exercise!r}")


def replace_in_solution(
    week: str | int, exercise: str, old: str, new: str, *, course: Course | None = None
) -> str:
    """The reference's solution cell with `old` replaced by `new`.

    Raises:
        ValueError: `old` isn't there exactly once, or nothing would change.
    """
    text = solution(week, exercise, course=course)
    if text.count(old) != 1:
        raise ValueError(
            f"{old!r} is {text.count(old)} times in the solution of {exercise}, expected once:\n{text}"
        )
    if old == new:
        raise ValueError(f"{old!r} would be replaced by itself")
    return text.replace(old, new)


def notebook(week: str | int, course: Course | None = None) -> NotebookNode:
    """The week's build notebook, from its source; kept while source and package are what they are."""
    course = course or Course.here()
    path = course.source_dir(find_week(week)) / "build.py"
    files = (path, *sorted(course.package_dir.glob("*.py")))
    return _notebook(course, path, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=16)
def _notebook(course: Course, path: Path, _stamps: tuple[int, ...]) -> NotebookNode:
    source = load(course, path)
    if source.problems:
        raise AuthoringError(source.problems)
    return assemble(source)


def _judged(
    judge: Judge,
    cells: list[NotebookNode],
    replacements: Mapping[str, str],
    exercises: Collection[str] | None,
) -> Results:
    """As `run`, by a judge; the messages are those for the marker, hidden checks included."""
    kept = [
        cell
        for cell in cells
        if _meta(cell).get("kind") != "test" or exercises is None or _meta(cell)["exercise"] in exercises
    ]
    handed_in = [copy.deepcopy(cell) for cell in kept]
    for cell in handed_in:
        if _meta(cell).get("kind") == "solution":
            cell.source = replacements.get(_meta(cell)["exercise"], cell.source)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "build.ipynb")
        source.write_text(nbformat.writes(nbformat.v4.new_notebook(cells=kept)), encoding="utf-8")
        result = judge.grade_content(source, nbformat.v4.new_notebook(cells=handed_in))
    assert result.status == GRADED, result.reason
    return {
        name: None if cell.status == PASSED else f"{cell.message}\n{cell.detail}"
        for name, cell in result.cells.items()
    }


def _run_cells(
    cells: list[NotebookNode],
    module: ModuleType,
    replacements: Mapping[str, str],
    exercises: Collection[str] | None,
    timeout: float,
) -> Iterator[tuple[str, str | None]]:
    futures = any("from __future__ import annotations" in cell.source for cell in cells)
    flags = __future__.annotations.compiler_flag if futures else 0
    namespace = vars(module)
    for cell in cells:  # all solutions before any test, as the judge has it
        meta = _meta(cell)
        if meta.get("kind") in ("setup", "given", "solution"):
            source = replacements.get(meta.get("exercise", ""), cell.source)
            with _quiet():
                exec(_compile(source, cell.id, flags), namespace)
    for cell in cells:
        meta = _meta(cell)
        if meta.get("kind") == "test" and (exercises is None or meta["exercise"] in exercises):
            code = _compile(cell.source, cell.id, flags)
            yield cell.metadata.nbgrader.grade_id, _try(code, dict(namespace), timeout)


def _try(code: CodeType, namespace: dict[str, Any], timeout: float) -> str | None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    try:
        with _quiet(), _deadline(timeout):
            exec(code, namespace)
    except KeyboardInterrupt:
        raise
    except AssertionError as error:
        return str(error) or "AssertionError"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


@lru_cache(maxsize=2048)
def _compile(source: str, name: str, flags: int) -> CodeType:
    return compile(source, f"<cell {name}>", "exec", flags, dont_inherit=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after `seconds`, where signals can be had."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _tests(week: str | int, course: Course | None) -> list[NotebookNode]:
    return [cell for cell in notebook(week, course).cells if _meta(cell).get("kind") == "test"]


def _meta(cell: NotebookNode) -> dict[str, Any]:
    return dict(cell.metadata.get(METADATA_KEY, {}))
