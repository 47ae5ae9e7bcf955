"""Statistics against RLiable, SciPy and brute force; shaping against value iteration and real runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rliable import library, metrics
from scipy.stats import trim_mean
from torch import Tensor

from mbrl_course import evaluation
from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.clinic import (
    Interval,
    bootstrap_interval,
    common_budget,
    interquartile_mean,
    iqm_improvement,
    normalized_scores,
    performance_profile,
    probability_of_improvement,
    resample_seeds,
    score_at_budget,
    shaped_task,
    shaping_reward,
    verdict,
)
from mbrl_course.envs import get_task
from mbrl_course.evaluation import collect_random, evaluate
from mbrl_course.mbpo import MBPO, MBPOConfig
from mbrl_course.mpc import run_episode


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


matrices = st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(0, 99)).map(
    lambda s: gaussian(s[0], s[1], seed=s[2])
)


@given(matrices)
def test_iqm_is_rliables_and_scipys(scores: Tensor) -> None:
    expected = metrics.aggregate_iqm(scores.numpy())
    assert float(interquartile_mean(scores)) == pytest.approx(expected)
    assert float(interquartile_mean(scores)) == pytest.approx(trim_mean(scores.flatten(), 0.25))


def test_iqm_is_taken_for_each_resample_by_itself() -> None:
    scores = gaussian(5, 4, 7, 2)
    expected = [[float(interquartile_mean(one)) for one in row] for row in scores]
    torch.testing.assert_close(interquartile_mean(scores), torch.tensor(expected, dtype=torch.float64))


def test_resamples_keep_each_task_to_itself_and_draw_with_replacement() -> None:
    scores = torch.arange(5.0)[:, None] + torch.tensor([0.0, 100.0])  # [5, 2]
    drawn = resample_seeds(scores, 400, generator())
    assert drawn.shape == (400, 5, 2)
    assert set(drawn[..., 0].flatten().tolist()) == set(range(5))
    assert set(drawn[..., 1].flatten().tolist()) == set(range(100, 105))
    assert len(set(map(tuple, drawn[..., 0].sort().values.tolist()))) > 1  # not only permutations
    assert not torch.equal(drawn[..., 0] + 100, drawn[..., 1])  # tasks are drawn independently


def test_bootstrap_of_the_mean_of_two_seeds_is_the_binomial_distribution() -> None:
    # Means of two draws from {0, 1}: 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    means = resample_seeds(torch.tensor([[0.0], [1.0]]), 20_000, generator()).mean(dim=(1, 2))
    shares = [(means == value).double().mean().item() for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_interval_agrees_with_rliables_percentile_bootstrap() -> None:
    scores = gaussian(12, 2, seed=3)
    ours = bootstrap_interval(interquartile_mean, scores, num_resamples=20_000, generator=generator())
    theirs = evaluation.iqm_interval(scores.numpy(), num_resamples=5_000)
    assert float(ours.point) == pytest.approx(theirs.point)
    assert [float(ours.low), float(ours.high)] == pytest.approx([theirs.low, theirs.high], abs=0.05)


def test_interval_of_a_mean_has_the_width_of_the_normal_approximation() -> None:
    scores = gaussian(200, 1)
    interval = bootstrap_interval(
        lambda s: s.mean(dim=(-2, -1)), scores, confidence=0.9, num_resamples=5000, generator=generator()
    )
    expected = 2 * 1.645 * float(scores.std()) / math.sqrt(200)
    assert float(interval.high - interval.low) == pytest.approx(expected, rel=0.05)


def test_interval_is_wider_at_higher_confidence_and_follows_the_generator() -> None:
    scores = gaussian(10, 1)

    def width(confidence: float, seed: int = 0) -> float:
        found = bootstrap_interval(
            interquartile_mean, scores, confidence=confidence, generator=generator(seed)
        )
        assert found.low <= found.point <= found.high
        return float(found.high - found.low)

    assert width(0.5) < width(0.95) < width(0.995)
    assert width(0.95) == width(0.95)
    assert width(0.95) != width(0.95, seed=1)


@given(matrices, st.integers(1, 9), st.integers(0, 99))
def test_probability_of_improvement_is_rliables_and_that_of_all_pairs(
    x: Tensor, runs: int, seed: int
) -> None:
    y = gaussian(runs, x.shape[1], seed=seed).round(decimals=0)
    x = x.round(decimals=0)  # ties
    pairs = [
        [0.5 * (1 + np.sign(a - b)) for a, b in itertools.product(x[:, task], y[:, task])]
        for task in range(x.shape[1])
    ]
    value = float(probability_of_improvement(x, y))
    assert value == pytest.approx(np.mean([np.mean(one) for one in pairs]))
    assert value == pytest.approx(metrics.probability_of_improvement(x.numpy(), y.numpy()))
    assert value + float(probability_of_improvement(y, x)) == pytest.approx(1)


def test_probability_of_improvement_of_gaussians_is_in_closed_form() -> None:
    # X ~ N(1, 1), Y ~ N(0, 1): P(X > Y) = Phi(1 / sqrt 2).
    expected = 0.5 * (1 + math.erf(0.5))
    assert float(probability_of_improvement(gaussian(800, 1) + 1, gaussian(900, 1, seed=1))) == pytest.approx(
        expected, abs=0.02
    )


def test_performance_profile_is_rliables_and_its_area_is_the_mean() -> None:
    scores, thresholds = torch.rand(9, 3, generator=generator()).double(), torch.linspace(0, 1, 2001)
    profile = performance_profile(scores, thresholds)
    theirs, _ = library.create_performance_profile({"x": scores.numpy()}, thresholds.numpy(), reps=2)
    np.testing.assert_allclose(profile, theirs["x"])
    # For scores in [0, 1] the mean is the area under P(score > tau).
    assert float(torch.trapezoid(profile, thresholds)) == pytest.approx(float(scores.mean()), abs=1e-3)


def test_performance_profile_is_strict_and_has_a_band() -> None:
    scores = torch.tensor([[1.0], [2.0], [2.0], [4.0]])
    thresholds = torch.tensor([0.0, 1.0, 2.0, 4.0])
    assert performance_profile(scores, thresholds).tolist() == [1.0, 0.75, 0.25, 0.0]
    band = bootstrap_interval(lambda s: performance_profile(s, thresholds), scores, generator=generator())
    assert band.low.shape == (4,)
    assert bool((band.low <= band.point).all() and (band.point <= band.high).all())


def test_normalized_scores_are_zero_for_random_and_one_for_the_reference() -> None:
    random_score, reference = torch.tensor([-1200.0, 20.0]), torch.tensor([-150.0, 200.0])
    scores = torch.stack([random_score, reference, (random_score + reference) / 2])
    expected = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])
    torch.testing.assert_close(normalized_scores(scores, random_score, reference), expected)


# Shaping in a small MDP: states 0 .. 4 in a row, action 0 goes left, 1 right; state 4 ends the episode and
# pays 1, each step costs a little.

GAMMA, END, STATES = 0.9, 4, 5


def row_step(state: int, action: int) -> tuple[int, float, bool]:
    following = min(max(state + (1 if action else -1), 0), END)
    return following, -0.01 + float(following == END), following == END


def value_iteration(bonus: dict[tuple[int, int], float]) -> np.ndarray:
    """Optimal values of state and action [STATES - 1, 2] with the true reward plus a bonus for (s, s')."""
    values = np.zeros((END, 2))
    for _ in range(1000):
        for state, action in itertools.product(range(END), range(2)):
            following, reward, terminated = row_step(state, action)
            future = 0.0 if terminated else values[following].max()
            values[state, action] = reward + bonus[state, following] + GAMMA * future
    return values


def bonuses(potential: Tensor, naive: bool) -> dict[tuple[int, int], float]:
    found = {}
    for state, action in itertools.product(range(END), range(2)):
        following, _, terminated = row_step(state, action)
        pair = torch.tensor([[float(state)], [float(following)]])

        def phi(obs: Tensor) -> Tensor:
            return potential[obs[..., 0].long()]

        shaped = shaping_reward(phi, GAMMA, pair[:1], pair[1:], torch.tensor([terminated]))
        found[state, following] = float(phi(pair[1:])) if naive else float(shaped)
    return found


NO_BONUS = {(s, row_step(s, a)[0]): 0.0 for s in range(END) for a in range(2)}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=STATES, max_size=STATES))
def test_any_potential_leaves_the_best_policy_and_shifts_its_values(potential: list[float]) -> None:
    phi = torch.tensor(potential, dtype=torch.float64)
    plain, shaped = value_iteration(NO_BONUS), value_iteration(bonuses(phi, naive=False))
    # Q'(s, a) = Q(s, a) - Phi(s) (Ng et al., 1999, the proof of Theorem 1), so the order of actions stays.
    np.testing.assert_allclose(shaped, plain - phi[:END, None].numpy(), atol=1e-8)


