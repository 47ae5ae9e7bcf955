# %% [markdown]
# # Week 1 · Learning a dynamics model
#
# An agent that can *predict* can try things out in its head. If I push this way, where will I be in a second?
# Weeks 2 to 8 are about using such predictions. This week we make them: we collect experience, and fit a
# neural network to it that says what comes next.
#
# It looks like ordinary regression: state and action in, next state out. Three details decide whether it
# works, and you will write all three. Then comes the catch: a model that is right about the *next* step can
# be wrong about the twentieth.
#
# **After this notebook you can**
#
# - store experience in a ring buffer, and draw mini-batches and stretches of trajectories from it;
# - say why a dynamics model predicts the *normalised change* of the state, and write one;
# - write a training step that is right for one network and for a whole ensemble;
# - measure how far a model can be trusted: the k-step error.
#
# **Where it comes from**
#
# - Nagabandi et al., 2018, [*Neural network dynamics for model-based deep reinforcement learning with
#   model-free fine-tuning*](https://arxiv.org/abs/1708.02596): the kind of model that we build, Section IV.
# - Lin, 1992, *Self-improving reactive agents based on reinforcement learning, planning and teaching*: the
#   replay buffer.
# - Talvitie, 2014, *Model regularization for stable sample rollouts*: why one-step errors grow when a model
#   feeds on its own predictions.
#
# **How it goes.** Five exercises with 30 points, together about an hour and a half; the notebook itself runs
# in half a minute. Fill in the cells that raise `NotImplementedError`. The checks below each of them tell at
# once whether your code is right, and what is likely wrong with it. Hidden checks are added when you hand in;
# they test nothing that the text does not say. One rule holds for all exercises: a function leaves the tensors
# that it is given as they are. (`x - mean` makes a new tensor, `x -= mean` changes the caller's.)

# %% kind="setup"
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Self

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mbrl_course.checking import (
    check_between,
    check_close,
    check_raises,
    check_shape,
    check_true,
    check_unchanged,
)
from mbrl_course.envs import get_task
from mbrl_course.envs.pictures import draw_rod
from mbrl_course.envs.task import RewardFunction, TerminationFunction, never_terminates
from mbrl_course.films import make_film
from mbrl_course.fitting import (
    EarlyStopping,
    FitResult,
    random_batches,
    shuffled_batches,
    split_holdout,
    with_supervised_noise,
)
from mbrl_course.networks import ACTIVATIONS, PRECISIONS, EnsembleMLP, check_widths, rows_of_members
from mbrl_course.plotting import (
    COLORS,
    GREY,
    new_axes,
    plot_k_step_errors,
    plot_losses,
    plot_trajectories,
    use_style,
)
from mbrl_course.validation import need_positive, need_whole

use_style()

# %% [markdown]
# ## The world to be learned
#
# A pendulum with a weak motor. The observation is (cos θ, sin θ, angular velocity), with θ = 0 upright; the
# action is a torque between -2 and 2. One step lasts a twentieth of a second. Here it falls for a second,
# with the motor off:

# %%
pendulum = get_task("pendulum")
falling = [torch.tensor([0.95, 0.31, 0.0])]  # nearly upright, at rest
for _ in range(20):
    falling.append(pendulum.dynamics(falling[-1], torch.zeros(1)))
axes = new_axes(columns=6, width=2.0, height=2.1)
for ax, step in zip(axes, range(0, 21, 4), strict=True):
    pendulum.plot_state(ax, falling[step])
    ax.set_title(f"step {step}", fontsize=11, fontweight="normal")
plt.show()

# %% [markdown]
# We know the equations of this one, so we can check everything that we learn. Most worlds come without
# equations; they only answer when an action is tried. Each answer is a **transition**: (obs, action, reward,
# next_obs, terminated, truncated). The last two say whether the episode ended, and they are not the same.
# *Terminated*: the task is over, nothing follows. *Truncated*: somebody stopped the clock, the world would
# have gone on.

# %% [markdown] exercise="ring-buffer" number="1.1" title="A ring buffer" points=7 difficulty=2 minutes=25
# Experience is expensive, so all of it is kept, up to a limit. A buffer of `capacity` rows is allocated once;
# when it is full, the newest transition takes the place of the oldest. The rows form a ring: after the last
# row comes row 0 again.
#
# If the first transition is number 0, then transition $n$ goes to row
#
# $$\text{row}(n) = n \bmod \text{capacity}$$
#
# `position` is the row that the next transition will be written to, and `size` says how many rows hold one.
# Transitions often arrive many at a time, and Python loops are slow: a million transitions one by one take
# minutes, as one indexed assignment a tenth of a second.
#
# **Predict first.** A full buffer of 4 rows, `position` 2, gets 11 transitions at once. Two ways to store
# them: write all 11 with `data[rows] = values`, where `rows` holds each row two or three times; or find out
# first which ones survive. Why is only one of them safe?
#
# **Write two methods of `ReplayBuffer`.**
#
# - `write(batch)`: `batch` holds N transitions, N any number from 1 on. Write *all six columns*, in order,
#   from row `position` on, wrapping round at the end. If N is larger than `capacity`, the last `capacity`
#   transitions remain, each in the row where it would be if they had come one by one. Update `position` and
#   `size`.
# - `sample(batch_size, generator)`: draw rows uniformly *with replacement* among the `size` rows in use (so
#   `batch_size` may be larger than `size`), and return a `Batch` in which all six columns come from the same
#   rows. All random numbers come from `generator`. An empty buffer raises a `ValueError`.
#
# `Batch` is a named tuple of six tensors: `for column in batch` goes through them, and `batch.take(rows)`
# returns a copy of these rows of all six. So `len(batch)` is 6; N is `len(batch.reward)`.

# %% kind="given" ref="buffers:Batch,concatenate,check_transitions"

# %% kind="solution" of="ring-buffer" ref="buffers:ReplayBuffer.write,ReplayBuffer.sample"
# write:
# TODO: find the rows for the transitions that will remain, and write all six columns there
# TODO: move self.position and self.size on
# sample:
# TODO: refuse an empty buffer, draw rows in use, and take them

# %% [markdown]
# <details><summary>Hint: rows that wrap round</summary>
#
# `(start + torch.arange(n)) % self.capacity` are n rows from `start` on. A column of the buffer is a tensor:
# `column[rows] = values` writes to all of these rows at once.
# </details>
# <details><summary>Hint: more transitions than rows</summary>
#
# Keep the last `capacity` of them: `batch.take(slice(-self.capacity, None))`. The ones left out would have
# moved the position on, so the first one kept goes to row `position + (N - capacity)`, modulo the capacity
# (only where N is the larger of the two).
# </details>
# <details><summary>Answer to the prediction</summary>
#
# With repeated indices PyTorch does not promise *which* of the values ends up in a row: it may write them in
# any order, or in parallel. It often works, in small tests on a CPU, and then one day it does not. Finding
# the survivors first leaves each row once.
# </details>


# %% kind="given"
def numbered_transitions(first: int, count: int) -> Batch:
    """Transitions number first, first + 1, ... of a made-up task: every column tells the number."""
    numbers = torch.arange(first, first + count)
    column = numbers.float().unsqueeze(-1)  # [N, 1]
    return Batch(column, 100 + column, 200.0 + numbers, column + 1, numbers % 3 == 0, numbers % 2 == 0)


def filled_buffer(capacity: int, counts: Iterable[int]) -> ReplayBuffer:
    """A buffer into which groups of numbered transitions were written, of these sizes."""
    buffer, first = ReplayBuffer(capacity, obs_dim=1, action_dim=1), 0
    for count in counts:
        try:
            buffer.write(numbered_transitions(first, count))
        except (RuntimeError, IndexError, ValueError) as error:
            if isinstance(error, NotImplementedError):
                raise
            what = f"write raised a {type(error).__name__} for {count} transitions after {first} in {capacity} rows"
            raise AssertionError(
                f"{what} ({error}). After the last row comes row 0; N is len(batch.reward), not len(batch)"
            ) from error
        first += count
    return buffer


def buffer_after(capacity: int, counts: Iterable[int]) -> dict[str, Any]:
    """What a buffer holds after such writes: each column [capacity], position and size."""
    buffer = filled_buffer(capacity, counts)
    columns = {name: column.flatten() for name, column in buffer.data._asdict().items()}
    return {**columns, "position": int(buffer.position), "size": int(buffer.size)}


