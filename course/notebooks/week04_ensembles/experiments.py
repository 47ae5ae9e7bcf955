# %% [markdown]
# # Week 4 · Experiments: is the doubt worth anything?
#
# In `build.ipynb` your ensemble learned to say how sure it is. Saying so is cheap. Here its claims are put
# beside the truth:
#
# 1. **A gap, as a film**: noise and ignorance while data arrive.
# 2. **The pendulum's phase plane**: maps of what the model knows, of what it is told is noise, and of where it
#    is really wrong.
# 3. **How many members?** One, three, five and ten, on the half-cheetah.
# 4. **A model that plans**: does its doubt fall where its plans take it, and is it large where it is wrong?
# 5. **Prioritized replay**: does it help a model, measured?
# 6. **The reacher of CS285**: horizon, number of sequences, and members, in the whole loop of week 2.
#
# Parts 1 to 5 run on *your* functions from `build.ipynb`, which has to lie beside this notebook. Before each
# experiment there is a prediction to write down, and after it a question about what you saw. Both are read by
# a person. A wrong prediction with a reason earns full marks.
#
# **Where it comes from.** Lakshminarayanan et al., 2017,
# [*Deep ensembles*](https://arxiv.org/abs/1612.01474); Chua et al., 2018, [*PETS*](https://arxiv.org/abs/1805.12114);
# Schaul et al., 2016, [*Prioritized experience replay*](https://arxiv.org/abs/1511.05952); CS285 of Berkeley,
# homework 4, problem 4.
#
# **Time**: with `SCALE = "laptop"` about three minutes (AMD EPYC, two cores with two other programs); `"smoke"` takes half a
# minute of processor time.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": hours
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
NUM_SEEDS = 1  # of what runs here; the intervals are those of the seeds that ship with the course
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week04", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% [markdown]
# The imports come after that, so that they find your functions. Part 5 needs the bonus exercise; without it,
# only the results that ship with the course are shown.

# %% kind="setup"
import math
import time

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.colors import LogNorm

from mbrl_course.ensembles import split_variance
from mbrl_course.envs import get_task
from mbrl_course.evaluation import iqm, iqm_interval, learning_curve
from mbrl_course.experiments import Run, get_config, load_results, run
from mbrl_course.experiments.figures import LEDGER, ledger_table, plot_results, shipped, shipped_note
from mbrl_course.experiments.gap import REGIONS, gap_stages, true_mean
from mbrl_course.experiments.uncertainty import (
    angle_of,
    doubt,
    fit_phase_plane,
    plane_of,
    worth,
)
from mbrl_course.experiments.variants import variant_of
from mbrl_course.experiments.week04 import on_policy_iterations, on_policy_row
from mbrl_course.films import make_film
from mbrl_course.plotting import COLORS, GREY, new_axes, plot_scores, use_style
from mbrl_course.prioritized import importance_weights

use_style()
torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other


def results_of(name):
    """The rows of an experiment of this course at the scale chosen above, one set for each seed."""
    return run(name, range(NUM_SEEDS), SCALE, fresh=not RESUME)


def final_values(frame):
    """The rows of the last step, where there are steps."""
    return frame[frame["step"] == frame["step"].max()] if "step" in frame else frame


def table_of(frame, by, metrics):
    """IQM over seeds: a row for each entry of the columns `by`, a column for each metric."""
    rows = final_values(frame)
    table = rows.pivot_table(index=by, columns="metric", values="value", aggfunc=iqm, sort=False)
    return table[metrics]


def costs_of(frame):
    """The ledger: medians over seeds of what each variant had cost in the end.

    The seconds are the processor's. Nobody plans in these models, so there are no imagined steps.
    """
    costs = ["env_steps", "model_updates", "cpu_seconds"]
    return final_values(frame).groupby("variant", sort=False)[costs].median().rename(columns=LEDGER)


def here_and_shipped(name, here):
    """The rows that were measured here, and those that ship, where there are any."""
    found = {"here": here, "shipped": shipped(name, SCALE)}
    return {where: rows for where, rows in found.items() if rows is not None}


# %% [markdown]
# ## 1. A gap, while data arrive
#
# The world of `build.ipynb` once more: one number in, one out, quiet on the left, noisy on the right. Points
# arrive ten at a time, and after each ten the ensemble learns on. The first two thirds of them come from the
# left and from the right; nobody looks at the middle. Then the gap is filled.
#
# **Write down your prediction.** What will the two kinds of uncertainty do, in the quiet half, in the noisy
# half, and in the gap: (a) in the first part of the film, (b) when the gap begins to fill? (c) How many points
# in the gap will it take?

# %% [markdown] kind="written" id="predict-gap" points=2
# **Model answer.** (a) At the start everything is ignorance: the epistemic part is large everywhere. It falls
# in both halves as points arrive, in the noisy half more slowly, since there each point says less. In the gap
# it stays. The aleatoric part settles at the world's noise, small on the left and large on the right; in the
# gap nobody trains it. (b) The epistemic part in the gap collapses; elsewhere little changes. (c) Few: ten or
# twenty points are enough to tell the members which of them are wrong about the mean. The noise takes more.
#
# **Rubric.** 1 point: epistemic falls where data arrive and much less, or not at all, in the gap. 1 point: aleatoric settles at
# the noise and does not go to zero, with a statement about (c).

# %%
config = get_config("ensemble-gap", SCALE)
grid = torch.linspace(-4, 4, 161)
frames = []  # points so far, mean [N], aleatoric and epistemic standard deviation [N]
for stage in gap_stages(config, torch.Generator().manual_seed(0)):
    answer = stage.ensemble.predict(grid.unsqueeze(-1), torch.zeros(len(grid), 1))
    aleatoric, epistemic = split_variance(answer.obs, answer.obs_var)  # [N, 1] each
    frames.append((stage.x, stage.y, answer.obs.squeeze(-1), aleatoric.squeeze(-1), epistemic.squeeze(-1)))


