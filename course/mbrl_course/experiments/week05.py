"""Week 5: PETS, from an untrained model to a solved task in a handful of trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from mbrl_course.envs import Task, get_task
from mbrl_course.experiments.config import ConfigError
from mbrl_course.experiments.runner import Experiment, Run
from mbrl_course.experiments.solved import SOLVED_AT
from mbrl_course.experiments.variants import Variants, each_variant, ledger, one_field, scales, settings_of
from mbrl_course.validation import need_at_least, need_share

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.dynamics import DynamicsModel
    from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
    from mbrl_course.experiments.promises import PlanRecorder
    from mbrl_course.pets import PETSConfig, Trial


@dataclass(frozen=True)
class PETSTrialsConfig(Variants):
    """The loop of PETS: a random trial, then refit and plan, trial by trial.

    Attributes:
        task: the task.
        num_trials: trials with the planner.
        planner: what searches for the plans; iCEM's population shrinks from iteration to iteration, random
            shooting draws all sequences of all iterations at once.
        population_size: action sequences per iteration.
        elite_share: elites among them, of CEM and iCEM.
        num_iterations: iterations per plan.
        horizon: steps that a plan looks ahead.
        warm_start: how the last plan is filled up to start the next search, see `cem.CEMConfig`.
        propagation: what a particle's next state is drawn from, see `pets`.
        num_particles: futures that a plan is judged by.
        robust: how the particles' returns become one number, see `pets.PETSConfig`.
        penalty: standard deviations that robust="variance" takes off.
        ensemble_size: members of the model, all of them used.
        bootstrap: each member sees its own bootstrap of the data; otherwise all see all.
        learn_reward: predict the reward too, instead of using the task's reward function.
        init_gain: of the model's first weights, see `networks.xavier_weights`; none leaves them.
        hidden_sizes: of each member.
        learning_rate: of the model's optimizer.
        batch_size: transitions per gradient step and member.
        patience: epochs without an improvement after which a fit stops.
        max_epochs: of a fit.
        precision: in which the model predicts, "float32" or "bfloat16".
        compile: have the model's gradient compiled, see `mbrl_course.compiling`.
    """

    task: str = "cartpole-balance"
    num_trials: int = 10
    planner: Literal["CEM", "iCEM", "MPPI", "random shooting"] = "CEM"
    population_size: int = 100
    elite_share: float = 0.1
    num_iterations: int = 3
    horizon: int = 15
    warm_start: Literal["repeat", "zero", "none"] = "repeat"
    propagation: Literal["ts1", "ts_inf", "mean", "single"] = "ts_inf"
    num_particles: int = 5
    robust: Literal["mean", "worst", "variance"] = "mean"
    penalty: float = 0.5
    ensemble_size: int = 5
    bootstrap: bool = True
    learn_reward: bool = False
    init_gain: float | None = None
    hidden_sizes: tuple[int, ...] = (128, 128)
    learning_rate: float = 1e-3
    batch_size: int = 32
    patience: int = 5
    max_epochs: int = 50
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense, with the field's name, and variants that can't be read."""
        need_at_least(self, 1, "num_trials", "num_iterations", "horizon", "num_particles", "ensemble_size")
        need_at_least(self, 2, "population_size")
        need_share(self, "elite_share")
        super().__post_init__()

    def settings(self) -> tuple[EnsembleConfig, PETSConfig]:
        """The settings of the ensemble, and those of the planner and the loop.

        Raises:
            ConfigError: some of them do not go together.
        """
        from mbrl_course.cem import CEMConfig
        from mbrl_course.ensembles import EnsembleConfig
        from mbrl_course.icem import ICEMConfig
        from mbrl_course.mpc import RandomShootingConfig
        from mbrl_course.mppi import MPPIConfig
        from mbrl_course.pets import PETSConfig

        if self.propagation in ("ts1", "ts_inf") and self.num_particles % self.ensemble_size:
            expected = f"a multiple of ensemble_size = {self.ensemble_size}"
            raise ConfigError(f"num_particles is {self.num_particles}, expected {expected}")
        searches: dict[str, Any] = {"CEM": CEMConfig, "iCEM": ICEMConfig, "MPPI": MPPIConfig}
        searches["random shooting"] = RandomShootingConfig
        changes: dict[str, Any] = {"warm_start": None if self.warm_start == "none" else self.warm_start}
        if self.planner == "random shooting":
            changes = {"num_sequences": self.num_iterations * self.population_size}
        elif self.planner != "MPPI":
            changes["num_elites"] = max(2, round(self.elite_share * self.population_size))
        optimizer = settings_of(searches[self.planner], self, **changes)
        model = settings_of(EnsembleConfig, self, num_elites=self.ensemble_size)
        return model, settings_of(PETSConfig, self, optimizer=optimizer)


