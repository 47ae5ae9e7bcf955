# %% [markdown]
# # Week 5 · PETS
#
# You have a planner (week 3) and a model that knows what it doesn't know (week 4). This week they meet. The
# agent that comes of it learned the tasks of its time from so few trials that its paper is named after that:
# *in a handful of trials*. Yours will balance a pole after two or three.
#
# There is one question to settle. An ensemble does not predict a future, it predicts *many*: five networks,
# each with a Gaussian. Which of them should a plan be judged by? The answer of PETS is: by a cloud of
# **particles**, each of which lives through a future of its own.
#
# **After this notebook you can**
#
# - carry a particle one step forward, with a reward that is given or learned;
# - propagate particles by TS1 and by TS-infinity, and say what either does to the two kinds of uncertainty;
# - judge a plan by its average particle, by its worst member, or by its mean less its spread;
# - run the loop of trials, and keep its books: steps in the world, imagined steps, gradient steps.
#
# **Where it comes from**
#
# - Chua et al., 2018, [*Deep reinforcement learning in a handful of trials using probabilistic dynamics
#   models*](https://arxiv.org/abs/1805.12114): PETS, "probabilistic ensembles with trajectory sampling".
#   Section 5 has the particles, Algorithm 1 the loop.
# - Deisenroth and Rasmussen, 2011, *PILCO: a model-based and data-efficient approach to policy search*: why a
#   model's uncertainty has to be part of the plan.
#
# **How it goes.** Five exercises, 30 points, about two hours; the notebook itself runs in half a minute. Fill
# in the cells that raise `NotImplementedError`. The checks below each of them tell at once whether your code
# is right, and what is likely wrong with it. When you hand in, hidden checks are added; they test nothing that
# the text does not say. One rule holds for all exercises: a function leaves the tensors that it is given as they
# are.
#
# The first four exercises use a model so small that all can be computed by hand. The cart-pole comes last.

# %% kind="setup"
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from mbrl_course.buffers import Batch, concatenate
from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.checking import (
    as_tensor,
    check_between,
    check_close,
    check_raises,
    check_shape,
    check_true,
    check_unchanged,
)
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble, Prediction
from mbrl_course.envs import get_task, never_terminates
from mbrl_course.envs.task import RewardFunction, Task, TerminationFunction
from mbrl_course.films import episode_film, make_film
from mbrl_course.icem import ICEMConfig, ICEMPlanner
from mbrl_course.mpc import (
    Planner,
    RandomShootingConfig,
    RandomShootingPlanner,
    rank_invalid_last,
    rollout,
    run_episode,
)
from mbrl_course.mppi import MPPIConfig, MPPIPlanner
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style
from mbrl_course.validation import need_at_least, need_whole

use_style()

# %% [markdown]
# ## Two members that disagree
#
# A cart stands on a rail at $x = 0$. Its motor is wired to the lever $a$, but which way round? Two members of
# an ensemble have different opinions. Member A says that the lever pushes the cart to the right, member B that
# it pushes to the left. Both say that the rail is a bit rough, with noise of the variance $\sigma^2$:
#
# $$\text{A:}\quad x' \sim \mathcal{N}(x + a,\ \sigma^2) \qquad\qquad
#   \text{B:}\quad x' \sim \mathcal{N}(x - a,\ \sigma^2)$$
#
# This is an ensemble with both kinds of week 4's uncertainty. The roughness is **aleatoric**: it stays,
# whatever we learn. The wiring is **epistemic**: one of the two members is simply wrong, and a single push of
# the lever would tell which.
#
# Below is the model as a function with the interface of `GaussianEnsemble.predict`. Each of the $K$ members
# answers $M$ rows of its own: `obs` is `[K, M, D]`, `action` is `[K, M, A]`, and so are the predicted means
# and variances `[K, M, D]`. Here $K = 2$ and $D = A = 1$.


# %% kind="setup"
def toy_prediction(
    obs: Tensor, action: Tensor, noise_std: float = 0.0, gains: tuple[float, ...] = (1.0, -1.0)
) -> Prediction:
    """What each member predicts: member k thinks that the lever moves the cart by gains[k] times the action."""
    mean = obs + torch.tensor(gains)[:, None, None] * action  # [K, M, 1]
    return Prediction(mean, torch.full_like(mean, noise_std**2), None, None)


# %%
prediction = toy_prediction(torch.zeros(2, 1, 1), torch.ones(2, 1, 1), noise_std=0.3)
print(
    "after a push of 1:  A expects",
    prediction.obs[0, 0, 0].item(),
    " B expects",
    prediction.obs[1, 0, 0].item(),
)

# %% [markdown] exercise="particle-step" number="5.1" title="One step of a particle" points=6 difficulty=2 minutes=20
# A particle is a state in one imagined future. To carry it forward, its member is asked for a Gaussian, and
# the next state is *drawn* from it, each dimension by itself:
#
# $$s' = \mu(s, a) + \sigma(s, a)\, \epsilon, \qquad \epsilon \sim \mathcal{N}(0, 1)$$
#
# And the reward? There are two ways to have one.
#
# - **From the task.** Who poses a task often knows how it is scored: minus the distance to a goal, say. Then
#   the reward is a function $r(s, a, s')$, evaluated for the transition *that this particle has made*. PETS
#   does it like this.
# - **Learned.** If rewards are only observed, the model learns them as one more output, again a Gaussian:
#   $r = \mu_r + \sigma_r\, \epsilon_r$, with noise of its own.
#
# The end of an episode is a function of the state in this course: $d = \text{terminated}(s')$.
#
# **Predict first.** A particle makes one step with $\mu = 1$, $\sigma = 0.3$, and the reward is $-s'^2$. What is
# the mean reward over many particles? And what would it be, if the reward were evaluated at the *mean* next
# state?
#
# **Write `particle_step`.**
#
# - `prediction` has the fields `obs` and `obs_var`, mean and **variance** of the next state, `[K, M, D]` (of the
#   state itself, not of its change). Where the reward is learned, `reward` and `reward_var` are its mean and variance, `[K, M]`; otherwise both are
#   `None`.
# - `obs [K, M, D]` and `action [K, M, A]` are where the particles are and what they do.
# - `reward(obs, action, next_obs)` returns `[K, M]`; `terminated(next_obs)` returns bool `[K, M]`.
# - Return `next_obs [K, M, D]`, `reward [K, M]`, `terminated [K, M]`, in this order. A learned reward comes
#   first: the function is not asked then, and may be `None`. If there is neither, raise a `ValueError`.
# - Every number that is drawn has noise of its own. All of it comes from `generator`.

# %% kind="given" ref="pets:StepResult"

# %% kind="solution" of="particle-step" ref="pets:particle_step"
# TODO: draw the next state of every particle (torch.randn with generator=generator)
# TODO: draw the reward, if the prediction has one; otherwise ask the task's function, if there is one
# TODO: where has the episode ended?

# %% [markdown]
# <details><summary>Hint: from a variance to a draw</summary>
#
# `mean + var.sqrt() * torch.randn(mean.shape, generator=generator)`. A common slip is to multiply by the
# variance: with a variance of 0.01 that makes the noise ten times too small.
# </details>
# <details><summary>Hint: which next state?</summary>
#
# The drawn one, in the reward and in the termination. A particle that fell off the table has fallen off the
# table, even if the mean has not.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# $E[-s'^2] = -(\mu^2 + \sigma^2) = -1.09$. At the mean it is $-1$. A curved reward sees the noise, and the mean
# prediction hides it: too good to be true wherever the reward is a hill, which is where planners want to go.
# </details>


# %% kind="test" of="particle-step" points=2
def reward(obs, action, next_obs):
    return 0.0 * torch.as_tensor(next_obs)[..., 0]


def terminated(next_obs):
    return torch.as_tensor(next_obs)[..., 0] > 1000


mean = torch.tensor([[[1.0, -2.0]], [[5.0, 3.0]]]).repeat(1, 3000, 1)  # [K, M, D]
std = torch.tensor([[[0.5, 2.0]], [[0.1, 3.0]]]).repeat(1, 3000, 1)
obs, action = torch.full((2, 3000, 2), 20.0), torch.zeros(2, 3000, 1)
given = mean.clone(), std**2
prediction = Prediction(*given, None, None)
result = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(0))
check_unchanged("prediction.obs", given[0], mean, "make a new tensor (mean + ..., not mean += ...)")
check_unchanged("prediction.obs_var", given[1], std**2, "make a new tensor (sqrt, not sqrt_)")
check_true(
    result is not None and len(result) == 3,
    "particle_step returns three things: next_obs, reward, terminated",
)
next_obs = check_shape(
    "next_obs", result[0], (2, 3000, 2), {(2, 3000): "is it the reward? next_obs comes first"}
).double()
check_shape("reward", result[1], (2, 3000))
check_shape("terminated", result[2], (2, 3000))
check_close(
    "the spread (standard deviation) of next_obs over the particles",
    next_obs.std(dim=1),
    std[:, 0],
    mistakes={
        "obs_var is used as a standard deviation: it is a variance, take its square root": std[:, 0] ** 2,
        "all particles got the same draw, or none at all": torch.zeros(2, 2),
        "it is 1 everywhere: is the noise multiplied by the standard deviation?": torch.ones(2, 2),
        "the noise is uniform (torch.rand), expected normal: torch.randn": std[:, 0] / 12**0.5,
    },
    rtol=0.08,
)
center = next_obs.mean(dim=1)  # [K, D]
check_true(
    not torch.allclose(center, mean[:, 0].double() + 20, atol=1),
    "next_obs is too large by obs: prediction.obs is the next state's mean already, not its change",
)
check_true(
    not torch.allclose(center, torch.full((2, 2), 20.0).double(), atol=1),
    "the noise is added to obs, expected to the mean of the next state, prediction.obs",
)
off = (center - mean[:, 0]) / std[:, 0]
check_between(
    "the mean of next_obs over the particles, less prediction.obs, in standard deviations", off, -0.1, 0.1
)
### BEGIN HIDDEN TESTS
noise = ((next_obs - mean) / std).transpose(0, 1).reshape(3000, 4)  # a column for each member and dimension
correlation = torch.corrcoef(noise.T) - torch.eye(4)
check_between(
    "correlation between the draws of members and dimensions",
    correlation,
    -0.1,
    0.1,
    "every number that is drawn has noise of its own",
)
prediction = Prediction(mean.clone(), std**2, None, None)
again = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(0))
check_close("next_obs with the same seed", again[0], next_obs, hint="all noise comes from generator")
other = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(1))
check_true(
    not torch.allclose(as_tensor("next_obs", other[0]).double(), next_obs), "other seeds change nothing"
)
### END HIDDEN TESTS
print("Right: each particle draws its next state.")