def draw_frame(ax, number):
    """What the ensemble says after so many stages."""
    x, y, members, aleatoric, epistemic = frames[number]
    mean, total, noise = members.mean(dim=0), (aleatoric + epistemic).sqrt(), aleatoric.sqrt()
    blue, orange = {"color": COLORS[0], "alpha": 0.35}, {"color": COLORS[1], "alpha": 0.45}
    ax.fill_between(grid, mean - 2 * noise, mean + 2 * noise, **blue, linewidth=0, label="noise, 2 std")
    for sign, label in ((2, "+ ignorance"), (-2, None)):
        ax.fill_between(grid, mean + sign * noise, mean + sign * total, **orange, linewidth=0, label=label)
    ax.plot(grid, true_mean(grid), "--", color="black", linewidth=1.5, label="truth")
    ax.plot(grid, mean, color=COLORS[0], label="ensemble's mean")
    new, dots = config.points_per_stage, {"marker": "o", "linestyle": "", "markeredgewidth": 0}
    ax.plot(x[:-new], y[:-new], **dots, color="black", markersize=2.5, alpha=0.5, label="data")
    ax.plot(x[-new:], y[-new:], **dots, color=COLORS[3], markersize=4.5, label="new points")
    ax.set(xlim=(-4, 4), ylim=(-4, 4), xlabel="x", ylabel="y")
    ax.set_title(f"{len(x)} points", fontsize=11)
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=10)


film = make_film(draw_frame, len(frames), fps=4, size=(6.4, 4.2), max_bytes=400_000, title="A gap is filled")
film

# %% [markdown]
# Three moments of it, to look at in peace: before the gap is visited, after the first points in it, and at the
# end.

# %%
inside = [int((x.abs() < 1).sum()) for x, *_ in frames]
first_inside = next(number for number, count in enumerate(inside) if count > 0)
moments = (first_inside - 1, first_inside, len(frames) - 1)
axes = new_axes(columns=3, width=3.6, height=3.3)
for ax, number in zip(axes, moments, strict=True):
    draw_frame(ax, number)
    ax.set_title(f"{len(frames[number][0])} points, {inside[number]} in the gap", fontsize=11)
    ax.get_legend().remove()
    ax.label_outer()
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
plt.show()

# %% [markdown]
# The same in numbers, over seeds: root mean squares over each third of the world. The dotted line is the true
# noise, the vertical line the moment from which on points come from the gap. The dashed lines are the seeds that
# ship with the course: their interquartile mean (IQM), with its 95 % interval.

# %%
started = time.process_time()
gap = results_of("ensemble-gap")
print(f"{time.process_time() - started:.0f} seconds of the processor")


