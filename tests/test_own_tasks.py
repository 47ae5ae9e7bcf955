"""What somebody meets who brings a task of their own: what is wrong is said, and nothing fails unseen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from mbrl_course.buffers import Batch
from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.clinic import shaped_task
from mbrl_course.dyna_ppo import DynaPPO, DynaPPOConfig
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import Task, check_task
from mbrl_course.evaluation import collect, evaluate
from mbrl_course.icem import ICEMConfig, ICEMPlanner
from mbrl_course.mbpo import MBPO, MBPOConfig
from mbrl_course.mpc import RandomShootingConfig, RandomShootingPlanner, run_episode
from mbrl_course.mppi import MPPIConfig, MPPIPlanner
from mbrl_course.pets import ParticleModel
from mbrl_course.ppo import PPO, PPOConfig
from mbrl_course.sac import SAC

DYNA = DynaPPOConfig(
    num_envs=2, num_steps=8, num_epochs=1, minibatch_size=8, model_start=16, model_epochs=1, imag_batches=1,
    imag_rollouts=4, imag_horizon=2, ensemble_size=2, model_hidden_sizes=(8,), hidden_sizes=(8,),
)  # fmt: skip
SMALL = MBPOConfig(
    hidden_sizes=(8,), batch_size=8, start_steps=10, updates_per_step=1, num_rollouts=10, model_every=10,
    model_epochs=1, ensemble_size=2, num_elites=2, model_hidden_sizes=(8,),
)  # fmt: skip


class Point(gym.Env):
    """A point with a position and a speed, as somebody else would write it."""

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        in_place: bool = False,
        random: bool = False,
        broken_at: int = 10**9,
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), dtype=np.float32)
        self.action_space = gym.spaces.Box(low, high, (1,), dtype=np.float32)
        self.low, self.high = low, high
        self.in_place, self.random, self.broken_at, self.steps = in_place, random, broken_at, 0
        self.state = np.zeros(2, dtype=np.float32)
        self.seen: list[float] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.state[:] = self.np_random.uniform(-1, 1, 2)
        return (self.state if self.in_place else self.state.copy()), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict]:
        self.seen.append(float(action[0]))
        force = np.float32(2 * (action[0] - self.low) / (self.high - self.low) - 1)  # in [-1, 1]
        self.state[1] += np.float32(0.1) * force
        self.state[0] += np.float32(0.1) * self.state[1]
        if self.random:
            self.state += 0.3 * np.random.randn(2).astype(np.float32)  # not the generator that reset seeds
        self.steps += 1
        reward = np.float64(-(self.state[0] ** 2)) if self.steps != self.broken_at else np.nan
        return (self.state if self.in_place else self.state.copy()), reward, False, False, {}


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    gym.register("Point-v0", lambda **kwargs: Point(**kwargs), max_episode_steps=20)
    gym.register("PointWithoutLimit-v0", lambda **kwargs: Point(**kwargs))
    yield
    for name in ("Point-v0", "PointWithoutLimit-v0"):
        del gym.registry[name]


def dynamics(obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    speed = obs[..., 1] + 0.1 * action[..., 0]
    return torch.stack([obs[..., 0] + 0.1 * speed, speed], dim=-1)


POINT = dict(
    name="point",
    env_id="Point-v0",
    obs_dim=2,
    action_dim=1,
    action_low=[-1.0],
    action_high=[1.0],
    max_steps=20,
    reward=lambda obs, action, next_obs: -next_obs[..., 0].square(),
    dynamics=dynamics,
)


def point(**changes: Any) -> Task:
    return Task(**{**POINT, **changes})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- what is wrong with a task is said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_low": [-torch.inf]}, r"action_low is \[-inf\], expected a finite number for each action"),
        (
            {"action_low": [1.0], "action_high": [-1.0]},
            r"action_low is \[1.0\], expected below high, .* \[-1.0\]",
        ),
        (
            {"action_low": [-1.0] * 2, "action_high": [1.0] * 2},
            r"action_low is \[-1.0, -1.0\], expected \[1\]",
        ),
        ({"max_steps": -1}, "max_steps is -1, expected a whole number of at least 1"),
        ({"max_steps": 2.5}, r"max_steps is 2\.5, expected a whole number of at least 1"),
        ({"action_low": -1.0}, r"action_low is -1.0, expected a finite number for each action, \[A\]"),
        (
            {"reward": lambda o, a, n: -n[..., :1]},
            r"reward .* shape \[3, 4, 1\], expected torch.float32 .* \[3, 4\]",
        ),
        ({"reward": lambda o, a, n: 1.0}, r"reward of states of shape \[3, 4, 2\] is a float, expected"),
        (
            {"reward": lambda o, a, n: (n[..., 0] > 0).long()},
            r"reward .* is torch.int64 of shape .*torch.float32",
        ),
        (
            {"reward": lambda o, a, n: n[..., 0].double()},
            r"reward .* is torch.float64 of shape .*torch.float32",
        ),
        (
            {"terminated": lambda n: (n[..., 0] > 0).long()},
            r"terminated .* is torch.int64 .* expected torch.bool",
        ),
        (
            {"terminated": lambda n: n[:, 0] > 0},
            r"terminated .* shape \[3, 2\], expected torch.bool .* \[3, 4\]",
        ),
        ({"dynamics": lambda o, a: o[..., 0]}, r"dynamics .* shape \[3, 4\], expected .* \[3, 4, 2\]"),
    ],
)
def test_a_task_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        point(**changes)


def test_bounds_may_be_arrays_of_float64() -> None:
    task = point(action_low=np.array([-1.0]), action_high=np.array([1.0]))
    assert task.action_low.dtype == task.action_high.dtype == torch.float32
    planner = CEMPlanner(task, task.action_low, task.action_high, CEMConfig(20, 4, 2, horizon=3), generator())
    assert planner.plan(torch.zeros(2)).dtype == torch.float32
    assert dataclasses.replace(task, name="other").name == "other"


def test_check_task_finds_nothing_in_a_right_one() -> None:
    check_task(point())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_dim": 3, "dynamics": None}, r"after 0 steps .* expected 3 finite numbers, the task's obs_dim"),
        (
            {"reward": lambda o, a, n: -o[..., 0].square()},
            r"step \d+: the task's reward is -[\d.e-]+, the env",
        ),
        (
            {"terminated": lambda n: n[..., 0] > -9.0},
            r"step 1: the task's terminated is True, the environment's Fal",
        ),
        ({"dynamics": lambda o, a: o}, r"step \d+: the task's dynamics is \[.*\], the environment's \["),
        ({"max_steps": 30, "env_kwargs": {"max_episode_steps": 20}}, r"off after 20 steps, max_steps is 30"),
        (
            {"to_env_action": lambda a: a.double().numpy() * 2 + 3},
            r"to_env_action turns \[.*\] into .*, expected an",
        ),
    ],
)
def test_check_task_says_what_differs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_task(point(**changes))


# --- environments that are not ours


def test_max_steps_holds_where_the_registration_has_no_limit() -> None:
    task = point(env_id="PointWithoutLimit-v0", max_steps=7)
    spec = task.make_env().spec
    assert spec is not None and spec.max_episode_steps == 7  # the rest would not end otherwise
    assert len(evaluate(task, lambda obs: torch.ones(1), 2)) == 2
    planner = RandomShootingPlanner(
        task, task.action_low, task.action_high, RandomShootingConfig(4, 2), generator()
    )
    episode = run_episode(task, planner, seed=0)
    assert len(episode.obs) == 7
    assert bool(episode.truncated[-1])
    agent = MBPO(task, SMALL, 0)
    agent.train(15)
    assert [steps for steps, _ in agent.episode_returns] == [7, 14]


@pytest.mark.filterwarnings("ignore:.*share an object")
def test_an_environment_may_go_on_in_the_array_that_it_returned() -> None:
    task = point(env_kwargs={"in_place": True})
    plain = point()
    for made in (task, plain):
        agent = MBPO(made, SMALL, 0)
        agent.train(9)
        data = agent.real.all()
        assert (data.obs - data.next_obs).abs().amax(dim=1).min() > 0
        torch.testing.assert_close(data.next_obs[:-1], data.obs[1:])
    planner = RandomShootingPlanner(
        task, task.action_low, task.action_high, RandomShootingConfig(4, 2), generator()
    )
    episode = run_episode(task, planner, seed=0)
    assert len(episode.obs.unique(dim=0)) == len(episode.obs)
    data = collect(task, lambda obs: torch.ones(1), 30).data
    assert (data.obs - data.next_obs).abs().amax(dim=1).min() > 0

    told: list[tuple[torch.Tensor, ...]] = []
    learner = PPO("Point-v0", PPOConfig(num_envs=2, num_steps=25), 0, in_place=True)  # past an end, at 20
    learner.collect(lambda *transition: told.append(transition))
    assert bool(told[19][5].all())
    for obs, action, _, next_obs, *_ in told:
        torch.testing.assert_close(next_obs, dynamics(obs, action.clamp(-1, 1)))

    shaped = shaped_task(task, lambda obs: obs[..., 0], 1.0)
    shaped_env, env = shaped.make_env(), plain.make_env()
    before = shaped_env.reset(seed=0)[0].copy()
    env.reset(seed=0)
    for _ in range(3):
        after, paid, *_ = shaped_env.step(np.ones(1, dtype=np.float32))
        bonus = float(paid) - float(env.step(np.ones(1, dtype=np.float32))[1])
        assert bonus == pytest.approx(after[0] - before[0], abs=1e-6)
        before = after.copy()


def test_a_reward_that_is_no_number_is_named() -> None:
    agent = PPO(lambda: Point(broken_at=5), PPOConfig(num_envs=2, num_steps=8), 0)
    with pytest.raises(
        ValueError, match=r"the environments' reward is \[nan, nan\], expected finite numbers"
    ):
        agent.train(16)


def test_a_resume_that_leads_elsewhere_is_refused() -> None:
    task = point(env_kwargs={"random": True})
    first, second = MBPO(task, SMALL, 0), MBPO(task, SMALL, 0)
    first.train(8)
    with pytest.raises(
        ValueError, match=r"lead to the observation .* a source that reset\(seed=...\) does not"
    ):
        second.load_state_dict(first.state_dict())


# --- actions


def test_dyna_ppo_acts_through_the_tasks_own_translation() -> None:
    """The environment wants 0 to 100, the task plans from -1 to 1: the model is told what it got."""

    def to_env_action(action: torch.Tensor) -> np.ndarray:
        return (50 + 50 * action).numpy().astype(np.float32)

    task = point(env_kwargs={"low": 0.0, "high": 100.0}, to_env_action=to_env_action)
    check_task(task)
    agent = DynaPPO(task, DYNA, 0)
    agent.train(32)
    seen = [env.unwrapped.seen for env in agent.ppo.envs.envs]  # type: ignore[attr-defined]
    told = agent.visited.all().action.squeeze(1)  # two batches, each one environment after the other
    planned = torch.cat([torch.tensor(env[part]) for part in (slice(8), slice(8, 16)) for env in seen])
    torch.testing.assert_close(50 + 50 * told, planned)
    torch.testing.assert_close(dynamics(agent.visited.all().obs, told[:, None]), agent.visited.all().next_obs)
    assert agent.act(torch.zeros(3, 2)).shape == (3, 1)
    assert len(evaluate(task, agent.act, 1)) == 1


class Numbered(Point):
    """Two actions, numbered from 1 on."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Discrete(2, start=1)
        self.numbers: set[int] = set()

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.numbers.add(int(action))
        self.state[1] += np.float32(0.1) * (2 * int(action) - 3)
        self.state[0] += np.float32(0.1) * self.state[1]
        return self.state.copy(), -1.0, False, False, {}


