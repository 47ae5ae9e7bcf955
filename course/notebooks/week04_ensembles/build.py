# %% [markdown]
# # Week 4 · Knowing what you don't know
#
# Last week your planners searched for plans that a model likes. With the true dynamics that was safe. With a
# learned model it is dangerous: where it has never seen data it still answers, with a straight face, and a
# good planner *finds* the places where the answer is wonderful and wrong.
#
# This week the model learns to say how sure it is, and it will tell two kinds of doubt apart. The world may
# be noisy: more data won't help (*aleatoric*, from the Latin for dice). Or there were too few data here: more
# data will (*epistemic*, from the Greek for knowledge).
#
# **After this notebook you can**
#
# - train a network that predicts a Gaussian, and keep its variance from running away;
# - evaluate and train a whole ensemble as one batch, with members that differ for a reason;
# - split a predicted variance into noise and ignorance, by the law of total variance;
# - check whether a predicted uncertainty is worth anything: calibration, and rank correlation with the error;
# - as a bonus, write the sum tree behind prioritized replay.
#
# **Where it comes from**
#
# - Lakshminarayanan et al., 2017, [*Simple and scalable predictive uncertainty estimation using deep
#   ensembles*](https://arxiv.org/abs/1612.01474).
# - Chua et al., 2018, [*Deep reinforcement learning in a handful of trials using probabilistic dynamics
#   models*](https://arxiv.org/abs/1805.12114) (PETS): Section 4 and Appendix A.1.
# - For the bonus: Schaul et al., 2016, [*Prioritized experience replay*](https://arxiv.org/abs/1511.05952).
#
# **How it goes.** Six exercises with 30 points, together about two hours, and a bonus for another three
# quarters of an hour; the notebook itself runs in half a minute. Fill in the cells that raise
# `NotImplementedError`. The checks below each of them tell at once whether your code is right, and what is
# likely wrong with it. Hidden checks are added when you hand in; they test nothing that the text does not say.
# One rule holds for all exercises: a function leaves the tensors that it is given as they are.

# %% kind="setup"
from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm.auto import tqdm

from mbrl_course.buffers import Batch, ReplayBuffer, check_transitions
from mbrl_course.checking import (
    as_tensor,
    check_between,
    check_close,
    check_raises,
    check_shape,
    check_true,
    check_unchanged,
    gradients,
)
from mbrl_course.dynamics import Normalizer
from mbrl_course.envs.task import RewardFunction, TerminationFunction, never_terminates
from mbrl_course.fitting import split_holdout
from mbrl_course.networks import (
    ACTIVATIONS,
    PRECISIONS,
    EnsembleMLP,
    check_widths,
    rows_of_members,
    xavier_weights,
)
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least, need_positive, need_whole

use_style()

# %% [markdown]
# ## A world with two kinds of doubt
#
# One number in, one number out, so that everything can be drawn. The left half of this world is quiet, the
# right half is noisy, and nobody ever looked at what lies in the middle. A good model should be sure on the
# left, unsure on the right because the *world* is, and unsure in the middle because *it* is.


# %% kind="setup"
def true_mean(x: Tensor) -> Tensor:
    """What the noise is added to."""
    return torch.sin(2 * x) + 0.3 * x + 1.5 * torch.exp(-4 * x**2)


def true_noise(x: Tensor) -> Tensor:
    """Standard deviation of the noise: small on the left, large on the right."""
    return 0.04 + 0.26 * torch.sigmoid(4 * x)


