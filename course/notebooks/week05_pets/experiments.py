# %% [markdown]
# # Week 5 · Experiments: what does a plan promise?
#
# In `build.ipynb` your agent balanced a pole after a few trials. Here it has to swing the pole up first, which
# takes plans that are worse now to be better later. Three questions, and a look elsewhere:
#
# 1. **How much search?** Three budgets on the cart-pole swing-up, return against environment steps, and
#    against minutes.
# 2. **Does the plan keep its promise?** What the chosen plan expects to earn, against what the same actions
#    bring in truth: the gauge of model exploitation. And a film of the plan's particles.
# 3. **Whom to believe?** TS1, TS-infinity, the mean of the members, or one member per trial.
# 4. **Elsewhere:** the pendulum, and other starts of a search, from results that ship with the course.
#
# Everything runs on *your* functions from `build.ipynb`, which has to lie beside this notebook. Before the
# experiments there are predictions to write down, and after them questions about what you saw. Both are read
# by a person. A wrong prediction with a reason earns full marks.
#
# **Where it comes from**
#
# - Chua et al., 2018, [*Deep reinforcement learning in a handful of trials using probabilistic dynamics
#   models*](https://arxiv.org/abs/1805.12114), Sections 5 and 6: PETS, and its ablation of propagation.
# - Kurutach et al., 2018, [*Model-ensemble trust-region policy
#   optimization*](https://arxiv.org/abs/1802.10592): model exploitation, and why an ensemble helps.
#
# **Time** with `SCALE = "laptop"`: about six minutes of one core (AMD EPYC), with `"smoke"` less than half a minute.
# What would take longer is shown from runs that ship with the course; each picture says so. `"full"` has the
# settings closer to the paper's, and takes hours.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": larger settings, hours
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week05", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% [markdown]
# The imports come after that, so that they find your functions.

# %% kind="setup"
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import display

from mbrl_course.cem import CEMPlanner
from mbrl_course.envs import get_task
from mbrl_course.experiments import Run, get_config, get_experiment, run
from mbrl_course.experiments.figures import (
    ledger_table,
    plot_results,
    shipped,
    shipped_note,
    show_pareto,
    show_shipped,
)
from mbrl_course.experiments.time_to_solve import time_to_solve
from mbrl_course.experiments.variants import ledger, variant_of
from mbrl_course.experiments.week05 import run_trials
from mbrl_course.films import make_film
from mbrl_course.mpc import rollout, run_episode
from mbrl_course.pets import ParticleModel
from mbrl_course.plotting import COLORS, GREY, line_colors, new_axes, use_style

use_style()
torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other

# %% [markdown]
# ## 1. How much search?
#
# The pole hangs from the cart, and the motor is too weak to lift it in one go: it has to be swung back and
# forth. The reward is the height of the pole (the cosine of its angle: 1 upright, -1 hanging), less
# $0.01\,x^2$ for the distance from the middle. A trial has 200 steps of 0.04 s, eight seconds. The track has
# no end, so a cart that runs away is not stopped: it pays, more and more.
#
# A budget is a population $K$ of sequences, a horizon $H$, and $I$ iterations of CEM. Each plan costs
# $K \cdot H \cdot I$ steps in each of five particles, and 200 plans make a trial:

# %%
task = get_task("cartpole-swingup")
config = get_config("pets-cartpole", SCALE)
budgets = dict(variant_of(config, text) for text in config.variants)
for name, budget in budgets.items():
    plan = budget.population_size * budget.horizon * budget.num_iterations
    seconds = budget.horizon * 0.04
    print(f"{name:10} looks {seconds:.2f} s ahead, {plan * budget.num_particles:9,} model calls per plan")

# %% [markdown]
# **Write down your prediction.** Which of the three budgets will have learned most after 1000 real steps (the
# random trial and four with plans)? And which after one *minute* of computing? Is there anything that a short
# horizon can't do here, however many sequences it tries?

# %% [markdown] kind="written" id="predict-budget" points=2
# **Model answer.** Per real step the largest budget should be ahead: 500/30/5 looks 1.2 s ahead, about as long
# as a swing takes, and sees that letting the pole fall back pays later. 15 steps (0.6 s) end before the pole is up,
# so the plan has to be lured by partial heights; more sequences can't cure that. Per minute it may turn around:
# 100/15/3 makes some seventeen times as many plans in the same time, and has seen all of its trials before the
# largest budget has finished its second.
#
# **Rubric.** 1 point: an order per step and per minute, with a reason. 1 point: the horizon has to hold the
# swing (what comes after the end of the plan does not count). Whether the prediction comes true does not matter.

