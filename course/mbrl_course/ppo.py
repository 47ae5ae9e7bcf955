"""Week 6: proximal policy optimisation, the model-free agent that Dyna-PPO starts from.

PPO (Schulman et al., 2017, "Proximal policy optimization algorithms") collects a batch with its policy,
improves the policy on it for a few epochs without moving too far, and throws the batch away. It is robust,
and it is hungry for data: that is what a model is meant to help with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from mbrl_course.envs.resumable import ResumableEnv
from mbrl_course.networks import check_widths, orthogonal_mlp
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least, need_in_unit, need_positive, need_whole


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float = 0.99,
    gae_lambda: float = 0.95,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al., 2016, Eq. 11-16).

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t);  A_t = delta_t + gamma lambda A_{t+1}.
    Where a step terminated, nothing follows: V(s_{t+1}) counts as 0. Where an episode was only cut off, the
    value of the state that it was cut off in still counts. In both cases no advantage of the next episode
    leaks into this one.

    Args:
        rewards: [T, N] for N environments.
        values: V(s_t), [T, N].
        next_values: V(s_{t+1}) of the state that step t led to, before any reset, [T, N].
        terminated: bool [T, N].
        truncated: bool [T, N].
        gamma: discount.
        gae_lambda: lambda, between 0 (one-step) and 1 (Monte Carlo).

    Returns:
        Advantages, [T, N].
    """
    terminated, truncated = terminated.bool(), truncated.bool()  # of 0 and 1, ~ would make -1 and -2
    deltas = rewards + gamma * next_values * ~terminated - values  # [T, N]
    goes_on = ~(terminated | truncated)
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])  # [N]
    for t in range(len(rewards) - 1, -1, -1):
        following = deltas[t] + gamma * gae_lambda * goes_on[t] * following
        advantages[t] = following
    return advantages


