# %% [markdown]
# # Week 3 · The cross-entropy method and its friends
#
# Last week you planned by guessing: a thousand random action sequences, and the best one wins. That works
# while a plan is short and an action has one or two numbers. A plan of 30 steps with 6 numbers each is a
# point in 180 dimensions, and nobody hits a good one by chance.
#
# This week the guesses learn. Draw a population of plans, look which ones were best, and draw the next
# population *around those*. A few lines of code turn random shooting into the planner of PETS, and of most
# work on planning in learned models since.
#
# **After this notebook you can**
#
# - write the cross-entropy method (CEM) from its two ideas: *elites* and *refitting*;
# - say what smoothing, a minimum standard deviation and a warm start are there for, and see what happens
#   without;
# - write the two relatives that you meet most often: MPPI, which weighs all samples, and iCEM, which draws
#   smooth ones;
# - tell when such a search fails, and why.
#
# **Where it comes from**
#
# - Rubinstein, 1999, *The cross-entropy method for combinatorial and continuous optimization*; as a planner
#   in Chua et al., 2018, [*Deep reinforcement learning in a handful of trials using probabilistic dynamics
#   models*](https://arxiv.org/abs/1805.12114) (PETS).
# - Williams et al., 2017, *Information theoretic MPC for model-based reinforcement learning* (MPPI).
# - Pinneri et al., 2020, [*Sample-efficient cross-entropy method for real-time
#   planning*](https://arxiv.org/abs/2008.06389) (iCEM).
#
# **How it goes.** Five exercises and a bonus, together about two hours; the notebook itself runs in half a
# minute. Fill in the cells that raise `NotImplementedError`. The check below each of them tells at once
# whether your code is right, and what is likely wrong with it. Hidden checks are added when you hand in; they
# test nothing that the text does not say. One rule holds for all exercises: a function leaves the tensors that
# it is given as they are.
#
# All planning here happens in the **true dynamics**. Whatever goes wrong is then the fault of the planner,
# not of a model.

# %% kind="setup"
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from mbrl_course.checking import (
    as_tensor,
    check_between,
    check_close,
    check_raises,
    check_shape,
    check_true,
    check_unchanged,
)
from mbrl_course.envs import get_task
from mbrl_course.envs.obstacles import plot_map, plot_state
from mbrl_course.envs.task import action_bounds
from mbrl_course.films import SearchStep, episode_film, search_film
from mbrl_course.mpc import (
    Model,
    RandomShootingConfig,
    RandomShootingPlanner,
    ScoreFunction,
    make_score_fn,
    rank_invalid_last,
    rollout,
    run_episode,
)
from mbrl_course.plotting import COLORS, new_axes, plot_search, use_style
from mbrl_course.validation import need_at_least, need_in_unit, need_positive, need_whole

use_style()

# %% [markdown]
# ## A landscape to search
#
# Before we plan for pendulums, a problem that can be looked at: a "plan" of a single step with two actions,
# so each plan is a point in the plane. The score has one high peak (right, height 1), one lower, wider hill
# (left, height 0.75), and some ripples. Here is what random shooting makes of 100 guesses.


# %% kind="setup"
def landscape(points: Tensor) -> Tensor:
    """Score of points [..., 2]: a peak at (0.5, 0.4), a lower, wider hill at (-0.5, -0.4), and ripples."""
    x, y = points.unbind(-1)
    peak = torch.exp(-((x - 0.5) ** 2 + (y - 0.4) ** 2) / 0.1)
    hill = 0.75 * torch.exp(-((x + 0.5) ** 2 + (y + 0.4) ** 2) / 0.12)
    return peak + hill + 0.06 * torch.sin(7 * x) * torch.cos(6 * y)


def score_landscape(sequences: Tensor) -> Tensor:
    """The landscape as a score function of plans: action sequences [N, 1, 2] to scores [N]."""
    return landscape(sequences[:, 0])


def draw_landscape(ax: Axes, title: str) -> None:
    """Draws the landscape into axes; bright is high."""
    grid = torch.linspace(-1, 1, 121)
    values = landscape(torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1))
    ax.imshow(values, extent=(-1, 1, -1, 1), origin="lower", cmap="YlGnBu_r", alpha=0.7)
    ax.contour(grid, grid, values, levels=8, colors="white", linewidths=0.7, linestyles="solid")
    ax.set(xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    ax.grid(visible=False)
    ax.set_title(title, fontsize=11)


# %%
guesses = 2 * torch.rand(100, 1, 2, generator=torch.Generator().manual_seed(1)) - 1
good = score_landscape(guesses) > 0.5
ax = new_axes(width=4.4, height=4.4)[0]
draw_landscape(ax, f"Random shooting: {good.sum()} of 100 score above 0.5")
ax.plot(*guesses[~good, 0].T, "o", color="black", markersize=4, alpha=0.5, markeredgewidth=0)
ax.plot(*guesses[good, 0].T, "o", color=COLORS[1], markersize=6, markeredgecolor="white")
ax.set(xlabel="first action", ylabel="second action")
plt.show()

# %% [markdown]
# The black points all tell us the same: *not here*. Random shooting hears it, and keeps guessing everywhere.
# In the plane it can afford to: about one guess in ten is good. But a plan of 30 steps is thirty such planes
# at once. If each of its steps has to be good, one guess in $10^{30}$ is.

# %% [markdown] exercise="refit-to-elites" number="3.1" title="Refit to the elites" points=6 difficulty=2 minutes=15
# The first idea of CEM: the best $K$ of $N$ samples, the **elites**, say where it is worth searching. Their
# mean and standard deviation, for each step $h$ and each action dimension by itself, make the next Gaussian:
#
# $$\mu_h = \frac{1}{K} \sum_{i \in \text{elites}} a^i_h, \qquad
#   \sigma_h = \sqrt{\frac{1}{K} \sum_{i \in \text{elites}} (a^i_h - \mu_h)^2}$$
#
# The division is by $K$, not by $K - 1$: this is the Gaussian under which the elites are most likely.
# (Minimising the *cross-entropy* between the elites and a Gaussian gives just these two formulas; hence the
# name.)
#
# A learned model can be driven to nonsense, and then a score is NaN or infinite. Such plans must never be
# elites as long as there are others: they rank last. `rank_invalid_last` of week 2 is imported above; it
# turns such scores into $-\infty$.
#
# **Predict first.** `torch.topk` and `argsort(descending=True)` put a NaN at the *front*. What would a single
# NaN among 500 scores do to the mean of the elites?
#
# **Write `refit_to_elites`.** Sequences are `[N, H, A]`, scores `[N]`, larger is better. Return mean and
# standard deviation, each `[H, A]`. With $K = 1$ the standard deviation is 0; with $K = N$ all sequences are
# elites.

# %% kind="solution" of="refit-to-elites" ref="cem:refit_to_elites"
# TODO: make NaN and infinite scores rank last
# TODO: pick the num_elites sequences with the highest scores: [K, H, A]
# TODO: return their mean and standard deviation over the sequences, each [H, A]

# %% [markdown]
# <details><summary>Hint: picking the elites</summary>
#
# `scores.topk(k).indices` are the places of the k highest scores; a tensor can be indexed with them along its
# first axis.
# </details>
# <details><summary>Hint: the standard deviation</summary>
#
# `torch.std` divides by K - 1 unless you say `correction=0`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Hardly anything happens to the mean if the NaN's plan is an ordinary one: it takes the place of a good elite, and
# the mean is off by a little. That is what makes it nasty: no error, no NaN, just a planner that likes plans
# which break the model. If the plan itself holds NaN, the mean is NaN, and so is everything after it.
# </details>

# %% kind="test" of="refit-to-elites" points=2
sequences = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))  # [N, H, A]
scores = torch.tensor([0.5, 3.0, -1.0, 2.0, 4.0, 1.0])
given = sequences.clone(), scores.clone()
fitted = refit_to_elites(*given, num_elites=3)
check_true(fitted is not None, "refit_to_elites returned None: is a `return` missing?")
check_true(
    type(fitted) in (tuple, list) and len(fitted) == 2,
    "refit_to_elites returned something else than two things: the mean and the standard deviation",
)
check_unchanged("sequences", given[0], sequences)
check_unchanged("scores", given[1], scores)
mean, std = fitted
axes = {
    (3, 2): "is the mean over the time steps? It is over the elites, dim=0",
    (3,): "is the mean over the actions, too? Each action dimension has its own",
    (2,): "is the mean over the time steps, too? Each step has its own",
    (): "each step and each action dimension has its own mean",
}
check_shape("mean", mean, (3, 2), axes)
check_shape("std", std, (3, 2), axes)
check_close(
    "mean",
    mean,
    sequences[[1, 3, 4]].mean(dim=0),
    mistakes={
        "it is the mean of the sequences with the lowest scores; larger is better": sequences[[0, 2, 5]].mean(
            dim=0
        ),
        "it is the mean of all sequences": sequences.mean(dim=0),
        "these are the first sequences, not the best": sequences[:3].mean(dim=0),
        "the mean is over the time steps (dim=1), expected over the elites (dim=0)": sequences[
            [4, 1, 3]
        ].mean(dim=1),
    },
    hint="expected the mean of the 3 sequences with the highest scores",
)
### BEGIN HIDDEN TESTS
mean, std = refit_to_elites(sequences, scores - 10, num_elites=1)  # negative scores are as good as others
check_close("mean with num_elites=1", mean, sequences[4])
check_close("std with num_elites=1", std, torch.zeros(3, 2), hint="one elite has no spread")
mean, std = refit_to_elites(sequences, scores, num_elites=6)
check_close("mean with num_elites=N", mean, sequences.mean(dim=0))
plans = torch.randn(40, 5, 1, generator=torch.Generator().manual_seed(1))  # [N, H, A]
mean, std = refit_to_elites(plans, plans[:, 2, 0], num_elites=4)
best = torch.tensor(sorted(plans[:, 2, 0].tolist(), reverse=True)[:4])
check_close("mean[2, 0]", mean[2, 0], best.mean())
check_shape("mean", mean, (5, 1))
### END HIDDEN TESTS
print("Right: these are the elites, and their mean.")

