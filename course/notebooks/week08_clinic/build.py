# %% [markdown]
# # Week 8 · The clinic
#
# A report lies on your desk. An engineer has tried ten "quick wins" for PETS and MBPO on cart-pole and
# pendulum, and every one of them worked:
#
# | | change | promised gain |
# |---|---|---|
# | 1 | initialise the networks by Xavier with a small gain | +15 to 25 % |
# | 2 | exploration noise that depends on the value function | +20 to 40 % |
# | 3 | plan with the ensemble's mean instead of one sampled member | +40 to 60 % |
# | 4 | a warm start that repeats the last action | +25 to 35 % |
# | 5 | reward shaping | +15 to 25 % |
# | 6 | batches of 512 | +10 to 20 % |
# | 7 | a learning-rate schedule | +8 to 15 % |
# | 8 | prioritized replay | +20 to 30 % |
# | 9 | 50 policy updates instead of 20 | +30 to 50 % |
# | 10 | the true reward function instead of a learned one | +40 to 60 % |
#
# You know all these methods by now. The report doesn't say how many runs there were, which of them are in the
# table, or of *what* these are percent. Which of the gains are real? This notebook makes the instruments, and
# `experiments` is the ward round: there each claim is put to the test.
#
# **After this notebook you can**
#
# - sum up a handful of runs by their interquartile mean, and say how far it can be trusted;
# - compute the probability that one agent beats another, and draw whole distributions of scores;
# - shape a reward without changing what is best, and say why that works;
# - compare agents at equal cost, whatever the cost is;
# - say "real", "harmful" or "not shown", and mean it.
#
# **Where it comes from**
#
# - Agarwal et al., 2021, [*Deep reinforcement learning at the edge of the statistical
#   precipice*](https://arxiv.org/abs/2108.13264): Sections 4.1 to 4.3 are exercises 8.1 to 8.4. Their
#   library, RLiable, made all intervals of this course so far. Now you write your own.
# - Ng, Harada and Russell, 1999, *Policy invariance under reward transformations*: potential-based shaping.
# - Henderson et al., 2018, [*Deep reinforcement learning that
#   matters*](https://arxiv.org/abs/1709.06560): how little of what is published can be had a second time.
#
# **How it goes.** Seven exercises, 30 points, about two hours; the notebook itself runs in half a minute.
# Fill in the cells that raise `NotImplementedError`. The checks below each of them tell at once whether your
# code is right, and what is likely wrong with it. When you hand in, hidden checks are added; they test
# nothing that the text does not say. One rule holds for all exercises: a function leaves the tensors that it is
# given as they are.

# %% kind="setup"
from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import matplotlib.pyplot as plt
import torch
from torch import Tensor

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
from mbrl_course.envs import get_task
from mbrl_course.envs.task import Task, observed
from mbrl_course.experiments import load_results
from mbrl_course.mpc import run_episode
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style

use_style()

# %% [markdown]
# ## An agent against itself
#
# To judge instruments one needs a patient whose illness is known. So here is an agent of which we know
# everything, because we made it up: seven of ten runs learn the task and earn about 180, three of ten don't
# and earn about 60. Agents like that are not rare: a run that finds the swing-up in time, and one that
# doesn't.


# %% kind="setup"
def made_up_runs(num_runs: int, num_seeds: int, generator: torch.Generator) -> Tensor:
    """Final returns of an agent that learns in 7 of 10 runs, [num_runs, num_seeds]: one experiment a row."""
    learned = torch.rand(num_runs, num_seeds, generator=generator) < 0.7
    noise = torch.randn(num_runs, num_seeds, generator=generator)
    return torch.where(learned, 180 + 10 * noise, 60 + 20 * noise)


# %% [markdown]
# The engineer compares "with" and "without", three seeds each, by their means. Let both be the same agent,
# and let five thousand engineers do this. **Predict first:** how many of them report a gain of 20 % or more?

# %%
generator = torch.Generator().manual_seed(0)
ax = new_axes(width=7)[0]
outline, filled = {"histtype": "step", "linewidth": 2, "zorder": 3}, {"alpha": 0.5}
for seeds, color, style in ((3, COLORS[3], outline), (10, COLORS[0], filled)):
    without, with_change = (made_up_runs(5000, seeds, generator).mean(dim=1) for _ in range(2))
    gain = 100 * (with_change / without - 1)
    share = (gain >= 20).double().mean()
    ax.hist(
        gain,
        bins=50,
        range=(-70, 150),
        color=color,
        label=f"{seeds} seeds: {100 * share:.0f} % above +20 %",
        **style,
    )
ax.axvline(20, color="black", linewidth=1.5, label="+20 %")
ax.set(
    xlabel="reported gain of a change that changes nothing, %",
    ylabel="engineers",
    title="The same agent, twice",
)
ax.legend()
plt.show()

# %% [markdown]
# With three seeds nearly a third of them have something to report, and those who lost 20 % won't write. With
# ten it is still one in six. Percentages make it worse: the gains run from below -60 % to above +140 %, because a
# small number below the line is easily doubled.

# %% [markdown] exercise="iqm" number="8.1" title="The interquartile mean" points=4 difficulty=1 minutes=10
# How should a handful of runs be summed up? One run that exploded drags the *mean* wherever it likes. The
# *median* doesn't care, but it looks at one or two runs and forgets all others. In between: sort the scores,
# drop the lowest and the highest quarter, and take the mean of the rest. This is the interquartile mean, IQM:
#
# $$\operatorname{IQM}(x_{(1)} \le \dots \le x_{(n)}) = \frac{1}{n - 2c} \sum_{i = c + 1}^{n - c} x_{(i)}
#   \qquad c = \lfloor n / 4 \rfloor$$
#
# In deep RL one has several tasks as well, so scores are a table `[seeds, tasks]`. The quarters are those of
# all scores together, not of each task.
#
# **Predict first.** Ten runs of the made-up agent: which of mean, median and IQM varies most from one
# experiment to the next? (It is not the one that most people name.)
#
# **Write `interquartile_mean`.**
#
# - `scores` is `[..., seeds, tasks]`; return `[...]`, one number for each table.
# - $n$ is seeds times tasks, and at each end exactly $\lfloor n / 4 \rfloor$ scores go. With three scores or
#   fewer none does.
# - `_check_scores` is given. It refuses what is no table of scores.

# %% kind="given" ref="clinic:_check_scores"

# %% kind="solution" of="iqm" ref="clinic:interquartile_mean"
# TODO: all scores of a table in one axis, sorted
# TODO: cut both ends, and take the mean

# %% [markdown]
# <details><summary>Hint: many tables at once</summary>
#
# `scores.flatten(-2)` makes one axis of the last two, and `sort(dim=-1).values` sorts along it. A slice
# `[..., cut : n - cut]` leaves the middle.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The median! See the left picture below. With seven good runs of ten it sits among the good ones most of the
# time, and falls into the gap whenever there are five. The mean varies least here. But one wild run, on the
# right, ruins the mean, while the IQM suffers far less: it is bad in neither case, and that is why it was
# chosen.
# </details>

# %% kind="test" of="iqm" points=2
scores = torch.tensor([8.0, 0, 100, 2, 9, 4, 10, 1])[:, None]  # [8, 1], sorted: 0 1 | 2 4 8 9 | 10 100
given = scores.clone()
value = check_shape(
    "interquartile_mean(scores)",
    interquartile_mean(given),
    (),
    {(1,): "flatten seeds and tasks into one axis first: the result has neither"},
)
check_unchanged("scores", given, scores, "sort a copy of them")
check_close(
    "the IQM of 0, 1, 2, 4, 8, 9, 10, 100",
    value,
    5.75,
    mistakes={
        "it is the plain mean: drop both quarters": 16.75,
        "it is the median": 6.0,
        "the scores are not sorted: the first and the last quarter of the *list* are gone": 28.75,
        "half a quarter is gone at each end, expected a whole one": 34 / 6,
        "only the lowest quarter is gone": 133 / 6,
        "only the highest quarter is gone, or it is torch.median, the lower one of two": 4.0,
    },
)
squares = torch.arange(10.0).square()[:, None]  # floor(10 / 4) = 2 go at each end
check_close(
    "the IQM of 0, 1, 4, 9, ... 81",
    interquartile_mean(squares),
    (4 + 9 + 16 + 25 + 36 + 49) / 6,
    mistakes={
        "n / 4 is rounded up, expected down (cut by number, not by quantiles)": (9 + 16 + 25 + 36) / 4,
        "it is divided by n / 2, expected by how many are left": (4 + 9 + 16 + 25 + 36 + 49) / 5,
    },
)
check_close(
    "the IQM of 0, 1, 5",
    interquartile_mean(torch.tensor([[0.0], [1.0], [5.0]])),
    2.0,
    mistakes={
        "with three scores or fewer none goes: n / 4 is rounded down, not to the nearest": 1.0,
        "nothing is left of it: where the cut is 0, the slice [cut:-cut] is empty": float("nan"),
    },
)
### BEGIN HIDDEN TESTS
for n, expected in ((1, 0.0), (2, 0.5), (3, 1.0), (4, 1.5), (5, 2.0)):
    check_close(f"the IQM of 0 .. {n - 1}", interquartile_mean(torch.arange(float(n))[:, None]), expected)