def draw_points(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points x, y [N] from the left ([-3, -1]) and from the right ([1, 3]), with nothing in between."""
    generator = torch.Generator().manual_seed(seed)
    x = 1 + 2 * torch.rand(count, generator=generator)
    x = torch.where(torch.rand(count, generator=generator) < 0.5, x, -x)
    return x, true_mean(x) + true_noise(x) * torch.randn(count, generator=generator)


def as_transitions(x: Tensor, y: Tensor) -> Batch:
    """Points x, y [N] in the clothes of transitions: from the state x to the state y, by the action 0."""
    ends = torch.zeros(len(x), dtype=torch.bool)
    return Batch(x.unsqueeze(-1), torch.zeros(len(x), 1), torch.zeros(len(x)), y.unsqueeze(-1), ends, ends)


def draw_world(ax: Axes, title: str) -> None:
    """Draws the true mean, labels and limits."""
    grid = torch.linspace(-4, 4, 200)
    ax.plot(grid, true_mean(grid), "--", color="black", linewidth=1.5, label="truth")
    ax.set(xlim=(-4, 4), ylim=(-3.6, 3.6), xlabel="x", ylabel="y", title=title)


# %%
points_x, points_y = draw_points(300, seed=0)
grid = torch.linspace(-4, 4, 200)
ax = new_axes(width=7.5, height=3.6)[0]
ax.axvspan(-1, 1, color="#eeeeee", label="never visited")
ax.plot(points_x, points_y, "o", color=COLORS[0], markersize=4, alpha=0.5, markeredgewidth=0, label="data")
draw_world(ax, "Quiet on the left, noisy on the right, unknown in the middle")
ax.legend(loc="upper left")
plt.show()

# %% [markdown] exercise="gaussian-nll" number="4.1" title="The Gaussian's loss" points=4 difficulty=1 minutes=10
# To say how sure it is, a network gets a second output: besides the mean $\mu$ it predicts the logarithm of
# the variance, $\ell = \log \sigma^2$ (any number is a valid logarithm; a variance would have to be
# positive). It is trained to make the data likely, that is to minimise the **negative log-likelihood** (PETS,
# Equation 1):
#
# $$-\log \mathcal{N}(y;\, \mu, \sigma^2) = \frac{1}{2} \left( \frac{(y - \mu)^2}{\sigma^2} + \log \sigma^2
#   + \log 2\pi \right)$$
#
# The first term is the squared error that you know, divided by what the network expected it to be. So a large
# variance excuses a large error. The second term is the price of the excuse.
#
# **Predict first.** The error $y - \mu$ is always 0.3. Which standard deviation has the smallest loss? And
# which one, if the error is always exactly 0?
#
# **Write `gaussian_nll`.** Mean, log-variance and target have the same shape `[..., D]`, and so has the
# result: nothing is summed or averaged yet. Keep the constant $\log 2\pi$, so that the result is in nats. An
# untrained network may come up with a log-variance of 100, where $e^{100}$ no longer fits into a float32;
# the loss does, and must be right there. A network learns *through* this function, so it is made of torch
# operations.

# %% kind="solution" of="gaussian-nll" ref="ensembles:gaussian_nll"
# TODO: the three terms of the equation; the variance itself need not be computed

# %% [markdown]
# <details><summary>Hint: no division needed</summary>
#
# $1 / \sigma^2 = e^{-\ell}$, and $\log \sigma^2$ is `log_var` itself. Taking `exp` and then `log` again
# brings nothing but overflow.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The standard deviation 0.3: set the derivative with respect to $\sigma^2$ to zero, and $\sigma^2 = (y -
# \mu)^2$ comes out. That is how a network learns the noise from errors that nobody labelled. With an error of
# exactly 0 there is no smallest loss: it goes to minus infinity as the standard deviation goes to 0. That is
# not a curiosity, it is the next exercise.
# </details>


# %% kind="given"
def nll_slopes(mean: Tensor, log_var: Tensor) -> list[Tensor]:
    """The gradients of the loss of the target 0 with respect to mean and log-variance."""
    leaves = mean.clone().requires_grad_(), log_var.clone().requires_grad_()
    return gradients(gaussian_nll(*leaves, torch.zeros_like(mean)), *leaves)


# %% kind="test" of="gaussian-nll" points=2
draw = torch.Generator().manual_seed(0)
mean, target = torch.randn(4, 3, generator=draw), torch.randn(4, 3, generator=draw)
log_var = torch.randn(4, 3, generator=draw)
given = mean.clone(), log_var.clone(), target.clone()
nll = gaussian_nll(*given)
for name, value, before in zip(("mean", "log_var", "target"), given, (mean, log_var, target), strict=True):
    check_unchanged(name, value, before, "make a new tensor (target - mean, not target -= mean)")
check_shape("gaussian_nll", nll, (4, 3), "nothing is summed or averaged: one number for each dimension")
square, constant = (target - mean) ** 2, math.log(2 * math.pi)
check_close(
    "gaussian_nll",
    nll,
    0.5 * (square / log_var.exp() + log_var + constant),
    mistakes={
        "the constant log(2 pi) is missing": 0.5 * (square / log_var.exp() + log_var),
        "the factor 1/2 is missing": square / log_var.exp() + log_var + constant,
        "the factor 1/2 belongs to all three terms": 0.5 * square / log_var.exp() + log_var + constant,
        "the factor 1/2 belongs to the constant, too": 0.5 * (square / log_var.exp() + log_var) + constant,
        "the factor 1/2 is there twice in the term log_var: the bracket has it already": 0.5
        * (square / log_var.exp() + 0.5 * log_var + constant),
        "the term log_var has the wrong sign": 0.5 * (square / log_var.exp() - log_var + constant),
        "it is the likelihood's logarithm, expected its negative": -0.5
        * (square / log_var.exp() + log_var + constant),
        "log_var is taken for the logarithm of the standard deviation": 0.5
        * (square / (2 * log_var).exp() + 2 * log_var + constant),
        "the squared error is multiplied by the variance, expected divided": 0.5
        * (square * log_var.exp() + log_var + constant),
        "the squared error is divided by the squared variance, expected by the variance": 0.5
        * (square / (2 * log_var).exp() + log_var + constant),
        "log_var is taken for the variance": 0.5 * (square / log_var + log_var.log() + constant),
        "the term log_var, the price of a large variance, is missing": 0.5
        * (square / log_var.exp() + constant),
        "the constant is the logarithm of 2 pi": 0.5 * (square / log_var.exp() + log_var + 2 * math.pi),
        "the arguments come as mean, log_var, target": 0.5
        * ((log_var - mean) ** 2 / target.exp() + target + constant),
        "the error is not squared": 0.5 * ((target - mean) / log_var.exp() + log_var + constant),
        "the error is not squared, but its absolute value": 0.5
        * ((target - mean).abs() / log_var.exp() + log_var + constant),
    },
)
### BEGIN HIDDEN TESTS
check_shape(
    "gaussian_nll", gaussian_nll(torch.zeros(5, 7, 2), torch.ones(5, 7, 2), torch.ones(5, 7, 2)), (5, 7, 2)
)
y = torch.linspace(-30, 30, 6001).double().unsqueeze(-1)  # [N, 1], 0.01 apart
for width in (-2.0, 0.0, 3.0):
    density = (-as_tensor("nll", gaussian_nll(torch.ones_like(y), torch.full_like(y, width), y))).exp()
    check_close("the area under exp(-nll)", density.sum() * 0.01, 1.0, rtol=1e-3, hint="it is a density")
### END HIDDEN TESTS
print("Right: the negative log-likelihood.")

# %% kind="test" of="gaussian-nll" points=2
log_var = torch.tensor([[100.0], [-40.0], [0.0]])
nll = gaussian_nll(torch.zeros(3, 1), log_var, torch.tensor([[1.0], [0.0], [2.0]]))
check_true(
    as_tensor("nll", nll).isfinite().all(),
    f"the loss for log_var = 100, -40 and 0 is {as_tensor('nll', nll).flatten().tolist()}: is there an "
    "exp(log_var) whose logarithm is taken? Use log_var itself",
)
check_close(
    "the loss for log_var = 100, -40 and 0",
    nll,
    [[50.918939], [-19.081061], [2.918939]],
    mistakes={
        "log_var is clamped to [-20, 20]": [[10.918939], [-9.081061], [2.918939]],
        "log_var is clamped to [-10, 10]": [[5.918962], [-4.081061], [2.918939]],
    },
)
mean, log_var = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.0, 1.0]])
by_mean, by_log_var = nll_slopes(mean, log_var)
cut = "no gradient comes through: was it cut off by detach, .data, .item(), no_grad or numpy? Networks learn from it"
check_true(as_tensor("the gradient", by_mean).any() and as_tensor("the gradient", by_log_var).any(), cut)
check_close("the gradient with respect to mean", by_mean, mean / log_var.exp())
check_close("the gradient with respect to log_var", by_log_var, 0.5 * (1 - mean**2 / log_var.exp()))
### BEGIN HIDDEN TESTS
log_var = torch.linspace(-6, 4, 2001).unsqueeze(-1)  # [N, 1]
for error in (0.1, 0.3, 2.0):
    nll = as_tensor(
        "nll", gaussian_nll(torch.full_like(log_var, 5.0), log_var, torch.full_like(log_var, 5 + error))
    )
    best = log_var[nll.argmin()].item()
    check_between(
        f"exp(best log_var / 2) for an error of {error}", math.exp(best / 2), 0.98 * error, 1.02 * error
    )
### END HIDDEN TESTS
print("Right: it holds for variances of any size.")

# %% [markdown]
# The loss against the predicted standard deviation, for three errors.

# %%
widths = torch.logspace(-2, 1, 300)
ax = new_axes(width=6.5, height=3.6)[0]
for error, color in zip((0.05, 0.3, 1.5), COLORS, strict=False):
    loss = gaussian_nll(torch.zeros(300), 2 * widths.log(), torch.full((300,), error))
    ax.plot(widths, loss, color=color, label=f"error {error:g}")
    ax.plot(widths[loss.argmin()], loss.min(), "o", color=color, markersize=9, markeredgecolor="white")
ax.plot(
    widths,
    gaussian_nll(torch.zeros(300), 2 * widths.log(), torch.zeros(300)),
    ":",
    color=GREY,
    label="error 0",
)
ax.set(xscale="log", ylim=(-4, 6), xlabel="predicted standard deviation", ylabel="loss, nats")
ax.set_title("The best standard deviation is the error itself")
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# Look at the asymmetry. Being too sure (left of a dot) is punished without mercy; being too unsure costs a
# logarithm. And the dotted line has no lowest point.

# %% [markdown] exercise="bound-log-var" number="4.2" title="Soft bounds" points=4 difficulty=2 minutes=15
# A network that fits a few points perfectly follows the dotted line: each step lowers the variance a bit
# more. Then a point comes that is off a little, and its loss is in the billions. Far away from the data, on
# the other hand, nothing trains the log-variance, so it may become anything.
#
# So it is bounded. A hard `clamp` would do, but for one thing: outside the bounds its gradient is *zero*. A
# network that once got there is never told to come back. PETS (Appendix A.1) bounds softly, by means of
# $\operatorname{softplus}(z) = \log(1 + e^z)$, which is nearly $0$ for negative $z$ and nearly $z$ for
# positive ones. First from above:
#
# $$\ell' = \ell_{\max} - \operatorname{softplus}(\ell_{\max} - \ell)$$
#
# Where $\ell$ is far below $\ell_{\max}$, this is $\ell$; where it is far above, $\ell_{\max}$; and it always
# rises. Then the result $\ell'$ is bounded from below by $\ell_{\min}$ in the same way, mirrored.
#
# **Predict first.** With the upper bound first and the lower bound second, which of the two bounds can be
# exceeded a little?
#
# **Write `bound_log_var`.** Log-variances are `[..., D]`, the bounds `[D]`: each dimension has its own. Upper
# bound first, then the lower. The network learns *through* this function, and the bounds learn, too; so it is
# made of torch operations, and for inputs of any size, such as 10 000 and -10 000, result and gradient must be
# finite.

# %% kind="solution" of="bound-log-var" ref="ensembles:bound_log_var"
# TODO: from above, as in the equation
# TODO: then from below: which sign has what goes into softplus now?

# %% [markdown]
# <details><summary>Hint: the lower bound</summary>
#
# It is $\ell_{\min}$ plus something that is nearly 0 where $\ell'$ is far below $\ell_{\min}$, and nearly
# $\ell' - \ell_{\min}$ where it is far above.
# </details>
# <details><summary>Hint: inputs of any size</summary>
#
# In `torch.log(1 + torch.exp(z))` the exponential overflows from z = 89 on. Here the result may even survive
# that, but not its gradient: infinity over infinity is NaN. `softplus`, imported above, takes care of it.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The upper one. After the first step the value is below it, but the second adds
# $\log(1 + e^{\ell_{\min} - \ell'})$. That is tiny if the bounds lie far apart, and $\log 2$ if they are
# equal. The lower bound is kept strictly.
# </details>


# %% kind="given"
def slopes_of_bounds(log_var: Tensor, min_log_var: Tensor, max_log_var: Tensor) -> list[Tensor]:
    """The gradients of the sum of bounded log-variances with respect to both bounds, [D] each."""
    leaves = min_log_var.clone().requires_grad_(), max_log_var.clone().requires_grad_()
    return gradients(bound_log_var(log_var, *leaves), *leaves)


def bound_slopes(log_var: Tensor, min_log_var: Tensor, max_log_var: Tensor) -> Tensor:
    """The gradient of each bounded log-variance with respect to the unbounded one, [..., D]."""
    leaf = log_var.clone().requires_grad_()
    bounded = bound_log_var(leaf, min_log_var, max_log_var)
    check_true(
        torch.is_tensor(bounded) and bounded.requires_grad,
        "no gradient gets through: was it cut off by detach, .data, .item() or numpy?",
    )
    (gradient,) = torch.autograd.grad(bounded.sum(), leaf)
    return gradient


# %% kind="test" of="bound-log-var" points=2
low, high = torch.tensor([-5.0]), torch.tensor([1.0])
x = torch.tensor([[-100.0], [-6.0], [-2.0], [0.5], [100.0]])
given = x.clone(), low.clone(), high.clone()
bounded = bound_log_var(*given)
for name, value, before in zip(("log_var", "min_log_var", "max_log_var"), given, (x, low, high), strict=True):
    check_unchanged(name, value, before)
check_shape("bound_log_var", bounded, (5, 1))


def soft(z):
    return torch.log1p(torch.exp(torch.as_tensor(z).double()))


above = high - soft(high - x)  # [N, 1], bounded from above only
below = low + soft(x - low)  # [N, 1], bounded from below only
check_close(
    "bound_log_var of [-100, -6, -2, 0.5, 100]",
    bounded,
    low + soft(above - low),
    mistakes={
        "this is a hard clamp, whose gradient is zero outside the bounds": x.clamp(-5, 1),
        "it is bounded from above only": above,
        "it is bounded from below only": below,
        "the lower bound comes first, expected the upper one first": high - soft(high - below),
        "the two bounds are mixed up": high + soft((low - soft(low - x)) - high),
        "the lower bound is mirrored the wrong way: low + softplus(x - low)": low - soft(low - above),
        "the sign of the lower softplus is wrong": low - soft(above - low),
        "the argument of the lower softplus has the wrong sign: where x is far above low, it shall be x - low": low
        + soft(low - above),
        "the argument of the upper softplus has the wrong sign: where x is far below high, it shall be high - x": low
        + soft(high - soft(x - high) - low),
        "the sign of the upper softplus is wrong": low + soft(high + soft(high - x) - low),
        "there is a clamp after the soft bounds: leave it out, the upper bound may be exceeded a little": (
            low + soft(above - low)
        ).clamp(max=high),
        "the second bound is applied to the unbounded input": low + soft(x - low),
        "this is a scaled sigmoid, expected the two softplus": low + (high - low) * torch.sigmoid(x),
        "this is a scaled and shifted sigmoid, expected the two softplus": low
        + (high - low) * torch.sigmoid(x - (low + high) / 2),
        "this is a scaled tanh, expected the two softplus": low + (high - low) * (1 + torch.tanh(x)) / 2,
    },
    hint="first high - softplus(high - x), then its mirror image at low",
)
low, high = torch.tensor([-3.0, 0.0]), torch.tensor([2.0, 0.5])
x = torch.randn(3, 7, 2, generator=torch.Generator().manual_seed(0)) * 4
above = high - soft(high - x)
check_close(
    "bound_log_var with [D] bounds",
    bound_log_var(x, low, high),
    low + soft(above - low),
    hint="each dimension has its bounds",
)
print("Right: bounded, softly.")

# %% kind="test" of="bound-log-var" points=2
low, high = torch.tensor([-5.0]), torch.tensor([1.0])
x = torch.linspace(-13.1, 8.9, 45).unsqueeze(-1)  # [N, 1]
check_between("what comes out for -13.1 ... 8.9", bound_log_var(x, low, high), -5, 1 + math.log(2))
slopes = as_tensor("the gradient", bound_slopes(x, low, high))
check_true(not (slopes < 0).any(), "the gradient is negative somewhere: the result has to rise with log_var")
check_true(
    not (slopes == 0).any(),
    "the gradient is zero somewhere outside the bounds: nobody who got there is told to come back (a clamp?)",
)
expected = torch.sigmoid(high - x) * torch.sigmoid(high - torch.log1p(torch.exp(high - x)) - low)
check_close("the gradient for -13.1 ... 8.9", slopes, expected, rtol=1e-3)
outside = as_tensor("the gradient", bound_slopes(torch.tensor([[-30.0], [30.0]]), low, high))
check_true((outside > 0).all(), "the gradient for -30 or 30 is zero: is something clamped?")
above = high - torch.log1p(torch.exp(high - x))
by_low, by_high = slopes_of_bounds(x, low, high)
cut = "the bounds learn, too: are they cut off by detach, .data, .item() or clamp?"
check_close(
    "the gradient with respect to min_log_var", by_low, torch.sigmoid(low - above).sum(dim=0), hint=cut
)
check_close(
    "the gradient with respect to max_log_var",
    by_high,
    (torch.sigmoid(above - low) * torch.sigmoid(x - high)).sum(dim=0),
    hint=cut,
)
far = torch.tensor([[-10000.0], [10000.0]])
check_close("what comes out for -10000 and 10000", bound_log_var(far, low, high), [[-5.0], [1.002476]])
check_true(
    as_tensor("the gradient", bound_slopes(far, low, high)).isfinite().all(),
    "the gradient for -10000 or 10000 is NaN or infinite: exp overflows, use softplus",
)
### BEGIN HIDDEN TESTS
low, high = torch.tensor([-10.0, -4.0]), torch.tensor([0.5, 3.0])
inside = torch.tensor([[-5.0, 0.0]])
check_close("what comes out in the middle", bound_log_var(inside, low, high), inside, atol=0.1)
far = bound_log_var(torch.tensor([[1000.0, -1000.0]]), low, high)
check_close(
    "what comes out for 1000 and -1000", far, [[0.5, -4.0]], atol=1e-3, hint="each dimension has its bounds"
)
### END HIDDEN TESTS
print("Right: there is a way back from everywhere.")

# %% [markdown]
# On the left, the function beside a clamp. On the right, what it is there for. A network is right about the
# one point it has, and lowers its log-variance step by step. What would it cost if the *next* point was off
# by 1?

# %%
axes = new_axes(columns=2, width=4.8, height=3.5)
x = torch.linspace(-9, 5, 300)
low, high = torch.tensor(-5.0), torch.tensor(1.0)
axes[0].plot(x, x.clamp(-5, 1), "--", color=GREY, label="clamp")
axes[0].plot(x, bound_log_var(x.unsqueeze(-1), low, high).squeeze(-1), color=COLORS[0], label="soft bounds")
axes[0].set(xlabel="log-variance, unbounded", ylabel="log-variance, bounded", title="Soft, and always rising")
for name, color in (("no bounds", COLORS[3]), ("soft bounds", COLORS[0])):
    raw = torch.zeros(1, requires_grad=True)
    optimizer, costs = torch.optim.Adam([raw], lr=0.1), []
    for _ in range(300):
        log_var = raw if name == "no bounds" else bound_log_var(raw, low, high)
        costs.append(gaussian_nll(torch.zeros(1), log_var, torch.ones(1)).item())
        optimizer.zero_grad()
        gaussian_nll(torch.zeros(1), log_var, torch.zeros(1)).sum().backward()  # its own point: no error
        optimizer.step()
    axes[1].plot(costs, color=color, label=name)
axes[1].set(
    yscale="log",
    xlabel="gradient steps",
    ylabel="loss of the next point, nats",
    title="The price of being too sure",
)
for ax in axes:
    ax.legend()
plt.show()

# %% [markdown] exercise="ensemble-layer" number="4.3" title="A layer of the whole ensemble" points=4 difficulty=2 minutes=15
# One network knows the noise of the world. It does not know what it doesn't know: in the gap its second
# output is just as much a guess as its first. The simplest remedy that works (Lakshminarayanan et al., 2017):
# train several networks, and see whether they *agree*. Where there are data they have to. Elsewhere each of
# them makes up something of its own.
#
# Five networks in a Python loop are five times as slow as one. But they have the same shape, so the weights
# of a layer fit into one tensor, and the whole layer is *one* batched product:
#
# $$y_e = x_e W_e + b_e, \qquad e = 1 \dots E$$
#
# with $x$ `[E, N, in]`, $W$ `[E, in, out]` and $b$ `[E, 1, out]`.
#
# **Predict first.** A matrix product on `[E, N, in]` and `[E, in, out]` treats the first axis how? And on
# `[N, in]` and `[E, in, out]`?
#
# **Write `ensemble_layer`.** The inputs are `[E, N, in]`, for each member its own, or `[N, in]`, the same for
# all members, *also if N happens to equal E*. The result is `[E, N, out]`: no activation, and no loop over
# the members. The network learns through it: torch operations, nothing detached.

# %% kind="solution" of="ensemble-layer" ref="ensembles:ensemble_layer"
# TODO: a batched product of inputs and weights, plus the bias: [E, N, out]

# %% [markdown]
# <details><summary>Hint: which product?</summary>
#
# `a @ b` multiplies the last two axes and broadcasts the others, as `+` does. `torch.bmm` and
# `torch.baddbmm` (product and sum in one) want three axes exactly; `x.expand(E, -1, -1)` gives `[N, in]` its
# third one, without a copy (E is `len(weight)`).
# </details>
# <details><summary>Answer to the prediction</summary>
#
# As a batch: matrix e times matrix e, nothing is mixed between members. And `[N, in]` is broadcast: it stands
# for the same matrix E times.
# </details>


# %% kind="given"
def layer_slopes(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """The gradients of the sum of a layer's outputs with respect to inputs, weights and biases."""
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    return gradients(ensemble_layer(*leaves), *leaves)


# %% kind="test" of="ensemble-layer" points=2
draw = torch.Generator().manual_seed(0)
x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((3, 5, 4), (3, 4, 2), (3, 1, 2)))
y = ensemble_layer(x, weight, bias)
check_shape("ensemble_layer", y, (3, 5, 2), "expected [E, N, out]")
check_true(not isinstance(y, list), "it is a list: torch.stack makes one tensor of it, [E, N, out]")
member_by_member = torch.stack([x[e] @ weight[e] + bias[e] for e in range(3)])
check_close(
    "ensemble_layer",
    y,
    member_by_member,
    mistakes={
        "the bias is missing": member_by_member - bias,
        "the bias is subtracted": member_by_member - 2 * bias,
        "the bias is added twice (torch.baddbmm has it already)": member_by_member + bias,
        "all members have the weights of the first": torch.stack(
            [x[e] @ weight[0] + bias[e] for e in range(3)]
        ),
        "all members have the bias of the first": member_by_member - bias + bias[0],
        "all members have the inputs of the first": torch.stack(
            [x[0] @ weight[e] + bias[e] for e in range(3)]
        ),
        "the inputs of all members are added up": torch.stack(
            [x.sum(dim=0) @ weight[e] + bias[e] for e in range(3)]
        ),
        "all members have the sum of the biases": member_by_member - bias + bias.sum(dim=0),
        "all members have the mean of the biases": member_by_member - bias + bias.mean(dim=0),
        "the members come in reversed order": member_by_member.flip(0),
        "members are averaged, expected each by itself": member_by_member.mean(dim=0).expand(3, 5, 2),
        "there is an activation (relu): a layer is linear": member_by_member.relu(),
        "there is an activation (tanh): a layer is linear": member_by_member.tanh(),
        "there is an activation (silu): a layer is linear": member_by_member * member_by_member.sigmoid(),
    },
)
found = layer_slopes(x, weight, bias)
wanted = (
    weight.sum(dim=2).unsqueeze(1).expand(3, 5, 4),
    x.sum(dim=1).unsqueeze(2).expand(3, 4, 2),
    torch.full_like(bias, 5),
)
cut = "the network learns through this: was something cut off by detach, .data, no_grad or numpy?"
for name, slope, expected in zip(("x", "weight", "bias"), found, wanted, strict=True):
    check_close(f"the gradient with respect to {name}", slope, expected, hint=cut)
