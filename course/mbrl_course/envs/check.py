"""Does a task say the same as its environment? The check to run on a task of one's own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from mbrl_course.envs.task import Task, observed


def check_task(task: Task, num_steps: int = 500, seed: int = 0, tolerance: float = 1e-3) -> None:
    """Steps through a task's environment at random, and compares what its functions say of each transition.

    Args:
        task: the task.
        num_steps: real steps.
        seed: of environment and actions.
        tolerance: relative and absolute, of rewards and states: environments often know their state to more
            digits than they show.

    Raises:
        ValueError: the first thing that differs, with what the task says and what the environment does.
    """
    generator = torch.Generator().manual_seed(seed)
    env = task.make_env()
    try:
        obs = _observed(task, env.reset(seed=seed)[0], 0)
        steps = 0  # of this episode
        for step in range(1, num_steps + 1):
            action = task.action_low + (task.action_high - task.action_low) * torch.rand(
                task.action_dim, generator=generator
            )
            env_action = _allowed(task, env, action)
            after, reward, terminated, truncated, _ = env.step(env_action)
            next_obs = _observed(task, after, step)
            steps += 1
            _compare("reward", task.reward(obs, action, next_obs), float(reward), step, tolerance)
            _compare("terminated", task.terminated(next_obs), bool(terminated), step, 0.0)
            if task.dynamics is not None:
                _compare("dynamics", task.dynamics(obs, action), next_obs, step, tolerance)
            if truncated and steps < task.max_steps and not terminated:
                raise ValueError(
                    f"the environment cut an episode off after {steps} steps, max_steps is {task.max_steps}"
                )
            obs = next_obs
            if terminated or truncated:
                obs, steps = _observed(task, env.reset()[0], step), 0
    finally:
        env.close()


def _observed(task: Task, obs: Any, step: int) -> Tensor:
    tensor = observed(obs)
    if tensor.shape != (task.obs_dim,) or not bool(tensor.isfinite().all()):
        what = f"after {step} steps the environment's observation is {tensor.tolist()}"
        raise ValueError(f"{what}, expected {task.obs_dim} finite numbers, the task's obs_dim")
    return tensor


def _allowed(task: Task, env: gym.Env, action: Tensor) -> Any:
    env_action = task.to_env_action(action)
    if not env.action_space.contains(env_action):
        what = f"to_env_action turns {action.tolist()} into {env_action!r}"
        raise ValueError(f"{what}, expected an action in the environment's {env.action_space}")
    return env_action


def _compare(name: str, says: Tensor, does: Any, step: int, tolerance: float) -> None:
    if not torch.allclose(says.double(), torch.as_tensor(does).double(), rtol=tolerance, atol=tolerance):
        expected = does.tolist() if isinstance(does, Tensor) else does
        raise ValueError(f"step {step}: the task's {name} is {says.tolist()}, the environment's {expected}")
