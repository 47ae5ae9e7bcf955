"""Week 4's experiments: the worlds whose truth is known, the numbers, and what replay draws."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from mbrl_course.buffers import Batch
from mbrl_course.ensembles import Prediction
from mbrl_course.envs import get_task
from mbrl_course.experiments import ConfigError, Run, get_config, run
from mbrl_course.experiments.gap import arriving_points, gap_stages, true_mean, true_noise
from mbrl_course.experiments.replay import ReplayLearner
from mbrl_course.experiments.uncertainty import (
    angle_of,
    doubt,
    fit_phase_plane,
    phase_plane,
    sensor_noise,
    step_scale,
    true_transitions,
    with_sensor_noise,
    worth,
)
from mbrl_course.experiments.week04 import on_policy_iterations


def fixed_ensemble(means, variances):
    """An ensemble that predicts these means and variances [E, N, D], whatever it is asked."""
    prediction = Prediction(torch.as_tensor(means), torch.as_tensor(variances), None, None)
    return SimpleNamespace(ensemble_size=len(means), predict=lambda obs, action: prediction)


def batch_of(obs, next_obs):
    ends = torch.zeros(len(obs), dtype=torch.bool)
    return Batch(obs, torch.zeros(len(obs), 1), torch.zeros(len(obs)), next_obs, ends, ends)


def test_points_arrive_outside_the_gap_first_and_carry_the_worlds_noise():
    x, y = arriving_points(3000, 2000, torch.Generator().manual_seed(0))
    assert x.shape == y.shape == (5000,)
    assert ((x[:3000].abs() >= 1) & (x[:3000].abs() <= 3)).all()
    assert (x[3000:].abs() <= 1).all()
    assert 0.45 < (x > 0).float().mean() < 0.55
    for side in (x < -1, x > 1):
        ratio = ((y - true_mean(x)) / true_noise(x))[side].std()
        assert ratio == pytest.approx(1, abs=0.05)


def test_the_ensemble_of_the_gap_sees_all_points_so_far():
    changes = {"num_outside": 7, "num_inside": 5, "points_per_stage": 4, "steps_per_stage": 6}
    changes["batch_size"] = 2
    config = dataclasses.replace(get_config("ensemble-gap", "smoke"), **changes)
    stages = list(gap_stages(config, torch.Generator().manual_seed(0)))
    assert [len(stage.x) for stage in stages] == [4, 8, 12]
    assert [stage.num_updates for stage in stages] == [6, 6 + 2 * 4, 6 + 8 + 1 * 6]  # whole epochs


def test_doubt_is_error_and_both_kinds_of_variance_in_units_of_the_scale():
    means = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]]])  # two members, one transition, two dimensions
    variances = torch.tensor([[[4.0, 1.0]], [[8.0, 3.0]]])
    ensemble = fixed_ensemble(means, variances)
    obs, truth, scale = torch.zeros(1, 2), torch.tensor([[5.0, 2.0]]), torch.tensor([2.0, 1.0])
    found = doubt(ensemble, obs, torch.zeros(1, 1), truth, scale)
    assert found.error.tolist() == pytest.approx([math.sqrt(((3 / 2) ** 2 + 2**2) / 2)])
    assert found.epistemic.tolist() == pytest.approx([math.sqrt((1 / 4 + 0) / 2)])
    assert found.aleatoric.tolist() == pytest.approx([math.sqrt((6 / 4 + 2) / 2)])


def test_worth_of_a_doubt_that_knows_the_error():
    draw = torch.Generator().manual_seed(0)
    spread = torch.rand(4000, 1, generator=draw) + 0.1
    means = torch.stack([-spread, spread])  # [2, N, 1]: the mean is 0, the epistemic std is `spread`
    ensemble = fixed_ensemble(means, torch.full((2, 4000, 1), 1e-12))
    truth = spread * torch.randn(4000, 1, generator=draw)
    numbers = worth(ensemble, batch_of(torch.zeros(4000, 1), truth), torch.ones(1))
    assert numbers["epistemic"] == pytest.approx(float(spread.square().mean().sqrt()))
    assert numbers["error"] == pytest.approx(float(truth.square().mean().sqrt()))
    assert numbers["ece"] < 0.02
    expected = spearmanr(spread.flatten().numpy(), truth.abs().flatten().numpy()).statistic
    assert numbers["rank_correlation"] == pytest.approx(expected, abs=1e-6)
    off = worth(ensemble, batch_of(torch.zeros(4000, 1), truth), torch.ones(1), measured=truth + 100)
    assert off["error"] == numbers["error"]
    assert off["ece"] == pytest.approx(0.5)  # nothing that was measured lies in any interval


def test_a_single_member_has_no_rank_correlation():
    ensemble = fixed_ensemble(torch.zeros(1, 5, 1), torch.ones(1, 5, 1))
    numbers = worth(ensemble, batch_of(torch.zeros(5, 1), torch.randn(5, 1)), torch.ones(1))
    assert numbers["rank_correlation"] == numbers["epistemic"] == 0


def test_the_phase_plane_has_every_angle_and_velocity_once():
    obs = phase_plane(5)
    assert obs.shape == (25, 3)
    assert torch.allclose(obs[:, :2].norm(dim=1), torch.ones(25))
    grid = angle_of(obs).view(5, 5)
    assert grid[1:4, 0].tolist() == pytest.approx([-math.pi / 2, 0, math.pi / 2], abs=1e-6)
    assert torch.allclose(obs[:, 2].view(5, 5)[3], torch.tensor([-8.0, -4.0, 0.0, 4.0, 8.0]))


def test_the_truth_of_the_phase_plane_is_that_of_the_environment():
    plane = true_transitions(get_task("pendulum"), phase_plane(4), torch.full((16, 1), 1.5))
    with gym.make("Pendulum-v1") as env:
        env.reset(seed=0)
        pendulum: Any = env.unwrapped
        for obs, next_obs in zip(plane.obs, plane.next_obs, strict=True):
            pendulum.state = np.array([float(angle_of(obs)), float(obs[2])])
            found = env.step(np.array([1.5], dtype=np.float32))[0]
            assert next_obs.tolist() == pytest.approx(found.tolist(), abs=1e-4)
    with pytest.raises(ValueError, match="task is 'cheetah', expected one with known dynamics"):
        true_transitions(get_task("cheetah"), torch.zeros(1, 18), torch.zeros(1, 6))


def test_the_worn_sensor_trembles_at_positive_angles_alone():
    obs = phase_plane(60)
    data = batch_of(obs, obs)
    spoilt = with_sensor_noise(data, 0.5, torch.Generator().manual_seed(0))
    off = spoilt.next_obs - data.next_obs
    worn = angle_of(obs) > 1e-3
    assert off[:, :2].abs().max() == 0
    assert off[angle_of(obs) < -1e-3].abs().max() == 0
    assert off[worn, 2].std() == pytest.approx(0.5, rel=0.08)
    assert sensor_noise(torch.tensor([0.0, 1.0, 0.0]), 0.5) == 0.5
    assert torch.equal(data.next_obs, obs)  # the data themselves are as they were


def test_visited_states_are_those_near_the_data():
    config = dataclasses.replace(get_config("ensemble-uncertainty", "smoke"), num_steps=400, near=0.3)
    found = fit_phase_plane(config, Run(0))
    assert 0 < found.visited.float().mean() < 1
    gap = (found.plane.obs[:, None, 2] - found.data.obs[None, :, 2]).abs().min(dim=1).values  # of velocities
    assert (gap[found.visited] < 0.3 * found.plane.obs[:, 2].std()).all()
    assert torch.equal(found.scale, step_scale(found.data))  # no noise, so the data are clean


def test_on_policy_iterations_judge_new_data_before_they_are_learned():
    config = get_config("ensemble-on-policy", "smoke", {"num_iterations": 2, "steps_per_iteration": 30})
    first, second, third = on_policy_iterations(config, Run(0))
    assert first.before is None and second.before is not None
    assert [found.costs["env_steps"] for found in (first, second, third)] == [0, 30, 60]
    # 30 steps are less than the episode of 200, which is carried on to its end for its return
    calls = 200 * config.population_size * config.horizon * config.ensemble_size * config.cem_iterations
    assert [found.costs["model_calls"] for found in (first, second, third)] == [0, calls, 2 * calls]
    assert len(third.new.obs) == 30


def test_on_policy_iterations_draw_from_the_runs_generator_alone():
    config = get_config("ensemble-on-policy", "smoke", {"horizon": 2})
    returns = []
    for _ in range(2):
        torch.rand(3)  # of the generator that everybody shares
        returns.append([found.mean_return for found in on_policy_iterations(config, Run(0))])
    assert returns[0] == returns[1]


def learner(**changes):
    """A learner of the pendulum whose first 50 rows are as they are, and whose other 50 jump at random."""
    config = dataclasses.replace(get_config("prioritized-noise", "smoke"), noise=0.0, **changes)
    draw = torch.Generator().manual_seed(0)
    obs = phase_plane(10)
    jumps = torch.cat([torch.zeros(50, 3), 10 * torch.randn(50, 3, generator=draw)])
    return ReplayLearner(get_task("pendulum"), batch_of(obs, obs + jumps), config, Run(0))


def test_replay_by_error_draws_what_cannot_be_learned_and_uniform_does_not():
    shares = {}
    for replay in ("uniform", "error"):
        found = learner(replay=replay, batch_size=50)
        for _ in range(60):
            found.step()
        assert found.steps == 60 and found.drawn.sum() == 60 * 50
        shares[replay] = float(found.drawn[50:].sum() / found.drawn.sum())
    assert shares["uniform"] == pytest.approx(0.5, abs=0.05)
    assert shares["error"] > 0.6


def test_replay_by_disagreement_sets_its_priorities_from_the_members_means():
    found = learner(replay="epistemic", batch_size=500)  # nearly every row comes at least once
    means = found.ensemble.forward(found.inputs)[0].detach()
    found.step()
    assert found.buffer is not None
    seen = found.drawn > 0
    spread = means.var(dim=0, correction=0).mean(dim=-1).sqrt()
    expected = (spread + found.buffer.epsilon) ** found.buffer.alpha
    assert torch.allclose(found.buffer.tree.get(torch.arange(100))[seen].float(), expected[seen], rtol=1e-4)


def test_replay_refuses_noise_without_the_sensor():
    with pytest.raises(ConfigError, match=r"noise is 0\.1 for task 'cheetah', expected 0: not the pendulum"):
        get_config("prioritized-model", "smoke", {"noise": "0.1"})


def test_the_loop_of_week_2_keeps_a_ledger():
    changes = {"variants": "horizon=2,horizon=4", "num_iterations": 2}
    rows = run("q4", [0], "smoke", changes, out=None, progress=False)
    config, steps = get_config("q4", "smoke", changes), get_task("reacher7").max_steps
    for horizon in (2, 4):
        part = rows[rows["variant"] == f"horizon={horizon}"]
        calls = steps * config.num_sequences * horizon * config.ensemble_size
        assert part["model_calls"].tolist() == [0, calls, 2 * calls]
        assert part["model_updates"].tolist() == [0, config.gradient_steps, 2 * config.gradient_steps]
        assert part["env_steps"].tolist() == [0, 200, 220]
        assert part["cpu_seconds"].is_monotonic_increasing
