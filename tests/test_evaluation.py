from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean

from mbrl_course.envs import get_task
from mbrl_course.evaluation import (
    _iqm_of_points,
    aggregate_curves,
    collect,
    collect_random,
    evaluate,
    evaluate_together,
    iqm,
    iqm_interval,
    learning_curve,
    probability_of_improvement,
    random_policy,
    summary,
)

scores_lists = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(scores_lists)
def test_iqm_drops_a_quarter_at_each_end(scores: list[float]) -> None:
    cut = len(scores) // 4
    middle = sorted(scores)[cut : len(scores) - cut]
    assert iqm(scores) == pytest.approx(np.mean(middle), abs=1e-9)
    assert iqm(scores) == pytest.approx(trim_mean(scores, 0.25), abs=1e-9)


def test_iqm_of_several_tasks_takes_the_quarters_of_all_scores() -> None:
    scores = np.arange(8.0).reshape(4, 2)
    assert iqm(scores) == pytest.approx(np.mean([2, 3, 4, 5]))


@settings(max_examples=10, deadline=None)
@given(scores_lists)
def test_interval_lies_within_the_scores_and_is_repeatable(scores: list[float]) -> None:
    first = iqm_interval(scores, num_resamples=200)
    assert min(scores) - 1e-9 <= first.low <= first.high <= max(scores) + 1e-9
    assert first.point == pytest.approx(iqm(scores), abs=1e-9)
    assert first == iqm_interval(scores, num_resamples=200)


def test_interval_has_the_width_of_the_sampling_distribution() -> None:
    # The IQM of 40 Gaussian scores has a standard error of about 1.09 / sqrt(40) (asymptotic efficiency of
    # the 25 % trimmed mean under normality: 0.84).
    interval = iqm_interval(np.random.default_rng(0).normal(size=40))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 1.09 / 40**0.5, rel=0.35)


def test_statistics_leave_numpys_global_generator_alone() -> None:
    np.random.seed(3)
    expected = np.random.rand(2)
    np.random.seed(3)
    first = np.random.rand()
    iqm_interval([1.0, 2.0, 3.0], num_resamples=50)
    assert [first, np.random.rand()] == pytest.approx(list(expected))


def test_single_seed_has_an_interval_without_width() -> None:
    assert iqm_interval([7.0], num_resamples=50) == (7.0, 7.0, 7.0)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=8), st.lists(st.integers(-5, 5), min_size=2, max_size=8)
)
def test_probability_of_improvement_is_the_u_statistic(x: list[int], y: list[int]) -> None:
    statistic = mannwhitneyu(x, y).statistic
    result = probability_of_improvement(x, y, num_resamples=100)
    assert result.point == pytest.approx(statistic / (len(x) * len(y)))
    assert 0 <= result.low <= result.high <= 1
    assert probability_of_improvement(y, x, num_resamples=100).point == pytest.approx(1 - result.point)


def test_probability_of_improvement_averages_over_tasks() -> None:
    better, equal = np.array([[2.0, 1.0], [3.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 1.0]])
    assert probability_of_improvement(better, equal, num_resamples=20).point == pytest.approx(0.75)
    with pytest.raises(ValueError, match="scores_x has 1 tasks, scores_y 2"):
        probability_of_improvement([1.0], equal)


def test_curves_are_aggregated_point_by_point() -> None:
    curves = np.random.default_rng(0).normal(size=(5, 4))
    point, low, high = aggregate_curves(curves, num_resamples=300)
    assert point == pytest.approx(trim_mean(curves, 0.25, axis=0))
    assert (low <= point).all()
    assert (point <= high).all()
    assert point.shape == low.shape == high.shape == (4,)


def test_learning_curve_keeps_the_points_that_all_seeds_have_reached() -> None:
    rows = [{"seed": s, "env_steps": 10 * i, "eval_return": s + i} for s in range(3) for i in range(4 - s)]
    curve = learning_curve(pd.DataFrame(rows))
    assert list(curve["env_steps"]) == [0, 10]
    assert list(curve["iqm"]) == [1.0, 2.0]
    assert set(curve["seeds"]) == {3}


def test_learning_curve_leaves_out_what_was_measured_in_no_seed() -> None:
    rows = [{"seed": s, "env_steps": i, "eval_return": i or np.nan} for s in range(2) for i in range(3)]
    assert list(learning_curve(pd.DataFrame(rows))["env_steps"]) == [1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: iqm([]), r"scores has shape \[0\]"),
        (lambda: iqm([1.0, np.nan]), "scores holds NaN"),
        (lambda: iqm(np.zeros((2, 2, 2))), r"shape \[2, 2, 2\], expected \[seeds\]"),
        (lambda: aggregate_curves([1.0, 2.0]), r"curves has shape \[2\]"),
        (lambda: aggregate_curves([[1.0, 2.0], [np.nan, 1.0]]), "NaN in row 1"),
        (
            lambda: learning_curve(pd.DataFrame({"seed": [0], "x": [1]})),
            "no column 'env_steps'; it has seed, x",
        ),
        (
            lambda: learning_curve(
                pd.DataFrame({"seed": [0, 0], "env_steps": [1, 1], "eval_return": [0.0, 100.0]})
            ),
            "several rows for one seed and 'env_steps': choose one variant",
        ),
        (
            lambda: learning_curve(
                pd.DataFrame({"seed": [0, 1], "env_steps": [5, 5], "eval_return": [1.0, np.nan]})
            ),
            "'eval_return' of seed 1 is NaN at 'env_steps' = 5: leave failed runs out on purpose",
        ),
    ],
)
def test_bad_scores_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_learning_curve_needs_a_point_in_common() -> None:
    frame = pd.DataFrame({"seed": [0, 1], "env_steps": [1, 2], "eval_return": [0.0, 0.0]})
    with pytest.raises(ValueError, match="no value of 'env_steps'"):
        learning_curve(frame)


