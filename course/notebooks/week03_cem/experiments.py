# %% [markdown]
# # Week 3 · Experiments: which search for which budget?
#
# By now you have four ways to search for a plan, and saw each of them work once. Once is an
# anecdote. Here they compete, on equal terms:
#
# 1. **Four planners at equal numbers of model calls**, on the true dynamics of the pendulum and the swing-up,
#    over ten seeds: medians, worst cases, and intervals.
# 2. **The warm start**: is it worth having, and does it matter how the last action is filled in?
# 3. **The half-cheetah with a learned model**: random shooting against CEM with 2 and 4 iterations, as in
#    CS285.
#
# Everything runs on *your* functions from `build.ipynb`, which has to lie beside this notebook. Before each
# experiment there is a prediction to write down, and after it a question about what you saw. Both are read by
# a person. A wrong prediction with a reason earns full marks.
#
# **Time** on two cores: about nine minutes with `SCALE = "laptop"` (measured), less than one with `"smoke"`.
# `"full"` is the setting of the papers, and takes hours.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": the published setting
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
NUM_SEEDS = 10  # of the experiments on true dynamics
NUM_CHEETAH_SEEDS = 1
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week03", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% [markdown]
# The imports come after that, so that they find your functions. iCEM needs the bonus exercise; without it,
# the other three planners compete.

# %% kind="setup"
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import display

from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.envs import get_task
from mbrl_course.evaluation import probability_of_improvement, summary
from mbrl_course.experiments import get_config, load_reference, load_results, run
from mbrl_course.experiments.figures import ledger_table, shipped_note
from mbrl_course.films import episode_film
from mbrl_course.icem import ICEMConfig, ICEMPlanner, colored_noise
from mbrl_course.mpc import run_episode
from mbrl_course.plotting import new_axes, plot_learning_curves, plot_scores, use_style

use_style()
torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other

PLANNERS = ["random shooting", "CEM", "MPPI", "iCEM"]
try:
    colored_noise(1.0, (2, 10), torch.Generator().manual_seed(0))
except NotImplementedError:
    PLANNERS.remove("iCEM")
if SCALE == "smoke":
    NUM_SEEDS = 2


BUDGETS = {"planners-pendulum": (20, 250), "planners-swingup": (50, 250)}  # sequences per plan


def results_of(name, num_seeds):
    """The rows of an experiment of this course at the scale chosen above, one set for each seed."""
    overrides = {}
    if name in BUDGETS and SCALE == "laptop":
        overrides["budgets"] = BUDGETS[name]
    if name in BUDGETS and "iCEM" not in PLANNERS:
        overrides["planners"] = tuple(PLANNERS)
    return run(name, range(num_seeds), SCALE, overrides, fresh=not RESUME)


# %% [markdown]
# ## 1. Four planners, equal budgets
#
# A fair comparison fixes a cost. We take imagined steps, *sequences x horizon*, as papers do: with a large model they
# are what takes time. So a budget of 250 sequences per plan means
#
# | planner | what it does with 250 sequences |
# |---|---|
# | random shooting | 250 at once |
# | CEM | 5 iterations of 50, 5 elites |
# | MPPI | 5 iterations of 50 |
# | iCEM | 5 iterations, the first ones larger than the last ones, some elites carried over |
#
# The number of iterations stays five. So with 50 sequences CEM has five populations of ten with two elites, with 20
# five of four: fewer iterations might suit it better there.
#
# All of them see the same starts, and plan with the true dynamics, so no model error is in play. One thing besides the
# search differs: CEM, MPPI and iCEM start warm, and random shooting, as in week 2, forgets. Part 2 measures what that
# is worth.
#
# **Write down your prediction.** Two tasks: the *pendulum* (one action, 20 steps ahead, and gravity does most
# of the work) and the *swing-up* of a pole on a cart (one action, 30 steps ahead; once up it has to be
# balanced). For which of them will it matter more how the plans are searched? At which budget, small or
# large? Which planner do you expect to have the best *worst* run, and why?

