"""Does prioritized replay help a dynamics model? The same data, drawn in different ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import collect, collect_random
from mbrl_course.experiments.runner import Run
from mbrl_course.experiments.uncertainty import doubt, step_scale, with_sensor_noise
from mbrl_course.experiments.variants import Variants, each_variant, ledger, settings_of
from mbrl_course.experiments.week01 import holding_policy
from mbrl_course.validation import need_at_least, need_in_unit, need_positive

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.ensembles import GaussianEnsemble
    from mbrl_course.prioritized import PrioritizedReplayBuffer


@dataclass(frozen=True)
class ReplayConfig(Variants):
    """An ensemble that is trained on data of two kinds, many common ones and a few rare ones.

    Attributes:
        task: the task.
        noise: of the pendulum's worn speed sensor, standard deviation in rad/s, see `uncertainty`.
        num_common: environment steps with random actions.
        num_rare: environment steps with extreme actions that are held for a while.
        hold: for so many steps each.
        num_test_steps: further steps of each kind to judge by, without noise.
        replay: what a row's chance to be drawn grows with: all are alike ("uniform"), the members' error on
            it ("error"), or their disagreement ("epistemic").
        alpha: exponent of the priorities.
        beta: strength of the importance weights.
        gradient_steps: of the ensemble.
        num_points: so many times on the way its error is measured.
        ensemble_size: members.
        hidden_sizes: of each member.
        learning_rate: of AdamW.
        batch_size: transitions per gradient step, the same ones for all members.
    """

    task: str = "cheetah"
    noise: float = 0.0
    num_common: int = 4500
    num_rare: int = 500
    hold: int = 5
    num_test_steps: int = 2000
    replay: Literal["uniform", "error", "epistemic"] = "uniform"
    alpha: float = 0.6
    beta: float = 0.4
    gradient_steps: int = 2000
    num_points: int = 8
    ensemble_size: int = 3
    hidden_sizes: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-3
    batch_size: int = 128

    shared_by_variants: ClassVar = (
        *("task", "noise", "num_common", "num_rare", "hold"),  # the data
        *("num_test_steps", "num_points"),
    )

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, noise without a sensor, and variants that can't be read."""
        need_at_least(self, 1, "num_common", "num_rare", "hold", "num_test_steps", "gradient_steps")
        need_at_least(self, 1, "num_points", "ensemble_size", "batch_size")
        need_at_least(self, 1, "hidden_sizes")
        need_at_least(self, 0, "noise")
        need_in_unit(self, "alpha", "beta")
        need_positive(self, "learning_rate")
        if self.num_points > self.gradient_steps:
            expected = f"at most gradient_steps = {self.gradient_steps}"
            raise ValueError(f"num_points is {self.num_points}, expected {expected}")
        if self.noise and self.task != "pendulum":
            raise ValueError(f"noise is {self.noise} for task {self.task!r}, expected 0: not the pendulum")
        super().__post_init__()


def run_replay(config: ReplayConfig, run: Run) -> None:
    """prioritized-*: an ensemble trained on the same data with each kind of replay.

    Rows: variant, metric, step (gradient steps), value, and the ledger. The metrics are the root mean squared
    errors of the ensemble's mean, in standard deviations of a step, on new transitions: "error, common" and
    "error, rare"; and what was drawn so far: "rare draws" and, with noise, "noisy draws", as shares.
    """
    from mbrl_course.buffers import concatenate

    task = get_task(config.task)
    draws = torch.Generator().manual_seed(run.seed)  # the same data for all variants
    held = holding_policy(task, config.hold, draws)
    rare = collect(task, held, config.num_rare + config.num_test_steps, draws, progress=run.progress).data
    common, _ = collect_random(task, config.num_common + config.num_test_steps, draws, progress=run.progress)
    tests = {
        "common": common.take(slice(config.num_common, None)),
        "rare": rare.take(slice(config.num_rare, None)),
    }
    data = concatenate([common.take(slice(config.num_common)), rare.take(slice(config.num_rare))])
    scale = step_scale(data)
    if config.noise:
        data = with_sensor_noise(data, config.noise, draws)
    kinds = {"rare draws": torch.arange(len(data.obs)) >= config.num_common}
    if config.noise:
        kinds["noisy draws"] = data.obs[:, 1] > 0
    for name, variant, _ in each_variant(config, run):
        learner = ReplayLearner(task, data, variant, run)
        for point in range(1, config.num_points + 1):
            steps = round(point * variant.gradient_steps / config.num_points)
            while learner.steps < steps:
                learner.step()
            costs = ledger(run, len(data.obs), 0, 0, steps)
            with run.not_counted():
                values = {f"error, {kind}": learner.error(test, scale) for kind, test in tests.items()}
            values |= {
                kind: float(learner.drawn[rows].sum() / learner.drawn.sum()) for kind, rows in kinds.items()
            }
            for metric, value in values.items():
                run.log(variant=name, metric=metric, step=steps, value=value, **costs)


