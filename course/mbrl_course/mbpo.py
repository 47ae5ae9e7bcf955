"""Week 7: MBPO, an off-policy agent that learns mostly from short imagined rollouts.

Model-based policy optimization (Janner et al., 2019, "When to trust your model") fits the ensemble of week 4
to all real transitions, lets the policy act in it for a few steps from real states, and trains SAC on
what comes out, many times per real step. Short rollouts keep the model's errors small; many of them make up
for their shortness. Without imagined transitions what remains is SAC itself; with rollouts of a single step
it is Dyna.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from mbrl_course.branching import (
    branched_rollout,
    elite_disagreement,
    mix_batches,
    model_buffer_capacity,
    num_real_rows,
    penalized_reward,
    resized,
    rollout_length_schedule,
)
from mbrl_course.buffers import ReplayBuffer, concatenate
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs.resumable import ResumableEnv
from mbrl_course.envs.task import Task, observed
from mbrl_course.learned_termination import LearnedTermination
from mbrl_course.networks import SCHEDULES, check_widths
from mbrl_course.ppo import Counters
from mbrl_course.prioritized import PrioritizedReplayBuffer
from mbrl_course.sac import SAC, SACConfig
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_in_unit, need_positive, need_whole


@dataclass(frozen=True)
class MBPOConfig(SACConfig):
    """SAC's settings, and those of the model and of what is imagined with it.

    Attributes:
        start_steps: random steps before anything is learned.
        updates_per_step: G, updates of the agent per real step.
        buffer_capacity: real transitions that are kept.
        rollout_lengths: first and last k; (0, 0) is SAC, (1, 1) is Dyna.
        rollout_steps: real steps between which k changes from the first to the last.
        num_rollouts: rollouts after each fit of the model.
        retained_fits: for so many fits an imagined transition is kept.
        real_ratio: share of real transitions in a batch.
        model_every: real steps between two fits of the model.
        model_epochs: largest number of passes through the data in a fit.
        ensemble_size: members of the ensemble.
        num_elites: how many of them are used.
        model_hidden_sizes: of each member.
        model_learning_rate: of its AdamW.
        model_batch_size: transitions per gradient step of the model.
        penalty: beta, price of the members' disagreement (their root epistemic variance, in standard
            deviations of the change of state).
        learn_reward: predict the reward too, instead of using the task's reward function.
        learn_termination: learn when an episode ends, instead of using the task's function.
        prioritized: draw real transitions by the critics' TD errors.
        priority_alpha: exponent of the priorities.
        priority_beta: exponent of the importance weights.
        rollout_mean: imagine with the mean of the elites' means, instead of a sample of one elite.
        lr_schedule: of the agent's learning rate over `train`: "constant", "linear" or "cosine", see
            `networks.SCHEDULES`.
    """

    start_steps: int = 500
    updates_per_step: int = 10
    buffer_capacity: int = 100_000
    rollout_lengths: tuple[int, ...] = (1, 1)
    rollout_steps: tuple[int, ...] = (0, 1)
    num_rollouts: int = 10_000
    retained_fits: int = 4
    real_ratio: float = 0.05
    model_every: int = 250
    model_epochs: int = 50
    ensemble_size: int = 7
    num_elites: int = 5
    model_hidden_sizes: tuple[int, ...] = (200, 200)
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    penalty: float = 0.0
    learn_reward: bool = False
    learn_termination: bool = False
    prioritized: bool = False
    priority_alpha: float = 0.6
    priority_beta: float = 0.4
    rollout_mean: bool = False
    lr_schedule: str = "constant"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        super().__post_init__()
        check_widths(self.model_hidden_sizes, "model_hidden_sizes")
        need_whole(self, "start_steps", "updates_per_step", "buffer_capacity", "num_rollouts")
        need_whole(self, "retained_fits", "model_every", "model_epochs", "model_batch_size")
        need_in_unit(self, "real_ratio", "priority_alpha", "priority_beta")
        need_whole(self, "rollout_lengths", least=0)
        if len(self.rollout_lengths) != 2:
            raise ValueError(f"rollout_lengths is {self.rollout_lengths}, expected two numbers")
        if len(self.rollout_steps) != 2 or self.rollout_steps[0] >= self.rollout_steps[1]:
            raise ValueError(f"rollout_steps is {self.rollout_steps}, expected two increasing numbers")
        if self.rollout_lengths[1] == 0 < self.rollout_lengths[0]:
            got = f"rollout_lengths is {self.rollout_lengths}"
            raise ValueError(f"{got}, expected no end of imagination: what was imagined would grow stale")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty is {self.penalty}, expected a finite number, 0 or more")
        if self.penalty > 0 and self.num_elites == 1:
            got = f"penalty is {self.penalty} and num_elites 1"
            raise ValueError(f"{got}, expected at least 2 elites: one alone never disagrees")
        need_positive(self, "model_learning_rate")
        if self.lr_schedule not in SCHEDULES:
            raise ValueError(f"lr_schedule is {self.lr_schedule!r}, expected one of {sorted(SCHEDULES)}")
        self.ensemble()  # checks ensemble_size and num_elites

    def ensemble(self) -> EnsembleConfig:
        """The settings of the ensemble."""
        return EnsembleConfig(
            ensemble_size=self.ensemble_size,
            num_elites=self.num_elites,
            hidden_sizes=self.model_hidden_sizes,
            learning_rate=self.model_learning_rate,
            compile=self.compile,
            batch_size=self.model_batch_size,
            learn_reward=self.learn_reward,
            init_gain=self.init_gain,
        )


class MBPO:
    """The agent; `train` it in a task, then ask it to `act`.

    Attributes:
        sac: the learner.
        model: the ensemble.
        real: real transitions.
        imagined: the latest imagined ones.
        episode_returns: of the episodes that were completed so far, with the real steps at their ends.
    """

    def __init__(self, task: Task, config: MBPOConfig | None = None, seed: int = 0) -> None:
        """An untrained agent at the start of its first episode; `seed` is that of everything."""
        self.task, self.config = task, config or MBPOConfig()
        seed = int(seed)
        self.generator = torch.Generator().manual_seed(seed)  # of SAC, and of which transitions it sees
        # the model has its own, so that SAC's stays as it is without a model
        self.model_generator = torch.Generator().manual_seed(*independent_seeds(seed, 1))
        self.sac = SAC(task.obs_dim, task.action_low, task.action_high, self.config, self.generator)
        terminated = task.terminated
        self.learned_termination: LearnedTermination | None = None
        if self.config.learn_termination:
            self.learned_termination = LearnedTermination(task.obs_dim, generator=self.model_generator)
            terminated = self.learned_termination
        self.model = GaussianEnsemble(
            task.obs_dim,
            task.action_dim,
            self.config.ensemble(),
            reward=task.reward,
            terminated=terminated,
            generator=self.model_generator,
        )
        sizes = (self.config.buffer_capacity, task.obs_dim, task.action_dim)
        self.real: ReplayBuffer
        if self.config.prioritized:
            self.real = PrioritizedReplayBuffer(*sizes, alpha=self.config.priority_alpha)
        else:
            self.real = ReplayBuffer(*sizes)
        self.imagined = ReplayBuffer(1, task.obs_dim, task.action_dim)
        self.counters = Counters()
        self.episode_return, self.episode_returns = 0.0, list[tuple[int, float]]()
        self.env = ResumableEnv(task.make_env())
        self.obs = observed(self.env.reset(seed=seed)[0])  # [D]

    def act(self, obs: Tensor) -> Tensor:
        """The policy's mode in the states obs [..., D]: [..., A]."""
        return self.sac.act(obs, explore=False)

    def train(
        self, total_steps: int, on_step: Callable[[MBPO], None] | None = None, progress: bool = False
    ) -> None:
        """Goes on until `total_steps` real steps are spent; `on_step` is called after each."""
        done = self.counters.real_steps
        rate, schedule = self.config.learning_rate, SCHEDULES[self.config.lr_schedule]
        steps = range(done, total_steps)
        for step in tqdm(steps, "env steps", initial=done, disable=not progress, leave=False):
            self.sac.set_learning_rate(rate * schedule(step / total_steps))
            self.collect_step()
            self.learn()
            if on_step is not None:
                on_step(self)

    def collect_step(self) -> None:
        """One step in the environment, random ones at first."""
        if self.counters.real_steps < self.config.start_steps:
            uniform = torch.rand(self.task.action_dim, generator=self.generator)
            action = self.task.action_low + (self.task.action_high - self.task.action_low) * uniform
        else:
            action = self.sac.explore(self.obs)
        obs, reward, terminated, truncated, _ = self.env.step(self.task.to_env_action(action))
        next_obs = observed(obs)
        self.real.add(self.obs, action, float(reward), next_obs, terminated, truncated)
        self.counters.real_steps += 1
        self.episode_return += float(reward)
        self.obs = next_obs
        if terminated or truncated:
            self.episode_returns.append((self.counters.real_steps, self.episode_return))
            self.episode_return = 0.0
            self.obs = observed(self.env.reset()[0])

    def learn(self) -> None:
        """What follows a real step: where it is time, a new model and new rollouts; then the updates."""
        steps = self.counters.real_steps
        if steps < self.config.start_steps:
            return
        length = rollout_length_schedule(steps, self.config.rollout_steps, self.config.rollout_lengths)
        if length > 0 and (steps - self.config.start_steps) % self.config.model_every == 0:
            self.fit_model()
            self.imagine(length)
        for _ in range(self.config.updates_per_step):
            self.update()

    def fit_model(self) -> None:
        """Fits the ensemble, and a learned termination function, to all real transitions."""
        data = self.real.all()
        fit = self.model.fit(data, max_epochs=self.config.model_epochs, generator=self.model_generator)
        self.counters.model_updates += fit.num_updates
        if self.learned_termination is not None:
            self.learned_termination.fit(data, generator=self.model_generator)

    @torch.no_grad()
    def imagined_step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of a random elite for each row, with the penalty: see `branched_rollout`.

        Args:
            obs: [N, D].
            action: in the task's units, [N, A].

        Returns:
            next_obs [N, D], reward [N], terminated, bool [N].
        """
        if self.config.rollout_mean:
            next_obs, reward, terminated = self.model.step_mean(obs, action)
        else:
            next_obs, reward, terminated = self.model.step_random_elites(
                obs, action, generator=self.model_generator
            )
        if self.config.penalty > 0:
            means = self.model.predict(obs, action, self.model.elites).obs  # [elites, N, D]
            scale = self.model.target_normalizer.std[: self.task.obs_dim]
            reward = penalized_reward(reward, elite_disagreement(means, scale), self.config.penalty)
        return next_obs, reward, terminated

    def imagine(self, length: int) -> None:
        """New rollouts of `length` steps from real states; those of old models are forgotten."""
        config = self.config
        capacity = model_buffer_capacity(config.num_rollouts, length, config.retained_fits)
        if capacity != self.imagined.capacity:
            self.imagined = resized(self.imagined, capacity)
        start = self.real.sample(config.num_rollouts, self.model_generator).obs
        batch = branched_rollout(self.imagined_step, self.sac.act, start, length)
        self.imagined.write(batch)
        self.counters.imagined_steps += len(batch.obs)

    def update(self) -> None:
        """One update of SAC on real and imagined transitions."""
        config, real = self.config, self.real
        num_real = num_real_rows(config.batch_size, config.real_ratio, len(self.imagined))
        if isinstance(real, PrioritizedReplayBuffer) and num_real > 0:
            sample = real.sample_prioritized(num_real, config.priority_beta, self.generator)
            batch, weights = sample.batch, sample.weights
            if num_real < config.batch_size:
                rest = self.imagined.sample(config.batch_size - num_real, self.generator)
                batch = concatenate([batch, rest])
                weights = torch.cat([weights, torch.ones(len(rest.obs))])
            self.sac.update(batch, weights)
            real.update_priorities(sample.rows, self.sac.td_errors(sample.batch))
        else:
            batch = mix_batches(real, self.imagined, config.batch_size, config.real_ratio, self.generator)
            self.sac.update(batch)
        self.counters.gradient_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, the present episode and the random state included; a copy."""
        parts = copy.deepcopy({name: part.state_dict() for name, part in self._parts().items()})
        return {
            **parts,
            "imagined": self.imagined.state_dict(),
            "model_generator": self.model_generator.get_state(),
            "counters": dict(vars(self.counters)),
            "obs": self.obs.clone(),
            "episode_return": self.episode_return,
            "episode_returns": list(self.episode_returns),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        self.imagined = resized(self.imagined, state["imagined"]["capacity"])
        self.imagined.load_state_dict(state["imagined"])
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))
        self.model_generator.set_state(state["model_generator"])
        vars(self.counters).update(state["counters"])
        self.obs = state["obs"].clone()
        self.episode_return = state["episode_return"]
        self.episode_returns = [(int(step), float(value)) for step, value in state["episode_returns"]]

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"sac": self.sac, "env": self.env, "real": self.real}
        parts |= {"model": self.model, "model_optimizer": self.model.optimizer}
        if self.learned_termination is not None:
            parts["learned_termination"] = self.learned_termination
        return parts
