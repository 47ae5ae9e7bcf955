# %% [markdown]
# # Week 8 · Experiments: the ward round
#
# An engineer's report promises ten quick wins for PETS and MBPO. In `build.ipynb` you made the instruments;
# here every claim is put to the test.
#
# 1. **One claim, live**: 50 policy updates instead of 20, with a few seeds, against real steps and against time.
# 2. **All ten claims**: controlled comparisons on the cart-pole and on the pendulum. The verdict table: real, not
#    shown, or harmful, and what each change costs in time.
# 3. **A tuned agent**: Optuna with a fixed budget, and what the same budget would have bought otherwise.
# 4. **The final comparison**: every agent of the course on one task, against env steps, minutes and model
# calls.
#
# Everything runs on *your* functions from `build.ipynb`, which has to lie beside this notebook. There are
# predictions to write down, and questions about what you saw. Both are read by a person. A wrong prediction
# with a reason earns full marks.
#
# **To read** before: Agarwal et al. (2021), Section 4, and, for the pleasure of it, Henderson et al. (2018).
#
# **Time** with `SCALE = "laptop"`: about five minutes of one core in all (AMD EPYC), three of them for part 1
# and two for part 3. With `"smoke"` all of it takes 16 seconds of one core. What would take an evening, ten
# seeds of every variant, was measured by the course and is shown from its files.

# %% kind="parameters"
SCALE = "laptop"  # "smoke": seconds, to see that all runs; "laptop": minutes; "full": the same settings
USE_REFERENCE = False  # True takes the course's own solutions, where they are installed
USE_MINE = False  # True takes the earlier weeks from your own notebooks, too, where they pass their checks
NUM_SEEDS = 3  # of the claim that is tried live
NUM_TRIALS = 8  # of the tuning
RESUME = False  # True keeps the finished part of an interrupted run; not after a change of your code

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week08", "build.ipynb", reference=USE_REFERENCE, use_mine=USE_MINE)

# %% kind="setup"
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from mbrl_course.clinic import (
    common_budget,
    interquartile_mean,
    iqm_improvement,
    performance_profile,
    probability_of_improvement,
    score_at_budget,
    verdict,
)
from mbrl_course.experiments import get_config, get_experiment, load_results, run
from mbrl_course.experiments.figures import ledger_table, plot_results, shipped_note
from mbrl_course.experiments.time_to_solve import time_to_solve
from mbrl_course.experiments.tuning import tune
from mbrl_course.experiments.verdicts import CLAIMS, RETURNS, run_scores, verdict_table
from mbrl_course.plotting import COLORS, GREY, new_axes, use_style

use_style()
torch.set_num_threads(1)  # the tensors are small: more threads would wait for each other
if SCALE == "smoke":
    NUM_SEEDS, NUM_TRIALS = 2, 2

# %% [markdown]
# ## 1. One claim, live
#
# Claim 9 says: 50 policy updates instead of 20 are worth +30 to 50 %. The patient is a small MBPO on the
# pendulum: 1200 real steps, rollouts of one step in an ensemble of three, and SAC. It makes 4 updates per
# real step, which is 20 for every five. With the change it makes 10, which is 50 for every five. **Nothing
# else differs**: one change, the same seeds, the same evaluation.

# %%
config = get_config("clinic-mbpo", SCALE)
for field in ("total_steps", "eval_every", "updates_per_step", "batch_size", "learning_rate", "num_rollouts"):
    print(f"{field:18} {getattr(config, field)}")
VARIANTS = ("MBPO:", "50 updates: updates_per_step=10")

# %% [markdown]
# **Write down your prediction.** (a) Does it help, at equal real steps? (b) Does it help at equal time? (c)
# With three seeds, what will the interval of the improvement look like?

# %% [markdown] kind="written" id="predict-updates" points=2
# **Model answer.** (a) Probably: after a few hundred steps SAC is limited by the number of its updates, and
# MBPO was made to allow many of them, since imagined transitions keep them from overfitting to few real ones.
# Too many updates on a poor model could also harm. (b) Hardly: each real step costs about two and a half
# times the updates, and in the same time the agent without the change sees more real steps. (c) Very wide, or
# deceptively narrow: three runs know nothing of the fourth (8.2).
#
# **Rubric.** 1 point: (a) and (b) each with a reason. 1 point: says something sound about three seeds.

# %%
updates = run("clinic-mbpo", range(NUM_SEEDS), SCALE, {"variants": VARIANTS}, fresh=not RESUME)