def run_pets(config: PETSTrialsConfig, run: Run) -> None:
    """pets-*: the loop of PETS with each variant, from an untrained model.

    Rows: variant, trial (0 is the random one), eval_return (of the trial: nothing had been learned from it
    before), the ledger up to its end, promised and obtained (medians over the trial's plans of the mean
    reward per step that a plan promises and that it would bring in truth, see `promises`; NaN in the random
    trial). The seconds are those of fitting, planning and acting.
    """
    for name, variant, (model, pets) in each_variant(config, run):
        task = get_task(variant.task)

        def on_trial(
            number: int, trial: Trial, planner: PlanRecorder, name: str = name, task: Task = task
        ) -> None:
            costs = ledger(run, trial.env_steps, trial.model_calls, 0, trial.model_updates)
            with run.not_counted():
                particles = torch.Generator().manual_seed(run.seed)
                promised, obtained = planner.promises(task, particles).medians()
            gauge = {"promised": promised, "obtained": obtained}
            run.log(variant=name, trial=number, eval_return=trial.trial_return, **costs, **gauge)

        run_trials(task, model, pets, run, on_trial)


def run_trials(
    task: Task,
    model: EnsembleConfig,
    pets: PETSConfig,
    run: Run,
    on_trial: Callable[[int, Trial, PlanRecorder], None],
) -> None:
    """The loop of PETS once, with a checkpoint after every trial.

    Args:
        task: the task.
        model: settings of the ensemble.
        pets: settings of the planner and the loop.
        run: where checkpoints go.
        on_trial: logs the rows of a trial; is told its number, the trial, and the planner with its plans.
    """
    from mbrl_course.ensembles import GaussianEnsemble
    from mbrl_course.experiments.promises import PlanRecorder
    from mbrl_course.pets import make_planner, pets_trials

    ensemble = GaussianEnsemble(
        task.obs_dim,
        task.action_dim,
        model,
        reward=task.reward,
        terminated=task.terminated,
        generator=torch.Generator().manual_seed(run.seed),  # run.generator is in its place after a restart
    )
    trials = restored_trials(run, ensemble)
    bounds = (task.action_low, task.action_high)
    planner = PlanRecorder(make_planner(ensemble, *bounds, pets, run.generator))

    def after_trial(number: int, trial: Trial) -> None:
        on_trial(number, trial, planner)
        trials.append(trial)
        keep_trials(run, ensemble, trials)

    pets_trials(task, ensemble, pets, run.generator, after_trial, tuple(trials), planner)


def restored_trials(run: Run, model: DynamicsModel | GaussianEnsemble) -> list[Trial]:
    """The trials before an interruption, see `keep_trials`; the model becomes what it was after them."""
    from mbrl_course.buffers import Batch
    from mbrl_course.pets import Trial

    if (state := run.restore()) is None:
        return []
    model.load_state_dict(state["ensemble"])
    model.optimizer.load_state_dict(state["optimizer"])
    return [Trial(Batch(**batch), *rest) for batch, *rest in state["trials"]]


def keep_trials(run: Run, model: DynamicsModel | GaussianEnsemble, trials: Sequence[Trial]) -> None:
    """A checkpoint after a trial: all of them so far, and the model that was fitted to those before."""
    saved = [[trial.transitions._asdict(), *trial[1:]] for trial in trials]
    parts = {"ensemble": model.state_dict(), "optimizer": model.optimizer.state_dict()}
    run.checkpoint({"trials": saved, **parts})


