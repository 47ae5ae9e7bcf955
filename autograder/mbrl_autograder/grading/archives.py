"""Unpacks zip files that strangers made: no links, no way out of the folder, bounded in every respect."""

from __future__ import annotations

import os
import stat
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHUNK = 1 << 16
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
RATIO_FROM = 1_000_000  # bytes; smaller files may be packed as tightly as they like
MAX_NAME, MAX_DEPTH = 200, 12


@dataclass(frozen=True)
class ArchiveLimits:
    """What one archive may hold.

    Attributes:
        members: how many files and folders.
        total_bytes: size of all of them, unpacked.
        ratio: how many times larger than in the archive a member may become.
    """

    members: int
    total_bytes: int
    ratio: float = 300.0


class ArchiveError(ValueError):
    """The archive cannot be unpacked; the message says why."""


@dataclass
class Unpacked:
    """What came of an archive.

    Attributes:
        folder: where its files are.
        refused: members that were left out, by a harmless form of their path, with the reason.
    """

    folder: Path
    refused: dict[str, str] = field(default_factory=dict)


def unpack(archive: Path, folder: Path, limits: ArchiveLimits) -> Unpacked:
    """Unpacks `archive` into the new folder `folder`.

    A member that is a link, encrypted, packed in a rare way, has a path that leads elsewhere, or is larger
    than it says is left out, and named in the result.

    Raises:
        ArchiveError: it is no zip file, or holds more than `limits` allow.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True)
    result = Unpacked(folder)
    try:
        opened = zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, OverflowError) as error:
        raise ArchiveError("is not a zip file, or a damaged one") from error
    try:
        with opened:
            members = opened.infolist()
            _check(members, limits)
            room = limits.total_bytes
            for member in members:
                parts, problem = _parts(member.filename)
                if not parts or member.is_dir() or _is_clutter(parts):
                    continue
                problem = problem or _refuse(member, limits)
                if not problem:
                    problem, used = _write(opened, member, folder.joinpath(*parts), room)
                    room -= used
                if problem:
                    result.refused["/".join(parts)] = problem
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeError, ValueError) as error:
        if isinstance(error, ArchiveError):
            raise
        raise ArchiveError("is not a zip file, or a damaged one") from error
    return result


def _check(members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if len(members) > limits.members:
        raise ArchiveError(f"holds {len(members)} files (at most {limits.members})")
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes:
        size, most = total / 1e6, limits.total_bytes / 1e6
        raise ArchiveError(f"is too large unpacked ({size:.0f} MB, at most {most:.0f} MB)")


def _parts(name: str) -> tuple[list[str], str]:
    """The path of a member without what leads elsewhere, and why it is refused, or ""."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    found = name.split("/")
    parts = [_plain(part) for part in found if part not in ("", ".", "..")]
    if name.startswith("/") or ".." in found or (found[0][1:2] == ":" and found[0][:1].isalpha()):
        return parts, "has a path that leads out of the archive"
    if len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME for part in parts):
        return [part[:60] for part in parts[:MAX_DEPTH]], "has a path that is too long"
    return parts, ""


def _plain(part: str) -> str:
    """A part of a path as a file's name that every system takes."""
    return "".join("_" if char in '<>:"|?*' or not char.isprintable() else char for char in part)


def _is_clutter(parts: list[str]) -> bool:
    """True for what systems and editors leave behind."""
    return any(part.startswith((".", "__")) or part.lower() in ("thumbs.db", "desktop.ini") for part in parts)


def _refuse(member: zipfile.ZipInfo, limits: ArchiveLimits) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link, which is not followed"
    if kind not in (0, stat.S_IFREG):
        return "is not a plain file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in METHODS:
        return "is packed in a way that is not read (use an ordinary zip)"
    if member.file_size > RATIO_FROM and member.file_size > limits.ratio * max(member.compress_size, 1):
        return f"becomes more than {limits.ratio:.0f} times larger when unpacked"
    return ""


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, room: int) -> tuple[str, int]:
    """Writes one member; returns what was wrong with it, or "", and how many bytes it took."""
    used = 0
    if target.exists():
        return "occurs twice in the archive; the first one is taken", 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        return "lies in a folder of the same name as a file", 0
    try:
        with target.open("xb") as out:
            for block in _blocks(opened, member):
                used += len(block)
                if used > min(member.file_size, room):
                    raise ArchiveError("is larger than the archive says")
                out.write(block)
    except ArchiveError as error:
        target.unlink(missing_ok=True)
        return str(error), used
    _set_time(target, member)
    return "", used


def _blocks(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """What a member holds, piece by piece; an ArchiveError where it cannot be read."""
    try:
        with opened.open(member) as stream:
            while block := stream.read(CHUNK):
                yield block
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,  # an offset that lies outside of the file
        ValueError,
        OverflowError,
    ) as error:
        raise ArchiveError("is damaged") from error


def _set_time(target: Path, member: zipfile.ZipInfo) -> None:
    try:
        seconds = time.mktime((*member.date_time, 0, 0, -1))
        os.utime(target, (seconds, seconds))
    except (ValueError, OverflowError, OSError):  # a date that is none
        os.utime(target, (0, 0))
