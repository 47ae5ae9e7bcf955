# %% [markdown]
# # Week 2 · Experiments: planning in a model that has to be learned
#
# In `build.ipynb` an oracle told you what every action does. Now the model comes from data, and an oracle no
# longer hides what goes wrong:
#
# 1. **One iteration** on the obstacles: 5,000 random steps, one short fit, then plan. Is that enough?
# 2. **Plans that may end early**: one flag, and plans count nothing after their end. What does the agent make of it?
# 3. **The on-policy loop**: does it help to collect with the planner?
# 4. **CartPole with growing data**: how many random steps does a model need before planning in it pays?
# 5. **Reacher and half-cheetah**: what the same code does with seven joints, and with six motors.
#
# Experiments 1, 3 and 5 follow the model-based homework of Berkeley's CS285. Everything runs on *your* functions from
# `build.ipynb`, which has to lie beside this notebook; the model is that of week 1. Before an experiment there is a
# prediction to write down, and after it a question about what you saw. Both are read by a person. A wrong prediction
# with a reason earns full marks.
#
# **Time** on two cores: six to ten minutes with `SCALE = "laptop"`, less than one with `"smoke"`.
# With `"full"`, the published setting, the obstacles take about an hour; reacher and cheetah take hours, and run
# at that scale only.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": the published setting
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
NUM_SEEDS = 3
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week02", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% [markdown]
# The imports come after that, so that they find your functions.

# %% kind="setup"
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import display

from mbrl_course.envs import get_task
from mbrl_course.envs.obstacles import plot_state
from mbrl_course.evaluation import evaluate, summary
from mbrl_course.experiments import Run, get_config, load_header, load_reference, run
from mbrl_course.experiments.figures import ledger_table, shipped, shipped_note, show_pareto
from mbrl_course.experiments.week02 import run_mpc
from mbrl_course.films import episode_film
from mbrl_course.mpc import RandomShootingConfig, RandomShootingPlanner, rollout, run_episode
from mbrl_course.plotting import COLORS, new_axes, plot_learning_curves, use_style

use_style()

task = get_task("obstacles")
if SCALE == "smoke":
    NUM_SEEDS = 2
    torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other


def draw_path(ax, obs, **style):
    """Draws states [T, 4] of the obstacles as a path, with a mark at its end."""
    ax.plot(*obs[:, :2].T, **style)
    ax.plot(*obs[-1, :2], "o", markersize=6, markeredgecolor="white", color=style["color"], zorder=6)


def states_of(episode):
    """All states of an episode, the last one included, [T + 1, D]."""
    return torch.cat([episode.obs, episode.next_obs[-1:]])


# %% [markdown]
# ## 1. One iteration
#
# The configuration is all there is to it; every field can be changed from the command line, too
# (`mbrl-course run q2 --set horizon=5`). The model is an ensemble of three networks with two layers of 250. It gets
# just 20 gradient steps.

# %%
config = get_config("q2", SCALE)
config

# %% [markdown]
# **Write down your prediction.** An episode of random actions earns about -160 to -175 (100 steps, at a mean distance
# of 1.6 or so). With the true dynamics, planning earned about -18 in `build.ipynb`. What will planning in this model
# earn: nearer to the random policy, half-way, or nearer to the oracle? The data are random walks from the upper part of
# the map: what can the model know, and what can it not?

# %% [markdown] kind="written" id="predict-one-iteration" points=2
# **Model answer.** Nearer to the oracle. Away from the walls the dynamics are the same everywhere, position plus a tenth
# of the action, and that is easily learned from 5,000 steps and carries over to parts of the map that were never
# visited. What the model can't know well are the walls: they are sharp, few transitions touch them, and there are no
# data near those at the bottom. So it should walk straight until a wall is in the way, and lose time there. (CS285
# reports -70 to -50.)
#
# **Rubric.** 1 point: a number or a range with a reason. 1 point: says what is easy to learn (free space, or the reward,
# which is given) and what isn't (walls, places without data). Whether the prediction comes true does not matter.

# %% [markdown]
# Seed 0, piece by piece: collect, fit, plan, collect. `run_mpc` is a page of code around your `on_policy_loop`; it
# hands back the model and the planner.

# %%
first = Run(seed=0, progress=True)
model, planner = run_mpc(config, first)
first.table().round(2)

# %% [markdown]
# Then the other seeds. The return in the table is the mean over all episodes that were collected with the policy.

