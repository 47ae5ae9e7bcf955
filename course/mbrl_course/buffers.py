"""Week 1: the replay buffer, where every transition that an agent has seen is kept.

A model is fitted to *transitions* (obs, action, reward, next_obs, terminated, truncated). They arrive one
at a time, or a batch at a time; they leave as random mini-batches. The buffer is a ring of preallocated
memory: when it is full, the newest transition overwrites the oldest one (Lin, 1992, "Self-improving
reactive agents based on reinforcement learning, planning and teaching"). Week 4 draws by priority instead
(`mbrl_course.prioritized`).
"""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """Transitions; N stands for any number of leading axes (a batch, or a batch of sequences)."""

    obs: Tensor  # [N, D]
    action: Tensor  # [N, A]
    reward: Tensor  # [N]
    next_obs: Tensor  # [N, D]
    terminated: Tensor  # [N] bool: the task ended here; nothing follows, a bootstrap is masked
    truncated: Tensor  # [N] bool: the episode was cut off here, by a step limit say; the task went on

    def take(self, index: Any) -> Batch:
        """The transitions at `index` (a slice, a mask or a tensor of row numbers) of every column."""
        return Batch(*(column[index] for column in self))


def concatenate(batches: list[Batch]) -> Batch:
    """All transitions of `batches`, one after the other, as one batch."""
    return Batch(*(torch.cat(columns) for columns in zip(*batches, strict=True)))


def check_transitions(batch: Batch, obs_dim: int, action_dim: int) -> Batch:
    """Brings transitions into the shapes and dtypes of a buffer, or says what is wrong with them.

    Args:
        batch: one transition (obs [D], action [A], reward a number, ...) or N of them (obs [N, D], ...);
            tensors, arrays, numbers and lists are welcome.
        obs_dim: D.
        action_dim: A.

    Returns:
        The same transitions with a leading axis: float32 [N, D], [N, A], [N], [N, D], bool [N], [N].

    Raises:
        ValueError: a column has the wrong shape, or holds NaN or infinity.
        TypeError: a column is not numeric.
    """
    columns = []
    count = None
    widths = (obs_dim, action_dim, None, obs_dim, None, None)
    for name, value, width in zip(Batch._fields, batch, widths, strict=True):
        dtype = torch.bool if width is None and name != "reward" else torch.float32
        try:
            numbers = torch.as_tensor(value)
            column = numbers.to(dtype)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} is a {type(value).__name__}, expected numbers: {error}") from None
        single = column.dim() == (0 if width is None else 1)
        column = column.unsqueeze(0) if single else column  # [N] or [N, width]
        count = len(column) if count is None and column.dim() else count
        expected = [count] if width is None else [count, width]
        if list(column.shape) != expected:
            raise ValueError(f"{name} has shape {list(numbers.shape)}, expected {expected}")
        finite = torch.isfinite(column if dtype == torch.float32 else numbers)  # as a bool, NaN would be True
        if not bool(finite.all()):
            row = int((~finite.view(len(column), -1)).nonzero()[0, 0])
            raise ValueError(f"{name} holds NaN or infinity (transition {row}), expected finite numbers")
        columns.append(column)
    return Batch(*columns)


