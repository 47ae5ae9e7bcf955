"""Week 8: is an improvement real? Statistics over a handful of runs, shaped rewards, fair budgets.

A few seeds of a deep RL agent scatter so widely that a good seed passes for a good idea. What this module
holds against it: a robust average and its bootstrap interval, the probability that one agent beats another,
the whole distribution of scores (all after Agarwal et al., 2021, "Deep reinforcement learning at the edge of
the statistical precipice"); shaped rewards that leave the best policy as it is (Ng, Harada and Russell, 1999,
"Policy invariance under reward transformations"); and comparisons at equal cost.

Scores are [..., seeds, tasks] throughout, so that one call treats all resamples of a bootstrap at once. The
scores of a single task are `scores[:, None]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

from mbrl_course.envs.task import Task, observed

Potential = Callable[[Tensor], Tensor]
"""`potential(obs [..., D]) -> [...]`: how promising a state is, in units of reward."""


class Interval(NamedTuple):
    """An estimate [...] and the two ends of its confidence interval, each [...]."""

    point: Tensor
    low: Tensor
    high: Tensor


def interquartile_mean(scores: Tensor) -> Tensor:
    """The mean of what is left of n scores without the floor(n / 4) lowest and the floor(n / 4) highest.

    Less shaken by one bad seed than the mean, and made of more of the runs than the median (Agarwal et al.,
    Section 4.3).

    Args:
        scores: [..., seeds, tasks]; the quarters are those of all seeds and tasks together.

    Returns:
        [...].

    Raises:
        ValueError: the scores have fewer than two axes, there are none, or one is NaN.
    """
    _check_scores("scores", scores)
    ordered = scores.flatten(-2).sort(dim=-1).values  # [..., n]
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(dim=-1)


def resample_seeds(scores: Tensor, num_resamples: int, generator: torch.Generator | None = None) -> Tensor:
    """Experiments that might have been: seeds drawn with replacement, for each task by itself (stratified).

    Args:
        scores: [seeds, tasks].
        num_resamples: R.
        generator: source of the draws.

    Returns:
        [R, seeds, tasks]; each column holds scores of that column of `scores` only.

    Raises:
        ValueError: `scores` is not [seeds, tasks], there are none, or one is NaN.
    """
    _check_scores("scores", scores, axes=2)
    num_seeds, num_tasks = scores.shape
    rows = torch.randint(num_seeds, (num_resamples, num_seeds, num_tasks), generator=generator)
    return scores.expand(num_resamples, -1, -1).gather(1, rows)


def bootstrap_interval(
    statistic: Callable[..., Tensor],
    *samples: Tensor,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    generator: torch.Generator | None = None,
) -> Interval:
    """A statistic and its percentile bootstrap interval (Agarwal et al., Section 4.1).

    Each sample is resampled by itself, R times; the interval spans the middle `confidence` of the R values
    of the statistic.

    Args:
        statistic: takes resampled scores [R, seeds, tasks], one tensor for each sample, and returns [R, ...].
        samples: scores of one or more agents, each [seeds, tasks]; their numbers of seeds may differ.
        confidence: share of the values within the interval, in (0, 1).
        num_resamples: R.
        generator: source of the draws.

    Returns:
        The statistic of the samples themselves, and the ends of the interval, each [...].

    Raises:
        ValueError: `confidence` is outside (0, 1), or a sample is not [seeds, tasks] or holds NaN.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected in (0, 1)")
    values = statistic(*(resample_seeds(sample, num_resamples, generator) for sample in samples))  # [R, ...]
    low = values.quantile((1 - confidence) / 2, dim=0)
    high = values.quantile((1 + confidence) / 2, dim=0)
    return Interval(statistic(*(sample[None] for sample in samples))[0], low, high)


