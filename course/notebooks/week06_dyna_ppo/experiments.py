# %% [markdown]
# # Week 6 · Experiments: does imagination help, and why?
#
# In `build.ipynb` you gave PPO an imagination. There was one picture of it, with one seed. Here it is put to the test,
# with the question that decides: *compared to what?* An agent that imagines takes many more gradient steps, so it may be
# better for that reason alone.
#
# 1. **Level 1: does a model help?** Dyna-PPO against PPO, and against PPO that takes as many gradient steps. Steps
#    to 80 % of PPO's final return, the price at the start, the model's one-step and k-step errors early and late.
# 2. **Level 2: what decides it?** How far to imagine, how much, from how many data; where the agent has been, and what the
#    model knows about old and new states; models that are made worse on purpose.
# 3. **Level 3: what to trust?** The size of the ensemble, the gate, and planning in the same ensemble.
#
# Everything runs on *your* functions from `build.ipynb`, which has to lie beside this notebook. Before each part there is a
# prediction to write down, and after it a question about what you saw. Both are read by a person. A wrong prediction with a
# reason earns full marks.
#
# **Where it comes from**
#
# - Sutton, 1991, *Dyna, an integrated architecture for learning, planning, and reacting*.
# - Kurutach et al., 2018, [*Model-ensemble trust-region policy optimization*](https://arxiv.org/abs/1802.10592).
# - Agarwal et al., 2021, [*Deep reinforcement learning at the edge of the statistical
#   precipice*](https://arxiv.org/abs/2108.13264): interquartile means, intervals, the probability of improvement (RLiable).
#
# **Time** with `SCALE = "laptop"`: about two minutes and a half of one core (AMD EPYC; seconds of the processor), with `"smoke"` half a minute. What would take longer
# is shown from runs that ship with the course; each picture says so. `"full"` takes hours.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": more evaluation, hours
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
NUM_SEEDS = 3  # of the first comparison
MORE = False  # True measures horizons and corrupted models here, too, beside those that ship
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week06", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% [markdown]
# The imports come after that, so that they find your functions.

# %% kind="setup"
import copy
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import display

from mbrl_course.buffers import Batch
from mbrl_course.cem import CEMConfig, cem_plan, shift_plan
from mbrl_course.dyna_ppo import DynaPPO
from mbrl_course.envs import get_task
from mbrl_course.evaluation import evaluate, probability_of_improvement, summary
from mbrl_course.experiments import get_config, run
from mbrl_course.experiments.figures import (
    ledger_table,
    plot_results,
    shipped,
    shipped_note,
    show_pareto,
    show_shipped,
)
from mbrl_course.experiments.tables import final_table
from mbrl_course.imagination import (
    epistemic_variance,
    errors_by_age,
    model_loss,
    uncertainty_gate,
    visit_counts,
    worst_case_scores,
)
from mbrl_course.mpc import rollout, run_episode, sequence_returns
from mbrl_course.plotting import COLORS, GREY, new_axes, plot_learning_curves, use_style

use_style()
torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other
task = get_task("cartpole")
RETURNS = (0, 510)  # of CartPole-v1, with some room
SHORT = {"total_steps": 5120, "eval_every": 512} if SCALE == "laptop" else {}


def only(name, *variants):
    """Those variants of an experiment that have these names."""
    return tuple(text for text in get_config(name, SCALE).variants if text.partition(":")[0] in variants)


def measure(name, variants, seeds, **changes):
    """Some variants of an experiment of this course, run here at the scale chosen above."""
    overrides = {"variants": only(name, *variants), **changes}
    return run(name, seeds, SCALE, overrides, fresh=not RESUME)


# %% [markdown]
# ## Level 1: does a model help?
#
# `CartPole-v1`: 1 point for each step, 500 at most. PPO collects 512 steps (eight environments, 64 steps each), makes ten
# passes, and throws them away. Dyna-PPO then fits five networks to its latest 10,000 transitions, and makes ten passes
# through each of five imagined batches: 128 rollouts of 20 steps. Both get 5120 real steps here, ten batches. And a third agent:
# *PPO, as many updates*, a control. It makes more passes through each real batch, until it has taken as many gradient steps as
# Dyna-PPO would with rollouts of 5 steps.
#
# Published claims about this are mixed; a plain public implementation found no gain over PPO. (The run below takes a minute and a half.)
#
# **Write down your prediction.** (a) Who is ahead after 2000 real steps, and who after 5000? Where do you place the control? Is there a price at the start,
# while the model is bad? (b) The reward is always 1, and the true termination rule is known to the model. What is left
# to be learned, and is it difficult?

# %% [markdown] kind="written" id="predict-level-1" points=2
# **Model answer.** (a) Dyna-PPO takes many more gradient steps, on fresh data of its present policy, so it should be ahead early,
# if the model is good enough by then. The control squeezes more out of the same data, and should lie between; if it does as well as Dyna-PPO, the model
# was not the reason. At the very start
# the model has seen a few hundred steps of falling poles; imagined rollouts in it may teach nonsense, which would be
# a penalty in the first batches. (b) The dynamics of four numbers, smooth and without noise: easy. Five steps of it, starting in
# real states, should be good after a few thousand transitions.
#
# **Rubric.** 1 point: a statement about early and late with a reason. 1 point: says what the model has to learn, and argues that it is
# easy or not. Whether the prediction comes true does not matter.

