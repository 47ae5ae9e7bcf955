# ruff: noqa: D105, D107
"""Runs one test at a time: the names it asks for, its deadline, its points, and what it says."""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import proxies
from .coercion import COERCIONS
from .connection import GRACE_SECONDS, Interrupted, Student, StudentEnded, TimedOut
from .errors import StudentErrorInfo
from .messages import Failure, failure_of
from .names import root_of, unwrapped
from .results import FAILED, PARTIAL, PASSED, STOPPED, TIMED_OUT
from .sandbox import Sandbox

MAX_PRINTED = 20_000
MAX_RESTARTS = 12
# what seeds the global generators, or sets them back
_SEEDS = re.compile(
    r"torch\.manual_seed|(?<![\w.])manual_seed|\bseed\w*\s*\(|(?<!manual)_seed\s*\(|seed_everything|"
    r"rng_state|fork_rng|[gs]et_?state\b|default_generator|torch\.random"
)


class Printed(io.StringIO):
    """What a test prints; bounded."""

    def write(self, text: str) -> int:
        """Keeps the first `MAX_PRINTED` characters."""
        room = MAX_PRINTED - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)


class NoShell:
    """Stands where a test asks for IPython: magics have nothing to do with marks."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class World:
    """The two sides for one submission: the tests' namespace, and the student's process.

    Args:
        job: what `engine.make_job` returns.
        sandbox: the fork server.
    """

    def __init__(self, job: dict[str, Any], sandbox: Sandbox) -> None:
        self.job, self.limits = job, job["limits"]
        self.namespace: dict[str, Any] = {
            "__name__": "__main__",
            "__builtins__": builtins,
            "get_ipython": lambda: NoShell(),
        }
        shared, operators = set(job["shared"]), {name: set(found) for name, found in job["operators"].items()}
        self.student = Student(sandbox, self.namespace, shared, operators)
        self.dtypes = ["float32"]
        self.ends = time.monotonic() + self.limits["submission_seconds"]
        self.skipped: set[int] = set()
        self.restarts = 0
        self.slow = False
        self.bound: set[str] = set()  # names that tests have bound: theirs from then on
        self.from_student: set[str] = set()
        self.outputs: dict[str, dict[str, Any]] = {}
        self.hidden = {f"<{test['id']}>": frozenset(test["hidden"]) for test in job["tests"]}
        self.seeds = any(_SEEDS.search(code) for code in job["prelude"])

    def prelude(self) -> None:
        """Runs on the judge's side what needs nothing of the student's."""
        with self._within(self.limits["cell_seconds"]):
            for statement in self.job["imports"]:
                with contextlib.suppress(Exception):
                    exec(statement, self.namespace)
            for number, code in enumerate(self.job["prelude"]):
                with contextlib.suppress(
                    ImportError
                ):  # what a test needs of it will be missed there, by its name
                    exec(compile(code, f"<given {number}>", "exec"), self.namespace)

    # the student's side ---------------------------------------------------------------------------

    def prepare(self) -> None:
        """A fresh student's process in which the student's cells have run; those that ended an earlier one
        are left out.

        Raises:
            StudentEnded: too many of them did.
        """
        while True:
            self.restarts += 1
            if self.restarts > MAX_RESTARTS:
                raise StudentEnded("the code ended its process again and again")
            self.student.start()
            self.student.trouble = None
            self._allow(self.limits["cell_seconds"])
            self.student.ask("setup", objects=self.job["plain_objects"])
            if self._run_units():
                self.student.trouble = None
                return

    def _run_units(self) -> bool:
        units = self.job["units"]
        self._files()
        again: list[int] = []
        for number in [*range(len(units)), -1]:
            pending = again if number < 0 else [number]
            for index in pending:
                if index in self.skipped:
                    continue
                try:
                    error = self._run_unit(units[index], final=number < 0)
                except Interrupted as trouble:
                    if isinstance(trouble, TimedOut):
                        self.slow = True
                    self._note(units[index], {"error": {"types": [str(trouble)], "message": str(trouble)}})
                    if not self.student.alive:
                        self.skipped.add(index)
                        return False
                    continue
                if number >= 0 and error == "NameError":
                    again.append(index)  # it may need a cell that was moved behind it
        return True

    def _files(self) -> None:
        names: list[list[Any]] = []
        blobs: list[bytes] = []
        for name, data in self.job["files"].items():
            names.append([name, len(blobs)])
            blobs.append(data.encode("latin-1"))
        if names:
            self._allow(self.limits["cell_seconds"])
            with contextlib.suppress(Exception):
                self.student.ask("files", blobs, files=names)

    def _run_unit(self, unit: dict[str, Any], final: bool) -> str:
        seconds = self.limits["scratch_seconds" if unit["kind"] == "plain" else "cell_seconds"]
        self._allow(seconds / 3 if self.slow else seconds)
        try:
            answer, _ = self.student.ask("run", code=unit["code"])
        except Exception as error:
            answer = {"error": {"types": [type(error).__name__], "message": str(error)}}
        if not isinstance(answer, dict):
            raise StudentEnded("the code's process sent what is no answer")
        self._note(unit, answer)
        self.dtypes = ["float64", "float32"] if answer.get("dtype") == "torch.float64" else ["float32"]
        if not answer.get("error"):
            return ""
        return StudentErrorInfo(answer["error"]).types[0]

    def _note(self, unit: dict[str, Any], answer: dict[str, Any]) -> None:
        if unit["kind"] != "plain":
            error = answer.get("error")
            info = StudentErrorInfo(error) if error else None
            self.outputs[unit["id"]] = {
                "text": str(answer.get("text", ""))[:100_000],
                "displays": _displays(answer.get("displays")),
                "error": [info.types[0], info.message] if info else None,
            }

    def _allow(self, seconds: float) -> None:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimedOut("the whole notebook took too long")
        self.student.deadline = time.monotonic() + min(seconds, left)

    # the tests ------------------------------------------------------------------------------------

    def run(self, test: dict[str, Any], visible_only: bool = False) -> dict[str, Any]:
        """Runs one test; a result that is of another kind than the test expects is converted, and the test
        run again; also with the usual kind of numbers, where the student has set another."""
        code = test["visible"] if visible_only else test["code"]
        before, bound = dict(self.namespace), set(self.bound)
        failed: dict[str, Any] | None = None
        for dtype, coerce in [(dtype, coerce) for dtype in self.dtypes for coerce in (None, *COERCIONS)]:
            if failed is not None:
                self.namespace.clear()
                self.namespace.update(before)
                self.bound = set(bound)
            self.student.coerce, self.student.saw_arrays = coerce, False
            with _default_dtype(dtype):
                outcome = self._attempt(test, code)
            outcome["again"] = failed is not None
            kind_error = outcome.pop("kind_error") and self.student.saw_arrays
            if outcome["status"] in (PASSED, PARTIAL, TIMED_OUT, STOPPED):
                break
            failed = failed or outcome
            if not kind_error and dtype == self.dtypes[-1]:
                break
        if outcome["status"] not in (PASSED, PARTIAL) and failed is not None:
            outcome = {**failed, "again": True}
        self.student.coerce = None
        return outcome

    def _attempt(self, test: dict[str, Any], code: str) -> dict[str, Any]:
        printed = Printed()
        seconds = self.limits["cell_seconds"] / (3 if self.slow else 1)
        failure: Failure | None = None
        kind_error = False
        points, status, is_number = 0.0, FAILED, None
        self.student.test, self.student.changed = f"<{test['id']}>", set()
        try:
            if not self.student.alive:
                self.prepare()
            self.student.trouble = None
            self._allow(seconds)
            self.student.random.begin(self.seeds or bool(_SEEDS.search(code)))
            with (
                self._within(seconds + GRACE_SECONDS + 1),
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(printed),
            ):
                self._names(test)
                value = _execute(code, f"<{test['id']}>", self.namespace)
                points, status, is_number = _points(value, test["points"])
            if self.student.trouble is not None:  # a test that catches everything does not catch this
                raise self.student.trouble
        except Interrupted as error:
            points, status = 0.0, TIMED_OUT if isinstance(error, TimedOut) else STOPPED
            self.slow = self.slow or isinstance(error, TimedOut)
            failure = failure_of(error, self.hidden, test)
        except BaseException as error:
            points, status = 0.0, FAILED
            failure = failure_of(error, self.hidden, test)
            kinds = TypeError, RuntimeError, AttributeError, ValueError
            kind_error = isinstance(error, kinds) and not hasattr(error, "student_error")
        self.student.random.begin(False)
        self.bound |= set(test["binds"])
        return {
            "points": points,
            "status": status,
            "message": failure.message if failure else "",
            "detail": failure.detail if failure else "",
            "hidden": failure.hidden if failure else False,
            "output": printed.getvalue(),
            "kind_error": kind_error,
            "changed": sorted(self.student.changed),
            "is_number": is_number,
        }

    def _names(self, test: dict[str, Any]) -> None:
        """Brings the names that the test reads and that are the student's."""
        theirs, own = set(self.job["student_names"]), self.namespace
        wanted = [
            name
            for name in test["asks"]
            if name not in self.bound
            and (name in theirs or (name not in own and not hasattr(builtins, name)))
        ]
        found = self.student.lookup(wanted) if wanted else {}
        for name in wanted:
            self.namespace.pop(name, None)
        self.namespace.update(found)

    @contextlib.contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        """Stops the judge's own code, which a student's data may keep busy, after `seconds`."""

        def stop(number: int, frame: Any) -> None:
            self.student.trouble = self.student.trouble or TimedOut("took too long")
            raise TimedOut("took too long")

        previous = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