def probability_of_improvement(scores_x: Tensor, scores_y: Tensor) -> Tensor:
    """How likely a run of X beats a run of Y on the same task: P(X > Y) + P(X = Y) / 2, averaged over tasks.

    It is taken over all pairs of a run of X and a run of Y, the Mann-Whitney U statistic over their number
    (Agarwal et al., Section 4.3).

    Args:
        scores_x: [..., seeds of X, tasks].
        scores_y: [..., seeds of Y, tasks].

    Returns:
        In [0, 1], [...]; 1/2 where neither is better.

    Raises:
        ValueError: the numbers of tasks differ, scores have fewer than two axes, or one is NaN.
    """
    _check_scores("scores_x", scores_x)
    _check_scores("scores_y", scores_y)
    if scores_x.shape[-1] != scores_y.shape[-1]:
        raise ValueError(
            f"scores_x has {scores_x.shape[-1]} tasks, scores_y {scores_y.shape[-1]}: expected the same"
        )
    difference = scores_x.unsqueeze(-2) - scores_y.unsqueeze(-3)  # [..., seeds of X, seeds of Y, tasks]
    return ((difference.sign() + 1) / 2).mean(dim=(-3, -2, -1))


def normalized_scores(scores: Tensor, random_score: Tensor, reference_score: Tensor) -> Tensor:
    """Scores on a scale on which the random policy has 0 and a reference agent 1, for each task.

    Args:
        scores: [..., seeds, tasks].
        random_score: of the random policy on each task, [tasks].
        reference_score: of the reference on each task, [tasks], other than the random one.

    Returns:
        [..., seeds, tasks], without a unit.
    """
    return (scores - random_score) / (reference_score - random_score)


def performance_profile(scores: Tensor, thresholds: Tensor) -> Tensor:
    """The share of the runs whose score is above each threshold tau (Agarwal et al., Section 4.2).

    Args:
        scores: [..., seeds, tasks], normalised where there are several tasks.
        thresholds: tau, [K].

    Returns:
        In [0, 1], [..., K]; it falls with tau.

    Raises:
        ValueError: scores have fewer than two axes, there are none, or one is NaN.
    """
    _check_scores("scores", scores)
    above = scores.flatten(-2).unsqueeze(-1) > thresholds  # [..., n, K]
    return above.double().mean(dim=-2)


def shaping_reward(
    potential: Potential, gamma: float, obs: Tensor, next_obs: Tensor, terminated: Tensor
) -> Tensor:
    """Potential-based shaping: F = gamma Phi(s') - Phi(s), where a state that ended an episode has Phi = 0.

    Along an episode the sum telescopes: it depends on where the episode starts, not on what is done. That is
    why no best policy changes (Ng, Harada and Russell, Theorem 1).

    Args:
        potential: Phi, maps states [..., D] to [...].
        gamma: discount of the agent that is trained with it, in (0, 1].
        obs: s, [..., D].
        next_obs: s', [..., D].
        terminated: whether s' ended the episode, bool [...].

    Returns:
        F, to be added to the reward, [...].

    Raises:
        ValueError: gamma is outside (0, 1], or the potential has another shape than `terminated`.
    """
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma is {gamma}, expected in (0, 1]")
    after = potential(next_obs)  # [...]
    if after.shape != terminated.shape:
        raise ValueError(f"potential has shape {list(after.shape)}, expected {list(terminated.shape)}")
    return gamma * after.masked_fill(terminated, 0.0) - potential(obs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShapedTask(Task):
    """A task whose reward is the true one plus a bonus, in its tensors and in its environment.

    Attributes:
        bonus: maps obs [..., D], next_obs [..., D], terminated [...] to what is added to the reward, [...].
    """

    bonus: Callable[[Tensor, Tensor, Tensor], Tensor]

    def make_env(self, **kwargs: Any) -> gym.Env:
        """A fresh environment that pays the bonus, too."""
        return _ShapedEnv(super().make_env(**kwargs), self.bonus)


def shaped_task(task: Task, potential: Potential, gamma: float, *, naive: bool = False) -> ShapedTask:
    """The task with a shaped reward: train or plan with it, and evaluate on `task` itself.

    Args:
        task: with the true reward.
        potential: Phi, maps states [..., D] to [...].
        gamma: discount of the agent; 1 for a planner that sums rewards up to its horizon.
        naive: pay Phi(s') for every step instead, as one does who has not read Ng, Harada and Russell.

    Raises:
        ValueError: gamma is outside (0, 1], or the task is a shaped one.
    """
    if isinstance(task, ShapedTask):
        raise ValueError("task is a shaped one, expected the true one: add the potentials up, and shape once")

    def bonus(obs: Tensor, next_obs: Tensor, terminated: Tensor) -> Tensor:
        if naive:
            return potential(next_obs)
        return shaping_reward(potential, gamma, obs, next_obs, terminated)

    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return task.reward(obs, action, next_obs) + bonus(obs, next_obs, task.terminated(next_obs))

    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(Task)}
    return ShapedTask(**{**fields, "reward": reward}, bonus=bonus)


