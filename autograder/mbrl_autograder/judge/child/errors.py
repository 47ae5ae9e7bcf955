"""Exceptions on their way between the student's code and the judge."""

from __future__ import annotations

import builtins
import contextlib
import os
import traceback
from typing import Any

from .packing import Packer, Unpacker
from .wire import WireError


def is_own_error(kind: Any) -> bool:
    """Whether `kind` is a class of exceptions that is not Python's own."""
    own = isinstance(kind, type) and issubclass(kind, Exception)
    return own and vars(builtins).get(kind.__name__) is not kind


def packed_bases(kind: type, packer: Packer) -> list[Any]:
    """Of the bases of a class of exceptions, those that are exceptions: built-in ones by name."""
    bases = [base for base in kind.__bases__ if issubclass(base, Exception)]
    return [packer.pack(base) if is_own_error(base) else base.__name__ for base in bases]


def describe_error(error: BaseException) -> dict[str, Any]:
    """An exception as plain data: the names of its classes, its message, and where in the student's cells
    it arose."""
    frames = []
    for frame in traceback.extract_tb(error.__traceback__)[-40:]:
        if "judge_child" not in frame.filename and "site-packages" not in frame.filename:
            frames.append(
                [os.path.basename(frame.filename)[:60], frame.lineno or 0, (frame.line or "")[:200]]
            )
    try:
        message = str(error)[:2000]
    except BaseException:
        message = ""
    return {
        "types": [cls.__name__[:100] for cls in type(error).__mro__][:20],
        "message": message,
        "frames": frames[-6:],
    }


def packed_error(error: BaseException, packer: Packer) -> dict[str, Any]:
    """As `describe_error`; with the object itself where its class is not Python's own."""
    described = describe_error(error)
    if is_own_error(type(error)):
        error.__traceback__ = None  # the object is kept, and what its frames hold need not be
        with contextlib.suppress(WireError):  # too many objects: then by its nearest built-in class
            described["object"] = packer.pack(error)
    return described


def error_of_judge(data: dict[str, Any], unpacker: Unpacker, namespace: dict[str, Any]) -> Exception:
    """The exception that a function of the test's raised: the student's own object, one of a class that both
    sides have, or a built-in one."""
    if data["object"] is not None:
        found: Exception = unpacker.unpack(data["object"])
        return found
    kind: Any = namespace.get(data["name"])
    if is_own_error(kind):
        error: Exception = kind.__new__(kind, data["message"])
        return error
    kind = getattr(builtins, data["type"], RuntimeError)
    return kind(data["message"])
