# %% [markdown]
# # Week 1 · Experiments: how good a model, and how far ahead?
#
# A pendulum has three numbers; a running robot has twenty-one, and feet that hit the ground. Your code meets
# the **half-cheetah** in three experiments:
#
# 1. **Size and training**: three models of the same 20,000 random steps. Which one predicts best, and why?
#    (This is the first problem of the model-based homework of Berkeley's CS285.)
# 2. **Horizon**: how the k-step error grows, and how far ahead a planner should look.
# 3. **Elsewhere**: the same model, asked about states that its training data do not hold.
#
# Everything runs on *your* functions from `build.ipynb`, which has to lie beside this notebook. Before an
# experiment there is a prediction to write down, and after it a question about what you saw. Both are read by
# a person. A wrong prediction with a reason earns full marks.
#
# **Time**: 6 minutes of computing with `SCALE = "laptop"`, about one with `"smoke"`. With `"full"` the three
# models are ensembles of three, as in CS285.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": the published setting
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
NUM_SEEDS = 3
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week01", "build.ipynb", reference=USE_REFERENCE)

# %% [markdown]
# The imports come after that, so that they find your functions.

# %% kind="setup"
import matplotlib.pyplot as plt
import numpy as np
import torch

from mbrl_course.dynamics import k_step_errors
from mbrl_course.envs import get_task
from mbrl_course.evaluation import collect, collect_random, summary
from mbrl_course.experiments import get_config, load_results, run
from mbrl_course.experiments.week01 import (
    curves_of,
    fit_model,
    holding_policy,
    mean_prediction,
    open_loop,
    trajectories,
)
from mbrl_course.films import episode_film
from mbrl_course.plotting import (
    COLORS,
    GREY,
    new_axes,
    plot_k_step_errors,
    plot_losses,
    plot_trajectories,
    use_style,
)

use_style()

if SCALE == "smoke":
    NUM_SEEDS = 2
    torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other
PARTS = ["x", "z", "pitch", "back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot"]
NAMES = PARTS + [f"{part}, velocity" for part in PARTS] + ["centre x", "centre y", "centre z"]


# %% [markdown]
# ## The cheetah
#
# A planar robot with six motors. An observation holds 9 positions (where the torso is, its pitch, six joint
# angles), the 9 velocities, and the place of the torso's centre; an action six torques between -1 and 1. One
# step is a hundredth of a second. Here is what random actions do with it, for a second:

# %%
task = get_task("cheetah")
config = get_config("q1", SCALE)
data_generator = torch.Generator().manual_seed(0)
data, random_return = collect_random(task, config.num_steps, data_generator)
test, _ = collect_random(task, config.num_test_steps, data_generator)
print(f"{len(data.obs)} steps to learn from, {len(test.obs)} to test with; mean return {random_return:.0f}")
episode_film(task, test.obs[:100], every=2, fps=20, title="Random actions", progress=False)

# %% [markdown]
# ## 1. Size and training
#
# Three models of these data, named as STEPS x (LAYERS x WIDTH):
#
# | model | gradient steps | hidden layers | weights |
# |---|---|---|---|
# | 500x(1x32) | 500 | one of 32 | 1,600 |
# | 5x(2x250) | 5 | two of 250 | 75,000 |
# | 500x(2x250) | 500 | two of 250 | 75,000 |
#
# All take mini-batches of 512 and Adam with a learning rate of 0.001. Inputs and targets get 1 % noise, as in
# CS285: a model that is to feed on its own predictions should not mind small deviations.
#
# **Write down your prediction.** Order the three by (a) the loss at the end of the training and (b) the mean
# prediction error over 20 open-loop steps. In normalised units, where does every model begin, roughly, and
# how far down will each come? Which matters more here, size or training?

# %% [markdown] kind="written" id="predict-fits" points=2
# **Model answer.** All begin near 1, the loss of "mean change", since targets have variance 1. After 5 steps
# of 0.001 hardly anything has been learned, so 5x(2x250) should stay near 1, and be worst in (b) too. The
# small network learns the main effects in 500 steps, the large one more of the interactions between joints;
# so 500x(2x250) should come out best in both. Training matters more: a large untrained network knows nothing.
#
# **Rubric.** 1 point: an order for both with a reason. 1 point: says where the loss begins (about 1), or
# argues about size against training. Whether the prediction comes true does not matter.

