"""PETS on toy members whose futures are known, and on a cart-pole that random does not balance."""

import pytest
import torch

from mbrl_course.buffers import Batch
from mbrl_course.cem import CEMConfig
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble, Prediction
from mbrl_course.envs import get_task
from mbrl_course.icem import ICEMConfig
from mbrl_course.mpc import RandomShootingConfig, rollout
from mbrl_course.mppi import MPPIConfig
from mbrl_course.pets import (
    ParticleModel,
    PETSConfig,
    Trial,
    make_planner,
    particle_step,
    pets_trials,
    trial_loop,
    ts1_step,
    variance_penalised,
    worst_case,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def toy_ensemble(shifts=(1.0, -1.0)):
    """Members without noise; member k adds shifts[k] to the state in every step."""
    config = EnsembleConfig(ensemble_size=len(shifts), num_elites=len(shifts), hidden_sizes=(4,))
    ensemble = GaussianEnsemble(1, 1, config, reward=lambda obs, action, next_obs: next_obs[..., 0])
    with torch.no_grad():
        for parameter in ensemble.network.parameters():
            parameter.zero_()
        ensemble.network.biases[-1][:, 0, 0] = torch.tensor(shifts)
        ensemble.min_log_var.fill_(-60.0)
        ensemble.max_log_var.fill_(-50.0)
    return ensemble


def final_states(propagation, num_particles, horizon=4, num_sequences=500):
    model = ParticleModel(toy_ensemble(), propagation, num_particles, generator())
    sequences = torch.zeros(num_sequences, horizon, 1)
    imagined = rollout(model.step, torch.zeros(1), sequences, model.ensemble_size)
    return imagined.obs[:, :, -1, 0]  # [P, N]


def test_ts_infinity_keeps_the_member():
    final = final_states("ts_inf", 6)
    torch.testing.assert_close(final[:3], torch.full((3, 500), 4.0))
    torch.testing.assert_close(final[3:], torch.full((3, 500), -4.0))


def test_ts1_is_a_random_walk_between_the_members():
    final = final_states("ts1", 8)
    assert set(final.round().unique().tolist()) == {-4.0, -2.0, 0.0, 2.0, 4.0}
    assert final.var().item() == pytest.approx(4.0, abs=0.3)  # binomial: horizon times 1
    assert abs(final.mean().item()) < 0.1


def test_ts1_deals_every_plans_particles_out_evenly_and_gives_each_its_own_answer():
    def step(obs, action):
        members = torch.arange(3.0)[:, None].expand(obs.shape[:2])
        return obs + 100, members, action[..., 0] > 0

    obs, action = torch.arange(30.0).reshape(6, 5, 1), torch.randn(6, 5, 1, generator=generator())
    next_obs, member, ended = ts1_step(step, 3, obs, action, generator())
    torch.testing.assert_close(next_obs, obs + 100)
    assert torch.equal(ended, action[..., 0] > 0)
    assert torch.equal(member.sort(dim=0).values, torch.tensor([0.0, 0, 1, 1, 2, 2])[:, None].expand(6, 5))


def test_a_particle_draws_its_state_and_its_reward_belongs_to_that_state():
    mean, var = torch.zeros(2, 4000, 1), torch.full((2, 4000, 1), 9.0)
    obs, action = torch.ones(2, 4000, 1), torch.full((2, 4000, 1), 2.0)

    def reward(obs, action, next_obs):
        return (next_obs - obs * action)[..., 0]

    def terminated(next_obs):
        return next_obs[..., 0] > 0

    task_reward = (obs, action, reward, terminated)
    next_obs, rewards, ended = particle_step(Prediction(mean, var, None, None), *task_reward, generator())
    assert next_obs.std().item() == pytest.approx(3.0, abs=0.1)
    torch.testing.assert_close(rewards, next_obs[..., 0] - 2)
    assert torch.equal(ended, next_obs[..., 0] > 0)
    learned = Prediction(mean, var, torch.full((2, 4000), 5.0), torch.full((2, 4000), 0.25))
    _, rewards, _ = particle_step(learned, *task_reward, generator())
    assert rewards.mean().item() == pytest.approx(5.0, abs=0.05)
    assert rewards.std().item() == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ValueError, match="there is no reward"):
        particle_step(Prediction(mean, var, None, None), obs, action, None, terminated, generator())


def test_mean_and_single():
    assert final_states("mean", 8).abs().max() < 1e-5
    assert final_states("mean", 8).shape == (1, 500)
    model = ParticleModel(toy_ensemble(), "single", 2, generator(1))
    seen = set()
    for _ in range(30):
        model.new_episode()
        next_obs, _, _ = model.step(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1))
        assert next_obs.round().unique().numel() == 1  # one member for all particles and plans
        seen.add(round(next_obs[0, 0, 0].item()))
    assert seen == {1, -1}


def test_robust_scores_in_closed_form():
    returns = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [2.0, 5.0]])  # 2 members, 2 particles each
    torch.testing.assert_close(worst_case(returns, 2), torch.tensor([1.0, 0.0]))
    expected = returns.mean(0) - 0.5 * returns.std(0, correction=0)
    torch.testing.assert_close(variance_penalised(returns, 0.5), expected)


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf")])
@pytest.mark.parametrize("robust", ["mean", "worst", "variance"])
def test_a_plan_that_one_member_has_no_sound_return_for_ranks_last(robust, nonsense):
    """Action 1 earns 5 in the second member, and nonsense in the first; action -1 earns 0 in both."""
    ensemble = toy_ensemble((1.0, -1.0))

    def reward(obs, action, next_obs):
        good = torch.where((next_obs - obs)[..., 0] > 0, nonsense, 5.0)
        return torch.where(action[..., 0] > 0, good, torch.zeros(()))

    ensemble.reward = reward
    config = PETSConfig(optimizer=RandomShootingConfig(50, 1), num_particles=4, robust=robust)
    plan = make_planner(ensemble, -torch.ones(1), torch.ones(1), config, generator()).plan(torch.zeros(1))
    assert plan[0, 0] <= 0