# %% [markdown] kind="written" id="predict-planners" points=2
# **Model answer.** On the pendulum little should depend on the search: one action dimension, a short horizon,
# a smooth reward, and coarse plans are good enough since they are corrected at every step. On the swing-up it
# should matter: the pole has to be caught and balanced, which needs fine actions, and random plans tremble.
# The smaller the budget, the more is gained by a warm start and by smooth samples, so iCEM should be best
# there; with thousands of sequences CEM, MPPI and iCEM should come close to each other. The worst run should
# be best for the planner that relies least on luck in the first population, iCEM.
#
# **Rubric.** 1 point: a statement about task and budget with a reason (dimension, horizon, precision, warm
# start, smoothness). 1 point: a planner for the best worst run with a reason. Whether the prediction comes
# true does not matter.

# %%
pendulum = results_of("planners-pendulum", NUM_SEEDS)

# %%
swingup = results_of("planners-swingup", NUM_SEEDS)

# %% [markdown]
# First, is it fair? Imagined steps per plan, counted while the planners ran, and the time (on the wall) that a plan took.
# With so small a model time goes by the number of calls that have to follow each other, horizon x iterations, and hardly
# by the number of sequences: five iterations take four to five times as long as one, at the same imagined steps.

# %%
costs = swingup.groupby(["budget", "planner"], sort=False)[["calls_per_plan", "ms_per_plan"]].median()
costs.unstack("planner").round(1)

# %% [markdown]
# Now the returns. The line is the interquartile mean (IQM) over seeds: the mean of what is left without the
# best and the worst quarter. The band is its 95 % bootstrap interval (Agarwal et al., 2021, *Deep
# reinforcement learning at the edge of the statistical precipice*; RLiable). Dashed, where there are any:
# the results that ship with the course.

# %%
axes = new_axes(columns=2, width=6.0, height=4.0)
shown = {
    "Pendulum": ("planners-pendulum", pendulum),
    "Swing-up": ("planners-swingup", swingup),
}
for ax, (title, (name, frame)) in zip(axes, shown.items(), strict=True):
    curves = {planner: frame[frame["planner"] == planner] for planner in PLANNERS}
    shipped = next(iter(load_reference(name).values()), None) if SCALE != "smoke" else None
    reference = {} if shipped is None else dict(list(shipped.groupby("planner", sort=False)))
    plot_learning_curves(
        curves,
        reference=reference,
        x="budget",
        y="return",
        xlabel="sequences per plan",
        title=f"{title}, true dynamics",
        ax=ax,
    )
    budgets = sorted({*frame["budget"], *(() if shipped is None else shipped["budget"])})
    ax.set_xscale("log")
    ax.set_xticks(budgets, [str(budget) for budget in budgets])
    ax.minorticks_off()
axes[0].get_legend().remove()
axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()

# %% [markdown]
# The same numbers, run by run, on the swing-up. Circles mark the worst run: what you get on a bad day.

# %%
for budget, rows in swingup.groupby("budget"):
    plot_scores(rows, title=f"Swing-up, {budget} sequences per plan")
plt.show()

# %%
tables = {"pendulum": pendulum, "swing-up": swingup}
table = pd.concat(
    {
        (task, budget): summary(rows, "planner").set_index("planner")
        for task, frame in tables.items()
        for budget, rows in frame.groupby("budget")
    },
    names=["task", "budget"],
)
table[["seeds", "median", "worst", "iqm", "low", "high"]].round(1)

# %% [markdown]
# How sure can one be that one planner beats another? The *probability of improvement* is the chance that a
# random run of X is better than a random run of Y. One half means that there is no difference; the interval
# says what ten seeds can tell.

# %%
for budget, rows in swingup.groupby("budget"):
    scores = {planner: part["return"].to_numpy() for planner, part in rows.groupby("planner", sort=False)}
    for planner in PLANNERS[1:]:
        better = probability_of_improvement(scores[planner], scores["random shooting"])
        text = f"P({planner} > random shooting) = {better.point:.2f}"
        print(f"{budget:5} sequences: {text:40} [{better.low:.2f}, {better.high:.2f}]")

# %% [markdown]
# On the pendulum the intervals are wide, since some starts are upright already and others hang: the start
# decides most of the return. But all planners were given the *same* starts. So compare them start by start:
# how much less does each planner earn than the best one on that start?

