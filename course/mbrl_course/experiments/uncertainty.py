"""Worlds whose truth is known, and the numbers that say what a predicted uncertainty is worth there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import collect_random
from mbrl_course.experiments.runner import Run
from mbrl_course.experiments.variants import Variants, each_variant, ledger, settings_of
from mbrl_course.validation import need_at_least, need_positive

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.ensembles import EnsembleFitResult, GaussianEnsemble

VELOCITY = 2
"""The pendulum's angular velocity among the numbers of its state: (cos, sin, velocity)."""


def phase_plane(resolution: int) -> Tensor:
    """The pendulum's states on a square grid, [resolution ** 2, 3], angle by angle.

    Angles run from -pi to pi (0 is upright), velocities from -8 to 8 rad/s within each.
    """
    angles = torch.linspace(-math.pi, math.pi, resolution).repeat_interleave(resolution)
    velocities = torch.linspace(-8.0, 8.0, resolution).repeat(resolution)
    return torch.stack([angles.cos(), angles.sin(), velocities], dim=-1)


def angle_of(obs: Tensor) -> Tensor:
    """The pendulum's angle in (-pi, pi], 0 upright: states [..., 3] to [...]."""
    return torch.atan2(obs[..., 1], obs[..., 0])


def sensor_noise(obs: Tensor, noise: float) -> Tensor:
    """Standard deviation of a worn speed sensor: `noise` rad/s where the angle is positive, else 0, [...]."""
    return noise * (obs[..., 1] > 0).float()


def with_sensor_noise(data: Batch, noise: float, generator: torch.Generator | None = None) -> Batch:
    """The pendulum's transitions with what the worn sensor makes of the next velocity."""
    next_obs = data.next_obs.clone()
    draws = torch.randn(len(next_obs), generator=generator)
    next_obs[:, VELOCITY] += sensor_noise(data.obs, noise) * draws
    return data._replace(next_obs=next_obs)


@dataclass(frozen=True)
class EnsembleFitConfig:
    """An ensemble and its training; each experiment of uncertainty has its data besides.

    Attributes:
        ensemble_size: members, all of them used.
        hidden_sizes: of each member.
        learning_rate: of AdamW.
        batch_size: transitions per gradient step and member.
        holdout_fraction: share of the data for early stopping.
        patience: epochs without an improvement after which a fit stops.
        max_epochs: of a fit.
    """

    ensemble_size: int = 5
    hidden_sizes: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    batch_size: int = 32
    holdout_fraction: float = 0.1
    patience: int = 10
    max_epochs: int = 100

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name."""
        need_at_least(self, 1, "ensemble_size", "hidden_sizes", "batch_size", "patience", "max_epochs")
        need_positive(self, "learning_rate")
        if not 0 <= self.holdout_fraction < 1:
            raise ValueError(f"holdout_fraction is {self.holdout_fraction}, expected in [0, 1)")

    def ensemble(
        self, obs_dim: int, action_dim: int, seed: int, task: Task | None = None
    ) -> GaussianEnsemble:
        """An untrained ensemble, with the reward and the ends of the task, if one is given."""
        from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble

        settings = settings_of(EnsembleConfig, self, num_elites=self.ensemble_size)
        ends: dict[str, Any] = {}
        if task is not None:
            ends = {"reward": task.reward, "terminated": task.terminated}
        generator = torch.Generator().manual_seed(seed)
        return GaussianEnsemble(obs_dim, action_dim, settings, **ends, generator=generator)

    def fit(self, ensemble: GaussianEnsemble, data: Batch, run: Run) -> EnsembleFitResult:
        """Fits it, from the weights that it has."""
        return ensemble.fit(data, max_epochs=self.max_epochs, generator=run.generator, progress=run.progress)


class Doubt(NamedTuple):
    """What an ensemble says about each of N transitions, beside the truth; root mean squares over dimensions.

    All three are in units of `scale`, the standard deviation of a step in each dimension.
    """

    error: Tensor  # [N] of the mean of the members
    epistemic: Tensor  # [N] standard deviation: the members' disagreement
    aleatoric: Tensor  # [N] standard deviation: the noise they see


def doubt(ensemble: GaussianEnsemble, obs: Tensor, action: Tensor, next_obs: Tensor, scale: Tensor) -> Doubt:
    """Error and uncertainty of an ensemble's predictions.

    Args:
        ensemble: a fitted one.
        obs: [N, D].
        action: [N, A].
        next_obs: the truth, [N, D].
        scale: unit of each dimension, [D].
    """
    return _doubt_of(*_mean_and_variances(ensemble, obs, action), next_obs, scale)


def _mean_and_variances(
    ensemble: GaussianEnsemble, obs: Tensor, action: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean prediction, its aleatoric and its epistemic variance, [N, D] each."""
    from mbrl_course.ensembles import split_variance

    prediction = ensemble.predict(obs, action)
    aleatoric, epistemic = split_variance(prediction.obs, prediction.obs_var)
    return prediction.obs.mean(dim=0), aleatoric, epistemic


def _doubt_of(mean: Tensor, aleatoric: Tensor, epistemic: Tensor, next_obs: Tensor, scale: Tensor) -> Doubt:
    squares = ((mean - next_obs).square(), epistemic, aleatoric)
    return Doubt(*((square / scale.square()).mean(dim=-1).sqrt() for square in squares))


