# %% [markdown]
# # Week 7 · Experiments: what does the model buy?
#
# In `build.ipynb` MBPO balanced a pole within a few hundred steps. That was one seed, and one opponent. Here MBPO
# is taken apart. A word beforehand: MBPO differs from SAC in **two** ways. It learns from imagined transitions, and
# it makes many more updates per real step. Main figures mostly compare it with SAC at one update per step; Janner et
# al. add SAC with as many updates in an ablation, on the hopper, and saw it learn only marginally faster (Section 6.2).
# Does that hold elsewhere? So a third agent runs everywhere: **SAC with as many updates**, and no model.
#
# 1. **Equal real steps:** cart-pole, Pendulum, InvertedPendulum; SAC, SAC with as many updates, and MBPO.
# 2. **Where the time goes**: the world, the model, the rollouts, the agent; measured.
# 3. **How long a rollout?** Lengths of 0 to 30, beside the compounding error of the models at work; and the
#    half-cheetah with SAC, Dyna and MBPO (rollouts of 0, 1 and 10), as in CS285.
# 4. **A few real ones:** shares of 0, 5, 50 and 100 % real transitions.
# 5. **The price of doubt:** penalties of 0, 0.5 and 2.
# 6. **What a return costs**: cheap and dear settings side by side.
#
# Everything runs on *your* functions from `build.ipynb`, which has to lie beside this notebook. Before the
# experiments there are predictions to write down, and after them questions about what you saw. Both are read
# by a person. A wrong prediction with a reason earns full marks.
#
# **Where it comes from**
#
# - Janner et al., 2019, [*When to trust your model: model-based policy
#   optimization*](https://arxiv.org/abs/1906.08253), Section 5 (the algorithm) and 6.2 (its ablations).
# - D'Oro et al., 2023, *Sample-efficient reinforcement learning by breaking the replay ratio barrier*: what many
#   updates per step can do without any model.
#
# **Time** with `SCALE = "laptop"`: about two and a half minutes of one core (AMD EPYC); with `"smoke"`, about half a minute. What would take
# longer is shown from runs that ship with the course: five seeds, twenty on the cart-pole; each picture says so.
# `"full"` has more steps and takes hours.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": more steps, hours
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
SEEDS = (0,)  # of the runs in this notebook; each seed takes as long again
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week07", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% [markdown]
# The imports come after that, so that they find your functions.

# %% kind="setup"
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import display

from mbrl_course.buffers import ReplayBuffer
from mbrl_course.envs import get_task
from mbrl_course.experiments import get_config, get_experiment, run
from mbrl_course.experiments.figures import (
    ledger_table,
    plot_results,
    shipped,
    shipped_note,
    show_pareto,
    show_shipped,
)
from mbrl_course.experiments.time_to_solve import time_to_solve
from mbrl_course.experiments.variants import settings_of, variant_of
from mbrl_course.mbpo import MBPO, MBPOConfig
from mbrl_course.mbpo_theory import compounding_error
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style

use_style()
torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other
OPPONENTS = ("SAC", "SAC, as many updates")
COLOR_OF = {"SAC": GREY, "SAC, as many updates": "black"}  # a variant has one colour in all pictures
COLOR_OF |= dict.fromkeys(("MBPO", "MBPO, k = 10", "k = 10"), COLORS[0])
COLOR_OF |= dict.fromkeys(("Dyna", "k = 1", "real ratio 0", "penalty 0.5"), COLORS[1])
COLOR_OF |= dict.fromkeys(("k = 3", "real ratio 0.5", "penalty 2"), COLORS[2])
COLOR_OF |= dict.fromkeys(("k = 30", "real ratio 1"), COLORS[4])


def texts_of(name, *wanted):
    """The variants of an experiment that are called so, as texts for its configuration."""
    config = get_config(name, SCALE)
    return tuple(text for text in config.variants if variant_of(config, text)[0] in wanted)


def run_variants(name, *wanted, **changes):
    """The rows of these variants of an experiment, at the scale chosen above."""
    overrides = {"variants": texts_of(name, *wanted), **(changes if SCALE == "laptop" else {})}
    return run(name, SEEDS, SCALE, overrides, fresh=not RESUME)


def only(rows, *wanted):
    """The rows of these variants, in this order; None where there is none."""
    if rows is None:
        return None
    rows = rows[rows["variant"].isin(wanted)]
    rank = rows["variant"].map({name: place for place, name in enumerate(wanted)})
    return rows.loc[rank.sort_values(kind="stable").index]


def shown_beside(name, rows, *wanted, labels=None, title=""):
    """Curves of these variants: measured here on the left, shipped ones on the right (none for "smoke").

    `labels` are other names for some of them.
    """
    labels = {variant: variant for variant in wanted} | (labels or {})
    colors = {label: COLOR_OF[variant] for variant, label in labels.items()}
    parts = {"here": only(rows, *wanted), "shipped": only(shipped(name, SCALE), *wanted)}
    parts = {where: part for where, part in parts.items() if part is not None and len(part)}
    axes = new_axes(columns=len(parts), width=5.8, height=3.9)
    for ax, (where, part) in zip(axes, parts.items(), strict=True):
        look = dict(title=f"{title}: {where}", baseline=OPPONENTS[1], colors=colors, ax=ax)
        plot_results(name, part.assign(variant=part["variant"].map(labels)), SCALE, compare=False, **look)
    for ax in axes:
        ax.set(xlim=(0, None), ylim=(min(a.get_ylim()[0] for a in axes), max(a.get_ylim()[1] for a in axes)))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    plt.show()


