"""The checks of week 2: wrong solutions lose points and are told why, right ones of any style keep them."""

from __future__ import annotations

import pytest

from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week02"
POINTS = {
    "rollout": 7,
    "sequence-returns": 6,
    "random-shooting": 6,
    "receding-horizon": 6,
    "on-policy-loop": 5,
}


def test_the_reference_keeps_all_points() -> None:
    results = run(WEEK)
    assert {name: message for name, message in results.items() if message is not None} == {}
    assert exercise_points(WEEK) == POINTS


# mistake: (exercise, text of the reference, what a student has instead, part of a message that appears)
MUTANTS: dict[str, tuple[str, str, str, str]] = {
    "every step from the real state": (
        "rollout",
        "current, reward, terminated = step(current, actions[:, :, t])",
        "current, reward, terminated = step(all_obs[0], actions[:, :, t])",
        "every step starts from the real state",
    ),
    "always the first action": (
        "rollout",
        "actions[:, :, t]",
        "actions[:, :, 0]",
        "every step uses the first action",
    ),
    "actions backwards": ("rollout", "actions[:, :, t]", "actions[:, :, horizon - 1 - t]", "reversed order"),
    "first state forgotten": (
        "rollout",
        "all_obs, all_rewards, all_terminated = [current], [], []",
        "all_obs, all_rewards, all_terminated = [], [], []",
        "is the first one, the real state, missing?",
    ),
    "time before the sequences": (
        "rollout",
        "obs=torch.stack(all_obs, dim=2)",
        "obs=torch.stack(all_obs, dim=1)",
        "stack along dim=2",
    ),
    "all members go on from their mean": (
        "rollout",
        "        all_obs.append(current)",
        "        current = 0 * current + current.mean(dim=0)\n        all_obs.append(current)",
        "all members go on from the mean",
    ),
    "one member for all": (
        "rollout",
        "        all_obs.append(current)",
        "        current = current[:1].expand_as(current)\n        all_obs.append(current)",
        "all members are alike",
    ),
    "no ensemble axis": (
        "rollout",
        "obs=torch.stack(all_obs, dim=2),",
        "obs=torch.stack(all_obs, dim=2)[0],",
        "is the ensemble axis missing?",
    ),
    "stops at the first end": (
        "rollout",
        "        all_obs.append(current)",
        "        terminated = terminated & False\n        all_obs.append(current)",
        "it is never true",
    ),
    "ends one step late": (
        "rollout",
        "terminated=torch.stack(all_terminated, dim=2)",
        "terminated=torch.stack([torch.zeros_like(terminated), *all_terminated[:-1]], dim=2)",
        "one step late",
    ),
    "mean instead of sum": ("sequence-returns", ".sum(dim=-1)", ".mean(dim=-1)", "it is the mean"),
    "sum over the members": (
        "sequence-returns",
        ".sum(dim=-1)",
        ".sum(dim=0)",
        "is the sum over the members?",
    ),
    "ends ignored": ("sequence-returns", "ended == 0", "ended == ended", "the end is ignored"),
    "ending step left out": (
        "sequence-returns",
        ".cumsum(dim=-1) - terminated.long()",
        ".cumsum(dim=-1)",
        "the reward of the step that ends the episode counts",
    ),
    "wrong way round": ("sequence-returns", "ended == 0", "ended != 0", "nothing counts"),
    "one step too many": (
        "sequence-returns",
        "    return torch.where(",
        "    ended = torch.nn.functional.pad(ended, (1, 0))[..., :-1]\n    return torch.where(",
        "one step too many",
    ),
    "alive again after the end": (
        "sequence-returns",
        "terminated.long().cumsum(dim=-1) - terminated.long()",
        "torch.nn.functional.pad(terminated.long(), (1, 0))[..., :-1]",
        "an end is final",
    ),
    "NaN leaks through the mask": (
        "sequence-returns",
        "torch.where(ended == 0, rewards, torch.zeros_like(rewards))",
        "((ended == 0) * rewards)",
        "0 times NaN is NaN",
    ),
    "only the last ending counts": (
        "sequence-returns",
        "ended == 0",
        "terminated.any(dim=-1, keepdim=True).logical_not() | (ended == 0) & ~terminated",
        "the reward of the step that ends the episode counts",
    ),
    "worst instead of best": ("random-shooting", "scores.argmax()", "scores.argmin()", "lowest score"),
    "first action only": (
        "random-shooting",
        "action_sequences[scores.argmax()]",
        "action_sequences[scores.argmax()][0]",
        "it is one action",
    ),
    "Gaussian noise": ("random-shooting", "torch.rand(", "torch.randn(", "actions lie between"),
    "between minus and plus high": (
        "random-shooting",
        "low + (high - low) * noise",
        "high * (2 * noise - 1)",
        "actions lie between",
    ),
    "the same range for all dimensions": (
        "random-shooting",
        "low + (high - low) * noise",
        "low[0] + (high[0] - low[0]) * noise",
        "actions lie between",
    ),
    "one draw for all steps": (
        "random-shooting",
        "num_sequences, horizon, len(low), generator=generator)",
        "num_sequences, 1, len(low), generator=generator).expand(-1, horizon, -1)",
        "correlation between entries",
    ),
    "only half of the range": (
        "random-shooting",
        "low + (high - low) * noise",
        "low + 0.5 * (high - low) * noise",
        "is it uniform?",
    ),
    "squeezed to the middle": (
        "random-shooting",
        "low + (high - low) * noise",
        "low + (high - low) * (0.5 + 0.8 * (noise - 0.5))",
        "has 0.289",
    ),
    "NaN wins": (
        "random-shooting",
        "rank_invalid_last(score_fn(action_sequences))",
        "score_fn(action_sequences)",
        "such plans rank last",
    ),
    "infinity wins": (
        "random-shooting",
        "rank_invalid_last(score_fn(action_sequences))",
        "score_fn(action_sequences).nan_to_num(nan=-torch.inf, posinf=torch.inf)",
        "such plans rank last",
    ),
    "NaN counts as zero": (
        "random-shooting",
        "rank_invalid_last(score_fn(action_sequences))",
        "torch.nan_to_num(score_fn(action_sequences), 0.0, 0.0, 0.0)",
        "such plans rank last",
    ),
    "generator not passed on": ("random-shooting", ", generator=generator", "", "generator"),
    "one score at a time": (
        "random-shooting",
        "score_fn(action_sequences)",
        "torch.cat([score_fn(action_sequences[i : i + 1]) for i in range(num_sequences)])",
        "all sequences at once",
    ),
    "the whole plan at once": ("receding-horizon", "plan(obs)[0]", "plan(obs)", "expected its first action"),
    "the last action of the plan": ("receding-horizon", "plan(obs)[0]", "plan(obs)[-1]", "first action"),
    "a list of transitions": (
        "receding-horizon",
        "    return Batch(",
        "    return transitions\n    return Batch(",
        "expected a Batch",
    ),
    "planned only once": (
        "receding-horizon",
        "    for _ in range(max_steps):\n        action = plan(obs)[0]  # [A]",
        "    whole = plan(obs)\n    for step in range(max_steps):\n        action = whole[step]",
        "then comes a new plan",
    ),
    "never looks": ("receding-horizon", "        obs = next_obs\n", "", "it is always the first one"),
    "truncation ignored": ("receding-horizon", "terminated or truncated:", "terminated:", "is truncated"),
    "termination ignored": ("receding-horizon", "terminated or truncated:", "truncated:", "is terminated"),
    "one step too many before the limit": (
        "receding-horizon",
        "range(max_steps)",
        "range(max_steps + 1)",
        "expected max_steps=4",
    ),
    "no limit": (
        "receding-horizon",
        "for _ in range(max_steps):",
        "while True:",
        "there is no end",
    ),
    "the last transition forgotten": (
        "receding-horizon",
        "transitions.append((",
        "if terminated or truncated:\n            break\n        transitions.append((",
        "the last one included",
    ),
    "next_obs in the place of obs": (
        "receding-horizon",
        "transitions.append((obs, action,",
        "transitions.append((next_obs, action,",
        "they belong to next_obs",
    ),
    "the limit taken for a truncation": (
        "receding-horizon",
        "truncated=torch.tensor(cuts, dtype=torch.bool)",
        "truncated=torch.tensor([*cuts[:-1], cuts[-1] or len(cuts) == max_steps], dtype=torch.bool)",
        "what env_step returned",
    ),
    "flags swapped": (
        "receding-horizon",
        "next_obs, terminated, truncated))",
        "next_obs, truncated, terminated))",
        "terminated",
    ),
    "newest data only": (
        "on-policy-loop",
        "fit(concatenate(batches))",
        "fit(batches[-1])",
        "newest transitions alone",
    ),
    "random data again and again": (
        "on-policy-loop",
        "batch, mean_return = collect(policy)",
        "batch, mean_return = collect(None)",
        "give collect the policy that fit returned",
    ),
    "fitted once": (
        "on-policy-loop",
        "    for _ in range(num_iterations):\n        policy = fit(concatenate(batches))\n",
        "    policy = fit(concatenate(batches))\n    for _ in range(num_iterations):\n",
        "fitted anew in every iteration",
    ),
    "one iteration too few": (
        "on-policy-loop",
        "range(num_iterations)",
        "range(num_iterations - 1)",
        "num_iterations counts the pairs",
    ),
    "first return forgotten": (
        "on-policy-loop",
        "[batch], [mean_return]",
        "[batch], []",
        "is that of the random data missing?",
    ),
    "last data forgotten": (
        "on-policy-loop",
        "return concatenate(batches), mean_returns",
        "return concatenate(batches[:-1] or batches), mean_returns",
        "the last collect missing",
    ),
    "newest first": (
        "on-policy-loop",
        "fit(concatenate(batches))",
        "fit(concatenate(batches[::-1]))",
        "the oldest first",
    ),
    "a list of batches for fit": (
        "on-policy-loop",
        "fit(concatenate(batches))",
        "fit(batches)",
        "expected one Batch",
    ),
    "a list of batches returned": (
        "on-policy-loop",
        "return concatenate(batches), mean_returns",
        "return batches, mean_returns",
        "as one Batch",
    ),
    "no returns": (
        "on-policy-loop",
        "return concatenate(batches), mean_returns",
        "return concatenate(batches)",
        "6",
    ),
}