### BEGIN HIDDEN TESTS
x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((2, 3, 3), (2, 3, 3), (2, 1, 3)))
member_by_member = torch.stack([x[e] @ weight[e] + bias[e] for e in range(2)])
transposed = torch.stack([x[e] @ weight[e].T + bias[e] for e in range(2)])
check_close(
    "ensemble_layer with in = out",
    ensemble_layer(x, weight, bias),
    member_by_member,
    mistakes={"the weights are transposed: they are [E, in, out]": transposed},
)
check_shape("ensemble_layer of one member", ensemble_layer(x[:1], weight[:1], bias[:1]), (1, 3, 3))
### END HIDDEN TESTS
print("Right: one product for the whole ensemble.")

# %% kind="test" of="ensemble-layer" points=2
draw = torch.Generator().manual_seed(1)
x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((6, 4), (3, 4, 2), (3, 1, 2)))
y = ensemble_layer(x, weight, bias)
check_shape("ensemble_layer of shared inputs [N, in]", y, (3, 6, 2), "all members see the same inputs")
check_close(
    "ensemble_layer of shared inputs",
    y,
    torch.stack([x @ weight[e] + bias[e] for e in range(3)]),
    hint="member e computes x @ weight[e] + bias[e]",
)
few = x[:3]  # as many samples as members
check_close(
    "ensemble_layer of shared inputs with N = E",
    ensemble_layer(few, weight, bias),
    torch.stack([few @ weight[e] + bias[e] for e in range(3)]),
    hint="[N, in] is shared by all members, also if N = E",
)
### BEGIN HIDDEN TESTS
one = ensemble_layer(x[:1], weight, bias)
check_close(
    "ensemble_layer of a single shared input",
    one,
    torch.stack([x[:1] @ w + b for w, b in zip(weight, bias, strict=True)]),
)
### END HIDDEN TESTS
print("Right: shared inputs, too.")

# %% [markdown]
# Stacked with activations in between, these layers are an ensemble: `EnsembleMLP(..., layer=ensemble_layer)`
# does the stacking. On the left, five networks before any training. On the right, what the batch is good for:
# the time of a layer, in a Python loop over the members and as one product.

# %%
axes = new_axes(columns=2, width=4.8, height=3.5)
untrained = EnsembleMLP(5, 1, 1, (64, 64), "tanh", torch.Generator().manual_seed(3), ensemble_layer)
with torch.no_grad():
    for curve, color in zip(untrained(grid.unsqueeze(-1)), COLORS, strict=False):
        axes[0].plot(grid, curve.squeeze(-1), color=color)
axes[0].set(xlabel="x", ylabel="output", title="Five untrained members")
ways = {
    "one after the other": lambda x, w, b: [x[e] @ w[e] + b[e] for e in range(len(w))],
    "one batch": ensemble_layer,
}
sizes, milliseconds = (1, 2, 5, 10), {name: [] for name in ways}
for size in sizes:
    data = torch.randn(size, 32, 64), torch.randn(size, 64, 64), torch.randn(size, 1, 64)
    for name, way in ways.items():
        way(*data)
        start = time.perf_counter()
        for _ in range(300):
            way(*data)
        milliseconds[name].append((time.perf_counter() - start) / 300 * 1000)
for (name, values), color in zip(milliseconds.items(), (GREY, COLORS[0]), strict=True):
    axes[1].plot(sizes, values, "o-", color=color, label=name)
axes[1].set(xlabel="members", ylabel="ms per layer", title="Loop and batch", ylim=(0, None))
axes[1].legend()
plt.show()

# %% [markdown] exercise="members" number="4.4" title="Members that differ: bootstrap, loss, elites" points=8 difficulty=2 minutes=30
# Members that saw the same data in the same order would still differ by their initial weights. PETS adds a
# second reason: each member is trained on a **bootstrap** of its own, $N$ rows drawn from the $N$ rows of the
# data *with replacement* (Efron, 1979). Some rows come twice, others not at all: as if each member had lived
# another life in the same world. What they agree on is then in the data, not in their luck. (Lakshminarayanan et al.
# leave it out: with networks, the initial weights and the order of the data made members diverse enough, and a
# bootstrap costs each of them a third of the data. PETS and MBPO keep it.)
#
# All members are trained at once, on one **loss**. With the NLL averaged over the $B$ samples and $T$
# dimensions of each member's mini-batch,
#
# $$L = \sum_{e=1}^{E} \frac{1}{B\,T} \sum_{b, t} \text{nll}_{e b t}
#   \;+\; \lambda \sum_{t=1}^{T} \left( \ell_{\max, t} - \ell_{\min, t} \right)$$
#
# The second term is the regulariser of the soft bounds: these are learned too, and it pulls them together.
#
# Last, some members turn out better than others. Those with the lowest loss on hold-out data, which none of
# them was trained on, are the **elites**; the others are trained but not asked (5 of 7 in MBPO's code). Our ensemble
# takes the squared error of the means for this loss, as MBPO's code does. In this notebook all seven are asked, so
# that you see them all; MBPO, in week 7, asks the elites.
#
# **Predict first.** Which share of the data does a member never see? And what would change if $L$ *averaged*
# over the members?
#
# **Write three functions.**
#
# - `bootstrap_rows(num_rows, ensemble_size, generator)`: for each member its own rows, drawn independently
#   and uniformly with replacement, a tensor of integers `[E, N]`. All random numbers come from `generator`.
# - `ensemble_loss(nll, min_log_var, max_log_var, bound_penalty)`: $L$ above, a scalar tensor: the networks learn
#   from it, so no `.item()`. `nll` is `[E, B, T]`, the bounds `[T]`, $\lambda$ is `bound_penalty`.
# - `choose_elites(holdout_losses, num_elites)`: the numbers of the members with the smallest losses, the best
#   first, a tensor `[num_elites]`. A member whose loss is NaN comes after all others.

