"""The course's tasks: `get_task("obstacles")` gives one, `list_tasks()` names them all.

Importing this package registers the course's own environments with Gymnasium, under `mbrl/`.
"""

from __future__ import annotations

import gymnasium as gym

from mbrl_course.envs import cartpole, gymnasium_tasks, half_cheetah, obstacles, pendulum, reacher
from mbrl_course.envs.check import check_task
from mbrl_course.envs.task import (
    DynamicsFunction,
    RewardFunction,
    Task,
    TerminationFunction,
    box_action,
    never_terminates,
)

__all__ = [
    "DynamicsFunction",
    "RewardFunction",
    "Task",
    "TerminationFunction",
    "box_action",
    "check_task",
    "get_task",
    "list_tasks",
    "never_terminates",
]

_TASKS = (
    obstacles.TASK,
    cartpole.CARTPOLE,
    cartpole.CARTPOLE_BALANCE,
    cartpole.CARTPOLE_SWINGUP,
    pendulum.TASK,
    half_cheetah.TASK,
    reacher.TASK,
    *gymnasium_tasks.TASKS,
)
_OWN_ENVS = (
    (obstacles.TASK, "obstacles:ObstaclesEnv"),
    (cartpole.CARTPOLE_BALANCE, "cartpole:CartPoleBalanceEnv"),
    (cartpole.CARTPOLE_SWINGUP, "cartpole:CartPoleSwingUpEnv"),
    (half_cheetah.TASK, "half_cheetah:HalfCheetahEnv"),
    (reacher.TASK, "reacher:Reacher7Env"),
)


def list_tasks() -> list[str]:
    """The names of all tasks, the course's own first."""
    return [task.name for task in _TASKS]


def get_task(name: str) -> Task:
    """The task of that name.

    Args:
        name: a name of `list_tasks()`, or the id of the task's Gymnasium environment; case does not matter.

    Raises:
        ValueError: there is no such task; the message lists those there are.
    """
    for task in _TASKS:
        if name.lower() in (task.name.lower(), task.env_id.lower()):
            return task
    raise ValueError(f"unknown task {name!r}, expected one of {', '.join(list_tasks())}")


for _task, _env_class in _OWN_ENVS:
    if _task.env_id not in gym.registry:
        gym.register(_task.env_id, f"{__name__}.{_env_class}", max_episode_steps=_task.max_steps)
