"""The multi-step model on a linear system, whose k-step map is known."""

import pytest
import torch

from mbrl_course.multistep import MultiStepConfig, MultiStepModel, mask_later_actions, multi_step_errors


def trajectories(num, steps, seed=0):
    """s' = A s + B a: obs [N, K + 1, 2], actions [N, K, 1]."""
    g = torch.Generator().manual_seed(seed)
    matrix, gain = torch.tensor([[1.0, 0.1], [-0.1, 0.95]]), torch.tensor([[0.0, 0.2]])
    obs, actions = [torch.randn(num, 2, generator=g)], torch.randn(num, steps, 1, generator=g)
    for k in range(steps):
        obs.append(obs[-1] @ matrix.T + actions[:, k] @ gain)
    return torch.stack(obs, dim=1), actions


def test_a_prediction_of_step_k_sees_the_first_k_actions_only():
    actions = torch.arange(1.0, 7.0).reshape(1, 3, 2)
    known = mask_later_actions(actions)
    assert known[:, 0].tolist() == [[1, 2, 0, 0, 0, 0], [1, 2, 3, 4, 0, 0], [1, 2, 3, 4, 5, 6]]
    model = MultiStepModel(2, 1, MultiStepConfig(num_steps=4, hidden_sizes=(8,)))
    obs, plan = torch.randn(5, 2), torch.randn(5, 4, 1)
    changed = plan.clone()
    changed[:, 2:] += 1
    before, after = model.predict(obs, plan), model.predict(obs, changed)
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert bool((before[:, 2:] != after[:, 2:]).any())


def test_it_learns_a_linear_system_and_the_same_seed_gives_the_same_model():
    obs, actions = trajectories(2000, 5)
    errors = []
    for _ in range(2):
        g = torch.Generator().manual_seed(1)
        model = MultiStepModel(2, 1, MultiStepConfig(5, (64,), 3e-3), g)
        losses = model.fit(obs, actions, 300, g)
        errors.append(multi_step_errors(model, *trajectories(300, 5, seed=9)))
    assert torch.equal(*errors)
    assert losses[-1] < 0.02 * losses[0]
    assert errors[0].shape == (5,)
    variance = (obs[:, 1:] - obs[:, :1]).var(dim=0).mean(dim=-1)  # of the change, for each k
    assert bool((errors[0] < 0.03 * variance).all())


def test_a_fit_that_breaks_down_says_so():
    config = MultiStepConfig(num_steps=2, hidden_sizes=(8,), learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf): is learning_rate small enough"):
        MultiStepModel(1, 1, config).fit(torch.randn(20, 3, 1), torch.randn(20, 2, 1), 10)


def test_bad_input_is_named():
    model = MultiStepModel(2, 1, MultiStepConfig(num_steps=4))
    with pytest.raises(ValueError, match=r"actions has shape \[5, 3, 1\], expected \[5, 4, A\]"):
        model.predict(torch.zeros(5, 2), torch.zeros(5, 3, 1))
    with pytest.raises(ValueError, match=r"obs has shape \[5, 4, 2\], expected \[5, 5, D\]"):
        model.fit(torch.zeros(5, 4, 2), torch.zeros(5, 4, 1), 1)
    with pytest.raises(ValueError, match="obs or actions hold NaN or infinity"):
        model.fit(torch.full((5, 5, 2), torch.nan), torch.zeros(5, 4, 1), 1)
    with pytest.raises(ValueError, match=r"obs has shape \[5, 3\], expected \[\.\.\., 2\]"):
        model.predict(torch.zeros(5, 3), torch.zeros(5, 4, 1))
    with pytest.raises(ValueError, match=r"actions has shape \[5, 4, 2\], expected \[\.\.\., 1\]"):
        model.predict(torch.zeros(5, 2), torch.zeros(5, 4, 2))
    with pytest.raises(ValueError, match="no stretches"):
        model.fit(torch.zeros(0, 5, 2), torch.zeros(0, 4, 1), 1)
    with pytest.raises(ValueError, match="hidden_sizes"):
        MultiStepConfig(hidden_sizes=(0,))
    with pytest.raises(ValueError, match="num_steps"):
        MultiStepConfig(num_steps=0)