def sample_after(
    capacity: int, counts: Iterable[int], batch_size: int, seed: int, calls: int = 1
) -> dict[str, Any]:
    """The last of so many samples from a buffer after such writes, column by column."""
    buffer, generator = filled_buffer(capacity, counts), torch.Generator().manual_seed(seed)
    for _ in range(calls):
        batch = buffer.sample(batch_size, generator)
    if batch is None:
        raise AssertionError("sample returned None: is a `return` missing?")
    if getattr(batch, "_fields", ()) != Batch._fields:
        kind = type(batch).__name__
        raise AssertionError(
            f"sample returned a {kind}, expected a Batch: `take` makes one of all six columns"
        )
    return {name: torch.as_tensor(column) for name, column in zip(Batch._fields, batch, strict=True)}


def sample_from_empty() -> Batch:
    """Two transitions out of a buffer that holds none."""
    return ReplayBuffer(4, obs_dim=1, action_dim=1).sample(2, torch.Generator().manual_seed(0))


# %% kind="test" of="ring-buffer" points=2
held = buffer_after(capacity=5, counts=[1, 2])  # transitions 0, 1 and 2: room is left
check_close(
    "position after 3 of 5",
    held["position"],
    3,
    mistakes={"position was not moved on": 0, "it was moved by one for each batch, expected by N": 2},
)
check_close(
    "size after 3 of 5",
    held["size"],
    3,
    mistakes={
        "size was not updated": 0,
        "it counts batches, expected transitions": 2,
        "it is the capacity": 5,
    },
)
check_close(
    "the column obs after transitions 0, 1, 2",
    held["obs"],
    [0, 1, 2, 0, 0],
    mistakes={
        "the second batch was written over the first, or the first one not at row 0: start at "
        "self.position": [1, 2, 0, 0, 0],
        "nothing was written to self.data (take and column[rows] make copies)": [0, 0, 0, 0, 0],
        "the rows start N too far on: was position moved on first, or N - capacity added although N is "
        "smaller?": [0, 0, 0, 1, 2],
    },
)
numbers = torch.arange(3)
check_close("the column action", held["action"][:3], 100 + numbers, hint="are all six columns written?")
check_close("the column reward", held["reward"][:3], 200 + numbers, hint="are all six columns written?")
check_close("the column next_obs", held["next_obs"][:3], 1 + numbers, hint="are all six columns written?")
print("Right: whole batches find their rows.")
### BEGIN HIDDEN TESTS
for name, modulus in (("terminated", 3), ("truncated", 2)):
    flags = [bool(flag) for flag in held[name][:3]]
    check_true(
        flags == [n % modulus == 0 for n in range(3)], f"the column {name} is {flags}: was it written?"
    )
one_by_one = buffer_after(capacity=20, counts=[1] * 7)
together = buffer_after(capacity=20, counts=[7])
check_close("obs after one batch of 7", together["obs"], one_by_one["obs"], hint="as if written one by one")
check_close("obs after 7 writes", one_by_one["obs"][:7], torch.arange(7))
check_close("position", [together["position"], one_by_one["position"]], [7, 7])
check_close("size", [together["size"], one_by_one["size"]], [7, 7])
### END HIDDEN TESTS

# %% kind="test" of="ring-buffer" points=3
held = buffer_after(capacity=5, counts=[3, 4])  # transitions 0 .. 6: 5 and 6 replace 0 and 1
check_close(
    "the column obs after transitions 0 .. 6 in 5 rows",
    held["obs"],
    [5, 6, 2, 3, 4],
    mistakes={
        "the newest are not written to the beginning: after the last row comes row 0": [0, 1, 2, 3, 4],
        "the last row is overwritten again and again: after it comes row 0": [0, 1, 2, 3, 6],
        "the second batch was written from row 0 on: start at self.position": [3, 4, 5, 6, 0],
        "rows are shifted, expected transition n in row n modulo capacity": [2, 3, 4, 5, 6],
    },
)
check_close(
    "position after 7 writes to 5 rows",
    held["position"],
    2,
    mistakes={"it has left the ring: take it modulo the capacity": 7, "it has stopped at the end": 5},
)
check_close(
    "size after 7 writes to 5 rows",
    held["size"],
    5,
    mistakes={"it can't be larger than the capacity": 7},
)
check_close("the column reward", held["reward"], [205, 206, 202, 203, 204], hint="all columns, the same rows")
print("Right: the ring turns: newest over oldest.")
### BEGIN HIDDEN TESTS
for capacity, counts in (
    (4, [2, 11]),
    (4, [4, 4]),
    (3, [1, 3, 2]),
    (5, [26]),
    (1, [1, 4, 2]),
    (6, [4, 4, 4, 4]),
):
    held = buffer_after(capacity, counts)
    total = sum(counts)
    expected = torch.zeros(capacity, dtype=torch.long)
    for n in range(total):
        expected[n % capacity] = n
    where = f" with capacity {capacity} after batches of {counts}"
    check_close("the column obs" + where, held["obs"], expected, hint="each in the row n modulo capacity")
    check_close("the column next_obs" + where, held["next_obs"], expected + 1)
    check_close("the column action" + where, held["action"], expected + 100)
    short = 0
    for count in counts:
        short = (short + min(count, capacity)) % capacity
    check_close(
        "position" + where,
        held["position"],
        total % capacity,
        mistakes={"it moves on by N, also by those that are left out": short},
    )
    check_close("size" + where, held["size"], min(total, capacity))
### END HIDDEN TESTS

# %% kind="test" of="ring-buffer" points=2
batch = sample_after(capacity=50, counts=[6], batch_size=300, seed=0)  # 6 of 50 rows are in use
rows = "expected batch_size rows, drawn with replacement"
check_shape("obs of a sample", batch["obs"], (300, 1), {(6, 1): rows})
check_shape("reward of a sample", batch["reward"], (300,), {(6,): rows})
check_true(
    (batch["reward"] != 0).all(), "the sample holds rows that were never written: draw among the first size"
)
numbers = batch["obs"][:, 0]
check_close("reward", batch["reward"], 200 + numbers, hint="all columns come from the same rows")
check_close("action", batch["action"][:, 0], 100 + numbers, hint="all columns come from the same rows")
check_close("next_obs", batch["next_obs"][:, 0], 1 + numbers, hint="all columns come from the same rows")
counts = torch.bincount(numbers.long(), minlength=6)
check_true((counts > 0).all(), f"some of the 6 transitions were never drawn in 300 draws: {counts.tolist()}")
again = sample_after(capacity=50, counts=[6], batch_size=300, seed=0)
check_close(
    "obs with the same seed", again["obs"], batch["obs"], hint="all random numbers come from generator"
)
second = sample_after(capacity=50, counts=[6], batch_size=300, seed=0, calls=2)
check_true(
    not torch.equal(second["obs"], batch["obs"]),
    "two samples from one generator are the same: draw from `generator` itself, which moves on with every draw",
)
print("Right: samples are drawn from what is stored.")
### BEGIN HIDDEN TESTS
other = sample_after(capacity=50, counts=[6], batch_size=300, seed=1)
check_true(not torch.equal(other["obs"], batch["obs"]), "another seed gives the same sample: is it used?")
follows = (numbers[1:] == (numbers[:-1] + 1) % 6).float().mean()
check_true(follows < 0.5, "the draws follow each other in the buffer: each row is drawn by itself")
part = sample_after(capacity=10, counts=[6], batch_size=6000, seed=2)
counts = torch.bincount(part["obs"][:, 0].long(), minlength=6)
check_between(
    "draws of each of 6 transitions in 10 rows", counts, 850, 1150, "6000 draws, all equally likely"
)
full = sample_after(capacity=6, counts=[9], batch_size=6000, seed=2)  # wrapped: transitions 3 .. 8
counts = torch.bincount(full["obs"][:, 0].long(), minlength=9)
check_close("draws of what was overwritten", counts[:3], [0, 0, 0])
check_between("draws of each of 6 transitions in 6000", counts[3:], 850, 1150, "they are equally likely")
check_true(
    ((full["obs"][:, 0] % 3 == 0) == full["terminated"]).all(), "terminated does not fit the sampled obs"
)
check_true(
    ((full["obs"][:, 0] % 2 == 0) == full["truncated"]).all(), "truncated does not fit the sampled obs"
)
check_raises("sampling from an empty buffer", ValueError, sample_from_empty)
### END HIDDEN TESTS

# %% [markdown]
# A picture of the ring: each line is a moment, each square a row of memory, with the number of the transition
# in it. Seven transitions arrive between one line and the next; those just written are coloured.

