"""Every agent of the course on one task: return against real steps, minutes and imagined steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mbrl_course.envs import Task, get_task
from mbrl_course.evaluation import evaluate_together
from mbrl_course.experiments.runner import Run
from mbrl_course.experiments.variants import CountingModel, ledger, settings_of
from mbrl_course.experiments.week03 import planner_return
from mbrl_course.experiments.week05 import PETSTrialsConfig, keep_trials, restored_trials, run_trials
from mbrl_course.experiments.week07 import MBPORunConfig, train_mbpo
from mbrl_course.validation import need_at_least, need_in_unit, need_some

if TYPE_CHECKING:  # in a class these may be the student's own, so they are imported when needed
    from mbrl_course.buffers import Batch
    from mbrl_course.dyna_ppo import DynaPPO
    from mbrl_course.experiments.promises import PlanRecorder
    from mbrl_course.mpc import Planner
    from mbrl_course.pets import Trial

AGENTS = ("random shooting", "CEM", "PETS", "PPO", "Dyna-PPO", "SAC", "MBPO")
"""Of weeks 2, 3, 5, 6, 6, 7 and 7."""


@dataclass(frozen=True)
class ComparisonConfig:
    """All agents on one task; they know its reward function, and share the sizes of networks and plans.

    Attributes:
        task: one with continuous actions, so that all of them can learn it.
        agents: those to compare, of `AGENTS`.
        num_trials: of the planners, after a random one.
        off_policy_steps: real steps of SAC and MBPO.
        on_policy_steps: real steps of PPO and Dyna-PPO, rounded up to whole batches of 512.
        eval_every: real steps between two evaluations of SAC and MBPO; PPO's are four times as far apart.
        num_eval_episodes: of each evaluation, of a planner's after each of its trials, too.
        hidden_sizes: of all networks.
        ensemble_size: members of all ensembles, all of them elites; random shooting and CEM plan in one
            network.
        population_size: sequences per iteration of CEM.
        num_iterations: of CEM; random shooting has as many sequences in all.
        horizon: steps that a plan looks ahead.
        model_epochs: of a fit, stopped early, of the planners' models and MBPO's.
        gamma: discount of the policies.
    """

    task: str = "pendulum"
    agents: tuple[str, ...] = AGENTS
    num_trials: int = 6
    off_policy_steps: int = 2500
    on_policy_steps: int = 40_960
    eval_every: int = 250
    num_eval_episodes: int = 3
    hidden_sizes: tuple[int, ...] = (64, 64)
    ensemble_size: int = 3
    population_size: int = 100
    num_iterations: int = 2
    horizon: int = 20
    model_epochs: int = 100
    gamma: float = 0.97

    def __post_init__(self) -> None:
        """Refuses unknown agents, and numbers below 1, with the field's name."""
        for name in self.agents:
            if name not in AGENTS:
                raise ValueError(f"agents holds {name!r}, expected some of {', '.join(AGENTS)}")
        need_some(self, "agents")
        need_at_least(self, 1, "num_trials", "off_policy_steps", "on_policy_steps", "eval_every")
        need_at_least(self, 1, "num_eval_episodes", "ensemble_size", "num_iterations", "horizon")
        need_at_least(self, 1, "hidden_sizes", "model_epochs")
        need_at_least(self, 2, "population_size")
        need_in_unit(self, "gamma")


def run_comparison(config: ComparisonConfig, run: Run) -> None:
    """final-comparison: every agent by itself.

    Rows: variant (the agent), eval_return (the mean over the episodes of an evaluation, from the same starts
    for all agents), and the ledger.
    """
    task = get_task(config.task)
    for agent in run.units(config.agents, "agents"):
        if agent in ("random shooting", "CEM"):
            plan_with_one_network(task, config, run, agent)
        elif agent == "PETS":
            plan_with_particles(task, config, run)
        elif agent in ("PPO", "Dyna-PPO"):
            train_ppo(task, config, run, agent)
        else:
            train_sac(task, config, run, agent)


def log_trial(
    run: Run, task: Task, config: ComparisonConfig, agent: str, trial: Trial, planner: Planner | None
) -> None:
    """The row of a trial: how good its planner is (None: random actions), from the same starts for all.

    The model knows nothing of the trial's own steps yet, so they are not among its real steps.
    """
    from mbrl_course.pets import RandomPlanner

    if planner is None:
        generator = torch.Generator().manual_seed(run.seed)
        planner = RandomPlanner(task.action_low, task.action_high, generator)
    learned_from = trial.env_steps - len(trial.transitions.obs)
    costs = ledger(run, learned_from, trial.model_calls, 0, trial.model_updates)
    with run.not_counted():
        training = run.generator.get_state()  # the planner draws from it, too
        mean_return, _ = planner_return(task, planner, config.num_eval_episodes, run.seed)
        run.generator.set_state(training)
        run.log(variant=agent, eval_return=mean_return, **costs)


