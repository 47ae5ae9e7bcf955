"""Week 6: Dyna-PPO, an on-policy agent that practises in its imagination.

Dyna (Sutton, 1991, "Dyna, an integrated architecture for learning, planning, and reacting") learns from what
happens, learns a model of it too, and then learns from what the model says would happen. Here PPO is the
learner: after each real batch the ensemble of week 4 is fitted to the latest real transitions, and PPO
gets a few more batches, imagined ones, that start in real states and are only a few steps long.

Whether that helps is an open question in each task: a model that is wrong teaches wrong things.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import torch
from torch import Tensor

from mbrl_course.buffers import Batch, ReplayBuffer
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs.planned import PlannedActions
from mbrl_course.envs.task import Task
from mbrl_course.imagination import (
    corrupt_model,
    cut_short,
    epistemic_variance,
    imagined_rollouts,
    planned_actions,
    uncertainty_gate,
)
from mbrl_course.networks import check_widths
from mbrl_course.ppo import PPO, PPOConfig, RolloutBatch
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least, need_positive, need_whole


class LearnedEnd(Protocol):
    """A termination function that is learned from data."""

    def fit(self, data: Batch, *, generator: torch.Generator | None = None) -> object:
        """Learns from real transitions."""

    def __call__(self, next_obs: Tensor) -> Tensor:
        """Whether an episode ends in the states next_obs [..., D]: bool [...]."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Continues from what `state_dict` returned."""


@dataclass(frozen=True)
class DynaPPOConfig(PPOConfig):
    """PPO's settings, and those of the model and of what is imagined with it.

    Attributes:
        use_model: whether to use a model at all; without one this is PPO, step by step.
        ensemble_size: M, members of the ensemble.
        model_hidden_sizes: of each member.
        model_learning_rate: of its AdamW.
        model_batch_size: transitions per gradient step of the model.
        model_epochs: passes through the buffer after each real batch.
        learn_reward: predict the reward too, instead of using the task's reward function.
        buffer_capacity: the model is fitted to so many of the latest real transitions.
        model_start: real steps before anything is imagined.
        imag_batches: imagined batches that PPO learns from after each real one.
        imag_rollouts: rollouts in each of them.
        imag_horizon: their length.
        imag_epochs: passes through an imagined batch; None takes as many as for a real one.
        gate: tau, largest epistemic variance to be trusted; infinite is no gate. The aleatoric part does not
            count: a world that is noisy is no reason to distrust its model.
        noise: sigma, with which the model is corrupted.
        record_capacity: so many transitions are remembered for looking back at them.
    """

    use_model: bool = True
    ensemble_size: int = 5
    model_hidden_sizes: tuple[int, ...] = (64, 64)
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    model_epochs: int = 10
    learn_reward: bool = False
    buffer_capacity: int = 10_000
    model_start: int = 1000
    imag_batches: int = 5
    imag_rollouts: int = 128
    imag_horizon: int = 5
    imag_epochs: int | None = None
    gate: float = math.inf
    noise: float = 0.0
    record_capacity: int = 50_000

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        super().__post_init__()
        check_widths(self.model_hidden_sizes, "model_hidden_sizes")
        need_whole(self, "ensemble_size", "model_batch_size", "buffer_capacity")
        need_whole(self, "imag_rollouts", "imag_horizon", "record_capacity")
        need_whole(self, "model_epochs", "model_start", "imag_batches", least=0)
        need_at_least(self, 0, "noise")
        need_positive(self, "model_learning_rate", "gate")
        if self.imag_epochs is not None and self.imag_epochs < 1:
            raise ValueError(f"imag_epochs is {self.imag_epochs}, expected at least 1, or None")
        if self.gate < math.inf and self.ensemble_size == 1:
            got = f"gate is {self.gate} and ensemble_size 1"
            raise ValueError(f"{got}, expected at least 2 members: one alone never disagrees")

    def ensemble(self) -> EnsembleConfig:
        """The settings of the ensemble; all members are used."""
        return EnsembleConfig(
            ensemble_size=self.ensemble_size,
            num_elites=self.ensemble_size,
            hidden_sizes=self.model_hidden_sizes,
            learning_rate=self.model_learning_rate,
            batch_size=self.model_batch_size,
            patience=max(self.model_epochs, 1),
            learn_reward=self.learn_reward,
        )


