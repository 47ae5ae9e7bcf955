"""SAC against numerical integration, finite differences and a point mass that random does not solve."""

import copy
import math

import pytest
import torch
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from mbrl_course.buffers import Batch, ReplayBuffer
from mbrl_course.networks import relu_mlp
from mbrl_course.sac import (
    SAC,
    SACConfig,
    actor_loss,
    critic_loss,
    critic_target,
    squash,
    temperature_loss,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.5, 0.7)])
def test_the_squashed_density_integrates_to_one(mean, log_std):
    # A grid that is even in u is fine where the density over (-1, 1) rises steeply at the edges.
    pre_tanh = torch.linspace(-12, 12, 400_001, dtype=torch.float64).unsqueeze(-1)
    ones = torch.ones_like(pre_tanh)
    action, log_prob = squash(pre_tanh, mean * ones, log_std * ones)
    torch.testing.assert_close(action, pre_tanh.tanh())
    integral = torch.trapezoid(log_prob.exp(), action.squeeze(-1)).item()
    assert integral == pytest.approx(1, abs=1e-3)


def test_the_squashed_density_is_that_of_torch_distributions_in_several_dimensions():
    g = generator()
    mean, log_std, noise = 0.5 * torch.randn(3, 4, 5, 3, dtype=torch.float64, generator=g)
    pre_tanh = mean + log_std.exp() * noise
    action, log_prob = squash(pre_tanh, mean, log_std)
    truth = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), TanhTransform())
    torch.testing.assert_close(log_prob, truth.log_prob(action))


def test_the_log_probability_does_not_underflow():
    far = torch.tensor([[40.0], [-40.0]])
    _, log_prob = squash(far, far, torch.zeros(2, 1))
    assert bool(torch.isfinite(log_prob).all())
    torch.testing.assert_close(log_prob[0], log_prob[1])


def test_target_and_losses_in_closed_form():
    reward, terminated = torch.tensor([1.0, 1.0]), torch.tensor([False, True])
    next_q = torch.tensor([[3.0, 9.0], [2.0, 9.0]])
    target = critic_target(reward, terminated, next_q, torch.tensor([-1.0, 0.0]), 0.5, 0.9)
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * (2 + 0.5), 1.0]))
    for dtype in (torch.uint8, torch.int64, torch.float32):  # as data sets of others have it
        same = critic_target(reward, terminated.to(dtype), next_q, torch.tensor([-1.0, 0.0]), 0.5, 0.9)
        assert torch.equal(same, target)
    q = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert critic_loss(q, torch.tensor([1.0, 0.0])).item() == pytest.approx(2 + 0.5)
    log_prob = torch.tensor([0.5, -0.5])
    assert actor_loss(q, log_prob, 2.0).item() == pytest.approx(((1 - 0) + (-1 - 0)) / 2)


def test_the_temperature_rises_where_the_policy_is_too_sure():
    log_temperature = torch.tensor(0.3, requires_grad=True)
    temperature_loss(log_temperature, torch.tensor([2.0]), -1.0).backward()
    assert log_temperature.grad is not None
    assert log_temperature.grad.item() == pytest.approx(-1.0)  # descent raises it by log pi + target


def batch(num=64):
    g = generator(5)
    obs, next_obs = torch.randn(2, num, 3, generator=g)
    action, reward = torch.rand(num, 2, generator=g) * 4 - 2, torch.randn(num, generator=g)
    return Batch(obs, action, reward, next_obs, torch.rand(num, generator=g) < 0.2, torch.zeros(num).bool())


def agent(seed=0, **kwargs):
    low, high = torch.tensor([-2.0, -2.0]), torch.tensor([2.0, 2.0])
    settings = {"hidden_sizes": (32, 32), **kwargs}
    return SAC(3, low, high, SACConfig(**settings), generator(seed))