# %%
others = [run("q2", range(1, NUM_SEEDS), SCALE, fresh=not RESUME)] if NUM_SEEDS > 1 else []
one_iteration = pd.concat([first.table(), *others], ignore_index=True)
shooting = RandomShootingConfig(config.num_sequences, config.horizon)
oracle = RandomShootingPlanner(
    task, task.action_low, task.action_high, shooting, torch.Generator().manual_seed(0)
)
oracle_return = evaluate(task, lambda obs: oracle.plan(obs)[0], 10, progress=False).mean()
one_iteration["policy"] = one_iteration["iteration"].map({0: "random", 1: "one iteration"})
print(f"true dynamics, 10 episodes: {oracle_return:.1f}")
summary(one_iteration, "policy", "eval_return").round(1)

# %% [markdown]
# An episode as a film, and then what lies behind three of them, two of which begin behind a wall: at some of the states, the plan as the model *imagined* it (the mean over
# its members), and where the same actions would have led in *truth*.

# %%
episode = run_episode(task, planner, seed=4)
rewards = torch.cat([torch.zeros(1), episode.reward])
episode_film(task, states_of(episode), rewards=rewards, fps=8, title="A learned model", progress=False)

# %%
axes = new_axes(columns=3, width=4.2, height=4.5)
for ax, seed in zip(axes, (4, 8, 12), strict=True):
    episode = run_episode(task, planner, seed=seed)
    states = states_of(episode)
    plot_state(ax, states[0])
    draw_path(ax, states, color="black", linewidth=2)
    for obs in episode.obs[:48:4]:
        plan = planner.plan(obs)
        with torch.no_grad():
            imagined = rollout(model.step, obs, plan[None], model.ensemble_size).obs[:, 0].mean(dim=0)
        real = rollout(task.step, obs, plan[None]).obs[0, 0]
        ax.plot(*imagined[:, :2].T, color=COLORS[0], linewidth=1.8, linestyle="--")
        ax.plot(*real[:, :2].T, color=COLORS[3], linewidth=1.8)
    ax.set_title(f"{len(episode.reward)} steps, return {episode.reward.sum():.0f}", fontsize=11)
axes[0].plot([], [], color="black", linewidth=2, label="walked")
axes[0].plot([], [], color=COLORS[0], linestyle="--", label="imagined")
axes[0].plot([], [], color=COLORS[3], label="in truth")
axes[0].legend(loc="lower left", frameon=True, framealpha=0.9, edgecolor="none")
plt.show()

# %% [markdown]
# **Question.** (a) Where do the dashed and the solid lines part, and why there? (b) The plans are wrong in such places,
# and yet the point arrives most of the time. How? (c) Describe a map on which this agent would fail for good, even though
# its model is just as accurate as here.

# %% [markdown] kind="written" id="one-iteration" points=3
# **Model answer.** (a) At walls (and at the edge): the model has learned "position plus a tenth of the action", and averages
# over the jump from moving to not moving, so it imagines walking through, or slowly. In free space both lines agree. (b) By
# replanning: only the first action of a plan is carried out. If it does not move the point, the next plan starts from the
# same place with other random sequences, and sooner or later one begins with a move along the wall; from its corner the way
# is free. The randomness of the search is a help. (c) One where sliding along does not help: a dead end (a U around the goal's
# side, deeper than the horizon). All plans through the wall look better than the way around, and no first action of a good
# plan leads out.
#
# **Rubric.** 1 point for each: (a) walls, and why the model is wrong there; (b) replanning from the real state, or chance
# in the search; (c) a trap that needs a detour longer than the horizon or away from the goal, with the reason.

# %% [markdown]
# ## 2. Plans that may end early
#
# So far the model was told that episodes never end. The environment says otherwise: an episode ends at the goal, or where
# the point has left the square (which the real point can't, but a model that knows no edge can imagine). One flag, and
# plans count nothing after their end, just as exercise 2.2 has it.
#
# **Write down your prediction.** All rewards are negative. What will the agent do with the flag, and why?

# %% [markdown] kind="written" id="predict-early-end" points=1
# **Model answer.** A plan that leaves the square ends there: it pays a few steps instead of ten, and so has a higher return
# than any plan that stays. The agent should walk to the nearest edge and press against it, since in truth it can't leave.
#
# **Rubric.** 1 point: any prediction with a reason that uses the sign of the reward or the length of the plan.

# %%
ending = Run(seed=0, progress=True)
_, ending_planner = run_mpc(replace(config, plan_to_end=True), ending)
others = (
    [run("q2", range(1, NUM_SEEDS), SCALE, {"plan_to_end": True}, fresh=not RESUME)] if NUM_SEEDS > 1 else []
)
early_end = pd.concat([ending.table(), *others], ignore_index=True)
both = pd.concat(
    [one_iteration.assign(plans="never end"), early_end.assign(plans="may end")], ignore_index=True
)
summary(both[both["iteration"] == 1], "plans", "eval_return").round(1)

