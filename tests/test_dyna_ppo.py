"""Dyna-PPO and what it imagines, against plain PPO, closed forms and toy models."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_course.buffers import Batch
from mbrl_course.clinic import shaped_task
from mbrl_course.dyna_ppo import DynaPPO, DynaPPOConfig
from mbrl_course.ensembles import EnsembleConfig, EnsembleFitResult, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.imagination import (
    corrupt_model,
    cut_short,
    epistemic_variance,
    errors_by_age,
    imagined_rollouts,
    model_loss,
    planned_actions,
    uncertainty_gate,
    visit_counts,
    worst_case_scores,
)
from mbrl_course.learned_termination import LearnedTermination
from mbrl_course.ppo import PPO, generalized_advantages

CARTPOLE = get_task("CartPole-v1")
SMALL: dict[str, Any] = {
    "num_envs": 4,
    "num_steps": 32,
    "num_epochs": 2,
    "hidden_sizes": (16, 16),
    "ensemble_size": 3,
    "model_hidden_sizes": (16,),
    "model_epochs": 3,
    "model_start": 100,
    "imag_batches": 2,
    "imag_rollouts": 20,
    "imag_horizon": 4,
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small_agent(seed=0, learned_end=None, **kwargs):
    return DynaPPO(CARTPOLE, DynaPPOConfig(**{**SMALL, **kwargs}), seed, learned_end)


def weights(module):
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def test_planned_actions_come_out_as_the_choice_that_was_meant():
    assert planned_actions(CARTPOLE, 2).tolist() == [[-1.0], [1.0]]
    car = get_task("MountainCar-v0")
    assert [car.to_env_action(row) for row in planned_actions(car, 3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="task 'cartpole'"):
        planned_actions(CARTPOLE, 3)


def test_epistemic_variance_is_relative_to_the_scale_and_ignores_agreement():
    means = torch.tensor([[[1.0, 10.0], [3.0, 3.0]], [[3.0, 30.0], [3.0, 3.0]]])  # [E=2, N=2, D=2]
    variance = epistemic_variance(means, torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(variance, torch.tensor([1.0, 0.0]))


def test_the_gate_closes_above_tau_and_for_nan():
    variance = torch.tensor([0.0, 0.1, 0.2, math.inf, math.nan])
    assert uncertainty_gate(variance, 0.1).tolist() == [True, True, False, False, False]


def test_corruption_has_the_spread_that_was_asked_for():
    delta, reward, scale = torch.ones(50_000, 2), torch.ones(50_000), torch.tensor([1.0, 5.0])
    noisy, noisy_reward = corrupt_model(delta, reward, 0.3, scale, generator())
    torch.testing.assert_close(noisy.std(0), 0.3 * scale, rtol=0.02, atol=0)
    torch.testing.assert_close(noisy.mean(0), torch.ones(2), rtol=0, atol=0.03)
    assert noisy_reward.std().item() == pytest.approx(0.3, rel=0.02)
    assert all(a is b for a, b in zip(corrupt_model(delta, reward, 0.0), (delta, reward), strict=True))


def counting_step(limits, broken=()):
    """A model whose state counts steps; row n ends at limits[n]; a state in `broken` can't be trusted."""

    def step(obs, action):
        next_obs = obs + torch.tensor([1.0, 0.0])
        trusted = ~torch.isin(next_obs[:, 0], torch.tensor(broken))
        return next_obs, next_obs[:, 0], next_obs[:, 0] >= limits[obs[:, 1].long()], trusted

    return step


def act(obs):
    return torch.zeros(len(obs), dtype=torch.long), torch.zeros(len(obs))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.sampled_from([(), (3.0,)]))
def test_rollouts_end_where_the_model_says_so_and_where_it_is_not_trusted(limits, horizon, broken):
    start = torch.stack([torch.zeros(len(limits)), torch.arange(len(limits)).float()], dim=1)  # [N, 2]
    rollouts = imagined_rollouts(act, counting_step(torch.tensor(limits), broken), start, horizon)
    for n, limit in enumerate(limits):
        length = min(limit, horizon)
        if broken:
            length = min(length, 2)  # the step to 3 does not count
        assert rollouts.valid[:, n].sum() == length and bool(rollouts.valid[:length, n].all())
        assert rollouts.reward[:length, n].tolist() == list(range(1, length + 1))
        ends = rollouts.terminated[:, n].nonzero().flatten().tolist()
        assert ends == ([limit - 1] if length == limit else [])
        cuts = cut_short(rollouts.terminated, rollouts.valid)[:, n].nonzero().flatten().tolist()
        assert cuts == ([] if length == limit or length == 0 else [length - 1])
        assert bool(
            (rollouts.next_obs[:length, n] == rollouts.obs[:length, n] + torch.tensor([1.0, 0.0])).all()
        )