def first_steps(*names):
    """What the shipped runs took until they first solved their task: medians over seeds, and their range."""
    found = {name: time_to_solve(shipped(name), get_experiment(name).solved_at) for name in names}
    table = pd.concat(found, names=["experiment", None]).droplevel(1).set_index("what", append=True)
    prices = [f"{cost}{end}" for cost in ("env_steps", "cpu_seconds") for end in ("", " low", " high")]
    return table[["seeds", "solved", *prices]].round(0)


def seed_by_seed(name, *pairs, steps=None):
    """How much more one variant earned than another from the same seed, and so in the same starts; shipped runs."""
    rows, found = shipped(name), []
    steps = steps or rows["env_steps"].max()
    returns = rows[rows["env_steps"] == steps].pivot(index="seed", columns="variant", values="eval_return")
    for new, old in pairs:
        more = returns[new] - returns[old]
        ahead = f"{(more > 0).sum()} of {len(more)}"
        ends = {"lowest": more.min(), "median": more.median(), "highest": more.max()}
        found.append({"return of": new, "less that of": old, "steps": steps, "ahead in": ahead} | ends)
    return pd.DataFrame(found).round(1)


# %% [markdown]
# ## 1. Equal real steps
#
# Four tasks. *Cart-pole*: a pole on a cart, balanced with a continuous force, at most 200 steps; a random policy
# lasts for about 30. *Pendulum*: swing it up and hold it; no episode ends early, and -200 is about as good as most starts
# allow. *InvertedPendulum*: MuJoCo's pole on a cart, at most 1000 steps. *Hopper*: see below.
#
# In each task the three agents are the same program with the same settings, networks and seeds:
#
# | agent | rollouts | updates per real step |
# |---|---|---|
# | SAC | none (length 0) | 1 |
# | SAC, as many updates | none | 8 on the cart-pole, 10 on the pendulums, 5 on the hopper |
# | MBPO | 1 step on Pendulum, 10 elsewhere (`k = 10`), 1 to 15 on the hopper | as many |
#
# **Write down your prediction.** Order the three agents by the real steps that they need, for the cart-pole and for
# Pendulum. How large a part of MBPO's lead over SAC is due to the *model*, and how large a part to the *updates*?

# %% [markdown] kind="written" id="predict-equal-steps" points=2
# **Model answer.** SAC with one update per step should be last everywhere: in 1000 steps it makes 1000 updates, too
# few for a critic. Of the other two I expect MBPO ahead: SAC with many updates repeats the same few transitions and
# learns their noise by heart, MBPO sees new ones. But both tasks are small and without noise, so the data cover them
# soon; on Pendulum, where random actions already reach much of the state space, most of the lead may be due to the updates.
#
# **Rubric.** 1 point: an order with a reason for each task. 1 point: separates the two causes, with a guess for their
# shares. Whether the prediction comes true does not matter.

# %% [markdown]
# The cart-pole runs here. Left: this notebook. Right: the runs that ship with the course; lines are
# interquartile means (IQM) over seeds, bands their 95 % bootstrap intervals (RLiable).

# %%
cartpole = run_variants("mbpo-cartpole", *OPPONENTS, "k = 1", "k = 10")
print(shipped_note("mbpo-cartpole"))
named = {"k = 10": "MBPO, k = 10"}
shown_beside("mbpo-cartpole", cartpole, *OPPONENTS, "k = 10", labels=named, title="Cart-pole")
ledger_table("mbpo-cartpole", cartpole, SCALE, where=f"variant in {[*OPPONENTS, 'k = 1', 'k = 10']}")

# %% [markdown]
# Pendulum takes more than a minute for each agent with ten updates, so here are shipped runs alone: against real steps, and
# against minutes of one core.

# %%
look = {"baseline": OPPONENTS[1], "colors": COLOR_OF}
show_shipped(
    "mbpo-pendulum",
    {"title": "Pendulum: against real steps", **look},
    {"title": "... and against minutes", "x": "minutes", **look},
)

# %% [markdown]
# InvertedPendulum, MuJoCo's own: the first 1000 steps here (a minute; the shipped runs go on to 2000).

# %%
inverted = run_variants(
    "mbpo-inverted-pendulum", "SAC, as many updates", "MBPO, k = 10", total_steps=1000, eval_every=250
)
print(shipped_note("mbpo-inverted-pendulum"))
shown_beside("mbpo-inverted-pendulum", inverted, *OPPONENTS, "MBPO, k = 10", title="InvertedPendulum")
ledger_table("mbpo-inverted-pendulum", inverted, SCALE)

# %% [markdown]
# And a task of MBPO's own paper. *Hopper*: one leg with three joints; each step on it earns 1, and speed earns more, so that
# standing still is worth 1000 in an episode of 1000 steps. Janner et al. report 1000 after 40,000 real steps and 3000
# after 70,000, with 20 updates per real step, and that SAC (with one) needs several times as many; with as many updates it was hardly faster, while MBPO with rollouts of a single
# step kept much of its lead. Here are shipped runs of the
# first 10,000 steps alone, with five updates per step and rollouts that grow from 1 step to 15.

