"""Turns a test's failure into words: one text for the student, without anything of a hidden check, one for
the marker."""

from __future__ import annotations

import builtins
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 1000
# what moves a terminal's cursor, or the order in which text is read
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
HIDDEN_MESSAGE = "A hidden check did not pass."


@dataclass(frozen=True)
class Failure:
    """Why a test failed: for the student, for the marker, and whether a hidden check was it."""

    message: str
    detail: str
    hidden: bool


def failure_of(
    error: BaseException, hidden: Mapping[str, frozenset[int]], test: Mapping[str, Any]
) -> Failure:
    """The words for `error`, raised by a test.

    Args:
        error: what ended the test.
        hidden: for each test, by its file name in tracebacks, the numbers of its hidden lines.
        test: the test that ran, with its `code`.
    """
    places = [
        (f.filename, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__) if f.filename in hidden
    ]
    is_hidden = any(line in hidden[name] for name, line in places)
    own = [line for name, line in places if name == f"<{test['id']}>"]
    lines = str(test["code"]).split("\n")
    line = lines[own[-1] - 1].strip() if own and 0 < own[-1] <= len(lines) else ""
    said, detail = (_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text) for text in _words(error, line))
    where = f" [line {own[-1]}: {line}]" if own else ""
    detail = f"{detail}{where}"[: 2 * MAX_MESSAGE]
    if not is_hidden:
        return Failure(said[:MAX_MESSAGE], detail, False)
    return Failure(_hidden_words(error), detail, True)


def _words(error: BaseException, line: str) -> tuple[str, str]:
    from .connection import Interrupted, TimedOut
    from .errors import StudentErrorInfo

    if isinstance(error, TimedOut):
        return "Your code took too long.", "took too long"
    if isinstance(error, Interrupted):
        return f"The test could not go on: {error}.", str(error)
    info = getattr(error, "student_error", None)
    if isinstance(info, StudentErrorInfo):
        if "NotImplementedError" in info.types:
            return "This is not implemented yet.", "not implemented"
        place = next((f" in the line `{text}`" for _, _, text in reversed(info.frames) if text), "")
        said = f"Your code stopped with {info.types[0]}: {info.message}{place}"
        return said, f"the student's code raised {info.types[0]}: {info.message}{place}"
    if isinstance(error, AssertionError):
        text = str(error).strip()
        said = text or (f"This check does not hold: {line}" if line else "A check does not hold.")
        return said, f"AssertionError: {text}" if text else "AssertionError"
    if isinstance(error, NameError):
        return (
            f"{error}: is the cell that defines it there, and does it run?",
            f"{type(error).__name__}: {error}",
        )
    return f"{type(error).__name__}: {error}", f"{type(error).__name__}: {error}"


def _hidden_words(error: BaseException) -> str:
    from .connection import TimedOut
    from .errors import StudentErrorInfo

    if isinstance(error, TimedOut):
        return "Your code took too long in a hidden check."
    info = getattr(error, "student_error", None)
    if isinstance(info, StudentErrorInfo):
        kind = next(
            (name for name in info.types if isinstance(getattr(builtins, name, None), type)), "an error"
        )
        return f"Your code stopped with {kind} in a hidden check."
    return HIDDEN_MESSAGE
