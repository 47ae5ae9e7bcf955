"""Week 3: planners against each other, on the true dynamics first, then on learned models."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import evaluate
from mbrl_course.experiments.runner import Experiment, Objective, Run
from mbrl_course.experiments.variants import CountingModel, scales
from mbrl_course.experiments.week02 import CHEETAH, MPCVariantsConfig, run_mpc_variants
from mbrl_course.validation import need_at_least, need_share, need_some

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.icem import ICEMConfig
    from mbrl_course.mpc import Model, Planner

PLANNERS = ("random shooting", "CEM", "MPPI", "iCEM")


@dataclass(frozen=True)
class PlannersConfig:
    """Planners at equal numbers of model calls, on the true dynamics of a task.

    Attributes:
        task: a task with known dynamics.
        planners: those to compare, of `PLANNERS`.
        budgets: numbers of action sequences that a plan may evaluate in all; each is a comparison of its own.
        num_iterations: iterations of CEM, MPPI and iCEM, among which the budget is divided.
        elite_share: elites of CEM and iCEM, relative to the population of an iteration.
        horizon: steps that a plan looks ahead.
        num_episodes: per seed, planner and budget; all planners start from the same states.
    """

    task: str = "pendulum"
    planners: tuple[str, ...] = PLANNERS
    budgets: tuple[int, ...] = (20, 50, 250)
    num_iterations: int = 5
    elite_share: float = 0.1
    horizon: int = 20
    num_episodes: int = 1

    def __post_init__(self) -> None:
        """Refuses unknown planners and budgets that can't be divided, with the field's name."""
        for name in self.planners:
            if name not in PLANNERS:
                raise ValueError(f"planners holds {name!r}, expected some of {', '.join(PLANNERS)}")
        need_some(self, "planners", "budgets")
        need_at_least(self, 1, "num_iterations", "horizon", "num_episodes")
        need_share(self, "elite_share")
        if min(self.budgets) < 2 * self.num_iterations:
            smallest = f"at least 2 x num_iterations = {2 * self.num_iterations} each"
            raise ValueError(f"budgets is {self.budgets}, expected {smallest}")


@dataclass(frozen=True)
class WarmStartConfig:
    """CEM that starts from its shifted last plan, filled up in different ways, on the true dynamics.

    Attributes:
        task: a task with known dynamics.
        warm_starts: "repeat" the last action, add a "zero", or "none": start from the middle each time.
        population_size: action sequences per iteration.
        num_iterations: iterations of CEM per plan.
        elite_share: elites, relative to the population.
        horizon: steps that a plan looks ahead.
        num_episodes: per seed; all start from the same states.
    """

    task: str = "cartpole-swingup"
    warm_starts: tuple[Literal["repeat", "zero", "none"], ...] = ("repeat", "zero", "none")
    population_size: int = 50
    num_iterations: int = 2
    elite_share: float = 0.1
    horizon: int = 30
    num_episodes: int = 1

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name."""
        need_some(self, "warm_starts")
        need_at_least(self, 2, "population_size")
        need_at_least(self, 1, "num_iterations", "horizon", "num_episodes")
        need_share(self, "elite_share")


def make_oracle_planner(
    name: str,
    task: Task,
    model: Model,
    budget: int,
    settings: PlannersConfig,
    generator: torch.Generator,
) -> Planner:
    """A planner that evaluates `budget` action sequences per plan, or hardly fewer.

    The population of iCEM shrinks from iteration to iteration and takes some old elites along; it starts
    large enough for the sum to be the same.

    Args:
        name: one of `PLANNERS`.
        task: gives the bounds of the actions.
        model: what to plan in: the task itself, say.
        budget: action sequences per plan.
        settings: iterations, elites, horizon.
        generator: source of randomness.
    """
    bounds = (task.action_low, task.action_high)
    iterations, horizon = settings.num_iterations, settings.horizon
    population = budget // iterations
    elites = max(2, round(settings.elite_share * population))
    if name == "random shooting":
        from mbrl_course.mpc import RandomShootingConfig, RandomShootingPlanner

        return RandomShootingPlanner(model, *bounds, RandomShootingConfig(budget, horizon), generator)
    if name == "CEM":
        from mbrl_course.cem import CEMConfig, CEMPlanner

        cem = CEMConfig(population, elites, iterations, horizon)
        return CEMPlanner(model, *bounds, cem, generator)
    if name == "MPPI":
        from mbrl_course.mppi import MPPIConfig, MPPIPlanner

        return MPPIPlanner(model, *bounds, MPPIConfig(population, iterations, horizon), generator)
    from mbrl_course.icem import ICEMConfig, ICEMPlanner

    config = ICEMConfig(elites, elites, iterations, horizon)
    while icem_sequences(larger := replace(config, population_size=config.population_size + 1)) <= budget:
        config = larger
    return ICEMPlanner(model, *bounds, config, generator)


