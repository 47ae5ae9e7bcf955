# ruff: noqa: D107
"""What a submission's cells cost to read, and solution cells that come in several pieces."""

from __future__ import annotations

import time

from .names import parse, statements
from .notebook import UnreadableError

MAX_SECONDS = 10.0  # of this thread's work; a notebook of a course takes less than one


class Clock:
    """Ends the reading of a notebook that takes too long."""

    def __init__(self) -> None:
        self._ends = time.thread_time() + MAX_SECONDS

    def check(self) -> None:
        """Raises `UnreadableError` when the time is over."""
        if time.thread_time() > self._ends:
            raise UnreadableError("the notebook has so much code that it takes too long to read")


def joined(parts: list[str], clock: Clock) -> str:
    """The text of a solution cell that was split or doubled: untouched stubs and older copies go, and halves
    are put together."""
    if len(parts) > 1:
        touched = [part for part in parts if not _is_untouched(part, clock)]
        parts = touched or parts[:1]
        parts = [part for i, part in enumerate(parts) if not _is_superseded(part, parts[i + 1 :], clock)]
    if len(parts) > 1 and any(parse(part) is None for part in parts) and parse("\n".join(parts)) is None:
        whole = [part for part in parts if parse(part) is not None]
        return "\n".join(whole or parts)
    return "\n".join(parts)


def _is_superseded(text: str, later: list[str], clock: Clock) -> bool:
    """Whether all that a part defines is defined again behind it, without a look at the first definition.

    It is an older copy then. In a notebook, an error in it would not keep the newer one from running.
    """
    clock.check()
    behind = [statement for part in later for statement in statements(part)]
    bound = {name for statement in statements(text) for name in statement.binds}
    again = {name for statement in behind for name in statement.binds}
    seen = {name for statement in behind for name in statement.reads | statement.changes}
    return bool(bound) and bound <= again and not bound & seen


def _is_untouched(text: str, clock: Clock) -> bool:
    clock.check()
    facts = statements(text)
    work = [s for s in facts if not s.is_import and s.binds]
    return bool(work) and all(s.is_stub for s in work)
