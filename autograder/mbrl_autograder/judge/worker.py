# ruff: noqa: D107
"""A worker: keeps a sandbox warm, and for each job forks a process that runs the tests, which it ends when
it must.

Started by the engine as `python -m mbrl_autograder.judge.worker FD`; jobs and results are lines of JSON on
that socket.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .child import linux
from .jobs import run_job
from .results import NOT_RUN, STOPPED, TIMED_OUT, JudgeLimits
from .sandbox import Sandbox, SandboxError

MAX_ATTEMPTS = 6
JUDGE_MEMORY = 6 << 30


class Worker:
    """Grades one job after another."""

    def __init__(self, options: dict[str, Any], connection: socket.socket | None = None) -> None:
        self.options, self.connection = options, connection
        self.limits = JudgeLimits(**options["limits"])
        self.known = set(options["preload"])
        self.expected: dict[str, dict[str, Any]] = {}
        self.sandbox = self._sandbox()

    def _learn(self, modules: list[str]) -> None:
        """Imports on both sides what a source notebook imports, once for all its submissions."""
        if modules:
            preload(modules)
            self.known |= set(modules)
            self.sandbox.preload(modules)

    def _sandbox(self) -> Sandbox:
        options = self.options
        paths = [Path(path) for path in options["python_path"]]
        cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        cpus = cpus[
            options["index"] :: options["workers"]
        ]  # a student's threads slow no other worker's student
        return Sandbox(self.limits, paths, sorted(self.known), options["index"], options["sandbox"], cpus)

    def grade(self, job: dict[str, Any]) -> dict[str, Any]:
        """The results of the tests, the outputs, and what crashed, if anything did."""
        found: dict[str, Any] = {"results": {}, "outputs": {}, "crash": ""}
        skip: list[str] = []
        self._learn([name for name in job["modules"] if name not in self.known])
        for _ in range(MAX_ATTEMPTS):
            expected = self.expected.get(_key(job))
            job = {**job, "skip": skip, "done": list(found["results"]), "expected": expected}
            found["crash"] = ""
            finished, current, reason = self._attempt(job, found)
            if finished:
                break
            if current:
                skip.append(current)
                status = TIMED_OUT if reason == "time" else STOPPED
                message = "Your code took too long." if reason == "time" else "The test could not go on."
                detail = f"the judge's own process was ended ({reason})"
                result = {
                    "points": 0.0,
                    "status": status,
                    "message": message,
                    "detail": detail,
                    "hidden": False,
                }
                found["results"].setdefault(current, {**result, "output": ""})
            else:
                found["crash"] = found["crash"] or f"the judge's process ended ({reason})"
        for test in job["tests"]:
            empty = {
                "points": 0.0,
                "status": NOT_RUN,
                "message": "",
                "detail": "",
                "hidden": False,
                "output": "",
            }
            found["results"].setdefault(test["id"], empty)
        return found

    def _attempt(self, job: dict[str, Any], found: dict[str, Any]) -> tuple[bool, str, str]:
        """One process that runs tests: whether it finished; if not, in which test it stopped and why."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            self._child(job, write)
        os.close(write)
        current, deadline, data, reason, finished = "", time.monotonic() + 60, b"", "", False
        try:
            while True:
                watched: list[Any] = [read] if self.connection is None else [read, self.connection]
                ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
                if self.connection in ready and self._is_alone():
                    raise SystemExit  # nobody waits for the result any more
                if not ready:
                    reason = "time"
                    break
                part = os.read(read, 1 << 20)
                if not part:
                    break
                data += part
                *lines, data = data.split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if "begin" in event:
                        current, deadline = event["begin"], time.monotonic() + event["seconds"]
                    elif "test" in event:
                        found["results"][event["test"]] = event["result"]
                        current = ""
                    elif "message" in event:
                        found["results"][event["message"]]["message"] = event["text"]
                    elif "expected" in event:
                        self.expected[_key(job)] = event["expected"]
                    elif "outputs" in event:
                        found["outputs"] = event["outputs"]
                    elif "crash" in event:
                        found["crash"] = event["crash"]
                    elif "finished" in event:
                        finished = True
        finally:
            os.close(read)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._clean()
        return finished, current, reason or f"status {status}"

    def _is_alone(self) -> bool:
        assert self.connection is not None
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _child(self, job: dict[str, Any], write: int) -> None:
        """Becomes the process that runs the tests; never returns."""
        try:
            if self.sandbox.enabled:
                linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            if hard == resource.RLIM_INFINITY:
                with open("/proc/self/statm") as file:
                    own = int(file.read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (own + JUDGE_MEMORY, own + JUDGE_MEMORY))
        except OSError:
            pass  # no /proc here: then without this limit
        out = os.fdopen(write, "w", encoding="utf-8", errors="replace")

        def emit(event: dict[str, Any]) -> None:
            out.write(json.dumps(event, ensure_ascii=False) + "\n")  # halves of characters become "?"
            out.flush()

        try:
            run_job(job, self.sandbox, emit)
            emit({"finished": True})
        except SandboxError as error:
            emit({"crash": str(error)})
        except BaseException:
            emit({"crash": traceback.format_exc()[-2000:]})
            emit({"finished": True})
        os._exit(0)

    def _clean(self) -> None:
        """Ends what is left of the submission; a fork server that does not answer is replaced."""
        try:
            self.sandbox.kill_student()
        except SandboxError:
            self.sandbox.remove()
            self.sandbox = self._sandbox()


def _key(job: dict[str, Any]) -> str:
    """What a source's own solutions do in its tests is the same for all its submissions."""
    parts = [job["tests"], job["prelude"], job["reference"]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def preload(modules: list[str]) -> None:
    """Imports what tests need once, before the processes that run them are forked."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            continue
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def main() -> None:
    """Serves jobs until the engine goes away."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (
        connection.makefile("r", encoding="utf-8") as lines,
        connection.makefile("w", encoding="utf-8") as out,
    ):

        def answer(data: dict[str, Any]) -> None:
            out.write(json.dumps(data) + "\n")
            out.flush()

        options = json.loads(lines.readline())
        preload(options["preload"])
        try:
            worker = Worker(options, connection)
        except SandboxError as error:
            answer({"error": str(error)})
            return
        answer({"ready": True})
        try:
            for line in lines:
                answer(worker.grade(json.loads(line)))
        finally:
            worker.sandbox.remove()


if __name__ == "__main__":
    main()