# %% kind="test" of="refit-to-elites" points=2
sequences = torch.tensor([[0.0, 10.0], [2.0, 20.0], [4.0, 60.0], [100.0, -100.0]]).reshape(
    4, 1, 2
)  # [N, H, A]
scores = torch.tensor([5.0, 6.0, 7.0, 0.0])
mean, std = refit_to_elites(sequences, scores, num_elites=3)
elites = sequences[:3]
check_close("mean", mean, [[2.0, 30.0]], hint="the elites are the first three sequences")
check_shape(
    "std", std, (1, 2), {(3, 2): "is it taken over the time steps (dim=1)? Expected over the elites, dim=0"}
)
check_close(
    "std",
    std,
    elites.var(dim=0, correction=0).sqrt(),
    mistakes={
        "it divides by K - 1, expected K: torch.std needs correction=0": elites.std(dim=0),
        "it is the variance, expected its square root": elites.var(dim=0, correction=0),
        "it is the variance (and divides by K - 1), expected its square root": elites.var(dim=0),
        "it is the spread of all sequences, expected that of the elites": sequences.std(dim=0, correction=0),
        "it is one number for all actions, expected one for each": elites.std(correction=0).expand(1, 2),
    },
)
print("Right: the standard deviation of the elites.")

# %% kind="test" of="refit-to-elites" points=2
sequences = torch.arange(5.0).reshape(5, 1, 1)  # [N, H, A]
nan, inf = float("nan"), float("inf")
mean, std = refit_to_elites(sequences, torch.tensor([1.0, nan, 3.0, 2.0, 0.0]), num_elites=2)
check_close(
    "mean",
    mean,
    [[2.5]],
    mistakes={
        "a plan with the score NaN is among the elites: such plans rank last": [[1.5]],
        "a plan with the score NaN is among the elites, and the best one is not": [[2.0]],
    },
)
check_close("std", std, [[0.5]])
### BEGIN HIDDEN TESTS
mean, std = refit_to_elites(sequences, torch.tensor([1.0, 2.0, inf, 3.0, -inf]), num_elites=2)
check_close("mean", mean, [[2.0]], hint="plans with infinite scores rank last, never first")
mean, std = refit_to_elites(sequences, torch.tensor([nan, -5.0, nan, inf, nan]), num_elites=1)
check_close(
    "mean", mean, [[1.0]], hint="the only plan with a finite score is the best one, however low its score"
)
try:
    mean, std = refit_to_elites(sequences, torch.tensor([nan, -5.0, nan, inf, nan]), num_elites=3)
except (RuntimeError, IndexError, ValueError) as error:
    raise AssertionError(
        f"with one finite score of 5 and num_elites=3 there was a {type(error).__name__}: invalid plans rank last, "
        "so they fill up the elites where there are no others"
    ) from error
hint = "invalid plans fill up the 3 elites where only one has a finite score"
check_between("mean of one valid plan and two others", mean, 0.99, 2.7, hint)
### END HIDDEN TESTS
print("Right: plans with invalid scores stay out.")

# %% [markdown]
# What did it learn from the hundred guesses above? The ellipses show the refitted Gaussian, at one and at two
# standard deviations.

# %%
elite_mean, elite_std = refit_to_elites(guesses, score_landscape(guesses), num_elites=10)
best_ten = guesses[score_landscape(guesses).topk(10).indices, 0]
plot_search(
    guesses[:, 0],
    best_ten,
    elite_mean[0],
    elite_std[0],
    objective=landscape,
    title="Ten elites and their Gaussian",
)
plt.show()

# %% [markdown]
# Most elites sit on the right peak, two on the left hill, and the mean of all lies off the peak, on the way
# to the hill. Keep this picture in mind: a Gaussian has one centre. It can't say "here *or* there", and has
# to be made to decide by the next rounds.

# %% [markdown] exercise="cem-iteration" number="3.2" title="One iteration of CEM" points=7 difficulty=3 minutes=25
# The second idea: repeat. One iteration draws a population from the Gaussian, scores it, and moves the
# Gaussian to the elites:
#
# $$a^i \sim \operatorname{clip}\big(\mathcal{N}(\mu, \sigma^2),\ \text{low},\ \text{high}\big),
#   \quad i = 1 \dots N$$
#
# $$\mu \leftarrow \alpha \mu + (1 - \alpha)\, \mu_{\text{elites}}, \qquad
#   \sigma \leftarrow \max\big(\alpha \sigma + (1 - \alpha)\, \sigma_{\text{elites}},\ \sigma_{\min}\big)$$
#
# Three details keep it from going wrong:
#
# - **Bounds.** The environment clips actions anyway. If the planner does not, it compares plans that can't be
#   carried out, and its mean drifts far outside. So the sequences are clipped *before* they are scored, and
#   the elites are the clipped ones.
# - **Smoothing** $\alpha$ keeps a share of the old Gaussian. Ten lucky samples shouldn't move everything.
# - **Minimum standard deviation.** Without one, the Gaussian can collapse onto a point after a few rounds,
#   right or wrong, and no further round can ever leave it.
#
# **Predict first.** With `smoothing=0` and no minimum: how does the standard deviation change from round to
# round on a *flat* landscape, where all scores are the same but for rounding? And what does that say about
# the number of iterations?
#
# **Write `cem_iteration`.** The function `sample_sequences` below draws and clips; use it or your own. Call
# `score_fn` once, with all `population_size` sequences `[N, H, A]`. All random numbers come from `generator`,
# so that the same seed gives the same result. `min_std` is a number, or one for each action dimension, `[A]`;
# it is applied last. Return the new mean and standard deviation, `[H, A]` each.

# %% kind="given" ref="cem:sample_sequences"

# %% kind="solution" of="cem-iteration" ref="cem:cem_iteration"
# TODO: draw the population, inside the bounds: [N, H, A]
# TODO: score it, and refit to its elites
# TODO: mix old and new, then keep the standard deviation at min_std or above

# %% [markdown]
# <details><summary>Hint: min_std may be a number or a tensor</summary>
#
# `torch.as_tensor(min_std)` makes a tensor of either, and `torch.maximum` broadcasts `[A]` against `[H, A]`.
# </details>
# <details><summary>Hint: which way round is the smoothing?</summary>
#
# With `smoothing=0` nothing of the old Gaussian is left. With `smoothing=0.9` it hardly moves.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# On a flat landscape the elites are a random handful, and their standard deviation is a little below that of
# the population on average. So it shrinks, slowly, without any reason. On a slope the elites are a slice of the
# population. A plan of a single number then loses half or more of its spread in each round, and after 5 rounds little
# is left. In a plan of 60 numbers the slice is thin in one direction out of 60: each entry loses a few per cent per
# round, hardly more than on flat ground. Either way nothing ever makes it grow again: more iterations are no cure,
# and the minimum is there for that.
# </details>