@pytest.mark.parametrize("mistake", MUTANTS)
def test_a_typical_mistake_costs_points_and_is_named(mistake: str) -> None:
    exercise, old, new, message = MUTANTS[mistake]
    wrong = replace_in_solution(WEEK, exercise, old, new)
    results = run(WEEK, {exercise: wrong}, exercises=[exercise])
    messages = [text for text in results.values() if text is not None]
    assert messages, f"{mistake}: no check fails"
    assert any(message in text for text in messages), messages
    assert lost_points(WEEK, {exercise: wrong}) > 0


def test_every_exercise_has_enough_mutants() -> None:
    tried = [exercise for exercise, *_ in MUTANTS.values()]
    assert all(tried.count(exercise) >= 3 for exercise in POINTS)


ANOTHER_WAY: dict[str, tuple[str, str]] = {
    "rollout, preallocated": (
        "rollout",
        """
def rollout(step, obs, action_sequences, ensemble_size=1):
    N, H, A = action_sequences.shape
    states = torch.zeros(ensemble_size, N, H + 1, len(obs))
    rewards = torch.zeros(ensemble_size, N, H)
    terminated = torch.zeros(ensemble_size, N, H, dtype=torch.bool)
    states[:, :, 0] = obs
    for h in range(H):
        actions = action_sequences[:, h].repeat(ensemble_size, 1, 1)
        result = step(states[:, :, h], actions)
        states[:, :, h + 1], rewards[:, :, h], terminated[:, :, h] = result
    return Rollout(states, rewards, terminated)
""",
    ),
    "rollout, recursive and in float64": (
        "rollout",
        """
def rollout(step, obs, action_sequences, ensemble_size=1):
    E = ensemble_size
    actions = torch.stack([action_sequences.double()] * E)
    def go_on(state, h):
        if h == actions.shape[2]:
            return [state], [], []
        after, reward, end = step(state, actions[:, :, h])
        states, rewards, ends = go_on(after, h + 1)
        return [state, *states], [reward, *rewards], [end, *ends]
    first = torch.stack([torch.stack([obs.double()] * len(action_sequences))] * E)
    states, rewards, ends = go_on(first, 0)
    return Rollout(*(torch.stack(column, 2) for column in (states, rewards, ends)))
""",
    ),
    "returns with cumprod": (
        "sequence-returns",
        """
def sequence_returns(rewards, terminated):
    alive = torch.cumprod(1 - terminated.int(), dim=-1)
    before = torch.cat([torch.ones_like(alive[..., :1]), alive[..., :-1]], dim=-1)
    return rewards.masked_fill(before == 0, 0).sum(-1)
""",
    ),
    "returns with a loop over time": (
        "sequence-returns",
        """
def sequence_returns(rewards, terminated):
    total = torch.zeros(rewards.shape[:-1])
    alive = torch.ones(rewards.shape[:-1], dtype=torch.bool)
    for h in range(rewards.shape[-1]):
        total = torch.where(alive, total + rewards[..., h], total)
        alive = alive & ~terminated[..., h]
    return total
""",
    ),
    "returns with numpy": (
        "sequence-returns",
        """
def sequence_returns(rewards, terminated):
    import numpy as np
    rewards, terminated = np.asarray(rewards), np.asarray(terminated)
    H = rewards.shape[-1]
    flat, ends = rewards.reshape(-1, H), terminated.reshape(-1, H)
    result = np.empty(len(flat))
    for i, (row, end) in enumerate(zip(flat, ends)):
        stop = end.argmax() + 1 if end.any() else H
        result[i] = row[:stop].sum()
    return result.reshape(rewards.shape[:-1])
""",
    ),
    "shooting with uniform_ and sort": (
        "random-shooting",
        """
def random_shooting(score_fn, low, high, num_sequences, horizon, generator=None):
    columns = []
    for a, b in zip(low.tolist(), high.tolist()):
        columns.append(torch.empty(num_sequences, horizon).uniform_(a, b, generator=generator))
    sequences = torch.stack(columns, dim=-1)
    scores = torch.as_tensor(score_fn(sequences))
    scores[~scores.isfinite()] = float("-inf")
    return sequences[scores.argsort(descending=True)[0]]
""",
    ),
    "shooting with a Python loop": (
        "random-shooting",
        """
def random_shooting(score_fn, low, high, num_sequences, horizon, generator=None):
    shape = (horizon, len(low))
    sequences = torch.stack([
        torch.lerp(low.expand(shape), high.expand(shape), torch.rand(shape, generator=generator))
        for _ in range(num_sequences)
    ])
    best, best_score = 0, -math.inf
    for i, score in enumerate(score_fn(sequences).tolist()):
        if math.isfinite(score) and score > best_score:
            best, best_score = i, score
    return sequences[best]


import math
""",
    ),
    "control with a while loop": (
        "receding-horizon",
        """
def receding_horizon(obs, plan, env_step, max_steps):
    columns = [[] for _ in range(6)]
    done = False
    while not done and len(columns[0]) < max_steps:
        first, *_ = plan(obs)
        after, reward, terminated, truncated = env_step(first)
        for column, value in zip(columns, (obs, first, reward, after, terminated, truncated)):
            column.append(torch.as_tensor(value))
        done = terminated or truncated
        obs = after
    return Batch(*map(torch.stack, columns))
""",
    ),
    "control with numpy columns": (
        "receding-horizon",
        """
def receding_horizon(obs, plan, env_step, max_steps):
    import numpy as np
    rows = []
    for step in range(max_steps):
        actions = plan(obs)
        before, action = obs, actions[0]
        obs, reward, terminated, truncated = env_step(action)
        rows.append((np.asarray(before), np.asarray(action), reward, np.asarray(obs), terminated, truncated))
        if truncated:
            break
        if terminated:
            break
    return Batch(*(torch.from_numpy(np.array(column)) for column in zip(*rows)))
""",
    ),
    "loop with growing data": (
        "on-policy-loop",
        """
def on_policy_loop(collect, fit, num_iterations):
    data, first = collect(None)
    returns = [first]
    while len(returns) <= num_iterations:
        new, value = collect(fit(data))
        data = Batch(*(torch.cat([old, more]) for old, more in zip(data, new)))
        returns = returns + [value]
    return data, returns
""",
    ),
    "loop that starts without a policy": (
        "on-policy-loop",
        """
def on_policy_loop(collect, fit, num_iterations):
    policy, batches, returns = None, [], []
    for iteration in range(num_iterations + 1):
        batch, value = collect(policy)
        batches.append(batch)
        returns.append(value)
        if iteration < num_iterations:
            policy = fit(concatenate(batches))
    return concatenate(batches), torch.tensor(returns)
""",
    ),
}


@pytest.mark.parametrize("way", ANOTHER_WAY)
def test_another_right_way_keeps_all_points(way: str) -> None:
    exercise, code = ANOTHER_WAY[way]
    results = run(WEEK, {exercise: code}, exercises=[exercise])
    assert {name: message for name, message in results.items() if message is not None} == {}


def test_every_exercise_has_two_other_right_ways() -> None:
    tried = [exercise for exercise, _ in ANOTHER_WAY.values()]
    assert all(tried.count(exercise) >= 2 for exercise in POINTS)
