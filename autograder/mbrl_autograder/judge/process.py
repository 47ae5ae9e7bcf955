# ruff: noqa: D107
"""A worker's process as the engine sees it (see `worker.py` for what it does)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import Any

from .sandbox import SandboxError


class WorkerError(RuntimeError):
    """The worker's process ended."""


class WorkerProcess:
    """A worker and the socket to it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-m", "mbrl_autograder.judge.worker", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        self._socket = ours
        self._lines = ours.makefile("r", encoding="utf-8")
        self._out = ours.makefile("w", encoding="utf-8")

    def wait_until_ready(self) -> WorkerProcess:
        """Waits for the sandbox.

        Raises:
            SandboxError: it does not start.
        """
        try:
            answer = self._ask(self.options)
        except WorkerError as error:
            raise SandboxError(str(error)) from error
        if "error" in answer:
            raise SandboxError(answer["error"])
        return self

    def grade(self, job: dict[str, Any]) -> dict[str, Any]:
        """What `worker.Worker.grade` returns.

        Raises:
            WorkerError: the worker ended.
        """
        return self._ask(job)

    def _ask(self, data: dict[str, Any]) -> dict[str, Any]:
        try:
            self._out.write(json.dumps(data) + "\n")
            self._out.flush()
            line = self._lines.readline()
        except (OSError, ValueError) as error:
            raise WorkerError(f"a worker of the judge ended ({error})") from error
        if not line:
            raise WorkerError("a worker of the judge ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the worker; its sandbox ends with it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # a thread that waits for the worker goes on
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for end in (self._lines, self._out, self._socket):
            with contextlib.suppress(OSError):
                end.close()