# %%
budgets = sorted(pendulum["budget"].unique())
axes = new_axes(columns=len(budgets), width=6.0, height=2.9)
for ax, budget in zip(axes, budgets, strict=True):
    rows = pendulum[pendulum["budget"] == budget].copy()
    rows["behind"] = rows["return"] - rows.groupby("seed")["return"].transform("max")
    title = f"Pendulum, {budget} sequences per plan"
    plot_scores(rows, y="behind", ylabel="return, less the best on that start", title=title, ax=ax)
    ax.get_legend().set_visible(ax is axes[-1])
plt.show()

# %% [markdown]
# **Explain what you see.**
#
# (a) At which budgets does the planner make a difference on the swing-up that the intervals support? Where
# don't they?
#
# (b) Compare the medians with the worst runs. What would you tell somebody who may use a planner once, on a
# real machine?
#
# (c) On the pendulum: what does the comparison start by start show that the intervals of the returns did not?
# What did the extra sequences, 250 instead of 20, buy?

# %% [markdown] kind="written" id="explain-planners" points=4
# **Model answer.** (a) With 50 sequences iCEM is clearly ahead (in our runs [147, 151] against [88, 130]
# for CEM, [117, 135] for MPPI and [65, 103] for random shooting). MPPI is above random shooting, too. CEM
# overlaps with both, and its probability of improvement on random shooting, 0.78 [0.55, 1.00], is only just
# above one half. In the runs that ship with the course MPPI overlaps with random shooting, too ([84, 126]
# against [68, 104]): the order of these three is not certain. With 250, all three searches are clearly
# above random shooting (142 and more against at most 106), and iCEM is still above CEM and MPPI, though by
# little.
#
# (b) A good median can go with bad days: with 50 sequences CEM had a median of 121 and a worst run of 18,
# MPPI 125 and 112, iCEM 150 and 137. In the runs that ship it was MPPI that had the bad day (median 112,
# worst run -19). For a single use the worst run counts: take the planner with the narrow spread, or a
# larger budget.
#
# (c) The differences between starts cancel. With 20 sequences random shooting was behind on half of the
# starts, by up to 340, CEM and MPPI on one, by about 120 and 110, and iCEM on none: a clear order, where the
# intervals of the returns overlapped. With 250 sequences CEM, MPPI and iCEM are within about 10 of each other
# on every start, and random shooting is still behind on three. So the extra sequences bought fewer failures, and
# next to nothing on the other starts.
#
# **Rubric.** 2 points for (a): refers to intervals, not to means only (1); reads them correctly for the
# student's own figures (1). 1 point for (b): sees that a good median can go with bad worst runs, with
# numbers. 1 point for (c): the same starts make the comparison sharper, and a statement about the budget that
# fits the figures.

# %% [markdown]
# ### The agent at work
#
# The last seed's start, with iCEM (or CEM, if you left out the bonus) at 250 sequences per plan.

# %%
task = get_task("cartpole-swingup")
steps = task.max_steps if SCALE != "smoke" else 50
generator = torch.Generator().manual_seed(0)
if "iCEM" in PLANNERS:
    planner = ICEMPlanner(task, task.action_low, task.action_high, ICEMConfig(60, 6, 4, 30), generator)
else:
    planner = CEMPlanner(task, task.action_low, task.action_high, CEMConfig(60, 6, 4, 30), generator)
episode = run_episode(task, planner, seed=NUM_SEEDS - 1, max_steps=steps)
so_far = episode.reward.cumsum(0)[::2]
film = episode_film(
    task, episode.obs[::2], rewards=so_far.diff(prepend=so_far[:1] * 0), fps=12, title="swing-up"
)
film

# %% [markdown]
# ## 2. The warm start
#
# CEM with little budget (2 iterations of 50 sequences) on the swing-up, in three versions: it starts each
# search from the shifted last plan, with the last action repeated or zero, or from the middle of the range
# (`none`).
#
# **Write down your prediction.** `build` showed a single start. Over ten: what share of the runs with `repeat` will beat
# those with `zero`, and what share those with `none`? How large will the two differences be, compared with the spread
# between seeds?