MAX_DISPLAYS = 3_000_000
"""Characters of all displays of a cell; what a child keeps to (2,000,000), and some."""


def _displays(outputs: Any) -> list[dict[str, Any]]:
    """The well-formed displays of a run, as far as there is room: the child may have lifted its own bound."""
    if not isinstance(outputs, list):
        return []
    kept, room = [], MAX_DISPLAYS
    for output in outputs[:60]:
        if isinstance(output, dict) and isinstance(output.get("data"), dict):
            data = {k: v for k, v in output["data"].items() if isinstance(k, str) and isinstance(v, str)}
            room -= sum(len(key) + len(value) for key, value in data.items())
            if room < 0:
                break
            kept.append({"kind": "result" if output.get("kind") == "result" else "display", "data": data})
    return kept


_NOTHING = object()


def _execute(code: str, name: str, namespace: dict[str, Any]) -> Any:
    """Runs a test; the value of its last line where that is an expression, or `_NOTHING`.

    None as the result of a function that is not the student's, such as `print`, is nothing as well.
    """
    tree = ast.parse(unwrapped(code))
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, name, "exec"), namespace)
        return _NOTHING
    tree.body.pop()
    exec(compile(tree, name, "exec"), namespace)
    value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    called = [namespace.get(root) for root in root_of(last.value)]
    own = isinstance(last.value, ast.Call) and not any(isinstance(item, proxies.Proxy) for item in called)
    return _NOTHING if value is None and own else value


def _points(value: Any, most: float) -> tuple[float, str, bool | None]:
    """Full points, or what the test's last value says: a number is partial credit, and NaN is nothing.

    Returns:
        The points, the status, and whether the last value is a number; None where there is none.
    """
    if value is _NOTHING:
        return most, PASSED, None
    if value is None or isinstance(value, proxies.Proxy | str):
        return most, PASSED, False
    if value is False:
        return 0.0, FAILED, False
    try:
        is_number = not isinstance(value, bool) and getattr(value, "ndim", 0) == 0 and not callable(value)
        number = float(value) if is_number else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return most, PASSED, False
    if not is_number:
        return most, PASSED, False
    points = min(max(number, 0.0), most) if math.isfinite(number) else 0.0
    return points, PASSED if points == most else PARTIAL if points > 0 else FAILED, True


@contextlib.contextmanager
def _default_dtype(name: str) -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None or name == "float32":
        yield
        return
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