# %% [markdown]
# Two of the budgets run here, one seed each; for the largest one there are shipped results alone. The run of
# the middle one is written out, since we want to keep more of it than its returns: after each trial, before the
# model learns from it, the planner is asked what its plans promised, and for three of the trials we keep what
# 20 particles imagined for each chosen plan. (Two and a half minutes, and one for the small budget.)


# %%
small, middle = list(budgets)[:2]
model_settings, pets_settings = budgets[middle].settings()
CLOSER = sorted({1, 3, pets_settings.num_trials} & set(range(pets_settings.num_trials + 1)))
promises, imagined, real = {}, {}, {}  # by the number of the trial
hand = Run(seed=0)


def on_trial(number, trial, planner):
    """Writes a trial into the books; `planner` still has its plans, and the model that they were made with."""
    costs = ledger(hand, trial.env_steps, trial.model_calls, 0, trial.model_updates)
    real[number] = trial.transitions.obs  # [T, D]
    promises[number] = planner.promises(task, torch.Generator().manual_seed(0))
    promised, obtained = promises[number].medians()
    gauge = {"promised": promised, "obtained": obtained}
    hand.log(variant=middle, trial=number, eval_return=trial.trial_return, **costs, **gauge)
    print(f"trial {number}: return {trial.trial_return:6.0f}   {costs['cpu_seconds']:5.0f} s so far")
    if number in CLOSER:
        crowd = ParticleModel(planner.model.ensemble, "ts_inf", 20, torch.Generator().manual_seed(0))
        imagined[number] = {
            step: rollout(crowd.step, planner.obs[step], planner.plans[step][None], 20).obs[:, 0]
            for step in range(0, len(planner.plans), 2)
        }  # step -> [P, H + 1, D]


run_trials(task, model_settings, pets_settings, hand, on_trial)

# %%
fewer = run("pets-cartpole", (0,), SCALE, {"variants": config.variants[:1]}, fresh=not RESUME)
swingup = pd.concat([fewer, hand.table()], ignore_index=True)

# %% [markdown]
# Each line is the interquartile mean (IQM) over seeds, the band its 95 % bootstrap interval (RLiable). Dashed:
# the runs that ship with the course, in the colour of the same budget. A trial is at once data and evaluation:
# nothing had been learned from it when its actions were chosen.

# %%
print(shipped_note("pets-cartpole"))
left, right = new_axes(columns=2, width=5.0, height=4.0)
plot_results("pets-cartpole", swingup, SCALE, title="Swing-up: return against real steps", ax=left)
plot_results("pets-cartpole", swingup, SCALE, x="minutes", title="... and against minutes", ax=right)
for ax in (left, right):
    ax.set(ylim=(-500, 170), ylabel="return (cut at -500)")
    ax.get_legend().remove()
left.xaxis.set_major_locator(plt.MultipleLocator(400))
left.figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()
ledger_table("pets-cartpole", swingup, SCALE)

# %% [markdown]
# The axes are cut off at -500: where a line or a band leaves the picture, a cart ran away.
#
# The last trial says little by itself. Say that the task is *solved* in the first trial that earns 100 or more of the
# 200: the pole stood for some three quarters of the time. How long did that take? (Medians over seeds; infinite where
# half of them never got there.)

# %%
solved_at = get_experiment("pets-cartpole").solved_at
tables = {"here": swingup, "shipped": shipped("pets-cartpole", SCALE)}
found = {where: time_to_solve(rows, solved_at) for where, rows in tables.items() if rows is not None}
table = pd.concat(found, names=["measured", None]).droplevel(1).set_index("what", append=True)
table[["seeds", "solved", "env_steps", "cpu_seconds"]]

# %% [markdown]
# What lies behind the intervals? Of each seed what the last trial earned, and the worst one:


# %%
def last_and_worst(trials):
    """The return of the last of these trials and of the worst one, as a text."""
    worst = trials.loc[trials["eval_return"].idxmin()]
    last = trials["eval_return"].iloc[-1]
    return f"{last:.0f}, worst {worst['eval_return']:,.0f} in trial {worst['trial']:.0f}"