def test_a_discrete_space_may_begin_elsewhere() -> None:
    agent = PPO(Numbered, PPOConfig(num_envs=2, num_steps=16), 0)
    agent.train(32)
    assert {n for env in agent.envs.envs for n in env.unwrapped.numbers} == {1, 2}  # type: ignore[attr-defined]
    assert set(agent.act(torch.randn(50, 2)).tolist()) <= {1, 2}

    gym.register("Numbered-v0", lambda **kwargs: Numbered(), max_episode_steps=20)
    try:
        task = point(env_id="Numbered-v0", to_env_action=lambda action: 1 + int(action[0] > 0))
        dyna = DynaPPO(task, DYNA, 0)
        dyna.train(16)
        assert set(dyna.visited.all().action.flatten().tolist()) <= {-1.0, 1.0}
        with pytest.raises(ValueError, match=r"turns \[-1.0, 1.0\] into \[0, 1\], not 1 to 2"):
            DynaPPO(point(env_id="Numbered-v0", to_env_action=lambda action: int(action[0] > 0)), DYNA, 0)
    finally:
        del gym.registry["Numbered-v0"]


def test_ppo_acts_as_it_was_trained_and_refuses_bounds_without_zero() -> None:
    agent = PPO(Point, PPOConfig(num_envs=1, num_steps=8), 0)
    with torch.no_grad():
        list(agent.policy.actor.parameters())[-1].fill_(5.0)
    assert agent.act(torch.zeros(2)).tolist() == [1.0]
    with pytest.raises(
        ValueError, match=r"'point' plans in \[0.5\] to \[1.0\], .* translate them in to_env_"
    ):
        DynaPPO(point(action_low=[0.5]), DYNA, 0)
    with pytest.raises(
        ValueError, match=r"actions in Box\(50.0, 100.0, .*, expected bounds around 0.*RescaleAction"
    ):
        PPO(lambda: Point(low=50.0, high=100.0), PPOConfig(num_envs=1), 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda low, high: CEMPlanner(point(), low, high),
        lambda low, high: ICEMPlanner(point(), low, high),
        lambda low, high: MPPIPlanner(point(), low, high),
        lambda low, high: RandomShootingPlanner(point(), low, high),
        lambda low, high: SAC(2, low, high),
    ],
)
def test_bounds_are_checked_where_actions_are_made(make: Any) -> None:
    make(np.array([-1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match=r"low is \[1.0\], expected below high"):
        make(torch.ones(1), -torch.ones(1))
    with pytest.raises(ValueError, match=r"high is \[inf\], expected a finite number"):
        make(-torch.ones(1), torch.full((1,), torch.inf))


# --- planning in a model of one's own


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (RandomShootingPlanner, RandomShootingConfig(8, 3)),
        (CEMPlanner, CEMConfig(8, 2, 1, horizon=3)),
        (ICEMPlanner, ICEMConfig(8, 2, 1, horizon=3)),
        (MPPIPlanner, MPPIConfig(8, 1, horizon=3)),
    ],
)
def test_scores_that_are_not_one_for_each_plan_are_refused(kind: Any, config: Any) -> None:
    planner = kind(point(), [-1.0], [1.0], config, generator(), lambda returns: returns.mean())
    with pytest.raises(ValueError, match=r"the scores have shape \[\], expected \[[89]\], one for each"):
        planner.plan(torch.zeros(2))