squares = torch.arange(7.0).square()[:, None]  # floor(7 / 4) = 1
check_close(
    "the IQM of 0, 1, 4, ... 36",
    interquartile_mean(squares),
    (1 + 4 + 9 + 16 + 25) / 5,
    mistakes={"n / 4 is rounded to the nearest, expected down": (4 + 9 + 16) / 3},
)
### END HIDDEN TESTS
print("Right: the middle half.")

# %% kind="test" of="iqm" points=2
scores = torch.tensor([[0.0, 100.0], [1.0, 101.0], [2.0, 104.0], [9.0, 109.0]])  # [4, 2]
check_close(
    "the IQM over two tasks",
    interquartile_mean(scores),
    (2 + 9 + 100 + 101) / 4,
    mistakes={
        "the quarters are those of each task; they should be those of all scores together": (1.5 + 102.5) / 2,
        "the quarters are those of each seed; they should be those of all scores together": 53.25,
    },
)
tables = torch.stack([scores, scores + 1000, -scores])  # [3, 4, 2]
value = check_shape(
    "the IQMs of three tables", interquartile_mean(tables), (3,), {(): "each table by itself: flatten(-2)"}
)
check_close("the IQMs of three tables", value, [53.0, 1053.0, -53.0], hint="each table by itself")
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
many = torch.randn(4, 5, 7, 2, generator=generator)
flat = many.flatten(2).sort(dim=-1).values  # [4, 5, 14], floor(14 / 4) = 3
check_close("the IQMs of 4 x 5 tables", interquartile_mean(many), flat[..., 3:11].mean(dim=-1))
### END HIDDEN TESTS
print("Right: any number of tables.")

# %% [markdown]
# Ten runs make an experiment. Here are 4000 experiments with the made-up agent, each summed up in three ways;
# and the same for an agent with one wild run in twenty. Each thin line is one of the first 400.

# %%
generator = torch.Generator().manual_seed(0)
steady = made_up_runs(4000, 10, generator)
wild = 150 + 10 * torch.randn(4000, 10, generator=generator)
wild = torch.where(torch.rand(4000, 10, generator=generator) < 0.05, wild - 600, wild)
averages = {
    "mean": lambda x: x.mean(dim=1),
    "median": lambda x: (x.sort().values[:, 4] + x.sort().values[:, 5]) / 2,
    "IQM": lambda x: interquartile_mean(x[..., None]),
}
axes = new_axes(columns=2)
for ax, runs, title in zip(axes, (steady, wild), ("3 of 10 runs fail", "1 of 20 runs explodes"), strict=True):
    for row, average in enumerate(averages.values()):
        values = average(runs)
        parts = ax.violinplot(
            values, positions=[row], orientation="horizontal", widths=0.8, showextrema=False, bw_method=0.1
        )
        parts["bodies"][0].set(facecolor=COLORS[row], alpha=0.7)
        ax.plot(values[:400], torch.full((400,), row), "|", color="black", markersize=9, alpha=0.1)
        ax.text(0.02, row + 0.15, f"std {values.std():.1f}", transform=ax.get_yaxis_transform())
    ax.set(yticks=range(3), yticklabels=averages, xlabel="result of an experiment of ten runs", title=title)
plt.show()

# %% [markdown] exercise="bootstrap" number="8.2" title="The bootstrap" points=7 difficulty=3 minutes=30
# Ten runs gave an IQM of 173. What would *another* ten runs have given? One would have to repeat the
# experiment a thousand times. The bootstrap repeats it with what is there: draw ten of the ten runs **with
# replacement**, so that some come twice and some not at all, and take their IQM. Again and again, $R$ times.
# The values scatter about as much as those of real repetitions would.
#
# With several tasks the draw is **stratified**: the runs of each task are drawn by themselves, so that every
# resample has as many runs of each task as the experiment had, and different runs for different tasks.
#
# The middle 95 % of the $R$ values are the *percentile interval*: from the quantile $(1 - c) / 2$ to the
# quantile $(1 + c) / 2$ with the confidence $c = 0.95$.
#
# **Predict first.** In how many of 100 experiments with three seeds does the 95 % interval hold the truth?
#
# **Write `resample_seeds` and `bootstrap_interval`.**
#
# - `resample_seeds` returns `[R, seeds, tasks]`. Each entry is drawn from the seeds of its own task, all
#   seeds being equally likely, independently of all other entries. All randomness comes from `generator`.
# - `bootstrap_interval` takes a `statistic` and the scores of one or more agents. The statistic takes
#   resamples `[R, seeds, tasks]`, one tensor for each agent, and returns `[R, ...]`: call it **once** with
#   all $R$ resamples. Each agent is resampled by itself.
# - `point` is the statistic of the samples themselves, *not* of resamples. To get it, give each sample a
#   first axis of length 1, and take the only row of what comes back. `low` and `high` are quantiles over the
#   first axis (`torch.quantile` as it is). All three are `[...]`, without the axis of the resamples.
# - A `confidence` outside (0, 1) is a `ValueError`.

# %% kind="given" ref="clinic:Interval"

# %% kind="solution" of="bootstrap" ref="clinic:resample_seeds,bootstrap_interval"
# resample_seeds:
# TODO: for each entry of [R, seeds, tasks] the number of a seed
# TODO: pick that seed's score of the same task
# bootstrap_interval:
# TODO: refuse a confidence that makes no sense
# TODO: the statistic of the resamples of all samples, [R, ...], and its quantiles
# TODO: the statistic of the samples themselves

# %% [markdown]
# <details><summary>Hint: picking scores</summary>
#
# `torch.randint(seeds, (R, seeds, tasks), generator=generator)` has the numbers. With `scores.expand(R, -1,
# -1)` as `[R, seeds, tasks]`, `gather(1, numbers)` picks along the axis of the seeds, and leaves the other
# two as they are.
# </details>
# <details><summary>Hint: several agents</summary>
#
# `samples` is a tuple. `statistic(*(... for sample in samples))` gives the statistic as many arguments as
# there are agents.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# In about 70. With three seeds, the bootstrap knows three numbers, and can't imagine a failing run that it
# has never seen. The picture below has the numbers.
# </details>

# %% kind="test" of="bootstrap" points=2
scores = torch.arange(5.0)[:, None] + torch.tensor([0.0, 100.0])  # [5, 2]; task 0: 0 .. 4, task 1: 100 .. 104
drawn = check_shape(
    "resample_seeds(scores, 2000)",
    resample_seeds(scores, 2000, torch.Generator().manual_seed(0)),
    (2000, 5, 2),
    {
        (2000, 5, 2, 2): "scores[numbers] takes whole rows; gather picks one score for each number",
        (2000, 4, 2): "as many seeds as the experiment had",
    },
)
check_true((drawn != drawn[:1]).any(), "all resamples are the same: draw for each of the R by itself")
check_true(
    set(drawn[..., 0].flatten().tolist()) <= set(range(5)),
    "task 0 got scores that are not its own: draw for each task by itself",
)
check_true(
    set(drawn[..., 1].flatten().tolist()) <= set(range(100, 105)),
    "task 1 got scores that are not its own: draw for each task by itself",
)
never = sorted(set(range(5)) - {int(score) for score in drawn[..., 0].flatten().tolist()})
check_true(not never, f"the seeds {never} were never drawn in 2000 resamples: all five are equally likely")
repeated = (drawn[..., 0].sort(dim=1).values.diff(dim=1) == 0).any(dim=1).double().mean()
check_true(
    repeated > 0,
    "no resample holds a score twice: it is a permutation; draw with replacement",
)
check_between(
    "share of resamples that hold a score twice", repeated, 0.93, 0.99, "expected 1 - 5! / 5^5 = 0.96"
)
same = (drawn[..., 1] - 100 == drawn[..., 0]).double().mean()
check_between(
    "how often both tasks drew the same seed",
    same,
    0.17,
    0.23,
    "expected 1 in 5: each task has draws of its own (1.0 would be: whole rows were drawn)",
)
### BEGIN HIDDEN TESTS
for task in range(2):
    for seed in range(5):
        for place in range(5):
            share = (drawn[:, place, task] == scores[seed, task]).double().mean()
            check_between(f"how often place {place} holds seed {seed}", share, 0.15, 0.25, "a fifth each")
again = [
    as_tensor("resamples", resample_seeds(scores, 20, torch.Generator().manual_seed(seed)))
    for seed in (1, 1, 2)
]
check_close("resamples with the same seed", again[1], again[0], hint="use generator")
check_true(not torch.equal(again[2], again[0]), "other seeds give the same resamples: use generator")
check_between(
    "how often two places drew the same seed", (drawn[:, 0] == drawn[:, 1]).double().mean(), 0.17, 0.23
)
### END HIDDEN TESTS
print("Right: drawn with replacement, task by task.")

