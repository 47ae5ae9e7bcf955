"""What every fit needs: mini-batches, early stopping, and a record of what happened."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class FitResult:
    """What happened during a fit.

    Attributes:
        train_losses: loss of every gradient step (normalised units, averaged over members).
        holdout_losses: hold-out loss after every epoch, or at the end of a fit by steps; empty without
            hold-out data.
    """

    train_losses: list[float] = field(default_factory=list)
    holdout_losses: list[float] = field(default_factory=list)


def split_holdout(
    count: int, fraction: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Splits the rows 0 .. count - 1 at random into those to train on and those to judge the fit by.

    Args:
        count: N, number of rows.
        fraction: share that is held out, in [0, 1), rounded down to whole rows.
        generator: source of randomness.

    Returns:
        Rows to train on [N'], rows held out [N - N'].
    """
    order = torch.randperm(count, generator=generator)
    num_holdout = int(fraction * count)
    return order[num_holdout:], order[:num_holdout]


def random_batches(
    rows: Tensor,
    num_batches: int,
    ensemble_size: int,
    batch_size: int,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Mini-batches drawn with replacement from `rows` [N], for each member its own: [E, B] each."""
    for _ in range(num_batches):
        yield rows[torch.randint(len(rows), (ensemble_size, batch_size), generator=generator)]


def shuffled_batches(
    rows: Tensor, ensemble_size: int, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[Tensor]:
    """One pass through `rows` [N], for each member in an order of its own: mini-batches [E, B].

    The last one holds what is left over, and may be smaller.
    """
    orders = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(ensemble_size)]
    yield from torch.stack(orders).split(batch_size, dim=1)


def with_supervised_noise(x: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Data with Gaussian noise of `share` times the mean absolute value of each dimension (CS285's 1 %).

    Args:
        x: data, [N, D].
        share: standard deviation of the noise, relative to the mean of |x|, which counts as 1e-6 at least.
        generator: source of randomness.

    Returns:
        Noisy data, [N, D].
    """
    scale = share * x.abs().mean(dim=0).clamp(min=1e-6)  # [D]
    return x + scale * torch.randn(x.shape, generator=generator).to(x.device)


class EarlyStopping:
    """Keeps a network's best weights, and knows when it has stopped to improve.

    Attributes:
        best_loss: the lowest loss so far; infinity before the first.
    """

    def __init__(self, network: nn.Module, patience: int) -> None:
        """Watches `network`, for `patience` epochs without a better loss."""
        self.network, self.patience = network, patience
        self.best_loss = math.inf
        self._weights: dict[str, Tensor] | None = None
        self._waited = 0

    def update(self, loss: float) -> bool:
        """Notes the loss after one more epoch; True where there was no better one for `patience` epochs."""
        if loss < self.best_loss:
            self.best_loss, self._waited = loss, 0
            self._weights = {name: value.clone() for name, value in self.network.state_dict().items()}
        else:
            self._waited += 1
        return self._waited >= self.patience

    def restore(self) -> None:
        """Puts the weights of the best epoch back, if there was one."""
        if self._weights is not None:
            self.network.load_state_dict(self._weights)
