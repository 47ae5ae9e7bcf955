"""A seven-joint arm that reaches for a point in space.

The arm is the course's own: one table gives its joints, and from this table come both the MuJoCo model and
the forward kinematics, so the picture and the simulation can't disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl_course.envs import pictures
from mbrl_course.envs.base import FloatArray, SimulatedEnv
from mbrl_course.envs.task import Task


@dataclass(frozen=True)
class Joint:
    """A hinge and the link behind it.

    Attributes:
        name: what the joint does.
        axis: the axis it turns about, in the frame of the link before it: "x", "y" or "z".
        link: from this joint to the next one (the last: to the fingertip), in the joint's frame, m.
        limit: rad, how far it turns to either side.
        torque: N m, of an action of 1.
    """

    name: str
    axis: str
    link: tuple[float, float, float]
    limit: float
    torque: float


ARM = (
    Joint("shoulder_pan", "z", (0.10, 0.0, 0.0), 2.3, 8.0),
    Joint("shoulder_lift", "y", (0.10, 0.0, 0.0), 1.5, 8.0),
    Joint("upper_arm_roll", "x", (0.30, 0.0, 0.0), 2.5, 4.0),
    Joint("elbow_flex", "y", (0.10, 0.0, 0.0), 2.2, 4.0),
    Joint("forearm_roll", "x", (0.22, 0.0, 0.0), 2.8, 1.0),
    Joint("wrist_flex", "y", (0.06, 0.0, 0.0), 2.0, 1.0),
    Joint("wrist_roll", "x", (0.11, 0.0, 0.05), 2.8, 0.5),
)
"""Stretched out along x the arm is about a metre long; the bent finger lets the last roll move its tip."""
NUM_JOINTS = len(ARM)
REST = (0.0, -0.4, 0.0, 1.2, 0.0, 0.4, 0.0)
"""rad; episodes start near this bent pose."""
TARGET_LOW, TARGET_HIGH = (0.3, -0.5, -0.35), (0.65, 0.5, 0.35)
"""m; targets are drawn uniformly from this box in front of the arm, all of it within reach."""
VELOCITY_SCALE = 10.0
FINGERTIP, TARGET = slice(14, 17), slice(17, 20)
"""Where an observation has these points (x, y, z in m)."""


def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Minus ten times the distance (m) between fingertip and target after the step, [...]."""
    return -10.0 * torch.linalg.vector_norm(next_obs[..., FINGERTIP] - next_obs[..., TARGET], dim=-1)


def model_xml() -> str:
    """The arm in MuJoCo's XML: links as capsules, no gravity (as if compensated), no collisions."""
    bodies, closing = "", ""
    place = (0.0, 0.0, 0.0)
    for joint in ARM:
        axis = " ".join("1" if joint.axis == name else "0" for name in "xyz")
        end = " ".join(map(str, joint.link))
        bodies += (
            f'<body name="{joint.name}" pos="{" ".join(map(str, place))}">'
            f'<joint name="{joint.name}" axis="{axis}" range="{-joint.limit} {joint.limit}"'
            f' damping="{0.15 * joint.torque}"/>'
            f'<geom type="capsule" fromto="0 0 0 {end}" size="0.03"/>'
        )
        closing += "</body>"
        place = joint.link
    motors = "".join(f'<motor joint="{joint.name}" gear="{joint.torque}"/>' for joint in ARM)
    return (
        '<mujoco model="reacher7"><compiler angle="radian"/>'
        '<option timestep="0.01" gravity="0 0 0"/>'
        '<default><joint type="hinge" limited="true" armature="0.02"/>'
        '<geom contype="0" conaffinity="0" density="500"/>'
        '<motor ctrllimited="true" ctrlrange="-1 1"/></default>'
        f'<worldbody>{bodies}<site name="fingertip" pos="{" ".join(map(str, place))}" size="0.02"/>{closing}'
        f"</worldbody><actuator>{motors}</actuator></mujoco>"
    )


def load_model() -> Any:
    """The arm as a `mujoco.MjModel`."""
    import mujoco

    return mujoco.MjModel.from_xml_string(model_xml())