class DynaPPO:
    """The agent: PPO on real batches, then PPO on imagined ones.

    Attributes:
        ppo: the learner, with its environments and counters.
        model: the ensemble.
        buffer: the latest real transitions, to which the model is fitted.
        visited: more of them, for looking back; in both, each environment's steps lie one after the other.
    """

    def __init__(
        self,
        task: Task,
        config: DynaPPOConfig | None = None,
        seed: int = 0,
        learned_end: LearnedEnd | None = None,
    ) -> None:
        """An untrained agent.

        Args:
            task: with discrete or continuous actions in its environment.
            config: settings.
            seed: of everything.
            learned_end: a termination function to be learned; the task's own is used where there is none.

        Raises:
            ValueError: the task's continuous actions leave out 0, where the policy begins.
        """
        self.task, self.config, seed = task, config or DynaPPOConfig(), int(seed)
        self.ppo = PPO(lambda: PlannedActions(task), self.config, seed)
        # not PPO's own, which stays as it is without a model
        self.generator = torch.Generator().manual_seed(*independent_seeds(seed, 1))
        self.learned_end = learned_end
        self.choices: Tensor | None = None
        if isinstance(self.ppo.action_space, gym.spaces.Discrete):
            space = self.ppo.action_space
            self.choices = planned_actions(task, int(space.n), int(space.start))
        self.model = GaussianEnsemble(
            task.obs_dim,
            task.action_dim,
            self.config.ensemble(),
            reward=task.reward,
            terminated=learned_end or task.terminated,
            generator=self.generator,
        )
        self.buffer = ReplayBuffer(self.config.buffer_capacity, task.obs_dim, task.action_dim)
        self.visited = ReplayBuffer(self.config.record_capacity, task.obs_dim, task.action_dim)

    def to_planned(self, action: Tensor) -> Tensor:
        """The policy's actions, [..., ] discrete or [..., A], as planned actions within bounds, [..., A]."""
        if self.choices is not None:
            return self.choices[action]
        return action.clamp(self.task.action_low, self.task.action_high)

    def act(self, obs: Tensor) -> Tensor:
        """The most likely planned action [..., A] in each state obs [..., D]."""
        return self.to_planned(self.ppo.policy.best_action(obs))

    def train(self, total_steps: int, on_batch: Callable[[DynaPPO], None] | None = None) -> None:
        """Goes on until `total_steps` real steps are spent; `on_batch` is called after each real batch."""
        while self.ppo.counters.real_steps < total_steps:
            self.ppo.set_progress(self.ppo.counters.real_steps / total_steps)
            self.iterate()
            if on_batch is not None:
                on_batch(self)

    def iterate(self) -> None:
        """One real batch, one fit of the model, and the imagined batches."""
        transitions: list[tuple[Tensor, ...]] = []
        batch = self.ppo.collect(lambda *transition: transitions.append(transition))
        self.ppo.update(batch)
        self.remember(transitions)
        if not self.config.use_model or self.ppo.counters.real_steps < self.config.model_start:
            return
        self.fit_model()
        for _ in range(self.config.imag_batches):
            self.ppo.update(self.imagine(), self.config.imag_epochs)

    def remember(self, transitions: list[tuple[Tensor, ...]]) -> None:
        """Stores T steps of N environments, one environment after the other, each cut off at its last.

        Args:
            transitions: of each step, columns as in `Batch`: obs [N, D], actions as the policy chose them,
                [N] discrete or [N, A], reward [N], next_obs [N, D], terminated and truncated, bool [N].
        """
        columns = [torch.stack(column, dim=1) for column in zip(*transitions, strict=True)]  # [N, T, ...]
        obs, action, reward, next_obs, terminated, truncated = columns
        truncated = truncated.clone()
        truncated[:, -1] |= ~terminated[:, -1]
        rows = Batch(obs, self.to_planned(action), reward, next_obs, terminated, truncated)
        for buffer in (self.buffer, self.visited):
            buffer.add(*(column.flatten(0, 1) for column in rows))  # [N * T, ...]

    def fit_model(self) -> None:
        """Fits the ensemble, and a learned end, to the buffer."""
        data = self.buffer.all()
        fit = self.model.fit(data, max_epochs=self.config.model_epochs, generator=self.generator)
        self.ppo.counters.model_updates += fit.num_updates
        if self.learned_end is not None:
            self.learned_end.fit(data, generator=self.generator)

    @torch.no_grad()
    def imagined_step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One step of a random member for each row, corrupted and gated; see `ImaginedStep`.

        Args:
            obs: [N, D].
            action: as the policy chose them, [N] discrete or [N, A].

        Returns:
            next_obs [N, D], reward [N], terminated and trusted, bool [N].
        """
        planned, scale = self.to_planned(action), self.model.target_normalizer.std[: self.task.obs_dim]
        next_obs, reward, _ = self.model.step_random_elites(obs, planned, generator=self.generator)
        delta, reward = corrupt_model(next_obs - obs, reward, self.config.noise, scale, self.generator)
        next_obs = obs + delta
        trusted = torch.ones(len(obs), dtype=torch.bool)
        if self.config.gate < math.inf:
            means = self.model.predict(obs, planned).obs  # [M, N, D]
            trusted = uncertainty_gate(epistemic_variance(means, scale), self.config.gate)
        return next_obs, reward, self.model.terminated(next_obs), trusted

    def imagine(self) -> RolloutBatch:
        """A batch of imagined rollouts of the present policy from real states, ready to learn from."""
        start = self.buffer.sample(self.config.imag_rollouts, self.generator).obs

        def act(obs: Tensor) -> tuple[Tensor, Tensor]:
            return self.ppo.policy.act(obs, self.generator)

        rollouts = imagined_rollouts(act, self.imagined_step, start, self.config.imag_horizon)
        self.ppo.counters.imagined_steps += int(rollouts.valid.sum())
        obs, action, log_prob, reward, next_obs, terminated, valid = rollouts
        truncated = cut_short(terminated, valid)
        return self.ppo.make_batch(obs, action, log_prob, reward, next_obs, terminated, truncated, valid)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; a copy, which further training leaves alone."""
        parts = copy.deepcopy({name: part.state_dict() for name, part in self._parts().items()})
        return {**parts, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))
        self.generator.set_state(state["generator"])

    def _parts(self) -> dict[str, Any]:
        parts = {
            "ppo": self.ppo,
            "model": self.model,
            "model_optimizer": self.model.optimizer,
            "buffer": self.buffer,
            "visited": self.visited,
        }
        return parts if self.learned_end is None else {**parts, "learned_end": self.learned_end}