# %% kind="test" of="particle-step" points=2
def reward(obs, action, next_obs):
    obs, action, next_obs = (torch.as_tensor(x) for x in (obs, action, next_obs))
    return 100 * obs[..., 0] + 10 * action[..., 0] + next_obs[..., 0]


def terminated(next_obs):
    return torch.as_tensor(next_obs)[..., 0] > 0


generator = torch.Generator().manual_seed(1)
obs = torch.randn(3, 40, 1, generator=generator)  # [K, M, D]
action = torch.randn(3, 40, 1, generator=generator)
mean, var = torch.randn(3, 40, 1, generator=generator), torch.full((3, 40, 1), 4.0)
prediction = Prediction(mean, var, None, None)
result = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(2))
check_true(
    result is not None and len(result) == 3,
    "particle_step returns three things: next_obs, reward, terminated",
)
next_obs, rewards, ended = result
drawn = check_shape(
    "next_obs", next_obs, (3, 40, 1), "next_obs comes first, then reward, then terminated"
).float()
check_close(
    "reward",
    rewards,
    reward(obs, action, drawn),
    mistakes={
        "it belongs to the mean next state, expected the one that was drawn": reward(obs, action, mean),
        "the state before the step is used in place of next_obs": reward(obs, action, obs),
        "obs and next_obs are swapped": reward(drawn, action, obs),
        "its arguments are obs, action, next_obs, in this order": reward(obs, drawn, action),
        "the step on which the episode ends has its reward, too": reward(obs, action, drawn)
        * (drawn[..., 0] <= 0),
    },
    hint="expected reward(obs, action, next_obs) with the next_obs that is returned",
)
check_true(as_tensor("terminated", ended).dtype == torch.bool, "terminated holds numbers, expected bools")
check_close(
    "terminated",
    as_tensor("terminated", ended).double(),
    (drawn[..., 0] > 0).double(),
    mistakes={
        "it belongs to the mean next state, expected the one that was drawn": (mean[..., 0] > 0).double(),
        "it belongs to the state before the step": (obs[..., 0] > 0).double(),
    },
    hint="expected terminated(next_obs) with the next_obs that is returned",
)
### BEGIN HIDDEN TESTS
wide = torch.randn(2, 7, 5, generator=generator), torch.randn(2, 7, 3, generator=generator)
prediction = Prediction(wide[0] + 1, torch.ones(2, 7, 5), None, None)
next_obs, rewards, ended = particle_step(
    prediction, *wide, reward, terminated, torch.Generator().manual_seed(3)
)
drawn = check_shape("next_obs", next_obs, (2, 7, 5)).float()
check_close("reward", rewards, reward(*wide, drawn))
check_close("terminated", as_tensor("terminated", ended).double(), (drawn[..., 0] > 0).double())
### END HIDDEN TESTS
print("Right: reward and end belong to the transition that the particle has made.")


# %% kind="test" of="particle-step" points=2
def reward(obs, action, next_obs):
    return torch.as_tensor(next_obs)[..., 0] * 0 - 999


def terminated(next_obs):
    return torch.as_tensor(next_obs)[..., 0] > 0


obs, action = torch.zeros(2, 3000, 1), torch.zeros(2, 3000, 1)  # [K, M, D], [K, M, A]
reward_mean = torch.tensor([[4.0], [-7.0]]).repeat(1, 3000)  # [K, M]
reward_std = torch.tensor([[0.5], [3.0]]).repeat(1, 3000)
given = reward_mean.clone(), reward_std**2
prediction = Prediction(obs + 1, torch.ones(2, 3000, 1), *given)
result = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(7))
check_unchanged("prediction.reward", given[0], reward_mean, "make a new tensor (mean + ..., not mean += ...)")
check_unchanged("prediction.reward_var", given[1], reward_std**2, "make a new tensor (sqrt, not sqrt_)")
check_true(
    result is not None and len(result) == 3,
    "particle_step returns three things: next_obs, reward, terminated",
)
next_obs, rewards, ended = result
rewards = check_shape("the learned reward", rewards, (2, 3000)).double()
check_true(
    not (rewards == -999).any(), "the reward is the function's, though the prediction has one: it comes first"
)
check_close(
    "the spread of a learned reward over the particles",
    rewards.std(dim=1),
    reward_std[:, 0],
    mistakes={
        "all particles got the same draw, or none: a learned reward is drawn from its Gaussian, as the state is": torch.zeros(
            2
        ),
        "reward_var is used as a standard deviation: it is a variance": reward_std[:, 0] ** 2,
        "it is 1 everywhere: is the noise multiplied by the standard deviation?": torch.ones(2),
        "the noise is uniform (torch.rand), expected normal: torch.randn": reward_std[:, 0] / 12**0.5,
    },
    rtol=0.08,
)
off = (rewards.mean(dim=1) - reward_mean[:, 0]) / reward_std[:, 0]
check_between("the mean of a learned reward, less prediction.reward, in standard deviations", off, -0.1, 0.1)
### BEGIN HIDDEN TESTS
drawn = as_tensor("next_obs", next_obs)[..., 0].double()
again = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(7))
check_close("the learned reward with the same seed", again[1], rewards, hint="all noise comes from generator")
other = particle_step(prediction, obs, action, reward, terminated, torch.Generator().manual_seed(8))
check_true(
    not torch.allclose(as_tensor("the learned reward", other[1]).double(), rewards),
    "other seeds don't change the learned reward",
)
for k in range(2):
    both = torch.corrcoef(torch.stack([drawn[k], rewards[k]]))[0, 1]
    check_between(
        "correlation of a learned reward with the state", both, -0.1, 0.1, "each has noise of its own"
    )
both = torch.corrcoef(rewards)[0, 1]
check_between(
    "correlation of the members' learned rewards", both, -0.1, 0.1, "every number has noise of its own"
)
try:
    without = particle_step(prediction, obs, action, None, terminated, torch.Generator().manual_seed(7))
except ValueError:
    without = None
check_true(
    without is not None, "a ValueError though the reward is learned: the function may be None in this case"
)
check_close("the learned reward where reward is None", without[1], rewards)
check_close(
    "terminated",
    as_tensor("terminated", ended).double(),
    (drawn > 0).double(),
    hint="expected terminated(next_obs) with the next_obs that is returned",
)
no_reward = (Prediction(obs, obs, None, None), obs, action, None, terminated, torch.Generator())
check_raises("neither a learned reward nor a function", ValueError, particle_step, *no_reward)
### END HIDDEN TESTS
print("Right: a learned reward is drawn.")

# %% [markdown]
# Two thousand particles make one step with $a = 1$, half of them with either member. On the left their states:
# the two kinds of uncertainty, for the eye. On the right the rewards $-x'^2$, once from the task's function and
# once from a perfectly learned model of it.


# %%
def toy_reward(obs, action, next_obs):
    return -(next_obs[..., 0] ** 2)


generator = torch.Generator().manual_seed(0)
origin, push, noise_std = torch.zeros(2, 1000, 1), torch.ones(2, 1000, 1), 0.3
known = toy_prediction(origin, push, noise_std)
from_task = particle_step(known, origin, push, toy_reward, never_terminates, generator)
spread_of_square = 2 * noise_std**4 + 4 * noise_std**2  # the variance of x'^2 where x' has mean 1 or -1
perfect = known._replace(
    reward=torch.full((2, 1000), -1 - noise_std**2), reward_var=torch.full((2, 1000), spread_of_square)
)
learned = particle_step(perfect, origin, push, None, never_terminates, generator)

axes = new_axes(columns=2)
grid = torch.linspace(-2.2, 2.2, 200)
for number, name in enumerate("AB"):
    axes[0].hist(
        from_task[0][number, :, 0], bins=40, range=(-2.2, 2.2), density=True, alpha=0.5, color=COLORS[number]
    )
    center = 1.0 if name == "A" else -1.0
    density = torch.exp(-(((grid - center) / noise_std) ** 2) / 2) / (noise_std * (2 * torch.pi) ** 0.5)
    axes[0].plot(grid, density, color=COLORS[number], label=f"member {name}")
