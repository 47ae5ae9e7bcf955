"""The replay buffer against a plain list that forgets its first entries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl_course.buffers import Batch, ReplayBuffer, check_transitions, concatenate


def numbered(first: int, count: int, end_every: int = 10**9) -> Batch:
    """Transitions whose columns all tell their number; some end an episode, in one way or the other."""
    n = torch.arange(first, first + count)
    ends = (n + 1) % end_every == 0
    x = n.float().unsqueeze(-1)
    return Batch(
        obs=torch.cat([x, -x], dim=-1),
        action=x + 0.25,
        reward=n + 0.5,
        next_obs=torch.cat([x + 1, -x - 1], dim=-1),
        terminated=ends & (n % 2 == 0),
        truncated=ends & (n % 2 == 1),
    )


def numbers_of(batch: Batch) -> list[int]:
    """The numbers of transitions, after a check that all columns agree on them."""
    n = batch.obs[..., 0]
    torch.testing.assert_close(batch.obs[..., 1], -n)
    torch.testing.assert_close(batch.action[..., 0], n + 0.25)
    torch.testing.assert_close(batch.reward, n + 0.5)
    torch.testing.assert_close(batch.next_obs[..., 0], n + 1)
    return [int(value) for value in n.flatten()]


def buffer_of(capacity: int, counts: list[int], end_every: int = 10**9) -> ReplayBuffer:
    buffer, first = ReplayBuffer(capacity, 2, 1), 0
    for count in counts:
        buffer.add(*numbered(first, count, end_every))
        first += count
    return buffer


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(1, 12), counts=st.lists(st.integers(1, 30), max_size=8))
def test_keeps_the_newest_in_order_however_they_arrive(capacity: int, counts: list[int]) -> None:
    buffer = buffer_of(capacity, counts)
    total = sum(counts)
    assert numbers_of(buffer.all()) == list(range(total))[-capacity:]
    assert len(buffer) == buffer.size == min(total, capacity)
    assert buffer.position == total % capacity


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(1, 9), counts=st.lists(st.integers(1, 15), min_size=1, max_size=5))
def test_batches_leave_the_same_memory_as_single_transitions(capacity: int, counts: list[int]) -> None:
    together, alone = buffer_of(capacity, counts, end_every=3), ReplayBuffer(capacity, 2, 1)
    for column in zip(*numbered(0, sum(counts), end_every=3), strict=True):
        alone.add(*column)
    for one, other in zip(together.data, alone.data, strict=True):
        assert torch.equal(one, other)
    assert (together.position, together.size) == (alone.position, alone.size)


def test_takes_plain_numbers_arrays_and_lists() -> None:
    buffer = ReplayBuffer(3, obs_dim=2, action_dim=1)
    buffer.add(np.array([1.0, 2.0]), [0.5], 3, [2, 3], False)
    buffer.add(torch.tensor([[4.0, 5.0]]), np.array([[0.25]]), [1.5], [[0, 0]], [True], [False])
    data = buffer.all()
    assert data.obs.tolist() == [[1, 2], [4, 5]]
    assert data.reward.tolist() == [3, 1.5]
    assert data.terminated.tolist() == [False, True]
    assert data.truncated.tolist() == [False, False]
    assert data.obs.dtype == data.reward.dtype == torch.float32
    assert data.terminated.dtype == torch.bool


GOOD: dict[str, Any] = {
    "obs": [0.0, 0.0],
    "action": [0.0],
    "reward": 0.0,
    "next_obs": [0.0, 0.0],
    "terminated": False,
    "truncated": False,
}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("obs", [0.0, 0.0, 0.0], ValueError, r"obs has shape \[3\], expected \[1, 2\]"),
        ("action", 0.0, ValueError, "action has shape"),
        ("next_obs", [[0.0, 0.0]] * 2, ValueError, r"next_obs has shape \[2, 2\], expected \[1, 2\]"),
        ("reward", [0.0, 1.0], ValueError, r"reward has shape \[2\], expected \[1\]"),
        ("terminated", [True, False], ValueError, "terminated has shape"),
        ("obs", [0.0, float("nan")], ValueError, "obs holds NaN or infinity"),
        ("reward", float("inf"), ValueError, "reward holds NaN or infinity"),
        ("terminated", float("nan"), ValueError, "terminated holds NaN or infinity"),
        ("terminated", None, TypeError, "terminated is a NoneType, expected numbers"),
        ("obs", "there", TypeError, "obs is a str, expected numbers"),
        ("action", None, TypeError, "action is a NoneType"),
    ],
)
def test_bad_transitions_are_named_and_leave_the_buffer_alone(
    name: str, value: Any, error: type[Exception], message: str
) -> None:
    buffer = ReplayBuffer(4, obs_dim=2, action_dim=1)
    buffer.add(**GOOD)
    with pytest.raises(error, match=message):
        buffer.add(**{**GOOD, name: value})
    assert len(buffer) == 1
    assert buffer.position == 1


@pytest.mark.parametrize("name", ["capacity", "obs_dim", "action_dim"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_bad_sizes_are_named(name: str, value: Any) -> None:
    sizes = {"capacity": 2, "obs_dim": 2, "action_dim": 2, name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        ReplayBuffer(**sizes)


def test_check_transitions_adds_the_leading_axis() -> None:
    batch = check_transitions(Batch(**GOOD), obs_dim=2, action_dim=1)
    assert [list(column.shape) for column in batch] == [[1, 2], [1, 1], [1], [1, 2], [1], [1]]


def test_concatenate_joins_in_order() -> None:
    joined = concatenate([numbered(0, 3), numbered(3, 1), numbered(4, 2)])
    assert numbers_of(joined) == list(range(6))


def test_samples_are_uniform_over_what_is_stored() -> None:
    buffer = buffer_of(8, [5, 6])  # 3 .. 10
    batch = buffer.sample(16_000, torch.Generator().manual_seed(0))
    counts = np.bincount(numbers_of(batch), minlength=11)
    assert (counts[:3] == 0).all()
    assert np.abs(counts[3:] - 2000).max() < 6 * 2000**0.5  # six standard deviations
    assert buffer_of(50, [2]).sample(40).obs.amax() == 1  # rows never written are not drawn


def test_the_seed_decides_the_sample() -> None:
    buffer = buffer_of(100, [100])
    first, again, other = (buffer.sample(20, torch.Generator().manual_seed(s)).obs for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_empty_buffer_has_no_samples() -> None:
    with pytest.raises(ValueError, match="the buffer is empty"):
        ReplayBuffer(5, 2, 1).sample(1)


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(4, 30),
    count=st.integers(1, 60),
    end_every=st.integers(2, 9),
    length=st.integers(1, 8),
    seed=st.integers(0, 100),
)
def test_sequences_follow_each_other_in_one_episode(
    capacity: int, count: int, end_every: int, length: int, seed: int
) -> None:
    buffer = buffer_of(capacity, [count], end_every)
    stored = range(max(0, count - capacity), count)
    # A stretch may end an episode, but holds no end before.
    possible = {
        start
        for start in stored
        if start + length - 1 in stored and all((n + 1) % end_every for n in range(start, start + length - 1))
    }
    if not possible:
        with pytest.raises(ValueError, match=f"no stored episode has {length} transitions in a row"):
            buffer.sample_sequences(5, length)
        return
    batch = buffer.sample_sequences(40 * len(possible), length, torch.Generator().manual_seed(seed))
    assert batch.obs.shape == (40 * len(possible), length, 2)
    assert batch.truncated.shape == (40 * len(possible), length)
    numbers = torch.tensor(numbers_of(batch)).reshape(-1, length)
    assert torch.equal(numbers, numbers[:, :1] + torch.arange(length))
    assert set(numbers[:, 0].tolist()) == possible  # each is drawn 40 times on average


def test_sequences_need_a_length() -> None:
    with pytest.raises(ValueError, match="length is 0, expected at least 1"):
        buffer_of(5, [5]).sample_sequences(2, 0)


def test_all_is_a_copy() -> None:
    buffer = buffer_of(4, [6])
    buffer.all().obs.fill_(77.0)
    assert numbers_of(buffer.all()) == [2, 3, 4, 5]


@pytest.mark.parametrize("count", [0, 3, 7, 12])
def test_a_saved_buffer_goes_on_where_it_was(tmp_path: Path, count: int) -> None:
    buffer = buffer_of(7, [count] if count else [], end_every=4)
    path = tmp_path / "buffer.pt"
    buffer.save(path)
    loaded = ReplayBuffer.load(path)
    assert (loaded.capacity, loaded.position, loaded.size) == (7, buffer.position, buffer.size)
    for one in (buffer, loaded):
        one.add(*numbered(count, 3, end_every=4))
    for column, other in zip(buffer.all(), loaded.all(), strict=True):
        assert torch.equal(column, other)
    assert list(tmp_path.iterdir()) == [path]  # no half-written file beside it


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no saved buffer at"):
        ReplayBuffer.load(tmp_path / "nothing.pt")
    path = tmp_path / "text.pt"
    path.write_text("no buffer")
    with pytest.raises(ValueError, match="is not a saved replay buffer"):
        ReplayBuffer.load(path)


def test_a_state_fits_its_capacity_only() -> None:
    state = buffer_of(7, [3]).state_dict()
    with pytest.raises(ValueError, match="a buffer of 7, expected 8"):
        ReplayBuffer(8, 2, 1).load_state_dict(state)
    with pytest.raises(ValueError, match="a buffer with obs of width 2, expected 3"):
        ReplayBuffer(7, 3, 1).load_state_dict(state)
    with pytest.raises(ValueError, match="a buffer with action of width 1, expected 2"):
        ReplayBuffer(7, 2, 2).load_state_dict(state)