# %%
def plot_metric(ax, frame, metric, where, color, label, **style):
    """A metric against the points so far: IQM over seeds and, from three of them on, its interval."""
    rows = frame[(frame["metric"] == metric) & (frame["where"] == where)]
    curve = learning_curve(rows, "step", "value")
    if rows["seed"].nunique() >= 3:
        ax.fill_between(curve["step"], curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
    ax.plot(curve["step"], curve["iqm"], color=color, label=label, **style)


axes = new_axes(columns=3, width=3.6, height=3.4)
reference = shipped("ensemble-gap", SCALE)
for ax, where in zip(axes, REGIONS, strict=True):
    for metric, color in (("epistemic", COLORS[1]), ("aleatoric", COLORS[0]), ("error", COLORS[3])):
        if reference is not None:
            plot_metric(ax, reference, metric, where, color, None, linestyle="--", linewidth=1.5, alpha=0.6)
        plot_metric(ax, gap, metric, where, color, metric)
    plot_metric(ax, gap, "noise", where, "black", "true noise", linestyle=":", linewidth=1.5)
    ax.axvline(config.num_outside, color=GREY, linewidth=1, label="gap opens")
    ax.set(yscale="log", ylim=(0.005, 3), xlabel="points so far", ylabel="standard deviation", title=where)
    ax.label_outer()
if reference is not None:
    axes[0].plot(
        [], [], "--", color=GREY, linewidth=1.5, label=f"shipped ({reference['seed'].nunique()} seeds)"
    )
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
plt.show()
print(shipped_note("ensemble-gap", SCALE))

# %% [markdown]
# Some moments of it in numbers (IQM over seeds), and the ledger, with the error in the end as its "value".

# %%
when = [step for step in (10, 100, 240, 250, 360) if step in set(gap["step"])] or gap["step"].unique()
numbers = {
    measured: rows[rows["step"].isin(when)].pivot_table(
        index=["where", "metric"], columns="step", values="value", aggfunc=iqm, sort=False
    )
    for measured, rows in here_and_shipped("ensemble-gap", gap).items()
}
display(pd.concat(numbers, names=["measured"]).round(2))
ledger_table("ensemble-gap", gap, SCALE, where="metric == 'error'")

# %% [markdown]
# **Explain what you see.** (a) Which part fell where, and which did not? (b) Compare the epistemic standard
# deviation with the error in the gap *before* it was visited. What does that say about using it as a bound?
# (c) In the quiet half the aleatoric part comes down late, long after the mean is right. Why would a network
# that still fits its mean report noise?

# %% [markdown] kind="written" id="explain-gap" points=3
# **Model answer.** (IQM of the five seeds that ship.) (a) In the quiet half the epistemic standard deviation
# fell from 0.53 with 10 points to 0.03 with 240, in the noisy half from 0.37 to 0.10: more slowly, since a
# noisy point says less. In the gap it fell too, from 0.51 to 0.24, though nobody had looked there: the members
# learned to continue their neighbours alike. Ten points in the gap brought 0.15, 120 points 0.06. The aleatoric
# part settled: at 0.31 in the noisy half (true: 0.30) and at 0.21 in the gap (0.19), and in the quiet half at
# 0.06, still above the true 0.04.
#
# (b) With 240 points the error in the gap was 0.88 and the epistemic standard deviation 0.24: too sure by a
# factor of three to four. In the pictures above the bump in the middle lies outside even two
# standard deviations. Disagreement says *that* something is unknown, and is no bound on how wrong the mean is.
#
# (c) At 100 points the mean of the quiet half was right to 0.04, and the network reported noise of 0.21. As long
# as a network has not fitted the mean, its own misfit looks like noise to it, and it learns to expect it: the
# variance takes back what the mean did not explain. The loss does pull it down: its derivative with respect to
# $\ell$ is $(1 - e^2 / \sigma^2) / 2$, nearly its largest value, where $\sigma$ is far too large. What a large
# variance weakens is the pull on the *mean*, $(\mu - y) / \sigma^2$: an error that is excused is mended late
# (Seitzer et al., 2022, *On the pitfalls of heteroscedastic uncertainty estimation*). And right to 0.04 is the
# *ensemble's* mean: single members are further off, each reports its own misfit as noise, and the aleatoric part
# averages their variances. So that of a half-trained model also holds what it has not learned yet.
#
# **Rubric.** 1 point for each of (a), (b), (c); (a) and (b) with the student's own figures.

# %% [markdown]
# ## 2. The pendulum's phase plane
#
# Now a real task whose states can be drawn: the pendulum, angle and angular velocity. An ensemble is fitted to
# the steps of a random policy, once with a good speed sensor and once with a worn one: at positive angles it
# trembles, with a standard deviation of 0.5 rad/s. Then it is asked about *every* state of the plane, and
# since the pendulum's true dynamics are known, its answer can be checked everywhere.
#
# All three maps are in the same unit, the standard deviation of a step, averaged over the three numbers of the
# state: the *epistemic* part, the *aleatoric* part, and the actual *error* of the mean.
#
# **Write down your prediction.** Which of the three maps will show the worn sensor? Which two will look alike?
# And where will they not?

# %% [markdown] kind="written" id="predict-maps" points=2
# **Model answer.** The worn sensor is noise: it should show in the aleatoric map, in the half with positive
# angles, and hardly in the others (the error is measured against the true next state, so only what the noise
# spoils of the mean remains). Epistemic part and error should look alike: small along the random policy's
# states, large at high speeds, which a weak random motor never reaches. They may part where all members make
# the same mistake.
#
# **Rubric.** 1 point: the sensor shows in the aleatoric map. 1 point: epistemic and error are alike, with a
# place or reason where they would part.

# %%
settings = get_config("ensemble-uncertainty", SCALE)
variants = dict(variant_of(settings, text) for text in settings.variants)
fits = {name: fit_phase_plane(variant, Run(0)) for name, variant in variants.items()}


# %%
def draw_map(ax, values, title, norm, data=None, cmap="viridis"):
    """A quantity over the phase plane, and the states that were visited."""
    resolution = math.isqrt(len(values))
    extent = (-180, 180, -8, 8)
    picture = ax.imshow(
        values.view(resolution, resolution).T,
        extent=extent,
        origin="lower",
        aspect="auto",
        cmap=cmap,
        norm=norm,
        interpolation="bilinear",
    )
    if data is not None:
        degrees = angle_of(data.obs).rad2deg()
        ax.plot(degrees, data.obs[:, 2], ".", color="white", markersize=1.6, alpha=0.7)
    ax.set(xticks=(-90, 0, 90), xlim=(-180, 180), ylim=(-8, 8), title=title)
    ax.grid(visible=False)
    return picture


scale_of_colors = LogNorm(0.005, 1.0)
axes = new_axes(columns=3, rows=len(fits), width=3.6, height=2.8)
for row, (name, fit) in enumerate(fits.items()):
    found = doubt(fit.ensemble, fit.plane.obs, fit.plane.action, fit.plane.next_obs, fit.scale)
    maps = {"epistemic": found.epistemic, "aleatoric": found.aleatoric, "actual error": found.error}
    for column, (kind, values) in enumerate(maps.items()):
        ax = axes[3 * row + column]
        picture = draw_map(ax, values, f"{kind}, {name}", scale_of_colors, fit.data)
        ax.set(xlabel="angle, degrees (0: upright)", ylabel="velocity, rad/s")
        ax.label_outer()
colorbar = {"label": "standard deviations of a step", "extend": "both", "pad": 0.02, "aspect": 30}
axes[0].figure.colorbar(picture, ax=list(axes), **colorbar)
plt.show()

# %% [markdown]
# The white dots are the states in the data. And over seeds, in numbers (IQM): states near the data, and the others.
# `rank_correlation` is that of epistemic standard deviation and error, over the states; `ece` is the
# calibration error of the total uncertainty. `too sure` is the error divided by the epistemic standard deviation.
# Below it the ledger.

# %%
planes = results_of("ensemble-uncertainty")
metrics = ["error", "epistemic", "aleatoric", "rank_correlation", "ece"]
sources = here_and_shipped("ensemble-uncertainty", planes)
tables = {measured: table_of(rows, ["variant", "where"], metrics) for measured, rows in sources.items()}
print(shipped_note("ensemble-uncertainty", SCALE))
table = pd.concat(tables, names=["measured"])
display(table.assign(**{"too sure": table["error"] / table["epistemic"]}).round(3))
pd.concat({measured: costs_of(rows) for measured, rows in sources.items()}, names=["measured"])

# %% [markdown]
# **Explain what you see.** (a) Did the sensor show where you expected it? (b) A planner may only use what it
# has: the epistemic map. Where does it warn of the error, where not? Give the rank correlation, and the ratio
# of error to epistemic standard deviation, among the visited states and among the others. (c) The worn sensor
# also changed the *epistemic* map a little. Why does noise in the data make members disagree more?

# %% [markdown] kind="written" id="explain-maps" points=4
# **Model answer.** (IQM of the five seeds that ship.) (a) Yes: the aleatoric map of the worn sensor is bright
# at positive angles and dark at negative ones; over the plane its root mean square is 0.38, against 0.02 with
# the good sensor.
#
# (b) The order is good: over the whole plane the rank correlation of doubt and error was 0.81 with the good
# sensor and 0.80 with the worn one, and the map warns of high speeds around the upright position, where the random
# policy never was. It does not warn of the edges at 8 rad/s, where the speed is clipped and the error is largest. The size
# is not good: among the unvisited states the error was five times the epistemic standard deviation with the good sensor,
# and 2.9 times with the worn one. So the doubt ranks states well, and as a standard deviation it is too small, by a
# factor of three to five where no data have been. Among the visited states it depends on the sensor: a factor of
# 3.7 with the good one, where both are tiny, and of 1.2 with the worn one. There the doubt also ranks less well
# (0.58 and 0.61): differences between small errors are luck.
#
# (c) Each member has a bootstrap of its own, so each fits a noise of its own: their means scatter around the
# truth, by more the noisier the data are and the fewer there are. With the worn sensor the epistemic standard
# deviation among visited states was more than four times as large (0.037 against 0.008), and rightly so, since the error
# grew, too. Noise is not ignorance, but it makes ignorance last longer.
#
# **Rubric.** 1 point for (a). 2 points for (b): order (rank correlation) and size (ratio) told apart, with
# figures. 1 point for (c): each member fits noise of its own.

# %% [markdown]
# ## 3. How many members?
#
# The half-cheetah: 21 numbers per state, nothing that could be drawn. Ensembles of 1, 3, 5 and 10 are
# fitted to the same random steps, and judged on three kinds of new states: from *random* actions, as in
# training; and from extreme actions that are *held* for two or five steps, which take the cheetah where the
# training data never were.
#
# **Write down your prediction.** From 1 to 10 members: what happens to the error, to the calibration, and to
# the rank correlation of doubt and error? Where is the largest step, from 1 to 3 or from 5 to 10? What does
# it cost?

# %% [markdown] kind="written" id="predict-size" points=2
# **Model answer.** The error falls a little, since the members' mistakes partly cancel. One member has no
# epistemic part at all, so the calibration should get better with more members, above all on unfamiliar
# states. A variance that is estimated from three numbers is rough, so the rank correlation should rise with
# the number of members. All of these are averages over members: the largest step comes first, from 1 to 3,
# and from 5 to 10 little is left. The cost grows with the members, but as one batch it is less than ten times.
#
# **Rubric.** 1 point: directions with a reason. 1 point: diminishing returns, or a reason against them, and
# the cost.

# %%
sizes = results_of("ensemble-size")


# %%
def members_of(frame):
    """The number of members of each row."""
    return frame["variant"].str.split().str[0].astype(int)


KINDS = {"random": "random actions", "held 2": "held for 2 steps", "held 5": "held for 5 steps"}


def plot_sizes(frame, here, metric, ax, ylabel):
    """A metric against the number of members, a line for each kind of states: IQM and interval over seeds.

    Crosses are what was measured here.
    """
    rows, own = (table[table["metric"] == metric] for table in (frame, here))
    if metric == "rank_correlation":  # one member alone has no doubt that could be ranked
        rows, own = rows[members_of(rows) > 1], own[members_of(own) > 1]
    for (where, part), color in zip(rows.groupby("where", sort=False), COLORS, strict=False):
        curve = learning_curve(part.assign(members=members_of(part)), "members", "value")
        ax.fill_between(curve["members"], curve["low"], curve["high"], color=color, alpha=0.2, linewidth=0)
        ax.plot(curve["members"], curve["iqm"], "o-", color=color, markersize=4, label=KINDS[where])
        mine = own[own["where"] == where]
        ax.plot(members_of(mine), mine["value"], "x", color=color, markersize=8, markeredgewidth=2)
    ax.set(xticks=(1, 3, 5, 10), xlabel="members", ylabel=ylabel)


best = shipped("ensemble-size", SCALE)
shown = sizes if best is None else best
panels = {
    "error": "error, std of a step",
    "ece": "calibration error",
    "rank_correlation": "rank correlation",
}
axes = new_axes(columns=3, width=3.6, height=3.4)
for ax, (metric, ylabel) in zip(axes, panels.items(), strict=True):
    plot_sizes(shown, sizes, metric, ax, ylabel)
    ax.set_ylim(bottom=0)
if best is not None:
    axes[0].plot([], [], "o-", color=GREY, markersize=4, label=f"shipped ({best['seed'].nunique()} seeds)")
axes[0].plot([], [], "x", color=GREY, markersize=8, markeredgewidth=2, label="measured here")
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()
print(shipped_note("ensemble-size", SCALE))

# %% [markdown]
# The same in numbers (IQM over seeds), and the ledger. One member never disagrees, so it has no doubt to rank: read its
# 0.000 as "undefined".

# %%
sources = here_and_shipped("ensemble-size", sizes)
tables = {measured: table_of(rows, ["variant", "where"], metrics) for measured, rows in sources.items()}
display(pd.concat(tables, names=["measured"]).round(3))
pd.concat({measured: costs_of(rows) for measured, rows in sources.items()}, names=["measured"])

# %% [markdown]
# **Explain what you see.** (a) Which of your predictions held, on familiar and on unfamiliar states? (b) Is the
# model calibrated where it was *not* trained? What does that mean for a planner, which goes where plans look
# good? (c) How many members would you use, and what decides?

# %% [markdown] kind="written" id="explain-size" points=3
# **Model answer.** (IQM of the five seeds that ship.) (a) On familiar states next to nothing is gained: the error is
# 0.27 with one member and 0.25 with ten. On unfamiliar ones it falls, most of it from 1 to 3: from 2.6 to 1.9
# (held for five steps), and to 1.7 with ten. The rank correlation did *not* rise with the members, as I had
# expected: three give 0.81 there, ten 0.79.
#
# (b) One member is calibrated where it was trained (0.02) and useless elsewhere (0.47: nearly nothing lies in its
# intervals), since it knows the noise and no ignorance. Far from the data more members help: 0.13 with three, 0.07
# with five, 0.03 with ten. At home it is the other way round: the calibration error *grows*, 0.08 with three and 0.12 with ten. There
# the single Gaussian was right already, and with the disagreement on top the intervals are too wide: that errs on
# the safe side. A planner leaves the data, so what counts for it are the unfamiliar states.
#
# (c) Three for planning with the mean, five to ten where the size of the doubt is used (a threshold, a penalty).
# Ten cost 2.9 times the processor time of one (1.91 s against 0.67 s), for the same number of gradient steps: the
# budget decides.
#
# **Rubric.** 1 point for each of (a), (b), (c), with figures.

# %% [markdown]
# ## 4. A model that plans
#
# So far the data were given. Now the model chooses them: 200 random steps on the pendulum, then fit, plan with
# the CEM of week 3 in what was learned, act for 200 steps, and again. Before the new data are learned, the
# model is asked about them: how sure were you, and how wrong?
#
# **Write down your prediction.** From iteration to iteration: what happens to error and epistemic standard
# deviation on the *new* data, on the same data once they were *learned*, and over the *whole plane*? In which
# iteration is the surprise largest?

# %% [markdown] kind="written" id="predict-on-policy" points=2
# **Model answer.** The first plans lead where the random data never were, so the surprise, error and doubt on
# new data, is largest in the first iteration or two, and falls when the agent keeps visiting the same states
# (swing up, stay upright). Once learned, both are small. Over the whole plane they fall too, but more slowly,
# and they stay high where no good plan ever goes: there is nothing to learn there for the task.
#
# **Rubric.** 1 point: large at first on new data, small once learned. 1 point: the plane as a whole falls less
# or more slowly, with a reason.

# %% [markdown]
# The loop, with your ensemble in it: twenty seconds of processor time.

# %%
loop = get_config("ensemble-on-policy", SCALE)
plane = plane_of(get_task("pendulum"), 31)
rows, maps = [], []
for number, found in enumerate(on_policy_iterations(loop, Run(0, progress=True))):
    everywhere = worth(found.ensemble, plane, found.scale)
    rows.append({"seed": 0, **on_policy_row(number, found, everywhere)})
    doubts = doubt(found.ensemble, plane.obs, plane.action, plane.next_obs, found.scale)
    maps.append((found.new, doubts))
on_policy = pd.DataFrame(rows)

# %%
plot_results(
    "ensemble-on-policy",
    on_policy,
    SCALE,
    title="Pendulum: CEM plans in the ensemble's mean",
    ax=new_axes(width=6.4, height=3.6)[0],
)
plt.show()

# %%
ledger_table("ensemble-on-policy", on_policy, SCALE)

# %% [markdown]
# What did the model know at each moment? On the left, against the real steps in its data, the error (solid) and
# the epistemic standard deviation that it reported (dashed). In the middle one against the other, a dot for each
# iteration and seed: on the diagonal a doubt is as large as the error, below it the model is too sure. On the
# right the rank correlation, state by state within each set. Lines are the IQM of the seeds that ship, with its 95 %
# interval; crosses are the run from above (on the left: x its error, + its epistemic standard deviation).

# %%
places = {
    "new": "new data, not learned yet",
    "learned": "the same, learned",
    "plane": "the whole phase plane",
}
sources = here_and_shipped("ensemble-on-policy", on_policy)
cross = {"linestyle": "", "markersize": 8, "markeredgewidth": 2}


def plot_over_steps(ax, column, color, style="-", mark="x"):
    """A column against the steps that the model had learned from: IQM and interval of what ships, and crosses."""
    late = 0 if column.endswith("new") else loop.steps_per_iteration
    for measured, rows in sources.items():
        curve = learning_curve(rows.assign(steps=rows["env_steps"] + late), "steps", column)
        if measured == "here":
            ax.plot(curve["steps"], curve["iqm"], color=color, marker=mark, **cross)
        else:
            ax.fill_between(curve["steps"], curve["low"], curve["high"], color=color, alpha=0.12, linewidth=0)
            ax.plot(curve["steps"], curve["iqm"], style, color=color)


axes = new_axes(columns=3, width=3.6, height=3.5)
for (place, label), color in zip(places.items(), COLORS, strict=False):
    error, epistemic, ranks = (f"{metric}_{place}" for metric in ("error", "epistemic", "rank_correlation"))
    plot_over_steps(axes[0], error, color)
    plot_over_steps(axes[0], epistemic, color, "--", "+")
    plot_over_steps(axes[2], ranks, color)
    for measured, rows in sources.items():
        style = (
            {"marker": "x", **cross} if measured == "here" else {"marker": "o", "linestyle": "", "alpha": 0.6}
        )
        axes[1].plot(rows[error], rows[epistemic], color=color, **style)
    axes[2].plot([], [], color=color, label=label)
axes[2].plot([], [], color=GREY, label="error")
axes[2].plot([], [], "--", color=GREY, label="epistemic")
axes[2].plot([], [], color=GREY, marker="x", label="measured here", **cross)
axes[0].set(yscale="log", xlabel="environment steps", ylabel="std of a step", title="How wrong, how sure")
axes[1].plot([1e-3, 10], [1e-3, 10], ":", color=GREY)
axes[1].set(xscale="log", yscale="log", xlabel="error, std of a step", ylabel="epistemic, std of a step")
axes[1].set_title("Below the line: too sure")
axes[2].set(ylim=(-0.3, 1), xlabel="environment steps", ylabel="rank correlation", title="State by state")
axes[0].figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=6)
plt.show()
print(shipped_note("ensemble-on-policy", SCALE))