seeds = pd.concat([rows.assign(measured=where) for where, rows in tables.items() if rows is not None])
groups = seeds[seeds["trial"] > 0].groupby(["measured", "seed", "variant"], sort=False)
groups[["trial", "eval_return"]].apply(last_and_worst).unstack("variant").fillna("")

# %% [markdown]
# And what would each budget earn if there were nothing to learn? The same search in the *true* dynamics, one episode each:

# %%
for name, budget in budgets.items():
    search, generator = budget.settings()[1].optimizer, torch.Generator().manual_seed(0)
    episode = run_episode(
        task, CEMPlanner(task, task.action_low, task.action_high, search, generator), seed=0
    )
    farthest = episode.obs[:, 0].abs().max()
    print(f"{name:10} return {episode.reward.sum():4.0f}, farthest from the middle {farthest:4.1f} m")

# %% [markdown]
# Is there a cheaper way to the same return? The course has measured PETS with other searches (MPPI and iCEM of week 3
# beside CEM), smaller and larger models, and more or fewer particles, here, on the pendulum and on the balancing cart-pole. Each
# setting stands at what it computed and what it earned; those on the front are beaten by none that is as cheap. On the right, what
# each seed had spent when it first solved the task.
#
# A search is called `PLANNER population/horizon/iterations`. The other settings change one thing or two of `iCEM 40/25/2` (on the
# pendulum of `iCEM 40/20/2`), with its five members, five particles and two layers of 64 units; on the balancing cart-pole of
# `CEM 100/15/3`, with two layers of 128. An evaluation is a trial here. `ensemble mean` predicts
# with the mean of the members' means (see part 3). `3 members` has as many particles. `10 particles` and `2x128` (two
# layers of 128) say themselves what they change. A `cold start` begins every search from nothing, not from the last plan.
# `timid fits` learn at a third of the rate, and stop after 5 epochs without an improvement (the others: 20), or after 50
# epochs (100).
# The *preset* is the setting that the course chose by these pictures (`mbrl-course run pets-cartpole-preset`, say). Two of the five seeds
# were measured later, on another machine or a busier one: on the pendulum the same work took them half as long again. So compare settings
# within a seed.
#
# `CEM 100/15/3` of the first picture is not the 100/15/3 from above: a fifth of its sequences are elites, there a tenth; it has seven trials, there
# eight; and what it earned is the mean of the last three, there the last one. So don't compare the two numbers.

# %%
for name in ("pareto-pets-cartpole", "pareto-pets-pendulum", "pareto-pets-balance"):
    show_pareto(name)

# %% [markdown]
# **Explain what you see.** (a) Which differences between the budgets do the curves support, per step and per
# minute? Which part of them is the search, which the model? Say which of your statements rest on a single seed. (b) How do the curves behave from trial to trial, and what makes a cart run away? (c) You have
# a laptop, and a real cart-pole on which each trial costs five minutes of a technician. Which budget do you
# take? And which one if a simulator gives real steps for free? What would you change in it first, after the last three pictures?