# %%
show_shipped(
    "mbpo-hopper",
    {"title": "Hopper: against real steps", **look},
    {"title": "... and against minutes", "x": "minutes", **look},
)

# %% [markdown]
# When did the shipped runs first get to -200 on Pendulum, and to 1000 on InvertedPendulum? `inf`: too few seeds got
# there. The runs were evaluated every 250 steps.

# %%
first_steps("mbpo-pendulum", "mbpo-inverted-pendulum")

# %% [markdown]
# Is one agent better than another? That two intervals overlap does not answer it: part of their width is due to the
# starts, which differ between seeds, while agents with the same seed are evaluated in the same starts. So here are the
# differences, seed by seed. (With five seeds the range from `lowest` to `highest` holds the median difference in 94 %
# of all such experiments. Of two equal agents one is ahead in all of five seeds in 6 % of them, in 15 or more of twenty in 4 %.)

# %%
many = OPPONENTS[1]
pendulum = [seed_by_seed("mbpo-pendulum", ("MBPO", many), steps=steps) for steps in (1000, 1500, 3000)]
balance = seed_by_seed("mbpo-cartpole", ("k = 10", many), ("k = 1", many), ("k = 10", "k = 1"))
hopper = [seed_by_seed("mbpo-hopper", ("MBPO", many), steps=steps) for steps in (5000, 10_000)]
tables = {"Pendulum": pd.concat(pendulum), "Cart-pole": balance, "Hopper": pd.concat(hopper)}
pd.concat(tables).droplevel(1)

# %% [markdown]
# **Explain what you see.** (a) Pendulum: how many real steps do the three agents need to get to -200, and which of the
# differences do the five seeds support? What does that say about the model, and what about the updates? (b) What is
# different on the cart-pole, and what may the reason be? Say what rests on a single seed, and what the hopper's five
# show beside the publication. (c) Janner et al. saw SAC with as many updates learn only marginally faster than SAC with one, on
# the hopper. What do your tables say, task by task? Name two differences that might explain it, and the run that would tell.

# %% [markdown] kind="written" id="explain-equal-steps" points=4
# **Model answer.** (a) Over the five shipped seeds SAC with one update per step never got to -200 within 3000 steps (IQM
# at the end -1046, interval -1255 to -815). With ten updates per step and no model it got there after a median of 1000
# steps, MBPO after 1500; single seeds take 750 to 2250 and 1000 to 1750. At 1000 steps MBPO is behind in four of the five
# seeds (differences of -739 to +91), at 1500 in four again (-74 to +5). Four of five prove nothing, but no help from the model is
# to be seen. At the end both are at -152, and seed by seed they differ by 16 at the most: the wide intervals are those of the
# starts. Practically all of the lead over SAC is due to the updates: with ten of them both end far above it. It
# is plausible: Pendulum has no noise and three dimensions, random actions
# reach much of it, and SAC's critics don't suffer from repetition; while rollouts of a single step bring hardly anything
# that is not in the data, and the first models are wrong.
#
# (b) On the cart-pole the model helps, above all early. After 300 steps (numbers from the shipped table) the twenty seeds of MBPO
# with rollouts of ten steps are at 179 [133, 198] (IQM, 95 % interval), SAC with as many updates at 60 [37, 93], SAC at 19
# [17, 21]. The same number of updates, and MBPO is ahead in 17 of 20 seeds (after 250 steps in 15, after 350 in 16). After 400 steps it
# is 164 [139, 185] against 102 [74, 132], ahead in 14 of 20, with differences of -93 to +168: less than before. Rollouts of one step
# are then at 144 [115, 173], ahead of no model in 12 of 20, which shows nothing. (And part of the lead is luck: in forty further seeds, 20
# to 59, SAC with as many updates has a mean of 110 after 300 steps and of 118 after 400; MBPO's twenty have 154 and 157.) Our live seed says 197 for ten steps, 200 for one
# and 77 without a model: that is a single draw. A possible
# reason: episodes end when the pole falls, so the data are of falling poles, and a good model can show what balancing would
# be like, for ten steps at a time. On Pendulum nothing ends, and rollouts had one step. Which of the two it is, these runs
# don't say. On InvertedPendulum all agents with ten updates per step get to 1000 in each of five seeds, first after
# 1250 real steps without a model and with rollouts of one step, after 1000 with rollouts of ten. These are medians, on a
# grid of 250 steps; single seeds take 1000 to 1500 with each of the three. One seed with rollouts of one step has lost it again at the
# end (interval 362 to 1000). With one update it is 73 [53, 90] after 2000
# steps. Here too it is the updates, and what the model may save is one step of the grid.
#
# The hopper's 10,000 steps are a quarter of the 40,000 after which the publication has 1000. At the end MBPO is at 300 [250, 795] and
# SAC with as many updates at 336 [251, 372]; MBPO is ahead in four of five seeds at 5,000 steps (-54 to +809), in three at 10,000
# (-103 to +664): between these two nothing is shown. SAC with one update, at 150 [46, 244], is behind both in each of the five seeds
# at the end.
# Single evaluations near 1000, what standing earns, are lost again: one seed of MBPO has 1018 after 5,000 steps and 323 after 6,000,
# one of SAC with as many updates 1061 after 8,000 and 236 after 9,000. So this neither confirms the publication nor contradicts it.
#
# (c) On Pendulum and InvertedPendulum the updates do practically all, on the cart-pole a part, and on the hopper's first 10,000
# steps SAC with as many updates is ahead of SAC with one in every seed. Differences: the dimensions of the task; 20 updates per
# step instead of 5 to 10; 100,000 steps and more instead of 10,000 at most. The run: the hopper for 40,000 steps with 20 updates,
# with and without a model, several seeds.
#
# **Rubric.** 2 points for (a): steps, and what the seeds support (1), the conclusion that here the updates make
# the difference (1). 1 point for (b): a difference between the tasks, with a possible reason, and what a single seed can't
# say. 1 point for (c): a difference, and a run that would tell.

