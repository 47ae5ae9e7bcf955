"""Whether a random generator can have reached a state by being drawn from.

A generator that a test passes comes back in the state that the student's code left it in. A forged state
could decide
what the test draws next, so a state is taken over only where the generator really arrives at it.
"""

from __future__ import annotations

from typing import Any

MAX_BLOCKS = 4000
WORDS = 624


def may_follow(value: Any, before: Any, after: Any) -> bool:
    """Whether drawing from the generator `value` leads from state `before` to state `after`.

    For what is no generator, such as a network's parameters, any state may follow. Mersenne twisters are
    advanced
    block by block, at most `MAX_BLOCKS` times; a PCG64 has to keep its stream.
    """
    keys_before, keys_after = _twister_keys(before), _twister_keys(after)
    if keys_before is not None:
        return keys_after is not None and _reaches(keys_before, keys_after)
    if isinstance(before, dict) and "bit_generator" in before:
        if not isinstance(after, dict) or after.get("bit_generator") != before["bit_generator"]:
            return False
        if before["bit_generator"] not in ("PCG64", "PCG64DXSM"):
            return False
        return bool(after["state"]["inc"] == before["state"]["inc"])
    return True


def _twister_keys(state: Any) -> Any:
    """The 624 words of a Mersenne twister's state in any of its wrappings, or None; positions out of range
    as well."""
    import numpy

    if (
        isinstance(state, tuple)
        and len(state) == 3
        and isinstance(state[1], tuple)
        and len(state[1]) == WORDS + 1
    ):
        return numpy.array(state[1][:WORDS], dtype=numpy.uint32)
    if isinstance(state, dict) and state.get("bit_generator") == "MT19937":
        inner = state["state"]
        keys = inner["key"]
        good = isinstance(keys, numpy.ndarray) and keys.shape == (WORDS,) and type(inner["pos"]) is int
        return keys.astype(numpy.uint32) if good and 0 <= inner["pos"] <= WORDS else None
    if hasattr(state, "numpy") and state.ndim == 1 and len(state) >= 24 + 8 * WORDS:
        words = (
            state.numpy()[24 : 24 + 8 * WORDS].copy().view(numpy.uint64)
        )  # seed, left, seeded, next; then the words
        return words.astype(numpy.uint32)
    return None


def _reaches(before: Any, after: Any) -> bool:
    import numpy

    twister = numpy.random.MT19937(0)
    keys = before
    for _ in range(MAX_BLOCKS):
        if numpy.array_equal(keys, after):
            return True
        twister.state = {"bit_generator": "MT19937", "state": {"key": keys, "pos": WORDS}}
        twister.random_raw(1)
        keys = twister.state["state"]["key"]
    return False
