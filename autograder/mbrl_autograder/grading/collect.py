"""Finds out who handed in what, without trusting anything that arrived.

Three layouts are read: DIR/<student>/<assignment>/<notebook>.ipynb (nbgrader's own),
DIR/<student>/<notebook>.ipynb, and DIR/<student>.ipynb where the assignment has one notebook with automatic
points. Links are never followed.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from .model import UNREADABLE, GradingError, Limits, Submission


def collect(submissions: Path, assignment: str, notebooks: Sequence[str], limits: Limits) -> list[Submission]:
    """One `Submission` for each student's folder or file in `submissions`, in the order of their names.

    Args:
        submissions: the folder with what the class handed in.
        assignment: such as "week03".
        notebooks: the names of the assignment's notebooks, the one a single file stands for first.
        limits: `notebook_bytes` bounds what is read.

    Raises:
        GradingError: there is no such folder, or nothing in it.
    """
    if not submissions.is_dir():
        raise GradingError(
            f"there is no folder {submissions}: pass --submissions DIR with a folder per student"
        )
    entries = sorted(entry for entry in submissions.iterdir() if not _hidden(entry))
    found = [_collect_one(entry, assignment, notebooks, limits) for entry in entries]
    result = [submission for submission in found if submission is not None]
    if not result:
        raise GradingError(f"{submissions} holds no submissions: expected a folder per student")
    seen: dict[str, Submission] = {}
    for submission in result:
        if submission.student in seen:
            reason = f"both a folder and a file called {submission.student!r} arrived"
            submission = Submission(submission.student, status=UNREADABLE, reason=reason)
        seen[submission.student] = submission
    return list(seen.values())


def _hidden(entry: Path) -> bool:
    return entry.name.startswith((".", "__"))


def _collect_one(entry: Path, assignment: str, notebooks: Sequence[str], limits: Limits) -> Submission | None:
    if entry.is_symlink():
        return Submission(_name(entry), status=UNREADABLE, reason="is a link, which is not followed")
    if not entry.is_dir():
        if entry.suffix != ".ipynb":
            return None  # a read-me, a roster, a picture beside the submissions
        return _submission(entry.stem, {notebooks[0]: entry}, limits)
    folder = entry / assignment
    if folder.is_symlink():
        return Submission(
            _name(entry), status=UNREADABLE, reason=f"{assignment} is a link, which is not followed"
        )
    if not folder.is_dir():
        folder = entry
    arrived = sorted(path for path in folder.iterdir() if not _hidden(path))
    files = {path.stem: path for path in arrived if path.suffix == ".ipynb" and path.stem in notebooks}
    if files:
        return _submission(entry.name, files, limits)
    expected = " or ".join(f"{name}.ipynb" for name in notebooks)
    names = [path.name for path in arrived]
    if not names:
        reason = "the folder is empty"
    elif any(path.suffix == ".ipynb" for path in arrived):
        reason = f"no notebook called {expected}, but {_listing(names)}"
    else:
        reason = f"no notebook, but {_listing(names)}"
    return Submission(_name(entry), status=UNREADABLE, reason=reason)


def _submission(student: str, files: dict[str, Path], limits: Limits) -> Submission:
    if not student.isprintable() or len(student) > 128:
        reason = "the folder's name has unprintable characters or is too long: rename it"
        return Submission(_printable(student)[:128], status=UNREADABLE, reason=reason)
    reasons = [reason for path in files.values() if (reason := _refuse(path, limits))]
    good = {name: path for name, path in files.items() if not _refuse(path, limits)}
    if not good:
        return Submission(student, status=UNREADABLE, reason="; ".join(reasons))
    return Submission(student, good, reason="; ".join(reasons))


def _refuse(path: Path, limits: Limits) -> str:
    """Why `path` is not to be opened, or ""; decided without opening it."""
    info = path.lstat()
    if stat.S_ISLNK(info.st_mode):
        return f"{path.name} is a link, which is not followed"
    if not stat.S_ISREG(info.st_mode):
        return f"{path.name} is not a plain file"
    if info.st_size == 0:
        return f"{path.name} is empty (0 bytes)"
    if info.st_size > limits.notebook_bytes:
        size, most = info.st_size / 1e6, limits.notebook_bytes / 1e6
        return f"{path.name} is too large ({size:.1f} MB, at most {most:.1f} MB)"
    return ""


def _name(entry: Path) -> str:
    return _printable(entry.stem if entry.suffix == ".ipynb" else entry.name)[:128]


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(_printable(name)[:60] for name in names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")
