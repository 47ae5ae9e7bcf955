"""Week 4: what a model's doubt is worth, and what horizon, search and ensemble are worth to a planner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mbrl_course.envs import get_task
from mbrl_course.evaluation import Policy, collect, collect_random
from mbrl_course.experiments.gap import GapConfig, run_gap
from mbrl_course.experiments.replay import ReplayConfig, run_replay
from mbrl_course.experiments.runner import Experiment, Objective, Run
from mbrl_course.experiments.uncertainty import (
    EnsembleFitConfig,
    PhasePlaneConfig,
    plane_of,
    run_phase_plane,
    step_scale,
    worth,
)
from mbrl_course.experiments.variants import (
    CountingModel,
    Variants,
    each_variant,
    ledger,
    one_field,
    scales,
    settings_of,
)
from mbrl_course.experiments.week01 import holding_policy
from mbrl_course.experiments.week02 import MPCVariantsConfig, run_mpc_variants
from mbrl_course.validation import need_at_least

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.ensembles import GaussianEnsemble


@dataclass(frozen=True)
class OnPolicyConfig(EnsembleFitConfig):
    """An ensemble that plans, and learns from where its plans lead.

    Attributes:
        task: the task.
        num_iterations: how often to plan and collect, after the random steps.
        steps_per_iteration: environment steps of each, the random ones included.
        population_size: action sequences per iteration of CEM.
        num_elites: elites of CEM.
        cem_iterations: iterations of CEM per plan.
        horizon: steps that a plan looks ahead.
    """

    task: str = "pendulum"
    num_iterations: int = 8
    steps_per_iteration: int = 200
    population_size: int = 100
    num_elites: int = 10
    cem_iterations: int = 3
    horizon: int = 20

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name."""
        super().__post_init__()
        need_at_least(self, 1, "num_iterations", "population_size", "num_elites", "cem_iterations", "horizon")
        need_at_least(self, 2, "steps_per_iteration")
        if self.num_elites > self.population_size:
            expected = f"at most population_size = {self.population_size}"
            raise ValueError(f"num_elites is {self.num_elites}, expected {expected}")


class Iteration(NamedTuple):
    """What an iteration of `on_policy_iterations` brought."""

    new: Batch  # the data that were collected
    mean_return: float  # of the episodes in which they were
    before: dict[str, float] | None  # `worth` on the new data before they were learned; None of random ones
    after: dict[str, float]  # and afterwards
    ensemble: GaussianEnsemble  # it learns on in the next iteration
    scale: Tensor  # [D], of the random steps, see `doubt`
    costs: dict[str, Any]  # the ledger; env_steps are those that the policy had learned from


def on_policy_iterations(config: OnPolicyConfig, run: Run) -> Iterator[Iteration]:
    """Random steps first, then: fit the ensemble, plan in it, collect, and see how sure it had been.

    There is a checkpoint after each iteration, when whoever uses it has logged its row; a run that goes on
    from one begins with the iteration after it.
    """
    from mbrl_course.buffers import Batch, concatenate
    from mbrl_course.cem import CEMConfig, CEMPlanner

    task = get_task(config.task)
    ensemble = config.ensemble(task.obs_dim, task.action_dim, run.seed, task)
    model = CountingModel(ensemble, generator=run.generator)
    cem = settings_of(CEMConfig, config, num_iterations=config.cem_iterations)
    planner = CEMPlanner(model, task.action_low, task.action_high, cem, run.generator)
    policy: Policy = lambda obs: planner.plan(obs)[0]  # noqa: E731
    batches: list[Batch] = []
    updates = 0
    if (state := run.restore()) is not None:
        batches = [Batch(**batch) for batch in state["batches"]]
        updates, model.calls, scale = state["updates"], state["model_calls"], state["scale"]
        ensemble.load_state_dict(state["ensemble"])
        ensemble.optimizer.load_state_dict(state["optimizer"])
    for number in range(len(batches), config.num_iterations + 1):
        learned_from = sum(len(batch.obs) for batch in batches)
        if number == 0:
            new, mean_return = collect_random(
                task, config.steps_per_iteration, run.generator, progress=run.progress
            )
            scale = step_scale(new)
        else:
            steps, reset = config.steps_per_iteration, planner.reset
            new, _, mean_return = collect(
                task, policy, steps, run.generator, on_reset=reset, progress=run.progress
            )
        costs = ledger(run, learned_from, model.calls, 0, updates)
        before = None if number == 0 else worth(ensemble, new, scale)
        batches.append(new)
        updates += config.fit(ensemble, concatenate(batches), run).num_updates
        yield Iteration(new, mean_return, before, worth(ensemble, new, scale), ensemble, scale, costs)
        state = {
            "batches": [batch._asdict() for batch in batches],
            "updates": updates,
            "model_calls": model.calls,
            "scale": scale,
            "ensemble": ensemble.state_dict(),
            "optimizer": ensemble.optimizer.state_dict(),
        }
        run.checkpoint(state)


