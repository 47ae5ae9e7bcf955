"""Coloured noise against the covariance that its spectrum implies, and iCEM's population counted."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_course.envs import get_task
from mbrl_course.icem import ICEMConfig, ICEMPlanner, colored_noise
from mbrl_course.mpc import run_episode


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def covariance_of(beta, length):
    """The covariance [H, H] of a periodic signal with the power |f|^-beta, and that of 1 / H at f = 0."""
    frequencies = torch.fft.fftfreq(length, dtype=torch.float64).abs().clamp(min=1 / length)  # [H]
    power = frequencies**-beta
    power = power / power.sum()
    times = torch.arange(length, dtype=torch.float64)
    lags = times[:, None] - times[None, :]  # [H, H]
    signed = torch.fft.fftfreq(length, dtype=torch.float64)
    return (power * torch.cos(2 * math.pi * signed * lags[..., None])).sum(dim=-1)


class Quadratic:
    """Its reward is minus the squared distance of the action from a target; it records what it is asked."""

    ensemble_size = 1

    def __init__(self, target=(0.4, -0.5)):
        self.target, self.asked = torch.tensor(target), []

    def step(self, obs, action):
        self.asked.append(action[0])
        reward = -(action - self.target).square().sum(dim=-1)
        return obs, reward, torch.zeros_like(reward, dtype=torch.bool)

    def populations(self, horizon):
        """What was scored, one tensor [N, H, A] for each iteration."""
        groups = [self.asked[i : i + horizon] for i in range(0, len(self.asked), horizon)]
        return [torch.stack(group, dim=1) for group in groups]


def planner_of(model, seed=0, **settings):
    config = ICEMConfig(**{"population_size": 60, "num_elites": 10, "horizon": 4, **settings})
    return ICEMPlanner(model, -torch.ones(2), torch.ones(2), config, generator(seed))


@pytest.mark.parametrize("beta", [0.0, 0.7, 2.0, 4.0])
@pytest.mark.parametrize("length", [1, 2, 9, 16])
def test_the_covariance_is_that_of_the_spectrum(beta, length):
    noise = colored_noise(beta, (40_000, length), generator()).double()
    expected = covariance_of(beta, length)
    torch.testing.assert_close(noise.T @ noise / len(noise), expected, atol=0.05, rtol=0)
    torch.testing.assert_close(noise.mean(dim=0), torch.zeros(length).double(), atol=0.03, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    beta=st.floats(0, 5), shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_noise_of_any_shape_is_finite_and_follows_its_seed(beta, shape, seed):
    noise = colored_noise(beta, tuple(shape), generator(seed))
    assert noise.shape == tuple(shape)
    assert torch.isfinite(noise).all()
    assert torch.equal(noise, colored_noise(beta, tuple(shape), generator(seed)))


def test_the_axes_before_time_are_independent():
    noise = colored_noise(2.0, (20_000, 3, 6), generator())
    correlation = torch.einsum("nit,njt->ij", noise, noise) / (20_000 * 6)
    torch.testing.assert_close(correlation, torch.eye(3), atol=0.04, rtol=0)


def test_larger_exponents_are_smoother():
    noise = [colored_noise(beta, (500, 30), generator()) for beta in (0.0, 1.0, 2.0, 4.0)]
    roughness = [float(x.diff(dim=-1).square().mean()) for x in noise]
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[0] == pytest.approx(2.0, abs=0.1)  # differences of independent entries


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("population_size", 0),
        ("num_elites", 0),
        ("num_elites", 501),
        ("num_iterations", 0),
        ("horizon", 0),
        ("smoothing", 1.0),
        ("initial_std", 0.0),
        ("min_std", -1.0),
        ("noise_beta", -1.0),
        ("kept_elites", 1.5),
        ("population_decay", 0.5),
        ("warm_start", "wrap"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field}\b.*{value!r}.*expected"):
        ICEMConfig(**{field: value})


def test_the_population_shrinks_and_keeps_elites():
    model = Quadratic()
    planner = planner_of(model, num_iterations=4, population_decay=1.5, kept_elites=0.3)
    planner.plan(torch.zeros(1))
    populations = model.populations(4)
    # 60, 40, 26 and 20 (twice the elites at the least); 3 elites join from the second on, the mean at last
    assert [len(population) for population in populations] == [60, 43, 29, 24]
    for before, after in pairwise(populations):
        scores = -(before - model.target).square().sum(dim=(1, 2))
        best = before[scores.topk(3).indices]
        assert all((after == sequence).all(dim=(1, 2)).any() for sequence in best)
    assert all(((p >= -1) & (p <= 1)).all() for p in populations)


def test_the_plan_is_the_best_sequence_that_was_scored():
    model = Quadratic()
    plan = planner_of(model, num_iterations=3).plan(torch.zeros(1))
    scored = torch.cat(model.populations(4))
    best = scored[(scored - model.target).square().sum(dim=(1, 2)).argmin()]
    assert torch.equal(plan, best)


def test_the_plan_comes_near_the_best_one():
    plan = planner_of(Quadratic(), num_iterations=15, population_size=200).plan(torch.zeros(1))
    torch.testing.assert_close(plan, torch.tensor([[0.4, -0.5]] * 4), atol=0.1, rtol=0)


def test_the_next_search_takes_the_shifted_elites_along():
    model = Quadratic()
    planner = planner_of(model, num_iterations=2)
    planner.plan(torch.zeros(1))
    elites = planner.elites[:3]
    model.asked.clear()
    planner.plan(torch.zeros(1))
    first = model.populations(4)[0]
    assert len(first) == 63
    for sequence in elites:
        assert (first[:, :3] == sequence[1:]).all(dim=(1, 2)).any()


@pytest.mark.parametrize("warm_start", ["repeat", None])
def test_after_a_reset_or_without_a_warm_start_nothing_is_taken_along(warm_start):
    model = Quadratic()
    planner = planner_of(model, num_iterations=1, warm_start=warm_start)
    planner.plan(torch.zeros(1))
    if warm_start is not None:
        planner.reset()
        assert planner.elites is None
        assert planner.last_plan is None
    model.asked.clear()
    planner.plan(torch.zeros(1))
    assert len(model.populations(4)[0]) == 61  # the population and the mean


def test_a_broken_model_leaves_a_finite_plan():
    plan = planner_of(Quadratic((math.nan, 0.0)), num_iterations=2).plan(torch.zeros(1))
    assert torch.isfinite(plan).all()


def test_icem_swings_the_pole_up_with_a_hundred_sequences():
    task = get_task("cartpole-swingup")
    config = ICEMConfig(50, 5, num_iterations=2, horizon=30)
    planner = ICEMPlanner(task, task.action_low, task.action_high, config, generator())
    episode = run_episode(task, planner, seed=0, max_steps=100)
    assert episode.reward[-20:].min() > 0.8
