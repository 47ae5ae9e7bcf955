"""Week 3: searching better than at random, with the cross-entropy method.

Random shooting wastes most of its samples on hopeless plans. The cross-entropy method (CEM; Rubinstein,
1999; for planning in learned models Chua et al., 2018, "Deep reinforcement learning in a handful of trials
using probabilistic dynamics models", PETS, Alg. 1) samples from a Gaussian over action sequences and moves
it towards the best samples, the *elites*, a few times per plan. Its friends are in `mppi.py` and `icem.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from mbrl_course.envs.task import action_bounds
from mbrl_course.mpc import Model, ScoreFunction, make_score_fn, rank_invalid_last
from mbrl_course.validation import need_at_least, need_positive, need_whole

Fill = Literal["repeat", "zero"]


def refit_to_elites(sequences: Tensor, scores: Tensor, num_elites: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the action sequences with the highest scores.

    Args:
        sequences: N action sequences, [N, H, A].
        scores: their scores, [N]; larger is better, NaN and infinite ones rank last.
        num_elites: K, how many of the best to keep.

    Returns:
        Mean [H, A] and standard deviation [H, A] (dividing by K, not K - 1) of the elites.
    """
    elites = sequences[rank_invalid_last(scores).topk(num_elites).indices]  # [K, H, A]
    return elites.mean(dim=0), elites.std(dim=0, correction=0)


