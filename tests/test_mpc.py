"""Rollouts, returns, random shooting, receding horizon and the on-policy loop, against independent truths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbrl_course.buffers import Batch
from mbrl_course.dynamics import DynamicsConfig, DynamicsModel
from mbrl_course.envs import Task, get_task, list_tasks
from mbrl_course.mpc import (
    RandomShootingConfig,
    RandomShootingPlanner,
    make_score_fn,
    on_policy_loop,
    random_shooting,
    rank_invalid_last,
    receding_horizon,
    rollout,
    run_episode,
    sequence_returns,
)

sizes = st.integers(1, 4)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class LinearModel:
    """s' = A_e s + B_e a for each member, reward -(s' Q s' + a R a); it never ends."""

    def __init__(self, ensemble_size: int, obs_dim: int, action_dim: int, seed: int = 0) -> None:
        generator = seeded(seed)
        self.ensemble_size = ensemble_size
        self.a = 0.5 * torch.randn(ensemble_size, obs_dim, obs_dim, generator=generator, dtype=torch.float64)
        self.b = torch.randn(ensemble_size, obs_dim, action_dim, generator=generator, dtype=torch.float64)

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        next_obs = torch.einsum("eij,enj->eni", self.a, obs) + torch.einsum("eij,enj->eni", self.b, action)
        reward = -next_obs.square().sum(-1) - 0.1 * action.square().sum(-1)
        return next_obs, reward, torch.zeros(reward.shape, dtype=torch.bool)


# --- rollout -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(sizes, sizes, sizes, sizes, sizes)
def test_rollout_of_a_linear_system_is_the_matrix_power_series(
    e: int, n: int, h: int, d: int, a: int
) -> None:
    model = LinearModel(e, d, a, seed=e + 10 * n)
    start = torch.randn(d, generator=seeded(h), dtype=torch.float64)
    actions = torch.randn(n, h, a, generator=seeded(d), dtype=torch.float64)
    imagined = rollout(model.step, start, actions, e)
    assert imagined.obs.shape == (e, n, h + 1, d)
    assert imagined.rewards.shape == imagined.terminated.shape == (e, n, h)
    assert imagined.terminated.dtype == torch.bool
    power = torch.linalg.matrix_power
    for t in range(h + 1):  # s_t = A^t s_0 + sum_k A^(t - 1 - k) B a_k
        expected = (power(model.a, t) @ start)[:, None].expand(e, n, d)
        for k in range(t):
            expected = expected + torch.einsum(
                "eij,nj->eni", power(model.a, t - 1 - k) @ model.b, actions[:, k]
            )
        torch.testing.assert_close(imagined.obs[:, :, t], expected)
    rewards = -imagined.obs[:, :, 1:].square().sum(-1) - 0.1 * actions.square().sum(-1)
    torch.testing.assert_close(imagined.rewards, rewards)


@pytest.mark.parametrize("name", ["obstacles", "pendulum", "cartpole", "cartpole-swingup"])
def test_rollout_in_the_true_dynamics_is_what_the_environment_does(name: str) -> None:
    task = get_task(name)
    horizon = 20
    env = task.make_env()
    first, _ = env.reset(seed=3)
    uniform = torch.rand(1, horizon, task.action_dim, generator=seeded(1))
    actions = task.action_low + (task.action_high - task.action_low) * uniform
    imagined = rollout(task.step, torch.as_tensor(np.asarray(first), dtype=torch.float32), actions)
    rewards, ended = [], False
    for t in range(horizon):
        obs, reward, ended, _, _ = env.step(task.to_env_action(actions[0, t]))
        rewards.append(float(reward))
        real = torch.as_tensor(np.asarray(obs), dtype=torch.float32)
        torch.testing.assert_close(imagined.obs[0, 0, t + 1], real, rtol=1e-3, atol=1e-3)
        assert bool(imagined.terminated[0, 0, t]) == ended
        if ended:
            break
    env.close()
    returns = sequence_returns(imagined.rewards, imagined.terminated)
    assert returns.item() == pytest.approx(sum(rewards), rel=1e-3, abs=1e-3)


