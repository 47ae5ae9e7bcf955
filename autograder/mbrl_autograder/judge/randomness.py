"""Whether a random generator can have reached a state by being drawn from.

A generator that a test passes comes back in the state that the student's code left it in. A forged state
could decide
what the test draws next, so a state is taken over only where the generator really arrives at it.
"""

from __future__ import annotations

from typing import Any

MAX_BLOCKS = 4000
WORDS = 624
TORCH_CACHE = 24 + 8 * WORDS  # where the words of its generator end, and what it keeps begins
MAX_STEPS = 1 << 40
PCG_FACTORS = {"PCG64": 0x2360ED051FC65DA44385DF649FCCF645, "PCG64DXSM": 0xDA942042E4DD58B5}
PCG_MASK = (1 << 128) - 1


def may_follow(value: Any, before: Any, after: Any) -> bool:
    """Whether drawing from the generator `value` leads from state `before` to state `after`.

    For what is no generator, such as a network's parameters, any state may follow. Mersenne twisters are
    advanced block by block, at most `MAX_BLOCKS` times; a PCG64 has to keep its stream, and the steps that
    it made, which its states tell, are counted.
    """
    keys_before, keys_after = _twister_keys(before), _twister_keys(after)
    if keys_before is not None:
        return keys_after is not None and _reaches(keys_before, keys_after)
    if isinstance(before, dict) and "bit_generator" in before:
        if not isinstance(after, dict) or after.get("bit_generator") != before["bit_generator"]:
            return False
        if before["bit_generator"] not in ("PCG64", "PCG64DXSM"):
            return False
        return _steps_of_pcg(before, after) <= MAX_STEPS
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
    if hasattr(state, "numpy") and state.ndim == 1 and len(state) >= TORCH_CACHE:
        left, seeded = state.numpy()[8:16].view(numpy.int32).tolist()  # behind the seed; then next, the words
        place, *words = state.numpy()[16:TORCH_CACHE].view(numpy.uint64).tolist()
        fresh = (left, place) == (1, 0)
        if seeded == 1 and (fresh or (left > 0 and left + place == WORDS + 1)):
            return numpy.array(words, numpy.uint64).astype(numpy.uint32)
    return None


def drawn_state(generator: Any, before: Any, after: Any) -> Any:
    """What a global generator's state becomes where the student's code says that it drew from it: `after`,
    without the numbers that are kept for the next draw, which nobody could check; None where it cannot be
    reached."""
    if _twister_keys(before) is None or not may_follow(generator, before, after):
        return None
    if isinstance(after, tuple):
        return (before[0], after[1], None)
    if isinstance(after, dict):
        return {**before, "state": after["state"], "has_gauss": 0, "gauss": 0.0}
    state = before.clone()
    state[8:TORCH_CACHE] = after[8:TORCH_CACHE]
    state[TORCH_CACHE:] = 0
    return state


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


def _steps_of_pcg(before: Any, after: Any) -> int:
    """How often a PCG64 was drawn from between two states: the logarithm in its congruence, bit by bit
    (O'Neill, "PCG", HMC-CS-2014-0905, section 4.3.1)."""
    state, goal, add = before["state"]["state"], after["state"]["state"], before["state"]["inc"]
    if type(goal) is not int or after["state"]["inc"] != add or not 0 <= goal <= PCG_MASK:
        return PCG_MASK
    factor, steps, bit = PCG_FACTORS[before["bit_generator"]], 0, 1
    while state != goal and bit <= PCG_MASK:
        if (state ^ goal) & bit:
            state = (state * factor + add) & PCG_MASK
            steps |= bit
        bit <<= 1
        add = (factor + 1) * add & PCG_MASK
        factor = factor * factor & PCG_MASK
    return steps
