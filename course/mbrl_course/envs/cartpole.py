"""Cart and pole three times: CartPole-v1, balancing with a continuous force, and swinging up from hanging.

The physics are those of Gymnasium's CartPole (Florian 2007, "Correct equations for the dynamics of the
cart-pole system", equations 23 and 24 without friction): a uniform rod on a cart, angle 0 upright,
positive angles lean to the right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mbrl_course.envs import pictures
from mbrl_course.envs.base import DynamicsEnv, FloatArray
from mbrl_course.envs.task import Task, nan_where_broken

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class CartPole:
    """Physical constants of a cart with a pole; the defaults are those of Gymnasium's CartPole-v1.

    Attributes:
        gravity: m/s^2.
        cart_mass: kg.
        pole_mass: kg, spread evenly over the pole.
        half_length: m, from the hinge to the pole's centre of mass.
        max_force: N, the force of an action of 1.
        dt: s, the time between two states.
    """

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    max_force: float = 10.0
    dt: float = 0.02

    def accelerations(
        self, sin: Number, cos: Number, angular_velocity: Number, force: Number
    ) -> tuple[Number, Number]:
        """Accelerations of cart and pole, for numbers or for tensors.

        Args:
            sin: sine of the pole's angle, [...].
            cos: its cosine, [...].
            angular_velocity: rad/s, [...].
            force: on the cart, N, [...].

        Returns:
            The cart's acceleration (m/s^2) and the pole's angular acceleration (rad/s^2), each [...].
        """
        total_mass = self.cart_mass + self.pole_mass
        moment = self.pole_mass * self.half_length
        push = (force + moment * angular_velocity**2 * sin) / total_mass
        inertia = self.half_length * (4.0 / 3.0 - self.pole_mass * cos**2 / total_mass)
        angular_acceleration = (self.gravity * sin - cos * push) / inertia
        return push - moment * angular_acceleration * cos / total_mass, angular_acceleration


BALANCE = CartPole()
SWINGUP = CartPole(dt=0.04)
"""Gymnasium's cart and pole with twice its step: a horizon of thirty (1.2 s) then holds most of a swing-up.
CEM (500 sequences, 5 iterations) earns about 145 in 200 steps, random shooting with 2500 sequences 115."""

POSITION_LIMIT = 2.4
"""m; balancing ends beyond."""
ANGLE_LIMIT = 12 * 2 * math.pi / 360
"""rad; balancing ends beyond."""


def _balance_step(obs: Tensor, force: Tensor) -> Tensor:
    """One explicit Euler step, as CartPole-v1 takes it: obs [..., 4] and force [...] to next_obs [..., 4]."""
    x, velocity, angle, angular_velocity = obs.unbind(-1)
    acceleration, angular_acceleration = BALANCE.accelerations(
        angle.sin(), angle.cos(), angular_velocity, force
    )
    dt = BALANCE.dt
    return torch.stack(
        [
            x + dt * velocity,
            velocity + dt * acceleration,
            angle + dt * angular_velocity,
            angular_velocity + dt * angular_acceleration,
        ],
        dim=-1,
    )


def cartpole_dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """CartPole-v1's step with a planned action: above 0 pushes right, otherwise left, with 10 N.

    Args:
        obs: (x, x', angle, angle') in m, m/s, rad, rad/s, [..., 4].
        action: [..., 1] in [-1, 1].

    Returns:
        next_obs, [..., 4].
    """
    push_right = action[..., 0] > 0
    return _balance_step(obs, BALANCE.max_force * (2.0 * push_right.to(obs.dtype) - 1.0))


def choose_side(action: Tensor) -> int:
    """The discrete action of CartPole-v1 for a planned action [1]: 1 (right) above 0, else 0 (left)."""
    return int(action[0] > 0)


def balance_dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """One step with a force of 10 N times the action.

    Args:
        obs: (x, x', angle, angle') in m, m/s, rad, rad/s, [..., 4].
        action: [..., 1], clipped to [-1, 1].

    Returns:
        next_obs, [..., 4].
    """
    return _balance_step(obs, BALANCE.max_force * action[..., 0].clamp(-1.0, 1.0))


def balance_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """1 for every step, the one that ends the episode included; NaN for a broken state, [...]."""
    return nan_where_broken(next_obs.new_ones(next_obs.shape[:-1]), next_obs)


def balance_terminated(next_obs: Tensor) -> Tensor:
    """Whether the cart is over 2.4 m from the middle or the pole leans over 12 degrees, bool [...]."""
    return (next_obs[..., 0].abs() > POSITION_LIMIT) | (next_obs[..., 2].abs() > ANGLE_LIMIT)


def swingup_dynamics(obs: Tensor, action: Tensor) -> Tensor:
    """One step of the swing-up: semi-implicit Euler, which keeps a free pendulum's energy bounded.

    Args:
        obs: (x, x', sin, cos, angle') in m, m/s and rad/s, [..., 5].
        action: [..., 1], clipped to [-1, 1]; a force of 10 N times the action.

    Returns:
        next_obs, [..., 5].
    """
    x, velocity, sin, cos, angular_velocity = obs.unbind(-1)
    force = SWINGUP.max_force * action[..., 0].clamp(-1.0, 1.0)
    acceleration, angular_acceleration = SWINGUP.accelerations(sin, cos, angular_velocity, force)
    velocity = velocity + SWINGUP.dt * acceleration
    angular_velocity = angular_velocity + SWINGUP.dt * angular_acceleration
    angle = torch.atan2(sin, cos) + SWINGUP.dt * angular_velocity
    return torch.stack(
        [x + SWINGUP.dt * velocity, velocity, angle.sin(), angle.cos(), angular_velocity], dim=-1
    )


def swingup_reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """The cosine of the pole's angle minus 0.01 x^2, after the step, [...]."""
    return next_obs[..., 3] - 0.01 * next_obs[..., 0] ** 2