def worth(
    ensemble: GaussianEnsemble, data: Batch, scale: Tensor, measured: Tensor | None = None
) -> dict[str, float]:
    """What an ensemble's doubt is worth on some data, by name.

    "error", "epistemic" and "aleatoric" are root mean squares of `doubt`; "rank_correlation" is that of
    epistemic standard deviation and error (0 for a single member, whose doubt is the same everywhere);
    "ece" is the expected calibration error of the total uncertainty.

    Args:
        ensemble: a fitted one.
        data: transitions, whose next states count as the truth.
        scale: see `doubt`.
        measured: next states as a noisy sensor shows them, [N, D], by which the calibration is judged; the
            truth by default.
    """
    from mbrl_course.calibration import expected_calibration_error, rank_correlation

    mean, aleatoric, epistemic = _mean_and_variances(ensemble, data.obs, data.action)  # [N, D] each
    found = _doubt_of(mean, aleatoric, epistemic, data.next_obs, scale)
    numbers = {name: float(value.square().mean().sqrt()) for name, value in found._asdict().items()}
    ranks = rank_correlation(found.epistemic, found.error) if ensemble.ensemble_size > 1 else 0.0
    total = (aleatoric + epistemic).sqrt()
    target = data.next_obs if measured is None else measured
    ece = expected_calibration_error(mean, total, target)
    return {**numbers, "rank_correlation": float(ranks), "ece": float(ece)}


def step_scale(data: Batch) -> Tensor:
    """Standard deviation of a step in each dimension, [D]; 1 where nothing ever changes."""
    std = (data.next_obs - data.obs).std(dim=0)
    return torch.where(std > 1e-6, std, 1.0)


def true_transitions(task: Task, obs: Tensor, action: Tensor) -> Batch:
    """What the task's true dynamics make of states [N, D] and actions [N, A], as data.

    Raises:
        ValueError: the task's dynamics are not known.
    """
    from mbrl_course.buffers import Batch

    if task.dynamics is None:
        raise ValueError(f"task is {task.name!r}, expected one with known dynamics, such as 'pendulum'")
    next_obs = task.dynamics(obs, action)
    ends = torch.zeros(len(obs), dtype=torch.bool)
    return Batch(obs, action, task.reward(obs, action, next_obs), next_obs, ends, ends)


def plane_of(task: Task, resolution: int) -> Batch:
    """The true transitions of all states of `phase_plane`, with the action 0."""
    obs = phase_plane(resolution)
    return true_transitions(task, obs, torch.zeros(len(obs), task.action_dim))


@dataclass(frozen=True)
class PhasePlaneConfig(EnsembleFitConfig, Variants):
    """What an ensemble knows of the pendulum after some random steps, over all of its states.

    Attributes:
        task: a task with the pendulum's states and dynamics.
        num_steps: random environment steps to fit to.
        noise: of the speed sensor at positive angles, standard deviation in rad/s.
        resolution: states on each axis of the phase plane.
        near: a state of the plane counts as visited if data come within this distance, in standard
            deviations of the plane's angles and velocities.
    """

    task: str = "pendulum"
    num_steps: int = 1000
    noise: float = 0.0
    resolution: int = 41
    near: float = 0.2

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name, and variants that can't be read."""
        EnsembleFitConfig.__post_init__(self)
        need_at_least(self, 2, "num_steps", "resolution")
        need_at_least(self, 0, "noise")
        need_positive(self, "near")
        Variants.__post_init__(self)


class PhasePlane(NamedTuple):
    """What an ensemble learned of the pendulum, and what it says of all states, with the action 0."""

    data: Batch  # what it was fitted to
    plane: Batch  # `phase_plane`, with the true next states
    visited: Tensor  # bool [M] whether there were data nearby
    ensemble: GaussianEnsemble
    scale: Tensor  # [D], see `doubt`
    num_updates: int


def fit_phase_plane(config: PhasePlaneConfig, run: Run) -> PhasePlane:
    """Collects random data, lets the worn sensor spoil them, and fits an ensemble."""
    task = get_task(config.task)
    clean, _ = collect_random(task, config.num_steps, run.generator, progress=run.progress)
    data = with_sensor_noise(clean, config.noise, run.generator)
    ensemble = config.ensemble(task.obs_dim, task.action_dim, run.seed)
    result = config.fit(ensemble, data, run)
    plane = plane_of(task, config.resolution)
    unit = plane.obs.std(dim=0)  # [D]
    distance = torch.cdist(plane.obs / unit, clean.obs / unit)  # [M, N]
    visited = distance.min(dim=1).values < config.near
    return PhasePlane(data, plane, visited, ensemble, step_scale(clean), result.num_updates)


def run_phase_plane(config: PhasePlaneConfig, run: Run) -> None:
    """ensemble-uncertainty: what the ensemble knows of the states that it visited, and of the others.

    Rows: variant, where ("visited", "unvisited", "everywhere"), metric (see `worth`), value, and the ledger.
    """
    for name, variant, _ in each_variant(config, run):
        found = fit_phase_plane(variant, run)
        parts = {"visited": found.visited, "unvisited": ~found.visited}
        parts["everywhere"] = torch.ones_like(found.visited)
        costs = ledger(run, variant.num_steps, 0, 0, found.num_updates)
        measured = with_sensor_noise(found.plane, variant.noise, run.generator).next_obs
        for where, rows in parts.items():
            numbers = worth(found.ensemble, found.plane.take(rows), found.scale, measured[rows])
            for metric, value in numbers.items():
                run.log(variant=name, where=where, metric=metric, value=value, **costs)