def test_a_model_that_breaks_down_leaves_nothing_behind():
    def step(obs, action):
        next_obs = torch.where(obs > 0, obs + 1, torch.nan)
        yes = torch.ones(len(obs), dtype=torch.bool)
        return next_obs, next_obs[:, 0], ~yes, yes

    rollouts = imagined_rollouts(act, step, torch.tensor([[0.0], [1.0]]), 3)
    assert rollouts.valid[:, 0].tolist() == [False] * 3 and bool(rollouts.valid[:, 1].all())
    assert all(bool(column.isfinite().all()) for column in rollouts)


def test_nothing_after_a_cut_leaks_into_the_advantages():
    """The advantages of a rollout that was cut after two steps are those of a rollout of two steps."""
    rollouts = imagined_rollouts(act, counting_step(torch.tensor([99]), (3.0,)), torch.zeros(1, 2), 5)
    values = torch.randn(5, 1, generator=generator())
    truncated = cut_short(rollouts.terminated, rollouts.valid)
    columns = (rollouts.reward, values, values + 1, rollouts.terminated, truncated)
    long = generalized_advantages(*columns)
    reward, value, next_value, terminated, cut = (column[:2] for column in columns)
    short = generalized_advantages(reward, value, next_value, terminated, cut)
    torch.testing.assert_close(long[:2], short)


def test_visits_are_counted_once_each():
    points = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.9, 0.2], [5.0, -5.0], [1e30, -torch.inf]])
    counts = visit_counts(points, torch.zeros(2), torch.ones(2), 2)
    assert counts.tolist() == [[1, 0], [4, 0]]
    many = torch.rand(1000, 2, generator=generator())
    truth = torch.histogramdd(many, bins=[4, 4], range=[0.0, 1.0, 0.0, 1.0]).hist
    assert torch.equal(visit_counts(many, torch.zeros(2), torch.ones(2), 4), truth.long())


def test_errors_by_age_tell_old_from_new():
    model = GaussianEnsemble(1, 1, EnsembleConfig(ensemble_size=2, num_elites=2, hidden_sizes=(4,)))
    with torch.no_grad():  # it predicts that nothing changes
        for parameter in model.network.parameters():
            parameter.zero_()
    model.target_normalizer.std = torch.tensor([2.0])
    obs, ends = torch.zeros(6, 1), torch.zeros(6, dtype=torch.bool)
    next_obs = torch.tensor([0.0, 0.0, 0.0, 2.0, 2.0, 2.0]).unsqueeze(1)
    data = Batch(obs, torch.zeros(6, 1), torch.zeros(6), next_obs, ends, ends)
    torch.testing.assert_close(errors_by_age(model, data, 2), torch.tensor([0.0, 1.0]))


def test_a_members_error_is_the_means_error_and_the_disagreement():
    """Krogh and Vedelsby, 1995, Eq. 5-6: the members' average loss is the mean's loss plus their variance."""
    means, next_obs = torch.randn(5, 40, 3, generator=generator()), torch.randn(40, 3, generator=generator(1))
    scale = torch.tensor([0.1, 1.0, 20.0])
    average = torch.stack([model_loss(mean[None], next_obs, scale) for mean in means]).mean(dim=0)
    torch.testing.assert_close(average, model_loss(means, next_obs, scale) + epistemic_variance(means, scale))
    torch.testing.assert_close(model_loss(next_obs[None] + scale, next_obs, scale), torch.ones(40))


def test_worst_case_scores_are_the_smallest_of_the_members_own_returns():
    gains, limit = torch.tensor([1.0, -1.0, 0.5]), 3.0

    def step(obs, action):  # each member has a gain of its own; beyond the limit the episode ends
        next_obs = obs + gains[: len(obs), None, None] * action
        return next_obs, next_obs[..., 0], next_obs[..., 0].abs() > limit

    plans = torch.randn(50, 6, 1, generator=generator()) * 2
    scores = worst_case_scores(step, 3, torch.tensor([0.5]), plans)
    for plan, score in zip(plans, scores, strict=True):
        returns = []
        for gain in gains:
            x, total = 0.5, 0.0
            for action in plan[:, 0]:
                x += float(gain * action)
                total += x
                if abs(x) > limit:
                    break
            returns.append(total)
        assert score.item() == pytest.approx(min(returns), abs=1e-4)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_plan_that_breaks_a_member_ranks_last(broken):
    def step(obs, action):
        reward = torch.tensor([[1.0, 1.0], [1.0, broken]])  # member 1 breaks down with plan 1
        return obs, reward, torch.zeros(2, 2, dtype=torch.bool)

    scores = worst_case_scores(step, 2, torch.zeros(1), torch.zeros(2, 3, 1))
    assert scores.tolist() == [3.0, -math.inf]