# %% [markdown] kind="written" id="explain-budget" points=3
# **Model answer.** (a) Per step, in the last trial of the five shipped seeds: 63 [-31, 123] with the small budget, 116 [109, 129] with
# the middle one, 141 [132, 148] with the large one (IQM, 95 % interval). That the large one ends highest is supported: its worst
# seed earned 131, and of the ten other seeds one earned more (132). Middle against small is not: of the small one's seeds two
# earned 123, the others 59, 8 and -50. Early on nothing is: for four trials the seeds of one budget lie 140 and more apart.
# A part of it may be the search alone: in the *true* dynamics the budgets earned 33, 121 and 148, the same order, and a plan
# of 0.6 s sees no use in letting the pole fall back, however good the model. But these are single episodes, and no
# ceiling: with its learned model the small budget earned 63, and 123 in two seeds.
# Per minute: 37 s of one core for all eight trials of the small budget, 84 s and 228 s for the others. After 40 s the small one is done, and has
# once earned 100 in four of five seeds; the middle one gets there after 44 s (median), in all five. Our own curves are one seed each:
# they show that the code works, and no order.
#
# (b) Up and down by hundreds. Each trial leads to new states, about which the model knows nothing yet, and the next fit
# corrects it. The cart runs away because distance costs little at first ($0.01\,x^2$ is one reward only at ten metres),
# and braking would cost height now. Once it is fast, a plan of 0.6 s can't bring it back, and far out the model answers for
# states that it has never seen. Longer plans see more of the price, but are not safe while the model is bad: in two trials of the shipped
# runs the cart of the middle and of the large budget went so far that the return was -21,988 and -13,463, both in trial 2. The small budget alone still
# falls back late, to -50 and 8 in the last trial of two seeds.
#
# (c) With five minutes of a technician per trial, half a minute of one core per trial for the largest budget costs next
# to nothing: take it, since it needs as few trials as the middle one and ends higher. With free real steps only computing
# counts: the middle budget earns 100 in a third of the large one's time; the small one may never be steady. In the first Pareto
# picture it is the horizon that decides: iCEM with 40 sequences and two iterations earns 146 with plans of 35 steps, 103 with 25 and 5 with
# 15 (IQM over five seeds, the last three trials), in this order in every seed. More sequences (100/25/2: 84), more iterations (40/25/4: 110) or wider
# networks (99) bring nothing that five seeds would show. So: a fifth of the middle budget's sequences, and a longer look ahead. (On the pendulum
# plans of ten steps are the cheapest and solve it as soon as others, but two of five seeds have lost it at the end, at -633 and -755. For
# balancing, iCEM with 40 sequences and two iterations gets to 200 in 6 to 10 s, where CEM 100/15/3 takes 11 to 17; with plans of 8 steps one of five
# seeds never does, and the others don't stay there: 135 over the last three trials.)
#
# **Rubric.** 1 point: (a) both axes, and the difference between one seed and an interval. 1 point: (b) the ups and downs
# are described, and explained by states without data or by the short horizon. 1 point: (c) real steps against
# computing, weighed with numbers from the ledger; the horizon, or another change that the picture supports.

# %% [markdown]
# ## 2. Does the plan keep its promise?
#
# The search looked through hundreds of plans and took the best, *as the model sees it*. Where the model is wrong, some
# plans look better than they are, others worse, and it is the former that are chosen. So the chosen plan promises
# too much, even if the model is right on average. That is **model exploitation**, and it can be measured:
#
# - **promised**: the mean reward per step of the chosen plan, averaged over fresh particles;
# - **obtained**: that of *the same actions* in the true dynamics, from the same state.
#
# Both are of the plan as a whole, 25 steps without a look at the world. (The agent carries out the first
# action only. So a broken promise is not yet a bad trial.)

# %% [markdown]
# **Write down your prediction.** No reward here is above 1. Can a promise be? In which trials will promise and
# truth be furthest apart? What would you expect of more search, in this respect?

# %% [markdown] kind="written" id="predict-promise" points=2
# **Model answer.** Yes: the reward is computed from the *predicted* cosine, which nothing keeps below 1; a model
# that has never seen a pole upright may imagine a height of 2. The gap should be widest in the first trials, with the
# promise too high, and close as data come from where the plans lead. More search finds larger errors, so with
# the same model the gap should widen with the budget; but better data may make up for it.
#
# **Rubric.** 1 point: a statement about time, with the reason that the search selects errors. 1 point: sees
# that a model's states need not be possible ones, or argues about search.

# %%
returns = hand.table().set_index("trial")["eval_return"]
axes = new_axes(columns=len(CLOSER), width=3.6, height=4.2)
for ax, number in zip(axes, CLOSER, strict=True):
    promised, obtained = promises[number]
    low = max(-2.5, min(-1.1, obtained.min().item(), promised.min().item()))
    high = min(5.0, max(1.3, promised.max().item()))
    ax.plot([low, high], [low, high], color="black", linewidth=1, label="promise kept")
    ax.axhline(1, color=COLORS[3], linestyle="--", linewidth=1.5, label="largest possible reward")
    ax.axhspan(1, high, color=COLORS[3], alpha=0.08, linewidth=0, label="too good to be true")
    places, steps = (obtained.clamp(low, high), promised.clamp(low, high)), torch.arange(len(promised))
    dots = ax.scatter(*places, c=steps, cmap="viridis", s=16, zorder=3, clip_on=False)
    ax.set(xlim=(low, high), ylim=(low, high), xlabel="obtained, reward per step", aspect="equal")
    ax.set_title(f"Trial {number}: return {returns[number]:.0f}")
axes[0].set_ylabel("promised, reward per step")
axes[0].figure.colorbar(dots, ax=list(axes), label="step of the trial", shrink=0.8)
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# Each dot is a plan. On the line it keeps its promise, above it promises too much; dots on an edge lie beyond it. The
# dashed line is the largest reward that the task can give. Now trial by trial, the median plan of each: what was promised
# (solid), what was obtained (dashed), and what the agent really earned per step, replanning all the time (dotted).