def test_members_of_a_learned_ensemble_go_on_from_their_own_predictions() -> None:
    model = DynamicsModel(
        3, 2, DynamicsConfig(ensemble_size=2, hidden_sizes=(8,), learn_reward=True), generator=seeded()
    )
    actions = torch.randn(5, 4, 2, generator=seeded(1))
    start = torch.randn(3, generator=seeded(2))
    with torch.inference_mode():
        imagined = rollout(model.step, start, actions, model.ensemble_size)
        for member in range(2):
            for sequence in range(5):
                obs = start
                for t in range(4):
                    both, rewards, _ = model.step(obs[None], actions[sequence, t][None])
                    obs = both[member, 0]
                    torch.testing.assert_close(imagined.obs[member, sequence, t + 1], obs)
                    torch.testing.assert_close(imagined.rewards[member, sequence, t], rewards[member, 0])


# --- returns -------------------------------------------------------------------------------------


def returns_by_hand(rewards: list[float], ends: list[bool]) -> float:
    total = 0.0
    for reward, end in zip(rewards, ends, strict=True):
        total += reward
        if end:
            break
    return total


rows = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.booleans()),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(rows)
def test_returns_are_those_of_a_loop_that_stops_at_the_end(row: list[tuple[float, bool]]) -> None:
    rewards, ends = [reward for reward, _ in row], [end for _, end in row]
    result = sequence_returns(torch.tensor(rewards), torch.tensor(ends))
    assert result.shape == ()
    assert result.item() == pytest.approx(returns_by_hand(rewards, ends), rel=1e-4, abs=1e-3)


def test_returns_of_any_leading_shape() -> None:
    rewards = torch.randn(2, 3, 4, 6, generator=seeded())
    ends = torch.rand(2, 3, 4, 6, generator=seeded(1)) < 0.2
    result = sequence_returns(rewards, ends)
    assert result.shape == (2, 3, 4)
    for place in np.ndindex(2, 3, 4):
        expected = returns_by_hand(rewards[place].tolist(), ends[place].tolist())
        assert result[place].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -float("inf")])
def test_nonsense_counts_before_the_end_and_not_after_it(nonsense: float) -> None:
    rewards = torch.tensor([[1.0, 2.0, nonsense], [nonsense, 2.0, 3.0]])
    ends = torch.tensor([[False, True, False]] * 2)
    result = sequence_returns(rewards, ends)
    assert result[0] == 3.0
    assert not torch.isfinite(result[1])


# --- scores --------------------------------------------------------------------------------------


def test_invalid_scores_become_minus_infinity_and_valid_ones_stay() -> None:
    nan, inf = float("nan"), float("inf")
    ranked = rank_invalid_last(torch.tensor([1.0, nan, inf, -inf, -1e30]))
    assert ranked.tolist() == [1.0, -inf, -inf, -inf, pytest.approx(-1e30)]


def test_a_score_is_the_mean_return_of_the_members_or_what_the_aggregate_says() -> None:
    model = LinearModel(3, 2, 1)
    start = torch.ones(2, dtype=torch.float64)
    actions = torch.randn(6, 4, 1, generator=seeded(), dtype=torch.float64)
    alone = []
    for member in range(3):
        single = LinearModel(1, 2, 1)
        single.a, single.b = model.a[member : member + 1], model.b[member : member + 1]
        alone.append(make_score_fn(single, start)(actions))
    torch.testing.assert_close(make_score_fn(model, start)(actions), torch.stack(alone).mean(0))
    worst = make_score_fn(model, start, lambda returns: returns.min(dim=0).values)(actions)
    torch.testing.assert_close(worst, torch.stack(alone).min(dim=0).values)