# %%
models, losses, holdout = {}, {}, {}
for name in config.models:
    generator = torch.Generator().manual_seed(0)
    models[name], result = fit_model(name, task, data, config, generator, progress=True)
    losses[name], holdout[name] = result.train_losses, result.holdout_losses[-1]
ax = plot_losses(losses, holdout=holdout, title="Three fits to the same data")
ax.axhline(1.0, color=GREY, linestyle="--", linewidth=1.5, zorder=0)
ax.set_ylim(top=5)  # room for the legend
plt.show()

# %% [markdown]
# What a loss of 0.8 or 0.03 means is easier to see in a trajectory. Twenty steps that no model has seen, and
# what each of them makes of the same actions from the same start, without ever looking:

# %%
K = config.max_k
obs, actions = trajectories(test, K, config.num_sequences, data_generator)
dreams = {name: open_loop(mean_prediction(model), obs[:, 0], actions) for name, model in models.items()}
plot_trajectories(
    obs[0],
    {name: states[0] for name, states in dreams.items()},
    names=NAMES,
    dims=[1, 2, 6, 9, 11, 17],
    title=f"{K} steps of the cheetah, real and imagined",
)
plt.show()

# %% [markdown]
# One trajectory is an anecdote, and one seed as well. So all of it again with several seeds: new data, new
# networks, and $500$ test trajectories for each. The number to look at is the **mean prediction error**, the
# mean of $E_1 \dots E_{20}$.

# %%
fits = run("q1", range(NUM_SEEDS), SCALE, fresh=not RESUME)
mpe = fits[fits["metric"] == "mpe"]
table = summary(mpe, "model", "value").set_index("model")
table["hold-out loss"] = fits[fits["metric"] == "holdout_loss"].groupby("model")["value"].mean()
table["weights"] = [sum(p.numel() for p in models[name].network.parameters()) for name in table.index]
table[["seeds", "median", "low", "high", "hold-out loss", "weights"]].round(3)

# %%
ax = new_axes(width=6.6, height=2.6)[0]
shipped = load_results("q1", "full")
for place, name in enumerate(config.models[::-1]):
    color = COLORS[len(config.models) - 1 - place]
    values = mpe.loc[mpe["model"] == name, "value"]
    ax.plot(values, np.full(len(values), place), "o", color=color, markersize=8, alpha=0.7)
    if shipped is not None:
        reference = shipped[(shipped["metric"] == "mpe") & (shipped["model"] == name)]["value"]
        ax.plot([reference.min(), reference.max()], [place - 0.25] * 2, color=GREY, linewidth=4, alpha=0.6)
ax.set_xscale("log")
ax.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
ax.minorticks_off()
ax.set(
    yticks=range(len(config.models)), yticklabels=config.models[::-1], ylim=(-0.6, len(config.models) - 0.5)
)
ax.set_xlabel("mean prediction error over 20 steps (grey: the course's own runs at full scale)")
ax.set_title("Each dot one seed")
plt.show()

# %% [markdown]
# **Explain what you see.**
#
# (a) Why is the third model best? Say what the second lacks, and what the first lacks, and how the figures
# show it.
#
# (b) The first model's hold-out loss is about as good as its training loss. What does that tell about its
# weakness, and would more data or more steps cure it?
#
# (c) The orders by loss and by mean prediction error agree here. Do they have to?

# %% [markdown] kind="written" id="explain-fits" points=4
# **Model answer.** (a) It has both capacity and training. The second has the same network but after 5 steps
# its loss is still about 0.8: it predicts little more than the mean change, so its trajectories lack all that
# the actions do, and its error is far above the others'. The first has been trained as long, but its curve
# flattens at two to three times the third's loss: 32 units can't represent how the effect of each torque
# depends on the posture.
#
# (b) Hold-out equal to training loss means no overfitting; the error is bias, not variance. More data would
# not help, more steps a little (the curve is still falling slowly), a larger network most.
#
# (c) No. The loss weighs every normalised dimension alike and asks for one step on real states. The
# prediction error is in the state's own units, in which the velocities dominate, and accumulates over states
# that the model made up itself. A model that is better in the mean but has a systematic error in a fast
# dimension can lose.
#
# **Rubric.** 2 points for (a): one for the second model (hardly trained, with the loss near 1), one for the
# first (capacity, curve flattens). 1 point for (b): underfitting, not overfitting. 1 point for (c): no, with
# one of the reasons (units, one step against many, own predictions as inputs).

