"""Week 5: PETS, planning with particles in an ensemble of probabilistic networks.

Chua et al., 2018, "Deep reinforcement learning in a handful of trials using probabilistic dynamics models".
A plan is scored by many *particles*, each an imagined future of its own. What a particle's next state is
drawn from is the whole difference between the variants:

- TS1: at every step a member drawn anew, so the members' disagreement acts like noise;
- TS-infinity: the same member all the way, so each future is one that a single model believes in;
- mean: the mean of the elites' means, one particle, as if nothing were uncertain;
- single: one member per episode, drawn at its start, as in posterior sampling (Osband et al., 2013).

To a planner of weeks 2 and 3 the P particles look like the members of an ensemble: it needs no change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mbrl_course.buffers import Batch, concatenate
from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.ensembles import GaussianEnsemble, Prediction
from mbrl_course.envs.task import RewardFunction, Task, TerminationFunction
from mbrl_course.icem import ICEMConfig, ICEMPlanner
from mbrl_course.mpc import (
    Planner,
    RandomShootingConfig,
    RandomShootingPlanner,
    rank_invalid_last,
    run_episode,
)
from mbrl_course.mppi import MPPIConfig, MPPIPlanner
from mbrl_course.validation import need_at_least, need_whole

Propagation = Literal["ts1", "ts_inf", "mean", "single"]
PROPAGATIONS: tuple[Propagation, ...] = ("ts1", "ts_inf", "mean", "single")
StepResult = tuple[Tensor, Tensor, Tensor]
"""next_obs [P, N, D], reward [P, N] and terminated (bool) [P, N]."""
MemberStep = Callable[[Tensor, Tensor], StepResult]
"""`step(obs [K, M, D], action [K, M, A]) -> next_obs [K, M, D], reward [K, M], terminated [K, M]`: each
of the K members answers M rows of its own."""


def particle_step(
    prediction: Prediction,
    obs: Tensor,
    action: Tensor,
    reward: RewardFunction | None,
    terminated: TerminationFunction,
    generator: torch.Generator | None = None,
) -> StepResult:
    """What happens to each particle, given what its member predicts.

    Args:
        prediction: mean and variance of the next state [K, M, D] and, where it is learned, of the reward
            [K, M] (otherwise both are None).
        obs: where the particles are, [K, M, D].
        action: what they do, [K, M, A].
        reward: the task's reward function; asked only where the reward is not learned.
        terminated: the task's termination function.
        generator: source of randomness.

    Returns:
        next_obs [K, M, D], drawn from the Gaussians; reward [K, M], drawn as well where it is learned, else
        the task's for this transition; terminated [K, M].

    Raises:
        ValueError: the reward is not learned, and there is no function for it either.
    """
    noise = torch.randn(prediction.obs.shape, generator=generator)
    next_obs = prediction.obs + prediction.obs_var.sqrt() * noise
    if prediction.reward is not None and prediction.reward_var is not None:
        noise = torch.randn(prediction.reward.shape, generator=generator)
        reward_now = prediction.reward + prediction.reward_var.sqrt() * noise
    elif reward is not None:
        reward_now = reward(obs, action, next_obs)
    else:
        raise ValueError("there is no reward: the prediction has none, and reward is None")
    return next_obs, reward_now, terminated(next_obs)


def ts_inf_step(step: MemberStep, num_members: int, obs: Tensor, action: Tensor) -> StepResult:
    """Particles keep their member: the first P / K belong to the first one, and so on (TS-infinity).

    Args:
        step: one step of the K members, each with M = P / K * N rows of its own; called once.
        num_members: K.
        obs: [P, N, D], P a multiple of K.
        action: [P, N, A].

    Returns:
        next_obs [P, N, D], reward [P, N], terminated [P, N].
    """
    obs_rows, action_rows = (x.reshape(num_members, -1, x.shape[-1]) for x in (obs, action))  # [K, M, .]
    next_obs, reward, terminated = step(obs_rows, action_rows)
    shape = obs.shape[:2]
    return next_obs.reshape(obs.shape), reward.reshape(shape), terminated.reshape(shape)


def ts1_step(
    step: MemberStep,
    num_members: int,
    obs: Tensor,
    action: Tensor,
    generator: torch.Generator | None = None,
) -> StepResult:
    """At every step the particles of each plan are dealt out anew to the members, evenly (TS1).

    Args:
        step: one step of the K members, as in `ts_inf_step`.
        num_members: K.
        obs: [P, N, D], P a multiple of K.
        action: [P, N, A].
        generator: source of randomness.

    Returns:
        next_obs [P, N, D], reward [P, N], terminated [P, N].
    """
    seats = torch.rand(obs.shape[:2], generator=generator).argsort(dim=0)  # [P, N], who sits where
    plans = torch.arange(obs.shape[1])  # [N]
    results = ts_inf_step(step, num_members, obs[seats, plans], action[seats, plans])
    back = seats.argsort(dim=0)  # [P, N], where each particle sat
    next_obs, reward, terminated = (x[back, plans] for x in results)
    return next_obs, reward, terminated


def particle_average(returns: Tensor) -> Tensor:
    """The mean return over the particles [P, N] of each plan, [N]."""
    return returns.mean(dim=0)


def worst_case(returns: Tensor, num_members: int) -> Tensor:
    """The return of a plan in the member that likes it least.

    Args:
        returns: of P particles that keep their members as in `ts_inf_step`, [P, N].
        num_members: K.

    Returns:
        The smallest of the K members' mean returns, [N].
    """
    return returns.unflatten(0, (num_members, -1)).mean(dim=1).amin(dim=0)


def variance_penalised(returns: Tensor, penalty: float) -> Tensor:
    """Mean return over the particles [P, N] minus `penalty` standard deviations, [N]."""
    return returns.mean(dim=0) - penalty * returns.std(dim=0, correction=0)


@dataclass(frozen=True)
class PETSConfig:
    """How PETS plans and learns.

    Attributes:
        optimizer: how action sequences are searched for; the kind of configuration chooses the planner.
        propagation: "ts1", "ts_inf", "mean" or "single".
        num_particles: P; for "ts1" and "ts_inf" a multiple of the number of elites.
        robust: "mean" over the particles, "worst" over the members, or "variance" penalised.
        penalty: standard deviations that "variance" takes off.
        num_trials: episodes with the planner, after one with random actions.
        max_epochs: of each refit of the model.
    """

    optimizer: CEMConfig | MPPIConfig | ICEMConfig | RandomShootingConfig = field(default_factory=CEMConfig)
    propagation: Propagation = "ts_inf"
    num_particles: int = 20
    robust: Literal["mean", "worst", "variance"] = "mean"
    penalty: float = 0.5
    num_trials: int = 10
    max_epochs: int = 25

    def __post_init__(self) -> None:
        """Refuses values that make no sense, with the field's name."""
        if self.propagation not in PROPAGATIONS:
            raise ValueError(f"propagation is {self.propagation!r}, expected one of {PROPAGATIONS}")
        if self.robust not in ("mean", "worst", "variance"):
            raise ValueError(f"robust is {self.robust!r}, expected 'mean', 'worst' or 'variance'")
        if self.robust == "worst" and self.propagation != "ts_inf":
            raise ValueError(
                "robust is 'worst', expected propagation 'ts_inf': members must keep their particles"
            )
        need_whole(self, "num_particles", "num_trials")
        if self.robust == "variance" and (self.propagation == "mean" or self.num_particles == 1):
            got = (
                f"robust is 'variance', propagation {self.propagation!r}, num_particles {self.num_particles}"
            )
            raise ValueError(f"{got}, expected several particles: the future of one alone has no variance")
        need_at_least(self, 0, "penalty")
        need_whole(self, "max_epochs", least=0)


