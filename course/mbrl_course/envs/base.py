"""What the course's own environments share.

Their state is the observation itself, kept in float32. An environment steps with the very functions that
a planner uses in batches, so the two can't disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mbrl_course.envs.pictures import picture_to_array
from mbrl_course.envs.task import DynamicsFunction, RewardFunction, TerminationFunction, never_terminates

FloatArray = NDArray[np.float32]


class CourseEnv(gym.Env[FloatArray, FloatArray]):
    """An environment with observations [D] in float32 and actions in [-1, 1]^A.

    A subclass says how an episode starts (`first_obs`) and what an action does (`next_obs`). The step limit
    comes from the environment's registration.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as gymnasium.Env has it)
    frames_per_second: int = 20
    picture_size: tuple[float, float] = (4.0, 4.0)

    def __init__(
        self,
        *,
        obs_low: ArrayLike,
        obs_high: ArrayLike,
        action_dim: int,
        reward: RewardFunction,
        terminated: TerminationFunction = never_terminates,
        plot_state: Callable[[Any, Any], None],
        render_mode: str | None = None,
    ) -> None:
        """Sets up spaces and functions.

        Args:
            obs_low: lowest observation, [D].
            obs_high: highest observation, [D].
            action_dim: A.
            reward: the task's batched reward.
            terminated: the task's batched end of an episode.
            plot_state: the task's picture, for `render_mode="rgb_array"`.
            render_mode: None or "rgb_array".

        Raises:
            ValueError: `render_mode` is neither of these.
        """
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}, expected None or 'rgb_array'")
        low, high = np.asarray(obs_low, dtype=np.float32), np.asarray(obs_high, dtype=np.float32)
        self.action_dim = action_dim
        self.observation_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, shape=(action_dim,), dtype=np.float32)
        self.reward_function = reward
        self.terminated_function = terminated
        self.plot_state = plot_state
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": self.frames_per_second}
        self.obs: FloatArray | None = None

    def first_obs(self) -> FloatArray:
        """Draws the first observation of an episode, [D], with `self.np_random`."""
        raise NotImplementedError

    def next_obs(self, obs: FloatArray, action: FloatArray) -> FloatArray:
        """The observation [D] after `action` [A], whose entries are within [-1, 1]."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Starts an episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self.obs = self.first_obs().astype(np.float32)
        return self.obs.copy(), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Advances by one step; entries of the action beyond [-1, 1] are clipped.

        Args:
            action: [A].

        Returns:
            next_obs [D], reward, terminated, truncated (always False: the registration limits the steps)
            and an empty info.

        Raises:
            ValueError: the action has another shape than [A].
            RuntimeError: there was no `reset` yet.
        """
        if self.obs is None:
            raise RuntimeError("step was called before reset")
        action = np.asarray(action, dtype=np.float32)
        if action.shape != (self.action_dim,):
            raise ValueError(f"action has shape {list(action.shape)}, expected [{self.action_dim}]")
        action = action.clip(-1.0, 1.0)
        before = torch.from_numpy(self.obs)
        self.obs = self.next_obs(self.obs, action).astype(np.float32)
        after = torch.from_numpy(self.obs)
        reward = float(self.reward_function(before, torch.from_numpy(action), after))
        return self.obs.copy(), reward, bool(self.terminated_function(after)), False, {}

    def render(self) -> NDArray[np.uint8] | None:
        """The picture of the current state, uint8 [height, width, 3]; None without a render mode."""
        if self.render_mode is None or self.obs is None:
            return None
        return picture_to_array(self.plot_state, self.obs, self.picture_size)


class DynamicsEnv(CourseEnv):
    """A course environment whose dynamics are a function of tensors."""

    def __init__(self, *, dynamics: DynamicsFunction, **kwargs: Any) -> None:
        """Sets up the environment.

        Args:
            dynamics: the task's batched true dynamics.
            kwargs: as for `CourseEnv`.
        """
        super().__init__(**kwargs)
        self.dynamics = dynamics

    def next_obs(self, obs: FloatArray, action: FloatArray) -> FloatArray:
        """One step of the dynamics."""
        return self.dynamics(torch.from_numpy(obs), torch.from_numpy(action)).numpy()


class SimulatedEnv(CourseEnv):
    """A course environment that MuJoCo simulates; MuJoCo is imported when the first one is made."""

    def __init__(self, *, load_model: Callable[[], Any], frame_skip: int, **kwargs: Any) -> None:
        """Loads the model.

        Args:
            load_model: makes the `mujoco.MjModel`.
            frame_skip: simulation steps per environment step.
            kwargs: as for `CourseEnv`.
        """
        super().__init__(**kwargs)
        import mujoco

        self.mujoco = mujoco
        self.model = load_model()
        self.data = mujoco.MjData(self.model)
        self.frame_skip = frame_skip

    def draw_state(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draws the first positions [nq] and velocities [nv] of an episode with `self.np_random`."""
        raise NotImplementedError

    def observe(self) -> FloatArray:
        """The observation [D] of the simulation's present state."""
        raise NotImplementedError

    def first_obs(self) -> FloatArray:
        """Puts the simulation into a first state and observes it."""
        self.mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self.draw_state()
        self.mujoco.mj_forward(self.model, self.data)
        return self.observe()

    def next_obs(self, obs: FloatArray, action: FloatArray) -> FloatArray:
        """Simulates `frame_skip` steps with the action as controls."""
        self.data.ctrl[:] = action
        self.mujoco.mj_step(self.model, self.data, nstep=self.frame_skip)
        # mj_step moves the joints last: without this, body positions would lag one simulation step behind
        self.mujoco.mj_kinematics(self.model, self.data)
        return self.observe()