# %% [markdown]
# And the five seeds that ship with the course:

# %%
five = shipped("early-end")
print(shipped_note("early-end"))
summary(five[five["iteration"] == 1], "variant", "eval_return").round(1)

# %%
axes = new_axes(columns=2, width=4.6, height=4.9)
for ax, (name, which) in zip(
    axes, {"Plans never end": planner, "Plans may end": ending_planner}.items(), strict=True
):
    total = 0.0
    for seed in range(6):
        episode = run_episode(task, which, seed=seed, max_steps=60)
        total += episode.reward.sum().item() / 6
        if seed == 0:
            plot_state(ax, episode.obs[0])
        draw_path(ax, states_of(episode), color=COLORS[seed], linewidth=1.8, alpha=0.85)
    ax.set_title(f"{name}: {total:.0f} in 60 steps")
plt.show()

# %% [markdown]
# **Question.** (a) Explain what you see with the returns of two plans: one of ten steps at a distance of 1.5, and one
# that leaves the square after three. (b) In CartPole each step earns +1 until the pole falls. What does the same flag do
# there, and what would happen without it? (c) Name a change of the *task or the score* that cures our point, other than to
# switch the flag off.

# %% [markdown] kind="written" id="early-end" points=3
# **Model answer.** (a) About -15 against -4.5: leaving looks much better, though it is the worst that can happen. In truth the
# edge holds the point, the plan never ends, and the next plan is the same again. The two
# starts that are farthest from an edge arrive all the same. (b) There rewards are positive, so an early end
# costs what would have come, and the flag makes the planner avoid it. Without the flag each plan of H steps scores H whatever the
# pole does, all scores are equal, and the planner acts at random. (c) For example: a large negative reward for leaving; adding a
# constant that makes all rewards positive; scoring an ended plan as if its last reward went on for all the steps that are left; a
# value function for what comes after the end of the plan; data at the edge, from which the model learns that one can't get out.
#
# **Rubric.** 1 point for each: (a) the two sums, or the comparison of a short with a long sum of negative numbers; (b) positive
# rewards turn it around, and without the flag nothing distinguishes the plans; (c) a change that works, with a word on why.

# %% [markdown]
# ## 3. The on-policy loop
#
# Now the loop goes on: each iteration fits the model to all data so far, and collects more with the planner. On the left
# the return against the environment steps that the policy had learned from, at 0 that of the random policy; the line is
# the interquartile mean (IQM) over seeds, the band its 95 % bootstrap interval. In grey, where there are any, the results that
# ship with the course. On the right the loss on held-out data of the same fits.
#
# The setting is another one than in part 1: at `laptop` scale plans of 5 steps instead of 10 and 200 sequences instead of 300, and
# in each iteration 500 gradient steps instead of 20, and 500 real steps instead of 1,000 (`mbrl-course run q3-obstacles --show` has all
# of it). The dashed line is still the true dynamics with part 1's planner: a learned model with a better planner can come out above it.
#
# **Write down your prediction.** What will the curves of return and hold-out loss look like? Will they agree?

# %% [markdown] kind="written" id="predict-loop" points=1
# **Model answer.** The return should jump in the first iteration and gain a little afterwards. The hold-out loss could fall
# (more data), or rise, since the new data lie near walls, which are hard to predict.
#
# **Rubric.** 1 point: a statement about both curves with a reason.

# %%
loop = run("q3-obstacles", range(NUM_SEEDS), SCALE, fresh=not RESUME)

# %%
left, right = new_axes(columns=2, width=6.0, height=4.0)
plot_learning_curves(
    {"yours": loop},
    reference=load_reference("q3-obstacles"),
    published=(-25.0, -20.0),
    title="Obstacles, return",
    ax=left,
)
left.axhline(oracle_return, color=COLORS[2], linestyle="--", linewidth=1.5, label="true dynamics")
left.legend(loc="lower right")
fits = loop[loop["iteration"] > 0]
plot_learning_curves(
    {"yours": fits},
    y="holdout_loss",
    ylabel="mean squared error, normalised",
    title="Loss on held-out data",
    ax=right,
)
plt.show()

# %% [markdown]
# And the ledger: what the last point of the curve cost. A model call is one imagined step of one member.

# %%
ledger_table("q3-obstacles", loop, SCALE)

# %% [markdown]
# **Question.** (a) How much of the gain comes from the first iteration, and what is left for the others? (b) How do the two
# curves go together, and why is the hold-out loss a bad judge of the model here? (c) What would you measure instead, to
# know whether a model is good enough to plan in?