def sample_sequences(
    mean: Tensor,
    std: Tensor,
    low: Tensor,
    high: Tensor,
    population_size: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Gaussian action sequences, clipped to the bounds of the actions.

    Args:
        mean: [H, A].
        std: [H, A].
        low: smallest action, [A].
        high: largest action, [A].
        population_size: N.
        generator: source of randomness.

    Returns:
        [N, H, A].
    """
    noise = torch.randn(population_size, *mean.shape, generator=generator)  # [N, H, A]
    return (mean + std * noise).clamp(low, high)


def cem_iteration(
    score_fn: ScoreFunction,
    mean: Tensor,
    std: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    population_size: int,
    num_elites: int,
    smoothing: float = 0.0,
    min_std: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """One iteration of CEM: sample, score, refit to the elites, and move the Gaussian there.

    Args:
        score_fn: maps action sequences [N, H, A] to scores [N].
        mean: of the Gaussian so far, [H, A].
        std: its standard deviation, [H, A].
        low: smallest action, [A]; no sequence that is scored goes below.
        high: largest action, [A].
        population_size: N, sequences to sample.
        num_elites: K, sequences to refit to.
        smoothing: alpha in [0, 1): how much of the old mean and standard deviation is kept,
            new = alpha * old + (1 - alpha) * elites'.
        min_std: the new standard deviation is nowhere smaller than this, a number or [A].
        generator: source of randomness.

    Returns:
        The new mean [H, A] and standard deviation [H, A].
    """
    sequences = sample_sequences(mean, std, low, high, population_size, generator)  # [N, H, A]
    elite_mean, elite_std = refit_to_elites(sequences, score_fn(sequences), num_elites)
    new_mean = smoothing * mean + (1 - smoothing) * elite_mean
    new_std = smoothing * std + (1 - smoothing) * elite_std
    return new_mean, torch.maximum(new_std, torch.as_tensor(min_std))


class SearchConfig(Protocol):
    """What every search of this week has in its configuration."""

    @property
    def horizon(self) -> int:
        """H, steps that a plan looks ahead."""

    @property
    def warm_start(self) -> Fill | None:
        """How a search starts from the last plan, see `CEMConfig`."""


def check_search(config: SearchConfig, *counts: str) -> None:
    """Raises a ValueError that names the field where one of `counts` is below 1 or the warm start unknown."""
    need_whole(config, *counts)
    if config.warm_start not in ("repeat", "zero", None):
        raise ValueError(f"warm_start is {config.warm_start!r}, expected 'repeat', 'zero' or None")


@dataclass(frozen=True)
class CEMConfig:
    """How CEM searches.

    Attributes:
        population_size: N, action sequences per iteration.
        num_elites: K, the best of them, to which the Gaussian is refitted.
        num_iterations: iterations per plan.
        horizon: H, steps that a plan looks ahead.
        smoothing: share of the old mean and standard deviation that is kept in an iteration.
        initial_std: standard deviation at the start of every plan, relative to half the actions' range.
        min_std: smallest standard deviation, relative likewise.
        warm_start: how the last plan, shifted by a step, is filled up to start the next search:
            "repeat" its last action, "zero", or None to start every search from the middle of the range.
    """

    population_size: int = 500
    num_elites: int = 50
    num_iterations: int = 5
    horizon: int = 30
    smoothing: float = 0.1
    initial_std: float = 0.5
    min_std: float = 0.01
    warm_start: Fill | None = "repeat"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        check_search(self, "population_size", "num_elites", "num_iterations", "horizon")
        if self.num_elites > self.population_size:
            expected = f"at most the population_size {self.population_size}"
            raise ValueError(f"num_elites is {self.num_elites}, expected {expected}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}, expected in [0, 1)")
        need_positive(self, "initial_std")
        need_at_least(self, 0, "min_std")


def cem_plan(
    score_fn: ScoreFunction,
    initial_mean: Tensor,
    low: Tensor,
    high: Tensor,
    config: CEMConfig,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The whole search: `num_iterations` iterations of CEM from a broad Gaussian around `initial_mean`.

    The Gaussian starts with the standard deviation `initial_std` times half the range of each action;
    `min_std` is relative to half the range likewise.

    Args:
        score_fn: maps action sequences [N, H, A] to scores [N].
        initial_mean: where to start, [H, A].
        low: smallest action, [A].
        high: largest action, [A].
        config: how to search.
        generator: source of randomness.

    Returns:
        The mean of the last Gaussian, [H, A].
    """
    half_range = (high - low) / 2  # [A]
    mean, std = initial_mean, (config.initial_std * half_range).expand_as(initial_mean)  # [H, A]
    min_std = config.min_std * half_range  # [A]
    for _ in range(config.num_iterations):
        mean, std = cem_iteration(
            score_fn,
            mean,
            std,
            low,
            high,
            population_size=config.population_size,
            num_elites=config.num_elites,
            smoothing=config.smoothing,
            min_std=min_std,
            generator=generator,
        )
    return mean


def shift_plan(plan: Tensor, fill: Fill = "repeat") -> Tensor:
    """The rest of a plan after its first action was taken, filled up to its old length.

    Args:
        plan: action sequence, [H, A].
        fill: the new last action: "repeat" the old last one, or "zero".

    Returns:
        [H, A].

    Raises:
        ValueError: `fill` is something else.
    """
    if fill not in ("repeat", "zero"):
        raise ValueError(f"fill is {fill!r}, expected 'repeat' or 'zero'")
    last = plan[-1:] if fill == "repeat" else torch.zeros_like(plan[-1:])  # [1, A]
    return torch.cat([plan[1:], last])  # [H, A]


Config = TypeVar("Config", bound=SearchConfig)


class WarmStartPlanner(Generic[Config]):
    """What the planners of this week share: each search starts where the last plan left off."""

    default_config: Callable[[], Config]

    def __init__(
        self,
        model: Model,
        low: Tensor,
        high: Tensor,
        config: Config | None = None,
        generator: torch.Generator | None = None,
        aggregate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Plans in `model`, actions from `low` [A] to `high` [A]; `aggregate` as in `make_score_fn`."""
        self.model, (self.low, self.high) = model, action_bounds(low, high)
        self.config = config or type(self).default_config()
        self.generator, self.aggregate = generator, aggregate
        self.last_plan: Tensor | None = None

    def reset(self) -> None:
        """Forgets the last plan."""
        self.last_plan = None

    def initial_mean(self) -> Tensor:
        """Where the search starts: the shifted last plan, or the middle of the range, [H, A]."""
        if self.last_plan is not None and self.config.warm_start is not None:
            return shift_plan(self.last_plan, self.config.warm_start)
        return ((self.low + self.high) / 2).expand(self.config.horizon, -1)


class CEMPlanner(WarmStartPlanner[CEMConfig]):
    """CEM as a planner for `receding_horizon`."""

    default_config = CEMConfig

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] that CEM finds from the state obs [D]."""
        score_fn = make_score_fn(self.model, obs, self.aggregate)
        mean = self.initial_mean()
        self.last_plan = cem_plan(score_fn, mean, self.low, self.high, self.config, self.generator)
        return self.last_plan.clone()  # whoever changes the plan does not change the next search
