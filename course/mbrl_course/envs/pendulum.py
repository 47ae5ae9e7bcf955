"""Pendulum-v1 in tensors: swing a pendulum up with a motor too weak to lift it directly."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mbrl_course.envs import pictures
from mbrl_course.envs.task import Task

MAX_TORQUE, MAX_SPEED = 2.0, 8.0
GRAVITY, MASS, LENGTH, DT = 10.0, 1.0, 1.0, 0.05


def dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """One step of Gymnasium's Pendulum-v1: semi-implicit Euler with a limit on the speed.

    Args:
        obs: (cos, sin, angular velocity in rad/s), angle 0 upright, [..., 3].
        action: torque in N m, [..., 1], clipped to [-2, 2].

    Returns:
        next_obs, [..., 3].
    """
    cos, sin, velocity = obs.unbind(-1)
    torque = action[..., 0].clamp(-MAX_TORQUE, MAX_TORQUE)
    acceleration = 3.0 * GRAVITY / (2.0 * LENGTH) * sin + 3.0 / (MASS * LENGTH**2) * torque
    velocity = (velocity + DT * acceleration).clamp(-MAX_SPEED, MAX_SPEED)
    angle = torch.atan2(sin, cos) + DT * velocity
    return torch.stack([angle.cos(), angle.sin(), velocity], dim=-1)


def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Pendulum-v1's reward: -(angle^2 + 0.1 angular velocity^2 + 0.001 torque^2), before the step, [...].

    The one task of the course whose reward is of the state in which the action was taken.
    """
    cos, sin, velocity = obs.unbind(-1)
    torque = action[..., 0].clamp(-MAX_TORQUE, MAX_TORQUE)
    return -(torch.atan2(sin, cos) ** 2 + 0.1 * velocity**2 + 0.001 * torque**2)


def plot_state(ax: Any, obs: Any) -> None:
    """Draws the pendulum of `obs` [3]; an arrow shows which way and how fast it turns."""
    cos, sin, velocity = pictures.as_vector(obs, 3)
    angle = math.atan2(sin, cos)  # counted from upright; positive leans left, as Gymnasium draws it
    pictures.draw_rod(ax, [(0.0, 0.0), (-sin, cos)], width=14)
    pictures.draw_disc(ax, (0.0, 0.0), 0.06, pictures.DARK)
    if abs(velocity) > 0.05:
        ahead = angle + 0.12 * velocity
        radius = 1.15
        ax.annotate(
            "",
            xy=(-radius * math.sin(ahead), radius * math.cos(ahead)),
            xytext=(-radius * math.sin(angle), radius * math.cos(angle)),
            arrowprops={
                "arrowstyle": "->",
                "color": pictures.BLUE,
                "linewidth": 2,
                "connectionstyle": f"arc3,rad={math.tan(0.03 * velocity):.3f}",
            },
        )
    pictures.set_view(ax, (-1.4, 1.4), (-1.4, 1.4))


TASK = Task(
    name="pendulum",
    env_id="Pendulum-v1",
    obs_dim=3,
    action_dim=1,
    action_low=torch.tensor([-MAX_TORQUE]),
    action_high=torch.tensor([MAX_TORQUE]),
    max_steps=200,
    reward=reward,
    dynamics=dynamics,
    plot_state=plot_state,
)