# %% [markdown]
# ## 2. Where the time goes
#
# MBPO has four kinds of work: steps in the world, fits of the model, rollouts, and updates of SAC. **Write down your
# prediction:** which share of the computing time does each of them take on the cart-pole? What would you make faster
# first?

# %% [markdown] kind="written" id="predict-time" points=1
# **Model answer.** Eight updates of three networks for each real step should take most, three quarters, say. Then the
# fits: each goes through all data up to 100 times. Rollouts are a few batched products and cost little, steps in a
# small simulator nearly nothing. I'd make the updates faster, or fewer.
#
# **Rubric.** 1 point: shares with a reason.

# %% [markdown]
# The clock is put around four methods of the agent. The same run also gives the compounding error of its models for
# part 3: after each fit, the present policy plays three fresh episodes, and the elites predict them, ten steps ahead.


# %%
class Stopwatch:
    """Counts the processor's seconds that go into some methods of an agent."""

    def __init__(self, agent, methods):
        self.seconds = dict.fromkeys(methods, 0.0)
        for name in methods:
            setattr(agent, name, self.timed(name, getattr(agent, name)))

    def timed(self, name, method):
        def wrapper(*args):
            start = time.process_time()
            result = method(*args)
            self.seconds[name] += time.process_time() - start
            return result

        return wrapper


WORK = {"collect_step": "world", "fit_model": "model", "imagine": "rollouts", "update": "agent"}


def played(task, act, num_episodes, seed):
    """Fresh transitions of a policy."""
    env, buffer = task.make_env(), ReplayBuffer(num_episodes * task.max_steps, task.obs_dim, task.action_dim)
    for episode in range(num_episodes):
        obs, ended = env.reset(seed=seed + episode)[0], False
        while not ended:
            action = act(torch.as_tensor(obs, dtype=torch.float32))
            next_obs, reward, terminated, truncated, _ = env.step(task.to_env_action(action))
            buffer.add(obs, action, reward, next_obs, terminated, truncated)
            obs, ended = next_obs, terminated or truncated
    return buffer


def make_agent(name, variant, seed=0, **changes):
    """MBPO with the settings of a variant of an experiment."""
    config = get_config(name, SCALE)
    settings = settings_of(
        MBPOConfig, dict(variant_of(config, text) for text in config.variants)[variant], **changes
    )
    return MBPO(get_task(config.task), settings, seed)


config = get_config("mbpo-cartpole", SCALE)
agent = make_agent("mbpo-cartpole", "k = 10")
watch, errors = Stopwatch(agent, WORK), {}
while agent.counters.real_steps < config.total_steps:
    fitted = agent.counters.model_updates
    agent.train(agent.counters.real_steps + 1)
    if agent.counters.model_updates > fitted:
        fresh = played(agent.task, agent.sac.act, 3, seed=100)
        chance = torch.Generator().manual_seed(0)

        def elite_step(obs, action, chance=chance):
            return agent.model.step_random_elites(obs, action, generator=chance)[0]

        longest = 10 if SCALE != "smoke" else 3
        sequences = fresh.sample_sequences(200, longest, chance)
        scale = agent.real.all().obs.std(dim=0)  # of the data at this time
        errors[agent.counters.real_steps] = compounding_error(elite_step, sequences, scale)
profiles = {"Cart-pole, k = 10": watch.seconds}

# %% [markdown]
# And two other settings, from one fit of the model to the next: Pendulum, 125 steps with ten updates each, and the
# half-cheetah, 500 steps with four updates each of larger networks.

# %%
for title, (name, variant) in {
    "Pendulum, k = 1": ("mbpo-pendulum", "MBPO"),
    "Half-cheetah, k = 10": ("q6", "MBPO"),
}.items():
    other = make_agent(name, variant)
    other.train(other.config.start_steps - 1)  # random actions: their time is left out
    watch = Stopwatch(other, WORK)
    other.train(other.config.start_steps - 1 + other.config.model_every)
    profiles[title] = watch.seconds

table = pd.DataFrame(profiles).rename(index=WORK).T
ax = new_axes(width=7.6, height=2.8)[0]
left = np.zeros(len(table))
shares = table.div(table.sum(axis=1), axis=0)
for part, color in zip(WORK.values(), COLORS, strict=False):
    ax.barh(table.index, shares[part], left=left, color=color, label=part)
    left += shares[part].to_numpy()