# %% kind="test" of="bootstrap" points=2
calls = []


def counting(sample):  # 0, 1, 2, ... for the resamples: their quantiles are known
    calls.append(len(sample))
    return 10.0 + torch.arange(float(len(sample)))


result = bootstrap_interval(
    counting, torch.ones(4, 1), confidence=0.9, num_resamples=1001, generator=torch.Generator().manual_seed(0)
)
check_true(
    sorted(calls) == [1, 1001],
    f"statistic was called with {sorted(calls)[:5]} tables at a time, expected once with all 1001 resamples, "
    "and once with the sample itself, [1, seeds, tasks]",
)
check_true(result is not None and len(result) == 3, "expected an Interval of three: point, low, high")
point, low, high = result
check_shape("point", point, ())
check_close(
    "point",
    point,
    10.0,
    mistakes={
        "it is the middle of the resamples; expected the statistic of the sample itself": 510.0,
        "it is the low end: an Interval is point, low, high, in this order": 60.0,
    },
)
spread = 1.96 * torch.arange(1001.0).std().double()
check_close(
    "low and high at 90 %, of 1001 resamples with 10 .. 1010",
    [low, high],
    [60.0, 960.0],
    mistakes={
        "5 % are cut off in all, expected 10 %: 5 % at each end": [35.0, 985.0],
        "10 % are cut off at each end, expected 10 % in all": [110.0, 910.0],
        "it is 1.96 standard deviations around the mean, expected quantiles": [510 - spread, 510 + spread],
        "low and high are swapped": [960.0, 60.0],
    },
)
### BEGIN HIDDEN TESTS
point, low, high = bootstrap_interval(counting, torch.ones(4, 1), num_resamples=2001)
check_close("low and high at 95 % of 10 .. 2010", [low, high], [60.0, 1960.0])


def table(sample):  # [R, 3]
    return torch.arange(float(len(sample)))[:, None] * torch.tensor([1.0, 10.0, -1.0])


point, low, high = bootstrap_interval(table, torch.ones(2, 2), confidence=0.5, num_resamples=101)
for name, value, right in (
    ("point", point, [0, 0, 0]),
    ("low", low, [25, 250, -75]),
    ("high", high, [75, 750, -25]),
):
    check_close(f"{name} of a statistic [R, 3]", value, torch.tensor(right).double())
for confidence in (0.0, 1.0, 95, -0.1):
    sample = torch.ones(4, 1)
    check_raises(
        f"confidence={confidence}", ValueError, bootstrap_interval, counting, sample, confidence=confidence
    )
### END HIDDEN TESTS
print("Right: point, low and high.")

# %% kind="test" of="bootstrap" points=3
generator = torch.Generator().manual_seed(0)
x = torch.randn(60, 1, generator=generator)
given = []


def mean(sample):
    return torch.as_tensor(sample).mean(dim=(-2, -1))


def difference(x, y):
    given.append((tuple(x.shape), tuple(y.shape)))
    return mean(x) - mean(y)


point, low, high = bootstrap_interval(mean, x, num_resamples=4000, generator=generator)
check_close("point, the mean", point, x.mean())
width = 2 * 1.96 * x.std(correction=0) / 60**0.5  # what the central limit theorem says
check_between(
    "width of the interval of a mean, over that of the normal approximation",
    (high - low) / width,
    0.9,
    1.1,
    "draw as many scores as there are, with replacement",
)
point, low, high = bootstrap_interval(difference, x + 5, x, num_resamples=4000, generator=generator)
check_close("point, the difference of two means", point, 5.0)
check_true((high - low) > 1e-6, "both agents drew the same seeds: each sample is resampled by itself")
check_between(
    "width for a difference, over that of the normal approximation",
    (high - low) / (width * 2**0.5),
    0.9,
    1.1,
    "each sample is resampled by itself",
)
### BEGIN HIDDEN TESTS
point, low, high = bootstrap_interval(difference, x[:9], x[:5] * 2, num_resamples=50, generator=generator)
check_true(
    ((50, 9, 1), (50, 5, 1)) in given, "the agents may have different numbers of seeds: each keeps its own"
)
ends = [
    bootstrap_interval(mean, x, num_resamples=100, generator=torch.Generator().manual_seed(seed))[1]
    for seed in (3, 3, 4)
]
check_close("low with the same seed", ends[1], ends[0], hint="use generator")
check_true(float(ends[2]) != float(ends[0]), "other seeds give the same interval: use generator")
### END HIDDEN TESTS
print("Right: a bootstrap.")

# %% [markdown]
# On the left one experiment of ten runs: its resamples, and its interval, beside the truth, which we know in
# this one case. On the right the interval's own report card: how often it holds the truth. 400 experiments
# for each number of seeds, with the made-up agent and with a well-behaved one whose scores are Gaussian.

# %%
generator = torch.Generator().manual_seed(4)
truth = interquartile_mean(made_up_runs(1, 400_000, generator)[0][:, None])
runs = made_up_runs(1, 10, generator)[0][:, None]  # [10, 1]
interval = bootstrap_interval(interquartile_mean, runs, generator=generator)
axes = new_axes(columns=2)
resamples = interquartile_mean(resample_seeds(runs, 2000, generator))
axes[0].hist(resamples, bins=40, color=COLORS[0], alpha=0.5)
axes[0].axvspan(interval.low, interval.high, color=GREY, alpha=0.2, linewidth=0, label="95 % interval")
axes[0].axvline(interval.point, color=COLORS[0], label=f"IQM of the runs, {interval.point:.0f}")
axes[0].axvline(truth, color="black", linestyle="--", label=f"truth, {truth:.0f}")
axes[0].plot(
    runs[:, 0],
    torch.zeros(10),
    "o",
    color=COLORS[3],
    markersize=6,
    alpha=0.7,
    clip_on=False,
    label="the runs",
)
axes[0].set(xlabel="return, IQM of a resample", ylabel="resamples", ylim=(0, None))
axes[0].set_title("One experiment of ten runs")
axes[0].legend(loc="upper left")
sizes = (3, 5, 10, 20, 40)
for name, draw, target, color in (
    ("3 of 10 runs fail", made_up_runs, truth, COLORS[3]),
    ("Gaussian scores", lambda n, seeds, g: torch.randn(n, seeds, generator=g), 0.0, COLORS[2]),
):
    shares = []
    for size in sizes:
        held = 0
        for experiment in draw(400, size, generator):
            found = bootstrap_interval(
                interquartile_mean, experiment[:, None], num_resamples=300, generator=generator
            )
            held += int(found.low <= target <= found.high)
        shares.append(100 * held / 400)
    axes[1].plot(range(len(sizes)), shares, "o-", color=color, label=name)
    print(
        f"{name:18}",
        "  ".join(f"{size} seeds {share:.0f} %" for size, share in zip(sizes, shares, strict=True)),
    )
axes[1].axhline(95, color=GREY, linestyle="--", linewidth=1.2, label="what it promises")
axes[1].set_xticks(range(len(sizes)), [str(size) for size in sizes])
axes[1].set(xlabel="seeds", ylabel="intervals that hold the truth, %", ylim=(50, 100))
axes[1].set_title("Few seeds: the interval is too sure")
axes[1].legend(loc="lower right")
plt.show()

# %% [markdown]
# An interval of three seeds is decoration. From ten seeds on it does nearly what it promises, and this is why
# the claims are tried with ten.

# %% [markdown] exercise="improvement" number="8.3" title="Who would win?" points=5 difficulty=2 minutes=15
# By how much the average rises is one question. Another: if each of two agents is trained once, how likely is
# it that the new one comes out ahead? That is the **probability of improvement**, and it is estimated from
# all pairs of a run of X and a run of Y on the same task; a tie counts half:
#
# $$P(X > Y) = \frac{1}{T} \sum_{t = 1}^{T} \frac{1}{N_x N_y} \sum_{i = 1}^{N_x} \sum_{j = 1}^{N_y}
#   S(x_{it}, y_{jt}) \qquad S(x, y) = \begin{cases} 1 & x > y \\ \tfrac{1}{2} & x = y \\ 0 & x < y \end{cases}$$
#
# It has no unit, and one wild run counts as one wild run, however wild it is.
#
# **Predict first.** X earns 1 more than Y, and both scatter by a standard deviation of 10. How likely is X to
# win? And what does the probability say about *how much* better X is?
#
# **Write `probability_of_improvement`.**
#
# - `scores_x` is `[..., seeds of X, tasks]`, `scores_y` is `[..., seeds of Y, tasks]`; the numbers of seeds
#   may differ, and the leading axes are those of a bootstrap. Return `[...]`.
# - All pairs count, and runs are compared on the same task only. Then average over the tasks.
# - Different numbers of tasks are a `ValueError`.