# %%
ax = new_axes(width=8.0, height=3.0)[0]
for moment in range(6):
    held = buffer_after(capacity=16, counts=[7] * moment)
    for row in range(16):
        number = int(held["obs"][row])
        used = row < held["size"]
        fresh = used and number >= 7 * (moment - 1)
        color = COLORS[1] if fresh else "#cfe3f1" if used else "white"
        ax.add_patch(plt.Rectangle((row, -moment), 0.94, 0.86, facecolor=color, edgecolor="#c8c8c8"))
        if used:
            ax.text(row + 0.47, -moment + 0.43, str(number), ha="center", va="center", fontsize=10)
    ax.plot(held["position"] + 0.47, -moment - 0.02, "^", color="black", markersize=6, clip_on=False)
ax.set(xlim=(-0.1, 16.1), ylim=(-5.2, 1.0), xlabel="row (the triangle is position)")
ax.set_xticks([row + 0.47 for row in range(16)], range(16))
ax.set_yticks([0.43 - moment for moment in range(6)], [f"{7 * moment} written" for moment in range(6)])
ax.grid(visible=False)
ax.spines[["left", "bottom"]].set_visible(False)
ax.tick_params(length=0)
ax.set_title("A ring of 16 rows, 7 transitions at a time")
plt.show()

# %% [markdown]
# Now fill one with real experience. The loop below is all there is to collecting data: act, store, and start
# again when an episode has ended. 5000 random steps of the pendulum to learn from, and 2000 others to test
# with.


# %%
def collect_randomly(task, num_steps, seed):
    """A buffer of transitions from uniformly random actions."""
    generator = torch.Generator().manual_seed(seed)
    buffer = ReplayBuffer(num_steps, task.obs_dim, task.action_dim)
    env = task.make_env()
    obs, _ = env.reset(seed=seed)
    for _ in range(num_steps):
        uniform = torch.rand(task.action_dim, generator=generator)
        action = task.action_low + (task.action_high - task.action_low) * uniform
        next_obs, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
        buffer.add(obs, action, reward, next_obs, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs
    env.close()
    return buffer


pendulum_buffer = collect_randomly(pendulum, 5000, seed=0)
test_buffer = collect_randomly(pendulum, 2000, seed=1)
print(f"{len(pendulum_buffer)} transitions; a sample of two of them:")
pendulum_buffer.sample(2, torch.Generator().manual_seed(0))

# %% [markdown] exercise="normalizer" number="1.2" title="Normalise" points=6 difficulty=2 minutes=15
# A pendulum's cosine lies between -1 and 1, its angular velocity between -8 and 8; a robot's observation
# mixes metres, radians and newtons. A network that sees such numbers as they are listens to the large ones.
# And a *loss* on such numbers is worse: an error of 0.1 in a velocity would count a hundred times as much as
# 0.01 in a cosine, though they may matter alike.
#
# So every dimension $d$ is brought to mean 0 and standard deviation 1, with statistics of the training data:
#
# $$z_d = \frac{x_d - \mu_d}{\sigma_d}, \qquad \mu_d = \frac{1}{N} \sum_n x_{n,d}, \qquad
#   \sigma_d = \sqrt{\frac{1}{N} \sum_n (x_{n,d} - \mu_d)^2}$$
#
# Some dimensions never change: the goal's coordinates in a navigation task, say. Their $\sigma_d$ is 0.
#
# **Predict first.** A popular cure is to divide by $\sigma_d + 10^{-8}$. In the training data the goal stands
# at exactly 0.7. What does the network see when, next week, the goal stands at 0.8? And what does it see if
# 0.7 is not stored exactly, and the mean of 5000 equal numbers is off by one rounding?
#
# **Write three methods of `Normalizer`.**
#
# - `fit(x)` sets `self.mean` and `self.std`, `[D]` each, from data `x` of shape `[N, D]`. Divide by N, not by
#   N - 1; N may be 1. Calling `fit` again starts anew. A **constant dimension** gets the standard deviation
#   1: one whose standard deviation is at most $10^{-6} \cdot \max(1, \max_n |x_{n,d}|)$, so that rounding
#   does not count as variation. Every other dimension keeps its own, however small.
# - `normalize(x)` is $(x - \mu) / \sigma$ with these *stored* numbers, for any `x` of shape `[..., D]`.
# - `denormalize(z)` is its inverse.

# %% kind="solution" of="normalizer" ref="dynamics:Normalizer.fit,Normalizer.normalize,Normalizer.denormalize"
# fit:
# TODO: mean and standard deviation of each dimension, [D]
# TODO: dimensions that do not vary get the standard deviation 1
# normalize:
# TODO: use the stored mean and std
# denormalize:
# TODO: the inverse

# %% [markdown]
# <details><summary>Hint: the standard deviation</summary>
#
# `x.std(dim=0)` divides by N - 1, which is NaN for N = 1; with `correction=0` it divides by N.
# </details>
# <details><summary>Hint: constant dimensions</summary>
#
# `torch.where(condition, a, b)` takes from `a` where the condition holds, and from `b` elsewhere. The largest
# absolute value of each dimension is `x.abs().amax(dim=0)`, and `.clamp(min=1.0)` makes it at least 1.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# It sees (0.8 - 0.7) / 1e-8 = ten million, and predicts nonsense. And 0.7 has no exact binary form: the mean
# of 5000 of them is off by 6e-8, so the standard deviation is 6e-8 as well. The training data then turn into
# a constant near 1 that means nothing, and a goal at 0.8 is still more than a million. With $\sigma_d = 1$
# the rounding vanishes, and the goal has moved by 0.1.
# </details>

# %% kind="test" of="normalizer" points=2
x = torch.tensor([[1.0, 0.0, -20.0], [3.0, 0.0, 20.0], [5.0, 8.0, 20.0], [7.0, 8.0, -20.0]])  # [N, D]
normalizer = Normalizer(3)
normalizer.fit(x)
axes = {
    (4,): "is it taken over the dimensions (dim=1)? Expected over the samples, dim=0",
    (): "is it one number for all dimensions? Each has its own: dim=0",
}
check_shape("mean", normalizer.mean, (3,), axes)
check_shape("std", normalizer.std, (3,), axes)
check_close("mean", normalizer.mean, [4.0, 4.0, 0.0])
check_close(
    "std",
    normalizer.std,
    [5**0.5, 4.0, 20.0],
    mistakes={
        "it divides by N - 1, expected N: torch.std needs correction=0": x.std(dim=0),
        "it is the variance, expected its square root": [5.0, 16.0, 400.0],
        "it is the variance (and divides by N - 1), expected its square root": x.var(dim=0),
        "it was not fitted: it is 1 as before": [1.0, 1.0, 1.0],
    },
)
print("Right: mean 0 and standard deviation 1.")
### BEGIN HIDDEN TESTS
normalizer.fit(torch.tensor([[10.0, 0.0, 1.0], [14.0, 1.0, 3.0]]))
check_close("mean after a second fit", normalizer.mean, [12.0, 0.5, 2.0], hint="fit starts anew")
check_close("std after a second fit", normalizer.std, [2.0, 0.5, 1.0], hint="fit starts anew")
data = 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) + torch.arange(4.0)  # [N, D]
normalizer = Normalizer(4)
normalizer.fit(data)
z = normalizer.normalize(data)
check_close("mean of the normalised data", z.mean(dim=0), torch.zeros(4))
check_close("std of the normalised data", z.std(dim=0, correction=0), torch.ones(4))
### END HIDDEN TESTS