# %% kind="solution" of="members" ref="ensembles:bootstrap_rows,ensemble_loss,choose_elites"
# bootstrap_rows:
# TODO: random integers from 0 to num_rows - 1, [E, N]
# ensemble_loss:
# TODO: average over samples and dimensions, sum over members
# TODO: add bound_penalty times the sum of the distances of the bounds
# choose_elites:
# TODO: let NaN rank last, sort, and take the first num_elites

# %% [markdown]
# <details><summary>Hint: random integers</summary>
#
# `torch.randint(high, size, generator=...)` draws from 0 to high - 1. `torch.randperm` is something else: it
# shuffles, and each row comes once.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# A row is missed by one draw with probability $1 - 1/N$, by $N$ draws with $(1 - 1/N)^N \approx 1/e$: 37 %.
# If $L$ averaged, each member's gradient would be divided by $E$: an ensemble of 10 would learn with plain
# SGD ten times as slowly as an ensemble of 1. (Adam divides a common factor out again, but not one between two
# terms: the penalty on the bounds would weigh $E$ times as much.) Summed, each member learns as if it were alone.
# </details>


# %% kind="given"
def loss_slopes(nll: Tensor, low: Tensor, high: Tensor, bound_penalty: float) -> list[Tensor]:
    """The gradients of `ensemble_loss` with respect to the losses and both bounds."""
    leaves = [tensor.clone().requires_grad_() for tensor in (nll, low, high)]
    return gradients(ensemble_loss(*leaves, bound_penalty), *leaves)


# %% kind="test" of="members" points=2
generator = torch.Generator().manual_seed(0)
drawn = bootstrap_rows(1000, 4, generator)
rows = check_shape("bootstrap_rows(1000, 4)", drawn, (4, 1000), "expected [ensemble_size, num_rows]")
check_true(not isinstance(drawn, list), "it is a list: torch.stack makes one tensor of it, [E, N]")
check_true(rows.dtype == torch.int64, f"the rows are {rows.dtype}, expected integers to index with")
check_between("a row number", rows, 0, 999, "rows are counted from 0 to num_rows - 1")
distinct = [len(member.unique()) for member in rows]
check_true(
    max(distinct) < 1000, "each member has every row exactly once: this is a shuffle, draw with replacement"
)
check_between("how many of 1000 rows a member sees", distinct, 580, 690, "about 63 % with replacement")
check_true(
    not (rows[0] == rows[1]).all() and not (rows[2].sort().values == rows[3].sort().values).all(),
    "two members have the same rows: each has its own bootstrap",
)
second = as_tensor("bootstrap_rows", bootstrap_rows(1000, 4, generator))
check_true(
    not torch.equal(second, rows),
    "two calls with one generator draw the same rows: draw from `generator` itself, which moves on",
)
few = as_tensor("bootstrap_rows(4, 50)", bootstrap_rows(4, 50, torch.Generator().manual_seed(2)))
check_true(
    set(few.flatten().tolist()) == {0, 1, 2, 3},
    f"of 4 rows, only {sorted(set(few.flatten().tolist()))} are ever drawn: expected 0, 1, 2, 3",
)
### BEGIN HIDDEN TESTS
again = bootstrap_rows(1000, 4, torch.Generator().manual_seed(0))
check_close("rows with the same seed", again, rows, hint="all random numbers come from generator")
other = as_tensor("rows", bootstrap_rows(1000, 4, torch.Generator().manual_seed(1)))
check_true(
    not torch.equal(other, rows), "another seed gives the same rows: all random numbers come from generator"
)
few = as_tensor("rows", bootstrap_rows(4, 5000, torch.Generator().manual_seed(2)))
check_between(
    "how often each of 4 rows comes in 20000",
    torch.bincount(few.flatten(), minlength=4),
    4700,
    5300,
    "every row is as likely as any other (is there a round()?)",
)
together = ((few[:, 0] == 0) & (few[:, 1] == 0)).float().mean()
check_between("how often the first two draws are both 0", together, 0.04, 0.085, "draws are independent")
### END HIDDEN TESTS
print("Right: a bootstrap for each member.")

# %% kind="test" of="members" points=3
nll = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
low, high = torch.tensor([-3.0, -2.0, -5.0]), torch.tensor([1.0, 0.5, 2.0])
loss = ensemble_loss(nll, low, high, 0.1)
check_shape(
    "ensemble_loss",
    loss,
    (),
    {
        (3,): "the loss is one number: is the sum over the T = 3 dimensions missing in the regulariser?",
        (4,): "the loss is one number: sum over the E = 4 members",
        (1,): "the loss is one number, without an axis",
    },
)
check_true(
    torch.is_tensor(loss),
    "the loss is a plain number, expected a tensor (no .item()): networks learn from it",
)
fit, distance = nll.mean(dim=(1, 2)).sum(), (high - low).sum()
check_close(
    "ensemble_loss",
    loss,
    fit + 0.1 * distance,
    mistakes={
        "it is averaged over the members, expected summed": nll.mean() + 0.1 * distance,
        "it is summed over the samples, expected averaged": nll.mean(dim=2).sum() + 0.1 * distance,
        "it is summed over the dimensions, expected averaged": nll.mean(dim=1).sum() + 0.1 * distance,
        "it is summed over everything": nll.sum() + 0.1 * distance,
        "the regulariser is missing": fit,
        "the regulariser has the wrong sign: it would push the bounds apart": fit - 0.1 * distance,
        "bound_penalty is missing": fit + distance,
        "the regulariser is averaged over the dimensions, expected summed": fit + 0.1 * (high - low).mean(),
        "the regulariser counts once for each member, expected once": fit + 0.4 * distance,
        "the regulariser is added to each NLL before the average, expected once, after it": fit
        + 0.4 * (high - low).mean(),
        "the bounds are added, expected their distance": fit + 0.1 * (high + low).sum(),
        "the distances are squared": fit + 0.1 * (high - low).square().sum(),
        "it is averaged over members and samples, and summed over dimensions: members are the first axis": nll.mean(
            dim=(0, 1)
        ).sum()
        + 0.1 * distance,
        "it is averaged over members and dimensions, and summed over samples: members are the first axis": nll.mean(
            dim=(0, 2)
        ).sum()
        + 0.1 * distance,
        "NLL and regulariser are averaged, expected both summed (over members, over dimensions)": nll.mean()
        + 0.1 * (high - low).mean(),
    },
    hint="the mean NLL of each member, summed, plus bound_penalty times the sum of max - min",
)
found = loss_slopes(nll, low, high, 0.1)
wanted = torch.full((4, 5, 3), 1 / 15), torch.full((3,), -0.1), torch.full((3,), 0.1)
cut = "the networks and the bounds learn from it: was something cut off by detach, float() or numpy?"
for name, slope, expected in zip(("nll", "min_log_var", "max_log_var"), found, wanted, strict=True):
    check_close(f"the gradient with respect to {name}", slope, expected, hint=cut)
### BEGIN HIDDEN TESTS
check_close("ensemble_loss without penalty", ensemble_loss(nll, low, high, 0.0), fit)
check_close(
    "ensemble_loss of one member", ensemble_loss(nll[:1], low, high, 0.5), nll[0].mean() + 0.5 * distance
)
twice = torch.cat([nll, nll])
check_close(
    "ensemble_loss of every member twice", ensemble_loss(twice, low, high, 0.1), 2 * fit + 0.1 * distance
)
### END HIDDEN TESTS
print("Right: every member learns as if it were alone.")

# %% kind="test" of="members" points=3
nan = float("nan")
losses = torch.tensor([0.4, 0.1, 0.9, 0.3, 0.2])
elites = choose_elites(losses, 3)
check_shape(
    "choose_elites",
    elites,
    (3,),
    {
        (5,): "expected the first num_elites only",
        (2, 3): "is it all that topk returns, values and indices? The indices are the members' numbers",
        (
            2,
            5,
        ): "is it all that sort returns? argsort returns the members' numbers, and num_elites are wanted",
        (): "expected num_elites numbers of members",
    },
)
check_true(
    not isinstance(elites, list | tuple),
    f"it is a {type(elites).__name__}, expected a tensor: the ensemble keeps it as one",
)
check_close(
    "the elites of [0.4, 0.1, 0.9, 0.3, 0.2]",
    elites,
    [1, 4, 3],
    mistakes={
        "these are the members with the largest losses": [2, 0, 3],
        "these are the members with the largest losses, in rising order": [3, 0, 2],
        "these are losses, expected the numbers of the members": [0.1, 0.2, 0.3],
        "the best comes last, expected first": [3, 4, 1],
        "they are in the order of the members, expected the best first": [1, 3, 4],
        "these are ranks (argsort twice), expected the numbers of the members": [3, 0, 4],
        "these are the first members": [0, 1, 2],
    },
    hint="the numbers of the members with the smallest losses, the best first",
)
check_true(
    not as_tensor("choose_elites", elites).is_floating_point(),
    "the elites are decimal numbers, expected whole ones (int64): members are chosen by them",
)
check_close(
    "the elites of [nan, 0.5, 0.2]",
    choose_elites(torch.tensor([nan, 0.5, 0.2]), 2),
    [2, 1],
    mistakes={
        "the member whose loss is NaN is an elite": [0, 2],
        "the member whose loss is NaN comes before another one, expected last": [2, 0],
        "the members are counted without the one whose loss is NaN: keep their numbers": [1, 0],
    },
)
### BEGIN HIDDEN TESTS
check_close(
    "the best 2 of [nan, 1e30, 0.1]",
    choose_elites(torch.tensor([nan, 1e30, 0.1]), 2),
    [2, 1],
    hint="a member whose loss is NaN comes after every other, however large its loss",
)
losses = torch.tensor([nan, -3.0, 7.0, nan, 0.0, -4.0])
check_close("the best 4 of [nan, -3, 7, nan, 0, -4]", choose_elites(losses, 4), [5, 1, 4, 2])
everyone = as_tensor("elites", choose_elites(losses, 6))
check_close("the best 6, the NaN among them last", everyone[:4], [5, 1, 4, 2])
check_close("the two last", everyone[4:].sort().values, [0, 3])
check_close("the only one", choose_elites(torch.tensor([2.0]), 1), [0])
### END HIDDEN TESTS
print("Right: the elites, the best first.")

# %% [markdown]
# Thirty rows of the data, and how often each member has them. White is never.

