"""What a plan promises, and what it would bring: the gauge of model exploitation.

A search picks the best of hundreds of plans, as the model sees them. Where the model errs, it errs in the
chosen plan's favour more often than not, so the return that the chosen plan promises lies above the one that
the same actions bring in truth. The gap says how much of a plan's merit is the model's error.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mbrl_course.envs.task import Task
from mbrl_course.mpc import Model, sequence_returns
from mbrl_course.pets import ParticleModel, PETSPlanner


class Promises(NamedTuple):
    """Of each plan of an episode, the mean reward per step over its horizon, [T]."""

    promised: Tensor  # by fresh particles, averaged over them
    obtained: Tensor  # by the same actions in the true dynamics; NaN where a task has none in torch

    def medians(self) -> tuple[float, float]:
        """Over the episode's plans; NaN where there are none."""
        return float(self.promised.nanmedian()), float(self.obtained.nanmedian())


@torch.inference_mode()
def plan_returns(model: Model, obs: Tensor, plans: Tensor) -> Tensor:
    """The return of each plan from a state of its own, followed to its end without a look at the world.

    Args:
        model: a learned model, or a task with known dynamics.
        obs: where each plan begins, [T, D].
        plans: [T, H, A].

    Returns:
        Mean over the members or particles, [T].
    """
    current = obs.expand(model.ensemble_size, -1, -1)  # [E, T, D]
    rewards, ends = [], []
    for actions in plans.unbind(dim=1):  # [T, A]
        current, reward, terminated = model.step(current, actions.expand(model.ensemble_size, -1, -1))
        rewards.append(reward)
        ends.append(terminated)
    return sequence_returns(torch.stack(rewards, dim=-1), torch.stack(ends, dim=-1)).mean(dim=0)  # [T]


class PlanRecorder(PETSPlanner):
    """A planner of PETS that remembers the plans of an episode, and the states that it made them for."""

    def __init__(self, planner: PETSPlanner) -> None:
        """Plans as `planner` does."""
        super().__init__(planner.model, planner.search)
        self.obs: list[Tensor] = []  # [D] each
        self.plans: list[Tensor] = []  # [H, A] each

    def reset(self) -> None:
        """Forgets the plans, and the last one in particular."""
        super().reset()
        self.obs, self.plans = [], []

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] to follow from the state obs [D]."""
        self.obs.append(obs)
        self.plans.append(super().plan(obs))
        return self.plans[-1]

    def promises(self, task: Task, generator: torch.Generator | None = None) -> Promises:
        """What the plans since the last reset promise, and what they would bring.

        The particles are new ones, so that the luck of those that a plan was chosen by does not count. To be
        asked before the model is fitted again.

        Args:
            task: knows the truth.
            generator: source of the particles' noise, another one than the planner's.
        """
        if not self.plans:
            return Promises(torch.full((1,), torch.nan), torch.full((1,), torch.nan))
        obs, plans = torch.stack(self.obs), torch.stack(self.plans)  # [T, D], [T, H, A]
        planned = self.model
        particles = ParticleModel(planned.ensemble, planned.propagation, planned.num_particles, generator)
        particles.member = planned.member
        promised = plan_returns(particles, obs, plans)
        obtained = torch.full_like(promised, torch.nan)
        if task.dynamics is not None:
            obtained = plan_returns(task, obs, plans)
        return Promises(promised / plans.shape[1], obtained / plans.shape[1])