@pytest.mark.parametrize("kind", [CEMPlanner, ICEMPlanner, MPPIPlanner])
def test_a_plan_belongs_to_whoever_asked_for_it(kind: Any) -> None:
    configs = {
        CEMPlanner: CEMConfig(20, 4, 2, horizon=3),
        ICEMPlanner: ICEMConfig(40, 8, 3, horizon=5),
        MPPIPlanner: MPPIConfig(20, 2, horizon=3),
    }
    plans = []
    for spoil in (False, True):
        planner = kind(point(), [-1.0], [1.0], configs[kind], generator())
        for _ in range(6):
            plan = planner.plan(torch.ones(2))
            plans.append(plan.clone())
            if spoil:
                plan.zero_()
    assert torch.equal(torch.stack(plans[:6]), torch.stack(plans[6:]))


def test_what_is_drawn_in_an_ensemble_comes_from_its_generator() -> None:
    plans = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        ensemble = GaussianEnsemble(
            2, 1, EnsembleConfig(2, 2, (8,)), reward=point().reward, generator=generator(3)
        )
        planner = CEMPlanner(ensemble, [-1.0], [1.0], CEMConfig(20, 4, 2, horizon=3), generator())  # type: ignore[arg-type]
        plans.append(planner.plan(torch.ones(2)))
        plans.append(ensemble.step_random_elites(torch.ones(5, 2), torch.ones(5, 1))[0])
        particles = ParticleModel(ensemble, "ts1", 4)
        plans.append(particles.step(torch.ones(4, 3, 2), torch.ones(4, 3, 1))[0])
        data = Batch(*(torch.arange(20.0).reshape(10, 2),) * 2, *(torch.zeros(10),) * 4)
        ensemble.fit(data._replace(action=torch.ones(10, 1), next_obs=data.obs + 1), max_epochs=2)
        plans.append(ensemble.network.weights[0].detach().clone())
    assert all(torch.equal(a, b) for a, b in zip(plans[:4], plans[4:], strict=True))