ax.set(xlim=(0, 1), xlabel="share of the computing time", title="Where the time goes")
ax.invert_yaxis()
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
ax.grid(visible=False)
plt.show()
table.round(2)

# %% [markdown]
# ## 3. How long a rollout?
#
# The compounding error first, of the models in the run above. Each line is a fit. The test is hard: the *present* policy
# plays fresh episodes, whose states the model has in part never seen. An error of 1 is as bad as guessing any state of the
# data.

# %%
ax = new_axes(width=6.6, height=4.0)[0]
shades = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(errors)))
for (steps, error), color in zip(errors.items(), shades, strict=True):
    ax.semilogy(range(1, len(error) + 1), error, "o-", color=color, markersize=4, label=f"{steps} real steps")
ax.set(xlabel="k, steps of a rollout", ylabel="error, in standard deviations")
ax.set_title("Compounding error of the models at work")
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()
ends = {f"{steps} real steps": (float(error[0]), float(error[-1])) for steps, error in errors.items()}
pd.DataFrame(ends, index=["first step", "last step"]).T.round(3)

# %% [markdown]
# **Write down your prediction.** The build notebook's bound wants short rollouts where the model is bad, long ones where
# it is good. Look at the errors above: which $k$ of 1, 3, 10, 30 will learn to balance in the fewest real steps? And what
# of the half-cheetah, with its seventeen dimensions: rollouts of 0, 1 or 10 steps, with four updates per real step each?
# (As in CS285 their batches differ, too: with rollouts of one step half of each batch is real, with ten steps a tenth.)

# %% [markdown] kind="written" id="predict-length" points=2
# **Model answer.** The error after ten steps is 0.2 at its worst and 0.08 in the end, so rollouts of ten steps may
# mislead for a while, and should do little harm later. They go where one step can't: to what the policy will meet soon. So 10
# before 3 before 1; 30 steps from a state near a fall are cut off by the end anyway, so 30 about as good as 10, perhaps
# worse at the start, when the model is bad. The half-cheetah's model is harder to learn, there 10 may be too long
# at first; CS285 expects the order 0, 1, 10.
#
# **Rubric.** 1 point: an order for the cart-pole that refers to the measured errors. 1 point: something about the cheetah
# with a reason (dimension, data, updates).

# %%
print(shipped_note("mbpo-cartpole"))
shown_beside("mbpo-cartpole", cartpole, "k = 1", "k = 3", "k = 10", "k = 30", title="Cart-pole")
ledger_table("mbpo-cartpole", cartpole, SCALE, where="variant.str.startswith('k = ')")

# %%
show_shipped("mbpo-schedule", {"title": "Pendulum: the length of the rollouts"})
first_steps("mbpo-schedule")

# %% [markdown]
# CS285's homework 4 has the half-cheetah as its problem 6: SAC, Dyna (rollouts of one step) and MBPO (ten). It expects
# the returns in this order, "at least 1000" with ten steps. Its commands (`sac_n_iter`) give SAC 1,000 updates between
# two batches of 5,000 real steps, and the other two 5,000. Here all three make as many.
#
# Mind that **two** settings differ between Dyna and MBPO. A real step counts as much as one rollout, as in CS285, so that
# the share of real transitions in a batch is 0.5 with rollouts of one step, and 0.1 with ten.

# %%
show_shipped("q6", {"title": "Half-cheetah: SAC, Dyna and MBPO", "colors": COLOR_OF | {"SAC": "black"}})

# %% [markdown]
# And at full scale, with CS285's 50,000 real steps, 1,500 transitions in a batch and one update per real step:

# %%
full_scale = {"title": "Half-cheetah at full scale", "colors": COLOR_OF | {"SAC": "black"}}
show_shipped("q6", full_scale, scale="full")

# %% [markdown]
# Again seed by seed, in the last evaluation:

# %%
lengths = [
    ("k = 3", "k = 1"),
    ("k = 10", "k = 1"),
    ("k = 30", "k = 1"),
    ("k = 3", "k = 10"),
    ("k = 30", "k = 10"),
]
cheetah = seed_by_seed("q6", ("Dyna", "SAC"), ("MBPO", "Dyna"))
pd.concat({"Cart-pole": seed_by_seed("mbpo-cartpole", *lengths), "Half-cheetah": cheetah}).droplevel(1)

# %% [markdown]
# **Explain what you see.** (a) How do the errors change with $k$ and with the number of real steps? By how much is the
# tenth step worse than the first? (b) Which lengths does the figure support, and which can't it tell apart? Does the bound of
# the build notebook agree? And the half-cheetah: what follows from our curves that does not follow from CS285's? (c) With ten steps per rollout a fit brings ten times as many imagined transitions as with
# one, but the agent makes the same number of updates. So what did the longer rollouts change?