# %% [markdown]
# The same runs, once over real steps and once over the minutes of the processor. Dashed: the ten seeds of the
# course.

# %%
axes = new_axes(columns=2, width=6.0, height=4.2)
ours = "variant in ['MBPO', '50 updates']"
for ax, x in zip(axes, ("env_steps", "minutes"), strict=True):
    plot_results(
        "clinic-mbpo", updates, SCALE, x=x, where=ours, title=f"Pendulum, by {x.replace('_', ' ')}", ax=ax
    )
axes[0].get_legend().remove()
axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
plt.show()
ledger_table("clinic-mbpo", updates, SCALE).query("variant in ['MBPO', '50 updates']")

# %% [markdown]
# Now as numbers, at two budgets: as many real steps as all runs made, and as much time as all runs had. The
# functions are yours.


# %%
def curves_of(rows, column):
    """Costs and returns of each seed, [seeds, P] each, from the rows of one variant."""
    runs = [group.sort_values("env_steps") for _, group in rows.groupby("seed")]
    return tuple(
        torch.tensor(np.stack([r[name].to_numpy(float) for r in runs])) for name in (column, "eval_return")
    )


def at_equal_cost(rows, new, old):
    """What `new` has over `old` at the largest budgets that all runs of both have spent."""
    found = []
    for column, unit in (("env_steps", "real steps"), ("cpu_seconds", "CPU seconds")):
        curves = {name: curves_of(rows[rows["variant"] == name], column) for name in (new, old)}
        budget = common_budget(*(costs for costs, _ in curves.values()))
        x, y = (score_at_budget(*curves[name], budget)[:, None] for name in (new, old))  # [seeds, 1]
        row = {"at equal": f"{budget:,.0f} {unit}", "seeds": len(x)}
        if x.isnan().any() or y.isnan().any():
            found.append(row | {"verdict": "a run has nothing to show yet"})
            continue
        gain = iqm_improvement(x, y, generator=torch.Generator().manual_seed(0))
        row |= {new: float(interquartile_mean(x)), old: float(interquartile_mean(y))}
        row |= {"gain": float(gain.point), "low": float(gain.low), "high": float(gain.high)}
        found.append(row | {"P(better)": float(probability_of_improvement(x, y)), "verdict": verdict(gain)})
    return pd.DataFrame(found).set_index("at equal").round(2).fillna("")


at_equal_cost(updates, "50 updates", "MBPO")

# %% [markdown]
# And the same table from the seeds that ship with the course:

# %%
print(shipped_note("clinic-mbpo"))
at_equal_cost(load_results("clinic-mbpo", "laptop"), "50 updates", "MBPO")

# %% [markdown]
# **Explain what you see.** (a) What do your seeds allow you to say at equal real steps, what at equal time?
# (b) Do the course's ten seeds say the same as yours? If not, which do you believe, and why?

# %% [markdown] kind="written" id="explain-updates" points=4
# **Model answer.** (a) At equal real steps the verdict is "real": after 1,200 steps our three seeds have -171 with
# 50 updates and -622 without, a gain of 451, and its interval, 20 to 824, is just above 0. At 17 CPU seconds it is
# "harmful": -1335 against -675, a gain of -660, with -1059 to -282. So the budget turns the verdict round: a run with
# 50 updates takes 42 CPU seconds, one without 20, and in the same time the unchanged agent has had about twice as many
# real steps. And both verdicts need a grain of salt: a 95 % interval of three seeds holds the truth in only about 70 %
# of the experiments (8.2). (The harm hangs on the moment, too: the next evaluations with 50 updates, about -830 on
# average, come a second later.)
#
# (b) No, though our three are the first of the ten. At equal steps the sign is the same, but the effect is about a
# ninth of ours and not shown: +52 (-19 to 331). At 15 CPU seconds the sign is the same as well, and the harm not shown:
# -323 (-654 to 121). A run with 50 updates beats one without with probability 0.72 and 0.33 (ours: 0.89 and 0.00). I
# believe the ten. Two of our three unchanged runs were slow, and ended at -708 and -995; of the other seven none ended
# below -330. Three seeds can have such luck, and their interval knows of no other.
#
# **Rubric.** 2 points for (a): reads both intervals correctly (1), and tells the two budgets apart (1). 2
# points for (b): compares with the shipped seeds (1), and gives a reason that has to do with the number of
# seeds (1).

