"""Runs the source's tests against one submission; a fresh process of the worker's does this for each."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from .child.wire import DeadlineError
from .connection import GRACE_SECONDS, Interrupted
from .results import FAILED, PARTIAL, PASSED
from .runner import World
from .sandbox import Sandbox

FACTS = ("again", "changed", "is_number")


def run_job(job: dict[str, Any], sandbox: Sandbox, emit: Callable[[dict[str, Any]], None]) -> None:
    """Grades one submission: `emit` gets an event before and after each test, and the outputs.

    Tests in `job["done"]` have a result already; those in `job["skip"]` ended an earlier attempt and are
    left out.
    """
    if job["folder"]:
        os.chdir(job["folder"])
        sys.path.append(job["folder"])
    world = World(job, sandbox)
    emit({"begin": "", "seconds": 2 * job["limits"]["submission_seconds"] + 30})
    try:
        world.prelude()
    except Exception as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        emit({"crash": f"a cell of the source does not run on the judge's side: {text}"})
        return
    with contextlib.suppress(Interrupted, DeadlineError):
        world.prepare()
    emit({"outputs": world.outputs})
    exposed: list[str] = []
    suspects: dict[str, dict[str, Any]] = {}
    seen_hidden = False
    for test in job["tests"]:
        if test["id"] in job["skip"]:
            continue
        seconds = world.limits["cell_seconds"]
        emit({"begin": test["id"], "seconds": 3 * seconds + 3 * GRACE_SECONDS + 20})
        result = world.run(test)
        facts = {name: result.pop(name) for name in FACTS}
        if test["id"] not in job["done"]:
            failed = result["status"] not in (PASSED, PARTIAL)
            if failed and not result["hidden"] and (seen_hidden or (facts["again"] and test["hidden"])):
                exposed.append(test["id"])
                result = {**result, "message": "A check did not pass."}
            if not failed and (facts["changed"] or facts["is_number"] is False):
                suspects[test["id"]] = {"result": result, **facts}  # held back until `confirm` is done
            else:
                emit({"test": test["id"], "result": result})
        seen_hidden = seen_hidden or bool(test["hidden"])
    world.student.stop()
    if suspects:
        confirm(job, sandbox, suspects, emit)
    if exposed:
        _explain(job, sandbox, exposed, emit)


def _explain(
    job: dict[str, Any], sandbox: Sandbox, names: list[str], emit: Callable[[dict[str, Any]], None]
) -> None:
    """Messages for visible checks that failed after hidden ones ran, from a process that has met no hidden
    one.

    The student's code has by then seen the hidden checks' inputs, and a message may hold what it returns.
    """
    world = World(
        {**job, "limits": {**job["limits"], "submission_seconds": 30.0, "cell_seconds": 10.0}}, sandbox
    )
    emit({"begin": "", "seconds": 60})
    with contextlib.suppress(Interrupted, Exception):
        world.prelude()
        world.prepare()
        for test in job["tests"]:
            if test["id"] in job["skip"]:
                continue
            result = world.run(test, visible_only=True)
            if test["id"] in names and result["message"]:
                emit({"message": test["id"], "text": result["message"]})
    world.student.stop()


def confirm(
    job: dict[str, Any],
    sandbox: Sandbox,
    suspects: dict[str, dict[str, Any]],
    emit: Callable[[dict[str, Any]], None],
) -> None:
    """Results of tests that passed in a way of which only the source's own solutions can tell whether it is
    meant.

    A call that overwrites its arguments could make the test compare its result with itself: so the test has
    to pass also where only those arguments change that the source's solution changes. And where that solution
    makes the test end in a number, something else is no credit.
    """
    seconds = 2 * job["limits"]["submission_seconds"] + 60
    first = next(iter(suspects))
    emit({"begin": first, "seconds": seconds})
    expected = job["expected"]
    if expected is None:
        expected = {}
        world = World({**job, "units": job["reference"], "files": {}}, sandbox)
        world.prelude()
        with contextlib.suppress(Interrupted):
            world.prepare()
        for test in job["tests"]:
            found = world.run(test)
            expected[test["id"]] = {"changed": found["changed"], "is_number": found["is_number"]}
        world.student.stop()
        emit({"expected": expected})
    allowed = {
        name: {(line, number) for line, number in found["changed"]} for name, found in expected.items()
    }
    unexpected = [
        name for name, found in suspects.items() if not set(map(tuple, found["changed"])) <= allowed[name]
    ]
    again: dict[str, dict[str, Any]] = {}
    if unexpected:
        world = World(job, sandbox)
        world.prelude()
        with contextlib.suppress(Interrupted):
            world.prepare()
        for test in job["tests"]:
            if test["id"] not in job["skip"]:
                world.student.allowed = allowed[test["id"]]
                again[test["id"]] = world.run(test)
        world.student.stop()
    for name, suspect in suspects.items():
        result = suspect["result"]
        if suspect["is_number"] is False and expected[name]["is_number"]:
            result = {**result, **_NO_NUMBER}
        if name in unexpected and again[name]["points"] < result["points"]:
            words = {"message": _OVERWRITES, "detail": f"{_OVERWRITES} ({again[name]['detail']})"[:2000]}
            result = {**result, **{key: again[name][key] for key in ("points", "status", "hidden")}, **words}
        emit({"test": name, "result": result})


_NO_NUMBER = {
    "points": 0.0,
    "status": FAILED,
    "message": "The check's result is not a number.",
    "detail": "the test ends in what is no number, where the source's solution gives a number",
}
_OVERWRITES = "Your code overwrites its arguments, and its result is right only by that."