def draw_cartpole(
    ax: Any, x: float, angle: float, length: float = 1.0, track: float | None = POSITION_LIMIT
) -> None:
    """Draws a cart at `x` with a pole at `angle` (rad, 0 upright) on a track of ±`track`; lengths in m.

    The view follows a cart that leaves the track. Without one (None) the ground has no end, and the view
    follows a cart that leaves its middle.
    """
    half_view = (track or POSITION_LIMIT) + 0.4 * length
    if track is None:
        center = x - min(max(x, -0.5 * half_view), 0.5 * half_view)
        pictures.draw_ground(ax, center, half_view, height=-0.13 * length)
    else:
        center = x if abs(x) > track else 0.0
        ax.axhline(0.0, color=pictures.LIGHT, linewidth=1, zorder=0)
        ax.plot([-track, track], [0, 0], color=pictures.DARK, linewidth=2, zorder=1)
        ax.plot([-track, track], [0, 0], "|", color=pictures.DARK, markersize=12, zorder=1)
    pictures.draw_box(ax, x - 0.25 * length, -0.13 * length, 0.5 * length, 0.26 * length, pictures.BLUE)
    tip = (x + length * math.sin(angle), length * math.cos(angle))
    pictures.draw_rod(ax, [(x, 0.0), tip])
    pictures.draw_disc(ax, (x, 0.0), 0.05 * length, "white", edgecolor=pictures.DARK)
    pictures.set_view(ax, (center - half_view, center + half_view), (-1.25 * length, 1.25 * length))


def plot_balance(ax: Any, obs: Any) -> None:
    """Draws the cart and the pole of `obs` [4] on the track where balancing goes on."""
    x, _, angle, _ = pictures.as_vector(obs, 4)
    draw_cartpole(ax, x, angle)


def plot_swingup(ax: Any, obs: Any) -> None:
    """Draws the cart and the pole of `obs` [5] on a ground without an end: nothing stops this cart."""
    x, _, sin, cos, _ = pictures.as_vector(obs, 5)
    draw_cartpole(ax, x, math.atan2(sin, cos), track=None)


