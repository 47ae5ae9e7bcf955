"""Week 5: typical mistakes lose points and are named; other right ways keep all points."""

from functools import partial
from textwrap import dedent

import pytest

import harness
from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week05"
STEP = "particle-step"
TS_INF = "ts-infinity"
TS1 = "ts1"
SCORES = "robust-scores"
LOOP = "trial-loop"
lost = partial(harness.lost, WEEK)
edited = partial(replace_in_solution, WEEK)


def test_the_points_of_the_week():
    assert exercise_points(WEEK) == {STEP: 6, TS_INF: 6, TS1: 6, SCORES: 6, LOOP: 6}


def test_the_reference_keeps_all_points():
    assert set(run(WEEK).values()) == {None}


DRAW = "prediction.obs + prediction.obs_var.sqrt() * noise"
DRAW_REWARD = "prediction.reward + prediction.reward_var.sqrt() * noise"
GROUP = "(x.reshape(num_members, -1, x.shape[-1]) for x in (obs, action))"
SEATS = "torch.rand(obs.shape[:2], generator=generator).argsort(dim=0)"
SHUFFLED = "obs[seats, plans], action[seats, plans]"
WORST = "returns.unflatten(0, (num_members, -1)).mean(dim=1).amin(dim=0)"
PENALISED = "returns.mean(dim=0) - penalty * returns.std(dim=0, correction=0)"
BACK = "back = seats.argsort(dim=0)"