# %%
counts = torch.stack(
    [torch.bincount(r, minlength=30) for r in bootstrap_rows(30, 5, torch.Generator().manual_seed(2))]
)
ax = new_axes(width=8.0, height=2.3)[0]
ax.imshow(counts, cmap="Blues", vmin=0, vmax=5, aspect="auto")
for member in range(5):
    for row in range(30):
        if count := int(counts[member, row]):
            color = "white" if count >= 4 else "black"
            ax.text(row, member, count, ha="center", va="center", fontsize=9, color=color)
ax.grid(visible=False)
ax.set(xlabel="row of the data", ylabel="member", yticks=range(5))
ax.set_title(f"Members see {(counts > 0).float().mean():.0%} of the rows, each its own")
plt.show()

# %% [markdown]
# The cell below puts your functions together. Have a look at `forward`, `loss` and `fit`: each of them is a
# few lines, since you wrote what they are made of.

# %% kind="given" ref="ensembles:EnsembleConfig,EnsembleFitResult,Prediction,GaussianEnsemble,_BestWeights"

# %%
settings = EnsembleConfig(
    ensemble_size=7,
    num_elites=5,
    hidden_sizes=(64, 64, 64),
    batch_size=32,
    learning_rate=5e-3,
    patience=25,
)
ensemble = GaussianEnsemble(1, 1, settings, generator=torch.Generator().manual_seed(0))
result = ensemble.fit(
    as_transitions(points_x, points_y), max_epochs=150, generator=torch.Generator().manual_seed(1)
)
predicted = ensemble.predict(grid.unsqueeze(-1), torch.zeros(200, 1))  # means and variances [E, N, 1]
axes = new_axes(columns=2, width=5.4, height=3.6)
axes[0].plot(points_x, points_y, "o", color=GREY, markersize=3, alpha=0.35, markeredgewidth=0)
for member, curve in enumerate(predicted.obs.squeeze(-1)):
    elite = member in ensemble.elites
    axes[0].plot(grid, curve, color=COLORS[0] if elite else COLORS[1], linewidth=1.4 if elite else 1.0)
axes[0].plot([], [], color=COLORS[0], label="elite")
axes[0].plot([], [], color=COLORS[1], label="not an elite")
draw_world(axes[0], "They agree where there are data")
for member, curve in enumerate(torch.stack(result.holdout_mse).T):
    color, zorder = (COLORS[0], 3) if member in ensemble.elites else (COLORS[1], 4)
    best = result.best_epochs[member]
    axes[1].plot(curve, color=color, linewidth=1.2, alpha=0.5)
    axes[1].plot(best, curve[best], "o", color=color, markersize=7, markeredgecolor="white", zorder=zorder)
axes[1].plot([], [], "o", color=GREY, markersize=7, markeredgecolor="white", label="best epoch of each")
axes[1].set(yscale="log", xlabel="epoch", ylabel="hold-out MSE, normalised", title="Best epochs, and elites")
axes[1].set_yticks([0.02, 0.05, 0.1, 0.2], ["0.02", "0.05", "0.1", "0.2"])
axes[1].minorticks_off()
axes[0].legend(loc="upper left")
axes[1].legend(loc="upper right")
plt.show()

# %% [markdown]
# Nobody told them to disagree in the gap. They do because nothing makes them agree.

# %% [markdown] exercise="split-variance" number="4.5" title="Noise or ignorance?" points=4 difficulty=2 minutes=15
# Ask the ensemble for a prediction: first a member is drawn at random, then it draws from its Gaussian. How
# much do such draws vary? The **law of total variance** splits the answer in two:
#
# $$\operatorname{Var}[y] =
#   \underbrace{\frac{1}{E} \sum_e \sigma_e^2}_{\text{aleatoric: the noise they see}} +
#   \underbrace{\frac{1}{E} \sum_e \left( \mu_e - \bar\mu \right)^2}_{\text{epistemic: their disagreement}},
#   \qquad \bar\mu = \frac{1}{E} \sum_e \mu_e$$
#
# The members are the whole population that is drawn from, not a sample of one. So the division is by $E$. (As an
# estimate of how much *other* networks of this kind would disagree it is too small by $(E - 1) / E$; with three
# members that shows.)
#
# **Predict first.** Ten times as many data arrive, all of them outside the gap. What happens to the two
# parts, outside and inside the gap?
#
# **Write `split_variance`.** Means and variances are `[E, ..., D]`; return `VarianceParts(aleatoric,
# epistemic)`, each `[..., D]`. A single member can't disagree: its epistemic part is 0, not NaN.

# %% kind="given" ref="ensembles:VarianceParts"

# %% kind="solution" of="split-variance" ref="ensembles:split_variance"
# TODO: the mean of the variances, and the variance of the means, over the members

# %% [markdown]
# <details><summary>Hint: dividing by E</summary>
#
# `means.var(dim=0)` divides by E - 1, which is 0 for a single member. `correction=0` divides by E.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Outside: the epistemic part falls, the aleatoric part stays where the world's noise is (it is only estimated
# better). Inside: nobody learns anything about the gap, and the disagreement stays far larger than outside. It need
# not stay the same: members that fit their neighbours alike also continue them alike, so it may shrink (`experiments.ipynb`
# measures it), with no more reason than before. Data help where they are. That is what makes the epistemic part
# useful: it says where to go and look.
# </details>

# %% kind="test" of="split-variance" points=2
means, variances = torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[1.0], [4.0], [4.0]])  # [E, D]
given = means.clone(), variances.clone()
parts = split_variance(*given)
check_true(parts is not None, "split_variance returns None: is a `return` missing?")
check_true(
    len(parts) == 2 and not isinstance(parts, dict),
    "split_variance returns VarianceParts(aleatoric, epistemic): two parts, not their sum",
)
check_unchanged("means", given[0], means)
check_unchanged("variances", given[1], variances)
aleatoric, epistemic = parts
swapped = "the two parts are swapped: aleatoric comes first"
check_close(
    "the aleatoric part of variances 1, 4, 4",
    aleatoric,
    [3.0],
    mistakes={
        swapped: [26 / 3],
        "it is the variance of the variances, expected their mean": [2.0],
        "it is the square of the mean standard deviation, expected the mean variance": [25 / 9],
        "it is the mean standard deviation": [5 / 3],
        "the variances are summed, expected averaged": [9.0],
        "it is the total variance, expected the members' own alone": [26 / 3 + 3],
        "it is the standard deviation, expected the variance": [3**0.5],
    },
)
check_close(
    "the epistemic part of means 1, 3, 8",
    epistemic,
    [26 / 3],
    mistakes={
        "it divides by E - 1, expected E: correction=0": [13.0],
        "it is the standard deviation, expected the variance": [(26 / 3) ** 0.5],
        "it is the standard deviation (and divides by E - 1), expected the variance": [13**0.5],
        "it is the mean of the squares: subtract the mean first": [74 / 3],
        "it is measured from the first member, expected from the mean over members": [53 / 3],
        "it is the total variance, expected the members' disagreement alone": [26 / 3 + 3],
        "it is the variance of the variances, expected of the means": [2.0],
        "it is the mean distance from the mean, expected the mean of the squares": [8 / 3],
        "the squares are summed, expected averaged": [26.0],
    },
)
### BEGIN HIDDEN TESTS
aleatoric, epistemic = split_variance(means[:1], variances[1:2])
check_close("the aleatoric part of a single member", aleatoric, [4.0])
check_close("the epistemic part of a single member", epistemic, [0.0], hint="a single member can't disagree")
aleatoric, epistemic = split_variance(torch.full((5, 2), 3.0), torch.zeros(5, 2))
check_close(
    "the parts of members that agree and see no noise", [aleatoric.tolist(), epistemic.tolist()], [[0, 0]] * 2
)
### END HIDDEN TESTS
print("Right: noise and disagreement.")

# %% kind="test" of="split-variance" points=2
draw = torch.Generator().manual_seed(0)
means, variances = torch.randn(4, 6, 2, generator=draw), torch.rand(4, 6, 2, generator=draw)  # [E, N, D]
aleatoric, epistemic = split_variance(means, variances)
check_shape(
    "the aleatoric part", aleatoric, (6, 2), "the members' axis, the first one, is gone; all others stay"
)
check_shape(
    "the epistemic part", epistemic, (6, 2), "the members' axis, the first one, is gone; all others stay"
)
center = (means[0] + means[1] + means[2] + means[3]) / 4  # [N, D]
check_close(
    "the epistemic part",
    epistemic,
    sum((mean - center) ** 2 for mean in means) / 4,
    mistakes={
        "it is measured from the mean of all entries, expected from the members' mean of each entry": (
            (means - means.mean()) ** 2
        ).mean(dim=0),
        "it divides by E - 1, expected E: correction=0": sum((mean - center) ** 2 for mean in means) / 3,
    },
)
member = torch.randint(4, (200_000,), generator=draw)
row, column = 3, 1
samples = means[member, row, column] + variances[member, row, column].sqrt() * torch.randn(
    200_000, generator=draw
)
total = as_tensor("aleatoric", aleatoric)[row, column] + as_tensor("epistemic", epistemic)[row, column]
check_between("the sum of both over the variance of 200000 draws", total / samples.var(), 0.97, 1.03)
### BEGIN HIDDEN TESTS
deeper = torch.randn(3, 2, 4, 5, generator=draw)
aleatoric, epistemic = split_variance(deeper, deeper**2)
check_close(
    "the aleatoric part of [E, 2, 4, 5]", aleatoric, (deeper[0] ** 2 + deeper[1] ** 2 + deeper[2] ** 2) / 3
)
center = (deeper[0] + deeper[1] + deeper[2]) / 3
check_close("the epistemic part of [E, 2, 4, 5]", epistemic, sum((d - center) ** 2 for d in deeper) / 3)
### END HIDDEN TESTS
print("Right: together they are the variance of what the ensemble says.")

# %% [markdown]
# The picture of the week. On the left what the ensemble says, with two standard deviations of each kind. On
# the right both standard deviations by themselves, and the true noise, which nobody showed them.

# %%
aleatoric, epistemic = (part.squeeze(-1) for part in split_variance(predicted.obs, predicted.obs_var))
center = predicted.obs.mean(dim=0).squeeze(-1)
axes = new_axes(columns=2, width=5.6, height=3.8)
total, band = 2 * (aleatoric + epistemic).sqrt(), 2 * aleatoric.sqrt()
axes[0].fill_between(
    grid, center - band, center + band, color=COLORS[0], alpha=0.35, linewidth=0, label="aleatoric, 2 std"
)
for sign, label in ((1, "+ epistemic"), (-1, None)):
    axes[0].fill_between(
        grid,
        center + sign * band,
        center + sign * total,
        color=COLORS[1],
        alpha=0.45,
        linewidth=0,
        label=label,
    )
axes[0].plot(
    points_x, points_y, "o", color="black", markersize=2.5, alpha=0.4, markeredgewidth=0, label="data"
)
axes[0].plot(grid, center, color=COLORS[0], label="ensemble's mean")
draw_world(axes[0], "What it says, and how sure it is")
axes[0].legend(loc="upper left", ncols=2)
axes[1].axvspan(-3, -1, color="#eeeeee")
axes[1].axvspan(1, 3, color="#eeeeee", label="data")
axes[1].plot(grid, true_noise(grid), "--", color="black", linewidth=1.5, label="true noise")
axes[1].plot(grid, aleatoric.sqrt(), color=COLORS[0], label="aleatoric")
axes[1].plot(grid, epistemic.sqrt(), color=COLORS[1], label="epistemic")
axes[1].set(xlim=(-4, 4), ylim=(0, 1.2), xlabel="x", ylabel="standard deviation", title="Noise and ignorance")
axes[1].legend(loc="upper left", ncols=2)
plt.show()