# %% kind="test" of="normalizer" points=2
x = torch.tensor([[0.0, 100.0], [4.0, 300.0]])  # [N, D]: mean (2, 200), std (2, 100)
normalizer = Normalizer(2)
given = x.clone()
normalizer.fit(given)
check_unchanged("x", given, x, "fit makes new tensors (x - mean, not x -= mean)")
new = torch.tensor([[2.0, 200.0], [6.0, 0.0], [1.0, 500.0]])  # other data than in fit
mean, std = torch.tensor([2.0, 200.0]), torch.tensor([2.0, 100.0])
given = new.clone()
normalized = normalizer.normalize(given)
check_unchanged("x", given, new, "normalize makes a new tensor (x - mean, not x -= mean)")
check_close(
    "normalize(x) for new data",
    normalized,
    (new - mean) / std,
    mistakes={
        "it uses the mean and std of the new data, expected those stored by fit": (new - new.mean(dim=0))
        / new.std(dim=0, correction=0),
        "the mean is not subtracted": new / std,
        "it divides by the variance": (new - mean) / std**2,
        "it multiplies by std": (new - mean) * std,
    },
)
z = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
given = z.clone()
denormalized = normalizer.denormalize(given)
check_unchanged("z", given, z, "denormalize makes a new tensor (z * std, not z *= std)")
check_close(
    "denormalize(z)",
    denormalized,
    [[2.0, 200.0], [4.0, 0.0]],
    mistakes={
        "the mean is not added": std * z,
        "first multiply by std, then add the mean": (z + mean) * std,
        "it is normalised once more": (z - mean) / std,
    },
)
check_close("denormalize(normalize(x))", normalizer.denormalize(normalizer.normalize(new)), new)
print("Right: there and back again, with the stored statistics.")
### BEGIN HIDDEN TESTS
deep = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0))  # [E, N, D]
check_close("normalize for [E, N, D]", normalizer.normalize(deep), (deep - mean) / std)
check_close("denormalize for [E, N, D]", normalizer.denormalize(deep), mean + std * deep)
check_close("normalize for one vector [D]", normalizer.normalize(torch.tensor([4.0, 250.0])), [1.0, 0.5])
check_close("denormalize for one vector [D]", normalizer.denormalize(torch.tensor([1.0, 0.5])), [4.0, 250.0])
far = torch.tensor([102.0, -4800.0])
check_close(
    "normalize for what is 50 std away", normalizer.normalize(far), [50.0, -50.0], hint="nothing is cut"
)
### END HIDDEN TESTS

# %% kind="test" of="normalizer" points=2
x = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0]])  # [N, D], the second dimension is constant
normalizer = Normalizer(2)
normalizer.fit(x)
check_close(
    "std of a constant dimension",
    normalizer.std[1],
    1.0,
    mistakes={"dividing by 0 gives NaN, and by nearly 0 a huge number: a constant dimension gets std 1": 0.0},
    hint="a dimension that does not vary gets std 1",
)
check_close("std of the other dimension", normalizer.std[0], (8 / 3) ** 0.5, hint="it should stay what it is")
check_close("what a constant turns into", normalizer.normalize(x)[:, 1], torch.zeros(3))
check_close(
    "a goal that has moved from 5 to 5.5, normalised", normalizer.normalize(torch.tensor([2.0, 5.5]))[1], 0.5
)
print("Right: a dimension that does not vary stays finite.")
### BEGIN HIDDEN TESTS
for constant in (0.1, 0.7, -3.3, 12345.678, -12345.678):  # numbers without an exact binary form
    constants = torch.full((50, 2), constant)
    constants[::2] = torch.nextafter(constants[::2], torch.tensor(torch.inf))  # differ by rounding alone
    normalizer.fit(constants)
    check_close(
        f"std of 50 times {constant}",
        normalizer.std,
        [1.0, 1.0],
        hint="rounding is no variation: is it compared with 1e-6 times the largest |x|? (And where the mean of the "
        "squares minus the square of the mean is computed, digits cancel: subtract the mean first)",
    )
normalizer.fit(torch.tensor([[3.0, -7.0]]))
check_close("std of a single sample", normalizer.std, [1.0, 1.0], hint="nothing varies in one sample")
check_close("mean of a single sample", normalizer.mean, [3.0, -7.0])
small = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 2e-5])
normalizer.fit(small)
spread = small.std(dim=0, correction=0)
check_close(
    "std of small changes over the true one",
    normalizer.std / spread,
    [1.0, 1.0],
    hint="small is not constant",
)
check_close(
    "std of small changes, normalised",
    normalizer.normalize(small).std(dim=0, correction=0),
    [1.0, 1.0],
    hint="divide by std itself, with nothing added",
)
noise = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
# all of another size, next to each other; in the fourth, 400 times the mean of |x| is far more than its largest
mixed = noise * torch.tensor([1e6, 1e-3, 1e-8, 2e-3, 0.0]) + torch.tensor([0.0, 0.0, 0.0, 100.0, 0.0])
normalizer = Normalizer(5)
normalizer.fit(mixed)
spread = mixed.std(dim=0, correction=0)
check_close(
    "std of dimensions of a million, a thousandth, nearly nothing, about 100, and 0",
    normalizer.std,
    [float(spread[0]), float(spread[1]), 1.0, float(spread[3]), 1.0],
    hint="constant is what varies by at most 1e-6 * max(1, the largest |x| of its own dimension)",
    atol=1e-7,
)
### END HIDDEN TESTS

# %% [markdown]
# A task with constant dimensions: a point walks past obstacles to a goal, and the observation holds the
# goal's place. Boxes show where the data lie. Left the inputs of a model as they are, right after
# `normalize`.

# %%
walk_data = collect_randomly(get_task("obstacles"), 1000, seed=0).all()
walk_inputs = torch.cat([walk_data.obs, walk_data.action], dim=-1)  # [N, D + A]
normalizer = Normalizer(6)
normalizer.fit(walk_inputs)
walk_changes = walk_data.next_obs - walk_data.obs  # [N, D]
change_normalizer = Normalizer(4)
change_normalizer.fit(walk_changes)
panels = {
    "inputs": (["x", "y", "goal x", "goal y", "action x", "action y"], walk_inputs),
    "inputs, normalised": (
        ["x", "y", "goal x", "goal y", "action x", "action y"],
        normalizer.normalize(walk_inputs),
    ),
    "changes": (["x", "y", "goal x", "goal y"], walk_changes),
    "changes, normalised": (["x", "y", "goal x", "goal y"], change_normalizer.normalize(walk_changes)),
}
axes = new_axes(columns=4, width=3.1, height=3.2)
for ax, (title, (names, values)) in zip(axes, panels.items(), strict=True):
    ax.boxplot(
        values.numpy(),
        tick_labels=names,
        showfliers=False,
        patch_artist=True,
        boxprops=dict(facecolor="#cfe3f1"),
        medianprops=dict(color=COLORS[3], linewidth=2),
    )
    ax.tick_params(axis="x", rotation=40)
    ax.set_title(title)
plt.show()

# %% [markdown]
# Before, a step changes x by some hundredths, and the goal not at all. Afterwards all that varies spreads
# over the same range, and what is constant is a harmless 0.

# %% [markdown]
# ## What should the network predict?
#
# Two views of the same 5000 transitions of the pendulum. Left: the next angular velocity against the one
# before. Right: its *change* against the sine of the angle; the colour is the torque. (A few points
# stray from the band: there the pendulum has reached its speed limit of 8.)

# %%
data = pendulum_buffer.all()
axes = new_axes(columns=2, width=4.8, height=3.8)
axes[0].plot(data.obs[:, 2], data.next_obs[:, 2], ".", markersize=2, alpha=0.5)
axes[0].set(xlabel="angular velocity", ylabel="angular velocity, one step later")
axes[0].set_title("Next state: a boring line")
dots = axes[1].scatter(
    data.obs[:, 1], data.next_obs[:, 2] - data.obs[:, 2], c=data.action[:, 0], s=4, cmap="coolwarm"
)
axes[1].set(xlabel="sin θ", ylabel="change of the angular velocity")
axes[1].set_title("Change: the physics")
plt.colorbar(dots, ax=axes[1], label="torque")
plt.show()

# %% [markdown] exercise="predict-next-obs" number="1.3" title="The predicted next state" points=5 difficulty=2 minutes=15
# Most of the next state is the old one. A network that predicts the next state spends its effort on copying
# its input, and one that has copied it perfectly has learned nothing about the physics. So let the network
# predict the change, and add it to the state. As the changes are small and of different size in each
# dimension, the network predicts *normalised* changes (Nagabandi et al., 2018, Section IV):
#
# $$\hat s_{t+1} = s_t + \operatorname{denormalize}_{\Delta}\big(f_\theta(\operatorname{normalize}_{\text{in}}([s_t, a_t]))\big)$$
#
# Two different normalizers are at work: one for inputs $[s, a]$ with $D + A$ dimensions, and one for changes
# with $D$.
#
# **Predict first.** Before any training, a network's outputs are close to 0. What does such a model predict
# for the next state? Would it be a better or a worse guess than that of an untrained network that predicts
# the next state itself?
#
# **Write `predict_next_obs`.** `network`, `normalize_input` and `denormalize_change` are functions of a
# tensor, handed in by the caller. The state comes first in the concatenation, then the action. It works for
# any leading axes that `obs` and `action` share: `[D]` and `[A]`, `[N, D]` and `[N, A]`, or `[E, N, D]` and
# `[E, N, A]`.

