"""An environment that can be put back into the middle of an episode, by living through it again.

Gymnasium's environments can't be saved as such. But their episodes follow from a seed and the actions: both
are small, and taking the same actions again leads to the same state, wherever all chance is the seed's.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mbrl_course.seeding import independent_seeds


class ResumableEnv(gym.Wrapper):
    """Remembers the seed and the actions of the present episode; each episode has a seed of its own.

    Attributes:
        seed: of the first episode; the seeds of the others follow from it and their number.
        episode: number of the present episode, from 0.
        actions: what was done in it so far.
    """

    def __init__(self, env: gym.Env) -> None:
        """Wraps an environment; the first `reset` needs a seed."""
        super().__init__(env)
        self.seed: int | None = None
        self.episode = 0
        self.actions: list[Any] = []
        self.obs: Any = None  # the latest

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        """Begins the next episode, or the first one of `seed`.

        Raises:
            ValueError: there was no seed yet.
        """
        if seed is not None:
            self.seed, self.episode = seed, 0
        elif self.seed is None:
            raise ValueError("seed is None, expected a number at the first reset")
        else:
            self.episode += 1
        self.actions = []
        self.obs, info = self.env.reset(seed=self._episode_seed(), options=options)
        return self.obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; the action is remembered."""
        self.actions.append(np.array(action))
        self.obs, reward, terminated, truncated, info = self.env.step(action)
        return self.obs, reward, terminated, truncated, info

    def _episode_seed(self) -> int:
        assert self.seed is not None
        return independent_seeds([self.seed, self.episode], 1)[0]

    def state_dict(self) -> dict[str, Any]:
        """Seed, episode, its actions as a tensor [T, ...], and the observation that they led to."""
        actions = torch.from_numpy(np.stack(self.actions)) if self.actions else torch.zeros(0)
        obs = None if self.obs is None else torch.tensor(np.asarray(self.obs))
        return {"seed": self.seed, "episode": self.episode, "actions": actions, "obs": obs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was called, by repeating the episode up to there.

        Raises:
            ValueError: that leads to another state.
        """
        self.seed, self.episode = state["seed"], state["episode"]
        self.actions = []
        self.obs, _ = self.env.reset(seed=self._episode_seed())
        for action in state["actions"].numpy():
            self.step(action)
        saved = state.get("obs")
        # not to the last digit: it may have been another machine
        if saved is not None and not np.allclose(
            self.obs, saved.numpy(), rtol=1e-3, atol=1e-3, equal_nan=True
        ):
            got = f"the same seed and actions lead to the observation {np.asarray(self.obs).tolist()}"
            why = "does the environment draw from a source that reset(seed=...) does not seed?"
            raise ValueError(f"{got}, expected {saved.tolist()}: {why}")