# %% [markdown]
# Where there are data, the blue line roughly finds the noise (it would get closer with more training: the
# weights that are kept are those with the best *mean*), and the orange one is small. In the gap and outside
# the orange line rises. Don't read much into the blue one there: nobody trained it.
#
# And look at the gap on the left once more: the truth has a bump there that no member reaches. Networks of
# one kind that saw the same two ends make similar guesses. Disagreement shows that something is unknown; it
# is no upper bound on how unknown.

# %% [markdown] exercise="calibration" number="4.6" title="Is it worth anything?" points=6 difficulty=3 minutes=30
# An uncertainty is a claim, and claims can be checked. A model is **calibrated** if what it gives a
# probability of 90 % happens in 90 % of the cases. For a Gaussian prediction, the central interval with
# probability $p$ is
#
# $$\mu \pm z_p\, \sigma, \qquad z_p = \sqrt{2}\, \operatorname{erf}^{-1}(p)$$
#
# ($z_{0.68} \approx 1$, $z_{0.95} \approx 1.96$). The **coverage** $c(p)$ is the share of the targets that lie
# inside. The expected calibration error sums it up, as the mean absolute gap (Kuleshov et al., 2018, take its square,
# and one-sided intervals) over the levels $p_k = k / (L + 1)$, $k = 1 \dots L$:
#
# $$\text{ECE} = \frac{1}{L} \sum_{k=1}^{L} \left| c(p_k) - p_k \right|$$
#
# A planner asks for less: the doubt should be *large where the error is large*, whatever the units. That is
# **Spearman's rank correlation**: replace each number by its rank (1 for the smallest), and take the ordinary
# correlation of the ranks. Equal numbers share the mean of their ranks: 5, 7, 7, 9 have ranks 1, 2.5, 2.5, 4.
#
# **Predict first.** The predicted standard deviations are all half of what they should be. What is the
# coverage at $p = 0.95$: about 47 %, 67 % or 90 %?
#
# **Write three functions.**
#
# - `interval_coverage(mean, std, target, levels)`: mean, std and target have the same shape, any; `levels` is
#   `[L]`, in (0, 1). The coverage at each level over *all* entries, `[L]`. Three shapes that differ are a
#   `ValueError`: of `[N, 1]` and `[N]` broadcasting would compare each with each, and say nothing.
# - `expected_calibration_error(mean, std, target, num_levels)`: ECE as above, a number.
# - `rank_correlation(x, y)`: of two tensors `[N]`, a number between -1 and 1. Neither is constant.

# %% kind="solution" of="calibration" ref="calibration:interval_coverage,expected_calibration_error,rank_correlation"
# interval_coverage:
# TODO: refuse shapes that differ
# TODO: z of each level (torch.erfinv), and each error in standard deviations
# TODO: for each level the share of errors up to z
# expected_calibration_error:
# TODO: the levels k / (L + 1), and the mean distance of coverage and level
# rank_correlation:
# TODO: the rank of each number, equal numbers share their mean rank
# TODO: the ordinary correlation of the ranks

# %% [markdown]
# <details><summary>Hint: all levels at once</summary>
#
# Errors in standard deviations, flattened, are `[M]`, and z is `[L]`. `errors[None] <= z[:, None]` compares
# each with each, `[L, M]`; its mean over the last axis is the coverage (torch averages numbers only: `.double()`
# first).
# </details>
# <details><summary>Hint: ranks with ties</summary>
#
# The mean rank of a number is the count of smaller numbers, plus half the count of equal ones (itself
# included), plus one half. Comparing all with all, `x[:, None] > x`, and summing over the last axis counts the
# smaller ones; for a few thousand numbers that is fine. The ordinary correlation of two lists of ranks is
# `torch.corrcoef(torch.stack([a, b]))[0, 1]`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# 67 %: the model's 1.96 standard deviations are 0.98 real ones, and within those lie 67 % of a Gaussian. One
# case in three falls outside an interval that was sold as 95 %.
# </details>

# %% kind="test" of="calibration" points=2
levels = torch.tensor([0.5, 0.9, 0.99])  # z = 0.67, 1.64 and 2.58
errors = torch.tensor([[-2.0, -2.2, 2.4], [-0.6, 1.2, 1.8]])  # in standard deviations, [N, D]
mean, std = torch.full((2, 3), 10.0), torch.tensor([[4.0, 2.0, 4.0], [4.0, 0.5, 4.0]])
target = mean + std * errors
given = mean.clone(), std.clone(), target.clone(), levels.clone()
coverage = interval_coverage(*given)
arguments = zip(("mean", "std", "target", "levels"), given, (mean, std, target, levels), strict=True)
for name, value, before in arguments:
    check_unchanged(name, value, before, "make a new tensor (target - mean, not target -= mean)")
check_shape(
    "interval_coverage",
    coverage,
    (3,),
    {
        (6,): "expected one number for each level: average over the errors, not over the levels",
        (3, 3): "expected one number for each level, over *all* entries: flatten the errors",
        (3, 2): "expected one number for each level, over *all* entries: flatten the errors",
        (): "expected one number for each level",
    },
)
check_close(
    "the coverage at 50, 90 and 99 %, errors of -2, -2.2, 2.4, -0.6, 1.2 and 1.8 std",
    coverage,
    torch.tensor([1, 2, 6]) / 6,
    mistakes={
        "these are one-sided quantiles: p is the probability between -z and z": torch.tensor([0, 2, 5]) / 6,
        "z lacks the factor sqrt(2)": torch.tensor([0, 1, 3]) / 6,
        "z is divided by sqrt(2), expected multiplied": torch.tensor([0, 1, 2]) / 6,
        "z is made by erf, expected by its inverse, torch.erfinv": torch.tensor([1, 1, 1]) / 6,
        "std is not used: measure the errors in standard deviations": torch.tensor([1, 1, 2]) / 6,
        "errors are divided by the variance, expected by std": torch.tensor([4, 5, 6]) / 6,
        "std is taken for the variance: no square root": torch.tensor([0, 2, 2]) / 6,
        "std is averaged: each target has an interval of its own": torch.tensor([1, 3, 4]) / 6,
        "negative errors always count as inside: take the absolute value": torch.tensor([3, 4, 6]) / 6,
        "positive errors always count as inside: take the absolute value": torch.tensor([4, 4, 6]) / 6,
        "it is the share outside the interval": torch.tensor([5, 4, 0]) / 6,
        "these are counts, expected shares": [1, 2, 6],
        "only the first dimension counts, or whole rows: expected the share of all entries": [0.5, 0.5, 1.0],
        "the counts are divided by N, expected by the number of entries (here 2 times 3)": [0.5, 1.0, 3.0],
    },
    hint="z = sqrt(2) erfinv(p), and a target is inside if its error is at most z standard deviations",
)
column, row = torch.ones(5, 1), torch.ones(5)
each = "a mean [5, 1] beside a target [5], where each would be compared with each"
check_raises(each, ValueError, interval_coverage, column, column, row, levels)
### BEGIN HIDDEN TESTS
for shapes in (((5, 1), (5,), (5, 1)), ((4, 3), (4, 3), (4, 1)), ((5,), (5, 1), (5,))):
    name = f"mean, std and target of the shapes {shapes}, not of one shape"
    check_raises(name, ValueError, interval_coverage, *(torch.ones(shape) for shape in shapes), levels)
draw = torch.Generator().manual_seed(0)
std = 0.1 + torch.rand(4000, 5, generator=draw)
mean = torch.randn(4000, 5, generator=draw)
target = mean + std * torch.randn(4000, 5, generator=draw)
levels = torch.tensor([0.1, 0.5, 0.8, 0.95])
coverage = interval_coverage(mean, std, target, levels)
check_shape("the coverage of predictions [N, D]", coverage, (4,), "over all entries")
halves = torch.tensor([[0.0, 5.0], [0.0, 5.0]])  # the first column is inside, the second is not
coverage_of_halves = interval_coverage(torch.zeros(2, 2), torch.ones(2, 2), halves, levels)
check_close("the coverage where one dimension of two is inside", coverage_of_halves, [0.5] * 4)
check_close("the coverage of a calibrated model", coverage, levels, atol=0.02)
coverage = interval_coverage(mean, std / 2, target, levels)
check_close("the coverage of half the std", coverage, torch.erf(torch.erfinv(levels) / 2), atol=0.02)
### END HIDDEN TESTS
print("Right: the coverage of each interval.")

# %% kind="test" of="calibration" points=2
mean, std = torch.zeros(5), torch.ones(5)
target = torch.tensor([-0.1, -0.9, -0.7, 1.0, 0.8])
check_close(
    "interval_coverage at 25, 50 and 75 %",
    interval_coverage(mean, std, target, torch.tensor([0.25, 0.5, 0.75])),
    [0.2, 0.2, 1.0],
    hint="the calibration error is made of the coverage: mend interval_coverage first",
)
error = expected_calibration_error(mean, std, target, num_levels=3)
check_shape(
    "expected_calibration_error",
    error,
    (),
    {(3,): "expected one number: average over the levels"},
)
check_close(
    "the calibration error with the levels 0.25, 0.5, 0.75",
    error,
    0.2,  # of 0.05, 0.3 and 0.25
    mistakes={
        "the distances have signs and cancel: take absolute values": -0.1 / 3,
        "the absolute value comes after the mean, so distances cancel: take it before": 0.1 / 3,
        "the distances are squared, expected absolute": 0.155 / 3,
        "it is the root of the mean square, expected the mean absolute distance": (0.155 / 3) ** 0.5,
        "it is the largest distance, expected the mean": 0.3,
        "the distances are summed, expected averaged": 0.6,
        "the sum is divided by L + 1, expected by L, or the level 0 counts, too": 0.15,
        "the levels are k / L, expected k / (L + 1)": 0.8 / 9,
        "the levels start at 0: k runs from 1 to L": 0.35 / 3,
        "the last level is missing: k runs from 1 to L, that is range(1, L + 1)": 0.175,
        "the levels run from 0 to 1, expected k / (L + 1), without both ends": 0.1,
    },
    hint="the levels are k / (L + 1), here 0.25, 0.5 and 0.75, where the coverage is 0.2, 0.2 and 1",
)
### BEGIN HIDDEN TESTS
target = torch.randn(3000, 2, generator=torch.Generator().manual_seed(1))
zeros, ones = torch.zeros(3000, 2), torch.ones(3000, 2)
check_between("the error of a calibrated model", expected_calibration_error(zeros, ones, target, 19), 0, 0.02)
check_close("the error of infinite doubt", expected_calibration_error(zeros, 1e6 * ones, target, 19), 0.5)
check_close(
    "the error of no doubt at all", expected_calibration_error(zeros, 1e-6 * ones, target, 9), 0.5, atol=0.001
)
check_close("the error with one level", expected_calibration_error(zeros, 1e6 * ones, target, 1), 0.5)
### END HIDDEN TESTS
print("Right: the calibration error.")

