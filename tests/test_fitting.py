"""Mini-batches, hold-out split and early stopping."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mbrl_course.fitting import (
    EarlyStopping,
    random_batches,
    shuffled_batches,
    split_holdout,
    with_supervised_noise,
)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 200), fraction=st.floats(0, 0.99))
def test_a_split_gives_every_row_to_one_side(count: int, fraction: float) -> None:
    train, holdout = split_holdout(count, fraction, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([train, holdout]).tolist()) == list(range(count))
    assert len(holdout) == int(fraction * count)


def test_random_batches_draw_for_each_member_by_itself() -> None:
    rows = torch.tensor([3, 5, 8])
    batches = list(random_batches(rows, 40, ensemble_size=2, batch_size=50))
    assert len(batches) == 40
    together = torch.stack(batches)  # [40, E, B]
    assert together.shape == (40, 2, 50)
    assert set(together.unique().tolist()) == {3, 5, 8}
    assert not torch.equal(together[:, 0], together[:, 1])


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), ensemble_size=st.integers(1, 3))
def test_a_pass_shows_each_member_every_row_once(count: int, batch_size: int, ensemble_size: int) -> None:
    rows = 2 * torch.arange(count)
    batches = list(shuffled_batches(rows, ensemble_size, batch_size, torch.Generator().manual_seed(0)))
    assert all(batch.shape[1] == batch_size for batch in batches[:-1])
    for own in torch.cat(batches, dim=1):
        assert sorted(own.tolist()) == rows.tolist()


def test_supervised_noise_is_relative_to_the_mean_absolute_value() -> None:
    x = torch.tensor([[3.0, -100.0, 0.0], [-1.0, 300.0, 0.0]]).repeat(20_000, 1)
    noise = with_supervised_noise(x, 0.01, torch.Generator().manual_seed(0)) - x
    torch.testing.assert_close(noise[:, :2].std(dim=0), torch.tensor([0.02, 2.0]), rtol=0.02, atol=0)
    assert noise[:, :2].mean(dim=0).div(torch.tensor([0.02, 2.0])).abs().max() < 0.03
    assert noise[:, 2].std() < 1e-7  # a dimension of zeros stays (nearly) what it is


@pytest.mark.parametrize(
    ("losses", "stops_after", "best"),
    [
        ([5.0, 4.0, 3.0, 2.0, 1.0], None, 4),
        ([5.0, 4.0, 4.5, 4.5, 4.5, 1.0], 5, 1),
        ([5.0, 6.0, 6.0, 4.0, 7.0, 7.0, 7.0], 7, 3),
        ([1.0, float("nan"), float("nan"), float("nan")], 4, 0),
    ],
)
def test_stops_after_three_epochs_in_vain_and_restores_the_best(
    losses: list[float], stops_after: int | None, best: int
) -> None:
    network = nn.Linear(1, 1)
    stopping = EarlyStopping(network, patience=3)
    stopped = None
    for epoch, loss in enumerate(losses):
        with torch.no_grad():
            network.weight.fill_(float(epoch))
        if stopping.update(loss):
            stopped = epoch + 1
            break
    assert stopped == stops_after
    stopping.restore()
    assert network.weight.item() == best
    assert stopping.best_loss == losses[best]


def test_nothing_to_restore_leaves_the_weights() -> None:
    network = nn.Linear(1, 1)
    before = network.weight.item()
    EarlyStopping(network, patience=1).restore()
    assert network.weight.item() == before