# %% [markdown]
# ## 2. How far ahead?
#
# Now the error step by step. Two lines for comparison, which need no model: *no change* (the state stays what
# it is), and *the mean state* of the data, which knows nothing about the present at all.

# %%
curves = curves_of(fits, "E_k")
ax = plot_k_step_errors(curves, title="Half-cheetah: k-step errors")
steps = np.arange(1, K + 1)
no_change = k_step_errors(lambda obs, action: obs, obs, actions)
mean_state = k_step_errors(lambda obs, action: data.obs.mean(dim=0).expand_as(obs), obs, actions)
ax.plot(steps, no_change, color=GREY, linestyle="--", label="no change")
ax.plot(steps, mean_state, color=GREY, linestyle=":", label="the mean state")
if shipped is not None:
    for name, curve in curves_of(shipped, "E_k").items():
        label = "reference, full scale" if name == config.models[0] else None
        ax.plot(curve.columns, curve.mean(), color="black", linewidth=0.8, label=label)
ax.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
plt.show()

# %% [markdown]
# $E_k$ mixes metres, radians and their velocities. Where does the error of the best model sit? Left, the
# error of each dimension in its own squared units; right, relative to the variance of that dimension: 1 means
# that the model knows no more than the mean.

# %%
best = dreams[config.models[-1]]
dimension_errors = (best - obs).square().mean(dim=0)  # [K + 1, D]
variance = data.obs.var(dim=0).clamp(min=1e-8)
axes = new_axes(columns=2, width=6.2, height=3.8)
groups = {"positions": slice(0, 9), "velocities": slice(9, 18)}
for (name, part), color in zip(groups.items(), COLORS, strict=False):
    for dim in range(part.start, part.stop):
        label = name if dim == part.start else None
        axes[0].plot(steps, dimension_errors[1:, dim], color=color, alpha=0.7, linewidth=1.5, label=label)
        relative = dimension_errors[1:, dim] / variance[dim]
        axes[1].plot(steps, relative, color=color, alpha=0.7, linewidth=1.5, label=label)
axes[1].axhline(1.0, color=GREY, linestyle=":")
for ax in axes:
    ax.set_yscale("log")
    ax.set_xlabel("k, steps predicted")
    ax.legend()
axes[0].set_title("squared error of each dimension")
axes[1].set_title("relative to its variance")
plt.show()

# %%
worst = dimension_errors[-1].argsort(descending=True)[:5]
total = dimension_errors[-1].sum()
for dim in worst.tolist():
    print(f"{NAMES[dim]:24} {dimension_errors[-1, dim] / total:5.0%} of E_{K}")

# %% [markdown]
# **Explain what you see.**
#
# (a) Describe how $E_k$ of the best model grows: in proportion to k, faster, slower? Why does the curve of
# the barely trained model flatten, or even turn down? (Hint: where do the motions of a model lead that
# predicts always the same change, and what is it compared with?)
#
# (b) Which dimensions dominate $E_k$, and is that the same as being predicted worst?
#
# (c) A planner picks the action sequence with the best predicted return over H steps. What speaks for a small
# H, what for a large one? Which H would you choose for this model and task, and which figure supports your
# choice? How does planning again at every step change the matter?

