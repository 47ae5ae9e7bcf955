# ruff: noqa: D107
"""Results on disk as they come, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from .results import CRASHED, SubmissionResult

FORMAT = 1


class JournalError(OSError):
    """The journal cannot be written; the message says where and why."""


class Journal:
    """A file of finished results, each under the key of everything that it depends on.

    A line is written whole and reaches the disk before `add` returns; a line that a kill cut short is
    ignored.

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
            self._file = open(path, "a+b")  # noqa: SIM115  # it stays open
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be written: {error.strerror}") from error
        self._file.seek(0)
        data = self._file.read()
        for line in data.split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
                self._found[entry["key"]] = SubmissionResult.from_json(entry["result"])
            except (ValueError, KeyError, TypeError):
                continue
        if data and not data.endswith(b"\n"):
            self._file.write(b"\n")  # what follows is not glued to a line that was cut short

    def find(self, key: str) -> SubmissionResult | None:
        """The result under `key`, if there is one."""
        return self._found.get(key)

    def add(self, key: str, result: SubmissionResult) -> None:
        """Keeps a result; one of a judge that failed is not kept, so that it is graded again.

        Raises:
            JournalError: the disk is full, or the like; nothing else is lost.
        """
        if result.status == CRASHED or key in self._found:
            return
        line = json.dumps({"key": key, "result": result.to_json()}).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise JournalError(f"the journal {self.path} cannot be written: {error.strerror}") from error
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