# %% [markdown] kind="written" id="predict-warm-start" points=2
# **Model answer.** Without a warm start 2 iterations are too few to find a swing of 30 steps from nothing, so
# `none` should be far worse. `repeat` and `zero` differ in one action of thirty, the one furthest away, which
# is searched many times before its turn: I expect a difference well within the spread between seeds, with
# `repeat` slightly ahead since good actions last: in six runs of ten, say, and in all of them against `none`.
#
# **Rubric.** 1 point: two shares with a reason. 1 point: says something about the size of the differences
# against the spread.

# %%
warm = results_of("warm-start", NUM_SEEDS)
plot_scores(warm, by="warm_start", title="Swing-up, CEM with 2 x 50 sequences: the warm start")
plt.show()

# %%
scores = {name: rows["return"].to_numpy() for name, rows in warm.groupby("warm_start")}
for other in ("zero", "none"):
    better = probability_of_improvement(scores["repeat"], scores[other])
    print(f"P(repeat > {other}) = {better.point:.2f}  [{better.low:.2f}, {better.high:.2f}]")
summary(warm, "warm_start").round(1)

# %% [markdown]
# **Explain what you see.** (a) Is there a difference between `repeat` and `zero` that your seeds support? If
# not, how would you find out whether there is one? Compare `none`, which has 100 sequences per plan, with random shooting
# in part 1: whose lead was that of CEM there, the refit's or the warm start's? (b) The warm start has a price that this experiment
# doesn't show. When would you rather search from the middle?

# %% [markdown] kind="written" id="explain-warm-start" points=3
# **Model answer.** (a) The intervals of `repeat` and `zero` overlap widely (in our runs [126, 144] and [129,
# 144]) and the probability of improvement is not distinguishable from one half, so ten seeds support no
# difference, while both are clearly above `none` ([68, 90]). More seeds (the interval shrinks with the root
# of their number), the same starts for both (as here), or a setting in which the last action matters more,
# such as a short horizon. Without a warm start CEM with its 100 sequences (80) earns no more than random shooting with 50
# (88), and less than with 250 (101): at such a budget its lead is the warm start's. (b) The search stays near the last plan: after a surprise (a push, a new goal, a
# model that has changed) or when the last plan was in a poor local optimum, the old plan is a bad start, and
# a Gaussian around it may not reach the better one. Then start afresh, or with a broader standard deviation,
# or mix in some samples from the middle.
#
# **Rubric.** 1 point: reads the intervals or the probability correctly for the student's own figures. 1
# point: a sound way to find out, and the comparison with random shooting. 1 point: names stale plans or local optima.

# %% [markdown]
# ## 3. The half-cheetah, with a learned model
#
# Now the whole loop of week 2: random data, fit an ensemble, plan, collect, five times over. Only the search
# differs. This is problem 5 of CS285's homework 4, which expects 800 or more with CEM at full scale.
#
# Planning in a *learned* model changes the question.
#
# **Write down your prediction.** At this small scale (see below), after five iterations: who will be ahead?
# And is more search always better, in a learned model?

# %%
config = get_config("q5", SCALE)
fields = (
    "steps_per_iteration",
    "num_iterations",
    "num_sequences",
    "horizon",
    "ensemble_size",
    "hidden_sizes",
)
for field in fields:
    print(f"{field:20} {getattr(config, field)}")
print("the searches        ", *config.variants, sep="\n    ")

# %% [markdown] kind="written" id="predict-cheetah" points=2
# **Model answer.** A plan for the cheetah is 15 steps of 6 actions, 90 numbers: random shooting can't search
# that, so CEM should be ahead, and 4 iterations ahead of 2. But more search is not always better: in the
# first iterations the model has seen random data only, and a strong search finds plans that lead where the
# model is wrong, and look excellent there. Those plans are then executed, and the data correct the model, so
# the loss should be temporary.
#
# **Rubric.** 1 point: an order with a reason (dimension). 1 point: sees that a strong search may exploit the
# errors of the model.

# %%
cheetah = results_of("q5", NUM_CHEETAH_SEEDS)


# %%
def by_search(frame):
    """The rows of each search, from the first plans on: the random policy would stretch the axis."""
    return dict(list(frame[frame["iteration"] > 0].groupby("variant", sort=False)))