# %% kind="test" of="cem-iteration" points=2
seen = []


def score_fn(sequences):
    check_true(
        len(getattr(sequences, "shape", ())) == 3,
        f"score_fn was given {list(getattr(sequences, 'shape', ()))}, expected the whole population [N, H, A]",
    )
    seen.append(torch.as_tensor(sequences).clone())
    return seen[-1][:, :, 0].sum(dim=1)


low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 5.0])
mean, std = torch.tensor([[0.9, 4.0], [0.0, 2.5], [-0.9, 1.0]]), torch.full((3, 2), 2.0)  # [H, A]
settings = dict(population_size=200, num_elites=20, generator=torch.Generator().manual_seed(0))
given = mean.clone(), std.clone()
moved = cem_iteration(score_fn, *given, low, high, **settings)
check_true(moved is not None, "cem_iteration returned None: is a `return` missing?")
new_mean, new_std = moved
check_unchanged("mean", given[0], mean, "make a new one (smoothing * mean + ..., not mean *= smoothing)")
check_unchanged("std", given[1], std, "make a new one (smoothing * std + ..., not std *= smoothing)")
check_shape("the new mean", new_mean, (3, 2))
check_shape("the new std", new_std, (3, 2))
check_true(
    len(seen) == 1, f"score_fn was called {len(seen)} times, expected one call with the whole population"
)
check_shape("what score_fn was given", seen[0], (200, 3, 2), "expected the whole population [N, H, A]")
check_true(
    not (seen[0] == low).all(), "all actions that are scored are equal to low: are low and high swapped?"
)
check_between("the first action of a scored sequence", seen[0][..., 0], -1, 1, "clip before scoring")
check_between(
    "the second action of a scored sequence", seen[0][..., 1], 0, 5, "each dimension has its own bounds"
)
check_true(
    (seen[0] == high).any() and (seen[0] == low).any(), "no action lies on a bound: were outliers clipped?"
)
free = torch.full((2,), 1000.0)
cem_iteration(score_fn, mean, std, -free, free, **settings)
drawn = (seen[1] - mean) / std  # [N, H, A], standard normal
hint = "expected mean + std * noise, noise of its own for every number (is std taken for a variance?)"
check_between("the population's mean in standard deviations", drawn.mean(dim=0), -0.3, 0.3, hint)
check_between("the population's std over the Gaussian's", drawn.std(dim=0), 0.8, 1.2, hint)
cem_iteration(score_fn, mean, std, -free, free, **settings)
check_true(
    not torch.equal(seen[2], seen[1]),
    "two calls with one generator draw the same population: draw from `generator` itself, which moves on",
)
### BEGIN HIDDEN TESTS
seen.clear()
wide = torch.full((2,), 1000.0)
mean, std = torch.tensor([[0.0, 10.0], [-20.0, 5.0]]), torch.tensor([[1.0, 4.0], [0.5, 9.0]])  # [H, A]
settings = dict(population_size=4000, num_elites=20, generator=torch.Generator().manual_seed(1))
cem_iteration(score_fn, mean, std, -wide, wide, **settings)
drawn = (seen[0] - mean) / std  # [N, H, A], standard normal
check_between("the population's mean in standard deviations", drawn.mean(dim=0), -0.1, 0.1)
check_between(
    "the population's std over the Gaussian's", drawn.std(dim=0), 0.93, 1.07, "is std taken for a variance?"
)
check_between("the largest deviation", drawn.abs().max(dim=0).values.amax(), 2.8, 8, "is it a Gaussian?")
check_true((drawn != 0).any(dim=(1, 2)).all(), "one of the sequences is the mean itself, not drawn")
correlation = torch.corrcoef(drawn.reshape(4000, 4).T) - torch.eye(4)
check_between("correlation between entries", correlation, -0.15, 0.15, "each entry has noise of its own")
seen.clear()
pairs = []
for seed in (3, 3, 4):
    settings["generator"] = torch.Generator().manual_seed(seed)
    pairs.append(cem_iteration(score_fn, mean, std, -wide, wide, **settings))
check_close(
    "the mean with the same seed", pairs[1][0], pairs[0][0], hint="all random numbers come from generator"
)
check_true(
    not torch.equal(as_tensor("mean", pairs[2][0]), as_tensor("mean", pairs[0][0])), "the seed has no effect"
)
### END HIDDEN TESTS
print("Right: the population comes from the Gaussian and keeps the bounds.")

# %% kind="test" of="cem-iteration" points=3
seen = []


def score_fn(sequences):
    seen.append(torch.as_tensor(sequences).clone())
    return -((seen[-1] - 1) ** 2).sum(dim=(1, 2))


bound = torch.tensor([1.5])
mean, std = torch.tensor([[0.0], [0.5]]), torch.tensor([[1.0], [2.0]])  # [H, A]
settings = dict(population_size=50, num_elites=5, smoothing=0.25, generator=torch.Generator().manual_seed(2))
new_mean, new_std = cem_iteration(score_fn, mean.clone(), std.clone(), -bound, bound, **settings)
order = (-((seen[0] - 1) ** 2).sum(dim=(1, 2))).argsort(descending=True)
best, worst = seen[0][order[:5]], seen[0][order[-5:]]  # [K, H, A]
check_close(
    "the new mean",
    new_mean,
    0.25 * mean + 0.75 * best.mean(dim=0),
    mistakes={
        "smoothing is the wrong way round: it is the share of the old mean that is kept": 0.75 * mean
        + 0.25 * best.mean(dim=0),
        "smoothing was left out": best.mean(dim=0),
        "the new one is not multiplied by 1 - smoothing": 0.25 * mean + best.mean(dim=0),
        "these are the worst sequences, not the elites": 0.25 * mean + 0.75 * worst.mean(dim=0),
    },
    hint="expected 0.25 * old mean + 0.75 * mean of those 5 scored sequences that are best",
)
check_close(
    "the new std",
    new_std,
    0.25 * std + 0.75 * best.std(dim=0, correction=0),
    mistakes={
        "smoothing is the wrong way round": 0.75 * std + 0.25 * best.std(dim=0, correction=0),
        "smoothing was left out": best.std(dim=0, correction=0),
        "it is not smoothed and divides by K - 1": best.std(dim=0),
        "the new one is not multiplied by 1 - smoothing": 0.25 * std + best.std(dim=0, correction=0),
        "it divides by K - 1, expected K": 0.25 * std + 0.75 * best.std(dim=0),
        "variances are mixed, expected standard deviations": (
            0.25 * std**2 + 0.75 * best.var(dim=0, correction=0)
        ).sqrt(),
    },
)
### BEGIN HIDDEN TESTS
seen.clear()
settings = dict(population_size=80, num_elites=8, generator=torch.Generator().manual_seed(5))
new_mean, new_std = cem_iteration(score_fn, mean, std, -bound, bound, **settings)
best = seen[0][(-((seen[0] - 1) ** 2).sum(dim=(1, 2))).argsort(descending=True)[:8]]
check_close("the new mean without smoothing", new_mean, best.mean(dim=0))
check_close("the new std without smoothing", new_std, best.std(dim=0, correction=0))
seen.clear()


def broken_score_fn(sequences):  # the model breaks on half of the plans
    seen.append(torch.as_tensor(sequences).clone())
    first = seen[-1][:, 0, 0]
    return torch.where(first > 0, torch.nan, first)


settings["generator"] = torch.Generator().manual_seed(6)
new_mean, _ = cem_iteration(broken_score_fn, mean, std, -bound, bound, **settings)
first = seen[0][:, 0, 0]
best = seen[0][torch.where(first > 0, -torch.inf, first).argsort(descending=True)[:8]]
check_close(
    "the new mean where scores are NaN",
    new_mean,
    best.mean(dim=0),
    hint="plans with invalid scores rank last",
)
### END HIDDEN TESTS
print("Right: the Gaussian moves to the elites, smoothly.")


# %% kind="test" of="cem-iteration" points=2
def score_fn(sequences):
    return torch.as_tensor(sequences)[:, 0, 0]