def test_without_a_model_it_is_ppo_step_by_step():
    agent = small_agent(seed=3, use_model=False)
    plain = PPO("CartPole-v1", agent.config, seed=3)
    for _ in range(4):
        agent.iterate()
        plain.update(plain.collect())
        assert torch.equal(weights(agent.ppo.policy), weights(plain.policy))
        assert torch.equal(agent.ppo.obs, plain.obs)
    assert agent.ppo.counters.imagined_steps == 0
    assert vars(agent.ppo.counters) == vars(plain.counters)


def test_runs_with_neighbouring_seeds_share_no_environment():
    config = DynaPPOConfig(**SMALL)
    starts = torch.cat([DynaPPO(get_task("cartpole"), config, seed=seed).ppo.obs for seed in range(3)])
    assert len(starts.unique(dim=0)) == 3 * config.num_envs


def test_weights_of_policy_and_model_are_drawn_apart():
    agent = small_agent(seed=4)
    assert agent.generator.initial_seed() != agent.ppo.generator.initial_seed() == 4


def test_a_shaped_task_is_shaped_in_real_and_in_imagined_steps():
    task = get_task("pendulum")
    shaped = shaped_task(task, lambda obs: 100 * obs[..., 0], 0.99)
    agent = DynaPPO(shaped, DynaPPOConfig(**SMALL), seed=0)
    agent.iterate()
    rows = agent.buffer.all()
    expected = shaped.reward(rows.obs, rows.action, rows.next_obs)
    torch.testing.assert_close(rows.reward, expected, atol=1e-2, rtol=1e-3)
    assert (expected - task.reward(rows.obs, rows.action, rows.next_obs)).abs().max() > 1


def test_a_model_changes_the_policy_but_not_the_first_real_batch():
    agent, plain = small_agent(seed=3), PPO("CartPole-v1", DynaPPOConfig(**SMALL), seed=3)
    agent.iterate()
    plain.update(plain.collect())
    assert agent.ppo.counters.real_steps == plain.counters.real_steps == 128
    assert agent.ppo.counters.imagined_steps > 0
    assert torch.equal(agent.ppo.obs, plain.obs)
    assert not torch.equal(weights(agent.ppo.policy), weights(plain.policy))


def test_termination_is_respected_in_every_imagined_rollout():
    agent = small_agent()
    agent.iterate()
    assert agent.buffer.all().terminated.any()
    agent.config = DynaPPOConfig(**{**SMALL, "imag_horizon": 30, "imag_rollouts": 200})
    batch = agent.imagine()
    beyond = CARTPOLE.terminated(batch.obs)  # [H, N], states in which the episode is over already
    assert bool(batch.valid.any()) and not bool((beyond & batch.valid).any())
    assert not bool(batch.valid.all())  # some did end within 30 steps
    assert bool((batch.valid[1:] <= batch.valid[:-1]).all())  # what is over stays over


def test_stored_steps_follow_each_other_within_an_environment():
    agent = small_agent()
    agent.iterate()
    data = agent.buffer.sample_sequences(300, 5, generator())
    assert torch.equal(data.obs[:, 1:], data.next_obs[:, :-1])
    assert CARTPOLE.dynamics is not None
    truth = CARTPOLE.dynamics(data.obs, data.action)
    torch.testing.assert_close(truth, data.next_obs, atol=1e-4, rtol=1e-4)


def test_the_model_is_fitted_to_the_latest_steps_for_which_there_is_room():
    """There is room for 128: 32 steps of each of the 4 environments."""
    agent = small_agent(learned_end=LearnedTermination(4, (16,), generator()), buffer_capacity=128)
    remember, collected, fitted = agent.remember, [], []

    def noting(transitions):
        collected.append(torch.cat([obs for obs, *_ in transitions]))
        remember(transitions)

    def fit(data, **kwargs):
        fitted.append(data)
        return EnsembleFitResult()

    agent.remember, agent.model.fit, agent.learned_end.fit = noting, fit, fit
    for _ in range(3):
        agent.iterate()
        latest = sorted(collected[-1].tolist())
        assert len(latest) == 128
        assert [sorted(data.obs.tolist()) for data in fitted[-2:]] == [latest] * 2  # of the model, of the end
    assert len(fitted) == 6