def on_policy_row(number: int, found: Iteration, everywhere: dict[str, float]) -> dict[str, Any]:
    """The row of an iteration, see `run_on_policy`; `everywhere` is the ensemble's `worth` on all states."""
    places = {"new": found.before, "learned": found.after, "plane": everywhere}
    values = {
        f"{metric}_{place}": float("nan") if numbers is None else numbers[metric]
        for place, numbers in places.items()
        for metric in ("error", "epistemic", "rank_correlation")
    }
    return {"iteration": number, "eval_return": found.mean_return, **values, **found.costs}


def run_on_policy(config: OnPolicyConfig, run: Run) -> None:
    """ensemble-on-policy: does the doubt fall where data arrive, and is it large where the model is wrong?

    Rows: iteration (0 is random), eval_return, then "error", "epistemic" and "rank_correlation" (see `worth`)
    on the new data "new" before they were learned, on the same "learned" afterwards, and on the whole phase
    plane "plane" (with the action 0) afterwards; and the ledger.
    """
    plane = plane_of(get_task(config.task), 31)
    for found in on_policy_iterations(config, run):
        with run.not_counted():
            everywhere = worth(found.ensemble, plane, found.scale)
        run.log(**on_policy_row(len(run.rows), found, everywhere))


@dataclass(frozen=True)
class EnsembleSizeConfig(EnsembleFitConfig, Variants):
    """Ensembles of different size, fitted to the same random data.

    Attributes:
        task: the task.
        num_steps: random environment steps to fit to.
        num_test_steps: further ones to judge by, and as many of each other kind.
        holds: for how many steps these other kinds of data keep their extreme actions.
    """

    task: str = "cheetah"
    num_steps: int = 5000
    num_test_steps: int = 2000
    holds: tuple[int, ...] = (2, 5)

    shared_by_variants: ClassVar = ("task", "num_steps", "num_test_steps", "holds")

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name, and variants that can't be read."""
        EnsembleFitConfig.__post_init__(self)
        need_at_least(self, 2, "num_steps", "num_test_steps")
        need_at_least(self, 1, "holds")
        Variants.__post_init__(self)


def run_ensemble_size(config: EnsembleSizeConfig, run: Run) -> None:
    """ensemble-size: error, calibration, and what the doubt is worth, by the number of members.

    Rows: variant, where ("random": states like those of the training data; "held K": elsewhere, since extreme
    actions are held for K steps), metric (see `worth`), value, and the ledger.
    """
    task = get_task(config.task)
    draws = torch.Generator().manual_seed(run.seed)  # the same data for all variants
    data, _ = collect_random(task, config.num_steps, draws, progress=run.progress)
    tests = {"random": collect_random(task, config.num_test_steps, draws, progress=run.progress)[0]}
    for hold in config.holds:
        policy = holding_policy(task, hold, draws)
        tests[f"held {hold}"] = collect(
            task, policy, config.num_test_steps, draws, progress=run.progress
        ).data
    for name, variant, _ in each_variant(config, run):
        ensemble = variant.ensemble(task.obs_dim, task.action_dim, run.seed)
        updates = variant.fit(ensemble, data, run).num_updates
        costs = ledger(run, config.num_steps, 0, 0, updates)
        for where, test in tests.items():
            for metric, value in worth(ensemble, test, step_scale(data)).items():
                run.log(variant=name, where=where, metric=metric, value=value, **costs)


