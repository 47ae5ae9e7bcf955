"""Week 7: the pieces of MBPO, each of them a few lines.

Rollouts of the policy in the model that branch off from real states, how long they are, how long their
transitions are kept, how they are mixed with real ones, and what a reward is worth where the members of the
ensemble disagree (Janner et al., 2019, "When to trust your model: Model-based policy optimization").
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mbrl_course.buffers import Batch, ReplayBuffer, concatenate
from mbrl_course.imagination import epistemic_variance


def rollout_length_schedule(
    env_steps: int, steps: tuple[int, ...] = (0, 1), lengths: tuple[int, ...] = (1, 1)
) -> int:
    """The rollout length k after so many real steps (Janner et al., Appendix C).

    It is constant up to the first of `steps` and from the second on, and a straight line, rounded down,
    between them: with more data the model can be trusted for longer.

    Args:
        env_steps: real steps so far.
        steps: a and b, between which the length changes.
        lengths: x and y, the lengths before a and from b on.

    Returns:
        k, a whole number; 0 means that nothing is imagined.

    Raises:
        ValueError: `steps` do not increase.
    """
    (start, end), (first, last) = steps, lengths
    if start >= end:
        raise ValueError(f"steps is {steps}, expected two increasing numbers")
    share = min(max((env_steps - start) / (end - start), 0.0), 1.0)
    return int(first + share * (last - first) + 1e-9)  # 1e-9: where the line meets a whole number, that one


StepFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""`step(obs [N, D], action [N, A]) -> next_obs [N, D], reward [N], terminated (bool) [N]`."""


@torch.no_grad()
def branched_rollout(step: StepFunction, act: Callable[[Tensor], Tensor], obs: Tensor, length: int) -> Batch:
    """Rollouts of the policy in the model that branch off from N real states.

    All of them advance side by side. One that terminates is not continued (its last transition counts); one
    whose prediction is not finite is given up without a trace of that step.

    Args:
        step: one step of the model.
        act: the policy, maps states [N, D] to actions [N, A].
        obs: real states, [N, D].
        length: k, at least 1.

    Returns:
        At most N * k transitions: the first steps of all rollouts, then the second steps, and so on.

    Raises:
        ValueError: `length` is below 1.
    """
    if length < 1:
        raise ValueError(f"length is {length}, expected at least 1")
    batches: list[Batch] = []
    for _ in range(length):
        action = act(obs)
        next_obs, reward, terminated = step(obs, action)
        terminated = terminated.bool()  # of 0 and 1, ~ would make -1 and -2
        batch = Batch(obs, action, reward, next_obs, terminated, torch.zeros_like(terminated))
        batch = batch.take(next_obs.isfinite().all(dim=-1) & reward.isfinite())
        batches.append(batch)
        obs = batch.next_obs[~batch.terminated]  # [N', D], those that go on
        if len(obs) == 0:
            break
    return concatenate(batches)


def model_buffer_capacity(num_rollouts: int, length: int, retained_fits: int) -> int:
    """How many imagined transitions to keep: those of the last few fits of the model.

    Old ones come from an older model and an older policy. The longer the rollouts, the more transitions a
    fit brings, so the capacity follows the schedule.

    Args:
        num_rollouts: rollouts after each fit.
        length: k, steps of each.
        retained_fits: for so many fits an imagined transition is kept, if no rollout ends early.

    Returns:
        Their product; 1 where that is 0, since a buffer has to hold something.
    """
    return max(1, num_rollouts * length * retained_fits)


def resized(buffer: ReplayBuffer, capacity: int) -> ReplayBuffer:
    """A buffer of another capacity with the newest transitions of the old one, in their order.

    Args:
        buffer: the old one; it stays as it is.
        capacity: of the new one.

    Returns:
        A new buffer with as many of the newest transitions as fit.
    """
    other = ReplayBuffer(capacity, buffer.obs_dim, buffer.action_dim)
    other.write(buffer.all())
    return other


def num_real_rows(batch_size: int, real_ratio: float, num_imagined: int) -> int:
    """How many rows of a batch are real: a share of `real_ratio`, or all where nothing is imagined yet.

    Args:
        batch_size: B.
        real_ratio: share of the real rows, in [0, 1].
        num_imagined: how many imagined transitions there are.

    Returns:
        A whole number in 0 .. B, rounded to the nearest.
    """
    return batch_size if num_imagined == 0 else round(real_ratio * batch_size)


def mix_batches(
    real: ReplayBuffer,
    imagined: ReplayBuffer,
    batch_size: int,
    real_ratio: float,
    generator: torch.Generator | None = None,
) -> Batch:
    """A batch for the agent, a few of its transitions real, most of them imagined.

    Args:
        real: real transitions.
        imagined: imagined ones; as long as there are none, the whole batch is real.
        batch_size: B.
        real_ratio: share of the real ones, in [0, 1].
        generator: source of randomness.

    Returns:
        B transitions, the real ones first.
    """
    num_real = num_real_rows(batch_size, real_ratio, len(imagined))
    parts = [(real, num_real), (imagined, batch_size - num_real)]
    return concatenate([buffer.sample(count, generator) for buffer, count in parts if count > 0])


def elite_disagreement(means: Tensor, scale: Tensor) -> Tensor:
    """How far apart the elites' predictions are: the root of their epistemic variance.

    Args:
        means: next states as each of K elites expects them, [K, N, D].
        scale: standard deviation of the data's changes of state, [D]; it is the unit of each dimension.

    Returns:
        The root of the mean over dimensions of the variance over elites, [N].
    """
    return epistemic_variance(means, scale).sqrt()


def penalized_reward(reward: Tensor, disagreement: Tensor, beta: float) -> Tensor:
    """reward - beta * disagreement: where the members of the ensemble differ, there is less to be had.

    A policy looks for the model's mistakes, as they can be the most rewarding places of all; the penalty
    makes them unattractive. MOPO does so with the largest standard deviation that a member predicts (Yu et
    al., 2020, "MOPO: Model-based offline policy optimization").

    Args:
        reward: [N].
        disagreement: as `elite_disagreement` gives it, [N].
        beta: price of a unit of disagreement, in units of reward.

    Returns:
        [N].
    """
    return reward - beta * disagreement
