"""Finds out who handed in what, without trusting anything that arrived.

Read are a folder, or a zip of one, with
    STUDENT/ASSIGNMENT/NOTEBOOK.ipynb          nbgrader's own layout
    STUDENT/NOTEBOOK.ipynb
    STUDENT.ipynb                              the assignment's notebook with automatic points
    STUDENT.zip, STUDENT/ANYTHING.zip          what `mbrl-course pack` wrote
    NAME_[LATE_]123_456_build-2.ipynb          as Canvas exports it
    NAME_123_assignsubmission_file_/...        as Moodle exports it
Links are never followed, and archives are unpacked into a folder of their own within bounds.
"""

from __future__ import annotations

import atexit
import errno
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from .archives import ArchiveError, ArchiveLimits, unpack
from .filenames import Sender, is_notebook, listing, newness, printable, rank, safe_name, sender
from .model import UNREADABLE, GradingError, Limits, Submission

CLASS_LIMITS = ArchiveLimits(members=50_000, total_bytes=8 << 30, ratio=1000)
MAX_ENTRIES = 10_000


@dataclass(frozen=True)
class _Item:
    """A file that a student handed in: what it was called, where it lies, and how new it is."""

    name: str
    path: Path
    newness: tuple[float, ...] = ()
    shared: bool = False  # others' files lie beside it

    @property
    def stem(self) -> str:
        return Path(self.name).stem