# %% kind="solution" of="predict-next-obs" ref="dynamics:predict_next_obs"
# TODO: the network sees the normalised pair (state, action)
# TODO: its answer is the normalised change of the state

# %% [markdown]
# <details><summary>Hint: any leading axes</summary>
#
# Count axes from the end: `torch.cat([...], dim=-1)`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# It predicts the old state plus the *mean* change of the data: "everything stays about as it is". For small
# time steps that is a good guess already. An untrained network for the next state predicts the mean state of
# all data, whatever state it is asked about: a bad one. The first starts where the second gets to after a lot
# of training.
# </details>

# %% kind="test" of="predict-next-obs" points=3
weight = torch.tensor([[1.0, 0.5], [-2.0, 1.0], [3.0, -1.0]])  # [D + A, D]
input_mean, input_std = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([2.0, 4.0, 0.5])
change_mean, change_std = torch.tensor([0.01, -0.02]), torch.tensor([0.1, 0.2])


def network(z):
    return z @ weight


def normalize_input(x):
    shape = list(x.shape)
    check_true(
        shape[-1:] == [3], f"normalize_input was given {shape}, expected state and action together, [..., 3]"
    )
    return (x - input_mean) / input_std


def denormalize_change(z):
    shape = list(z.shape)
    check_true(
        shape[-1:] == [2], f"denormalize_change was given {shape}, expected the network's answer, [..., 2]"
    )
    return change_mean + change_std * z


obs = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))  # [N, D]
action = torch.randn(6, 1, generator=torch.Generator().manual_seed(1))  # [N, A]
inputs = torch.cat([obs, action], dim=-1)
output = network(normalize_input(inputs))
swapped = network(normalize_input(torch.cat([action, obs], dim=-1)))
given = obs.clone(), action.clone()
predicted = predict_next_obs(network, normalize_input, denormalize_change, *given)
check_unchanged("obs", given[0], obs, "make a new tensor, obs + ..., not obs += ...")
check_unchanged("action", given[1], action, "the network sees it as it is")
check_shape("next_obs", predicted, (6, 2))
check_close(
    "next_obs",
    predicted,
    obs + denormalize_change(output),
    mistakes={
        "it is the change alone: add it to obs": denormalize_change(output),
        "the change is not denormalised": obs + output,
        "the network's input is not normalised": obs + denormalize_change(network(inputs)),
        "neither the input is normalised nor the change denormalised": obs + network(inputs),
        "the action comes first in the network's input, expected the state": obs
        + denormalize_change(swapped),
        "the change is added to the normalised state": normalize_input(inputs)[:, :2]
        + denormalize_change(output),
        "obs is denormalised together with the change": denormalize_change(obs + output),
        "the change is subtracted": obs - denormalize_change(output),
        "it is the network's bare output": output,
    },
)
print("Right: the change is added to the state.")
### BEGIN HIDDEN TESTS
still = predict_next_obs(lambda z: 0 * z[..., :2], normalize_input, denormalize_change, obs, action)
check_close("next_obs where the network says 0", still, obs + change_mean, hint="that is the mean change")
wide_obs, wide_action = torch.arange(8.0).reshape(2, 4), -torch.arange(6.0).reshape(2, 3)  # D = 4, A = 3
predicted = predict_next_obs(
    lambda z: z[..., 3:] * 10, lambda x: x + 1, lambda z: z / 5, wide_obs, wide_action
)
expected = wide_obs + 2 * (torch.cat([wide_obs[:, 3:], wide_action], dim=-1) + 1)
check_close("next_obs with D = 4 and A = 3", predicted, expected)
### END HIDDEN TESTS


# %% kind="test" of="predict-next-obs" points=2
def network(z):
    return z[..., :3] * z[..., 3:4]


def normalize_input(x):
    return x / 2


def denormalize_change(z):
    return 4 * z + 1


obs = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))  # [E, N, D]
action = torch.randn(5, 4, 1, generator=torch.Generator().manual_seed(1))  # [E, N, A]
predicted = predict_next_obs(network, normalize_input, denormalize_change, obs, action)
check_shape("next_obs for obs [E, N, D]", predicted, (5, 4, 3))
check_close("next_obs for obs [E, N, D]", predicted, obs + obs * action + 1)
print("Right: normalised going in, denormalised coming out.")
### BEGIN HIDDEN TESTS
predicted = predict_next_obs(network, normalize_input, denormalize_change, obs[0, 0], action[0, 0])
check_close("next_obs for one state [D]", predicted, obs[0, 0] * (1 + action[0, 0]) + 1)
predicted = predict_next_obs(network, normalize_input, denormalize_change, obs[0], action[0])
check_close("next_obs for obs [N, D]", predicted, obs[0] * (1 + action[0]) + 1)
for axes in ((1,), (1, 1), (1, 1, 1)):
    one = torch.full(axes, 3.0)
    predicted = predict_next_obs(lambda z: z[..., 1:], lambda x: x, lambda z: 2 * z, one, 2 * one)
    check_shape(f"next_obs where obs and action are {list(axes)}", predicted, axes, "axes of length 1 stay")
    check_close(f"next_obs where obs and action are {list(axes)}", predicted, torch.full(axes, 15.0))
### END HIDDEN TESTS

# %% [markdown]
# `network` may be any function, also one that you write by hand. Here is a physicist's first try at the
# pendulum: gravity and torque change the velocity, the velocity turns the arm along the tangent. How good are
# three guesses at the next state?


# %%
def physics_by_hand(x):
    """The change of (cos, sin, velocity) to first order in the time step of 0.05 s."""
    cos, sin, velocity, torque = x.unbind(-1)
    faster = 0.05 * (15 * sin + 3 * torque)
    turn = 0.05 * (velocity + faster)
    return torch.stack([-sin * turn, cos * turn, faster], dim=-1)


def unchanged(x):
    """The identity, for data that need no normalisation."""
    return x


test_data = test_buffer.all()
guesses = {
    "the mean state": data.obs.mean(dim=0),
    "no change": test_data.obs,
    "physics by hand": predict_next_obs(
        physics_by_hand, unchanged, unchanged, test_data.obs, test_data.action
    ),
}
for name, guess in guesses.items():
    print(f"{name:16} mean squared error {float((guess - test_data.next_obs).square().mean()):.6f}")

# %% [markdown]
# Saying "nothing changes" is forty times better than the mean state. Keep this in mind when somebody shows
# you a model with a small one-step error: compare it with *no change* first. Now let a network find the
# physics.

# %% [markdown] exercise="training-step" number="1.4" title="The training step" points=6 difficulty=3 minutes=20
# The network is fitted by gradient steps on the mean squared error of a mini-batch, all in normalised units:
#
# $$L_e = \frac{1}{B D} \sum_{b=1}^{B} \sum_{d=1}^{D} \big(f_{\theta_e}(x_{e,b})_d - y_{e,b,d}\big)^2$$
#
# The index $e$ is there because our model is an **ensemble** from the start: E networks of the same shape,
# side by side, whose weights are one tensor `[E, in, out]`, so that a layer of all members is one batched
# matrix product. Each sees mini-batches of its own. With E = 1 it is an ordinary network; what more members
# are good for is the subject of week 4.
#
# No weight belongs to two members, so one backward pass through $\sum_e L_e$ gives each member exactly the
# gradient that it would have had alone.
#
# **Predict first.** Somebody writes `loss = ((network(inputs) - targets) ** 2).mean()`, over all axes, and
# uses plain gradient descent with 5 members. What happens to each member's learning? Would you notice with
# Adam, which divides the gradient by its own size?
#
# **Write `training_step`.** One step of the given optimizer on $\sum_e L_e$, from the gradient of *this*
# mini-batch alone: gradients of earlier calls must not leak in. Return, as a number, the loss *before* the
# step, averaged over the members: $\frac{1}{E} \sum_e L_e$.

# %% kind="solution" of="training-step" ref="dynamics:training_step"
# TODO: the loss of each member, [E]
# TODO: one gradient step of the optimizer on the sum of the members' losses
# TODO: return the members' mean loss as a number

# %% [markdown]
# <details><summary>Hint: the order of things</summary>
#
# PyTorch *adds* gradients to those that are there: `optimizer.zero_grad()`, then `loss.backward()`, then
# `optimizer.step()`.
# </details>
# <details><summary>Hint: the loss of each member</summary>
#
# The squared error is `[E, B, D]`; its mean over the axes 1 and 2 is `[E]`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The mean over E members divides each member's gradient by E = 5: all learn five times slower. Adam hides it
# (nearly), as its steps do not depend on the gradient's scale. Then somebody switches to SGD, adds weight
# decay or clips gradients, and the ensemble of 5 suddenly learns worse than a single network. The sum is
# right under every optimizer.
# </details>


