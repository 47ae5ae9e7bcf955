# ruff: noqa: D107
"""What a cell prints and displays, bounded."""

from __future__ import annotations

import io
from typing import Any

MAX_TEXT = 100_000
MAX_DISPLAYS = 60
MAX_DISPLAY_BYTES = 2_000_000


class Capture(io.TextIOBase):
    """Takes what is printed; keeps the first `MAX_TEXT` characters."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.room = MAX_TEXT

    def writable(self) -> bool:  # noqa: D102
        return True

    def write(self, text: str) -> int:  # noqa: D102
        if self.room > 0:
            self.parts.append(str.__str__(text)[: self.room])
            self.room -= len(self.parts[-1])
        return len(text)

    def take(self) -> str:
        """What was printed since the last time."""
        text = "".join(self.parts)
        self.parts, self.room = [], MAX_TEXT
        return text


class Displays:
    """Takes what is displayed; bounded in number and bytes."""

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.room = MAX_DISPLAY_BYTES

    def add(self, kind: str, data: dict[str, Any]) -> None:
        """Keeps a display's text and pictures."""
        kept = {key: value for key, value in data.items() if isinstance(key, str) and isinstance(value, str)}
        size = sum(len(value) for value in kept.values())
        if size <= self.room and len(self.outputs) < MAX_DISPLAYS:
            self.room -= size
            self.outputs.append({"kind": kind, "data": kept})

    def take(self) -> list[dict[str, Any]]:
        """What was displayed since the last time."""
        outputs, self.outputs, self.room = self.outputs, [], MAX_DISPLAY_BYTES
        return outputs
