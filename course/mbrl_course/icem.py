"""Week 3: iCEM, which draws smoother samples than CEM and throws less away.

Pinneri et al., 2020, "Sample-efficient cross-entropy method for real-time planning".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_course.cem import Fill, WarmStartPlanner, check_search, refit_to_elites
from mbrl_course.mpc import make_score_fn, rank_invalid_last
from mbrl_course.validation import need_at_least, need_in_unit, need_positive


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
        warm_start: as in `CEMConfig`; kept elites of the last plan get a random last action.
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
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}, expected in [0, 1)")
        need_in_unit(self, "kept_elites")
        need_at_least(self, 1, "population_decay")
        need_positive(self, "initial_std")
        need_at_least(self, 0, "min_std", "noise_beta")


class ICEMPlanner(WarmStartPlanner[ICEMConfig]):
    """iCEM as a planner for `receding_horizon`.

    Against CEM: coloured noise, a population that shrinks, elites that are kept from iteration to iteration
    and (shifted) from plan to plan, the mean as one more sample in the last iteration, and the best sequence
    found instead of the mean as the plan.
    """

    default_config = ICEMConfig
    elites: Tensor | None = None

    def reset(self) -> None:
        """Forgets the last plan and its elites."""
        super().reset()
        self.elites = None

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] that iCEM finds from the state obs [D]."""
        config, mean = self.config, self.initial_mean()
        score_fn = make_score_fn(self.model, obs, self.aggregate)
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
        return best.clone()  # the elites are where the next search starts

    def _shifted_elites(self, std: Tensor) -> list[Tensor]:
        """The best elites of the last plan, shifted by a step, with a fresh random last action."""
        if self.elites is None or self.config.warm_start is None:
            return []
        count = round(self.config.kept_elites * self.config.num_elites)
        middle = ((self.low + self.high) / 2).expand(count, 1, -1)  # [K', 1, A]
        noise = torch.randn(middle.shape, generator=self.generator)
        last = (middle + std[-1] * noise).clamp(self.low, self.high)
        return [torch.cat([self.elites[:count, 1:], last], dim=1)]  # [K', H, A]