variance = from_task[0].var()
axes[0].set(xlabel="$x'$", ylabel="density", title=f"Variance {variance:.2f} ≈ 1 (who?) + 0.09 (noise)")
axes[0].legend(loc="upper center")
for (next_obs, rewards, _), name, color in zip(
    (learned, from_task), ("learned", "task"), (COLORS[3], COLORS[2]), strict=True
):
    label = f"{name}, mean {rewards.mean():.2f}"
    axes[1].plot(
        next_obs.flatten(), rewards.flatten(), ".", color=color, markersize=3, alpha=0.4, label=label
    )
axes[1].set(xlabel="$x'$", ylabel="reward", title="A learned reward forgets the state")
axes[1].legend(loc="lower center", markerscale=4)
plt.show()

# %% [markdown]
# The learned reward has the right mean and the right spread, but it is drawn beside the state, not from it: a
# particle may get a good reward in a bad place. Averaged over particles and steps that does no harm. For a
# judgement by the worst case (5.4) it is just more noise. If you know the reward function, use it.

# %% [markdown] exercise="ts-infinity" number="5.2" title="TS-infinity: a member for life" points=6 difficulty=3 minutes=25
# Now many steps. $P$ particles start from the real state, for each of $N$ plans: $P \cdot N$ futures. Which
# member do they ask at each step? The first answer: **always the same**. A particle is born into a member and
# stays there. So each future is one that a single model believes in from beginning to end: a world in which
# the motor is wired one way, and stays wired that way. Chua et al. call this TS$\infty$: the member is drawn
# anew after infinitely many steps, that is, never.
#
# To the planner of weeks 2 and 3, the particles simply take the place of the members: states are `[P, N, D]`,
# actions `[P, N, A]`. The model has $K$ members, and wants `[K, M, ...]`: $M$ rows for each. So the particles
# are sorted into groups. The first $P / K$ of them belong to the first member, the next $P / K$ to the second
# one, and so on, with all of their plans, so $M = P / K \cdot N$:
#
# | particle | 0 | 1 | 2 | 3 | 4 | 5 |
# |---|---|---|---|---|---|---|
# | member, for $P = 6$, $K = 2$ | A | A | A | B | B | B |
#
# One call of the model for all, and the answers go back to where the questions came from.
#
# **Predict first.** Someone pushes the lever by 1 for ten steps, and there is no noise. Where are the particles
# after that? What is their variance after $H$ steps?
#
# **Write `ts_inf_step`.**
#
# - `step(obs [K, M, D], action [K, M, A])` returns `next_obs [K, M, D]`, `reward [K, M]`, `terminated [K, M]`:
#   row $k$ is answered by member $k$. Call it once, with every particle of every plan once.
# - `obs` is `[P, N, D]`, `action` is `[P, N, A]`, `num_members` is $K$, and $P$ is a multiple of $K$.
# - Return `next_obs [P, N, D]`, `reward [P, N]`, `terminated [P, N]`, each answer in its particle's place.
# - Nothing is random here; the noise is in `step`.

# %% kind="given" ref="pets:MemberStep"

# %% kind="solution" of="ts-infinity" ref="pets:ts_inf_step"
# TODO: bring obs and action into groups, [K, M, .]
# TODO: ask all members at once
# TODO: bring the three answers back to [P, N, D], [P, N] and [P, N]

# %% [markdown]
# <details><summary>Hint: grouping</summary>
#
# Particles are the first axis, so the groups already lie one after the other in memory. A `reshape` does it,
# there and back: no index, no loop.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Half of them at $+10$, half at $-10$: each member is sure of its world, and the two worlds drift apart. The
# variance after $H$ steps is $H^2$. The disagreement grows with the *square* of time.
# </details>


# %% kind="test" of="ts-infinity" points=2
calls = []


def step(obs, action):  # member k adds 100 * (k + 1)
    obs = check_shape(
        "what step was given as obs",
        obs,
        (2, 15, 1),
        {
            (6, 5, 1): "bring the particles into K = 2 groups first: [K, M, D] with M = P / K * N",
            (
                2,
                30,
                1,
            ): "each member was given all particles, expected its own group only: M = P / K * N rows",
            (3, 10, 1): "there should be K = 2 groups, of P / K = 3 particles each; not the other way round",
            (1, 15, 1): "ask all members in one call, [K, M, D]",
            (15, 1): "ask all members in one call, [K, M, D]",
            (2, 3, 5, 1): "the plans of a group's particles are one axis, [K, M, D] with M = P / K * N",
        },
    )
    check_shape("what step was given as action", action, (2, 15, 1), "[K, M, A], beside obs [K, M, D]")
    calls.append(obs)
    shift = 100.0 * torch.arange(1, 3)[:, None]
    return obs + shift[..., None], shift.repeat(1, 15), obs[..., 0] > 1000


obs = torch.arange(30.0).reshape(6, 5, 1)  # [P, N, D], every particle of every plan has a number
result = ts_inf_step(step, 2, obs, torch.zeros(6, 5, 1))
check_true(len(calls) == 1, f"step was called {len(calls)} times, expected once for all particles")
check_true(
    result is not None and len(result) == 3, "ts_inf_step returns three things: next_obs, reward, terminated"
)
shift = 100.0 * torch.tensor([1, 1, 1, 2, 2, 2])[:, None].expand(6, 5)  # [P, N]
alternating = 100.0 * torch.tensor([1, 2, 1, 2, 1, 2])[:, None].expand(6, 5)
check_close(
    "next_obs",
    result[0],
    obs + shift[..., None],
    mistakes={
        "particles 0, 2, 4 asked the first member; the first half of them should: 0, 1, 2": obs
        + alternating[..., None],
    },
    hint="particle p belongs to member p // (P / K), and its answer is in its own place",
)
### BEGIN HIDDEN TESTS
check_close("reward", result[1], shift, mistakes={"the groups alternate": alternating})
check_shape("terminated", result[2], (6, 5))
check_close("every particle asks once", calls[0].flatten().sort().values, torch.arange(30.0))
### END HIDDEN TESTS
print("Right: every particle asks its own member.")


# %% kind="test" of="ts-infinity" points=2
def step(obs, action):
    obs, action = torch.as_tensor(obs), torch.as_tensor(action)
    check_true(
        obs.shape[:-1] == action.shape[:-1],
        f"step was given obs {list(obs.shape)} and action {list(action.shape)}, expected [K, M, D] and [K, M, A]",
    )
    return obs + action[..., :1], 10 * obs[..., 1] + action[..., 1], obs[..., 0] > action[..., 0]


generator = torch.Generator().manual_seed(0)
obs, action = torch.randn(8, 6, 3, generator=generator), torch.randn(8, 6, 2, generator=generator)
expected = step(obs, action)  # here all members agree, so that only the places matter
result = ts_inf_step(step, 4, obs, action)
check_true(
    result is not None and len(result) == 3, "ts_inf_step returns three things: next_obs, reward, terminated"
)
next_obs, rewards, ended = result
groups = "these are still groups, [K, M]: bring all three answers back to [P, N]"
check_shape("next_obs", next_obs, (8, 6, 3), {(4, 12, 3): groups})
check_shape("reward", rewards, (8, 6), {(4, 12): groups, (6, 8): "a row for each particle: [P, N]"})
check_true(
    as_tensor("reward", rewards).is_floating_point() and as_tensor("terminated", ended).dtype == torch.bool,
    "step answers next_obs, reward, terminated, in this order, and so does ts_inf_step; terminated is bool",
)
check_close(
    "next_obs",
    next_obs,
    expected[0],
    hint="obs and action of a particle go together, and its answer comes back",
)
check_close(
    "reward", rewards, expected[1], hint="it is the second answer of step, each in its particle's place"
)
check_shape("terminated", ended, (8, 6), {(4, 12): groups})
check_close(
    "terminated",
    as_tensor("terminated", ended).double(),
    expected[2].double(),
    hint="it is the third answer of step, each in its particle's place",
)
### BEGIN HIDDEN TESTS
for size, members in ((4, 4), (5, 1), (2, 2), (12, 3)):  # a particle each, a single member, ...
    obs, action = torch.randn(size, 1, 2, generator=generator), torch.randn(size, 1, 2, generator=generator)
    results = ts_inf_step(step, members, obs, action)
    for name, value, right in zip(("next_obs", "reward"), results, step(obs, action), strict=False):
        check_close(f"{name} with P={size}, K={members}, N=1", value, right)
### END HIDDEN TESTS
print("Right: questions and answers stay together.")


# %% kind="test" of="ts-infinity" points=2
def step(obs, action):  # the members of the toy, without noise
    mean = toy_prediction(torch.as_tensor(obs), torch.as_tensor(action)).obs
    return mean, -(mean[..., 0] ** 2), torch.zeros(mean.shape[:2], dtype=torch.bool)