class ParticleModel:
    """An ensemble as planners see it in PETS: the P particles take the place of the members."""

    def __init__(
        self,
        ensemble: GaussianEnsemble,
        propagation: Propagation = "ts_inf",
        num_particles: int = 20,
        generator: torch.Generator | None = None,
    ) -> None:
        """Propagates `num_particles` particles through `ensemble`, whose generator is the default.

        Raises:
            ValueError: an unknown propagation, no particles, or TS1 or TS-infinity with a number of them that
                the elites can't share evenly.
        """
        if propagation not in PROPAGATIONS:
            raise ValueError(f"propagation is {propagation!r}, expected one of {PROPAGATIONS}")
        if num_particles < 1:
            raise ValueError(f"num_particles is {num_particles}, expected at least 1")
        self.ensemble, self.propagation = ensemble, propagation
        self.generator = ensemble.generator if generator is None else generator
        self.num_particles = 1 if propagation == "mean" else num_particles
        num_elites = ensemble.config.num_elites
        if propagation in ("ts1", "ts_inf") and num_particles % num_elites:
            expected = f"a multiple of the {num_elites} elites"
            raise ValueError(f"num_particles is {num_particles}, expected {expected}")
        self.member = ensemble.elites[:1]
        self.calls = 0  # imagined steps so far, over all particles and plans

    @property
    def ensemble_size(self) -> int:
        """P, the number of particles."""
        return self.num_particles

    def new_episode(self) -> None:
        """Draws the member that "single" follows for an episode."""
        chosen = torch.randint(len(self.ensemble.elites), (1,), generator=self.generator)
        self.member = self.ensemble.elites[chosen]

    def step(self, obs: Tensor, action: Tensor) -> StepResult:
        """One step of all particles: obs [P, N, D], action [P, N, A]; see `StepResult`."""
        self.calls += obs.shape[0] * obs.shape[1]
        if self.propagation == "mean":
            next_obs, reward, terminated = self.ensemble.step_mean(obs[0], action[0])
            return next_obs.unsqueeze(0), reward.unsqueeze(0), terminated.unsqueeze(0)  # [1, N, .]
        members = self.member if self.propagation == "single" else self.ensemble.elites

        def ask(obs: Tensor, action: Tensor) -> StepResult:
            prediction = self.ensemble.predict(obs, action, members)
            model = self.ensemble
            return particle_step(prediction, obs, action, model.reward, model.terminated, self.generator)

        if self.propagation == "ts1":
            return ts1_step(ask, len(members), obs, action, self.generator)
        return ts_inf_step(ask, len(members), obs, action)


