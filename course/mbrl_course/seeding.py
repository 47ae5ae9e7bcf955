"""Seeds that have nothing to do with each other.

Runs are compared over the seeds 0, 1, 2, ... If the i-th environment of a run took the seed `seed + i`, it
would start each episode like an environment of the next run, and the runs would not be independent. Two
generators with the same seed are no better: the first weights of one network would be those of another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def independent_seeds(seed: int | Sequence[int], number: int) -> list[int]:
    """Seeds for the parts of one run, made of the run's own by `numpy.random.SeedSequence`.

    Args:
        seed: of the run, 0 or more; or several numbers, as a run's seed and an episode.
        number: how many are needed.

    Returns:
        Numbers of 32 bits, the same ones for the same seed, unlike each other and those of other seeds. (To
        NumPy zeros at the end are nothing: those of [5, 0] are those of 5.)

    Raises:
        ValueError: `seed` is negative, or one of its numbers.
    """
    if np.min(seed) < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    return [int(part) for part in np.random.SeedSequence(seed).generate_state(number)]
