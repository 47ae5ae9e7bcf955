# ruff: noqa: D107
"""The global random generators of `random`, NumPy and PyTorch, which the judge's process and a student's
keep in step: in a notebook's one kernel they are the same."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Hashable
from typing import Any

from .packing import Packer, Unpacker
from .twins import set_twin_state, twin_state


def global_generators() -> dict[str, Any]:
    """The generators behind the functions of those modules that are loaded."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    found: dict[str, Any] = {"random": random._inst}
    if numpy is not None:
        found["numpy"] = numpy.random.mtrand._rand
    if torch is not None:
        found["torch"] = torch.default_generator
    return found


def _mark(state: Any) -> Hashable:
    """The state in a form that compares quickly."""
    if isinstance(state, dict):
        inner = state["state"]
        key = inner["key"].tobytes() if "key" in inner else repr(inner)
        return key, inner.get("pos"), state.get("has_gauss"), state.get("gauss")
    return state.numpy().tobytes() if hasattr(state, "numpy") else state


class InStep:
    """One side's knowledge of the states that both sides have.

    Messages carry, under the name "random", the states that have changed since; with None for them, the
    generators go each its own way.

    Args:
        accept: from a generator, its state and the one that arrived, makes the state to take over, or None.
    """

    def __init__(self, accept: Callable[[Any, Any, Any], Any]) -> None:
        self.on = False
        self._accept = accept
        self._common: dict[str, Hashable] = {}

    def begin(self, on: bool) -> None:
        """From now on the generators are in step, or are not; nothing is known of the other side."""
        self.on = on
        self._common = {}

    def changes(self, packer: Packer) -> list[Any] | None:
        """The states that the other side does not have yet, for the next message."""
        if not self.on:
            return None
        changed = []
        for name, generator in global_generators().items():
            state = twin_state(generator)
            mark = _mark(state)
            if self._common.get(name) != mark:
                self._common[name] = mark
                changed.append([name, packer.pack(state)])
        return changed

    def take(self, changed: list[Any], unpacker: Unpacker) -> None:
        """Takes over what the other side has changed, where it is accepted; else each side keeps its own."""
        known = global_generators()
        for name, packed in changed:
            state, generator = unpacker.unpack(packed), known.get(name)
            if generator is None:
                continue
            state = self._accept(generator, twin_state(generator), state)
            if state is not None:
                set_twin_state(generator, state)
            self._common[name] = _mark(twin_state(generator))