def test_whoever_looks_at_an_agents_model_does_not_change_the_agent() -> None:
    def look(agent: MBPO) -> None:
        agent.model.step(torch.ones(1, 2), torch.ones(1, 1))

    agents = [MBPO(point(), SMALL, 0) for _ in range(2)]
    for agent, on_step in zip(agents, (None, look), strict=True):
        agent.train(40, on_step)
    first, second = (flat(agent.state_dict()) for agent in agents)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_particles_are_checked() -> None:
    ensemble = GaussianEnsemble(2, 1, EnsembleConfig(2, 2, (8,)))
    with pytest.raises(ValueError, match="propagation is 'TS1', expected one of"):
        ParticleModel(ensemble, "TS1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_particles is 0, expected at least 1"):
        ParticleModel(ensemble, "single", 0)


# --- states of agents


def flat(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else []
    return [tensor for value in values for tensor in flat(value)]


@pytest.mark.parametrize("kind", ["MBPO", "DynaPPO", "PPO"])
def test_a_state_is_a_copy_and_stays_one(kind: str) -> None:
    def make() -> Any:
        if kind == "PPO":
            return PPO("Point-v0", PPOConfig(num_envs=2, num_steps=8, num_epochs=1, hidden_sizes=(8,)), 0)
        return MBPO(point(), SMALL, np.int64(0)) if kind == "MBPO" else DynaPPO(point(), DYNA, np.int64(0))  # type: ignore[arg-type]

    agent = make()
    agent.train(32)
    state = agent.state_dict()
    kept = [tensor.clone() for tensor in flat(state)]
    agent.train(64)
    first, second = make(), make()
    for other in (first, second):
        other.load_state_dict(state)
        other.train(64)
    assert all(torch.equal(a, b) for a, b in zip(kept, flat(state), strict=True))
    for other in (first, second):
        ends = zip(flat(agent.state_dict()), flat(other.state_dict()), strict=True)
        assert all(torch.equal(a, b) for a, b in ends)