# %%
def plot_gauge(rows, ax, title):
    """Promised, obtained and earned rewards per step of each variant, medians over seeds."""
    shown = rows[rows["trial"] > 0].assign(earned=lambda frame: frame["eval_return"] / task.max_steps)
    styles = {"promised": "o-", "obtained": "o--", "earned": ":"}
    colors = line_colors(list(dict.fromkeys([*budgets, *shown["variant"]])))
    for name, part in shown.groupby("variant", sort=False):
        medians = part.groupby("trial")[list(styles)].median()
        for column, style in styles.items():
            label = name if column == "promised" else None
            ax.plot(medians[column], style, color=colors[name], markersize=4, label=label)
    for column, style in styles.items():
        ax.plot([], [], style, color=GREY, markersize=4, label=column)
    ax.axhline(1, color=COLORS[3], linestyle="--", linewidth=1.5, zorder=0, label="largest possible reward")
    ax.set(xlabel="trial", ylabel="reward per step", ylim=(-2.2, 2.2))
    ax.set_title(title)


gauges = {"here, one seed each": swingup}
if (reference := shipped("pets-cartpole", SCALE)) is not None and "promised" in reference:
    gauges[f"shipped, {reference['seed'].nunique()} seeds"] = reference
axes = new_axes(columns=len(gauges), width=5.0, height=4.0)
for ax, (where, rows) in zip(axes, gauges.items(), strict=True):
    plot_gauge(rows, ax, f"Promise and truth, {where}")
handles_and_labels = axes[-1].get_legend_handles_labels()
axes[0].figure.legend(*handles_and_labels, loc="outside lower center", ncols=4, handlelength=3)
plt.show()