# %%
LONG = "Dyna-PPO, large batches, horizon 20"
CONTROL = "PPO, as many updates as with horizon 5"
level1 = measure(
    "dyna-ppo-small-batches",
    ("PPO", CONTROL, LONG),
    range(NUM_SEEDS if SCALE != "smoke" else 1),
    num_eval_episodes=5
    if SCALE == "laptop"
    else get_config("dyna-ppo-small-batches", SCALE).num_eval_episodes,
)

# %% [markdown]
# Solid: here. Dashed: the course's runs. Lines are interquartile means (IQM) over seeds, bands the 95 % bootstrap intervals
# of what was measured here. Evaluation takes the most likely action.

# %%
print(shipped_note("dyna-ppo-small-batches"))
small = shipped("dyna-ppo-small-batches")
measured = dict(list(level1.groupby("variant", sort=False)))
reference = None if small is None else {name: small[small["variant"] == name] for name in measured}
ax = new_axes(width=6.8, height=4.8)[0]
plot_learning_curves(measured, reference=reference, baseline="PPO", title="With and without a model", ax=ax)
ax.set_ylim(RETURNS)
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15))  # below the picture it hides no line
plt.show()
ledger_table("dyna-ppo-small-batches", level1, SCALE, compare=False)

# %% [markdown]
# How many real steps until 80 % of what PPO earns in the end, and how many until 475, where CartPole counts as solved? (Medians over seeds;
# infinite where half of them never got there.) And what did the start look like: the mean return of all evaluations in the first 2048 steps.


# %%
def early_late(rows, until=2048):
    """The mean evaluation of each seed early on, its last early one, and its last one."""
    early, late = (
        part.groupby(["variant", "seed"], sort=False)["eval_return"]
        for part in (rows[rows["env_steps"] <= until], rows)
    )
    columns = {f"up to {until} steps": early.mean(), f"at {until} steps": early.last()}
    return pd.DataFrame({**columns, "at the end": late.last()}).dropna().reset_index()


def first_steps(name, rows):
    """How many real steps each variant took to 80 % of PPO's final return, and to 475."""
    table = final_table(name, rows).set_index("what")
    return table[["seeds", *(column for column in table if column.startswith("env_steps to "))]]


display(first_steps("dyna-ppo-small-batches", level1))
early_late(level1).groupby("variant", sort=False).mean(numeric_only=True).drop(columns="seed").round(0)

# %% [markdown]
# The model's errors, on 500 fresh steps of the present policy: $E_k$ is the mean squared error after $k$ steps of
# open-loop prediction, in units in which 1 means "as bad as predicting the mean change". (A point is missing where no
# episode was $k$ steps long.)

# %%
errors = level1[level1["variant"] == LONG]
ax = new_axes(width=6.8)[0]
for k, color in zip((1, 5, 10), COLORS, strict=False):
    for number, (_, rows) in enumerate(errors.groupby("seed")):
        label = f"$E_{{{k}}}$" if number == 0 else None
        ax.semilogy(
            rows["env_steps"], rows[f"E_{k}"], "o-", color=color, markersize=4, linewidth=1.3, label=label
        )
ax.set(xlabel="environment steps", ylabel="mean squared error")
ax.set_title("Dyna-PPO's model on the policy of the day: a line for each seed")
ax.legend()
plt.show()

# %% [markdown]
# ### Is it the model, or the gradient steps?
#
# Three seeds of three variants can't tell. Here are all variants with more seeds, as they ship with the course. *Small batches* have 128
# real steps instead of 512, with as many imagined ones: more of the experience is imagined.

# %%
SMALL = "variant.str.contains('small')"
ALIKE = {  # agents of the same kind have the same colour in all pictures
    CONTROL: COLORS[0],
    "PPO, small batches, as many updates": COLORS[0],
    LONG: COLORS[1],
    "Dyna-PPO, small batches, horizon 20": COLORS[1],
    "Dyna-PPO, small batches, horizon 5": COLORS[2],
}
show_shipped(
    "dyna-ppo-small-batches",
    {"title": "Real batches of 512", "where": f"not {SMALL}", "colors": ALIKE},
    {"title": "Real batches of 128", "where": SMALL, "colors": ALIKE, "baseline": "PPO, small batches"},
    ylim=RETURNS,
)

# %% [markdown]
# Real steps to 80 % of PPO's final return and to 475, then the early mean and the end, each with its interval.

# %%
if small is not None:
    display(first_steps("dyna-ppo-small-batches", small))
    per_seed = early_late(small)
    tables = {
        y: summary(per_seed, "variant", y).set_index("variant")[["iqm", "low", "high"]]
        for y in per_seed.columns[2:]
    }
    display(pd.concat(tables, axis=1).round(0))