# %% [markdown]
# In numbers: the IQM over seeds, iteration by iteration; and of each seed "return: error / epistemic standard
# deviation", both on the new data before they were learned.

# %%
rows = sources.get("shipped", on_policy)
columns = [
    "error_plane",
    "epistemic_plane",
    "error_new",
    "epistemic_new",
    "error_learned",
    "epistemic_learned",
]
curves = {
    column: learning_curve(rows, "iteration", column).set_index("iteration")["iqm"] for column in columns
}
display(pd.DataFrame(curves).round(3))
planned = rows[rows["iteration"] > 0]
surprises = [
    f"{row.eval_return:.0f}: {row.error_new:.2f} / {row.epistemic_new:.2f}" for row in planned.itertuples()
]
planned.assign(surprise=surprises).pivot(index="iteration", columns="seed", values="surprise")

# %% [markdown]
# And one run as maps: above what the model doubts after each of four fits, below where it is wrong. White: the
# data of the iteration. The colours reach five times as far up as in part 2, since so does the error.

# %%
chosen = sorted({0, 1, 2, len(maps) - 1} & set(range(len(maps))))
wider = LogNorm(0.005, 5.0)
axes = new_axes(columns=len(chosen), rows=2, width=2.8, height=2.5)
for column, number in enumerate(chosen):
    data, found = maps[number]
    who = "random" if number == 0 else f"iteration {number}"
    above, below = axes[column], axes[column + len(chosen)]
    draw_map(above, found.epistemic, f"{who}: doubt", wider, data)
    picture = draw_map(below, found.error, "error", wider, data)