# %% [markdown]
# ## 2. All ten claims
#
# What a controlled comparison needs, before the first run:
#
# - **One change at a time**, against the same agent without it. Where a claim recommends what the agent does
#   anyway (the warm start that repeats, true rewards), the agent is compared with a variant that lacks it.
# - **A score that was chosen beforehand**: the mean over all evaluations of a run (PETS: without the random
#   trial), much like the area under its learning curve. The report promises quicker learning, and the last
#   evaluation alone is noisier. Each evaluation is on a scale on which the random policy has 0 and a good one 1,
#   so that percent means something; what is worse than random counts as 0.
# - **Ten seeds** for each side, and all of them count.
# - **All that was tried is shown**, in the order of the report.
#
# The patients are small PETS on the cart-pole swing-up, six trials, and small MBPO on the pendulum, 1200
# steps. Some claims have one patient by their nature: noise where critics disagree (2) needs critics, policy
# updates (9) a policy, and a warm start (4) a plan. The others are tried on both, with two exceptions. A
# learning-rate schedule (7) and prioritized replay (8) would fit the model of PETS, too. Here they change MBPO's
# critics and policy alone: what a schedule does for a model was not measured, and priorities for a model are in
# week 4, without a planner around it. Nor can priorities do much here: they choose among real transitions, and of
# the 256 rows of an update 13 are real (a real ratio of 0.05).

# %%
for name, scale in RETURNS.items():
    print(f"{name:12} 0 = random policy, {scale.random:.0f};  1 = a good one, {scale.good:.0f}")
pd.DataFrame(CLAIMS).drop_duplicates(["experiment", "variant", "against"])[
    ["number", "what", "promised", "experiment", "variant", "against"]
].set_index("number")

# %% [markdown]
# **Write down your prediction** before you run the next cell: for each of the ten claims real, not shown or
# harmful, with half a sentence why. How many verdicts of the report will stand?

# %% [markdown] kind="written" id="predict-claims" points=5
# **Model answer.** Reasons count here, and there is more than one sound guess. For instance: (1) A small gain
# keeps first outputs near 0, which the normalised targets make harmless anyway: small effect. (2) More
# exploration helps where the agent explores too little, and the pendulum does not need it. (3) The mean of
# the members is a steadier guess than one of them, but it hides disagreement. (4) Repeat or zero: week 3 saw
# no difference. (5) Naive shaping can lead astray; a potential should help a short-sighted planner, and SAC
# somewhat. (6) A larger batch gives less noisy steps for more time; with a given learning rate the effect is
# small, and fewer steps for each pass through the data may even harm the model. (7) A schedule pays at the
# end of long training, not in 1200 steps. (8) Week 4: rare transitions; the pendulum has none. (9) More
# updates per step are what a model is for. (10) True rewards save the learning of a function that is smooth
# and easy: small effect, larger at the beginning.
#
# **Rubric.** Half a point for each claim with a verdict and a reason that refers to the method or to an
# earlier week.

# %%
EXPERIMENTS = {"clinic-pets": "PETS, cart-pole", "clinic-mbpo": "MBPO, pendulum"}
STRICT = 1 - 0.05 / len(CLAIMS)  # Bonferroni, for all comparisons together
tables = {}
for name in EXPERIMENTS:
    print(shipped_note(name))
    rows = load_results(name, "laptop")
    if rows is None:
        continue
    table = verdict_table(name, rows)
    table["strict"] = verdict_table(name, rows, confidence=STRICT)["verdict"]
    table["by last return"] = verdict_table(name, rows, "final")["verdict"]
    tables[name] = table
columns = ["number", "claim", "promised", "seeds", "gain", "low", "high", "better"]
columns += ["verdict", "strict", "by last return", "cpu_seconds", "cost"]
verdicts = pd.concat(tables, names=["experiment"]).droplevel(1).reset_index() if tables else None
if verdicts is not None:
    display(verdicts.sort_values("number", kind="stable").set_index("experiment")[columns])

# %% [markdown]
# `gain`, `low` and `high` are in percent of the score without the change (of its estimate: the interval is
# that of the difference); `better` is the probability of improvement; `strict` is the verdict with
# Bonferroni's confidence, and `by last return` the one for the last evaluation instead of the whole curve.
# `cost` says how many times the processor's time a run takes with the change.
#
# As a picture: the promise (grey), and what was found. An empty row: not tried on this agent.

