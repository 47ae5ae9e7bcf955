"""MPPI's weights against float64 arithmetic, and its planner on problems with a known best plan."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_course.envs import get_task
from mbrl_course.mpc import run_episode
from mbrl_course.mppi import MPPIConfig, MPPIPlanner, mppi_weights

FINITE = st.floats(-1e4, 1e4, width=32)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic:
    """A model whose reward is minus the squared distance of the action from a target, times a scale."""

    ensemble_size = 1

    def __init__(self, target, scale=1.0):
        self.target, self.scale = torch.tensor(target), scale

    def step(self, obs, action):
        reward = -self.scale * (action - self.target).square().sum(dim=-1)
        return obs, reward, torch.zeros_like(reward, dtype=torch.bool)


def planner_of(model, seed=0, **settings):
    config = MPPIConfig(**{"population_size": 400, "num_iterations": 5, "horizon": 2, **settings})
    return MPPIPlanner(model, -torch.ones(2), torch.ones(2), config, generator(seed))


@settings(max_examples=80, deadline=None)
@given(scores=st.lists(FINITE, min_size=1, max_size=30), temperature=st.floats(0.01, 100))
def test_weights_are_the_normalised_exponentials(scores, temperature):
    exact = (np.array(scores, dtype=np.float64) - max(scores)) / temperature
    expected = np.exp(exact) / np.exp(exact).sum()
    weights = mppi_weights(torch.tensor(scores), temperature)
    np.testing.assert_allclose(weights, expected, rtol=2e-3, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(FINITE, min_size=1, max_size=10),
    invalid=st.lists(st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=5),
)
def test_invalid_scores_weigh_nothing_and_change_nothing(scores, invalid):
    weights = mppi_weights(torch.tensor(invalid + scores), 2.0)
    assert weights[: len(invalid)].tolist() == [0.0] * len(invalid)
    torch.testing.assert_close(weights[len(invalid) :], mppi_weights(torch.tensor(scores), 2.0))


def test_where_nothing_is_finite_all_weigh_the_same():
    weights = mppi_weights(torch.tensor([math.nan, math.inf, -math.inf, math.nan]), 1.0)
    assert weights.tolist() == [0.25] * 4


def test_weights_do_not_see_an_offset():
    scores = torch.tensor([0.0, 1.0, 3.0])
    torch.testing.assert_close(mppi_weights(scores + 4096, 1.0), mppi_weights(scores, 1.0))
    torch.testing.assert_close(mppi_weights(scores - 4096, 1.0), mppi_weights(scores, 1.0))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("population_size", 0),
        ("num_iterations", 0),
        ("horizon", 0),
        ("std", 0.0),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("warm_start", "wrap"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}, expected"):
        MPPIConfig(**{field: value})


def test_the_plan_comes_near_the_best_one():
    plan = planner_of(Quadratic([0.3, -0.6]), num_iterations=20, std=0.2).plan(torch.zeros(1))
    torch.testing.assert_close(plan, torch.tensor([[0.3, -0.6]] * 2), atol=0.07, rtol=0)


def test_the_unit_of_the_rewards_does_not_matter():
    small = planner_of(Quadratic([0.3, -0.6])).plan(torch.zeros(1))
    large = planner_of(Quadratic([0.3, -0.6], scale=64.0)).plan(torch.zeros(1))
    torch.testing.assert_close(small, large, atol=1e-3, rtol=0)


def test_at_a_high_temperature_nothing_is_learned_and_at_a_low_one_the_best_sample_wins():
    settings = {"num_iterations": 1, "population_size": 4000, "std": 0.2}
    hot = planner_of(Quadratic([1.0, 1.0]), temperature=1e6, **settings).plan(torch.zeros(1))
    torch.testing.assert_close(hot, torch.zeros(2, 2), atol=0.02, rtol=0)
    cold = planner_of(Quadratic([1.0, 1.0]), temperature=1e-3, **settings).plan(torch.zeros(1))
    score = -(cold - 1).square().sum()
    gaussian = 0.2 * torch.randn(4000, 2, 2, generator=generator())  # the population: the same seed
    torch.testing.assert_close(score, -(gaussian.clamp(-1, 1) - 1).square().sum(dim=(1, 2)).min())


def test_a_model_that_breaks_everywhere_leaves_a_finite_plan():
    plan = planner_of(Quadratic([math.nan, 0.0])).plan(torch.zeros(1))
    assert torch.isfinite(plan).all()


def test_equal_scores_leave_a_finite_plan():
    plan = planner_of(Quadratic([0.0, 0.0], scale=0.0)).plan(torch.zeros(1))
    assert torch.isfinite(plan).all()
    assert plan.abs().max() < 0.2


def test_a_warm_start_goes_on_from_the_shifted_plan():
    planner = planner_of(Quadratic([0.0, 0.0]), num_iterations=1, std=1e-4)
    planner.last_plan = torch.tensor([[0.1, 0.1], [0.5, -0.5]])
    torch.testing.assert_close(
        planner.plan(torch.zeros(1)), torch.tensor([[0.5, -0.5]] * 2), atol=1e-3, rtol=0
    )
    planner.reset()
    assert planner.last_plan is None


def test_the_pendulum_is_swung_up():
    task = get_task("pendulum")
    config = MPPIConfig(population_size=50, num_iterations=2, horizon=20)
    planner = MPPIPlanner(task, task.action_low, task.action_high, config, generator())
    episode = run_episode(task, planner, seed=4, max_steps=120)
    assert episode.obs[-20:, 0].min() > 0.9  # the cosine of the angle from upright
