"""The dynamics model against closed forms, finite differences and systems that it can learn exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbrl_course.buffers import Batch
from mbrl_course.dynamics import (
    DynamicsConfig,
    DynamicsModel,
    Normalizer,
    k_step_errors,
    predict_next_obs,
    training_step,
)
from mbrl_course.networks import EnsembleMLP

LINEAR = DynamicsConfig(hidden_sizes=(), learning_rate=0.02, batch_size=128, patience=20)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_data(count: int = 500, noise: float = 0.0, seed: int = 0) -> Batch:
    """Transitions of s' = M s + N a + c with two states, one action and the reward s[0] - 2 a."""
    generator = seeded(seed)
    obs = torch.randn(count, 2, generator=generator) * torch.tensor([1.0, 20.0])
    action = torch.randn(count, 1, generator=generator)
    next_obs = linear_step(obs, action) + noise * torch.randn(count, 2, generator=generator)
    flags = torch.zeros(count, dtype=torch.bool)
    return Batch(obs, action, obs[:, 0] - 2 * action[:, 0], next_obs, flags, flags)


def linear_step(obs: Tensor, action: Tensor) -> Tensor:
    matrix = torch.tensor([[0.9, 0.01], [-2.0, 0.95]], dtype=obs.dtype)
    return obs @ matrix.T + action * torch.tensor([0.5, -3.0], dtype=obs.dtype) + 0.25


# Normalizer


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(2, 50),
    scales=st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=5),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 10_000),
)
def test_normalized_data_have_mean_0_and_std_1(
    rows: int, scales: list[float], shift: float, seed: int
) -> None:
    scale = torch.tensor(scales)
    x = scale * (torch.randn(rows, len(scales), generator=seeded(seed)) + shift)
    assume(bool((x.std(dim=0, correction=0) > 1e-2 * scale).all()))  # two rows may be all but the same
    normalizer = Normalizer(len(scales))
    normalizer.fit(x)
    z = normalizer.normalize(x)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(len(scales)), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(dim=0, correction=0), torch.ones(len(scales)), rtol=1e-3, atol=0)
    back = normalizer.denormalize(z)
    assert ((back - x).abs() <= 1e-5 * scale * 10).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7, 1e5 / 3])
def test_constant_dimensions_keep_the_std_1(value: float) -> None:
    x = torch.full((3001, 2), value)
    x[:, 1] = torch.linspace(-1, 1, 3001)
    normalizer = Normalizer(2)
    normalizer.fit(x)
    assert normalizer.std[0] == 1
    assert normalizer.std[1] == pytest.approx(1 / 3**0.5, rel=1e-3)
    assert normalizer.normalize(x)[:, 0].abs().max() <= 1e-6 * max(1, abs(value))


def test_a_normalizer_is_the_identity_before_it_is_fitted() -> None:
    x = torch.randn(4, 3)
    assert torch.equal(Normalizer(3).normalize(x), x)
    assert torch.equal(Normalizer(3).denormalize(x), x)


def test_a_normalizer_travels_with_the_model_s_state() -> None:
    model, other = DynamicsModel(2, 1, LINEAR), DynamicsModel(2, 1, LINEAR)
    model.fit(linear_data(), num_steps=3)
    other.load_state_dict(model.state_dict())
    obs, action = torch.randn(5, 2), torch.randn(5, 1)
    assert torch.equal(model.predict(obs, action), other.predict(obs, action))


# Prediction


def test_the_next_state_by_hand() -> None:
    predicted = predict_next_obs(
        network=lambda z: z[..., :2] * 10,
        normalize_input=lambda x: x - 1,
        denormalize_change=lambda z: z / 5 + 3,
        obs=torch.tensor([2.0, 4.0]),
        action=torch.tensor([9.0]),
    )
    assert predicted.tolist() == [2 + (2 - 1) * 2 + 3, 4 + (4 - 1) * 2 + 3]