def test_a_naive_bonus_for_being_close_changes_the_best_policy() -> None:
    progress = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    best = value_iteration(NO_BONUS).argmax(axis=1)
    assert best.tolist() == [1, 1, 1, 1]  # to the goal
    shaped = value_iteration(bonuses(progress, naive=True)).argmax(axis=1)
    assert shaped[3] == 0  # beside the goal it turns back, since the end would stop the income


def test_a_potential_that_stays_at_the_end_would_change_the_best_policy() -> None:
    # What Phi = 0 at the end is for: keep gamma Phi(end), and a large negative one frightens the agent off.
    phi = torch.tensor([0.0, 0.0, 0.0, 0.0, -9.0], dtype=torch.float64)
    kept = bonuses(phi, naive=False)
    kept[3, 4] += GAMMA * float(phi[4])
    assert value_iteration(kept).argmax(axis=1)[3] == 0
    assert value_iteration(bonuses(phi, naive=False)).argmax(axis=1)[3] == 1


@given(st.integers(0, 99), st.booleans(), st.floats(0.5, 1.0))
def test_the_discounted_sum_along_an_episode_telescopes(seed: int, ends: bool, gamma: float) -> None:
    path = gaussian(7, 2, seed=seed)  # six steps
    terminated = torch.zeros(6, dtype=torch.bool)
    terminated[-1] = ends

    def phi(obs: Tensor) -> Tensor:
        return obs[..., 0] ** 3 - obs[..., 1]

    bonus = shaping_reward(phi, gamma, path[:-1], path[1:], terminated)
    total = (gamma ** torch.arange(6, dtype=torch.float64) * bonus).sum()
    expected = (0 if ends else gamma**6 * phi(path[-1])) - phi(path[0])
    torch.testing.assert_close(total, torch.as_tensor(expected), atol=1e-8, rtol=1e-6)