def make_planner(
    ensemble: GaussianEnsemble,
    low: Tensor,
    high: Tensor,
    config: PETSConfig,
    generator: torch.Generator | None = None,
) -> PETSPlanner:
    """The planner that `config` describes.

    Args:
        ensemble: what it plans in.
        low: smallest action, [A].
        high: largest action, [A].
        config: how it searches, and how it judges plans.
        generator: source of randomness of particles and search.
    """
    model = ParticleModel(ensemble, config.propagation, config.num_particles, generator)
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": particle_average,
        "worst": lambda returns: worst_case(rank_invalid_last(returns), ensemble.config.num_elites),
        "variance": partial(variance_penalised, penalty=config.penalty),
    }
    aggregate = scores[config.robust]
    search: Planner
    if isinstance(config.optimizer, CEMConfig):
        search = CEMPlanner(model, low, high, config.optimizer, generator, aggregate)
    elif isinstance(config.optimizer, MPPIConfig):
        search = MPPIPlanner(model, low, high, config.optimizer, generator, aggregate)
    elif isinstance(config.optimizer, ICEMConfig):
        search = ICEMPlanner(model, low, high, config.optimizer, generator, aggregate)
    else:
        search = RandomShootingPlanner(model, low, high, config.optimizer, generator, aggregate)
    return PETSPlanner(model, search)


