"""CEM against truncated normals, least squares and brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_course.cem import (
    CEMConfig,
    CEMPlanner,
    cem_iteration,
    cem_plan,
    refit_to_elites,
    sample_sequences,
    shift_plan,
)
from mbrl_course.envs import get_task
from mbrl_course.mpc import make_score_fn, run_episode

WIDE = torch.full((1,), 100.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def recorded(score_fn):
    """A score function, and the list of populations that it has been asked about."""
    seen = []

    def score(sequences):
        seen.append(sequences.clone())
        return score_fn(sequences)

    return score, seen


class PointMass:
    """A model of a mass on a line: position and velocity, reward minus their squares and the effort's."""

    ensemble_size = 1
    effort = 0.1

    def step(self, obs, action):
        position, velocity = obs.unbind(-1)
        velocity = velocity + 0.3 * action[..., 0]
        position = position + 0.3 * velocity
        next_obs = torch.stack([position, velocity], dim=-1)
        reward = -(next_obs.square().sum(dim=-1) + self.effort * action[..., 0] ** 2)
        return next_obs, reward, torch.zeros_like(reward, dtype=torch.bool)


def best_point_mass_plan(obs, horizon):
    """The plan [H, 1] with the highest return: states are linear in it, so it is a least-squares fit."""
    model = PointMass()
    rows, targets = [], []
    free = obs
    effects = torch.zeros(horizon, 2)  # of each action on the state
    zero = torch.zeros(1)
    for t in range(horizon):
        free = model.step(free, zero)[0]
        stepped = model.step(effects, torch.zeros(horizon, 1))[0]
        stepped[t] = model.step(torch.zeros(2), torch.ones(1))[0]
        effects = stepped
        rows.append(effects.T)  # [2, H]
        targets.append(-free)
    rows.append(math.sqrt(model.effort) * torch.eye(horizon))
    targets.append(torch.zeros(horizon))
    solution = torch.linalg.lstsq(torch.cat(rows), torch.cat(targets).unsqueeze(-1)).solution
    return solution  # [H, 1]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_elites_are_the_best_whose_scores_are_finite(data):
    count = data.draw(st.integers(2, 12))
    scores = data.draw(
        st.lists(
            st.one_of(st.integers(-50, 50).map(float), st.sampled_from([math.nan, math.inf, -math.inf])),
            min_size=count,
            max_size=count,
        )
    )
    finite = [i for i in range(count) if math.isfinite(scores[i])]
    if not finite or len({scores[i] for i in finite}) < len(finite):
        return  # a tie may be broken either way
    kept = data.draw(st.integers(1, len(finite)))
    sequences = torch.randn(count, 3, 2, generator=generator(count), dtype=torch.float64)
    mean, std = refit_to_elites(sequences, torch.tensor(scores), kept)
    best = sorted(finite, key=lambda i: scores[i], reverse=True)[:kept]
    np.testing.assert_allclose(mean, np.mean(sequences.numpy()[best], axis=0), atol=1e-12)
    np.testing.assert_allclose(std, np.std(sequences.numpy()[best], axis=0), atol=1e-7)


def test_invalid_plans_are_elites_only_where_there_are_no_others():
    sequences = torch.arange(4.0).reshape(4, 1, 1)
    scores = torch.tensor([math.nan, -1e30, math.inf, math.nan])
    mean, _ = refit_to_elites(sequences, scores, 1)
    assert mean.item() == 1.0


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_one_iteration_gives_the_moments_of_a_truncated_normal(share):
    # where the score is the action itself, the elites of N(mu, sigma^2) are its upper tail
    population, mu, sigma = 200_000, 2.0, 3.0
    normal = torch.distributions.Normal(0.0, 1.0)
    cut = normal.icdf(torch.tensor(1 - share))
    hazard = normal.log_prob(cut).exp() / share
    mean, std = cem_iteration(
        lambda sequences: sequences[:, 0, 0],
        torch.full((1, 1), mu),
        torch.full((1, 1), sigma),
        -WIDE,
        WIDE,
        population_size=population,
        num_elites=round(share * population),
        generator=generator(),
    )
    assert mean.item() == pytest.approx(float(mu + sigma * hazard), abs=0.03)
    assert std.item() == pytest.approx(float(sigma * (1 + cut * hazard - hazard**2).sqrt()), abs=0.03)


def test_an_action_that_does_not_matter_keeps_its_gaussian():
    mean, std = cem_iteration(
        lambda sequences: sequences[:, 0, 0],
        torch.zeros(2, 1),
        torch.ones(2, 1),
        -WIDE,
        WIDE,
        population_size=100_000,
        num_elites=10_000,
        generator=generator(),
    )
    assert abs(mean[1].item()) < 0.05
    assert std[1].item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 0.9])
