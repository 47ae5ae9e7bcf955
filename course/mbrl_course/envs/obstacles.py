"""Obstacles: a point walks past five walls to a goal, the first task of CS285's model-based homework.

Small enough that a plan can be drawn on paper, and yet the straight way to the goal is barred.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_course.envs import pictures
from mbrl_course.envs.base import DynamicsEnv, FloatArray
from mbrl_course.envs.task import Task

LIMIT = 0.99
"""The square is [-LIMIT, LIMIT]^2."""
OBSTACLES = (
    (-0.4, 0.8, 0.4, 0.3),
    (-0.9, 0.3, 0.2, 0.6),
    (0.6, -0.1, 0.12, 0.4),
    (-0.1, 0.2, 0.15, 0.4),
    (0.1, -0.7, 0.3, 0.15),
)
"""The walls as (left, top, width, height); their edges are free."""
GOAL = (0.7, -0.8)
GOAL_RADIUS = 0.1
STEP_LENGTH = 0.1
"""An action of 1 moves this far."""
START_LOW, START_HIGH = (-0.99, 0.26), (0.59, 0.99)


def is_free(position: Tensor) -> Tensor:
    """Whether points are inside the square and outside all obstacles.

    Args:
        position: points (x, y), [..., 2].

    Returns:
        bool [...].
    """
    left, top, width, height = position.new_tensor(OBSTACLES).unbind(-1)  # each [5]
    x, y = position[..., 0:1], position[..., 1:2]  # [..., 1]
    inside = (x > left) & (x < left + width) & (y < top) & (y > top - height)  # [..., 5]
    return ~inside.any(dim=-1) & (position.abs() <= LIMIT).all(dim=-1)


def dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """Moves by a tenth of the action; a move that would end outside or in an obstacle leaves the position.

    Args:
        obs: (x, y, goal x, goal y), [..., 4].
        action: the move, [..., 2], clipped to [-1, 1].

    Returns:
        next_obs, [..., 4].
    """
    position, goal = obs[..., :2], obs[..., 2:]
    moved = position + STEP_LENGTH * action.clamp(-1.0, 1.0)
    moved = torch.where(is_free(moved)[..., None], moved, position)  # [..., 2]
    return torch.cat([moved, goal.expand(*moved.shape[:-1], 2)], dim=-1)


def distance_to_goal(obs: Tensor) -> Tensor:
    """Euclidean distance between the point and its goal, [...], of observations [..., 4]."""
    return torch.linalg.vector_norm(obs[..., :2] - obs[..., 2:], dim=-1)


def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Minus the distance to the goal after the move, [...]."""
    return -distance_to_goal(next_obs)


def terminated(next_obs: Tensor) -> Tensor:
    """Whether the point is within 0.1 of the goal, or outside (as only a model can imagine), bool [...]."""
    outside = (next_obs[..., :2].abs() > LIMIT).any(dim=-1)
    return outside | (distance_to_goal(next_obs) <= GOAL_RADIUS)


def plot_map(ax: Any) -> None:
    """Draws the square and its obstacles into a matplotlib axes."""
    for left, top, width, height in OBSTACLES:
        pictures.draw_box(ax, left, top - height, width, height, pictures.LIGHT)
    pictures.set_view(ax, (-LIMIT, LIMIT), (-LIMIT, LIMIT))
    ax.spines[:].set_visible(True)  # all four sides end the episode


def plot_state(ax: Any, obs: Any) -> None:
    """Draws the map, the goal with the disc that ends the episode, and the point of `obs` [4]."""
    x, y, goal_x, goal_y = pictures.as_vector(obs, 4)
    plot_map(ax)
    pictures.draw_disc(ax, (goal_x, goal_y), GOAL_RADIUS, pictures.GREEN, alpha=0.35, zorder=1)
    ax.plot(goal_x, goal_y, marker="*", color=pictures.GREEN, markersize=14, zorder=3)
    pictures.draw_disc(ax, (x, y), 0.035, pictures.BLUE, edgecolor="white")


class ObstaclesEnv(DynamicsEnv):
    """The obstacles as a Gymnasium environment; starts at a free point with x in [-0.99, 0.59], y >= 0.26."""

    def __init__(self, render_mode: str | None = None) -> None:
        """`render_mode` is None or "rgb_array"."""
        super().__init__(
            obs_low=[-LIMIT] * 4,
            obs_high=[LIMIT] * 4,
            action_dim=2,
            dynamics=dynamics,
            reward=reward,
            terminated=terminated,
            plot_state=plot_state,
            render_mode=render_mode,
        )

    def first_obs(self) -> FloatArray:
        """A free point, uniformly from the start region, and the goal."""
        while True:
            position = self.np_random.uniform(START_LOW, START_HIGH).astype(np.float32)
            if is_free(torch.from_numpy(position)):
                return np.concatenate([position, np.asarray(GOAL, dtype=np.float32)])


TASK = Task(
    name="obstacles",
    env_id="mbrl/Obstacles-v0",
    obs_dim=4,
    action_dim=2,
    action_low=-torch.ones(2),
    action_high=torch.ones(2),
    max_steps=100,
    reward=reward,
    terminated=terminated,
    dynamics=dynamics,
    plot_state=plot_state,
)
