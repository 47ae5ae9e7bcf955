# %% [markdown]
# # Week 7 · MBPO
#
# The planners of weeks 2 to 5 think anew at every step. The agent of week 6 had a policy, and a model to
# practise in, but PPO forgets: what it has seen is thrown away after an update. This week's agent forgets
# nothing. Its learner is **SAC**, which learns from a replay buffer, and a buffer does not ask where a
# transition comes from. So let a model fill it, in very short rollouts that start where the agent has really
# been. That is **MBPO**, model-based policy optimization.
#
# The short rollouts are the point. A model's errors compound (week 1), and a policy finds them (week 3).
# After five steps from a *real* state not much has gone wrong yet.
#
# **After this notebook you can**
#
# - write SAC: the log-probability of a squashed Gaussian, and the three losses;
# - branch rollouts of a policy off real states, with random elites, and end them where an episode ends;
# - say how long they may be, how long their transitions are kept, and how many real ones go into a batch;
# - make places unattractive in which the members of the ensemble disagree;
# - compute what the theory says about the best length of a rollout, and measure what it needs to know;
# - as a bonus, learn when an episode ends, and predict many steps at once.
#
# **Where it comes from**
#
# - Haarnoja et al., 2018, [*Soft actor-critic: off-policy maximum entropy deep reinforcement learning with a
#   stochastic actor*](https://arxiv.org/abs/1801.01290), and 2019, [*Soft actor-critic algorithms and
#   applications*](https://arxiv.org/abs/1812.05905), with the temperature.
# - Janner et al., 2019, [*When to trust your model: model-based policy
#   optimization*](https://arxiv.org/abs/1906.08253): MBPO.
# - For the bonus: Asadi et al., 2019, [*Combating the compounding-error problem with a multi-step
#   model*](https://arxiv.org/abs/1905.13320).
#
# **How it goes.** Eight exercises with 30 points, together two hours and a half, and two for a bonus; the
# notebook itself runs in half a minute. Fill in the cells that raise `NotImplementedError`. The checks below
# each of them tell at once whether your code is right, and what is likely wrong with it. Hidden checks are
# added when you hand in; they test nothing that the text does not say. One rule holds for all exercises: a
# function leaves the tensors that it is given as they are.

# %% kind="setup"
from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from tqdm.auto import tqdm

from mbrl_course.buffers import Batch, ReplayBuffer, concatenate
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
from mbrl_course.dynamics import DynamicsConfig, DynamicsModel, Normalizer, k_step_errors, training_step
from mbrl_course.ensembles import EnsembleConfig, GaussianEnsemble
from mbrl_course.envs import get_task
from mbrl_course.envs.resumable import ResumableEnv
from mbrl_course.envs.task import Task, action_bounds, observed
from mbrl_course.evaluation import evaluate
from mbrl_course.experiments.figures import shipped, shipped_note
from mbrl_course.films import episode_film
from mbrl_course.imagination import epistemic_variance
from mbrl_course.networks import SCHEDULES, EnsembleMLP, check_widths, relu_mlp, xavier_weights
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style
from mbrl_course.ppo import Counters
from mbrl_course.prioritized import PrioritizedReplayBuffer
from mbrl_course.seeding import independent_seeds
from mbrl_course.validation import need_at_least, need_in_unit, need_positive, need_whole

use_style()

# %% [markdown]
# ## The learner
#
# SAC's policy answers a state with a Gaussian, mean $\mu$ and standard deviation $\sigma$ for each dimension
# of the action. But a motor has limits. So the sample $u$ of the Gaussian is squashed, $a = \tanh(u)$, and
# the action lies in $(-1, 1)$, whatever the network says. (The agent stretches it to the task's units.)

# %% [markdown] exercise="squash" number="7.1" title="The squashed Gaussian" points=4 difficulty=2 minutes=20
# SAC wants to know how likely the action was. Where $\tanh$ is flat, many different $u$ end up in nearly the
# same place, so actions are crowded there and their density is higher. The rule for a change of variables
# divides by the slope, $\tanh'(u) = 1 - \tanh^2(u)$; with logarithms, and summed over the dimensions $i$ of
# the action (Haarnoja et al., 2018, Eq. 21):
#
# $$\log \pi(a \mid s) = \sum_i \Big[ \log \mathcal{N}(u_i;\ \mu_i, \sigma_i)
#   - \log\big(1 - \tanh^2(u_i)\big) \Big]$$
#
# There is a trap. In float32, $\tanh(10)$ *is* 1, and the logarithm of 0 is $-\infty$. The same quantity,
# written in another way, never does that:
#
# $$\log\big(1 - \tanh^2(u)\big) = 2\, \big(\log 2 - u - \operatorname{softplus}(-2u)\big), \qquad
#   \operatorname{softplus}(x) = \log(1 + e^x)$$
#
# **Predict first.** A policy has $\mu = 0$ and $\sigma = 2$. Where are most of its actions: in the middle, or
# at the ends?
#
# **Write `squash`.**
#
# - `pre_tanh` is $u$, `[..., A]`, with any number of leading axes; `mean` and `log_std` ($\log \sigma$) have
#   its shape.
# - Return the actions `[..., A]` and their log-probabilities `[...]`, summed over the last axis.
# - The result has to be right for $|u|$ up to 40 in float32: no infinity, no NaN, and no small constant that
#   is added under a logarithm.

# %% kind="solution" of="squash" ref="sac:squash"
# TODO: the logarithm of the Gaussian's density at u, for each dimension
# TODO: the logarithm of the slope, in the form that does not underflow
# TODO: actions, and the difference summed over the last axis

# %% [markdown]
# <details><summary>Hint: the Gaussian's log-density</summary>
#
# With $z = (u - \mu) / \sigma$ it is $-\frac{1}{2} z^2 - \log \sigma - \frac{1}{2} \log 2\pi$. You wrote it in
# week 4, with the opposite sign.
# </details>
# <details><summary>Hint: softplus</summary>
#
# `softplus` from `torch.nn.functional` is imported. `torch.log(1 + torch.exp(x))` overflows for large x.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# At the ends. Near 0 the log-density is about $-u^2 / 2\sigma^2 + u^2$ plus a constant: for $\sigma^2 > 1/2$
# the middle is a valley. An undecided SAC policy switches between full left and full right.
# </details>

# %% kind="test" of="squash" points=2
generator = torch.Generator().manual_seed(0)
u, mean, log_std = torch.randn(3, 6, 2, generator=generator)  # [N, A] each
log_std = 0.5 * log_std
given = u.clone(), mean.clone(), log_std.clone()
result = squash(*given)
check_true(
    result is not None and len(result) == 2, "squash returns two things: actions and log-probabilities"
)
for name, value, before in zip(("pre_tanh", "mean", "log_std"), given, (u, mean, log_std), strict=True):
    check_unchanged(name, value, before, "use tanh and exp, which make new tensors, not tanh_ or exp_")
check_shape("the actions", result[0], (6, 2), {(6,): "actions come first, then their log-probabilities"})
action = check_close("the actions", result[0], torch.tanh(u), mistakes={"they are not squashed": u})
check_shape(
    "the log-probabilities",
    result[1],
    (6,),
    {
        (6, 2): "sum over the dimensions of the action",
        (): "one each",
        (2,): "sum over the last axis, not over N",
    },
)
normal = torch.distributions.Normal(mean, log_std.exp())
gauss, slope = normal.log_prob(u), torch.log(1 - torch.tanh(u) ** 2)
z = (u - mean) / log_std.exp()
check_close(
    "the log-probabilities",
    result[1],
    (gauss - slope).sum(dim=-1),
    mistakes={
        "the slope of tanh is missing": gauss.sum(dim=-1),
        "the slope is added: where tanh is flat the density is higher": (gauss + slope).sum(dim=-1),
        "this is the Gaussian's density at a, expected at u": (normal.log_prob(torch.tanh(u)) - slope).sum(
            -1
        ),
        "log_std is used as the standard deviation itself": (
            torch.distributions.Normal(mean, log_std.abs()).log_prob(u) - slope
        ).sum(dim=-1),
        "the Gaussian lacks its - log_std": (gauss + log_std - slope).sum(dim=-1),
        "the Gaussian has + log_std, expected - log_std": (gauss + 2 * log_std - slope).sum(dim=-1),
        "z is divided by the variance, expected by sigma": (
            gauss + (z**2 - (z / log_std.exp()) ** 2) / 2 - slope
        ).sum(dim=-1),
        "the Gaussian lacks the factor 1/2 before z squared": (gauss - z**2 / 2 - slope).sum(dim=-1),
        "the slope lacks the factor 2 of its form with softplus": (gauss - slope / 2).sum(dim=-1),
        "the slope has softplus(2u), expected softplus(-2u)": (gauss - slope + 4 * u).sum(dim=-1),
        "the Gaussian lacks its - log(2 pi) / 2": (gauss - slope).sum(dim=-1) + math.log(2 * math.pi),
        "it is the mean over the dimensions, expected the sum": (gauss - slope).mean(dim=-1),
    },
    rtol=1e-3,
    atol=1e-4,
)
### BEGIN HIDDEN TESTS
many = torch.randn(3, 4, 5, 1, generator=generator)
actions, log_probs = squash(*many)
check_shape("actions with two leading axes", actions, (4, 5, 1))
check_shape("log-probabilities with two leading axes", log_probs, (4, 5))
_, single = squash(torch.zeros(3), torch.zeros(3), torch.zeros(3))
check_close("the log-probability of u = 0 in 3 dimensions", single, -1.5 * math.log(2 * math.pi))
grid = torch.linspace(-9, 9, 60_001).double().unsqueeze(-1)
for mu, s in ((0.0, 0.0), (1.0, -0.7)):
    a, log_prob = squash(grid, torch.full_like(grid, mu), torch.full_like(grid, s))
    a, log_prob = as_tensor("a", a).squeeze(-1), as_tensor("log_prob", log_prob)
    check_close("the integral of the density", torch.trapezoid(log_prob.exp(), a), 1.0, rtol=5e-3)
### END HIDDEN TESTS
print("Right: the density of a squashed Gaussian.")

# %% kind="test" of="squash" points=2
u = torch.tensor([[12.0], [-12.0], [20.0], [-40.0]])
_, log_prob = squash(u, u, torch.zeros(4, 1))
log_prob = check_shape("the log-probabilities of u = 12, -12, 20, -40", log_prob, (4,)).double()
check_true(
    bool(torch.isfinite(log_prob).all()),
    "there are infinite log-probabilities: 1 - tanh(u)**2 underflows, use the form with softplus",
)
exact = 2 * (u.abs().squeeze(-1) - math.log(2)) - 0.5 * math.log(2 * math.pi)
tiny = -math.log(1e-6) - 0.5 * math.log(2 * math.pi)
check_close(
    "the log-probabilities of u = 12, -12, 20, -40",
    log_prob,
    exact,
    mistakes={"a small constant under the logarithm cuts it off": torch.full((4,), tiny)},
    hint="for large |u| the slope is 4 exp(-2 |u|)",
)
### BEGIN HIDDEN TESTS
u = torch.linspace(-15, 15, 61).unsqueeze(-1)
_, log_prob = squash(u, torch.zeros_like(u), torch.zeros_like(u))
slope = torch.log1p(-(torch.tanh(u.double()) ** 2)).where(u.abs() < 4, 2 * (math.log(2) - u.abs().double()))
exact = torch.distributions.Normal(0.0, 1.0).log_prob(u.double()) - slope
check_close("log-probabilities between u = -15 and 15", log_prob, exact.squeeze(-1), rtol=1e-3, atol=2e-3)
### END HIDDEN TESTS
print("Right: it does not underflow.")

# %%
axes = new_axes(columns=2)
u = torch.linspace(-8, 8, 4001).unsqueeze(-1)
noise = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0))
for sigma, color in zip((0.3, 0.7, 2.0), COLORS, strict=False):
    log_std = torch.tensor(math.log(sigma))
    sampled, _ = squash(sigma * noise, torch.zeros_like(noise), log_std.expand_as(noise))
    axes[0].hist(sampled[:, 0], bins=60, range=(-1, 1), density=True, alpha=0.35, color=color)
    a, log_prob = squash(u, torch.zeros_like(u), log_std.expand_as(u))
    axes[0].plot(a[:, 0], log_prob.exp(), color=color, label=rf"$\sigma$ = {sigma}")
axes[0].set(
    xlim=(-1, 1), ylim=(0, 2.2), xlabel="action", ylabel="density", title="Squashed Gaussians, mean 0"
)
axes[0].legend(loc="upper center")
u = torch.linspace(0, 14, 400)
stable = 2 * (math.log(2) - u - softplus(-2 * u))
axes[1].plot(
    u, torch.log(1 - torch.tanh(u) ** 2), color=COLORS[3], linewidth=5, alpha=0.4, label="as it stands"
)
axes[1].plot(u, torch.log(1 - torch.tanh(u) ** 2 + 1e-6), "--", color=COLORS[2], label="with 1e-6 inside")
axes[1].plot(u, stable, color=COLORS[0], label="with softplus")
axes[1].set(xlabel="$u$", ylabel=r"$\log(1 - \tanh^2 u)$", title="The slope's logarithm in float32")
axes[1].legend(loc="lower left")
plt.show()

# %% [markdown]
# Histograms are samples, lines are your density. On the right, the plain formula ends where float32 does, at
# about $u = 9$. Many programs add a small constant; then the policy no longer learns how far out it is.