low, high = torch.full((2,), -3.0), torch.full((2,), 3.0)
mean, std = torch.zeros(4, 2), torch.ones(4, 2)  # [H, A]
settings = dict(
    population_size=30, num_elites=1, generator=torch.Generator().manual_seed(0)
)  # one elite has no spread
_, new_std = cem_iteration(score_fn, mean, std, low, high, min_std=0.2, **settings)
check_close(
    "the new std with one elite and min_std=0.2",
    new_std,
    torch.full((4, 2), 0.2),
    mistakes={"it has no floor: it may nowhere be below min_std": torch.zeros(4, 2)},
)
_, new_std = cem_iteration(score_fn, mean, std, low, high, smoothing=0.5, min_std=0.2, **settings)
check_close(
    "the new std with smoothing=0.5, one elite and min_std=0.2",
    new_std,
    torch.full((4, 2), 0.5),
    mistakes={
        "min_std is added, expected the larger of the two": torch.full((4, 2), 0.7),
        "the floor comes before the smoothing, expected after it": torch.full((4, 2), 0.6),
        "it is min_std itself, or cut off from above: expected at least min_std": torch.full((4, 2), 0.2),
    },
)
_, new_std = cem_iteration(score_fn, mean, std, low, high, min_std=torch.tensor([0.1, 0.3]), **settings)
check_close("the new std with min_std=[0.1, 0.3]", new_std, torch.tensor([0.1, 0.3]).expand(4, 2))
### BEGIN HIDDEN TESTS
_, new_std = cem_iteration(
    score_fn, mean, std, low, high, smoothing=0.5, min_std=torch.tensor([0.4, 0.8]), **settings
)
check_close(
    "the new std with a floor below one action's and above the other's",
    new_std,
    torch.tensor([[0.5, 0.8]] * 4),
)
### END HIDDEN TESTS
print("Right: the standard deviation has its floor.")

# %% [markdown]
# Now watch it. The score function below remembers every population that it is asked about; that is all it
# takes to make a film of a search.


# %%
def search_landscape(num_iterations, seed, population_size=100, num_elites=10, initial_std=0.6, **settings):
    """CEM on the landscape from a broad Gaussian: a `SearchStep` for each iteration."""
    generator = torch.Generator().manual_seed(seed)
    low, high = -torch.ones(2), torch.ones(2)
    mean, std = torch.zeros(1, 2), torch.full((1, 2), initial_std)
    steps, seen = [], []

    def score_fn(sequences):
        seen.append(sequences)
        return score_landscape(sequences)

    for _ in range(num_iterations):
        settings |= dict(population_size=population_size, num_elites=num_elites, generator=generator)
        new_mean, new_std = cem_iteration(score_fn, mean, std, low, high, **settings)
        elites = seen[-1][score_landscape(seen[-1]).topk(num_elites).indices, 0]
        steps.append(SearchStep(seen[-1][:, 0], elites, mean[0], std[0]))
        mean, std = new_mean, new_std
    return steps


steps = search_landscape(num_iterations=8, seed=3, smoothing=0.2, min_std=0.02)
search_film(steps, landscape, title="CEM", progress=False)

# %% [markdown]
# The same search, four of its iterations beside each other. Each Gaussian was fitted to the orange elites of
# the iteration before.

# %%
axes = new_axes(columns=4, width=3.6, height=3.8)
for ax, number in zip(axes, (0, 1, 2, 5), strict=True):
    plot_search(*steps[number], objective=landscape, title=f"iteration {number + 1}", ax=ax)
    if number:
        ax.get_legend().remove()
plt.show()

# %% [markdown]
# It found the high peak. Was that luck? Here are the ends of 100 searches each, with different seeds, under
# four settings. The percentage says how many of them ended on the high peak.
#
# **Predict first.** Which of the four is the worst, and what will its ends look like?

# %%
panels = {
    "10 elites of 100": {},
    "3 elites of 30": dict(population_size=30, num_elites=3),
    "50 elites of 100": dict(num_elites=50),
    "10 of 100, narrow start": dict(initial_std=0.2),
}
axes = new_axes(columns=4, width=3.4, height=3.6)
for ax, (name, settings) in zip(axes, panels.items(), strict=True):
    settings |= dict(smoothing=0.2, min_std=0.02)
    ends = torch.stack([search_landscape(10, seed, **settings)[-1].mean for seed in range(100)])
    share = (landscape(ends) > 0.85).float().mean()
    draw_landscape(ax, f"{name}: {share:.0%}")
    ax.plot(*ends.T, "o", color=COLORS[3], markersize=6, alpha=0.4, markeredgewidth=0)
plt.show()

# %% [markdown]
# CEM does not always find the best peak, and it never tells.
#
# - With a small population a few lucky samples decide which hill it is.
# - With half of the population as elites the wide hill wins, since more *samples* lie there, and after ten
#   iterations many searches are still on their way.
# - A narrow start sees too little.
#
# CEM is a *local* search from a broad start: the better the first populations cover the space, the better the
# odds. In closed loop there is some comfort: the next time step searches again.

# %% [markdown] exercise="cem-plan" number="3.3" title="The whole search" points=4 difficulty=2 minutes=15
# One plan takes a few iterations, typically two to ten. Where does the search begin, and how broadly?
#
# - The mean starts at `initial_mean`: the middle of the range, say, or something better (exercise 3.4).
# - The standard deviation starts at `config.initial_std` times *half the range* of each action,
#   $(\text{high} - \text{low}) / 2$. Torques from -2 to 2 and a gripper from 0 to 0.1 need very different
#   steps; a configuration that says "half of half the range" serves both.
# - `config.min_std` is relative to half the range in the same way.
#
# **Predict first.** The plan could be the mean of the last Gaussian, or the best sequence that was ever
# scored. Which one scores better in the model? Which one would you rather execute, if the model is a learned
# one?
#
# **Write `cem_plan`.** Run exactly `config.num_iterations` calls of `cem_iteration` with the settings of
# `config`, each from the Gaussian that the last one returned. Return the mean of the last Gaussian, `[H, A]`.

# %% kind="given" ref="cem:Fill,SearchConfig,check_search,CEMConfig"

# %% kind="solution" of="cem-plan" ref="cem:cem_plan"
# TODO: the first standard deviation is [H, A]; initial_std and min_std are relative to half the range
# TODO: iterate, and return the last mean

# %% [markdown]
# <details><summary>Hint: from [A] to [H, A]</summary>
#
# `(config.initial_std * half_range).expand_as(initial_mean)`, or `torch.ones_like(initial_mean) * ...`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The best sequence often scores better *in the model*: it is the maximum of many tries. Among thousands of
# tries that is also the one which profits most from the model's errors. The mean of the elites averages such
# luck away. PETS executes the mean; iCEM, made for simulators, executes the best. In 3.5 you meet a
# compromise.
# </details>

# %% kind="test" of="cem-plan" points=2
seen = []


def score_fn(sequences):
    seen.append(torch.as_tensor(sequences).clone())
    return -(seen[-1] ** 2).sum(dim=(1, 2))


low, high = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 20.0])  # half ranges 2 and 10
start = torch.tensor([[0.5, 10.0]]).repeat(3, 1)  # [H, A]
config = CEMConfig(
    population_size=2000,
    num_elites=1,
    num_iterations=3,
    horizon=3,
    smoothing=0.0,
    initial_std=0.1,
    min_std=0.02,
)
plan = cem_plan(score_fn, start, low, high, config, torch.Generator().manual_seed(0))
check_shape(
    "the plan", plan, (3, 2), {(2, 3, 2): "is the standard deviation returned, too? The plan is the mean"}
)
check_true(len(seen) == 3, f"num_iterations is 3, but score_fn was called {len(seen)} times")
check_shape("each population", seen[0], (2000, 3, 2), "population_size is 2000")
check_between(
    "mean of the first population, less initial_mean, over half the range",
    (seen[0].mean(dim=0) - start) / torch.tensor([2.0, 10.0]),
    -0.15,
    0.15,
    "the search starts at initial_mean",
)
spread = seen[0].std(dim=0)  # [H, A]
check_between(
    "std of the first population over initial_std x half the range",
    spread / torch.tensor([0.2, 1.0]),
    0.9,
    1.1,
    "initial_std is relative to half the range of each action, (high - low) / 2",
)
### BEGIN HIDDEN TESTS
for population in seen[1:]:  # one elite has no spread, so what is left is the minimum
    floor = population[:, :, 0].std(dim=0) / 0.04, population[:, 1:, 1].std(dim=0) / 0.2
    hint = "min_std is relative to half the range of each action"
    check_between("std of a later population over min_std x half the range", floor[0], 0.9, 1.1, hint)
    check_between("std of a later population over min_std x half the range", floor[1], 0.9, 1.1, hint)
