"""Gymnasium's own environments as tasks: their rewards and their ends, computed from observations.

Where Gymnasium's default observation leaves out what the reward is made of, the task asks for it with
keyword arguments of the environment.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl_course.envs import half_cheetah, pictures
from mbrl_course.envs.cartpole import draw_cartpole
from mbrl_course.envs.task import Task, nan_where_broken

HALF_CHEETAH_DT, HOPPER_DT = 0.05, 0.008
"""s between two observations."""


def half_cheetah_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """HalfCheetah-v5: mean forward velocity over the step (m/s) minus 0.1 |action|^2, [...]."""
    velocity = (next_obs[..., 0] - obs[..., 0]) / HALF_CHEETAH_DT
    return velocity - 0.1 * action.square().sum(dim=-1)


def hopper_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Hopper-v5: mean forward velocity (m/s), plus 1 unless it fell, minus 0.001 |action|^2, [...].

    NaN for a broken state.
    """
    velocity = (next_obs[..., 0] - obs[..., 0]) / HOPPER_DT
    healthy = (~hopper_terminated(next_obs)).to(next_obs.dtype)
    return nan_where_broken(velocity + healthy - 0.001 * action.square().sum(dim=-1), next_obs)


def hopper_terminated(next_obs: Tensor) -> Tensor:
    """Hopper-v5: whether the torso is at most 0.7 m high or leans 0.2 rad or more, bool [...]."""
    height, pitch = next_obs[..., 1], next_obs[..., 2]
    healthy = (height > 0.7) & (pitch.abs() < 0.2) & next_obs.isfinite().all(dim=-1)
    return ~healthy


def inverted_pendulum_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """InvertedPendulum-v5: 1, but 0 for the step that ends the episode; NaN for a broken state, [...]."""
    return nan_where_broken((~inverted_pendulum_terminated(next_obs)).to(next_obs.dtype), next_obs)


def inverted_pendulum_terminated(next_obs: Tensor) -> Tensor:
    """InvertedPendulum-v5: whether the pole leans more than 0.2 rad or a number is not finite, bool [...]."""
    return (next_obs[..., 1].abs() > 0.2) | ~next_obs.isfinite().all(dim=-1)


def reacher_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Reacher-v5: minus the distance from fingertip to target (m) minus |action|^2, [...]."""
    return -torch.linalg.vector_norm(next_obs[..., 8:10], dim=-1) - action.square().sum(dim=-1)


MIN_POSITION, MAX_POSITION, MAX_SPEED, SLOPE = -1.2, 0.6, 0.07, 0.0025
DISCRETE_GOAL, CONTINUOUS_GOAL = 0.5, 0.45


def _drive(obs: Tensor, acceleration: Tensor) -> Tensor:
    """A step of both mountain cars: obs [..., 2] and the motor's acceleration [...] to next_obs [..., 2]."""
    position, velocity = obs.unbind(-1)
    velocity = (velocity + acceleration - SLOPE * torch.cos(3 * position)).clamp(-MAX_SPEED, MAX_SPEED)
    position = (position + velocity).clamp(MIN_POSITION, MAX_POSITION)
    at_wall = (position <= MIN_POSITION) & (velocity < 0)
    return torch.stack([position, velocity.masked_fill(at_wall, 0.0)], dim=-1)


def choose_push(action: Tensor) -> int:
    """The discrete action of MountainCar-v0 for a planned action [1]: 0 below -1/3, 2 above 1/3, else 1."""
    return int(action[0] > 1 / 3) - int(action[0] < -1 / 3) + 1


def mountain_car_dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """MountainCar-v0 with a planned action in [-1, 1]: left below -1/3, right above 1/3, else no push.

    Args:
        obs: (position, velocity), [..., 2].
        action: [..., 1].

    Returns:
        next_obs, [..., 2].
    """
    push = (action[..., 0] > 1 / 3).to(obs.dtype) - (action[..., 0] < -1 / 3).to(obs.dtype)
    return _drive(obs, 0.001 * push)


def mountain_car_continuous_dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """MountainCarContinuous-v0.

    Args:
        obs: (position, velocity), [..., 2].
        action: [..., 1], clipped to [-1, 1].

    Returns:
        next_obs, [..., 2].
    """
    return _drive(obs, 0.0015 * action[..., 0].clamp(-1.0, 1.0))


def mountain_car_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """MountainCar-v0: -1 for every step, the last one included; NaN for a broken state, [...]."""
    return nan_where_broken(-next_obs.new_ones(next_obs.shape[:-1]), next_obs)