class PETSPlanner:
    """A planner of weeks 2 and 3 that searches with particles."""

    def __init__(self, model: ParticleModel, search: Planner) -> None:
        """Searches with `search` in `model`."""
        self.model, self.search = model, search

    def reset(self) -> None:
        """Forgets the last plan, and draws the member of a new episode."""
        self.search.reset()
        self.model.new_episode()

    def plan(self, obs: Tensor) -> Tensor:
        """The action sequence [H, A] to follow from the state obs [D]."""
        return self.search.plan(obs)


class Trial(NamedTuple):
    """One episode of the loop."""

    transitions: Batch
    trial_return: float
    env_steps: int  # all real steps so far
    model_calls: int = 0  # all imagined steps so far
    model_updates: int = 0  # all gradient steps of the ensemble so far


class RandomPlanner:
    """Plans of one random action: what the first trial follows."""

    def __init__(self, low: Tensor, high: Tensor, generator: torch.Generator | None = None) -> None:
        """Uniform actions between `low` [A] and `high` [A]."""
        self.low, self.high, self.generator = low, high, generator

    def reset(self) -> None:
        """Nothing to forget."""

    def plan(self, obs: Tensor) -> Tensor:
        """A random plan of one step, [1, A]."""
        return self.low + (self.high - self.low) * torch.rand(1, len(self.low), generator=self.generator)


def trial_loop(
    collect: Callable[[bool], tuple[Batch, int]],
    fit: Callable[[Batch], int],
    num_trials: int,
    on_trial: Callable[[int, Trial], bool | None] | None = None,
    past: Sequence[Trial] = (),
) -> list[Trial]:
    """The loop of PETS (Alg. 1): a random trial; then, trial by trial, refit to all data, and plan.

    Args:
        collect: runs one trial, with the planner (True) or with random actions (False); returns its
            transitions and the number of imagined steps that they took.
        fit: fits the model to transitions, and returns the number of gradient steps.
        num_trials: trials with the planner.
        on_trial: is told each new trial's number (0 is the random one) and result; returning True stops the
            loop.
        past: the trials of a loop that was interrupted, to go on after them.

    Returns:
        The trials, past ones first, `num_trials + 1` of them unless stopped.
    """
    trials = list(past)
    env_steps, model_calls, model_updates = trials[-1][2:] if trials else (0, 0, 0)
    for number in range(len(trials), num_trials + 1):
        if number > 0:
            model_updates += fit(concatenate([trial.transitions for trial in trials]))
        transitions, calls = collect(number > 0)
        env_steps += len(transitions.obs)
        model_calls += calls
        trial_return = float(transitions.reward.sum())
        trials.append(Trial(transitions, trial_return, env_steps, model_calls, model_updates))
        if on_trial is not None and on_trial(number, trials[-1]):
            break
    return trials


def pets_trials(
    task: Task,
    ensemble: GaussianEnsemble,
    config: PETSConfig,
    generator: torch.Generator,
    on_trial: Callable[[int, Trial], bool | None] | None = None,
    past: Sequence[Trial] = (),
    planner: PETSPlanner | None = None,
) -> list[Trial]:
    """PETS in a task: `trial_loop` with the ensemble, its planner and the environment.

    Args:
        task: what to learn.
        ensemble: untrained or trained; it is refitted, not reset, before each trial.
        config: settings.
        generator: source of all randomness, the seeds of the environment included.
        on_trial: see `trial_loop`.
        past: see `trial_loop`.
        planner: plans the trials; what `make_planner` makes of `config` by default.

    Returns:
        The trials, past ones first, `num_trials + 1` of them unless stopped.
    """
    bounds = (task.action_low, task.action_high)
    random = RandomPlanner(*bounds, generator)
    pets = planner or make_planner(ensemble, *bounds, config, generator)

    def collect(planned: bool) -> tuple[Batch, int]:
        pets.model.calls = 0
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        return run_episode(task, pets if planned else random, seed), pets.model.calls

    def fit(data: Batch) -> int:
        return ensemble.fit(data, max_epochs=config.max_epochs, generator=generator).num_updates

    return trial_loop(collect, fit, config.num_trials, on_trial, past)