# %% kind="solution" of="improvement" ref="clinic:probability_of_improvement"
# TODO: every run of X minus every run of Y on the same task, [..., seeds of X, seeds of Y, tasks]
# TODO: 1, 1/2 or 0 for each, and the mean

# %% [markdown]
# <details><summary>Hint: all pairs</summary>
#
# `scores_x.unsqueeze(-2)` is `[..., seeds of X, 1, tasks]`, and `scores_y.unsqueeze(-3)` is
# `[..., 1, seeds of Y, tasks]`: broadcasting makes the pairs.
# </details>
# <details><summary>Hint: 1, 1/2 or 0</summary>
#
# `sign()` is 1, 0 or -1.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# The difference of the two has mean 1 and standard deviation $10 \sqrt{2}$, so X wins with probability
# $\Phi(1 / 14.1) = 0.53$. About the size it says nothing: with a scatter of 0.1, the same gain of 1 wins
# always. It is a matter of how the gain compares to luck.
# </details>

# %% kind="test" of="improvement" points=2
x, y = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [3.0], [4.0], [5.0]])
value = check_shape("probability_of_improvement(x, y)", probability_of_improvement(x, y), ())
check_close(
    "X = 1, 4 against Y = 2, 3, 4, 5",
    value,
    2.5 / 8,
    mistakes={
        "a tie counts 0, expected 1/2 (or the mean of X is compared, expected all pairs)": 2 / 8,
        "a tie counts 1, expected 1/2": 3 / 8,
        "a tie counts 3/2, expected 1/2": 3.5 / 8,
        "run 1 is compared with run 1, run 2 with run 2, expected all pairs": 1 / 2,
        "it is the probability that Y beats X": 5.5 / 8,
        "it is the mean of the signs; a loss counts 0, not -1": -3 / 8,
        "the pairs are summed up, expected their mean": 2.5,
        "the averages are compared, expected all pairs of runs": 0.0,
        "it is the mean difference; count how often it is positive": -1.0,
    },
)
check_close("an agent against itself", probability_of_improvement(x, x), 0.5)
### BEGIN HIDDEN TESTS
check_close("always better", probability_of_improvement(y + 5, x), 1.0)
check_close("always worse", probability_of_improvement(x, y + 5), 0.0)
check_close("one wild run", probability_of_improvement(torch.tensor([[1e9], [0.0]]), y), 0.5)
### END HIDDEN TESTS
print("Right: all pairs.")

# %% kind="test" of="improvement" points=3
x = torch.tensor([[1.0, 100.0], [3.0, 300.0]])  # [2, 2]
y = torch.tensor([[2.0, 50.0], [0.0, 60.0], [0.5, 70.0]])  # [3, 2]
value = probability_of_improvement(x, y)
check_shape("two tasks", value, (), {(2,): "average over the tasks, too"})
check_close(
    "two tasks",
    value,
    (5 / 6 + 1) / 2,
    mistakes={"runs of different tasks were compared": 17 / 24},
    hint="for each task by itself, then the average: 5/6 and 1",
)
generator = torch.Generator().manual_seed(0)
many_x, many_y = torch.randn(6, 4, 2, generator=generator), torch.randn(6, 3, 2, generator=generator)
each = "each pair of tables by itself: count the axes from the end"
value = check_shape("for 6 pairs of tables", probability_of_improvement(many_x, many_y), (6,), each)
single = [float(probability_of_improvement(one, other)) for one, other in zip(many_x, many_y, strict=True)]
check_close("for 6 pairs of tables at once", value, single, hint="each pair of tables by itself")
### BEGIN HIDDEN TESTS
x, y = torch.randn(300, 1, generator=generator) + 1, torch.randn(200, 1, generator=generator)
check_between(
    "P(X > Y) of Gaussians one standard deviation apart", probability_of_improvement(x, y), 0.72, 0.80, "0.76"
)
brute = [
    sum(
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in one[:, task].round().tolist()
        for b in other[:, task].round().tolist()
    )
    / 12
    for one, other in zip(many_x, many_y, strict=True)
    for task in range(2)
]
expected = torch.tensor(brute).reshape(6, 2).mean(dim=1)
check_close("with ties", probability_of_improvement(many_x.round(), many_y.round()), expected)
two, one = torch.ones(3, 2), torch.ones(3, 1)
check_raises("two tasks against one", ValueError, probability_of_improvement, two, one)
### END HIDDEN TESTS
print("Right: task by task, resample by resample.")

# %% [markdown]
# Now a real patient. Claim 4 praises a warm start that *repeats the last action*. In week 3 the warm start of
# CEM was measured on the true cart-pole: ten seeds with a plan that is shifted and filled by its last action
# ("repeat"), by zeros ("zero"), or with no warm start at all ("none"). Every cell below is a pair of runs.

# %%
frame = load_results("warm-start", "laptop")
returns = {
    name: torch.tensor(group.sort_values("seed")["return"].to_numpy())[:, None]
    for name, group in frame.groupby("warm_start")
}  # each [10, 1]
generator = torch.Generator().manual_seed(0)
axes = new_axes(columns=2, width=4.6, height=4.2)
for ax, other in zip(axes, ("none", "zero"), strict=True):
    x, y = returns["repeat"], returns[other]
    wins = ((x.sort(dim=0).values - y.sort(dim=0).values.T).sign() + 1) / 2  # 1, a tie 0.5, lost 0
    ax.imshow(wins, origin="lower", cmap="BuGn", vmin=-0.3, vmax=1.4)
    found = bootstrap_interval(probability_of_improvement, x, y, generator=generator)
    ax.set(xlabel=f'runs with "{other}", worst to best', ylabel='runs with "repeat", worst to best')
    ax.set_title(f"P(better) = {found.point:.2f}, 95 %: {found.low:.2f} to {found.high:.2f}", fontsize=10.5)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    for edge in torch.arange(0.5, 9):
        ax.axhline(edge, color="white", linewidth=1.5)
        ax.axvline(edge, color="white", linewidth=1.5)
plt.show()

# %% [markdown]
# Green: "repeat" won; pale: it lost. Against no warm start at all the case is clear. Against a warm start that
# fills with zeros it is not: the interval lies around 1/2. So *a warm start* is a gain, and *that it repeats the last
# action* is not shown to be one. A claim is about the one thing that was changed. Always ask: compared to
# what?

# %% [markdown] exercise="profile" number="8.4" title="The whole distribution" points=4 difficulty=2 minutes=15
# Any single number hides something. A **performance profile** hides nothing: for each threshold $\tau$, the
# share of the runs that scored *above* it,
#
# $$\hat{F}(\tau) = \frac{1}{N T} \sum_{i, t} \mathbb{1}[x_{it} > \tau]$$
#
# If one agent's curve is above another's everywhere, it is better in every sense. If they cross, it depends
# on what is wanted: a few excellent runs, or no bad ones.
#
# To put several tasks into one picture, their scores need a common scale. And this answers a question from
# the beginning: percent of *what*? A pendulum's return of -150 instead of -200 is "25 % better". Pay 1 more
# for each of its 200 steps, which changes nothing for any agent, and it is 50 instead of 0: infinitely
# better. A scale needs two points that mean something. The course takes the random policy for 0, and a
# reference agent for 1:
#
# $$z = \frac{x - x_\text{random}}{x_\text{reference} - x_\text{random}}$$
#
# **Predict first.** Where does the profile of a perfectly reliable agent fall, and how? And what is the area
# under a profile, for scores between 0 and 1?
#
# **Write `normalized_scores` and `performance_profile`.**
#
# - `normalized_scores` takes `[..., seeds, tasks]` and, for each task, the two scores that become 0 and 1. The
#   caller's scores stay as they are.
# - `performance_profile` takes `[..., seeds, tasks]` and thresholds `[K]` in any order, and returns `[...,
#   K]`, floating-point numbers. A score that equals the threshold is not above it.

# %% kind="solution" of="profile" ref="clinic:normalized_scores,performance_profile"
# normalized_scores:
# TODO: one line; broadcasting treats each task by its own numbers
# performance_profile:
# TODO: each score against each threshold, then the share over seeds and tasks

# %% [markdown]
# <details><summary>Hint</summary>
#
# `scores.flatten(-2).unsqueeze(-1) > thresholds` is `[..., seeds * tasks, K]`.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# It is a step: 1 up to the one score that all runs have, 0 from there on. The area is the mean of the scores:
# $\mathbb{E}[x] = \int_0^1 P(x > \tau)\, d\tau$. So the mean is one number made of this curve, and not the
# only one that could be.
# </details>

# %% kind="test" of="profile" points=2
scores = torch.tensor([[-1200.0, 20.0], [-150.0, 200.0], [-675.0, 290.0]])  # pendulum, cart-pole
ends = torch.tensor([-1200.0, 20.0]), torch.tensor([-150.0, 200.0])  # random, reference
given = scores.clone(), ends[0].clone(), ends[1].clone()
z = check_shape("normalized_scores", normalized_scores(*given), (3, 2))
names = ("scores", "random_score", "reference_score")
for name, value, before in zip(names, given, (scores, *ends), strict=True):
    check_unchanged(name, value, before, "make a new tensor (scores - ..., not scores -= ...)")
