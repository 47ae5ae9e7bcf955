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


def action_bounds(low: Any, high: Any) -> tuple[Tensor, Tensor]:
    """The bounds of actions as float32 tensors, [A] each.

    Args:
        low: smallest action, [A]; a tensor, an array or a list.
        high: largest action, [A].

    Raises:
        ValueError: they are not finite, differ in shape, or `low` is not below `high`.
    """
    bounds = []
    for name, bound in (("low", low), ("high", high)):
        tensor = torch.as_tensor(bound, dtype=torch.float32)
        if tensor.dim() != 1 or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is {tensor.tolist()}, expected a finite number for each action, [A]")
        bounds.append(tensor)
    if bounds[0].shape != bounds[1].shape or not bool((bounds[0] < bounds[1]).all()):
        raise ValueError(f"low is {bounds[0].tolist()}, expected below high, which is {bounds[1].tolist()}")
    return bounds[0], bounds[1]


def observed(obs: Any) -> Tensor:
    """What an environment returned as its state, as a float32 tensor [D] of its own.

    A copy: an environment may go on in the array that it returned.
    """
    return torch.tensor(np.asarray(obs), dtype=torch.float32)


def box_action(action: Tensor) -> Any:
    """A planned action [A] as the array that an environment with a `Box` action space takes."""
    return action.detach().cpu().numpy().astype(np.float32)


@dataclass(frozen=True)
class Task:
    """A task as planners and models see it; `mbrl_course.envs.check_task` compares one with its environment.

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

    def __post_init__(self) -> None:
        """Refuses bounds that are none, and functions that don't give one number for each state."""
        try:
            low, high = action_bounds(self.action_low, self.action_high)
        except ValueError as error:
            raise ValueError(f"action_{error}") from None
        if len(low) != self.action_dim:
            raise ValueError(
                f"action_low is {low.tolist()}, expected [{self.action_dim}], one for each action"
            )
        object.__setattr__(self, "action_low", low)
        object.__setattr__(self, "action_high", high)
        if not isinstance(self.max_steps, int | np.integer) or self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps!r}, expected a whole number of at least 1")
        object.__setattr__(self, "max_steps", int(self.max_steps))
        self._check_functions()

    @torch.no_grad()
    def _check_functions(self) -> None:
        others = [n for n in range(2, 6) if n not in (self.obs_dim, self.action_dim)]
        shape = torch.Size(others[:2])  # no axis is as long as another one
        obs, action = torch.zeros(*shape, self.obs_dim), self.action_low.expand(*shape, -1)
        checks = [
            ("reward", self.reward(obs, action, obs), shape, torch.float32),
            ("terminated", self.terminated(obs), shape, torch.bool),
        ]
        if self.dynamics is not None:
            checks.append(("dynamics", self.dynamics(obs, action), obs.shape, torch.float32))
        for name, value, expected, dtype in checks:
            if not isinstance(value, Tensor):
                got = f"a {type(value).__name__}"
            elif value.shape != expected or value.dtype != dtype:
                got = f"{value.dtype} of shape {list(value.shape)}"
            else:
                continue
            what = f"{name} of states of shape {list(obs.shape)} is {got}"
            raise ValueError(f"{what}, expected {dtype} of shape {list(expected)}")

    @property
    def ensemble_size(self) -> int:
        """1: for a planner the true dynamics are an ensemble of one member."""
        return 1

    def make_env(self, **kwargs: Any) -> gym.Env:
        """A fresh environment of this task; `kwargs` go to `gymnasium.make`."""
        return gym.make(self.env_id, **{"max_episode_steps": self.max_steps, **self.env_kwargs, **kwargs})

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
