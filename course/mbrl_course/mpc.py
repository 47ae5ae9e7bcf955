"""Week 2: acting by planning. Model-predictive control with random shooting.

Try many action sequences in the model, take the first action of the best one, look at where that led, and
start again: planning with a receding horizon (Nagabandi et al., 2018, "Neural network dynamics for
model-based deep reinforcement learning with model-free fine-tuning", Section IV-C; CS285, homework 4).

A planner never sees the model itself. It is given a *score function* of action sequences, so that the same
planner works on a toy problem, on the true dynamics and on a learned ensemble.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mbrl_course.buffers import Batch, concatenate
from mbrl_course.envs.task import Task, action_bounds, observed
from mbrl_course.validation import need_whole

StepFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""`step(obs [E, N, D], action [E, N, A]) -> next_obs [E, N, D], reward [E, N], terminated [E, N]`."""
ScoreFunction = Callable[[Tensor], Tensor]
"""`score(action_sequences [N, H, A]) -> [N]`, larger is better."""


class Model(Protocol):
    """What one can plan with: a `Task` whose true dynamics are known, or a learned model."""

    @property
    def ensemble_size(self) -> int:
        """E, the number of members; the true dynamics have one."""

    def step(self, obs: Tensor, action: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
        """One step of every member, see `StepFunction`."""


class Planner(Protocol):
    """Chooses action sequences; may remember its last plan until `reset`."""

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] to follow from the state obs [D]."""

    def reset(self) -> None:
        """Forgets the last plan, since a new episode begins."""


class Rollout(NamedTuple):
    """Imagined trajectories of E members for N action sequences."""

    obs: Tensor  # [E, N, H + 1, D], the first is the real state
    rewards: Tensor  # [E, N, H]
    terminated: Tensor  # [E, N, H] bool


def rollout(step: StepFunction, obs: Tensor, action_sequences: Tensor, ensemble_size: int = 1) -> Rollout:
    """Imagines where N action sequences lead from one state, in every member of the model at once.

    Each member starts at the same state and from then on goes on from its own prediction.

    Args:
        step: one step of the model.
        obs: the state to start from, [D].
        action_sequences: [N, H, A].
        ensemble_size: E.

    Returns:
        obs [E, N, H + 1, D], rewards [E, N, H] and terminated [E, N, H].
    """
    num_sequences, horizon, _ = action_sequences.shape
    actions = action_sequences.expand(ensemble_size, -1, -1, -1)  # [E, N, H, A]
    current = obs.expand(ensemble_size, num_sequences, -1)  # [E, N, D]
    all_obs, all_rewards, all_terminated = [current], [], []
    for t in range(horizon):
        current, reward, terminated = step(current, actions[:, :, t])
        all_obs.append(current)
        all_rewards.append(reward)
        all_terminated.append(terminated)
    return Rollout(
        obs=torch.stack(all_obs, dim=2),  # [E, N, H + 1, D]
        rewards=torch.stack(all_rewards, dim=2),  # [E, N, H]
        terminated=torch.stack(all_terminated, dim=2),  # [E, N, H]
    )


def sequence_returns(rewards: Tensor, terminated: Tensor) -> Tensor:
    """The sum of the rewards of each trajectory, up to and including the step at which it ends.

    What a model imagines after the end of an episode means nothing, and may even be NaN: it counts as 0.

    Args:
        rewards: [..., H].
        terminated: whether the step ended the episode, bool [..., H].

    Returns:
        Undiscounted returns, [...].
    """
    ended = terminated.long().cumsum(dim=-1) - terminated.long()  # [..., H], ends before step t
    return torch.where(ended == 0, rewards, torch.zeros_like(rewards)).sum(dim=-1)


def rank_invalid_last(scores: Tensor) -> Tensor:
    """Scores [N] with NaN and infinite values replaced by -inf: a plan that breaks the model never wins."""
    return torch.where(torch.isfinite(scores), scores, -torch.inf)


def make_score_fn(
    model: Model, obs: Tensor, aggregate: Callable[[Tensor], Tensor] | None = None
) -> ScoreFunction:
    """The function that planners maximise: the return of action sequences from one state.

    Args:
        model: a learned model, or a task with known dynamics; one that has a `score_fn(obs, aggregate)` of
            its own makes the function itself (`mbrl_course.accelerator`).
        obs: the state to start from, [D].
        aggregate: turns the returns in each member [E, N] into one score [N]; their mean by default.

    Returns:
        A function from action sequences [N, H, A] to scores [N]; it raises a ValueError where model and
        `aggregate` give something else.

    Raises:
        ValueError: `obs` is not a single state.
    """
    if obs.dim() != 1:
        raise ValueError(f"obs has shape {list(obs.shape)}, expected the one state to plan from, [D]")
    if hasattr(model, "score_fn"):  # on a GPU, say
        return model.score_fn(obs, aggregate)

    @torch.inference_mode()
    def score(action_sequences: Tensor) -> Tensor:
        imagined = rollout(model.step, obs, action_sequences, model.ensemble_size)
        returns = sequence_returns(imagined.rewards, imagined.terminated)  # [E, N]
        scores = returns.mean(dim=0) if aggregate is None else aggregate(returns)  # [N]
        if scores.shape != action_sequences.shape[:1]:
            expected = f"[{len(action_sequences)}], one for each action sequence"
            raise ValueError(f"the scores have shape {list(scores.shape)}, expected {expected}")
        return scores

    return score


def random_shooting(
    score_fn: ScoreFunction,
    low: Tensor,
    high: Tensor,
    num_sequences: int,
    horizon: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The best of many random action sequences.

    Args:
        score_fn: maps action sequences [N, H, A] to scores [N]; NaN and infinite ones rank last.
        low: smallest action, [A].
        high: largest action, [A].
        num_sequences: N.
        horizon: H.
        generator: source of randomness.

    Returns:
        The sequence with the highest score, [H, A]. Actions are uniform between `low` and `high`.
    """
    noise = torch.rand(num_sequences, horizon, len(low), generator=generator)  # [N, H, A]
    action_sequences = low + (high - low) * noise  # [N, H, A]
    scores = rank_invalid_last(score_fn(action_sequences))  # [N]
    return action_sequences[scores.argmax()].clone()  # a view would keep all N sequences in memory