def test_smoothing_mixes_the_old_gaussian_with_the_elites(smoothing):
    score_fn, seen = recorded(lambda sequences: -sequences.abs().sum(dim=(1, 2)))
    old_mean, old_std = torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0, 0.7]])
    mean, std = cem_iteration(
        score_fn,
        old_mean,
        old_std,
        -torch.ones(2),
        torch.ones(2),
        population_size=40,
        num_elites=7,
        smoothing=smoothing,
        generator=generator(),
    )
    elites = sorted(seen[0].tolist(), key=lambda s: np.abs(s).sum())[:7]
    torch.testing.assert_close(
        mean, smoothing * old_mean + (1 - smoothing) * torch.tensor(np.mean(elites, 0)).float()
    )
    torch.testing.assert_close(
        std, smoothing * old_std + (1 - smoothing) * torch.tensor(np.std(elites, 0)).float()
    )


@pytest.mark.parametrize("floor", [0.3, torch.tensor([0.3, 0.01])])
def test_the_standard_deviation_has_a_floor(floor):
    _, std = cem_iteration(
        lambda sequences: sequences.sum(dim=(1, 2)),
        torch.zeros(3, 2),
        torch.ones(3, 2),
        -torch.ones(2),
        torch.ones(2),
        population_size=10,
        num_elites=1,
        min_std=floor,
        generator=generator(),
    )
    torch.testing.assert_close(std, torch.as_tensor(floor).expand(3, 2))


@settings(max_examples=25, deadline=None)
@given(center=st.floats(-20, 20), width=st.floats(0, 30), seed=st.integers(0, 1000))
def test_no_sequence_leaves_the_bounds(center, width, seed):
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 2.5])
    mean, std = torch.full((4, 2), center), torch.full((4, 2), width)
    sequences = sample_sequences(mean, std, low, high, 30, generator(seed))
    assert sequences.shape == (30, 4, 2)
    assert ((sequences >= low) & (sequences <= high)).all()


def test_the_plan_for_a_point_mass_is_that_of_least_squares():
    obs = torch.tensor([1.0, -0.5])
    best = best_point_mass_plan(obs, horizon=8)
    config = CEMConfig(1000, 50, num_iterations=25, horizon=8, min_std=1e-4)
    score_fn = make_score_fn(PointMass(), obs)
    plan = cem_plan(
        score_fn, torch.zeros(8, 1), torch.tensor([-8.0]), torch.tensor([8.0]), config, generator()
    )
    torch.testing.assert_close(plan, best, atol=0.02, rtol=0)
    # the optimum is one: nothing near it scores better
    nearby = best + 0.1 * torch.randn(500, 8, 1, generator=generator(1))
    assert score_fn(nearby).max() < score_fn(best.unsqueeze(0))


def test_an_optimum_outside_is_approached_up_to_the_bound():
    target = torch.tensor([[5.0, -0.2]])
    score_fn, seen = recorded(lambda sequences: -(sequences - target).square().sum(dim=(1, 2)))
    config = CEMConfig(200, 20, num_iterations=12, horizon=1)
    plan = cem_plan(score_fn, torch.zeros(1, 2), -torch.ones(2), torch.ones(2), config, generator())
    torch.testing.assert_close(plan, torch.tensor([[1.0, -0.2]]), atol=0.05, rtol=0)
    assert len(seen) == 12
    assert all(population.shape == (200, 1, 2) for population in seen)


def test_a_plan_stays_away_from_where_the_model_breaks():
    def score_fn(sequences):
        first = sequences[:, 0, 0]
        return torch.where(first > 0.3, torch.nan, first)

    config = CEMConfig(100, 10, num_iterations=10, horizon=2)
    plan = cem_plan(score_fn, torch.zeros(2, 1), -torch.ones(1), torch.ones(1), config, generator())
    assert 0.2 < plan[0, 0] <= 0.3


def test_start_and_floor_are_relative_to_half_the_range():
    score_fn, seen = recorded(lambda sequences: sequences[:, 0].sum(dim=-1))
    low, high = torch.tensor([0.0, -0.1]), torch.tensor([40.0, 0.1])
    config = CEMConfig(4000, 1, 2, horizon=1, smoothing=0.0, initial_std=0.1, min_std=0.02)
    cem_plan(score_fn, torch.tensor([[20.0, 0.0]]), low, high, config, generator())
    torch.testing.assert_close(seen[0].std(dim=0), torch.tensor([[2.0, 0.01]]), rtol=0.06, atol=0)
    torch.testing.assert_close(seen[1].std(dim=0), torch.tensor([[0.4, 0.002]]), rtol=0.06, atol=0)