def upright(obs: Tensor) -> Tensor:
    return 5 * obs[..., 0]  # pendulum: cosine of the angle


@pytest.mark.parametrize("naive", [False, True])
def test_a_shaped_task_pays_in_its_environment_what_its_tensors_say(naive: bool) -> None:
    task = get_task("pendulum")
    shaped = shaped_task(task, upright, 0.99, naive=naive)
    data, _ = collect_random(shaped, 60, generator())
    expected = shaped.reward(data.obs, data.action, data.next_obs)
    torch.testing.assert_close(data.reward, expected, atol=1e-3, rtol=1e-3)
    after, before = upright(data.next_obs), upright(data.obs)
    bonus = after if naive else 0.99 * after - before
    torch.testing.assert_close(expected, task.reward(data.obs, data.action, data.next_obs) + bonus)


def test_a_shaped_task_forgets_the_potential_where_an_episode_ends() -> None:
    task = get_task("cartpole-balance")
    shaped = shaped_task(task, lambda obs: torch.full(obs.shape[:-1], 7.0), 1.0)
    data, _ = collect_random(shaped, 100, generator())
    assert bool(data.terminated.any())
    bonus = data.reward - task.reward(data.obs, data.action, data.next_obs)
    torch.testing.assert_close(bonus, torch.where(data.terminated, -7.0, 0.0))


def test_shaping_leaves_the_true_task_as_it_is() -> None:
    task = get_task("pendulum")
    shaped = shaped_task(task, upright, 1.0)
    planner = CEMPlanner(
        shaped, task.action_low, task.action_high, CEMConfig(population_size=20, num_elites=4), generator()
    )
    episode = run_episode(task, planner, seed=0, max_steps=5)
    torch.testing.assert_close(
        episode.reward, task.reward(episode.obs, episode.action, episode.next_obs), atol=1e-4, rtol=1e-4
    )
    actions = torch.zeros(task.action_dim)
    assert evaluate(task, lambda obs: actions, 1, progress=False) != pytest.approx(
        evaluate(shaped, lambda obs: actions, 1, progress=False)
    )


def test_a_shaped_task_is_not_shaped_again() -> None:
    shaped = shaped_task(get_task("pendulum"), upright, 1.0)
    with pytest.raises(ValueError, match="task is a shaped one"):
        shaped_task(shaped, upright, 1.0)