### END HIDDEN TESTS
print("Right: the search starts where and as broadly as it should.")

# %% kind="test" of="cem-plan" points=2
seen = []
target = torch.tensor([[1.0, 3.0], [-1.5, 9.0], [0.0, 6.0]])  # [H, A]
low, high = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 10.0])


def score_fn(sequences):
    seen.append(torch.as_tensor(sequences).clone())
    return -(((seen[-1] - target) / (high - low)) ** 2).sum(dim=(1, 2))


start = torch.tensor([[0.0, 5.0]]).repeat(3, 1)  # [H, A]
config = CEMConfig(population_size=300, num_elites=30, num_iterations=10, horizon=3, min_std=0.001)
plan = cem_plan(score_fn, start, low, high, config, torch.Generator().manual_seed(0))
check_true(len(seen) == 10, f"num_iterations is 10, but score_fn was called {len(seen)} times")
noise = [(population - population.mean(dim=0)) / population.std(dim=0) for population in seen[:2]]
check_true(
    (noise[1] - noise[0]).abs().mean() > 0.5,
    "two iterations draw the same noise: pass `generator` on as it is, it moves with every draw",
)
error = (as_tensor("plan", plan) - target).abs() / (high - low)
check_between(
    "distance of the plan from the best one, relative to the range",
    error,
    0,
    0.05,
    "ten iterations should come close: does each go on from the last Gaussian, with config.smoothing and "
    "min_std as they are, and is the mean returned?",
)
### BEGIN HIDDEN TESTS
seen.clear()
config = CEMConfig(population_size=60, num_elites=6, num_iterations=3, horizon=3, smoothing=0.4)
plan = cem_plan(score_fn, start, low, high, config, torch.Generator().manual_seed(1))
expected = start
for population in seen:
    scores = -(((population - target) / (high - low)) ** 2).sum(dim=(1, 2))
    elites = population[scores.argsort(descending=True)[:6]]
    expected, before = 0.4 * expected + 0.6 * elites.mean(dim=0), expected
best = seen[-1][scores.argmax()]
check_close(
    "the plan",
    plan,
    expected,
    mistakes={
        "it is the best sequence, expected the mean of the last Gaussian": best,
        "it is the mean that the last population was drawn from, one iteration too early": before,
        "config.smoothing has no effect": elites.mean(dim=0),
    },
    hint="expected the smoothed mean of the elites after the last iteration",
)
again = cem_plan(score_fn, start, low, high, config, torch.Generator().manual_seed(1))
check_close("the plan with the same seed", again, plan)
other = cem_plan(score_fn, start, low, high, config, torch.Generator().manual_seed(2))
check_true(not torch.equal(as_tensor("plan", other), as_tensor("plan", plan)), "the seed has no effect")
config = CEMConfig(population_size=60, num_elites=6, num_iterations=1, horizon=1)
check_shape("a plan of one step", cem_plan(score_fn, start[:1], low, high, config, torch.Generator()), (1, 2))
### END HIDDEN TESTS
print("Right: the search arrives.")

# %% [markdown]
# A real task at last: a point that shall walk past five walls to a goal. The score function is week 2's
# `make_score_fn`, with the task's true dynamics for a model. The picture shows where the planned 30 steps
# lead, after each iteration of CEM, and what random shooting finds with the same number of sequences.

# %%
task = get_task("obstacles")
start_obs = torch.tensor([-0.55, 0.6, 0.7, -0.8])  # x, y, goal x, goal y
score_fn = make_score_fn(task, start_obs)
box, horizon = (task.action_low, task.action_high), 30


def walk(plan):
    """The places [H + 1, 2] that a plan [H, A] leads to, up to the goal."""
    imagined = rollout(task.step, start_obs, plan.unsqueeze(0))
    length = int((~imagined.terminated[0, 0]).sum()) + 2  # the places before and after the last step
    return imagined.obs[0, 0, :length, :2]


axes = new_axes(columns=2, width=4.4, height=4.4)
for ax in axes:
    plot_state(ax, start_obs)
config = RandomShootingConfig(num_sequences=8 * 300, horizon=horizon)
shooter = RandomShootingPlanner(task, *box, config, torch.Generator().manual_seed(0))
shot = shooter.plan(start_obs)
axes[0].plot(*walk(shot).T, ".-", color=COLORS[3])
axes[0].set_title(f"random shooting: score {score_fn(shot[None])[0]:.1f}", fontsize=11)
for iterations, strength in {1: 0.3, 2: 0.45, 4: 0.65, 8: 1.0}.items():
    config = CEMConfig(300, 30, iterations, horizon, initial_std=1.0)
    generator = torch.Generator().manual_seed(0)  # the same seed: the same search, stopped later each time
    plan = cem_plan(score_fn, torch.zeros(horizon, 2), *box, config, generator)
    label = f"{iterations} iterations" if iterations > 1 else "1 iteration"
    axes[1].plot(*walk(plan).T, ".-", color=COLORS[3], alpha=strength, label=label)
axes[1].set_title(f"CEM: score {score_fn(plan[None])[0]:.1f} after 8 iterations", fontsize=11)
axes[1].legend(loc="upper right")
plt.show()

# %% [markdown]
# Both were allowed 2400 sequences. The mean of many random steps is a point that trembles on the spot: random
# shooting hardly ever draws 30 actions that point the same way. CEM learns that from its elites, one round
# after the other.

# %% [markdown] exercise="shift-plan" number="3.4" title="Warm start" points=3 difficulty=1 minutes=10
# In closed loop, only the first action of a plan is executed. The next search does not have to start from
# nothing: the rest of the plan, moved forward by one step, is still a good guess. Only its last action is
# new. Two ways to fill it:
#
# | step | 0 | 1 | ... | H - 2 | H - 1 |
# |---|---|---|---|---|---|
# | last plan | $a_0$ | $a_1$ | ... | $a_{H-2}$ | $a_{H-1}$ |
# | shifted, `fill="repeat"` | $a_1$ | $a_2$ | ... | $a_{H-1}$ | $a_{H-1}$ |
# | shifted, `fill="zero"` | $a_1$ | $a_2$ | ... | $a_{H-1}$ | $0$ |
#
# **Predict first.** Which fill do you expect to be better for swinging up a pole, and is the difference large
# or small? (You will measure it in the experiments notebook.)
#
# **Write `shift_plan`.** The plan is `[H, A]`, and so is the result; a plan of a single step is all last
# action. Without `fill`, it repeats. The plan that was passed stays as it is. A `fill` that is neither
# `"repeat"` nor `"zero"` is a `ValueError`.

# %% kind="solution" of="shift-plan" ref="cem:shift_plan"
# TODO: refuse an unknown fill
# TODO: all actions but the first, then one more: [H, A]

# %% [markdown]
# <details><summary>Hint</summary>
#
# `plan[1:]` is `[H - 1, A]` and `plan[-1:]`, with the colon, is `[1, A]`: both can be joined by `torch.cat`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Repeating is the better guess wherever good actions last for several steps; in swinging up a pole they do.
# But it is one action of thirty, the last one, and every search revises it many times before it is executed.
# Expect a small difference. Whether there *is* a warm start matters more.
# </details>

# %% kind="test" of="shift-plan" points=2
plan = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])  # [H, A]
mistakes = {
    "the first action came back at the end: torch.roll goes round in a circle": plan[[1, 2, 3, 0]],
    "it moved the wrong way: the first action was executed and is gone": plan[[0, 0, 1, 2]],
    "it is the plan as it was": plan,
}
given = plan.clone()
check_shape("shift_plan(plan)", shift_plan(given), (4, 2), {(3, 2): "a new last action is missing"})
check_unchanged("plan", given, plan, "expected a new one (torch.cat)")
shift_plan(given, "zero")
check_unchanged("plan", given, plan, "expected a new one (torch.cat), also for zero")
zeros = torch.zeros(1, 2)
check_close(
    'shift_plan(plan, "repeat")',
    shift_plan(plan, "repeat"),
    plan[[1, 2, 3, 3]],
    mistakes={**mistakes, "the last action is zero, expected the old last one": torch.cat([plan[1:], zeros])},
)
check_close(
    'shift_plan(plan, "zero")',
    shift_plan(plan, "zero"),
    torch.cat([plan[1:], zeros]),
    mistakes={**mistakes, "the last action is repeated, expected zeros": plan[[1, 2, 3, 3]]},
)
### BEGIN HIDDEN TESTS
check_close(
    "shift_plan(plan)", shift_plan(plan), plan[[1, 2, 3, 3]], hint="without fill, the last action is repeated"
)
check_close("the plan that was passed", plan[:, 0], [1.0, 2.0, 3.0, 4.0], hint="it should stay as it was")
long = torch.arange(30.0).reshape(30, 1)
check_close(
    "a plan shifted twice", shift_plan(shift_plan(long, "zero"), "repeat")[-3:], [[29.0], [0.0], [0.0]]
)
### END HIDDEN TESTS
print("Right: shifted, and filled up.")

