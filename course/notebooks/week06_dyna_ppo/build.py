# %% [markdown]
# # Week 6 · Dyna-PPO
#
# So far a model was something to *plan* in. A planner thinks hard before each step, and remembers nothing. This
# week the model gets another use: a **policy** practises in it. After each bit of real experience the agent
# closes its eyes, imagines what its policy would do from states that it has seen, and learns from that as if it
# had happened. The idea is called Dyna, and it is older than deep learning.
#
# The learner is PPO, the workhorse of model-free reinforcement learning: robust, simple, and hungry for data. A
# model could feed it. Whether it does, or whether it feeds it nonsense, is not a matter of opinion: you will
# build the agent with and without the model, and the experiments of this week measure the difference.
#
# **After this notebook you can**
#
# - estimate advantages, and tell an episode that *ended* from one that was *cut off*;
# - write PPO's clipped objective, and say what it forbids and what it does not;
# - measure a model's loss where the policy is now, not where it was;
# - imagine a batch of rollouts that end where the model says so, and stop where the model is not to be trusted;
# - mix real and imagined updates, and keep the books;
# - use the same ensemble for planning, and ask a plan to succeed in its worst member.
#
# **Where it comes from**
#
# - Sutton, 1991, *Dyna, an integrated architecture for learning, planning, and reacting*: learn from what
#   happens, learn a model, learn from the model.
# - Schulman et al., 2017, [*Proximal policy optimization algorithms*](https://arxiv.org/abs/1707.06347), and
#   Schulman et al., 2016, [*High-dimensional continuous control using generalized advantage
#   estimation*](https://arxiv.org/abs/1506.02438).
# - Kurutach et al., 2018, [*Model-ensemble trust-region policy
#   optimization*](https://arxiv.org/abs/1802.10592): a policy-gradient method that learns in an ensemble.
#
# **How it goes.** Seven exercises, 30 points, about two and a half hours; the notebook itself runs in less than
# a minute. Fill in the cells that raise `NotImplementedError`. The checks below each of them tell at once
# whether your code is right, and what is likely wrong with it. When you hand in, hidden checks are added; they
# test nothing that the text does not say. One rule holds for all exercises: a function leaves the tensors that it
# is given as they are.

# %% kind="setup"
from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from mbrl_course.buffers import Batch, ReplayBuffer
from mbrl_course.cem import CEMConfig, cem_plan, shift_plan
from mbrl_course.checking import (
    as_tensor,
    check_between,
    check_close,
    check_shape,
    check_true,
    check_unchanged,
    gradients,
)
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble, Prediction, split_variance
from mbrl_course.envs import get_task
from mbrl_course.envs.planned import PlannedActions
from mbrl_course.envs.resumable import ResumableEnv
from mbrl_course.envs.task import Task
from mbrl_course.evaluation import collect_random
from mbrl_course.mpc import StepFunction, rank_invalid_last, rollout, run_episode, sequence_returns
from mbrl_course.networks import check_widths, orthogonal_mlp
from mbrl_course.pets import worst_case
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least, need_in_unit, need_positive, need_whole

use_style()

# %% [markdown] exercise="advantages" number="6.1" title="How much better than expected?" points=5 difficulty=3 minutes=25
# A policy gradient makes good actions more likely. Good means: *better than expected*. The expectation is the
# value function $V(s)$, which a second network learns, and what is left is the **advantage**. After one step the
# surprise is
#
# $$\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)$$
#
# It has little noise, but it believes $V(s_{t+1})$, which may be wrong. The sum of all rewards to the end
# believes nothing, but it is noisy. Generalised advantage estimation (GAE) lies between the two, with one knob
# $\lambda$ (Schulman et al., 2016, Eq. 16):
#
# $$A_t = \delta_t + \gamma\lambda\, \delta_{t+1} + (\gamma\lambda)^2\, \delta_{t+2} + \dots
#   \qquad\Longleftrightarrow\qquad A_t = \delta_t + \gamma\lambda\, A_{t+1}$$
#
# $\lambda = 0$ is the one-step surprise, $\lambda = 1$ the whole sum of rewards less $V(s_t)$.
#
# Now to where most implementations go wrong. A batch of $T$ steps holds the end of one episode and the
# beginning of the next. An episode stops for one of two reasons:
#
# - **terminated**: the pole has fallen. Nothing follows, so there is no value to come: $V(s_{t+1})$ counts as 0.
# - **truncated**: the clock has stopped, after 500 steps say. The world would go on, so the value of the state
#   that was reached *does* count.
#
# In both cases row $t + 1$ belongs to another episode, and its advantage must not leak into row $t$: the
# recursion starts anew. If a step is marked as both, the pole has fallen: it is terminated.
#
# **Predict first.** CartPole pays 1 for each step, and your policy never lets the pole fall. Episodes are cut off
# after 500 steps. Someone masks the bootstrap at truncated steps too. With $\gamma = 0.99$, what would the value
# of a state be, and what does that agent believe about the last step before the clock stops?
#
# **Write `generalized_advantages`.**
#
# - `rewards`, `values` $V(s_t)$ and `next_values` $V(s_{t+1})$ are `[T, N]`, for $N$ environments side by side;
#   `terminated` and `truncated` are bool `[T, N]`. `next_values` are those of the state that step $t$ led to,
#   before any reset, so that you never have to look at row $t + 1$ of `values`.
# - Return the advantages, `[T, N]`. After the last row of the batch nothing is known: $A_T = 0$ there, so the last
#   row's advantage is its $\delta$.
# - Leave the arguments as they are.

# %% kind="solution" of="advantages" ref="ppo:generalized_advantages"
# TODO: delta of every step at once; V(s_{t+1}) counts only where the step did not terminate
# TODO: backwards in time, A_t = delta_t + gamma * lambda * A_{t+1}, but nothing flows over the end of an episode

# %% [markdown]
# <details><summary>Hint: masks</summary>
#
# A bool tensor times a float tensor works: `next_values * ~terminated`. The recursion has a mask of its own,
# `~(terminated | truncated)`: two questions, two masks.
# </details>
# <details><summary>Hint: backwards</summary>
#
# `for t in range(T - 1, -1, -1)`, with a running `[N]` that starts at zero.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# $1 + 0.99 + 0.99^2 + \dots = 100$. Without the bootstrap the last step before the clock looks like $\delta = 1 +
# 0 - 100 = -99$: a catastrophe. It spreads back over the steps before, through $\lambda$, and punishes whatever
# they did. As the state does not tell the time, the value function also learns a muddle of both. The better the
# policy gets, the more often it meets the clock: this bug hurts those who do well.
# </details>

# %% kind="test" of="advantages" points=2
rewards = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 8.0]])  # [T, N]
values = torch.tensor([[1.0, 3.0], [2.0, 0.0], [0.0, 2.0]])
next_values = torch.tensor([[2.0, 0.0], [0.0, 2.0], [4.0, 0.0]])
no = torch.zeros(3, 2, dtype=torch.bool)
columns = rewards, values, next_values, no, no
given = [column.clone() for column in columns]
advantages = generalized_advantages(*given, gamma=0.5, gae_lambda=0.5)
for name, value, before in zip(("rewards", "values", "next_values"), given, columns, strict=False):
    check_unchanged(name, value, before, "make new tensors (rewards + ..., not rewards += ...)")
