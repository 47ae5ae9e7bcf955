"""Week 3: searching better than at random. CEM, MPPI and iCEM.

Random shooting wastes most of its samples on hopeless plans. The cross-entropy method (CEM; Rubinstein,
1999; for planning in learned models Chua et al., 2018, "Deep reinforcement learning in a handful of trials
using probabilistic dynamics models", PETS, Alg. 1) samples from a Gaussian over action sequences and moves
it towards the best samples, the *elites*, a few times per plan. MPPI (Williams et al., 2017) moves it
towards a weighted mean of all samples. iCEM (Pinneri et al., 2020, "Sample-efficient cross-entropy method
for real-time planning") draws smoother samples and throws less away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mbrl_course.mpc import Model, ScoreFunction, make_score_fn, rank_invalid_last

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


def check_search(config: CEMConfig | MPPIConfig | ICEMConfig, *counts: str) -> None:
    """Raises a ValueError that names the field where one of `counts` is below 1 or the warm start unknown."""
    for name in counts:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected at least 1")
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
        if not self.initial_std > 0:
            raise ValueError(f"initial_std is {self.initial_std}, expected more than 0")
        if not self.min_std >= 0:
            raise ValueError(f"min_std is {self.min_std}, expected 0 or more")


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


def mppi_weights(scores: Tensor, temperature: float) -> Tensor:
    """The weight of each sample in MPPI: proportional to exp(score / temperature), with sum 1.

    Computed from the differences to the best score, so that large scores do not overflow (Williams et al.,
    2017, "Information theoretic MPC for model-based reinforcement learning", Alg. 2).

    Args:
        scores: [N]; NaN and infinite ones get the weight 0. Where no score is finite, all weigh the same.
        temperature: lambda > 0, in the unit of the scores; small ones make the best sample win.

    Returns:
        Weights, [N].
    """
    scores = rank_invalid_last(scores)  # [N]
    best = scores.max()
    if not torch.isfinite(best):
        return torch.full_like(scores, 1 / len(scores))
    weights = torch.exp((scores - best) / temperature)  # [N], the best has weight 1
    return weights / weights.sum()


def colored_noise(beta: float, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
    """Gaussian noise whose power falls with the frequency f as 1 / f^beta along the last axis.

    beta = 0 is white noise; larger values make it smoother, so that consecutive actions push in the same
    direction. Made in the frequency domain (Timmer and Koenig, 1995; Pinneri et al., 2020, Eq. 3-4): random
    complex amplitudes, scaled by f^(-beta / 2), transformed back. The lowest frequencies f = 0 and f = 1 / H
    have the same power.

    Args:
        beta: exponent of the power spectrum, 0 or more.
        shape: shape of the result; its last axis is time, of length H.
        generator: source of randomness.

    Returns:
        Noise of the given shape; each entry has mean 0 and variance 1.
    """
    length = shape[-1]
    frequency = torch.fft.rfftfreq(length).clamp(min=1 / length)  # [H // 2 + 1]
    amplitude = frequency ** (-beta / 2)
    real = torch.randn(*shape[:-1], len(frequency), generator=generator) * amplitude  # [..., H // 2 + 1]
    imaginary = torch.randn(*shape[:-1], len(frequency), generator=generator) * amplitude
    # A real signal has real amplitudes at f = 0 and, for an even length, at the highest frequency.
    edges = [0, -1] if length % 2 == 0 else [0]
    real[..., edges] *= 2**0.5
    imaginary[..., edges] = 0
    # Every frequency counts twice (+f and -f) but the edges: the variance of the inverse transform.
    power = 4 * amplitude.square().sum() - 2 * amplitude[edges].square().sum()
    signal = torch.fft.irfft(torch.complex(real, imaginary), n=length, norm="forward")  # [..., H]
    return signal / power.sqrt()


class WarmStartPlanner:
    """What the planners of this week share: each search starts where the last plan left off."""

    def __init__(
        self,
        model: Model,
        low: Tensor,
        high: Tensor,
        config: CEMConfig | MPPIConfig | ICEMConfig,
        generator: torch.Generator | None = None,
    ) -> None:
        """Plans in `model` with actions between `low` [A] and `high` [A]."""
        self.model, self.low, self.high = model, low, high
        self.search = config
        self.generator = generator
        self.last_plan: Tensor | None = None

    def reset(self) -> None:
        """Forgets the last plan."""
        self.last_plan = None

    def initial_mean(self) -> Tensor:
        """Where the search starts: the shifted last plan, or the middle of the range, [H, A]."""
        if self.last_plan is not None and self.search.warm_start is not None:
            return shift_plan(self.last_plan, self.search.warm_start)
        return ((self.low + self.high) / 2).expand(self.search.horizon, -1)


class CEMPlanner(WarmStartPlanner):
    """CEM as a planner for `receding_horizon`."""

    def __init__(
        self,
        model: Model,
        low: Tensor,
        high: Tensor,
        config: CEMConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Plans in `model` with actions between `low` [A] and `high` [A]."""
        self.config = config or CEMConfig()
        super().__init__(model, low, high, self.config, generator)

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] that CEM finds from the state obs [D]."""
        score_fn = make_score_fn(self.model, obs)
        mean = self.initial_mean()
        self.last_plan = cem_plan(score_fn, mean, self.low, self.high, self.config, self.generator)
        return self.last_plan


@dataclass(frozen=True)
class MPPIConfig:
    """How MPPI searches.

    Attributes:
        population_size: N, action sequences per iteration.
        num_iterations: iterations per plan.
        horizon: H.
        std: standard deviation of the samples, relative to half the actions' range; it stays the same.
        temperature: lambda, in units of the standard deviation of the population's scores, so that one value
            serves tasks with large and with small rewards.
        warm_start: as in `CEMConfig`.
    """

    population_size: int = 500
    num_iterations: int = 5
    horizon: int = 30
    std: float = 0.5
    temperature: float = 0.1
    warm_start: Fill | None = "repeat"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        check_search(self, "population_size", "num_iterations", "horizon")
        for name in ("std", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected more than 0")


class MPPIPlanner(WarmStartPlanner):
    """MPPI as a planner for `receding_horizon`: the plan moves to the weighted mean of the samples."""

    def __init__(
        self,
        model: Model,
        low: Tensor,
        high: Tensor,
        config: MPPIConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Plans in `model` with actions between `low` [A] and `high` [A]."""
        self.config = config or MPPIConfig()
        super().__init__(model, low, high, self.config, generator)

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] that MPPI finds from the state obs [D]."""
        config, score_fn, mean = self.config, make_score_fn(self.model, obs), self.initial_mean()
        std = (config.std * (self.high - self.low) / 2).expand_as(mean)  # [H, A]
        for _ in range(config.num_iterations):
            sequences = sample_sequences(
                mean, std, self.low, self.high, config.population_size, self.generator
            )
            scores = rank_invalid_last(score_fn(sequences))  # [N]
            spread = scores[torch.isfinite(scores)].std(correction=0).nan_to_num(0.0)
            weights = mppi_weights(scores, config.temperature * max(float(spread), 1e-6))  # [N]
            mean = torch.einsum("n,nha->ha", weights, sequences)
        self.last_plan = mean
        return mean


@dataclass(frozen=True)
class ICEMConfig:
    """How iCEM searches (Pinneri et al., 2020, Alg. 1 and Table S1).

    Attributes:
        population_size: N, action sequences in the first iteration.
        num_elites: K.
        num_iterations: iterations per plan.
        horizon: H.
        smoothing: share of the old mean and standard deviation that is kept in an iteration.
        initial_std: as in `CEMConfig`.
        min_std: as in `CEMConfig`.
        noise_beta: colour of the noise, see `colored_noise`.
        kept_elites: share of the elites that join the next iteration's population.
        population_decay: the population shrinks by this factor each iteration, to 2 K at the least.
        warm_start: as in `CEMConfig`; the elites of the last plan are shifted likewise.
    """

    population_size: int = 500
    num_elites: int = 50
    num_iterations: int = 5
    horizon: int = 30
    smoothing: float = 0.1
    initial_std: float = 0.5
    min_std: float = 0.01
    noise_beta: float = 2.0
    kept_elites: float = 0.3
    population_decay: float = 1.25
    warm_start: Fill | None = "repeat"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        check_search(self, "population_size", "num_elites", "num_iterations", "horizon")
        if self.num_elites > self.population_size:
            expected = f"at most the population_size {self.population_size}"
            raise ValueError(f"num_elites is {self.num_elites}, expected {expected}")
        if not 0 <= self.smoothing < 1 or not 0 <= self.kept_elites <= 1:
            got = f"smoothing is {self.smoothing} and kept_elites {self.kept_elites}"
            raise ValueError(f"{got}, expected in [0, 1) and in [0, 1]")
        if not self.population_decay >= 1:
            raise ValueError(f"population_decay is {self.population_decay}, expected at least 1")
        if not self.initial_std > 0 or not self.min_std >= 0 or not self.noise_beta >= 0:
            got = f"initial_std is {self.initial_std}, min_std {self.min_std}, noise_beta {self.noise_beta}"
            raise ValueError(f"{got}, expected more than 0, 0 or more, and 0 or more")


class ICEMPlanner(WarmStartPlanner):
    """iCEM as a planner for `receding_horizon`.

    Against CEM: coloured noise, a population that shrinks, elites that are kept from iteration to iteration
    and (shifted) from plan to plan, the mean as one more sample in the last iteration, and the best sequence
    found instead of the mean as the plan.
    """

    def __init__(
        self,
        model: Model,
        low: Tensor,
        high: Tensor,
        config: ICEMConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Plans in `model` with actions between `low` [A] and `high` [A]."""
        self.config = config or ICEMConfig()
        super().__init__(model, low, high, self.config, generator)
        self.elites: Tensor | None = None

    def reset(self) -> None:
        """Forgets the last plan and its elites."""
        super().reset()
        self.elites = None

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] that iCEM finds from the state obs [D]."""
        config, score_fn, mean = self.config, make_score_fn(self.model, obs), self.initial_mean()
        half_range = (self.high - self.low) / 2  # [A]
        std = (config.initial_std * half_range).expand_as(mean)  # [H, A]
        horizon, action_dim = mean.shape
        kept = self._shifted_elites(std)
        best, best_score = mean, -torch.inf
        for iteration in range(config.num_iterations):
            shrunk = int(config.population_size / config.population_decay**iteration)
            size = min(max(shrunk, 2 * config.num_elites), config.population_size)
            noise = colored_noise(config.noise_beta, (size, action_dim, horizon), self.generator)
            sequences = (mean + std * noise.transpose(1, 2)).clamp(self.low, self.high)  # [N, H, A]
            extra = [mean.unsqueeze(0)] if iteration == config.num_iterations - 1 else []
            sequences = torch.cat([sequences, *kept, *extra])
            scores = rank_invalid_last(score_fn(sequences))
            top = scores.topk(config.num_elites)
            self.elites = sequences[top.indices]  # [K, H, A]
            kept = [self.elites[: round(config.kept_elites * config.num_elites)]]
            if top.values[0] > best_score:
                best, best_score = self.elites[0], float(top.values[0])
            elite_mean, elite_std = refit_to_elites(sequences, scores, config.num_elites)
            mean = config.smoothing * mean + (1 - config.smoothing) * elite_mean
            std = config.smoothing * std + (1 - config.smoothing) * elite_std
            std = torch.maximum(std, config.min_std * half_range)
        self.last_plan = mean
        return best

    def _shifted_elites(self, std: Tensor) -> list[Tensor]:
        """The best elites of the last plan, shifted by a step, with a fresh random last action."""
        if self.elites is None or self.config.warm_start is None:
            return []
        count = round(self.config.kept_elites * self.config.num_elites)
        middle = ((self.low + self.high) / 2).expand(count, 1, -1)  # [K', 1, A]
        noise = torch.randn(middle.shape, generator=self.generator)
        last = (middle + std[-1] * noise).clamp(self.low, self.high)
        return [torch.cat([self.elites[:count, 1:], last], dim=1)]  # [K', H, A]