for ax in axes:
    ax.set(xlabel="angle, degrees", ylabel="velocity, rad/s")
    ax.label_outer()
axes[0].figure.colorbar(picture, ax=list(axes), **colorbar)
plt.show()

# %% [markdown]
# **Explain what you see.** (a) Does the doubt fall where data arrive, and only there? (b) The doubt on new data
# against their error: by which factor was the model too sure, before it had seen them? (c) A colleague wants to
# stop collecting as soon as the epistemic variance *on the agent's own data* is small. What could go wrong?

# %% [markdown] kind="written" id="explain-on-policy" points=4
# **Model answer.** (IQM of the five seeds that ship.) (a) It falls most where data arrive: on the data of the
# first planned episode from 0.47 before learning to 0.08 after. It also falls elsewhere, over the whole plane from
# 0.63 after the random steps to 0.07 after the last iteration, since a network generalises, and the plans swing
# through much of the plane. The error over the plane falls a little less, from 1.7 to 0.24.
#
# (b) In the first iteration too sure by a factor of 1.4 in the median seed, between 0.6 and 2.4 in all; in the second by
# 3.0, between 1.1 and 4.2. In three of the five seeds (1, 2 and 3) error and doubt are at most 0.05 from the third
# iteration on: the agent comes back to states that it knows. In the other two, whose swing-up failed three times, the
# surprise lasted until it worked, in the fourth. From then on the factor is between 0.9 and 1.7 in every seed. Over the
# plane the error stays 2.5 to 4 times the doubt.
#
# (c) The agent collects where its plans lead. The doubt on these data is small as soon as it repeats itself, well
# or badly: it does not speak of states that it avoids, possibly because the model is wrong about them. In the last
# iteration the doubt on new data was five times smaller than over the plane, and the error more than ten times. And
# where all members make the same mistake there is no doubt at all. Better: doubt along the *plans* that are considered,
# some steps that seek doubt, and the return itself.
#
# **Rubric.** 1 point for (a), 1 for (b) with figures, 2 for (c): the data come from the model's own plans (1),
# so what it never tries stays unknown, or all members share a mistake (1).