class ReplayLearner:
    """An ensemble that learns from a replay buffer, one mini-batch at a time.

    Attributes:
        ensemble: the ensemble.
        steps: gradient steps so far.
        drawn: how often each transition was drawn, [N].
    """

    def __init__(self, task: Task, data: Batch, config: ReplayConfig, run: Run) -> None:
        """Fills the buffer, and fits the normalizers."""
        from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
        from mbrl_course.prioritized import PrioritizedReplayBuffer

        self.config, self.generator, self.steps = config, run.generator, 0
        self.drawn = torch.zeros(len(data.obs))
        settings = settings_of(EnsembleConfig, config, num_elites=config.ensemble_size)
        weights = torch.Generator().manual_seed(run.seed)
        self.ensemble: GaussianEnsemble = GaussianEnsemble(
            task.obs_dim, task.action_dim, settings, generator=weights
        )
        inputs, targets = torch.cat([data.obs, data.action], dim=-1), data.next_obs - data.obs
        self.ensemble.input_normalizer.fit(inputs)
        self.ensemble.target_normalizer.fit(targets)
        self.inputs = self.ensemble.input_normalizer.normalize(inputs)  # [N, D + A]
        self.targets = self.ensemble.target_normalizer.normalize(targets)  # [N, D]
        self.buffer: PrioritizedReplayBuffer | None = None
        if config.replay != "uniform":
            self.buffer = PrioritizedReplayBuffer(len(data.obs), task.obs_dim, task.action_dim, config.alpha)
            self.buffer.add(*data)

    def step(self) -> None:
        """One gradient step of all members on the same rows; new priorities for these."""
        from mbrl_course.ensembles import ensemble_loss, gaussian_nll

        rows, weights = self._draw()
        self.drawn += torch.bincount(rows, minlength=len(self.drawn))
        model = self.ensemble
        mean, log_var = model(self.inputs[rows])  # [E, B, D] each
        nll = gaussian_nll(mean, log_var, self.targets[rows].expand_as(mean)) * weights.view(
            -1, 1
        )  # [E, B, D]
        loss = ensemble_loss(nll, model.min_log_var, model.max_log_var, model.config.bound_penalty)
        model.descend(loss)
        self.steps += 1
        if self.buffer is not None:
            found = mean.detach()
            errors = {
                "error": (found.mean(dim=0) - self.targets[rows]).square(),  # [B, D]
                "epistemic": found.var(dim=0, correction=0),
            }[self.config.replay]
            self.buffer.update_priorities(rows, errors.mean(dim=-1).sqrt())

    def _draw(self) -> tuple[Tensor, Tensor]:
        """Rows of a mini-batch [B], and their importance weights [B]."""
        size = self.config.batch_size
        if self.buffer is None:
            return torch.randint(len(self.drawn), (size,), generator=self.generator), torch.ones(size)
        sample = self.buffer.sample_prioritized(size, self.config.beta, self.generator)
        return sample.rows, sample.weights

    def error(self, test: Batch, scale: Tensor) -> float:
        """Root mean squared error of the mean, in units of `scale` [D]."""
        found = doubt(self.ensemble, test.obs, test.action, test.next_obs, scale)
        return float(found.error.square().mean().sqrt())