pushes = torch.tensor([1.0, 2.0, 0.0])[:, None, None].expand(3, 4, 1)  # [N, H, A], three plans of 4 steps
imagined = rollout(lambda obs, action: ts_inf_step(step, 2, obs, action), torch.zeros(1), pushes, 6)
final = check_shape("the states after 4 steps", imagined.obs[:, :, -1, 0], (6, 3))  # [P, N]
one = torch.tensor([4.0, 8.0, 0.0])
check_close(
    "the states after 4 steps",
    final,
    torch.stack([one, one, one, -one, -one, -one]),
    mistakes={"they stand where they were after one step": torch.stack([one] * 3 + [-one] * 3) / 4},
    hint="with pushes of 1, the first three particles are at 4, the others at -4",
)
### BEGIN HIDDEN TESTS
returns = imagined.rewards.sum(dim=-1)  # -(1 + 4 + 9 + 16) = -30 for pushes of 1, four times that for 2
check_close("the returns", returns, torch.tensor([-30.0, -120.0, 0.0]).expand(6, 3))
### END HIDDEN TESTS
print("Right: a member for life.")


# %%
def toy_futures(propagate, num_particles, num_steps, push=1.0, noise_std=0.3, seed=0, num_plans=1):
    """States [P, N, H + 1] of particles under a constant push; propagate(step, num_members, obs, action)."""
    generator = torch.Generator().manual_seed(seed)

    def ask(obs, action):
        predicted = toy_prediction(obs, action, noise_std)
        return particle_step(predicted, obs, action, toy_reward, never_terminates, generator)

    plans = torch.full((num_plans, num_steps, 1), push)  # [N, H, A]
    return rollout(partial(propagate, ask, 2), torch.zeros(1), plans, num_particles).obs[..., 0]


futures = toy_futures(ts_inf_step, num_particles=20, num_steps=10)[:, 0]
ax = new_axes(width=6.4)[0]
for number, name in enumerate("AB"):
    ax.plot(futures[10 * number :][:10].T, color=COLORS[number], linewidth=1.2, alpha=0.7)
    ax.plot([], [], color=COLORS[number], label=f"born into member {name}")
ax.set(xlabel="step", ylabel="x", title="TS-infinity: two worlds, each of them consistent")
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# The gap between the bundles is the members' disagreement, the width of a bundle is the noise. With particles
# that keep their member the two can be told apart even after ten steps.

# %% [markdown] exercise="ts1" number="5.3" title="TS1: a new member at every step" points=6 difficulty=3 minutes=25
# The other answer: draw the member **anew at every step**. Then a particle may push to the right in one step
# and to the left in the next. No single world is like that; the wiring becomes a coin that is tossed again and
# again. TS1 treats disagreement as if it were noise.
#
# It is easily built from what you have. Think of TS-infinity's groups as seats: seats $0 \dots P/K - 1$ belong
# to the first member, and so on. In TS1 the particles change seats before every step:
#
# 1. shuffle: for each plan by itself, a random permutation of its $P$ particles;
# 2. one step of TS-infinity;
# 3. back: each particle takes its answer to its old place. The particle with the number 3 has to be the same
#    one before and after, since its rewards will be added up.
#
# So in each step every member has $P / K$ particles of each plan. (The authors' code does it like this, too. A
# coin for each particle would make some plans lucky with their members.)
#
# **Predict first.** Ten pushes of 1 without noise again: what is the variance of the particles after $H$ steps
# now? And which of the two, TS1 or TS-infinity, thinks worse of this plan, if the reward is $-x^2$?
#
# **Write `ts1_step`.**
#
# - Arguments and results are those of `ts_inf_step`. Again `step` is called once, with every particle of every
#   plan once; you may call your `ts_inf_step`.
# - Which particles sit with which member is drawn at every call, for each plan independently, and every member
#   gets $P / K$ particles of each plan. All permutations are equally likely.
# - `obs` and `action` of a particle move together. All randomness comes from `generator`.

# %% kind="solution" of="ts1" ref="pets:ts1_step"
# TODO: for each plan a random permutation of its particles, [P, N]
# TODO: a step of TS-infinity with the particles in their new seats
# TODO: the inverse permutation brings all three answers back

# %% [markdown]
# <details><summary>Hint: many permutations at once</summary>
#
# The `argsort` of random numbers is a random permutation: `torch.rand(P, N, generator=generator).argsort(dim=0)`
# has one in each column.
# </details>
# <details><summary>Hint: shuffling each column by its own permutation</summary>
#
# With `plans = torch.arange(N)`, `x[seats, plans]` takes from column n the rows `seats[:, n]`. It works for
# `[P, N]` and for `[P, N, D]` alike.
# </details>
# <details><summary>Hint: the way back</summary>
#
# The inverse of a permutation is its `argsort`. Indexing with `seats` a second time is something else: it
# shuffles once more.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# It is a random walk of $H$ steps of length 1: the variance is $H$, not $H^2$. Many particles stay near 0, so
# TS1 likes the plan better: over ten steps TS1 expects a return of $-(1 + 2 + \dots + 10) = -55$, TS-infinity
# $-(1 + 4 + \dots + 100) = -385$. Being wrong about the wiring is a lasting thing, and TS1 forgets that.
# </details>


# %% kind="test" of="ts1" points=2
calls = []


def step(obs, action):  # the answers say who asked
    obs, action = torch.as_tensor(obs), torch.as_tensor(action)
    shape = "expected [K, M, D], M = P / K * N"
    calls.append(
        check_shape(
            "what step was given as obs",
            obs,
            (3, 8, 2),
            {
                (6, 4, 2): f"{shape}: your ts_inf_step makes the groups",
                (3, 24, 2): f"{shape}: each member was given all particles, expected P / K of each plan",
                (3, 32, 2): f"{shape}: seats needs the plans beside it, x[seats, plans] (see the hint)",
            },
        )
    )
    return obs + 1000, (obs[..., 0] + action[..., 0]), obs[..., 0] % 3 == 0


obs = torch.arange(48.0).reshape(6, 4, 2)  # [P, N, D]
action = torch.arange(24.0).reshape(6, 4, 1) * 100
given = obs.clone()
result = ts1_step(step, 3, given, action, torch.Generator().manual_seed(0))
check_unchanged("obs", given, obs, "make new tensors")
check_true(
    len(calls) == 1, f"step was called {len(calls)} times, expected once for all particles and all plans"
)
check_true(
    torch.equal(calls[0].flatten().sort().values, torch.arange(48.0).double()),
    "some particles ask several times, others never: expected a permutation of the P particles for each plan "
    "(argsort with dim=0)",
)
check_true(
    result is not None and len(result) == 3, "ts1_step returns three things: next_obs, reward, terminated"
)
check_close(
    "next_obs",
    result[0],
    obs + 1000,
    hint="each particle gets its own answer, in its own place: undo the shuffling by the inverse permutation, "
    "seats.argsort(dim=0)",
)
check_close(
    "reward",
    result[1],
    obs[..., 0] + action[..., 0],
    hint="obs and action of a particle move together, and the reward comes back to it",
)
### BEGIN HIDDEN TESTS
check_close(
    "terminated",
    as_tensor("terminated", result[2]).double(),
    (obs[..., 0] % 3 == 0).double(),
    hint="the ends come back to their particles, too",
)
### END HIDDEN TESTS
print("Right: everybody gets the answer to their own question.")


# %% kind="test" of="ts1" points=2
asked = []


def step(obs, action):  # the obs say who asks
    obs = torch.as_tensor(obs)
    asked.append(as_tensor("what step was given as obs", obs)[..., 0])  # [K, M]
    return obs, torch.zeros(obs.shape[:2]), torch.zeros(obs.shape[:2], dtype=torch.bool)