# %% [markdown]
# ## 5. Does prioritized replay help a model?
#
# Your bonus exercise, at work. The data are of two kinds: nine in ten come from random actions, one in ten is
# *rare*, from extreme actions that are held. The same ensemble learns from them in four ways:
#
# - *uniform*: all rows alike;
# - *by error*: the larger the members' error on a row, the more often it is drawn, with importance weights
#   ($\alpha = 0.6$ as in the paper; $\beta$ stays at 0.4, where the paper starts and from where it rises to 1);
# - *by error, not corrected*: the same without the weights ($\beta = 0$);
# - *by disagreement*: priorities from the epistemic standard deviation instead of the error.
#
# It is judged on new transitions of both kinds. There are two worlds: the half-cheetah, where nothing is noisy,
# and the pendulum with the worn sensor of part 2, where half of the data are.
#
# **Write down your prediction.** In which of the two worlds will priorities help, and for which kind of
# transition? What will the noise do to priorities by error, and to those by disagreement? The published gains
# (for Q-learning on Atari) are large: would you expect as much here?

# %% [markdown] kind="written" id="predict-replay" points=2
# **Model answer.** Priorities draw the rare rows more often, so the error on them should fall faster, at the
# cost of the common ones; on the average of both little is to be gained. With a noisy sensor the priorities by
# error go to the noisy half, where nothing is left to learn, so they should help less or do harm; those by
# disagreement should not follow the noise. I expect less than on Atari: here every row has a dense target from
# the first moment on, while in Q-learning a few rows carry all of the reward's news.
#
# **Rubric.** 1 point: rare against common, with a reason. 1 point: noise attracts priorities by error and not
# (or less) those by disagreement.

# %% [markdown]
# Here the pendulum runs, a quarter of a minute of processor time; the half-cheetah is shown from the results that ship.

# %%
replays = {name: load_results(name, "laptop") for name in ("prioritized-model", "prioritized-noise")}
try:
    importance_weights(torch.ones(2) / 2, 2, 1.0)
    here = results_of("prioritized-noise")
except NotImplementedError:
    print("The bonus exercise is not there yet: all curves are those that ship with the course.")
    here = replays["prioritized-noise"]


# %%
def plot_replay(name, metric, ax, title):
    """Error against gradient steps: IQM and interval over the shipped seeds."""
    rows = replays[name][replays[name]["metric"] == metric]
    for (variant, part), color in zip(rows.groupby("variant", sort=False), COLORS, strict=False):
        curve = learning_curve(part, "step", "value")
        ax.fill_between(curve["step"], curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0)
        ax.plot(curve["step"], curve["iqm"], "o-", color=color, markersize=3.5, label=variant)
    ax.set(xlabel="gradient steps", title=title)