class Broken:
    """A model whose state becomes `nonsense` where an action is above 0.9, and else stays as it is."""

    ensemble_size = 1

    def __init__(self, task: Task, nonsense: float) -> None:
        self.task, self.nonsense = task, nonsense

    def step(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        next_obs = obs.masked_fill(action.amax(dim=-1, keepdim=True) > 0.9, self.nonsense)
        return next_obs, self.task.reward(obs, action, next_obs), self.task.terminated(next_obs)


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", list_tasks())
def test_a_plan_that_breaks_the_model_never_wins_whatever_the_reward(name: str, nonsense: float) -> None:
    task = get_task(name)
    obs = torch.as_tensor(task.make_env().reset(seed=0)[0], dtype=torch.float32)
    plans = torch.zeros(2, 3, task.action_dim)
    plans[0, 1:] = 1.0
    scores = rank_invalid_last(make_score_fn(Broken(task, nonsense), obs)(plans))
    assert scores[1].isfinite()
    assert scores[0] < scores[1]


def test_scoring_keeps_no_graph() -> None:
    model = DynamicsModel(2, 1, DynamicsConfig(hidden_sizes=(4,), learn_reward=True), generator=seeded())
    scores = make_score_fn(model, torch.zeros(2))(torch.zeros(3, 2, 1))
    assert not scores.requires_grad


def test_a_planner_refuses_more_than_one_state() -> None:
    task = get_task("pendulum")
    planner = RandomShootingPlanner(task, task.action_low, task.action_high)
    with pytest.raises(ValueError, match=r"obs has shape \[2, 3\], expected the one state to plan from"):
        planner.plan(torch.zeros(2, 3))


# --- random shooting -----------------------------------------------------------------------------


def test_random_shooting_comes_near_the_optimum_of_a_linear_quadratic_problem() -> None:
    model = LinearModel(1, 2, 1, seed=4)
    start = torch.tensor([1.0, -1.0], dtype=torch.float64)
    # The return is quadratic in the actions, so finite differences are exact and its maximum solves a system.
    score = make_score_fn(model, start)
    zero, unit = torch.zeros(1, 2, 1, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[:, :, None]
    base = score(zero)[0]
    gradient = (score(unit) - score(-unit)) / 2  # [2]
    diagonal = score(unit) + score(-unit) - 2 * base
    mixed = score((unit[0] + unit[1])[None])[0] - score(unit[:1])[0] - score(unit[1:])[0] + base
    hessian = torch.diag(diagonal) + mixed * (1 - torch.eye(2, dtype=torch.float64))
    best = torch.linalg.solve(hessian, -gradient)  # [2]
    bound = best.abs().max().ceil()[None] + 1
    plan = random_shooting(lambda s: score(s.double()), -bound, bound, 20_000, 2, seeded())
    optimum = score(best.reshape(1, 2, 1))[0]
    found = score(plan.double()[None])[0]
    assert found <= optimum + 1e-9
    assert optimum - found < 0.02 * (optimum - base).abs()


@settings(deadline=None, max_examples=25)
@given(sizes, sizes, st.integers(1, 30), st.integers(0, 1000))
def test_plans_keep_the_bounds_and_are_the_best_of_what_was_scored(h: int, a: int, n: int, seed: int) -> None:
    low = -torch.rand(a, generator=seeded(seed)) - 0.1
    high = low + 5 * torch.rand(a, generator=seeded(seed + 1))
    seen: list[Tensor] = []

    def score_fn(sequences: Tensor) -> Tensor:
        seen.append(sequences)
        return sequences.sum(dim=(1, 2))

    plan = random_shooting(score_fn, low, high, n, h, seeded(seed))
    (sequences,) = seen
    assert sequences.shape == (n, h, a)
    assert bool(((sequences >= low) & (sequences <= high)).all())
    assert plan.shape == (h, a)
    assert plan.sum() >= sequences.sum(dim=(1, 2)).max() - 1e-5
    assert plan.untyped_storage().nbytes() == plan.nbytes  # not a view of all the sequences


@pytest.mark.parametrize("invalid", [float("nan"), float("inf"), -float("inf")])
def test_a_plan_with_an_invalid_score_is_never_chosen_while_there_are_others(invalid: float) -> None:
    def score_fn(sequences: Tensor) -> Tensor:
        return torch.where(sequences[:, 0, 0] > -0.8, torch.full((len(sequences),), invalid), -torch.ones(1))

    for seed in range(10):
        plan = random_shooting(score_fn, -torch.ones(1), torch.ones(1), 200, 2, seeded(seed))
        assert plan[0, 0] <= -0.8


def test_actions_are_uniform_between_the_bounds() -> None:
    from scipy import stats

    seen: list[Tensor] = []

    def score_fn(sequences: Tensor) -> Tensor:
        seen.append(sequences)
        return torch.zeros(len(sequences))

    random_shooting(score_fn, torch.tensor([-3.0, 0.0]), torch.tensor([1.0, 0.5]), 3000, 2, seeded())
    for t in range(2):
        assert stats.kstest(seen[0][:, t, 0].numpy(), stats.uniform(-3.0, 4.0).cdf).pvalue > 1e-3
        assert stats.kstest(seen[0][:, t, 1].numpy(), stats.uniform(0.0, 0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("field", ["num_sequences", "horizon"])
def test_a_configuration_that_makes_no_sense_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0, expected at least 1"):
        RandomShootingConfig(**{field: 0})


# --- receding horizon ----------------------------------------------------------------------------


def counting_env(end: int, cut: int) -> Callable[[Tensor], tuple[Tensor, float, bool, bool]]:
    """An environment whose state adds up the actions; it ends at step `end`, and is cut at step `cut`."""
    state = {"step": 0, "sum": 0.0}

    def env_step(action: Tensor) -> tuple[Tensor, float, bool, bool]:
        assert state["step"] not in (end, cut) or state["step"] == 0, "stepped after the end"
        state["step"] += 1
        state["sum"] += action.item()
        return torch.tensor([state["sum"]]), -state["sum"], state["step"] == end, state["step"] == cut

    return env_step


@settings(deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 8))
def test_an_episode_ends_where_it_ends_and_at_the_limit_at_last(end: int, cut: int, limit: int) -> None:
    def plan(obs: Tensor) -> Tensor:
        return torch.stack([obs + 1, torch.full_like(obs, 100.0)])  # only the first may be carried out

    episode = receding_horizon(torch.zeros(1), plan, counting_env(end, cut), limit)
    length = min(step for step in (end or 99, cut or 99, limit))
    assert [len(column) for column in episode] == [length] * 6
    # s' = s + (s + 1): s_t = 2^t - 1
    states = torch.tensor([[2.0**t - 1] for t in range(length + 1)])
    torch.testing.assert_close(episode.obs, states[:-1])
    torch.testing.assert_close(episode.next_obs, states[1:])
    torch.testing.assert_close(episode.action, states[:-1] + 1)
    torch.testing.assert_close(episode.reward, -states[1:, 0])
    assert episode.terminated.tolist() == [step + 1 == end for step in range(length)]
    assert episode.truncated.tolist() == [step + 1 == cut for step in range(length)]


def test_replanning_in_the_true_dynamics_reaches_the_goal_and_is_repeatable() -> None:
    task = get_task("obstacles")
    config = RandomShootingConfig(num_sequences=200, horizon=5)
    episodes = []
    for _ in range(2):
        planner = RandomShootingPlanner(task, task.action_low, task.action_high, config, seeded(1))
        episodes.append(run_episode(task, planner, seed=5))
    first, second = episodes
    for column, again in zip(first, second, strict=True):
        torch.testing.assert_close(column, again, rtol=0, atol=0)
    assert bool(first.terminated[-1])
    assert (first.next_obs[-1, :2] - first.next_obs[-1, 2:]).norm() <= 0.1
    torch.testing.assert_close(first.obs[1:], first.next_obs[:-1])


def test_an_episode_stops_after_max_steps_and_starts_with_a_reset_of_the_planner() -> None:
    task = get_task("pendulum")
    resets = []

    class Lazy:
        def plan(self, obs: Tensor) -> Tensor:
            return torch.zeros(3, 1)

        def reset(self) -> None:
            resets.append(True)

    episode = run_episode(task, Lazy(), seed=0, max_steps=7)
    assert len(episode.obs) == 7
    assert not episode.truncated.any() and not episode.terminated.any()
    assert len(resets) == 1
    assert bool(run_episode(task, Lazy(), seed=0).truncated[-1])


# --- the on-policy loop --------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 100))
def test_each_fit_sees_all_data_so_far_and_its_policy_collects_the_next(iterations: int, seed: int) -> None:
    counts = torch.randint(1, 5, (iterations + 1,), generator=seeded(seed)).tolist()
    fits: list[list[float]] = []
    policies: list[object] = []

    def collect(policy: object) -> tuple[Batch, float]:
        policies.append(policy)
        number = len(policies) - 1
        start = sum(counts[:number])
        values = torch.arange(start, start + counts[number]).float()
        no = torch.zeros(len(values), dtype=torch.bool)
        return Batch(values[:, None], values[:, None], values, values[:, None], no, no), float(number)

    def fit(data: Batch) -> Callable[[Tensor], Tensor]:
        fits.append(data.reward.tolist())
        number = float(len(fits))
        return lambda obs: torch.full((1,), number)

    data, returns = on_policy_loop(collect, fit, iterations)
    assert returns == [float(number) for number in range(iterations + 1)]
    assert policies[0] is None
    assert [policy(torch.zeros(1)).item() for policy in policies[1:]] == [  # type: ignore[operator]
        number + 1 for number in range(iterations)
    ]
    assert fits == [[float(i) for i in range(sum(counts[: number + 1]))] for number in range(iterations)]
    assert data.reward.tolist() == [float(i) for i in range(sum(counts))]