class CartPoleBalanceEnv(DynamicsEnv):
    """Balancing with a continuous force; starts like CartPole-v1 with all entries in ±0.05."""

    frames_per_second = round(1 / BALANCE.dt)
    picture_size = (5.0, 2.6)

    def __init__(self, render_mode: str | None = None) -> None:
        """`render_mode` is None or "rgb_array"."""
        # as in CartPole-v1 twice the limits; the speeds can't reach 100 within an episode
        high = [2 * POSITION_LIMIT, 100.0, 2 * ANGLE_LIMIT, 100.0]
        super().__init__(
            obs_low=-np.asarray(high),
            obs_high=high,
            action_dim=1,
            dynamics=balance_dynamics,
            reward=balance_reward,
            terminated=balance_terminated,
            plot_state=plot_balance,
            render_mode=render_mode,
        )

    def first_obs(self) -> FloatArray:
        """Near upright, nearly at rest."""
        return self.np_random.uniform(-0.05, 0.05, size=4).astype(np.float32)


class CartPoleSwingUpEnv(DynamicsEnv):
    """The swing-up; starts hanging, all within ±0.05 of rest. No state ends it, only the step limit."""

    frames_per_second = round(1 / SWINGUP.dt)
    picture_size = (5.0, 2.6)

    def __init__(self, render_mode: str | None = None) -> None:
        """`render_mode` is None or "rgb_array"."""
        # 10 N push 1.1 kg to at most 73 m/s and 291 m within eight seconds
        high = [1000.0, 1000.0, 1.0, 1.0, 1000.0]
        super().__init__(
            obs_low=-np.asarray(high),
            obs_high=high,
            action_dim=1,
            dynamics=swingup_dynamics,
            reward=swingup_reward,
            plot_state=plot_swingup,
            render_mode=render_mode,
        )

    def first_obs(self) -> FloatArray:
        """Hanging, nearly at rest."""
        x, velocity, lean, angular_velocity = self.np_random.uniform(-0.05, 0.05, size=4)
        angle = math.pi + lean
        return np.array([x, velocity, math.sin(angle), math.cos(angle), angular_velocity], dtype=np.float32)

    def next_obs(self, obs: FloatArray, action: FloatArray) -> FloatArray:
        """`swingup_dynamics` of a single state, in plain numbers, which are faster than small tensors."""
        x, velocity, sin, cos, angular_velocity = obs.tolist()
        force = SWINGUP.max_force * float(action[0])
        acceleration, angular_acceleration = SWINGUP.accelerations(sin, cos, angular_velocity, force)
        velocity += SWINGUP.dt * acceleration
        angular_velocity += SWINGUP.dt * angular_acceleration
        angle = math.atan2(sin, cos) + SWINGUP.dt * angular_velocity
        x += SWINGUP.dt * velocity
        return np.array([x, velocity, math.sin(angle), math.cos(angle), angular_velocity], dtype=np.float32)


CARTPOLE = Task(
    name="cartpole",
    env_id="CartPole-v1",
    obs_dim=4,
    action_dim=1,
    action_low=-torch.ones(1),
    action_high=torch.ones(1),
    max_steps=500,
    reward=balance_reward,
    terminated=balance_terminated,
    dynamics=cartpole_dynamics,
    to_env_action=choose_side,
    plot_state=plot_balance,
)
CARTPOLE_BALANCE = Task(
    name="cartpole-balance",
    env_id="mbrl/CartPoleBalance-v0",
    obs_dim=4,
    action_dim=1,
    action_low=-torch.ones(1),
    action_high=torch.ones(1),
    max_steps=200,
    reward=balance_reward,
    terminated=balance_terminated,
    dynamics=balance_dynamics,
    plot_state=plot_balance,
)
CARTPOLE_SWINGUP = Task(
    name="cartpole-swingup",
    env_id="mbrl/CartPoleSwingUp-v0",
    obs_dim=5,
    action_dim=1,
    action_low=-torch.ones(1),
    action_high=torch.ones(1),
    max_steps=200,
    reward=swingup_reward,
    dynamics=swingup_dynamics,
    plot_state=plot_swingup,
)