def members_asked(num_plans, generator):
    """Who answered each particle of each plan, [P, N], for P = 6 particles and K = 3 members."""
    numbers = torch.arange(6.0 * num_plans).reshape(6, num_plans, 1)  # [P, N, D]
    asked.clear()
    ts1_step(step, 3, numbers, torch.zeros(6, num_plans, 1), generator)
    check_true(len(asked) == 1, f"step was called {len(asked)} times, expected once for all particles")
    check_true(
        torch.equal(asked[0].flatten().sort().values, numbers.flatten().double()),
        "some particles ask several times, others never: expected a permutation of the P particles for each plan",
    )
    seats = asked[0].flatten().argsort()  # [P N], where each particle of each plan sits
    return (seats // (2 * num_plans)).reshape(6, num_plans).double()


generator = torch.Generator().manual_seed(0)
first = members_asked(1500, generator)  # [P, N]
second = members_asked(1500, generator)
fixed = torch.tensor([0.0, 0, 1, 1, 2, 2])[:, None]
check_true(
    not (first == fixed).all(),
    "every particle asked the member that TS-infinity gives it: shuffle the particles first (not the plans)",
)
check_true(
    not (first == second).all(),
    "the second step asked the same members as the first: draw anew at every call",
)
check_true(
    not (first == first[:, :1]).all(), "all plans share one permutation: draw for each plan independently"
)
for member in range(3):
    share = (first == member).double().mean(dim=1)  # [P]
    check_between(f"how often a particle asks member {member}", share, 0.28, 0.39, "expected a third each")
check_close(
    "the members that the particles of a plan ask, sorted",
    first.sort(dim=0).values,
    fixed.expand(6, 1500),
    hint="every member gets P / K particles of each plan",
)
### BEGIN HIDDEN TESTS
for a in range(3):
    for b in range(3):
        both = ((first == a) & (second == b)).double().mean(dim=1)
        hint = "one step's members should say nothing about the next step's"
        check_between(f"how often a particle asks member {a}, then {b}", both, 0.07, 0.155, hint)
pairs = (first[0] == first[1]).double().mean()  # 1 of the 5 others sits with the same member
check_between(
    "how often particles 0 and 1 sit together", pairs, 0.15, 0.25, "all permutations are equally likely"
)
members = []
for seed in (5, 5, 6):
    members.append(members_asked(20, torch.Generator().manual_seed(seed)))
check_close("the members with the same seed", members[1], members[0], hint="use generator")
check_true(not torch.equal(members[2], members[0]), "other seeds deal the same seats")
### END HIDDEN TESTS
print("Right: seats are dealt out evenly and anew.")


# %% kind="test" of="ts1" points=2
def step(obs, action):  # the members of the toy, without noise
    mean = toy_prediction(torch.as_tensor(obs), torch.as_tensor(action)).obs
    return mean, -(mean[..., 0] ** 2), torch.zeros(mean.shape[:2], dtype=torch.bool)


generator = torch.Generator().manual_seed(0)
pushes = torch.ones(1000, 5, 1)  # [N, H, A]
imagined = rollout(lambda obs, action: ts1_step(step, 2, obs, action, generator), torch.zeros(1), pushes, 4)
final = imagined.obs[:, :, -1, 0].double()  # [P, N]
check_close("abs(x) after 5 pushes of 1, modulo 2", final.abs().round() % 2, torch.ones(4, 1000))
variance = final.square().mean()
hint = "expected about 5, a random walk of 5 steps"
if variance > 20:
    hint = "25 is TS-infinity: does a particle keep its member?"
check_between("the variance after 5 steps", variance, 4.4, 5.6, hint)
### BEGIN HIDDEN TESTS
check_between("the mean after 5 steps", final.mean(), -0.15, 0.15)
returns = imagined.rewards.sum(dim=-1)
check_between("the mean return, expected about -15", returns.mean(), -16.5, -13.5, "-(1 + 2 + 3 + 4 + 5)")
at_end = torch.tensor([(final == x).double().mean() for x in (-5, -3, -1, 1, 3, 5)])
binomial = torch.tensor([1, 5, 10, 10, 5, 1]) / 32
check_between("share of the particles at -5, -3, ... 5, less the binomial's", at_end - binomial, -0.03, 0.03)
### END HIDDEN TESTS
print("Right: a random walk.")

# %% [markdown]
# Both side by side, and their variances beside the closed forms: with noise, TS-infinity has
# $H^2 + H \sigma^2$ and TS1 has $H + H \sigma^2$.

# %%
axes = new_axes(columns=3, width=4.2, height=3.6)
variants = {"TS-infinity": ts_inf_step, "TS1": partial(ts1_step, generator=torch.Generator().manual_seed(1))}
steps = torch.arange(11)
for ax, (name, propagate), color in zip(axes, variants.items(), (COLORS[0], COLORS[3]), strict=False):
    futures = toy_futures(propagate, num_particles=20, num_steps=10)[:, 0]
    ax.plot(futures.T, color=color, linewidth=1.1, alpha=0.6)
    ax.set(xlabel="step", ylabel="x", ylim=(-13, 13), title=f"{name}: 20 particles")
    many = toy_futures(propagate, num_particles=200, num_steps=10, num_plans=20)
    axes[2].plot(steps, many.flatten(0, 1).var(dim=0), "o", color=color, label=name)
    form = steps**2 + 0.09 * steps if name == "TS-infinity" else 1.09 * steps
    axes[2].plot(steps, form, color=color, linewidth=1)
axes[2].set(xlabel="step", ylabel="variance of x", title="Lines: closed form")
axes[2].legend()
plt.show()

# %% [markdown]
# What does each of them think of the plan "push by 1, ten times", with $-x^2$ for a reward? (With noise,
# expect 5 less than in the answer above.) And what would the *mean* model think, one particle that follows the
# mean of all members' means?

# %%
for name, propagate in variants.items():
    states = toy_futures(propagate, num_particles=200, num_steps=10, num_plans=20)
    returns = -states[..., 1:].square().sum(dim=-1)  # [P, N]
    print(f"{name:12} expects {returns.mean():7.1f}")
print(f"{'mean model':12} expects {0.0:7.1f}   (its cart never moves: half right plus half left is nothing)")

# %% [markdown]
# The mean model is the one to fear. It is not merely too optimistic: it is *sure* of a future in which no
# member believes. Is that as bad on a real task, where members disagree by little? The experiments of this week
# measure it.

# %% [markdown] exercise="robust-scores" number="5.4" title="Three ways to judge a plan" points=6 difficulty=2 minutes=20
# The particles of a plan come back with $P$ returns $R_1 \dots R_P$. A planner wants one score for each plan.
#
# - **The average particle.** $\frac{1}{P} \sum_p R_p$ estimates the expected return. This is PETS.
# - **The worst member.** Particles of the same member differ by noise alone, so first average over them; then
#   take the member that likes the plan least:
#
# $$\min_k\ \frac{K}{P} \sum_{p\, \in\, \text{member } k} R_p$$
#
# - **Variance penalised.** The mean less some standard deviations, $\operatorname{mean}_p R_p - \lambda
#   \operatorname{std}_p R_p$. The standard deviation divides by $P$, so that a single particle has none.
#
# The first is neutral. The other two are pessimists: they don't go where the model is unsure. That is what one
# wants if data can't be gathered any more, or if a mistake breaks something. It is a doubtful idea while
# learning, because where the model is unsure there is something to learn.
#
# **Predict first.** Why would the worst *particle* be a bad judge, in particular with many particles and much
# noise?
#
# **Write the three functions.** `returns` is `[P, N]`, particles by plans, and the scores are `[N]`. In
# `worst_case` the particles keep their members as in `ts_inf_step`: the first $P / K$ belong to the first one,
# with `num_members` $= K$. Where any particle of a plan has the return NaN, the plan's score is NaN: the
# planner ranks it last, as you know from week 3. Don't hide it.

# %% kind="solution" of="robust-scores" ref="pets:particle_average,worst_case,variance_penalised"
# particle_average:
# TODO: the mean over the particles
# worst_case:
# TODO: group the particles by member, average in each group, then take the smallest
# variance_penalised:
# TODO: mean less penalty times standard deviation (which divides by P)

# %% [markdown]
# <details><summary>Hint: grouping</summary>
#
# `returns.reshape(num_members, -1, N)` is `[K, P / K, N]`, with `N = returns.shape[1]`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The minimum over many noisy numbers is mostly a measure of the noise, and it gets worse with every particle
# that is added: a plan would look bad because it was looked at often. The mean over a member's particles gets
# *more precise* with every particle, and the minimum over $K$ members stays a minimum over $K$ opinions. (With
# $P = K$, as in the trials below, a member has a single particle and the two are the same: the worst member needs
# several particles of each.)
# </details>

# %% kind="test" of="robust-scores" points=1
returns = torch.tensor([[1.0, 10.0], [3.0, 20.0], [8.0, 60.0]])  # [P, N]
average = particle_average(returns)
check_shape(
    "particle_average", average, (2,), {(3,): "expected one for each plan", (): "expected one for each plan"}
)
check_close(
    "particle_average",
    average,
    [4.0, 30.0],
    mistakes={"the sum, expected the mean over the particles": [12.0, 90.0]},
    hint="the mean over the particles (dim=0): a score for each plan",
)
### BEGIN HIDDEN TESTS
nan = float("nan")
average = particle_average(torch.tensor([[1.0, nan, 3.0], [2.0, 5.0, 4.0]]))
check_close("particle_average where a return is NaN", average, [1.5, nan, 3.5])
### END HIDDEN TESTS
print("Right: the average particle.")

# %% kind="test" of="robust-scores" points=3
returns = (
    torch.tensor(  # [P, N], members by plans: the means are 5, 4, 6 in the first, 4, 10, 8 in the second
        [
            [0.0, 3.0, 5.0],
            [10.0, 7.0, 4.0],
            [5.0, 2.0, 9.0],
            [6.0, -30.0, 16.0],
            [3.0, 58.0, 2.0],
            [3.0, 2.0, 6.0],
        ]
    )
)
worst = worst_case(returns, 2)
check_shape(
    "worst_case",
    worst,
    (3,),
    {
        (2,): "that is one number for each member, expected one for each plan",
        (): "expected one for each plan",
        (
            2,
            3,
        ): "is it a number for each member and plan, or all that torch.min returns? amin returns the values",
    },
)
check_close(
    "worst_case of 6 particles and 2 members",
    worst,
    [4.0, 4.0, 6.0],
    mistakes={
        "it is the worst particle: average over each member's particles first": returns.amin(dim=0),
        "the best member, expected the worst": [5.0, 10.0, 8.0],
        "particles 0, 2 and 4 are taken for one member's; those are 0, 1 and 2": torch.stack(
            [returns[0::2].mean(dim=0), returns[1::2].mean(dim=0)]
        ).amin(dim=0),
        "the groups have K particles, expected P / K: here 3": torch.stack(
            [returns[:2].mean(dim=0), returns[2:4].mean(dim=0), returns[4:].mean(dim=0)]
        ).amin(dim=0),
        "the groups overlap: member k has the particles from k P / K on": torch.stack(
            [returns[:3].mean(dim=0), returns[1:4].mean(dim=0)]
        ).amin(dim=0),
        "it is the mean over all particles": returns.mean(dim=0),
        "the average is over the members, expected over each member's P / K particles": (
            (returns[:3] + returns[3:]) / 2
        ).amin(dim=0),
        "it is the mean of each member's worst particle": [1.5, -14.0, 3.0],
        "each member's returns are summed, expected averaged": [12.0, 12.0, 18.0],
        "these are the numbers of the members, expected their mean returns": [1.0, 0.0, 0.0],
        "it is one member for all plans, expected the worst for each plan by itself": [5.0, 4.0, 6.0],
    },
    hint="the means of the first plan are 5 in the first member (0, 10 and 5), 4 in the second (6, 3 and 3)",
)
### BEGIN HIDDEN TESTS
check_close("worst_case of one member", worst_case(returns, 1), returns.mean(dim=0))
check_close("worst_case, a particle for each member", worst_case(returns, 6), returns.amin(dim=0))
many = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
means = torch.stack([many[4 * k : 4 * k + 4].mean(dim=0) for k in range(3)])  # [K, N]
check_close("worst_case of 12 particles and 3 members", worst_case(many, 3), means.min(dim=0).values)
nan = float("nan")
broken = torch.tensor([[1.0, nan, 3.0], [1.0, 2.0, 3.0], [2.0, 5.0, 1.0], [2.0, 5.0, nan]])
check_close(
    "worst_case where a return is NaN", worst_case(broken, 2), [1.0, nan, nan], hint="NaN is not to be hidden"
)
### END HIDDEN TESTS
print("Right: the member that likes it least.")

# %% kind="test" of="robust-scores" points=2
returns = torch.tensor(  # [P, N]; means 6, 7, -3 and deviations 3, 0, 6
    [[11.0, 7.0, -13.0], [5.0, 7.0, -1.0], [5.0, 7.0, -1.0], [3.0, 7.0, 3.0]]
)
given = returns.clone()
scores = variance_penalised(given, 0.3)
check_unchanged("returns", given, returns, "make a new tensor (returns - mean, not returns -= mean)")
check_shape("variance_penalised", scores, (3,), "expected one for each plan")
check_close(
    "variance_penalised with penalty 0.3",
    scores,
    [5.1, 7.0, -4.8],
    mistakes={
        "the variance is taken off, expected the standard deviation": [3.3, 7.0, -13.8],
        "penalty stands under the root": [6 - 3 * 0.3**0.5, 7.0, -3 - 6 * 0.3**0.5],
        "the standard deviation divides by P - 1, expected P: torch.std needs correction=0": returns.mean(
            dim=0
        )
        - 0.3 * returns.std(dim=0),
        "the squares are summed, expected averaged": [4.2, 7.0, -6.6],
        "it is the standard error (divided by the root of P), expected the standard deviation": [
            5.55,
            7.0,
            -3.9,
        ],
        "it is the mean distance from the mean, expected the root of the mean square": [5.25, 7.0, -4.5],
        "the deviation is over all plans, expected over the particles of each (dim=0)": returns.mean(dim=0)
        - 0.3 * returns.std(correction=0),
        "the spread is added: an optimist": [6.9, 7.0, -1.2],
        "penalty has no effect": [3.0, 7.0, -9.0],
        "nothing is taken off": [6.0, 7.0, -3.0],
        "penalty multiplies the mean, too": [0.9, 2.1, -2.7],
    },
    hint="the mean less 0.3 standard deviations, both over the particles",
)
### BEGIN HIDDEN TESTS
check_close("variance_penalised with penalty 0", variance_penalised(returns, 0.0), [6.0, 7.0, -3.0])
check_close("variance_penalised with penalty 2", variance_penalised(returns, 2.0), [0.0, 7.0, -15.0])
check_close("variance_penalised of a single particle", variance_penalised(returns[:1], 1.0), returns[0])
nan = float("nan")
broken = torch.tensor([[1.0, nan], [3.0, 2.0]])
check_close("variance_penalised where a return is NaN", variance_penalised(broken, 1.0), [1.0, nan])
### END HIDDEN TESTS
print("Right: the mean, less the doubt.")

# %% [markdown]
# The cart once more, with other opinions. Member A thinks that the lever moves it by $a$, member B by
# $-0.2\, a$: probably it goes forward. The reward is the position, less $2.5\, a^2$ for the fuel. Each point
# of the horizontal axis is a plan: the same push $a$ for ten steps. Which one do the three judges choose?

# %%
sizes = torch.linspace(-0.3, 0.9, 121)
plans = sizes[:, None, None].expand(-1, 10, 1)  # [N, H, A]
generator = torch.Generator().manual_seed(0)


def fuel_reward(obs, action, next_obs):
    return next_obs[..., 0] - 2.5 * action[..., 0] ** 2


def ask(obs, action):
    predicted = toy_prediction(obs, action, gains=(1.0, -0.2))
    return particle_step(predicted, obs, action, fuel_reward, never_terminates, generator)


returns = rollout(partial(ts_inf_step, ask, 2), torch.zeros(1), plans, 20).rewards.sum(dim=-1)  # [P, N]
judges = {
    "the average particle": particle_average(returns),
    "the worst member": worst_case(returns, 2),
    "mean - 0.5 std": variance_penalised(returns, 0.5),
}
ax = new_axes(width=6.8, height=4.0)[0]
for member, name in enumerate("AB"):
    ax.plot(sizes, returns[10 * member :][:10].mean(dim=0), "--", color=GREY, linewidth=1.3, zorder=4)
    ax.text(0.91, returns[10 * member, -1], f"member {name}", color=GREY, va="center")
for (name, scores), color in zip(judges.items(), (COLORS[0], COLORS[3], COLORS[2]), strict=True):
    best = scores.argmax()
    ax.plot(sizes, scores, color=color, label=f"{name}: pushes by {sizes[best]:.2f}")
    ax.plot(sizes[best], scores[best], "o", color=color, markersize=9, markeredgecolor="white")
ax.set(xlabel="push a", ylabel="score of the plan", title="Three judges", xlim=(-0.3, 1.15), ylim=(-34, 34))
ax.legend(loc="upper left")
plt.show()

# %% [markdown]
# The average particle bets on A. The worst member does not move at all. The penalised mean moves a little, and
# $\lambda$ says how little. None of them is *right*: it depends on what a mistake costs.

# %% [markdown]
# ## All together
#
# `ParticleModel` shows an ensemble to the planners of weeks 2 and 3 as if the particles were its members, and
# `make_planner` puts a planner on top. Read the `step` of `ParticleModel`: it is your first three functions; the
# scores of 5.4 are in `make_planner`. There are two more ways to propagate in it, for comparison. `"mean"` is the model from above that is sure of a future in
# which nobody believes. `"single"` draws one member for each *episode* and believes it all the time.

# %% kind="given" ref="pets:Propagation,PROPAGATIONS,PETSConfig,ParticleModel,PETSPlanner,make_planner,RandomPlanner"

# %% [markdown] exercise="trial-loop" number="5.5" title="A handful of trials" points=6 difficulty=2 minutes=25
# The loop (Algorithm 1) is week 2's on-policy loop, an episode at a time:
#
# 1. one trial with random actions;
# 2. fit the model to **all** transitions so far;
# 3. one trial with the planner, in the model as it is now; then go to 2.
#
# Each trial is 200 steps at most, a few seconds of a real cart-pole. To be able to say what learning has cost,
# the loop keeps the books, and each `Trial` holds the sums *up to and including it*:
#
# - `env_steps`: steps in the real world, the random trial's included;
# - `model_calls`: imagined steps;
# - `model_updates`: gradient steps of the ensemble.
#
# And it can be interrupted. The trials that are there already come in as `past`, and it goes on after them.
#
# **Predict first.** A trial has 200 steps; at each of them CEM scores 100 plans of 15 steps in 3 iterations,
# with 5 particles. How many imagined steps are that for each real one?
#
# **Write `trial_loop`.**
#
# - Trials are numbered from 0. Number 0 is the random one; then `num_trials` with the planner follow, so there
#   are `num_trials + 1` in all, past ones included.
# - `fit(data)` is called right before each trial but number 0, with the transitions of all earlier trials (past
#   ones included), oldest first, in one `Batch`. It returns the number of gradient steps.
# - `collect(planned)` runs a trial, with the planner (`True`) or with random actions (`False`). It returns its
#   transitions, a `Batch`, and the number of imagined steps.
# - A `Trial`'s `trial_return` is the sum of its rewards, a float. The sums go on from the last past trial.
# - After each new trial, call `on_trial(number, trial)`, if it is given. If it returns `True`, stop there.
# - Return the list of all trials: the past ones, then the new ones. Leave `past` itself as it is. If it is
#   complete already, nothing is left to do.

# %% kind="given" ref="pets:Trial"

# %% kind="solution" of="trial-loop" ref="pets:trial_loop"
# TODO: start with the past trials and their sums, or with nothing
# TODO: for each trial that is missing: fit (not before number 0), collect, keep the books
# TODO: tell on_trial, and stop if it says so

# %% [markdown]
# <details><summary>Hint: all data so far</summary>
#
# `concatenate([trial.transitions for trial in trials])`, from week 1's module, makes one `Batch` of many.
# </details>
# <details><summary>Hint: how many steps had a trial?</summary>
#
# `len(transitions.obs)`. The pole may have fallen early.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# $100 \cdot 15 \cdot 3 \cdot 5 = 22{,}500$. So a trial of 200 steps is four and a half million imagined steps,
# about a day of cart-pole in a few seconds. That is the bargain of planning: computation for experience.
# </details>

# %% kind="test" of="trial-loop" points=2
log = []


def make_batch(length, start):  # transitions whose obs count on from start
    obs = torch.arange(float(start), start + length)[:, None]
    flags = torch.zeros(length, dtype=torch.bool)
    return Batch(obs, torch.zeros(length, 1), torch.full((length,), 0.5), obs + 1, flags, flags)


def collect(planned):
    number = sum(entry[0] == "collect" for entry in log)
    check_true(number < 20, "collect was called 20 times with num_trials=3: there is no end")
    log.append(("collect", planned))
    return make_batch(2 + number, (0, 2, 5, 9)[number % 4]), 1000 * number


def fit(data):
    check_true(
        not isinstance(data, list), "fit was given a list of batches, expected one Batch: use concatenate"
    )
    log.append(("fit", torch.as_tensor(data.obs)[:, 0].tolist()))
    return 10


trials = trial_loop(collect, fit, 3)
calls = [entry[0] for entry in log]
check_true(log, "neither collect nor fit was called: does the loop over the trials begin?")
check_true(log[0] != ("collect", True), "the first trial was planned: there is no model yet, act at random")
check_true(calls[0] == "collect", "fit was called before there were data: the random trial comes first")
check_true(
    calls.count("collect") == 4,
    f"collect was called {calls.count('collect')} times with num_trials=3, "
    "expected 4: the random trial, and three with the planner",
)
check_true(
    [entry[1] for entry in log if entry[0] == "collect"] == [False, True, True, True],
    "collect is given False (random actions) in the first trial, True in all others",
)
check_true(
    calls == ["collect", "fit", "collect", "fit", "collect", "fit", "collect"],
    f"the calls were {', '.join(calls)}; expected one fit right before each planned trial, and none at the end",
)
seen = [entry[1] for entry in log if entry[0] == "fit"]
check_true(
    len(seen[1]) != 3,
    "the second fit was given the last trial only, or all but the random one: expected the data of all trials so far",
)
check_close("the data of the first fit", seen[0], [0.0, 1.0])
check_close(
    "the data of the third fit",
    seen[2],
    torch.arange(9.0),
    mistakes={"the trials stand in the wrong order: oldest first": [5.0, 6, 7, 8, 2, 3, 4, 0, 1]},
    hint="all transitions so far, oldest first",
)
check_true(trials is not None, "trial_loop returns None: is the `return` missing?")
check_true(len(trials) == 4, f"expected a list of four trials, there are {len(trials)}")
### BEGIN HIDDEN TESTS
for number, start in enumerate((0, 2, 5, 9)):
    obs = torch.arange(float(start), start + 2 + number)[:, None]
    check_close(f"the transitions of trial {number}", trials[number].transitions.obs, obs)
log.clear()
trials = trial_loop(collect, fit, 1)
check_true(
    [entry[0] for entry in log] == ["collect", "fit", "collect"], "with num_trials=1: random, fit, planned"
)
check_true(len(trials) == 2, "with num_trials=1 there are two trials")
### END HIDDEN TESTS
print("Right: act, fit to everything, act again.")

# %% kind="test" of="trial-loop" points=2
LENGTHS, CALLS, UPDATES, REWARDS = (3, 5, 4), (0, 700, 900), (20, 30), (1.0, 2.5, 3.0)
counts = {"collect": 0, "fit": 0}
told = []


def collect(planned):
    number = counts["collect"] % 3
    counts["collect"] += 1
    size = LENGTHS[number]
    flags, zeros = torch.zeros(size, dtype=torch.bool), torch.zeros(size, 1)
    return Batch(zeros, zeros, torch.full((size,), REWARDS[number]), zeros, flags, flags), CALLS[number]


def fit(data):
    counts["fit"] += 1
    return UPDATES[(counts["fit"] - 1) % 2]


def on_trial(number, trial):
    check_true(
        isinstance(number, int) and hasattr(trial, "trial_return"),
        "on_trial is given the number first, then the trial, a Trial",
    )
    told.append((number, trial.trial_return))


trials = trial_loop(collect, fit, 2, on_trial)
check_true(trials is not None, "trial_loop returns None: is the `return` missing?")
check_true(
    len(trials) == 3,
    f"expected the random trial and num_trials=2 more, there are {len(trials)} (on_trial returns None, which "
    "means: go on)",
)
check_close(
    "trial_return",
    [trial.trial_return for trial in trials],
    [3.0, 12.5, 12.0],
    mistakes={
        "it is the sum over all trials so far, expected this trial's own": [3.0, 15.5, 27.5],
        "it is the mean reward (or the last one), expected the sum": [1.0, 2.5, 3.0],
        "it is cut off to a whole number": [3.0, 12.0, 12.0],
    },
    hint="the sum of the rewards",
)
check_true(
    all(isinstance(trial.trial_return, float) for trial in trials),
    "trial_return is no float: use float() or .item()",
)
check_close(
    "env_steps",
    [trial.env_steps for trial in trials],
    [3, 8, 12],
    mistakes={
        "these are the steps of each trial, expected all so far": [3, 5, 4],
        "this trial's own steps are missing": [0, 3, 8],
        "the random trial's steps are missing, but they were taken, too": [0, 5, 9],
        "the length of a Batch is 6, the number of its columns: use len(transitions.obs)": [6, 12, 18],
    },
)
check_close(
    "model_calls",
    [trial.model_calls for trial in trials],
    [0, 700, 1600],
    mistakes={
        "these are the calls of each trial, expected all so far": [0, 700, 900],
        "these are the gradient steps: in a Trial the model_calls come first": [0, 20, 50],
    },
)
check_close(
    "model_updates",
    [trial.model_updates for trial in trials],
    [0, 20, 50],
    mistakes={
        "these are the updates of each fit, expected all so far": [0, 20, 30],
        "the fit right before the trial is missing": [0, 0, 20],
    },
)
### BEGIN HIDDEN TESTS
numbers = [number for number, _ in told]
check_true(numbers == [0, 1, 2], f"on_trial was told the numbers {numbers}, expected 0, 1, 2")
check_close("what on_trial is told of the returns", [value for _, value in told], [3.0, 12.5, 12.0])
for last in (0, 1):
    counts.update(collect=0, fit=0)
    stopped = trial_loop(collect, fit, 2, lambda number, trial, last=last: number == last)
    check_true(
        stopped is not None, "stopped by on_trial, trial_loop returns None: expected the trials so far"
    )
    check_true(
        len(stopped) == last + 1,
        f"on_trial returned True after trial {last}: expected {last + 1} trials, there are {len(stopped)}",
    )
    check_true(
        counts["fit"] == last and counts["collect"] == last + 1, "nothing is called after on_trial says stop"
    )
### END HIDDEN TESTS
print("Right: the books are kept.")

# %% kind="test" of="trial-loop" points=2
log = []


def make_batch(length, start):
    obs = torch.arange(float(start), start + length)[:, None]
    flags = torch.zeros(length, dtype=torch.bool)
    return Batch(obs, torch.zeros(length, 1), torch.ones(length), obs + 1, flags, flags)


def collect(planned):
    log.append(("collect", planned))
    return make_batch(2, 100), 50


def fit(data):
    log.append(("fit", torch.as_tensor(data.obs)[:, 0].tolist()))
    return 7


past = [Trial(make_batch(3, 0), 3.0, 3, 100, 8), Trial(make_batch(4, 3), 4.0, 7, 400, 20)]
trials = trial_loop(collect, fit, 2, past=past)
check_true(
    ("collect", False) not in log, "a random trial was run, though there are past trials: go on with number 2"
)
check_true(
    [entry[0] for entry in log] == ["fit", "collect"],
    "with two past trials and num_trials=2 one trial is missing, number 2: expected fit, collect; the calls were: "
    + (", ".join(entry[0] for entry in log) or "none"),
)
count = {(4,): "the past trials' transitions count, too"}
check_shape(
    "the data of the fit", log[0][1], (7,), {**count, (3,): "all past trials count, not the first alone"}
)
check_close("the data of the fit", log[0][1], torch.arange(7.0), hint="the past trials' transitions count")
check_true(trials is not None, "trial_loop returns None: is the `return` missing?")
check_true(len(trials) == 3, f"expected the two past trials and a new one, there are {len(trials)}")
check_close(
    "the sums of the new trial",
    [trials[2].env_steps, trials[2].model_calls, trials[2].model_updates],
    [9, 450, 27],
    mistakes={
        "the sums start from nothing, expected from the last past trial": [2, 50, 7],
        "the past trials' sums are added up, but each holds all before it: take the last one's": [
            12,
            550,
            35,
        ],
        "the length of a Batch is 6, the number of its columns: use len(transitions.obs)": [13, 450, 27],
        "in a Trial the model_calls come first, then the model_updates": [9, 27, 450],
    },
)
### BEGIN HIDDEN TESTS
check_close("the past trials in the result", [t.trial_return for t in trials[:2]], [3.0, 4.0])
check_true(len(past) == 2, "past has changed: make a list of your own")
log.clear()
told = []
again = trial_loop(collect, fit, 1, lambda number, trial: told.append(number), past=tuple(past))
check_true(not log and not told, "past is complete: nothing is left to do")
check_true(len(again) == 2, "past is complete: expected its two trials")
trial_loop(collect, fit, 2, lambda number, trial: told.append(number), past=tuple(past[:1]))
check_true(told == [1, 2], f"on_trial was told the numbers {told}, expected 1, 2: only the new trials")
### END HIDDEN TESTS
print("Right: it goes on where it was stopped.")

# %% [markdown]
# ## Two or three trials later
#
# `pets_trials` is your loop, with an environment and an ensemble in it.

# %% kind="given" ref="pets:pets_trials"

# %% [markdown]
# The task is to balance a pole on a cart with a continuous force. The reward is 1 for each step; the trial is
# over when the pole leans by more than 12 degrees or the cart is more than 2.4 m from the middle, and after 200 steps
# at the latest. Random actions earn about 30. The ensemble is five networks with two layers of 128, and it starts **untrained**.
#
# We stop at the first trial with the full return of 200. It takes some ten seconds. After each planned trial
# we also ask the model, as it was during that trial, what it thought would happen: 20 particles follow the
# actions that were really taken, 15 steps from each of a few real states.

# %%
balance = get_task("cartpole-balance")
generator = torch.Generator().manual_seed(2)
ensemble = GaussianEnsemble(
    balance.obs_dim,
    balance.action_dim,
    EnsembleConfig(ensemble_size=5, num_elites=5, hidden_sizes=(128, 128), batch_size=32),
    reward=balance.reward,
    terminated=balance.terminated,
    generator=generator,
)
cem = CEMConfig(population_size=100, num_elites=10, num_iterations=3, horizon=15)
config = PETSConfig(cem, propagation="ts_inf", num_particles=5, num_trials=8, max_epochs=50)
imagined = {}  # for each planned trial, what 20 particles thought would happen: first step -> [P, H + 1, D]


def on_trial(number, trial):
    print(
        f"trial {number}: return {trial.trial_return:3.0f}   so far: {trial.env_steps:4} steps in the world, "
        f"{trial.model_calls:12,} imagined, {trial.model_updates:5,} gradient steps"
    )
    if number > 0:
        crowd = ParticleModel(ensemble, "ts_inf", 20, torch.Generator().manual_seed(0))
        obs, action = trial.transitions.obs, trial.transitions.action
        imagined[number] = {
            start: rollout(crowd.step, obs[start], action[start : start + 15][None], 20).obs[:, 0]
            for start in range(0, min(60, len(obs)), 15)
        }
    return trial.trial_return >= 200


trials = pets_trials(balance, ensemble, config, generator, on_trial)

# %% [markdown]
# So few seconds of experience: at 50 steps per second, 200 steps are 4 seconds of a real cart-pole.
#
# Here are the first and the last planned trial. Black is the real angle of the pole; the coloured lines are the
# particles, one colour for each member, starting afresh from the real state every 15 steps.

# %%
shown = sorted({1, max(imagined)})
axes = new_axes(columns=len(shown), width=5.6, height=3.8)
for ax, number in zip(axes, shown, strict=True):
    trial = trials[number].transitions
    angle = torch.cat([trial.obs, trial.next_obs[-1:]])[:70, 2].rad2deg()
    for start, states in imagined[number].items():
        for particle, line in enumerate(states[..., 2].rad2deg()):
            times = torch.arange(start, start + len(line))
            label = "a particle (colour: its member)" if start == particle == 0 else None
            ax.plot(times, line, color=COLORS[particle // 4], linewidth=1, alpha=0.6, label=label)
    ax.plot(angle, color="black", linewidth=2.5, label="real")
    ax.axhspan(12, 40, color=GREY, alpha=0.15, linewidth=0, label="over")
    ax.axhspan(-40, -12, color=GREY, alpha=0.15, linewidth=0)
    ax.set(xlabel="step", ylabel="angle, degrees", ylim=(-16, 16))
    data = trials[number - 1].env_steps
    ax.set_title(f"Trial {number}, planned after {data} steps: return {trials[number].trial_return:.0f}")
axes[0].legend(loc="upper left", bbox_to_anchor=(0.0, 0.87))
plt.show()

# %% [markdown]
# After one random trial the members fan out soon: they have seen one pole fall, and each has made up its own
# mind. That fan is the doubt that TS-infinity keeps alive over a whole plan. And sometimes the whole fan is
# wrong: all members hope, and the pole falls. In the last trial they agree for most of the way, and the real
# line stays with them; after step 45 they part, and it runs above them all. (Your numbers may differ a little from
# ours: it depends on the order in which you draw.)
#
# And now a plan itself: what the particles of the *chosen plan* do, at each step of a fresh episode, over what
# then happened. The plan is never carried out as a whole, only its first action. So the real line may leave
# the bundle, because the next plan knew better.


# %%
class Remembering:
    """A planner that keeps its plans."""

    def __init__(self, planner):
        self.planner, self.plans = planner, []

    def reset(self):
        self.planner.reset()

    def plan(self, obs):
        self.plans.append(self.planner.plan(obs))
        return self.plans[-1]


planner = Remembering(make_planner(ensemble, balance.action_low, balance.action_high, config, generator))
episode = run_episode(balance, planner, seed=3, max_steps=75)
crowd = ParticleModel(ensemble, "ts_inf", 20, torch.Generator().manual_seed(0))
angles = episode.obs[:, 2].rad2deg()
limit = 1.4 * angles.abs().max().item()


def draw(ax, number):
    now = 2 * number
    states = rollout(crowd.step, episode.obs[now], planner.plans[now][None], 20).obs[:, 0, :, 2].rad2deg()
    for particle, line in enumerate(states):
        ax.plot(torch.arange(now, now + len(line)), line, color=COLORS[particle // 4], linewidth=1, alpha=0.6)
    ax.plot(angles, color=GREY, linewidth=1, alpha=0.6)
    ax.plot(angles[: now + 1], color="black", linewidth=2.5)
    ax.set(xlim=(0, 75), ylim=(-limit, limit), xlabel="step", ylabel="angle, degrees")
    ax.set_title(f"Step {now}: the particles of the plan", fontsize=10)


make_film(draw, 30, fps=6, size=(5.4, 3.4), title="particles of the plan", progress=False)

# %%
last = trials[-1].transitions
episode_film(balance, last.obs[:120], every=4, fps=12, title=f"trial {len(trials) - 1}", progress=False)

# %% [markdown]
# ## What to take along
#
# - A plan is judged by particles, each with a future of its own. The next state is drawn, and reward and end
#   belong to *that* state.
# - TS-infinity keeps the member: disagreement grows as $H^2$, and stays apart from noise. TS1 redraws it:
#   disagreement becomes noise, and grows as $H$. The mean model forgets both.
# - To a planner, particles are members. Nothing in weeks 2 and 3 had to change.
# - A score over particles is a choice: neutral, worst member, or penalised spread.
# - The loop is short: act, refit to everything, plan. Count its steps, its imagined steps and its updates, or
#   you can't compare it to anything.
#
# ## Test yourself
#
# <details><summary>1. An ensemble has a single member. What is the difference between TS1 and TS-infinity
# then?</summary>
#
# None: there is nobody else to ask. What is left is the aleatoric noise, which is drawn at every step in both.
# </details>
# <details><summary>2. Only the epistemic part of a plan's spread shall be penalised, since only that one says
# "don't trust me". Which propagation do you need, and what do you compute?</summary>
#
# TS-infinity. Average the returns over each member's particles, which leaves $K / P$ of the noise's variance (so take
# several for each); the spread *between* these $K$ means is epistemic. With TS1 each particle has met all members, and there is nothing to group by.
# </details>
# <details><summary>3. The chosen plan promised a return of 15.0 for the next 15 steps, again and again, and the
# pole falls after 60. What is going on, and what do the particles tell?</summary>
#
# The planner has found sequences on which the model is wrong in its favour: model exploitation. CEM picks the
# best of hundreds, so it picks errors as well. If the particles of the chosen plan fan out, the average hides
# it, and a pessimistic score would help; if they agree and are wrong, all members share the error, and only
# data from there will help. The next refit has them.
# </details>
# <details><summary>4. Why is the model refitted to all data, and not to the last trial, which was closest to
# where the planner wants to go?</summary>
#
# It would forget what bad states are like. After a perfect trial the data hold nothing but upright poles; a
# model of those alone may believe that no pole ever falls, and the next planner finds out.
# </details>
# <details><summary>5. The reward of balancing is 1 at every step, whatever happens. What, then, does the planner
# maximise, and which function of the model has to be right?</summary>
#
# The number of steps until the end. Rewards after a particle's end don't count (week 2), so plans differ by
# when their particles leave the allowed range. What has to be right is `terminated` at the drawn states, and
# with it the predicted angle and the cart's predicted position. If all particles of all plans survive 15 steps, every plan is as good as any
# other, and the planner does not care.
# </details>
#
# ## Where next
#
# `experiments.ipynb` beside this notebook runs on *your* functions: cart-pole swing-up with small and large
# budgets, TS1 against TS-infinity against the mean, and what the chosen plan promised against what it earned.
# PILCO (Deisenroth and Rasmussen, 2011) did all this with Gaussian processes and gradients. Next week the
# planner goes: a policy is trained in imagined rollouts instead.
