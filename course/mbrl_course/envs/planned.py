"""A task's environment as policies see it that choose planned actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mbrl_course.envs.task import Task


class PlannedActions(gym.ActionWrapper):
    """A task's environment; where its actions are continuous, it takes planned ones within their bounds."""

    def __init__(self, task: Task) -> None:
        """A fresh environment of `task`.

        Raises:
            ValueError: its continuous actions leave out 0, where policies begin.
        """
        super().__init__(task.make_env())
        self.task = task
        self.continuous = isinstance(self.env.action_space, gym.spaces.Box)
        if self.continuous:
            low, high = task.action_low.numpy(), task.action_high.numpy()
            if (low > 0).any() or (high < 0).any():
                got = f"task {task.name!r} plans in {low.tolist()} to {high.tolist()}"
                what = "choose such units, and translate them in to_env_action"
                raise ValueError(f"{got}, expected bounds around 0, where policies begin: {what}")
            self.action_space = gym.spaces.Box(low, high, dtype=np.float32)

    def action(self, action: Any) -> Any:
        """A planned action [A], or the number of a discrete one, as the environment takes it."""
        return self.task.to_env_action(torch.tensor(action)) if self.continuous else action