check_close(
    "normalized_scores",
    z,
    [[0.0, 0.0], [1.0, 1.0], [0.5, 1.5]],
    mistakes={
        "the scores are divided by the reference alone": scores / torch.tensor([-150.0, 200.0]),
        "the scale is upside down: divide by reference less random": torch.tensor(
            [[0.0, 0.0], [-1.0, -1.0], [-0.5, -1.5]]
        ),
        "the zero is the reference's score, expected the random policy's": torch.tensor(
            [[-1.0, -1.0], [0.0, 0.0], [-0.5, 0.5]]
        ),
        "the ends of the scale are the smallest and the largest score, expected the two given ones": (
            scores + 1200
        )
        / 1490,
        "the ends of each task's scale are its smallest and largest score, expected the two given ones": (
            scores - scores.amin(dim=0)
        )
        / (scores.amax(dim=0) - scores.amin(dim=0)),
        "it is divided by the reference, expected by the distance from random to reference": torch.tensor(
            [[0.0, 0.0], [-7.0, 0.9], [-3.5, 1.35]]
        ),
    },
    hint="random has 0, the reference 1, and nothing is clipped",
)
### BEGIN HIDDEN TESTS
many = torch.stack([scores, scores + 1.0])
moved = normalized_scores(many, torch.tensor([-1200.0, 20.0]), torch.tensor([-150.0, 200.0]))
check_close(
    "normalized_scores of two tables", moved[1] - moved[0], torch.tensor([1 / 1050, 1 / 180]).expand(3, 2)
)
shifted = normalized_scores(scores + 200, torch.tensor([-1000.0, 220.0]), torch.tensor([50.0, 400.0]))
check_close("normalized_scores when each step pays 1 more", shifted, z)
below = normalized_scores(torch.tensor([[5.0], [10.0], [0.0]]), torch.tensor([10.0]), torch.tensor([0.0]))
check_close(
    "normalized_scores where the reference has the lower score",
    below,
    [[0.5], [0.0], [1.0]],
    hint="these two become 0 and 1, whichever is larger",
)
### END HIDDEN TESTS
print("Right: a scale with two ends.")

# %% kind="test" of="profile" points=2
scores = torch.tensor([[0.1, 0.5], [0.5, 0.9]])
profile = check_shape(
    "performance_profile",
    performance_profile(scores, torch.tensor([0.0, 0.3, 0.5, 0.6, 1.0])),
    (5,),
    {
        (2, 5): "average over seeds *and* tasks",
        (2, 2, 5): "average over seeds and tasks",
        (4,): "one number for each threshold: average over the runs",
    },
)
check_close(
    "performance_profile",
    profile,
    [1.0, 0.75, 0.25, 0.25, 0.0],
    mistakes={
        "a score that equals the threshold is counted as above it": [1.0, 0.75, 0.75, 0.25, 0.0],
        "it is the share below the threshold": [0.0, 0.25, 0.25, 0.75, 1.0],
        "it is the share at or below the threshold": [0.0, 0.25, 0.75, 0.75, 1.0],
        "it is the number of the runs, expected their share": [4.0, 3.0, 1.0, 1.0, 0.0],
    },
    hint="each score of each task counts by itself",
)
### BEGIN HIDDEN TESTS
generator = torch.Generator().manual_seed(0)
many, thresholds = torch.rand(5, 8, 3, generator=generator), torch.linspace(0, 1, 1001)
profile = check_shape("the profiles of five tables", performance_profile(many, thresholds), (5, 1001))
check_close(
    "the area under a profile of scores in [0, 1], their mean",
    torch.trapezoid(profile, thresholds.double()),
    many.mean(dim=(1, 2)),
    atol=2e-3,
)
backwards = performance_profile(many, thresholds.flip(0))
check_close("thresholds in another order", backwards.flip(-1), profile, hint="the result is in their order")
### END HIDDEN TESTS
print("Right: a profile.")

# %% [markdown]
# The planners of week 3 on the true cart-pole swing-up, with 50 candidates an iteration, ten seeds each. The
# bands are your bootstrap's, taken at each threshold: `performance_profile` is just another statistic. The right
# picture names the colours.

# %%
frame = load_results("planners-swingup", "laptop")
frame = frame[frame["budget"] == 50]
thresholds = torch.linspace(-20, 180, 201)
generator = torch.Generator().manual_seed(0)
axes = new_axes(columns=2)
for number, (name, group) in enumerate(frame.groupby("planner", sort=False)):
    scores = torch.tensor(group["return"].to_numpy())[:, None]  # [10, 1]
    band = bootstrap_interval(lambda s: performance_profile(s, thresholds), scores, generator=generator)
    axes[0].plot(thresholds, band.point, color=COLORS[number], label=name)
    axes[0].fill_between(thresholds, band.low, band.high, color=COLORS[number], alpha=0.12, linewidth=0)
    middle = bootstrap_interval(interquartile_mean, scores, generator=generator)
    bar = {"linewidth": 6, "alpha": 0.4, "solid_capstyle": "butt"}
    axes[1].plot([middle.low, middle.high], [number, number], color=COLORS[number], **bar)
    axes[1].plot(middle.point, number, "o", color=COLORS[number], markersize=9)
    axes[1].plot(scores[:, 0], torch.full((10,), number + 0.25), "|", color=COLORS[number], markersize=8)
axes[0].set(xlabel=r"return $\tau$", ylabel=r"share of runs above $\tau$", title="Performance profiles")
axes[1].set(
    yticks=range(4), yticklabels=frame["planner"].unique(), xlabel="return", title="IQM, 95 %, and the runs"
)
plt.show()

# %% [markdown] exercise="shaping" number="8.5" title="Shaping that is safe" points=5 difficulty=3 minutes=20
# Claim 5: add a helpful bonus to the reward. It is tempting, and it went wrong before. Randløv and Alstrøm
# (1998) paid a bicycle for each bit that it got closer to its goal, and it learned to ride in circles around
# the start: there was a bonus for coming closer, and no fine for moving away.
#
# Ng, Harada and Russell found out which bonuses are safe. Choose any **potential** $\Phi(s)$, a number that
# says how promising a state is, and pay the difference:
#
# $$F(s, s') = \gamma\, \Phi(s') - \Phi(s) \qquad \Phi = 0 \text{ in a state that ended the episode}$$
#
# Why is that safe? Add up the bonuses of an episode with the discount $\gamma$:
#
# $$\sum_{t = 0}^{T - 1} \gamma^t F(s_t, s_{t + 1})
#   = \sum_{t = 0}^{T - 1} \bigl(\gamma^{t + 1} \Phi(s_{t + 1}) - \gamma^t \Phi(s_t)\bigr)
#   = \gamma^T \Phi(s_T) - \Phi(s_0)$$
#
# Everything in the middle cancels. If the episode has ended, $\Phi(s_T) = 0$; if it goes on forever,
# $\gamma^T$ goes to 0. What is left is $-\Phi(s_0)$, whatever the agent does. All policies lose the same, so
# the best one stays the best: $Q'(s, a) = Q(s, a) - \Phi(s)$.
#
# And the bicycle? A circle of $n$ steps from $s$ to $s$ pays $(\gamma^n - 1)\, \Phi(s)$. For $\gamma = 1$ that is
# nothing. For $\gamma < 1$ it is a loss where $\Phi(s) > 0$, and a *gain* where $\Phi(s) < 0$. Not even then do
# circles pay, since every other way comes to the same sum. Take $\Phi = -1$ everywhere and $\gamma = 0.9$: each step
# pays $-0.9 + 1 = 0.1$, which forever makes $0.1 / (1 - 0.9) = 1$. A step that ends the episode pays $0 + 1 = 1$ at
# once.
#
# **Predict first.** An episode is cut off by its step limit, not ended. Is its last state's potential 0?
#
# **Write `shaping_reward`.**
#
# - `potential` is a function of states `[..., D]` that returns `[...]`. States are `[..., D]`; `terminated`
#   is bool `[...]`; return $F$, `[...]`.
# - $\gamma \Phi(s')$ is dropped where `terminated`; $-\Phi(s)$ never is.
# - A `gamma` outside (0, 1] is a `ValueError`; 1 is allowed. So is a potential that returns another shape
#   than that of `terminated`.

# %% kind="given" ref="clinic:Potential"

# %% kind="solution" of="shaping" ref="clinic:shaping_reward"
# TODO: refuse a gamma outside (0, 1], and a potential of the wrong shape
# TODO: the potentials of both states; that of an end is 0

# %% [markdown]
# <details><summary>Hint: no potential at the end</summary>
#
# `x.masked_fill(terminated, 0.0)` is 0 where the episode ended, and x elsewhere.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# No. The world would have gone on; only the watching stopped. `truncated` has no business in this formula,
# just as it has none in a bootstrap target.
# </details>