# %% kind="test" of="calibration" points=2
x = torch.tensor([0.3, 2.0, -1.0, 0.9, 5.0])
correlation = rank_correlation(x, x.exp())
check_shape("rank_correlation", correlation, (), "expected one number")
check_close(
    "the rank correlation of x and exp(x)",
    correlation,
    1.0,
    mistakes={
        "it is the correlation of the numbers, expected of their ranks": torch.corrcoef(
            torch.stack([x, x.exp()])
        )[0, 1],
        "it is the covariance of the ranks: divide by both standard deviations": 2.5,
        "the covariance divides by N, the deviations by N - 1: take the same in both (correction=0)": 0.8,
    },
    hint="exp keeps the order",
)
check_close(
    "the rank correlation of x and -x",
    rank_correlation(x, -x),
    -1.0,
    mistakes={
        "the sign is lost (or it is the correlation of x with itself)": 1.0,
        "argsort says which number comes at a place; the rank of a number is its place among the sorted": 0.5,
        "the mean rank is not subtracted before the product": 35 / 55,
    },
)
check_close(
    "the rank correlation of [1, 2, 2, 6, 10] and [10, 20, 30, 50, 40]",
    rank_correlation(torch.tensor([1.0, 2.0, 2.0, 6.0, 10.0]), torch.tensor([10.0, 20.0, 30.0, 50.0, 40.0])),
    0.872082,
    mistakes={
        "equal numbers have different ranks, expected their mean rank": 0.9,
        "equal numbers have different ranks, expected their mean rank (here in reverse)": 0.8,
        "equal numbers have the lowest of their ranks, expected the mean": 0.866025,
        "equal numbers have the highest of their ranks, expected the mean": 0.852803,
        "equal numbers count as one, so the ranks after them are too small": 0.832050,
        "Spearman's formula with the squared differences holds without ties only: correlate the ranks": 0.875,
        "it is the correlation of the numbers, expected of their ranks": 0.755263,
    },
    hint="the ranks are 1, 2.5, 2.5, 4, 5 and 1, 2, 3, 5, 4",
)
### BEGIN HIDDEN TESTS
order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
other = torch.randperm(60, generator=torch.Generator().manual_seed(1))
without_ties = 1 - 6 * ((order - other) ** 2).sum().item() / (60 * (60**2 - 1))  # Spearman's formula
check_close(
    "the rank correlation of two shuffles of 60 numbers",
    rank_correlation(order.float(), other.float()),
    without_ties,
)
x = torch.tensor([3.0, 1.0, 3.0, 3.0, 2.0, 1.0])  # ranks 5, 1.5, 5, 5, 3, 1.5
y = torch.tensor([1.0, 2.0, 3.0, 4.0, 4.0, 4.0])  # ranks 1, 2, 3, 5, 5, 5
ranks = torch.tensor([[5, 1.5, 5, 5, 3, 1.5], [1, 2, 3, 5, 5, 5]])
check_close("the rank correlation with ties in both", rank_correlation(x, y), torch.corrcoef(ranks)[0, 1])
### END HIDDEN TESTS
print("Right: the correlation of the ranks.")

# %% [markdown]
# The verdict on your ensemble. On the left its coverage of new points: from where it was trained, and from
# the gap; of the whole ensemble, and of a member alone (the mean of the seven). The diagonal is perfect;
# below it, a model is too sure of itself. (The mixture of the seven Gaussians is replaced by one Gaussian with its mean
# and its total variance, as Lakshminarayanan et al. do.) On the right, 200 places between -4 and 4: its doubt about the mean,
# against how wrong the mean really is.

# %%
fresh_x, fresh_y = draw_points(2000, seed=5)
gap_x = 2 * torch.rand(2000, generator=torch.Generator().manual_seed(6)) - 1
gap_y = true_mean(gap_x) + true_noise(gap_x) * torch.randn(2000, generator=torch.Generator().manual_seed(7))
levels = torch.linspace(0.02, 0.98, 49)
axes = new_axes(columns=2, width=5.2, height=4.2)
axes[0].plot([0, 1], [0, 1], "--", color="black", linewidth=1.2)
for name, x, y, color in (("data", fresh_x, fresh_y, COLORS[0]), ("gap", gap_x, gap_y, COLORS[1])):
    answer = ensemble.predict(x.unsqueeze(-1), torch.zeros(len(x), 1))
    mean = answer.obs.mean(dim=0).squeeze(-1)
    std = sum(split_variance(answer.obs, answer.obs_var)).sqrt().squeeze(-1)
    alone = list(zip(answer.obs.squeeze(-1), answer.obs_var.sqrt().squeeze(-1), strict=True))
    for style, who, claims in (("-", "ensemble", [(mean, std)]), (":", "members", alone)):
        curve = torch.stack([interval_coverage(m, s, y, levels) for m, s in claims]).mean(dim=0)
        error = sum(expected_calibration_error(m, s, y) for m, s in claims) / len(claims)
        axes[0].plot(levels, curve, style, color=color, label=f"{name}, {who}: ECE {error:.2f}")
axes[0].set(
    xlabel="claimed probability", ylabel="coverage", title="Who is too sure?", xlim=(0, 1), ylim=(0, 1)
)
axes[0].legend(loc="upper left")
wrong = (center - true_mean(grid)).abs()
place = (grid.abs() > 1) & (grid.abs() < 3)
for name, mask, color in (("data", place, COLORS[0]), ("gap and outside", ~place, COLORS[1])):
    axes[1].plot(epistemic.sqrt()[mask], wrong[mask], "o", color=color, markersize=5, alpha=0.6, label=name)
axes[1].set(
    xscale="log",
    xlim=(0.01, 1),
    yscale="log",
    ylim=(1e-3, 10),
    xlabel="epistemic standard deviation",
    ylabel="error of the mean",
)
axes[1].set_title(f"Rank correlation {rank_correlation(epistemic, wrong):.2f}")
axes[1].legend(loc="upper left")
plt.show()

# %% [markdown]
# In the gap everybody is too sure, since nobody reaches the bump; the ensemble's wide intervals (at the right
# end of the curve) catch far more of the truth than a member's. Where there were data, the intervals are a bit
# too wide: the noise was overestimated, in the quiet half by a factor of two. So, as a statement of
# probabilities, handle with care.
#
# But the picture on the right is what a planner needs, and there the ensemble does well: where it doubts, it
# is wrong; where it doesn't, it is right, over nearly two powers of ten. From next week on, plans will be
# judged by members that disagree, and the gate of Dyna-PPO in week 6 is made of this very number.

# %% [markdown] exercise="prioritized-replay" number="4.7" title="Prioritized replay" points=6 difficulty=4 minutes=45 bonus=true
# A model that knows where it is wrong could also *train* there. Prioritized replay (Schaul et al., 2016)
# draws transition $i$ with probability $P(i) = p_i / \sum_j p_j$, where the priority $p_i = (|\text{error}_i| +
# \varepsilon)^\alpha$ grows with the last error made on it.
#
# Drawing in proportion to a million changing numbers needs a **sum tree**: the priorities are the leaves of a
# binary tree, each inner node holds the sum of its two children, and the root the sum of all. Node 1 is the
# root, the children of node $n$ are $2n$ and $2n + 1$, and leaf $i$ is node $2^{\text{depth}} + i$. To *set* a
# priority, mend the sums on the way up. To *find* where a point of the cumulative sum lies, walk down: is it
# beyond the left child's sum, go right, and count from there.
#
# Drawing some rows more often than others bends the average: what is drawn often counts too much. **Importance
# weights** bend it back, fully for $\beta = 1$ (Section 3.4):
#
# $$w_i = \frac{(N\, P(i))^{-\beta}}{\max_j\, (N\, P(j))^{-\beta}}$$
#
# **Predict first.** In *our* noisy world, trained with priorities and without weights: which points would be
# drawn most, in the long run? Would that help?
#
# **Write two methods and a function.**
#
# - `SumTree.set(rows, values)`: the leaves `rows` `[B]` become `values` `[B]`, and all sums above are right
#   again. A batch may hold a row several times, then with the same value each time.
# - `SumTree.find(mass)`: for points `[B]`, the leaves $i$ with
#   $p_0 + \dots + p_{i-1} \le \text{mass} < p_0 + \dots + p_i$. A point that lies at the total or beyond it by
#   a rounding error belongs to the last leaf with a priority above 0: one with priority 0 is never found (as
#   long as there are others).
# - `importance_weights(probabilities, num_stored, beta)`: $w$ as above; the maximum is over the batch `[B]`,
#   $N$ is `num_stored`.
#
# No loop over the batch: the loops run over the `self.depth` levels of the tree. (A loop would be right, too,
# but slow.) The tree's numbers are float64.

# %% kind="solution" of="prioritized-replay" ref="prioritized:SumTree.set,SumTree.find,importance_weights"
# set:
# TODO: write the leaves
# TODO: level by level up to the root: each parent is the sum of its two children
# find:
# TODO: start at the root; at each level, decide for every point whether it goes right
# TODO: whoever goes right, leaves the left child's sum behind
# importance_weights:
# TODO: the power, divided by its largest value

# %% [markdown]
# <details><summary>Hint: why not just add the difference on the way up?</summary>
#
# With a row twice in the batch, the difference would be added twice. Computing each parent afresh from its
# children can't go wrong; and rounding errors don't pile up.
# </details>
# <details><summary>Hint: never a leaf without priority</summary>
#
# Go right only if the point is at or beyond the left sum *and* the right child's sum is above 0.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The points of the noisy half: their errors stay large however well the mean is learned. Nothing can be
# learned from them that is not known already. Priorities by error can't tell noise from ignorance; that was
# exercise 4.5. Whether it helps the model on a real task is measured in `experiments.ipynb`.
# </details>


# %% kind="given"
def tree_after(capacity: int, writes: Iterable[tuple[Any, Any]]) -> Tensor:
    """All nodes of a tree after such writes of (rows, values), without the unused entry 0."""
    tree = SumTree(capacity)
    for rows, values in writes:
        rows, values = torch.as_tensor(rows), torch.as_tensor(values, dtype=torch.float64)
        before = rows.clone(), values.clone()
        tree.set(rows, values)
        check_unchanged("rows", rows, before[0], "make a new tensor (rows + 2**depth, not rows += ...)")
        check_unchanged("values", values, before[1])
    return tree.nodes[1:].clone()


def found_in(values: Any, mass: Any) -> Tensor:
    """The leaves that are found for points of the cumulative sum, in a tree with sums of its own."""
    leaves = torch.as_tensor(values, dtype=torch.float64)
    tree = SumTree(len(leaves))
    nodes = [torch.zeros(2**tree.depth, dtype=torch.float64)]
    nodes[0][: len(leaves)] = leaves
    while len(nodes[0]) > 1:
        nodes.insert(0, nodes[0].view(-1, 2).sum(dim=1))
    tree.nodes = torch.cat([torch.zeros(1, dtype=torch.float64), *nodes])
    mass = torch.as_tensor(mass, dtype=torch.float64)
    before = mass.clone()
    found = as_tensor("find", tree.find(mass))
    check_unchanged("mass", mass, before, "make a new tensor (mass - left, not mass -= left)")
    check_true(
        not found.is_floating_point(),
        "find returns decimal numbers, expected whole ones: rows are chosen by them",
    )
    return found