def rotation(axis: str, angle: Tensor) -> Tensor:
    """Rotation matrices about a coordinate axis, [..., 3, 3], for angles [...] in rad."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = torch.eye(3, dtype=angle.dtype).repeat(*angle.shape, 1, 1)  # [..., 3, 3]
    matrix[..., first, first] = matrix[..., second, second] = angle.cos()
    matrix[..., second, first] = angle.sin()
    matrix[..., first, second] = -angle.sin()
    return matrix


def arm_points(angles: Tensor) -> Tensor:
    """Forward kinematics: where the joints and the fingertip are.

    Args:
        angles: joint angles in rad, [..., 7].

    Returns:
        The seven joints and the fingertip, (x, y, z) in m, [..., 8, 3].
    """
    point = angles.new_zeros(*angles.shape[:-1], 3)
    turned = torch.eye(3, dtype=angles.dtype).expand(*angles.shape[:-1], 3, 3)
    points = [point]
    for index, joint in enumerate(ARM):
        turned = turned @ rotation(joint.axis, angles[..., index])
        point = point + turned @ angles.new_tensor(joint.link)
        points.append(point)
    return torch.stack(points, dim=-2)  # [..., 8, 3]


def plot_state(ax: Any, obs: Any) -> None:
    """Draws arm and target of `obs` [20], seen obliquely from above, with their shadows on the floor."""
    vector = pictures.as_vector(obs, 20)
    points = arm_points(torch.from_numpy(vector[:NUM_JOINTS])).numpy()
    target = vector[TARGET]
    turn, tilt, floor = np.deg2rad(-50.0), np.deg2rad(25.0), -0.8

    def project(xyz: Any) -> NDArray[np.float64]:
        x, y, z = np.moveaxis(np.asarray(xyz, dtype=np.float64), -1, 0)
        right, away = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
        return np.stack([right, np.cos(tilt) * z - np.sin(tilt) * away], axis=-1)

    def shadow(xyz: Any) -> NDArray[np.float64]:
        return project(np.asarray(xyz) * [1.0, 1.0, 0.0] + [0.0, 0.0, floor])

    corners = np.array([[-0.4, -0.9, 0], [1.0, -0.9, 0], [1.0, 0.9, 0], [-0.4, 0.9, 0]])
    ax.fill(*shadow(corners).T, color="#f2f2f2", zorder=0)
    pictures.draw_rod(
        ax, [shadow([0.0, 0.0, 0.0]), project([0.0, 0.0, 0.0])], pictures.DARK, width=9, zorder=2
    )
    pictures.draw_rod(ax, shadow(points), pictures.LIGHT, width=5, zorder=1)
    pictures.draw_rod(ax, project(points), pictures.ORANGE, width=8)
    tip = project(points[-1])
    ax.plot(*np.stack([tip, project(target)]).T, ":", color=pictures.RED, linewidth=1.5, zorder=3.5)
    pictures.draw_disc(ax, shadow(target), 0.025, pictures.LIGHT, zorder=1)
    pictures.draw_disc(ax, project(target), 0.035, pictures.RED)
    pictures.draw_disc(ax, tip, 0.025, pictures.BLUE)
    pictures.set_view(ax, (-1.05, 1.45), (-1.5, 0.75))


class Reacher7Env(SimulatedEnv):
    """The arm as a Gymnasium environment.

    Observation: 7 angles (rad), 7 velocities / 10 (rad/s), fingertip and target (x, y, z in m), of the state
    after the step. Starts near a bent pose at rest, with a random target.
    """

    frames_per_second = 50

    def __init__(self, render_mode: str | None = None) -> None:
        """`render_mode` is None or "rgb_array"."""
        # joint limits are soft, hence a margin; motors and damping keep speeds below 20 rad/s
        limits = [joint.limit + 1.0 for joint in ARM]
        high = limits + [10.0] * NUM_JOINTS + [2.0] * 6
        super().__init__(
            load_model=load_model,
            frame_skip=2,
            obs_low=-np.asarray(high),
            obs_high=high,
            action_dim=NUM_JOINTS,
            reward=reward,
            plot_state=plot_state,
            render_mode=render_mode,
        )
        self.target = np.zeros(3)

    def draw_state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The bent pose with noise, at rest; draws the target, too."""
        self.target = self.np_random.uniform(TARGET_LOW, TARGET_HIGH)
        return np.asarray(REST) + self.np_random.uniform(-0.1, 0.1, size=NUM_JOINTS), np.zeros(NUM_JOINTS)

    def observe(self) -> FloatArray:
        """Angles, scaled velocities, fingertip, target, [20]."""
        fingertip = self.data.site("fingertip").xpos
        velocities = self.data.qvel / VELOCITY_SCALE
        return np.concatenate([self.data.qpos, velocities, fingertip, self.target]).astype(np.float32)


TASK = Task(
    name="reacher7",
    env_id="mbrl/Reacher7-v0",
    obs_dim=20,
    action_dim=7,
    action_low=-torch.ones(7),
    action_high=torch.ones(7),
    max_steps=200,
    reward=reward,
    plot_state=plot_state,
)