def plan_with_one_network(task: Task, config: ComparisonConfig, run: Run, agent: str) -> None:
    """Weeks 1 to 3: a deterministic model, refitted before each trial, and a planner."""
    from mbrl_course import cem, mpc
    from mbrl_course.dynamics import DynamicsConfig, DynamicsModel
    from mbrl_course.pets import RandomPlanner, trial_loop

    settings = settings_of(DynamicsConfig, config, ensemble_size=1, batch_size=32)
    model = DynamicsModel(
        task.obs_dim,
        task.action_dim,
        settings,
        reward=task.reward,
        terminated=task.terminated,
        generator=torch.Generator().manual_seed(run.seed),  # so that all planners start with the same trial
    )
    trials = restored_trials(run, model)
    counted, bounds = CountingModel(model), (task.action_low, task.action_high)
    planner: Planner
    if agent == "CEM":
        elites = max(2, config.population_size // 10)
        search = settings_of(cem.CEMConfig, config, num_elites=elites)
        planner = cem.CEMPlanner(counted, *bounds, search, run.generator)
    else:
        shooting = mpc.RandomShootingConfig(config.num_iterations * config.population_size, config.horizon)
        planner = mpc.RandomShootingPlanner(counted, *bounds, shooting, run.generator)
    random = RandomPlanner(*bounds, run.generator)

    def collect(planned: bool) -> tuple[Batch, int]:
        counted.calls = 0
        seed = int(torch.randint(2**31 - 1, (1,), generator=run.generator))
        return mpc.run_episode(task, planner if planned else random, seed), counted.calls

    def fit(data: Batch) -> int:
        losses = model.fit(data, max_epochs=config.model_epochs, generator=run.generator).train_losses
        return len(losses)

    def on_trial(number: int, trial: Trial) -> None:
        log_trial(run, task, config, agent, trial, planner if number else None)
        trials.append(trial)
        keep_trials(run, model, trials)

    trial_loop(collect, fit, config.num_trials, on_trial, tuple(trials))


def plan_with_particles(task: Task, config: ComparisonConfig, run: Run) -> None:
    """Week 5: PETS."""
    pets = settings_of(
        PETSTrialsConfig, config, num_particles=config.ensemble_size, max_epochs=config.model_epochs
    )

    def on_trial(number: int, trial: Trial, planner: PlanRecorder) -> None:
        log_trial(run, task, config, "PETS", trial, planner if number else None)

    run_trials(task, *pets.settings(), run, on_trial)


def train_ppo(task: Task, config: ComparisonConfig, run: Run, agent: str) -> None:
    """Week 6: PPO, with imagined batches or without."""
    from mbrl_course.dyna_ppo import DynaPPO, DynaPPOConfig

    settings = settings_of(
        DynaPPOConfig,
        config,
        use_model=agent == "Dyna-PPO",
        model_hidden_sizes=config.hidden_sizes,
        model_epochs=10,
        buffer_capacity=5000,
        entropy_coef=0.0,
    )
    learner = DynaPPO(task, settings, run.seed)
    if (state := run.restore()) is not None:
        learner.load_state_dict(state)
    batch = settings.num_envs * settings.num_steps

    def after_batch(learner: DynaPPO) -> None:
        spent = learner.ppo.counters
        last = spent.real_steps >= config.on_policy_steps
        if spent.real_steps % (4 * config.eval_every) >= batch and not last:
            return
        costs = ledger(run, spent.real_steps, spent.imagined_steps, spent.gradient_steps, spent.model_updates)
        with run.not_counted():
            policy = learner.ppo.policy
            returns = evaluate_together(
                task,
                lambda obs: learner.to_planned(policy.best_action(obs)),
                config.num_eval_episodes,
                run.seed,
            )
            run.log(variant=agent, eval_return=returns.mean(), **costs)
            run.checkpoint(learner.state_dict())

    learner.train(config.on_policy_steps, after_batch)


def train_sac(task: Task, config: ComparisonConfig, run: Run, agent: str) -> None:
    """Week 7: SAC, or MBPO with rollouts of one step; both take four updates per real step."""
    length = 1 if agent == "MBPO" else 0
    loop = settings_of(
        MBPORunConfig,
        config,
        total_steps=config.off_policy_steps,
        rollout_lengths=(length, length),
        learning_rate=3e-3,
        tau=0.02,
        initial_temperature=0.1,
        start_steps=200,
        updates_per_step=4,
        num_rollouts=2000,
        model_every=200,
        model_batch_size=32,
        model_hidden_sizes=config.hidden_sizes,
        num_elites=config.ensemble_size,
    )
    train_mbpo(task, loop.settings(), loop, run, variant=agent)
