"""Gaussian ensembles against torch.distributions, closed forms and statistics."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch.distributions import Normal

from mbrl_course.buffers import Batch
from mbrl_course.calibration import expected_calibration_error, interval_coverage, rank_correlation
from mbrl_course.dynamics import DynamicsModel
from mbrl_course.ensembles import (
    EnsembleConfig,
    GaussianEnsemble,
    bootstrap_rows,
    bound_log_var,
    choose_elites,
    ensemble_layer,
    ensemble_loss,
    gaussian_nll,
    split_variance,
)
from mbrl_course.learned_termination import LearnedTermination
from mbrl_course.networks import EnsembleMLP


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_batch(num, noise=0.0, seed=0):
    """Transitions of s' = s + 0.1 a + noise, with reward -s'^2."""
    g = generator(seed)
    obs, action = torch.randn(num, 2, generator=g), torch.rand(num, 2, generator=g) * 2 - 1
    next_obs = obs + 0.1 * action + noise * torch.randn(num, 2, generator=g)
    ends = torch.zeros(num, dtype=torch.bool)
    return Batch(obs, action, -next_obs.square().sum(-1), next_obs, ends, ends)


def small(**kwargs):
    settings = {"ensemble_size": 3, "num_elites": 2, "hidden_sizes": (16,), "batch_size": 64, "patience": 20}
    return EnsembleConfig(**{**settings, **kwargs})


def test_nll_is_that_of_torch_distributions():
    mean, log_var, target = torch.randn(3, 4, 7, 2, generator=generator())
    truth = -Normal(mean, (log_var / 2).exp()).log_prob(target)
    torch.testing.assert_close(gaussian_nll(mean, log_var, target), truth)


def test_bounds_are_soft_and_keep_a_gradient():
    low, high = torch.tensor([-5.0]), torch.tensor([1.0])
    x = torch.linspace(-50, 50, 201).unsqueeze(-1).requires_grad_()
    bounded = bound_log_var(x, low, high)
    assert bool((bounded >= low).all()) and bool((bounded <= high + math.log(2)).all())
    middle = bound_log_var(torch.tensor([-2.0]), low, high)
    assert abs(middle.item() + 2) < 0.1
    bounded.sum().backward()
    near = (x.detach().abs() < 15).squeeze()
    assert x.grad is not None and bool((x.grad[near] > 0).all())


def test_a_layer_of_the_ensemble_is_that_of_each_member_by_itself():
    g = generator()
    weight, bias = torch.randn(3, 4, 2, generator=g), torch.randn(3, 1, 2, generator=g)
    own, shared = torch.randn(3, 5, 4, generator=g), torch.randn(5, 4, generator=g)
    for member in range(3):
        linear = torch.nn.functional.linear
        alone = [linear(x, weight[member].T, bias[member, 0]) for x in (own[member], shared)]
        torch.testing.assert_close(ensemble_layer(own, weight, bias)[member], alone[0])
        torch.testing.assert_close(ensemble_layer(shared, weight, bias)[member], alone[1])


def test_an_ensemble_computes_with_its_own_layer():
    model = GaussianEnsemble(2, 1, small(), generator=generator())
    x = torch.randn(3, 5, 3, generator=generator(1))
    torch.testing.assert_close(
        model.network(x), EnsembleMLP(3, 3, 4, (16,), generator=generator())(x), rtol=0, atol=0
    )
    model.network.layer = lambda x, weight, bias: torch.zeros(len(weight), x.shape[1], weight.shape[2])
    assert not bool(model.network(x).any())


def test_the_loss_sums_over_members_and_pulls_the_bounds_together():
    nll = torch.tensor([[[1.0, 3.0]], [[-4.0, 0.0]]])  # [2, 1, 2]
    low, high = torch.tensor([-2.0, -1.0]), torch.tensor([1.0, 0.0])
    assert ensemble_loss(nll, low, high, 0.0).item() == pytest.approx(0.0)
    assert ensemble_loss(nll, low, high, 0.5).item() == pytest.approx(2.0)


def test_law_of_total_variance_agrees_with_sampling_from_the_mixture():
    g = generator(1)
    means, variances = torch.randn(4, 2, generator=g), torch.rand(4, 2, generator=g) + 0.1
    parts = split_variance(means, variances)
    member = torch.randint(4, (400_000,), generator=g)
    samples = means[member] + variances[member].sqrt() * torch.randn(400_000, 2, generator=g)
    torch.testing.assert_close(parts.aleatoric + parts.epistemic, samples.var(dim=0), rtol=0.02, atol=0.0)


def test_bootstrap_leaves_out_about_a_share_of_one_over_e():
    rows = bootstrap_rows(2000, 3, generator())
    assert rows.shape == (3, 2000)
    for member in rows:
        assert abs(member.unique().numel() / 2000 - (1 - 1 / math.e)) < 0.03


@pytest.mark.parametrize("bootstrap", [False, True])
def test_members_differ_by_their_bootstraps_and_share_the_data_without(bootstrap):
    config = small(bootstrap=bootstrap, holdout_fraction=0.0, batch_size=200)
    model = GaussianEnsemble(2, 2, config, generator=generator(7))
    with torch.no_grad():  # all members begin with the same weights
        for weights in (*model.network.weights, *model.network.biases):
            weights.copy_(weights[:1].expand_as(weights))
    model.fit(linear_batch(200, noise=0.3), max_epochs=5, generator=generator(8))
    spread = model.network.weights[0].std(dim=0).max()
    assert spread > 1e-3 if bootstrap else spread < 1e-5


def test_elites_are_the_best_and_nan_is_last():
    losses = torch.tensor([0.3, float("nan"), 0.1, 0.2, 5.0])
    assert choose_elites(losses, 3).tolist() == [2, 3, 0]
    assert choose_elites(losses, 5).tolist()[-1] == 1


def test_it_learns_mean_and_noise_of_a_linear_system():
    data = linear_batch(3000, noise=0.05)
    model = GaussianEnsemble(2, 2, small(learn_reward=True), generator=generator(2))
    model.fit(data, max_epochs=40, generator=generator(3))
    test = linear_batch(500, seed=9)
    prediction = model.predict(test.obs, test.action)
    assert prediction.reward is not None and prediction.reward.shape == (3, 500)
    assert prediction.obs.shape == (3, 500, 2)
    error = (prediction.obs.mean(0) - (test.obs + 0.1 * test.action)).square().mean().sqrt()
    assert float(error) < 0.02
    assert 0.035 < float(prediction.obs_var.sqrt().median()) < 0.07  # the truth is 0.05
    assert len(model.elites) == 2


def test_every_member_learns_as_if_it_were_alone():
    """The loss of an ensemble has the gradient of the sum of its members' own losses."""
    model = GaussianEnsemble(2, 2, small(bound_penalty=0.0), generator=generator(4))
    inputs, targets = torch.randn(3, 8, 4), torch.randn(3, 8, 2)
    model.loss(inputs, targets)[0].backward()
    together = model.network.weights[0].grad.clone()
    for member in range(3):
        model.zero_grad()
        mean, log_var = model(inputs[member : member + 1], torch.tensor([member]))
        gaussian_nll(mean, log_var, targets[member : member + 1]).mean().backward()
        torch.testing.assert_close(model.network.weights[0].grad[member], together[member])