# %% kind="given"
def train_linear(
    weight: Tensor,
    bias: Tensor,
    inputs: list[Tensor],
    targets: list[Tensor],
    learning_rate: float,
    momentum: float = 0.0,
) -> dict[str, Any]:
    """Gradient steps of `training_step` on E linear networks x @ weight + bias, one for each mini-batch.

    `weight` is [E, in, out], `bias` [E, out], each of the inputs [E, B, in] and of the targets [E, B, out].
    Returns the losses, and the weights and biases afterwards.
    """
    size, input_dim, output_dim = weight.shape
    network = EnsembleMLP(size, input_dim, output_dim, hidden_sizes=())
    network.load_state_dict({"weights.0": weight, "biases.0": bias.unsqueeze(1)})
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=momentum)
    losses = [training_step(network, optimizer, x, y) for x, y in zip(inputs, targets, strict=True)]
    return {
        "losses": losses,
        "weight": network.weights[0].detach().clone(),
        "bias": network.biases[0].detach().squeeze(1).clone(),
    }


UNMOVED = (
    "the weights have not changed: were backward() and optimizer.step() both called, and zero_grad() before "
    "backward()?"
)


# %% kind="test" of="training-step" points=2
# One member with one input and two outputs, 3 * x and 0, a mini-batch of three, a learning rate of 0.1.
weight, bias = torch.tensor([[[3.0, 0.0]]]), torch.zeros(1, 2)  # [E, in, out], [E, out]
inputs, targets = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.zeros(1, 3, 2)  # [E, B, in], [E, B, out]
after = train_linear(weight, bias, [inputs], [targets], learning_rate=0.1)
# The outputs are 3, 6 and 9, and 0 three times; so the loss is (9 + 36 + 81) / 6, and its slope by the first
# weight 2 (3 * 1 + 6 * 2 + 9 * 3) / 6 = 14.
check_close(
    "the new weight",
    after["weight"],
    [[[1.6, 0.0]]],
    mistakes={
        UNMOVED: [[[3.0, 0.0]]],
        "the step goes uphill": [[[4.4, 0.0]]],
        "the squared error is summed, expected its mean over the mini-batch and the dimensions": [
            [[-5.4, 0.0]]
        ],
        "the step is twice too large: is the squared error summed over the 2 dimensions, expected its mean, or "
        "was backward() called twice?": [[[0.2, 0.0]]],
        "the squared error is summed over the 3 samples, expected its mean": [[[-1.2, 0.0]]],
        "half the squared error was used": [[[2.3, 0.0]]],
    },
)
check_close("the new bias", after["bias"], [[-0.6, 0.0]])
members = "it is the loss of each member, expected their mean as one number"
check_shape("the returned loss", after["losses"][0], (), {(1,): members})
check_close(
    "the returned loss",
    after["losses"][0],
    21.0,
    mistakes={
        "it is the loss after the step, expected before": (1.0**2 + 2.6**2 + 4.2**2) / 6,
        "it is the sum, expected the mean over the mini-batch and the dimensions": 126.0,
        "it is summed over the dimensions, expected their mean": 42.0,
        "it is summed over the mini-batch, expected its mean": 63.0,
        "it is the square root": 21.0**0.5,
    },
)
print("Right: one step downhill, and the loss before it.")

# %% kind="test" of="training-step" points=2
# Three members: each learns as it would alone.
generator = torch.Generator().manual_seed(0)
weight, bias = torch.randn(3, 4, 2, generator=generator), torch.randn(3, 2, generator=generator)
inputs, targets = torch.randn(3, 8, 4, generator=generator), torch.randn(3, 8, 2, generator=generator)
error = inputs @ weight + bias.unsqueeze(1) - targets  # [E, B, out]
member_losses = (error**2).mean(dim=(1, 2))  # [E]
slope = 2 / (8 * 2) * inputs.transpose(1, 2) @ error  # [E, in, out], of each member's own loss
together = train_linear(weight, bias, [inputs], [targets], learning_rate=0.3)
check_close(
    "the new weights of 3 members",
    together["weight"],
    weight - 0.3 * slope,
    mistakes={
        "the loss is averaged over the members, so each learns 3 times slower: sum over the members": weight
        - 0.1 * slope,
        "the error is network(inputs) - targets, not their sum": weight
        - 0.3 * 2 / (8 * 2) * inputs.transpose(1, 2) @ (error + 2 * targets),
        UNMOVED: weight,
        "only the first member learns": torch.cat([(weight - 0.3 * slope)[:1], weight[1:]]),
    },
    hint="each member takes the step that it would take alone",
)
check_close(
    "the returned loss of 3 members",
    together["losses"][0],
    member_losses.mean(),
    mistakes={
        "it is the sum over the members, expected the mean": member_losses.sum(),
        "it is the first member's": member_losses[0],
    },
)
print("Right: each member learns as fast as it would alone.")
### BEGIN HIDDEN TESTS
check_close("the new biases of 3 members", together["bias"], bias - 0.3 * 2 / (8 * 2) * error.sum(dim=1))
for e in range(3):
    own = slice(e, e + 1)
    alone = train_linear(weight[own], bias[own], [inputs[own]], [targets[own]], learning_rate=0.3)
    check_close(f"the weight of member {e} alone", alone["weight"], together["weight"][own])
    check_close(f"the loss of member {e} alone", alone["losses"][0], member_losses[e])
carried = train_linear(weight, bias, [inputs] * 3, [targets] * 3, learning_rate=0.1, momentum=0.5)
alone = train_linear(
    weight[:1], bias[:1], [inputs[:1]] * 3, [targets[:1]] * 3, learning_rate=0.1, momentum=0.5
)
check_close(
    "the weight of the first of 3 members with momentum",
    carried["weight"][:1],
    alone["weight"],
    hint="the optimizer makes one step in each call, for all members together",
)
### END HIDDEN TESTS

# %% kind="test" of="training-step" points=2
# Two steps, one after the other: the weight moves from 4 towards 0, the loss is its square.
weight, bias = torch.tensor([[[4.0]]]), torch.zeros(1, 1)
inputs, targets = torch.tensor([[[1.0], [-1.0]]]), torch.zeros(1, 2, 1)  # the slopes of the bias cancel
after = train_linear(weight, bias, [inputs] * 2, [targets] * 2, learning_rate=0.1)
check_close(
    "the weight after two steps",
    after["weight"],
    [[[2.56]]],
    mistakes={
        "the gradient of the first step was used again in the second: was optimizer.zero_grad() called?": [
            [[1.76]]
        ],
        UNMOVED: [[[4.0]]],
        "each call makes two steps": [[[1.6384]]],
    },
)
check_close("the losses before each step", after["losses"], [16.0, 10.24])
print("Right: every step has a gradient of its own.")
### BEGIN HIDDEN TESTS
after = train_linear(weight, bias, [inputs] * 20, [targets] * 20, learning_rate=0.1)
check_close("the weight after 20 steps", after["weight"], [[[4 * 0.8**20]]])
check_close("the losses of 20 steps", after["losses"], [(4 * 0.8**k) ** 2 for k in range(20)])
after = train_linear(1000 * weight, bias, [inputs], [targets], learning_rate=0.1)
check_close("the weight after a steep step", after["weight"], [[[3200.0]]], hint="gradients are not clipped")
after = train_linear(weight, bias, [inputs] * 2, [targets] * 2, learning_rate=0.1, momentum=0.5)
expected = 3.2 - 0.1 * (0.5 * 8 + 2 * 3.2)  # the second step holds half of the first one
check_close(
    "the weight with momentum",
    after["weight"],
    [[[expected]]],
    hint="it is the optimizer that makes the step",
)
other = torch.tensor([[[2.0], [-2.0]]])
after = train_linear(weight, bias, [inputs, other], [targets, 2 * other], learning_rate=0.1)
check_close("the weight after two different batches", after["weight"], [[[3.2 - 0.1 * 2 * 4 * (3.2 - 2)]]])
check_close("the losses of two different batches", after["losses"], [16.0, (3.2 - 2) ** 2 * 4])
### END HIDDEN TESTS