# %% kind="test" of="shaping" points=2
def potential(obs):  # 17 for state 1, 27 for state 2, ...
    return 10 * torch.as_tensor(obs)[..., 0] + 7


obs, next_obs = torch.tensor([[1.0], [3.0], [2.0]]), torch.tensor([[2.0], [1.0], [5.0]])
ended = torch.tensor([False, False, True])
value = check_shape("shaping_reward", shaping_reward(potential, 0.5, obs, next_obs, ended), (3,))
check_close(
    "shaping_reward with gamma=0.5",
    value,
    [-3.5, -28.5, -27.0],
    mistakes={
        "gamma is missing": [10.0, -20.0, -27.0],
        "both states have gamma, expected the next one alone": [5.0, -10.0, -13.5],
        "the state before has gamma, expected the next one": [18.5, -1.5, -13.5],
        "the state that ended the episode still has its potential, expected 0": [-3.5, -28.5, 1.5],
        "the state that ended the episode is set to 0, expected its potential to be 0": [-3.5, -28.5, -23.5],
        "terminated is upside down": [-17.0, -37.0, 1.5],
        "the whole bonus is dropped where the episode ends, but -Phi(s) stays": [-3.5, -28.5, 0.0],
        "the sign is wrong: Phi of where it goes, less Phi of where it came from": [3.5, 28.5, 27.0],
        "Phi of where it came from is added, expected subtracted": [30.5, 45.5, 27.0],
        "the two states are swapped": [-18.5, 1.5, -43.5],
    },
)
### BEGIN HIDDEN TESTS
grid = torch.arange(24.0).reshape(4, 3, 2)
value = shaping_reward(potential, 1.0, grid, grid + 1, torch.zeros(4, 3, dtype=torch.bool))
check_close("shaping_reward with gamma=1 and states [4, 3, 2]", value, torch.full((4, 3), 10.0))
for gamma in (0.0, 1.01, -0.5):
    check_raises(f"gamma={gamma}", ValueError, shaping_reward, potential, gamma, obs, next_obs, ended)
name = "a potential with shape [3, 1] for three states"
check_raises(name, ValueError, shaping_reward, lambda s: torch.as_tensor(s), 0.9, obs, next_obs, ended)
### END HIDDEN TESTS
print("Right: what it gains, less what it had.")


# %% kind="test" of="shaping" points=3
def potential(obs):
    obs = torch.as_tensor(obs)
    return 3 * obs[..., 0] ** 2 - obs[..., 1]


generator = torch.Generator().manual_seed(0)
paths = torch.randn(5, 13, 2, generator=generator, dtype=torch.float64)  # five episodes of 12 steps
discounts = 0.9 ** torch.arange(12, dtype=torch.float64)
nothing_ended = torch.zeros(5, 12, dtype=torch.bool)
bonus = as_tensor("F", shaping_reward(potential, 0.9, paths[:, :-1], paths[:, 1:], nothing_ended))
expected = 0.9**12 * potential(paths[:, -1]) - potential(paths[:, 0])
check_close(
    "the discounted sum of F over 12 steps",
    (discounts * bonus).sum(dim=1),
    expected,
    hint="it should telescope to gamma^12 Phi(s_12) - Phi(s_0)",
)
last_ended = nothing_ended.clone()
last_ended[:, -1] = True
bonus = as_tensor("F", shaping_reward(potential, 0.9, paths[:, :-1], paths[:, 1:], last_ended))
check_close(
    "the discounted sum of F over an episode that ended",
    (discounts * bonus).sum(dim=1),
    -potential(paths[:, 0]),
    mistakes={"the last state's potential is still there, though the episode ended": expected},
    hint="it should be -Phi(s_0), whatever happened",
)
### BEGIN HIDDEN TESTS
paths[:, -1] = paths[:, 0]  # a circle
bonus = as_tensor("F", shaping_reward(potential, 1.0, paths[:, :-1], paths[:, 1:], nothing_ended))
check_close("the sum of F around a circle, with gamma=1", bonus.sum(dim=1), torch.zeros(5))
### END HIDDEN TESTS
print("Right: it telescopes.")

# %% [markdown]
# A maze of 5 by 7 cells. Each step costs 0.02, and reaching the flag pays 1 and ends the episode; $\gamma =
# 0.95$. The potential says how close to the flag a cell is, as the crow flies. Value iteration finds the best
# policy exactly, for the true reward, for the potential itself as a bonus in every step ("naive"), and for
# the difference of potentials.


# %%
WALLS, FLAG, START = {(1, 2), (2, 2), (3, 2), (1, 4), (0, 4), (3, 5)}, (2, 5), (4, 0)
ROWS, COLUMNS, GAMMA = 5, 7, 0.95
MOVES = torch.tensor([[0, 1], [1, 0], [0, -1], [-1, 0]])


def closeness(cell):  # [..., 2] -> [...]
    return 1 - torch.linalg.vector_norm(cell.float() - torch.tensor(FLAG).float(), dim=-1) / 6


cells = torch.tensor([c for c in itertools.product(range(ROWS), range(COLUMNS)) if c not in WALLS])  # [S, 2]
there = cells[:, None] + MOVES  # [S, 4, 2]
free = torch.tensor([[tuple(c.tolist()) in set(map(tuple, cells.tolist())) for c in row] for row in there])
there = torch.where(free[..., None], there, cells[:, None])
index = (there[:, :, None] == cells).all(-1).int().argmax(-1)  # [S, 4], the number of the next cell
reached = (there == torch.tensor(FLAG)).all(-1)
here = cells[:, None].expand_as(there)
bonuses = {
    "true reward": torch.zeros(index.shape),
    r"naive: $+\Phi(s')$": closeness(there),
    r"$+\gamma\,\Phi(s') - \Phi(s)$": shaping_reward(closeness, GAMMA, here, there, reached),
}
axes = new_axes(columns=3, width=3.6, height=3.2)
for ax, (name, bonus) in zip(axes, bonuses.items(), strict=True):
    values = torch.zeros(index.shape, dtype=torch.float64)
    for _ in range(600):
        values = -0.02 + reached + bonus + GAMMA * ~reached * values.max(dim=1).values[index]
    policy = values.round(decimals=4).argmax(dim=1)  # of equally good moves the first
    ax.imshow([[float((r, c) in WALLS) for c in range(COLUMNS)] for r in range(ROWS)], cmap="Greys", vmax=2)
    for cell, move in zip(cells.tolist(), MOVES[policy].tolist(), strict=True):
        if tuple(cell) != FLAG:
            y, x = cell[0] - 0.3 * move[0], cell[1] - 0.3 * move[1]
            ax.arrow(x, y, 0.4 * move[1], 0.4 * move[0], head_width=0.2, color=COLORS[0])
    state, path = (cells == torch.tensor(START)).all(-1).nonzero().item(), [START]
    while len(path) < 40 and path[-1] != FLAG:
        state = int(index[state, policy[state]])
        path.append(tuple(cells[state].tolist()))
    ax.plot([c for _, c in path], [r for r, _ in path], color=COLORS[3], alpha=0.5, linewidth=6)
    ax.plot(FLAG[1], FLAG[0], "*", color=COLORS[1], markersize=18)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.set_title(
        f"{name}\n{'flag after ' + str(len(path) - 1) + ' steps' if path[-1] == FLAG else 'never gets there'}"
    )
plt.show()

# %% [markdown]
# Paid for being close, the agent stays close, and takes care not to finish: the flag would end its income.
# With the difference of potentials every arrow is where it was.
#
# The theorem speaks about the *best* policy, for the discount $\gamma$ and an unlimited horizon. It promises
# nothing about how fast an agent learns; a good potential may help a lot, and a bad one slow it down. And a
# planner of week 3 is a special case. It sums the rewards of its $H$ steps ($\gamma = 1$), and stops. What it
# sees telescopes, too:
#
# $$\sum_{t = 0}^{H - 1} \bigl(r_t + F_t\bigr) = \sum_{t = 0}^{H - 1} r_t + \Phi(s_H) - \Phi(s_0)$$
#
# To a planner, **a potential is a guess of what comes after the horizon**. It does change what a
# short-sighted planner does, and that is its use.
#
# `shaped_task` makes a task with a shaped reward, for planners, models and agents alike; `evaluate` and
# `run_episode` on the task itself still count the true reward.

# %% kind="given" ref="clinic:ShapedTask,shaped_task,_ShapedEnv"

# %% [markdown]
# The pendulum swings up by gathering energy, so let the potential be minus the distance from the energy that
# it needs at the top. CEM plans with the true dynamics, 3, 5 or 10 steps ahead (0.15, 0.25 or 0.5 seconds),
# and the true return is counted over 120 steps.

# %%
pendulum = get_task("pendulum")


def energy_gap(obs):  # in units of reward; 0 where the pendulum has the energy of standing upright
    cos, _, velocity = obs.unbind(-1)
    return -3 * (velocity**2 / 6 + 5 * cos - 5).abs()