# %%
if verdicts is not None:
    colors = {"real": COLORS[2], "not shown": GREY, "harmful": COLORS[3], "too few seeds": COLORS[9]}
    numbers = verdicts.sort_values("number", kind="stable").set_index("claim")["number"].to_dict()
    places = {claim: -place for place, claim in enumerate(numbers)}  # the same rows for both agents
    axes = new_axes(columns=len(tables), width=5.2, height=4.6)
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        for _, row in table.iterrows():
            place, color = places[row["claim"]], colors[row["verdict"]]
            low, high = (float(end) for end in row["promised"].replace("+", "").split(" to "))
            ax.barh(place, high - low, left=low, height=0.75, color=GREY, alpha=0.45, linewidth=0)
            ends = [row["low"], row["high"]]
            ax.plot(ends, [place, place], color=color, linewidth=3, solid_capstyle="butt")
            ax.plot(row["gain"], place, "o", color=color, markersize=7)
        ax.axvline(0, color="black", linewidth=1)
        texts = [f"{number}  {claim}" if ax is axes[0] else number for claim, number in numbers.items()]
        ax.set_yticks(list(places.values()), texts)
        ax.set(xlabel="gain, % of the score without the change", xlim=(-145, 165))
        ax.set_title(f"{EXPERIMENTS[name]}, {table['seeds'].min()} seeds")
    for name in [name for name in colors if name in set(verdicts["verdict"])]:
        axes[0].plot([], [], "o-", color=colors[name], label=name)
    axes[0].barh(0, 0, color=GREY, alpha=0.45, label="promised")
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    plt.show()
else:
    print("There is no table of the claims; the commands above make the results.")

# %% [markdown]
# And in words, made from the table, so that they say what was measured and nothing else:

# %%
if verdicts is not None:
    for number, rows in verdicts.groupby("number"):
        print(f"{number:2}  {rows['claim'].iloc[0].split(',')[0]}, promised {rows['promised'].iloc[0]} %")
        for _, row in rows.iterrows():
            low, high = (float(end) for end in row["promised"].replace("+", "").split(" to "))
            fate = row["verdict"]
            if fate == "not shown":
                fate += ", the promise is " + ("ruled out" if row["high"] < low else "not ruled out")
            elif fate == "real":
                fate += ", if less than promised" if row["high"] < low else ""
            interval = f"{row['gain']:+.0f} % ({row['low']:+.0f} to {row['high']:+.0f})"
            print(f"      {EXPERIMENTS[row['experiment']]:16} {row['claim'][:38]:39} {interval:24} {fate}")
    print("\nof", len(verdicts), "comparisons:", verdicts["verdict"].value_counts().to_dict())
    print("with the strict confidence:", verdicts["strict"].value_counts().to_dict())

# %% [markdown]
# **How the claims fared with PETS** (cart-pole swing-up, six trials, ten seeds). Of seven comparisons two are
# real at 95 %: the *naive* shaping, +60 % (32 to 79), which also holds at the strict confidence and by the
# last return, and the true rewards instead of learned ones, +89 % (22 to 158), which does not. The small gain
# is harmful at 95 %, -32 % (-67 to -2), and not shown at the strict confidence. Not shown are the ensemble's
# mean, +33 % (-4 to 68), the warm start that repeats, +8 % (-8 to 37), potential-based shaping, +18 % (-17 to
# 36), and the batch of 512, -29 % (-61 to 4). For the small gain and the batch of 512 the promise is ruled
# out; for the other three of these it is not. No change costs more than 17 % more time.
#
# Safe is not the same as useful: the shaping that the theory warns of is the clearest win. It may change what
# is best, and here what it prefers, the energy of standing upright, was what the planner lacked, or so one
# may suspect.
#
# **And with MBPO** (pendulum, 1,200 steps, ten seeds). Of eleven comparisons one is decided, and it is harm:
# the small gain, -98 % (-134 to -54), at the strict confidence and by the last return, too. Its agent had not
# begun to learn when the run ended. Nothing is real. The best of the rest are the 50 updates, +39 % (-3 to
# 86), at nearly twice the time. Not shown either are prioritized replay, +10 % (-44 to 65), for a third more
# time; the batch of 512, +8 % (-43 to 63), for nearly a quarter more; the ensemble's mean, +3 %; naive shaping,
# 0 % (-60 to 61); true rewards, -1 % (-59 to 58); potential-based shaping, -7 %; the cosine schedule, -20 %; and
# the linear schedule and the noise where critics disagree, -21 % each.
#
# Look at the widths. The runs end while the agents learn, so a lucky start is worth a lot, and ten seeds leave
# intervals of some 55 % to either side. A promise of +15 % can neither be confirmed nor denied with that:
# whoever reported it had more seeds than ten, or luck. What ten seeds do show is that no claim survived in
# both agents: naive shaping, the clearest win in one, is not shown in the other.
#
# Averages hide things. Here are the profiles of all variants: for each score, the share of the runs above it.
# Black is the agent itself; coloured is what differs from it by a verdict, and grey are the others.