def _budgets(*budgets: tuple[int, int, int]) -> tuple[str, ...]:
    """Variants "K/H/I" for a population, a horizon and a number of iterations each."""
    return tuple(f"{k}/{h}/{i}: population_size={k} horizon={h} num_iterations={i}" for k, h, i in budgets)


_BUDGETS = _budgets((100, 15, 3), (200, 25, 4), (500, 30, 5))
_COMPARED = {
    "": ("how much a plan may cost: population, horizon, iterations", _BUDGETS),
    "-propagation": (
        "what the particles' states are drawn from",
        one_field("propagation", "ts1", "ts_inf", "mean", "single"),
    ),
    "-warm-start": ("how the last plan is filled up", one_field("warm_start", "repeat", "zero", "none")),
}
_SMOKE: dict[str, Any] = {"num_trials": 1, "hidden_sizes": (16,), "max_epochs": 2, "elite_share": 0.2}
_SMOKE |= {"population_size": 10, "num_iterations": 1, "horizon": 3}
_BALANCE = PETSTrialsConfig(
    variants=(
        "PETS:",
        "MBRL-Lib's tutorial: population_size=500 num_iterations=5 num_particles=20 hidden_sizes=200/200/200",
    )
)
_FITS: dict[str, Any] = {"learning_rate": 3e-3, "max_epochs": 100, "patience": 20}
"""Fits for swinging up: with gentler ones three of five seeds got there some trials later, and one sooner."""
_FULL = PETSTrialsConfig(
    num_trials=15,
    population_size=200,
    num_iterations=4,
    horizon=25,
    hidden_sizes=(200,) * 3,
    num_particles=20,
    **_FITS,
)
_LAPTOP: dict[str, Any] = {"num_trials": 8, "hidden_sizes": (64, 64), "num_particles": 5}
_SHORT: dict[str, Any] = {"population_size": 100, "num_iterations": 2}
"""Short searches, which have to make the most of the last plan."""


def _comparisons(
    task: str, title: str, published: str = "", laptop: dict[str, Any] | None = None
) -> list[Experiment[Any]]:
    """The three comparisons in a task; `laptop` has what is special to its preset for laptops."""
    found = []
    for ending, (what, variants) in _COMPARED.items():
        smoke = {**_SMOKE, "variants": _budgets((10, 3, 1), (10, 4, 1)) if ending == "" else variants}
        small = {**_LAPTOP, **(laptop or {}), **(_SHORT if ending == "-warm-start" else {})}
        full = replace(_FULL, task=task, variants=variants)
        found.append(
            Experiment(
                name=f"pets-{task.removesuffix('-swingup')}{ending}",
                week=5,
                title=f"{title}, PETS: {what}",
                function=run_pets,
                configs=scales(full, small, {**_LAPTOP, **smoke}),
                published=published if ending == "" else "",
                solved_at=SOLVED_AT[task],
            )
        )
    return found


_PRICES = {
    "ensemble mean": "propagation=mean",
    "3 members": "ensemble_size=3 num_particles=3",
    "10 particles": "num_particles=10",
    "cold start": "warm_start=none",
    "2x128": "hidden_sizes=128/128",
    "timid fits": "learning_rate=0.001 max_epochs=50 patience=5",
}
"""What is changed of the setting of a Pareto experiment, besides the search."""


def _searches(horizon: int) -> tuple[str, ...]:
    """Variants of the search, called "PLANNER K/H/I", for a task that asks for plans of about `horizon`."""
    searches = [("CEM", 100, 15, 3), ("CEM", 100, horizon, 3), ("MPPI", 40, horizon, 2)]
    searches += [("iCEM", k, horizon, i) for k, i in ((20, 2), (40, 2), (100, 2), (40, 4))]
    searches += [("iCEM", 40, h, 2) for h in (horizon - 10, horizon + 10)]
    return tuple(
        f"{planner} {k}/{h}/{i}: planner={planner} population_size={k} horizon={h} num_iterations={i}"
        for planner, k, h, i in searches
    )