tasks = {
    "true reward": pendulum,
    "naive": shaped_task(pendulum, energy_gap, 1.0, naive=True),
    "potential-based": shaped_task(pendulum, energy_gap, 1.0),
}
ax = new_axes(width=7)[0]
for number, (name, planned) in enumerate(tasks.items()):
    for place, horizon in enumerate((3, 5, 10)):
        found = []
        for seed in range(3):
            planner = CEMPlanner(
                planned,
                pendulum.action_low,
                pendulum.action_high,
                CEMConfig(population_size=60, num_elites=8, num_iterations=3, horizon=horizon),
                torch.Generator().manual_seed(seed),
            )
            found.append(float(run_episode(pendulum, planner, seed=seed, max_steps=120).reward.sum()))
        shift = place + 0.22 * (number - 1)
        ax.bar(
            shift, sum(found) / 3, 0.2, color=COLORS[number], alpha=0.5, label=name if place == 0 else None
        )
        ax.plot([shift - 0.05, shift, shift + 0.05], found, "o", color=COLORS[number], markersize=5)
ax.set_xticks(range(3), ["3 steps", "5 steps", "10 steps"])
ax.set(xlabel="horizon", ylabel="true return", ylim=(-870, 40), title="A potential sees beyond the horizon")
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# Three starts (dots) and their mean. From the first and the last it has to swing up. The short-sighted planner with
# the true reward can't see that swinging *away* pays later, and stays below; with the potential it swings up
# from a plan of 0.15 s. The second start is nearly upright, and there the bonus harms at the shortest horizon,
# naive or not: the right energy is good wherever the pendulum is, and the planner does not see far enough to
# know better. The theorem is about best policies, and this planner isn't one. (Three starts show a mechanism.
# They are no measurement.)

# %% [markdown] exercise="budget" number="8.6" title="A fair budget" points=3 difficulty=2 minutes=15
# Claim 9: 50 policy updates instead of 20. Each update costs time. And an agent that plans may need few real
# steps and hours of time. Better at *what* cost? There are at least three: env steps (what a robot pays),
# seconds (what you pay), and model calls (what both pay, on any machine).
#
# **Predict first.** Two agents are compared at 60 s. One is evaluated every second, the other one every
# minute, and it takes 61 s for its first evaluation. What should the table say?
#
# A fair comparison fixes a budget in one of these currencies and asks what each run **had to show when the
# budget was spent**: its last evaluation that cost no more. Not the next one, which it could not yet afford.
# And not the best one: to pick the best of many noisy evaluations is to pick luck.
#
# **Write `score_at_budget` and `common_budget`.**
#
# - `costs` and `scores` are `[seeds, P]`: what each run had spent at each of its $P$ evaluations, never
#   falling, and what it scored. Different runs need different times, so each row has costs of its own. Return
#   `[seeds]`.
# - An evaluation that cost exactly the budget counts. Of several at the same cost, the last one counts. A run
#   with nothing to show has NaN. The arguments stay as they are.
# - Other shapes, or costs that fall, are a `ValueError`.
# - `common_budget` takes the costs of any number of agents, `[seeds, P]` each, with numbers of seeds and of
#   evaluations of their own. It returns the largest budget that every single run has spent, a number: beyond
#   it some would be compared with what they never got to do. No agents are a `ValueError`.

# %% kind="solution" of="budget" ref="clinic:score_at_budget,common_budget"
# score_at_budget:
# TODO: refuse what is not [seeds, P] twice, and costs that fall
# TODO: how many evaluations could each run afford?
# TODO: the last of these, or NaN
# common_budget:
# TODO: where does the cheapest of all runs end?

# %% [markdown]
# <details><summary>Hint: the last one</summary>
#
# `(costs <= budget).sum(dim=1)` counts; the last affordable evaluation has that number minus 1. `gather`
# wants an index that exists, so clamp it at 0 and put the NaN in afterwards.
# </details>
# <details><summary>Answer to the prediction</summary>
#
# That the second agent has nothing to show: NaN, no bar in the picture. Taking its value at 61 s would be
# generous by one second, taking the mean of before and after would be invented. One can choose another
# budget, and should evaluate more often.
# </details>

# %% kind="test" of="budget" points=2
costs = torch.tensor([[10.0, 20.0, 30.0, 50.0], [5.0, 25.0, 40.0, 60.0]])
scores = torch.tensor([[5.0, 3.0, 2.0, 7.0], [4.0, 6.0, 5.0, 1.0]])
given = costs.clone(), scores.clone()
value = check_shape("score_at_budget", score_at_budget(*given, 30.0), (2,))
for name, passed, before in zip(("costs", "scores"), given, (costs, scores), strict=True):
    check_unchanged(name, passed, before, "make a new tensor (masked_fill, not masked_fill_)")
check_close(
    "score_at_budget at 30",
    value,
    [2.0, 6.0],
    mistakes={
        "it is the best evaluation so far, expected the last one": [5.0, 6.0],
        "it is the next evaluation, which cost too much": [7.0, 5.0],
        "an evaluation that cost exactly the budget is left out": [3.0, 6.0],
        "it is the last evaluation of all, whatever it cost": [7.0, 1.0],
        "it is an interpolated value, which nobody has measured": [2.0, 6 - 5 / 15],
        "all runs have the costs of the first one, expected each its own": [2.0, 5.0],
        "it is the mean of all evaluations so far, expected the last one": [10 / 3, 5.0],
    },
)
early = as_tensor("scores", score_at_budget(costs, scores, 9.0))
check_true(
    bool(early[0].isnan()), f"at 9 the first run has nothing to show: expected NaN, got {early[0].item()}"
)
check_close("at 9 the second run", early[1], 4.0)
### BEGIN HIDDEN TESTS
check_close(
    "at 24.9",
    score_at_budget(costs, scores, 24.9),
    [3.0, 4.0],
    mistakes={"it is the nearest evaluation, also where that cost too much": [3.0, 6.0]},
)
check_close("with a budget for everything", score_at_budget(costs, scores, 1e9), [7.0, 1.0])
tied = score_at_budget(torch.tensor([[0.0, 0.0, 7.0]]), torch.tensor([[1.0, 2.0, 3.0]]), 5.0)
check_close(
    "two evaluations at the same cost",
    tied,
    [2.0],
    mistakes={"the first of them counts, expected the last": [1.0]},
)
falling = torch.tensor([[10.0, 30.0, 20.0, 50.0], [5.0, 25.0, 40.0, 60.0]])  # in one place only
wrong_shapes = ((costs[0], scores[0]), (costs, scores[:, :2]), (costs[None], scores[None]))
for bad in (*wrong_shapes, (costs.flip(1), scores), (falling, scores)):
    name = f"costs {bad[0].tolist()}, scores {bad[1].tolist()}"
    check_raises(name, ValueError, score_at_budget, *bad, 10.0)
### END HIDDEN TESTS
print("Right: what each run had to show.")

# %% kind="test" of="budget" points=1
fast, slow = torch.tensor([[1.0, 8.5], [2.0, 8.0], [3.0, 9.0]]), torch.tensor([[3.0, 6.0, 12.0]])
check_close(
    "common_budget",
    common_budget(fast, slow),
    8.0,
    mistakes={
        "it is the smallest cost of all, expected the smallest *last* cost": 1.0,
        "it is where the longest run ends": 12.0,
        "only the first run of each agent counts, expected every run": 8.5,
        "only the longest run of each agent counts, expected every run": 9.0,
    },
)
### BEGIN HIDDEN TESTS
check_close("common_budget of a single agent", common_budget(slow), 12.0)
check_close("common_budget of three", common_budget(fast, slow, torch.tensor([[2.5], [4.5]])), 2.5)
check_raises("no agents", ValueError, common_budget)
### END HIDDEN TESTS
print("Right: as far as all of them went.")

# %% [markdown]
# A case from week 7: the pendulum, and five seeds each of SAC with one update per real step, of SAC with ten, and
# of MBPO. The same runs, compared at equal env steps and at equal seconds of the processor. (Not of the clock on
# the wall: that also counts what else the machine had to do.)

# %%
frame = load_results("mbpo-pendulum", "laptop")
agents = list(frame["variant"].unique())
curves = {}  # agent -> column -> [seeds, P]
for name, group in frame.groupby("variant", sort=False):
    group = group.assign(evaluation=group.groupby("seed").cumcount())
    curves[name] = {
        column: torch.tensor(group.pivot(index="seed", columns="evaluation", values=column).to_numpy(float))
        for column in ("env_steps", "cpu_seconds", "eval_return")
    }