# %% [markdown] kind="written" id="explain-length" points=4
# **Model answer.** (a) In our run it grows some four to fourteen times from the first step to the tenth. With the data it does not simply
# fall: after ten steps the fit after 150 real steps has 0.05, the one after 225 has 0.2, then come 0.03 and 0.08. The first policy
# behaved like the random one that had collected the data; the second one had learned to go elsewhere, and there the model knew nothing. That is $\epsilon_m'$, the error under the *new* policy: it rises with how far the
# policy has moved, and falls when the data follow.
#
# (b) At the end the twenty shipped seeds tell little: rollouts of 3, 10 and 30 steps are at 167 [115, 192], 164 [139, 185] and 174
# [155, 188], those of one step at 144 [115, 173]. The three are ahead of one step in 9, 12 and 14 of 20 seeds, by 0, 18 and 25 in the
# median. Earlier there is more to see (numbers from the shipped table): after 250 steps they are at 80 [57, 129], 116 [84, 147] and 192
# [163, 199], one step at 49 [39, 73]; they are ahead of it in 15, 15 and 19 of 20 seeds, after 300 steps in 12, 16 and 16. So longer than
# one learns sooner. 30 is ahead of 10 in 17 of 20 seeds after 250 steps, and in 10 after 300, with six ties; 3 and 10 can't be told
# apart at 250, 300 or 400 steps (our one live seed says nothing: 197 for ten, 200 for one). The bound would have advised short rollouts
# after the second fit, after 225 steps, when the error was largest; yet at 250 those of 30 were the best. It is a worst case, and its
# numbers can't be used, as
# total variation is not known. On the pendulum the medians of five shipped seeds go the same way: -200 after 1,750 real steps
# with one step, 1,500 with the schedule from one to five, 1,250 with five, 1,000 with fifteen; but 1,000 without a model, too. Fifteen took
# 750 to 2,000; with each of the other three lengths one seed never got there within 2,000. That is a hint and no more: five seeds, on a
# grid of 250 steps. And of the five runs with fifteen steps, which all got there, one ended at -388: it had lost it again.
# On the half-cheetah the five shipped seeds are in CS285's order at *equal* updates: after 8,000 real steps SAC is at 3 [-165, 56], Dyna
# at 171 [127, 220], MBPO at 649 [416, 711], and MBPO is still climbing (CS285's "at least 1000" is after 50,000 steps). In CS285's own comparison SAC makes a fifth of
# the updates of the others, so that its order could have been due to the updates alone; in these curves it isn't: imagined transitions help at equal updates. What they don't
# say is whether the length of the rollouts did it. From Dyna to MBPO the share of real transitions falls from 0.5 to 0.1, too, and no run changes one of the two alone.
# Five seeds are few, but each of them has the same order (by 87 at least from SAC to Dyna, by 197 from Dyna to MBPO).
# At full scale each of the three seeds ends in CS285's order, too, again at equal updates: SAC at 1203, 1247 and 1259, Dyna at 1282,
# 1305 and 1422, MBPO at 1473, 1491 and 1834. MBPO passes CS285's 1000 after 20,000 or 25,000 steps, and is ahead of both others in each
# seed at each evaluation from 10,000 steps on, of SAC by 699 to 945 after 25,000 and by 214 to 587 at the end. Dyna's lead over SAC is
# small: 58 to 163 at the end, and from 25,000 steps on it is ahead in 15 of 18 evaluations; one seed had fallen to -1206 after 20,000. It
# passes 1000 after 25,000 to 40,000 steps, SAC after 35,000 or 45,000.
#
# (c) Not how much is learned from, but *what*: with one step all imagined transitions start in states that were really
# visited, with ten steps nine tenths of them start in states to which the present policy leads. The agent practises what it
# will need. The price is that these starts are predictions.
#
# **Rubric.** 1 point: (a) both trends, with numbers. 2 points: (b) reads the figure with its seeds, or sees that two settings differ on the half-cheetah (1), compares with
# the bound or its shape (1). 1 point: (c) other states, not more learning.

# %% [markdown]
# ## 4. A few real ones
#
# `real_ratio` is the share of real transitions in a batch: at 0 all of them are imagined, at 1 none. MBPO's usual value is
# 0.05 (`k = 10` in the table).
#
# **Write down your prediction.** Which share will do best on the cart-pole? What goes wrong at either end? And what
# should the line with 1 look like, compared with one that you have seen in part 1?

# %% [markdown] kind="written" id="predict-ratio" points=1
# **Model answer.** Small shares should do best, where the model is good: imagined transitions are as true as real ones, and
# there are many more. At 0 nothing corrects the model's errors, at 1 the agent learns a few hundred transitions by heart. 1
# has to look like SAC with as many updates, up to chance.
#
# **Rubric.** 1 point: both ends with a reason.

# %%
RATIOS = ("real ratio 0", "k = 10", "real ratio 0.5", "real ratio 1")
ratios = pd.concat(
    [cartpole, run_variants("mbpo-cartpole", "real ratio 0", "real ratio 1")], ignore_index=True
)
print(shipped_note("mbpo-cartpole"))
shown_beside("mbpo-cartpole", ratios, *RATIOS, labels={"k = 10": "real ratio 0.05"}, title="Cart-pole")
display(ledger_table("mbpo-cartpole", ratios, SCALE, where=f"variant in {[*RATIOS, many]}"))
against = [("real ratio 0", "k = 10"), ("real ratio 0.5", "k = 10"), ("real ratio 1", "k = 10")]
seed_by_seed("mbpo-cartpole", *against, ("real ratio 1", many))