def test_summary_names_median_worst_and_best() -> None:
    frame = pd.DataFrame({"planner": ["b", "b", "b", "a"], "return": [1.0, 2.0, 6.0, 5.0]})
    table = summary(frame, "planner").set_index("planner")
    assert list(table.index) == ["b", "a"]
    assert tuple(table.loc["b", ["seeds", "median", "worst", "best"]]) == (3, 2.0, 1.0, 6.0)


def test_random_data_follow_each_other_and_agree_with_the_task() -> None:
    task = get_task("obstacles")
    data, mean_return = collect_random(task, 250, generator())
    assert data.obs.shape == (250, 4)
    ends = data.terminated | data.truncated
    assert bool(ends[-1])
    assert torch.equal(data.next_obs[:-1][~ends[:-1]], data.obs[1:][~ends[:-1]])
    assert torch.allclose(data.reward, task.reward(data.obs, data.action, data.next_obs), atol=1e-5)
    assert bool(((data.action >= task.action_low) & (data.action <= task.action_high)).all())
    again, same = collect_random(task, 250, generator())
    assert all(torch.equal(a, b) for a, b in zip(data, again, strict=True))
    assert same == mean_return


def test_last_episode_is_finished_for_its_return() -> None:
    task = get_task("pendulum")  # episodes of 200 steps
    policy = random_policy(task, generator(1))
    collected = collect(task, policy, 250, generator())
    whole = collect(task, random_policy(task, generator(1)), 400, generator())
    assert len(collected.data.obs) == 250
    assert collected.returns == whole.returns
    assert torch.equal(collected.data.obs, whole.data.obs[:250])
    assert collected.data.truncated.nonzero().flatten().tolist() == [199, 249]
    assert collected.mean_return == pytest.approx(float(whole.data.reward.sum()) / 2, rel=1e-4)


def test_evaluation_starts_from_the_same_states_for_every_policy() -> None:
    task = get_task("pendulum")
    starts: list[list[float]] = []
    resets = 0

    def reset() -> None:
        nonlocal resets
        resets += 1
        starts.append([])

    def policy(obs: torch.Tensor) -> torch.Tensor:
        starts[-1].extend(obs.tolist()[: 3 * (not starts[-1])])
        return torch.zeros(1)

    returns = evaluate(task, policy, 3, seed=5, on_reset=reset, progress=False)
    again = evaluate(task, policy, 3, seed=5, on_reset=reset, progress=False)
    assert resets == 6
    assert starts[:3] == starts[3:]
    assert len({tuple(start) for start in starts[:3]}) == 3
    assert returns == pytest.approx(again)
    assert (returns <= 0).all()  # a pendulum never earns more than 0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(5, 1), r"shape \[5, 1\], expected \[1\] \(a planner returns \[H, A\]"),
        (torch.tensor([float("nan")]), "expected finite numbers"),
    ],
)
def test_bad_actions_are_refused(action: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(get_task("pendulum"), lambda obs: action, 1, progress=False)


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])  # episodes of different and of equal length
def test_episodes_side_by_side_are_those_one_after_the_other(name: str) -> None:
    task = get_task(name)
    gains = torch.randn(task.obs_dim, task.action_dim, generator=torch.Generator().manual_seed(1))

    def policy(obs: torch.Tensor) -> torch.Tensor:
        return (obs @ gains).clamp(task.action_low, task.action_high)  # [..., A]

    asked: list[int] = []

    def together(obs: torch.Tensor) -> torch.Tensor:
        asked.append(len(obs))
        return policy(obs)

    one_by_one = evaluate(task, policy, 4, seed=3, progress=False)
    assert evaluate_together(task, together, 4, seed=3) == pytest.approx(one_by_one, rel=1e-3)
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == 4


def test_bad_actions_of_episodes_side_by_side_are_refused() -> None:
    task = get_task("pendulum")
    with pytest.raises(ValueError, match=r"shape \[1\], expected \[2, 1\]"):
        evaluate_together(task, lambda obs: torch.zeros(1), 2)
    with pytest.raises(ValueError, match="expected finite numbers"):
        evaluate_together(task, lambda obs: torch.full((len(obs), 1), torch.inf), 2)
    with pytest.raises(ValueError, match="num_episodes is 0"):
        evaluate_together(task, lambda obs: torch.zeros(len(obs), 1), 0)


def test_numbers_of_steps_and_episodes_are_checked() -> None:
    task = get_task("pendulum")
    with pytest.raises(ValueError, match="num_steps is 0"):
        collect_random(task, 0)
    with pytest.raises(ValueError, match="num_episodes is 0"):
        evaluate(task, random_policy(task), 0)


@pytest.mark.parametrize("seeds", range(1, 14))
def test_the_iqm_of_points_is_the_trimmed_mean(seeds: int) -> None:
    scores = np.random.default_rng(seeds).normal(size=(seeds, 2, 3))
    expected = trim_mean(scores.reshape(-1, 3), 0.25, axis=0)
    assert _iqm_of_points(scores) == pytest.approx(expected)