class _ShapedEnv(gym.Wrapper):
    """An environment that adds a bonus to its reward."""

    def __init__(self, env: gym.Env, bonus: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__(env)
        self.bonus = bonus
        self.obs = torch.zeros(0)  # [D]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        self.obs = observed(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        next_obs, reward, terminated, truncated, info = self.env.step(action)
        after = observed(next_obs)
        extra = float(self.bonus(self.obs, after, torch.tensor(terminated)))
        self.obs = after
        return next_obs, float(reward) + extra, terminated, truncated, info


def score_at_budget(costs: Tensor, scores: Tensor, budget: float) -> Tensor:
    """What each run had to show when the budget was spent: its last evaluation that cost no more.

    Args:
        costs: what a run had spent at each of its evaluations (env steps, seconds or model calls), never
            falling, [seeds, P].
        scores: the evaluations, [seeds, P].
        budget: in units of `costs`.

    Returns:
        [seeds]; NaN for a run that had nothing to show yet.

    Raises:
        ValueError: the shapes are not the same [seeds, P], or the costs of a run fall.
    """
    if costs.ndim != 2 or costs.shape != scores.shape:
        raise ValueError(
            f"costs has shape {list(costs.shape)}, scores {list(scores.shape)}, expected the same [seeds, P]"
        )
    if bool((costs.diff(dim=1) < 0).any()):
        raise ValueError("costs falls from one evaluation to the next, expected what was spent so far")
    affordable = (costs <= budget).sum(dim=1)  # [seeds]
    last = scores.gather(1, (affordable - 1).clamp(min=0)[:, None])[:, 0]
    return last.masked_fill(affordable == 0, float("nan"))


def common_budget(*costs: Tensor) -> float:
    """The largest budget that every run of every agent has spent: beyond it some could not compete.

    Args:
        costs: for each agent, what its runs had spent at each evaluation, never falling, [seeds, P].

    Raises:
        ValueError: there is no agent.
    """
    if not costs:
        raise ValueError("costs is empty, expected a tensor [seeds, P] for each agent")
    return min(float(cost[:, -1].min()) for cost in costs)


def iqm_improvement(
    scores_x: Tensor,
    scores_y: Tensor,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    generator: torch.Generator | None = None,
) -> Interval:
    """By how much the interquartile mean of X is above that of Y, with its bootstrap interval.

    Args:
        scores_x: with the change that is on trial, [seeds of X, tasks].
        scores_y: without it, [seeds of Y, tasks].
        confidence: of the interval. For one of m claims 1 - 0.05 / m, if none of them shall pass by luck
            (Bonferroni).
        num_resamples: of the bootstrap.
        generator: source of the draws.
    """

    def difference(x: Tensor, y: Tensor) -> Tensor:
        return interquartile_mean(x) - interquartile_mean(y)

    return bootstrap_interval(
        difference,
        scores_x,
        scores_y,
        confidence=confidence,
        num_resamples=num_resamples,
        generator=generator,
    )


def verdict(improvement: Interval) -> Literal["real", "not shown", "harmful"]:
    """What an interval for an improvement allows to say.

    Args:
        improvement: of a single number.

    Returns:
        "real" where the whole interval is above 0, "harmful" where it is below, else "not shown", which is
        not the same as "shown to do nothing".
    """
    if improvement.low > 0:
        return "real"
    return "harmful" if improvement.high < 0 else "not shown"


def _check_scores(name: str, scores: Tensor, axes: int | None = None) -> None:
    if scores.ndim < 2 or scores.numel() == 0 or (axes is not None and scores.ndim != axes):
        expected = "[seeds, tasks]" if axes else "[..., seeds, tasks]"
        raise ValueError(f"{name} has shape {list(scores.shape)}, expected {expected}")
    if bool(scores.isnan().any()):
        raise ValueError(f"{name} holds NaN: leave failed runs out on purpose, or score them")