def test_the_weights_of_the_best_epoch_are_kept():
    model = GaussianEnsemble(2, 2, small(patience=3), generator=generator(5))
    data = linear_batch(200, noise=0.3)
    result = model.fit(data, max_epochs=60, generator=generator(6))
    history = torch.stack(result.holdout_mse)  # [epochs, E]
    kept = history[torch.tensor(result.best_epochs), torch.arange(3)]
    assert bool((kept <= history.min(dim=0).values / 0.98).all())
    order = torch.randperm(200, generator=generator(6))[:20]
    inputs, targets = model._training_data(data)
    torch.testing.assert_close(model.holdout_mse(inputs[order], targets[order]), kept)
    assert model.elites.tolist() == kept.argsort()[:2].tolist()


def test_random_elites_serve_every_row_alike_and_keep_the_rows_in_order():
    model = GaussianEnsemble(1, 1, small(num_elites=2), reward=lambda o, a, n: n[..., 0])
    model.elites = torch.tensor([2, 0])
    with torch.no_grad():  # member k adds k to the state
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.biases[-1][:, 0, 0] = torch.tensor([0.0, 1.0, 2.0])
    obs = torch.arange(7.0).unsqueeze(1) * 10
    counts = torch.zeros(7)
    g = generator(7)
    for _ in range(400):
        next_obs, reward, terminated = model.step_random_elites(
            obs, torch.zeros(7, 1), sample=False, generator=g
        )
        change = (next_obs - obs).squeeze(1)
        assert bool(((change == 0) | (change == 2)).all())
        torch.testing.assert_close(reward, next_obs[:, 0])
        assert terminated.shape == (7,)
        counts += change == 2
    assert bool(((counts / 400 - 0.5).abs() < 0.11).all())
    mean_obs, _, _ = model.step_mean(obs, torch.zeros(7, 1))
    torch.testing.assert_close(mean_obs - obs, torch.ones(7, 1))


def test_a_chosen_member_answers_alone():
    model = GaussianEnsemble(2, 1, small(), reward=lambda o, a, n: n[..., 0], generator=generator(8))
    obs, action = torch.randn(5, 2), torch.randn(5, 1)
    everyone = model.predict(obs, action).obs
    torch.testing.assert_close(model.predict(obs, action, torch.tensor([1])).obs[0], everyone[1])


