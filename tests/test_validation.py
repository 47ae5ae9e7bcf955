"""Configurations: what is refused, and that the message names the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from mbrl_course.dyna_ppo import DynaPPOConfig
from mbrl_course.ensembles import EnsembleConfig
from mbrl_course.mbpo import MBPOConfig
from mbrl_course.mpc import RandomShootingConfig
from mbrl_course.pets import PETSConfig
from mbrl_course.ppo import PPOConfig
from mbrl_course.validation import (
    need_at_least,
    need_in_unit,
    need_positive,
    need_share,
    need_some,
    need_whole,
)


@dataclass
class Settings:
    field: Any


@pytest.mark.parametrize(
    ("need", "good", "bad"),
    [
        (
            lambda config: need_whole(config, "field", least=2),
            (2, np.int64(3), (2, 5), ()),
            {
                "1, expected at least 2": 1,
                "2.0, expected a whole number of at least 2": 2.0,
                "True, expected a whole number": True,
                "nan, expected a whole number": math.nan,
                "(2, 1), expected at least 2 each": (2, 1),
                "(2, 2.5), expected a whole number of at least 2 each": (2, 2.5),
            },
        ),
        (
            lambda config: need_at_least(config, 0, "field"),
            (0, 0.5, math.inf, (0.0, 1)),
            {
                "-1, expected 0 or more": -1,
                "nan, expected 0 or more": math.nan,
                "(0, -1), expected 0 or more each": (0, -1),
            },
        ),
        (
            lambda config: need_positive(config, "field"),
            (1e-9, 1, math.inf),
            {"0, expected more than 0": 0, "nan, expected more than 0": math.nan},
        ),
        (
            lambda config: need_in_unit(config, "field"),
            (0, 0.5, 1),
            {"-0.1, expected in [0, 1]": -0.1, "1.5, expected": 1.5, "nan, expected": math.nan},
        ),
        (
            lambda config: need_share(config, "field"),
            (0.5, 1),
            {"0, expected above 0 and at most 1": 0, "2, expected": 2, "nan, expected": math.nan},
        ),
    ],
)
def test_what_is_needed(need: Callable[[Any], None], good: tuple[Any, ...], bad: dict[str, Any]) -> None:
    for value in good:
        need(Settings(value))
    for message, value in bad.items():
        with pytest.raises(ValueError, match="field is ") as caught:
            need(Settings(value))
        assert str(caught.value).startswith(f"field is {message}")


def test_something_is_needed() -> None:
    need_some(Settings((1,)), "field")
    with pytest.raises(ValueError, match="field is empty, expected at least one value"):
        need_some(Settings(()), "field")


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (MBPOConfig, "model_every", 2.5),
        (MBPOConfig, "num_rollouts", 1e4),
        (MBPOConfig, "updates_per_step", math.nan),
        (MBPOConfig, "rollout_lengths", (1.7, 2.9)),
        (DynaPPOConfig, "imag_batches", 0.5),
        (PPOConfig, "num_steps", math.nan),
        (EnsembleConfig, "ensemble_size", 2.5),
        (PETSConfig, "max_epochs", 2.5),
        (RandomShootingConfig, "horizon", 10.0),
    ],
)
def test_counts_are_whole_numbers(config: type, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} is .*, expected a whole number of at least"):
        config(**{field: value})