# %% [markdown]
# The probability that a random run of one agent beats a random run of another. One half means no difference; if the interval
# excludes one half, the seeds support the order.


# %%
def print_chances(rows, *pairs, until=2048):
    """How likely a run of the first agent of each pair beats one of the second, early and at the end."""
    of = dict(list(early_late(rows, until).groupby("variant", sort=False)))
    for when in (f"up to {until} steps", f"at {until} steps", "at the end"):
        print(when)
        for better, worse in pairs:
            chance = probability_of_improvement(of[better][when].to_numpy(), of[worse][when].to_numpy())
            print(f"  {chance.point:.2f} [{chance.low:.2f}, {chance.high:.2f}]   {better}  >  {worse}")


if small is not None:
    print_chances(
        small,
        (CONTROL, "PPO"),
        (LONG, CONTROL),
        ("Dyna-PPO, small batches, horizon 5", "PPO, small batches, as many updates"),
        ("Dyna-PPO, small batches, horizon 20", "Dyna-PPO, small batches, horizon 5"),
    )

# %% [markdown]
# None of these controls takes as many gradient steps as a horizon of 20 does: look into the ledger. So, with three times as many real steps,
# in batches of 512, a control for each of the two horizons:

# %%
ALIKE |= {"Dyna-PPO, horizon 20": COLORS[1], "Dyna-PPO": COLORS[2]}
ALIKE |= {"PPO, as many updates as with horizon 20": COLORS[4]}
show_shipped("dyna-ppo-cartpole", {"title": "15,360 real steps", "colors": ALIKE}, ylim=RETURNS)
if (longer := shipped("dyna-ppo-cartpole")) is not None:
    display(first_steps("dyna-ppo-cartpole", longer))
    print_chances(
        longer,
        ("PPO, as many updates", "PPO"),
        ("Dyna-PPO", "PPO, as many updates"),
        ("Dyna-PPO, horizon 20", "PPO, as many updates as with horizon 20"),
        ("Dyna-PPO, horizon 20", "PPO, as many updates"),
        until=3072,
    )

# %% [markdown]
# The model's errors on the way, medians over these seeds:

# %%
if longer is not None:
    at = longer["env_steps"].isin((1024, 2048, 4096, 8192, longer["env_steps"].max()))
    by = ["variant", "env_steps"]
    errors = longer[at].dropna(subset="E_1").groupby(by, sort=False)[["E_1", "E_5", "E_10"]]
    display(errors.median().map("{:.2g}".format))

# %% [markdown]
# **Explain what you see.** (a) Your own agents: what can be said with so few seeds, and what can't? Is there a price at the
# start? (b) Is it the model or the gradient steps? Answer for a horizon of 5 and for one of 20 separately, and name the
# comparison, at equal gradient steps, that your answer rests on. (c) Look at the control for the horizon of 20, PPO with as many updates. What becomes of
# it, and why do the imagined batches not do the same to Dyna-PPO? (d) Count what the agents spent. When would you still take PPO?

# %% [markdown] kind="written" id="explain-level-1" points=5
# **Model answer.** (a) Three seeds show that the code works, and what size of return to expect; of the order they say little: at the end the bands of PPO, 275 [212, 331], and of the control,
# 314 [199, 412], lie in each other, and ten shipped seeds, 302 [238, 370] and 363 [264, 456], don't tell them apart, either. Only Dyna-PPO's 500 [500, 500] is apart. A price at the start: over the
# first 2048 steps none is to be seen (shipped: 264 [230, 297] against the control's 198 [155, 264]); but up to 1,024 steps Dyna-PPO is behind the control in the picture, with three seeds as with ten.
#
# (b) Horizon 5: gradient steps explain the speed. With large batches Dyna-PPO is behind its control, 12,288 steps to the first 475 against 6,656 (medians). With small batches nothing is shown
# over the first 2048 steps (0.33 [0.10, 0.59]); but in the end Dyna-PPO is ahead of PPO with as many updates, 487 [406, 500] against 293 [146, 446], a probability of improvement of 0.76 [0.54, 0.94].
# (Its first five seeds had 0.60 [0.30, 0.88], and this answer said that nothing was shown: five were too few.) A weak control, though: with ten thousand gradient steps it is no better than
# PPO with small batches and 400, 306 [205, 410]. Horizon 20: it is the model. The comparison is that of 15,360
# real steps, 29,745 gradient steps against the control's 31,200: after 3,072 real steps every run of Dyna-PPO has earned 475, half of the control's runs need more than 7,680, and one never gets there. At 3,072 steps
# every run of Dyna-PPO is ahead of every run of either control (1.00). Before that there is a price: at 1,024 steps the control is ahead. That small batches get
# to 475 after 1,024 steps is impressive, but says less: they had taken some 6,600 gradient steps by then (38,860 in all), and no control a third as many.
#
# (c) It learns fast and does not keep it. Two runs stood at 500 after 4,096 steps and fell to 71 and 43 later; three of the ten end at 329, 336 and 422. PPO with 8,640 updates does at least
# as well, 500 [468, 500]. Too many passes through the same 512 steps overfit them, and move the policy far from the one that
# collected them. Dyna-PPO's batches are new each time, and of the policy of the day: nine of ten runs end at 500. So the long
# horizon's lead can't be bought with passes through real data. With small batches it may be the same at a horizon of 5: of the control's five runs that ever earned 475 two end at 144
# and 165, and all seven of Dyna-PPO's end at 500.
#
# (d) In CPU seconds for 5120 steps: PPO 1, the control 5, Dyna-PPO with a horizon of 20: 24 (large batches) and 84 (small ones). Until the first 475 (medians of those
# that get there): PPO 2 (eight seeds of ten), the control 7, that of horizon 20 some 22 (nine of ten), Dyna-PPO with a horizon of 20: 6. So what is
# dear is to go on after the task is solved. Where real steps are free, as in a fast simulator, PPO is the best buy, with many updates where it has to get there for sure: the model is not shown to be
# quicker. Where a step costs a second of a robot, 2000 steps instead of 7,700 decide, and they cost no computing.
#
# **Rubric.** 1 point: (a) does not conclude more from three seeds than they hold. 2 points: (b) the speed with horizon 5 is explained by gradient steps,
# whatever is said about the end with small batches; that with horizon 20 is not (one each, with the comparison named). 1 point: (c) overfitting of the real batch against fresh imagined ones. 1 point: (d) uses the ledger.