# %% [markdown] kind="written" id="explain-horizon" points=4
# **Model answer.** (a) $E_k$ rises quickly over the first steps and then more slowly: from k = 1 to 20 it
# grows to three to seven times, less than in proportion to k, far from the k² of a constant drift. The cheetah
# is heavily damped, so that deviations of velocities fade instead of doubling, and errors are random rather
# than one-sided. The barely trained model predicts nearly the same small change always, so it stays about
# where it started. It is then compared with a real state that soon has nothing to do with the start: the
# difference of two unrelated states has twice the variance of one, and indeed "no change" ends at about twice
# the line of the mean state. It can't get much worse than that, and swings back a little where the real
# motion does.
#
# (b) Velocities of the joints, those of the feet and shins above all: they vary by several rad/s, positions
# by tenths of a radian. Relative to the variance the order is another one: at k = 1 positions are predicted
# ten to a hundred times better than velocities (they are nearly copied), and at k = 20 about as well, since
# errors of velocities add up in the positions. So dominating the sum is a matter of units.
#
# (c) Small H: predictions are still right, there is less for the planner to exploit in the model's errors,
# and plans are cheaper. Large H: consequences that come late (falling over, a swing that has to be prepared)
# are seen at all. Here the best model's E_k stays far below "no change" for all 20 steps, so that 10 to 20
# steps (0.1 to 0.2 s) can be defended; CS285 uses 10 to 15. Planning again at every step means that only the
# first action is executed: the later predictions have only to rank plans rightly, not to be exact, so H may
# be longer than the model is accurate.
#
# **Rubric.** 1 point for (a): growth described from the figure, and saturation explained (bounded by the
# spread of real states). 1 point for (b): velocities dominate, units named as the reason. 2 points for (c):
# the trade-off in both directions (1), a choice backed by a figure, or the role of replanning (1).

# %% [markdown]
# ## 3. Elsewhere
#
# The data come from random actions, new ones at each hundredth of a second. They nearly cancel: the cheetah
# trembles on the spot. A planner will want it to run, with actions that push in one direction for a while. Is
# the model any good there?
#
# So here are three more kinds of data, **held 1, 2 and 5**: each motor at full power, forwards or backwards,
# and kept so for 1, 2 or 5 steps before the next draw. Where do they lead?

# %%
shift_config = get_config("model-shift", SCALE)
sources = {"random": test}
for hold in shift_config.holds:
    generator = torch.Generator().manual_seed(0)
    policy = holding_policy(task, hold, generator)
    sources[f"held {hold}"] = collect(task, policy, min(2000, shift_config.num_test_steps), generator).data
axes = new_axes(columns=2, width=5.4, height=3.8)
for ax, (first, second) in zip(axes, ((2, 1), (6, 15)), strict=True):
    for (name, source), color in reversed(list(zip(sources.items(), COLORS, strict=False))):
        points = source.obs[:2000, [first, second]].T
        ax.plot(*points, ".", markersize=2.5, alpha=0.4, color=color, label=name)
    ax.set(xlabel=NAMES[first], ylabel=NAMES[second])
axes[1].legend(markerscale=5)
axes[0].set_title("Where the actions lead")
plt.show()

# %%
episode_film(
    task, sources["held 5"].obs[:100], every=2, fps=20, title="Actions held for 5 steps", progress=False
)

# %% [markdown]
# Two models of the same size and training: one fitted to random data alone, one to all four kinds together.
# Both are tested on *new* data of each kind.
#
# **Write down your prediction.** The measure is the one-step error relative to that of *no change*, so 0 is
# perfect, and 1 is no better than saying that nothing moves. How large will it be for the model of random
# data on "held 1" and on "held 5"? Can it exceed 1? And does the model of all data have to pay for it on
# random data?

# %% [markdown] kind="written" id="predict-shift" points=2
# **Model answer.** On "held 1" the states are still similar and only the actions are larger, so I expect a
# few times the error on random data. On "held 5" speeds and postures are reached that the data do not hold;
# the network extrapolates, and an extrapolation may be confidently wrong, so yes, it can exceed 1, perhaps by
# far. The model of all data should do well everywhere. It has the same capacity and the same number of steps
# for more variety, so it should be somewhat worse on random data.
#
# **Rubric.** 1 point: more error with more distance, with a reason (extrapolation), and a statement about 1.
# 1 point: an argument about the price on random data (capacity, normalisation, share of the data). Whether
# the prediction comes true does not matter.

# %%
shift = run("model-shift", range(NUM_SEEDS), SCALE, fresh=not RESUME)
one_step = shift[shift["metric"] == "one_step"]
one_step.pivot_table(
    index="trained_on", columns="tested_on", values="value", aggfunc=["mean", "min", "max"], sort=False
).round(3)

# %% [markdown]
# How far is far? The distance of the test data from the training data: the size of the normalised inputs,
# which is 1 for the training data themselves. Each dot is a seed.