check_shape(
    "advantages", advantages, (3, 2), {(2, 3, 2): "the advantages alone: what the values learn comes later"}
)
deltas = torch.tensor([[1.0, -3.0], [0.0, 1.0], [6.0, 6.0]])
check_close(
    "advantages of three steps without an end, gamma = lambda = 0.5",
    advantages,
    [[1.375, -2.375], [1.5, 2.5], [6.0, 6.0]],
    mistakes={
        "these are the one-step surprises: A_{t+1} is missing": deltas,
        "the recursion begins with next_values, expected with 0": [
            [1.4375, -2.375],
            [1.75, 2.5],
            [7.0, 6.0],
        ],
        "the recursion runs forwards in time, expected backwards": [
            [1.0, -3.0],
            [0.25, 0.25],
            [6.0625, 6.0625],
        ],
        "A_{t+1} is multiplied by one of the two, expected gamma * lambda": [
            [2.5, -1.0],
            [3.0, 4.0],
            [6.0, 6.0],
        ],
        "A_{t+1} is added as it is, expected gamma * lambda times that": [[7.0, 4.0], [6.0, 7.0], [6.0, 6.0]],
        "the rows are in reversed order: the last step was computed first": [
            [6.0, 6.0],
            [1.5, 2.5],
            [1.375, -2.375],
        ],
        "all rows are one tensor that was changed in place (+=, *=): make a new one in each step": [
            [1.375, -2.375]
        ]
        * 3,
        "the last row is left out: its advantage is its delta": [[1.0, -2.75], [0.0, 1.0], [0.0, 0.0]],
        "the first row is left out": [[0.0, 0.0], [1.5, 2.5], [6.0, 6.0]],
        "V(s_t) was added again: that is the value's target, expected the advantage": [
            [2.375, 0.625],
            [3.5, 2.5],
            [6.0, 8.0],
        ],
        "V(s_{t+1}) is the column next_values, expected no look at the next row of values": [
            [1.25, -2.375],
            [1.0, 2.5],
            [4.0, 6.0],
        ],
        "delta is r + gamma V(s') without - V(s)": [[2.875, 0.75], [3.5, 3.0], [6.0, 8.0]],
        "V(s_{t+1}) is not discounted": [[2.5, -2.125], [2.0, 3.5], [8.0, 6.0]],
    },
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
rewards, values, next_values = torch.randn(3, 9, 4, generator=generator)
no = torch.zeros(9, 4, dtype=torch.bool)
for gamma, gae_lambda in ((0.9, 0.0), (0.9, 1.0), (1.0, 0.7), (0.0, 0.5), (0.97, 0.8)):
    deltas = rewards + gamma * next_values - values
    expected = torch.stack(
        [sum((gamma * gae_lambda) ** k * deltas[t + k] for k in range(9 - t)) for t in range(9)]
    )
    result = generalized_advantages(rewards, values, next_values, no, no, gamma, gae_lambda)
    check_close(f"advantages with gamma {gamma} and lambda {gae_lambda}", result, expected)
### END HIDDEN TESTS
print("Right: surprises, summed up backwards.")

# %% kind="test" of="advantages" points=2
rewards, values = torch.ones(3, 3), torch.zeros(3, 3)  # [T, N]
next_values = torch.full((3, 3), 10.0)
terminated, truncated = torch.zeros(2, 3, 3, dtype=torch.bool)
terminated[1, 1] = True  # the second environment's episode ended at its second step
truncated[1, 2] = True  # the third one's was cut off there
advantages = check_shape(
    "advantages",
    generalized_advantages(rewards, values, next_values, terminated, truncated, 1.0, 1.0),
    (3, 3),
)
check_close(
    "advantages where nothing ends, all surprises are 11",
    advantages[:, 0],
    [33.0, 22.0, 11.0],
    mistakes={
        "an end in another environment has cut it: use a mask [N], not an if": [22.0, 11.0, 11.0],
    },
)
check_close(
    "advantages where the second step terminated",
    advantages[:, 1],
    [12.0, 1.0, 11.0],
    mistakes={
        "the value of the state after the end counts: terminated masks the bootstrap": [22.0, 11.0, 11.0],
        "the next episode's advantage leaks into this one": [23.0, 12.0, 11.0],
        "terminated has no effect": [33.0, 22.0, 11.0],
        "the recursion is cut one step too early: step 0 and 1 belong to the same episode": [11.0, 1.0, 11.0],
    },
)
check_close(
    "advantages where the second step was truncated",
    advantages[:, 2],
    [22.0, 11.0, 11.0],
    mistakes={
        "truncated masks the bootstrap; the world would go on, so V(s_{t+1}) counts": [12.0, 1.0, 11.0],
        "the next episode's advantage leaks into this one, though the step was truncated": [33.0, 22.0, 11.0],
        "both at once: masked, and leaking": [23.0, 12.0, 11.0],
    },
)
### BEGIN HIDDEN TESTS
both = torch.zeros(2, 1, dtype=torch.bool)
both[0] = True
columns = torch.ones(2, 1), torch.full((2, 1), 3.0), torch.full((2, 1), 10.0)
check_close(
    "advantages where a step is terminated and truncated",
    generalized_advantages(*columns, both, both, 0.9, 0.9),
    [[1.0 - 3.0], [1.0 + 9.0 - 3.0]],
    hint="it counts as terminated",
)
### END HIDDEN TESTS
print("Right: the end masks the bootstrap, the clock does not.")

# %% kind="test" of="advantages" points=1
# A chain of known values: one who knows V exactly is never surprised, whatever lambda is.
gamma = 0.9
worth = torch.tensor(
    [1 + gamma * (1 + gamma * 1), 1 + gamma, 1.0, 0.0]
)  # three steps of reward 1, then the end
rewards, values, next_values = torch.ones(3, 1), worth[:3, None], worth[1:, None]
terminated = torch.tensor([[False], [False], [True]])
no = torch.zeros(3, 1, dtype=torch.bool)
for gae_lambda in (0.0, 0.5, 1.0):
    result = generalized_advantages(rewards, values, next_values, terminated, no, gamma, gae_lambda)
    check_close(f"advantages of exact values with lambda {gae_lambda}", result, torch.zeros(3, 1))
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(1)
rewards, values, next_values = torch.randn(3, 12, 2, generator=generator)
terminated, truncated = torch.zeros(2, 12, 2, dtype=torch.bool)
terminated[3] = truncated[7] = True  # three episodes in one batch ...
kept = rewards.clone(), values.clone(), next_values.clone(), terminated.clone(), truncated.clone()
whole = generalized_advantages(rewards, values, next_values, terminated, truncated, 0.9, 0.8)
parts = []
for start, stop in ((0, 4), (4, 8), (8, 12)):  # ... are like three batches
    columns = (column[start:stop].clone() for column in kept)
    parts.append(as_tensor("advantages", generalized_advantages(*columns, 0.9, 0.8)))
check_close("advantages of three episodes in one batch", whole, torch.cat(parts))
names = ("rewards", "values", "next_values", "terminated", "truncated")
now = (rewards, values, next_values, terminated, truncated)
for name, before, after in zip(names, kept, now, strict=True):
    check_unchanged(name, after, before)
### END HIDDEN TESTS
print("Right: no surprise where all is known.")

# %% [markdown]
# One reward of 1 at the very end of a long corridor, and a value function that knows nothing yet ($V = 0$). Whom
# does the reward reach? On the right the bug of the prediction: a perfect policy, whose exact value is 100
# everywhere, meets the clock at step 30.

# %%
axes = new_axes(columns=2, width=5.6)
length = 40
rewards, zeros = torch.zeros(length, 1), torch.zeros(length, 1)
rewards[-1] = 1
no = torch.zeros(length, 1, dtype=torch.bool)
last = no.clone()
last[-1] = True
for gae_lambda, color in zip((0.0, 0.8, 0.95, 1.0), COLORS, strict=False):
    result = generalized_advantages(rewards, zeros, zeros, last, no, 0.99, gae_lambda)
    axes[0].plot(result[:, 0], color=color, label=f"$\\lambda = {gae_lambda}$")
axes[0].set(xlabel="step", ylabel="advantage", title="Whom does the last reward reach?")
axes[0].legend()
clock = no.clone()
clock[29] = True
hundred = torch.full((length, 1), 100.0)
right = generalized_advantages(torch.ones(length, 1), hundred, hundred, no, clock)
wrong = generalized_advantages(torch.ones(length, 1), hundred, hundred, clock, no)
axes[1].plot(wrong[:, 0], color=COLORS[3], label="the clock taken for an end")
axes[1].plot(right[:, 0], color=COLORS[0], label="truncated, as it should be")
axes[1].set(xlabel="step", ylabel="advantage", title="A perfect policy meets the clock")
axes[1].legend(loc="lower left")
plt.show()

# %% [markdown] exercise="clipped-objective" number="6.2" title="Not too far at once" points=4 difficulty=2 minutes=20
# A batch was collected with the policy $\pi_\text{old}$. PPO takes many gradient steps on it, and after the first
# one the policy is another one. The ratio
#
# $$r = \frac{\pi(a \mid s)}{\pi_\text{old}(a \mid s)} = \exp\big(\log \pi(a \mid s) - \log \pi_\text{old}(a \mid s)\big)$$
#
# says how much more likely an action has become. Plain policy gradients would maximise $r A$. But a good action
# could then become a hundred times more likely because of a single lucky batch. PPO takes away the incentive: it
# maximises (Schulman et al., 2017, Eq. 7)
#
# $$\min\big(r A,\ \operatorname{clip}(r,\ 1 - \epsilon,\ 1 + \epsilon)\, A\big)$$
#
# The min makes it pessimistic. Where the ratio has moved *in the direction that pays*, and by more than
# $\epsilon$, the objective is flat: no reason to go on. Where it has moved in the *wrong* direction, it is not
# flat, however far: there has to be a way back.
#
# **Predict first.** $\epsilon = 0.2$. For which of these is the slope zero? (a) $A = 1, r = 1.5$; (b) $A = 1, r =
# 0.5$; (c) $A = -1, r = 1.5$; (d) $A = -1, r = 0.5$.
#
# **Write `clipped_objective`.** `log_ratio` and `advantages` are `[B]`, `clip` is $\epsilon$. Return `[B]`, one
# number for each row, to be maximised. (Averaging, and the minus sign of a loss, come later.) PPO differentiates it
# with respect to `log_ratio`, which stays as it is.

# %% kind="solution" of="clipped-objective" ref="ppo:clipped_objective"
# TODO: the ratio from its logarithm; both products; the smaller one

# %% [markdown]
# <details><summary>Hint: the functions</summary>
#
# `x.exp()`, `x.clamp(low, high)`, `torch.minimum(a, b)`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# (a) and (d): there the step has been made already. In (b) a good action has become rarer, in (c) a bad one more
# frequent: both must be able to turn back. Code that only clips, without the min, is flat in all four, and gets
# stuck where it went wrong.
# </details>


# %% kind="given"
def objective_slopes(log_ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The slope of your objective in each row, by differentiation; zeros where there is no way back."""
    leaf = torch.as_tensor(log_ratio).float().clone().requires_grad_()
    return gradients(clipped_objective(leaf, torch.as_tensor(advantages).float(), clip), leaf)[0]


# %% kind="test" of="clipped-objective" points=2
ratios = torch.tensor([0.5, 0.9, 1.0, 1.1, 1.5]).repeat(2)  # [B]
advantages = torch.tensor([2.0] * 5 + [-2.0] * 5)
given = ratios.log()
result = check_shape(
    "clipped_objective",
    clipped_objective(given, advantages, 0.2),
    (10,),
    {(): "one number for each row"},
)
check_unchanged("log_ratio", given, ratios.log(), "use exp, not exp_")
clipped = ratios.clamp(0.8, 1.2) * advantages
log_clipped = ratios.log().clamp(-0.2, 0.2).exp() * advantages
check_close(
    "clipped_objective for ratios of 0.5, 0.9, 1, 1.1, 1.5, advantages of 2, then of -2",
    result,
    [1.0, 1.8, 2.0, 2.2, 2.4, -1.6, -1.8, -2.0, -2.2, -3.0],
    mistakes={
        "nothing is clipped": ratios * advantages,
        "the min is missing: a policy that went the wrong way can't turn back": clipped,
        "it is the maximum, expected the minimum": torch.maximum(ratios * advantages, clipped),
        "the min is taken of the ratios, expected of the products with A": ratios.clamp(max=1.2) * advantages,
        "the ratio is clipped from above only": torch.minimum(
            ratios * advantages, ratios.clamp(max=1.2) * advantages
        ),
        "the product is clipped, expected the ratio": torch.minimum(
            ratios * advantages, (ratios * advantages).clamp(0.8, 1.2)
        ),
        "the limits are 1 - clip and 1 + clip": torch.minimum(
            ratios * advantages, ratios.clamp(-0.2, 0.2) * advantages
        ),
        "the ratio is upside down, expected the new policy's over the old one's": torch.minimum(
            advantages / ratios, (1 / ratios).clamp(0.8, 1.2) * advantages
        ),
        "log_ratio is used as the ratio: take exp": torch.minimum(
            ratios.log() * advantages, ratios.log().clamp(0.8, 1.2) * advantages
        ),
        "the logarithm is clipped, expected the ratio": torch.minimum(ratios * advantages, log_clipped),
        "it is negative: the objective is to be maximised": -torch.minimum(ratios * advantages, clipped),
    },
)
### BEGIN HIDDEN TESTS
for clip in (0.1, 0.3):
    expected = [
        min(r * a, max(1 - clip, min(1 + clip, r)) * a)
        for r, a in zip(ratios.tolist(), advantages.tolist(), strict=True)
    ]
    check_close(f"with clip {clip}", clipped_objective(ratios.log(), advantages, clip), expected)
### END HIDDEN TESTS
print("Right: the smaller of the two.")

# %% kind="test" of="clipped-objective" points=2
inside = torch.tensor([1.0, 1.0, 1.1, 1.1, 0.9, 0.9])  # a policy that has hardly moved: here PPO begins
for_both = torch.tensor([1.0, -1.0]).repeat(3)
check_close(
    "the gradient for ratios of 1, 1.1 and 0.9, and A = 1 and -1",
    objective_slopes(inside.log(), for_both, 0.2),
    inside * for_both,
    mistakes={
        "no gradient gets there (item, tolist, detach cut it off): PPO would learn nothing": torch.zeros(6)
    },
    hint="within the clip the slope is r A: is one of the two products detached, or ratio and clamp kept apart?",
)
step = 1e-3
flat = {(1.0, 1.5): True, (1.0, 0.5): False, (-1.0, 1.5): False, (-1.0, 0.5): True}
for (advantage, ratio), is_flat in flat.items():
    log_ratio = torch.tensor([math.log(ratio), math.log(ratio) + step])
    low, high = as_tensor("clipped_objective", clipped_objective(log_ratio, torch.full((2,), advantage), 0.2))
    slope = (high - low).item() / step
    if is_flat:
        check_close(
            f"the slope for A = {advantage:g}, r = {ratio:g}",
            slope,
            0.0,
            hint="expected no incentive to go on",
        )
    else:
        check_true(
            abs(slope) > 0.1, f"the slope for A = {advantage:g}, r = {ratio:g} is 0: there is no way back"
        )
        check_close(f"the slope for A = {advantage:g}, r = {ratio:g}", slope, advantage * ratio, rtol=0.01)
kept, ratio = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 1.5])  # (b) and (c)
check_close(
    "the gradient with respect to log_ratio, for (b) and (c)",
    objective_slopes(ratio.log(), kept, 0.2),
    [0.5, -1.5],
    mistakes={
        "no gradient gets there (item, tolist, detach cut it off): PPO would learn nothing": [0.0, 0.0]
    },
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
log_ratio, advantages = torch.randn(2, 200, generator=generator)
result = as_tensor("clipped_objective", clipped_objective(log_ratio, advantages, 0.2))
plain = (log_ratio.exp() * advantages).double()
check_between("the objective less r A, never above 0", result - plain, -math.inf, 1e-5)
small = torch.rand(50, generator=generator) * 0.2 - 0.1
check_close(
    "the objective for ratios within the clip",
    clipped_objective(small, advantages[:50], 0.2),
    small.exp() * advantages[:50],
)
check_close(
    "the objective of advantages 0", clipped_objective(log_ratio, torch.zeros(200), 0.2), torch.zeros(200)
)
### END HIDDEN TESTS
print("Right: flat where enough is enough, steep where there is a way back.")

# %%
ratios = torch.linspace(0.3, 2.0, 200)
axes = new_axes(columns=2, height=3.4)
for ax, advantage in zip(axes, (1.0, -1.0), strict=True):
    objective = clipped_objective(ratios.log(), torch.full((200,), advantage), 0.2)
    ax.plot(ratios, ratios * advantage, "--", color=GREY, linewidth=1.5, label="r A")
    ax.plot(ratios, objective, color=COLORS[0], linewidth=2.5, label="clipped objective")
    ax.axvspan(0.8, 1.2, color=COLORS[2], alpha=0.12, linewidth=0, label=r"$1 \pm \epsilon$")
    ax.set(xlabel="ratio r", ylabel="objective", title=f"A = {advantage:g}")
    ax.legend()
plt.show()

# %% [markdown]
# In the green band, $1 \pm \epsilon$, both lines are one. Outside it the objective is flat on the side that pays.
#
# Mind what it does *not* forbid. A flat objective takes the incentive away; it does not pull back. All rows share a
# network, so the gradients of other rows, and Adam's momentum, can carry a ratio on beyond the band, the further the
# more passes there are. That is why many implementations watch the KL divergence from the old policy and stop their
# passes early; ours doesn't.
#
# ## PPO
#
# The rest of PPO is given. Read it: `collect` steps $N$ environments side by side, `make_batch` calls your
# advantages, `loss` calls your objective, `update` takes the gradient steps. Two details matter later. A batch
# has a column `valid`, and rows that are not valid take no part: imagined rollouts will need that. And `collect`
# tells a listener each transition, which is how a model will get its data.

# %% kind="given" ref="ppo:RolloutBatch,PPOConfig,ActorCritic,Counters,PPO"

# %% [markdown]
# Your PPO on `CartPole-v1`, for 8192 steps, with eight environments and batches of 512 steps. It takes a few
# seconds. We keep what it has seen, oldest first.

# %%
ppo = PPO("CartPole-v1", PPOConfig(), seed=0)
seen: list[Batch] = []


def remember(obs, action, reward, next_obs, terminated, truncated):
    seen.append(Batch(obs, 2.0 * action[:, None] - 1, reward, next_obs, terminated, truncated))


while ppo.counters.real_steps < 8192:
    ppo.update(ppo.collect(remember))
experience = Batch(*(torch.cat(columns) for columns in zip(*seen, strict=True)))
steps, returns = np.array(ppo.episode_returns).T
ax = new_axes(width=6.8)[0]
ax.plot(steps, returns, ".", color=GREY, markersize=4, label="an episode")
window = 20
ax.plot(
    steps[window - 1 :],
    np.convolve(returns, np.ones(window) / window, "valid"),
    color=COLORS[0],
    label=f"mean of the last {window}",
)
ax.set(xlabel="environment steps", ylabel="return", title="PPO on CartPole-v1, one seed, while exploring")
ax.legend(loc="upper left")
plt.show()

# %% [markdown] exercise="model-loss" number="6.3" title="The model's loss, where the policy is now" points=4 difficulty=2 minutes=20
# The model is week 4's ensemble, fitted by its likelihood. To *judge* it, a plainer number is better: the squared
# error of the ensemble's mean, in units that make the dimensions comparable. An angular velocity changes by 0.3 in
# a step and an angle by 0.01, so each dimension $d$ is divided by the standard deviation $\sigma_d$ of the changes
# in the data:
#
# $$\ell(s, a, s') = \frac{1}{D} \sum_{d=1}^{D} \left( \frac{\frac{1}{E} \sum_e \mu_{e,d}(s, a) - s'_d}{\sigma_d} \right)^2$$
#
# A loss of 1 is as bad as predicting the mean change each time; you want far less.
#
# In supervised learning that would be all. Here the data come from a policy that changes. So don't look at one number:
# split the transitions by age and look at each group by itself.
#
# **Predict first.** An ensemble is fitted to the first 1024 transitions of the PPO run above, and never again. What
# does its loss do over the following 7000 transitions, while the agent learns to balance?
#
# **Write `model_loss` and `errors_by_age`.**
#
# - `model_loss`: `means` is `[E, N, D]`, the next states that the members predict, `next_obs` is `[N, D]` and
#   `scale` is $\sigma$, `[D]`. Return $\ell$ of each transition, `[N]`. First the members' mean, then its error.
# - `errors_by_age`: `data` holds $N$ transitions, oldest first. Ask the model's elites,
#   `model.predict(data.obs, data.action, model.elites).obs` is `[E, N, D]`; take `model_loss` in units of
#   `model.target_normalizer.std[: model.obs_dim]` (behind the state's dimensions there may be the reward's).
#   Return its mean in each of `num_groups` groups of neighbours, oldest first, `[G]`. If $N$ can't be divided
#   evenly, the first groups have one transition more.

# %% kind="solution" of="model-loss" ref="imagination:model_loss,errors_by_age"
# model_loss:
# TODO: mean over the members, error in units of scale, squared, mean over the dimensions
# errors_by_age:
# TODO: predictions of the elites, their loss for each transition, and its mean in each group


# %% kind="given"
class ToyEnsemble:
    """Member k says that the action moves every dimension by gains[k] times the action."""

    def __init__(self, gains: list[float], elites: list[int], scale: list[float], obs_dim: int) -> None:
        self.gains, self.elites, self.obs_dim = torch.tensor(gains), torch.tensor(elites), obs_dim
        self.target_normalizer = Normalised(torch.tensor(scale))

    def predict(self, obs: Tensor, action: Tensor, members: Tensor | None = None) -> Prediction:
        gains = self.gains if members is None else self.gains[members]
        means = obs + gains[:, None, None] * action  # [E, N, D]
        return Prediction(means, torch.zeros_like(means), None, None)


class Normalised(NamedTuple):
    """What is known about the targets: their standard deviations."""

    std: Tensor


def toy_errors_by_age(
    gains: list[float],
    elites: list[int],
    scale: list[float],
    action: Tensor,
    next_obs: Tensor,
    num_groups: int,
) -> Tensor:
    """`errors_by_age` of a toy ensemble, on transitions from 3 to 3 + next_obs; action [N, 1], next_obs [N, D]."""
    model = ToyEnsemble(gains, elites, scale, next_obs.shape[1])
    ends = torch.zeros(len(action), dtype=torch.bool)
    obs = torch.full_like(next_obs, 3.0)
    data = Batch(obs, action, torch.zeros(len(action)), obs + next_obs, ends, ends)
    return errors_by_age(model, data, num_groups)


# %% [markdown]
# <details><summary>Hint: groups</summary>
#
# `x.tensor_split(G)` makes $G$ groups just like that.
# </details>
# <details><summary>Hint: mean of errors, error of the mean</summary>
#
# They are not the same: if one member is off by $+1$ and another by $-1$, their mean is right. The average
# error of the *members* is the error of the mean plus their disagreement; exercise 6.5 comes back to that.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# It rises more than a hundredfold in our run; the picture below shows it. Nothing about the world has
# changed. The agent has: longer episodes have other positions and velocities, and the old data know little of them.
# </details>

# %% kind="test" of="model-loss" points=2
means = torch.tensor(  # [E, N, D], 2 members and 3 transitions
    [[[1.0, 10.0], [0.0, 0.0], [2.0, 0.0]], [[3.0, 30.0], [0.0, 0.0], [4.0, 0.0]]]
)
next_obs = torch.tensor([[1.0, 10.0], [4.0, 0.0], [2.0, 20.0]])  # [N, D]
scale = torch.tensor([1.0, 20.0])
loss = model_loss(means, next_obs, scale)
check_shape(
    "model_loss",
    loss,
    (3,),
    {
        (3, 2): "a number for each transition, [N]: average over the dimensions",
        (2,): "a number for each transition, [N]: average over the dimensions, the last axis",
        (2, 3): "a number for each transition, [N]: average over the members",
        (): "a number for each transition, [N]",
    },
)
error = (means.mean(dim=0) - next_obs) / scale
check_close(
    "model_loss",
    loss,
    [0.625, 8.0, 1.0],
    mistakes={
        "scale has no effect": (error * scale).square().mean(dim=-1),
        "it is the mean of the members' errors, expected the error of their mean": [1.25, 8.0, 1.5],
        "only the first member is asked": ((means[0] - next_obs) / scale).square().mean(dim=-1),
        "it is summed over the dimensions, expected their mean": [1.25, 16.0, 2.0],
        "scale is a standard deviation, used as a variance": (error * scale.sqrt()).square().mean(dim=-1),
        "the error is not squared": error.abs().mean(dim=-1),
        "square first, then average: errors of opposite sign cancel": error.mean(dim=-1).square(),
        "it is the root": error.square().mean(dim=-1).sqrt(),
        "scale is multiplied with, expected divided by": (error * scale**2).square().mean(dim=-1),
    },
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
means, next_obs = torch.randn(3, 7, 4, generator=generator), torch.randn(7, 4, generator=generator)
scale = torch.rand(4, generator=generator) + 0.1
expected = []
for n in range(7):
    total = 0.0
    for d in range(4):
        total += (
            (sum(means[e, n, d].item() for e in range(3)) / 3 - next_obs[n, d].item()) / scale[d].item()
        ) ** 2
    expected.append(total / 4)
check_close("model_loss of 3 members and 4 dimensions", model_loss(means, next_obs, scale), expected)
check_close("model_loss of one member", model_loss(next_obs[None] + scale, next_obs, scale), torch.ones(7))
### END HIDDEN TESTS
print("Right: the error of the mean, in comparable units.")

# %% kind="test" of="model-loss" points=2
action = torch.ones(6, 1)
next_obs = torch.tensor([1.0, 1.0, 3.0, 3.0, 5.0, 7.0])[:, None]  # one dimension, the errors grow with time
errors = toy_errors_by_age([1.0, 1.0, 9.0], [0, 1], [2.0], action, next_obs, 3)
check_shape(
    "errors_by_age",
    errors,
    (3,),
    {
        (6,): "the mean in each group, [G]",
        (3, 2): "the mean in each group, [G]",
        (2,): "as many groups as num_groups says, not groups of that size",
    },
)
check_close(
    "errors_by_age",
    errors,
    [0.0, 1.0, 6.5],
    mistakes={
        "the newest come first, expected the oldest": [6.5, 1.0, 0.0],
        "all members are asked, expected the elites": [
            (8 / 3 / 2) ** 2,
            (2 / 3 / 2) ** 2,
            ((4 / 3) ** 2 + (10 / 3) ** 2) / 8,
        ],
        "the target's standard deviation has no effect": [0.0, 4.0, 26.0],
        "every third transition makes a group, expected neighbours": [0.5, 2.0, 5.0],
    },
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(1)
action, next_obs = torch.randn(10, 1, generator=generator), torch.randn(10, 3, generator=generator)
scale = [0.5, 1.0, 4.0, 100.0]  # the last one is a reward's
gain = (2.0 - 1.0) / 2  # of the mean of the elites
loss = (((gain * action - next_obs) / torch.tensor(scale[:3])) ** 2).mean(dim=1)
expected = [loss[0:3].mean(), loss[3:6].mean(), loss[6:8].mean(), loss[8:10].mean()]
result = toy_errors_by_age([2.0, 50.0, -1.0], [2, 0], scale, action, next_obs, 4)
check_close(
    "errors_by_age of 10 transitions in 4 groups",
    result,
    torch.stack(expected),
    mistakes={
        "chunk makes groups of 3, 3, 3 and 1, expected 3, 3, 2 and 2": torch.stack(
            [group.mean() for group in loss.chunk(4)]
        ),
        "groups of 2, 3, 2 and 3, expected 3, 3, 2 and 2": torch.stack(
            [loss[10 * g // 4 : 10 * (g + 1) // 4].mean() for g in range(4)]
        ),
        "what is left over at the end is left out": loss[:8].reshape(4, 2).mean(dim=1),
    },
)
result = toy_errors_by_age([2.0, 50.0, -1.0], [2, 0], scale, action, next_obs, 1)
check_close("errors_by_age of one group", result, loss.mean()[None])
### END HIDDEN TESTS
print("Right: old and new, each by itself.")

# %% [markdown]
# The experiment of the prediction. One ensemble is fitted to the first 1024 transitions only, another one to the
# last 1024, a third one to all that came so far, up to half of the run.


# %%
def fitted(data: Batch, seed: int = 0, max_epochs: int = 40) -> GaussianEnsemble:
    """A fresh ensemble, fitted to some transitions of CartPole."""
    task, generator = get_task("cartpole"), torch.Generator().manual_seed(seed)
    config = EnsembleConfig(hidden_sizes=(64, 64), batch_size=64)
    model = GaussianEnsemble(
        4, 1, config, reward=task.reward, terminated=task.terminated, generator=generator
    )
    model.fit(data, max_epochs=max_epochs, generator=generator)
    return model


size = len(experience.obs)
early = fitted(Batch(*(column[:1024] for column in experience)))
windows = {
    "the first 1024": early,
    "the last 1024": fitted(Batch(*(column[-1024:] for column in experience))),
    "the first half": fitted(Batch(*(column[: size // 2] for column in experience)), max_epochs=10),
}
ax = new_axes(width=6.8)[0]
ages = (torch.arange(8) + 0.5) * size / 8
for (name, model), color in zip(windows.items(), (COLORS[3], COLORS[0], COLORS[2]), strict=True):
    ax.semilogy(ages, errors_by_age(model, experience, 8), "o-", color=color, label=f"fitted to {name}")
ax.axvline(1024, color=GREY, linewidth=1.5, linestyle=":", label="the first 1024 end here")
ax.set(xlabel="transition of the PPO run", ylabel="model's loss", title="The data move away from the model")
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
plt.show()

# %% [markdown]
# That is why Dyna-PPO refits the model after every real batch, to the latest transitions.

# %% [markdown] exercise="imagined-rollouts" number="6.4" title="Closing the eyes" points=6 difficulty=3 minutes=30
# Now the policy acts in the model. $N$ rollouts start in $N$ real states and run side by side for $H$ steps. In
# each imagined step the policy is asked for $N$ actions, and the model for what they do.
#
# They don't all last $H$ steps. There are two ways for a rollout to be over, and they are those of 6.1:
#
# - **The pole falls** in the model's opinion. That step *counts*: it is the one from which the agent learns that
#   falling is bad. Everything after it is nonsense.
# - **The model is not to be trusted** with this step, or its prediction is NaN or infinite. Then nobody knows what
#   would have happened; the step does *not* count, and the rollout was merely cut short.
#
# To keep all rollouts in one tensor, those that are over go along, but their steps are not `valid`.
#
# | a rollout whose pole falls at the third step | $h = 0$ | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|
# | `valid` | True | True | True | False | False |
# | `terminated` | False | False | True | False | False |
#
# | one whose third step is not trusted | $h = 0$ | 1 | 2 | 3 | 4 |
# |---|---|---|---|---|---|
# | `valid` | True | True | False | False | False |
# | `terminated` | False | False | False | False | False |
#
# The value function takes over where a rollout was left alive. So GAE has to know which steps those are, and this is
# what `cut_short` says: the last valid step of each rollout, unless it terminated. It plays the part of `truncated`.
# In the first table it is False everywhere, in the second one it is True at $h = 1$, and in a rollout that is valid to
# the last step, at $h = H - 1$.
#
# **Predict first.** Somebody forgets termination in the imagined rollouts. The reward of CartPole is 1 for each step.
# What will the agent learn about a pole that is about to fall?
#
# **Write `imagined_rollouts` and `cut_short`.**
#
# - `act(obs [N, D])` returns the actions (`[N]` or `[N, A]`) and their log-probabilities `[N]`; `step(obs [N, D],
#   action)` returns `next_obs [N, D]`, `reward [N]`, `terminated [N]` and `trusted [N]` (bool). Call both once per
#   imagined step, with all $N$ rows, also if some rollouts are over.
# - `obs [N, D]` are the real states to start from. Return `ImaginedRollouts`, its columns `[H, N, ...]`.
# - A step is valid if the rollout is not over yet, the step is trusted, and its `next_obs` and `reward` are all finite.
#   A rollout is over after its first step that is not valid or that terminated.
# - In a step that is not valid, `next_obs` repeats `obs`, `reward` is 0 and `terminated` is False. So a rollout that is
#   over stays where it is, and nothing that is NaN is left behind.
# - `cut_short(terminated [H, N], valid [H, N])` returns bool `[H, N]`, as described.

# %% kind="given" ref="imagination:PolicyFunction,ImaginedStep,ImaginedRollouts"

# %% kind="solution" of="imagined-rollouts" ref="imagination:imagined_rollouts,cut_short"
# imagined_rollouts:
# TODO: a mask [N] of the rollouts that are not over; then H times: act, step,
# TODO: which rows are valid? clean up the others, keep the columns, go on from next_obs
# cut_short:
# TODO: valid, not terminated, and no valid step after it

# %% [markdown]
# <details><summary>Hint: is everything finite?</summary>
#
# `next_obs.isfinite().all(dim=-1) & reward.isfinite()` is bool `[N]`.
# </details>
# <details><summary>Hint: cleaning up</summary>
#
# `torch.where(valid.unsqueeze(-1), next_obs, obs)`. Don't multiply by the mask instead: NaN times 0 is NaN.
# </details>
# <details><summary>Hint: the step after it</summary>
#
# `valid[1:]`, with a row of False at the end, says for each step whether the next one is valid.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# That falling does not matter: the imagined reward goes on, so every policy is as good as any other, and a
# lying pole is worth as much as a standing one. Worse, the model was never fitted to poles beyond 12 degrees, so what it
# imagines there is made up. This is a bug that does not crash; the agent just learns nothing from its imagination, or
# something wrong.
# </details>

# %% kind="test" of="imagined-rollouts" points=2
asked = []


def act(obs):
    obs = check_shape("what act was given", obs, (3, 2), "all N rows, at every step")
    asked.append(obs.clone())
    return (obs[:, 0] > 1.5).long(), -obs[:, 0]


def step(obs, action):
    obs, action = torch.as_tensor(obs).float(), torch.as_tensor(action)
    check_true(
        len(asked) > 0 and torch.equal(asked[-1].float(), obs),
        "step is asked about other states than act was",
    )
    next_obs = obs + torch.tensor([1.0, 10.0])
    yes = torch.ones(3, dtype=torch.bool)
    return next_obs, next_obs[:, 0] * 100 + action, ~yes, yes


start = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 7.0]])  # [N, D]
given = start.clone()
rollouts = imagined_rollouts(act, step, given, 4)
check_unchanged("obs", given, start, "make new tensors, not obs[...] = ...")
check_true(rollouts is not None, "imagined_rollouts returned None: is a `return` missing?")
check_true(len(rollouts) == 7 and hasattr(rollouts, "obs"), "expected ImaginedRollouts, seven columns")
check_true(len(asked) == 4, f"act was called {len(asked)} times with a horizon of 4, expected 4")
for name, column in rollouts._asdict().items():
    check_true(
        hasattr(column, "shape"),
        f"the column {name} is a {type(column).__name__}, expected a tensor: torch.stack",
    )
for name in ("terminated", "valid"):
    flags = as_tensor(name, getattr(rollouts, name))
    check_true(flags.dtype == torch.bool, f"{name} holds numbers, expected bools")
check_true(
    as_tensor("valid", rollouts.valid).any(),
    "no step is valid, though nothing ends: `trusted` says which predictions are to be believed",
)
times = torch.arange(4.0)[:, None, None]  # [H, 1, 1]
states = start + times * torch.tensor([1.0, 10.0])  # [H, N, D]
check_close(
    "obs",
    rollouts.obs,
    states,
    mistakes={
        "every step starts from the real states again: go on from next_obs": start.expand(4, 3, 2),
        "these are the states after the step": states + torch.tensor([1.0, 10.0]),
    },
)
check_close("next_obs", rollouts.next_obs, states + torch.tensor([1.0, 10.0]))
check_close("action", as_tensor("action", rollouts.action).double(), (states[..., 0] > 1.5).double())
check_close(
    "log_prob",
    rollouts.log_prob,
    -states[..., 0],
    mistakes={
        "it is the reward; mind the order of the columns": (states[..., 0] + 1) * 100 + (states[..., 0] > 1.5)
    },
    hint="the policy's, in the state before the step",
)
check_close("reward", rollouts.reward, (states[..., 0] + 1) * 100 + (states[..., 0] > 1.5).double())
check_true(as_tensor("valid", rollouts.valid).bool().all(), "nothing ends here: all steps are valid")
### BEGIN HIDDEN TESTS
check_shape("valid", rollouts.valid, (4, 3))
check_true(not as_tensor("terminated", rollouts.terminated).bool().any(), "nothing terminates here")
asked.clear()
one = imagined_rollouts(act, step, start, 1)
check_close("obs with a horizon of 1", one.obs, start[None])
check_close("next_obs with a horizon of 1", one.next_obs, start[None] + torch.tensor([1.0, 10.0]))
### END HIDDEN TESTS
print("Right: the policy walks through the model.")

# %% kind="test" of="imagined-rollouts" points=2
falls_at = torch.tensor(
    [99.0, 3.0, 99.0, 99.0, 1.0, 99.0]
)  # obs[0] counts steps: rollout 1 ends at 3, 4 at 1
rows, calls = torch.arange(6), []


def act(obs):
    obs = torch.as_tensor(obs)
    return torch.zeros(len(obs), 1), torch.zeros(len(obs))


def step(obs, action):
    calls.append(len(obs))
    check_true(
        calls[-1] == 6, f"step was given {calls[-1]} rows, expected all 6, also if some rollouts are over"
    )
    next_obs = torch.as_tensor(obs).float() + torch.tensor([1.0, 0.0])
    count = next_obs[:, 0].clone()
    trusted = ~(
        (rows == 2) & (len(calls) == 3)
    )  # rollout 2 can't be trusted at its third step, later it could
    broken = (rows == 3) & (len(calls) == 2)  # rollout 3 breaks down at its second step
    reward = torch.where(broken, torch.nan, 10.0 + count)
    next_obs[broken] = torch.nan
    next_obs[(rows == 5) & (len(calls) == 2), 1] = torch.nan  # rollout 5, too, but in one dimension only
    return next_obs, reward, count >= falls_at, trusted


start = torch.stack([torch.zeros(6), torch.arange(6.0)], dim=1)  # [N, 2]
rollouts = imagined_rollouts(act, step, start, 5)
valid = check_shape("valid", rollouts.valid, (5, 6)).long()
check_close("valid of the rollout in which nothing happens", valid[:, 0], [1, 1, 1, 1, 1])
check_close(
    "valid of the rollout that terminates at its third step",
    valid[:, 1],
    [1, 1, 1, 0, 0],
    mistakes={
        "termination is ignored": [1, 1, 1, 1, 1],
        "the step that terminates is left out, and it is the one that shows that falling is bad": [
            1,
            1,
            0,
            0,
            0,
        ],
    },
)
check_close(
    "valid of the rollout whose third step is not trusted",
    valid[:, 2],
    [1, 1, 0, 0, 0],
    mistakes={
        "trusted is ignored": [1, 1, 1, 1, 1],
        "a step that is not trusted does not count": [1, 1, 1, 0, 0],
        "it went on after the step that was not trusted: a rollout that is over stays over": [1, 1, 0, 1, 1],
    },
)
check_close(
    "valid of the rollout whose second step is NaN",
    valid[:, 3],
    [1, 0, 0, 0, 0],
    mistakes={
        "NaN is taken for a prediction": [1, 1, 1, 1, 1],
        "it went on after NaN: a rollout that is over stays over": [1, 0, 1, 1, 1],
    },
)
check_close(
    "valid of the rollout with NaN in one dimension of its second step",
    valid[:, 5],
    [1, 0, 0, 0, 0],
    mistakes={"one finite dimension is enough for it; they all have to be (dim=-1)": [1, 1, 1, 1, 1]},
)
ended = as_tensor("terminated", rollouts.terminated).long()
check_close("terminated of the rollout that ends at its third step", ended[:, 1], [0, 0, 1, 0, 0])
### BEGIN HIDDEN TESTS
check_close("valid of the rollout that ends at once", valid[:, 4], [1, 0, 0, 0, 0])
check_close("terminated of the rollout that ends at once", ended[:, 4], [1, 0, 0, 0, 0])
check_close("terminated of the others", ended[:, [0, 2, 3, 5]], torch.zeros(5, 4))
reward = 11.0 + torch.arange(5.0)[:, None].expand(5, 6)
check_close(
    "reward", rollouts.reward, torch.where(valid.bool(), reward, 0.0), hint="0 in steps that are not valid"
)
for name, column in rollouts._asdict().items():
    check_true(as_tensor(name, column).double().isfinite().all(), f"{name} is not finite everywhere")
obs, next_obs = as_tensor("obs", rollouts.obs), as_tensor("next_obs", rollouts.next_obs)
check_close(
    "next_obs less obs",
    (next_obs - obs)[..., 0],
    valid,
    hint="next_obs repeats obs where a step is not valid",
)
check_close("obs, each after its next_obs", obs[1:], next_obs[:-1])


def infinite(obs, action):
    obs = torch.as_tensor(obs).float()
    yes = torch.ones(6, dtype=torch.bool)
    return obs + 1, torch.where(obs[:, 1] == 1, torch.inf, 1.0), yes & (obs[:, 1] == 1), yes


rollouts = imagined_rollouts(act, infinite, start, 2)
check_close(
    "valid where a reward is infinite",
    as_tensor("valid", rollouts.valid)[:, 1].long(),
    [0, 0],
    hint="infinity is not finite, either",
)
ended = as_tensor("terminated", rollouts.terminated)[:, 1].long()
check_close("terminated in a step that is not valid", ended, [0, 0])


def falls_untrusted(obs, action):
    obs = torch.as_tensor(obs).float()
    yes = torch.ones(6, dtype=torch.bool)
    return obs + 1, obs[:, 0], yes, ~yes


rollouts = imagined_rollouts(act, falls_untrusted, start, 2)
check_true(
    not as_tensor("valid", rollouts.valid).any(),
    "a step that terminates, but is not to be trusted, does not count",
)


def all_fall(obs, action):
    obs = torch.as_tensor(obs).float()
    yes = torch.ones(6, dtype=torch.bool)
    return obs + 1, obs[:, 0], yes, yes


rollouts = imagined_rollouts(act, all_fall, start, 3)
check_shape(
    "valid where all rollouts are over at once", rollouts.valid, (3, 6), "H rows, also if all are over"
)
### END HIDDEN TESTS
print("Right: every rollout ends where it should.")

# %% kind="test" of="imagined-rollouts" points=2
valid = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()  # [H, N]
terminated = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
given = terminated.clone(), valid.clone()
cut = as_tensor("cut_short", cut_short(*given))
check_unchanged("terminated", given[0], terminated, "make a new tensor (a & b, not a &= b)")
check_unchanged("valid", given[1], valid, "make a new tensor (a & b, not a &= b)")
check_true(cut.dtype == torch.bool, "cut_short returns numbers, expected bools")
cut = check_shape("cut_short", cut, (4, 4)).long()
check_close(
    "cut_short of a rollout that is valid to the last step",
    cut[:, 0],
    [0, 0, 0, 1],
    mistakes={
        "a rollout that the horizon cuts short is not marked, though the value of its last state still counts": [
            0,
            0,
            0,
            0,
        ],
        "every valid step is marked, expected the last one": [1, 1, 1, 1],
    },
)
check_close(
    "cut_short of a rollout that was given up after three steps",
    cut[:, 1],
    [0, 0, 1, 0],
    mistakes={
        "it is the first step that is not valid, expected the last one that is": [0, 0, 0, 1],
        "only the horizon is looked at": [0, 0, 0, 0],
        "a step that is not valid is marked, too": [0, 0, 1, 1],
    },
)
check_close(
    "cut_short of a rollout that terminated",
    cut[:, 2],
    [0, 0, 0, 0],
    mistakes={"it terminated, and was not cut short": [0, 1, 0, 0]},
)
### BEGIN HIDDEN TESTS
hint = "without a valid step there is nothing to cut short; an index of -1 is the last row"
check_close("cut_short of a rollout without a valid step", cut[:, 3], [0, 0, 0, 0], hint=hint)
one = torch.tensor([[1, 1, 0]]).bool()  # [1, N]
cut = as_tensor("cut_short", cut_short(torch.tensor([[0, 1, 0]]).bool(), one)).long()
check_close("cut_short with a horizon of 1", cut, [[1, 0, 0]])
last = torch.ones(3, 1, dtype=torch.bool)
end = torch.tensor([[0], [0], [1]]).bool()
cut = as_tensor("cut_short", cut_short(end, last)).long()
check_close("cut_short of a rollout that terminates in its last step", cut, [[0], [0], [0]])
### END HIDDEN TESTS
print("Right: cut short, but not ended.")

# %% [markdown]
# Your policy, in the model that was fitted to its *first* 1024 steps, from a few of its latest states: 30 steps into a
# world of its own. Black is what the real CartPole does with the same actions.

# %%
cartpole = get_task("cartpole")
generator = torch.Generator().manual_seed(1)


def policy_act(obs):
    return ppo.policy.act(obs, generator)


def model_step(obs, action):
    next_obs, reward, terminated = early.step_random_elites(
        obs, 2.0 * action[:, None] - 1, generator=generator
    )
    return next_obs, reward, terminated, torch.ones(len(obs), dtype=torch.bool)


start = experience.obs[-800::40]  # [20, 4]
rollouts = imagined_rollouts(policy_act, model_step, start, 30)
axes = new_axes(columns=3, width=3.6, height=3.4)
for ax, row in zip(axes, (2, 7, 14), strict=True):
    real = [start[row]]
    for choice in rollouts.action[:, row]:
        real.append(cartpole.dynamics(real[-1][None], 2.0 * choice[None, None] - 1)[0])
    alive = int(rollouts.valid[:, row].sum())
    dream = torch.cat(
        [rollouts.obs[:alive, row], rollouts.next_obs[alive - 1 : alive, row]]
    )  # [alive + 1, D]
    ax.plot(torch.stack(real)[: alive + 1, 2].rad2deg(), color="black", linewidth=2.5, label="real")
    ax.plot(dream[:, 2].rad2deg(), color=COLORS[3], label="imagined")
    if rollouts.terminated[:, row].any():
        end = dream[-1, 2].rad2deg()
        ax.plot(alive, end, "x", color=COLORS[3], markersize=10, markeredgewidth=2.5, clip_on=False)
    ax.axhspan(12, 30, color=GREY, alpha=0.15, linewidth=0)
    ax.axhspan(-30, -12, color=GREY, alpha=0.15, linewidth=0)
    ax.set(xlabel="imagined step", ylabel="angle, degrees", ylim=(-16, 16), xlim=(0, 30))
axes[0].plot([], [], "x", color=COLORS[3], markersize=10, markeredgewidth=2.5, label="imagined end")
axes[0].legend(loc="upper left", bbox_to_anchor=(0.0, 0.85))
title = "The same actions, in the world and in the model"
axes[0].figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
plt.show()

# %% [markdown] exercise="gate" number="6.5" title="When to stop believing" points=4 difficulty=2 minutes=20
# A rollout that leaves the data should stop. How does the agent know? From week 4: where there are no data, the
# members **disagree**. The *epistemic* variance is the variance of the members' means; `split_variance` of week 4
# computes it. Averaged over the dimensions, in the units of 6.3, it is one number for each prediction:
#
# $$u(s, a) = \frac{1}{D} \sum_{d=1}^D \operatorname{Var}_e\!\left[ \frac{\mu_{e,d}(s, a)}{\sigma_d} \right]$$
#
# And the gate lets a step pass if $u \le \tau$. A prediction of NaN never passes.
#
# Why not the whole variance? The noise of the world is no reason to stop: imagined experience may be noisy, as the
# real one is. What must not be is *wrong*.
#
# The two numbers belong together. For each transition (Krogh and Vedelsby, 1995)
#
# $$\underbrace{\text{the members' average loss}}_{\text{what a rollout suffers}}
#   = \underbrace{\ell}_{\text{loss of their mean}} + \underbrace{u}_{\text{known to the agent}}$$
#
# A rollout follows a random *member*, so it suffers the left side. The agent can know only $u$ in advance. If all
# members are wrong in the same way, $u$ is small and $\ell$ is not.
#
# **Predict first.** Is a gate of $\tau = 0.01$ strict or generous? Think of what $u = 1$ would be.
#
# **Write `epistemic_variance` and `uncertainty_gate`.**
#
# - `means [E, N, D]` are the next states that the members predict, `scale [D]` is $\sigma$. Return $u$, `[N]`. The
#   variance over members divides by $E$, as in week 4, so that a single member has none.
#   The caller's `means` stay as they are.
# - `uncertainty_gate(variance [N], tau)` returns bool `[N]`: True where $u \le \tau$. $\tau$ may be infinite: then
#   everything passes but NaN.

# %% kind="solution" of="gate" ref="imagination:epistemic_variance,uncertainty_gate"
# epistemic_variance:
# TODO: the epistemic part of the variance of the scaled means (split_variance), averaged over the dimensions
# uncertainty_gate:
# TODO: which may pass?

# %% [markdown]
# <details><summary>Hint: a comparison with NaN</summary>
#
# It is False, whatever the other side: `variance <= tau` does the right thing, `~(variance > tau)` does not.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# $u = 1$: the members disagree by as much as the state usually changes in a step, so they know nothing. At $\tau =
# 0.01$ their standard deviation is a tenth of a usual change, which sounds strict. For the model of the first 1024
# steps, most of *all* states of our run pass even that: see below. How strict is *useful* is an empirical
# question, which this week's experiments ask.
# </details>

# %% kind="test" of="gate" points=2
means = torch.tensor(  # [E, N, D]
    [
        [[0.0, 0.0], [3.0, 3.0], [0.0, 0.0]],
        [[0.0, 30.0], [3.0, 3.0], [0.0, 0.0]],
        [[3.0, 60.0], [3.0, 3.0], [0.0, 30.0]],
    ]
)
scale = torch.tensor([1.0, 10.0])
given = means.clone()
variance = epistemic_variance(given, scale)
check_unchanged("means", given, means, "means / scale, not means /= scale")
check_shape(
    "epistemic_variance",
    variance,
    (3,),
    {
        (3, 2): "one number for each prediction: average over the dimensions",
        (2,): "one number for each prediction: average over the dimensions, the last axis",
        (): "one number for each prediction, [N]",
    },
)
check_close(
    "epistemic_variance",
    variance,
    [4.0, 0.0, 1.0],
    mistakes={
        "it is the aleatoric part, or none at all: the members' own doubt does not count": [0.0, 0.0, 0.0],
        "scale has no effect": [301.0, 0.0, 100.0],
        "it is divided by E - 1, expected E": [6.0, 0.0, 1.5],
        "it is summed over the dimensions, expected their mean": [8.0, 0.0, 2.0],
        "it is the standard deviation": [(2**0.5 + 6**0.5) / 2, 0.0, 2**0.5 / 2],
        "it is the root, expected the variance": [2.0, 0.0, 1.0],
        "scale is multiplied with, expected divided by": [30001.0, 0.0, 10000.0],
        "the variance is over the states, expected over the members": (means / scale)
        .var(dim=1, correction=0)
        .mean(dim=-1),
        "the variance is divided by scale, expected by its square": [31.0, 0.0, 10.0],
        "it is the largest dimension's, expected their mean": [6.0, 0.0, 2.0],
    },
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
means = torch.randn(5, 8, 3, generator=generator)
scale = torch.tensor([0.1, 1.0, 30.0])
center = means.mean(dim=0)
expected = (((means - center) / scale) ** 2).sum(dim=0).sum(dim=-1) / 15
check_close("epistemic_variance of 5 members", epistemic_variance(means, scale), expected)
check_close("epistemic_variance of one member", epistemic_variance(means[:1], scale), torch.zeros(8))
shifted = epistemic_variance(means + 7 * scale, scale)
check_close("epistemic_variance where all members are wrong alike", shifted, expected, atol=1e-3)
### END HIDDEN TESTS
print("Right: the members' disagreement, in comparable units.")

# %% kind="test" of="gate" points=2
nan = float("nan")
variance = torch.tensor([0.0, 0.0625, 0.125, 0.25, math.inf, nan])
answers = {(3,): "an answer for each: True or False", (): "an answer for each"}
passed = check_shape("uncertainty_gate", uncertainty_gate(variance, 0.125), (6,), answers)
check_true(passed.dtype == torch.bool, "uncertainty_gate returns numbers, expected bools")
passed = passed.long()
check_close(
    "uncertainty_gate of 0, 0.0625, 0.125, 0.25, infinity and NaN with tau = 0.125",
    passed,
    [1, 1, 1, 0, 0, 0],
    mistakes={
        "it is the wrong way round: what is certain passes": [0, 0, 0, 1, 1, 0],
        "a variance of just tau is held back, expected u <= tau": [1, 1, 0, 0, 0, 0],
        "NaN passes": [1, 1, 1, 0, 0, 1],
        "the standard deviation is compared, expected the variance": [1, 0, 0, 0, 0, 0],
    },
)
### BEGIN HIDDEN TESTS
check_shape("uncertainty_gate", uncertainty_gate(variance, 0.125), (6,))
open_gate = as_tensor("uncertainty_gate", uncertainty_gate(variance, math.inf)).long()
check_close("uncertainty_gate with an infinite tau", open_gate, [1, 1, 1, 1, 1, 0])
numbers = torch.rand(50, generator=torch.Generator().manual_seed(1))
passed = as_tensor("uncertainty_gate", uncertainty_gate(numbers, 0.5)).long()
check_close("uncertainty_gate with tau = 0.5", passed, (numbers <= 0.5).long())
### END HIDDEN TESTS
print("Right: who disagrees stays outside.")

# %% [markdown]
# Below is the disagreement of two of the models from 6.3, over angle and angular velocity (cart at rest in the middle,
# push to the right). Dots are the data that the model was fitted to. On the right, for the model of the first 1024
# steps and all states of the run: what the agent can know, $u$, against what it would like to know.

# %%
axes = new_axes(columns=3, width=3.8, height=3.7)
angles, velocities = torch.linspace(-0.25, 0.25, 60), torch.linspace(-3.2, 3.2, 60)
grid = torch.zeros(60, 60, 4)
grid[..., 2], grid[..., 3] = angles[None], velocities[:, None]
for ax, (name, fit_data) in zip(
    axes, {"the first 1024": slice(0, 1024), "the last 1024": slice(-1024, None)}.items(), strict=False
):
    model = windows[name]
    means = model.predict(grid.reshape(-1, 4), torch.ones(3600, 1)).obs
    variance = epistemic_variance(means, model.target_normalizer.std).reshape(60, 60)
    levels = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0]
    filled = ax.contourf(
        angles.rad2deg(), velocities, variance.log10(), np.log10(levels), cmap="Blues", extend="both"
    )
    gate = ax.contour(angles.rad2deg(), velocities, variance, [0.1], colors=[COLORS[3]], linewidths=2)
    ax.clabel(gate, fmt=r"$\tau$ = 0.1", colors="black")
    ax.plot(
        experience.obs[fit_data, 2].rad2deg(), experience.obs[fit_data, 3], ".", color="black", markersize=1.5
    )
    ax.set(xlabel="angle, degrees", title=f"u, fitted to {name}", xlim=(-14, 14), ylim=(-3.2, 3.2))
axes[0].set_ylabel("angular velocity, rad/s")
bar = plt.colorbar(filled, ax=axes[1], ticks=np.log10(levels), label="disagreement u")
bar.ax.set_yticklabels([f"{level:g}" for level in levels])
means = early.predict(experience.obs, experience.action).obs
scale = early.target_normalizer.std
known, loss = epistemic_variance(means, scale), model_loss(means, experience.next_obs, scale)
axes[2].loglog(known[::4], (loss + known)[::4], ".", color=COLORS[0], markersize=3, alpha=0.4)
ends = torch.tensor([1e-5, 10.0])
axes[2].plot(ends, ends, color=GREY, linewidth=1.5, label="loss = u")
axes[2].axvline(0.1, color=COLORS[3], linewidth=2, label=r"gate, $\tau$ = 0.1")
axes[2].set(xlabel="disagreement u", ylabel="members' average loss", title="loss = loss of the mean + u")
axes[2].legend(loc="upper left")
plt.show()
for tau in (0.01, 0.1, 1.0):
    inside = uncertainty_gate(known, tau)
    print(
        f"tau {tau:4}: {inside.double().mean():4.0%} of the states pass, mean loss of the mean "
        f"{loss[inside].mean():.3f}; of the others {loss[~inside].mean():.3f}"
    )

# %% [markdown] exercise="dyna-ppo" number="6.6" title="Dyna-PPO: real and imagined updates" points=4 difficulty=3 minutes=25
# All pieces are there. One iteration of Dyna-PPO:
#
# 1. collect a real batch, and update the policy on it, as PPO does;
# 2. remember its transitions;
# 3. if there is a model to be used, and enough real steps: fit it to the buffer;
# 4. several times: imagine a *fresh* batch, from states of the buffer, with the policy as it is *now*, and update the
#    policy on it.
#
# PPO is **on-policy**: it must learn from what the present policy does. Real batches are thrown away after one use for
# that reason. With imagination there is a way out: the old states are only *starting points*, the actions are the
# present policy's. That is why each imagined batch has to be made anew after the update before it. (Not quite
# on-policy: the starts are still those of older policies. The longer the rollouts, the less that matters.)
#
# And as always: the books. PPO has counters of real steps, imagined steps, gradient steps of the policy and of the model.
# A claim like "learns with half of the data" is empty without the other three.
#
# **Predict first.** With the defaults, a real batch of 512 steps is followed by 5 imagined batches of 128 rollouts of
# 5 steps. PPO makes 10 passes in minibatches of 128. How many gradient steps of the policy does Dyna-PPO take per real
# batch, and how many does PPO? What should PPO be compared to, if Dyna-PPO turns out to be better?
#
# **Write three methods of `DynaPPO`.** (The others are given; read `imagined_step`, where the gate is.)
#
# - `iterate`: as above. `self.ppo.collect` takes a listener, `collect(lambda *transition: ...)`; the list of all
#   transitions, in order, goes to `self.remember`. The real update comes first, then the remembering. Nothing is fitted
#   or imagined if `config.use_model` is False or the real steps so far (this batch included) are fewer than
#   `config.model_start`. Otherwise: `fit_model`, then `config.imag_batches` times `imagine` and
#   `self.ppo.update(batch, config.imag_epochs)`.
# - `fit_model`: fits the model to *all* of `self.buffer`, for at most `config.model_epochs` epochs, with
#   `self.generator`; adds the `num_updates` of the result to the counter `model_updates`. If there is a
#   `learned_end` (a network that learns when episodes end, for tasks whose rule is not known; here it is `None`, and
#   week 7 builds one), it is fitted to the same data: `self.learned_end.fit(data, generator=self.generator)`.
# - `imagine`: draws `config.imag_rollouts` states from the buffer (`self.buffer.sample(n, self.generator).obs`), rolls
#   the policy out from there for `config.imag_horizon` steps of `self.imagined_step` (`self.ppo.policy.act(obs,
#   self.generator)` are the actions), adds the number of *valid* steps to the counter `imagined_steps`, and returns
#   `self.ppo.make_batch(...)` of the columns, where `cut_short` is what is truncated.

# %% kind="given" ref="imagination:planned_actions,corrupt_model;dyna_ppo:LearnedEnd,DynaPPOConfig"

# %% kind="solution" of="dyna-ppo" ref="dyna_ppo:DynaPPO.iterate,DynaPPO.fit_model,DynaPPO.imagine"
# iterate:
# TODO: real batch, update, remember; then, if the model is to be used, fit it, imagine and update
# fit_model:
# TODO: fit to the buffer, count, and fit the learned end, if there is one
# imagine:
# TODO: real states to start from, imagined_rollouts, count the valid steps, make_batch


# %% kind="given"
class WatchedEnd:
    """A learned end that notes what it is fitted to, and ends nothing."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def fit(self, data: Batch, *, generator: torch.Generator | None = None) -> None:
        self.rows.append(len(data.obs))

    def __call__(self, next_obs: Tensor) -> Tensor:
        return torch.zeros(next_obs.shape[:-1], dtype=torch.bool)


def watched_run(num_iterations: int, learned_end: bool = False, **settings: Any) -> dict[str, Any]:
    """What a small Dyna-PPO on CartPole does in some iterations: who was called, in which order, with what.

    Real batches have 2 x 8 steps, imagined ones 6 rollouts of 3 steps, unless `settings` say otherwise.
    """
    small = {"num_envs": 2, "num_steps": 8, "num_epochs": 1, "hidden_sizes": (8,), "ensemble_size": 2}
    small |= {"model_hidden_sizes": (8,), "model_epochs": 2, "model_start": 1, "imag_batches": 2}
    config = DynaPPOConfig(**{**small, "imag_rollouts": 6, "imag_horizon": 3, **settings})
    agent = DynaPPO(get_task("cartpole"), config, 0, WatchedEnd() if learned_end else None)
    seen: dict[str, Any] = {"calls": [], "fits": [], "epochs": [], "batches": [], "updates": 0}
    seen |= {"real_epochs": [], "in_order": True}
    real = (config.num_steps, config.num_envs)

    def watch(owner: Any, name: str, note: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            seen["calls"].append(note(result, *args, **kwargs))
            return result

        setattr(owner, name, watched)

    def on_update(result: Any, batch: RolloutBatch, num_epochs: int | None = None) -> str:
        if batch.obs.shape[:2] == real:
            seen["real_epochs"].append(num_epochs)
            return "update on the real batch"
        seen["epochs"].append(num_epochs)
        seen["batches"].append(batch.obs.clone())
        return "update on an imagined batch"

    def on_remember(result: Any, transitions: list[tuple[Tensor, ...]]) -> str:
        for this, following in pairwise(transitions):
            goes_on = ~(this[4] | this[5])  # [N]
            seen["in_order"] &= torch.equal(this[3][goes_on], following[0][goes_on])
        return f"remember {len(transitions)} steps"

    def on_fit(result: Any, data: Batch, **kwargs: Any) -> str:
        seen["fits"].append((len(data.obs), kwargs.get("max_epochs")))
        seen["updates"] += result.num_updates
        return "fit"

    def on_make(result: RolloutBatch, *columns: Tensor, **named: Tensor) -> str:
        names = ("obs", "action", "log_prob", "reward", "next_obs", "terminated", "truncated", "valid")
        given = {**dict(zip(names, columns, strict=False)), **named}
        seen["made"] = {name: column.clone() for name, column in given.items()}
        return "make_batch"

    watch(agent.ppo, "collect", lambda *_, **__: "collect")
    watch(agent.ppo, "update", on_update)
    watch(agent, "remember", on_remember)
    watch(agent.model, "fit", on_fit)
    watch(agent, "imagine", lambda *_, **__: "imagine")
    for _ in range(num_iterations):
        agent.iterate()
    if config.use_model and len(agent.buffer):
        watch(agent.ppo, "make_batch", on_make)
        before = int(agent.ppo.counters.imagined_steps)
        agent.imagine()
        seen["counted"] = agent.ppo.counters.imagined_steps - before
        seen["calls"] = seen["calls"][:-2]
    seen["stored"] = agent.buffer.all().obs
    seen["counters"] = dict(vars(agent.ppo.counters))
    seen["end_fits"] = agent.learned_end.rows if isinstance(agent.learned_end, WatchedEnd) else []
    return seen


# %% [markdown]
# <details><summary>Hint: the listener</summary>
#
# `transitions = []`, then `self.ppo.collect(lambda *transition: transitions.append(transition))`.
# </details>
# <details><summary>Hint: imagine</summary>
#
# `obs, action, log_prob, reward, next_obs, terminated, valid = rollouts`, and `make_batch` wants `truncated` between
# the last two.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# PPO: 10 passes of 4 minibatches, 40 gradient steps. Dyna-PPO: 40 and $5 \cdot 10 \cdot 5 = 250$ more, 290. If it is
# better, is it the imagined data, or is it just seven times as many gradient steps? The control is a PPO that takes
# 290 gradient steps on its real batch. The experiments have it, and its result is worth a prediction, too.
# </details>

# %% kind="test" of="dyna-ppo" points=2
one_iteration = ["collect", "update on the real batch", "remember 8 steps", "fit"]
one_iteration += ["imagine", "update on an imagined batch"] * 2
run = watched_run(2)
calls = run["calls"]
text = ", ".join(calls[: len(calls) // 2])
check_true(
    len(calls) > 0 and calls[0] == "collect", "an iteration begins with a real batch: self.ppo.collect"
)
check_true("update on the real batch" in calls, "the policy is not updated on the real batch")
check_true(
    "remember 8 steps" in calls, f"self.remember gets the list of all 8 transitions; the calls were: {text}"
)
check_true("fit" in calls, f"the model is not fitted; the calls were: {text}")
check_true(
    calls.index("fit") > calls.index("remember 8 steps"),
    "the model is fitted before the new transitions are remembered",
)
check_true("imagine" in calls, f"nothing is imagined; the calls were: {text}")
check_true(calls.index("imagine") > calls.index("fit"), "the agent imagines before the model is fitted")
check_true(
    calls.count("imagine") == 4,
    f"imagine was called {calls.count('imagine')} times in two iterations with imag_batches=2, expected 4: "
    "a fresh batch for each update",
)
check_true(
    calls == 2 * one_iteration,
    f"the calls of two iterations were: {', '.join(calls)}; expected twice: {', '.join(one_iteration)}",
)
check_true(
    [rows for rows, _ in run["fits"]] == [16, 32],
    f"the model was fitted to {[rows for rows, _ in run['fits']]} transitions, expected 16, then 32: all of the buffer",
)
check_true(run["in_order"], "the transitions are not remembered in the order in which they came")
check_true(
    run["real_epochs"] == [None, None],
    "imag_epochs are for imagined batches; the real one is updated as in PPO",
)
### BEGIN HIDDEN TESTS
check_true(
    [epochs for _, epochs in run["fits"]] == [2, 2],
    "max_epochs: the model is fitted for config.model_epochs epochs",
)
for one in (run, watched_run(2, model_batch_size=4)):
    check_true(
        one["counters"]["model_updates"] == one["updates"], "model_updates: the sum of all num_updates"
    )
check_true(not torch.equal(run["batches"][0], run["batches"][1]), "both imagined updates use the same batch")
without = watched_run(2, use_model=False)
check_true(without["calls"] == 2 * one_iteration[:3], "without a model it is plain PPO")
late = watched_run(3, model_start=32, imag_batches=1, imag_epochs=4)
expected = one_iteration[:3] + 2 * one_iteration[:6]
check_true(
    late["calls"] == expected, "model_start: imagine from the batch on with which so many steps are reached"
)
forgetful = watched_run(3, model_start=32, buffer_capacity=20, imag_batches=1)
check_true(
    forgetful["calls"] == expected,
    "model_start counts real steps, not what the buffer holds: it may be smaller",
)
check_true(late["real_epochs"] == [None] * 3, "imag_epochs are for imagined batches, not for the real one")
check_true(late["epochs"] == [4, 4], "config.imag_epochs says how many passes an imagined batch gets")
check_true(run["epochs"] == [None] * 4, "config.imag_epochs is None by default, and passed on as it is")
ended = watched_run(2, learned_end=True)
check_true(ended["end_fits"] == [16, 32], "learned_end is fitted to the same data as the model")
full = watched_run(3, buffer_capacity=20, imag_rollouts=200)
check_true(
    [rows for rows, _ in full["fits"]] == [16, 20, 20],
    f"with a buffer_capacity of 20 the model was fitted to {[rows for rows, _ in full['fits']]} transitions, "
    "expected 16, 20 and 20: self.buffer, which forgets",
)
distance = torch.cdist(full["made"]["obs"][0], full["stored"]).amin(dim=1)
check_close("the distance of each start to the buffer's states", distance, torch.zeros(200), atol=1e-3)
### END HIDDEN TESTS
print("Right: act, learn, remember, fit, imagine, learn.")

# %% kind="test" of="dyna-ppo" points=2
GATE = 0.05
LARGER = {"num_steps": 32, "model_epochs": 20, "imag_rollouts": 100, "imag_horizon": 12}
run = watched_run(3, **LARGER)
check_true("made" in run, "imagine did not call self.ppo.make_batch")
made = run["made"]
check_shape(
    "the obs given to make_batch", made["obs"], (12, 100, 4), "[H, N, D], imag_horizon and imag_rollouts"
)
distance = torch.cdist(made["obs"][0], run["stored"]).amin(dim=1)
check_close(
    "the distance of each start to the nearest real state",
    distance,
    torch.zeros(100),
    atol=1e-3,
    hint="rollouts start where the agent has acted, in obs; nothing follows an end",
)
valid, terminated, truncated = made["valid"].bool(), made["terminated"].bool(), made["truncated"].bool()
check_true(
    not (valid[1:] & ~valid[:-1]).any(),
    "a step is valid after one that is not: make_batch takes ..., terminated, truncated, valid, in this order",
)
check_true(terminated.any(), "no imagined rollout terminated, in 12 steps of a policy that knows nothing")
fell = as_tensor("terminated", get_task("cartpole").terminated(made["next_obs"])) & valid
check_true(
    torch.equal(fell, terminated),
    "the column terminated does not say where the pole fell: make_batch takes ..., terminated, truncated, valid",
)
check_true(
    len({tuple(start) for start in made["obs"][0].tolist()}) > 10,
    "all rollouts start in the same states: draw imag_rollouts of them from the buffer",
)
number = int(valid.sum())
check_true(
    run["counted"] != valid.numel() or number == valid.numel(),
    "imagined_steps counts steps that are not valid, too",
)
check_true(
    run["counted"] == number, f"imagined_steps grew by {run['counted']}, expected the {number} valid steps"
)
check_true(truncated.any(), "nothing is truncated, though rollouts were left alive at the horizon: cut_short")
check_true(not (truncated & terminated).any(), "a step is truncated and terminated")
check_close(
    "how many valid steps of each rollout end it, by termination or truncation",
    ((truncated | terminated) & valid).sum(dim=0),
    valid.any(dim=0).long(),
    hint="every rollout with a valid step ends once",
)
### BEGIN HIDDEN TESTS
check_close("the steps of a rollout follow each other", made["obs"][1:], made["next_obs"][:-1])
check_close("rewards of valid steps", made["reward"], valid.float())
actions = as_tensor("action", made["action"])
check_true(((actions == 0) | (actions == 1)).all(), "the policy's own actions go to make_batch, 0 and 1")
check_true((made["log_prob"] < 0).all(), "the log-probabilities of the policy go to make_batch")
check_true(
    (made["log_prob"] < math.log(0.5)).any(), "always the likelier action: draw it, as policy.act does it"
)
closed = watched_run(3, **LARGER, gate=1e-9)
check_true(
    closed["counted"] == 0,
    "nothing passes a closed gate: imagine with self.imagined_step, which knows gate and noise",
)
gated = watched_run(3, **LARGER, gate=GATE)["made"]
valid, ends = gated["valid"].bool(), (gated["truncated"] | gated["terminated"]).bool() & gated["valid"].bool()
check_close(
    "how many valid steps of each gated rollout end it",
    ends.sum(dim=0),
    valid.any(dim=0).long(),
    hint="a rollout that the gate stops is cut short there: cut_short",
)
again = watched_run(3, **LARGER)
check_close("the same agent's imagined starts", again["made"]["obs"], made["obs"], hint="use self.generator")
### END HIDDEN TESTS
print("Right: imagined batches that PPO can learn from.")

# %% [markdown]
# A first comparison, with one seed, so it proves nothing: small real batches of 128 steps, with and without imagination.
# `visit_counts` is one more given function; it counts where the agent has been.

# %% kind="given" ref="imagination:visit_counts"

# %%
agents = {
    name: DynaPPO(cartpole, DynaPPOConfig(num_steps=16, model_start=256, use_model=use_model), seed=1)
    for name, use_model in (("PPO", False), ("Dyna-PPO", True))
}
for agent in agents.values():
    agent.train(2048)

low, high = torch.tensor([-12.0, -3.0]), torch.tensor([12.0, 3.0])
axes = new_axes(columns=3, width=3.6, height=3.4)
for ax, (name, agent), color in zip(axes[1:], agents.items(), (COLORS[0], COLORS[3]), strict=True):
    steps, returns = np.array(agent.ppo.episode_returns).T
    axes[0].plot(steps, returns, ".", color=color, markersize=4, alpha=0.4)
    mean = np.convolve(returns, np.ones(10) / 10, "valid")
    axes[0].plot(steps[9:], mean, color=color, label=f"{name}, mean of 10")
    points = agent.visited.all().obs[:, 2:].clone()
    points[:, 0] = points[:, 0].rad2deg()
    counts = visit_counts(points, low, high, 30)
    shown = dict(origin="lower", extent=(-12, 12, -3, 3), aspect="auto", cmap="Blues")
    picture = ax.imshow(counts.T, norm="log", vmin=0.3, vmax=100, **shown)  # cells without a visit stay white
    ax.grid(False)
    ax.set(xlabel="angle, degrees", title=f"where {name} has been")
axes[0].set(xlabel="environment steps", ylabel="return of an episode", title="2048 real steps, one seed")
axes[0].legend(loc="upper left")
axes[1].set_ylabel("angular velocity, rad/s")
plt.colorbar(picture, ax=axes[2], label="visits", extend="max", ticks=[1, 10, 100], format="%d")
plt.show()
for name, agent in agents.items():
    spent = agent.ppo.counters
    print(
        f"{name:9} {spent.real_steps:,} real steps, {spent.imagined_steps:,} imagined; gradient steps: "
        f"{spent.gradient_steps:,} of the policy, {spent.model_updates:,} of the model"
    )

# %% [markdown]
# Look at the last two lines before you look at the first picture. The two agents took the same real steps, and nothing
# else about them is equal.

# %% [markdown] exercise="worst-case" number="6.7" title="The other use of the model: plan for the worst member" points=3 difficulty=2 minutes=15
# A policy needs thousands of imagined steps until it is any good. A planner is as good as the model, at once; it pays at
# every step instead. With an ensemble there is a question that a single model can't even ask: does this plan work in
# *all* worlds that the data allow? Each member is a world. Follow each plan through each of them, and score it by the
# member in which it fares worst:
#
# $$\text{score}(a_{0:H-1}) = \min_e\ \sum_{t=0}^{H-1} r_t^{(e)} \quad\text{(up to the first end in member } e)$$
#
# It is the same thought as the gate's. The gate stops where the members disagree; the worst case lets a plan pay for it.
# EPOpt (Rajeswaran et al., 2017) trains policies in a related way: on the worst share of the trajectories from an ensemble
# of simulators.
#
# **Predict first.** With little data, CartPole's members disagree. Which planner keeps the pole up longer after 300
# random steps: the one that maximises the mean over the members, or the worst one? And with unlimited data?
#
# **Write `worst_case_scores`.**
#
# - `step(obs [E, N, D], action [E, N, A])` returns `next_obs [E, N, D]`, `reward [E, N]`, `terminated [E, N]`, each member's
#   own; `num_members` is $E$. `obs [D]` is the one state to plan from, `action_sequences` is `[N, H, A]`.
# - A plan's return in a member is the sum of its rewards up to and including the step at which it ends there.
# - Return the smallest return of each plan, `[N]`; minus infinity if *any* member's return is NaN or infinite.
# - You have all of it: `rollout`, `sequence_returns` and `rank_invalid_last` from week 2, `worst_case` from week 5.

# %% kind="solution" of="worst-case" ref="imagination:worst_case_scores"
# TODO: roll all plans out in all members, their returns [E, N], and the smallest of each plan

# %% [markdown]
# <details><summary>Hint: the earlier functions</summary>
#
# `rollout(step, obs, action_sequences, num_members)` has `.rewards` and `.terminated`, `[E, N, H]`. To `worst_case`, every
# member has one particle.
# </details>
# <details><summary>Hint: infinite returns</summary>
#
# The minimum of $(+\infty, 3)$ is 3, and a member that promises infinity is broken. Replace what is not finite *before*
# taking the minimum; `rank_invalid_last` works for any shape.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The cell below runs it. With unlimited data all members agree, and the two planners are one.
# </details>


# %% kind="test" of="worst-case" points=2
def step(obs, action):  # member e thinks that the lever's gain is 1, -1 or 2; beyond 5 the world ends
    obs = check_shape(
        "what step was given as obs", obs, (3, 4, 1), "[E, N, D]: every plan in every member"
    ).float()
    gains = torch.tensor([1.0, -1.0, 2.0])[:, None, None]
    next_obs = obs + gains * torch.as_tensor(action)
    return next_obs, next_obs[..., 0], next_obs[..., 0].abs() > 5


plans = torch.tensor([[1.0, 1.0, 1.0], [-2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [4.0, 4.0, -20.0]])[
    ..., None
]  # [N, H, A]
scores = worst_case_scores(step, 3, torch.zeros(1), plans)
check_shape(
    "worst_case_scores",
    scores,
    (4,),
    {
        (3,): "one score for each plan, the smallest over the members",
        (): "one score for each plan, the smallest over the members",
        (2, 4): "min(dim=0) is a pair, values and indices; amin(dim=0) is the values alone",
    },
)
check_close(
    "worst_case_scores of pushing by 1 three times; of one push by -2; of doing nothing",
    as_tensor("scores", scores)[:3],
    [-6.0, -12.0, 0.0],
    mistakes={
        "the mean over the members, expected the worst": [4.0, -4.0, 0.0],
        "the best member, expected the worst": [12.0, 6.0, 0.0],
        "only the last reward counts": [-3.0, -4.0, 0.0],
        "only the first member is asked": [6.0, -6.0, 0.0],
    },
)
check_close(
    "worst_case_scores of a plan that leaves the allowed range",
    as_tensor("scores", scores)[3:],
    [-12.0],
    mistakes={
        "rewards after the end count": [0.0],
        "the step that ends the episode does not count": [-4.0],
    },
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
plans, start = 2 * torch.randn(4, 6, 1, generator=generator), torch.tensor([0.7])
expected = []
for plan in plans[..., 0].tolist():
    returns = []
    for gain in (1.0, -1.0, 2.0):
        x, total = 0.7, 0.0
        for push in plan:
            x += gain * push
            total += x
            if abs(x) > 5:
                break
        returns.append(total)
    expected.append(min(returns))
check_close(
    "worst_case_scores of random plans", worst_case_scores(step, 3, start, plans), expected, atol=1e-4
)
### END HIDDEN TESTS
print("Right: a plan is as good as its worst world.")

# %% kind="test" of="worst-case" points=1
broken = {"value": math.nan}


def step(obs, action):  # two members, three plans; plan 1 breaks in member 1, plan 2 is poor in member 0
    reward = torch.tensor([[1.0, 5.0, -4.0], [1.0, broken["value"], 1.0]])
    return obs, reward, torch.zeros(2, 3, dtype=torch.bool)


plans = torch.zeros(3, 2, 1)
for value in (math.nan, math.inf, -math.inf):
    broken["value"] = value
    scores = check_shape("worst_case_scores", worst_case_scores(step, 2, torch.zeros(1), plans), (3,))
    low = float(scores[1])
    check_close(
        f"worst_case_scores where plan 1 earns {value} in one member",
        scores,
        [2.0, -math.inf, -8.0],
        mistakes={
            "NaN is passed on, expected minus infinity": [2.0, math.nan, -8.0],
            "the broken member is left out; a plan that breaks a member never wins": [2.0, 10.0, -8.0],
            "it is a very low number, expected minus infinity": [
                2.0,
                low if -math.inf < low < -100 else 0.0,
                -8.0,
            ],
        },
    )


### BEGIN HIDDEN TESTS
def all_break(obs, action):
    obs = torch.as_tensor(obs)
    return obs, torch.full(obs.shape[:2], math.nan), torch.zeros(obs.shape[:2], dtype=torch.bool)


scores = worst_case_scores(all_break, 1, torch.zeros(2), torch.zeros(4, 3, 1))
check_close("worst_case_scores where every plan breaks the only member", scores, [-math.inf] * 4)
### END HIDDEN TESTS
print("Right: what breaks a member never wins.")

# %% [markdown]
# Three ensembles, each fitted to 300 random steps of CartPole (about 14 short episodes). In each of them CEM plans 15
# steps ahead for two episodes, once for the mean over the members and once for the worst. It takes some fifteen seconds.


# %%
class EnsembleMPC:
    """CEM over a score of action sequences, `score(step, num_members, obs, sequences)`; warm-started."""

    def __init__(self, model, score, generator):
        self.model, self.score, self.generator = model, score, generator
        self.config = CEMConfig(population_size=60, num_elites=8, num_iterations=2, horizon=15)
        self.reset()

    def reset(self):
        self.last = torch.zeros(self.config.horizon, 1)

    def plan(self, obs):
        def step(obs, action):
            return self.model.step(obs, action, self.model.elites, sample=False)

        def score(sequences):
            return self.score(step, len(self.model.elites), obs, sequences)

        low, high = cartpole.action_low, cartpole.action_high
        self.last = cem_plan(score, shift_plan(self.last), low, high, self.config, self.generator)
        return self.last


def mean_scores(step, num_members, obs, sequences):
    imagined = rollout(step, obs, sequences, num_members)
    return sequence_returns(imagined.rewards, imagined.terminated).mean(dim=0)


ax = new_axes(width=6.4)[0]
for number in range(3):
    generator = torch.Generator().manual_seed(number)
    model = fitted(collect_random(cartpole, 300, generator)[0], seed=number, max_epochs=50)
    for place, (name, score) in enumerate({"mean": mean_scores, "worst member": worst_case_scores}.items()):
        planner = EnsembleMPC(model, score, torch.Generator().manual_seed(number))
        earned = [
            run_episode(cartpole, planner, seed=10 + episode, max_steps=200).reward.sum()
            for episode in range(2)
        ]
        label = f"CEM for the {name}" if number == 0 else None
        positions = number + 0.2 * place - 0.1 + np.array([-0.04, 0.04])  # equal returns stay apart
        ax.plot(positions, earned, "o", color=COLORS[3 * place], markersize=10, label=label)
ax.axhline(22, color=GREY, linestyle=":", linewidth=1.5)
ax.text(2.45, 8, "random", color=GREY, ha="right")
ax.set(
    xlabel="",
    ylabel="return, 200 at most",
    title="The same model, two ways to judge a plan",
    ylim=(0, 210),
    xlim=(-0.5, 2.5),
)
ax.set_xticks(range(3), [f"ensemble {number + 1}" for number in range(3)])
ax.legend(loc="lower left", bbox_to_anchor=(0.0, 0.12))
plt.show()

# %% [markdown]
# Six episodes each are a hint, not a result; this week's experiments have more. Note what is *not* in the picture: a
# planner spends here about 9000 imagined steps for each real one.

# %% [markdown]
# ## What to take along
#
# - `terminated` masks the bootstrap, `truncated` does not; neither lets the next episode's advantage through. The same
#   two cases come back in imagination: the model says "over", or the gate says "I don't know".
# - The clipped objective is flat where the policy has gone far enough, and steep where it went wrong.
# - A policy that learns moves its own data. Judge the model where the policy is now.
# - Dyna starts in real states and asks the *present* policy for actions. So the actions are on-policy; where the rollouts
#   start is not, it is where older policies have been.
# - Disagreement is what the agent knows about its error; a shared error stays invisible.
# - Imagined updates are also *more* updates. Compare with an agent that takes as many.
#
# ## Test yourself
#
# <details><summary>1. Imagined rollouts are 5 steps long, and CartPole's episodes 500. How can the agent learn anything
# about the far future from them?</summary>
#
# Through the value function: where a rollout is cut short, $V$ of its last state counts as what is to come. The rollouts
# improve the policy and $V$ for the next few steps, and $V$ hands on the rest. If `cut_short` was taken for an end, every
# imagined life would last five steps, and all of them would be worth the same.
# </details>
# <details><summary>2. Why do the rollouts start in states of the buffer, and not always at the initial states?</summary>
#
# A model's error grows with each imagined step. From the beginning of an episode, a rollout would need hundreds of them
# to reach a late state. Branching off from a real state makes every state reachable in no step at all.
# </details>
# <details><summary>3. The gate is closed for every prediction, since the members disagree everywhere. What does the agent
# do?</summary>
#
# No row is valid, the imagined updates do nothing: it is PPO, with the cost of fitting a model. That is the good thing
# about a gate: at its strictest it falls back to the model-free agent.
# </details>
# <details><summary>4. Dyna-PPO learns faster than PPO in your experiment. Name two explanations that have nothing to do
# with the model being good.</summary>
#
# It takes more gradient steps per real step, and PPO might have profited from more as well (more epochs, a smaller batch).
# And its value function gets more training. So compare with PPO at equal gradient steps, with updates spent on real
# batches. (Noise in the model is no such test: where it has no bias it can average out over thousands of imagined steps, and
# a model that is wrong in each prediction can still teach the right thing on average.)
# </details>
# <details><summary>5. All five members were fitted to the same 200 transitions, and all say that the pole stays up. Can the
# worst-case planner be wrong?</summary>
#
# Yes. The worst of five opinions is still an opinion, and all five share the data. Where there were none, they agree or
# disagree by the accident of their initial weights. The worst case protects against *known* ignorance only.
# </details>
#
# ## Where next
#
# `experiments.ipynb` beside this notebook runs on *your* functions: Dyna-PPO against PPO, and against PPO with as many
# updates; the imagined horizon; models that are corrupted on purpose; the gate; ensembles of several sizes; and planning
# in the ensemble. Next week goes to the end of this road: SAC instead of PPO, an off-policy learner that can reuse
# every transition, real or imagined. That is MBPO. Where the gate becomes a price on doubt: [MOPO](https://arxiv.org/abs/2005.13239)
# (Yu et al., 2020), which learns from recorded data alone. Where the policy's gradient runs through the model, uncertainty
# included: PILCO (Deisenroth and Rasmussen, 2011), which needs but a minute of real cart-pole.
