"""Week 3: MPPI, which moves the plan to a weighted mean of all samples instead of the mean of a few.

Model-predictive path integral control (Williams et al., 2017, "Information theoretic MPC for model-based
reinforcement learning") uses what every sample says, the better ones more: weights exp(score / temperature).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mbrl_course.cem import Fill, WarmStartPlanner, check_search, sample_sequences
from mbrl_course.mpc import make_score_fn, rank_invalid_last
from mbrl_course.validation import need_positive


def mppi_weights(scores: Tensor, temperature: float) -> Tensor:
    """The weight of each sample in MPPI: proportional to exp(score / temperature), with sum 1.

    Scores of any size are welcome (Williams et al., 2017, "Information theoretic MPC for model-based
    reinforcement learning", Alg. 2, without its charge for leaving the old plan).

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
        need_positive(self, "std", "temperature")


class MPPIPlanner(WarmStartPlanner[MPPIConfig]):
    """MPPI as a planner for `receding_horizon`: the plan moves to the weighted mean of the samples."""

    default_config = MPPIConfig

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] that MPPI finds from the state obs [D]."""
        config, mean = self.config, self.initial_mean()
        score_fn = make_score_fn(self.model, obs, self.aggregate)
        std = (config.std * (self.high - self.low) / 2).expand_as(mean)  # [H, A]
        for _ in range(config.num_iterations):
            sequences = sample_sequences(
                mean, std, self.low, self.high, config.population_size, self.generator
            )
            scores = rank_invalid_last(score_fn(sequences))  # [N]
            finite = scores[torch.isfinite(scores)]
            spread = float(finite.std(correction=0)) if len(finite) else 0.0
            weights = mppi_weights(scores, config.temperature * max(spread, 1e-6))  # [N]
            mean = torch.einsum("n,nha->ha", weights, sequences)
        self.last_plan = mean
        return mean.clone()