def receding_horizon(
    obs: Tensor,
    plan: Callable[[Tensor], Tensor],
    env_step: Callable[[Tensor], tuple[Tensor, float, bool, bool]],
    max_steps: int,
) -> Batch:
    """Controls an environment: plan, take the first action only, look, plan again.

    Args:
        obs: the state to start from, [D].
        plan: maps a state [D] to an action sequence [H, A].
        env_step: takes one action [A] in the real environment, and returns the next state [D], the reward,
            terminated and truncated.
        max_steps: stop after this many steps if the episode has not ended before.

    Returns:
        The T transitions of the episode in order: obs [T, D], action [T, A], reward [T], next_obs [T, D],
        terminated [T] and truncated [T].
    """
    transitions = []
    for _ in range(max_steps):
        action = plan(obs)[0]  # [A]
        next_obs, reward, terminated, truncated = env_step(action)
        transitions.append((obs, action, reward, next_obs, terminated, truncated))
        obs = next_obs
        if terminated or truncated:
            break
    obs_, actions, rewards, next_obs_, ends, cuts = zip(*transitions, strict=True)
    return Batch(
        obs=torch.stack(obs_),  # [T, D]
        action=torch.stack(actions),  # [T, A]
        reward=torch.tensor(rewards, dtype=torch.float32),  # [T]
        next_obs=torch.stack(next_obs_),  # [T, D]
        terminated=torch.tensor(ends, dtype=torch.bool),  # [T]
        truncated=torch.tensor(cuts, dtype=torch.bool),  # [T]
    )


Policy = Callable[[Tensor], Tensor]
"""Maps a state [D] to an action [A]; a planner's first action, say."""


def on_policy_loop(
    collect: Callable[[Policy | None], tuple[Batch, float]],
    fit: Callable[[Batch], Policy],
    num_iterations: int,
) -> tuple[Batch, list[float]]:
    """Alternates between fitting a model and collecting data with the policy that plans in it.

    A model is good where it has seen data. The first data come from random actions; those of each iteration
    come from where the planner wants to go. All data ever seen are kept (Nagabandi et al., 2018, Alg. 1).

    Args:
        collect: gathers transitions with a policy, or with random actions where it is None; returns them and
            the mean return of the episodes.
        fit: fits the model to all transitions so far, and returns the policy that plans in it.
        num_iterations: how often to fit and collect.

    Returns:
        All transitions, in the order in which they were collected, and the mean returns: of the random
        actions first, then of each iteration's policy, `num_iterations + 1` in all.
    """
    batch, mean_return = collect(None)
    batches, mean_returns = [batch], [mean_return]
    for _ in range(num_iterations):
        policy = fit(concatenate(batches))
        batch, mean_return = collect(policy)
        batches.append(batch)
        mean_returns.append(mean_return)
    return concatenate(batches), mean_returns


@dataclass(frozen=True)
class RandomShootingConfig:
    """How random shooting searches.

    Attributes:
        num_sequences: N, action sequences per plan.
        horizon: H, steps that a plan looks ahead.
    """

    num_sequences: int = 1000
    horizon: int = 10

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        need_whole(self, "num_sequences", "horizon")


class RandomShootingPlanner:
    """Random shooting as a planner for `receding_horizon`; it remembers nothing from step to step."""

    def __init__(
        self,
        model: Model,
        low: Tensor,
        high: Tensor,
        config: RandomShootingConfig | None = None,
        generator: torch.Generator | None = None,
        aggregate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Plans in `model`, actions from `low` [A] to `high` [A]; `aggregate` as in `make_score_fn`."""
        self.model, (self.low, self.high) = model, action_bounds(low, high)
        self.config = config or RandomShootingConfig()
        self.generator, self.aggregate = generator, aggregate

    def reset(self) -> None:
        """Nothing to forget."""

    def plan(self, obs: Tensor) -> Tensor:
        """The best of `num_sequences` random action sequences from the state obs [D]: [H, A]."""
        score_fn = make_score_fn(self.model, obs, self.aggregate)
        config = self.config
        return random_shooting(
            score_fn, self.low, self.high, config.num_sequences, config.horizon, self.generator
        )


def run_episode(task: Task, planner: Planner, seed: int | None = None, max_steps: int | None = None) -> Batch:
    """One episode of a task under a planner, in the real environment.

    Args:
        task: the task.
        planner: its `reset` is called first.
        seed: seed of the environment's reset.
        max_steps: stop after this many steps; the task's own limit by default.

    Returns:
        The transitions of the episode, T of them, see `receding_horizon`.
    """
    env = task.make_env()
    planner.reset()
    first_obs, _ = env.reset(seed=seed)

    def env_step(action: Tensor) -> tuple[Tensor, float, bool, bool]:
        next_obs, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
        return observed(next_obs), float(reward), terminated, truncated

    try:
        return receding_horizon(observed(first_obs), planner.plan, env_step, max_steps or task.max_steps)
    finally:
        env.close()