worlds = {"prioritized-model": "half-cheetah", "prioritized-noise": "pendulum, worn sensor"}
replays = {name: rows for name, rows in replays.items() if rows is not None} or {"prioritized-noise": here}
worlds = {name: worlds[name] for name in replays}
axes = new_axes(columns=2, rows=len(worlds), width=5.4, height=3.2)
for row, (name, world) in enumerate(worlds.items()):
    for column, kind in enumerate(("common", "rare")):
        plot_replay(name, f"error, {kind}", axes[2 * row + column], f"{world}: {kind} transitions")
    axes[2 * row].set_ylabel("error, std of a step")
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()
for name in worlds:
    print(shipped_note(name, "laptop"))

# %% [markdown]
# The error at the end, seed by seed, relative to the *uniform* one on the same data: median and range over
# seeds. Below 1 is better.


# %%
def against_uniform(rows):
    """Ratio of each variant's final error to that of uniform replay with the same seed."""
    values = final_values(rows).pivot_table(
        index=["metric", "seed"], columns="variant", values="value", sort=False
    )
    errors = values[values.index.get_level_values("metric").str.startswith("error")]
    ratios = errors.div(errors["uniform"], axis=0).drop(columns="uniform").groupby("metric", sort=False)
    median, low, high = (
        table.map("{:.2f}".format) for table in (ratios.median(), ratios.min(), ratios.max())
    )
    return median + " [" + low + ", " + high + "]"


tables = {world: against_uniform(replays[name]) for name, world in worlds.items()}
pd.concat({**tables, "pendulum, here": against_uniform(here)}, names=["world"])

# %% [markdown]
# What was drawn: the share of rare rows (one in ten of the data), and of noisy ones (half of the pendulum's).


# %%
def shares_of(rows):
    """The share of each kind among all draws, as texts; means over seeds."""
    kinds = [metric for metric in rows["metric"].unique() if metric.endswith("draws")]
    return table_of(rows, ["variant"], kinds).map("{:.0%}".format)


shares = {world: shares_of(replays[name]) for name, world in worlds.items()}
pd.concat({**shares, "pendulum, here": shares_of(here)}, names=["world"]).fillna("")

# %% [markdown]
# And the ledger: the same gradient steps, but not the same time.

# %%
costs = {world: costs_of(replays[name]) for name, world in worlds.items()}
pd.concat({**costs, "pendulum, here": costs_of(here)}, names=["world"])

# %% [markdown]
# **Explain what you see.** (a) Where did priorities help, where did they do harm, and where can your seeds not
# tell? (b) What was drawn more often, and does that explain it? (c) Would you switch it on for a dynamics
# model? What else could you do with rare transitions?

# %% [markdown] kind="written" id="explain-replay" points=4
# **Model answer.** (Of the five seeds that ship.) (a) On the half-cheetah priorities by error made the *common* error
# smaller by 1 to 3 % in every seed: small, but always. The *rare* error became larger in four of five seeds, by 3 to 25 %
# (not corrected: 6 to 38 %), and hardly smaller in the fifth: the opposite of what I had expected. By
# disagreement the rare error was 3 to 9 % smaller in four seeds, and about the same in the fifth. On the pendulum with the worn sensor the
# median differences are at most 4 %, and the seeds disagree about their sign, or hardly differ: no effect is shown.
#
# (b) On the cheetah the rare rows were drawn twice as often as they occur. There are only 500 of them: their
# error on *new* rare transitions falls at first and rises again with the number of gradient steps, and with priorities
# by error it rises earlier: they speed up memorising as well as learning. The share alone does not explain it: by
# disagreement rare rows were drawn still more often (23 %), and the error rose no earlier than with uniform draws. On the pendulum
# more than 80 % of the draws by error were noisy rows (half of the data), where nothing was left to learn; by disagreement
# it was 62 %. That the model did not suffer may be due to its learned variance, which makes noisy rows count less.
#
# (c) No: the only gain that every seed shows is a few percent on the cheetah's common rows, the same steps took nearly
# twice the processor time (on the cheetah 6.9 s against 3.6 s, on the pendulum 4.4 s against 2.4 s), and by error the rare rows
# may get worse. Better for rare transitions: collect more of them (part 4 does, by planning), stop early by a hold-out set
# that holds them, or, if at all, priorities by disagreement.
#
# **Rubric.** 2 points for (a): both worlds and kinds, and no difference claimed that the seeds do not support.
# 1 point for (b), from the shares drawn. 1 point for (c): a decision that follows from the figures, and a
# sound alternative.

# %% [markdown]
# ## 6. The reacher: what matters in the whole loop?
#
# Problem 4 of CS285's homework: an arm of seven joints has to bring its hand to a goal. The loop of week 2
# (random shooting, ensemble of plain networks) is run with one setting changed at a time: the *horizon* of a
# plan (5, 15, 30), the *number of sequences* it chooses from (100, 1000), and the *members* of the ensemble
# (1, 3, 5). The published report: horizon 15 is best, then 30, then 5; more sequences matter little; 5 members
# are better than 3, and 3 than 1.
#
# Nothing in this part is code of this week: the model is the `DynamicsModel` of week 1, the planner and the loop are
# those of week 2. They are the course's own, or yours with `USE_MINE = True` at the top.
#
# At laptop scale this takes longer than a notebook should, so the figures below are the ones that ship with the
# course: of each run the mean return over its four iterations. A small run of two horizons follows in a table.
#
# **Write down your prediction.** Of the three settings, which will make the largest difference? Why could a
# *longer* horizon be worse?

# %% [markdown] kind="written" id="predict-reacher" points=1
# **Model answer.** The horizon: with 5 steps the arm sees too little of what a movement brings. A longer one
# is worse for two reasons: the model's errors add up from step to step (week 1), so the end of a plan is
# fiction; and random shooting has more numbers to guess with the same number of sequences. More sequences
# find better plans in the model, with diminishing returns; more members make it harder to exploit.
#
# **Rubric.** 1 point: a choice with a reason, and compounding errors or the larger search space.