def test_a_closed_gate_lets_nothing_through_and_noise_opens_no_gate():
    agent = small_agent(gate=1e-12)
    agent.iterate()
    before = agent.ppo.counters.gradient_steps
    assert agent.ppo.counters.imagined_steps == 0
    assert not bool(agent.imagine().valid.any())
    assert math.isnan(agent.ppo.update(agent.imagine()))
    assert agent.ppo.counters.gradient_steps == before


def test_noise_reaches_the_imagined_rewards():
    agent = small_agent(noise=0.5)
    agent.iterate()
    obs = agent.buffer.sample(5000, generator()).obs
    _, reward, terminated, _ = agent.imagined_step(obs, torch.zeros(5000, dtype=torch.long))
    assert reward.std().item() == pytest.approx(0.5, rel=0.05)  # the true reward is always 1
    next_obs, _, terminated, _ = agent.imagined_step(obs, torch.zeros(5000, dtype=torch.long))
    assert torch.equal(terminated, CARTPOLE.terminated(next_obs))


def test_a_learned_end_and_a_learned_reward_can_take_the_tasks_place():
    agent = small_agent(learned_end=LearnedTermination(4, (16,), generator()), learn_reward=True)
    agent.train(512)
    assert bool(agent.learned_end.can_end)
    assert agent.ppo.counters.imagined_steps > 0


def test_continuous_actions_are_clipped_before_the_model_sees_them():
    agent = DynaPPO(get_task("pendulum"), DynaPPOConfig(**SMALL), 0)
    assert agent.to_planned(torch.tensor([[9.0], [-9.0]])).tolist() == [[2.0], [-2.0]]
    agent.iterate()
    assert agent.buffer.all().action.abs().max() <= 2
    assert agent.ppo.counters.imagined_steps == 2 * 20 * 4  # nothing ends


def test_the_same_seed_gives_the_same_agent():
    agents = [small_agent(seed=5) for _ in range(2)]
    for agent in agents:
        agent.train(256)
    assert torch.equal(*(weights(agent.ppo.policy) for agent in agents))
    assert torch.equal(*(weights(agent.model) for agent in agents))


@pytest.mark.parametrize("end", [False, True])
def test_a_checkpoint_resumes_to_identical_weights(tmp_path, end):
    def fresh(seed):
        learned_end = LearnedTermination(4, (16,), generator(seed)) if end else None
        return small_agent(seed, learned_end, buffer_capacity=200)

    whole, first, second = fresh(1), fresh(1), fresh(2)
    whole.train(512)
    first.train(256)
    torch.save(first.state_dict(), tmp_path / "checkpoint")
    second.load_state_dict(torch.load(tmp_path / "checkpoint", weights_only=True))
    second.train(512)
    assert torch.equal(weights(whole.ppo.policy), weights(second.ppo.policy))
    assert torch.equal(weights(whole.model), weights(second.model))
    assert vars(whole.ppo.counters) == vars(second.ppo.counters)


@pytest.mark.slow
def test_it_learns_cartpole():
    config = DynaPPOConfig(
        minibatch_size=256,
        learning_rate=2e-3,
        ensemble_size=3,
        model_hidden_sizes=(32,),
        model_start=500,
        imag_epochs=4,
    )
    agent = DynaPPO(CARTPOLE, config, seed=0)
    agent.train(4096)
    late = [value for step, value in agent.ppo.episode_returns if step > 3000]
    assert sum(late) / len(late) > 45  # random actions earn about 22, seeds 0 and 1 some 90 and 120


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ensemble_size", 0),
        ("imag_horizon", 0),
        ("imag_epochs", 0),
        ("gate", 0.0),
        ("gate", float("nan")),
        ("noise", -0.1),
        ("hidden_sizes", (0,)),
        ("model_hidden_sizes", (64, 0)),
        ("model_learning_rate", 0.0),
        ("gamma", 1.5),
    ],
)
def test_bad_configurations_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        DynaPPOConfig(**{field: value})


def test_a_gate_needs_members_that_can_disagree():
    with pytest.raises(ValueError, match=r"gate is 0\.1 and ensemble_size 1, expected at least 2 members"):
        DynaPPOConfig(gate=0.1, ensemble_size=1)
    DynaPPOConfig(ensemble_size=1)