# %% [markdown]
# ## Level 2: what decides it?
#
# Level 1 says that the horizon matters. The others: how *much* is imagined, from how *many* data the model learns, and how *good* it
# is.
#
# **Write down your prediction.** (a) Imagined horizon 1, 3, 5, 10, 20, always 640 imagined steps per batch: which is best? What does a horizon of 1 teach?
# (b) The model gets worse on purpose: Gaussian noise on each predicted change, with a standard deviation of 0.03, 0.1, 0.3 and 1 of a
# usual change, and the same number on the reward. From where on does it hurt?

# %% [markdown] kind="written" id="predict-level-2" points=2
# **Model answer.** (a) Longer is better until the model's error spoils it: a rollout of 1 step teaches what the value function says about the next
# state, so it is as good as the value function, which early on is bad. 20 steps show the pole fall. CartPole's model is very good after 4000 steps ($E_{10}$ below
# 0.001), so I expect 20 to be at least as good as 5. (b) Noise without bias partly averages out over thousands of imagined steps, so small noise should
# not hurt at all; at 1 the noise is as large as what happens, and imagined poles fall by accident. I expect harm somewhere from 0.3 on.
#
# **Rubric.** 1 point: an optimum with a reason from both sides (value function, model error). 1 point: a threshold with a reason.

# %% [markdown]
# With `MORE = True`: horizons of 1 and 20 and two noisy models, one seed and 5120 steps each, on your functions. They show the size
# of the effects, not more.

# %%
if MORE:
    chosen = {
        "dyna-ppo-horizon": ("horizon 1", "horizon 20"),
        "dyna-ppo-noise": ("noise=0", "noise=0.3", "noise=1"),
    }
    axes = new_axes(columns=2, width=5.8, height=3.8)
    ledgers = []
    for ax, (name, variants) in zip(axes, chosen.items(), strict=True):
        rows = measure(name, variants, (0,), **SHORT)
        plot_results(name, rows, SCALE, compare=False, title=name, ax=ax)
        ax.set_ylim(RETURNS)
        ledgers.append(ledger_table(name, rows, SCALE, compare=False))
    plt.show()
    display(pd.concat(ledgers))

# %% [markdown]
# All horizons and noises over seeds, as far as they ship with the course. Then three *regimes*: passes of the model through
# its data, and imagined batches after each real one, 1/5, 3/10, 5/20. And the number of transitions that the model is
# fitted to.


# %%
def show_ablation(name, title):
    """Curves and ledger of what ships of an experiment, and the first steps to two returns."""
    show_shipped(name, {"title": title}, ylim=RETURNS)
    if (rows := shipped(name)) is not None:
        display(first_steps(name, rows))


show_ablation("dyna-ppo-horizon", "Imagined horizon")
show_ablation("dyna-ppo-noise", "A model that is made worse on purpose")
show_ablation("dyna-ppo-regimes", "Passes of the model / imagined batches")
show_ablation("dyna-ppo-buffer", "Transitions that the model is fitted to")

# %% [markdown]
# ### What a return costs
#
# Settings of Dyna-PPO, each at what 6,144 real steps of it cost (seconds of one core) and what it earned in the last three evaluations; on
# the right, what each seed had spent when it first earned 475. Each differs from `horizon 20`, that of level 1, in what its name says:
# `32 rollouts` imagines a quarter as much in each batch. `PPO, 60 epochs` has no model, and six times PPO's passes.

# %%
show_pareto("pareto-dyna-ppo")