# %%
thresholds = torch.linspace(0, 1.05, 106)
shown = {name: load_results(name, "laptop") for name in EXPERIMENTS}
shown = {name: rows for name, rows in shown.items() if rows is not None}
if shown:
    axes = new_axes(columns=len(shown), width=5.2, height=4.2)
    for ax, (name, rows) in zip(axes, shown.items(), strict=True):
        judged = tables[name][tables[name]["verdict"].isin(["real", "harmful"])]
        named = list(dict.fromkeys([*judged["variant"], *judged["against"]]))
        for number, (variant, part) in enumerate(rows.groupby("variant", sort=False)):
            profile = performance_profile(run_scores(name, part), thresholds)
            style = {"color": GREY, "alpha": 0.4, "linewidth": 1, "zorder": 1}
            if variant in named:
                label = variant + " (claim 10 turned round)" * (variant == "learned rewards")
                style = {"color": COLORS[named.index(variant) % 10], "label": label}
            if number == 0:
                style = {"color": "black", "linewidth": 3, "label": variant}
            ax.plot(thresholds, profile, **style)
        ax.set(xlabel="score (0: random policy, 1: a good one)", ylabel="share of runs above")
        ax.set_title(EXPERIMENTS[name])
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    plt.show()
else:
    print("There are no results of the claims.")

# %% [markdown]
# **Explain what you see.** Take the table of the course. (For a claim of your choice you can make one of your
# own: `run("clinic-mbpo", range(10), SCALE, {"variants": ...})`, some minutes.)
#
# (a) If none of the eighteen changes did anything, how many would be decided by chance at 95 %, and how many at the
# strict confidence? Which of the four verdicts that are decided do you believe, then? One claim has another verdict
# by the last return: which, and why must it not count as real?
#
# (b) Choose a claim that is "not shown" and whose promise is not ruled out. What does its interval rule out, and what
# not? What would it be wrong to conclude?
#
# (c) Choose one claim and one of your predictions that it contradicts (or confirms). What is the likely
# mechanism, and what would you measure to find out?

# %% [markdown] kind="written" id="explain-claims" points=6
# **Model answer.** (a) If none of the eighteen changes did anything, 18 x 0.05 = 0.9 of them would be decided by chance
# at 95 %, half of these "real" and half "harmful" (somewhat more, as ten seeds' intervals are too narrow). The strict
# confidence is made for the whole table: that any of the eighteen is decided by chance has a probability of 5 % at most,
# so 0.05 of them are to be expected. Two verdicts hold in every column: naive shaping is real with
# PETS (+60 %, 32 to 79), and the small gain is harmful with MBPO (-98 %, -134 to -54). These I believe. Two hold at 95 %
# alone, neither at the strict confidence nor by the last return: true rewards with PETS (+89 %, 22 to 158) and the harm
# of the small gain there (-32 %, -67 to -2). These are candidates: one such verdict is what chance gives. The ensemble's
# mean with PETS is "real" by the last return, and not shown by the whole curve. The whole curve was chosen beforehand;
# whoever may choose between two scores afterwards has two chances to find something. The other thirteen are
# not shown, whatever one takes. No claim is real in both agents.
#
# (b) Claim 2 promises +20 to 40 %, and its interval with MBPO is -64 to 39 %. Its upper end is above 20: a gain of
# 20 to 39 % is not ruled out, only more than that. It is just not seen, and "no effect" would be as unfounded as
# the promise. It is otherwise with the batch of 512 in PETS: +10 to 20 % were promised, the interval ends at 4 %.
# That promise is ruled out, though a gain of 3 % is not.
#
# (c) Claim 5. I expected naive shaping to lead astray, and with PETS it is the clearest win. A possible mechanism:
# a plan sees 25 steps, and a swing-up may take more. The naive bonus pays for the right energy in each of the
# 25 steps, the safe one only for that of the last. I would measure the gain at horizons of 10, 25 and 50 steps: if the
# mechanism is right it shrinks where the plan sees the swing-up by itself. (Others will do as well, with a
# measurement that could contradict them: for learned rewards, the error of the reward model over time; for the
# ensemble's mean, how far the chosen plan's promise exceeds its return.)
#
# **Rubric.** 2 points for (a): the number to be expected from chance, with what follows for the four (1), and the
# score that was chosen beforehand (1). 2 points for (b): tells "ruled out" from "not seen" (1), with the ends of an interval (1). 2
# points for (c): a mechanism (1), and a measurement (1).