# %% kind="test" of="shift-plan" points=1
plan = torch.tensor([[3.0, -1.0]])
check_close('a plan of one step, "repeat"', shift_plan(plan, "repeat"), [[3.0, -1.0]])
check_close('a plan of one step, "zero"', shift_plan(plan, "zero"), [[0.0, 0.0]])
check_raises('shift_plan(plan, "wrap")', ValueError, shift_plan, plan, "wrap")
### BEGIN HIDDEN TESTS
for fill in ("", "Repeat", "at", None):
    check_raises(f"shift_plan(plan, {fill!r})", ValueError, shift_plan, plan, fill)
### END HIDDEN TESTS
print("Right: short plans and unknown fills, too.")

# %% [markdown]
# With that the planner is complete. `WarmStartPlanner` is what all planners of this week have in common, and
# `CEMPlanner` is five lines on top of your functions.

# %% kind="given" ref="cem:Config,WarmStartPlanner,CEMPlanner"

# %% [markdown]
# A pole hangs from a cart and shall be swung up: the motor pushes the cart only. Three runs with the same
# small budget, 2 iterations of 50 sequences: from scratch at each step, or with a warm start of either kind.
# And one with random shooting, for old times' sake.

# %%
swingup = get_task("cartpole-swingup")
bounds = (swingup.action_low, swingup.action_high)
runs = {}
for name, warm_start in {"CEM, repeat": "repeat", "CEM, zero": "zero", "CEM, no warm start": None}.items():
    config = CEMConfig(50, 5, num_iterations=2, horizon=30, warm_start=warm_start)
    planner = CEMPlanner(swingup, *bounds, config, torch.Generator().manual_seed(0))
    runs[name] = run_episode(swingup, planner, seed=0)
shooter = RandomShootingPlanner(
    swingup, *bounds, RandomShootingConfig(100, 30), torch.Generator().manual_seed(0)
)
runs["random shooting"] = run_episode(swingup, shooter, seed=0)

ax = new_axes(width=6.5, height=3.6)[0]
for name, episode in runs.items():
    ax.plot(episode.reward, label=f"{name}: return {episode.reward.sum():.0f}")
ax.set(xlabel="step", ylabel="reward, about cos of the angle", title="Swing-up with 100 sequences per step")
ax.legend()
plt.show()

# %% [markdown]
# One episode each is an anecdote, not a result; the experiments notebook has ten seeds and more. And here is
# CEM with a decent budget, 4 iterations of 150 sequences, as a film. (The track has no end in this task, but
# it costs to leave the middle.)

# %%
config = CEMConfig(150, 15, num_iterations=4, horizon=30)
planner = CEMPlanner(swingup, *bounds, config, torch.Generator().manual_seed(0))
episode = run_episode(swingup, planner, seed=0)
so_far = episode.reward.cumsum(0)[::3]
episode_film(
    swingup, episode.obs[::3], rewards=so_far.diff(prepend=so_far[:1] * 0), fps=9, title="CEM", progress=False
)

# %% [markdown] exercise="mppi-weights" number="3.5" title="The weights of MPPI" points=5 difficulty=3 minutes=20
# CEM asks: are you among the best ten? Eleventh place counts for nothing, and first place for no more than
# tenth. Model-predictive **path integral** control (MPPI) asks every sample, and listens to the better ones
# more:
#
# $$w_i = \frac{\exp(s_i / \lambda)}{\sum_j \exp(s_j / \lambda)}, \qquad \mu \leftarrow \sum_i w_i\, a^i$$
#
# with scores $s_i$ and a temperature $\lambda$ (Williams et al., 2017, write costs, the negative of our
# scores, and add a term that charges for leaving the old plan; like many planners for learned models, we leave it
# out). The standard deviation of the samples stays as it is.
#
# **Predict first.** What do the weights become for $\lambda \to 0$ and for $\lambda \to \infty$? Which
# planner of last week is the first one, and what does the second one do to the plan?
#
# Written down as above it breaks: a return of 1000 at $\lambda = 1$ is $e^{1000}$, more than a number can
# hold; $e^{-1000}$ for all is no better, since it makes 0 / 0. The weights do not change if the same number
# is subtracted from all scores. Which number makes it safe?
#
# **Write `mppi_weights`.** Scores `[N]` and a temperature to weights `[N]` with sum 1. It has to work for
# scores of any size. NaN and infinite scores, of either sign, get the weight 0. If no score is finite, all
# weigh the same, $1 / N$.

# %% kind="solution" of="mppi-weights" ref="mppi:mppi_weights"
# TODO: scores that are NaN or infinite become -inf
# TODO: if nothing is finite, all weigh the same
# TODO: make the numbers safe, exponentiate, normalise

# %% [markdown]
# <details><summary>Hint: the order matters</summary>
#
# After `rank_invalid_last`, invalid scores are $-\infty$, and $e^{-\infty} = 0$ just as it should be. But
# $-\infty - (-\infty)$ is NaN: see to the case that all are invalid first.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# For $\lambda \to 0$ the best sample takes all: this is random shooting, around the last plan. For
# $\lambda \to \infty$ all weigh the same: the plan becomes the mean of the samples, which is about the old
# plan, and nothing is learned.
# </details>

# %% kind="test" of="mppi-weights" points=2
scores = torch.tensor([1.0, 2.0, 4.0])
weights = mppi_weights(scores, 2.0)
powers = torch.exp(torch.tensor([0.5, 1.0, 2.0]))  # exp(score / 2)
check_close(
    "weights",
    weights,
    powers / powers.sum(),
    mistakes={
        "the sum is not 1": powers,
        "the best has weight 1, but the sum should be 1": powers / powers.max(),
        "they favour low scores: larger is better": (1 / powers) / (1 / powers).sum(),
        "the scores are multiplied by the temperature, expected divided": torch.softmax(scores * 2.0, 0),
        "the temperature has no effect": torch.softmax(scores, 0),
    },
)
### BEGIN HIDDEN TESTS
scores = torch.randn(200, generator=torch.Generator().manual_seed(0))
for temperature in (0.2, 1.0, 5.0):
    weights = as_tensor("weights", mppi_weights(scores, temperature))
    check_close("the sum of the weights", weights.sum(), 1.0)
    expected = (scores - scores[0]).double() / temperature
    check_close(
        "log(w_i / w_0), which is (s_i - s_0) / temperature",
        (weights / weights[0]).log(),
        expected,
        rtol=1e-3,
        atol=1e-3,
    )
check_close("weights at a high temperature", mppi_weights(scores, 1e6), torch.full((200,), 0.005))
check_close(
    "the weight of the best at a low temperature",
    as_tensor("w", mppi_weights(scores, 1e-4))[scores.argmax()],
    1,
)
### END HIDDEN TESTS
print("Right: better samples weigh more.")

# %% kind="test" of="mppi-weights" points=2
for offset in (1e3, -1e3, 1e5):
    weights = mppi_weights(torch.tensor([0.0, 1.0, 2.0]) + offset, 1.0)
    what = f"weights of scores around {offset:g}"
    check_true(
        as_tensor("weights", weights).isfinite().all(),
        f"{what} hold NaN or inf: exp overflows, subtract the best score first",
    )
    expected = torch.softmax(torch.tensor([0.0, 1.0, 2.0]), 0)
    check_close(
        what, weights, expected, hint="subtracting the best score changes nothing but the size of the numbers"
    )