def mountain_car_terminated(next_obs: Tensor) -> Tensor:
    """MountainCar-v0: whether the car is at 0.5 or beyond, not rolling back, bool [...]."""
    return (next_obs[..., 0] >= DISCRETE_GOAL) & (next_obs[..., 1] >= 0)


def mountain_car_continuous_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """MountainCarContinuous-v0: 100 for arriving minus 0.1 action^2; NaN for a broken state, [...]."""
    arrived = mountain_car_continuous_terminated(next_obs).to(next_obs.dtype)
    return nan_where_broken(100.0 * arrived - 0.1 * action[..., 0].square(), next_obs)


def mountain_car_continuous_terminated(next_obs: Tensor) -> Tensor:
    """MountainCarContinuous-v0: whether the car is at 0.45 or beyond, not rolling back, bool [...]."""
    return (next_obs[..., 0] >= CONTINUOUS_GOAL) & (next_obs[..., 1] >= 0)


def draw_mountain_car(ax: Any, obs: Any, goal: float) -> None:
    """Draws the hill, the flag at `goal` and the car of `obs` [2]; an arrow shows its velocity."""
    position, velocity = pictures.as_vector(obs, 2)

    def height(x: Any) -> Any:
        return 0.45 * np.sin(3 * x) + 0.55

    x = np.linspace(MIN_POSITION, MAX_POSITION, 200)
    ax.fill_between(x, -0.1, height(x), color=pictures.LIGHT, zorder=1)
    ax.plot(x, height(x), color=pictures.DARK, linewidth=1.5, zorder=2)
    ax.plot([goal, goal], [height(goal), height(goal) + 0.2], color=pictures.DARK, linewidth=1.5, zorder=2)
    flag = [[goal, height(goal) + 0.2], [goal + 0.1, height(goal) + 0.165], [goal, height(goal) + 0.13]]
    ax.fill(*np.transpose(flag), color=pictures.GREEN, zorder=2)
    slope = math.atan(1.35 * math.cos(3 * position))
    normal, along = (
        np.array([-math.sin(slope), math.cos(slope)]),
        np.array([math.cos(slope), math.sin(slope)]),
    )
    ground = np.array([position, height(position)])
    body = np.stack([ground + 0.07 * normal - 0.04 * along, ground + 0.07 * normal + 0.04 * along])
    pictures.draw_rod(ax, body, pictures.BLUE, width=9)
    for side in (-0.04, 0.04):
        pictures.draw_disc(ax, ground + 0.025 * normal + side * along, 0.025, pictures.DARK)
    if abs(velocity) > 0.01:
        start = ground + 0.15 * normal
        tip = start + 4 * velocity * along
        ax.annotate("", xy=tip, xytext=start, arrowprops={"arrowstyle": "->", "color": pictures.DARK})
    pictures.set_view(ax, (MIN_POSITION, MAX_POSITION + 0.05), (-0.1, 1.3))


def plot_mountain_car(ax: Any, obs: Any) -> None:
    """Draws MountainCar-v0."""
    draw_mountain_car(ax, obs, DISCRETE_GOAL)


def plot_mountain_car_continuous(ax: Any, obs: Any) -> None:
    """Draws MountainCarContinuous-v0."""
    draw_mountain_car(ax, obs, CONTINUOUS_GOAL)


def plot_inverted_pendulum(ax: Any, obs: Any) -> None:
    """Draws the cart and the pole of InvertedPendulum-v5's `obs` [4]."""
    x, angle, _, _ = pictures.as_vector(obs, 4)
    draw_cartpole(ax, x, angle, length=0.6, track=1.0)


def plot_reacher(ax: Any, obs: Any) -> None:
    """Draws the two-joint arm and the target of Reacher-v5's `obs` [10], seen from above."""
    vector = pictures.as_vector(obs, 10)
    first, second = np.arctan2(vector[2:4], vector[0:2])
    elbow = 0.1 * np.array([math.cos(first), math.sin(first)])
    tip = elbow + 0.11 * np.array([math.cos(first + second), math.sin(first + second)])
    pictures.draw_rod(ax, np.stack([np.zeros(2), elbow, tip]), width=9)
    pictures.draw_disc(ax, tip, 0.008, pictures.BLUE)
    pictures.draw_disc(ax, vector[4:6], 0.012, pictures.RED)
    pictures.set_view(ax, (-0.25, 0.25), (-0.25, 0.25))