# %% [markdown]
# ## 3. Tuning, within a budget
#
# "We tuned our method" is the quickest win of all, and the least often priced. Here Optuna tunes MBPO's
# learning rate, the first temperature of its entropy and the batch size. Its budget is fixed: 8 trials of
# half a run each, 600 steps, one seed. That is 4800 real steps, as many as four whole runs. Then the best
# setting gets whole runs with seeds that the tuning has *not* seen.
#
# **Write down your prediction.** The best of the eight trials has some score. Will new runs with this setting
# score higher, lower, or the same? Why?

# %% [markdown] kind="written" id="predict-tuning" points=2
# **Model answer.** Lower, on average: the best of eight noisy scores is the best partly by luck, and luck
# does not come twice (regression to the mean). The setting can still be better than the default one. (The
# scores here are not of equal length, so compare like with like: at the same number of steps.)
#
# **Rubric.** 1 point: a direction. 1 point: the reason, selection by a noisy score.

# %%
trial_steps, started = config.total_steps // 2, time.process_time()
space = ["learning_rate=log:3e-4..1e-2", "initial_temperature=log:0.02..0.5", "batch_size=64,128,256"]
trials = tune(
    "clinic-mbpo",
    space if SCALE != "smoke" else space[:2],
    NUM_TRIALS,
    seeds=(100,),
    scale=SCALE,
    settings={"total_steps": trial_steps},
    fresh=not RESUME,
)
tuning_steps, tuning_seconds = NUM_TRIALS * trial_steps, time.process_time() - started
tuning_updates = NUM_TRIALS * config.updates_per_step * (trial_steps - config.start_steps + 1)
print(f"the search: {tuning_steps:,} env steps, {tuning_updates:,} agent gradient steps,", end=" ")
print(f"{tuning_seconds:.0f} CPU seconds, evaluation included")
trials.round(4)

# %% [markdown]
# The best setting with new seeds, whole runs. The untuned ones are those of part 1: they have the same seeds. (A minute.)

# %%
found = {name: trials[name][0] for name in trials.columns[2:]}
best = " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in found.items())
print("tuned:", best)
tuned = run("clinic-mbpo", range(NUM_SEEDS), SCALE, {"variants": (f"tuned: {best}",)}, fresh=not RESUME)
both = pd.concat([updates[updates["variant"] == "MBPO"], tuned], ignore_index=True)
axes = new_axes(columns=2, width=6.0, height=4.2)
plot_results(
    "clinic-mbpo", both, SCALE, where="variant in ['MBPO', 'tuned']", title="Without the bill", ax=axes[0]
)
charged = both.assign(env_steps=both["env_steps"] + tuning_steps * (both["variant"] == "tuned"))
for number, (variant, rows) in enumerate(charged.groupby("variant", sort=False)):
    for _, one in rows.groupby("seed"):
        axes[1].plot(
            one["env_steps"], one["eval_return"], color=COLORS[number], label=variant if _ == 0 else None
        )
before = "tuning, before\nthe tuned runs begin"
axes[1].axvspan(0, tuning_steps, ymax=0.06, color=GREY, alpha=0.4, linewidth=0, label=before)
axes[1].set(xlabel="environment steps, tuning included", ylabel="return", title="The whole bill")
axes[1].legend(loc="center")
plt.show()


