"""Week 8, the clinic: ten quick wins that an engineer's report claims for PETS and MBPO, one by one.

Every claim is one change of one setting, compared with the same agent without it. Both agents learn in small
settings, so that ten seeds of all variants take an evening: what is compared is how fast they learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.experiments.comparison import ComparisonConfig, run_comparison
from mbrl_course.experiments.runner import Experiment, Run
from mbrl_course.experiments.solved import SOLVED_AT
from mbrl_course.experiments.variants import each_variant, ledger, scales
from mbrl_course.experiments.verdicts import verdict_table
from mbrl_course.experiments.week05 import PETSTrialsConfig, run_trials
from mbrl_course.experiments.week07 import SMOKE, MBPORunConfig, check_devices, train_mbpo

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.experiments.promises import PlanRecorder
    from mbrl_course.pets import Trial

Shaping = Literal["none", "naive", "potential"]


@dataclass(frozen=True)
class ClinicPETSConfig(PETSTrialsConfig):
    """PETS, and what the report would change in it.

    Attributes:
        shaping: how rewards are shaped by `energy_potential`, see `clinic.shaped_task`.
        shaping_scale: what the potential is multiplied by, in units of reward.
    """

    shaping: Shaping = "none"
    shaping_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what `PETSTrialsConfig` does, and a potential that is infinite, or that the task lacks."""
        super().__post_init__()
        _check_shaping(self)


@dataclass(frozen=True)
class ClinicMBPOConfig(MBPORunConfig):
    """MBPO, and what the report would change in it.

    Attributes:
        shaping: how rewards are shaped by `energy_potential`, see `clinic.shaped_task`.
        shaping_scale: what the potential is multiplied by, in units of reward.
    """

    shaping: Shaping = "none"
    shaping_scale: float = 5.0

    def __post_init__(self) -> None:
        """Refuses what `MBPORunConfig` does, and a potential that is infinite, or that the task lacks."""
        super().__post_init__()
        _check_shaping(self)


def _check_shaping(config: ClinicPETSConfig | ClinicMBPOConfig) -> None:
    if not math.isfinite(config.shaping_scale):
        raise ValueError(f"shaping_scale is {config.shaping_scale}, expected a finite number")
    if config.shaping != "none" and get_task(config.task).name not in _SWINGS:
        expected = f"a task with a potential: {', '.join(_SWINGS)}"
        raise ValueError(f"task is {config.task!r} and shaping {config.shaping!r}, expected {expected}")


_SWINGS = {"pendulum": (0, 2, 15.0), "cartpole-swingup": (3, 4, 14.7)}
"""Where a state has the cosine of the pole's angle and its velocity, and the squared frequency, by task."""


def energy_potential(task: Task, obs: Tensor) -> Tensor:
    """How far the pole's energy is from that of standing upright: 0 there, -2 hanging at rest.

    -|cos(angle) + angular velocity^2 / (2 w^2) - 1|, where w^2 is the squared frequency of small swings,
    3 g / (2 l) for a pole of length l: to swing up is to pump energy first.

    Args:
        task: "pendulum" or "cartpole-swingup".
        obs: [..., D].

    Returns:
        [...].

    Raises:
        ValueError: it is another task.
    """
    if task.name not in _SWINGS:
        raise ValueError(f"task is {task.name!r}, expected one with a potential: {', '.join(_SWINGS)}")
    cos, velocity, squared_frequency = _SWINGS[task.name]
    return -(obs[..., cos] + obs[..., velocity] ** 2 / (2 * squared_frequency) - 1).abs()


def training_task(task: Task, shaping: Shaping, scale: float, gamma: float) -> Task:
    """The task with the rewards that an agent with the discount `gamma` is trained with."""
    if shaping == "none":
        return task
    from mbrl_course.clinic import shaped_task

    def potential(obs: Tensor) -> Tensor:
        return scale * energy_potential(task, obs)

    return shaped_task(task, potential, gamma, naive=shaping == "naive")


def run_clinic_pets(config: ClinicPETSConfig, run: Run) -> None:
    """clinic-pets: the loop of PETS with each variant.

    Rows: variant, trial (0 is the random one), eval_return (of the trial, in the task's own reward), and the
    ledger.
    """
    for name, variant, (model, pets) in each_variant(config, run):
        task = get_task(variant.task)

        def on_trial(
            number: int, trial: Trial, planner: PlanRecorder, name: str = name, task: Task = task
        ) -> None:
            data = trial.transitions
            true_return = task.reward(data.obs, data.action, data.next_obs).sum()
            costs = ledger(run, trial.env_steps, trial.model_calls, 0, trial.model_updates)
            run.log(variant=name, trial=number, eval_return=true_return, **costs)

        shaped = training_task(task, variant.shaping, variant.shaping_scale, gamma=1.0)
        run_trials(shaped, model, pets, run, on_trial)