# %% [markdown] exercise="sac-losses" number="7.2" title="SAC's three losses" points=8 difficulty=3 minutes=35
# SAC maximises reward *and* entropy: each step is worth $r + \alpha\, \mathcal{H}(\pi(\cdot \mid s))$. The
# temperature $\alpha$ says how much reward a nat of randomness is worth. So the policy stays as random as it
# can afford, explores, and does not fall for the first good action. Since $\mathcal{H} = E[-\log \pi]$, the
# entropy is estimated from one sampled action.
#
# **Critics.** Two networks $Q_1, Q_2$ learn the value of an action, from a batch of transitions
# $(s, a, r, s', d)$ of any age. Their target uses a *fresh* action $a' \sim \pi(\cdot \mid s')$, and slowly
# following copies $\bar{Q}_1, \bar{Q}_2$ of the critics, of which the **smaller** value is believed:
#
# $$y = r + \gamma\, (1 - d)\, \Big( \min_i \bar{Q}_i(s', a') - \alpha \log \pi(a' \mid s') \Big), \qquad
#   L_Q = \sum_{i=1}^{2} \frac{1}{B} \sum_{b} \big( Q_i(s_b, a_b) - y_b \big)^2$$
#
# $d$ is 1 where the task has *ended* there: nothing follows, neither reward nor entropy.
#
# **Actor.** Fresh actions $a \sim \pi(\cdot \mid s)$ in the batch's states shall have a high value and a high
# entropy: $L_\pi = \frac{1}{B} \sum_b \big[ \alpha \log \pi(a_b \mid s_b) - \min_i Q_i(s_b, a_b) \big]$.
#
# **Temperature.** Nobody knows a good $\alpha$ in advance, but one can say how random the policy shall be: a
# target entropy $\bar{\mathcal{H}}$, as a rule minus the number of dimensions of the action. The loss
# (Haarnoja et al., 2019, Eq. 18, for $\log \alpha$, so that $\alpha$ stays positive)
#
# $$L_\alpha = -\frac{1}{B} \sum_b \log \alpha\, \big( \log \pi(a_b \mid s_b) + \bar{\mathcal{H}} \big)$$
#
# raises $\alpha$ where the policy is too sure, and lowers it where it is too random. It shall not teach the
# policy anything, so no gradient flows into $\log \pi$ here.
#
# **Predict first.** Both critics are right on average, each off by noise with the standard deviation 1, and
# independent of each other. By how much is the smaller of the two off, on average? And why would one want an
# estimate that is wrong on purpose?
#
# **Write the four functions.** Shapes are in the docstrings. `critic_loss` has one more argument for week 4's
# prioritized replay: with `weights` $w_b$, the squared error of row $b$ counts $w_b$ times, and the mean still
# divides by $B$. The losses are scalar tensors that can be differentiated: `critic_loss` with respect to `q`,
# `actor_loss` to `q` and `log_prob`, `temperature_loss` to `log_temperature` alone.

# %% kind="solution" of="sac-losses" ref="sac:critic_target,critic_loss,actor_loss,temperature_loss"
# critic_target:
# TODO: the soft value of the next state, from the smaller critic and the entropy's share
# TODO: reward plus what follows, if anything follows
# critic_loss:
# TODO: squared errors [2, B], weighted if there are weights; mean over the batch, sum over the critics
# actor_loss:
# TODO: alpha log pi less the smaller critic, mean over the batch
# temperature_loss:
# TODO: L_alpha, with a log_prob that passes no gradient on

# %% [markdown]
# <details><summary>Hint: bool arithmetic</summary>
#
# `terminated` is a bool tensor. `~terminated` is its opposite, and may be multiplied with a float tensor; `1 -
# terminated` is an error in PyTorch.
# </details>
# <details><summary>Hint: the smaller critic</summary>
#
# `q.amin(dim=0)` is the smaller value in each column, `[B]`. `q.min(dim=0)` is a pair, values and indices;
# `q.min()` is one number for the whole batch.
# </details>
# <details><summary>Hint: no gradient</summary>
#
# `log_prob.detach()` is the same numbers, without the way back.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The mean of the smaller of two standard normal numbers is $-1/\sqrt{\pi} \approx -0.56$: too low. But the
# actor looks for actions with a *high* estimate, and what it finds is too high. One bias against the other
# (Fujimoto et al., 2018). You know the effect from planners: whoever maximises finds errors in his favour.
# </details>


# %% kind="given"
def loss_slopes(log_temperature: float, log_prob: Tensor, target_entropy: float) -> tuple[Tensor, Tensor]:
    """The gradients of your temperature's loss: with respect to log alpha, and to each log-probability."""
    log_alpha = torch.tensor(float(log_temperature), requires_grad=True)
    leaf = torch.as_tensor(log_prob).float().clone().requires_grad_()
    of_log_alpha, of_log_prob = gradients(temperature_loss(log_alpha, leaf, target_entropy), log_alpha, leaf)
    return of_log_alpha, of_log_prob


def critic_and_actor_slopes(q: Tensor, target: Tensor, log_prob: Tensor) -> dict[str, Tensor]:
    """The gradients of your critics' and your actor's loss, the latter with alpha = 0.5."""
    values, logs = (torch.as_tensor(x).float().clone().requires_grad_() for x in (q, log_prob))
    critic = gradients(critic_loss(values, torch.as_tensor(target).float()), values)
    actor = gradients(actor_loss(values, logs, 0.5), values, logs)
    return {"critic": critic[0], "actor, q": actor[0], "actor, log_prob": actor[1]}


# %% kind="test" of="sac-losses" points=3
reward = torch.tensor([1.0, 2.0, 3.0])
ended = torch.tensor([False, True, False])
next_q = torch.tensor([[10.0, 20.0, 5.0], [8.0, 30.0, 6.0]])  # [2, B]
log_prob = torch.tensor([-2.0, 4.0, 3.0])
given = reward.clone(), ended.clone(), next_q.clone(), log_prob.clone()
target = critic_target(*given, 0.5, 0.9)
names = ("reward", "terminated", "next_q", "next_log_prob")
for name, value, before in zip(names, given, (reward, ended, next_q, log_prob), strict=True):
    check_unchanged(name, value, before, "make a new tensor (reward + ..., not reward += ...)")
going = torch.tensor([1.0, 0.0, 1.0])
low = torch.tensor([8.0, 20.0, 5.0])
check_shape(
    "critic_target", target, (3,), {(2, 3): "one target for both critics, with the smaller of their values"}
)
check_close(
    "critic_target",
    target,
    reward + 0.9 * going * (low - 0.5 * log_prob),
    mistakes={
        "the larger critic is believed": reward + 0.9 * going * (next_q.amax(dim=0) - 0.5 * log_prob),
        "the mean of the critics is believed": reward + 0.9 * going * (next_q.mean(dim=0) - 0.5 * log_prob),
        "the first critic is believed, expected the smaller one": reward
        + 0.9 * going * (next_q[0] - 0.5 * log_prob),
        "min() is the smallest value of the whole batch; expected one for each row, over dim 0": reward
        + 0.9 * going * (5.0 - 0.5 * log_prob),
        "the entropy is missing": reward + 0.9 * going * low,
        "gamma does not discount the entropy, which is part of the next state's value": reward
        + going * (0.9 * low - 0.5 * log_prob),
        "the entropy has the wrong sign: it is - log_prob, and lowers the value here": reward
        + 0.9 * going * (low + 0.5 * log_prob),
        "terminated is ignored: nothing follows an end": reward + 0.9 * (low - 0.5 * log_prob),
        "after an end the entropy still counts": reward + 0.9 * (going * low - 0.5 * log_prob),
        "after an end the entropy still counts, and it is not discounted": reward
        + 0.9 * going * low
        - 0.5 * log_prob,
        "terminated is upside down": reward + 0.9 * (1 - going) * (low - 0.5 * log_prob),
        "gamma is missing": reward + going * (low - 0.5 * log_prob),
        "the reward is masked as well, but it has been earned": going
        * (reward + 0.9 * (low - 0.5 * log_prob)),
    },
)
### BEGIN HIDDEN TESTS
alpha = torch.tensor(0.2)
check_close(
    "critic_target with a tensor for a temperature",
    critic_target(reward, ended, next_q, log_prob, alpha, 0.5),
    reward + 0.5 * going * (low - 0.2 * log_prob),
)
check_close("critic_target with gamma 0", critic_target(reward, ended, next_q, log_prob, 0.5, 0.0), reward)
generator = torch.Generator().manual_seed(0)
q, r, p = torch.randn(2, 40, generator=generator), torch.randn(40, generator=generator), torch.zeros(40)
d = torch.rand(40, generator=generator) < 0.3
smaller = torch.minimum(q[0], q[1])
check_close("critic_target of 40", critic_target(r, d, q, p, 1.0, 0.99), r + 0.99 * (~d).float() * smaller)
### END HIDDEN TESTS
print("Right: reward, and what follows.")

