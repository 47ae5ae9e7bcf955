"""What the names of files say: who handed in, which notebook it is, and which of two is newer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CANVAS, MOODLE = "Canvas", "Moodle"
_MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_?(?P<file>.*)", re.S)
_CANVAS = re.compile(r"(?P<name>[^_]+)_(?P<late>LATE_)?(?P<id>\d+)_\d+_(?P<file>.+)", re.S)
# "build-2", "build (1)", "build_1_": what Canvas and browsers make of a second "build"
NUMBERED = re.compile(r"[-_ +]*\(?(\d+)\)?_?")


@dataclass(frozen=True)
class Sender:
    """Whom an entry of the class's folder is from.

    Attributes:
        name: the student's, or what stands for it.
        number: the learning platform's number of the student, or "".
        file: what the student called the file, or "" for a folder of Moodle's.
        platform: CANVAS, MOODLE or "".
        late: the platform says so.
    """

    name: str
    number: str
    file: str
    platform: str = ""
    late: bool = False


def sender(name: str) -> Sender:
    """Whom a file or folder called `name` is from."""
    if match := _MOODLE.fullmatch(name):
        return Sender(match["name"].strip(), match["id"], match["file"], MOODLE)
    if match := _CANVAS.fullmatch(name):
        return Sender(match["name"], match["id"], match["file"], CANVAS, bool(match["late"]))
    stem, suffix = Path(name).stem, Path(name).suffix.lower()
    return Sender(stem if suffix in (".ipynb", ".zip") else name, "", name)


def rank(stem: str, notebook: str, notebooks: Sequence[str], assignment: str) -> int:
    """How well a file's name fits a notebook: 3 its own, 2 numbered, 1 a copy or one that holds it, or 0."""
    low, name = stem.lower(), notebook.lower()
    if low == name:
        return 3
    rest = low.removeprefix(name)
    if low.startswith(name) and NUMBERED.fullmatch(rest):
        return 2
    others = [other for other in notebooks if other != notebook and other.lower() in low]
    first = notebook == notebooks[0] and assignment.lower() in low and not others
    return 1 if name in low or first else 0


def newness(name: str, modified: float, platform: str = "") -> tuple[float, ...]:
    """What tells which of two files is newer: Canvas's own numbers first, since its dates may be lost."""
    match = re.search(r"-(\d+)$", Path(name).stem)
    number = float(match[1]) if match else 0.0
    return (number if platform == CANVAS else 0.0, modified, number)


def is_notebook(name: str) -> bool:
    """Whether a file's name is that of a notebook."""
    return name.lower().endswith(".ipynb")


def safe_name(student: str) -> str:
    """The name as it can be that of folders and of a student in the gradebook; a good one stays as it is."""
    name = "".join(char if char.isprintable() and char not in "/\\" else "?" for char in student)[
        :128
    ].strip()
    return name if name.strip(". ") else f"({name or 'no name'})"


def printable(text: str) -> str:
    """Text that cannot confuse a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def listing(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(printable(name)[:60] for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")