# Each mistake: exercise, what is replaced in the reference, by what, and a part of what the student reads.
MISTAKES = {
    # 5.1
    "variance for a standard deviation": (
        STEP,
        DRAW,
        "prediction.obs + prediction.obs_var * noise",
        "take its square root",
    ),
    "the mean state": (STEP, DRAW, "prediction.obs", "same draw, or none"),
    "one draw for all particles": (
        STEP,
        "noise = torch.randn(prediction.obs.shape, generator=generator)",
        "noise = torch.randn(prediction.obs.shape[-1], generator=generator)",
        "same draw, or none",
    ),
    "one draw for all dimensions": (
        STEP,
        "noise = torch.randn(prediction.obs.shape, generator=generator)",
        "noise = torch.randn(prediction.obs.shape[:-1], generator=generator).unsqueeze(-1)",
        "noise of its own",
    ),
    "one draw for all members": (
        STEP,
        "noise = torch.randn(prediction.obs.shape, generator=generator)",
        "noise = torch.randn(prediction.obs.shape[1:], generator=generator)",
        "noise of its own",
    ),
    "noise of size 1": (STEP, DRAW, "prediction.obs + noise", "multiplied by the standard deviation"),
    "global randomness": (
        STEP,
        "torch.randn(prediction.obs.shape, generator=generator)",
        "torch.randn(prediction.obs.shape)",
        "comes from generator",
    ),
    "a wrong mean": (STEP, DRAW, f"{DRAW} + 1", "mean of next_obs"),
    "taken for a change": (STEP, DRAW, f"obs + {DRAW}", "not its change"),
    "noise on the old state": (STEP, DRAW, "obs + prediction.obs_var.sqrt() * noise", "added to obs"),
    "uniform noise": (
        STEP,
        "torch.randn(prediction.obs.shape, generator=generator)",
        "torch.rand(prediction.obs.shape, generator=generator)",
        "expected normal",
    ),
    "reward before state": (
        STEP,
        "return next_obs, reward_now,",
        "return reward_now, next_obs,",
        "next_obs comes first",
    ),
    "no reward at the end": (
        STEP,
        "return next_obs, reward_now,",
        "return next_obs, reward_now * ~terminated(next_obs),",
        "has its reward, too",
    ),
    "global randomness for the reward": (
        STEP,
        "torch.randn(prediction.reward.shape, generator=generator)",
        "torch.randn(prediction.reward.shape)",
        "learned reward with the same seed",
    ),
    "one reward for all members": (
        STEP,
        "torch.randn(prediction.reward.shape, generator=generator)",
        "torch.randn(prediction.reward.shape[1], generator=generator)",
        "members' learned rewards",
    ),
    "one reward for all particles": (
        STEP,
        "torch.randn(prediction.reward.shape, generator=generator)",
        "torch.randn(len(prediction.reward), 1, generator=generator)",
        "same draw, or none: a learned reward",
    ),
    "refuses where the reward is learned": (
        STEP,
        "    noise = torch.randn(prediction.obs.shape, generator=generator)",
        "    if reward is None:\n        raise ValueError\n"
        "    noise = torch.randn(prediction.obs.shape, generator=generator)",
        "the function may be None",
    ),
    "another error": (STEP, "raise ValueError(", "raise TypeError(", "but TypeError was raised"),
    "reward of the mean state": (
        STEP,
        "reward(obs, action, next_obs)",
        "reward(obs, action, prediction.obs)",
        "mean next state",
    ),
    "reward of swapped states": (
        STEP,
        "reward(obs, action, next_obs)",
        "reward(next_obs, action, obs)",
        "swapped",
    ),
    "reward of the old state": (
        STEP,
        "reward(obs, action, next_obs)",
        "reward(obs, action, obs)",
        "in place of next_obs",
    ),
    "end of the mean state": (
        STEP,
        "terminated(next_obs)",
        "terminated(prediction.obs)",
        "terminated is not right",
    ),
    "end of the old state": (STEP, "terminated(next_obs)", "terminated(obs)", "before the step"),
    "a learned reward without noise": (STEP, DRAW_REWARD, "prediction.reward", "drawn from its Gaussian"),
    "variance of the reward for a standard deviation": (
        STEP,
        DRAW_REWARD,
        "prediction.reward + prediction.reward_var * noise",
        "reward_var is used as a standard deviation",
    ),
    "the state's noise for the reward": (
        STEP,
        "noise = torch.randn(prediction.reward.shape, generator=generator)",
        "noise = noise[..., 0]",
        "noise of its own",
    ),
    "the function comes first": (
        STEP,
        "if prediction.reward is not None and prediction.reward_var is not None:",
        "if reward is None and prediction.reward is not None:",
        "it comes first",
    ),
    "no reward is no error": (
        STEP,
        'raise ValueError("there is no reward: the prediction has none, and reward is None")',
        "reward_now = torch.zeros(obs.shape[:-1])",
        "expected a ValueError",
    ),
    # 5.2
    "groups are not made": (TS_INF, GROUP, "(obs, action)", "groups first"),
    "groups have the wrong size": (
        TS_INF,
        GROUP,
        "(x.reshape(len(x) // num_members, -1, x.shape[-1]) for x in (obs, action))",
        "not the other way round",
    ),
    "plans keep their axis": (
        TS_INF,
        GROUP,
        "(x.unflatten(0, (num_members, -1)) for x in (obs, action))",
        "one axis",
    ),
    "plans are shared out": (
        TS_INF,
        GROUP,
        "(x.transpose(0, 1).reshape(num_members, -1, x.shape[-1]) for x in (obs, action))",
        "its answer is in its own place",
    ),
    "answers stay in groups": (TS_INF, "next_obs.reshape(obs.shape), ", "next_obs, ", "shape"),
    "states and actions apart": (
        TS_INF,
        "step(obs_rows, action_rows)",
        "step(obs_rows, action_rows.flip(1))",
        "go together",
    ),
    "a member at a time": (
        TS_INF,
        "next_obs, reward, terminated = step(obs_rows, action_rows)",
        "answers = [step(o[None], a[None]) for o, a in zip(obs_rows, action_rows)]\n"
        "    next_obs, reward, terminated = (torch.cat(x) for x in zip(*answers))",
        "in one call",
    ),
    "a call for each member": (
        TS_INF,
        "next_obs, reward, terminated = step(obs_rows, action_rows)",
        "for _ in range(num_members):\n        next_obs, reward, terminated = step(obs_rows, action_rows)",
        "expected once",
    ),
    "every particle to every member": (
        TS_INF,
        GROUP,
        "(x.flatten(0, 1).expand(num_members, -1, -1) for x in (obs, action))",
        "its own group only",
    ),
    "rewards stay in groups": (
        TS_INF,
        "reward.reshape(shape), terminated.reshape(shape)",
        "reward, terminated",
        "bring all three answers back",
    ),
    "nothing ever ends": (
        TS_INF,
        "terminated.reshape(shape)",
        "torch.zeros(shape, dtype=torch.bool)",
        "the third answer of step",
    ),
    "answers of the first member for all": (
        TS_INF,
        "next_obs.reshape(obs.shape),",
        "next_obs[:1].expand_as(next_obs).reshape(obs.shape),",
        "next_obs",
    ),
    # 5.3
    "no shuffling": (
        TS1,
        SEATS,
        "torch.arange(len(obs))[:, None].expand(obs.shape[:2])",
        "shuffle the particles",
    ),
    "answers are not brought back": (
        TS1,
        BACK,
        "back = torch.arange(len(obs))[:, None]",
        "undo the shuffling",
    ),
    "shuffled twice": (TS1, BACK, "back = seats", "undo the shuffling"),
    "actions are not shuffled": (TS1, SHUFFLED, "obs[seats, plans], action", "move together"),
    "one permutation for all plans": (
        TS1,
        SEATS,
        "torch.randperm(len(obs), generator=generator)[:, None].expand(obs.shape[:2])",
        "share one permutation",
    ),
    "the same permutation at every step": (
        TS1,
        SEATS,
        "torch.rand(obs.shape[:2], generator=torch.Generator().manual_seed(0)).argsort(dim=0)",
        "draw anew",
    ),
    "rotated and not permuted": (
        TS1,
        SEATS,
        "(torch.arange(len(obs))[:, None] + torch.randint(len(obs), (1, obs.shape[1]), generator=generator))"
        " % len(obs)",
        "all permutations are equally likely",
    ),
    "global randomness in TS1": (TS1, SEATS, "torch.rand(obs.shape[:2]).argsort(dim=0)", "use generator"),
    "a coin for each particle": (
        TS1,
        SEATS,
        "torch.randint(len(obs), obs.shape[:2], generator=generator)",
        "ask several times, others never",
    ),
    "plans are shuffled": (
        TS1,
        "    plans = torch.arange(obs.shape[1])  # [N]\n",
        "    order = torch.rand(obs.shape[:2], generator=generator).argsort(dim=1)\n"
        "    rows = torch.arange(len(obs))[:, None]\n"
        "    answers = ts_inf_step(step, num_members, obs[rows, order], action[rows, order])\n"
        "    return [x[rows, order.argsort(dim=1)] for x in answers]\n"
        "    plans = torch.arange(obs.shape[1])  # [N]\n",
        "not the plans",
    ),
    "sorted along the wrong axis": (TS1, SEATS, SEATS.replace("dim=0", "dim=1"), "argsort with dim=0"),
    "inverse along the wrong axis": (TS1, BACK, "back = seats.argsort()", "seats.argsort(dim=0)"),
    "seats without their plans": (
        TS1,
        "    results = ts_inf_step(step, num_members, obs[seats, plans], action[seats, plans])\n",
        "    results = ts_inf_step(step, num_members, obs[seats], action[seats])\n",
        "needs the plans beside it",
    ),
    "all particles of all plans are shuffled": (
        TS1,
        "    plans = torch.arange(obs.shape[1])  # [N]\n",
        "    order = torch.randperm(obs.shape[0] * obs.shape[1], generator=generator)\n"
        "    there = (x.flatten(0, 1)[order].reshape(x.shape) for x in (obs, action))\n"
        "    answers = ts_inf_step(step, num_members, *there)\n"
        "    return [x.flatten(0, 1)[order.argsort()].reshape(x.shape) for x in answers]\n"
        "    plans = torch.arange(obs.shape[1])  # [N]\n",
        "P / K particles of each plan",
    ),
    "reward is not brought back": (
        TS1,
        "return next_obs, reward, terminated",
        "return next_obs, results[1], terminated",
        "comes back to it",
    ),
    "end is not brought back": (
        TS1,
        "return next_obs, reward, terminated",
        "return next_obs, reward, results[2]",
        "terminated",
    ),
    # 5.4
    "mean over the plans": (SCORES, "return returns.mean(dim=0)\n", "return returns.mean(dim=1)\n", "shape"),
    "sum for the mean": (SCORES, "return returns.mean(dim=0)\n", "return returns.sum(dim=0)\n", "the sum"),
    "NaN is left out": (SCORES, "return returns.mean(dim=0)\n", "return returns.nanmean(dim=0)\n", "NaN"),
    "worst particle": (SCORES, WORST, "returns.amin(dim=0)", "worst particle"),
    "best member": (SCORES, "mean(dim=1).amin(dim=0)", "mean(dim=1).amax(dim=0)", "best member"),
    "alternating members": (
        SCORES,
        "unflatten(0, (num_members, -1)).mean(dim=1)",
        "unflatten(0, (-1, num_members)).mean(dim=0)",
        "particles 0, 2 and 4",
    ),
    "groups of K particles": (
        SCORES,
        "unflatten(0, (num_members, -1))",
        "unflatten(0, (-1, num_members))",
        "the groups have K particles",
    ),
    "average over the members": (
        SCORES,
        "mean(dim=1).amin(dim=0)",
        "mean(dim=0).amin(dim=0)",
        "is over the members",
    ),
    "sum of each member's particles": (SCORES, "mean(dim=1).amin", "sum(dim=1).amin", "are summed"),
    "all that min returns": (SCORES, "amin(dim=0)", "min(dim=0)", "amin returns the values"),
    "number of the worst member": (SCORES, "amin(dim=0)", "argmin(dim=0)", "numbers of the members"),
    "one number for all plans": (SCORES, "amin(dim=0)", "amin()", "expected one for each plan"),
    "mean of the worst": (
        SCORES,
        "mean(dim=1).amin(dim=0)",
        "amin(dim=1).mean(dim=0)",
        "each member's worst",
    ),
    "worst over the plans": (SCORES, "amin(dim=0)", "amin(dim=1)", "expected one for each plan"),
    "NaN is ignored by the minimum": (
        SCORES,
        "mean(dim=1).amin(dim=0)",
        "mean(dim=1).nan_to_num(nan=torch.inf).amin(dim=0)",
        "NaN",
    ),
    "deviation over P - 1": (SCORES, "correction=0", "correction=1", "P - 1"),
    "mean distance for the deviation": (
        SCORES,
        "returns.std(dim=0, correction=0)",
        "(returns - returns.mean(dim=0)).abs().mean(dim=0)",
        "mean distance from the mean",
    ),
    "deviation over everything": (
        SCORES,
        "returns.std(dim=0, correction=0)",
        "returns.std(correction=0)",
        "over all plans",
    ),
    "squares are summed": (
        SCORES,
        "returns.std(dim=0, correction=0)",
        "(returns - returns.mean(dim=0)).square().sum(dim=0).sqrt()",
        "squares are summed",
    ),
    "variance is taken off": (SCORES, "returns.std(", "returns.var(", "variance is taken off"),
    "optimist": (SCORES, "- penalty *", "+ penalty *", "optimist"),
    "penalty is forgotten": (SCORES, "- penalty *", "-", "penalty has no effect"),
    # 5.5
    "a list of batches for fit": (
        LOOP,
        "fit(concatenate([trial.transitions for trial in trials]))",
        "fit([trial.transitions for trial in trials])",
        "expected one Batch",
    ),
    "length of a batch": (LOOP, "len(transitions.obs)", "len(transitions)", "use len(transitions.obs)"),
    "calls and updates swapped": (
        LOOP,
        "env_steps, model_calls, model_updates))",
        "env_steps, model_updates, model_calls))",
        "the model_calls come first",
    ),
    "trial before number": (
        LOOP,
        "on_trial(number, trials[-1])",
        "on_trial(trials[-1], number)",
        "the number first",
    ),
    "sums of sums": (
        LOOP,
        "trials[-1][2:] if trials else (0, 0, 0)",
        "(sum(trial[k] for trial in past) for k in (2, 3, 4))",
        "take the last one's",
    ),
    "no trial at all": (
        LOOP,
        "range(len(trials), num_trials + 1)",
        "range(num_trials, 0)",
        "neither collect nor fit",
    ),
    "nothing is returned": (LOOP, "    return trials\n", "", "is the `return` missing?"),
    "fit to the last trial only": (
        LOOP,
        "[trial.transitions for trial in trials]",
        "[trials[-1].transitions]",
        "last trial only",
    ),
    "newest first": (LOOP, "for trial in trials])", "for trial in reversed(trials)])", "oldest first"),
    "one trial too few": (LOOP, "(len(trials), num_trials + 1)", "(len(trials), num_trials)", "expected 4"),
    "all trials random": (LOOP, "collect(number > 0)", "collect(False)", "True in all others"),
    "the first trial is planned": (LOOP, "collect(number > 0)", "collect(True)", "act at random"),
    "steps are not summed": (LOOP, "env_steps += len", "env_steps = len", "of each trial"),
    "calls are not summed": (LOOP, "model_calls += calls", "model_calls = calls", "of each trial"),
    "updates are not summed": (LOOP, "model_updates += fit", "model_updates = fit", "of each fit"),
    "mean reward for the return": (
        LOOP,
        "transitions.reward.sum()",
        "transitions.reward.mean()",
        "trial_return",
    ),
    "on_trial can't stop": (
        LOOP,
        "        if on_trial is not None and on_trial(number, trials[-1]):\n            break\n",
        "        if on_trial is not None:\n            on_trial(number, trials[-1])\n",
        "returned True after trial 0",
    ),
    "on_trial is never told": (LOOP, "if on_trial is not None and", "if False and", "on_trial was told"),
    "stops unless told otherwise": (
        LOOP,
        "and on_trial(number, trials[-1])",
        "and not on_trial(number, trials[-1])",
        "on_trial returns None",
    ),
    "past is ignored": (LOOP, "trials = list(past)", "trials = []", "there are past trials"),
    "sums forget the past": (
        LOOP,
        "= trials[-1][2:] if trials else (0, 0, 0)",
        "= (0, 0, 0)",
        "sums start from nothing",
    ),
    "past is extended": (LOOP, "trials = list(past)", "trials = past or []", "past"),
    "a fit too many": (
        LOOP,
        "    return trials\n",
        "    fit(trials[-1].transitions)\n    return trials\n",
        "none at the end",
    ),
    "numbers start again": (
        LOOP,
        "on_trial(number, trials[-1])",
        "on_trial(number - len(past), trials[-1])",
        "1, 2",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake):
    exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(exercise, edited(exercise, old, new))
    assert points > 0
    assert said in messages


def test_alternating_particles_are_named():
    source = """
    def ts_inf_step(step, num_members, obs, action):
        def group(x):
            return x.unflatten(0, (-1, num_members)).transpose(0, 1).flatten(1, 2)

        answers = step(group(obs), group(action))
        size = len(obs) // num_members
        return tuple(x.unflatten(1, (size, -1)).transpose(0, 1).flatten(0, 1) for x in answers)
    """
    points, messages = lost(TS_INF, source)
    assert points == 4
    assert "the first half of them should" in messages


def test_a_mistake_in_one_place_does_not_cost_the_whole_exercise():
    assert lost(STEP, edited(STEP, DRAW_REWARD, "prediction.reward"))[0] == 2
    assert lost(STEP, edited(STEP, "reward(obs, action, next_obs)", "reward(obs, action, obs)"))[0] == 2
    assert lost(SCORES, edited(SCORES, "correction=0", "correction=1"))[0] == 2
    assert lost(TS1, edited(TS1, BACK, "back = torch.arange(len(obs))[:, None]"))[0] == 2
    back = "return next_obs, reward, terminated"
    assert lost(TS1, edited(TS1, back, "return next_obs, *results[1:]"))[0] == 2
    assert lost(LOOP, edited(LOOP, "model_calls += calls", "model_calls = calls"))[0] == 4
    assert lost(LOOP, edited(LOOP, "if on_trial is not None and", "if False and"))[0] == 4


def test_nothing_written_earns_nothing():
    names = {STEP: ["particle_step"], TS_INF: ["ts_inf_step"], TS1: ["ts1_step"], LOOP: ["trial_loop"]}
    names[SCORES] = ["particle_average", "worst_case", "variance_penalised"]
    for exercise, points in exercise_points(WEEK).items():
        stubs = [f"def {name}(*args, **kwargs):\n    raise NotImplementedError\n" for name in names[exercise]]
        assert lost_points(WEEK, {exercise: "\n".join(stubs)}) == points


RIGHT = {
    "TS1 after other random numbers": (
        TS1,
        """
        def ts1_step(step, num_members, obs, action, generator=None):
            torch.rand(9, generator=generator)  # in other places of the generator's sequence, that is
            seats = torch.stack([torch.randperm(len(obs), generator=generator) for _ in obs[0]], dim=1)
            plans = torch.arange(obs.shape[1])
            answers = ts_inf_step(step, num_members, obs[seats, plans], action[seats, plans])
            results = []
            for answer in answers:
                results.append(torch.empty_like(answer))
                results[-1][seats, plans] = answer
            return tuple(results)
        """,
    ),
    "a particle at a time": (
        STEP,
        """
        def particle_step(prediction, obs, action, reward, terminated, generator=None):
            rows = []
            for mean, var in zip(prediction.obs, prediction.obs_var, strict=True):
                rows.append(torch.normal(mean, var**0.5, generator=generator))
            next_obs = torch.stack(rows)
            done = terminated(next_obs)
            if prediction.reward is None:
                if reward is None:
                    raise ValueError("no reward")
                return next_obs, reward(obs, action, next_obs), done
            value = torch.normal(prediction.reward, prediction.reward_var.sqrt(), generator=generator)
            return next_obs, value, done
        """,
    ),
    "particles in numpy": (
        STEP,
        """
        import numpy as np

        def particle_step(prediction, obs, action, reward, terminated, generator=None):
            rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
            drawn = rng.normal(prediction.obs.numpy(), np.sqrt(prediction.obs_var.numpy()))
            next_obs = torch.from_numpy(drawn).float()
            if prediction.reward is not None:
                value = rng.normal(prediction.reward.numpy(), np.sqrt(prediction.reward_var.numpy()))
            elif reward is not None:
                value = reward(obs, action, next_obs)
            else:
                raise ValueError
            return next_obs, value, terminated(next_obs)
        """,
    ),
    "groups by indices": (
        TS_INF,
        """
        def ts_inf_step(step, num_members, obs, action):
            size, num_plans = obs.shape[:2]
            share = size // num_members
            groups = [slice(k * share, (k + 1) * share) for k in range(num_members)]
            asked = [torch.stack([x[g].flatten(0, 1) for g in groups]) for x in (obs, action)]
            results = []
            for answer in step(*asked):
                rows = [row.reshape(share, num_plans, *row.shape[1:]) for row in answer]
                results.append(torch.cat(rows))
            return results
        """,
    ),
    "plans before particles in a group": (
        TS_INF,
        """
        def ts_inf_step(step, num_members, obs, action):
            share, plans = len(obs) // num_members, obs.shape[1]

            def there(x):
                return x.unflatten(0, (num_members, share)).transpose(1, 2).flatten(1, 2)

            def back(x):
                return x.unflatten(1, (plans, share)).transpose(1, 2).flatten(0, 1)

            next_obs, reward, terminated = step(there(obs), there(action))
            return back(next_obs), back(reward), back(terminated)
        """,
    ),
    "TS1 by gather": (
        TS1,
        """
        def ts1_step(step, num_members, obs, action, generator=None):
            size, num_plans = obs.shape[:2]
            order = torch.stack([torch.randperm(size, generator=generator) for _ in range(num_plans)], dim=1)
            there = [x.gather(0, order[..., None].expand_as(x)) for x in (obs, action)]
            answers = ts_inf_step(step, num_members, *there)
            results = []
            for answer in answers:
                index = order[..., None].expand_as(answer) if answer.dim() == 3 else order
                results.append(torch.empty_like(answer).scatter_(0, index, answer))
            return tuple(results)
        """,
    ),
    "TS1 without TS-infinity": (
        TS1,
        """
        def ts1_step(step, num_members, obs, action, generator=None):
            size, num_plans = obs.shape[:2]
            seats = torch.rand(num_plans, size, generator=generator).argsort(dim=1).T
            rows = (seats * num_plans + torch.arange(num_plans)).reshape(num_members, -1)
            answers = step(obs.flatten(0, 1)[rows], action.flatten(0, 1)[rows])
            results = []
            for answer in answers:
                flat = torch.empty_like(answer.flatten(0, 1))
                flat[rows.flatten()] = answer.flatten(0, 1)
                results.append(flat.unflatten(0, (size, num_plans)))
            return results
        """,
    ),
    "scores in loops": (
        SCORES,
        """
        import math

        def particle_average(returns):
            return [sum(column) / len(column) for column in returns.T.tolist()]

        def worst_case(returns, num_members):
            share = len(returns) // num_members
            means = [particle_average(returns[k * share : (k + 1) * share]) for k in range(num_members)]
            return [math.nan if any(map(math.isnan, m)) else min(m) for m in zip(*means, strict=True)]

        def variance_penalised(returns, penalty):
            scores = []
            for column, mean in zip(returns.T.tolist(), particle_average(returns), strict=True):
                variance = sum((value - mean) ** 2 for value in column) / len(column)
                scores.append(mean - penalty * math.sqrt(variance))
            return scores
        """,
    ),
    "scores in numpy": (
        SCORES,
        """
        import numpy as np

        def particle_average(returns):
            return np.mean(returns.numpy(), axis=0)

        def worst_case(returns, num_members):
            return np.stack([p.mean(axis=0) for p in np.split(returns.numpy(), num_members)]).min(axis=0)

        def variance_penalised(returns, penalty):
            return returns.numpy().mean(0) - penalty * returns.numpy().std(0)
        """,
    ),
    "a while loop with a growing batch": (
        LOOP,
        """
        def trial_loop(collect, fit, num_trials, on_trial=None, past=()):
            trials = [*past]
            data = concatenate([t.transitions for t in past]) if past else None
            while len(trials) <= num_trials:
                number = len(trials)
                updates = fit(data) if number else 0
                batch, calls = collect(number != 0)
                data = batch if data is None else concatenate([data, batch])
                before = trials[-1] if trials else None
                trial = Trial(
                    transitions=batch,
                    trial_return=sum(batch.reward.tolist()),
                    env_steps=len(data.obs),
                    model_calls=calls + (before.model_calls if before else 0),
                    model_updates=updates + (before.model_updates if before else 0),
                )
                trials.append(trial)
                if on_trial and on_trial(number, trial) is True:
                    return trials
            return trials
        """,
    ),
    "the random trial before the loop": (
        LOOP,
        """
        def trial_loop(collect, fit, num_trials, on_trial=None, past=()):
            trials = list(past)

            def run(planned):
                updates = fit(concatenate([t.transitions for t in trials])) if planned else 0
                batch, calls = collect(planned)
                sums = trials[-1][2:] if trials else (0, 0, 0)
                new = (len(batch.reward), calls, updates)
                trials.append(Trial(batch, batch.reward.sum().item(), *(a + b for a, b in zip(sums, new))))
                return bool(on_trial(len(trials) - 1, trials[-1])) if on_trial else False

            if not trials and run(False):
                return trials
            while len(trials) < num_trials + 1:
                if run(True):
                    break
            return trials
        """,
    ),
}


@pytest.mark.parametrize("solution", RIGHT)
def test_another_right_solution_keeps_all_points(solution):
    exercise, source = RIGHT[solution]
    assert lost(exercise, source) == (0, "")


def test_other_solutions_work_together():
    chosen = {exercise: dedent(source) for exercise, source in RIGHT.values()}
    assert set(run(WEEK, chosen).values()) == {None}