def test_targets_move_by_tau_and_only_there():
    sac = agent(tau=0.1)
    before = [p.clone() for p in sac.targets.parameters()]
    sac.update_critics(batch(), torch.zeros(64, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, sac.targets.parameters(), strict=True))
    sac.update_targets()
    for old, new, critic in zip(before, sac.targets.parameters(), sac.critics.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * critic.detach())


def test_updates_are_those_that_are_written_down_without_a_thought_of_speed():
    """Critics, actor, temperature and targets in turn, each with an Adam of its own."""
    low, high, tau = torch.tensor([-2.0, -3.0]), torch.tensor([2.5, 7.0]), 0.1
    config = SACConfig(
        hidden_sizes=(32, 32), learning_rate=1e-3, tau=tau, initial_temperature=0.5, target_entropy=-0.7
    )
    source = generator()
    sac = SAC(3, low, high, config, source)
    with torch.no_grad():  # else the targets would begin as the critics
        for weight in sac.targets.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator(1)))
    actor, critics, targets = (copy.deepcopy(part) for part in (sac.actor, sac.critics, sac.targets))
    log_alpha = torch.tensor(math.log(0.5), requires_grad=True)
    adams = [torch.optim.Adam(p, lr=1e-3) for p in (critics.parameters(), actor.parameters(), [log_alpha])]
    data, row_weights, g = batch(), torch.rand(64, generator=generator(2)), source.clone_state()

    def sample(obs):
        mean, log_std = actor(obs)
        u = mean + log_std.exp() * torch.randn(64, 2, generator=g)
        return u.tanh(), (Normal(mean, log_std.exp()).log_prob(u) - torch.log(1 - u.tanh() ** 2)).sum(-1)

    def values(networks, obs, action):
        pair = torch.cat([obs, action], dim=-1)
        return networks.first(pair).squeeze(-1), networks.second(pair).squeeze(-1)

    def descend(adam, loss):
        adam.zero_grad()
        loss.backward()
        adam.step()

    for _ in range(3):
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_prob = sample(data.next_obs)
            smaller = torch.min(*values(targets, data.next_obs, next_action))
            future = torch.where(data.terminated, 0.0, smaller - alpha * next_log_prob)
            target = data.reward + 0.99 * future
        action = (data.action - low) / (high - low) * 2 - 1
        errors = [q - target for q in values(critics, data.obs, action)]
        descend(adams[0], sum((row_weights * error**2).mean() for error in errors))
        action, log_prob = sample(data.obs)
        descend(adams[1], (alpha * log_prob - torch.min(*values(critics, data.obs, action))).mean())
        descend(adams[2], -(log_alpha * (log_prob.detach() - 0.7 * 2)).mean())
        with torch.no_grad():
            for slow, weight in zip(targets.parameters(), critics.parameters(), strict=True):
                slow.copy_((1 - tau) * slow + tau * weight)
        sac.update(data, row_weights)
        for ours, theirs in ((sac.actor, actor), (sac.critics, critics), (sac.targets, targets)):
            for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
        torch.testing.assert_close(sac.log_temperature, log_alpha, rtol=0, atol=1e-5)


def test_the_actor_step_leaves_the_critics_alone_and_climbs_q():
    sac = agent(learning_rate=1e-2, initial_temperature=1e-6)
    obs = batch().obs

    def value():
        with torch.no_grad():
            return sac.critics(obs, torch.tanh(sac.actor(obs)[0])).amin(0).mean().item()

    before, weights = value(), [p.clone() for p in sac.critics.parameters()]
    for _ in range(20):
        sac.update_actor_and_temperature(obs, sac.actor.draw(obs, sac.generator))
    assert value() > before
    assert all(torch.equal(a, b) for a, b in zip(weights, sac.critics.parameters(), strict=True))