# %% [markdown]
# All the pieces are there. Train a small network on the pendulum: normalise, draw a mini-batch, step, repeat.
# The dashed line is the loss of "no change". The jumps are mini-batches that hold one of the stray points of
# the picture above: a speed limit is hard to learn from a handful of examples.

# %%
inputs = torch.cat([data.obs, data.action], dim=-1)  # [N, D + A]
changes = data.next_obs - data.obs  # [N, D]
input_normalizer, change_normalizer = Normalizer(4), Normalizer(3)
input_normalizer.fit(inputs)
change_normalizer.fit(changes)
z_inputs, z_changes = input_normalizer.normalize(inputs), change_normalizer.normalize(changes)

generator = torch.Generator().manual_seed(0)
network = EnsembleMLP(1, 4, 3, hidden_sizes=(64, 64), generator=generator)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
losses = []
for _ in range(1500):
    rows = torch.randint(len(inputs), (1, 256), generator=generator)  # [E, B]
    losses.append(training_step(network, optimizer, z_inputs[rows], z_changes[rows]))
ax = plot_losses({"2 layers of 64": losses}, title="A network learns the pendulum")
ax.axhline(1.0, color=GREY, linestyle="--", linewidth=1.5)
ax.text(1500, 1.1, "no change", color=GREY, ha="right")
plt.show()

# %% [markdown]
# The same, as a class that the rest of the course uses: `DynamicsModel` puts your four pieces together, holds
# a tenth of the data out, and stops when the hold-out loss no longer improves. Read its `fit` and its
# `_predict`: you will recognise them. (The mini-batches and the early stopping are in `mbrl_course.fitting`.)

# %% kind="given" ref="dynamics:DynamicsConfig,DynamicsModel"

# %%
model = DynamicsModel(3, 1, DynamicsConfig(hidden_sizes=(64, 64), batch_size=256), generator=generator)
result = model.fit(data, max_epochs=80, generator=generator)
print(f"{len(result.holdout_losses)} epochs, hold-out loss {min(result.holdout_losses):.5f}")


def predict(obs, action):
    """The trained model's prediction: obs [B, D] and action [B, A] to next_obs [B, D]."""
    with torch.inference_mode():
        return model.predict(obs, action)[0]  # of the only member


error = (predict(test_data.obs, test_data.action) - test_data.next_obs).square().mean()
print(f"mean squared error on test data {float(error):.6f}")

# %% [markdown]
# Better than the physicist's first try, and nobody told it about gravity. So, can it dream?

# %% [markdown] exercise="k-step-errors" number="1.5" title="The k-step error" points=6 difficulty=3 minutes=20
# A planner asks for more than the next step: *if I do this, then that, then this, where do I end up?* The
# model answers by feeding on its own predictions. From then on its input is no longer a real state, but one
# with a small error, to which the next error is added. That is called an **open-loop** prediction. Here is
# the honest measure of how it goes wrong:
#
# $$\hat s_0 = s_0, \qquad \hat s_{k+1} = \hat f(\hat s_k, a_k), \qquad
#   E_k = \frac{1}{B D} \sum_{b,d} \big(\hat s_{k} - s_{k}\big)^2_{b,d}, \quad k = 1 \dots K$$
#
# The model starts at a real state, gets the actions that were really taken, and is compared with the state
# that was really reached after $k$ steps. $E_1$ is the ordinary one-step error.
#
# **Predict first.** A model makes the same small mistake $c$ in the same direction at each step, in a world
# where mistakes neither grow nor fade. How does $E_k$ grow with $k$? And in a world where every deviation
# doubles at each step?
#
# **Write `k_step_errors`.** `predict` maps states `[B, D]` and actions `[B, A]` to next states `[B, D]`; call
# it once for each of the K steps, with all B trajectories together. `obs` holds $s_0 \dots s_K$, `[B, K + 1,
# D]`, and `actions` holds $a_0 \dots a_{K-1}$, `[B, K, A]`. Return $E_1 \dots E_K$ as a tensor `[K]`. K and B
# may be 1.

# %% kind="solution" of="k-step-errors" ref="dynamics:k_step_errors"
# TODO: start at the real s_0; from then on the model sees its own predictions
# TODO: after each step, compare with the real state at that time
# TODO: return the errors as one tensor, [K]

# %% [markdown]
# <details><summary>Hint: which state belongs to which action?</summary>
#
# Action `actions[:, k]` leads from `obs[:, k]` to `obs[:, k + 1]`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Mistakes add up to $k c$, so $E_k = k^2 c^2$: after 20 steps it is 400 times the one-step error, even in a
# world that forgives. Where deviations double, the mistake after $k$ steps is $(2^k - 1) c$, and $E_k$ grows
# like $4^k$: after 20 steps a million million times. A *small* one-step error promises little; how the world
# treats deviations decides.
# </details>

# %% kind="test" of="k-step-errors" points=3
# A world that stands still, and a model that adds 0.5 and 0.25 to its two dimensions at each step.
obs = torch.tensor([[1.0, -1.0], [2.0, 0.0], [3.0, 7.0]]).unsqueeze(1).repeat(1, 5, 1)  # [B, K + 1, D]
actions = torch.zeros(3, 4, 1)  # [B, K, A]


def predict_drift(obs, action):
    check_shape("the states that predict was given", obs, (3, 2), "all trajectories at one time, [B, D]")
    check_shape("the actions that predict was given", action, (3, 1), "all trajectories at one time, [B, A]")
    return obs + torch.tensor([0.5, 0.25])


given = obs.clone()
errors = k_step_errors(predict_drift, given, actions)
check_unchanged("obs", given, obs, "a part such as obs[:, 0] is a view of it: .clone() what you write into")
check_shape(
    "the errors",
    errors,
    (4,),
    {
        (5,): "E_0 does not count: k runs from 1 to K",
        (): "expected one for each k",
        (3,): "is it one for each of the B = 3 trajectories? K is actions.shape[1]",
    },
)
k = torch.arange(1.0, 5.0)
right = (0.5**2 + 0.25**2) / 2 * k**2
check_close(
    "E_1 .. E_4 of a model that is off by 0.5 and 0.25 per step",
    errors,
    right,
    mistakes={
        "the model is given a real state at each step, expected its own prediction": right[:1].expand(4),
        "the squares are summed over the dimensions, expected their mean": 2 * right,
        "only the first dimension, or the largest error, counts: expected the mean of all": (0.5 * k) ** 2,
        "the squares are summed over the trajectories, expected their mean": 3 * right,
        "the squares are summed, expected their mean": 6 * right,
        "it is the square root": right.sqrt(),
        "it is the mean absolute error, expected squared": 0.375 * k,
        "it is the mean of E_1 .. E_k, expected E_k itself": right.cumsum(0) / k,
        "it is the sum of E_1 .. E_k, expected E_k itself": right.cumsum(0),
        "they are off by one: the first is E_0, which does not count": right / k**2 * (k - 1) ** 2,
        "they come in the wrong order: expected E_1 first": right.flip(0),
    },
)
print("Right: the model feeds on its own predictions.")
### BEGIN HIDDEN TESTS
# A linear world s' = 0.5 s + a and a model s' = 0.9 s + a: both have closed forms.
start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))  # [B, D]
actions = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(1))  # [B, K, A]


def states(factor):
    powers = factor ** torch.arange(7.0)
    rows = [start]
    for k in range(1, 7):
        pushes = (powers[:k].flip(0).reshape(1, k, 1) * actions[:, :k]).sum(dim=1)
        rows.append(powers[k] * start + pushes)
    return torch.stack(rows, dim=1)  # [B, K + 1, D]


real, imagined = states(0.5), states(0.9)
errors = k_step_errors(lambda obs, action: 0.9 * obs + action, real, actions)
expected = (imagined - real).square().mean(dim=(0, 2))[1:]
forced = 0.16 * real[:, :-1].square().mean(dim=(0, 2))
check_close(
    "E_k of a linear model",
    errors,
    expected,
    mistakes={"the model is given the real state at each step": forced},
)
### END HIDDEN TESTS

# %% kind="test" of="k-step-errors" points=3
# A model that is right: the actions push a point, and it knows by how much.
start = torch.tensor([[0.0], [10.0]])  # [B, D]
actions = torch.tensor([[1.0, 2.0, -4.0, 8.0], [0.5, 0.5, 1.0, -3.0]]).unsqueeze(-1)  # [B, K, A]
obs = torch.cat([start, start + actions[..., 0].cumsum(dim=1)], dim=1).unsqueeze(-1)  # [B, K + 1, D]
seen = []


def predict_push(obs, action):
    seen.append((torch.as_tensor(obs).clone(), torch.as_tensor(action).clone()))
    return obs + action


errors = k_step_errors(predict_push, obs, actions)
shifted = torch.stack([actions[:, k, 0].square().mean() for k in range(4)])
check_close(
    "E_k of a perfect model",
    errors,
    torch.zeros(4),
    mistakes={"the prediction is compared with the state before the step: use obs[:, k + 1]": shifted},
    hint="a perfect model has no error: does each action go with its own state?",
)
check_true(len(seen) == 4, f"predict was called {len(seen)} times, expected once for each of K = 4 steps")
check_shape(
    "the states that predict was given", seen[0][0], (2, 1), "expected all trajectories together, [B, D]"
)
check_shape(
    "the actions that predict was given", seen[0][1], (2, 1), "expected all trajectories together, [B, A]"
)
check_close("the state that predict was given first", seen[0][0], start, hint="start at the real s_0")
print("Right: each error is of its own step.")
### BEGIN HIDDEN TESTS
for k in range(4):
    check_close(f"action {k} that predict was given", seen[k][1], actions[:, k])
seen.clear()


def predict_half(obs, action):  # knows only half of each push
    seen.append(torch.as_tensor(obs).clone())
    return obs + action / 2


errors = k_step_errors(predict_half, obs, actions)
check_close("E_k of a model that pushes half", errors, (actions.cumsum(dim=1) / 2).square().mean(dim=(0, 2)))
check_close("the third state that predict was given", seen[2], start + actions[:, :2].sum(dim=1) / 2)
errors = k_step_errors(predict_half, obs[:1, :2], actions[:1, :1])
check_shape("the errors for K = 1 and B = 1", errors, (1,))
check_close("E_1 for K = 1 and B = 1", errors, [0.25])
### END HIDDEN TESTS

# %% [markdown]
# Now the real thing: 40 steps, two seconds, of imagination. First one trajectory that the model has never
# seen, beside what three models make of it: the trained one, one that was trained for 50 gradient steps, and
# physics by hand.

# %%
HORIZON = 40
sequences = test_buffer.sample_sequences(300, HORIZON, torch.Generator().manual_seed(3))
real = torch.cat([sequences.obs, sequences.next_obs[:, -1:]], dim=1)  # [B, K + 1, D]

short_model = DynamicsModel(3, 1, DynamicsConfig(hidden_sizes=(64, 64), batch_size=256), generator=generator)
short_model.fit(data, num_steps=50, generator=generator)


def predict_short(obs, action):
    """As `predict`, by the model that was trained for 50 gradient steps."""
    with torch.inference_mode():
        return short_model.predict(obs, action)[0]


def predict_physics(obs, action):
    """As `predict`, with the physics by hand."""
    return predict_next_obs(physics_by_hand, unchanged, unchanged, obs, action)


def dream(predict, obs, actions):
    """The states that a model imagines from obs [B, D] under actions [B, K, A]: [B, K + 1, D]."""
    states = [obs]
    for k in range(actions.shape[1]):
        states.append(predict(states[-1], actions[:, k]))
    return torch.stack(states, dim=1)


models = {"50 gradient steps": predict_short, "fully trained": predict, "physics by hand": predict_physics}
dreams = {name: dream(f, real[:, 0], sequences.action) for name, f in models.items()}
plot_trajectories(
    real[0],
    {name: states[0] for name, states in dreams.items()},
    names=["cos θ", "sin θ", "angular velocity"],
    title="Two seconds of imagination",
)
plt.show()

# %% [markdown]
# And the k-step errors over 300 such trajectories.

# %%
curves = {name: k_step_errors(f, real, sequences.action) for name, f in models.items()}
ax = plot_k_step_errors(curves, title="Errors grow with every step")
ax.set_xlabel("k, steps predicted")
plt.show()

# %% [markdown]
# Physics by hand begins as a good model and ends as the worst: its small mistakes stretch the arm a little
# at each step, and nothing ever shortens it again. One-step errors alone would not have told.
#
# How fast errors grow depends on the *place*, too. Here is the trained model alone, on two sets of 300
# trajectories that begin at rest: nearly upright, and nearly hanging. As we know this world's equations, the
# real trajectories can be computed for any start we like.


# %%
def start_at(angle):
    """300 states at rest, within 0.3 rad of an angle."""
    noise = torch.rand(300, generator=torch.Generator().manual_seed(4))
    angles = angle + 0.6 * (noise - 0.5)
    return torch.stack([angles.cos(), angles.sin(), torch.zeros(300)], dim=-1)


starts = {"from nearly upright": start_at(0.0), "from nearly hanging": start_at(torch.pi)}
truths = {name: dream(pendulum.dynamics, start, sequences.action) for name, start in starts.items()}
curves = {name: k_step_errors(predict, truth, sequences.action) for name, truth in truths.items()}
ax = plot_k_step_errors(curves, title="The same model in two places")
ax.set_xlabel("k, steps predicted")
plt.show()

# %% [markdown]
# The first step is about as good in both places. Then they part: near the bottom gravity pulls deviations
# back, near the top it pushes them apart, and a difference too small to see decides on which side the
# pendulum falls. So how far ahead a model can be trusted is a property of model *and* place. Planners of the
# next weeks look 10 to 30 steps ahead and then plan again, which is one answer to this picture.
#
# A film of it: the orange pendulum is real, the grey one is the model's dream of the same actions, from the
# same start, without ever looking. (Of the 300 that begin upright, the one whose error is larger than that
# of four in five.)

# %%
truth = truths["from nearly upright"]
dreamt = dream(predict, truth[:, 0], sequences.action)
chosen = (dreamt - truth).square().mean(dim=(1, 2)).argsort()[240]


def draw(ax, frame):
    """The real pendulum, and the imagined one behind it."""
    cos, sin, _ = dreamt[chosen, frame].tolist()
    draw_rod(ax, [(0.0, 0.0), (-sin, cos)], color="#9a9a9a", width=14)
    pendulum.plot_state(ax, truth[chosen, frame])
    ax.set_title(f"{0.05 * frame:.1f} s", fontsize=11)


make_film(draw, HORIZON + 1, fps=20, size=(3.0, 3.0), title="Real and imagined pendulum", progress=False)

# %% [markdown]
# ## What to take along
#
# - A dynamics model is regression on transitions, with three details: predict the change, normalise both
#   sides, judge on data that were held out.
# - Constant dimensions, tiny changes and ring buffers that wrap: the dull details are where models of other
#   people fail.
# - "No change" is a strong baseline for one step. Beat it before you believe in a model.
# - $E_k$ tells how far ahead a model can be trusted. It grows, faster where the world magnifies deviations.
#
# **Test yourself**
#
# <details><summary>1. Why does `sample` draw among the first `size` rows, and not among all?</summary>
#
# Rows that were never written hold zeros. A model would learn that a state of zeros stays zero, whatever the
# action.
# </details>
# <details><summary>2. You normalise a mini-batch with its own mean and standard deviation. What goes wrong?</summary>
#
# The same state gets different inputs in different mini-batches, and a single state (a mini-batch of one)
# always becomes 0. The statistics belong to the model: fitted once, stored, and used at prediction too.
# </details>
# <details><summary>3. A model has a one-step error of 0.0001 per dimension. Is that good?</summary>
#
# Compared with what? If the state changes by 0.01 per step, then "no change" has the same error. Look at the
# error in normalised units, or relative to the change.
# </details>
# <details><summary>4. Why is the k-step error computed with the model's own predictions, although that makes it larger?</summary>
#
# Because that is how a planner uses the model. With the real state at each step ("teacher forcing") you
# measure the one-step error k times, and learn nothing about what planning will meet.
# </details>
# <details><summary>5. A transition is truncated, not terminated. May the model learn from it? May a stretch for E_k run across it?</summary>
#
# It may learn from it: obs, action and next_obs are as real as any. But the next row of the buffer is the
# first of another episode, so no stretch may run across it; `sample_sequences` takes care of both kinds of
# ends.
# </details>
#
# **Where next.** `experiments.ipynb` takes your code to the half-cheetah, with 21 numbers to predict: how
# large a network, how much training, how far ahead? Next week your model meets a planner, which will find
# every weakness it has. If you want to read on: Nagabandi et al. (2018) for models with planning; Janner et
# al. (2019), [*When to trust your model*](https://arxiv.org/abs/1906.08253), for a bound on how far to trust
# one, which is week 7.
