# ruff: noqa: D105
"""Exceptions of classes that the student's code defines: a test catches them by the student's own name.

Each such class has a stand-in here, a class without code whose bases are the stand-ins of its bases, or
built-in ones; an error of that class is an instance of it, and its attributes are asked for as those of any
object of the student's.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from . import proxies

BUILTIN_ERRORS = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning)
    if kind not in (StopIteration, StopAsyncIteration)
    and not issubclass(kind, UnicodeError | BaseExceptionGroup)
}


class StudentErrorInfo:
    """What a student's exception says of itself; hung on the exception that stands for it as
    `student_error`."""

    def __init__(self, data: Any) -> None:  # noqa: D107
        data = data if isinstance(data, dict) else {}
        types = data.get("types")
        self.types = (
            [str(name)[:100] for name in types[:20]] if isinstance(types, list) and types else ["Exception"]
        )
        self.message = str(data.get("message", ""))[:2000]
        frames = data.get("frames")
        self.frames = [frame for frame in frames[:6] if _is_frame(frame)] if isinstance(frames, list) else []

    def exception(self) -> Exception:
        """An exception of the nearest built-in kind, to be raised in the test."""
        kind = next((BUILTIN_ERRORS[name] for name in self.types if name in BUILTIN_ERRORS), RuntimeError)
        error = kind(self.message)
        error.student_error = self  # type: ignore[attr-defined]
        return error


def _is_frame(frame: Any) -> bool:
    kinds = (str, int, str)
    return isinstance(frame, list) and len(frame) == 3 and all(map(isinstance, frame, kinds))


class StandInClass(type):
    """The class of the stand-ins: a call makes an object of the student's."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """An error of the student's class, made by its code."""
        proxy: Any = behind(cls)
        return super().__call__(*args, **kwargs) if proxy is None else proxy(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        proxy = behind(cls)
        if name.startswith("_") or proxy is None:
            raise AttributeError(name)
        return getattr(proxy, name)


class StandIn(Exception, metaclass=StandInClass):
    """An error of a class of the student's."""

    student_error: StudentErrorInfo | None = None

    def __str__(self) -> str:
        if self.student_error is not None:
            return self.student_error.message
        proxy = behind(self)
        text = super().__str__() if proxy is None else proxies.special(proxy, "__str__")
        return text if isinstance(text, str) else ""

    def __getattr__(self, name: str) -> Any:
        proxy = behind(self)
        if name.startswith("__") or proxy is None:
            raise AttributeError(name)
        return getattr(proxy, name)

    @property
    def args(self) -> Any:  # type: ignore[override]
        """What the student's error was made with."""
        return getattr(behind(self), "args", ())


def behind(value: Any) -> proxies.Proxy | None:
    """The student's object for which a stand-in, a class or an error, stands; None for other values."""
    if isinstance(value, StandInClass) or isinstance(type(value), StandInClass):
        return vars(value).get("_proxy")
    return None


def stand_in_class(proxy: proxies.Proxy, name: str, bases: Sequence[type]) -> StandInClass:
    """The class that stands for the student's class `proxy`."""
    bases = tuple(dict.fromkeys(bases)) or (Exception,)
    if not any(isinstance(base, StandInClass) for base in bases):
        bases = (StandIn, *bases)
    return StandInClass(name, tuple(bases), {"_proxy": proxy, "__module__": "__main__"})


def stand_in(proxy: proxies.Proxy, kind: StandInClass) -> Any:
    """The error of the class `kind` that stands for the student's object `proxy`; no `__init__` runs."""
    builtin: Any = next(base for base in kind.__mro__ if base in BUILTIN_ERRORS.values())
    error = builtin.__new__(kind)
    vars(error)["_proxy"] = proxy
    return error
