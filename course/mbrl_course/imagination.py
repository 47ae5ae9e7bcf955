"""Week 6: what an agent imagines, what of it is to be believed, and what it has really seen.

The pieces that Dyna-PPO is made of: rollouts of a policy inside a learned model, a gate that stops a rollout
where the members of an ensemble disagree, a way to corrupt a good model on purpose, and two looks back at
where the agent has been. And the other way to use the same model: planning for its worst member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_course.buffers import Batch
from mbrl_course.ensembles import GaussianEnsemble, split_variance
from mbrl_course.envs.task import Task
from mbrl_course.mpc import StepFunction, rank_invalid_last, rollout, sequence_returns
from mbrl_course.pets import worst_case


def planned_actions(task: Task, num_choices: int, first: int = 0) -> Tensor:
    """The planned action behind each choice of a discrete policy.

    Models know planned actions in `task.action_low` to `task.action_high`; a discrete policy knows numbers.
    The choices are spread evenly: -1 and 1 for two of them between -1 and 1, -1, 0 and 1 for three.

    Args:
        task: a task with one planned action, whose `to_env_action` makes a number of it.
        num_choices: n, how many actions the environment knows.
        first: the number of the first one.

    Returns:
        [n, 1].

    Raises:
        ValueError: the task does not turn these planned actions into n numbers from `first` on.
    """
    low, high = task.action_low[0].item(), task.action_high[0].item()
    table = torch.linspace(low, high, num_choices).unsqueeze(1)  # [n, 1]
    meant = [task.to_env_action(row) for row in table]
    if task.action_dim != 1 or meant != list(range(first, first + num_choices)):
        expected = f"{first} to {first + num_choices - 1}"
        raise ValueError(f"task {task.name!r} turns {table.squeeze(1).tolist()} into {meant}, not {expected}")
    return table


def epistemic_variance(means: Tensor, scale: Tensor) -> Tensor:
    """How much the members disagree: the variance of their means, averaged over dimensions.

    Args:
        means: predicted by E members, [E, N, D].
        scale: standard deviation of the data's changes of state, [D]; makes dimensions comparable, so that 1
            is as bad as predicting the mean change each time.

    Returns:
        [N].
    """
    parts = split_variance(means / scale, torch.zeros_like(means))
    return parts.epistemic.mean(dim=-1)


def uncertainty_gate(variance: Tensor, tau: float) -> Tensor:
    """Which predictions are to be believed: those with a variance of at most tau; NaN never. bool [N]."""
    return variance <= tau


def corrupt_model(
    delta: Tensor,
    reward: Tensor,
    sigma: float,
    scale: Tensor | float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Makes a model worse on purpose: adds Gaussian noise to what it predicts.

    Args:
        delta: predicted changes of the state, [N, D].
        reward: predicted rewards, [N].
        sigma: standard deviation of the noise: of the reward's in its own units, of the change's in units of
            `scale`; 0 leaves everything as it is.
        scale: standard deviation of the data's changes, [D].
        generator: source of randomness.

    Returns:
        Corrupted changes [N, D] and rewards [N].
    """
    if sigma == 0:
        return delta, reward
    noise = torch.randn(delta.shape, generator=generator)
    reward_noise = torch.randn(reward.shape, generator=generator)
    return delta + sigma * scale * noise, reward + sigma * reward_noise


class ImaginedRollouts(NamedTuple):
    """H imagined steps of N rollouts. A row that is not `valid` repeats the last state and means nothing."""

    obs: Tensor  # [H, N, D]
    action: Tensor  # [H, N] discrete, or [H, N, A]
    log_prob: Tensor  # [H, N]
    reward: Tensor  # [H, N]
    next_obs: Tensor  # [H, N, D]
    terminated: Tensor  # [H, N] bool
    valid: Tensor  # [H, N] bool


