"""Week 4's world of one dimension, in which everything can be drawn: noise, a gap, and data that arrive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mbrl_course.experiments.runner import Run
from mbrl_course.experiments.uncertainty import EnsembleFitConfig, doubt
from mbrl_course.validation import need_at_least

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.ensembles import GaussianEnsemble


def true_mean(x: Tensor) -> Tensor:
    """The one-dimensional world of week 4's exercises: what the noise is added to."""
    return torch.sin(2 * x) + 0.3 * x + 1.5 * torch.exp(-4 * x**2)


def true_noise(x: Tensor) -> Tensor:
    """Standard deviation of that world's noise: small on the left, large on the right."""
    return 0.04 + 0.26 * torch.sigmoid(4 * x)


def arriving_points(
    num_outside: int, num_inside: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Points of the one-dimensional world in the order in which they arrive.

    Args:
        num_outside: first so many from [-3, -1] and [1, 3].
        num_inside: then so many from the gap, (-1, 1).
        generator: source of randomness.

    Returns:
        x and y, each [num_outside + num_inside].
    """
    count = num_outside + num_inside
    side = torch.where(torch.rand(count, generator=generator) < 0.5, 1.0, -1.0)
    place = torch.rand(count, generator=generator)
    outside = torch.arange(count) < num_outside
    x = side * torch.where(outside, 1 + 2 * place, place)
    return x, true_mean(x) + true_noise(x) * torch.randn(count, generator=generator)


def as_transitions(x: Tensor, y: Tensor) -> Batch:
    """Points x, y [N] in the clothes of transitions: from the state x to the state y, by the action 0."""
    from mbrl_course.buffers import Batch

    ends = torch.zeros(len(x), dtype=torch.bool)
    return Batch(x.unsqueeze(-1), torch.zeros(len(x), 1), torch.zeros(len(x)), y.unsqueeze(-1), ends, ends)


@dataclass(frozen=True)
class GapConfig(EnsembleFitConfig):
    """Regression in one dimension, while data arrive: outside a gap first, then inside.

    Attributes:
        num_outside: points that arrive outside the gap.
        num_inside: points that arrive inside it afterwards.
        points_per_stage: so many arrive at a time, after which the ensemble learns on.
        steps_per_stage: gradient steps after each arrival, as near as whole epochs come.
    """

    hidden_sizes: tuple[int, ...] = (64, 64, 64)
    learning_rate: float = 5e-3
    holdout_fraction: float = 0.0
    num_outside: int = 240
    num_inside: int = 120
    points_per_stage: int = 10
    steps_per_stage: int = 200

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name."""
        super().__post_init__()
        need_at_least(self, 0, "num_outside", "num_inside")
        need_at_least(self, 1, "points_per_stage", "steps_per_stage")
        points = self.num_outside + self.num_inside
        if self.points_per_stage > points:
            expected = f"at most num_outside + num_inside = {points}"
            raise ValueError(f"points_per_stage is {self.points_per_stage}, expected {expected}")


class GapStage(NamedTuple):
    """The one-dimensional world after some data have arrived."""

    x: Tensor  # [N] all points so far
    y: Tensor  # [N]
    ensemble: GaussianEnsemble  # as fitted to them; it learns on at the next stage
    num_updates: int  # gradient steps so far


def gap_stages(
    config: GapConfig, generator: torch.Generator, seed: int = 0, run: Run | None = None
) -> Iterator[GapStage]:
    """Lets points arrive, and an ensemble learn on after each arrival.

    Args:
        config: data and ensemble.
        generator: source of the points, of bootstraps and mini-batches.
        seed: of the initial weights.
        run: where checkpoints go, after each stage, when whoever uses it has logged its rows; the stages go
            on after the last one.
    """
    ensemble, updates, done = config.ensemble(1, 1, seed), 0, 0
    state = None if run is None else run.restore()
    if state is None:
        x, y = arriving_points(config.num_outside, config.num_inside, generator)
    else:
        x, y, updates, done = (state[name] for name in ("x", "y", "updates", "done"))
        ensemble.load_state_dict(state["ensemble"])
        ensemble.optimizer.load_state_dict(state["optimizer"])
    for count in range(done + config.points_per_stage, len(x) + 1, config.points_per_stage):
        batches = -(-count // config.batch_size)
        epochs = max(1, round(config.steps_per_stage / batches))
        points = as_transitions(x[:count], y[:count])
        updates += ensemble.fit(points, max_epochs=epochs, generator=generator).num_updates
        yield GapStage(x[:count], y[:count], ensemble, updates)
        if run is not None:
            parts = {"ensemble": ensemble.state_dict(), "optimizer": ensemble.optimizer.state_dict()}
            run.checkpoint({"x": x, "y": y, "updates": updates, "done": count, **parts})


REGIONS = {"quiet half": (-3.0, -1.0), "gap": (-1.0, 1.0), "noisy half": (1.0, 3.0)}
"""Of the one-dimensional world."""


def run_gap(config: GapConfig, run: Run) -> None:
    """ensemble-gap: noise and ignorance in one dimension while data arrive.

    Rows: where (of `REGIONS`), metric, step (points so far), value, model_updates; the metrics are root mean
    squares over the region: "epistemic" and "aleatoric" (standard deviations), "error" (of the mean) and
    "noise" (the world's, which nobody is told).
    """
    for stage in gap_stages(config, run.generator, run.seed, run):
        for where, (low, high) in REGIONS.items():
            x = torch.linspace(low, high, 101)
            grid = as_transitions(x, true_mean(x))
            found = doubt(stage.ensemble, grid.obs, grid.action, grid.next_obs, torch.ones(1))
            for metric, value in {**found._asdict(), "noise": true_noise(x)}.items():
                row = {"where": where, "metric": metric, "step": len(stage.x)}
                value = value.square().mean().sqrt()
                run.log(**row, value=value, model_updates=stage.num_updates)