shipped = load_results("q5", SCALE)
plot_learning_curves(
    by_search(cheetah),
    reference=None if shipped is None else by_search(shipped),
    title=f"Half-cheetah, learned model, scale: {SCALE}",
    ax=new_axes(width=7.0, height=4.4)[0],
)
plt.show()
random_return = cheetah.loc[cheetah["iteration"] == 0, "eval_return"].mean()
print(f"The random policy, whose data were the first to learn from: {random_return:.0f}")

# %% [markdown]
# The same at full scale, CS285's own: 5,000 steps in each iteration, 1,000 sequences per population, an ensemble of three
# networks with two layers of 250. The table has the return of each seed after each iteration.

# %%
full = load_results("q5", "full")
if full is not None:
    title = "Half-cheetah at full scale, measured by the course"
    plot_learning_curves(by_search(full), title=title, ax=new_axes(width=7.0, height=4.4)[0])
    plt.show()
print(shipped_note("q5", "full"))

# %%
if full is not None:
    returns = full[full["iteration"] > 0].pivot(
        index="iteration", columns=["variant", "seed"], values="eval_return"
    )
    display(returns.sort_index(axis="columns").round())

# %% [markdown]
# Your own runs after the last iteration:

# %%
last = cheetah[cheetah["iteration"] == cheetah["iteration"].max()]
last[["variant", "seed", "env_steps", "eval_return", "holdout_loss", "cpu_seconds"]].round(3)

# %% [markdown]
# And the ledger, with the runs that ship: medians over seeds.

# %%
ledger_table("q5", cheetah, SCALE)

# %% [markdown]
# **Explain what you see.** (a) What does more search buy here, and what does it cost (look at the CPU seconds)?
# Does the full scale say the same: in the end, and after the first plans?
# (b) How many seeds would you want before you say that 4 iterations are better than 2, and why? (c) The
# planner knows the true *reward* function, and only the dynamics are learned. How could a strong search still
# be fooled?

# %% [markdown] kind="written" id="explain-cheetah" points=4
# **Model answer.** (a) CEM is ahead of random shooting from the first plans on: in our run random shooting
# got to about 130 after five iterations and CEM with 2 iterations to about 530, while CEM with 4 earned 450
# with the first model already, and 1000 at the end. It costs two and four times the model calls, here 1.7
# and 3.2 times the CPU seconds, since fitting the models takes its time in all three. In one iteration between,
# CEM with 4 fell to 130, below random shooting: a single bad episode, or a model that was fooled for a
# while; one run can't tell. Over the five seeds that ship with the course the order holds: interquartile
# means of 158 for random shooting, 642 for CEM with 2 iterations and 911 with 4; the intervals of the last
# two just touch. At full scale random shooting ends at 336 to 371, CEM with 2 iterations at 1055 to 1253 and with 4
# at 1233 to 1552 (three seeds; CS285 expects at least 800): the same order in each seed, though one of them by 24 only.
# After the first and the second plans it is another one: there CEM with 4 iterations is behind CEM with 2 in two seeds
# of three, by up to 300. The model had seen few data then, and a stronger search finds more of its errors; three seeds
# don't prove that.
# (b) One run each tells nothing about a difference of the size that seeds alone make. At least five, better
# ten, for both with the same starts, until the interval of the probability of improvement excludes one half.
# (c) The reward is computed on predicted states. A model that predicts an impossible velocity, or a leg that
# passes through the floor, gets a true reward for a false state. The search looks for just such places, more
# thoroughly the stronger it is; an ensemble's mean dampens it, since its members are wrong in different
# places.
#
# **Rubric.** 1 point for (a): gain and cost from the student's own figures. 1 point for (b): several seeds,
# with a reason. 2 points for (c): the reward of a wrongly predicted state (1), the search seeks such states
# (1).

# %% [markdown]
# ## What to take along
#
# - Compare planners at equal numbers of model calls, over seeds, with intervals. A single run shows next to
#   nothing.
# - The worst run is a result, too.
# - A warm start is worth much: about 60 on the swing-up, more than iCEM had over CEM with the fewest sequences (30 to 50).
#   The fill of its last action hardly matters.
# - How much the search matters depends on the task: on its dimension, its horizon, and the precision that it
#   needs.
# - In a learned model a stronger search also finds the model's errors. That is where next week begins: a
#   model that says what it doesn't know.