def hopper_points(positions: Any) -> np.ndarray:
    """Forward kinematics with the lengths of Gymnasium's hopper.xml.

    Args:
        positions: x, z, pitch, thigh, leg and foot angle (m and rad), [6].

    Returns:
        Top of the torso, hip, knee, ankle, heel and toe, (x, z) in m, [6, 2].
    """
    x, z, pitch, thigh, leg, foot = pictures.as_vector(positions, 6)
    torso = np.array([x, z])
    top, hip = torso + pictures.turn((0.0, 0.2), pitch), torso + pictures.turn((0.0, -0.2), pitch)
    knee = hip + pictures.turn((0.0, -0.45), pitch - thigh)
    ankle = knee + pictures.turn((0.0, -0.5), pitch - thigh - leg)
    heel, toe = (
        ankle + pictures.turn(end, pitch - thigh - leg - foot) for end in ((-0.13, 0.0), (0.26, 0.0))
    )
    return np.stack([top, hip, knee, ankle, heel, toe])


def plot_hopper(ax: Any, obs: Any) -> None:
    """Draws the hopper of Hopper-v5's `obs` [12] as a stick figure; the view moves along with it."""
    points = hopper_points(pictures.as_vector(obs, 12)[:6])
    pictures.draw_rod(ax, points[[4, 5]], pictures.GREEN, width=9)
    pictures.draw_rod(ax, points[:4], width=9, zorder=4)
    x = float(points[0, 0])
    pictures.draw_ground(ax, x, 1.0)
    pictures.set_view(ax, (x - 1.0, x + 1.0), (-0.2, 1.8))
    ax.set_xlabel(f"x = {x:.2f} m")


HALF_CHEETAH = Task(
    name="HalfCheetah-v5",
    env_id="HalfCheetah-v5",
    obs_dim=18,
    action_dim=6,
    action_low=-torch.ones(6),
    action_high=torch.ones(6),
    max_steps=1000,
    reward=half_cheetah_reward,
    plot_state=half_cheetah.plot_state,
    env_kwargs={"exclude_current_positions_from_observation": False},
)
HOPPER = Task(
    name="Hopper-v5",
    env_id="Hopper-v5",
    obs_dim=12,
    action_dim=3,
    action_low=-torch.ones(3),
    action_high=torch.ones(3),
    max_steps=1000,
    reward=hopper_reward,
    terminated=hopper_terminated,
    plot_state=plot_hopper,
    env_kwargs={
        "exclude_current_positions_from_observation": False,
        # the default also ends an episode at speeds over 100, which the observation, clipped at 10, hides
        "healthy_state_range": (-math.inf, math.inf),
    },
)
INVERTED_PENDULUM = Task(
    name="InvertedPendulum-v5",
    env_id="InvertedPendulum-v5",
    obs_dim=4,
    action_dim=1,
    action_low=torch.tensor([-3.0]),
    action_high=torch.tensor([3.0]),
    max_steps=1000,
    reward=inverted_pendulum_reward,
    terminated=inverted_pendulum_terminated,
    plot_state=plot_inverted_pendulum,
)
REACHER = Task(
    name="Reacher-v5",
    env_id="Reacher-v5",
    obs_dim=10,
    action_dim=2,
    action_low=-torch.ones(2),
    action_high=torch.ones(2),
    max_steps=50,
    reward=reacher_reward,
    plot_state=plot_reacher,
)
MOUNTAIN_CAR = Task(
    name="MountainCar-v0",
    env_id="MountainCar-v0",
    obs_dim=2,
    action_dim=1,
    action_low=-torch.ones(1),
    action_high=torch.ones(1),
    max_steps=200,
    reward=mountain_car_reward,
    terminated=mountain_car_terminated,
    dynamics=mountain_car_dynamics,
    to_env_action=choose_push,
    plot_state=plot_mountain_car,
)
MOUNTAIN_CAR_CONTINUOUS = Task(
    name="MountainCarContinuous-v0",
    env_id="MountainCarContinuous-v0",
    obs_dim=2,
    action_dim=1,
    action_low=-torch.ones(1),
    action_high=torch.ones(1),
    max_steps=999,
    reward=mountain_car_continuous_reward,
    terminated=mountain_car_continuous_terminated,
    dynamics=mountain_car_continuous_dynamics,
    plot_state=plot_mountain_car_continuous,
)
TASKS = (HALF_CHEETAH, HOPPER, INVERTED_PENDULUM, REACHER, MOUNTAIN_CAR, MOUNTAIN_CAR_CONTINUOUS)