def icem_sequences(config: ICEMConfig) -> int:
    """How many action sequences a plan of iCEM evaluates: shrinking populations, old elites, the mean."""
    kept = round(config.kept_elites * config.num_elites)
    sizes = [config.population_size / config.population_decay**i for i in range(config.num_iterations)]
    smallest = 2 * config.num_elites
    return sum(min(max(int(size), smallest), config.population_size) + kept for size in sizes) + 1


def planner_return(
    task: Task, planner: Planner, num_episodes: int, seed: int, progress: bool = False
) -> tuple[float, int]:
    """Mean return over episodes in the real environment, and the number of plans that were made."""
    plans = 0

    def policy(obs: Tensor) -> Tensor:
        nonlocal plans
        plans += 1
        return planner.plan(obs)[0]

    returns = evaluate(task, policy, num_episodes, seed, on_reset=planner.reset, progress=progress)
    return float(returns.mean()), plans


def run_planners(config: PlannersConfig, run: Run) -> None:
    """planners-*: each planner at each budget.

    Rows: planner, budget (sequences per plan), calls_per_plan (imagined steps, counted), return (mean over
    the episodes), ms_per_plan.
    """
    task = get_task(config.task)
    pairs = [(budget, name) for budget in config.budgets for name in config.planners]
    for budget, name in run.units(pairs, "planners"):
        model = CountingModel(task)
        planner = make_oracle_planner(name, task, model, budget, config, run.generator)
        started = time.perf_counter()
        score, plans = planner_return(task, planner, config.num_episodes, run.seed, run.progress)
        milliseconds = 1000 * (time.perf_counter() - started) / plans
        calls = round(model.calls / plans)
        row = {"planner": name, "budget": budget, "calls_per_plan": calls, "return": score}
        run.log(**row, ms_per_plan=round(milliseconds, 2))


def run_warm_start(config: WarmStartConfig, run: Run) -> None:
    """warm-start: CEM with each way to fill up the shifted plan.

    Rows: warm_start, return (mean over the episodes).
    """
    from mbrl_course.cem import CEMConfig, CEMPlanner

    task = get_task(config.task)
    for fill in run.units(config.warm_starts, "warm starts"):
        cem = CEMConfig(
            population_size=config.population_size,
            num_elites=max(2, round(config.elite_share * config.population_size)),
            num_iterations=config.num_iterations,
            horizon=config.horizon,
            warm_start=None if fill == "none" else fill,
        )
        planner = CEMPlanner(task, task.action_low, task.action_high, cem, run.generator)
        score, _ = planner_return(task, planner, config.num_episodes, run.seed, run.progress)
        run.log(warm_start=fill, **{"return": score})


_PENDULUM = PlannersConfig(budgets=(20, 50, 250, 1000), num_episodes=5)
_SWINGUP = PlannersConfig(task="cartpole-swingup", budgets=(50, 250, 1000, 2500), horizon=30, num_episodes=5)
_SEARCHES = (
    "random shooting: search=random shooting cem_iterations=1",
    *(f"CEM {n}: search=CEM cem_iterations={n}" for n in (2, 4)),
)
_Q5 = MPCVariantsConfig(**CHEETAH, num_iterations=5, variants=_SEARCHES)  # type: ignore[arg-type]
_TINY = {"budgets": (50,), "horizon": 10, "num_episodes": 1}
_RETURN = Objective("return")

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        name="planners-pendulum",
        week=3,
        title="Pendulum, true dynamics: four planners at equal numbers of model calls",
        function=run_planners,
        configs=scales(_PENDULUM, {"budgets": (20, 50, 250), "num_episodes": 1}, _TINY),
        objective=_RETURN,
    ),
    Experiment(
        name="planners-swingup",
        week=3,
        title="Cart-pole swing-up, true dynamics: four planners at equal numbers of model calls",
        function=run_planners,
        configs=scales(_SWINGUP, {"budgets": (50, 250, 1000), "num_episodes": 1}, _TINY),
        objective=_RETURN,
    ),
    Experiment(
        name="warm-start",
        week=3,
        title="Cart-pole swing-up, true dynamics: how CEM's shifted plan is filled up",
        function=run_warm_start,
        configs=scales(
            WarmStartConfig(num_episodes=5),
            {"num_episodes": 1},
            {"population_size": 20, "num_iterations": 1, "horizon": 10, "num_episodes": 1},
        ),
        objective=_RETURN,
    ),
    Experiment(
        name="q5",
        week=3,
        title="Half-cheetah, five iterations: random shooting against CEM with 2 and 4 iterations",
        function=run_mpc_variants,
        configs=scales(
            _Q5,
            {
                "steps_per_iteration": 500,
                "gradient_steps": 500,
                "num_sequences": 200,
                "num_elites": 20,
                "hidden_sizes": (128, 128),
            },
            {
                "num_iterations": 1,
                "initial_steps": 500,
                "steps_per_iteration": 500,
                "gradient_steps": 50,
                "ensemble_size": 1,
                "hidden_sizes": (32,),
                "num_sequences": 20,
                "num_elites": 5,
                "horizon": 5,
                "variants": _SEARCHES[:2],
            },
        ),
        published="CEM at least 800 after 5 iterations (CS285, homework 4, problem 5)",
    ),
)