# %%
ax = new_axes(width=6.2, height=4.0)[0]
wide = shift[shift["metric"].isin(["one_step", "distance"])].pivot_table(
    index=["trained_on", "tested_on", "seed"], columns="metric", values="value", sort=False
)
for (trained_on, rows), color in zip(wide.groupby("trained_on", sort=False), COLORS, strict=False):
    ax.plot(rows["distance"], rows["one_step"], "o", color=color, alpha=0.7, label=f"fitted to {trained_on}")
    for tested_on, dots in rows.groupby("tested_on", sort=False) if trained_on == "random" else ():
        place = (dots["distance"].mean(), dots["one_step"].max())
        ax.annotate(tested_on, place, xytext=(0, 7), textcoords="offset points", ha="center", fontsize=9)
ax.axhline(1.0, color=GREY, linestyle="--", linewidth=1.5, zorder=0)
ax.text(ax.get_xlim()[1], 1.1, "no change", color=GREY, ha="right")
ax.set_yscale("log")
ax.set_ylim(top=4 * ax.get_ylim()[1])
ax.set(xlabel="distance from the training data", ylabel="one-step error / that of no change")
ax.legend(loc="lower right")
ax.set_title("A model knows what it has seen")
plt.show()

# %% [markdown]
# And the k-step errors, as a planner would meet them. Black: the course's own runs, where there are any.

# %%
tests = list(shift["tested_on"].unique())
shipped_shift = load_results("model-shift", "laptop")
axes = new_axes(columns=len(tests), width=3.5, height=3.6)
for ax, tested_on in zip(axes, tests, strict=True):
    curves = curves_of(shift[shift["tested_on"] == tested_on], "E_k", by="trained_on")
    plot_k_step_errors(
        {f"fitted to {name}": curve for name, curve in curves.items()}, title=f"on {tested_on}", ax=ax
    )
    if shipped_shift is not None:
        rows = shipped_shift[shipped_shift["tested_on"] == tested_on]
        for curve in curves_of(rows, "E_k", by="trained_on").values():
            ax.plot(curve.columns, curve.median(), color="black", linewidth=0.8, zorder=5)
    ax.set_xlabel("k")
    if ax is not axes[0]:
        ax.set_ylabel("")
        ax.get_legend().remove()
low, high = min(ax.get_ylim()[0] for ax in axes), max(ax.get_ylim()[1] for ax in axes)
for ax in axes:
    ax.set_ylim(low, high)
plt.show()

# %% [markdown]
# **Explain what you see.**
#
# (a) What does a low error on held-out data promise, and what does it not? (`fit` holds out a tenth of its
# data.)
#
# (b) A planner searches for the plan with the best *predicted* return. Why is it likely to find just those
# states where the model is wrong?
#
# (c) Name two ways out of this: one that changes the data, one that changes what the planner believes.

# %% [markdown] kind="written" id="explain-shift" points=4
# **Model answer.** (a) It promises that the model predicts well where the *same* policy leads, since held-out
# transitions are drawn from the same distribution. It says nothing about other states: the model of random
# data has an error of a few per cent on random data, and on "held 5" one that is tens of times that of "no
# change", though its hold-out loss was low. The model of all data is good everywhere, at the price of about
# twice the error on random data.
#
# (b) The planner maximises over thousands of plans. A plan scores high because it is good, or because the
# model is wrong about it in its favour; the more plans are compared, the more the second kind wins. And good
# behaviour (running) lies far from random data anyway, so the plans of interest are those where the model
# extrapolates.
#
# (c) Data: collect with the planner itself, add what came of it, fit again, and so on (next week's on-policy
# loop): wrong promises are corrected where they were made. Beliefs: let the planner know where the model is
# unsure, by an ensemble whose members disagree on unknown states (weeks 4 and 5), keep plans short, or keep
# them near the data.
#
# **Rubric.** 1 point for (a): same distribution, with a number from the figures. 1 point for (b):
# maximisation picks the errors in its favour (model exploitation). 2 points for (c): one for each way, with a
# word on how it works.

# %% [markdown]
# ## What to take along
#
# - Five steps of a large network are no model, 500 of a small one are half of one. Look at loss curves before
#   you blame the data.
# - The error of a model has units. Say which, and compare with *no change* and with the mean.
# - Errors of a damped robot grow slowly, those of a pendulum upside down explode. The horizon of a planner is
#   chosen by looking at $E_k$, not by taste.
# - A hold-out set speaks for its own distribution alone. A planner will leave it, on purpose.
#
# Next week a planner does just that, and the data follow it.
