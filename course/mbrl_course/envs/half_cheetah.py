"""The half-cheetah as CS285's model-based homework poses it, on Gymnasium's own half_cheetah model.

One simulation step per action (0.01 s), the position in the observation, and a reward that can be computed
from the observation alone. The published results of the homework are for this task, not for HalfCheetah-v5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl_course.envs import pictures
from mbrl_course.envs.base import FloatArray, SimulatedEnv
from mbrl_course.envs.task import Task

NUM_POSITIONS = 9
FORWARD_VELOCITY, FRONT_THIGH, FRONT_SHIN, FRONT_FOOT = 9, 6, 7, 8
"""Places of these quantities in an observation (m/s and rad)."""


def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Forward velocity after the step, minus 10 for each front joint that is bent too far forward.

    Without the penalties the cheetah learns to slide on its head. From CS285's model-based homework.

    Args:
        obs: not used, [..., 21].
        action: not used, [..., 6].
        next_obs: [..., 21].

    Returns:
        next_obs[9] - 10 (next_obs[6] > 0.2) - 10 (next_obs[7] > 0) - 10 (next_obs[8] > 0), [...].
    """
    bent = (
        (next_obs[..., FRONT_THIGH] > 0.2).to(next_obs.dtype)
        + (next_obs[..., FRONT_SHIN] > 0.0)
        + (next_obs[..., FRONT_FOOT] > 0.0)
    )
    return next_obs[..., FORWARD_VELOCITY] - 10.0 * bent


def load_model() -> Any:
    """Gymnasium's half_cheetah as a `mujoco.MjModel`."""
    import mujoco

    assets = Path(gym.__file__).parent / "envs" / "mujoco" / "assets"
    return mujoco.MjModel.from_xml_path(str(assets / "half_cheetah.xml"))


def limb_points(positions: Any) -> dict[str, NDArray[np.float64]]:
    """Forward kinematics in the cheetah's plane, with the lengths of Gymnasium's half_cheetah.xml.

    Args:
        positions: x, z, pitch of the torso, then back thigh, shin, foot and front thigh, shin, foot
            (m and rad), [9].

    Returns:
        Points (x, z) in m: "torso" [2, 2], "head" [2, 2], "back" and "front" [4, 2] from hip to toe.
    """
    x, z, pitch, *joints = pictures.as_vector(positions, NUM_POSITIONS)
    root = np.array([x, 0.7 + z])

    def leg(
        hip: tuple[float, float], bones: list[tuple[float, float]], angles: list[float]
    ) -> NDArray[np.float64]:
        points, angle = [root + pictures.turn(hip, pitch)], pitch
        for bone, joint in zip(bones, angles, strict=True):
            angle += joint
            points.append(points[-1] + pictures.turn(bone, angle))
        return np.stack(points)  # [4, 2]

    return {
        "torso": np.stack([root + pictures.turn(end, pitch) for end in ((-0.5, 0.0), (0.5, 0.0))]),
        "head": np.stack([root + pictures.turn(end, pitch) for end in ((0.485, 0.003), (0.715, 0.197))]),
        "back": leg((-0.5, 0.0), [(0.16, -0.25), (-0.28, -0.14), (0.055, -0.188)], joints[:3]),
        "front": leg((0.5, 0.0), [(-0.14, -0.24), (0.13, -0.18), (0.085, -0.128)], joints[3:]),
    }


def plot_state(ax: Any, obs: Any) -> None:
    """Draws the cheetah of an observation that begins with its nine positions, as a stick figure.

    The view moves along with the torso; the marks on the ground are half a metre apart.
    """
    positions = np.asarray(obs, dtype=np.float64)[:NUM_POSITIONS]
    points = limb_points(positions)
    pictures.draw_rod(ax, points["back"], pictures.BLUE, width=7)
    pictures.draw_rod(ax, points["front"], pictures.GREEN, width=7)
    pictures.draw_rod(ax, points["torso"], pictures.ORANGE, width=10, zorder=4)
    pictures.draw_rod(ax, points["head"], pictures.ORANGE, width=10, zorder=4)
    pictures.draw_ground(ax, positions[0], 1.5)
    top = max(1.6, positions[1] + 1.6)
    pictures.set_view(ax, (positions[0] - 1.5, positions[0] + 1.5), (top - 1.8, top))
    ax.set_xlabel(f"x = {positions[0]:.2f} m")


class HalfCheetahEnv(SimulatedEnv):
    """CS285's half-cheetah as a Gymnasium environment.

    Observation: 9 positions, 9 velocities, and the torso's centre of mass (x, y, z), all of the
    state after the step. Starts in the model's rest position with uniform noise of ±0.1 on the positions and
    normal noise of 0.1 on the velocities.
    """

    frames_per_second = 100
    picture_size = (5.0, 3.2)

    def __init__(self, render_mode: str | None = None) -> None:
        """`render_mode` is None or "rgb_array"."""
        # wide enough for every motion of an episode: 5 s long, speeds below 100 m/s or rad/s
        high = np.full(21, 1000.0)
        super().__init__(
            load_model=load_model,
            frame_skip=1,
            obs_low=-high,
            obs_high=high,
            action_dim=6,
            reward=reward,
            plot_state=plot_state,
            render_mode=render_mode,
        )

    def draw_state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The model's rest position with noise."""
        positions = self.model.qpos0 + self.np_random.uniform(-0.1, 0.1, size=self.model.nq)
        return positions, 0.1 * self.np_random.standard_normal(self.model.nv)

    def observe(self) -> FloatArray:
        """Positions, velocities, centre of mass of the torso, [21]."""
        center = self.data.body("torso").xipos
        return np.concatenate([self.data.qpos, self.data.qvel, center]).astype(np.float32)


TASK = Task(
    name="cheetah",
    env_id="mbrl/HalfCheetah-v0",
    obs_dim=21,
    action_dim=6,
    action_low=-torch.ones(6),
    action_high=torch.ones(6),
    max_steps=500,
    reward=reward,
    plot_state=plot_state,
)