# %% [markdown]
# Look at both pictures: they rank the settings differently. On the left those that imagine less, `32 rollouts` or `2 imagined batches`, stand
# on the front: 500 (with `32 rollouts` one of the five seeds has 467), for about half the computing of the preset or less. On the right the preset
# solves the task at about the same time, after 3 to 7 s (they: 3 to 10 and 4 to 7): what it spends on each real step it saves in steps. PPO with 60
# passes was as quick in three seeds, and did not get there in the other two. Small real batches save real steps, as you saw above, and cost two to three times the seconds until the task is solved.

# %% [markdown]
# ### Where the agent has been, and what the model remembers
#
# One more Dyna-PPO with a horizon of 20, which starts to imagine after the first batch. After each batch we keep a copy of its model,
# and test it on the *next* batch, before it has seen any of it; and a copy of its policy. (Twenty seconds.)

# %%
settings = replace(get_config("dyna-ppo-horizon", SCALE), imag_horizon=20, imag_rollouts=32, **SHORT)
BATCH = settings.num_envs * settings.num_steps
settings = replace(settings, model_start=BATCH)
agent = DynaPPO(task, settings.settings(), seed=0)
fresh, kept = {}, {}  # by real steps: loss and disagreement on the batch until then; model and policy


def on_batch(agent):
    """Tests the last model on the new batch, then keeps the new model and the policy."""
    steps = agent.ppo.counters.real_steps
    batch = Batch(*(column[-BATCH:] for column in agent.visited.all()))
    if kept:
        model, _ = kept[max(kept)]
        scale = model.target_normalizer.std
        means = model.predict(batch.obs, batch.action).obs
        fresh[steps] = model_loss(means, batch.next_obs, scale), epistemic_variance(means, scale)
    kept[steps] = copy.deepcopy((agent.model, agent.ppo.policy))


agent.train(settings.total_steps, on_batch)

