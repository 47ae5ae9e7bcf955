"""The networks' fast ways against the plain one: member by member, and with rounded numbers."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from mbrl_course import networks
from mbrl_course.dynamics import DynamicsConfig, DynamicsModel
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.evaluation import collect_random
from mbrl_course.mpc import make_score_fn
from mbrl_course.networks import (
    SCHEDULES,
    EnsembleMLP,
    orthogonal_mlp,
    relu_mlp,
    rows_of_members,
    xavier_weights,
)
from mbrl_course.pets import ParticleModel
from mbrl_course.sac import SAC, SACConfig


def make_network() -> tuple[EnsembleMLP, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = EnsembleMLP(3, 4, 2, (64, 64), generator=generator)
    return network, torch.randn(3, 50, 4, generator=generator)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("members", [None, torch.tensor([2, 0, 0])])
def test_members_one_after_another_give_what_all_at_once_give(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype | None, members: torch.Tensor | None
) -> None:
    network, x = make_network()
    with torch.inference_mode():
        at_once = network(x, members, precision)
        monkeypatch.setattr(networks, "LARGE_LAYER", 10)
        one_by_one = network(x, members, precision)
    torch.testing.assert_close(
        one_by_one,
        at_once,
        rtol=1e-5 if precision is None else 1e-2,
        atol=1e-6 if precision is None else 1e-3,
    )
    if members is not None:
        alone = network(x[1:2], members[1:2])
        torch.testing.assert_close(one_by_one[1:2], alone, rtol=2e-2, atol=1e-2)


def test_rounded_outputs_are_float32_and_close() -> None:
    network, x = make_network()
    with torch.inference_mode():
        exact, rounded = network(x), network(x, precision=torch.bfloat16)
    assert rounded.dtype == torch.float32
    error = (rounded - exact).abs().max() / exact.abs().max()
    assert 0 < error < 0.02  # 8 significant bits, over three layers


def test_an_ensembles_rounded_weights_follow_each_training_step() -> None:
    config = EnsembleConfig(hidden_sizes=(16,), precision="bfloat16", learning_rate=0.05)
    model = GaussianEnsemble(2, 1, config, generator=torch.Generator().manual_seed(0))
    obs, action = torch.randn(40, 2), torch.randn(40, 1)
    before = model.predict(obs, action).obs
    for _ in range(5):
        model.training_step(torch.randn(5, 40, 3), torch.ones(5, 40, 2))
    after = model.predict(obs, action).obs
    model.network.forget_rounded()
    assert torch.equal(after, model.predict(obs, action).obs)
    assert (after - before).abs().max() > 0.1


def test_rounded_weights_follow_a_change_of_the_weights() -> None:
    network, x = make_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    with torch.inference_mode():
        before = network(x, precision=torch.bfloat16)
    network(x).square().mean().backward()
    optimizer.step()
    with torch.inference_mode():
        after, exact = network(x, precision=torch.bfloat16), network(x)
    assert (after - exact).abs().max() < 0.02 * exact.abs().max()
    assert (after - before).abs().max() > 0.1 * exact.abs().max()
    network.load_state_dict(make_network()[0].state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(network(x, precision=torch.bfloat16), before)


def test_plans_chosen_with_rounded_numbers_are_as_good() -> None:
    """Of 500 plans, the one that rounding likes best is among the best of the exact model."""
    task = get_task("pendulum")
    generator = torch.Generator().manual_seed(0)
    data, _ = collect_random(task, 1000, generator)
    config = DynamicsConfig(ensemble_size=3, hidden_sizes=(64, 64))
    model = DynamicsModel(task.obs_dim, task.action_dim, config, reward=task.reward, generator=generator)
    model.fit(data, num_steps=200, generator=generator)
    low, high = task.action_low, task.action_high
    for obs in data.obs[:5]:
        plans = low + (high - low) * torch.rand(500, 15, 1, generator=generator)
        model.config = config
        exact = make_score_fn(model, obs)(plans)
        model.config = replace(config, precision="bfloat16")
        rounded = make_score_fn(model, obs)(plans)
        assert not torch.equal(rounded, exact)
        lost = exact.max() - exact[rounded.argmax()]
        assert lost < 0.05 * (exact.max() - exact.min())


def test_plans_of_rounded_particles_are_as_good() -> None:
    """The same for PETS: five members, twenty particles, the same noise for both."""
    task = get_task("pendulum")
    generator = torch.Generator().manual_seed(0)
    data, _ = collect_random(task, 1000, generator)
    config = EnsembleConfig(hidden_sizes=(64, 64))
    model = GaussianEnsemble(task.obs_dim, task.action_dim, config, reward=task.reward, generator=generator)
    model.fit(data, max_epochs=30, generator=generator)
    low, high = task.action_low, task.action_high
    for obs in data.obs[:5]:
        plans = low + (high - low) * torch.rand(200, 15, 1, generator=generator)
        scores = {}
        for precision in ("float32", "bfloat16"):
            model.config = replace(config, precision=precision)
            particles = ParticleModel(model, "ts_inf", 20, torch.Generator().manual_seed(1))
            scores[precision] = make_score_fn(particles, obs)(plans)
        exact, rounded = scores.values()
        assert not torch.equal(rounded, exact)
        lost = exact.max() - exact[rounded.argmax()]
        assert lost < 0.05 * (exact.max() - exact.min())


@pytest.mark.parametrize("config", [DynamicsConfig, EnsembleConfig])
def test_an_unknown_precision_is_refused(config: type) -> None:
    with pytest.raises(ValueError, match="precision is 'float16', expected one of"):
        config(precision="float16")


def test_a_gaussian_ensemble_predicts_in_its_precision() -> None:
    predictions = []
    for precision in ("float32", "bfloat16"):
        config = EnsembleConfig(hidden_sizes=(32,), precision=precision)
        model = GaussianEnsemble(2, 1, config, generator=torch.Generator().manual_seed(0))
        predictions.append(model.predict(torch.ones(4, 2), torch.ones(4, 1)).obs)
    assert not torch.equal(*predictions)
    torch.testing.assert_close(*predictions, rtol=0.02, atol=0.02)


def test_xavier_weights_are_those_of_torch() -> None:
    network, expected = relu_mlp((3, 50, 2)), relu_mlp((3, 50, 2))
    xavier_weights(network, 0.3, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    for layer in expected:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(layer.weight, 0.3, generator=generator)
            torch.nn.init.zeros_(layer.bias)
    for ours, theirs in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_xavier_weights_of_an_ensemble_have_the_variance_that_they_should() -> None:
    network = EnsembleMLP(4, 30, 10, (90,), generator=torch.Generator().manual_seed(0))
    xavier_weights(network, 0.5, torch.Generator().manual_seed(1))
    for weight, fans in zip(network.weights, (120, 100), strict=True):
        variance = 0.5**2 * 2 / fans  # Glorot and Bengio, Eq. 12
        torch.testing.assert_close(weight.var(dim=(1, 2)), torch.full((4,), variance), rtol=0.1, atol=0)
        assert weight.abs().max() <= (3 * variance) ** 0.5
        assert not torch.equal(weight[0], weight[1])
    assert not any(bias.any() for bias in network.biases)


def test_an_ensemble_is_initialised_with_the_gain_of_its_configuration() -> None:
    def ensemble(gain: float | None) -> GaussianEnsemble:
        config = EnsembleConfig(hidden_sizes=(64, 64), init_gain=gain)
        return GaussianEnsemble(2, 1, config, generator=torch.Generator().manual_seed(0))

    plain, small, large = ensemble(None), ensemble(0.1), ensemble(0.2)
    usual = EnsembleMLP(5, 3, 4, (64, 64), generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(plain.network.parameters(), usual.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, twice in zip(small.network.weights, large.network.weights, strict=True):
        torch.testing.assert_close(2 * ours, twice)
    assert not torch.equal(small.network.weights[0], plain.network.weights[0])
    for gain in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"init_gain is {gain}"):
            EnsembleConfig(init_gain=gain)
        with pytest.raises(ValueError, match=f"gain is {gain}"):
            xavier_weights(usual, gain)


def test_schedules_are_those_of_torch() -> None:
    def rates(kind: str) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedulers = {
            "constant": lambda: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
            "linear": lambda: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=8),
            "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8),
        }
        scheduler = schedulers[kind]()
        found = []
        for _ in range(9):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    for kind, share in SCHEDULES.items():
        assert [share(step / 8) for step in range(9)] == pytest.approx(rates(kind), abs=1e-12)


@pytest.mark.parametrize("hidden_sizes", [(-2,), (8, 0)])
def test_widths_have_to_be_positive(hidden_sizes: tuple[int, ...]) -> None:
    for make in (
        lambda: EnsembleMLP(2, 3, 1, hidden_sizes),
        lambda: orthogonal_mlp((3, *hidden_sizes, 1), 1.0),
        lambda: relu_mlp((3, *hidden_sizes, 1)),
    ):
        with pytest.raises(ValueError, match=r"hidden_sizes is .*expected positive widths"):
            make()


@pytest.mark.parametrize("num_rows", [20, 2000])
def test_inputs_for_another_number_of_members_are_refused(num_rows: int) -> None:
    """Also those that are large, of which each member is evaluated by itself."""
    network, _ = make_network()
    for num_members in (1, 2, 4):
        with (
            torch.no_grad(),
            pytest.raises(ValueError, match=f"inputs for {num_members} members, expected 3"),
        ):
            network(torch.zeros(num_members, num_rows, 4))


@pytest.mark.parametrize(
    ("obs", "action"), [((2, 10, 4), (2, 10, 1)), ((10, 4), (9, 1)), ((3, 10, 4), (3, 9, 1))]
)
def test_rows_that_do_not_agree_are_refused_with_their_shapes(
    obs: tuple[int, ...], action: tuple[int, ...]
) -> None:
    got = re.escape(f"obs has shape {list(obs)} and action {list(action)}")
    with pytest.raises(ValueError, match=f"{got}, expected the same number of rows, for 3 members"):
        rows_of_members(torch.zeros(obs), torch.zeros(action), 3, 4, 1)


def test_networks_with_a_generator_leave_pytorchs_own_alone() -> None:
    before, generator = torch.get_rng_state(), torch.Generator().manual_seed(0)
    orthogonal_mlp((3, 8, 2), 0.01, generator)
    SAC(3, torch.tensor([-1.0]), torch.tensor([1.0]), SACConfig(hidden_sizes=(8,)), generator)
    assert torch.equal(torch.get_rng_state(), before)
