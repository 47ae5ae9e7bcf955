"""Week 7, bonus: when does an episode end? A termination function that is learned.

A robot's task rarely comes with a formula for "it fell". A classifier can learn it from the states that
ended an episode; those are rare, so half of each mini-batch is made of them. The price: where an end is a
matter of chance, the classifier says "end" more often than episodes end there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mbrl_course.buffers import Batch
from mbrl_course.dynamics import Normalizer
from mbrl_course.networks import relu_mlp


def balanced_rows(terminated: Tensor, batch_size: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows of a mini-batch of which half, drawn with replacement, ended an episode.

    Args:
        terminated: bool [N], some of them True and some False.
        batch_size: B, even.
        generator: source of randomness.

    Returns:
        Row numbers [B].
    """
    half = batch_size // 2
    rows = [where.nonzero().squeeze(1) for where in (terminated, ~terminated)]
    return torch.cat([r[torch.randint(len(r), (half,), generator=generator)] for r in rows])


class LearnedTermination(nn.Module):
    """A termination function from data, to be used where a task's own is expected.

    Attributes:
        can_end: whether an end was ever seen; before that, nothing terminates.
    """

    can_end: Tensor

    def __init__(
        self,
        obs_dim: int,
        hidden_sizes: tuple[int, ...] = (64, 64),
        generator: torch.Generator | None = None,
    ) -> None:
        """An untrained classifier of states [D]."""
        super().__init__()
        self.normalizer = Normalizer(obs_dim)
        self.network = relu_mlp((obs_dim, *hidden_sizes, 1), generator)
        self.register_buffer("can_end", torch.tensor(False))

    def forward(self, next_obs: Tensor) -> Tensor:
        """Whether an episode ends in the states next_obs [..., D]: bool [...]."""
        with torch.no_grad():
            return (self.logits(next_obs) > 0) & self.can_end

    def logits(self, next_obs: Tensor) -> Tensor:
        """Log odds of an end in the states next_obs [..., D]: [...]."""
        return self.network(self.normalizer.normalize(next_obs)).squeeze(-1)

    def fit(
        self,
        data: Batch,
        *,
        num_steps: int = 300,
        batch_size: int = 256,
        learning_rate: float = 3e-3,
        generator: torch.Generator | None = None,
    ) -> list[float]:
        """Learns from real transitions, going on from what was learned before.

        Args:
            data: N transitions.
            num_steps: gradient steps.
            batch_size: transitions in each, at least 2.
            learning_rate: of Adam, at the start; it falls to 0.
            generator: source of randomness.

        Returns:
            The loss of each step; none where no transition, or every one, ended an episode: there is nothing
            to tell apart, and in the second case the answers are chance until there is.
        """
        self.can_end |= data.terminated.any()
        if not data.terminated.any() or data.terminated.all():
            return []
        self.normalizer.fit(data.next_obs)
        optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        losses = []
        for step in range(num_steps):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / num_steps)
            rows = balanced_rows(data.terminated, batch_size, generator)
            logits = self.logits(data.next_obs[rows])
            loss = binary_cross_entropy_with_logits(logits, data.terminated[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses
