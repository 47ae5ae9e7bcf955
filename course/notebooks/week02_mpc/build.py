# %% [markdown]
# # Week 2 · Acting by planning
#
# Last week you built a model that predicts what an action does. This week the model gets a job. The idea is
# so simple that it fits in a sentence: *try a thousand action sequences in the model, take the first action
# of the best one, look where it led, and start again.*
#
# That is **model-predictive control** (MPC). There is no policy network and no value function. Give the same
# agent another reward tomorrow, and it does something else, without a single new training step.
#
# **After this notebook you can**
#
# - roll out thousands of imagined trajectories at once, in every member of an ensemble;
# - turn them into returns, and say what an episode's end does to a return;
# - find a plan by random shooting, and say how far that carries;
# - control an environment with a receding horizon, and show why replanning forgives a bad model;
# - close the loop: collect, fit, plan, and again.
#
# **Where it comes from**
#
# - Nagabandi et al., 2018, [*Neural network dynamics for model-based deep reinforcement learning with
#   model-free fine-tuning*](https://arxiv.org/abs/1708.02596): random shooting in a learned model, and the
#   on-policy loop (Section IV, Algorithm 1).
# - Ross and Bagnell, 2012, [*Agnostic system identification for model-based reinforcement
#   learning*](https://arxiv.org/abs/1203.1007): why the loop is needed.
# - The obstacles, and many numbers in `experiments`, are those of [CS285's homework on model-based
#   RL](https://rail.eecs.berkeley.edu/deeprlcourse/).
#
# **How it goes.** Five exercises, 30 points, about an hour and a half; the notebook itself runs in less than
# a minute. Fill in the cells that raise `NotImplementedError`. The checks below each of them tell at once
# whether your code is right, and what is likely wrong with it. When you hand in, hidden checks are added;
# they test nothing that the text does not say. One rule holds for all exercises: a function leaves the tensors
# that it is given as they are.
#
# The first four exercises plan in the **true dynamics**, an oracle that we would not have in earnest.
# Whatever goes wrong there is the fault of the planner. The learned model comes last, and what goes wrong
# then is the fault of the model.

# %% kind="setup"
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from mbrl_course.buffers import Batch, concatenate
from mbrl_course.checking import (
    as_tensor,
    check_between,
    check_close,
    check_shape,
    check_true,
    check_unchanged,
)
from mbrl_course.dynamics import DynamicsConfig, DynamicsModel
from mbrl_course.envs import get_task, never_terminates
from mbrl_course.envs.obstacles import plot_map, plot_state
from mbrl_course.envs.task import Task, action_bounds, observed
from mbrl_course.evaluation import collect, collect_random, evaluate
from mbrl_course.films import episode_film
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style
from mbrl_course.validation import need_whole

use_style()

# %% [markdown]
# ## A task that can be drawn
#
# A point walks on a map, at most a tenth in each direction per step. A step that would end in a wall is not
# taken. The reward is minus the distance to the star, at every step, so it pays to be quick. The episode ends
# within 0.1 of the star, or after 100 steps. The state is `(x, y, goal x, goal y)`.
#
# `task.step` is the true dynamics, written in torch, for any number of states at once. It has the interface
# of a model: `step(obs, action) -> next_obs, reward, terminated`.

# %%
task = get_task("obstacles")
start_obs = torch.tensor([-0.35, 0.9, 0.7, -0.8])  # [D]
ax = new_axes(width=4.4, height=4.4)[0]
plot_state(ax, start_obs)
ax.set_title("From the dot to the star")
plt.show()
next_obs, reward, terminated = task.step(start_obs, torch.tensor([1.0, 0.0]))
print("one step to the right:", next_obs.tolist(), " reward", round(reward.item(), 3))

# %% [markdown] exercise="rollout" number="2.1" title="Imagine a thousand futures" points=7 difficulty=2 minutes=20
# A model answers one question: *where does this step lead?* Asked again and again, about its own answers, it
# imagines a whole trajectory:
#
# $$\hat s_0 = s, \qquad \hat s_{h+1},\ \hat r_h,\ \hat d_h = \text{step}(\hat s_h, a_h), \qquad h = 0 \dots H - 1$$
#
# We do this for $N$ action sequences at once, and for each of the $E$ members of an ensemble. (The truth has
# one member; last week's model may have several.) All members start from the same state and follow the same
# actions, but each goes on from *its own* prediction: $E \cdot N$ trajectories in all.
#
# A loop over the sequences would take a thousand calls of the model per step.
#
# **Predict first.** Which of these four axes can't be done in parallel: members, sequences, time, state
# dimensions? And if one call of the model takes 1 ms, whether for 1 or for 1000 states, how long do 1000
# sequences of 15 steps take, with and without a loop over the sequences?
#
# **Write `rollout`.**
#
# - `action_sequences` is `[N, H, A]`, `obs` is the one state `[D]` that all trajectories start from.
# - Call `step` once for each time step, $H$ times in all, with `obs [E, N, D]` and `action [E, N, A]`. It
#   returns `next_obs [E, N, D]`, `reward [E, N]` and `terminated [E, N]` (bools).
# - Return a `Rollout`: `obs [E, N, H + 1, D]` (the first is the real state), `rewards [E, N, H]` and
#   `terminated [E, N, H]`, the latter two as `step` returned them.
# - Go on to the last step even where an episode has ended. What counts is decided in exercise 2.2.

# %% kind="given" ref="mpc:StepFunction,Rollout"

# %% kind="solution" of="rollout" ref="mpc:rollout"
# TODO: give state and actions an ensemble axis (and the state one for the sequences)
# TODO: step through time, each time from where the last step led, and keep what comes back
# TODO: put the steps together along a time axis: dim=2

# %% [markdown]
# <details><summary>Hint: axes without copies</summary>
#
# `x.expand(2, 3, -1)` gives a tensor `[D]` two new leading axes, `[2, 3, D]`, without copying a number; -1
# leaves an axis as it is. `action_sequences.expand(E, -1, -1, -1)` is `[E, N, H, A]`.
# </details>
# <details><summary>Hint: putting steps together</summary>
#
# A list of H tensors `[E, N]` becomes `[E, N, H]` with `torch.stack(steps, dim=2)`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Only time: step 2 needs the result of step 1. So 15 calls take 15 ms. With a loop over the sequences it would
# be 15,000 calls: 15 seconds for a single action in the world.
# </details>


# %% kind="given"
def asked(obs, action, obs_shape, action_shape):
    """What a step of a model is asked, as tensors; says where their shapes are not [E, N, D] and [E, N, A]."""
    obs, action = torch.as_tensor(obs), torch.as_tensor(action)
    if tuple(obs.shape) != obs_shape or tuple(action.shape) != action_shape:
        got = f"step was given obs {list(obs.shape)} and action {list(action.shape)}"
        expected = f"{list(obs_shape)} and {list(action_shape)}: [E, N, D] and [E, N, A] of one time step"
        raise AssertionError(f"{got}, expected {expected}")
    return obs, action


# %% kind="test" of="rollout" points=2
num = 6


def step(obs, action):  # a point that is pushed around
    obs, action = asked(obs, action, (1, num, 2), (1, num, 2))
    next_obs = obs + action
    return next_obs, 3 * next_obs[..., 0] - next_obs[..., 1], next_obs[..., 0] > 100


sequences = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))  # [N, H, A]
start = torch.tensor([1.0, -2.0])
imagined = rollout(step, start, sequences)
check_true(
    all(hasattr(imagined, field) for field in ("obs", "rewards", "terminated")),
    f"rollout returned a {type(imagined).__name__}, expected Rollout(obs=..., rewards=..., terminated=...)",
)
hints = {
    (1, 6, 3, 2): "H states; is the first one, the real state, missing?",
    (6, 4, 2): "is the ensemble axis missing? A single member has one, too",
    (1, 4, 6, 2): "time comes after the sequences: stack along dim=2",
    (4, 1, 6, 2): "time comes after the sequences: stack along dim=2",
}
check_shape("obs", imagined.obs, (1, 6, 4, 2), hints)
check_shape("rewards", imagined.rewards, (1, 6, 3), "rewards [E, N, H]: one for each action")
path = torch.cat([start.expand(6, 1, 2), start + sequences.cumsum(dim=1)], dim=1)  # [N, H + 1, D]
first = torch.arange(4.0)[:, None]
check_close(
    "obs",
    imagined.obs,
    path[None],
    mistakes={
        "every step starts from the real state, expected from where the last step led": torch.cat(
            [start.expand(6, 1, 2), start + sequences], dim=1
        )[None],
        "every step uses the first action": (start + first * sequences[:, :1])[None],
        "the actions come in reversed order": torch.cat(
            [start.expand(6, 1, 2), start + sequences.flip(1).cumsum(dim=1)], dim=1
        )[None],
        "the first state is not the real one: state h + 1 follows state h": torch.cat(
            [path[:, 1:], path[:, -1:]], dim=1
        )[None],
    },
    hint="expected the start, then start + a_0, then start + a_0 + a_1, ...",
)
check_close("rewards", imagined.rewards, (3 * path[:, 1:, 0] - path[:, 1:, 1])[None])
### BEGIN HIDDEN TESTS
num = 1
imagined = rollout(step, start, sequences[:1, :1])
check_close("obs of one sequence of one step", imagined.obs, path[None, :1, :2])
check_shape("terminated of one sequence of one step", imagined.terminated, (1, 1, 1))
### END HIDDEN TESTS
print("Right: these are the futures of one model.")

# %% kind="test" of="rollout" points=3
gain = torch.tensor([1.0, -2.0, 0.5]).reshape(3, 1, 1)  # each member of its own opinion


def step(obs, action):
    obs, action = asked(obs, action, (3, 4, 2), (3, 4, 2))
    next_obs = obs + gain * action
    return next_obs, next_obs[..., 0], next_obs[..., 1] > 0


sequences = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1))  # [N, H, A]
start = torch.tensor([0.5, 0.25])
imagined = rollout(step, start, sequences, ensemble_size=3)
on = "expected H + 1 states: go on to the last step even where an episode has ended"
check_shape("obs with 3 members", imagined.obs, (3, 4, 6, 2), {(3, 4, n, 2): on for n in range(6)})
moves = sequences.cumsum(dim=1).expand(3, 4, 5, 2)  # [E, N, H, A]
path = start + gain[..., None] * moves  # [E, N, H, D]
swapped = [start.expand(3, 4, 2)]
for h in range(5):
    swapped.append(sequences[:, h] + gain * swapped[-1])
check_close(
    "obs[:, :, 1:] with 3 members",
    as_tensor("obs", imagined.obs)[:, :, 1:],
    path,
    mistakes={
        "all members go on from the mean over members, expected each from its own prediction": start
        + gain.mean() * moves,
        "all members are alike, as the first one": start + moves,
        "step takes the state first, then the action": torch.stack(swapped[1:], dim=2),
        "every state is the last one: a single tensor is changed in place": path[:, :, -1:].expand(
            3, 4, 5, 2
        ),
    },
    hint="each member goes on from its own prediction, also after an end",
)
check_close("rewards with 3 members", imagined.rewards, path[..., 0])
### BEGIN HIDDEN TESTS
check_close("obs[:, :, 0]", as_tensor("obs", imagined.obs)[:, :, 0], start.expand(3, 4, 2))
check_close("terminated with 3 members", imagined.terminated, path[..., 1] > 0)
scale = torch.tensor([0.5, 2.0]).reshape(2, 1, 1)


def step(obs, action):  # D = 3, A = 1, and the members multiply
    obs, action = asked(obs, action, (2, 3, 3), (2, 3, 1))
    return scale * obs + action, (obs * action).sum(dim=-1), (obs > 50).any(dim=-1)


start = torch.tensor([1.0, 2.0, 4.0])
actions = torch.tensor([[0.0, 0.0], [0.0, 1.0], [-1.0, 2.0]])[..., None]  # [N, H, A]
imagined = rollout(step, start, actions, ensemble_size=2)
one = scale[..., None] * start + actions[:, :1]  # [E, N, 1, D]
two = scale[..., None] * one + actions[:, 1:]
expected = torch.cat([start.expand(2, 3, 1, 3), one, two], dim=2)
check_close("obs of members that multiply the state", imagined.obs, expected)
before = expected[:, :, :2]
check_close("rewards of members that multiply the state", imagined.rewards, (before * actions).sum(dim=-1))
### END HIDDEN TESTS
print("Right: each member goes its own way.")

# %% kind="test" of="rollout" points=2
calls = []


def step(obs, action):  # counts down in the first dimension, and ends below zero
    obs, action = torch.as_tensor(obs), torch.as_tensor(action)
    calls.append((tuple(obs.shape), tuple(action.shape)))
    next_obs = obs - action[..., :1]
    return next_obs, torch.ones_like(next_obs[..., 0]), next_obs[..., 0] < 0


speeds = torch.tensor([1.0, 2.0, 10.0])
sequences = speeds[:, None, None].expand(3, 4, 1)  # [N, H, A]
imagined = rollout(step, torch.tensor([2.5, 7.0]), sequences, ensemble_size=2)
check_true(
    len(calls) == 4,
    f"step was called {len(calls)} times for H = 4, expected once for each time step, all sequences at once, also "
    "after an end",
)
for shapes in calls:
    check_true(
        shapes == ((2, 3, 2), (2, 3, 1)),
        f"step was given obs {list(shapes[0])} and action {list(shapes[1])}, expected [2, 3, 2] and [2, 3, 1]: "
        "[E, N, D] and [E, N, A] at every step",
    )
ends = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]).bool()  # [N, H]
check_close(
    "terminated",
    imagined.terminated,
    ends.expand(2, 3, 4),
    mistakes={
        "it is one step late: terminated[h] says whether action h ended the episode": torch.cat(
            [torch.zeros(3, 1), ends[:, :-1]], dim=1
        ).expand(2, 3, 4),
        "it is never true": torch.zeros(2, 3, 4),
    },
)
check_true(
    as_tensor("terminated", imagined.terminated).dtype == torch.bool,
    "terminated holds numbers, expected bools as step returns them: `~terminated` means something else for numbers",
)
### BEGIN HIDDEN TESTS
check_close("rewards, which go on past the end", imagined.rewards, torch.ones(2, 3, 4))
last = torch.stack([2.5 - 4 * speeds, 7.0 - 4 * speeds], dim=-1)  # [N, D]
check_close("the last obs, past the end", as_tensor("obs", imagined.obs)[:, :, -1], last.expand(2, 3, 2))
### END HIDDEN TESTS
print("Right: one call for each step, and the ends are where they belong.")

# %% [markdown]
# Two hundred futures of the dot, 15 random steps each. Where do they all end up? Remember this cloud: it is
# all that the planner has to choose from.


# %%
def random_sequences(task, num_sequences, horizon, seed=0):
    """Action sequences [N, H, A], uniform between the task's bounds."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(num_sequences, horizon, task.action_dim, generator=generator)
    return task.action_low + (task.action_high - task.action_low) * uniform


sequences = random_sequences(task, 200, 15)
imagined = rollout(task.step, start_obs, sequences)
ax = new_axes(width=4.8, height=4.8)[0]
plot_state(ax, start_obs)
for path in imagined.obs[0, ..., :2]:
    ax.plot(*path.T, color=COLORS[0], linewidth=0.8, alpha=0.45)
ax.set_title("200 imagined futures")
plt.show()

# %% [markdown]
# The truth *is* the model here, so what is imagined must be what happens. We take one of the sequences to the
# real environment. A difference of zero says that the rollout is right, once more.

# %%
env = task.make_env()
env.reset(seed=0)
env.unwrapped.obs = start_obs.numpy()
real = [torch.as_tensor(env.step(action.numpy())[0]) for action in sequences[7]]
env.close()
print("largest difference:", (torch.stack(real) - imagined.obs[0, 7, 1:]).abs().max().item())

# %% [markdown] exercise="sequence-returns" number="2.2" title="What is a future worth?" points=6 difficulty=2 minutes=15
# The return of a trajectory is the sum of its rewards, up to its end. With $\hat d_h$ the flag `terminated`
# of step $h$:
#
# $$R = \sum_{h=0}^{H-1} \hat r_h \prod_{k < h} (1 - \hat d_k)$$
#
# Read the product carefully: it runs over the steps *before* $h$. The reward of the step that ends the episode
# still counts. (Whoever falls off the cliff gets the reward for falling.) Nothing after it does.
#
# Two things make this harder than it looks:
#
# - **An end is final.** The model goes on imagining, and may well imagine that the cart has left its track at
#   step 3 and is back at step 5. It ended at step 3.
# - **Nonsense must not leak.** States after the end may be far from all data, and the model's rewards there
#   may be anything, NaN included. And $0 \cdot \text{NaN}$ is NaN.
#
# **Predict first.** In our task all rewards are negative. Suppose a model imagines that one can walk out of the
# square, where the episode ends. How would such a plan compare with the others?
#
# **Write `sequence_returns`.** `rewards` and `terminated` are `[..., H]` with any number of leading axes,
# also none; return `[...]`. Do not discount. Everything after the first end counts as 0, even if it is NaN or
# infinite. (A NaN *before* the end stays one: the return is NaN then, and 2.3 deals with it.)

# %% kind="solution" of="sequence-returns" ref="mpc:sequence_returns"
# TODO: for each step, has the episode ended at an earlier step?
# TODO: sum the rewards of the steps for which it has not, over the last axis

# %% [markdown]
# <details><summary>Hint: "at an earlier step"</summary>
#
# With `done = terminated.long()` (torch does not subtract bools), `done.cumsum(-1)` counts the ends up to and
# including each step. Taking the step's own flag away again leaves those before it. Or: `cumprod` of `1 - done`,
# shifted by one.
# </details>
# <details><summary>Hint: NaN</summary>
#
# Don't multiply with the mask, choose: `torch.where(mask, rewards, 0.0)`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# It would look like the best plan of all: a few steps of negative reward, and then zeros for ever. The planner
# would walk to the edge and push against it. Ends attract where rewards are negative, and repel where they are
# positive (a pole that is balanced for one point per step). `experiments` measures what this does to our
# point.
# </details>

# %% kind="test" of="sequence-returns" points=2
rewards = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))  # [E, N, H]
no_end = torch.zeros(2, 5, 4, dtype=torch.bool)
hints = {
    (): "it is one number; each trajectory has its own return",
    (5, 4): "is the sum over the members? It is over time, the last axis",
    (2, 4): "is the sum over the sequences? It is over time, the last axis",
    (2, 5, 4): "these are the rewards so far; the return is their sum over all steps",
    (5,): "is the mean over members taken? That comes later",
}
returns = sequence_returns(rewards, no_end)
check_shape("the returns", returns, (2, 5), hints)
check_close(
    "the returns without an end",
    returns,
    rewards.sum(dim=-1),
    mistakes={
        "it is the mean, expected the sum": rewards.mean(dim=-1),
        "the last reward is missing": rewards[..., :-1].sum(dim=-1),
        "the first reward is missing": rewards[..., 1:].sum(dim=-1),
        "it is 0: nothing counts": torch.zeros(2, 5),
        "only the first reward counts where nothing ends: argmax of no True is 0": rewards[..., 0],
    },
)
### BEGIN HIDDEN TESTS
check_close(
    "the return of one trajectory [H]", sequence_returns(rewards[0, 0], no_end[0, 0]), rewards[0, 0].sum()
)
check_close("the returns for H = 1", sequence_returns(rewards[..., :1], no_end[..., :1]), rewards[..., 0])
check_close("returns [N] of [N, H]", sequence_returns(rewards[0], no_end[0]), rewards[0].sum(dim=-1))
### END HIDDEN TESTS
print("Right: this is what a future without an end is worth.")

# %% kind="test" of="sequence-returns" points=2
rewards = torch.tensor([[1.0, 10.0, 100.0, 1000.0]]).repeat(5, 1)  # [N, H]
ends = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]]).bool()
given = rewards.clone(), ends.clone()
returns = sequence_returns(*given)
check_unchanged("rewards", given[0], rewards, "torch.where makes a new tensor, rewards[...] = 0 does not")
check_unchanged("terminated", given[1], ends)
check_close(
    "the returns of episodes that end at step -, 0, 1, 1, 3",
    returns,
    [1111.0, 1.0, 11.0, 11.0, 1111.0],
    mistakes={
        "the end is ignored": [1111.0] * 5,
        "the reward of the step that ends the episode counts, too": [1111.0, 0.0, 1.0, 1.0, 111.0],
        "rewards after the end count wherever terminated is false again, and the ending step's does not": [
            1111.0,
            1110.0,
            1101.0,
            1.0,
            111.0,
        ],
        "the mask is the wrong way round": [0.0, 1110.0, 1100.0, 1100.0, 0.0],
        "an end is final: rewards count again two steps after it": [1111.0, 1101.0, 1011.0, 11.0, 1111.0],
        "one step too many counts: nothing after the ending step does": [1111.0, 11.0, 111.0, 111.0, 1111.0],
    },
    hint="the reward of the ending step counts, and nothing after it",
)
### BEGIN HIDDEN TESTS
again = torch.tensor([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 1], [0, 1, 0, 1]]).bool()
expected = torch.tensor([11.0, 1.0, 111.0, 1.0, 11.0])
check_close("the returns where terminated is true more than once", sequence_returns(rewards, again), expected)
both = sequence_returns(torch.stack([rewards, -rewards]), torch.stack([again, ends]))
check_close(
    "the returns of two members",
    both,
    torch.stack([expected, -torch.tensor([1111.0, 1.0, 11.0, 11.0, 1111.0])]),
    hint="each member has ends of its own",
)
### END HIDDEN TESTS
print("Right: the ending step counts, and nothing after it.")

# %% kind="test" of="sequence-returns" points=2
nan, inf = float("nan"), float("inf")
rewards = torch.tensor([[1.0, 2.0, nan, nan], [1.0, inf, 5.0, -inf], [-1.0, -2.0, -3.0, inf]])
ends = torch.tensor([[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]]).bool()
check_close(
    "the returns where the model breaks down after the end",
    sequence_returns(rewards, ends),
    [3.0, 1.0, -6.0],
    hint="0 times NaN is NaN, and so is 0 times infinity: choose with torch.where, don't multiply",
)
### BEGIN HIDDEN TESTS
broken = as_tensor(
    "the return", sequence_returns(torch.tensor([[nan, 1.0], [1.0, nan]]), torch.zeros(2, 2).bool())
)
check_true(broken.isnan().all(), f"the returns with NaN before the end are {broken.tolist()}, expected NaN")
### END HIDDEN TESTS
print("Right: nonsense after the end does not leak.")

# %% [markdown]
# The same futures, coloured by what they are worth. One of them stands out.

# %%
returns = sequence_returns(imagined.rewards, imagined.terminated)[0]  # [N]
best = returns.argmax()
ax, histogram = new_axes(columns=2, width=5.0, height=4.8)
plot_state(ax, start_obs)
shades = (returns - returns.min()) / (returns.max() - returns.min())
for path, shade in zip(imagined.obs[0, ..., :2], shades, strict=True):
    ax.plot(*path.T, color=plt.cm.viridis(shade.item()), linewidth=0.9, alpha=0.6)
ax.plot(*imagined.obs[0, best, :, :2].T, color=COLORS[3], linewidth=3, zorder=5)
ax.set_title("Yellow is better, the best is orange")
histogram.hist(returns, bins=25, color=COLORS[0], alpha=0.7)
histogram.axvline(returns[best], color=COLORS[3], linewidth=3)
histogram.set(xlabel="return over 15 steps", ylabel="futures")
histogram.set_title(f"The best of 200: {returns[best]:.1f}")
plt.show()

# %% [markdown]
# ## A planner sees no model
#
# From here on a planner gets a **score function**: action sequences `[N, H, A]` in, scores `[N]` out, larger is
# better. The function below makes one from a model, with your two functions; the returns are averaged over the
# members. The same planner can so be tried on a toy, on the true dynamics, and on a learned ensemble, and the
# planners of the next weeks need no new line here.

# %% kind="given" ref="mpc:ScoreFunction,Model,rank_invalid_last,make_score_fn"

# %% [markdown] exercise="random-shooting" number="2.3" title="Random shooting" points=6 difficulty=1 minutes=15
# The simplest planner that works: guess, and keep the best.
#
# $$a_{0:H-1} = \arg\max_{i = 1 \dots N} R(a^i_{0:H-1}), \qquad a^i_h \sim \text{Uniform}(\text{low}, \text{high})$$
#
# No gradient, no local optimum, nothing to tune but $N$ and $H$. In low dimensions it is hard to beat.
#
# One trap: a learned model can be driven to nonsense, and then a score is NaN or infinite. `rank_invalid_last`
# above turns such scores into $-\infty$.
#
# **Predict first.** What does `torch.tensor([1.0, float("nan"), 3.0]).argmax()` return? What would that do to a
# planner?
#
# **Write `random_shooting`.**
#
# - Draw `num_sequences` sequences of `horizon` actions. Each number is uniform between its `low` and its `high`,
#   which are `[A]` and differ between the action dimensions, and independent of all others.
# - Score them all in **one** call of `score_fn`, with `[N, H, A]`.
# - Return the sequence with the highest score, `[H, A]`. Scores that are NaN or infinite (of either sign) rank
#   last. Where no score is finite, any of the sequences will do.
# - All random numbers come from `generator`: the same seed gives the same plan.

# %% kind="solution" of="random-shooting" ref="mpc:random_shooting"
# TODO: uniform numbers between 0 and 1 (torch.rand), brought to the range of each action dimension
# TODO: score them all at once, with invalid scores last, and return the best sequence

# %% [markdown]
# <details><summary>Hint: from [0, 1] to [low, high]</summary>
#
# `low + (high - low) * u`. With `u [N, H, A]` and `low [A]` torch lines up the last axes by itself.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# 1, the place of the NaN: torch (like NumPy) counts NaN as larger than everything. The planner would always
# choose the plan that breaks the model, if there is one. And the more sequences it tries, the surer it finds
# one.
# </details>

# %% kind="test" of="random-shooting" points=2
seen = []


def score_fn(sequences):
    check_shape("what score_fn was given", sequences, (50, 4, 2), "expected all sequences at once, [N, H, A]")
    seen.append(torch.as_tensor(sequences).clone())
    return 4 - ((seen[-1] - 0.3) ** 2).flatten(1).sum(dim=1)  # some are positive, others negative


low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.5])
given = low.clone(), high.clone()
plan = random_shooting(score_fn, *given, 50, 4, torch.Generator().manual_seed(0))
check_unchanged("low", given[0], low)
check_unchanged("high", given[1], high)
check_true(len(seen) == 1, f"score_fn was called {len(seen)} times, expected one call with all the sequences")
check_shape("the plan", plan, (4, 2), {(2,): "it is one action; the plan is the whole sequence [H, A]"})
scores = 4 - ((seen[0] - 0.3) ** 2).flatten(1).sum(dim=1)
check_close(
    "the plan",
    plan,
    seen[0][scores.argmax()],
    mistakes={
        "it is the sequence with the lowest score; larger is better": seen[0][scores.argmin()],
        "it is the sequence whose score is nearest to 0": seen[0][scores.abs().argmin()],
        "it is the first sequence": seen[0][0],
        "it is the last sequence": seen[0][-1],
        "it is the mean of all sequences": seen[0].mean(dim=0),
    },
    hint="expected the one of the scored sequences that has the highest score",
)
### BEGIN HIDDEN TESTS
wanted = torch.tensor([[0.7], [-1.4], [0.2]])  # [H, A]
seen.clear()


def score_fn(sequences):
    seen.append(torch.as_tensor(sequences).clone())
    return -(seen[-1] - wanted).abs().sum(dim=(1, 2)) - 1000  # negative scores are as good as others


plan = random_shooting(
    score_fn, torch.tensor([-2.0]), torch.tensor([2.0]), 4000, 3, torch.Generator().manual_seed(1)
)
check_close("the plan", plan, seen[0][(seen[0] - wanted).abs().sum(dim=(1, 2)).argmin()])
check_between("the best plan of 4000, less the wanted one", as_tensor("the plan", plan) - wanted, -0.6, 0.6)
plan = random_shooting(
    score_fn, torch.tensor([-2.0]), torch.tensor([2.0]), 1, 3, torch.Generator().manual_seed(1)
)
check_close("the only plan, with num_sequences=1", plan, seen[-1][0])
### END HIDDEN TESTS
print("Right: the best of the guesses is the plan.")

# %% kind="test" of="random-shooting" points=2
seen = []


def score_fn(sequences):
    seen.append(torch.as_tensor(sequences).clone())
    return torch.zeros(len(seen[-1]))


low, high = torch.tensor([-1.0, 0.0, 10.0]), torch.tensor([3.0, 0.5, 30.0])
generator = torch.Generator().manual_seed(0)
random_shooting(score_fn, low, high, 2000, 3, generator)
share = (seen[0] - low) / (high - low)  # [N, H, A], uniform between 0 and 1
check_between(
    "(action - low) / (high - low)", share, 0, 1, "actions lie between low and high, each dimension by itself"
)
check_between("its mean over the sequences", share.mean(dim=0), 0.45, 0.55, "expected a half: is it uniform?")
spread = share.std(dim=0)
check_between("its standard deviation", spread, 0.27, 0.31, "a uniform number between 0 and 1 has 0.289")
random_shooting(score_fn, low, high, 2000, 3, generator)
check_true(
    not torch.equal(seen[1], seen[0]),
    "two plans from one generator try the same sequences: draw from `generator` itself, which moves on",
)
### BEGIN HIDDEN TESTS
columns = share.reshape(2000, 9).T
check_between(
    "correlation between entries", torch.corrcoef(columns) - torch.eye(9), -0.12, 0.12, "is each drawn?"
)
check_between("the smallest share", share.amin(dim=0), 0, 0.02, "the whole range is used")
check_between("the largest share", share.amax(dim=0), 0.98, 1, "the whole range is used")
for seed in (5, 5, 6):
    random_shooting(score_fn, low, high, 20, 3, torch.Generator().manual_seed(seed))
check_close(
    "the sequences with the same seed", seen[3], seen[2], hint="all random numbers come from generator"
)
check_true(not torch.equal(seen[4], seen[3]), "other seeds give the same sequences: is generator passed on?")
### END HIDDEN TESTS
print("Right: the guesses are uniform, each action in its own range.")

# %% kind="test" of="random-shooting" points=2
nan, inf = float("nan"), float("inf")
seen = []
bad = {}


def score_fn(sequences):
    check_shape(
        "what score_fn was given", sequences, (100, 2, 1), "expected all sequences at once, [N, H, A]"
    )
    seen.append(torch.as_tensor(sequences).clone())
    scores = seen[-1][:, 0, 0].double()
    return torch.where(scores > 0, torch.full_like(scores, bad["score"]), scores)


low, high = torch.tensor([-1.0]), torch.tensor([1.0])
for value in (nan, inf):
    bad["score"] = value  # the score of every sequence whose first action is positive
    plan = random_shooting(score_fn, low, high, 100, 2, torch.Generator().manual_seed(1))
    first = seen[-1][:, 0, 0]
    best = torch.where(first > 0, -inf, first).argmax()
    check_close(
        f"the plan where half of the scores are {value}",
        plan,
        seen[-1][best],
        mistakes={
            f"it is a plan whose score is {value}: such plans rank last": seen[-1][
                (first > 0).long().argmax()
            ],
            "it is found by its number among the valid scores alone; the sequences are numbered among all": seen[
                -1
            ][first[first <= 0].argmax()],
        },
        hint=f"plans with the score {value} rank last; expected the best of the others",
    )
### BEGIN HIDDEN TESTS
bad["score"] = -inf
plan = random_shooting(score_fn, low, high, 100, 2, torch.Generator().manual_seed(3))
first = seen[-1][:, 0, 0]
check_close(
    "the plan where half of the scores are -inf", plan, seen[-1][torch.where(first > 0, -inf, first).argmax()]
)


def low_score_fn(sequences):  # however low a number, a plan may score less
    seen.append(torch.as_tensor(sequences).clone())
    scores = 1e12 * (seen[-1][:, 0, 0].double() - 2)
    return torch.where(seen[-1][:, 0, 0] > 0, nan, scores)


plan = random_shooting(low_score_fn, low, high, 100, 2, torch.Generator().manual_seed(1))
check_close(
    "the plan where finite scores are about -1e12",
    plan,
    seen[-1][torch.where(seen[-1][:, 0, 0] > 0, -inf, seen[-1][:, 0, 0]).argmax()],
    hint="invalid ones rank below every number: -inf, not a very low one",
)


def broken_score_fn(sequences):
    return torch.full((len(sequences),), nan)


try:
    plan = random_shooting(broken_score_fn, low, high, 10, 2, torch.Generator().manual_seed(0))
except (IndexError, RuntimeError, ValueError) as error:
    raise AssertionError(
        f"where no score is finite, any of the plans will do; but there was a {type(error).__name__}: {error}"
    ) from error
check_shape("the plan where no score is finite", plan, (2, 1))
check_between("the plan where no score is finite", plan, -1, 1)
### END HIDDEN TESTS
print("Right: plans that break the model stay out.")

# %% [markdown]
# Can we plan the whole way to the star in one go? It takes some 20 steps. We plan 25, to be safe: a point in 50 dimensions.
# Here is the best of 10, of 1,000, and of 100,000 guesses.

# %%
score_fn = make_score_fn(task, start_obs)
axes = new_axes(columns=3, width=4.0, height=4.3)
for ax, num_sequences in zip(axes, (10, 1_000, 100_000), strict=True):
    generator = torch.Generator().manual_seed(0)
    plan = random_shooting(score_fn, task.action_low, task.action_high, num_sequences, 25, generator)
    path = rollout(task.step, start_obs, plan[None]).obs[0, 0, :, :2]
    plot_state(ax, start_obs)
    ax.plot(*path.T, ".-", color=COLORS[3])
    ax.set_title(f"best of {num_sequences:,}: return {score_fn(plan[None]).item():.1f}", fontsize=11)
plt.show()

# %% [markdown]
# A hundred times the work buys surprisingly little. Random sequences are sums of independent steps, and such sums
# stay near their start; a straight march of 25 steps is beyond luck. Next week's planners search better. This
# week's answer is another one: don't plan the whole way. **Plan a little, act, and plan again.**

# %% [markdown] exercise="receding-horizon" number="2.4" title="Receding-horizon control" points=6 difficulty=2 minutes=20
# At every step of the real world:
#
# 1. plan $H$ steps from the *present* state;
# 2. carry out the **first** action of the plan, and throw the rest away;
# 3. look where that led, and go to 1.
#
# The horizon moves ahead of the agent like that of a walker, hence the name. The rest of the plan is never
# carried out; it is only there to give the first action a reason.
#
# **Predict first.** The model is a bit wrong, or there is wind that no model knows of. Which agent suffers more:
# the one that plans 25 steps and walks them with closed eyes, or the one that replans after each?
#
# **Write `receding_horizon`.**
#
# - `plan(obs)` returns an action sequence `[H, A]` for a state `[D]`. Call it once for each step, with the state
#   that the environment returned last (at the first step: `obs`).
# - `env_step(action)` takes one action `[A]` and returns `next_obs [D]`, a reward, `terminated`, `truncated`.
# - Stop after the step that is `terminated` or `truncated`, and after `max_steps` steps at the latest.
# - Return a `Batch` of the $T$ transitions in order, as in week 1: `obs [T, D]`, `action [T, A]`, `reward [T]`,
#   `next_obs [T, D]`, `terminated [T]` and `truncated [T]` (bools). `action` is what was carried out, and the flags are
#   those of the environment: where `max_steps` ends the loop, both stay false.

# %% kind="solution" of="receding-horizon" ref="mpc:receding_horizon"
# TODO: plan from the present state, and take the first action only
# TODO: keep the transition, go on from the new state, and stop where the episode ends
# TODO: put the transitions together, column by column

# %% [markdown]
# <details><summary>Hint: from transitions to columns</summary>
#
# With a list of tuples, `zip(*transitions)` gives the columns. Tensors are put together by `torch.stack`, numbers
# and flags by `torch.tensor`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The one with closed eyes. Its errors add up, and it never notices. The other one starts afresh from where it
# really is, so only the error of a single step is left at any time. Feedback is what makes a mediocre model
# good enough. You will see it below.
# </details>

# %% kind="test" of="receding-horizon" points=2
steps = []
planned = []


def plan(obs):  # the first action goes by the state; the others are different
    planned.append(torch.as_tensor(obs).clone())
    return torch.cat([planned[-1][:1] + 0.5, torch.tensor([77.0, 99.0, 99.0])]).unsqueeze(-1)  # [H, A]


def env_step(action):
    check_true(len(steps) < 50, "env_step was called 50 times with max_steps=4: there is no end")
    steps.append(torch.as_tensor(action).clone())
    number = float(len(steps))
    return torch.tensor([10 * number, -number]), number, False, False


episode = receding_horizon(torch.tensor([3.0, 0.0]), plan, env_step, max_steps=4)
check_true(episode is not None, "receding_horizon returned None: is a `return` missing?")
check_true(len(steps) > 0, "env_step was never called")
check_shape(
    "what env_step was given", steps[0], (1,), {(4, 1): "it is the whole plan, expected its first action [A]"}
)
actions = torch.stack(steps)
check_true(
    not (actions > 70).any(),
    f"env_step was given the actions {actions[:, 0].tolist()}: the first action of each plan alone is carried out, "
    "then comes a new plan",
)
check_true(len(steps) == 4, f"env_step was called {len(steps)} times, expected max_steps=4")
check_true(
    len(planned) == 4, f"plan was called {len(planned)} times for 4 steps, expected once for each step"
)
check_close(
    "the states that plan was given",
    torch.stack(planned),
    [[3.0, 0.0], [10.0, -1.0], [20.0, -2.0], [30.0, -3.0]],
    mistakes={
        "it is always the first one: plan from where the last step led": [[3.0, 0.0]] * 4,
        "it is one step late": [[3.0, 0.0], [3.0, 0.0], [10.0, -1.0], [20.0, -2.0]],
    },
    hint="plan from the state that env_step returned last",
)
### BEGIN HIDDEN TESTS
check_close("the actions that env_step was given", actions, [[3.5], [10.5], [20.5], [30.5]])
check_close("the episode's actions", episode[1], actions)
### END HIDDEN TESTS
print("Right: one plan, one action, one look.")

# %% kind="test" of="receding-horizon" points=2
log = []


def plan(obs):
    return torch.zeros(3, 2)


def make_env_step(terminates_at, truncates_at):
    log.clear()

    def env_step(action):
        log.append(action)
        check_true(len(log) <= 20, "the episode goes on and on: is max_steps forgotten?")
        return torch.zeros(1), 1.0, len(log) == terminates_at, len(log) == truncates_at

    return env_step


for terminates_at, truncates_at, expected in ((3, 0, 3), (0, 4, 4), (0, 0, 10)):
    env_step = make_env_step(terminates_at, truncates_at)
    episode = receding_horizon(torch.zeros(1), plan, env_step, max_steps=10)
    if expected == 10:
        why = "max_steps=10"
    else:
        why = f"step {expected} is {'terminated' if terminates_at else 'truncated'}: no step comes after it"
    check_true(len(log) == expected, f"env_step was called {len(log)} times, expected {expected} ({why})")
    check_true(
        len(episode) == 6,
        f"{len(episode)} things were returned, expected a Batch: six columns, one for each name",
    )
    last_too = {(expected - 1,): f"one for each of the {expected} steps, the last one included"}
    check_shape("reward", episode[2], (expected,), last_too)
### BEGIN HIDDEN TESTS
for terminates_at, truncates_at in ((1, 0), (2, 2), (0, 10), (10, 0)):
    env_step = make_env_step(terminates_at, truncates_at)
    episode = receding_horizon(torch.zeros(1), plan, env_step, max_steps=10)
    expected = terminates_at or truncates_at
    check_true(len(log) == expected, f"env_step was called {len(log)} times, expected {expected}")
    last = torch.arange(1, expected + 1) == expected
    check_close("terminated", episode[4], last & (terminates_at == expected))
    hint = "each flag is what env_step returned; reaching max_steps does not change them"
    check_close("truncated", episode[5], last & (truncates_at == expected), hint=hint)
env_step = make_env_step(0, 0)
episode = receding_horizon(torch.zeros(1), plan, env_step, max_steps=1)
check_true(len(log) == 1, f"env_step was called {len(log)} times, expected 1 with max_steps=1")
check_close("terminated, where max_steps ends the loop", episode[4], [False])
check_close("truncated, where max_steps ends the loop", episode[5], [False])
### END HIDDEN TESTS
print("Right: the episode ends where it should.")

# %% kind="test" of="receding-horizon" points=2
position = [0.0]


def plan(obs):
    return torch.tensor([[1.0, float(obs[0])], [-5.0, -5.0]])  # [H, A]


def env_step(action):
    check_true(position[0] < 20, "the environment was stepped after its end")
    position[0] += float(action[0])
    return torch.tensor([position[0], 2 * position[0], 7.0]), -position[0], position[0] == 3, False


episode = receding_horizon(torch.tensor([0.0, 0.0, 7.0]), plan, env_step, max_steps=10)
check_true(
    hasattr(episode, "next_obs"),
    f"the episode is a {type(episode).__name__}, expected a Batch of its transitions",
)
for name, column in episode._asdict().items():
    check_true(
        hasattr(column, "shape"),
        f"the column {name} is a {type(column).__name__}, expected one tensor (torch.stack, torch.tensor)",
    )
check_close(
    "obs",
    episode.obs,
    [[0.0, 0.0, 7.0], [1.0, 2.0, 7.0], [2.0, 4.0, 7.0]],
    mistakes={
        "every row is the last state: a single tensor is changed in place": [[3.0, 6.0, 7.0]] * 3,
        "these are the states after the step: they belong to next_obs": [
            [1, 2, 7.0],
            [2, 4, 7.0],
            [3, 6, 7.0],
        ],
    },
)
check_close(
    "next_obs",
    episode.next_obs,
    [[1.0, 2.0, 7.0], [2.0, 4.0, 7.0], [3.0, 6.0, 7.0]],
    mistakes={"these are the states before the step": [[0, 0, 7.0], [1, 2, 7.0], [2, 4, 7.0]]},
)
check_close("action", episode.action, [[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
check_close(
    "reward",
    episode.reward,
    [-1.0, -2.0, -3.0],
    mistakes={"it is the sum of the rewards so far, expected that of each step": [-1.0, -3.0, -6.0]},
)
check_close("terminated", episode.terminated, [False, False, True])
check_close("truncated", episode.truncated, [False, False, False])
for name in ("terminated", "truncated"):
    flags = as_tensor(name, getattr(episode, name))
    check_true(
        flags.dtype == torch.bool, f"{name} holds numbers, expected bools: torch.tensor of True and False"
    )
print("Right: the transitions fit together.")

# %% [markdown]
# Now your four functions drive the point. The planner class below puts 2.3 behind the `plan(obs)` of 2.4, and
# `run_episode` connects it to a real environment.

# %% kind="given" ref="mpc:RandomShootingConfig,Planner,Policy,RandomShootingPlanner,run_episode"

# %%
generator = torch.Generator().manual_seed(0)
config = RandomShootingConfig(num_sequences=500, horizon=10)
planner = RandomShootingPlanner(task, task.action_low, task.action_high, config, generator)
episode = run_episode(task, planner, seed=13)
states = torch.cat([episode.obs, episode.next_obs[-1:]])
rewards = torch.cat([torch.zeros(1), episode.reward])
episode_film(task, states, rewards=rewards, fps=8, title="random shooting", progress=False)

# %% [markdown]
# The same episode in one picture: the path that was walked, and at every step the plan that its action came from.
# The plans are crooked (they are the best of 500 crooked ones), and yet the path is rather straight: at each
# step only the *first* action has to be good.

# %%
ax = new_axes(width=5.0, height=5.0)[0]
plot_state(ax, states[0])
for obs in episode.obs:
    path = rollout(task.step, obs, planner.plan(obs)[None]).obs[0, 0, :, :2]
    ax.plot(*path.T, color=COLORS[0], linewidth=1, alpha=0.7)
ax.plot(*states[:, :2].T, "o-", color=COLORS[3], markersize=5, linewidth=2.5, zorder=5)
ax.set_title(f"{len(episode.reward)} steps, return {episode.reward.sum():.1f}")
plt.show()

# %% [markdown]
# ### With closed eyes
#
# On a calm day the planner walks from our first start to the star. Now there is a breeze from the east, with gusts,
# and nobody knows of it. On the left, the actions of the calm day are repeated with closed eyes; on the right, the
# planner plans anew after each step, in a model without wind. Ten walks each.


# %%
def walk_in_wind(choose_action, seed, num_steps=40):
    """The path [T + 1, 2] of a point that is blown about; `choose_action(obs, step)` returns an action [A]."""
    generator = torch.Generator().manual_seed(seed)
    obs, path = start_obs, [start_obs[:2]]
    for number in range(num_steps):
        wind = torch.tensor([-0.1, 0.0]) + 0.3 * torch.randn(2, generator=generator)
        obs, _, terminated = task.step(obs, choose_action(obs, number) + wind)
        path.append(obs[:2])
        if terminated:
            break
    return torch.stack(path)


def calm_step(action):
    calm_obs.append(task.step(calm_obs[-1], action)[0])
    return calm_obs[-1], 0.0, bool(task.terminated(calm_obs[-1])), False


calm_obs = [start_obs]
calm = receding_horizon(start_obs, planner.plan, calm_step, max_steps=40).action  # [T, A]
walkers = {
    "Closed eyes": lambda obs, number: calm[number] if number < len(calm) else torch.zeros(2),
    "Replanning": lambda obs, number: planner.plan(obs)[0],
}
axes = new_axes(columns=2, width=4.6, height=4.9)
for ax, (name, choose_action) in zip(axes, walkers.items(), strict=True):
    plot_state(ax, start_obs)
    arrived = 0
    for seed in range(10):
        path = walk_in_wind(choose_action, seed)
        arrived += int((path[-1] - start_obs[2:]).norm() <= 0.1)
        ax.plot(*path.T, color=COLORS[0], linewidth=1.2, alpha=0.7)
        ax.plot(*path[-1], "o", color=COLORS[3], markersize=6, markeredgecolor="white", zorder=6)
    ax.plot(*torch.stack(calm_obs)[:, :2].T, color="black", linestyle="--", linewidth=1.5, zorder=5)
    ax.set_title(f"{name}: {arrived} of 10 arrive")
plt.show()

# %% [markdown]
# ### How far ahead, and how many guesses?
#
# More guesses should only help, but for the time they take. The horizon is another matter. Two tasks with the true
# dynamics, the mean return over a few starts: the obstacles, and a pendulum that is too weak to swing up in one
# go. **Which of the two needs a long horizon? And what is wrong with a very long one?**


# %%
def mean_return(task, num_sequences, horizon, seeds, max_steps):
    """Mean return of random shooting in the true dynamics over episodes with these seeds."""
    config = RandomShootingConfig(num_sequences, horizon)
    total = 0.0
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        planner = RandomShootingPlanner(task, task.action_low, task.action_high, config, generator)
        total += run_episode(task, planner, seed, max_steps).reward.sum().item()
    return total / len(seeds)


pendulum = get_task("pendulum")
panels = (
    ("Obstacles", task, (2, 5, 10, 20), range(3), 50),
    ("Pendulum, 80 steps", pendulum, (2, 6, 12, 25), (2, 4), 80),
)
axes = new_axes(columns=2, width=5.0, height=3.8)
for ax, (name, which, horizons, seeds, max_steps) in zip(axes, panels, strict=True):
    for num_sequences, color in zip((10, 100, 1000), COLORS, strict=False):
        values = [mean_return(which, num_sequences, horizon, seeds, max_steps) for horizon in horizons]
        ax.plot(horizons, values, "o-", color=color, label=f"{num_sequences} sequences")
    ax.set(xlabel="horizon", ylabel="return", xscale="log", xticks=horizons, xticklabels=horizons)
    ax.minorticks_off()
    ax.set_title(name)
axes[0].legend(loc="lower left")
plt.show()

# %% [markdown]
# The point does well with a look two steps ahead: its reward says at every step which way to go, and the walls are
# small. The pendulum has to move *away* from its goal first, and a planner that sees two steps does not know what
# for: it hangs. But every further step of the horizon is also a further dimension to search, so with few guesses a
# long plan is a bad plan. That is the price of random shooting, and it is why week 3 exists.
# (The pendulum's curve is a mean over two starts: that 100 guesses beat 1,000 at one horizon may well be chance.)

# %% [markdown] exercise="on-policy-loop" number="2.5" title="The on-policy loop" points=5 difficulty=2 minutes=15
# Away with the oracle. The model is now learned, from data of random actions at first. But random actions stay near
# where they start, and a planner takes the point to places that the model has never seen. There, the model is
# wrong, and the planner *looks* for places where the model is wrong in its favour.
#
# The remedy is to let the planner collect the next data (Nagabandi et al., 2018, Algorithm 1; Ross and Bagnell,
# 2012). Wherever its plans lead, the model gets corrected just there:
#
# > collect with random actions $\to \mathcal{D}$; then repeat: fit the model to $\mathcal{D}$, collect with the
# > planner, add the new data to $\mathcal{D}$
#
# **Predict first.** Why fit to *all* data, rather than to the newest, which are the most relevant?
#
# **Write `on_policy_loop`.**
#
# - `collect(policy)` returns new transitions, a `Batch`, and the mean return of their episodes. The first call is
#   `collect(None)`: random actions.
# - `fit(data)` fits the model to a `Batch` of **all** transitions so far, the oldest first, and returns the policy
#   that plans in the model. Hand it to the next `collect` as it is.
# - After the first `collect`, do `num_iterations` times: fit, then collect. (With `num_iterations=0` only the
#   random data are collected.)
# - Return all transitions, those of the last `collect` included, as one `Batch` in the order in which they came;
#   and the list of the `num_iterations + 1` mean returns. `concatenate` from week 1 makes one batch of a list of
#   them.

# %% kind="solution" of="on-policy-loop" ref="mpc:on_policy_loop"
# TODO: random data first, then fit and collect in turn, and keep every batch and every return

# %% [markdown]
# <details><summary>Answer to the prediction</summary>
#
# The newest data lie along the paths of one policy. A model that has forgotten everything else imagines paradise
# beside the path, the planner goes there, and the next model forgets the path. Old data cost memory, nothing else.
# </details>


# %% kind="test" of="on-policy-loop" points=2
def transitions(first, count):
    numbers = torch.arange(first, first + count).float()  # [N]
    no = torch.zeros(count, dtype=torch.bool)
    return Batch(numbers[:, None], -numbers[:, None], 10 * numbers, numbers[:, None] + 1, no, no)


events = []


def collect_data(policy):
    events.append(f"collect({policy})")
    number = sum(event.startswith("collect") for event in events) - 1
    return transitions(2 * number, 2), -100.0 + number


def fit(data):
    check_true(len(events) < 50, "fit is called again and again: is num_iterations forgotten?")
    number = sum(event.startswith("fit") for event in events)
    events.append("fit")
    return f"policy {number}"  # whatever it is, it goes to collect


result = on_policy_loop(collect_data, fit, 2)
check_true(result is not None, "on_policy_loop returned None: is a `return` missing?")
check_true(
    type(result) in (tuple, list) and len(result) == 2,
    "on_policy_loop returned something else than two things: all transitions, and the list of mean returns",
)
check_true(
    hasattr(result[0], "next_obs"),
    "the first thing returned is no Batch: first the data (as one Batch, by concatenate), then the returns",
)
expected = ["collect(None)", "fit", "collect(policy 0)", "fit", "collect(policy 1)"]
hint = ""
collects = [event for event in events if event != "fit"]
if collects[:1] != ["collect(None)"]:
    hint = ": random data come first, from collect(None)"
elif len(collects) != 3:
    hint = ": num_iterations counts the pairs of fit and collect after the random data"
elif events.count("fit") == 1:
    hint = ": the model is fitted anew in every iteration"
elif collects == ["collect(None)"] * 3:
    hint = ": give collect the policy that fit returned"
elif events[-1] == "fit":
    hint = ": the last thing is to collect; nobody would use the last fit"
check_true(
    events == expected, f"the order of calls was {', '.join(events)}, expected {', '.join(expected)}{hint}"
)
### BEGIN HIDDEN TESTS
events.clear()
data, returns = on_policy_loop(collect_data, fit, 0)
check_true(events == ["collect(None)"], f"with num_iterations=0 the calls were {', '.join(events)}")
check_close("the data with num_iterations=0", data[2], [0.0, 10.0])
check_close("the returns with num_iterations=0", returns, [-100.0])
events.clear()
on_policy_loop(collect_data, fit, 5)
expected = ["collect(None)"] + [call for i in range(5) for call in ("fit", f"collect(policy {i})")]
check_true(events == expected, f"with num_iterations=5 the calls were {', '.join(events)}")
### END HIDDEN TESTS
print("Right: random data first, then fit and collect in turn.")


# %% kind="test" of="on-policy-loop" points=2
def transitions(first, count):
    numbers = torch.arange(first, first + count).float()  # [N]
    no = torch.zeros(count, dtype=torch.bool)
    return Batch(numbers[:, None], -numbers[:, None], 10 * numbers, numbers[:, None] + 1, no, no)


sizes = [5, 2, 1, 3]  # transitions of each collect
fitted, given = [], []


def collect_data(policy):
    count = sizes[len(given)]
    given.append(count)
    return transitions(sum(given) - count, count), float(count)


def fit(data):
    check_true(
        hasattr(data, "next_obs"),
        f"fit was given a {type(data).__name__}, expected one Batch of all transitions: use concatenate",
    )
    fitted.append(as_tensor("the data that fit was given", data[0])[:, 0])  # obs [N, 1]
    return "a policy"


data, returns = on_policy_loop(collect_data, fit, 3)
check_true(
    len(data) == 6,
    f"{len(data)} batches are returned, expected all transitions as one Batch: use concatenate",
)
numbers = [values.tolist() for values in fitted]
hint = "fit is given all transitions so far, the oldest first"
if [len(values) for values in numbers] == sizes[:3]:
    hint = "fit is given the newest transitions alone, expected all so far"
for number, values in enumerate(fitted):
    size = sum(sizes[: number + 1])
    check_shape(f"obs of the data in fit number {number}", values, (size,), hint)
    check_close(f"obs of the data in fit number {number}", values, torch.arange(float(size)), hint=hint)
check_shape(
    "obs of the data that on_policy_loop returns",
    data[0],
    (11, 1),
    {
        (8, 1): "are the transitions of the last collect missing?",
        (6, 1): "are the random ones missing?",
        (3, 1): "these are the last ones alone",
    },
)
check_close("obs of the data that on_policy_loop returns", data[0], torch.arange(11.0)[:, None])
### BEGIN HIDDEN TESTS
check_close("reward of the data", data[2], 10 * torch.arange(11.0))
check_close("action of the data", data[1], -torch.arange(11.0)[:, None])
check_close("next_obs of the data", data[3], torch.arange(11.0)[:, None] + 1)
check_shape("truncated of the data", data[5], (11,))
### END HIDDEN TESTS
print("Right: the model sees all data.")

# %% kind="test" of="on-policy-loop" points=1
column, no = torch.zeros(1, 1), torch.zeros(1, dtype=torch.bool)
values = [-170.0, -30.0, -60.0]  # they do not always rise
left = list(values)


def collect_data(policy):
    return Batch(column, column, column[0], column, no, no), left.pop(0)


result = on_policy_loop(collect_data, lambda data: "a policy", 2)
check_true(
    len(result) == 2, f"on_policy_loop returned {len(result)} things, expected two: data and mean returns"
)
check_shape("the mean returns", result[1], (3,), {(2,): "is that of the random data missing? It comes first"})
check_close("the mean returns", result[1], values, hint="each is that of its own collect, in order")
print("Right: all returns are there.")

# %% [markdown]
# ## A learned model
#
# Everything together, on the obstacles: last week's `DynamicsModel` with three members, your rollout, returns,
# random shooting and receding horizon, in your loop. 1,000 random steps, then four times 200 steps of planning.
#
# One choice in the code deserves a word: the model is told that episodes *never* end. That is against the rules of
# exercise 2.2, and still the better choice here; the prediction in 2.2 says why, and `experiments` measures it.

# %%
generator = torch.Generator().manual_seed(0)
model = DynamicsModel(
    task.obs_dim,
    task.action_dim,
    DynamicsConfig(ensemble_size=3, hidden_sizes=(64, 64)),
    reward=task.reward,
    terminated=never_terminates,
    generator=generator,
)
config = RandomShootingConfig(num_sequences=200, horizon=10)
learned = RandomShootingPlanner(model, task.action_low, task.action_high, config, generator)


def collect_data(policy):
    if policy is None:
        return collect_random(task, 1000, generator)
    collected = collect(task, policy, 200, generator)
    return collected.data, collected.mean_return


def fit(data):
    model.fit(data, num_steps=300, generator=generator)
    return lambda obs: learned.plan(obs)[0]


data, returns = on_policy_loop(collect_data, fit, num_iterations=4)
oracle = RandomShootingPlanner(task, task.action_low, task.action_high, config, generator)
oracle_return = evaluate(task, lambda obs: oracle.plan(obs)[0], 5, progress=False).mean()
print("mean returns:", [round(value, 1) for value in returns], f" oracle: {oracle_return:.1f}")

# %%
axes = new_axes(columns=2, width=5.0, height=4.6)
ax = axes[0]
ax.plot(range(5), returns, "o-", color=COLORS[0], label="learned model")
ax.axhline(oracle_return, color=COLORS[2], linestyle="--", label="true dynamics")
ax.axhline(returns[0], color=GREY, linestyle=":", label="random policy")
ax.set(xlabel="iteration (0: random actions)", ylabel="mean return", xticks=range(5))
ax.set_title("Planning in a learned model")
ax.legend(loc="center right")
ax = axes[1]
plot_map(ax)
ax.plot(*data.obs[:1000, :2].T, ".", color=GREY, markersize=3, alpha=0.5, label="random actions")
for number in range(4):
    rows = data.obs[1000 + 200 * number : 1200 + 200 * number, :2]
    label = f"iteration {number + 1}" if number in (0, 3) else None
    ax.plot(*rows.T, ".", color=plt.cm.plasma(0.15 + 0.22 * number), markersize=5, label=label)
ax.plot(*start_obs[2:], marker="*", color=COLORS[2], markersize=16)
ax.set_title("Where the data are")
ax.legend(loc="lower left", frameon=True, framealpha=0.9, edgecolor="none")
plt.show()

# %% [markdown]
# Random actions hardly ever get near the star. The first planner does, since the model generalises a bit; from then
# on there are data where they are needed. One iteration brings most of it. After that the curve goes up and down: 200
# steps are a handful of episodes, and a single one that hangs on a wall for long costs a lot. One curve from one seed
# is an anecdote; `experiments` has several.
#
# What has the model learned? The same 60 action sequences from the same state, once in the model and once in truth.

# %%
wall_obs = torch.tensor([-0.2, 0.88, 0.7, -0.8])  # just above a wall
sequences = random_sequences(task, 60, 10, seed=3)
sequences[:, :, 1] = -sequences[:, :, 1].abs()  # all of them head down, into the wall
axes = new_axes(columns=2, width=4.6, height=4.9)
with torch.no_grad():
    fans = {
        "In the learned model (member 1)": rollout(model.step, wall_obs, sequences, model.ensemble_size),
        "In truth": rollout(task.step, wall_obs, sequences),
    }
for ax, (name, fan) in zip(axes, fans.items(), strict=True):
    plot_state(ax, wall_obs)
    for path in fan.obs[0, ..., :2]:
        ax.plot(*path.T, color=COLORS[0], linewidth=1, alpha=0.6)
    ax.set_title(name)
plt.show()

# %% [markdown]
# A wall is a cliff in the dynamics: a hair to the left the step is taken, a hair to the right it is not. A smooth
# network averages over it, and imagines that one can seep through. And yet the planner arrives: when it stands before
# the wall and does not move, it plans again, and sooner or later a way around comes up among the guesses. Replanning
# hides a lot of model error. Week 4 makes a model that *says* that it doesn't know.

# %% [markdown]
# ## What to take along
#
# - MPC = imagine, score, take the first action, look, repeat. No policy is learned, and a new reward needs no new
#   training.
# - Everything but time runs in parallel. That is what makes a thousand futures per step affordable.
# - The ending step counts, nothing after it does, and NaN never wins.
# - Random shooting is honest work in few dimensions, and lost in many. Long horizons cost it dearly.
# - Feedback forgives: replanning repairs small model errors and unknown winds.
# - A model is good where it has data, and a planner leaves that place at once. So collect with the planner, and keep
#   all data.
#
# ## Test yourself
#
# <details><summary>1. Why does <code>rollout</code> go on past the end of an episode?</summary>
#
# All trajectories of a batch have the same length, and to pick out those that are still alive costs more than to
# carry them along. The returns ignore what came after the end.
# </details>
# <details><summary>2. Twice the horizon, the same number of sequences: name one thing that gets better and two that
# get worse.</summary>
#
# The planner sees rewards that come later. But it needs twice the time per plan, and it searches in twice as many
# dimensions with the same number of guesses. With a learned model there is a third: the errors of the prediction
# grow with every step.
# </details>
# <details><summary>3. The best of 1,000 plans scores -12 in the learned model. Would you expect it to score -12 in
# truth?</summary>
#
# No, less. The maximum of many noisy scores is too high on average: among plans of equal worth, the one that the
# model errs about in its favour wins. This *optimiser's curse* grows with the number of sequences and with the
# model's error.
# </details>
# <details><summary>4. A task gives reward 1 at the goal and 0 everywhere else. What does random shooting do with
# it?</summary>
#
# As long as none of its sequences reaches the goal within the horizon, all scores are equal, and it acts at random.
# Planning by guessing needs a reward that says something nearby.
# </details>
# <details><summary>5. Which of your functions would have to change for a policy gradient agent instead of a
# planner?</summary>
#
# The rollout and the returns stay (Dyna in week 6 and MBPO in week 7 use them, with actions from a policy); the loop
# stays, too. Random shooting and the receding horizon go: the policy answers in one forward pass, which is cheap when
# acting, and dear in training.
# </details>
#
# ## Where next
#
# Open `experiments.ipynb` beside this notebook. It runs on *your* functions: the obstacles as CS285 poses them, what
# happens when a plan may end early, and CartPole with a model that sees more and more data. Next week the guesses
# learn.