PolicyFunction = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`act(obs [N, D]) -> action [N, ...], log_prob [N]`."""
ImaginedStep = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
"""`step(obs [N, D], action [N, ...]) -> next_obs [N, D], reward [N], terminated [N], trusted (bool) [N]`."""


@torch.no_grad()
def imagined_rollouts(act: PolicyFunction, step: ImaginedStep, obs: Tensor, horizon: int) -> ImaginedRollouts:
    """Lets the policy act in the model, from N states side by side.

    A rollout is over when the model says that the episode terminated (that step still counts), or when a
    prediction is not to be trusted, or not finite (that step does not count).

    Args:
        act: the policy.
        step: one step of the model.
        obs: real states to start from, [N, D].
        horizon: H.

    Returns:
        H steps of N rollouts.
    """
    columns: list[tuple[Tensor, ...]] = []
    running = torch.ones(len(obs), dtype=torch.bool)  # [N]
    for _ in range(horizon):
        action, log_prob = act(obs)
        next_obs, reward, terminated, trusted = step(obs, action)
        finite = next_obs.isfinite().all(dim=-1) & reward.isfinite()
        valid = running & trusted & finite  # [N]
        next_obs = torch.where(valid.unsqueeze(-1), next_obs, obs)
        reward, terminated = torch.where(valid, reward, 0.0), terminated & valid
        columns.append((obs, action, log_prob, reward, next_obs, terminated, valid))
        running = valid & ~terminated
        obs = next_obs
    return ImaginedRollouts(*(torch.stack(column) for column in zip(*columns, strict=True)))


def cut_short(terminated: Tensor, valid: Tensor) -> Tensor:
    """Where an imagined rollout was given up without an end: the value of the state there still counts.

    It is what `truncated` is in a real batch: the last valid step of each rollout, unless it terminated.

    Args:
        terminated: bool [H, N].
        valid: bool [H, N].

    Returns:
        Bool [H, N].
    """
    goes_on = torch.cat([valid[1:], torch.zeros_like(valid[:1])])  # [H, N], is there a valid step after it?
    return valid & ~terminated & ~goes_on


def visit_counts(points: Tensor, low: Tensor, high: Tensor, num_bins: int) -> Tensor:
    """How often each cell of a grid over two dimensions of the state was visited.

    Args:
        points: two coordinates of N states, [N, 2].
        low: lower corner of the grid, [2].
        high: upper corner, [2]; what lies outside counts in the outermost cells.
        num_bins: B, cells along each axis.

    Returns:
        Counts, int64 [B, B]; the first axis is the first coordinate.
    """
    cells = ((points - low) / (high - low) * num_bins).clamp(0, num_bins - 1).long()  # [N, 2]
    return torch.bincount(cells[:, 0] * num_bins + cells[:, 1], minlength=num_bins**2).view(num_bins, -1)


def model_loss(means: Tensor, next_obs: Tensor, scale: Tensor) -> Tensor:
    """How wrong an ensemble is about each transition: the squared error of its members' mean.

    Args:
        means: next states that E members predict, [E, N, D].
        next_obs: those that came, [N, D].
        scale: standard deviation of the data's changes of state, [D]; makes dimensions comparable, so that 1
            is as bad as predicting the mean change each time.

    Returns:
        Mean over the dimensions, [N].
    """
    return ((means.mean(dim=0) - next_obs) / scale).square().mean(dim=-1)


def errors_by_age(model: GaussianEnsemble, data: Batch, num_groups: int) -> Tensor:
    """The model's one-step error on old and on new transitions.

    A policy that learns goes to states where the model was never fitted, and a buffer that is full forgets
    where the policy used to be: either shows here.

    Args:
        model: a fitted ensemble.
        data: N transitions, the oldest first.
        num_groups: G; the transitions are split into as many groups of (nearly) equal size.

    Returns:
        Mean of `model_loss` in each group, the oldest first, [G]; asked are the elites, and changes of the
        state are measured in standard deviations of those that the model was fitted to.
    """
    means = model.predict(data.obs, data.action, model.elites).obs  # [E, N, D]
    loss = model_loss(means, data.next_obs, model.target_normalizer.std[: model.obs_dim])  # [N]
    return torch.stack([group.mean() for group in loss.tensor_split(num_groups)])


def worst_case_scores(step: StepFunction, num_members: int, obs: Tensor, action_sequences: Tensor) -> Tensor:
    """What plans are worth in the member in which each of them fares worst: robust planning in an ensemble.

    Each member is a world of its own; a plan has to do well in all of them. (EPOpt asks something milder of
    policies, to do well on average in the worst share of them: Rajeswaran et al., 2017, "EPOpt: learning
    robust neural network policies using model ensembles".)

    Args:
        step: one step of the E members, each with N rows of its own; they share none of their predictions.
        num_members: E.
        obs: the state to plan from, [D].
        action_sequences: [N, H, A].

    Returns:
        The smallest of the E returns of each plan, [N]; minus infinity where any of them is not finite.
    """
    imagined = rollout(step, obs, action_sequences, num_members)
    returns = sequence_returns(imagined.rewards, imagined.terminated)  # [E, N]
    return worst_case(rank_invalid_last(returns), num_members)
