"""Reads notebooks for the judge: the source strictly, a submission leniently and without trusting its
metadata."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

TEST, SOLUTION, LOCKED, PLAIN, TEXT = "test", "solution", "locked", "plain", "text"
HIDDEN_BEGIN, HIDDEN_END = "BEGIN HIDDEN TESTS", "END HIDDEN TESTS"


_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class UnreadableError(ValueError):
    """There is nothing that can be graded; the message says why, in words for the student."""


@dataclass(frozen=True)
class Cell:
    """One cell: its nbgrader id ("" where it has none), its part in the grading, its text and points."""

    id: str
    kind: str
    text: str
    points: float = 0.0


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a plain file; nothing else is opened, and no link is followed.

    Raises:
        UnreadableError: a link, a folder, a pipe, an empty file, or more than `limit` bytes.
    """
    try:
        info = path.lstat()
    except OSError as error:
        raise UnreadableError("the file is missing") from error
    if stat.S_ISLNK(info.st_mode):
        raise UnreadableError("the file is a link, which is not followed")
    if not stat.S_ISREG(info.st_mode):
        raise UnreadableError("it is not a plain file")
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise UnreadableError(f"the file cannot be opened ({error.strerror})") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UnreadableError("it is not a plain file")
        data = file.read(limit + 1)
    if not data:
        raise UnreadableError("the file is empty (0 bytes)")
    if len(data) > limit:
        raise UnreadableError(f"the file is too large (more than {limit / 1e6:.0f} MB)")
    return data


def parse_notebook(data: bytes) -> dict[str, Any]:
    """The JSON of a notebook of format 4, whatever its minor version, byte-order mark or line ends.

    Raises:
        UnreadableError: not UTF-8, not JSON, no notebook, or another format.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError("the file is not UTF-8 text") from error
    try:
        content = json.loads(text)
        if _HALF.search(text):  # halves of characters, which no file can hold
            content = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise UnreadableError("the file is not JSON, so it is not a notebook") from error
    if not isinstance(content, dict):
        raise UnreadableError("the file is JSON, but not a notebook")
    if content.get("nbformat") != 4 or isinstance(content["nbformat"], bool):
        raise UnreadableError(f"the notebook's format is {str(content.get('nbformat'))[:20]}, expected 4")
    if not isinstance(content.get("cells"), list):
        raise UnreadableError("the notebook has no cells")
    return content


def text_of(cell: Any) -> str:
    """The text of a cell, or "" where it has none."""
    source = cell.get("source") if isinstance(cell, dict) else None
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    if not isinstance(source, str):
        return ""
    return source.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode()


def _nbgrader(cell: Any) -> dict[str, Any]:
    metadata = cell.get("metadata") if isinstance(cell, dict) else None
    inner = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return inner if isinstance(inner, dict) else {}


def grade_id(cell: Any) -> str:
    """The nbgrader id of a cell of JSON, or ""."""
    name = _nbgrader(cell).get("grade_id")
    return name if isinstance(name, str) else ""


def source_cells(content: dict[str, Any]) -> list[Cell]:
    """The cells of an instructor's notebook, each with its part in the grading."""
    cells = []
    for cell in content["cells"]:
        flags = _nbgrader(cell)
        kind = TEXT
        if cell.get("cell_type") == "code":
            if flags.get("solution"):
                kind = SOLUTION
            elif flags.get("grade"):
                kind = TEST
            else:
                kind = LOCKED if flags.get("locked") else PLAIN
        elif flags.get("grade") or flags.get("solution") or flags.get("task"):
            kind = TEXT
        points = flags.get("points", 0)
        cells.append(Cell(grade_id(cell), kind, text_of(cell), float(points or 0)))
    return cells


def hidden_lines(text: str) -> frozenset[int]:
    """The numbers of the lines (from 1) of a test that students don't see."""
    hidden, inside = set(), False
    for number, line in enumerate(text.split("\n"), 1):
        inside = inside or HIDDEN_BEGIN in line
        if inside:
            hidden.add(number)
        if HIDDEN_END in line:
            inside = False
    return frozenset(hidden)


def visible_text(text: str) -> str:
    """A test as students see it, with the same line numbers."""
    hidden = hidden_lines(text)
    return "\n".join("" if n in hidden else line for n, line in enumerate(text.split("\n"), 1))


def files_beside(path: Path, limit: int, ignore: Sequence[str] = ()) -> dict[str, bytes]:
    """The small plain files in a notebook's folder, by their path in it; what is too much is left out.

    `ignore` are patterns of names, as nbgrader's option `CourseDirectory.ignore` has them.
    """

    def wanted(name: str) -> bool:
        return not name.startswith(".") and not any(fnmatch(name, pattern) for pattern in ignore)

    found: dict[str, bytes] = {}
    room = limit
    for folder, folders, names in os.walk(path.parent, followlinks=False):
        folders[:] = sorted(filter(wanted, folders))[:50]
        for name in sorted(names)[:200]:
            file = Path(folder, name)
            relative = file.relative_to(path.parent).as_posix()
            plain = re.fullmatch(r"[\w .,+=@()/-]{1,150}", relative) and wanted(name)
            if not plain or file.suffix in (".ipynb", ".zip", ".db") or len(found) >= 200:
                continue
            try:
                data = read_bytes(file, room)
            except UnreadableError:
                continue
            found[relative] = data
            room -= len(data)
    return found