generator = torch.Generator().manual_seed(0)
axes = new_axes(columns=2)
for ax, column, unit in zip(axes, ("env_steps", "cpu_seconds"), ("env steps", "CPU seconds"), strict=True):
    budget = common_budget(*(curve[column] for curve in curves.values()))
    for number, name in enumerate(agents):
        scores = score_at_budget(curves[name][column], curves[name]["eval_return"], budget)
        middle = bootstrap_interval(interquartile_mean, scores[:, None], generator=generator)
        bar = {"linewidth": 7, "alpha": 0.4, "solid_capstyle": "butt"}
        ax.plot([middle.low, middle.high], [number, number], color=COLORS[number], **bar)
        ax.plot(middle.point, number, "o", color=COLORS[number], markersize=9)
        ax.plot(scores, torch.full((len(scores),), number + 0.25), "|", color=COLORS[number], markersize=8)
    ax.set(yticks=range(len(agents)), yticklabels=agents, xlabel="return (IQM, 95 %, and the five runs)")
    ax.set(ylim=(-0.5, len(agents) - 0.4), title=f"at {budget:,.0f} {unit} for everybody")
plt.show()

# %% [markdown]
# At equal env steps the two agents with ten updates are far ahead. At 7 seconds of the processor, all that SAC with one
# update ever spent, nothing is left of that lead: now it has the best middle of the three. (Whether that means
# anything, with intervals like these, is the next exercise.) Had one only the left picture, one would call ten updates
# a quick win.

# %% [markdown] exercise="verdict" number="8.7" title="The verdict" points=2 difficulty=1 minutes=10
# All is ready: `iqm_improvement` puts your functions together, and gives the interval of a *difference*. (Not
# two intervals side by side. These may overlap although the difference is clear, as it is its own interval
# that counts.)
#
# **Write `verdict`.**
#
# - "real" where the whole interval is above 0, "harmful" where the whole interval is below 0, else "not
#   shown". An end that is exactly 0 shows nothing.
# - The interval decides, not the point.
#
# **Predict first.** Ten claims, all of them empty. Each is tried with 95 % confidence. How likely is it that
# at least one is "real" or "harmful"?

# %% kind="given" ref="clinic:iqm_improvement"

# %% kind="solution" of="verdict" ref="clinic:verdict"
# TODO: three cases

# %% [markdown]
# <details><summary>Answer to the prediction</summary>
#
# $1 - 0.95^{10} = 0.40$ with intervals that keep their promise. Bonferroni's remedy: for $m$ claims take the
# confidence $1 - 0.05 / m$, 99.5 % for ten. Then all of them together are wrong in at most 5 % of the cases.
# </details>

# %% kind="test" of="verdict" points=1
for low, point, high, expected in (
    (1.0, 2.0, 3.0, "real"),
    (-3.0, -2.0, -1.0, "harmful"),
    (-1.0, 2.0, 5.0, "not shown"),
):
    found = verdict(Interval(torch.tensor(point), torch.tensor(low), torch.tensor(high)))
    check_true(
        found in ("real", "harmful", "not shown"),
        f"verdict is {found!r}, expected 'real', 'harmful' or 'not shown', in just these words",
    )
    check_true(
        found == expected,
        f"an improvement of {point}, interval {low} to {high}: verdict is {found!r}, expected {expected!r} "
        "(an Interval is point, low, high, in this order)",
    )
### BEGIN HIDDEN TESTS
found = verdict(Interval(torch.tensor(0.02), torch.tensor(0.01), torch.tensor(9.0)))
check_true(found == "real", "an interval from 0.01 to 9: expected 'real'")
found = verdict(Interval(torch.tensor(-0.1), torch.tensor(0.5), torch.tensor(2.0)))
check_true(found == "real", "an interval from 0.5 to 2: expected 'real', the interval decides, not the point")
### END HIDDEN TESTS
print("Right: three verdicts.")

# %% kind="test" of="verdict" points=1
for low, point, high in ((0.0, 1.0, 2.0), (-2.0, -1.0, 0.0), (0.0, 0.0, 0.0), (-9.0, -3.0, 0.5)):
    found = verdict(Interval(torch.tensor(point), torch.tensor(low), torch.tensor(high)))
    check_true(
        found == "not shown",
        f"an interval from {low} to {high}: verdict is {found!r}, expected 'not shown': 0 is within",
    )
### BEGIN HIDDEN TESTS
found = verdict(Interval(torch.tensor(-0.02), torch.tensor(-7.0), torch.tensor(-0.01)))
check_true(found == "harmful", "an interval from -7 to -0.01: expected 'harmful'")
### END HIDDEN TESTS
print("Right: in doubt, nothing is shown.")

# %% [markdown]
# Two hundred reports about ten empty claims: both sides of each comparison are ten runs of the same Gaussian
# agent. How many of the reports contain at least one finding?

# %%
generator = torch.Generator().manual_seed(0)
findings = {0.95: [], 0.995: []}
for confidence, counts in findings.items():
    for _ in range(200):
        claims = [torch.randn(2, 10, 1, generator=generator) for _ in range(10)]
        improvements = (
            iqm_improvement(x, y, confidence=confidence, num_resamples=1000, generator=generator)
            for x, y in claims
        )
        counts.append(sum(verdict(improvement) != "not shown" for improvement in improvements))
    share, average = sum(count > 0 for count in counts) / len(counts), sum(counts) / len(counts)
    print(
        f"{confidence:.1%} confidence: {share:4.0%} of the reports have a finding; {average:.2f} on average"
    )

# %% [markdown]
# The first line is about what $1 - 0.95^{10} = 0.40$ says. Bonferroni's 99.5 % brings it down to somewhat
# more than the promised one in twenty: with ten seeds, intervals keep their promise only nearly. In
# `experiments` each verdict is given at both levels.
#
# And the warm start of 8.3, at last, as a verdict:

# %%
generator = torch.Generator().manual_seed(0)
for other in ("none", "zero"):
    gain = iqm_improvement(returns["repeat"], returns[other], generator=generator)
    interval = f"{gain.point:+.0f} ({gain.low:+.0f} to {gain.high:+.0f})"
    print(f'"repeat" against "{other}": {interval}, {verdict(gain)}')

# %% [markdown]
# ## What to take along
#
# - A few runs scatter more than most improvements improve. The IQM and its bootstrap interval say how much;
#   with fewer than ten runs even these are too sure.
# - Percent of what? Returns have no natural zero. A scale needs the random policy and a reference.
# - The probability of improvement and the profile say what an average hides.
# - Shape by differences of a potential, and nothing that is best changes. To a planner with a short horizon a
#   potential is a value function.
# - Better at what cost? Fix env steps, seconds or model calls, and count what was there when they were spent.
# - Ten claims need stricter intervals than one. "Not shown" is an honest verdict, and no disgrace.
#
# ## Test yourself
#
# <details><summary>1. Two intervals overlap: A has 150 (140 to 160), B has 163 (154 to 172). Is "B is better"
# not shown?</summary>
#
# It may well be shown: the difference is 13, and as the runs are independent its interval has about the half
# width $\sqrt{10^2 + 9^2} = 13.5$. That is a close call; with 165 it would be clear, though the intervals
# still overlapped. Compute the interval of the difference.
# </details>
# <details><summary>2. A colleague runs 30 seeds, and reports the best ten of each agent, "to leave out the
# runs that crashed". Both agents are treated alike. What is wrong?</summary>
#
# How often an agent fails is part of how good it is. Agent X that fails in half of its runs looks the same as
# agent Y that never does. And the best ten of 30 are a matter of scatter: the agent that scatters more wins.
# </details>
# <details><summary>3. A bonus of 1 for each step that comes closer to the goal, nothing otherwise. There is no
# discount, and the episode may last long. What is the best policy?</summary>
#
# To step away and back, for as long as possible: every second step pays 1. As a difference of a potential the
# step away would cost what the step back pays.
# </details>
# <details><summary>4. Somebody sets the potential to the exact optimal value function, $\Phi = V^*$. What is
# left to learn?</summary>
#
# Nothing that needs a look ahead: the best shaped return from each state is $V^*(s) - \Phi(s) = 0$, and $r +
# \gamma V^*(s') - V^*(s)$ is 0 for best actions and negative for all others. A planner with a horizon of 1 is
# optimal. Shaping is a way of telling an agent what one knows about values.
# </details>
# <details><summary>5. An agent was tuned with 100 trials, its rival runs with the settings of its paper. Both
# then get ten seeds and equal env steps. Is the budget fair?</summary>
#
# No. The tuned one has spent 100 trials more, and knows the task. Tune both within the same budget, or
# neither; and evaluate with seeds that the tuning has never seen.
# </details>
#
# ## Where next
#
# `experiments.ipynb` beside this notebook runs on *your* functions: all ten claims, a tuned agent, and all
# agents of the course on one task. After the course: TD-MPC2 (Hansen et al., 2024) plans in a learned latent
# space with a learned value at the horizon, which is 8.5's potential; Dreamer (Hafner et al., 2023) learns
# from pixels; MOPO (Yu et al., 2020) has a penalty like week 7's, for data that can't be extended; PILCO (Deisenroth
# and Rasmussen, 2011) is where it began. Read their tables with the eyes of this week.