### BEGIN HIDDEN TESTS
weights = mppi_weights(torch.tensor([-4000.0, 0.0, 3.0, -2500.0]), 0.5)
check_close("weights", weights, [0.0, 0.00247262, 0.99752738, 0.0])
check_close("the weight of a single sample", mppi_weights(torch.tensor([-7000.0]), 0.1), [1.0])
### END HIDDEN TESTS
print("Right: scores may be of any size.")

# %% kind="test" of="mppi-weights" points=1
nan, inf = float("nan"), float("inf")
weights = mppi_weights(torch.tensor([nan, 1.0, inf, 1.0, -inf]), 1.0)
check_close(
    "weights of [nan, 1, inf, 1, -inf]",
    weights,
    [0.0, 0.5, 0.0, 0.5, 0.0],
    hint="invalid scores weigh nothing",
)
weights = mppi_weights(torch.tensor([nan, -2e9, -2e9]), 1.0)
check_close(
    "weights of [nan, -2e9, -2e9]",
    weights,
    [0.0, 0.5, 0.5],
    hint="an invalid score ranks below every number: -inf, not a very low one",
)
weights = mppi_weights(torch.tensor([nan, 1.0, 1.0]), 1e6)
check_close(
    "weights of [nan, 1, 1] at a high temperature", weights, [0.0, 0.5, 0.5], hint="-inf weighs nothing"
)
weights = mppi_weights(torch.tensor([nan, nan, -inf, inf]), 1.0)
check_close(
    "weights where no score is finite", weights, [0.25, 0.25, 0.25, 0.25], hint="then all weigh the same"
)
print("Right: invalid scores weigh nothing.")

# %% [markdown]
# The landscape once more. The size of a point is its weight, the cross is the weighted mean, where the plan
# goes next.

# %%
axes = new_axes(columns=3, width=4.0, height=4.2)
for ax, temperature in zip(axes, (0.02, 0.15, 2.0), strict=True):
    weights = mppi_weights(score_landscape(guesses), temperature)
    center = (weights[:, None] * guesses[:, 0]).sum(dim=0)
    draw_landscape(ax, f"temperature {temperature:g}: {1 / (weights**2).sum():.1f} effective samples")
    ax.scatter(*guesses[:, 0].T, s=4 + 900 * weights, color="black", alpha=0.55, linewidth=0)
    ax.plot(*center, "X", color=COLORS[3], markersize=14, markeredgecolor="white")
plt.show()

# %% [markdown]
# The number in the titles, $1 / \sum_i w_i^2$, is the *effective* number of samples: 100 if all weigh the
# same, 1 if one has it all. A temperature that is right for a task with returns around 100 is wrong for one
# with returns around 1. So the planner below measures it in standard deviations of the population's scores.

# %% kind="given" ref="mppi:MPPIConfig,MPPIPlanner"

# %%
pendulum = get_task("pendulum")
ax = new_axes(width=6.5, height=3.6)[0]
for color, temperature in zip(COLORS, (0.01, 0.1, 1.0, 10.0), strict=False):
    config = MPPIConfig(50, num_iterations=2, horizon=20, temperature=temperature)
    planner = MPPIPlanner(
        pendulum, pendulum.action_low, pendulum.action_high, config, torch.Generator().manual_seed(0)
    )
    episode = run_episode(pendulum, planner, seed=4)
    label = f"temperature {temperature:g}: return {episode.reward.sum():.0f}"
    ax.plot(torch.atan2(episode.obs[:, 1], episode.obs[:, 0]).abs(), color=color, label=label)
ax.set(xlabel="step", ylabel="angle from upright, rad", title="MPPI swings up a pendulum", ylim=(-0.1, 4.5))
ax.legend(loc="upper left", ncols=2)
plt.show()

# %% [markdown] exercise="colored-noise" number="3.6" title="Coloured noise" points=5 difficulty=5 minutes=45 bonus=true
# Look at the picture of the obstacles again. White noise, fresh at every step, makes actions that cancel each
# other: after 30 steps of length 1 the typical distance is only $\sqrt{30}$ of them. iCEM (Pinneri et al.,
# 2020) draws sequences that *persist*: noise whose power falls with its frequency,
#
# $$\text{power}(f) \propto \frac{1}{f^{\beta}}.$$
#
# $\beta = 0$ is white noise, $\beta = 1$ is pink, $\beta = 2$ is red, the colour of a random walk.
#
# It is made in the frequency domain (Timmer and König, 1995). For each frequency $f_k = k / H$,
# $k = 0 \dots \lfloor H / 2 \rfloor$, draw a complex number whose real and imaginary part are Gaussian with
# the standard deviation $f_k^{-\beta / 2}$ (power is amplitude *squared*, hence the half), and transform back
# to $H$ real numbers. The details:
#
# - $f_0 = 0$ would have infinite power. It gets that of $f_1 = 1 / H$, the lowest frequency that fits.
# - The edges $k = 0$ and, for even $H$, $k = H / 2$ are real. To have the same power as a complex number,
#   they get $\sqrt{2}$ times the real part, and no imaginary one.
# - The result is divided by its *theoretical* standard deviation, such that each entry has variance 1 over
#   many draws. Dividing each draw by its own standard deviation would be something else: draws of coloured
#   noise do differ in size. In the inverse transform all frequencies count twice (as $+f$ and $-f$) but the
#   edges, which count once, so
#
# $$\operatorname{Var} = 4 \sum_k f_k^{-\beta} - 2 \sum_{k \in \text{edges}} f_k^{-\beta}.$$
#
# **Predict first.** For $\beta = 2$ and $H = 30$, would you expect the actions of a sequence to change sign
# once, five times or fifteen times?
#
# **Write `colored_noise`.** The last axis of `shape` is time; all others are independent draws. Each entry
# has mean 0 and variance 1, for even and for odd lengths. All random numbers come from `generator`.

# %% kind="solution" of="colored-noise" ref="icem:colored_noise"
# TODO: the frequencies (torch.fft.rfftfreq), with f_0 raised to 1 / H, and the amplitude of each
# TODO: Gaussian real and imaginary parts; the edges are real
# TODO: transform back (torch.fft.irfft with n=H and norm="forward"), and divide by the theoretical std

# %% [markdown]
# <details><summary>Hint: shapes</summary>
#
# `torch.fft.rfftfreq(H)` has H // 2 + 1 entries, so real and imaginary parts are `[..., H // 2 + 1]`, and
# `irfft(..., n=H)` makes `[..., H]` of them. Without `n=H` an odd length comes back even.
# </details>
# <details><summary>Hint: another way</summary>
#
# `torch.fft.rfft` of white noise already has random complex amplitudes with the right edges: scale these.
# Then work out the variance.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# About five times: the slow frequencies dominate, but near zero the fast ones still turn the sign to and fro.
# White noise changes sign about fifteen times.
# </details>

# %% kind="test" of="colored-noise" points=2
noise = check_shape(
    "colored_noise", colored_noise(0.0, (2000, 2, 20), torch.Generator().manual_seed(0)), (2000, 2, 20)
)
check_between(
    "the variance over 2000 draws, beta=0",
    noise.var(dim=0),
    0.8,
    1.2,
    'is it divided by the square root of Var? irfft needs norm="forward", or divides by H',
)
check_between("the mean over 2000 draws", noise.mean(dim=0), -0.15, 0.15)
neighbours = (noise[..., 1:] * noise[..., :-1]).mean()
check_between("correlation of neighbours in white noise", neighbours, -0.1, 0.1, "beta=0 is white noise")
noise = as_tensor("noise", colored_noise(2.0, (2000, 2, 20), torch.Generator().manual_seed(0)))
check_true(
    noise.isfinite().all(), "the noise holds NaN or infinity for beta=2: f_0 = 0 gets the power of f_1"
)
check_between(
    "the variance for beta=2, averaged over all entries",
    noise.var(dim=0).mean(),
    0.9,
    1.1,
    "the edges get sqrt(2) times the real part and count once in Var; each draw keeps its own size",
)
check_between("the variance over 2000 draws, beta=2", noise.var(dim=0), 0.8, 1.2)
neighbours = (noise[..., 1:] * noise[..., :-1]).mean()
check_between("correlation of neighbours in red noise", neighbours, 0.75, 1, "large beta is smooth")
### BEGIN HIDDEN TESTS
for beta, length in ((1.0, 15), (3.0, 16), (2.0, 1), (0.5, 2)):
    noise = colored_noise(beta, (3000, length), torch.Generator().manual_seed(1))
    noise = check_shape("colored_noise", noise, (3000, length))
    check_between(
        f"the variance, beta={beta}, length {length}", noise.var(dim=0), 0.8, 1.2, "even and odd lengths"
    )
    check_between(f"the mean, beta={beta}, length {length}", noise.mean(dim=0), -0.15, 0.15)