@given(horizon=st.integers(1, 6), action_dim=st.integers(1, 3), fill=st.sampled_from(["repeat", "zero"]))
def test_a_shifted_plan_is_one_step_ahead(horizon, action_dim, fill):
    plan = torch.arange(1.0, horizon * action_dim + 1).reshape(horizon, action_dim)
    before = plan.clone()
    shifted = shift_plan(plan, fill)
    assert shifted.shape == plan.shape
    assert shifted[:-1].tolist() == plan[1:].tolist()
    assert shifted[-1].tolist() == (plan[-1].tolist() if fill == "repeat" else [0.0] * action_dim)
    assert torch.equal(plan, before)


def test_an_unknown_fill_is_refused():
    with pytest.raises(ValueError, match=r"fill is 'wrap', expected 'repeat' or 'zero'"):
        shift_plan(torch.zeros(3, 1), "wrap")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("population_size", 0),
        ("num_elites", 0),
        ("num_elites", 501),
        ("num_iterations", 0),
        ("horizon", -1),
        ("smoothing", 1.0),
        ("smoothing", -0.1),
        ("initial_std", 0.0),
        ("initial_std", math.nan),
        ("min_std", -0.1),
        ("warm_start", "wrap"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}, expected"):
        CEMConfig(**{field: value})


class Straight:
    """Its reward is minus the squared distance of the action from a target; it records what it is asked."""

    def __init__(self, target=0.0, ensemble_size=1):
        self.target, self.ensemble_size, self.asked = target, ensemble_size, []

    def step(self, obs, action):
        self.asked.append(action)
        offsets = torch.arange(float(self.ensemble_size)).reshape(-1, 1)
        reward = -(action[..., 0] - self.target - offsets).square()
        return obs, reward, torch.zeros_like(reward, dtype=torch.bool)


@pytest.mark.parametrize("warm_start", ["repeat", "zero", None])
def test_a_search_starts_where_the_last_plan_left_off(warm_start):
    model = Straight(target=0.7)
    config = CEMConfig(
        400, 1, 1, horizon=3, smoothing=0.0, initial_std=1e-4, min_std=0.0, warm_start=warm_start
    )
    planner = CEMPlanner(model, torch.tensor([-1.0]), torch.tensor([3.0]), config, generator())
    planner.last_plan = torch.tensor([[0.1], [0.2], [0.3]])
    planner.plan(torch.zeros(1))
    starts = torch.stack([actions.mean() for actions in model.asked])
    expected = {"repeat": [0.2, 0.3, 0.3], "zero": [0.2, 0.3, 0.0], None: [1.0, 1.0, 1.0]}[warm_start]
    torch.testing.assert_close(starts, torch.tensor(expected), atol=1e-3, rtol=0)


def test_reset_forgets_the_last_plan():
    planner = CEMPlanner(Straight(), -torch.ones(1), torch.ones(1), CEMConfig(20, 2, 1, 3), generator())
    planner.plan(torch.zeros(1))
    assert planner.last_plan is not None
    planner.reset()
    assert planner.last_plan is None
    assert torch.equal(planner.initial_mean(), torch.zeros(3, 1))


def test_the_score_is_the_aggregate_over_members():
    config = CEMConfig(300, 30, 8, horizon=1)
    bounds = (torch.tensor([-1.0]), torch.tensor([3.0]))

    def first_action(aggregate):
        planner = CEMPlanner(Straight(ensemble_size=3), *bounds, config, generator(), aggregate)
        return planner.plan(torch.zeros(1))[0].item()

    assert first_action(None) == pytest.approx(1.0, abs=0.05)  # between targets 0, 1 and 2
    assert first_action(lambda returns: returns[2]) == pytest.approx(2.0, abs=0.05)


def test_the_same_seed_gives_the_same_episode():
    task = get_task("pendulum")

    def returns(seed):
        config = CEMConfig(20, 4, 2, horizon=5)
        planner = CEMPlanner(task, task.action_low, task.action_high, config, generator(seed))
        return run_episode(task, planner, seed=3, max_steps=10).reward.tolist()

    assert returns(0) == returns(0)
    assert returns(0) != returns(1)


def test_warm_cem_swings_the_pole_up_with_a_small_budget():
    task = get_task("cartpole-swingup")
    config = CEMConfig(100, 10, num_iterations=3, horizon=30)
    planner = CEMPlanner(task, task.action_low, task.action_high, config, generator())
    episode = run_episode(task, planner, seed=0, max_steps=100)
    assert episode.reward[-20:].min() > 0.8  # upright: the reward is about the cosine of the angle
