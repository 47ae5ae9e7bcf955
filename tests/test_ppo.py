"""PPO against naive definitions, closed forms and a task that random actions do not solve."""

import math
from itertools import pairwise

import gymnasium as gym
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Normal

from mbrl_course.ppo import (
    PPO,
    ActorCritic,
    PPOConfig,
    RolloutBatch,
    clipped_objective,
    generalized_advantages,
)


def naive_advantages(rewards, values, next_values, terminated, truncated, gamma, gae_lambda):
    """The definition, as a double loop: the discounted sum of the deltas up to the episode's end."""
    steps, envs = rewards.shape
    result = torch.zeros(steps, envs)
    for n in range(envs):
        for t in range(steps):
            weight = 1.0
            for k in range(t, steps):
                bootstrap = 0.0 if terminated[k, n] else gamma * next_values[k, n]
                result[t, n] += weight * (rewards[k, n] + bootstrap - values[k, n])
                if terminated[k, n] or truncated[k, n]:
                    break
                weight *= gamma * gae_lambda
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_gae_is_the_naive_double_loop(seed, gamma, gae_lambda):
    g = torch.Generator().manual_seed(seed)
    rewards, values, next_values = torch.randn(3, 9, 2, generator=g)
    terminated, truncated = torch.rand(2, 9, 2, generator=g) < 0.2
    arguments = (rewards, values, next_values, terminated, truncated, gamma, gae_lambda)
    advantages = generalized_advantages(*arguments)
    torch.testing.assert_close(advantages, naive_advantages(*arguments), rtol=1e-4, atol=1e-5)
    whole = (*arguments[:3], terminated.long(), truncated.to(torch.uint8), gamma, gae_lambda)
    assert torch.equal(generalized_advantages(*whole), advantages)


def test_a_state_of_other_environments_changes_nothing():
    agent, other = (PPO("CartPole-v1", PPOConfig(num_envs=n, num_steps=4), seed=n) for n in (2, 3))
    before = [weight.clone() for weight in agent.policy.parameters()]
    with pytest.raises(
        ValueError, match="an agent with 3 environments, expected 2, the num_envs of this one"
    ):
        agent.load_state_dict(other.state_dict())
    assert all(torch.equal(*pair) for pair in zip(before, agent.policy.parameters(), strict=True))


def test_terminated_masks_the_bootstrap_and_truncated_does_not():
    one, no, yes = torch.ones(1, 1), torch.zeros(1, 1).bool(), torch.ones(1, 1).bool()
    zero = torch.zeros(1, 1)
    assert generalized_advantages(one, zero, 10 * one, yes, no, gamma=0.5).item() == 1.0
    assert generalized_advantages(one, zero, 10 * one, no, yes, gamma=0.5).item() == 6.0


def test_clipped_objective_in_its_four_cases():
    log_ratio = torch.tensor([2.0, 0.5, 2.0, 0.5]).log()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    expected = torch.tensor([1.2, 0.5, -2.0, -0.8])
    torch.testing.assert_close(clipped_objective(log_ratio, advantages, 0.2), expected)


def test_at_the_old_policy_the_gradient_is_the_policy_gradient():
    logits = torch.randn(6, 3, requires_grad=True)
    action, advantages = torch.randint(3, (6,)), torch.randn(6)
    log_prob = Categorical(logits=logits).log_prob(action)
    surrogate = clipped_objective(log_prob - log_prob.detach(), advantages, 0.2).sum()
    (gradient,) = torch.autograd.grad(surrogate, logits, retain_graph=True)
    (truth,) = torch.autograd.grad((log_prob * advantages).sum(), logits)
    torch.testing.assert_close(gradient, truth)


POLICY_LOSS = -(1.2 + 0.5 - 2.0 - 0.8) / 4 * 0.75**0.5
VALUE_LOSS = (1 + 0 + 1 + 4) / 4
ENTROPY = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))