def last_quarter(rows, steps):
    """The trials' measure: the mean return of each run over the last quarter of its evaluations until `steps`."""
    runs = rows[rows["env_steps"] <= steps].groupby(["variant", "seed"])["eval_return"]
    return runs.apply(lambda returns: returns.tail(-(-len(returns) // 4)).mean())


print(f"best of {NUM_TRIALS} trials: {trials['score'][0]:.0f};  the same measure with new seeds:")
print(last_quarter(both, trial_steps).groupby("variant").agg(["mean", "min", "max"]).round(0))
ledger_table("clinic-mbpo", both, SCALE, compare=False)

# %% [markdown]
# What can a trial know at all? Here are the course's ten runs of MBPO *untuned*, one setting and ten seeds, judged as
# a trial judges: after 600 steps, and after the whole 1200. The random policy earns -1242 (part 2).

# %%
untuned = load_results("clinic-mbpo", "laptop").query("variant == 'MBPO'")
judged = {f"after {steps:,} steps": last_quarter(untuned, steps) for steps in (600, 1200)}
table = pd.DataFrame(judged).agg(["min", "median", "max"]).T.round(0)
table["runs above random"] = [int((runs > RETURNS["clinic-mbpo"].random).sum()) for runs in judged.values()]
table

# %% [markdown]
# **Explain what you see.** (a) Did the score of the best trial hold with new seeds? And what has the table of trials
# ranked: compare its scores with the random policy's, and with what one setting gets from ten seeds. (b) If you
# report "tuned MBPO learns in 1200 steps", what have you left out? How could an untuned rival have used the same
# budget?

# %% [markdown] kind="written" id="explain-tuning" points=3
# **Model answer.** (a) Not in our run: the best trial had -1024, and the same measure with three new seeds is -1405 on average
# (-1512 to -1261), no better than the untuned -1383 (-1490 to -1270). After the whole 1,200 steps the two are alike as
# well, -604 and -622. And there was little to hold. The eight trials lie between -1764 and -1024, and only two of them
# above the random policy (-1242): after 600 steps hardly anything had been learned. By the same measure ten runs of
# *one* setting lie between -1496 and -52, by their seeds alone, twice as far apart as the eight trials. So the order
# of the trials is mostly chance. (Only the last two are below all ten, and the last, with the lowest learning rate, far
# below.) A trial that is too short to learn in, with a single seed, ranks next to nothing; Optuna has tuned noise.
# (Eight trials are a random search anyway: TPE draws its first ten at random.) Better with the same steps: two
# settings, two whole runs each. After 1,200 steps all ten runs of the one setting are above the random policy, though
# with -986 to -48 even then two seeds say little.
#
# (b) The 4800 steps of the search and their time. The rival could have had a run that is five times as long, or four
# more seeds, or a search of its own. A fair report tunes all agents within the same budget, evaluates on other
# seeds, and puts the bill on the axis.
#
# **Rubric.** 1 point for (a), with figures: lower than the best trial, or that the trials rank no more than noise. 2
# points for (b): the cost of the search (1), an equal use of the budget (1).

# %% [markdown]
# ## 4. The final comparison
#
# The agents of the course on one task, the pendulum. There are three prices, and three orders. All runs are the
# course's own. The starts of the evaluations belong to the seed: the five seeds have different ones, and the agents
# have the same. Not among them are close kin of CEM and PETS: MPPI and iCEM, which week 3 compared with CEM, and
# planning by the ensemble's worst member, of week 6. Dashed in the picture: planners in a learned model; dotted: agents
# without a model, which make no model calls; solid: policies that learn in a model.

# %%
print(shipped_note("final-comparison"))
DASHED = {"random shooting": COLORS[9], "CEM": COLORS[0], "PETS": COLORS[2]}
DOTTED = {"PPO": COLORS[3], "SAC": COLORS[1]}
SOLID = {"Dyna-PPO": COLORS[4], "MBPO": "black"}
if load_results("final-comparison", "laptop") is not None:
    axes = new_axes(columns=3, width=3.8, height=4.2)
    for ax, x in zip(axes, ("env_steps", "minutes", "model_calls"), strict=True):
        plot_results(
            "final-comparison",
            x=x,
            title=f"against {x.replace('_', ' ')}",
            where="model_calls > 0" if x == "model_calls" else "env_steps > 0",
            colors=DASHED | DOTTED | SOLID,
            ax=ax,
        )
        for line in ax.lines:
            name = line.get_label()
            line.set(marker="", linestyle="--" if name in DASHED else ":" if name in DOTTED else "-")
        ax.set(xscale="log", ylim=(-1850, 0))
        ax.get_legend().remove()
        ax.label_outer()
    axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    plt.show()
    display(ledger_table("final-comparison"))

# %% [markdown]
# When did each agent first reach -200, and at what price? Medians over the seeds, and their range; a seed that never
# got there counts as `inf`.

# %%
final = load_results("final-comparison", "laptop")
solved = time_to_solve(final, get_experiment("final-comparison").solved_at).set_index("what")
prices = [f"{cost}{end}" for cost in ("env_steps", "cpu_seconds") for end in ("", " low", " high")]
solved[["seeds", "solved", *prices]].round(1)

# %% [markdown]
# The pendulum's return depends on the start as much as on the agent. So compare seed by seed: the last return of each
# run, and what it is above (+) or below (-) CEM's with the same starts.

# %%
last = final.sort_values("env_steps").groupby(["variant", "seed"]).tail(1)
last = last.pivot(index="variant", columns="seed", values="eval_return").loc[final["variant"].unique()]
beside = last - last.loc["CEM"]
summary = {"above CEM in": (beside > 0).sum(axis=1), "lowest": beside.min(axis=1)}
summary |= {"median": beside.median(axis=1), "highest": beside.max(axis=1)}
last.add_prefix("seed ").assign(**summary).round(1)

# %% [markdown]
# **Explain what you see.** (a) Which agent would you take for a robot that wears out? For a fast simulator? For a machine that has to
# decide within a millisecond? (b) Which comparison of the three would the author of a model-free method show,
# and which one the author of a planner? What would you ask either of them?

# %% [markdown] kind="written" id="explain-final" points=4
# **Model answer.** (Five shipped seeds, three starts each.) (a) For the robot, a planner with a learned model: CEM, PETS and random
# shooting first reached -200 after 400 to 800 real steps (medians), SAC and MBPO after 1,250 and 1,500, Dyna-PPO after 15,360. In the
# end CEM, PETS, SAC and MBPO can't be told apart. That their intervals, about -191 to -83, are the same says nothing: they come from the starts, which
# differ from seed to seed. But seed by seed the four differ by less than 10, where the seeds differ by more than 100. Random shooting has an
# interval that overlaps with theirs, -284 to -112, and is worse all the same: from the same starts it is 35 to 118 below CEM in four of five seeds, and as
# good in the fifth. (In seed 3 nobody gets to -200, presumably since its starts allow no more. That is why none has five of five.)
# For a fast simulator what counts are minutes: CEM needs 3.4 s to -200 and SAC 15 s (medians), but a plan is paid for at
# every step, for ever. PPO, the cheapest per step, has not learned the task in 40,960 steps (-1080): it would take many more, which a fast simulator has. For decisions within a millisecond a policy network
# (SAC, MBPO, PPO), since a planner searches anew at every step. (b) Minutes against a planner, env steps
# against a model-free agent; each looks best on its own axis. Ask for the other two axes, for the number of
# seeds, and for what was spent on tuning. And ask on which task: on the pendulum one network is enough for a good model, so that PETS's
# ensemble only costs (three times CEM's model calls).
#
# **Rubric.** 2 points for (a): three answers with reasons from the figure or from earlier weeks. 2 points for
# (b): sees that the axis decides (1), a sound question (1).

# %% [markdown]
# ## What to take along
#
# - A claim is a comparison: one change, a score chosen beforehand, all seeds, an interval, a price.
# - "Not shown" has two meanings, and the interval tells which: ruled out, or not seen.
# - A tuned agent has spent its tuning. And a trial too short to learn in ranks nothing.
# - Runs with the same starts are compared seed by seed.
# - There is no best agent, only a best one at a price.
#
# ## Test yourself
#
# <details><summary>1. Why is the change "50 updates" compared with the same seeds as the agent without it, if the bootstrap then treats both as
# independent?</summary>
#
# The same seeds give the same first episodes, so part of the luck is shared. To treat them as independent is
# safe: it makes the interval too wide, if anything. Pairs could be used (differences seed by seed), but the
# runs part ways after a few updates, and little of the pairing is left.
# </details>
# <details><summary>2. The score was chosen before the runs. What would be wrong with choosing it after a look at them?</summary>
#
# With two scores, two tasks and two confidences there are eight tables, and in one of them a claim will look
# real. The choice itself is a search, and has to be paid for like one.
# </details>
# <details><summary>3. A change makes a run cost twice the time, and its gain is "real" at equal steps. When is it a win?</summary>
#
# When steps are what is scarce. Otherwise it has to beat the unchanged agent that runs twice as long.
# </details>
# <details><summary>4. Scores below the random policy count as 0. What is gained and what is lost by that?</summary>
#
# One run in which the cart drives off can't outweigh nine others. But how badly an agent may fail is hidden,
# so look at the profile or at the worst run as well.
# </details>
# <details><summary>5. You have time for 20 runs. Ten seeds of two variants, or five of four?</summary>
#
# With five seeds, 95 % intervals hold the truth in only 80 to 90 % of the cases, and are wide. Ten of two
# answer one question; five of four answer none for sure. If there are many candidates, screen them with few
# seeds, and confirm the best with *new* ones.
# </details>
#
# ## Where next
#
# You have built the whole chain, from a buffer to MBPO, and the means to judge it. From here: TD-MPC2
# (planning in a latent space), Dreamer (imagination from pixels), MOPO (a fixed set of data), PILCO (Gaussian
# processes). Take one paper, and put its main claim through this clinic.