# %% kind="test" of="sac-losses" points=3
q = torch.tensor([[1.0, 4.0, 3.0], [3.0, 2.0, 7.0]])  # [2, B]
target = torch.tensor([2.0, 0.0, 3.0])
squared = (q - target) ** 2  # [[1, 16, 0], [1, 4, 16]]
each = {(3,): "it is one number: mean over the batch", (2,): "it is one number: the sum over the critics"}
given = q.clone(), target.clone()
loss = critic_loss(*given)
check_unchanged("q", given[0], q, "make a new tensor (q - target, not q -= target)")
check_unchanged("target", given[1], target)
check_shape("critic_loss", loss, (), each)
check_close(
    "critic_loss",
    loss,
    17 / 3 + 21 / 3,
    mistakes={
        "it is half of that: expected the sum over the two critics, and no factor 1/2": 38 / 6,
        "it is the sum over the batch, expected the mean": 38.0,
        "the mean is over the critics and the sum over the batch: the other way round": 38 / 2,
        "only the smaller critic learns; both shall": (1 + 4 + 0) / 3,
        "only the first critic learns; both shall": 17 / 3,
        "errors are not squared": (q - target).abs().sum() / 3,
        "errors are not squared: too high and too low cancel": (q - target).sum() / 3,
    },
)
weights = torch.tensor([2.0, 0.5, 1.0])
check_close(
    "critic_loss with the weights 2, 0.5 and 1",
    critic_loss(q, target, weights),
    (2 + 8 + 0) / 3 + (2 + 2 + 16) / 3,
    mistakes={
        "weights have no effect": 38 / 3,
        "it is divided by the sum of the weights, expected by B": 30 / 3.5,
        "the weights are squared with the error": (squared * weights**2).sum() / 3,
        "each row has a weight of its own: multiply before the mean": 38 / 3 * 3.5 / 3,
        "the weights multiply the squared error, not q": ((weights * q - target) ** 2).sum() / 3,
    },
)
log_prob = torch.tensor([-1.0, 2.0, 10.0])
given = q.clone(), log_prob.clone()
loss = actor_loss(*given, 0.5)
check_unchanged("q", given[0], q)
check_unchanged("log_prob", given[1], log_prob)
check_shape("actor_loss", loss, (), {(3,): "it is one number: mean over the batch"})
check_close(
    "actor_loss",
    loss,
    (0.5 * log_prob - q.amin(dim=0)).mean(),
    mistakes={
        "the actor would run away from value and entropy: the sign is wrong": (
            q.amin(dim=0) - 0.5 * log_prob
        ).mean(),
        "the larger critic is believed": (0.5 * log_prob - q.amax(dim=0)).mean(),
        "the mean of the critics is believed": (0.5 * log_prob - q.mean(dim=0)).mean(),
        "the first critic is believed, expected the smaller one": (0.5 * log_prob - q[0]).mean(),
        "min() is the smallest value of the whole batch (expected one for each row, over dim 0), or the temperature "
        "multiplies the value, too": (0.5 * log_prob - 1).mean(),
        "the value is added, expected subtracted: the actor climbs it": (
            0.5 * log_prob + q.amin(dim=0)
        ).mean(),
        "the second critic is believed, expected the smaller one": (0.5 * log_prob - q[1]).mean(),
        "the critics are summed, expected the smaller one": (0.5 * log_prob - q.sum(dim=0)).mean(),
        "the minimum is of the critics' means, expected of each row": 0.5 * log_prob.mean()
        - q.mean(dim=1).min(),
        "the temperature is missing": (log_prob - q.amin(dim=0)).mean(),
        "the entropy has the wrong sign": (-0.5 * log_prob - q.amin(dim=0)).mean(),
        "the entropy is missing": -q.amin(dim=0).mean(),
        "it is the sum over the batch, expected the mean": (0.5 * log_prob - q.amin(dim=0)).sum(),
    },
)
slopes = critic_and_actor_slopes(q, target, log_prob)
cut = "no gradient gets there (item, detach and no_grad cut it off)"
check_close(
    "the gradient of critic_loss with respect to q",
    slopes["critic"],
    2 * (q - target) / 3,
    mistakes={cut: torch.zeros(2, 3)},
)
check_close(
    "the gradient of actor_loss with respect to q",
    slopes["actor, q"],
    [[-1 / 3, 0.0, -1 / 3], [0.0, -1 / 3, 0.0]],
    mistakes={cut: torch.zeros(2, 3)},
)
check_close(
    "the gradient of actor_loss with respect to log_prob",
    slopes["actor, log_prob"],
    torch.full((3,), 0.5 / 3),
    mistakes={f"{cut}; without it the policy never learns to be random": torch.zeros(3)},
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(1)
q, y = torch.randn(2, 30, generator=generator), torch.randn(30, generator=generator)
w, p = torch.rand(30, generator=generator), torch.randn(30, generator=generator)
check_close("critic_loss of 30", critic_loss(q, y), ((q[0] - y) ** 2).mean() + ((q[1] - y) ** 2).mean())
weighted = (w * (q[0] - y) ** 2).mean() + (w * (q[1] - y) ** 2).mean()
check_close("critic_loss of 30 with weights", critic_loss(q, y, w), weighted)
alpha = torch.tensor(0.3)
check_close("actor_loss of 30", actor_loss(q, p, alpha), (0.3 * p - torch.minimum(q[0], q[1])).mean())
### END HIDDEN TESTS
print("Right: critics and actor.")

# %% kind="test" of="sac-losses" points=2
log_prob = torch.tensor([3.0, 1.0, -1.0])  # mean 1
loss = temperature_loss(torch.tensor(0.5), log_prob, -3.0)
check_shape("temperature_loss", loss, (), {(3,): "it is one number: mean over the batch"})
check_close(
    "temperature_loss with log alpha = 0.5",
    loss,
    1.0,
    mistakes={
        "the sign is wrong": -1.0,
        "the target entropy is subtracted, expected added": -2.0,
        "the target entropy is missing": -0.5,
        "log_prob has the wrong sign: it is the entropy's negative": 2.0,
        "alpha stands where log alpha should": 2 * math.exp(0.5),
        "it is the sum over the batch, expected the mean": 3.0,
        "the logarithm of log_temperature was taken: it is log alpha already": 2 * math.log(0.5),
    },
)
slope, into_policy = loss_slopes(0.5, log_prob, -3.0)
check_close(
    "the gradient with respect to log alpha",
    slope,
    2.0,
    mistakes={"no gradient gets there: detach log_prob alone": 0.0},
)
check_close(
    "the gradient with respect to log_prob",
    into_policy,
    torch.zeros(3),
    hint="no gradient flows into log_prob: detach it",
)
### BEGIN HIDDEN TESTS
for log_alpha, target_entropy in ((0.0, -1.0), (-3.0, 0.5)):
    expected = -log_alpha * (1.0 + target_entropy)
    check_close(
        "temperature_loss", temperature_loss(torch.tensor(log_alpha), log_prob, target_entropy), expected
    )
    slope, into_policy = loss_slopes(log_alpha, log_prob, target_entropy)
    check_close("the gradient with respect to log alpha", slope, -(1.0 + target_entropy))
    check_close("the gradient with respect to log_prob", into_policy, torch.zeros(3))
### END HIDDEN TESTS
print("Right: a price for randomness.")

# %% [markdown]
# The rest of SAC, made of what you wrote. Read `update` and the methods it calls: each is one of your losses
# and an optimiser. (`init_gain`, `exploration_noise` and the like are switched off; week 8 will ask what they
# are good for.)

# %% kind="given" ref="sac:ActorFunction,CriticsFunction,SACConfig,Actor,squashed_sample,Critics,SAC"

# %% [markdown]
# A world with one state and one action, whose value everybody knows: two hills, the left one a little higher.
# What does the actor learn from `actor_loss` at different temperatures? With enough freedom, the best it could
# do is $\pi(a) \propto \exp(Q(a) / \alpha)$, the dashed lines. A squashed Gaussian has one hill only. On the
# right the temperature is learned, from $\alpha = 1$ on, for a target entropy of $-1$.


# %%
def hills(action):
    """The value of an action in (-1, 1): two hills."""
    return torch.exp(-(((action + 0.5) / 0.18) ** 2)) + 0.8 * torch.exp(-(((action - 0.5) / 0.3) ** 2))


def train_actor(log_temperature, target_entropy=None, steps=400):
    """An actor for the hills, and the temperature and entropy after each update."""
    generator = torch.Generator().manual_seed(1)
    actor, state = Actor(1, 1, (32,), generator), torch.zeros(256, 1)
    log_alpha = torch.tensor(log_temperature, requires_grad=target_entropy is not None)
    optimizer = torch.optim.Adam([*actor.parameters()], lr=1e-2)
    of_temperature = torch.optim.Adam([log_alpha], lr=2e-2) if target_entropy is not None else None
    history = []
    for _ in range(steps):
        action, log_prob = actor.sample(state, generator)
        loss = actor_loss(hills(action[:, 0]).expand(2, -1), log_prob, log_alpha.detach().exp())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if of_temperature is not None:
            of_temperature.zero_grad()
            temperature_loss(log_alpha, log_prob, target_entropy).backward()
            of_temperature.step()
        history.append((log_alpha.exp().item(), -log_prob.mean().item()))
    return actor, torch.tensor(history)


axes = new_axes(columns=3, width=3.6, height=3.5)
u = torch.linspace(-5, 5, 2001).unsqueeze(-1)
grid = torch.linspace(-1, 1, 401)
axes[0].plot(grid, hills(grid), color="black")
axes[0].set(xlabel="action", ylabel="Q", title="The value of an action")
for alpha, color in zip((0.05, 0.3, 1.0), COLORS, strict=False):
    actor, _ = train_actor(math.log(alpha))
    with torch.no_grad():
        mean, log_std = actor(torch.zeros(1, 1))
        a, log_prob = squash(u, mean.expand_as(u), log_std.expand_as(u))
    axes[1].plot(a[:, 0], log_prob.exp(), color=color, label=rf"$\alpha$ = {alpha}")
    best = torch.exp(hills(grid) / alpha)
    axes[1].plot(grid, best / torch.trapezoid(best, grid), "--", color=color, linewidth=1, alpha=0.8)
axes[1].plot([], [], "--", color=GREY, linewidth=1, label="best")
axes[1].set(xlabel="action", ylabel="density (cut off at 4.5)", ylim=(0, 4.5), title="What the actor learns")
axes[1].legend(loc="upper center")
_, history = train_actor(0.0, target_entropy=-1.0, steps=600)
axes[2].plot(history[:, 1], color=COLORS[4], label="entropy of the policy")
axes[2].plot(history[:, 0], color=COLORS[3], label=r"temperature $\alpha$")
axes[2].axhline(-1, color="black", linestyle=":", linewidth=1.3, label="target entropy")
axes[2].set(
    xlabel="update", ylabel="entropy in nats; temperature", ylim=(-2.7, 2.2), title="A learned temperature"
)
axes[2].legend(loc="upper right")
plt.show()

# %% [markdown]
# Dashed is the density that would be best for each temperature, proportional to $\exp(Q / \alpha)$, if it need
# not be a squashed Gaussian. A high temperature buys randomness with value: the actor covers both hills. A low one settles on a hill, and
# not necessarily on the higher one: the wide hill is easier to find with a wide Gaussian. The learned
# temperature falls until the policy dares to decide, overshoots, and then holds the entropy near its target.

# %% [markdown]
# ## The model, and what is imagined with it
#
# The model is week 4's ensemble. Our example is a pole on a cart that shall be balanced, with a continuous
# force; an episode ends when the pole leans by more than 12 degrees or the cart leaves its track. 400 steps with random actions are all that
# we know, and the ensemble is fitted to them: five members, of which the best three on hold-out data are the
# **elites**.


# %%
def random_steps(task, num_steps, seed):
    """A buffer of transitions with random actions in a task."""
    env, generator = task.make_env(), torch.Generator().manual_seed(seed)
    buffer = ReplayBuffer(num_steps, task.obs_dim, task.action_dim)
    obs, _ = env.reset(seed=seed)
    for _ in range(num_steps):
        uniform = torch.rand(task.action_dim, generator=generator)
        action = task.action_low + (task.action_high - task.action_low) * uniform
        next_obs, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
        buffer.add(obs, action, reward, next_obs, terminated, truncated)
        obs = env.reset()[0] if terminated or truncated else next_obs
    return buffer


def fitted_ensemble(task, data, seed=0):
    """Week 4's ensemble, fitted to transitions of a task."""
    generator = torch.Generator().manual_seed(seed)
    config = EnsembleConfig(ensemble_size=5, num_elites=3, hidden_sizes=(64, 64), batch_size=32)
    ensemble = GaussianEnsemble(
        task.obs_dim,
        task.action_dim,
        config,
        reward=task.reward,
        terminated=task.terminated,
        generator=generator,
    )
    ensemble.fit(data, max_epochs=60, generator=generator)
    return ensemble


balance = get_task("cartpole-balance")
real = random_steps(balance, 400, seed=0)
ensemble = fitted_ensemble(balance, real.all())
ends = int(real.all().terminated.sum())
print(f"{len(real)} real steps, {ends} falls; the elites are the members {ensemble.elites.tolist()}")

# %% [markdown] exercise="branched-rollout" number="7.3" title="Branched rollouts" points=6 difficulty=3 minutes=25
# A thousand real states are drawn from the buffer. From each of them the *present* policy acts in the model,
# for $k$ steps. The real states come from older policies, but what is done in them is what the policy would do
# now. That makes old data useful for a new policy.
#
# At each step, each row is answered by an elite **drawn at random**, whose Gaussian is sampled. You know this
# from week 5: it is TS1. `ensemble.step_random_elites(obs, action)` does it for a batch, and your function
# gets it, or any other step, as `step`.
#
# Three things have to be right.
#
# - All rollouts advance **side by side**, in one batch: $k$ calls of `step`, not $N k$.
# - A rollout that **terminates** is not continued. Its last transition counts, with `terminated` set: that is
#   how the critics learn that a fall is a fall. States behind an end don't exist, and a policy that may go
#   on from them learns to fly through walls.
# - A prediction may be **not finite** (NaN or infinity, in a next state or in a reward). Such a transition is
#   dropped, and its rollout is given up there; the transitions before it stay.
#
# **Predict first.** In the model the pole always falls after 4 steps. How many transitions do 1000 rollouts
# with $k = 10$ give? What would be wrong with starting all of them in the *initial* state of an episode?
#
# **Write `branched_rollout`.**
#
# - `step(obs [N, D], action [N, A])` returns `next_obs [N, D]`, `reward [N]`, `terminated [N]`; `act(obs)`
#   returns `[N, A]`. Each is called once for each of the (at most $k$) steps, with all rollouts that still
#   go on; neither is called when there are none left.
# - Return a `Batch`: the first transitions of all rollouts, in their order, then all second ones, and so on.
#   `truncated` is `False` everywhere: the rollout is cut off, the task is not.
# - Raise a `ValueError` if `length` is below 1.

# %% kind="given" ref="branching:StepFunction"

# %% kind="solution" of="branched-rollout" ref="branching:branched_rollout"
# TODO: refuse a length below 1
# TODO: act and step with all that go on; keep the finite transitions
# TODO: go on with those that have not ended, as long as there are any

# %% [markdown]
# <details><summary>Hint: choosing rows</summary>
#
# `Batch(obs, action, reward, next_obs, terminated, truncated)` is week 1's; its `take(index)` takes rows by a bool
# mask from every column. `x.isfinite().all(dim=-1)`
# says which rows of `x` are finite.
# </details>
# <details><summary>Hint: all as one batch</summary>
#
# Collect a `Batch` for each step in a list; `concatenate(list)` puts them one after the other.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# 4000: the fourth transition of each says `terminated`, and there is no fifth. Starting in initial states
# needs long rollouts to get anywhere, and long rollouts are what models are bad at. Branching gives the states
# of long episodes with the errors of short ones.
# </details>

# %% kind="test" of="branched-rollout" points=2
calls = []


def step(obs, action):  # obs = (steps so far, number of the rollout)
    obs, action = torch.as_tensor(obs), torch.as_tensor(action)
    check_true(len(calls) < 50, "step was called 50 times with length=3: there is no end")
    calls.append(tuple(obs.shape))
    return obs + torch.tensor([1.0, 0.0]), action[:, 0], torch.zeros(len(obs), dtype=torch.bool)


def act(obs):
    return 10 * torch.as_tensor(obs)[:, :1] + 1


start = torch.tensor([[0.0, 5.0], [0.0, 6.0], [0.0, 7.0], [0.0, 8.0]])
given = start.clone()
batch = branched_rollout(step, act, given, 3)
check_unchanged("obs", given, start)
check_true(
    calls == [(4, 2)] * 3,
    f"step was called with obs of the shapes {calls}, expected three times [4, 2]: all rollouts side by side, as long "
    "as they have not ended",
)
check_true(batch is not None, "branched_rollout returned None: is a `return` missing?")
check_true(
    len(batch) == 6 and hasattr(batch, "obs"),
    f"{len(batch)} things were returned, expected all transitions as one Batch: use concatenate",
)
check_shape("obs", batch.obs, (12, 2), {(4, 2): "those of one step only: expected all 3 steps of 4 rollouts"})
count = torch.arange(3.0).repeat_interleave(4)
check_close(
    "the steps so far in obs",
    batch.obs[:, 0],
    count,
    mistakes={
        "every step starts in the real state again: go on from next_obs": torch.zeros(12),
        "rollout after rollout, expected all first steps, then all second ones": torch.arange(3.0).repeat(4),
        "these are the states after the step": count + 1,
    },
)
check_close("the number of the rollout in obs", batch.obs[:, 1], torch.tensor([5.0, 6, 7, 8]).repeat(3))
check_close("next_obs", batch.next_obs[:, 0], count + 1)
check_close("action", batch.action[:, 0], 10 * count + 1, hint="the policy is asked anew in every state")
check_close("reward", batch.reward, 10 * count + 1)
for name in ("terminated", "truncated"):
    flags = check_shape(name, getattr(batch, name), (12,), "one for each transition")
    check_true(flags.dtype == torch.bool, f"{name} holds numbers, expected bools")
### BEGIN HIDDEN TESTS
check_close("truncated", as_tensor("truncated", batch.truncated).double(), torch.zeros(12))
check_close("terminated", as_tensor("terminated", batch.terminated).double(), torch.zeros(12))
calls.clear()
short = branched_rollout(step, act, start[:1], 1)
check_close("obs of one rollout of length 1", short.obs, [[0.0, 5.0]])
check_true(len(calls) == 1, "with length 1 step is called once")
for length in (0, -2):
    check_raises(f"length={length}", ValueError, branched_rollout, step, act, start, length)
### END HIDDEN TESTS
print("Right: side by side, from real states.")

# %% kind="test" of="branched-rollout" points=2
limits = torch.tensor([2.0, 9.0, 1.0, 3.0])  # rollout n ends with this step
calls = []


def step(obs, action):
    obs = torch.as_tensor(obs)
    calls.append(len(obs))
    next_obs = obs + torch.tensor([1.0, 0.0])
    return next_obs, obs[:, 1], next_obs[:, 0] >= limits[obs[:, 1].long()]


def act(obs):
    check_true(len(obs) > 0, "act was asked about no rows at all: stop when all rollouts have ended")
    return torch.zeros(len(obs), 1)


start = torch.stack([torch.zeros(4), torch.arange(4.0)], dim=1)
batch = branched_rollout(step, act, start, 4)
number = as_tensor("obs", batch.obs)[:, 1]
lengths = torch.stack([(number == n).sum() for n in range(4)])
check_close(
    "how many transitions rollouts 0 to 3 have",
    lengths,
    [2, 4, 1, 3],
    mistakes={
        "ended rollouts go on": [4, 4, 4, 4],
        "the transition that ends a rollout is missing, but it counts": [1, 4, 0, 2],
        "all stop with the first that ends": [1, 1, 1, 1],
    },
)
ended = as_tensor("terminated", batch.terminated)
check_close(
    "terminated",
    ended.double(),
    (as_tensor("next_obs", batch.next_obs)[:, 0] >= limits[number.long()]).double(),
    hint="as step said",
)
check_close(
    "truncated",
    as_tensor("truncated", batch.truncated).double(),
    torch.zeros(10),
    hint="False everywhere: the rollout is cut off, the task is not",
)
check_true(calls == [4, 3, 2, 1], f"step was called with {calls} rows, expected 4, 3, 2, 1: those that go on")
### BEGIN HIDDEN TESTS
check_close("the order of the rollouts", number, [0.0, 1, 2, 3, 0, 1, 3, 1, 3, 1])
calls.clear()
soon = branched_rollout(step, act, start[[0, 2]], 5)
check_close("the states of rollouts that end after 2 and 1 steps", soon.obs, [[0.0, 0], [0.0, 2], [1.0, 0]])
check_true(calls == [2, 1], f"step was called with {calls} rows, expected 2, 1, and then no more")
### END HIDDEN TESTS
print("Right: nothing goes on behind an end.")

# %% kind="test" of="branched-rollout" points=2
generator = torch.Generator().manual_seed(0)


calls = []


def step(obs, action):  # a random elite, 3 or 5, answers each row; below 0 the model breaks down
    obs = torch.as_tensor(obs)
    calls.append(len(obs))
    elite = torch.tensor([3.0, 5.0])[torch.randint(2, (len(obs),), generator=generator)]
    next_obs = obs.clone()
    next_obs[:, 0] += elite
    next_obs[obs[:, 0] == -1, 0] = torch.nan
    next_obs[obs[:, 0] == -2, 1] = torch.inf
    return next_obs, elite, torch.zeros(len(obs), dtype=torch.bool)


def act(obs):
    check_true(len(obs) > 0, "act was asked about no rows at all: stop when all rollouts have been given up")
    return torch.zeros(len(obs), 1)


start = torch.tensor([[0.0, 7.0], [-1.0, 8.0], [1.0, 9.0], [-2.0, 6.0]])
batch = branched_rollout(step, act, start, 2)
for bad, kind in ((torch.isnan, "a NaN"), (torch.isinf, "an infinity")):
    check_true(
        not bad(as_tensor("next_obs", batch.next_obs)).any(),
        f"there is {kind} in next_obs: drop what is not finite in any dimension, and give its rollout up",
    )
check_shape("obs, where two of four rollouts are given up at once", batch.obs, (4, 2))
check_true(
    calls == [4, 2],
    f"step was called with {calls} rows, expected 4, 2: a rollout that breaks down is given up at once",
)
start = torch.stack([torch.arange(500.0), torch.zeros(500)], dim=1)
batch = branched_rollout(step, act, start, 3)
elite = as_tensor("reward", batch.reward).reshape(3, 500)
check_close("next_obs - obs", (batch.next_obs - batch.obs)[:, 0], batch.reward, hint="the elite's number")
check_true(not torch.equal(elite[0], elite[1]), "the second step has the elites of the first: call step anew")
check_between("the share of the elite 3", (elite == 3).double().mean(), 0.45, 0.55)
### BEGIN HIDDEN TESTS
path = start[:, 0] + elite.cumsum(dim=0)
check_close("next_obs of the rollouts", as_tensor("next_obs", batch.next_obs)[:, 0].reshape(3, 500), path)


def step(obs, action):  # rewards may break down as well, and later
    obs = torch.as_tensor(obs)
    reward = torch.where(obs[:, 0] == 2, torch.inf, torch.where(obs[:, 0] == 12, torch.nan, 1.0))
    return obs + 1, reward, torch.zeros(len(obs), dtype=torch.bool)


batch = branched_rollout(step, act, torch.tensor([[0.0], [1.0], [-3.0]]), 4)
why = "drop a transition whose reward is infinite, and give its rollout up"
rows = {(4, 1): "the transitions before a rollout breaks down stay"}
obs = check_shape("obs, where a reward is infinite in state 2", batch.obs, (7, 1), rows)
check_close("obs, where a reward is infinite in state 2", obs[:, 0], [0.0, 1, -3, 1, -2, -1, 0], hint=why)
batch = branched_rollout(step, act, torch.tensor([[2.0], [1.0]]), 4)
check_close("obs, where all rollouts are given up after a step or two", batch.obs, [[1.0]])
batch = branched_rollout(step, act, torch.tensor([[12.0], [20.0]]), 2)
check_close(
    "obs, where a reward is NaN in state 12", batch.obs, [[20.0], [21.0]], hint="drop a NaN reward, too"
)
### END HIDDEN TESTS
print("Right: random elites, and what breaks down is given up.")

# %% [markdown]
# Rollouts of a random policy in our ensemble, branched off twelve of the 400 real states. Grey are all real
# states; a cross is an end.

# %%
generator = torch.Generator().manual_seed(3)


def random_policy(obs):
    return 2 * torch.rand(len(obs), 1, generator=generator) - 1


def model_step(obs, action):
    return ensemble.step_random_elites(obs, action, generator=generator)


start = real.sample(12, generator).obs
axes = new_axes(columns=3, width=3.6, height=3.4)
everything = real.all().obs
for ax, length in zip(axes, (1, 5, 15), strict=True):
    batch = branched_rollout(model_step, random_policy, start, length)
    ax.plot(everything[:, 2].rad2deg(), everything[:, 3], ".", color=GREY, markersize=4, alpha=0.35)
    for before, after, ended in zip(batch.obs, batch.next_obs, batch.terminated, strict=True):
        pair = torch.stack([before, after])
        ax.plot(pair[:, 2].rad2deg(), pair[:, 3], color=COLORS[0], linewidth=1.6)
        if ended:
            ax.plot(after[2].rad2deg(), after[3], "x", color=COLORS[3], markersize=8, markeredgewidth=2)
    ax.plot(start[:, 2].rad2deg(), start[:, 3], "o", color="black", markersize=4)
    for border in (-12, 12):
        ax.axvline(border, color=COLORS[3], linestyle=":", linewidth=1.2)
    ax.set(
        xlim=(-19, 19),
        ylim=(-2.2, 2.2),
        xlabel="angle, degrees",
        title=f"k = {length}: {len(batch.obs)} transitions",
    )
axes[0].set_ylabel("angular velocity, rad/s")
plt.show()

# %% [markdown]
# With $k = 1$ the rollouts are hardly to be seen: short lines at black dots. With $k = 15$ they cross the cloud,
# and some of them end. The ends are imagined, but the critics learn from them as from real falls.

# %% [markdown] exercise="schedule" number="7.4" title="A schedule for k" points=2 difficulty=1 minutes=10
# At the beginning the model knows little, and one step is all that it can be trusted for. With more data $k$
# may grow. MBPO's schedule is a line between two points (Appendix C): after $a$ real steps $k = x$, after $b$
# real steps $k = y$, before and after it is constant:
#
# $$k(t) = \Big\lfloor x + \operatorname{clip}\Big( \frac{t - a}{b - a},\ 0,\ 1 \Big)\, (y - x) \Big\rfloor$$
#
# For the hopper it is from 1 to 15, between 20,000 and 100,000 steps.
#
# **Predict first.** What is the hopper's $k$ after 60,000 steps? After 59,999? And after a million?
#
# **Write `rollout_length_schedule`.** `steps` is $(a, b)$ with $a < b$, `lengths` is $(x, y)$; $y$ may be below
# $x$. The result is an `int`, rounded **down**, with one exception: where the line meets a whole number, it is
# that number, though the computer may arrive at 6.999999999. (Adding $10^{-9}$ before rounding is good enough.)

# %% kind="solution" of="schedule" ref="branching:rollout_length_schedule"
# TODO: which share of the way from a to b has been gone, within 0 and 1?
# TODO: the line, rounded down

# %% [markdown]
# <details><summary>Answer to the prediction</summary>
#
# 8: half of the way. One step earlier it is 7. After a million steps it is 15, and stays there.
# </details>

# %% kind="test" of="schedule" points=1
hopper = [rollout_length_schedule(t, (20_000, 100_000), (1, 15)) for t in (0, 20_000, 59_000, 60_000, 10**6)]
check_true(None not in hopper, "the length is None: is a `return` missing?")
check_close(
    "k after 0, 20000, 59000, 60000 and 1000000 steps of the hopper",
    hopper,
    [1, 1, 7, 8, 15],
    mistakes={
        "it is rounded to the nearest, expected down": [1, 1, 8, 8, 15],
        "it goes on changing outside of a and b": [-2, 1, 7, 8, 172],
        "it goes on changing outside of a and b, where k is constant": [-3, 1, 7, 8, 172],
        "it goes on growing after b": [1, 1, 7, 8, 172],
        "it is below the first length before a": [-2, 1, 7, 8, 15],
        "it is below the first length, x, before a": [-3, 1, 7, 8, 15],
        "the line starts at step 0, expected at a": [1, 3, 9, 9, 15],
        "the share of the way is divided by b, expected by b - a": [1, 1, 6, 6, 15],
        "the line starts at 0, expected at the first length, x": [0, 0, 6, 7, 14],
        "the share of the way is rounded down, expected k": [1, 1, 1, 1, 15],
    },
)
check_true(all(isinstance(k, int) for k in hopper), "the length is no whole number (int): range() needs one")
check_close(
    "k after 28000 and 59999 steps of the hopper",
    [rollout_length_schedule(t, (20_000, 100_000), (1, 15)) for t in (28_000, 59_999)],
    [2, 7],
    mistakes={
        "it is rounded up, expected down": [3, 8],
        "just below 8 it is 7: the allowance for rounding errors of floats is too large": [2, 8],
    },
)
### BEGIN HIDDEN TESTS
lengths = [rollout_length_schedule(t, (100, 200), (3, 5)) for t in (0, 100, 149, 150, 199, 200, 201)]
check_close("k between 3 and 5", lengths, [3, 3, 3, 4, 4, 5, 5])
### END HIDDEN TESTS
print("Right: a line with two ends.")

# %% kind="test" of="schedule" points=1
line = [rollout_length_schedule(t, (0, 49), (1, 50)) for t in range(50)]
off = sum(k != t + 1 for t, k in enumerate(line))
why = "where the line meets a whole number, it is that number: mind the rounding of floats"
check_close(
    "k with lengths (1, 50) after 0 ... 49 of 49 steps",
    line,
    torch.arange(1, 51),
    hint=why if off < 20 else "it rises by 1 in each step",
)
falling = [rollout_length_schedule(t, (0, 8), (5, 1)) for t in (0, 1, 2, 8, 9)]
check_close(
    "k with lengths (5, 1) after 0, 1, 2, 8, 9 of 8 steps",
    falling,
    [5, 4, 4, 1, 1],
    hint="y may be below x; clip the share of the way, and round k itself down",
)
### BEGIN HIDDEN TESTS
check_close("k with lengths (0, 0)", rollout_length_schedule(500, (0, 1), (0, 0)), 0)
check_close(
    "k with lengths (4, 4)", [rollout_length_schedule(t, (3, 9), (4, 4)) for t in (0, 5, 20)], [4, 4, 4]
)
for width in (3, 7, 10, 14, 93):
    line = [rollout_length_schedule(t, (5, 5 + width), (2, 2 + width)) for t in range(5, 6 + width)]
    check_close(f"k along a line of {width} steps", line, torch.arange(2, 3 + width))
### END HIDDEN TESTS
print("Right: up, down, and constant.")

# %% [markdown] exercise="retention" number="7.5" title="A buffer that forgets" points=2 difficulty=2 minutes=10
# What is imagined goes into a buffer of its own. An imagined transition has two ages: its *model* was fitted
# to fewer data, and its *policy* was an older one. So it is kept for a few fits only, say four, and then
# overwritten. After every fit there are $N$ new rollouts of $k$ steps, which makes a capacity of
# $N \cdot k \cdot (\text{fits})$. And as $k$ grows, the buffer has to grow with it: otherwise a fit with long
# rollouts would push everything else out.
#
# **Predict first.** Rollouts that terminate early bring fewer than $N k$ transitions. For how many fits are
# transitions kept then?
#
# **Write two functions.**
#
# - `model_buffer_capacity` is the product above, and at least 1 (a buffer for nothing is not allowed).
# - `resized` returns a *new* `ReplayBuffer` of another capacity with the newest transitions of the old one, as
#   many as fit, in their order. When the new one is full, its oldest is the next to go. The old buffer stays as
#   it is, and it may have been written round (week 1).

# %% kind="solution" of="retention" ref="branching:model_buffer_capacity,resized"
# model_buffer_capacity:
# TODO: the product, at least 1
# resized:
# TODO: a new buffer; write the old transitions into it, the oldest first

# %% [markdown]
# <details><summary>Hint</summary>
#
# `ReplayBuffer(capacity, obs_dim, action_dim)` is an empty one; the old one knows its `obs_dim` and `action_dim`.
# `buffer.all()` gives all transitions, the oldest first; `write(batch)` of week 1 keeps the last ones where the
# batch is larger than the buffer, and moves `position` and `size` on.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# For more than four: the buffer fills more slowly than planned. The capacity is an upper bound for what a fit
# brings, so what is kept gets older than intended where episodes end early.
# </details>


# %% kind="given"
def resize_example(old_capacity: int, num_written: int, capacity: int, more: int = 0) -> dict[str, Any]:
    """A buffer with the rewards 0, 1, 2, ..., resized by your function, then `more` further ones written."""

    def rows(first: int, count: int) -> Batch:
        number = first + torch.arange(float(count))
        obs, action = number[:, None].expand(-1, 2), -number[:, None].expand(-1, 3)
        return Batch(obs, action, number, obs + 0.5, number % 3 == 0, number % 2 == 0)

    old = ReplayBuffer(old_capacity, 2, 3)
    old.write(rows(0, num_written))
    new = resized(old, capacity)
    assert new is not None, "resized returned None: is a `return` missing?"
    new.write(rows(1000, more))
    left = old.all().reward
    return {"batch": new.all(), "capacity": new.capacity, "old": left, "old_capacity": old.capacity}


# %% kind="test" of="retention" points=1
check_close(
    "the capacity for 400 rollouts of 3 steps, kept for 5 fits",
    model_buffer_capacity(400, 3, 5),
    6000,
    mistakes={"the fits are forgotten": 1200, "the length is forgotten": 2000},
)
check_close(
    "the capacity for rollouts of length 0",
    model_buffer_capacity(400, 0, 5),
    1,
    mistakes={"it is 0, but a buffer holds at least 1": 0},
)
check_true(isinstance(model_buffer_capacity(400, 3, 5), int), "the capacity is no whole number (int)")
### BEGIN HIDDEN TESTS
check_close("the capacity for 1 rollout of 1 step, kept for 1 fit", model_buffer_capacity(1, 1, 1), 1)
check_close("the capacity for 7 rollouts of 11 steps, 13 fits", model_buffer_capacity(7, 11, 13), 1001)
### END HIDDEN TESTS
print("Right: as much as a few fits bring.")

# %% kind="test" of="retention" points=1
smaller = resize_example(10, 10, 4)
check_close("the capacity of the resized buffer", smaller["capacity"], 4)
check_close(
    "what is left of 0 ... 9 in a buffer of 4",
    smaller["batch"].reward,
    [6.0, 7, 8, 9],
    mistakes={
        "the oldest are kept, expected the newest": [0.0, 1, 2, 3],
        "the order is reversed: oldest first": [9.0, 8, 7, 6],
    },
    hint="the newest ones, as many as fit, in their order",
)
larger = resize_example(4, 4, 6)
check_close("what is left of 0 ... 3 in a buffer of 6", larger["batch"].reward, [0.0, 1, 2, 3])
### BEGIN HIDDEN TESTS
check_close("the old buffer, which stays as it is,", smaller["old"], torch.arange(10.0))
check_close("the old buffer's capacity", smaller["old_capacity"], 10)
round_ = resize_example(4, 7, 3, more=1)  # the old one holds 3, 4, 5, 6, written round
why = "buffer.all() has them in their order"
check_close(
    "after 3 ... 6 were resized to 3, and one more came", round_["batch"].reward, [5.0, 6, 1000], hint=why
)
kept = resize_example(4, 7, 9, more=2)["batch"]
check_close(
    "after 3 ... 6 were resized to 9, and two more came",
    kept.reward,
    [3.0, 4, 5, 6, 1000, 1001],
    mistakes={"position was not moved on: the next one overwrites the oldest": [1000.0, 1001, 5, 6, 0, 0]},
    hint=why,
)
number = torch.tensor([3.0, 4, 5, 6, 1000, 1001])
for name, expected in (("obs", number), ("action", -number), ("next_obs", number + 0.5)):
    check_close(f"{name} of these", kept._asdict()[name][:, 0], expected)
check_close("terminated of these", kept.terminated.double(), (number % 3 == 0).double())
check_close("truncated of these", kept.truncated.double(), (number % 2 == 0).double())
same = resize_example(4, 4, 4, more=1)
check_close(
    "the old buffer, of the same capacity,", same["old"], [0.0, 1, 2, 3], hint="make a new buffer always"
)
### END HIDDEN TESTS
print("Right: the newest stay.")

# %% [markdown]
# Twelve fits, and $k$ grows from 1 to 6. On the left the buffer has a fixed size; on the right it follows your
# schedule. Each colour is a fit. While $k$ grows, room for four fits of today's length holds up to eight, since the
# older ones are shorter.

# %%
axes = new_axes(columns=2, width=5.4, height=3.5)
fits, shades = range(12), plt.get_cmap("viridis", 12)
for ax, follows in zip(axes, (False, True), strict=True):
    buffer = ReplayBuffer(800, 1, 1)
    for fit in fits:
        k = rollout_length_schedule(fit, (2, 10), (1, 6))
        if follows:
            buffer = resized(buffer, model_buffer_capacity(100, k, 4))
        column = torch.full((100 * k, 1), float(fit))
        flags = torch.zeros(100 * k, dtype=torch.bool)
        buffer.write(Batch(column, column, column[:, 0], column, flags, flags))
        counts = torch.bincount(buffer.all().reward.long(), minlength=12)
        bottom = 0
        for made, count in enumerate(counts.tolist()):
            ax.bar(fit, count, bottom=bottom, color=shades(made), width=0.85)
            bottom += count
    ax.set(xlabel="fit", ylabel="imagined transitions", xticks=fits, ylim=(0, 2500))
axes[0].set_title("Fixed: in the end 1.3 fits are left")
axes[1].set_title("Following: room for 4 fits of today's $k$")
colors = plt.cm.ScalarMappable(plt.Normalize(-0.5, 11.5), shades)
plt.colorbar(colors, ax=axes[1], label="made by fit", ticks=fits)
plt.show()

# %% [markdown] exercise="real-ratio" number="7.6" title="A few real ones" points=2 difficulty=1 minutes=10
# Real transitions are few, but true. MBPO puts a share of them into each batch, 5 % as a rule; the rest is
# imagined.
#
# **Predict first.** 1000 real transitions, 10 updates with batches of 256 after each real step, and 13 real
# rows in each batch. How often has a real transition been used after the next 1000 steps, roughly, and how
# often without a model, in plain SAC with as many updates?
#
# **Write two functions.**
#
# - `num_real_rows` is the share, rounded to the nearest whole number. As long as nothing is imagined, all
#   $B$ rows are real.
# - `mix_batches` draws that many from `real` and the rest from `imagined` with the buffers' `sample`, the real
#   ones first, and all randomness from `generator`. A buffer from which nothing is needed is not asked: it may
#   be empty.

# %% kind="solution" of="real-ratio" ref="branching:num_real_rows,mix_batches"
# num_real_rows:
# TODO: the whole batch, or a rounded share
# mix_batches:
# TODO: sample from both buffers, and join what came

# %% [markdown]
# <details><summary>Answer to the prediction</summary>
#
# 10,000 updates with 13 real rows are 130,000 draws, from 1000 to 2000 transitions: about 90 times each. Plain
# SAC draws 2.6 million: about 1700 times each. So plain SAC with many updates learns the few transitions by
# heart, noise included. Imagined transitions are also made of them, but each one is new.
# </details>


# %% kind="given"
def mix_example(num_real: int, num_imagined: int, batch_size: int, real_ratio: float, seed: int = 0) -> Batch:
    """Your batch of real transitions, rewards 0, 1, 2, ..., and imagined ones, rewards 1000, 1001, ..."""
    buffers = []  # all capacities as large as what they hold
    for first, count in ((0.0, num_real), (1000.0, num_imagined)):
        buffer = ReplayBuffer(max(count, 1), 1, 1)
        number = first + torch.arange(float(count))
        flags = torch.zeros(count, dtype=torch.bool)
        buffer.write(Batch(number[:, None], number[:, None], number, number[:, None], flags, flags))
        buffers.append(buffer)
    return mix_batches(*buffers, batch_size, real_ratio, torch.Generator().manual_seed(seed))


# %% kind="test" of="real-ratio" points=1
check_close(
    "the real rows of 256, for a share of 0.05",
    num_real_rows(256, 0.05, 1000),
    13,
    mistakes={
        "it is rounded down, expected to the nearest (12.8)": 12,
        "these are the imagined ones": 243,
        "it is not rounded": 12.8,
    },
)
check_close(
    "the real rows of 256, before anything is imagined",
    num_real_rows(256, 0.05, 0),
    256,
    mistakes={"there is nothing imagined yet: all rows are real": 13},
)
### BEGIN HIDDEN TESTS
rows = [num_real_rows(128, share, 1) for share in (0.0, 0.01, 0.5, 0.8, 1.0)]
check_close(
    "the real rows of 128, for shares of 0, 0.01, 0.5, 0.8, 1",
    rows,
    [0, 1, 64, 102, 128],
    mistakes={"it is rounded up, expected to the nearest": [0, 2, 64, 103, 128]},
)
check_true(all(isinstance(count, int) for count in rows), "the number of rows is no whole number (int)")
### END HIDDEN TESTS
print("Right: a rounded share.")

# %% kind="test" of="real-ratio" points=1
batch = mix_example(50, 80, 40, 0.25)
check_true(batch is not None, "mix_batches returned None: is a `return` missing?")
check_true(
    len(batch) == 6 and hasattr(batch, "reward"),
    f"{len(batch)} things were returned, expected all rows as one Batch: use concatenate",
)
reward = check_shape("reward", batch.reward, (40,))
check_close(
    "which of 40 rows are imagined, for a share of 0.25",
    (reward >= 1000).double(),
    torch.cat([torch.zeros(10), torch.ones(30)]),
    mistakes={
        "the imaginary ones come first, expected the real ones": torch.cat([torch.ones(30), torch.zeros(10)]),
        "the share is that of the imagined ones": torch.cat([torch.zeros(30), torch.ones(10)]),
    },
    hint="10 real ones, then 30 imagined ones, not shuffled",
)
check_true(len(set(reward.tolist())) > 20, "the rows are not drawn at random")
check_close("obs, which belongs to reward", batch.obs[:, 0], reward)
### BEGIN HIDDEN TESTS
check_close("the same seed", mix_example(50, 80, 40, 0.25).reward, reward, hint="use generator")
check_true(
    not torch.equal(as_tensor("r", mix_example(50, 80, 40, 0.25, 1).reward), reward), "seeds change nothing"
)
check_true(
    bool((mix_example(50, 0, 40, 0.05).reward < 1000).all()), "nothing imagined: the whole batch is real"
)
check_shape("a batch of real ones alone", mix_example(50, 0, 40, 0.05).reward, (40,))
check_shape(
    "a batch of more rows than the buffers hold", mix_example(3, 5, 40, 0.25).reward, (40,), "use sample"
)
check_true(bool((mix_example(0, 80, 40, 0.0).reward >= 1000).all()), "a share of 0: all imagined")
check_true(bool((mix_example(50, 80, 40, 1.0).reward < 1000).all()), "a share of 1: all real")
### END HIDDEN TESTS
print("Right: real ones first, then imagined ones.")

# %% [markdown]
# One batch of 256, from our 400 real transitions and from 2000 imagined rollouts of 5 steps.

# %%
imagined = ReplayBuffer(model_buffer_capacity(2000, 5, 1), 4, 1)
imagined.write(branched_rollout(model_step, random_policy, real.sample(2000, generator).obs, 5))
axes = new_axes(columns=2, width=4.8, height=3.6)
for ax, ratio in zip(axes, (0.05, 0.5), strict=True):
    batch, count = (
        mix_batches(real, imagined, 256, ratio, generator),
        num_real_rows(256, ratio, len(imagined)),
    )
    for rows, name, color in ((slice(count, None), "imagined", COLORS[0]), (slice(count), "real", COLORS[1])):
        obs = batch.obs[rows]
        label = f"{len(obs)} {name}"
        ax.plot(obs[:, 2].rad2deg(), obs[:, 3], "o", color=color, markersize=5, alpha=0.75, label=label)
    ax.set(
        xlabel="angle, degrees", xlim=(-13, 13), ylim=(-2.2, 2.2), title=f"A batch with real_ratio {ratio}"
    )
    ax.legend(loc="lower right")
axes[0].set_ylabel("angular velocity, rad/s")
plt.show()

# %% [markdown] exercise="penalty" number="7.7" title="A price for disagreement" points=2 difficulty=2 minutes=10
# A policy that learns in a model looks for high returns, wherever they come from; a place where the model is
# wrong in its favour is as good as any other. The members of the ensemble agree where there are data, and
# disagree elsewhere. So let doubt cost something. MOPO (Yu et al., 2020) does so where no more data can be had, and
# takes the largest standard deviation that a member predicts; MOReL (Kidambi et al., 2020) looks at how far the
# members are apart. We take the disagreement, since noise alone is no reason to stay away:
#
# $$\tilde{r} = r - \beta\, u(s, a), \qquad
#   u = \sqrt{ \frac{1}{D} \sum_{d} \operatorname{Var}_{e}\!\left[ \frac{\mu_{e,d}(s, a)}{c_d} \right] }$$
#
# $\mu_{e,d}$ is the next state as elite $e$ expects it, and $c_d$ the standard deviation of the data's *changes*
# of state, which makes dimensions comparable. The variance over the $K$ elites divides by $K$: it is the
# epistemic part of week 4.
#
# **Predict first.** Two elites, one dimension, $c = 1$. One says 0, the other 1. What is $u$? And what does it
# become if the state is measured in millimetres instead of metres?
#
# **Write `elite_disagreement`** (`means [K, N, D]` and `scale [D]`, $c$, to `[N]`) **and `penalized_reward`.** The
# caller's tensors stay as they are.

# %% kind="solution" of="penalty" ref="branching:elite_disagreement,penalized_reward"
# elite_disagreement:
# TODO: variance over the elites of the scaled means, mean over dimensions, root
# penalized_reward:
# TODO: the reward less the price

# %% [markdown]
# <details><summary>Hint</summary>
#
# `torch.var(x, dim=0, correction=0)` divides by $K$. Week 6's `epistemic_variance(means, scale)` is imported,
# too, and it is $u^2$.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The deviations from the mean are 0.5 each: $u = 0.5$. In millimetres the means are 1000 times as large, and so
# is $c$: still 0.5.
# </details>

# %% kind="test" of="penalty" points=1
means = torch.tensor(  # [K, N, D], 3 elites and 4 states
    [
        [[0.0, 0.0], [1.0, 4.0], [2.0, 0.0], [3.0, 5.0]],
        [[2.0, 20.0], [1.0, 4.0], [5.0, 0.0], [3.0, 5.0]],
        [[4.0, 10.0], [1.0, 7.0], [2.0, 0.0], [3.0, 5.0]],
    ]
)
scale = torch.tensor([1.0, 5.0])  # [D]
given = means.clone(), scale.clone()
u = elite_disagreement(*given)
check_unchanged("means", given[0], means, "make a new tensor, means / scale, not means /= scale")
check_unchanged("scale", given[1], scale)
check_shape(
    "elite_disagreement",
    u,
    (4,),
    {
        (4, 2): "average over the dimensions",
        (3,): "the variance is over the elites",
        (2,): "the mean is over the dimensions, the last axis",
        (): "one number for each state",
    },
)
var = (means / scale).var(dim=0, correction=0)  # [N, D]
check_close(
    "elite_disagreement",
    u,
    var.mean(dim=-1).sqrt(),
    mistakes={
        "it is the variance: take the root": var.mean(dim=-1),
        "the root is taken before the mean over dimensions, expected after it": var.sqrt().mean(dim=-1),
        "scale has no effect": means.var(dim=0, correction=0).mean(dim=-1).sqrt(),
        "the sum over dimensions, expected the mean": var.sum(dim=-1).sqrt(),
        "it is the largest over the dimensions, expected the mean": var.amax(dim=-1).sqrt(),
        "multiplied by scale, expected divided": (means * scale).var(dim=0, correction=0).mean(dim=-1).sqrt(),
        "the variance divides by K - 1, expected K": (var * 1.5).mean(dim=-1).sqrt(),
        "scale is a standard deviation: divide by it before the variance": (
            means.var(dim=0, correction=0) / scale
        )
        .mean(dim=-1)
        .sqrt(),
    },
)
### BEGIN HIDDEN TESTS
check_close("elite_disagreement of one elite", elite_disagreement(means[:1], scale), torch.zeros(4))
two = torch.tensor([[[0.0]], [[1000.0]]])
check_close("elite_disagreement in millimetres", elite_disagreement(two, torch.tensor([1000.0])), [0.5])
### END HIDDEN TESTS
print("Right: how far apart the elites are.")

# %% kind="test" of="penalty" points=1
reward, u = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([0.5, 0.0, 2.0])
given = reward.clone()
result = penalized_reward(given, u, 3.0)
check_unchanged("reward", given, reward, "make a new tensor, not reward -= ...")
check_close(
    "penalized_reward with beta = 3",
    result,
    [-0.5, 2.0, -9.0],
    mistakes={
        "the price is added": [2.5, 2.0, 3.0],
        "beta has no effect": [0.5, 2.0, -5.0],
        "the disagreement is squared: it is a standard deviation already": [0.25, 2.0, -15.0],
    },
)
### BEGIN HIDDEN TESTS
given = u.clone()
penalized_reward(reward, given, 0.25)
check_unchanged("disagreement", given, u, "make a new tensor (beta * disagreement)")
check_close("penalized_reward with beta = 0", penalized_reward(reward, u, 0.0), reward)
check_close("penalized_reward with beta = 0.25", penalized_reward(reward, u, 0.25), [0.875, 2.0, -3.5])
### END HIDDEN TESTS
print("Right: doubt costs.")

# %% [markdown]
# Where do our elites disagree? The cart stands still in the middle; angle and angular velocity vary, well
# beyond the data (dots). A still upright pole earns 1 for each step, here less $\beta u$ with $\beta = 2$.

# %%
angle, velocity = torch.meshgrid(torch.linspace(-25, 25, 81), torch.linspace(-5, 5, 81), indexing="xy")
zeros = torch.zeros_like(angle)
plane = torch.stack([zeros, zeros, angle.deg2rad(), velocity], dim=-1).reshape(-1, 4)
expected = ensemble.predict(plane, torch.zeros(len(plane), 1), ensemble.elites).obs  # [K, N, D]
u = elite_disagreement(expected, ensemble.target_normalizer.std)
worth = penalized_reward(torch.ones(len(plane)), u, 2.0)
axes = new_axes(columns=2, width=5.4, height=3.8)
for ax, values, title, label, colors, dots in (
    (axes[0], u, "Disagreement of the elites", "u", "viridis", "white"),
    (axes[1], worth, "Reward 1, less 2 times that", "reward", "magma", "black"),
):
    picture = ax.pcolormesh(
        angle, velocity, values.view_as(angle), cmap=colors, shading="auto", rasterized=True
    )
    plt.colorbar(picture, ax=ax, label=label)
    ax.plot(everything[:, 2].rad2deg(), everything[:, 3], ".", color=dots, markersize=2.5)
    ax.set(
        xlabel="angle, degrees", ylabel="angular velocity, rad/s", title=title, xlim=(-25, 25), ylim=(-5, 5)
    )
    ax.grid(visible=False)
plt.show()

# %% [markdown]
# Among the data the price is small, and outside it grows, above and below most of all. Whether an agent that
# still *collects* data should pay it is another question: it would never find out what is there. The
# experiments measure that.

# %% [markdown]
# ## How far to trust the model?

# %% [markdown] exercise="best-length" number="7.8" title="The bound's best k" points=4 difficulty=3 minutes=20
# The paper's title is a question, and its theory an answer. A policy that was improved in $k$-step branched
# rollouts may be worse in the world than in the rollouts. By how much, at most? Let $\epsilon_\pi$ be how far
# the new policy is from the one that collected the real states, and $\epsilon_m'$ how wrong the model is under
# the new policy, both as total variation between 0 and 1. Theorem 4.3 of Janner et al.:
#
# $$\text{gap}(k) = 2\, r_{\max} \left[ \frac{\gamma^{k+1} \epsilon_\pi}{(1 - \gamma)^2}
#   + \frac{\gamma^k \epsilon_\pi}{1 - \gamma} + \frac{k\, \epsilon_m'}{1 - \gamma} \right]$$
#
# The first two terms fall with $k$: longer rollouts depend less on where the old policy has been. The last one
# grows: each further step adds the model's error. The best $k$ is where their sum is smallest.
#
# **Predict first.** When does one more step pay? Subtract $\text{gap}(k + 1)$ from $\text{gap}(k)$; it becomes
# surprisingly simple.
#
# **Write two functions.**
#
# - `return_gap`: $k$ may be a number or a tensor of any shape, and the result has that shape.
# - `best_rollout_length` returns the $k$ among $0, 1, \dots,$ `max_length` with the smallest gap, an `int`; the
#   smallest one of them if there are several.
# - Both raise a `ValueError` if an error is outside $[0, 1]$ or $\gamma$ is outside $(0, 1)$. The given
#   `_check_errors` does that.

# %% kind="given" ref="mbpo_theory:_check_errors"

# %% kind="solution" of="best-length" ref="mbpo_theory:return_gap,best_rollout_length"
# return_gap:
# TODO: check the errors; the three terms, with k as a float64 tensor
# best_rollout_length:
# TODO: the gap for 0 ... max_length, and where it is smallest

# %% [markdown]
# <details><summary>Hint: numbers and tensors</summary>
#
# `k = torch.as_tensor(rollout_length, dtype=torch.float64)` takes both, and `gamma ** k` works with tensors.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# $\text{gap}(k) - \text{gap}(k+1) = \frac{2 r_{\max}}{1 - \gamma} \left( \gamma^k \epsilon_\pi - \epsilon_m'
# \right)$. One more step pays as long as $\gamma^k \epsilon_\pi > \epsilon_m'$. So if the model is worse than
# the policies are apart, $\epsilon_m' \geq \epsilon_\pi$, it is best not to use it at all: $k = 0$.
# </details>

# %% kind="test" of="best-length" points=2
k = torch.tensor([0.0, 1.0, 5.0])
gap = return_gap(k, 0.2, 0.3, 0.9, 3.0)
first, second, third = 0.9 ** (k + 1) * 0.3 / 0.01, 0.9**k * 0.3 / 0.1, k * 0.2 / 0.1
check_close(
    "return_gap of k = 0, 1, 5",
    gap,
    6 * (first + second + third),
    mistakes={
        "the factor 2 is missing": 3 * (first + second + third),
        "max_reward is missing": 2 * (first + second + third),
        "the first term has gamma to the power of k, expected k + 1": 6 * (first / 0.9 + second + third),
        "the first term is divided by 1 - gamma, expected by its square": 6 * (first * 0.1 + second + third),
        "the model's term lacks its factor k": 6 * (first + second + torch.tensor(0.2 / 0.1)),
        "the two errors are swapped": 6 * ((first + second) / 1.5 + third * 1.5),
        "the model's term is not divided by 1 - gamma": 6 * (first + second + k * 0.2),
        "2 max_reward multiplies all three terms: brackets": 6 * first + second + third,
        "the model's term is divided by (1 - gamma) squared, expected by 1 - gamma": 6
        * (first + second + third / 0.1),
        "the second term is divided by (1 - gamma) squared, expected by 1 - gamma": 6
        * (first + second / 0.1 + third),
        "the first term is missing": 6 * (second + third),
        "the second term is missing": 6 * (first + third),
        "the model's term is subtracted, but its error adds up": 6 * (first + second - third),
    },
)
### BEGIN HIDDEN TESTS
check_close("return_gap of the number 3", return_gap(3, 0.3, 0.0, 0.5), 2 * 3 * 0.3 / 0.5)
check_close("return_gap with max_reward 5", return_gap(3, 0.3, 0.0, 0.5, 5.0), 5 * 2 * 3 * 0.3 / 0.5)
check_shape("return_gap of a table", return_gap(torch.arange(6).reshape(2, 3), 0.1, 0.1, 0.99), (2, 3))
for model_error, policy_error, gamma in ((-0.1, 0.1, 0.9), (0.1, 1.5, 0.9), (0.1, 0.1, 1.0), (0.1, 0.1, 0.0)):
    name = f"return_gap(1, {model_error}, {policy_error}, {gamma})"
    check_raises(name, ValueError, return_gap, 1, model_error, policy_error, gamma)
### END HIDDEN TESTS
print("Right: two terms fall, one grows.")

# %% kind="test" of="best-length" points=2
best = best_rollout_length(0.02, 0.3, 0.9)  # 0.9**25 * 0.3 > 0.02 > 0.9**26 * 0.3
smallest = 2 * (0.9**27 * 0.3 / 0.01 + 0.9**26 * 0.3 / 0.1 + 26 * 0.02 / 0.1)
check_close(
    "the best k for a model error of 0.02, a policy error of 0.3 and gamma = 0.9",
    best,
    26,
    mistakes={
        "it is the k with the largest gap": 1000,
        "return_gap gets the two errors in the wrong order: model_error comes first": 0,
        "k = 0 is missing among the lengths, so that each index means one step more": 25,
        "it is the smallest gap, expected the k where it is": smallest,
        "it is the smallest gap, cut off to a whole number, expected the k where it is": int(smallest),
    },
    hint="does return_gap pass its own check?",
)
check_close(
    "the best k for a model that is worse than the old data",
    best_rollout_length(0.4, 0.3, 0.9),
    0,
    mistakes={"k = 0 is left out, but it is allowed, and best here": 1},
)
check_close(
    "the best k of a perfect model, with max_length = 40",
    best_rollout_length(0.0, 0.3, 0.9, 40),
    40,
    mistakes={"max_length itself is left out": 39, "max_length has no effect": 1000},
)
check_true(isinstance(best, int), "the best length is no whole number (int)")
### BEGIN HIDDEN TESTS
for model_error, policy_error, gamma in (
    (0.01, 0.5, 0.99),
    (0.003, 0.2, 0.95),
    (0.2, 0.21, 0.8),
    (0.1, 0.9, 0.5),
):
    k = 0
    while gamma**k * policy_error > model_error:
        k += 1
    check_close(
        f"the best k for {model_error}, {policy_error}, {gamma}",
        best_rollout_length(model_error, policy_error, gamma),
        k,
    )
check_raises("a policy error of 2", ValueError, best_rollout_length, 0.1, 2.0, 0.9)
check_close("the best k where nothing matters", best_rollout_length(0.0, 0.0, 0.9), 0)
### END HIDDEN TESTS
print("Right: how far the theory would go.")

# %% [markdown]
# The theory wants two more things of the world. $\epsilon_m'$ is the model's error under the *new* policy; to
# first order it is the error on the data plus a slope times how far the policy has moved (Section 4.3). And
# total variation can't be measured, but the **compounding error** can: how far the model is from the truth
# after $k$ steps of its own.

# %% kind="given" ref="mbpo_theory:compounding_error,shifted_model_error"

# %% [markdown]
# On the left your bound with its best $k$ for four model errors. On the right the compounding error of
# ensembles that were fitted to 50, 200 and 800 random steps with the cart-pole, on fresh episodes. An error of
# 1 is as bad as guessing any state.

# %%
axes = new_axes(columns=2, width=5.4, height=3.8)
lengths = torch.arange(81)
for model_error, color in zip((0.3, 0.1, 0.03, 0.01), COLORS, strict=False):
    gap = return_gap(lengths, model_error, 0.2, 0.95)
    best = best_rollout_length(model_error, 0.2, 0.95)
    axes[0].plot(lengths, gap, color=color, label=rf"$\epsilon_m'$ = {model_error}: k = {best}")
    axes[0].plot(best, gap[best], "o", color=color, markersize=8, markeredgecolor="white")
axes[0].set(
    ylim=(0, 220),
    xlabel="k, steps of a rollout",
    ylabel="return gap, at most",
    title=r"The bound, with $\epsilon_\pi$ = 0.2",
)
axes[0].legend(
    loc="center right", bbox_to_anchor=(1.0, 0.68), title="model error: best k", title_fontsize=9.5
)
fresh = random_steps(balance, 1500, seed=7)
sequences = fresh.sample_sequences(300, 10, torch.Generator().manual_seed(0))
spread = fresh.all().obs.std(dim=0)
much = random_steps(balance, 800, seed=1)
for size, color in zip((50, 200, 800), COLORS, strict=False):
    model = fitted_ensemble(balance, much.all().take(slice(size)))

    def elite_step(obs, action, model=model):
        return model.step_random_elites(obs, action, generator=generator)[0]

    error = compounding_error(elite_step, sequences, spread)
    axes[1].semilogy(range(1, 11), error, "o-", color=color, label=f"{size} real steps", markersize=4)
axes[1].set(xlabel="k, steps of a rollout", ylabel="error, in standard deviations", title="Compounding error")
axes[1].legend(loc="lower right")
plt.show()

# %% [markdown]
# With more data the line on the right falls as a whole, and a longer rollout costs what a short one did before.
# That is the reason for the schedule. The bound itself is far too careful to be used as it is ($r_{\max}$ is
# 1, so no return here can exceed $1 / (1 - \gamma) = 20$, and even for a model error of 0.01 the bound allows a
# gap of 31). Take its shape from it, not its numbers.

# %% [markdown]
# ## All together
#
# `MBPO` is what you wrote, and a loop. After each real step: if it is time, fit the model and imagine; then a
# few updates of SAC on mixed batches. Read `learn`, `imagine` and `update`. The termination function can be
# learned, too (`LearnedTermination`); that one is yours to write below, as a bonus.

# %% [markdown] exercise="learned-termination" number="7.9" title="When does an episode end?" points=3 difficulty=3 minutes=30 bonus=true
# So far the task said when an episode ends. A robot's task may come without such a formula, but the ends are in
# the data: `terminated`. A classifier can learn them from the next states. There is one difficulty: an episode
# of 500 steps has one end at most, and a classifier that always says "no" is right in 99.8 % of all cases.
#
# So half of each mini-batch is made of ends, drawn with replacement, and the other half of the rest.
#
# **Predict first.** The data hold 10 ends among 10,000 transitions, some of them very much alike. Which states
# will such a classifier take for ends more often than it should, compared with one that learns from plain
# batches?
#
# **Write two pieces.**
#
# - `balanced_rows`: row numbers of a mini-batch. The first half of them ended an episode, the second half did
#   not; both are drawn at random, with replacement, from `generator`.
# - `LearnedTermination.fit`: sets `can_end` if any end is there (it is never set back). Without an end, or
#   without anything else, nothing is learned: it returns an empty list. Otherwise it fits the normalizer to the
#   next states, and makes `num_steps` steps of a fresh Adam on `binary_cross_entropy_with_logits` of
#   `self.logits` on balanced batches. The learning rate falls in a straight line: in step $t$ = 0, 1, ... it
#   is `learning_rate * (1 - t / num_steps)`. It returns the loss of each step.

# %% kind="solution" of="learned-termination" ref="learned_termination:balanced_rows,LearnedTermination.fit"
# balanced_rows:
# TODO: the rows that ended and the rows that did not; half a batch of each
# fit:
# TODO: has an end been seen? Is there anything to learn?
# TODO: normalizer, optimizer, and the steps

# %% [markdown]
# <details><summary>Hint: rows where something is true</summary>
#
# `terminated.nonzero().squeeze(1)` are the numbers of the rows that are True.
# </details>
# <details><summary>Hint: the learning rate</summary>
#
# `optimizer.param_groups[0]["lr"] = ...` before each step.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# Those near the border. A balanced batch tells the classifier that half of all states are ends, so in doubt it
# says yes. In MBPO a false end costs the return behind it: the policy learns to keep away from the border.
# </details>


# %% kind="given"
def end_example(
    states: Tensor,
    ended: Tensor,
    questions: Tensor,
    num_steps: int = 200,
    then: Tensor | None = None,
    learning_rate: float = 1e-2,
) -> dict[str, Any]:
    """Fits your classifier to states and ends, and asks it before and after; `then`: data without any end."""

    def transitions(next_obs: Tensor, flags: Tensor) -> Batch:
        zeros = torch.zeros(len(next_obs))
        cut = (torch.arange(len(flags)) % 5 == 0) & ~flags  # cut off by the clock: no ends
        return Batch(torch.zeros_like(next_obs), zeros[:, None], zeros, next_obs, flags, cut)

    generator = torch.Generator().manual_seed(0)
    states, questions = torch.as_tensor(states).float(), torch.as_tensor(questions).float()
    learned = LearnedTermination(states.shape[1], (32,), generator)
    before = learned(questions)
    data = transitions(states, torch.as_tensor(ended))
    losses = learned.fit(
        data, num_steps=num_steps, batch_size=64, learning_rate=learning_rate, generator=generator
    )
    if then is not None:
        then = torch.as_tensor(then).float()
        learned.fit(transitions(then, torch.zeros(len(then), dtype=torch.bool)), num_steps=5)
    return {"before": before, "losses": losses, "after": learned(questions), "can_end": bool(learned.can_end)}


def end_losses(num_steps: int, learning_rate: float) -> dict[str, Tensor]:
    """Your losses of a straight line through x = 3, which ends, and x = -1/3, nine times, which does not."""
    states = torch.tensor([[3.0], *[[-1 / 3]] * 9])  # mean 0, standard deviation 1
    zeros, ended = torch.zeros(10), torch.arange(10) == 0
    data = Batch(states * 0, zeros[:, None], zeros, states, ended, ended & False)
    learned = LearnedTermination(1, (), torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = learned.logits(states[:2]).clone()
    losses = learned.fit(data, num_steps=num_steps, batch_size=8, learning_rate=learning_rate)
    assert losses is not None, "fit returned None: is a `return` missing?"
    return {"logits": logits, "losses": torch.tensor([float(loss) for loss in losses])}


# %% kind="test" of="learned-termination" points=1
ended = torch.zeros(1000, dtype=torch.bool)
ended[[3, 500, 998]] = True
rows = check_shape(
    "balanced_rows",
    balanced_rows(ended, 60, torch.Generator().manual_seed(0)),
    (60,),
    {
        (33,): "draw with replacement, as there are three ends only",
        (120,): "B rows in all: B / 2 ends, and B / 2 others",
    },
)
flags = ended[rows.long()]
check_close(
    "which of the 60 rows ended an episode",
    flags.double(),
    torch.cat([torch.ones(30), torch.zeros(30)]),
    mistakes={
        "the ends come last, expected first": torch.cat([torch.zeros(30), torch.ones(30)]),
        "there is no end among them: half of the batch is made of ends": torch.zeros(60),
    },
    hint="the first half ended, the second half did not; are these rows of `terminated`?",
)
check_true(len(set(rows[:30].tolist())) == 3, "draw the ends at random: one of three is missing in 30 draws")
check_true(len(set(rows[30:].tolist())) > 25, "draw the others at random, too")
### BEGIN HIDDEN TESTS
again = balanced_rows(ended, 60, torch.Generator().manual_seed(0))
check_close("the rows with the same seed", again, rows, hint="use generator")
rows = as_tensor(
    "rows", balanced_rows(torch.tensor([True, False, True]), 4000, torch.Generator().manual_seed(1))
)
check_between("the share of row 0 among the ends", (rows[:2000] == 0).double().mean(), 0.45, 0.55)
check_close("the rows that did not end", rows[2000:], torch.ones(2000))
### END HIDDEN TESTS
print("Right: half of a batch are ends.")

# %% kind="test" of="learned-termination" points=2
answer = end_losses(6, 0.5)
first = as_tensor("logits", answer["logits"]).double()  # of x = 3 and x = -1/3, before the first step
ways = torch.tensor([[3.0, 1.0], [-1 / 3, 1.0]]).double()  # how they change with the slope and the offset


def by_hand(
    rates, piled_up=False, inputs=ways, ended=(1.0, 0.0)
):  # Adam for a straight line, with these learning rates
    line, losses = torch.linalg.solve(ways, first), []
    gradient, m, v = torch.zeros(2).double(), torch.zeros(2).double(), torch.zeros(2).double()
    for t, rate in enumerate(rates, start=1):
        logits = inputs @ line
        losses.append(softplus(logits * (1 - 2 * torch.tensor(ended))).mean())
        error = torch.sigmoid(logits) - torch.tensor(ended)
        gradient = gradient * piled_up + (error[:, None] * inputs).mean(dim=0)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        line = line - rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return torch.stack(losses)


falling = [0.5 * (1 - t / 6) for t in range(6)]
losses = check_shape("the losses of 6 steps", answer["losses"], (6,), "one for each step").double()
check_close(
    "the losses of 6 steps, for a straight line",
    losses,
    by_hand(falling),
    mistakes={
        "nothing is learned: was optimizer.step() called, and zero_grad() before backward()?": by_hand(
            [0.0] * 6
        ),
        "the learning rate does not fall": by_hand([0.5] * 6),
        "the learning rate falls too early: t is 0 in the first step": by_hand([*falling[1:], 0.0]),
        "it is upside down: 1 stands for an end": by_hand(falling, ended=(0.0, 1.0)),
        "gradients pile up: was optimizer.zero_grad() called?": by_hand(falling, piled_up=True),
        "the inputs are the states before the step, expected next_obs": by_hand(
            falling, inputs=torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double()
        ),
    },
    hint="is it the loss of the logits, on balanced batches, with one fresh Adam for all steps, and the learning rate "
    "of the text?",
    rtol=1e-3,
)
generator = torch.Generator().manual_seed(0)
states = torch.randn(2000, 2, generator=generator) * torch.tensor([100.0, 0.01]) + torch.tensor([500.0, 0.0])
questions = torch.randn(500, 2, generator=generator) * torch.tensor([100.0, 0.01]) + torch.tensor(
    [500.0, 0.0]
)
ended, truth = states[:, 1] > 0.015, questions[:, 1] > 0.015
result = end_example(states, ended, questions)
check_true(result["losses"] is not None, "fit returns None: is a `return` missing?")
check_true(
    len(result["losses"]) == 200,
    f"fit returned {len(result['losses'])} losses, expected one for each of 200 steps",
)
check_true(result["can_end"], "can_end was not set, though there are ends: nothing will ever terminate")
right = (as_tensor("after", result["after"]) == truth).double().mean()
hint = "its inputs have very different scales: was the normalizer fitted to the next states?"
check_between("the share of right answers about fresh states", right, 0.9, 1.0, hint)
check_true(not as_tensor("before", result["before"]).any(), "before any end was seen, nothing terminates")
### BEGIN HIDDEN TESTS
losses = torch.as_tensor([float(loss) for loss in result["losses"]])
check_between("the first loss", losses[0], 0.3, 1.5)
check_true(losses[-20:].mean() < 0.5 * losses[0], "the loss does not fall: are these logits?")
again = torch.as_tensor([float(loss) for loss in end_example(states, ended, questions)["losses"]])
check_close("the losses with the same seed", again, losses, hint="use generator")
nothing = end_example(states, torch.zeros_like(ended), questions)
check_true(
    nothing["losses"] is not None and len(nothing["losses"]) == 0,
    "no end in the data: expected an empty list",
)
hardly = end_example(states, ended, questions, num_steps=20, learning_rate=1e-9)["losses"]
check_true(
    max(map(float, hardly)) - min(map(float, hardly)) > 1e-4,
    "with next to no learning rate all losses are the same: draw a new mini-batch for each step",
)
check_true(not nothing["can_end"] and not as_tensor("after", nothing["after"]).any(), "no end was seen yet")
everything_ends = end_example(states, torch.ones_like(ended), questions)
check_true(len(everything_ends["losses"]) == 0, "every transition is an end: expected an empty list")
check_true(everything_ends["can_end"], "an end was seen, though nothing could be learned from it")
later = end_example(states, ended, questions, then=states[~ended])
check_true(later["can_end"], "can_end was set back by data without an end")
check_close(
    "the answers after a fit to data without an end", later["after"].double(), result["after"].double()
)
### END HIDDEN TESTS
print("Right: it has learned where episodes end.")

# %% kind="given" ref="mbpo:MBPOConfig,MBPO"

# %% [markdown]
# The classifier after the 400 real steps with the cart-pole, against the task's own rule: an angle of 12
# degrees. And what it would have learned from plain batches, where one transition in thirty is an end.

# %%
axes = new_axes(columns=2, width=5.0, height=3.6)
data = real.all()
for ax, balanced in zip(axes, (True, False), strict=True):
    chance = torch.Generator().manual_seed(0)
    learned = LearnedTermination(4, generator=chance)
    if balanced:
        learned.fit(data, generator=chance)
    else:
        learned.normalizer.fit(data.next_obs)
        optimizer = torch.optim.Adam(learned.parameters(), lr=3e-3)
        for _ in range(300):
            rows = torch.randint(len(data.obs), (256,), generator=chance)
            loss = binary_cross_entropy_with_logits(
                learned.logits(data.next_obs[rows]), data.terminated[rows].float()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        odds = learned.logits(plane).sigmoid().view_as(angle)
    picture = ax.pcolormesh(
        angle, velocity, odds, cmap="Blues", vmin=0, vmax=1, alpha=0.6, shading="auto", rasterized=True
    )
    ax.contour(angle, velocity, odds, levels=[0.5], colors=COLORS[3], linewidths=2)
    ax.plot([], [], color=COLORS[3], label="it changes its mind")
    ax.vlines([-12, 12], -5, 5, color="black", linestyle=":", linewidth=1.5, label="the task's rule")
    for flag, marker, size, name in ((False, ".", 3, "went on"), (True, "x", 6, "ended")):
        some = data.next_obs[data.terminated == flag]
        color = "black" if flag else GREY
        ax.plot(some[:, 2].rad2deg(), some[:, 3], marker, color=color, markersize=size, label=name)
    ax.set(xlabel="angle, degrees", title="Balanced batches" if balanced else "Plain batches", xlim=(-25, 25))
    ax.grid(visible=False)
axes[0].set_ylabel("angular velocity, rad/s")
plt.colorbar(picture, ax=axes[1], label="probability of an end")
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %% [markdown]
# The solid line is where the classifier changes its mind, the dotted ones are the truth, crosses are the ends
# that it has seen. Where there are crosses the balanced one finds the border. The plain one draws it further
# out, and misses ends on the left. In corners without any data both of them guess.
#
# ## A pole in a few hundred steps
#
# Now everything runs: an **untrained** agent balances the pole. 150 random steps, then eight updates of SAC for
# each real step. One agent imagines rollouts of ten steps after each fit of the model. The other one is the
# same program with rollouts of length 0: SAC, with as many updates. 200 is the highest return. It takes some
# ten seconds.

# %%
settings = dict(
    hidden_sizes=(64, 64),
    batch_size=128,
    learning_rate=1e-3,
    tau=0.01,
    initial_temperature=0.1,
    start_steps=150,
    updates_per_step=8,
    ensemble_size=5,
    num_elites=3,
    model_hidden_sizes=(64, 64),
    model_epochs=100,
    model_batch_size=32,
    model_every=75,
    num_rollouts=1000,
)
curves, agents = {}, {}
for name, lengths in {"MBPO, k = 10": (10, 10), "SAC, as many updates": (0, 0)}.items():
    agent = agents[name] = MBPO(balance, MBPOConfig(**settings, rollout_lengths=lengths), seed=1)
    curves[name] = []
    for steps in range(150, 401, 50):
        agent.train(steps)
        returns = evaluate(balance, agent.act, 5, seed=0, progress=False)
        curves[name].append((steps, returns.mean()))
    spent = agent.counters
    print(
        f"{name:21}: {spent.real_steps} real steps, {spent.imagined_steps:6,} imagined, "
        f"{spent.gradient_steps:,} updates of SAC, {spent.model_updates:,} of the model"
    )

# %%
ax = new_axes(width=6.4, height=3.8)[0]
for (name, points), color in zip(curves.items(), (COLORS[0], COLORS[1]), strict=True):
    ax.plot(*zip(*points, strict=True), "o-", color=color, label=name)
ax.axvspan(0, 150, color=GREY, alpha=0.12, linewidth=0)
ax.text(75, 185, "random actions", ha="center", color=GREY)
ax.set(xlim=(0, 410), ylim=(0, 210), xlabel="environment steps", ylabel="return, mean of 5 episodes")
ax.set_title("One seed: a look, not a result")
ax.legend(loc="center left")
plt.show()

# %% [markdown]
# Your numbers may differ from ours: another order of draws makes another agent. One seed shows that the code
# works, and nothing about which agent is better. `experiments.ipynb` compares them over twenty seeds.

# %%
env, agent = balance.make_env(), agents["MBPO, k = 10"]
obs, seen = torch.as_tensor(env.reset(seed=5)[0]), []
for _ in range(100):
    seen.append(torch.as_tensor(obs, dtype=torch.float32))
    obs, _, terminated, truncated, _ = env.step(balance.to_env_action(agent.act(seen[-1])))
    if terminated or truncated:
        break
episode_film(balance, torch.stack(seen), every=4, fps=12, title="the policy after 400 steps", progress=False)

# %% [markdown] exercise="multi-step" number="7.10" title="Many steps at once" points=3 difficulty=3 minutes=30 bonus=true
# A one-step model that is asked for $s_k$ feeds on its own predictions. Another way is to ask for $s_k$
# directly (Asadi et al., 2019):
#
# $$\hat{s}_k = s_0 + f_k(s_0, a_0, \dots, a_{k-1}), \qquad k = 1 \dots K$$
#
# Nothing compounds: each $f_k$ makes one error. But there are $K$ functions to learn, and they get harder with
# $k$. `MultiStepModel` has $K$ networks side by side, as an `EnsembleMLP` of $K$ members; all of them see $K$
# actions, and the later ones, which $s_k$ can't depend on, are replaced by zeros.
#
# **Predict first.** Which of the two models will be better at $k = 1$, and which at $k = 10$, on a pendulum
# with 2000 steps of data?
#
# **Write three pieces.**
#
# - `mask_later_actions`: from `[N, K, A]` to `[K, N, K * A]`. Row $k - 1$ holds $a_0 \dots a_{k-1}$, one after
#   the other, and zeros in place of the later ones.
# - `MultiStepModel.predict`: the states $s_1 \dots s_K$, `[N, K, D]`, in the units of the state.
#   `self._inputs(obs, actions)` are the networks' inputs. The networks return normalised changes **since
#   $s_0$**, `[K, N, D]`; `self.change_normalizer` knows changes as rows of $K \cdot D$ numbers: those of $k = 1$,
#   then those of $k = 2$, ... First call `self._check(obs, actions)`, which raises the `ValueError`.
# - `multi_step_errors`: $E_k$, the mean over trajectories and dimensions of the squared error of $\hat{s}_k$,
#   `[K]`.

# %% kind="given" ref="multistep:MultiStepConfig"

# %% kind="solution" of="multi-step" ref="multistep:mask_later_actions,MultiStepModel.predict,multi_step_errors"
# mask_later_actions:
# TODO: which of K actions does s_k know? A lower triangle of ones
# predict:
# TODO: normalised changes, [N, K, D]; denormalise them; add s_0
# multi_step_errors:
# TODO: predictions from the first states, against the states that followed

# %% [markdown]
# <details><summary>Hint: the triangle</summary>
#
# `torch.tril(torch.ones(K, K))` has $k$ ones in row $k - 1$. Multiply with broadcasting: `[K, 1, K, 1]` times
# `[N, K, A]` is `[K, N, K, A]`.
# </details>
# <details><summary>Hint: the axes in predict</summary>
#
# `x.transpose(0, 1)` makes `[N, K, D]` of `[K, N, D]`; `flatten(1)` makes rows of $K \cdot D$; `view_as` or
# `reshape` leads back.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The picture below has it. At $k = 1$ both learn the same function.
# </details>


# %% kind="given"
class _SumOfActions(nn.Module):
    """A network for tests: predicts the sum of the known actions, and the first number of the state."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[K, N, 2 + K] -> [K, N, 2]."""
        return torch.stack([inputs[..., 2:].sum(dim=-1), inputs[..., 0]], dim=-1)


def predict_example(
    obs: Tensor, actions: Tensor, changes: Tensor, num_steps: int = 3, inputs_too: bool = False
) -> Tensor:
    """Your `predict` with `_SumOfActions` for networks, and a normalizer fitted to `changes` [M, K * 2].

    With `inputs_too`, those of states and actions are fitted as well, to -1, 1, 3, 5 in each dimension.
    """
    model = MultiStepModel(2, 1, MultiStepConfig(num_steps=num_steps, hidden_sizes=(4,)))
    model.network = _SumOfActions()
    model.change_normalizer.fit(torch.as_tensor(changes).float())
    if inputs_too:
        numbers = torch.tensor([-1.0, 1.0, 3.0, 5.0])[:, None]  # mean 2, standard deviation sqrt(5)
        model.obs_normalizer.fit(numbers.expand(-1, 2))
        model.action_normalizer.fit(numbers)
    return model.predict(torch.as_tensor(obs).float(), torch.as_tensor(actions).float())


def errors_example(obs: Tensor, actions: Tensor) -> Tensor:
    """Your `multi_step_errors` of a model that predicts the first state plus the sum of the actions so far."""
    model = MultiStepModel(obs.shape[2], actions.shape[2], MultiStepConfig(num_steps=actions.shape[1]))
    model.predict = lambda obs, actions: obs.unsqueeze(1) + actions.cumsum(dim=1)
    return multi_step_errors(model, torch.as_tensor(obs).float(), torch.as_tensor(actions).float())


# %% kind="test" of="multi-step" points=1
actions = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])  # [N, K, A]
given = actions.clone()
masked = mask_later_actions(given)
check_unchanged("actions", given, actions, "mask a copy, or multiply")
masked = check_shape(
    "mask_later_actions",
    masked,
    (3, 1, 6),
    {
        (1, 3, 6): "k comes first: [K, N, K * A]",
        (3, 1, 3, 2): "the actions of a row stand one after the other",
    },
)
check_close(
    "mask_later_actions",
    masked[:, 0],
    [[1.0, 2, 0, 0, 0, 0], [1.0, 2, 3, 4, 0, 0], [1.0, 2, 3, 4, 5, 6]],
    mistakes={
        "the first row knows no action, but s_1 depends on a_0": [
            [0.0] * 6,
            [1.0, 2, 0, 0, 0, 0],
            [1.0, 2, 3, 4, 0, 0],
        ],
        "later actions are not hidden": [[1.0, 2, 3, 4, 5, 6]] * 3,
        "earlier actions are hidden": [[1.0, 2, 3, 4, 5, 6], [0, 0, 3.0, 4, 5, 6], [0, 0, 0, 0, 5.0, 6]],
        "only the latest action is left": [[1.0, 2, 0, 0, 0, 0], [0, 0, 3.0, 4, 0, 0], [0, 0, 0, 0, 5.0, 6]],
    },
)
### BEGIN HIDDEN TESTS
actions = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
masked = as_tensor("masked", mask_later_actions(actions))
for k in range(1, 5):
    known = torch.cat([actions[:, :k].flatten(1), torch.zeros(5, 3 * (4 - k))], dim=1)
    check_close(f"what s_{k} may depend on", masked[k - 1], known)
### END HIDDEN TESTS
print("Right: no s_k sees the future.")

# %% kind="test" of="multi-step" points=1
generator = torch.Generator().manual_seed(0)
obs, actions = torch.randn(4, 2, generator=generator), torch.randn(4, 3, 1, generator=generator)
plain = torch.tensor([[-1.0] * 6, [1.0] * 6])  # mean 0, standard deviation 1: nothing to denormalise
change = torch.stack([actions[..., 0].cumsum(dim=1), obs[:, :1].expand(4, 3)], dim=-1)  # [N, K, D]
start = obs.unsqueeze(1)
check_close(
    "predict, where the change is the sum of the known actions",
    predict_example(obs, actions, plain),
    start + change,
    mistakes={
        "these are changes: add s_0": change,
        "the changes are summed up over k, but each is a change since s_0": start + change.cumsum(dim=1),
        "reshape does not swap axes: use transpose(0, 1)": start + change.transpose(0, 1).reshape(4, 3, 2),
    },
)
changes = torch.randn(50, 6, generator=generator) * torch.tensor([1.0, 2, 3, 4, 5, 6]) + torch.arange(6.0)
mean, std = changes.mean(dim=0).view(3, 2), changes.std(dim=0, correction=0).view(3, 2)
check_close(
    "predict, in the units of the state",
    predict_example(obs, actions, changes),
    start + mean + std * change,
    mistakes={
        "the changes are still normalised": start + change,
        "the changes are normalised once more, expected denormalised": start + (change - mean) / std,
        "the normalizer's numbers are in the wrong places: k first, then the dimension": start
        + (changes.mean(0) + changes.std(0, correction=0) * change.transpose(1, 2).flatten(1))
        .view(4, 2, 3)
        .transpose(1, 2),
    },
    rtol=1e-3,
    atol=1e-4,
)
z_obs, z_actions = (obs - 2) / 5**0.5, (actions - 2) / 5**0.5
change = torch.stack([z_actions[..., 0].cumsum(dim=1), z_obs[:, :1].expand(4, 3)], dim=-1)
check_close(
    "predict, where states and actions are normalised",
    predict_example(obs, actions, plain, inputs_too=True),
    start + change,
    hint="the networks see what self._inputs(obs, actions) returns",
)
### BEGIN HIDDEN TESTS
few = actions[:, :2]
check_raises("two actions for a model of three steps", ValueError, predict_example, obs, few, plain)
### END HIDDEN TESTS
print("Right: K states at once.")

# %% kind="test" of="multi-step" points=1
generator = torch.Generator().manual_seed(1)
actions = torch.randn(7, 5, 2, generator=generator)
obs = torch.cat([torch.zeros(7, 1, 2), actions.cumsum(dim=1)], dim=1) + torch.randn(
    7, 1, 2, generator=generator
)
errors = errors_example(obs, actions)
each = {
    (5, 2): "average over the dimensions, too",
    (): "one for each k",
    (7,): "one for each k, not each trajectory",
}
check_shape("multi_step_errors", errors, (5,), each)
check_close(
    "multi_step_errors of a perfect model",
    errors,
    torch.zeros(5),
    mistakes={
        "the first prediction is s_1: compare with s_1 ... s_K": actions.square().mean(dim=(0, 2)),
    },
)
noise = torch.randn(7, 6, 2, generator=generator) * torch.arange(6.0)[:, None]
noise[:, 0] = 0
squared = noise[:, 1:].square()
check_close(
    "multi_step_errors",
    errors_example(obs + noise, actions),
    squared.mean(dim=(0, 2)),
    mistakes={
        "the root was taken": squared.mean(dim=(0, 2)).sqrt(),
        "errors are not squared": squared.sqrt().mean(dim=(0, 2)),
        "the sum over dimensions, expected the mean": 2 * squared.mean(dim=(0, 2)),
        "errors are summed over k": squared.mean(dim=(0, 2)).cumsum(dim=0),
    },
    rtol=1e-3,
)
### BEGIN HIDDEN TESTS
check_shape("multi_step_errors of one step", errors_example(obs[:, :2], actions[:, :1]), (1,))
### END HIDDEN TESTS
print("Right: E_1 to E_K.")

# %%
pendulum = get_task("pendulum")
steps = random_steps(pendulum, 2000, seed=0)
unseen = random_steps(pendulum, 1000, seed=1)
K, generator = 10, torch.Generator().manual_seed(0)


def stretches(buffer, count):
    drawn = buffer.sample_sequences(count, K, generator)
    return torch.cat([drawn.obs, drawn.next_obs[:, -1:]], dim=1), drawn.action  # [B, K + 1, D], [B, K, A]


multi = MultiStepModel(3, 1, MultiStepConfig(num_steps=K, hidden_sizes=(64, 64), batch_size=128), generator)
multi.fit(*stretches(steps, 4000), num_updates=600, generator=generator)
single = DynamicsModel(3, 1, DynamicsConfig(hidden_sizes=(64, 64), batch_size=128), generator=generator)
single.fit(steps.all(), num_steps=600, generator=generator)
obs, actions = stretches(unseen, 500)
ax = new_axes(width=6.4, height=3.8)[0]
with torch.no_grad():
    one_by_one = k_step_errors(lambda s, a: single.predict(s, a)[0], obs, actions)
ax.semilogy(range(1, K + 1), one_by_one, "o-", color=COLORS[0], label="one-step model, ten times")
ax.semilogy(
    range(1, K + 1), multi_step_errors(multi, obs, actions), "s-", color=COLORS[1], label="multi-step model"
)
ax.set(xlabel="k, steps predicted", ylabel="$E_k$, squared units of the state")
ax.set_title("Pendulum: 2000 steps of data, 600 updates each")
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# Here the one-step model is better for every $k$, and about forty times better at $k = 10$. Its function is simple
# and soon learned, so there is little to compound; the multi-step model has to learn what ten actions do
# together, from the same data. Is that always so? The course has measured both with more and less data, with networks
# of four units (`small networks`), and without the angular velocity (`part of the state`): medians over five seeds.

# %%
print(shipped_note("multi-step"))
if (measured := shipped("multi-step")) is not None:
    axes = new_axes(columns=3, width=4.0, height=3.6)
    kinds, sizes = {"one-step": COLORS[0], "multi-step": COLORS[1]}, {"500": ":", "2000": "--", "8000": "-"}
    for ax, (situation, part) in zip(axes, measured.groupby("metric", sort=False), strict=True):
        for model, rows in part.groupby("model", sort=False):
            kind, size = model.removesuffix(" steps").split(", ")
            median = rows.groupby("step")["value"].median()
            ax.semilogy(median.index, median, sizes[size], color=kinds[kind], label=model)
        ax.axhline(1.0, color=GREY, linewidth=1, label="the mean state")
        ax.set(xlabel="k, steps predicted", title=situation)
    axes[0].set_ylabel("root of $E_k$, std of the state")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plt.show()
    last = measured[measured["step"] == measured["step"].max()]
    for (situation, model), rows in last.groupby(["metric", "model"], sort=False):
        if model.startswith("multi"):
            one = last[(last["metric"] == situation) & (last["model"] == model.replace("multi", "one"))]
            ahead = (rows["value"].to_numpy() < one["value"].to_numpy()).sum()
            ratio = rows["value"].median() / one["value"].median()
            print(f"{situation}, {model}: {ratio:5.2f} times the one-step error, ahead in {ahead} seeds")

# %% [markdown]
# The dotted lines have 500 steps of data, the dashed ones 2000, the others 8000; at the grey line a model is as bad as one that
# always answers with the mean state. With the whole state the one-step model is ahead at ten steps in every seed, by a factor of ten with 500 steps of data and of two with 8000.
# Networks of four units make both bad, and nobody wins. Where a part of the state is hidden the multi-step model
# needs data, and then it is ahead: with 500 steps in no seed, with 2000 and with 8000 in all. Neither of the two can know the
# velocity, and at ten steps the multi-step model, with enough data, is about as bad as the mean state (1.11 and 1.04 times its error).
# But it knows that it can't know: for each $k$ it learns the mean of what may follow. The one-step model feeds its guess to itself as if
# it were the truth, and ends a third worse than the mean.
#
# ## What to take along
#
# - SAC learns from any transition of any age, and keeps a price on randomness. Mind the slope of $\tanh$, and
#   mind that nothing follows an end.
# - MBPO fills a buffer with short rollouts that branch off real states: the states of long episodes, the errors
#   of short rollouts.
# - Elites are drawn at random, ends are respected, and what is old is forgotten.
# - How long? As long as one more step of the model does less harm than the age of the data. More data, longer
#   rollouts.
# - Count real steps, imagined steps *and* updates. SAC with as many updates is the fair opponent.
#
# ## Test yourself
#
# <details><summary>1. Why is <code>truncated</code> False at the end of an imagined rollout, and what would happen
# if it were written as <code>terminated</code>?</summary>
#
# The rollout is cut off, but the world goes on: the critic's target bootstraps from the last state. As
# `terminated`, every state would be worth at most $k$ rewards, and the policy would learn to live for $k$ steps.
# </details>
# <details><summary>2. SAC may learn from transitions of any age and any policy. Why, then, does MBPO forget
# imagined ones after a few fits?</summary>
#
# Because of the model, above all: the old transitions are its old errors, and SAC would go on learning them. A real
# transition stays true. The policy is the smaller reason (7.5): SAC may learn from what older policies did, but an old
# rollout shows states to which an older policy led, and new ones cost little.
# </details>
# <details><summary>3. A colleague sets <code>real_ratio = 1</code> and keeps everything else. What is left of
# MBPO, and what does it cost?</summary>
#
# SAC with many updates per step. The model is still fitted, and rollouts are still made, but nobody reads them:
# all of that time is wasted.
# </details>
# <details><summary>4. The model's reward is learned and too high by 5 in a place where nobody has been. Which parts
# of MBPO protect the agent, and which don't?</summary>
#
# Branching protects it until rollouts get there; the penalty, if the elites disagree there. Random elites only
# help if not all of them share the error. What helps in the end is going there: the next fit has the truth.
# </details>
# <details><summary>5. After a fit, the best k of the bound is 0. Should the agent stop imagining?</summary>
#
# The bound is a worst case, with total variation, which is never small for deterministic worlds. It says which way
# to go, not how far. Try it, and measure: that is what experiments are for.
# </details>
#
# ## Where next
#
# `experiments.ipynb` beside this notebook runs on *your* functions: MBPO against SAC at equal steps, rollouts of
# 0, 1 and 10 steps, real ratios, penalties, and where the time goes. MOPO (Yu et al., 2020) has a
# penalty like this week's, for learning without any new data. Dreamer (Hafner et al., 2020) imagines in a learned latent space and passes
# gradients through it; TD-MPC2 (Hansen et al., 2024) plans with a model and a value function at once. PILCO
# (Deisenroth and Rasmussen, 2011) came before them all: a policy that is improved by gradients through a Gaussian
# process. Next week is the clinic: ten promises of improvement, and which of them hold.