@pytest.mark.parametrize(
    ("value_coef", "entropy_coef", "expected"),
    [
        (0.0, 0.0, POLICY_LOSS),
        (2.0, 0.0, POLICY_LOSS + 2 * VALUE_LOSS),
        (0.0, 2.0, POLICY_LOSS - 2 * ENTROPY),
    ],
)
def test_each_term_of_the_loss_in_closed_form(value_coef, entropy_coef, expected):
    """The four cases of the clipped objective, V = 2 everywhere, and a policy of 1/4 and 3/4."""
    agent = PPO("CartPole-v1", PPOConfig(num_envs=1, value_coef=value_coef, entropy_coef=entropy_coef))
    probabilities = torch.tensor([0.25, 0.75])
    with torch.no_grad():
        for network, outputs in ((agent.policy.actor, probabilities.log()), (agent.policy.critic, 2.0)):
            weight, bias = list(network.parameters())[-2:]
            weight.zero_()
            bias.copy_(torch.as_tensor(outputs))
    action, ratio = torch.tensor([0, 1, 1, 0]), torch.tensor([2.0, 0.5, 2.0, 0.5])
    # their mean is 5 and their standard deviation 3 / 0.75**0.5
    advantages = 5 + 3 * torch.tensor([1.0, 1.0, -1.0, -1.0])
    old = (probabilities[action] / ratio).log()
    returns, valid = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4).bool()
    rows = RolloutBatch(torch.randn(4, 4), action, old, advantages, returns, valid)
    assert agent.loss(rows).item() == pytest.approx(expected, rel=1e-5)


def test_an_update_makes_what_went_well_more_likely():
    agent = PPO("CartPole-v1", PPOConfig(num_envs=2, num_steps=32, learning_rate=1e-2), seed=2)
    batch = agent.collect()
    batch.advantages.copy_(batch.action)  # to go right was good, to go left was not
    agent.update(batch)
    right = agent.policy.distribution(batch.obs).log_prob(torch.ones(32, 2))
    before = torch.where(batch.action == 1, batch.log_prob, torch.log1p(-batch.log_prob.exp()))
    assert (right - before).mean() > 0.1


def test_value_targets_without_bootstrap_are_the_discounted_sums_of_rewards():
    """With lambda = 1 nothing of V is left in them, where the episodes end."""
    agent = PPO("CartPole-v1", PPOConfig(num_envs=1, gamma=0.9, gae_lambda=1.0), seed=1)
    g = torch.Generator().manual_seed(0)
    path = torch.randn(7, 2, 4, generator=g)
    reward, no = torch.randn(6, 2, generator=g), torch.zeros(6, 2).bool()
    terminated = no.clone()
    terminated[-1] = True
    batch = agent.make_batch(path[:-1], no.long(), reward, reward, path[1:], terminated, no, ~no)
    discounts = 0.9 ** torch.arange(6)[:, None]
    expected = [(discounts[: 6 - t] * reward[t:]).sum(dim=0) for t in range(6)]
    torch.testing.assert_close(batch.returns, torch.stack(expected))
    values = agent.policy.value(path[:-1]).detach()
    assert values.abs().min() > 1e-3
    torch.testing.assert_close(batch.advantages, batch.returns - values)


def test_actions_follow_the_policy_discrete_and_continuous():
    g = torch.Generator().manual_seed(0)
    policy = ActorCritic(2, gym.spaces.Discrete(3), generator=g)
    with torch.no_grad():
        list(policy.actor.parameters())[-1].normal_(generator=g)
    obs = torch.zeros(60_000, 2)
    action, log_prob = policy.act(obs, g)
    share = torch.bincount(action, minlength=3) / len(action)
    probabilities = policy.actor(obs[0]).softmax(-1).detach()
    torch.testing.assert_close(share, probabilities, atol=0.01, rtol=0)
    torch.testing.assert_close(log_prob, policy.distribution(obs).log_prob(action).detach())
    policy = ActorCritic(2, gym.spaces.Box(-1, 1, (2,)), generator=g)
    assert policy.log_std is not None
    action, log_prob = policy.act(obs, g)
    truth = Normal(policy.actor(obs), policy.log_std.exp()).log_prob(action).sum(-1).detach()
    torch.testing.assert_close(log_prob, truth)
    assert abs(action.std().item() - policy.log_std.exp()[0].item()) < 0.02