# %% kind="test" of="prioritized-replay" points=2
nodes = tree_after(4, [([0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0])])
check_close(
    "the nodes 1 ... 7 of a tree with the leaves 1, 2, 3, 4",
    nodes,
    [10.0, 3.0, 7.0, 1.0, 2.0, 3.0, 4.0],
    mistakes={
        "the sums above the leaves were not mended": [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0],
        "only the parents of the leaves were mended, or parents before their children: go up from the leaves to the "
        "root": [0.0, 3.0, 7.0, 1.0, 2.0, 3.0, 4.0],
        "the leaves are not at the end: leaf i is node 2**depth + i": [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0],
        "nothing was written (self.nodes[...].copy_ writes to a copy)": [0.0] * 7,
    },
    hint="leaf i is node 2**depth + i, and each node above is the sum of its children 2 n and 2 n + 1",
)
nodes = tree_after(4, [([0, 1, 2, 3], [1.0, 2.0, 3.0, 4.0]), ([2], [0.5])])
check_close(
    "the nodes after leaf 2 became 0.5",
    nodes,
    [7.5, 3.0, 4.5, 1.0, 2.0, 0.5, 4.0],
    mistakes={
        "the new value is added to the leaf, expected in place of the old one": [10.5, 3, 7.5, 1, 2, 3.5, 4],
        "the leaves that were not in the batch are gone": [0.5, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0],
    },
    hint="make each parent afresh from its two children, don't add to what it was; the parent of n is n // 2",
)
### BEGIN HIDDEN TESTS
nodes = tree_after(4, [([0, 3], [1.0, 4.0]), ([3, 1, 3, 3], [2.0, 5.0, 2.0, 2.0])])
check_close(
    "the nodes after leaf 3 was in a batch three times",
    nodes,
    [8.0, 6.0, 2.0, 1.0, 5.0, 0.0, 2.0],
    hint="a batch may hold a row several times",
)
check_close("the nodes of a tree of capacity 1", tree_after(1, [([0], [3.0]), ([0], [2.0])]), [2.0])
draw = torch.Generator().manual_seed(0)
writes = [(torch.randperm(11, generator=draw)[:6], torch.rand(6, generator=draw).double()) for _ in range(8)]
leaves = torch.zeros(16, dtype=torch.float64)
for rows, values in writes:
    leaves[rows] = values
nodes = tree_after(11, writes)
check_close("the leaves after 8 writes", nodes[15:], leaves)
check_close("the root after 8 writes", nodes[0], leaves.sum())
check_close("the level below the root", nodes[1:3], leaves.view(2, 8).sum(dim=1))
### END HIDDEN TESTS
print("Right: every node is the sum of its children.")

# %% kind="test" of="prioritized-replay" points=2
found = found_in([1.0, 2.0, 3.0, 4.0], [0.5, 1.5, 2.9, 3.5, 5.9, 6.1, 9.9])
check_shape("find", found, (7,), "expected a leaf for each point")
check_close(
    "the leaves found for 0.5, 1.5, 2.9, 3.5, 5.9, 6.1, 9.9 in 1, 2, 3, 4",
    found,
    [0, 1, 1, 2, 2, 3, 3],
    mistakes={
        "these are nodes, expected leaves: subtract 2**depth": [4, 5, 5, 6, 6, 7, 7],
        "left and right are mixed up": [3, 2, 2, 1, 1, 0, 0],
        "whoever goes right does not leave the left child's sum behind": [0, 1, 1, 3, 3, 3, 3],
    },
    hint="from node 1, self.depth times: right if the point is at or beyond the left child's sum, less that "
    "sum; otherwise left, as it is",
)
check_close(
    "the leaves found for 0, 1 and 3",
    found_in([1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 3.0]),
    [0, 1, 2],
    mistakes={
        "a point at the end of a leaf finds that leaf, but it belongs to the next one (>=, not >)": [0, 0, 1]
    },
)
### BEGIN HIDDEN TESTS
values = [0.1, 0.2, 0.0, 0.3, 0.0, 0.0]
found = found_in(values, [0.0, 0.1001, 0.3001, 0.6, 0.6 + 1e-12])
check_close(
    "the leaves found in 0.1, 0.2, 0, 0.3, 0, 0",
    found,
    [0, 1, 3, 3, 3],
    hint="never one with priority 0: a point at or beyond the total belongs to the last leaf above 0",
)
draw = torch.Generator().manual_seed(1)
leaves = torch.rand(37, generator=draw).double() * (torch.rand(37, generator=draw) > 0.3)
mass = torch.rand(500, generator=draw).double() * leaves.sum()
expected = torch.searchsorted(leaves.cumsum(0), mass, right=True)
check_close("500 leaves found among 37", found_in(leaves, mass), expected)
check_close("the leaf found in a tree of capacity 1", found_in([2.0], [1.0]), [0])
### END HIDDEN TESTS
print("Right: every point finds its leaf.")

# %% kind="test" of="prioritized-replay" points=2
probabilities = torch.tensor([0.4, 0.1, 0.025])
given = probabilities.clone()
weights = importance_weights(given, 10, 0.5)
check_unchanged("probabilities", given, probabilities)
powers = (10 * probabilities) ** -0.5
check_close(
    "the weights of 0.4, 0.1, 0.025 with N = 10 and beta = 0.5",
    weights,
    powers / powers.max(),
    mistakes={
        "they are not divided by the largest": powers,
        "they are divided by their sum, expected by the largest": powers / powers.sum(),
        "they are divided by their mean, expected by the largest": powers / powers.mean(),
        "what is drawn often counts more, expected less: the exponent is -beta": probabilities**0.5
        / probabilities.max() ** 0.5,
        "beta has no effect": probabilities.min() / probabilities,
        "they are divided by the smallest, expected by the largest": powers / powers.min(),
    },
    hint="the power -beta of N P(i), divided by the largest of these powers",
)
### BEGIN HIDDEN TESTS
check_close("the weights with beta = 0", importance_weights(probabilities, 10, 0.0), [1.0, 1.0, 1.0])
check_close("the weights with beta = 1", importance_weights(probabilities, 500, 1.0), [0.0625, 0.25, 1.0])
check_close("the weight of a single row", importance_weights(torch.tensor([0.3]), 7, 0.4), [1.0])
### END HIDDEN TESTS
print("Right: what is drawn often counts less.")

# %% [markdown]
# The rest of prioritized replay, made of what you wrote; then a look at a tree. The point 9.2 on its way
# down: 9.2 is beyond 7, so it goes right, and 2.2 is left; that is below 5, so it goes left; and so on.

# %% kind="given" ref="prioritized:stratified_points,priorities,PrioritizedSample,PrioritizedReplayBuffer"

# %%
tree = SumTree(8)
tree.set(torch.arange(8), torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0, 4.0, 0.0, 2.0]))
goal = int(tree.find(torch.tensor([9.2])))
path = {(goal + 8) >> level for level in range(4)}
axes = new_axes(columns=2, width=5.6, height=3.4)
ax = axes[0]
for node in range(1, 16):
    level = node.bit_length() - 1
    x, y = (node - 2**level + 0.5) * 8 / 2**level, -level
    if node > 1:
        parent = ((node // 2 - 2 ** (level - 1) + 0.5) * 8 / 2 ** (level - 1), -level + 1)
        ax.plot(*zip((x, y), parent, strict=True), color=COLORS[1] if node in path else "#c8c8c8", zorder=1)
    ax.plot(x, y, "o", markersize=21, color=COLORS[1] if node in path else "#cfe3f1", zorder=2)
    ax.text(x, y, f"{tree.nodes[node]:g}", ha="center", va="center", fontsize=10, zorder=3)
ax.set(xlim=(0, 8), ylim=(-3.4, 0.4), yticks=[], xlabel="leaf", title="The point 9.2 finds its leaf")
ax.set_xticks([leaf + 0.5 for leaf in range(8)], range(8))
ax.grid(visible=False)
fitted = ensemble.predict(points_x.unsqueeze(-1), torch.zeros(300, 1)).obs.mean(dim=0).squeeze(-1)
buffer = PrioritizedReplayBuffer(300, 1, 1, alpha=0.6)
buffer.add(*as_transitions(points_x, points_y))
buffer.update_priorities(torch.arange(300), fitted - points_y)
drawn = buffer.sample_prioritized(20_000, 0.4, torch.Generator().manual_seed(0))
share = torch.bincount(drawn.rows, minlength=300) / 20_000 * 300
axes[1].scatter(points_x, points_y, s=14 * share, color=COLORS[1], alpha=0.6, linewidth=0)
draw_world(axes[1], f"{(drawn.batch.obs > 0).float().mean():.0%} of the draws come from the noise")
plt.show()

# %% [markdown]
# The larger a point on the right, the more often it was drawn. As predicted: the noisy half has half of the
# points, and gets about three quarters of the draws. Priorities by error run after the noise; priorities by
# *epistemic* variance would not.
#
# ## What to take along
#
# - A network that predicts a Gaussian learns the noise from its own errors, without a label for it. Its
#   log-variance needs bounds, and soft ones, so that there is a way back.
# - An ensemble costs little as one batch. Its loss is *summed* over members; bootstrap and initial weights
#   make them differ, hold-out data say whom to ask.
# - Total variance = mean of the variances (noise: more data won't help) + variance of the means (ignorance:
#   more data will).
# - Uncertainty is a claim that can be checked: coverage for its size, rank correlation for its order. Members
#   of one kind share their blind spots.
# - Errors alone can't tell noise from ignorance. Whoever follows them runs after the dice.
#
# ## Test yourself
#
# <details><summary>1. The squared error is a special case of the Gaussian's loss. Which one?</summary>
#
# A fixed variance of 1 for all inputs: then the loss is half the squared error plus a constant. Learning the
# variance weighs each point by how noisy its place is.
# </details>
# <details><summary>2. Why is the log-variance not simply clamped?</summary>
#
# Outside the bounds a clamp is flat, its gradient is zero, and a network that once got there is never told to
# come back. softplus always rises, if only a little.
# </details>
# <details><summary>3. All members get the same initial weights and the same data in the same order. What is the
# epistemic variance in the gap?</summary>
#
# Zero, everywhere: they are the same network seven times. The ensemble is no wiser than one member, and
# claims to know everything. Diversity has to come from somewhere: initial weights, bootstrap, order.
# </details>
# <details><summary>4. A robot's model reports a large aleatoric and a small epistemic variance in one corner of
# the room. Should it go there to collect data?</summary>
#
# No: the members agree that it is noisy there, a slippery floor perhaps. More data would not change their
# minds. It may want to avoid the corner, which is another matter.
# </details>
# <details><summary>5. A model's coverage at 90 % is 90 % on hold-out data. May a planner trust it?</summary>
#
# Only where the hold-out data came from. A planner looks for good plans, and finds itself in places where
# nobody has been. Calibration is a property of model *and* data, like the k-step error of week 1.
# </details>
#
# ## Where next
#
# Next week PETS puts this ensemble into the planner of week 3: each imagined trajectory is carried by a member
# of its own, and a plan is judged by the average of their futures, so that one member's wishful thinking counts for a
# share only. If you want to read on: Osband et al., 2018,
# [*Randomized prior functions*](https://arxiv.org/abs/1806.03335), on members that share their blind spots;
# Yu et al., 2020, [*MOPO*](https://arxiv.org/abs/2005.13239), which pays for doubt with reward; Deisenroth and
# Rasmussen, 2011, *PILCO*, which did it all with Gaussian processes.