def test_samples_have_the_predicted_spread():
    model = GaussianEnsemble(2, 1, small(), reward=lambda o, a, n: n[..., 0], generator=generator(8))
    obs, action = torch.zeros(20_000, 2), torch.zeros(20_000, 1)
    next_obs, _, _ = model.step(obs, action, generator=generator(9))
    prediction = model.predict(obs[:1], action[:1])
    torch.testing.assert_close(next_obs.mean(1), prediction.obs[:, 0], atol=0.03, rtol=0)
    torch.testing.assert_close(next_obs.var(1), prediction.obs_var[:, 0], atol=0, rtol=0.05)


def test_the_same_seed_gives_the_same_model():
    fits = []
    for _ in range(2):
        model = GaussianEnsemble(2, 2, small(), generator=generator(1))
        model.fit(linear_batch(300), max_epochs=3, generator=generator(2))
        fits.append(model.network.weights[0].detach())
    assert torch.equal(*fits)


def test_calibration_of_a_right_and_of_an_overconfident_model():
    target = torch.randn(100_000, generator=generator(3))
    levels = torch.tensor([0.5, 0.9])
    right = interval_coverage(torch.zeros(100_000), torch.ones(100_000), target, levels)
    torch.testing.assert_close(right, levels.double(), atol=0.01, rtol=0)
    half = torch.full((100_000,), 0.5)
    confident = interval_coverage(torch.zeros(100_000), half, target, levels)
    truth = torch.erf(torch.erfinv(levels.double()) / 2)
    torch.testing.assert_close(confident, truth, atol=0.01, rtol=0)
    assert expected_calibration_error(torch.zeros(100_000), torch.ones(100_000), target) < 0.01
    assert expected_calibration_error(torch.zeros(100_000), half, target) > 0.15
    with pytest.raises(ValueError, match=r"shapes \[\[5, 1\], \[5, 1\], \[5\]\], expected all the same"):
        interval_coverage(torch.zeros(5, 1), torch.ones(5, 1), torch.zeros(5), levels)


def test_rank_correlation_is_that_of_scipy():
    x = torch.randint(0, 10, (50,), generator=generator(1)).float()  # with ties
    y = x + 3 * torch.randn(50, generator=generator(2))
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x.numpy(), y.numpy()).statistic)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ensemble_size", 0),
        ("num_elites", 9),
        ("activation", "gelu"),
        ("holdout_fraction", 1.0),
        ("hidden_sizes", (0,)),
        ("learning_rate", 0.0),
    ],
)
def test_bad_configurations_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        small(**{field: value})


def test_a_fit_that_breaks_down_says_so():
    data = linear_batch(50, noise=0.3)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) after \d+ epochs: are"):
        GaussianEnsemble(2, 2, small(learning_rate=1e30)).fit(data, max_epochs=9, generator=generator(0))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d._replace(next_obs=d.next_obs[:, 0]), r"next_obs has shape \[50\], expected \[50, 2\]"),
        (
            lambda d: d._replace(next_obs=d.next_obs[:, :1]),
            r"next_obs has shape \[50, 1\], expected \[50, 2\]",
        ),
        (lambda d: d._replace(obs=d.obs.masked_fill(d.obs > 1, torch.nan)), r"obs holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("kind", [GaussianEnsemble, DynamicsModel])
def test_data_that_do_not_fit_leave_the_model_as_it_was(kind, spoil, message):
    model = kind(2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        model.fit(spoil(linear_batch(50, noise=0.3)), max_epochs=1, generator=generator(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [GaussianEnsemble, DynamicsModel])
def test_data_in_float64_are_welcome(kind):
    data = linear_batch(50, noise=0.3)
    double = Batch(*(x.double() if x.is_floating_point() else x.to(torch.uint8) for x in data))
    states = []
    for batch in (data, double):
        model = kind(2, 2, generator=generator(1))
        model.fit(batch, max_epochs=1, generator=generator(0))
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_learned_end_is_no_part_of_the_ensemble():
    end = LearnedTermination(2)
    model = GaussianEnsemble(2, 1, small(), terminated=end)
    assert model.terminated is end
    assert not {id(p) for p in end.parameters()} & {id(p) for p in model.parameters()}
    assert model.state_dict().keys() == GaussianEnsemble(2, 1, small()).state_dict().keys()


def test_bad_input_is_named():
    model = GaussianEnsemble(2, 1, small())
    with pytest.raises(ValueError, match=r"obs has shape \[4, 3\], expected \[N, 2\]"):
        model.predict(torch.zeros(4, 3), torch.zeros(4, 1))
    with pytest.raises(ValueError, match="no reward"):
        model.step(torch.zeros(4, 2), torch.zeros(4, 1))