def test_the_state_before_a_reset_is_what_the_step_led_to():
    agent = PPO("CartPole-v1", PPOConfig(num_envs=3, num_steps=100), seed=1)
    seen = []
    agent.collect(lambda *transition: seen.append([x.clone() for x in transition]))
    ends = sum(int(terminated.sum()) for *_, terminated, _ in seen)
    assert ends > 3
    for (*_, next_obs, terminated, _), (obs, *_) in pairwise(seen):
        assert torch.equal(obs[~terminated], next_obs[~terminated])
        assert bool((obs[terminated].abs() <= 0.05).all())  # where CartPole-v1 starts
    for obs, _, reward, next_obs, terminated, _ in seen:
        beyond = (next_obs[:, 2].abs() > 0.2095) | (next_obs[:, 0].abs() > 2.4)
        assert torch.equal(beyond, terminated)  # a reset state would be near 0
        assert bool((reward == 1).all()) and obs.shape == (3, 4)
    assert agent.counters.real_steps == 300
    assert len(agent.episode_returns) >= ends


def test_invalid_rows_take_no_part_in_an_update():
    agents = [PPO("CartPole-v1", PPOConfig(num_envs=2, num_steps=32), seed=3) for _ in range(2)]
    batches = [agent.collect() for agent in agents]
    valid = torch.arange(32)[:, None].expand(32, 2) < 20
    poisoned = batches[0]._replace(valid=valid)
    poisoned.advantages[20:] = float("nan")
    short = type(poisoned)(*(column[:20] for column in batches[1]))
    losses = [agent.update(batch) for agent, batch in zip(agents, (poisoned, short), strict=True)]
    assert losses[0] == losses[1]


def test_the_same_seed_gives_the_same_agent():
    weights = []
    for _ in range(2):
        agent = PPO("CartPole-v1", PPOConfig(num_envs=2, num_steps=16), seed=5)
        agent.train(64)
        weights.append(torch.nn.utils.parameters_to_vector(agent.policy.parameters()).detach())
    assert torch.equal(*weights)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "InvertedPendulum-v5"])
def test_a_checkpoint_resumes_to_identical_weights(env_id, tmp_path):
    config = PPOConfig(num_envs=3, num_steps=30, num_epochs=2)
    whole, first, second = (PPO(env_id, config, seed=seed) for seed in (1, 1, 2))
    whole.train(360)
    first.train(180)
    torch.save(first.state_dict(), tmp_path / "checkpoint")
    second.load_state_dict(torch.load(tmp_path / "checkpoint", weights_only=True))
    second.train(360)
    for a, b in zip(whole.policy.parameters(), second.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.obs, second.obs)
    assert whole.episode_returns == second.episode_returns


@pytest.mark.parametrize("anneal", [True, False])
def test_the_learning_rate_falls_linearly_where_it_shall(anneal):
    agent = PPO("CartPole-v1", PPOConfig(num_envs=2, num_steps=16, learning_rate=0.1, anneal=anneal), seed=1)
    rates = []
    agent.train(128, lambda agent: rates.append(agent.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025] if anneal else [0.1] * 4)


def test_continuous_actions_reach_the_environment_within_bounds():
    agent = PPO("Pendulum-v1", PPOConfig(num_envs=2, num_steps=8), seed=0)
    batch = agent.collect()
    assert batch.action.shape == (8, 2, 1)
    assert agent.to_env_action(torch.full((2, 1), 99.0)).max() == 2.0
    agent.update(batch)


@pytest.mark.slow
def test_it_learns_cartpole():
    agent = PPO("CartPole-v1", seed=0)
    agent.train(12_000)
    late = [value for step, value in agent.episode_returns if step > 9_000]
    assert sum(late) / len(late) > 100  # random actions earn about 22


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_envs", 0),
        ("minibatch_size", 1),
        ("gamma", 1.5),
        ("clip", 0.0),
        ("entropy_coef", -1.0),
        ("hidden_sizes", (0,)),
    ],
)
def test_bad_configurations_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        PPOConfig(**{field: value})


def test_an_update_that_breaks_down_says_so():
    agent = PPO("CartPole-v1", PPOConfig(num_envs=2, num_steps=16, learning_rate=1e30))
    batch = agent.collect()
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf): is learning_rate small enough"):
        agent.update(batch)


def test_an_update_without_an_epoch_is_refused():
    agent = PPO("CartPole-v1", PPOConfig(num_envs=1, num_steps=4))
    with pytest.raises(ValueError, match="num_epochs is 0, expected at least 1"):
        agent.update(agent.collect(), num_epochs=0)


def test_environments_without_vectors_are_refused():
    with pytest.raises(TypeError, match="expected vectors"):
        PPO("FrozenLake-v1")
