"""Week 7: how long should an imagined rollout be? The theory's two numbers.

A rollout that branches from a real state and runs for k steps in the model has two sources of error. The
real states are those of older policies: that error shrinks with k. The model is wrong: that error grows
with k. "When to trust your model" (Janner et al., 2019) bounds their sum; its smallest value is at the best
k, and the error against k is what one can measure.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mbrl_course.buffers import Batch


def compounding_error(step: Callable[[Tensor, Tensor], Tensor], sequences: Batch, scale: Tensor) -> Tensor:
    """How far the model is from the truth after k steps of its own, for k = 1 .. K.

    The model starts in the real state, sees only its own predictions from there on, and is given the real
    actions.

    Args:
        step: the model, maps states [B, D] and actions [B, A] to next states [B, D]; it may be random.
        sequences: B real stretches of K transitions, obs [B, K, D] and so on, as
            `ReplayBuffer.sample_sequences` gives them.
        scale: what one unit of error is in each dimension, [D]; the standard deviation of the real states,
            say: an error of 1 is then as bad as guessing any state.

    Returns:
        Root mean squared error over stretches and dimensions, [K].
    """
    errors = []
    obs = sequences.obs[:, 0]  # [B, D]
    for k in range(sequences.action.shape[1]):
        obs = step(obs, sequences.action[:, k])
        errors.append(((obs - sequences.next_obs[:, k]) / scale).square().mean().sqrt())
    return torch.stack(errors)


def shifted_model_error(model_error: float, policy_error: float, slope: float) -> float:
    """The model's error under the new policy, to first order in how far that policy has moved.

    eps_m' = eps_m + eps_pi * d eps_m' / d eps_pi (Janner et al., Section 4.3). The slope is measured: it
    falls with the number of training data, and that is what makes models worth using.

    Args:
        model_error: eps_m on the states of the policy that collected the data.
        policy_error: eps_pi, how far the new policy is from it (total variation).
        slope: how fast the one grows with the other.
    """
    return model_error + policy_error * slope


def return_gap(
    rollout_length: Tensor | int,
    model_error: float,
    policy_error: float,
    gamma: float,
    max_reward: float = 1.0,
) -> Tensor:
    """By how much the return may fall short of that of k-step branched rollouts, at most.

    2 r_max (gamma^(k+1) eps_pi / (1 - gamma)^2 + gamma^k eps_pi / (1 - gamma) + k eps_m' / (1 - gamma))
    (Janner et al., Theorem 4.3).

    Args:
        rollout_length: k, a number or a tensor [K].
        model_error: eps_m', under the new policy (total variation, in [0, 1]).
        policy_error: eps_pi, in [0, 1].
        gamma: discount, in (0, 1).
        max_reward: r_max, largest absolute reward.

    Returns:
        In units of return, of the shape of `rollout_length`.

    Raises:
        ValueError: an error is outside [0, 1], or gamma outside (0, 1).
    """
    _check_errors(model_error, policy_error, gamma)
    k = torch.as_tensor(rollout_length, dtype=torch.float64)
    start = gamma ** (k + 1) * policy_error / (1 - gamma) ** 2 + gamma**k * policy_error / (1 - gamma)
    return 2 * max_reward * (start + k * model_error / (1 - gamma))


def best_rollout_length(model_error: float, policy_error: float, gamma: float, max_length: int = 1000) -> int:
    """The k with the smallest `return_gap`: what a good model earns, and a bad one forbids.

    Args:
        model_error: eps_m'.
        policy_error: eps_pi.
        gamma: discount.
        max_length: the longest rollout to consider; a perfect model would take any.

    Returns:
        k in 0 .. max_length; 0 where the model is worse than the old data. The smallest of several.

    Raises:
        ValueError: an error is outside [0, 1], or gamma outside (0, 1).
    """
    lengths = torch.arange(max_length + 1)
    return int(return_gap(lengths, model_error, policy_error, gamma).argmin())


def _check_errors(model_error: float, policy_error: float, gamma: float) -> None:
    for name, value in (("model_error", model_error), ("policy_error", policy_error)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, expected in [0, 1]")
    if not 0 < gamma < 1:
        raise ValueError(f"gamma is {gamma}, expected in (0, 1)")
