"""What a planner has to know about a task: its environment and, in batched torch, its reward and its end.

A Gymnasium environment advances one state at a time. A planner asks what reward ten thousand imagined
states would earn. So each task of the course comes twice: as a registered environment, and as functions of
tensors that agree with it step for step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

RewardFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`reward(obs [..., D], action [..., A], next_obs [..., D]) -> [...]`."""
TerminationFunction = Callable[[Tensor], Tensor]
"""`terminated(next_obs [..., D]) -> bool [...]`."""
DynamicsFunction = Callable[[Tensor, Tensor], Tensor]
"""`dynamics(obs [..., D], action [..., A]) -> next_obs [..., D]`."""


def never_terminates(next_obs: Tensor) -> Tensor:
    """The termination function of a task that only its step limit ends: False for every state, [...]."""
    return torch.zeros(next_obs.shape[:-1], dtype=torch.bool, device=next_obs.device)


def nan_where_broken(reward: Tensor, next_obs: Tensor) -> Tensor:
    """The reward [...], but NaN where the state next_obs [..., D] is not finite.

    For rewards that would not become NaN by themselves: a model that breaks must not earn what a standing
    pole earns. The return of such a plan is NaN, and ranks last.
    """
    return reward.masked_fill(~next_obs.isfinite().all(dim=-1), torch.nan)


def box_action(action: Tensor) -> Any:
    """A planned action [A] as the array that an environment with a `Box` action space takes."""
    return action.detach().cpu().numpy().astype(np.float32)


@dataclass(frozen=True)
class Task:
    """A task as planners and models see it.

    Attributes:
        name: short name, as `get_task` takes it.
        env_id: id of the registered Gymnasium environment.
        obs_dim: D, the length of an observation.
        action_dim: A, the length of a planned action, always continuous.
        action_low: lowest planned action, [A].
        action_high: highest planned action, [A].
        max_steps: the environment truncates an episode after this many steps.
        reward: batched reward of a transition.
        terminated: batched end of an episode (never the step limit).
        dynamics: the true dynamics as a batched function, where they can be written down.
        to_env_action: turns one planned action [A] into what the environment's `step` takes.
        plot_state: draws one observation [D] into a matplotlib axes, if there is a picture.
        env_kwargs: further arguments for `gymnasium.make`.
    """

    name: str
    env_id: str
    obs_dim: int
    action_dim: int
    action_low: Tensor
    action_high: Tensor
    max_steps: int
    reward: RewardFunction
    terminated: TerminationFunction = never_terminates
    dynamics: DynamicsFunction | None = None
    to_env_action: Callable[[Tensor], Any] = box_action
    plot_state: Callable[[Any, Any], None] | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def ensemble_size(self) -> int:
        """1: for a planner the true dynamics are an ensemble of one member."""
        return 1

    def make_env(self, **kwargs: Any) -> gym.Env:
        """A fresh environment of this task; `kwargs` go to `gymnasium.make`."""
        return gym.make(self.env_id, **{**self.env_kwargs, **kwargs})

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the true dynamics, batched, with the interface of a learned model.

        Args:
            obs: states, [..., D].
            action: planned actions, [..., A].

        Returns:
            next_obs [..., D], reward [...], terminated (bool) [...].

        Raises:
            ValueError: the task's true dynamics are not available as a function of tensors, or `obs` or
                `action` have another last dimension than D or A.
        """
        if self.dynamics is None:
            raise ValueError(
                f"task {self.name!r} has no true dynamics in torch: plan with a learned model, "
                "or choose obstacles, pendulum, a cart-pole or a mountain car"
            )
        if obs.shape[-1:] != (self.obs_dim,):
            raise ValueError(f"obs has shape {list(obs.shape)}, expected [..., {self.obs_dim}]")
        if action.shape[-1:] != (self.action_dim,):
            raise ValueError(f"action has shape {list(action.shape)}, expected [..., {self.action_dim}]")
        next_obs = self.dynamics(obs, action)
        return next_obs, self.reward(obs, action, next_obs), self.terminated(next_obs)