_BALANCE_PRESET = "iCEM 40/15/2: planner=iCEM population_size=40 num_iterations=2 elite_share=0.2"
_BALANCE_VARIANTS = (
    "CEM 100/15/3:",
    *(
        f"CEM {k}/{h}/{i}: population_size={k} horizon={h} num_iterations={i}"
        for k, h, i in ((50, 15, 3), (200, 15, 3), (100, 8, 3), (100, 25, 3))
    ),
    _BALANCE_PRESET,
    "random shooting 300/15: planner=random shooting",
    "3 members: ensemble_size=3 num_particles=3",
    "ensemble mean: propagation=mean",
    "2x64: hidden_sizes=64/64",
    "CEM 50/15/3, 2x64: population_size=50 hidden_sizes=64/64",
)
"""What a return costs on the balancing cart-pole: each differs from CEM 100/15/3 in a setting or two."""


def _pareto(task: str, title: str, horizon: int, num_trials: int, preset: str) -> list[Experiment[Any]]:
    """What a return costs in a task: cheap and dear settings of PETS; and one of them, until it is solved."""
    base = PETSTrialsConfig(
        task=task,
        planner="iCEM",
        population_size=40,
        horizon=horizon,
        num_iterations=2,
        elite_share=0.2,
        variants=(*_searches(horizon), *(f"{name}: {changes}" for name, changes in _PRICES.items())),
        **_FITS,
    )
    smoke = {**_SMOKE, "variants": ("CEM: planner=CEM", "MPPI: planner=MPPI", "iCEM: planner=iCEM")}
    laptop = {**_LAPTOP, "num_trials": num_trials}
    short, solved_at = task.removesuffix("-swingup"), SOLVED_AT[task]
    (chosen,) = (text for text in base.variants if text.startswith(f"{preset}: "))
    one = replace(base, variants=(chosen,))
    return [
        Experiment(
            name=f"pareto-pets-{short}",
            week=5,
            title=f"{title}: what PETS earns for how much computing",
            function=run_pets,
            configs=scales(base, laptop, {**laptop, **smoke}),
            solved_at=solved_at,
            preset=preset,
        ),
        Experiment(
            name=f"pets-{short}-preset",
            week=5,
            title=f"{title}: PETS, laptop preset, from an untrained model to a trial of {solved_at:.0f}",
            function=run_pets,
            configs=scales(one, {**laptop, "num_trials": 12}, {**laptop, **_SMOKE}),
            solved_at=solved_at,
        ),
    ]


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        name="pets-cartpole-balance",
        week=5,
        title="Balancing cart-pole: PETS from an untrained model to its first trial of 200",
        function=run_pets,
        configs=scales(
            _BALANCE, {"variants": (_BALANCE_PRESET,), "num_trials": 8}, {"variants": ("PETS:",), **_SMOKE}
        ),
        published="MBRL-Lib's tutorial: 200 in the third trial after the random one, 763 steps, 1052 s",
        solved_at=SOLVED_AT["cartpole-balance"],
    ),
    *_comparisons(
        "cartpole-swingup",
        "Cart-pole swing-up",
        "100/15/3 far below 500/30/5: 28 against 100 to 150 in one report, on another cart-pole",
    ),
    *_comparisons("pendulum", "Pendulum", laptop={"num_trials": 4, "num_iterations": 3}),
    Experiment(
        name="pareto-pets-balance",
        week=5,
        title="Balancing cart-pole: what PETS earns for how much computing",
        function=run_pets,
        configs=scales(
            replace(_BALANCE, variants=_BALANCE_VARIANTS),
            {"num_trials": 6},
            {"variants": ("CEM:", "iCEM: planner=iCEM"), **_SMOKE},
        ),
        solved_at=SOLVED_AT["cartpole-balance"],
        preset="iCEM 40/15/2",
    ),
    *_pareto("cartpole-swingup", "Cart-pole swing-up", horizon=25, num_trials=7, preset="iCEM 40/35/2"),
    *_pareto("pendulum", "Pendulum", horizon=20, num_trials=5, preset="3 members"),
)