# %%
FIELDS = {"horizon": "Horizon", "num_sequences": "Sequences", "ensemble_size": "Members"}
print(shipped_note("q4"))
if (reacher := shipped("q4")) is not None:
    runs = reacher[reacher["iteration"] > 0].groupby(["variant", "seed"], sort=False)
    means = runs["eval_return"].mean().reset_index()
    means[["field", "value"]] = means["variant"].str.split("=", expand=True)
    axes = new_axes(columns=3, width=3.6, height=2.6)
    for ax, (field, title) in zip(axes, FIELDS.items(), strict=True):
        part = means[means["field"] == field]
        plot_scores(part, "value", "eval_return", ylabel="return, mean of 4 iterations", title=title, ax=ax)
        ax.set_xlim(means["eval_return"].min() - 10, means["eval_return"].max() + 10)
        ax.get_legend().remove()
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plt.show()

# %% [markdown]
# The same in numbers: the return, mean of the four iterations, of each seed, then the IQM with its 95 % interval.


# %%
def interval_of(values):
    """IQM and interval over seeds, as a text."""
    return "{:.0f} [{:.0f}, {:.0f}]".format(*iqm_interval(values.to_numpy()))


if reacher is not None:
    by_seed = means.pivot(index="variant", columns="seed", values="eval_return")
    by_seed = by_seed.loc[means["variant"].unique()]
    display(by_seed.round(0).assign(IQM=by_seed.agg(interval_of, axis="columns")))

# %% [markdown]
# And the ledger, in which the return is that of the last iteration alone.

# %%
if reacher is not None:
    display(ledger_table("q4"))

# %% [markdown]
# A small run: one seed, little data. It shows the loop at work, and no differences that one could trust.

# %%
small = {"num_iterations": 1, "initial_steps": 2000, "steps_per_iteration": 200, "num_sequences": 100}
small["variants"] = ("horizon=5", "horizon=15")
if SCALE == "smoke":
    small = {}
live = run("q4", [0], SCALE, small, fresh=not RESUME)
ledger_table("q4", live, "smoke")

# %% [markdown]
# **Explain what you see.** (a) Compare the shipped runs with the published order. Which of its three
# statements do they support, which not, and which is left open? (b) What would you measure next to settle it?

# %% [markdown] kind="written" id="explain-reacher" points=2
# **Model answer.** (a) (Five shipped seeds, IQM of their means over the four iterations.) The horizon: 30 gets -224 [-239, -187], 15 gets
# -156 [-175, -136] and 5 gets -165 [-210, -115]. That 30 is worse than 15 is supported: it is so in each of the five seeds, by 28 to 115. That 5 is
# the worst is contradicted: it is ahead of 30 in each of the five, too. Against 15 it is ahead in two of the five seeds and behind in three, so the two can't be told apart here. (The last iteration alone, in
# the ledger, has intervals too wide for any order: two episodes say little.)
# Sequences: -130 [-164, -108] with 100, -126 [-154, -93] with 1000, and either is ahead in some seeds: no difference to be seen. That fits "matters
# little", but runs that lie this far apart would hide an effect of thirty.
# Members: -154, -151 and -126 with 1, 3 and 5, which can't be told apart either: left open. So the horizon was the easiest to see, and half of its
# statement came out. (b) More seeds for the two settings that are closest, on the same starts; longer runs, if the curves
# still rise; and the horizon together with the number of sequences, since a longer plan needs more of them.
#
# **Rubric.** 1 point for (a): reads seeds and intervals, statement by statement. 1 point for (b).

# %% [markdown]
# ## What to take along
#
# - Noise settles, ignorance falls, and it falls where data arrive. A half-trained network calls its own misfit
#   noise.
# - The members' disagreement ranks states well: where it is large, the model is wrong. As a standard deviation
#   it is often too small, by factors, where no data have been. So use it to compare and to stop, not as a bound.
# - Three members give most of what ten give, except for calibration far from the data, where each one helps.
# - A model that plans meets its worst surprises with its first plans. Doubt on the agent's own data says nothing
#   about the states that it avoids.
# - Prioritized replay by error runs after the noise, and memorises what is rare. For a dynamics model, whose every
#   row has a target, we measured, on the half-cheetah, gains of a few percent on common transitions, and mostly losses
#   on rare ones; on the pendulum no effect.
#
# ## Test yourself
#
# <details><summary>1. The epistemic standard deviation is 0.1 in state A and 0.2 in state B. May one expect an
# error of 0.1 in A?</summary>
#
# No. Only that B is likelier to have the larger error. The size has to be calibrated against data of the same
# kind, and where a planner goes there are none yet.
# </details>
# <details><summary>2. Why does the aleatoric part of a young network exceed the world's noise?</summary>
#
# It cannot tell noise from its own misfit: both are errors that it makes on its data.
# </details>
# <details><summary>3. Ten members have a better calibration far from the data than three, and hardly a smaller
# error. Why?</summary>
#
# The error of the mean is dominated by what all members get wrong alike, and averaging does not help there. The
# calibration depends on the *estimated* variance. With three members it is rough, and too small on average: dividing
# by $E$ gives $(E - 1) / E$ of the variance over all networks that could have been trained, 2/3 with three members and
# 9/10 with ten.
# </details>
# <details><summary>4. How would you notice that a prioritized buffer runs after noise?</summary>
#
# Count what is drawn: the share of draws of each kind of data, against their share in the buffer. If the error
# of the favoured rows does not fall, there is nothing to learn from them.
# </details>
# <details><summary>5. An agent's model is sure of all states that the agent visits, and the agent is bad. What may
# have happened?</summary>
#
# It plans in a model that is wrong where the agent never goes, and the plans that would lead there look bad. More
# of the same data won't help; exploring where the ensemble disagrees may.
# </details>
#
# ## Where next
#
# Next week PETS puts this ensemble into the planner, and lets it play trial by trial. Yu et al., 2020,
# [*MOPO*](https://arxiv.org/abs/2005.13239), subtract the doubt from the reward; Sekar et al., 2020,
# [*Plan2Explore*](https://arxiv.org/abs/2005.05960), seek it out, with a Dreamer for a model; Hansen et al.,
# 2024, [*TD-MPC2*](https://arxiv.org/abs/2310.16828), plan with an ensemble of values instead.
