"""What a course directory keeps of a run besides nbgrader's own: the journal, and a lock for one run at a
time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .model import GradingError

FOLDER = ".mbrl-course"


@contextmanager
def exclusive(root: Path) -> Iterator[Path]:
    """The folder `root`/.mbrl-course, made if it is not there, while no other run has it.

    The system gives the lock back however the process ends.

    Raises:
        GradingError: another run is grading this course, or the folder cannot be written.
    """
    folder = root / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        lock = (folder / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise GradingError(
            f"{folder} cannot be written ({error.strerror}): grading keeps its journal there"
        ) from error
    with lock:
        try:
            fcntl = importlib.import_module("fcntl")
        except ImportError:  # not on Windows
            yield folder
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GradingError(f"another run is grading {root}: wait until it has ended") from error
        yield folder
