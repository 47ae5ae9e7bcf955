# ruff: noqa: D107
"""Results on disk as they come, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from .results import CRASHED, SubmissionResult

FORMAT = 1


class JournalError(OSError):
    """The journal cannot be written; the message says where and why."""


class Journal:
    """A file of finished results, each under the key of everything that it depends on.

    A line reaches the disk whole before `add` returns; one that a kill or a full disk cut short is ignored
    later on. May be used from several threads.

    Args:
        path: the file; made if it is not there.

    Raises:
        JournalError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, SubmissionResult] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  # it stays open
            self._file.seek(0)
            data = self._file.read()
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be written: {error.strerror}") from error
        self._lock = threading.Lock()
        self._cut_short = bool(data) and not data.endswith(b"\n")
        for line in data.split(b"\n"):
            try:
                entry = json.loads(line)
                self._found[entry["key"]] = SubmissionResult.from_json(entry["result"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def find(self, key: str) -> SubmissionResult | None:
        """The result under `key`, if there is one."""
        return self._found.get(key)

    def add(self, key: str, result: SubmissionResult) -> None:
        """Keeps a result; one of a judge that failed is not kept, so that it is graded again.

        Raises:
            JournalError: the disk is full, or the like; nothing else is lost.
        """
        if result.status == CRASHED:
            return
        line = json.dumps({"key": key, "result": result.to_json()}).encode() + b"\n"
        with self._lock:
            if self._cut_short:
                line = b"\n" + line  # what follows is not glued to a line that was cut short
            try:
                self._cut_short = True
                while line:
                    line = line[self._file.write(line) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                raise JournalError(f"the journal {self.path} cannot be written: {error.strerror}") from error
            self._cut_short = False
            self._found[key] = result

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def result_key(parts: Iterable[bytes]) -> str:
    """A key for what a result depends on: the source, the submission, its files and the limits."""
    digest = hashlib.sha256(f"{FORMAT}".encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