@pytest.mark.parametrize("robust", ["mean", "worst", "variance"])
def test_a_robust_planner_avoids_what_the_members_disagree_on(robust):
    """Action 1 earns 5 in one member and -4 in the other; action -1 earns 0 in both."""
    ensemble = toy_ensemble((5.0, -4.0))

    def reward(obs, action, next_obs):
        return torch.where(action[..., 0] > 0, (next_obs - obs)[..., 0], torch.zeros(()))

    ensemble.reward = reward
    config = PETSConfig(optimizer=RandomShootingConfig(50, 1), num_particles=4, robust=robust, penalty=0.5)
    plan = make_planner(ensemble, -torch.ones(1), torch.ones(1), config, generator()).plan(torch.zeros(1))
    assert (plan[0, 0] > 0) == (robust == "mean")


@pytest.mark.parametrize("optimizer", [CEMConfig, ICEMConfig, MPPIConfig])
@pytest.mark.parametrize("propagation", ["ts1", "ts_inf", "mean", "single"])
def test_every_optimizer_plans_with_every_propagation(optimizer, propagation):
    """The best action brings the state to the optimum of the reward."""
    ensemble = toy_ensemble((0.0, 0.0))
    ensemble.reward = lambda obs, action, next_obs: -(action[..., 0] - 0.5).square()
    config = PETSConfig(
        optimizer=optimizer(horizon=3, population_size=200), num_particles=4, propagation=propagation
    )
    planner = make_planner(ensemble, -torch.ones(1), torch.ones(1), config, generator())
    planner.reset()
    assert planner.plan(torch.zeros(1))[0, 0].item() == pytest.approx(0.5, abs=0.15)


def toy_trial(length, first=0.0):
    column = torch.arange(first, first + length)
    ends = torch.zeros(length, dtype=torch.bool)
    return Batch(column[:, None], column[:, None], torch.ones(length), column[:, None] + 1, ends, ends)


def test_the_loop_keeps_its_books_and_goes_on_where_it_was_stopped():
    seen, lengths = [], iter([3, 4, 5, 6])

    def collect(planned):
        seen.append(planned)
        return toy_trial(next(lengths)), 100 * planned

    def fit(data):
        seen.append(len(data.obs))
        return 7

    first = trial_loop(collect, fit, 3, lambda number, trial: number == 1)
    assert seen == [False, 3, True]
    trials = trial_loop(collect, fit, 3, past=first)
    assert seen == [False, 3, True, 7, True, 12, True]
    assert [trial[1:] for trial in trials] == [
        (3, 3, 0, 0),
        (4, 7, 100, 7),
        (5, 12, 200, 14),
        (6, 18, 300, 21),
    ]
    assert trial_loop(collect, fit, 3, past=trials) == trials and len(first) == 2
    assert isinstance(trials[0], Trial)


def tiny_config(**kwargs):
    settings = {"optimizer": CEMConfig(60, 6, 3, 10), "num_particles": 3, "num_trials": 3, **kwargs}
    return PETSConfig(**settings)


def tiny_ensemble(task, seed):
    config = EnsembleConfig(3, 3, hidden_sizes=(64,), batch_size=32)
    kwargs = {"reward": task.reward, "terminated": task.terminated, "generator": generator(seed)}
    return GaussianEnsemble(task.obs_dim, task.action_dim, config, **kwargs)


@pytest.mark.slow
def test_it_learns_to_balance_in_a_handful_of_trials():
    task = get_task("cartpole-balance")
    config = tiny_config(num_trials=6, optimizer=CEMConfig(100, 10, 3, 15))
    trials = pets_trials(
        task, tiny_ensemble(task, 0), config, generator(0), lambda _, trial: trial.trial_return >= 150
    )
    assert max(trial.trial_return for trial in trials) >= 100  # random actions earn about 33
    assert trials[-1].env_steps == sum(len(trial.transitions.obs) for trial in trials)


def test_the_same_seed_gives_the_same_trials():
    task = get_task("cartpole-balance")
    config = tiny_config(num_trials=1, max_epochs=3)
    runs = [pets_trials(task, tiny_ensemble(task, 1), config, generator(2)) for _ in range(2)]
    assert torch.equal(runs[0][1].transitions.obs, runs[1][1].transitions.obs)


def test_bad_configurations_are_refused_by_name():
    with pytest.raises(ValueError, match="propagation"):
        PETSConfig(propagation="ts2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="robust is 'worst', expected propagation 'ts_inf'"):
        PETSConfig(robust="worst", propagation="ts1")
    for lonely in ({"propagation": "mean"}, {"num_particles": 1}):
        with pytest.raises(ValueError, match=r"robust is 'variance', .*expected several particles"):
            PETSConfig(robust="variance", **lonely)
    with pytest.raises(ValueError, match="num_trials"):
        PETSConfig(num_trials=0)
    with pytest.raises(ValueError, match="penalty is nan, expected 0 or more"):
        PETSConfig(robust="variance", penalty=float("nan"))
    with pytest.raises(ValueError, match="num_particles is 5, expected a multiple of the 2 elites"):
        ParticleModel(toy_ensemble(), "ts_inf", 5)
    with pytest.raises(ValueError, match="num_particles is 5, expected a multiple of the 2 elites"):
        ParticleModel(toy_ensemble(), "ts1", 5)