# %%
show_shipped("mbpo-real-ratio", {"title": "Pendulum: the share of real transitions"})
shares = [(f"real_ratio={share}", "real_ratio=0.05") for share in ("0", "0.2", "0.5", "1")]
seed_by_seed("mbpo-real-ratio", *shares)

# %% [markdown]
# ## 5. The price of doubt
#
# The reward in the model is lowered by $\beta$ times the disagreement of the elites. On the cart-pole a step earns 1, so
# $\beta = 2$ takes everything where the elites are half a standard deviation of the data's changes apart. Without a
# penalty it is `k = 10` again.
#
# **Write down your prediction.** Will the penalty help, harm, or do nothing here? In which situation would you not want
# to do without it?

# %% [markdown] kind="written" id="predict-penalty" points=1
# **Model answer.** Nothing or a little harm: the agent goes where the model errs, finds out, and the next fit knows. A
# penalty keeps it from going there, and near the border of the data also lowers the reward of what is good. Without new
# data (offline, as in MOPO), or where a mistake breaks something, nobody corrects the model, and I'd want it.
#
# **Rubric.** 1 point: an effect with a reason that has to do with collecting data.

# %%
PENALTIES = ("k = 10", "penalty 0.5", "penalty 2")
penalties = pd.concat([cartpole, run_variants("mbpo-cartpole", "penalty 2")], ignore_index=True)
print(shipped_note("mbpo-cartpole"))
shown_beside("mbpo-cartpole", penalties, *PENALTIES, labels={"k = 10": "penalty 0"}, title="Cart-pole")
display(ledger_table("mbpo-cartpole", penalties, SCALE, where=f"variant in {list(PENALTIES)}"))
seed_by_seed("mbpo-cartpole", ("penalty 0.5", "k = 10"), ("penalty 2", "k = 10"))

# %%
show_shipped("mbpo-penalty", {"title": "Pendulum: the price of disagreement"})
seed_by_seed("mbpo-penalty", *((f"penalty={beta}", "penalty=0") for beta in ("0.1", "0.5", "2")))

# %% [markdown]
# **Explain parts 2, 4 and 5.** (a) Which of the four kinds of work took most of the time, in each of the three settings? What
# would you make faster, and what would be gained at most? (b) Which share of real transitions does your figure favour, and
# how sure is that? Does the line with `real ratio 1` look like SAC with as many updates? (c) What did the penalty do, and how
# many seeds would you want before you said so in public?

# %% [markdown] kind="written" id="explain-rest" points=3
# **Model answer.** (a) In our run the agent's updates took about 72, 76 and 90 % (cart-pole, Pendulum, half-cheetah), the fits
# 24, 22 and 5 %, the world 3, 2 and 4 %, and the rollouts about 1 % at the most. So the updates: but if they cost nothing at
# all, the whole would be less than four, about four and ten times as fast, and no more. Faster rollouts would gain nothing.
#
# (b) Over twenty seeds, after 400 steps: 170 [150, 189] for a share of 0, 164 [139, 185] for 0.05, 167 [142, 187] for 0.5, and
# 146 [104, 183] for 1. Against 0.05 the other three are ahead in 11, 7 and 7 of 20 seeds, with three, four and two ties: at the end no
# share is shown to be better. After 300 steps (from the shipped table) a share of 1 is at 109 [74, 159] against 179 [133, 198], behind in
# 14 of 20: with imagination it goes faster. Imagination alone does no harm that these seeds could show.
#
# `real ratio 1` is *by construction* SAC with as many updates: only the random numbers differ (the rollouts that nobody reads also draw
# some). Yet in the first five seeds of this very table (0 to 4) it ends at 161 [68, 200] against 66 [36, 91], ahead in all five. Had we
# stopped there, we would have called an agent more than twice as good as itself. With twenty seeds it is 146 [104, 183] against 102
# [74, 132], ahead in 12; in forty further ones (20 to 59, `mbrl-course run mbpo-cartpole --seeds 20..59` with these two, not shipped) the
# means are 120 and 118. That is what chance alone can do. After 400 steps MBPO leads SAC with as many updates by 62, not much more
# than the 44 between these two; after 300 it leads by 119, and these two are 49 apart. A single seed says even less: in our live run
# `real ratio 1` ends at 200 and SAC with as many updates at 77, and its line jumps from 60 to 200 in the last 50 steps.
#
# On the pendulum (five shipped seeds, rollouts of one step) all shares end between -145 and -178, and against 0.05 each is ahead in
# three or four of five seeds: nothing is shown.
#
# (c) Nothing that could be told from chance: 169 [145, 186] with a penalty of 0.5 and 158 [142, 177] with 2, against 164 [139,
# 185] without; each of the two is ahead in 10 of 20 seeds. On the pendulum (five seeds) -153 without, -154, -162 and -179 with 0.1, 0.5 and
# 2: downhill, but they are ahead of no penalty in three, three and two seeds. It did no harm that could be shown. Five seeds can
# mislead, as (b) shows: I'd want twenty at least, and an interval of the difference that excludes zero.
#
# **Rubric.** 1 point: (a) shares from the student's own figure, and a bound on what can be gained (Amdahl). 1 point: (b) a
# reading that fits the figure, with its uncertainty. 1 point: (c) likewise, and a number of seeds with a reason.