def clipped_objective(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's surrogate: min(r A, clip(r, 1 - eps, 1 + eps) A), to be maximised (Schulman et al., 2017, Eq. 7).

    Args:
        log_ratio: log pi_new(a | s) - log pi_old(a | s), [B].
        advantages: [B].
        clip: eps.

    Returns:
        [B].
    """
    ratio = log_ratio.exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


class RolloutBatch(NamedTuple):
    """What PPO learns from: T steps of N environments, or T imagined steps of N rollouts.

    A row with `valid` False (an imagined step after the end, say) takes no part in the update.
    """

    obs: Tensor  # [T, N, D]
    action: Tensor  # [T, N] discrete, or [T, N, A]
    log_prob: Tensor  # [T, N] of the policy that acted
    advantages: Tensor  # [T, N]
    returns: Tensor  # [T, N] targets of the value function
    valid: Tensor  # [T, N] bool


@dataclass(frozen=True)
class PPOConfig:
    """PPO's settings; the defaults learn CartPole-v1 within some 30,000 steps.

    Attributes:
        num_envs: N, environments that are stepped side by side.
        num_steps: T, steps of each environment per batch.
        num_epochs: passes through a batch.
        minibatch_size: transitions per gradient step.
        learning_rate: of Adam, falls linearly to 0 where `anneal` is set.
        anneal: whether it does.
        gamma: discount.
        gae_lambda: lambda of the advantages.
        clip: eps of the clipped objective.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        max_grad_norm: gradients are clipped to this norm.
        hidden_sizes: of the policy's and of the value function's network.
    """

    num_envs: int = 8
    num_steps: int = 64
    num_epochs: int = 10
    minibatch_size: int = 128
    learning_rate: float = 1e-3
    anneal: bool = False
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.005
    max_grad_norm: float = 0.5
    hidden_sizes: tuple[int, ...] = (64, 64)

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        check_widths(self.hidden_sizes)
        need_whole(self, "num_envs", "num_steps", "num_epochs")
        need_whole(self, "minibatch_size", least=2)  # one row alone has no normalised advantage
        need_in_unit(self, "gamma", "gae_lambda")
        need_positive(self, "learning_rate", "clip", "max_grad_norm")
        need_at_least(self, 0, "value_coef", "entropy_coef")


class ActorCritic(nn.Module):
    """A policy and a value function; actions are discrete, or continuous and Gaussian."""

    def __init__(
        self,
        obs_dim: int,
        action_space: gym.Space,
        hidden_sizes: tuple[int, ...] = (64, 64),
        generator: torch.Generator | None = None,
    ) -> None:
        """Random networks for observations [D] and actions in a `Discrete` or `Box` space.

        Raises:
            TypeError: another kind of action space.
        """
        super().__init__()
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, gym.spaces.Discrete):
            outputs = int(action_space.n)
        elif isinstance(action_space, gym.spaces.Box):
            outputs = int(np.prod(action_space.shape))
            self.log_std = nn.Parameter(torch.full((outputs,), -0.5))
        else:
            raise TypeError(f"action_space is {action_space}, expected Discrete or Box")
        self.actor = orthogonal_mlp((obs_dim, *hidden_sizes, outputs), 0.01, generator)
        self.critic = orthogonal_mlp((obs_dim, *hidden_sizes, 1), 1.0, generator)

    def distribution(self, obs: Tensor) -> Distribution:
        """The policy's distribution over actions in the states obs [..., D]."""
        outputs = self.actor(obs)
        if self.log_std is None:
            return Categorical(
                logits=outputs, validate_args=False
            )  # the checks would take a third of the time
        std = self.log_std.exp().expand_as(outputs)
        return Independent(Normal(outputs, std, validate_args=False), 1, validate_args=False)

    def value(self, obs: Tensor) -> Tensor:
        """V(s) of the states obs [..., D]: [...]."""
        return self.critic(obs).squeeze(-1)

    @torch.no_grad()
    def act(self, obs: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Actions drawn from the policy in the states obs [N, D], and their log-probabilities [N]."""
        distribution = self.distribution(obs)
        if isinstance(distribution, Categorical):
            action = torch.multinomial(distribution.probs, 1, generator=generator).squeeze(-1)  # [N]
        else:
            mean, std = distribution.mean, distribution.stddev
            action = mean + std * torch.randn(mean.shape, generator=generator)  # [N, A]
        return action, distribution.log_prob(action)

    @torch.no_grad()
    def best_action(self, obs: Tensor) -> Tensor:
        """The most likely action in each state obs [..., D]."""
        outputs = self.actor(obs)
        return outputs.argmax(dim=-1) if self.log_std is None else outputs


class Counters:
    """What has been spent so far.

    Attributes:
        real_steps: steps in the real environment.
        imagined_steps: steps in a model.
        gradient_steps: of the policy.
        model_updates: gradient steps of the model.
    """

    def __init__(self) -> None:
        """All at zero."""
        self.real_steps = self.imagined_steps = self.gradient_steps = self.model_updates = 0


class PPO:
    """The agent: `collect` a batch, `update` on it, and again."""

    def __init__(
        self,
        env: str | Callable[[], gym.Env],
        config: PPOConfig | None = None,
        seed: int = 0,
        **env_kwargs: Any,
    ) -> None:
        """An untrained agent for a Gymnasium environment.

        Args:
            env: its name, as `gymnasium.make` takes it (`env_kwargs` go there too), or what makes one.
                Continuous actions are in its own units: the first ones are near 0, with a standard deviation
                of 0.6.
            config: settings.
            seed: of environments, weights and all draws.

        Raises:
            TypeError: its observations are not vectors.
            ValueError: its continuous actions leave out 0.
        """
        self.config, seed = config or PPOConfig(), int(seed)
        self.generator = torch.Generator().manual_seed(seed)
        make_env = partial(gym.make, env, **env_kwargs) if isinstance(env, str) else env
        self.envs = gym.vector.SyncVectorEnv(
            [lambda: ResumableEnv(make_env())] * self.config.num_envs,
            autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
        )
        self.action_space = self.envs.single_action_space
        obs_space = self.envs.single_observation_space
        if not isinstance(obs_space, gym.spaces.Box) or len(obs_space.shape) != 1:
            raise TypeError(f"{env} has observations in {obs_space}, expected vectors")
        if isinstance(self.action_space, gym.spaces.Box) and not self.action_space.contains(
            np.zeros(self.action_space.shape, self.action_space.dtype)
        ):
            what = (
                f"{env} has actions in {self.action_space}, expected bounds around 0, where the policy begins"
            )
            raise ValueError(f"{what}: gymnasium.wrappers.RescaleAction gives it such")
        self.policy = ActorCritic(
            obs_space.shape[0], self.action_space, self.config.hidden_sizes, self.generator
        )
        self.optimizer = torch.optim.Adam(
            self.policy.parameters(), lr=self.config.learning_rate, eps=1e-5, fused=True
        )
        self.counters = Counters()
        seeds: list[int | None] = [*independent_seeds(seed, self.config.num_envs)]
        self.obs = self._tensor(self.envs.reset(seed=seeds)[0])  # [N, D]
        self.running_returns = np.zeros(self.config.num_envs)
        self.episode_returns: list[tuple[int, float]] = []  # (real steps so far, return)

    @staticmethod
    def _tensor(array: Any) -> Tensor:
        return torch.as_tensor(np.asarray(array), dtype=torch.float32)

    def to_env_action(self, action: Tensor) -> np.ndarray:
        """Actions of the policy as the environments take them; continuous ones are clipped to the bounds.

        Args:
            action: [...] discrete, counted from 0, or [..., A].

        Returns:
            The same shape, as an array.
        """
        if isinstance(self.action_space, gym.spaces.Box):
            return action.numpy().clip(self.action_space.low, self.action_space.high)
        return action.numpy() + int(self.action_space.start)  # type: ignore[attr-defined]

    def act(self, obs: Tensor) -> np.ndarray:
        """The most likely action in each state obs [..., D], as the environment takes it."""
        return self.to_env_action(self.policy.best_action(obs))

    @torch.no_grad()
    def collect(self, on_step: Callable[..., None] | None = None) -> RolloutBatch:
        """Acts for `num_steps` in every environment.

        Args:
            on_step: is told each transition of the N environments: obs [N, D], action, reward [N],
                next_obs [N, D] before any reset, terminated [N], truncated [N].

        Returns:
            The batch to learn from.

        Raises:
            ValueError: an environment returned a reward or an observation that is not finite.
        """
        columns: list[list[Tensor]] = [[] for _ in range(7)]
        for _ in range(self.config.num_steps):
            action, log_prob = self.policy.act(self.obs, self.generator)
            obs, reward, terminated, truncated, info = self.envs.step(self.to_env_action(action))
            done = terminated | truncated
            next_obs = self._tensor(obs).clone()  # tensors share an array's memory, and `obs` is kept too
            if done.any():  # with same-step autoreset, `obs` is already the next episode's first state
                rows = np.flatnonzero(done)
                next_obs[rows] = self._tensor(np.stack(list(info["final_obs"][rows])))
            for name, seen in (("reward", reward), ("next_obs", next_obs.numpy()), ("obs", obs)):
                if not np.isfinite(seen).all():
                    raise ValueError(f"the environments' {name} is {seen.tolist()}, expected finite numbers")
            transition = (self.obs, action, self._tensor(reward), next_obs)
            ends = (torch.as_tensor(terminated), torch.as_tensor(truncated))
            if on_step is not None:
                on_step(*transition, *ends)
            for column, value in zip(columns, (*transition, *ends, log_prob), strict=True):
                column.append(value)
            self.counters.real_steps += self.config.num_envs
            self._note_returns(reward, done)
            self.obs = self._tensor(obs)
        obs_, action_, reward_, next_obs_, terminated_, truncated_, log_prob_ = map(torch.stack, columns)
        valid = torch.ones_like(terminated_)
        return self.make_batch(obs_, action_, log_prob_, reward_, next_obs_, terminated_, truncated_, valid)

    def _note_returns(self, reward: np.ndarray, done: np.ndarray) -> None:
        self.running_returns += reward
        for row in np.flatnonzero(done):
            self.episode_returns.append((self.counters.real_steps, float(self.running_returns[row])))
            self.running_returns[row] = 0.0

    @torch.no_grad()
    def make_batch(
        self,
        obs: Tensor,
        action: Tensor,
        log_prob: Tensor,
        reward: Tensor,
        next_obs: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        valid: Tensor,
    ) -> RolloutBatch:
        """Adds advantages and value targets to T steps of N rows.

        Args:
            obs: [T, N, D].
            action: [T, N] discrete, or [T, N, A].
            log_prob: of the actions under the policy that took them, [T, N].
            reward: [T, N].
            next_obs: before any reset, [T, N, D].
            terminated: bool [T, N].
            truncated: bool [T, N].
            valid: whether a row counts in an update, bool [T, N].
        """
        values, next_values = self.policy.value(obs), self.policy.value(next_obs)  # [T, N]
        advantages = generalized_advantages(
            reward, values, next_values, terminated, truncated, self.config.gamma, self.config.gae_lambda
        )
        return RolloutBatch(obs, action, log_prob, advantages, advantages + values, valid)

    def loss(self, batch: RolloutBatch) -> Tensor:
        """Clipped objective, value loss and entropy of a minibatch of B rows, as one loss to minimise."""
        distribution = self.policy.distribution(batch.obs)
        log_ratio = distribution.log_prob(batch.action) - batch.log_prob  # [B]
        advantages = (batch.advantages - batch.advantages.mean()) / (batch.advantages.std() + 1e-8)
        policy_loss = -clipped_objective(log_ratio, advantages, self.config.clip).mean()
        value_loss = (self.policy.value(batch.obs) - batch.returns).square().mean()
        entropy = distribution.entropy().mean()
        return policy_loss + self.config.value_coef * value_loss - self.config.entropy_coef * entropy

    def update(self, batch: RolloutBatch, num_epochs: int | None = None) -> float:
        """Improves policy and value function on a batch.

        Args:
            batch: T steps of N rows, of which the valid ones count.
            num_epochs: passes through it, the configuration's by default.

        Returns:
            The mean loss of the minibatches; NaN where no row of the batch is valid.

        Raises:
            ValueError: `num_epochs` is below 1.
            FloatingPointError: the loss is not finite any more.
        """
        num_epochs = self.config.num_epochs if num_epochs is None else num_epochs
        if num_epochs < 1:
            raise ValueError(f"num_epochs is {num_epochs}, expected at least 1")
        rows = RolloutBatch(*(column.flatten(0, 1)[batch.valid.flatten()] for column in batch))  # [B, ...]
        losses = []
        for _ in range(num_epochs):
            order = torch.randperm(len(rows.obs), generator=self.generator)
            for chosen in order.split(self.config.minibatch_size):
                if len(chosen) < 2:  # one row has no standard deviation
                    continue
                loss = self.loss(RolloutBatch(*(column[chosen] for column in rows)))
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
                self.optimizer.step()
                self.counters.gradient_steps += 1
                losses.append(loss.detach())
        if not losses:
            return float("nan")
        mean_loss = float(torch.stack(losses).mean())
        if not np.isfinite(mean_loss):
            raise FloatingPointError(f"the loss is {mean_loss}: is learning_rate small enough?")
        return mean_loss

    def set_progress(self, share: float) -> None:
        """Lowers the learning rate to (1 - share) of its first value, where `anneal` is set."""
        if self.config.anneal:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * (1 - share)

    def train(self, total_steps: int, on_batch: Callable[[PPO], None] | None = None) -> None:
        """Collects and updates until `total_steps` real steps are spent; `on_batch` is called after each."""
        while self.counters.real_steps < total_steps:
            self.set_progress(self.counters.real_steps / total_steps)
            self.update(self.collect())
            if on_batch is not None:
                on_batch(self)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, the present episodes and the random state included; a copy."""
        return {
            "policy": copy.deepcopy(self.policy.state_dict()),
            "optimizer": copy.deepcopy(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "envs": [env.state_dict() for env in self.envs.envs],  # type: ignore[attr-defined]
            "counters": dict(vars(self.counters)),
            "obs": self.obs.clone(),
            "running_returns": torch.as_tensor(self.running_returns).clone(),
            "episode_returns": list(self.episode_returns),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned.

        Raises:
            ValueError: the state is of an agent with another number of environments.
        """
        if len(state["envs"]) != self.config.num_envs:
            expected = f"{self.config.num_envs}, the num_envs of this one"
            raise ValueError(
                f"the state is of an agent with {len(state['envs'])} environments, expected {expected}"
            )
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.generator.set_state(state["generator"])
        for env, saved in zip(self.envs.envs, state["envs"], strict=True):
            env.load_state_dict(saved)  # type: ignore[attr-defined]
        vars(self.counters).update(state["counters"])
        self.obs = state["obs"].clone()
        self.running_returns = state["running_returns"].numpy().copy()
        self.episode_returns = [(int(step), float(value)) for step, value in state["episode_returns"]]