class ReplayBuffer:
    """A ring buffer of transitions in preallocated memory.

    Attributes:
        capacity: how many transitions fit.
        data: the memory, a `Batch` of `capacity` rows; rows that were never written hold zeros.
        position: the row that the next transition will be written to.
        size: how many rows hold a transition.
    """

    def __init__(self, capacity: int, obs_dim: int, action_dim: int) -> None:
        """An empty buffer for `capacity` transitions with observations [D] and actions [A].

        Raises:
            ValueError: one of the three numbers is not a positive integer.
        """
        for name, value in (("capacity", capacity), ("obs_dim", obs_dim), ("action_dim", action_dim)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, expected a positive integer")
        self.capacity, self.obs_dim, self.action_dim = int(capacity), int(obs_dim), int(action_dim)
        self.data = Batch(
            obs=torch.zeros(capacity, obs_dim),
            action=torch.zeros(capacity, action_dim),
            reward=torch.zeros(capacity),
            next_obs=torch.zeros(capacity, obs_dim),
            terminated=torch.zeros(capacity, dtype=torch.bool),
            truncated=torch.zeros(capacity, dtype=torch.bool),
        )
        self.position = 0
        self.size = 0

    def __len__(self) -> int:
        """How many transitions are stored."""
        return self.size

    def add(
        self, obs: Any, action: Any, reward: Any, next_obs: Any, terminated: Any, truncated: Any = False
    ) -> None:
        """Writes one transition, or N of them in order, over the oldest rows of the ring.

        Args:
            obs: state before the step, [D] or [N, D].
            action: [A] or [N, A].
            reward: number or [N].
            next_obs: state after the step, [D] or [N, D].
            terminated: bool or [N].
            truncated: bool or [N].

        Raises:
            ValueError: a wrong shape, NaN or infinity; the buffer is left as it was.
            TypeError: something that is not numeric.
        """
        if truncated is False:
            truncated = np.zeros(np.shape(terminated), dtype=bool)
        batch = Batch(obs, action, reward, next_obs, terminated, truncated)
        batch = check_transitions(batch, self.obs_dim, self.action_dim)
        self.write(batch)

    def write(self, batch: Batch) -> None:
        """Writes N transitions over the oldest rows, in order, without a loop over transitions.

        The first one goes to row `position`, the next to the row after it, and after the last row comes row
        0 again. Where N is larger than `capacity`, only the last `capacity` transitions are kept. Afterwards
        `position` is the row after the last one written, and `size` the number of rows in use.

        Args:
            batch: N transitions in the shapes of `check_transitions`.
        """
        count = len(batch.obs)
        start = self.position + max(0, count - self.capacity)  # what would be overwritten at once is skipped
        kept = batch.take(slice(-self.capacity, None))
        rows = (start + torch.arange(len(kept.obs))) % self.capacity  # [min(N, capacity)]
        for column, values in zip(self.data, kept, strict=True):
            column[rows] = values
        self.position = (self.position + count) % self.capacity
        self.size = min(self.size + count, self.capacity)

    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> Batch:
        """Draws transitions uniformly, with replacement, from those that are stored.

        Args:
            batch_size: B, how many to draw.
            generator: source of randomness.

        Returns:
            A batch of B transitions: obs [B, D], action [B, A], reward [B], ...

        Raises:
            ValueError: the buffer is empty.
        """
        if self.size == 0:
            raise ValueError("the buffer is empty: add transitions before you sample")
        rows = torch.randint(self.size, (batch_size,), generator=generator)  # [B]
        return self.data.take(rows)

    def ordered_rows(self) -> Tensor:
        """The rows in use from the oldest transition to the newest, [size]."""
        start = self.position if self.size == self.capacity else 0
        return (start + torch.arange(self.size)) % self.capacity

    def all(self) -> Batch:
        """All stored transitions, the oldest first, as a copy."""
        return self.data.take(self.ordered_rows())

    def sample_sequences(
        self, batch_size: int, length: int, generator: torch.Generator | None = None
    ) -> Batch:
        """Draws stretches of `length` transitions that follow each other in one episode.

        Args:
            batch_size: B.
            length: L, at least 1.
            generator: source of randomness.

        Returns:
            A batch with obs [B, L, D], action [B, L, A], reward [B, L], ... No stretch runs past the end of
            an episode (except that it may end there), nor from the newest transition on to the oldest.

        Raises:
            ValueError: no stored episode is that long.
        """
        if length < 1:
            raise ValueError(f"length is {length}, expected at least 1")
        rows = self.ordered_rows()  # [size]
        ends = (self.data.terminated | self.data.truncated)[rows]  # [size]
        # A stretch may start where none of its first L - 1 transitions ends an episode.
        passed = torch.cat([torch.zeros(1, dtype=torch.long), ends.long().cumsum(0)])  # [size + 1]
        last_start = self.size - length + 1
        starts = torch.arange(max(last_start, 0))
        starts = starts[passed[starts + length - 1] == passed[starts]]
        if len(starts) == 0:
            raise ValueError(
                f"no stored episode has {length} transitions in a row: ask for a shorter length "
                f"(the buffer holds {self.size} transitions)"
            )
        chosen = starts[torch.randint(len(starts), (batch_size,), generator=generator)]  # [B]
        return self.data.take(rows[chosen[:, None] + torch.arange(length)])  # [B, L, ...]

    def state_dict(self) -> dict[str, Any]:
        """Everything in the buffer, as numbers and tensors that a checkpoint can hold."""
        return {
            "capacity": self.capacity,
            "position": self.position,
            "size": self.size,
            "data": {name: column[: self.size].clone() for name, column in self.data._asdict().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from what `state_dict` of a buffer of the same capacity and widths returned.

        Raises:
            ValueError: the other buffer had another capacity, or other widths.
        """
        if state["capacity"] != self.capacity:
            raise ValueError(f"the state is of a buffer of {state['capacity']}, expected {self.capacity}")
        for name, width in (("obs", self.obs_dim), ("action", self.action_dim)):
            if state["data"][name].shape[1] != width:
                got = f"the state is of a buffer with {name} of width {state['data'][name].shape[1]}"
                raise ValueError(f"{got}, expected {width}")
        for name, values in state["data"].items():
            getattr(self.data, name)[: state["size"]] = values
        self.position, self.size = state["position"], state["size"]

    def save(self, path: str | Path) -> None:
        """Writes the buffer to the file `path` (replaced only when the new one is complete)."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        torch.save(self.state_dict(), partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The buffer that `save` wrote to the file `path`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a saved buffer.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no saved buffer at {path}")
        try:
            state = torch.load(path, weights_only=True)
            data = Batch(**state["data"])
            buffer = cls(state["capacity"], data.obs.shape[1], data.action.shape[1])
            buffer.load_state_dict(state)
        except Exception as error:
            raise ValueError(f"{path} is not a saved replay buffer: {error}") from error
        return buffer