def run_clinic_mbpo(config: ClinicMBPOConfig, run: Run) -> None:
    """clinic-mbpo: MBPO with each variant, evaluated in the task's own reward.

    Rows: variant, eval_return (mean over the episodes of an evaluation), and the ledger.
    """
    check_devices(config)
    for name, variant, settings in each_variant(config, run):
        task = get_task(variant.task)
        shaped = training_task(task, variant.shaping, variant.shaping_scale, variant.gamma)
        train_mbpo(shaped, settings, variant, run, judge=task, variant=name)


_SHAPED = ("naive shaping: shaping=naive", "potential-based shaping: shaping=potential")
_PETS = ClinicPETSConfig(
    task="cartpole-swingup",
    num_trials=6,
    population_size=100,
    horizon=25,
    num_iterations=2,
    ensemble_size=3,
    num_particles=3,
    hidden_sizes=(64, 64),
    batch_size=256,
    learning_rate=5e-3,  # few large steps: one pass through 200 transitions is a single one
    max_epochs=400,
    patience=50,
    variants=(
        "PETS:",
        "small gain: init_gain=0.1",
        "one sample: propagation=single num_particles=1",
        "ensemble mean: propagation=mean",
        "filled with zero: warm_start=zero",
        *_SHAPED,
        "batch 512: batch_size=512",
        "learned rewards: learn_reward=true",
    ),
)
_MBPO = ClinicMBPOConfig(
    task="pendulum",
    total_steps=1200,
    eval_every=100,
    hidden_sizes=(64, 64),
    batch_size=256,
    learning_rate=3e-3,
    gamma=0.97,
    tau=0.02,
    initial_temperature=0.1,
    start_steps=200,
    updates_per_step=4,
    num_rollouts=2000,
    model_every=200,
    model_epochs=100,
    model_batch_size=32,
    model_hidden_sizes=(64, 64),
    ensemble_size=3,
    num_elites=3,
    variants=(
        "MBPO:",
        "small gain: init_gain=0.1",
        "noise where critics disagree: exploration_noise=50",
        "ensemble mean: rollout_mean=true",
        *_SHAPED,
        "batch 512: batch_size=512",
        "linear schedule: lr_schedule=linear",
        "cosine schedule: lr_schedule=cosine",
        "prioritized: prioritized=true",
        "50 updates: updates_per_step=10",
        "learned rewards: learn_reward=true",
    ),
)
_PETS_SMOKE: dict[str, Any] = {
    "num_trials": 1,
    "population_size": 20,
    "horizon": 3,
    "num_iterations": 1,
    "hidden_sizes": (16,),
    "max_epochs": 2,
}

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        name="clinic-pets",
        week=8,
        title="The clinic, PETS on the cart-pole swing-up: one change at a time",
        function=run_clinic_pets,
        configs=scales(_PETS, {}, _PETS_SMOKE),
        published="an engineer's report: each change is worth 10 to 60 % (`results clinic-pets` names them)",
        verdicts=partial(verdict_table, "clinic-pets"),
    ),
    Experiment(
        name="clinic-mbpo",
        week=8,
        title="The clinic, MBPO on the pendulum: one change at a time",
        function=run_clinic_mbpo,
        configs=scales(_MBPO, {}, SMOKE),
        published="an engineer's report: each change is worth 8 to 60 % (`results clinic-mbpo` names them)",
        verdicts=partial(verdict_table, "clinic-mbpo"),
    ),
    Experiment(
        name="final-comparison",
        week=8,
        title="Pendulum: every agent of the course, against real steps, minutes and imagined steps",
        function=run_comparison,
        configs=scales(
            ComparisonConfig(),
            {},
            {
                "num_trials": 1,
                "off_policy_steps": 210,
                "on_policy_steps": 512,
                "eval_every": 105,
                "num_eval_episodes": 1,
                "hidden_sizes": (16,),
                "population_size": 20,
                "horizon": 3,
                "model_epochs": 2,
            },
        ),
        solved_at=SOLVED_AT["pendulum"],
    ),
)
