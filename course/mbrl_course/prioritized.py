"""Week 4, bonus: replay what there is most to learn from. Prioritized experience replay.

A uniform sample spends most of its time on transitions that are predicted well already. Prioritized replay
(Schaul et al., 2016, "Prioritized experience replay") draws transition i with a probability proportional to
p_i = (|error_i| + eps)^alpha, and corrects the bias that this brings with importance weights. The error may
be a critic's TD error or a model's prediction error.

Drawing in proportion to a million changing numbers would need their cumulative sum each time. A *sum tree*
keeps the partial sums, so that a change and a draw cost log2(N) additions; both are done here for a whole
batch at once, level by level.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mbrl_course.buffers import Batch, ReplayBuffer


class SumTree:
    """Numbers p_i >= 0 at the leaves of a binary tree whose inner nodes hold the sums of their children.

    Node 1 is the root, the children of node n are 2 n and 2 n + 1, leaf i is node L + i, where L is the
    capacity rounded up to a power of two.

    Attributes:
        depth: log2(L), the number of levels above the leaves.
        nodes: all sums, float64 [2 L]; entry 0 is not used.
    """

    def __init__(self, capacity: int) -> None:
        """A tree for `capacity` numbers, all zero."""
        self.depth = math.ceil(math.log2(capacity))
        self.nodes = torch.zeros(2 ** (self.depth + 1), dtype=torch.float64)  # float32 loses a sum's tail

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return self.nodes[1].item()

    def get(self, rows: Tensor) -> Tensor:
        """The numbers of the leaves `rows` [B]: float64 [B]."""
        return self.nodes[rows + 2**self.depth]

    def set(self, rows: Tensor, values: Tensor) -> None:
        """Replaces the numbers of the leaves `rows` [B] by `values` [B], and mends the sums above them."""
        nodes = rows + 2**self.depth  # [B]
        self.nodes[nodes] = values.to(torch.float64)
        for _ in range(self.depth):
            nodes = nodes // 2
            self.nodes[nodes] = self.nodes[2 * nodes] + self.nodes[2 * nodes + 1]

    def find(self, mass: Tensor) -> Tensor:
        """The leaf in which each point of the cumulative sum lies.

        On the way down, a point that is beyond the left child's sum belongs to the right child, where it is
        counted from that child's beginning.

        Args:
            mass: points in [0, total), [B].

        Returns:
            The leaf i with p_0 + ... + p_{i-1} <= mass < p_0 + ... + p_i, [B]; never one with p_i = 0, unless
            all are.
        """
        mass = mass.to(torch.float64)
        nodes = torch.ones(len(mass), dtype=torch.long)  # [B], all start at the root
        for _ in range(self.depth):
            left = self.nodes[2 * nodes]
            right = self.nodes[2 * nodes + 1]
            go_right = (mass >= left) & (right > 0)  # rounding may leave a little mass beyond the last leaf
            mass = torch.where(go_right, mass - left, mass)
            nodes = 2 * nodes + go_right.long()
        return nodes - 2**self.depth


def stratified_points(total: float, num_points: int, generator: torch.Generator | None = None) -> Tensor:
    """One random point in each of `num_points` equal parts of [0, total) (Schaul et al., Appendix B.2.1).

    Each point by itself is spread evenly over its part; together they cover the range more evenly than
    independent draws, so a batch varies less.

    Returns:
        Float64 [num_points], in increasing order.
    """
    noise = torch.rand(num_points, generator=generator, dtype=torch.float64)
    return (torch.arange(num_points) + noise) / num_points * total


def priorities(errors: Tensor, alpha: float, epsilon: float) -> Tensor:
    """p_i = (|error_i| + epsilon)^alpha (Schaul et al., Section 3.3): errors [B] to priorities [B].

    Args:
        errors: TD or prediction errors, of any sign.
        alpha: 0 makes all alike, 1 is proportional to the error.
        epsilon: keeps a transition without an error from never being seen again.
    """
    return (errors.abs() + epsilon) ** alpha


def importance_weights(probabilities: Tensor, num_stored: int, beta: float) -> Tensor:
    """w_i = (N P(i))^-beta, divided by the largest of the batch (Schaul et al., Section 3.4).

    What is drawn twice as often as under uniform sampling counts half as much (with beta = 1, in full); the
    division only ever makes a step of the gradient smaller.

    Args:
        probabilities: with which each row of the batch was drawn, [B].
        num_stored: N, how many transitions there were to draw from.
        beta: 0 corrects nothing, 1 corrects in full.

    Returns:
        Float32 in (0, 1], [B].
    """
    weights = (num_stored * probabilities) ** -beta
    return (weights / weights.max()).float()


class PrioritizedSample(NamedTuple):
    """A batch drawn by priority, and what is needed to learn from it."""

    batch: Batch  # B transitions
    rows: Tensor  # [B] where they lie in the buffer, for `update_priorities`
    weights: Tensor  # [B] importance weights


class PrioritizedReplayBuffer(ReplayBuffer):
    """A replay buffer that can also draw by priority; a new transition gets the largest priority so far.

    Attributes:
        alpha: exponent of the priorities.
        epsilon: is added to each error.
        tree: the priority of each row.
        max_priority: the largest so far; 1 at the start.
    """

    def __init__(
        self, capacity: int, obs_dim: int, action_dim: int, alpha: float = 0.6, epsilon: float = 1e-3
    ) -> None:
        """An empty buffer; see `ReplayBuffer` and `priorities`.

        Raises:
            ValueError: alpha is outside [0, 1], or epsilon is not above 0.
        """
        super().__init__(capacity, obs_dim, action_dim)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}, expected in [0, 1]")
        if not epsilon > 0:
            raise ValueError(f"epsilon is {epsilon}, expected more than 0")
        self.alpha, self.epsilon = alpha, epsilon
        self.tree = SumTree(capacity)
        self.max_priority = 1.0

    def write(self, batch: Batch) -> None:
        """Writes N transitions over the oldest rows, with the largest priority there was so far."""
        super().write(batch)
        count = min(len(batch.obs), self.capacity)
        rows = (self.position - count + torch.arange(count)) % self.capacity
        self.tree.set(rows, torch.full((count,), self.max_priority, dtype=torch.float64))

    def sample_prioritized(
        self, batch_size: int, beta: float, generator: torch.Generator | None = None
    ) -> PrioritizedSample:
        """Draws transitions in proportion to their priorities.

        Args:
            batch_size: B.
            beta: strength of the importance weights, in [0, 1].
            generator: source of randomness.

        Returns:
            The batch, its rows and its weights.

        Raises:
            ValueError: the buffer is empty, or beta is outside [0, 1].
        """
        if self.size == 0:
            raise ValueError("the buffer is empty: add transitions before you sample")
        if not 0 <= beta <= 1:
            raise ValueError(f"beta is {beta}, expected in [0, 1]")
        total = self.tree.total
        rows = self.tree.find(stratified_points(total, batch_size, generator))  # [B]
        weights = importance_weights(self.tree.get(rows) / total, self.size, beta)
        return PrioritizedSample(self.data.take(rows), rows, weights)

    def update_priorities(self, rows: Tensor, errors: Tensor) -> None:
        """Sets the priorities of `rows` [B] from fresh TD or prediction errors [B].

        Raises:
            ValueError: the shapes differ, an error is NaN or infinite, or a row holds no transition.
        """
        if rows.shape != errors.shape:
            raise ValueError(f"errors has shape {list(errors.shape)}, expected {list(rows.shape)}, as rows")
        if not bool(torch.isfinite(errors).all()):
            raise ValueError("errors holds NaN or infinity, expected finite numbers")
        if len(rows):
            empty = rows[(rows < 0) | (rows >= self.size)]
            if len(empty):
                raise ValueError(
                    f"rows holds {int(empty[0])}, expected 0 to {self.size - 1}, all that is stored"
                )
            values = priorities(errors.detach().double(), self.alpha, self.epsilon)
            self.tree.set(rows, values)
            self.max_priority = max(self.max_priority, values.max().item())

    def state_dict(self) -> dict[str, Any]:
        """Everything in the buffer, priorities included."""
        settings = {"alpha": self.alpha, "epsilon": self.epsilon, "max_priority": self.max_priority}
        leaves = self.tree.get(torch.arange(self.size))
        return {**super().state_dict(), **settings, "priorities": leaves}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` returned."""
        super().load_state_dict(state)
        self.alpha, self.epsilon = state["alpha"], state["epsilon"]
        self.max_priority = state["max_priority"]
        self.tree = SumTree(self.capacity)
        self.tree.set(torch.arange(self.size), state["priorities"])