# %% [markdown] kind="written" id="loop" points=3
# **Model answer.** (a) Nearly all: from about -165 to around -40. In the second iteration two seeds in five gain twelve and twenty-two points and
# three lose up to 35, since an iteration has only a dozen episodes; from the third on all are between -16 and -22. What is left to learn
# are the walls, and that takes gradient steps: with 500 in each iteration five seeds end at -17 to -19, better than the published -25 to
# -20, and than the dashed line of the true dynamics: the planner of part 1 looks ten steps ahead, this one five (more of that below). With 20, as in CS285's own setting, five seeds of the same size end at -36 to -58
# (three at full scale, which are shown too, at -28 to -34), and with 100 at -21 to -42 (`mbrl-course run q3-obstacles --set
# gradient_steps=20`). (b) Hardly: the return jumps by 130 in the first iteration and then by 20 in the third, while the hold-out loss
# falls slowly over all six (from 0.06 to 0.04). In the second it rises in two of the five seeds and falls in three, in one of which the return falls, too.
# With 20 gradient steps it even grows after the second iteration, from 0.08 to 0.15 at full scale. The hold-out set is drawn from all data so far, and these
# change: the planner goes where walls are, and such transitions are harder to predict than a random walk in free space. Losses of
# different iterations are measured on different data. And the loss weighs all dimensions and places alike, the planner does not. (c)
# The error on the states and actions that the planner visits, over several steps (E_k along its plans), or a fixed test set with
# on-policy data; how well the score of a plan agrees with its true return; in the end the return itself.
#
# **Rubric.** 1 point: (a) reads the gain off the plot. 1 point: (b) the data change with the policy. 1 point: (c) a measure on
# the distribution of the planner, or of returns.

# %% [markdown]
# ### What a return costs
#
# The same loop with other settings, each at what it computed (seconds of one core, for the whole run) and what it earned
# (the mean of the last three iterations), as they ship with the course. Each differs from `200 sequences`, the setting above,
# in what its name says: `2x64` has smaller networks, `CEM 30 x 4` searches by next week's planner, with four times 30 sequences. A
# setting is on the *Pareto front* if no other earns as much for as little. On the right: what each seed had spent when it
# first earned -25. The *preset* is what the course takes where the agent is to work soon (`mbrl-course run obstacles-preset`).

# %%
show_pareto("pareto-obstacles")

# %% [markdown]
# The horizon decides, and shorter is better: with plans of twenty steps the five seeds end at -31 to -36, with ten, as in CS285, at -23
# to -25, with five at -19 to -20, and with three at -17 to -18 for four fifths of the computing. A longer plan is a guess in more
# dimensions with the same number of guesses: in `build` returns fell in the same way in the true dynamics, so most of this is the search.
# Errors of the model that add up along the plan may do the rest. A single member costs a third and earns as
# much (-18 to -21). With small networks, too, the whole run takes 9 s instead of 77, earns hardly less (-20 to -21), and first earns -25 after
# 5 to 7 s instead of 33 to 42; small networks with three members depend on the seed (-20 to -35), and why is not shown here. 500
# sequences earn no more than 200. Cheap and not enough are 100 gradient steps (-30 to -44), and 50 sequences lose two to five points. CEM's
# 120 sequences per plan earn little more than 100 gradient steps do (-28 to -40; with small networks -25 to -57). A likely reason, not tested
# here: CEM hands back a mean, and between a way to the left of a wall and one to its right lies the wall. Five seeds support the large
# differences, and no others.

# %% [markdown]
# ## 4. CartPole with growing data
#
# Gymnasium's CartPole-v1: push a cart left or right, +1 for each step until the pole falls, at most 500. The planner works with
# a number between -1 and 1, whose sign is the push. For each amount of random data a fresh model is fitted, and judged by
# episodes of planning in it.
#
# **Write down your prediction.** A random episode lasts some 20 steps. How many random *episodes* does the model need before planning
# in it beats random pushes clearly? And which states that a long episode visits are missing from random ones?

# %% [markdown] kind="written" id="predict-cartpole" points=1
# **Model answer.** Perhaps 5 to 10 episodes, 100 to 200 steps: the dynamics of four numbers are nearly linear near the top. Random
# episodes start there and end when the pole falls, so they hold few states at balance after the first steps, and none far from the
# middle of the track.
#
# **Rubric.** 1 point: a number with a reason.

# %%
growing = run("cartpole-growing-data", range(NUM_SEEDS), SCALE, fresh=not RESUME)

