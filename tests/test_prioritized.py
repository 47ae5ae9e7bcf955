"""Prioritized replay against a naive sampler, a cumulative sum and the definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_course.buffers import Batch
from mbrl_course.prioritized import (
    PrioritizedReplayBuffer,
    SumTree,
    importance_weights,
    priorities,
    stratified_points,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def transitions(num, first=0):
    """Transitions whose observation is their number."""
    obs = torch.arange(first, first + num).float().unsqueeze(1)
    ends = torch.zeros(num, dtype=torch.bool)
    return Batch(obs, torch.zeros(num, 1), torch.zeros(num), obs + 1, ends, ends)


def filled(num=50, capacity=50, **kwargs):
    buffer = PrioritizedReplayBuffer(capacity, 1, 1, **kwargs)
    buffer.add(*transitions(num))
    return buffer


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000))
def test_the_tree_is_the_cumulative_sum(capacity, seed):
    g = generator(seed)
    tree, plain = SumTree(capacity), torch.zeros(capacity, dtype=torch.float64)
    for _ in range(5):  # a few rounds of changes, some to zero
        rows = torch.randperm(capacity, generator=g)[: 1 + capacity // 2]
        values = torch.rand(len(rows), generator=g, dtype=torch.float64)
        values[values < 0.3] = 0
        tree.set(rows, values)
        plain[rows] = values
        torch.testing.assert_close(tree.get(torch.arange(capacity)), plain)
        assert tree.total == pytest.approx(plain.sum().item())
        if tree.total > 0:
            mass = torch.rand(200, generator=g, dtype=torch.float64) * tree.total
            naive = np.searchsorted(plain.cumsum(0).numpy(), mass.numpy(), side="right")
            assert tree.find(mass).tolist() == naive.tolist()


def test_a_leaf_without_priority_is_never_found_not_even_by_rounding():
    tree = SumTree(6)
    tree.set(torch.arange(6), torch.tensor([0.1, 0.2, 0.0, 0.3, 0.0, 0.0]))
    beyond = torch.tensor([tree.total, tree.total + 1e-12])
    assert tree.find(beyond).tolist() == [3, 3]
    assert tree.find(torch.tensor([0.0])).tolist() == [0]


def test_rows_are_drawn_as_often_as_by_a_naive_sampler():
    errors = torch.linspace(0, 3, 50)
    buffer = filled(alpha=0.7, epsilon=0.01)
    buffer.update_priorities(torch.arange(50), errors)
    sample = buffer.sample_prioritized(200_000, 0.4, generator())
    share = torch.bincount(sample.rows, minlength=50) / 200_000
    weights = ((errors + 0.01) ** 0.7).numpy()
    naive = np.random.default_rng(0).choice(50, 200_000, p=weights / weights.sum())
    naive_share = torch.bincount(torch.as_tensor(naive), minlength=50) / 200_000
    torch.testing.assert_close(share, naive_share, atol=0.003, rtol=0)
    assert torch.equal(sample.batch.obs[:, 0], sample.rows.float())


def test_importance_weights_give_back_the_uniform_mean():
    """Weighted by (N P)^-1, the mean over a prioritized sample is the mean over the buffer."""
    buffer = filled()
    buffer.update_priorities(torch.arange(50), torch.linspace(0.5, 3, 50))
    sample = buffer.sample_prioritized(100_000, 1.0, generator())
    values = sample.batch.obs[:, 0]
    assert values.mean().item() > 26  # large errors are at the end
    weighted = (sample.weights * values).sum() / sample.weights.sum()
    assert weighted.item() == pytest.approx(24.5, abs=0.15)


def test_weights_and_priorities_in_closed_form():
    weights = importance_weights(torch.tensor([0.5, 0.25]), 4, 0.5)
    torch.testing.assert_close(weights, torch.tensor([0.5**0.5, 1.0]))
    assert importance_weights(torch.tensor([0.9, 0.1]), 10, 0.0).tolist() == [1.0, 1.0]
    torch.testing.assert_close(priorities(torch.tensor([-3.0, 0.0]), 0.5, 1.0), torch.tensor([2.0, 1.0]))
    assert priorities(torch.tensor([5.0, 0.1]), 0.0, 0.01).tolist() == [1.0, 1.0]


def test_stratified_points_lie_one_in_each_part():
    points = stratified_points(8.0, 4, generator())
    assert (points // 2).tolist() == [0, 1, 2, 3]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_new_transitions_get_the_largest_priority_and_old_ones_disappear(capacity, counts):
    buffer = PrioritizedReplayBuffer(capacity, 1, 1, alpha=1.0, epsilon=1e-3)
    first = 0
    for count in counts:
        buffer.add(*transitions(count, first))
        first += count
        written = buffer.tree.get(buffer.ordered_rows()[-min(count, capacity) :])
        assert bool((written == buffer.max_priority).all())
        buffer.update_priorities(buffer.ordered_rows(), torch.full((len(buffer),), 4.0))
        assert buffer.max_priority == pytest.approx(4.001)
    assert buffer.tree.total == pytest.approx(4.001 * len(buffer))
    sample = buffer.sample_prioritized(64, 0.5, generator())
    assert sample.batch.obs.min() >= first - len(buffer)


def test_the_same_seed_draws_the_same_rows():
    buffer = filled()
    draws = [buffer.sample_prioritized(32, 0.5, generator(7)).rows for _ in range(2)]
    assert torch.equal(*draws)


def test_saving_keeps_the_priorities(tmp_path):
    buffer = filled(num=30, alpha=0.9)
    buffer.update_priorities(torch.arange(30), torch.linspace(0, 9, 30))
    buffer.save(tmp_path / "buffer")
    loaded = PrioritizedReplayBuffer.load(tmp_path / "buffer")
    assert torch.equal(loaded.tree.nodes, buffer.tree.nodes)
    assert (loaded.alpha, loaded.max_priority) == (0.9, buffer.max_priority)
    rows = [b.sample_prioritized(16, 0.5, generator(1)).rows for b in (buffer, loaded)]
    assert torch.equal(*rows)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="alpha is 2"):
        PrioritizedReplayBuffer(4, 1, 1, alpha=2.0)
    with pytest.raises(ValueError, match="epsilon is 0"):
        PrioritizedReplayBuffer(4, 1, 1, epsilon=0.0)
    with pytest.raises(ValueError, match="empty"):
        PrioritizedReplayBuffer(4, 1, 1).sample_prioritized(1, 0.5)
    with pytest.raises(ValueError, match="beta is -1"):
        filled().sample_prioritized(4, -1.0)
    with pytest.raises(ValueError, match=r"errors has shape \[2\], expected \[3\]"):
        filled().update_priorities(torch.arange(3), torch.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        filled().update_priorities(torch.arange(1), torch.tensor([float("nan")]))
    buffer = filled(num=3)
    for row in (-1, 3):
        with pytest.raises(ValueError, match=f"rows holds {row}, expected 0 to 2"):
            buffer.update_priorities(torch.tensor([0, row]), torch.ones(2))