def test_a_model_predicts_with_its_members_and_normalizers() -> None:
    model = DynamicsModel(2, 1, DynamicsConfig(ensemble_size=3, hidden_sizes=(8,)), generator=seeded())
    model.fit(linear_data(), num_steps=2, generator=seeded())
    obs, action = torch.randn(5, 2), torch.randn(5, 1)
    predicted = model.predict(obs, action)
    assert predicted.shape == (3, 5, 2)
    z = (torch.cat([obs, action], -1) - model.input_normalizer.mean) / model.input_normalizer.std
    for member in range(3):
        hidden = z @ model.network.weights[0][member] + model.network.biases[0][member]
        output = hidden * torch.sigmoid(hidden) @ model.network.weights[1][member]
        output = output + model.network.biases[1][member]
        change = output * model.target_normalizer.std + model.target_normalizer.mean
        torch.testing.assert_close(predicted[member], obs + change)
    assert (predicted[0] - predicted[1]).abs().min() > 0  # members differ


def test_states_may_be_shared_or_each_member_s_own() -> None:
    model = DynamicsModel(2, 1, DynamicsConfig(ensemble_size=3, hidden_sizes=(8,)))
    obs, action = torch.randn(3, 5, 2), torch.randn(3, 5, 1)
    own = model.predict(obs, action)
    for member in range(3):
        shared = model.predict(obs[member], action[member])
        torch.testing.assert_close(own[member], shared[member])
    mixed = model.predict(obs, action[0])
    torch.testing.assert_close(mixed[2], model.predict(obs[2], action[0])[2])


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        ((5, 3), (5, 1), r"obs has shape \[5, 3\], expected \[N, 2\] or \[E, N, 2\]"),
        ((5, 2), (5, 2), r"action has shape \[5, 2\], expected \[N, 1\] or \[E, N, 1\]"),
        ((2,), (1,), r"obs has shape \[2\]"),
    ],
)
def test_wrong_widths_are_named(obs: tuple[int, ...], action: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DynamicsModel(2, 1).predict(torch.zeros(obs), torch.zeros(action))


def test_a_step_asks_the_task_s_reward_and_termination() -> None:
    def reward(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        return obs[..., 0] + 10 * action[..., 0] + 100 * next_obs[..., 1]

    def terminated(next_obs: Tensor) -> Tensor:
        return next_obs[..., 0] > 0

    config = DynamicsConfig(ensemble_size=4, hidden_sizes=(8,))
    model = DynamicsModel(2, 1, config, reward=reward, terminated=terminated)
    obs, action = torch.randn(7, 2), torch.randn(7, 1)
    next_obs, rewards, ends = model.step(obs, action)
    torch.testing.assert_close(next_obs, model.predict(obs, action))
    torch.testing.assert_close(rewards, obs[:, 0] + 10 * action[:, 0] + 100 * next_obs[..., 1])
    assert torch.equal(ends, next_obs[..., 0] > 0)
    assert ends.shape == rewards.shape == (4, 7)


def test_a_model_without_reward_says_so() -> None:
    with pytest.raises(ValueError, match="the model has no reward"):
        DynamicsModel(2, 1).step(torch.zeros(1, 2), torch.zeros(1, 1))


def test_a_model_without_termination_never_ends() -> None:
    model = DynamicsModel(2, 1, reward=lambda obs, action, next_obs: next_obs[..., 0])
    assert not model.step(torch.randn(50, 2), torch.randn(50, 1))[2].any()


# The training step


@pytest.mark.parametrize("ensemble_size", [1, 3])
def test_the_step_follows_the_slope_that_finite_differences_find(ensemble_size: int) -> None:
    network = EnsembleMLP(ensemble_size, 3, 2, (5,), "tanh", seeded()).double()
    inputs = torch.randn(ensemble_size, 6, 3, generator=seeded(1)).double()
    targets = torch.randn(ensemble_size, 6, 2, generator=seeded(2)).double()

    def member_losses() -> Tensor:
        with torch.no_grad():
            return (network(inputs) - targets).square().mean(dim=(1, 2))  # [E]

    before = [parameter.detach().clone() for parameter in network.parameters()]
    losses = member_losses()
    slopes = []
    for parameter in network.parameters():
        slope = torch.zeros_like(parameter)
        for index in torch.cartesian_prod(*(torch.arange(n) for n in parameter.shape)).tolist():
            place = tuple(index)
            value = parameter[place].item()
            ends = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[place] = value + shift
                ends.append(member_losses()[index[0]].item())  # the member's own loss
            with torch.no_grad():
                parameter[place] = value
            slope[place] = (ends[0] - ends[1]) / 2e-5
        slopes.append(slope)
    loss = training_step(network, torch.optim.SGD(network.parameters(), lr=0.1), inputs, targets)
    assert loss == pytest.approx(losses.mean().item())
    for parameter, old, slope in zip(network.parameters(), before, slopes, strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.1 * slope, rtol=1e-6, atol=1e-9)


def test_gradients_of_earlier_steps_are_gone() -> None:
    weights: list[float] = []
    for _ in range(2):
        network = EnsembleMLP(1, 1, 1, (), generator=seeded())
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        if not weights:  # a gradient is left over from somewhere else
            network(torch.ones(1, 1, 1)).sum().backward()
        training_step(network, optimizer, torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
        weights.append(network.weights[0].item())
    assert weights[0] == weights[1]


# k-step errors


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dim=st.integers(1, 4),
    num_steps=st.integers(1, 8),
    num_trajectories=st.integers(1, 5),
)
def test_errors_of_linear_models_have_a_closed_form(
    seed: int, dim: int, num_steps: int, num_trajectories: int
) -> None:
    generator = seeded(seed)
    world, model = (0.7 * torch.randn(dim, dim, generator=generator, dtype=torch.float64) for _ in range(2))
    start = torch.randn(num_trajectories, dim, generator=generator, dtype=torch.float64)
    actions = torch.randn(num_trajectories, num_steps, dim, generator=generator, dtype=torch.float64)

    def state_after(matrix: Tensor, k: int) -> Tensor:
        """M^k s_0 + sum of M^(k - 1 - j) a_j."""
        result = start @ torch.linalg.matrix_power(matrix, k).T
        for j in range(k):
            result = result + actions[:, j] @ torch.linalg.matrix_power(matrix, k - 1 - j).T
        return result

    obs = torch.stack([state_after(world, k) for k in range(num_steps + 1)], dim=1)
    errors = k_step_errors(lambda s, a: s @ model.T + a, obs, actions)
    for k in range(1, num_steps + 1):
        expected = (state_after(model, k) - obs[:, k]).square().mean()
        torch.testing.assert_close(errors[k - 1], expected)
    perfect = k_step_errors(lambda s, a: s @ world.T + a, obs, actions)
    torch.testing.assert_close(perfect, torch.zeros(num_steps, dtype=torch.float64), rtol=0, atol=1e-18)


# Fitting


def test_a_linear_network_learns_a_linear_world() -> None:
    model = DynamicsModel(2, 1, LINEAR, generator=seeded())
    result = model.fit(linear_data(), max_epochs=200, generator=seeded())
    test = linear_data(100, seed=5)
    with torch.inference_mode():
        predicted = model.predict(test.obs, test.action)[0]
    change = (test.next_obs - test.obs).std(dim=0)
    assert ((predicted - test.next_obs).abs() / change).max() < 0.01
    assert result.train_losses[-1] < 1e-3 * result.train_losses[0]


def test_a_noisy_world_is_learned_down_to_its_noise() -> None:
    """No model can do better than the noise; least squares on many data come close to it."""
    config = DynamicsConfig(hidden_sizes=(), learning_rate=0.01, holdout_fraction=0.5, patience=8)
    model = DynamicsModel(2, 1, config, generator=seeded())
    result = model.fit(linear_data(8000, noise=0.5), max_epochs=100, generator=seeded())
    floor = (0.5 / model.target_normalizer.std).square().mean().item()
    assert min(result.holdout_losses) == pytest.approx(floor, rel=0.1)


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    """A large network on few noisy data gets worse again; what it had learned before is kept."""
    config = DynamicsConfig(hidden_sizes=(100,), learning_rate=0.01, holdout_fraction=0.5, patience=10)
    model = DynamicsModel(2, 1, config, generator=seeded())
    data = linear_data(60, noise=10.0)
    result = model.fit(data, max_epochs=400, generator=seeded(3))
    best = min(result.holdout_losses)
    assert result.holdout_losses.index(best) == len(result.holdout_losses) - 1 - 10
    assert len(result.train_losses) == len(result.holdout_losses)  # one mini-batch an epoch
    order = torch.randperm(60, generator=seeded(3))
    kept_out = data.take(order[:30])
    inputs = model.input_normalizer.normalize(torch.cat([kept_out.obs, kept_out.action], dim=-1))
    targets = model.target_normalizer.normalize(kept_out.next_obs - kept_out.obs)
    with torch.no_grad():
        assert (model.network(inputs) - targets).square().mean().item() == pytest.approx(best)


def test_a_fit_by_steps_makes_just_these_steps() -> None:
    model = DynamicsModel(2, 1, DynamicsConfig(hidden_sizes=(4,), batch_size=7))
    result = model.fit(linear_data(), num_steps=13)
    assert len(result.train_losses) == 13
    assert len(result.holdout_losses) == 1
    before = [parameter.clone() for parameter in model.network.parameters()]
    model.fit(linear_data(seed=9), num_steps=0)
    for parameter, old in zip(model.network.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    expected = torch.cat([linear_data(seed=9).obs, linear_data(seed=9).action], dim=-1).mean(dim=0)
    torch.testing.assert_close(model.input_normalizer.mean, expected)  # these are refreshed


def test_without_holdout_data_all_epochs_are_run() -> None:
    config = DynamicsConfig(hidden_sizes=(4,), holdout_fraction=0.0, batch_size=50, patience=1)
    result = DynamicsModel(2, 1, config).fit(linear_data(100), max_epochs=6)
    assert result.holdout_losses == []
    assert len(result.train_losses) == 12


def test_a_learned_reward() -> None:
    config = DynamicsConfig(hidden_sizes=(), learning_rate=0.02, batch_size=128, learn_reward=True)
    model = DynamicsModel(2, 1, config, generator=seeded())
    model.fit(linear_data(), max_epochs=150, generator=seeded())
    test = linear_data(50, seed=8)
    with torch.inference_mode():
        next_obs, reward, _ = model.step(test.obs, test.action)
    torch.testing.assert_close(reward[0], test.reward, rtol=0, atol=0.05)
    assert next_obs.shape == (1, 50, 2)
    assert ((next_obs[0] - test.next_obs).abs() / test.next_obs.std(dim=0)).max() < 0.05


def test_noise_on_the_data_leaves_the_statistics_alone() -> None:
    with_noise, without = (DynamicsModel(2, 1, LINEAR, generator=seeded()) for _ in range(2))
    noisy = with_noise.fit(linear_data(), num_steps=50, noise=0.3, generator=seeded())
    clean = without.fit(linear_data(), num_steps=50, generator=seeded())
    assert torch.equal(with_noise.input_normalizer.std, without.input_normalizer.std)
    assert noisy.train_losses[-1] > clean.train_losses[-1]


def test_members_learn_as_they_would_alone() -> None:
    """The weights of member 0 after steps together with member 1 are those after steps alone."""
    pair = EnsembleMLP(2, 3, 2, (6,), generator=seeded())
    alone = EnsembleMLP(1, 3, 2, (6,), generator=seeded(1))
    alone.load_state_dict({name: value[:1].clone() for name, value in pair.state_dict().items()})
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.01) for network in (pair, alone)]
    for seed in range(10):
        inputs = torch.randn(2, 8, 3, generator=seeded(seed))
        targets = torch.randn(2, 8, 2, generator=seeded(100 + seed))
        training_step(pair, optimizers[0], inputs, targets)
        training_step(alone, optimizers[1], inputs[:1], targets[:1])
    for both, own in zip(pair.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(both[:1], own)


@pytest.mark.parametrize("how", [{"num_steps": 20}, {"max_epochs": 3}])
def test_the_seed_decides_the_fit(how: dict[str, Any]) -> None:
    results = []
    for seed in (0, 0, 1):
        model = DynamicsModel(2, 1, DynamicsConfig(ensemble_size=2), generator=seeded(seed))
        results.append(model.fit(linear_data(), **how, noise=0.01, generator=seeded(seed)).train_losses)
    assert results[0] == results[1]
    assert results[0] != results[2]
    assert all(math.isfinite(loss) for loss in results[2])


@pytest.mark.parametrize("how", [{}, {"num_steps": 1, "max_epochs": 1}])
def test_a_fit_needs_steps_or_epochs(how: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give either num_steps or max_epochs"):
        DynamicsModel(2, 1).fit(linear_data(), **how)


def test_a_fit_needs_data() -> None:
    with pytest.raises(ValueError, match="there are no transitions"):
        DynamicsModel(2, 1).fit(linear_data(0), num_steps=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ensemble_size", 0),
        ("batch_size", -1),
        ("patience", 0),
        ("hidden_sizes", (10, 0)),
        ("activation", "step"),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("holdout_fraction", 1.0),
    ],
)
def test_bad_configurations_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} is"):
        DynamicsConfig(**{field: value})
