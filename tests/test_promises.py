"""What plans promise and bring: against returns that can be added up by hand."""

import math
from dataclasses import replace

import pytest
import torch

from mbrl_course.cem import CEMConfig
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.experiments.promises import PlanRecorder, plan_returns
from mbrl_course.mpc import run_episode
from mbrl_course.pets import PETSConfig, make_planner, pets_trials


class Rail:
    """Two carts that the action moves, one of them backwards; the reward is the place, and 10 is the end."""

    ensemble_size = 2

    def step(self, obs, action):
        next_obs = obs + torch.tensor([1.0, -1.0])[:, None, None] * action
        return next_obs, next_obs[..., 0], next_obs[..., 0] >= 10


def test_each_plan_is_followed_from_its_own_state():
    obs, plans = torch.tensor([[0.0], [5.0], [9.0]]), torch.ones(3, 3, 1)
    # the first cart goes 1, 2, 3; 6, 7, 8; 10 and ends. The second one -1, -2, -3; 4, 3, 2; 8, 7, 6
    expected = [(6 - 6) / 2, (21 + 9) / 2, (10 + 21) / 2]
    assert plan_returns(Rail(), obs, plans).tolist() == expected


def small_planner(task, propagation="ts_inf", seed=0):
    ensemble = GaussianEnsemble(
        task.obs_dim,
        task.action_dim,
        EnsembleConfig(2, 2, hidden_sizes=(8,)),
        reward=task.reward,
        terminated=task.terminated,
        generator=torch.Generator().manual_seed(seed),
    )
    config = PETSConfig(CEMConfig(10, 2, 1, 4), propagation, num_particles=4, num_trials=1, max_epochs=1)
    generator = torch.Generator().manual_seed(seed)
    return ensemble, config, make_planner(ensemble, task.action_low, task.action_high, config, generator)


@pytest.mark.parametrize("propagation", ["ts_inf", "ts1", "mean", "single"])
def test_what_a_plan_brings_is_what_the_world_gives(propagation):
    task = get_task("pendulum")
    recorder = PlanRecorder(small_planner(task, propagation)[2])
    obs = torch.tensor([-1.0, 0.0, 0.1])
    plan = recorder.plan(obs)
    promised, obtained = recorder.promises(task, torch.Generator().manual_seed(0))
    rewards, current = [], obs
    for action in plan:
        current, reward, _ = task.step(current, action)
        rewards.append(reward.item())
    assert obtained.tolist() == pytest.approx([sum(rewards) / 4], rel=1e-5)
    assert promised.shape == (1,) and math.isfinite(promised)
    recorder.reset()
    assert math.isnan(recorder.promises(task).medians()[0])


def test_a_task_without_dynamics_has_no_truth_to_compare_with():
    task = get_task("pendulum")
    recorder = PlanRecorder(small_planner(task)[2])
    recorder.plan(torch.tensor([1.0, 0.0, 0.0]))
    found = recorder.promises(replace(task, dynamics=None))
    assert found.promised.isfinite().all() and found.obtained.isnan().all()


def test_recording_changes_nothing():
    task = replace(get_task("cartpole-balance"), max_steps=20)
    trials = []
    for record in (False, True):
        ensemble, config, planner = small_planner(task, seed=3)
        generator = planner.model.generator
        watched = PlanRecorder(planner) if record else planner
        trials.append(pets_trials(task, ensemble, config, generator, planner=watched)[1])
        if record:
            calls = planner.model.calls
            watched.promises(task, torch.Generator().manual_seed(9))
            assert planner.model.calls == calls == trials[1].model_calls
            assert torch.equal(torch.stack(watched.obs), trials[1].transitions.obs)
            first = torch.stack([plan[0] for plan in watched.plans])
            assert torch.equal(first, trials[1].transitions.action)
    assert torch.equal(trials[0].transitions.obs, trials[1].transitions.obs)
    assert len(run_episode(task, watched, seed=1).obs) == len(watched.plans)