def test_mbpo_trains_on_a_shaped_task() -> None:
    task = get_task("pendulum")
    config = MBPOConfig(
        start_steps=40, model_every=40, model_epochs=1, num_rollouts=20, updates_per_step=1, batch_size=16
    )
    agent = MBPO(shaped_task(task, upright, config.gamma), config, seed=0)
    agent.train(45)
    for rows in (agent.real.all(), agent.imagined.all()):
        extra = rows.reward - task.reward(rows.obs, rows.action, rows.next_obs)
        bonus = shaping_reward(upright, config.gamma, rows.obs, rows.next_obs, rows.terminated)
        torch.testing.assert_close(extra, bonus, atol=1e-3, rtol=1e-3)


def test_score_at_budget_is_the_last_evaluation_that_was_paid_for() -> None:
    costs = torch.tensor([[10.0, 20, 30], [5, 25, 40]])
    scores = torch.tensor([[1.0, 3, 2], [4, 6, 5]])
    assert score_at_budget(costs, scores, 30).tolist() == [2.0, 6.0]
    assert score_at_budget(costs, scores, 24.9).tolist() == [3.0, 4.0]
    assert score_at_budget(costs, scores, 1e9).tolist() == [2.0, 5.0]
    early = score_at_budget(costs, scores, 7)
    assert math.isnan(early[0])
    assert early[1] == 4


def test_common_budget_is_what_all_runs_have_spent() -> None:
    fast, slow = torch.tensor([[1.0, 9], [2, 8]]), torch.tensor([[3.0, 6, 12]])
    assert common_budget(fast, slow) == 8
    assert not score_at_budget(slow, slow, common_budget(fast, slow)).isnan().any()


def test_improvement_is_the_difference_of_iqms_and_its_verdict_has_a_low_error_rate() -> None:
    x, y = gaussian(10, 1) + 5, gaussian(14, 1, seed=1)
    found = iqm_improvement(x, y, generator=generator())
    assert float(found.point) == pytest.approx(float(interquartile_mean(x) - interquartile_mean(y)))
    assert verdict(found) == "real"
    assert verdict(iqm_improvement(y, x, generator=generator())) == "harmful"
    chance = generator(7)
    wrong = sum(
        verdict(iqm_improvement(*gaussian(2, 20, 1, seed=trial), num_resamples=300, generator=chance))
        != "not shown"
        for trial in range(150)
    )
    assert wrong / 150 < 0.15  # 5 % are meant; the bootstrap of 20 seeds errs a little more often


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 2, "real"),
        (0.0, 2, "not shown"),
        (-1, 1, "not shown"),
        (-2, 0, "not shown"),
        (-2, -1, "harmful"),
    ],
)
def test_verdict(low: float, high: float, expected: str) -> None:
    middle = torch.tensor((low + high) / 2)
    assert verdict(Interval(middle, torch.tensor(low), torch.tensor(high))) == expected


SCORES = torch.ones(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interquartile_mean(torch.ones(4)), r"scores has shape \[4\], expected \[\.\.\., seeds"),
        (lambda: interquartile_mean(torch.ones(0, 2)), r"scores has shape \[0, 2\]"),
        (lambda: interquartile_mean(SCORES * math.nan), "scores holds NaN"),
        (lambda: resample_seeds(torch.ones(2, 3, 4), 5), r"shape \[2, 3, 4\], expected \[seeds, tasks\]"),
        (lambda: bootstrap_interval(interquartile_mean, SCORES, confidence=95), "confidence is 95"),
        (lambda: probability_of_improvement(SCORES, torch.ones(3, 1)), "2 tasks, scores_y 1"),
        (lambda: performance_profile(torch.ones(4), SCORES[0]), r"scores has shape \[4\]"),
        (
            lambda: shaping_reward(upright, 1.5, SCORES, SCORES, torch.zeros(3, dtype=torch.bool)),
            "gamma is 1.5, expected in",
        ),
        (
            lambda: shaping_reward(lambda s: s[:, :1], 1.0, SCORES, SCORES, torch.zeros(3, dtype=torch.bool)),
            r"potential has shape \[3, 1\], expected \[3\]",
        ),
        (lambda: score_at_budget(SCORES, SCORES.T, 1), r"costs has shape \[3, 2\], scores \[2, 3\]"),
        (lambda: score_at_budget(torch.tensor([[2.0, 1]]), torch.ones(1, 2), 1), "costs falls"),
        (lambda: common_budget(), "costs is empty"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