# %% [markdown]
# ## 6. What a return costs
#
# Settings of MBPO on InvertedPendulum, each at what 1,500 real steps of it cost (seconds of one core) and what it earned in the last three
# evaluations; on the right, what each seed had spent when it first earned 1000. Each differs from `k = 10, 10 updates`, the setting of part 1, in
# what its name says; `3 members` has two elites, `50 passes of the model` at most a quarter of the passes. (Here they were evaluated after every 125 steps, in part 1 after
# 250, so don't compare the times.)

# %%
show_pareto("pareto-mbpo")

# %% [markdown]
# With two or five updates per real step no seed gets there in 1,500 steps: cheap, and for nothing. With ten or twenty all settings do in all
# five seeds, most of them after 25 to 45 s, and five seeds tell few of them apart. Rollouts of one step take longer than those of three in each
# seed (29 to 52 s, 24 to 36 s). At most a quarter of the passes (`50 passes of the model`), three fifths of the fits' gradient steps, is enough to get
# there. Twenty updates nearly double the price of a whole run and are ahead in three of five seeds: they save real steps (625 to 1,000 instead of
# 1,000 to 1,375), and hardly seconds. And SAC without a model is as quick as any, with ten updates after 24 to 38 s, though two of its seeds get
# to 1000 only after 1,375 steps; with twenty it gets there after 750 to 875 steps, about as soon as MBPO. Counted in seconds, a
# model hardly pays where a real step costs nothing.

# %% [markdown]
# ## What to take along
#
# - MBPO is two changes at once: a model, and many updates. Compare it with SAC with *as many updates*, or you don't know which
#   of the two you have measured.
# - On Pendulum the updates made the difference, and no help from the model was to be seen. On the cart-pole the model helped at equal
#   steps and equal updates, clearly after 300 steps (179 against 60, ahead in 17 of 20 seeds), less after 400 (164 against 102, in 14).
#   On the half-cheetah only the agents with a model got anywhere in 8,000 steps. Whether a model helps depends on the task, and has
#   to be measured there.
# - The error of a rollout grows with its length, and falls when the data follow the policy; the schedule follows from that.
# - Most of the time goes into the agent's updates and the fits, hardly any into imagining. Imagination is cheap; learning
#   from it isn't.
# - One seed says that code runs, and five can mislead: one and the same agent, run twice, had 161 and 66 in five seeds, 146 and 102 in
#   twenty, and 120 and 118 in forty others (means). Claims need many seeds, and the interval of a *difference*, best between runs from
#   the same starts.
# - A comparison that changes two settings says nothing about either of them.
#
# ## Test yourself
#
# <details><summary>1. A paper compares MBPO, with 20 updates per real step, with SAC, with one, and MBPO needs a tenth of the
# steps. Which run is missing, and what might it show?</summary>
#
# SAC with 20 updates per step. On Pendulum the same comparison would have given all the credit to the model, and the
# updates had earned it. On the cart-pole the model would have kept about three quarters of the lead after 300 steps, and less than half
# after 400.
# </details>
# <details><summary>2. Rollouts take one percent of the time, the agent's updates three quarters. Somebody writes a model that
# predicts ten times as fast. How much faster is MBPO, and what would be the best that faster updates could do?</summary>
#
# By less than one percent. Updates that cost nothing would leave a quarter of the time: four times as fast, and no more.
# </details>
# <details><summary>3. MBPO with <code>real_ratio = 1</code> against SAC with as many updates: which columns of the ledger differ?
# And why do the returns differ, too?</summary>
#
# Model calls, model gradient steps and seconds: the model is fitted and asked, and nobody reads the answers. The agent's gradient steps are the
# same. The returns differ by chance, since the rollouts draw random numbers: a fine measure of what chance alone can do. On the cart-pole it
# made 161 against 66 of five seeds, 146 against 102 of twenty.
# </details>
# <details><summary>4. Two agents both have -152 on Pendulum, each with an interval from about -180 to -125. Does this say that they are
# about as good, to within 50?</summary>
#
# No, it is known much better. The intervals are as wide as the starts are different. With the same starts the two differ by 16
# at the most, seed by seed.
# </details>
# <details><summary>5. On the half-cheetah MBPO is ahead of Dyna, with rollouts of ten steps instead of one and a tenth of each batch real
# instead of half. Which runs would tell what did it?</summary>
#
# Rollouts of ten with a share of 0.5, and rollouts of one with 0.1. One of the two alone leaves it open whether the settings
# only work together.
# </details>
#
# ## Where next
#
# Next week you take an engineer's report with ten claims apart, one by one. If you want to go on here: run
# `mbrl-course run mbpo-cartpole --seeds 20..39`, and see which of this notebook's impressions survive. To read on: Yu et al.,
# 2020, [*MOPO*](https://arxiv.org/abs/2005.13239), a penalty like that of part 5, for data that nobody can add to; Hafner et al., 2023,
# [*Dreamer*](https://arxiv.org/abs/2301.04104), whose policy only ever learns in a latent space of its model; Hansen et al., 2024,
# [*TD-MPC2*](https://arxiv.org/abs/2310.16828), a few planned steps with a learned value at their end; and Deisenroth and Rasmussen,
# 2011, *PILCO* (at length: [2015](https://arxiv.org/abs/1502.02860)), which learned from less than a minute of real cart-pole, with Gaussian processes.