def test_actor_and_temperature_share_an_optimizer_and_no_gradient():
    """One Adam steps both as an Adam for each would, from the sum of their losses."""
    sac, alone = agent(), agent()
    actor = torch.optim.Adam(alone.actor.parameters(), lr=alone.config.learning_rate)
    temperature = torch.optim.Adam([alone.log_temperature], lr=alone.config.learning_rate)
    obs = batch().obs
    for _ in range(3):
        sac.update_actor_and_temperature(obs, sac.actor.draw(obs, sac.generator))
        action, log_prob = alone.actor.sample(obs, alone.generator)
        q = alone.critics(obs, action)
        for optimizer, loss in (
            (actor, actor_loss(q, log_prob, alone.temperature)),
            (temperature, temperature_loss(alone.log_temperature, log_prob, alone.target_entropy)),
        ):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.testing.assert_close(sac.log_temperature, alone.log_temperature)
    for a, b in zip(sac.actor.parameters(), alone.actor.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_weights_count_a_row_that_often():
    """A weight of 2 on one row and 0 on another is a batch with one row doubled and the other left out."""
    q, target = torch.randn(2, 3, generator=generator(1)), torch.zeros(3)
    doubled = critic_loss(q[:, [0, 0, 1]], target)
    torch.testing.assert_close(critic_loss(q, target, torch.tensor([2.0, 1.0, 0.0])), doubled)
    sac, same = agent(gamma=0.0), agent(gamma=0.0)
    sac.update_critics(batch(), torch.zeros(64, 2), weights=torch.zeros(64))
    for a, b in zip(sac.critics.parameters(), same.critics.parameters(), strict=True):
        assert torch.equal(a, b)


def test_td_errors_are_the_distance_from_the_target():
    sac, data = agent(gamma=0.0), batch()  # without a future the target is the reward
    q = sac.critics(data.obs, data.action / 2).detach()
    truth = ((q[0] - data.reward).abs() + (q[1] - data.reward).abs()) / 2
    torch.testing.assert_close(sac.td_errors(data), truth)


def test_units_of_actions():
    sac = agent()
    action = torch.tensor([[-1.0, 0.5]])
    torch.testing.assert_close(sac.to_task(action), torch.tensor([[-2.0, 1.0]]))
    torch.testing.assert_close(sac.from_task(sac.to_task(action)), action)
    assert sac.act(torch.zeros(500, 3)).abs().max() <= 2


def test_a_checkpoint_resumes_to_identical_weights():
    whole, first, second = agent(1), agent(1), agent(2)
    for _ in range(6):
        whole.update(batch())
    for _ in range(3):
        first.update(batch())
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        second.update(batch())
    for a, b in zip(whole.actor.parameters(), second.actor.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.log_temperature, second.log_temperature)


@pytest.mark.slow
def test_it_learns_to_hold_a_point_mass_at_the_origin():
    """obs = position in 2-D, actions move it by a tenth, reward -distance; random drifts away."""
    g = generator(0)
    sac = SAC(2, -torch.ones(2), torch.ones(2), SACConfig(hidden_sizes=(64, 64), learning_rate=2e-3), g)
    buffer = ReplayBuffer(20_000, 2, 2)

    def run(num_steps, explore, learn):
        obs, total = torch.rand(16, 2, generator=g) * 2 - 1, 0.0
        for step in range(num_steps):
            action = sac.act(obs, explore=explore)
            next_obs = obs + 0.2 * action
            reward = -next_obs.norm(dim=-1)
            if learn:
                cut = torch.full((16,), step % 20 == 19)
                buffer.add(obs, action, reward, next_obs, torch.zeros(16).bool(), cut)
                sac.update(buffer.sample(128, g))
            obs = torch.rand(16, 2, generator=g) * 2 - 1 if step % 20 == 19 else next_obs
            total += reward.mean().item()
        return total / num_steps

    untrained = run(100, explore=False, learn=False)
    run(600, explore=True, learn=True)
    trained = run(100, explore=False, learn=False)
    assert trained > -0.2 > untrained  # the best possible is about -0.11


def test_initialisation_with_a_gain():
    usual, small, large = agent(), agent(init_gain=0.1), agent(init_gain=0.3)
    expected = relu_mlp((3, 32, 32, 4), generator(0))  # the first thing that is drawn
    for ours, theirs in zip(usual.actor.network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for part in ("actor", "critics", "targets"):
        for a, b in zip(getattr(small, part).parameters(), getattr(large, part).parameters(), strict=True):
            torch.testing.assert_close(3 * a, b)
    for a, b in zip(small.critics.parameters(), small.targets.parameters(), strict=True):
        assert torch.equal(a, b)


def test_without_noise_exploring_is_acting():
    quiet, other = agent(3), agent(3)
    obs = batch().obs
    assert torch.equal(quiet.explore(obs), other.act(obs))
    assert torch.equal(quiet.generator.get_state(), other.generator.get_state())


def test_critics_that_agree_add_no_noise():
    sac, other = agent(3, exploration_noise=5.0), agent(3)
    sac.critics.second.load_state_dict(sac.critics.first.state_dict())
    obs = batch().obs
    torch.testing.assert_close(sac.explore(obs), other.act(obs))


def test_exploration_noise_grows_with_the_critics_doubt():
    """Of values 3 and 1 the doubt is 2 / 4; of 2 and -2 it is 1, the most there is; of 0 and 0 none."""
    values = torch.tensor([[3.0, 2.0, 0.0], [1.0, -2.0, 0.0]])
    sac, other = agent(4, exploration_noise=0.1), agent(4)
    with torch.no_grad():
        for one in (sac, other):  # a policy that stays in the middle, where nothing is clipped
            one.actor.network[-1].weight.zero_()
            one.actor.network[-1].bias.copy_(torch.tensor([0.0, 0.0, -9.0, -9.0]))
    sac.critics.forward = lambda obs, action: values.expand(len(obs), -1, -1).transpose(0, 1)
    obs = torch.zeros(20_000, 3, 3)
    noise = (sac.explore(obs) - other.act(obs)) / 2  # the actions' range is -2 to 2
    std = noise.std(dim=0)  # [3, 2]
    torch.testing.assert_close(std[:2], torch.tensor([[0.05, 0.05], [0.1, 0.1]]), rtol=0.03, atol=0)
    assert noise[:, 2].abs().max() < 1e-6
    assert noise[:, :2].mean(dim=0).abs().max() < 0.005
    wild = agent(4, exploration_noise=100.0)
    assert wild.explore(torch.randn(500, 3, generator=generator(1))).abs().max() == 2  # clipped
    assert wild.explore(torch.zeros(3)).shape == (2,)


def test_a_learning_rate_of_zero_stops_all_learning():
    sac = agent()
    sac.set_learning_rate(0.0)
    before = [p.clone() for p in (*sac.actor.parameters(), *sac.critics.parameters(), sac.log_temperature)]
    sac.update(batch())
    after = [*sac.actor.parameters(), *sac.critics.parameters(), sac.log_temperature]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tau", 2.0),
        ("batch_size", 0),
        ("learning_rate", -1.0),
        ("target_entropy", math.nan),
        ("init_gain", 0.0),
        ("exploration_noise", -0.1),
        ("hidden_sizes", (0,)),
    ],
)
def test_bad_configurations_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        SACConfig(**{field: value})


def test_an_update_that_breaks_down_says_so():
    broken = batch()
    broken.reward[3] = torch.inf
    with pytest.raises(FloatingPointError, match=r"the critics' loss is (nan|inf): is learning_rate small"):
        agent().update(broken)


def test_entropy_of_the_start():
    """The default target entropy is -1 nat per action dimension."""
    assert agent().target_entropy == -2.0
    assert math.isclose(agent(initial_temperature=0.2).temperature.item(), 0.2, rel_tol=1e-6)
