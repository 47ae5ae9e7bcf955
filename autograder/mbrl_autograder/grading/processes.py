"""Runs a command with a deadline, and leaves none of its processes behind.

A notebook's kernel is a session of its own, so ending the process that started it is not enough. While the
command runs, its descendants are noted; afterwards those (and only those) are ended that still live. psutil
compares start times, so that an id that the system gave to another process since is left alone.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # Linux: orphans become children of this process, so that it can still find them


_running: set[psutil.Process] = set()  # the commands that `run_bounded` runs now, in any thread


def end_running() -> None:
    """Ends the commands that `run_bounded` runs now in other threads, so that it returns there at once."""
    for root in list(_running):
        end(root, set())


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends (on Linux; else nothing)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_bounded(
    command: Sequence[str], *, seconds: float, cwd: Path, env: Mapping[str, str], log: Path
) -> int | None:
    """Runs `command` and returns its exit code, or None where it was ended after `seconds`.

    Args:
        command: program and arguments.
        seconds: the deadline for all of it.
        cwd: where it runs.
        env: its whole environment.
        log: the file for its stdout and stderr.
    """
    deadline = time.monotonic() + seconds
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        seen: set[psutil.Process] = set()
        root = psutil.Process(process.pid)
        _running.add(root)
        try:
            while process.poll() is None and time.monotonic() < deadline:
                seen.update(_descendants(root))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=min(0.5, max(0.0, deadline - time.monotonic())))
            return process.returncode
        finally:  # an interrupted run (Ctrl-C) too leaves nothing behind
            end(root, seen)
            _running.discard(root)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)


def end(root: psutil.Process, seen: set[psutil.Process]) -> None:
    """Ends what descends from `root` or was seen to, and `root` last."""
    for _ in range(20):  # what forks while it is being ended is found in the next round
        alive = {process for process in seen | set(_descendants(root)) if _lives(process)}
        if not alive:
            break
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(alive), timeout=0.5)
    with suppress(psutil.Error):
        if _lives(root):
            root.kill()


def _descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