_SIZES = tuple(f"{size} member{'s' * (size > 1)}: ensemble_size={size}" for size in (1, 3, 5, 10))
_SENSORS = ("good sensor:", "worn sensor: noise=0.5")
_REPLAYS = (
    "uniform:",
    "by error: replay=error",
    "by error, not corrected: replay=error beta=0",
    "by disagreement: replay=epistemic",
)
_FIT: dict[str, Any] = {"hidden_sizes": (16,), "max_epochs": 2}
_REPLAY: dict[str, Any] = {"hidden_sizes": (16,), "gradient_steps": 10, "num_points": 2, "num_common": 300}
_REPLAY |= {"num_rare": 100, "num_test_steps": 100}
_ERROR = Objective("value", lower=True, where="metric == 'error'")
_ERRORS = Objective("value", lower=True, where="metric in ('error, common', 'error, rare')")
_Q4 = MPCVariantsConfig(
    task="reacher7",
    num_iterations=15,
    steps_per_iteration=800,
    gradient_steps=1000,
    variants=(
        *one_field("horizon", "5", "15", "30"),
        *one_field("num_sequences", "100", "1000"),
        *one_field("ensemble_size", "1", "3", "5"),
    ),
)

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        name="ensemble-gap",
        week=4,
        title="Regression with a gap: noise and ignorance while data arrive",
        function=run_gap,
        configs=scales(
            GapConfig(points_per_stage=5),
            {"points_per_stage": 10, "steps_per_stage": 150},
            {"num_outside": 60, "num_inside": 30, "points_per_stage": 30, "steps_per_stage": 20},
        ),
        objective=_ERROR,
    ),
    Experiment(
        name="ensemble-uncertainty",
        week=4,
        title="Pendulum: what an ensemble knows of the phase plane after some random steps",
        function=run_phase_plane,
        configs=scales(
            PhasePlaneConfig(num_steps=2000, hidden_sizes=(200, 200, 200), variants=_SENSORS),
            {"hidden_sizes": (64, 64), "num_steps": 1000},
            {**_FIT, "num_steps": 200, "resolution": 9},
        ),
        objective=_ERROR,
    ),
    Experiment(
        name="ensemble-size",
        week=4,
        title="Half-cheetah: error, calibration and doubt of 1, 3, 5 and 10 members",
        function=run_ensemble_size,
        configs=scales(
            EnsembleSizeConfig(
                num_steps=20_000, hidden_sizes=(200, 200, 200), batch_size=256, variants=_SIZES
            ),
            {
                "num_steps": 2000,
                "num_test_steps": 1000,
                "hidden_sizes": (64, 64),
                "batch_size": 128,
                "max_epochs": 40,
            },
            {**_FIT, "num_steps": 300, "num_test_steps": 100},
        ),
        objective=_ERROR,
    ),
    Experiment(
        name="ensemble-on-policy",
        week=4,
        title="Pendulum: an ensemble that plans and learns, its doubt against its error",
        function=run_on_policy,
        configs=scales(
            OnPolicyConfig(population_size=200),
            {"num_iterations": 5, "population_size": 60, "cem_iterations": 2, "max_epochs": 50},
            {
                **_FIT,
                "num_iterations": 1,
                "population_size": 20,
                "num_elites": 5,
                "cem_iterations": 1,
                "horizon": 3,
            },
        ),
    ),
    Experiment(
        name="prioritized-model",
        week=4,
        title="Half-cheetah, one transition in ten is of a rare kind: uniform against prioritized replay",
        function=run_replay,
        configs=scales(
            ReplayConfig(
                num_common=18_000,
                num_rare=2000,
                gradient_steps=10_000,
                hidden_sizes=(200, 200, 200),
                ensemble_size=5,
                batch_size=256,
                variants=_REPLAYS,
            ),
            {
                "num_common": 4500,
                "num_rare": 500,
                "gradient_steps": 2000,
                "hidden_sizes": (64, 64),
                "ensemble_size": 3,
                "batch_size": 128,
            },
            _REPLAY,
        ),
        objective=_ERRORS,
    ),
    Experiment(
        name="prioritized-noise",
        week=4,
        title="Pendulum with a worn sensor: uniform against prioritized replay where noise can be drawn",
        function=run_replay,
        configs=scales(
            ReplayConfig(
                task="pendulum", noise=0.5, num_common=4500, gradient_steps=10_000, variants=_REPLAYS
            ),
            {"num_common": 1800, "num_rare": 200, "gradient_steps": 2000, "hidden_sizes": (64, 64)},
            _REPLAY,
        ),
        objective=_ERRORS,
    ),
    Experiment(
        name="q4",
        week=4,
        title="Seven-joint reacher: horizon, number of action sequences, members of the ensemble",
        function=run_mpc_variants,
        configs=scales(
            _Q4,
            {
                "num_iterations": 4,
                "steps_per_iteration": 400,
                "gradient_steps": 500,
                "num_sequences": 300,
                "hidden_sizes": (128, 128),
            },
            {
                "num_iterations": 1,
                "initial_steps": 200,
                "steps_per_iteration": 20,
                "gradient_steps": 5,
                "hidden_sizes": (16,),
                "num_sequences": 10,
                "variants": ("horizon=2", "num_sequences=5", "ensemble_size=1"),
            },
        ),
        published="horizon 15 best, then 30, then 5; sequences matter little; 5 members, then 3, then 1",
        remark="on another arm than ours; the last iteration has two episodes: by the mean of all four "
        "iterations a horizon of 30 is worse than one of 15 or 5 in every seed, and no other order is shown",
    ),
)