# %%
experience = agent.visited.all()
groups = len(experience.obs) // BATCH
axes = new_axes(columns=2, width=5.8, height=3.8)
ages = (torch.arange(groups) + 0.5) * BATCH
moments = sorted(kept)
for at, color in zip(
    (moments[0], moments[len(moments) // 3], moments[-1]), (COLORS[3], COLORS[1], COLORS[0]), strict=True
):
    errors = errors_by_age(kept[at][0], experience, groups)
    axes[0].semilogy(ages, errors, "o-", color=color, label=f"as of step {at}")
losses = {steps: loss.mean() for steps, (loss, _) in fresh.items()}
axes[1].semilogy(list(losses), list(losses.values()), "o-", color=COLORS[2])
axes[0].set(
    xlabel="when the transition was made, step",
    ylabel="model's loss",
    title="Three models, old and new states",
)
axes[1].set(xlabel="environment steps", ylabel="model's loss", title="Each model on the batch after it")
axes[0].legend()
plt.show()

# %% [markdown]
# And where were the poles? The first, middle and last third of its transitions.

# %%
seen = experience.obs[:, 2:].clone()
seen[:, 0] = seen[:, 0].rad2deg()
low, high = torch.tensor([-12.0, -2.5]), torch.tensor([12.0, 2.5])
axes = new_axes(columns=3, width=3.6, height=3.4)
for ax, part, name in zip(axes, seen.chunk(3), ("first", "middle", "last"), strict=True):
    counts = visit_counts(part, low, high, 30)
    shown = dict(origin="lower", extent=(-12, 12, -2.5, 2.5), aspect="auto", cmap="Blues")
    picture = ax.imshow(counts.T, norm="log", vmin=0.3, vmax=100, **shown)  # cells without a visit stay white
    ax.grid(False)
    ax.set(xlabel="angle, degrees", title=f"{name} third")
axes[0].set_ylabel("angular velocity, rad/s")
plt.colorbar(picture, ax=axes[2], label="visits", extend="max", ticks=[1, 10, 100], format="%d")
plt.show()

# %% [markdown]
# **Explain what you see.** (a) Which horizon would you choose, and what limits it here: the model's error, the value function, or the costs? Which of your
# figures say so, and with how many seeds? What do the regimes add: is it better to imagine more, or longer? (b) How much noise does the agent bear? Why can a model be useful that is wrong in each single
# prediction? (c) The three models: on which states is each of them worse? The shipped buffers: does it pay to forget old states? What does the buffer decide
# besides what the model is fitted to? (d) Where
# do the state visits contract to, and what does that mean for a model that only knows the latest data?

# %% [markdown] kind="written" id="explain-level-2" points=4
# **Model answer.** (a) The longer, the better (ten seeds, about 90,000 imagined steps and 8,400 gradient steps each): the first 475 come after 5,120 real steps (median) with
# a horizon of 20, after 6,656 with 10, 12,288 with 5 and 14,336 with 3 (5 and 3 are not shown to differ), and with 1 in two of ten runs. One step is *no better than no model*: 261 [207, 378] in the end
# against PPO's 469 [378, 491], with seven times its gradient steps, and eight of PPO's ten runs got to 475. The model is not to blame: at 4,096 steps its $E_1$ is about 0.00001 in every variant. A rollout of one step teaches only
# what the value function says about the next state, thousands of times; twenty steps show the pole fall. Early on the model does limit: the medians of $E_{10}$ are 0.5 to 8 up to 2,048
# steps (1 is as bad as predicting the mean change) and about 0.001 at 4,096. Since all horizons get the same number of imagined steps, they cost about the same (34 or 35 CPU seconds);
# with as many rollouts, as in level 1, 20 steps cost about twice as much as 5. More of everything, with rollouts of 5 steps, helps, but early on not beyond PPO: over the first 4,096 steps the regime
# 1/5 averages 122 [82, 166], 5/20 180 [159, 216], PPO 217 [177, 275]. The first 475 come after 9,728 real steps (median; 6,144 to 12,288) in 1/5, 9,728 (4,096 to 12,288) in 3/10 and
# 6,656 (5,120 to 12,288) in 5/20, with some 5,300, 9,800 and 12,500 gradient steps until then. That 5/20 is sooner than 1/5 is shown (the probability is 0.79 [0.57, 0.96]), but imagining longer is the better buy:
# a horizon of 20 gets there after 5,120 (3,072 to 6,144), sooner than 5/20 (0.83 [0.66, 0.96]), with 2,600 gradient steps.
#
# (b) Ten seeds, a horizon of 5: with 0.03 no harm is shown, 500 [460, 500] in the end (one run at 263), without noise 500 [500, 500]. 0.1 and 0.3 hurt: 477 [416, 499] and 442 [363, 493], which
# is not shown to be better than PPO, and six and five of the ten runs ever earned 475; without noise all did. Noise without a bias averages out, where it is small, over
# thousands of imagined steps: what PPO uses is the mean advantage. A bias, even a small one, is always the same, and is learned. Then comes a surprise: with 1 nine of ten were at 475, after
# 6,144 steps (median; 3,072 to never), sooner than without any noise (12,288; 6,144 to 13,312; the probability is 0.83 [0.61, 1.00]). Not all keep it: seven end at 500, the others at 203, 262 and 289. So "the worse the model, the slower the agent" does not hold.
# A guess: such noise throws imagined poles over within five steps, so that short rollouts show falls, as long ones do. But the ledger has hardly fewer imagined steps (90,802 against 91,085), so
# few more rollouts ended early. To find out, corrupt only the changes or only the rewards, and repeat the noise with a horizon of 20, where falls are seen anyway.
#
# (c) On the new ones: the model as of step 2048 has a loss of 0.002 on the states that it has seen, and of 0.05 to 0.13 on those that came later, where a better policy went. That of step
# 512 is bad everywhere (ten passes are too few), and worse still on what came last. The last one has seen all, and is good everywhere, at 0.00001: remembering the old states does the model
# no harm, so there is nothing to forget for the model's sake. And yet smaller buffers are sooner at 475
# (ten seeds): after 6,144 real steps (median) with the last 1,000 transitions (3,072 to 10,240) and 8,192 with 5,000 (7,168 to 10,240), after 12,288 with 10,000 (6,144 to 13,312)
# and 12,800 with 50,000, which forgets nothing (6,144 to never, in two runs). Against 10,000 the probabilities are 0.91 [0.74, 1.00] and 0.83 [0.61, 1.00]. The smallest is not shown to be sooner than 5,000, but takes half of the computing
# of 10,000. In the end that lead is gone: all ten runs with 10,000 are at 500, six with 50,000, and with 1,000 and 5,000 one each has fallen, to 345 and 27. A likely reason for the lead is the other thing that the buffer decides: in which states imagined rollouts *start*. From a large
# buffer many of them start in the falls of the first policies, where the present policy never is; from a small one they start where it is now. MBPO has the same choice to make.
# (Another reason may be that fewer transitions mean fewer updates of the model: with 10,000, but one pass instead of ten, the regime 1/5 was at 475 after 9,728 steps, which is not shown to be sooner.)
#
# (d) To the upright pole at rest. A model of such data alone knows little about falling poles, but falling is what the policy has to be warned of; the early
# transitions hold that knowledge.
#
# **Rubric.** 1 point for each: (a) a choice that fits the student's figures and names the number of seeds; (b) reads the figure, its surprise included, and that errors
# without bias average out while a bias does not; (c) old against new states, read off correctly; (d) the visits narrow, and a model of narrow
# data knows nothing about falling, which is where the learning signal is.

# %% [markdown]
# ## Level 3: what to trust?
#
# Three questions remain. How many members does the ensemble need? How strict should the gate be? And does one need a policy at all,
# if one can plan in the model?
#
# **Write down your prediction.** (a) A gate of 0.01, 0.05, 0.1 or 0.2: what share of the steps pass early (in the second batch), and what share late? Will it
# help? (b) After only 512 and 1024 real steps: who earns more, Dyna-PPO's policy of that moment, or CEM that plans 15 steps ahead in Dyna-PPO's model of that moment,
# for the mean or for the worst member?

# %% [markdown] kind="written" id="predict-level-3" points=2
# **Model answer.** (a) Early perhaps half, late nearly all: the ensemble agrees once it has seen the states. If the imagined steps are harmless anyway (short rollouts from real
# states, a good model), a gate can't help much, and a strict one early takes away just the practice that made the agent fast. (b) The planner: it needs no
# gradient steps and uses what the model knows at once; 15 steps are enough to see a pole fall. With few data the worst member should be the safer judge.
#
# **Rubric.** 1 point: shares with a reason, and what that means for the gate's use. 1 point: policy against planner with a reason.

# %% [markdown]
# What the gate would have let through, on the fresh batches of the agent from above. Each threshold has its colour; on the
# right it is a vertical line, and the states to the left of it pass.

# %%
TAUS = (0.01, 0.05, 0.1, 0.2)
axes = new_axes(columns=2, width=5.8, height=3.8)
steps = list(fresh)
for tau, color in zip(TAUS, COLORS, strict=False):
    passed = {at: uncertainty_gate(variance, tau) for at, (_, variance) in fresh.items()}
    shares = [100 * inside.double().mean() for inside in passed.values()]
    axes[0].plot(steps, shares, "o-", color=color, label=f"$\\tau$ = {tau}")
    axes[1].axvline(tau, color=color, zorder=1)
for at, color in zip(
    sorted({steps[0], steps[len(steps) // 2], steps[-1]}), ("#b8b8b8", GREY, "black"), strict=False
):
    loss, variance = fresh[at]
    axes[1].loglog(
        variance, loss, ".", color=color, markersize=4, alpha=0.5, label=f"the batch until step {at}"
    )
axes[0].set(
    xlabel="environment steps",
    ylabel="share that passes, %",
    ylim=(0, 103),
    title="What the gate lets through",
)
axes[1].set(xlabel="disagreement u", ylabel="loss of the mean", title="Disagreement and error, unseen states")
axes[0].legend(loc="lower right")
axes[1].legend(markerscale=3)
plt.show()

# %%
rows = []
for at in sorted({steps[0], steps[len(steps) // 2], steps[-1]}):
    loss, variance = fresh[at]
    for tau in TAUS:
        inside = uncertainty_gate(variance, tau)
        row = {"batch until": at, "tau": tau, "pass, %": 100 * inside.double().mean().item()}
        rows.append(
            row | {"loss inside": loss[inside].mean().item(), "loss outside": loss[~inside].mean().item()}
        )
pd.DataFrame(rows).round({"pass, %": 0, "loss inside": 5, "loss outside": 3})

# %% [markdown]
# Did it help the agent? Gates and ensemble sizes over seeds, as far as they ship.

# %%
show_ablation("dyna-ppo-gate", "The gate: up to which disagreement?")
show_ablation("dyna-ppo-ensemble", "Members of the ensemble")
if (gated := shipped("dyna-ppo-gate")) is not None:
    means = early_late(gated, until=4096).groupby("variant", sort=False).mean(numeric_only=True)
    display(means.drop(columns="seed").round(0))

# %% [markdown]
# ### A policy, or a plan?
#
# Models and policies of the same agent, after so many real steps. CEM plans 15 steps ahead in the five members, and scores a plan by their mean or, with
# your `worst_case_scores`, by the worst of them. Episodes of at most 200 steps, the same two starts for all. (Half a minute.)


# %%
class EnsembleMPC:
    """CEM over a score of action sequences, `score(step, num_members, obs, sequences)`; warm-started."""

    def __init__(self, model, score):
        self.model, self.score, self.generator = model, score, torch.Generator().manual_seed(0)
        self.config = CEMConfig(population_size=60, num_elites=8, num_iterations=2, horizon=15)
        self.reset()

    def reset(self):
        self.last = torch.zeros(self.config.horizon, 1)

    def plan(self, obs):
        def step(obs, action):
            return self.model.step(obs, action, self.model.elites, sample=False)

        def score(sequences):
            return self.score(step, len(self.model.elites), obs, sequences)

        start = shift_plan(self.last)
        self.last = cem_plan(score, start, task.action_low, task.action_high, self.config, self.generator)
        return self.last


def mean_scores(step, num_members, obs, sequences):
    imagined = rollout(step, obs, sequences, num_members)
    return sequence_returns(imagined.rewards, imagined.terminated).mean(dim=0)


MAX_STEPS = 200 if SCALE != "smoke" else 20
moments = moments[:2]
rows = []
for at in moments:
    model, policy = kept[at]

    def act(obs, policy=policy):
        return agent.to_planned(policy.best_action(obs))

    for value in evaluate(task, act, 2, seed=7, progress=False):
        rows.append({"real steps": at, "agent": "policy of Dyna-PPO", "return": min(value, MAX_STEPS)})
    for name, score in {"CEM, mean member": mean_scores, "CEM, worst member": worst_case_scores}.items():
        for seed in range(2):
            episode = run_episode(task, EnsembleMPC(model, score), seed=7000 + seed, max_steps=MAX_STEPS)
            rows.append({"real steps": at, "agent": name, "return": episode.reward.sum().item()})
planned = pd.DataFrame(rows)

# %%
ax = new_axes(width=6.8, height=3.8)[0]
for place, ((name, part), color) in enumerate(
    zip(planned.groupby("agent", sort=False), (GREY, COLORS[0], COLORS[3]), strict=True)
):
    positions = [moments.index(at) + 0.22 * (place - 1) for at in part["real steps"]]
    ax.plot(positions, part["return"], "o", color=color, markersize=9, alpha=0.8, label=name)
ax.set_xticks(range(len(moments)), [f"{at} real steps" for at in moments])
ax.set(
    ylabel=f"return, {MAX_STEPS} at most", title="One model, three ways to act", ylim=(0, 1.05 * MAX_STEPS)
)
ax.set_xlim(-0.5, len(moments) - 0.5)
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
plt.show()

# %% [markdown]
# The whole loop of planning, trial by trial as in week 5, for mean and worst member, over seeds, as far as it ships:

# %%
show_shipped("dyna-ppo-mpc", {"title": "Planning in the ensemble, trial by trial"}, ylim=RETURNS)

# %% [markdown]
# **Explain what you see.** (a) What does the gate let through early and late, and how good is disagreement as a warning? Look for states that
# pass with a large loss. (b) Policy or planner: who uses the first 1000 steps better? What does each of them cost per real step of acting,
# and what will the policy still be good for? (c) Mean or worst member: what do your few episodes support?

# %% [markdown] kind="written" id="explain-level-3" points=4
# **Model answer.** (a) In our run 34 % of the steps pass at 0.01 in the second batch and 86 % at 0.05; from 3000 steps on nearly all pass. What is held back early is worse, by a factor of two to five, so
# disagreement ranks the states rightly. But what passes is bad, too: its loss is 0.38 at 0.01 and 0.52 at 0.05. All members are wrong *together*, since all of them have had too few gradient steps. Disagreement does not see that.
# So it is no surprise that the gate helps little: all ten shipped seeds end at 500 with every gate as without one, and the strictest holds back but 3 % of the imagined steps. It holds them back early,
# where they are missed: over the first 4096 steps a gate of 0.01 averages 147, against 219 without a gate (which is ahead with a probability of 0.86 [0.66, 1.00]) and 210 to 221 with the others. All the same its first 475 are not shown to come later
# (11,776 steps against 10,752 to 12,288, medians). In the first five seeds 0.05 was soonest, 10,240 against 13,312 without a gate, which looked like a hint; with ten it is 10,752 against 12,288, as with 0.1,
# and nothing is shown (0.67 [0.41, 0.91]).
# And one member is not shown to be worse than ten: with 1, 3, 5 and 10 members eight, nine, ten and eight of the ten runs end at 500; the first 475 come after 12,288, 12,288, 12,288 and
# 11,264 steps (medians), in ranges that overlap. Ten members take twice the CPU seconds of one.
#
# (b) The planner: with the same model CEM earned 18 to 51 after 512 steps and 125 to 200 after 1024, Dyna-PPO's policy 32 to 38 and 49 to 69. It pays 9,000 imagined steps for each
# real one, as long as it acts; the policy, once it is good, costs one small network. By 2048 steps eight of the ten longer runs of Dyna-PPO with a horizon of 20 had earned 475 in level 1.
#
# (c) Nothing: two episodes each, and mean and worst member lie together. Where the members hardly disagree, the two judges are one. Ten shipped seeds of the whole loop don't decide it: after eight
# trials, some 1,800 real steps, the mean is at 328 [269, 369], the worst member at 260 [174, 353]; but four and seven of ten runs had
# a trial of 475 by then. The two counts point in opposite directions, and neither is shown.
#
# **Rubric.** 2 points: (a) shares and losses from the student's own table (1), error that disagreement does not show, if there is any (1). 1 point: (b) data against
# computing, with numbers. 1 point: (c) no more than a few episodes can hold.

# %% [markdown]
# ## What to take along
#
# - Ask "compared to what?" An agent that imagines also takes more gradient steps. PPO with as many updates is the control, and rollouts of
#   5 steps are no faster; they end ahead of it only with small batches.
# - With rollouts of 20 steps CartPole was solved after 2000 to 3000 real steps, where the control with as many updates needed 7,700. CartPole's
#   dynamics are easy; nothing here says that a model of a running cheetah can be trusted for 20 steps. (Next week: MBPO trusts it for one.)
# - It costs: twenty to eighty times the computing of PPO for the same real steps. The ledger belongs to every claim.
# - The policy moves the data. Test a model on the batch that comes *after* it.
# - Disagreement finds the unknown, and says nothing about errors that all members share.
#
# **Where next.** PPO throws each real batch away. An off-policy learner need not: week 7 puts SAC in the place of PPO, and asks for how many
# steps a model may be trusted. [MBPO](https://arxiv.org/abs/1906.08253), then [Dreamer](https://arxiv.org/abs/2301.04104), which imagines in a
# space of its own, and [TD-MPC2](https://arxiv.org/abs/2310.16828), which plans *and* learns a policy.