@dataclass
class _Box:
    """All that arrived from one student."""

    student: str
    platform: str = ""
    number: str = ""
    items: list[_Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # said in any case
    problems: list[str] = field(default_factory=list)  # said where something could not be taken


@dataclass(frozen=True)
class Collection:
    """What a class handed in.

    Attributes:
        submissions: one for each student, in the order of their names.
        ignored: names of files that are nobody's submission.
    """

    submissions: tuple[Submission, ...]
    ignored: tuple[str, ...] = ()


def collect(
    submissions: Path,
    assignment: str,
    notebooks: Sequence[str],
    limits: Limits,
    scratch: Path | None = None,
) -> list[Submission]:
    """One `Submission` for each student of whom anything is in `submissions`, in the order of their names.

    Args:
        submissions: the folder or zip with what the class handed in.
        assignment: such as "week03".
        notebooks: the names of the assignment's notebooks, the one a single file stands for first.
        limits: `notebook_bytes` bounds what is read.
        scratch: where archives are unpacked; by default a folder that goes when the process ends.

    Raises:
        GradingError: there is no such folder or zip, or nothing in it.
    """
    return list(collection(submissions, assignment, notebooks, limits, scratch).submissions)


def collection(
    submissions: Path,
    assignment: str,
    notebooks: Sequence[str],
    limits: Limits,
    scratch: Path | None = None,
) -> Collection:
    """As `collect`, with what was passed over."""
    collector = _Collector(assignment, list(notebooks), limits, scratch)
    try:
        return collector.read(submissions)
    except OSError as error:  # a full disk, a folder without rights
        raise GradingError(f"{submissions} cannot be collected: {error}") from error


class _Collector:
    def __init__(self, assignment: str, notebooks: list[str], limits: Limits, scratch: Path | None) -> None:
        self.assignment, self.notebooks, self.limits = assignment, notebooks, limits
        self._scratch, self._count = scratch, 0
        most = 4 * limits.notebook_bytes
        self.archive_limits = ArchiveLimits(members=500, total_bytes=most)

    def read(self, submissions: Path) -> Collection:
        root, refused = self._opened(submissions)
        boxes: dict[tuple[str, str], _Box] = {}
        ignored = []
        for entry in _entries(root):
            if not self._add(boxes, entry):
                ignored.append(printable(entry.name))
        for name, reason in refused.items():
            self._refused(boxes, name, reason)
        if not boxes:
            raise GradingError(
                f"{submissions} holds no submissions: expected a folder or a notebook per student"
            )
        names = [box.student for box in boxes.values()]
        found = []
        for box in boxes.values():
            if names.count(box.student) > 1 and box.number:  # two people of the same name
                box.student = f"{box.student}_{box.number}"
            submission = self._submission(box)
            found.append(replace(submission, platform=box.platform, number=box.number))
        return Collection(tuple(sorted(found, key=lambda one: one.student)), tuple(ignored))

    def _opened(self, submissions: Path) -> tuple[Path, dict[str, str]]:
        """The folder to read, unpacked where it has to be; below folders that hold nothing but the next."""
        refused: dict[str, str] = {}
        root = submissions
        if submissions.is_file() and submissions.suffix.lower() != ".zip":
            raise GradingError(f"{submissions} is a file: pass a folder with one per student, or a zip of it")
        if submissions.is_file():
            try:
                unpacked = unpack(submissions, self._place(), CLASS_LIMITS)
            except ArchiveError as error:
                raise GradingError(f"{submissions} {error}") from error
            root, refused = unpacked.folder, unpacked.refused
            while (inner := self._only_folder(root)) is not None:
                refused = {name.removeprefix(f"{inner.name}/"): reason for name, reason in refused.items()}
                root = inner
        elif not root.is_dir():
            raise GradingError(
                f"there is no {root}: pass --submissions with a folder per student, or a zip of it"
            )
        return root, refused

    def _only_folder(self, root: Path) -> Path | None:
        """The one folder in `root` where it holds the class, and is not a student's."""
        entries = _entries(root)
        if len(entries) != 1 or not entries[0].is_dir() or sender(entries[0].name).platform:
            return None
        inner = _entries(entries[0])
        packed = f"{self.assignment}-hand-in"  # what `mbrl-course pack` writes
        own = any(
            path.name == self.assignment or self._fits(path) or path.name.startswith(packed) for path in inner
        )
        return None if own or not inner else entries[0]

    def _fits(self, path: Path) -> bool:
        """Whether a file is one of the assignment's notebooks by its name."""
        return is_notebook(path.name) and any(self._rank(path.stem, name) for name in self.notebooks)

    def _rank(self, stem: str, notebook: str) -> int:
        return rank(stem, notebook, self.notebooks, self.assignment)

    def _place(self) -> Path:
        """A new folder's path."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="mbrl-course-"))
            atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
        self._count += 1
        return self._scratch / str(self._count)

    # who it is from ---------------------------------------------------------------------------------

    def _box(self, boxes: dict[tuple[str, str], _Box], who: Sender) -> _Box:
        box = boxes.setdefault((who.name, who.number), _Box(who.name, who.platform, who.number))
        note = "marked as late by the learning platform (which takes nothing off here)"
        if who.late and note not in box.notes:
            box.notes.append(note)
        return box

    def _add(self, boxes: dict[tuple[str, str], _Box], entry: Path) -> bool:
        """Puts an entry of the class's folder into its student's box; False where it is nobody's."""
        who, link, suffix = sender(entry.name), entry.is_symlink(), entry.suffix.lower()
        if not (who.platform or link or entry.is_dir() or suffix in (".ipynb", ".zip")):
            return False  # a read-me, a roster, a picture beside the submissions
        box = self._box(boxes, who)
        try:
            if link:
                box.problems.append("is a link, which is not followed")
            elif entry.is_dir():
                self._add_folder(box, entry)
            else:
                single = not who.platform and suffix == ".ipynb"  # STUDENT.ipynb
                called = f"{self.notebooks[0]}.ipynb" if single else who.file
                age = newness(called, entry.lstat().st_mtime, who.platform)
                self._add_item(box, _Item(called, entry, age, shared=True))
        except OSError as error:  # this student's, and nobody else's
            box.problems.append(_unreadable(entry.name, error))
        return True

    def _refused(self, boxes: dict[tuple[str, str], _Box], name: str, reason: str) -> None:
        """Notes a member of the class's archive that was left out with its student."""
        first, _, rest = name.partition("/")
        who = sender(first)
        self._box(boxes, who).problems.append(f"{printable(rest or who.file)[-80:]} {reason}")

    # what it is -------------------------------------------------------------------------------------

    def _add_folder(self, box: _Box, folder: Path, nested: bool = True) -> None:
        inner = folder / self.assignment
        if inner.is_symlink():
            box.problems.append(f"{self.assignment} is a link, which is not followed")
            return
        folder = inner if inner.is_dir() else folder
        entries = _entries(folder)
        only = [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
        if len(only) == len(entries) == 1 and nested:
            self._add_folder(box, only[0], nested=False)
            return
        for entry in entries:
            self._add_item(box, _Item(entry.name, entry, newness(entry.name, entry.lstat().st_mtime)))

    def _add_item(self, box: _Box, item: _Item) -> None:
        if item.path.suffix.lower() != ".zip":
            box.items.append(item)
            return
        if problem := _refuse(item, self.archive_limits.total_bytes):
            box.problems.append(problem)
            return
        try:
            unpacked = unpack(item.path, self._place(), self.archive_limits)
        except ArchiveError as error:
            box.problems.append(f"{printable(item.name)} {error}")
            return
        where = printable(item.name)
        box.problems += [f"in {where}: {printable(n)[-80:]} {why}" for n, why in unpacked.refused.items()]
        folder = unpacked.folder
        for _ in range(3):  # a folder in a folder, as systems' own packers make them
            entries = _entries(folder)
            inner = [entry for entry in entries if entry.is_dir()]
            if len(inner) != 1 or (len(entries) > 1 and inner[0].name != self.assignment):
                break
            folder = inner[0]
        if not entries and not unpacked.refused:
            box.problems.append(f"{where} is empty")
        for forged in (entry for entry in entries if entry.name == "timestamp.txt"):
            # when a submission arrived is not for the student to say
            shutil.rmtree(forged) if forged.is_dir() else forged.unlink()
        box.items += [_Item(entry.name, entry, item.newness) for entry in entries if entry.exists()]

    # which of it ------------------------------------------------------------------------------------

    def _submission(self, box: _Box) -> Submission:
        student = box.student
        if student != safe_name(student):
            reason = "the student's name has unprintable characters, is too long or is none: rename it"
            return Submission(safe_name(student), status=UNREADABLE, reason=reason)
        files: dict[str, Path] = {}
        for name in self.notebooks:
            taken = self._chosen(box, name)
            if taken is not None:
                try:
                    files[name] = self._alone(taken, name)
                except OSError as error:
                    box.problems.append(_unreadable(taken.name, error))
        if files:
            return Submission(student, files, reason="; ".join([*box.notes, *box.problems]))
        return Submission(student, status=UNREADABLE, reason="; ".join([*box.notes, *self._nothing(box)]))

    def _chosen(self, box: _Box, notebook: str) -> _Item | None:
        """The newest of a notebook's versions that can be read."""
        ranked = [(self._rank(item.stem, notebook), item) for item in box.items if is_notebook(item.name)]
        best = [item for fit, item in ranked if fit >= 2] or [item for fit, item in ranked if fit == 1]
        best.sort(key=lambda item: item.newness, reverse=True)
        refused = [(item, why) for item in best if (why := _refuse(item, self.limits.notebook_bytes))]
        box.problems += [why for _, why in refused]
        good = [item for item in best if item not in [one for one, _ in refused]]
        if not good:
            return None
        taken = good[0]
        called = printable(taken.name)
        if len(best) > 1:
            box.notes.append(
                f"{len(best)} versions of {notebook}.ipynb arrived; the newest is taken ({called})"
            )
        elif self._rank(taken.stem, notebook) < 2:
            box.notes.append(f"{called} is taken as {notebook}.ipynb")
        return taken

    def _alone(self, item: _Item, notebook: str) -> Path:
        """The notebook under its own name, in a folder that holds nothing of anybody else's."""
        if item.path.name == f"{notebook}.ipynb" and not item.shared:
            return item.path
        target = self._place() / f"{notebook}.ipynb"
        target.parent.mkdir(parents=True)
        shutil.copy2(item.path, target, follow_symlinks=False)
        return target

    def _nothing(self, box: _Box) -> list[str]:
        """Why there is nothing to grade."""
        if box.problems:
            return box.problems
        names = [item.name for item in box.items]
        if not names:
            return ["the folder is empty"]
        if any(is_notebook(name) for name in names):
            expected = " or ".join(f"{name}.ipynb" for name in self.notebooks)
            return [f"no notebook called {expected}, but {listing(names)}"]
        return [f"no notebook, but {listing(names)}"]


def _entries(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if not entry.name.startswith((".", "__")))
    return sorted(islice(found, MAX_ENTRIES))


def _unreadable(name: str, error: OSError) -> str:
    """What is said of something that cannot be read; a disk that takes no more is everybody's problem."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        raise error
    return f"{printable(name)} cannot be read ({error.strerror})"


def _refuse(item: _Item, most: float) -> str:
    """Why a file is not to be opened, or ""; decided without opening it."""
    info, name = item.path.lstat(), printable(item.name)
    if stat.S_ISLNK(info.st_mode):
        return f"{name} is a link, which is not followed"
    if not stat.S_ISREG(info.st_mode):
        return f"{name} is not a plain file"
    if info.st_size == 0:
        return f"{name} is empty (0 bytes)"
    if info.st_size > most:
        return f"{name} is too large ({info.st_size / 1e6:.1f} MB, at most {most / 1e6:.1f} MB)"
    return ""