check_shape("one sequence", colored_noise(1.0, (30,), torch.Generator().manual_seed(0)), (30,))
### END HIDDEN TESTS
print("Right: shape and variance.")

# %% kind="test" of="colored-noise" points=2
length = 32
frequencies = torch.arange(1, length // 2) / length  # without the edges
for beta in (0.0, 1.0, 2.0):
    noise = as_tensor("noise", colored_noise(beta, (4000, length), torch.Generator().manual_seed(2)))
    power = torch.fft.rfft(noise).abs().square().mean(dim=0)  # [H // 2 + 1], averaged over the draws
    x, y = frequencies.double().log(), power[1 : length // 2].log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    hint = "power is proportional to f ** -beta"
    if beta and abs(slope + 2 * beta) < 0.3:
        hint = "it is -2 beta: the exponent is that of the power, the amplitude gets beta / 2"
    elif beta and abs(slope + beta / 2) < 0.2:
        hint = "it is -beta / 2: amplitude and power are mixed up"
    elif beta and abs(slope - beta) < 0.3:
        hint = "it has the wrong sign: high frequencies have less power"
    check_between(
        f"slope of log power against log frequency, beta={beta}", slope, -beta - 0.2, -beta + 0.2, hint
    )
    ### BEGIN HIDDEN TESTS
    check_between(f"power at f = 0 over power at 1 / H, beta={beta}", power[0] / power[1], 0.8, 1.25)
    expected = 2.0**beta  # half of the highest frequency has 2^beta times its power
    ratio = power[length // 4] / power[length // 2] / expected
    check_between(f"power at H / 4 over power at H / 2, beta={beta}, relative to 2^beta", ratio, 0.8, 1.25)
### END HIDDEN TESTS
print("Right: the power falls as it should.")

# %% kind="test" of="colored-noise" points=1
pair = as_tensor("noise", colored_noise(1.0, (4000, 2, 8), torch.Generator().manual_seed(3)))
crossed = (pair[:, 0] * pair[:, 1]).mean()
check_between(
    "correlation between the two rows of a draw",
    crossed,
    -0.15,
    0.15,
    "all axes but the last are independent",
)
### BEGIN HIDDEN TESTS
again = colored_noise(1.0, (4000, 2, 8), torch.Generator().manual_seed(3))
check_close("the noise with the same seed", again, pair, hint="all random numbers come from generator")
generator = torch.Generator().manual_seed(4)
first, second = (as_tensor("noise", colored_noise(1.0, (8,), generator)) for _ in range(2))
check_true(
    not torch.equal(first, second), "two draws from one generator are the same: draw from `generator` itself"
)
own = [float(as_tensor("noise", colored_noise(2.0, (30,), generator)).std()) for _ in range(30)]
check_true(
    max(own) > 1.2 * min(own),
    "30 draws have nearly the same standard deviation: divide by the theoretical one, not by each draw's own",
)
sizes = [as_tensor("noise", colored_noise(2.0, (30,), generator)).square().mean().item() for _ in range(30)]
spread = max(sizes) / min(sizes)
hint = "they are nearly the same: is each draw divided by its own standard deviation?"
check_true(
    spread > 1.5, f"mean squares of 30 draws are between {min(sizes):.3f} and {max(sizes):.3f}: {hint}"
)
### END HIDDEN TESTS
print("Right: independent draws.")

# %% [markdown]
# Four sequences of each colour; and below, where 60 random plans of 30 steps lead from the middle of the map.
# All have the same standard deviation.

# %%
axes = new_axes(columns=3, width=4.0, height=3.4)
for ax, beta in zip(axes, (0.0, 1.0, 2.0), strict=True):
    noise = colored_noise(beta, (4, 30), torch.Generator().manual_seed(5))
    for row, color in zip(noise, COLORS, strict=False):
        ax.plot(row, ".-", color=color)
    ax.set(xlabel="step", ylim=(-3.6, 3.6), title=f"beta = {beta:g}")
axes[0].set_ylabel("noise")
middle = torch.tensor([0.3, 0.1, 0.7, -0.8])
axes = new_axes(columns=3, width=4.0, height=4.0)
for ax, beta in zip(axes, (0.0, 1.0, 2.0), strict=True):
    noise = colored_noise(beta, (60, 2, 30), torch.Generator().manual_seed(5)).transpose(1, 2)
    paths = rollout(task.step, middle, (0.5 * noise).clamp(-1, 1)).obs[0, ..., :2]  # [N, H + 1, 2]
    plot_map(ax)
    for path in paths:
        ax.plot(*path.T, color=COLORS[0], linewidth=0.8, alpha=0.6)
    ax.plot(*middle[:2], "o", color=COLORS[3], markersize=8)
    reach = (paths[:, -1] - middle[:2]).norm(dim=-1).mean()
    ax.set_title(f"beta = {beta:g}: mean distance {reach:.2f}", fontsize=11)
plt.show()

# %% [markdown]
# The whole of iCEM adds four more things to CEM. They are in the cell below: a population that shrinks over
# the iterations, elites that are kept from one iteration to the next and (shifted) from one plan to the next,
# the mean as one more candidate at the end, and the best sequence as the plan.

# %% kind="given" ref="icem:ICEMConfig,ICEMPlanner"

# %%
config = ICEMConfig(population_size=50, num_elites=5, num_iterations=2, horizon=30)
planner = ICEMPlanner(swingup, *bounds, config, torch.Generator().manual_seed(0))
runs["iCEM"] = run_episode(swingup, planner, seed=0)
for name, episode in runs.items():
    print(f"{name:20} {episode.reward.sum():6.1f}")

# %% [markdown]
# ## What to take along
#
# - CEM = sample, keep the elites, refit, repeat. It is a few lines, needs no gradient, and works with any
#   model that can be rolled out.
# - Its failures have names: a Gaussian between two peaks, a collapse that comes too early, a search that
#   leaves the bounds. Smoothing, a minimum standard deviation and clipping are the answers.
# - A warm start makes a small budget go far, since the searches of neighbouring steps become one long search.
# - MPPI replaces the hard cut at the elites by soft weights; its temperature does what the number of elites
#   does in CEM.
# - *How* the samples are drawn matters as much as what is done with them: noise that persists gets somewhere.
#
# ## Test yourself
#
# <details><summary>1. Ten elites of 500, or 250 of 500: what goes wrong with each?</summary>
#
# Ten of 500 is greedy: fast, but a few lucky samples decide, and the standard deviation collapses early. 250
# of 500 is timid: the Gaussian hardly moves from one iteration to the next. A tenth is a common start.
# </details>
# <details><summary>2. Why are the samples clipped before they are scored, and not the mean at the
# end?</summary>
#
# The environment clips. A score of an action of 5, where 1 is the limit, is the score of a plan that can't be
# carried out, and the elites drift to where the scores no longer change. Clipping the mean at the end leaves
# the damage in all the means before.
# </details>
# <details><summary>3. Two equally good ways lead around a wall, left and right. What does CEM do? What does
# MPPI do at a high temperature?</summary>
#
# The mean of left and right leads into the wall, so at first both may score badly there. CEM's elites are
# more of one side than of the other by chance, the refit amplifies that, and it decides. MPPI at a high
# temperature keeps averaging both sides, and its standard deviation does not shrink: it may go on pointing at
# the wall.
# </details>
# <details><summary>4. All scores become ten times as large. Which of the planners changes its plan: CEM, MPPI
# with a fixed temperature, the MPPIPlanner above?</summary>
#
# CEM does not: only the order of the scores counts. MPPI with a fixed temperature does: it becomes ten times
# as greedy. The planner above does not, since its temperature is measured in standard deviations of the
# scores.
# </details>
# <details><summary>5. Why is the warm start forgotten at the start of an episode?</summary>
#
# The last plan belongs to a state that has nothing to do with the new one. It would be a worse start than the
# middle of the range. That is what `reset` is for.
# </details>
#
# ## Where next
#
# Open `experiments.ipynb` beside this notebook. It runs on *your* functions: four planners at equal numbers
# of model calls, the warm start measured properly, and the half-cheetah with a learned model. Next week the
# model learns to say what it doesn't know.