# %%
both = pd.concat([rows.assign(measured=where) for where, rows in gauges.items()])
both = both[both["trial"] > 0].assign(gap=lambda rows: rows["promised"] - rows["obtained"])
both["trials"] = (both["trial"] > both["trial"].max() // 2).map({False: "first half", True: "second half"})
both.groupby(["measured", "variant", "trials"], sort=False)[["promised", "obtained", "gap"]].median().round(2)

# %% [markdown]
# ### The particles of a plan
#
# Three of the trials, their first 120 steps, seen through the plans. Black is the real height of the pole; from some of
# the states, the 20 particles of the plan that was chosen there, a colour for each of the five members.


# %%
def draw_particles(ax, number, step, every=1):
    """The particles of the plan that was made at a step of a trial: the height of the pole that each imagines."""
    states = imagined[number][step]  # [P, H + 1, D]
    share = len(states) // model_settings.ensemble_size
    for particle, states_of_one in enumerate(states[::every]):
        steps = torch.arange(step, step + len(states_of_one))
        color = COLORS[particle * every // share]
        ax.plot(steps, states_of_one[:, 3], color=color, linewidth=1, alpha=0.5)


axes = new_axes(columns=len(CLOSER), width=3.6, height=3.4)
for ax, number in zip(axes, CLOSER, strict=True):
    for step in list(imagined[number])[::16]:
        draw_particles(ax, number, step)
    ax.plot(real[number][:, 3], color="black", linewidth=2, label="real")
    ax.axhline(1, color=GREY, linewidth=1, zorder=0, label="upright")
    ax.plot([], [], color=COLORS[0], linewidth=1, label="a particle (colour: its member)")
    ax.set(xlabel="step", xlim=(0, 120), ylim=(-2.0, 2.5))
    ax.set_title(f"Trial {number}: return {returns[number]:.0f}")
axes[0].set_ylabel("height of the pole, cos(angle)")
axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% [markdown]
# And the last trial as a film: at each moment what the particles of the chosen plan imagine, over what then happened.

# %%
last = CLOSER[-1]
states = real[last]


def draw(ax, frame):
    step = list(imagined[last])[frame]
    draw_particles(ax, last, step)
    ax.plot(states[:, 3], color=GREY, linewidth=1, alpha=0.6)
    ax.plot(states[: step + 1, 3], color="black", linewidth=2.5)
    ax.set(xlim=(0, len(states) + 10), ylim=(-1.3, 3.0), yticks=[-1, 0, 1], xlabel="step")
    ax.set_ylabel("height of the pole")
    ax.set_title(f"Trial {last}, step {step}: the particles of the plan", fontsize=10)
    picture = ax.inset_axes((0.25, 0.58, 0.5, 0.42))
    task.plot_state(picture, states[step])
    picture.axis("off")


make_film(draw, len(imagined[last]), fps=12, size=(5.6, 4.0), title="particles of the plan", progress=False)

# %% [markdown]
# **Explain what you see.** (a) Where are the first plans in the scatter plots, and what does it mean that some of them lie
# above the dashed line? (b) How does the gap develop, and what makes it smaller? Compare the budgets, if your
# figures show a difference. (c) In some trials the agent earns well though its plans promise wrongly, or badly though
# they keep their promise. Find one of either, and say how that is possible. (d) Somebody proposes to
# choose between two models by the return that their plans promise. What do you answer?

# %% [markdown] kind="written" id="explain-promise" points=4
# **Model answer.** (a) In trial 1 the first thirty or so keep their promise, or promise a little too little: the pole still hangs, as it did
# in the data. They are above the line from about step 40 on. In trial 3 they stand in a column: in truth the pole spins and earns about 0, whatever the
# plan, while the plans promise up to 4.7 per step, and the task can give no more than 1. The model imagines a pole
# "higher than upright" (its particles leave the picture), and the search finds just such plans. The median plan of trial 3
# promised 1.6; in the five shipped seeds 0.95 with the middle budget and 1.08 with the large one, where -0.13 and -0.12 came of it.
#
# (b) It closes. Shipped, first half of the trials against the second: 0.62 and -0.01 per step with the middle budget, 0.58 and -0.03
# with the large one, 0.14 and 0.00 with the small one. What closes it are data from where the plans lead; that is the point of the loop. Longer
# plans and more search found more to exploit, as predicted, as long as the model was bad. In the end the promise is even a little too *low*: where
# the members disagree near the upright pole, some particles fall over, and the average shows it. That is doubt, not exploitation.
#
# (c) Well in spite of small promises: in trial 4 of the large budget (shipped) the median plan promised 0.35 and would have brought 0.31,
# and the agent earned 0.7. Only the first action is carried out, and the next plan starts from the real state; the
# promise has to rank first actions rightly, not to be true. Badly although promises are kept: trials 4 and 5 of the small
# budget here, where promised and obtained are both about -0.4 and -0.6, and the agent earned -1.7 and -2.2 per step: the cart rolls away, the
# model knows it, and no plan of 0.6 s gains by braking.
#
# (d) That the larger promise may just be the larger error. Compare what they promise with what plans obtain, or the
# returns in the world.
#
# **Rubric.** 1 point for each part: (a) above the line, and impossible above 1; (b) the gap shrinks with data from where
# plans lead; (c) replanning, and a horizon or search that is too short; (d) no, with the selection of errors.

# %% [markdown]
# ## 3. Whom to believe?
#
# One budget, and four answers to the question from which member a particle's next state comes:
# TS-infinity (the same member all the way), TS1 (a new one at each step), `mean` (the mean of all members' means, one
# particle, no noise), and `single` (one member for the whole trial, drawn at its start).
#
# **Write down your prediction.** Which will do best, and which worst? For whom will the plans promise most too much?
# Say also which differences you expect to see at all with a handful of seeds.

# %% [markdown] kind="written" id="predict-propagation" points=2
# **Model answer.** `single` plans in one network, whose errors nobody contradicts: it should promise most too much. (It
# also explores: each trial follows another opinion.) `mean` cancels part of the errors, but knows no doubt. TS1 and
# TS-infinity average the returns over opinions, so one member's error counts for a fifth, and should be ahead; between
# these two I expect no difference in a task without noise. Chua et al. (Figure 4) found that the choice of the model
# mattered more than that of the propagation. With a few seeds and returns that jump from trial to trial, only large
# differences will be seen.
#
# **Rubric.** 1 point: an order with reasons that use the members' disagreement. 1 point: a statement about the promises,
# or about what the seeds can show.

# %% [markdown]
# Three of them run here with the smallest budget, one seed each; TS-infinity is the run from above. All four, with a
# larger budget and more seeds, take too long for this notebook: those that ship with the course stand beside. They
# have five seeds, like the other results of this week but for the Pareto pictures, which have three. (Two minutes.)

# %%
cheap = config.variants[0].partition(":")[2]  # the smallest of the three budgets
others = tuple(f"propagation={way}: propagation={way}{cheap}" for way in ("mean", "single"))
believed = pd.concat(
    [
        fewer.assign(variant="propagation=ts_inf"),
        run("pets-cartpole", (0,), SCALE, {"variants": others}, fresh=not RESUME),
    ],
    ignore_index=True,
)

# %%
name = "pets-cartpole-propagation"
print(shipped_note(name))
ways = ("ts_inf", "mean", "single", "ts1")
style = {
    "colors": {f"propagation={way}": color for way, color in zip(ways, COLORS, strict=False)},
    "ylabel": "return (cut at -500)",
}
axes = new_axes(columns=1 if shipped(name) is None else 2, width=5.0, height=4.0)
plot_results(name, believed, SCALE, title=f"{small}, here", compare=False, ax=axes[0], **style)
if shipped(name) is not None:
    plot_results(name, title="200/25/4, shipped", ax=axes[1], **style)
for ax in axes:
    ax.set_ylim(-500, 170)
plt.show()
display(ledger_table(name, believed, SCALE, compare=False))
if shipped(name) is not None:
    display(ledger_table(name))

# %%
gauges = {"here, one seed each": believed}
if (reference := shipped(name)) is not None and "promised" in reference:
    gauges[f"shipped, {reference['seed'].nunique()} seeds"] = reference
both = pd.concat([rows.assign(measured=where) for where, rows in gauges.items()])
both = both[both["trial"] > 0].assign(gap=lambda rows: rows["promised"] - rows["obtained"])
both["trials"] = (both["trial"] > both["trial"].max() // 2).map({False: "first half", True: "second half"})
both.groupby(["measured", "variant", "trials"], sort=False)[["promised", "obtained", "gap"]].median().round(2)

# %% [markdown]
# **Explain what you see.** (a) Which order do the returns support? Which the gaps? (b) One model's noise is another
# model's doubt: why may TS1 and TS-infinity give nearly the same plans here, and in which task would they not? (c) Mean
# propagation needs as many calls of networks for one particle as TS-infinity for five. Where in the ledger do you see
# it, and what would you do with the time?

# %% [markdown] kind="written" id="explain-propagation" points=3
# **Model answer.** (a) None, here: in our run TS-infinity earned 8 in the last trial, `single` 112 and `mean` -89, but one seed
# whose return jumps by hundreds from trial to trial supports no order. The five shipped seeds with the budget 200/25/4 say more, and not what I predicted: in the last trial
# `mean` is at 132 [120, 135], TS1 at 127 [120, 134], TS-infinity at 116 [109, 129]; `single` alone still falls back, 103 [40, 122], in one run to 16. The mean, which knows no doubt, is not
# behind in a task without noise. But the intervals of these three lie in each other, so no order of theirs is shown. (With the first three seeds `mean` was at 134 [132, 136], apart from TS-infinity's
# 116 [111, 122]; the fourth ended at 115.) Nor is the time to the first 100: 1,000 or 1,200 steps (medians) for all four.
# The gaps of the first half of the trials are here in the order that I predicted (0.20, `mean` 0.45, `single` 0.91 per step); in the shipped runs all
# are large, between 0.59 (`single`) and 0.75 (`mean`). In the second half they vanish everywhere.
#
# (b) The task has no noise of its own, so that all of a particle's spread is the members' disagreement, and the noise that
# the fit puts into what it can't explain. TS1 turns the disagreement into noise that partly averages out over the plan, and
# TS-infinity keeps it; as long as both spread less than plans differ in return, the same plans win. They differ where
# disagreement is large and a constant error matters: long horizons, few data, or scores that punish spread (`robust`),
# and where noise is large, since TS-infinity keeps it apart from doubt.
#
# (c) The ledger of calls shows a fifth for `mean`, since it has one particle, while the seconds are about the same: that
# particle asks all five networks. (A model call counts imagined steps, not networks.) The time is as well spent on
# five particles, which tell the members' opinions apart.
#
# **Rubric.** 1 point: (a) reads returns and gaps, and says what they support. 1 point: (b) no noise in the task, or a
# right statement on what either keeps. 1 point: (c) calls against seconds, with the reason.

# %% [markdown]
# ## 4. Elsewhere
#
# Nothing is computed here: these results ship with the course. (Horizon, number of sequences and members on an arm of
# seven joints, problem 4 of CS285's homework 4, are part 6 of week 4's experiments, since that loop plans by random
# shooting.)
#
# **The pendulum**, in four trials: the four ways to draw a particle's next state, with 200/25/3. Look whether the way that
# was ahead in part 3 is ahead again, or whether the intervals leave it open. (`mbrl-course run pets-pendulum` compares the
# three budgets from above there; its Pareto picture stands in part 1.)

# %%
OVER_MINUTES = {"title": "... and against minutes", "x": "minutes"}
show_shipped("pets-pendulum-propagation", {"title": "Pendulum: whom to believe"}, OVER_MINUTES)

# %% [markdown]
# **The start of a search.** PETS starts from the last plan, shifted by a step, and fills its end up by repeating the last
# action (`repeat`) or with zero (`zero`); or it starts from nothing (`none`). The searches are short, 100/25/2, so that
# they have to make the most of their start. Look what starting from nothing costs, and in which of the two tasks it
# costs more. And look whether it matters at all what the end is filled up with.

# %%
show_shipped(
    "pets-cartpole-warm-start", {"title": "Swing-up: start of a search"}, OVER_MINUTES, ylim=(-500, 170)
)
show_shipped("pets-pendulum-warm-start", {"title": "Pendulum: start of a search"}, OVER_MINUTES)

# %% [markdown]
# In the true dynamics of the swing-up (week 3) starting from nothing cost 40 % of the return. With a learned model the last trial of
# five seeds does not show it: 108 [67, 121] for `repeat`, 100 [18.5, 117] for `zero`, 90 [74, 97] for `none`. But with either warm start
# every seed had earned 100 in some trial by then, after 1,000 to 1,400 steps, and from nothing none ever did: their best trials earn 93 to 99. On
# the pendulum all three reach -200 after the same 600 steps (medians).
#
# ## What to take along
#
# - The search maximises what the model says, and so it maximises the model's error, too. Promised against obtained is
#   the gauge: look at it before you trust a return that a model predicts.
# - A model's states need not be possible ones. A promise above the largest reward is a sure sign.
# - Kept promises are not enough: a right model does not help a plan that ends too early.
# - Judge a planner per real step *and* per minute. Which counts depends on what your real steps cost.
# - A return after eight trials jumps up and down by more than the differences that one would like to see. Intervals say
#   what can be claimed.
#
# ## Test yourself
#
# <details><summary>1. The model is right on average: its errors have mean zero in each state and action. Why is the chosen
# plan's promise too high all the same?</summary>
#
# Because it was chosen. The maximum of many estimates with errors of mean zero lies above the true value of the plan that
# reached it: selection turns noise into bias (the winner's curse; the same as the overestimation of Q-learning's max).
# </details>
# <details><summary>2. The promises here are measured with fresh particles. What would be added if the particles were taken
# by which the plan was chosen?</summary>
#
# The luck of these particles: a second selection, of noise instead of model errors. It shrinks with the number of
# particles, and says nothing about the model.
# </details>
# <details><summary>3. Promise and truth agree perfectly, and the agent earns nothing. How?</summary>
#
# The model is right where the agent is, and the horizon is too short to see the way out, or the search too weak to find
# it. The gauge judges the model along the plans, not the plans.
# </details>
# <details><summary>4. An ensemble of five promises 0.9 per step, and its five members 1.8, 0.9, 0.7, 0.6 and 0.5 by themselves. The
# penalty of `robust="variance"` with one standard deviation gives about 0.43. Which plan does that favour?</summary>
#
# Plans on which the members agree: those near the data. It costs exploration, since what has not been tried is what
# they disagree on.
# </details>
# <details><summary>5. Why compare budgets per minute of the processor, and not by the clock on the wall?</summary>
#
# The clock counts what else the machine was doing. Even minutes of the processor hold for one machine only; model calls and
# gradient steps hold everywhere, but weigh a small network like a large one.
# </details>
#
# ## Where next
#
# Planning at each step is dear. Next week a *policy* is trained in imagined rollouts, and acts without any search
# (Dyna-PPO), and with it comes the same danger: a policy exploits a model even more thoroughly than CEM does. MOPO (Yu et
# al., 2020) subtracts the model's doubt from the reward; TD-MPC2 (Hansen et al., 2024) plans a few steps and lets a value
# function see what comes after; Dreamer (Hafner et al., 2023) imagines in a latent space; PILCO (Deisenroth and Rasmussen,
# 2011) had the uncertainty in the plan before all of them.
