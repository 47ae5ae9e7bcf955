"""An environment that can be put back into the middle of an episode, by living through it again.

Gymnasium's environments can't be saved as such. But their episodes follow from a seed and the actions: both
are small, and taking the same actions again leads to the same state, wherever all chance is the seed's.
"""

from __future__ import annotations

import copy
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
        first_obs: what it began with, and what the first action led to.

    What it returns are copies: an environment may go on in the array that it returned.
    """

    def __init__(self, env: gym.Env) -> None:
        """Wraps an environment; the first `reset` needs a seed."""
        super().__init__(env)
        self.seed: int | None = None
        self.episode = 0
        self.actions: list[Any] = []
        self.first_obs: list[Any] = []

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
        return self._begin(options)

    def _begin(self, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        obs, info = self.env.reset(seed=self._episode_seed(), options=options)
        obs = copy.deepcopy(obs)
        self.actions, self.first_obs = [], [obs]
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; the action is remembered."""
        self.actions.append(np.array(action))
        obs, reward, terminated, truncated, info = self.env.step(action)
        obs = copy.deepcopy(obs)
        if len(self.first_obs) < 2:
            self.first_obs.append(obs)
        return obs, reward, terminated, truncated, info

    def _episode_seed(self) -> int:
        assert self.seed is not None
        return independent_seeds([self.seed, self.episode], 1)[0]

    def state_dict(self) -> dict[str, Any]:
        """Seed, episode, its actions as a tensor [T, ...], and its first observations, if they are arrays."""
        actions = torch.from_numpy(np.stack(self.actions)) if self.actions else torch.zeros(0)
        first = [torch.tensor(obs) for obs in self.first_obs if isinstance(obs, np.ndarray)]
        return {"seed": self.seed, "episode": self.episode, "actions": actions, "first_obs": first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where `state_dict` was called, by repeating the episode up to there.

        Raises:
            ValueError: the episode begins in another way, so that it will not lead there.
        """
        self.seed, self.episode = state["seed"], state["episode"]
        self._begin()
        for action in state["actions"].numpy():
            self.step(action)
        # the first ones only, and not to the last digit: on another machine chaos makes much of the last one
        for obs, saved in zip(self.first_obs, state.get("first_obs", []), strict=False):
            if not np.allclose(obs, saved.numpy(), rtol=1e-3, atol=1e-3, equal_nan=True):
                got = f"the same seed and actions lead to the observation {obs.tolist()}"
                why = "does the environment draw from a source that reset(seed=...) does not seed?"
                raise ValueError(f"{got}, expected {saved.tolist()}: {why}")