# %%
ax = plot_learning_curves(
    dict(list(growing.groupby("policy", sort=False))),
    reference={
        label: rows[rows["policy"] == "model-based"]
        for label, rows in load_reference("cartpole-growing-data").items()
    },
    xlabel="environment steps of random data",
    title="CartPole-v1",
    ax=new_axes(width=7.0, height=4.2)[0],
)
ticks = sorted(growing["env_steps"].unique())
ax.set_xscale("log")
ax.set_xticks(ticks, [str(tick) for tick in ticks])
ax.minorticks_off()
plt.show()

# %% [markdown]
# **Question.** (a) How many steps of data does a clear gain over the random policy take? (b) The bands are wide, and from some
# amount on more data help little, if at all. Which data would help more? Give one further reason for the noise. (c) A model-free
# method needs tens of thousands of steps for this task. What does planning pay for its economy?

# %% [markdown] kind="written" id="cartpole" points=3
# **Model answer.** (a) Read off the plot: one or two hundred steps, 5 to 10 random episodes. (b) Random episodes begin in the middle
# of the track and end when the pole falls. More of them hold no more of what ends a long episode, a slow drift to the end of the
# track; data of the planner's own episodes would (the loop of experiment 3). Also: every fit begins with new random weights, and a
# model that is slightly biased to one side lets the cart drift; three evaluation episodes of very different length make a noisy
# mean; a horizon of 15 steps does not see a drift that ends the episode much later. (c) Time when acting: every single action
# costs a hundred imagined sequences of 15 steps in three networks, where a policy needs one forward pass. It also has to know the
# reward and the end as functions, and a plan is as short-sighted as its horizon.
#
# **Rubric.** 1 point: (a) a number that agrees with the plot. 1 point: (b) data where the planner goes, and one source of noise. 1 point: (c) computation at decision time
# (or: known reward, finite horizon).

# %% [markdown]
# ## 5. Seven joints, six motors
#
# The same loop on an arm with seven joints that reaches for a point, and on the half-cheetah. At `"full"` scale these are hours of
# computing, and minutes at `"laptop"` scale for each seed, so the results that ship with the course are shown. The arm is our own, so
# its numbers can't be compared with CS285's.

# %%
published = {"q3-reacher": None, "q3-cheetah": (250.0, 350.0)}
titles = {"q3-reacher": "Reacher, seven joints", "q3-cheetah": "Half-cheetah"}


def planned(curves):
    """Curves from the first planned iteration on: the random policy's return would stretch the axis."""
    return {label: frame[frame["iteration"] > 0] for label, frame in curves.items()}


for name, title in titles.items():
    yours = {"yours": run(name, range(NUM_SEEDS), SCALE, fresh=not RESUME)} if SCALE == "full" else {}
    reference = load_reference(name)
    if yours or reference:
        curves = {"reference": planned(reference), "published": published[name], "title": title}
        plot_learning_curves(planned(yours), **curves)
        plt.show()
        for label, frame in {**yours, **reference}.items():
            random_return = frame.loc[frame["iteration"] == 0, "eval_return"].mean()
            print(f"{label}: the random policy, not shown, earns {random_return:.0f}")
    else:
        print(
            f"{title}: no results ship with this version. To make them: mbrl-course run {name} --scale full"
        )
for name in titles:
    for scale in ("full", "laptop"):
        if load_header(name, scale):
            print(shipped_note(name, scale))

# %%
for name in titles:
    if shipped(name) is not None:
        display(ledger_table(name))

# %% [markdown]
# With six action dimensions and a horizon of 15 a plan has 90 numbers. Random shooting still makes the cheetah run, in some
# fashion: after twenty iterations five seeds are at 247 [232, 307], the lower end of the 250 to 350 of CS285's solution. That collects 5,000
# steps in each iteration, with 1,000 sequences per plan, networks of 2 x 250 and 1,500 gradient steps; here it was 1,000 steps, 300 sequences, 2 x 128
# and 500, six minutes of one core for a seed. The first six iterations bring some 210, the other fourteen 40 more. With all of CS285's
# numbers (two hours of one core for a seed, planning in bfloat16) three seeds end at 353 to 398, above its solution; there, too, all but 8 to 45 of
# it is earned after six iterations. Is it the model that is missing, or the search? Week 3 has a planner that earns two to four times as much after five iterations, with the same kind of model.
#
# ## What to take along
#
# - A crude model and a thousand guesses, replanned at every step, go a long way.
# - The sign of the reward decides whether the end of an episode attracts or repels. Look at what your score *says* before
#   you blame the model.
# - The planner changes the data, so losses of different iterations can't be compared. Judge a model by what it is for.
# - One seed is an anecdote.
