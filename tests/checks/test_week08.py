"""Week 8: typical mistakes lose points and are named; other right ways keep all points."""

from functools import partial
from textwrap import dedent

import pytest

import harness
from harness import exercise_points, lost_points, replace_in_solution, run

WEEK = "week08"
IQM = "iqm"
BOOTSTRAP = "bootstrap"
WINS = "improvement"
PROFILE = "profile"
SHAPING = "shaping"
BUDGET = "budget"
VERDICT = "verdict"
lost = partial(harness.lost, WEEK)
edited = partial(replace_in_solution, WEEK)


def test_the_points_of_the_week():
    points = {IQM: 4, BOOTSTRAP: 7, WINS: 5, PROFILE: 4, SHAPING: 5, BUDGET: 3, VERDICT: 2}
    assert exercise_points(WEEK) == points
    assert sum(points.values()) == 30


def test_the_reference_keeps_all_points():
    assert set(run(WEEK).values()) == {None}


MIDDLE = "return ordered[..., cut : ordered.shape[-1] - cut].mean(dim=-1)"
CUT = "cut = ordered.shape[-1] // 4"
SORTED = "ordered = scores.flatten(-2).sort(dim=-1).values"
ROWS = "torch.randint(num_seeds, (num_resamples, num_seeds, num_tasks), generator=generator)"
VALUES = "statistic(*(resample_seeds(sample, num_resamples, generator) for sample in samples))"
POINT = "statistic(*(sample[None] for sample in samples))[0]"
CHANCES = "((difference.sign() + 1) / 2).mean(dim=(-3, -2, -1))"
AFTER = "gamma * after.masked_fill(terminated, 0.0) - potential(obs)"
LAST = "scores.gather(1, (affordable - 1).clamp(min=0)[:, None])[:, 0]"

# Each mistake: exercise, what is replaced in the reference, by what, and a part of what the student reads.
MISTAKES = {
    # 8.1
    "the mean": (IQM, MIDDLE, "return ordered.mean(dim=-1)", "plain mean"),
    "the median": (IQM, MIDDLE, "return (ordered[..., 3] + ordered[..., 4]) / 2", "it is the median"),
    "not sorted": (IQM, SORTED, "ordered = scores.flatten(-2)", "not sorted"),
    "sorted in place": (
        IQM,
        SORTED,
        "ordered = scores.flatten(-2)\n    ordered.copy_(ordered.sort().values)",
        "scores changed",
    ),
    "an eighth at each end": (IQM, CUT, "cut = ordered.shape[-1] // 8", "half a quarter"),
    "rounded up": (IQM, CUT, "cut = -(-ordered.shape[-1] // 4)", "is rounded up"),
    "rounded to the nearest": (IQM, CUT, "cut = round(ordered.shape[-1] / 4)", "to the nearest"),
    "an empty slice": (IQM, MIDDLE, "return ordered[..., cut:-cut].mean(dim=-1)", "[cut:-cut] is empty"),
    "divided by half of n": (
        IQM,
        MIDDLE,
        MIDDLE.replace("mean(dim=-1)", "sum(dim=-1) / (ordered.shape[-1] / 2)"),
        "by how many are left",
    ),
    "only the low end": (IQM, MIDDLE, "return ordered[..., cut:].mean(dim=-1)", "only the lowest"),
    "only the high end": (IQM, MIDDLE, "return ordered[..., :-cut or None].mean(dim=-1)", "only the highest"),
    "quarters of each task": (
        IQM,
        SORTED,
        "ordered = scores.sort(dim=-2).values.transpose(-1, -2); n = ordered.shape[-1]; "
        "return ordered[..., n // 4 : n - n // 4].mean(dim=(-2, -1))\n    ordered = scores",
        "those of each task",
    ),
    "all tables in one": (IQM, SORTED, "ordered = scores.flatten().sort().values", "has shape []"),
    # 8.2
    "a permutation": (
        BOOTSTRAP,
        ROWS,
        "torch.rand(num_resamples, num_seeds, num_tasks, generator=generator).argsort(dim=1)",
        "draw with replacement",
    ),
    "whole rows": (
        BOOTSTRAP,
        ROWS,
        "torch.randint(num_seeds, (num_resamples, num_seeds, 1), generator=generator)"
        ".expand(-1, -1, num_tasks)",
        "whole rows were drawn",
    ),
    "one draw for all places": (
        BOOTSTRAP,
        ROWS,
        "torch.randint(num_seeds, (num_resamples, 1, num_tasks), generator=generator)"
        ".expand(-1, num_seeds, -1)",
        "hold a score twice",
    ),
    "tasks are mixed": (
        BOOTSTRAP,
        "return scores.expand(num_resamples, -1, -1).gather(1, rows)",
        "return scores.flatten()[torch.randint(scores.numel(), rows.shape, generator=generator)]",
        "draw for each task by itself",
    ),
    "the last seed is never drawn": (
        BOOTSTRAP,
        ROWS,
        ROWS.replace("num_seeds, (", "num_seeds - 1, ("),
        "[4] were never drawn",
    ),
    "one resample for all": (
        BOOTSTRAP,
        ROWS,
        ROWS.replace("(num_resamples,", "(1,") + ".expand(num_resamples, -1, -1)",
        "all resamples are the same",
    ),
    "rows for numbers": (
        BOOTSTRAP,
        "scores.expand(num_resamples, -1, -1).gather(1, rows)",
        "scores[rows]",
        "gather picks one score",
    ),
    "the low end first": (
        BOOTSTRAP,
        f"Interval({POINT}, low, high)",
        f"Interval(low, {POINT}, high)",
        "point, low, high, in this order",
    ),
    "the high end before the low one": (BOOTSTRAP, ", low, high)", ", high, low)", "are swapped"),
    "standard deviations": (
        BOOTSTRAP,
        "low = values.quantile((1 - confidence) / 2, dim=0)\n"
        "    high = values.quantile((1 + confidence) / 2, dim=0)",
        "low = values.mean(dim=0) - 1.96 * values.std(dim=0)\n"
        "    high = values.mean(dim=0) + 1.96 * values.std(dim=0)",
        "1.96 standard deviations",
    ),
    "global randomness": (BOOTSTRAP, ROWS, ROWS.replace(", generator=generator", ""), "use generator"),
    "one-sided quantiles": (
        BOOTSTRAP,
        "low = values.quantile((1 - confidence) / 2, dim=0)",
        "low = values.quantile(1 - confidence, dim=0)",
        "low and high at 90 %",
    ),
    "too little is cut off": (
        BOOTSTRAP,
        "(1 - confidence) / 2, dim=0)\n    high = values.quantile((1 + confidence) / 2, dim=0)",
        "(1 - confidence) / 4, dim=0)\n    high = values.quantile((3 + confidence) / 4, dim=0)",
        "5 % are cut off in all",
    ),
    "a point of resamples": (BOOTSTRAP, POINT, "values.quantile(0.5, dim=0)", "once with all 1001"),
    "the point is a table": (BOOTSTRAP, POINT, POINT.removesuffix("[0]"), "point has shape [1]"),
    "resamples one at a time": (
        BOOTSTRAP,
        f"values = {VALUES}",
        "rows = [resample_seeds(sample, num_resamples, generator) for sample in samples]\n"
        "    values = torch.cat([statistic(*(x[i : i + 1] for x in rows)) for i in range(num_resamples)])",
        "expected once with all 1001 resamples",
    ),
    "agents share their draws": (
        BOOTSTRAP,
        f"values = {VALUES}",
        "seed = int(torch.randint(2**31, (1,), generator=generator))\n    values = statistic("
        "*(resample_seeds(x, num_resamples, torch.Generator().manual_seed(seed)) for x in samples))",
        "each sample is resampled by itself",
    ),
    "any confidence": (
        BOOTSTRAP,
        "if not 0 < confidence < 1:",
        "if False:",
        "expected a ValueError",
    ),
    # 8.3
    "ties count nothing": (
        WINS,
        CHANCES,
        "(difference > 0).double().mean(dim=(-3, -2, -1))",
        "a tie counts 0",
    ),
    "ties count all": (WINS, CHANCES, "(difference >= 0).double().mean(dim=(-3, -2, -1))", "a tie counts 1"),
    "the other way round": (
        WINS,
        CHANCES,
        "((1 - difference.sign()) / 2).mean(dim=(-3, -2, -1))",
        "Y beats X",
    ),
    "averages": (
        WINS,
        CHANCES,
        "(scores_x.mean(dim=-2) > scores_y.mean(dim=-2)).double().mean(dim=-1)",
        "averages are compared",
    ),
    "a number for each task": (WINS, "dim=(-3, -2, -1)", "dim=(-3, -2)", "average over the tasks, too"),
    "axes from the front": (WINS, "dim=(-3, -2, -1)", "dim=(0, 1, 2)", "count the axes from the end"),
    "the mean of the signs": (WINS, CHANCES, "difference.sign().mean(dim=(-3, -2, -1))", "not -1"),
    "the sum of all pairs": (
        WINS,
        CHANCES,
        "((difference.sign() + 1) / 2).sum(dim=(-3, -2, -1))",
        "expected their mean",
    ),
    "runs of different tasks": (
        WINS,
        "difference = scores_x.unsqueeze(-2) - scores_y.unsqueeze(-3)",
        "difference = (scores_x.flatten(-2)[..., :, None] - scores_y.flatten(-2)[..., None, :])[..., None]",
        "different tasks",
    ),
    "one number for all tables": (
        WINS,
        CHANCES,
        "((difference.sign() + 1) / 2).mean()",
        "for 6 pairs of tables has shape []",
    ),
    "tasks are not compared": (
        WINS,
        "if scores_x.shape[-1] != scores_y.shape[-1]:",
        "if False:",
        "two tasks against one",
    ),
    # 8.4
    "divided by the reference": (
        PROFILE,
        "return (scores - random_score) / (reference_score - random_score)",
        "return scores / reference_score",
        "by the reference alone",
    ),
    "the reference is the unit": (
        PROFILE,
        "return (scores - random_score) / (reference_score - random_score)",
        "return (scores - random_score) / reference_score",
        "expected by the distance from random to reference",
    ),
    "the scale is upside down": (
        PROFILE,
        "(reference_score - random_score)",
        "(random_score - reference_score)",
        "upside down",
    ),
    "the smallest and the largest": (
        PROFILE,
        "return (scores - random_score) / (reference_score - random_score)",
        "low, high = scores.amin(dim=-2), scores.amax(dim=-2)\n    return (scores - low) / (high - low)",
        "its smallest and largest score",
    ),
    "scores changed in place": (
        PROFILE,
        "return (scores - random_score) / (reference_score - random_score)",
        "scores -= random_score\n    scores /= reference_score - random_score\n    return scores",
        "scores changed",
    ),
    "clipped": (
        PROFILE,
        "return (scores - random_score) / (reference_score - random_score)",
        "return ((scores - random_score) / (reference_score - random_score)).clamp(0, 1)",
        "nothing is clipped",
    ),
    "at least the threshold": (PROFILE, "> thresholds", ">= thresholds", "counted as above it"),
    "below the threshold": (PROFILE, "> thresholds", "< thresholds", "the share below"),
    "a number of runs": (PROFILE, "above.double().mean(dim=-2)", "above.double().sum(dim=-2)", "their share"),
    "a profile for each task": (
        PROFILE,
        "above = scores.flatten(-2).unsqueeze(-1) > thresholds",
        "above = scores.transpose(-2, -1).unsqueeze(-1) > thresholds",
        "average over seeds *and* tasks",
    ),
    # 8.5
    "no discount": (SHAPING, AFTER, AFTER.removeprefix("gamma * "), "gamma is missing"),
    "discount for both": (
        SHAPING,
        AFTER,
        "gamma * (after.masked_fill(terminated, 0.0) - potential(obs))",
        "both states have gamma",
    ),
    "the end keeps its potential": (
        SHAPING,
        AFTER,
        "gamma * after - potential(obs)",
        "still has its potential",
    ),
    "the last state is 0": (
        SHAPING,
        AFTER,
        "gamma * potential(next_obs * ~terminated.unsqueeze(-1)) - potential(obs)",
        "is set to 0, expected its potential to be 0",
    ),
    "the mask is upside down": (SHAPING, "masked_fill(terminated", "masked_fill(~terminated", "upside down"),
    "both are added": (SHAPING, AFTER, AFTER.replace(" - pot", " + pot"), "is added"),
    "no bonus at the end": (
        SHAPING,
        AFTER,
        "(gamma * after - potential(obs)).masked_fill(terminated, 0.0)",
        "-Phi(s) stays",
    ),
    "minus the bonus": (SHAPING, AFTER, f"-({AFTER})", "the sign is wrong"),
    "swapped": (
        SHAPING,
        AFTER,
        "gamma * potential(obs) - after",
        "the two states are swapped",
    ),
    "the potential of the next state": (
        SHAPING,
        AFTER,
        "after.masked_fill(terminated, 0.0)",
        "shaping_reward with gamma=0.5",
    ),
    "any gamma": (SHAPING, "if not 0 < gamma <= 1:", "if False:", "gamma=0.0: expected a ValueError"),
    "gamma below 1 only": (SHAPING, "0 < gamma <= 1", "0 < gamma < 1", "gamma is 1.0"),
    "a potential of any shape": (
        SHAPING,
        "if after.shape != terminated.shape:",
        "if False:",
        "a potential with shape [3, 1]",
    ),
    # 8.6
    "the best so far": (
        BUDGET,
        LAST,
        "scores.masked_fill(costs > budget, -1e9).max(dim=1).values",
        "the best evaluation",
    ),
    "the next one": (
        BUDGET,
        LAST,
        "scores.gather(1, affordable.clamp(max=scores.shape[1] - 1)[:, None])[:, 0]",
        "which cost too much",
    ),
    "the nearest one": (
        BUDGET,
        LAST,
        "scores[torch.arange(len(scores)), (costs - budget).abs().argmin(dim=1)]",
        "the nearest evaluation",
    ),
    "the costs of the first run": (
        BUDGET,
        "(costs <= budget).sum(dim=1)",
        "(costs[:1] <= budget).sum(dim=1).expand(len(costs))",
        "the costs of the first one",
    ),
    "the first of two at the same cost": (
        BUDGET,
        LAST,
        "scores[torch.arange(len(scores)), (costs * (costs <= budget)).argmax(dim=1)]",
        "the first of them counts",
    ),
    "scores beyond the budget are erased": (
        BUDGET,
        "scores.gather(",
        "scores.masked_fill_(costs > budget, torch.nan).gather(",
        "scores changed",
    ),
    "the longest run of each": (BUDGET, "cost[:, -1].min()", "cost[:, -1].max()", "only the longest run"),
    "below the budget": (BUDGET, "costs <= budget", "costs < budget", "exactly the budget is left out"),
    "the last of all": (BUDGET, LAST, "scores[:, -1]", "whatever it cost"),
    "the first where there is none": (
        BUDGET,
        'last.masked_fill(affordable == 0, float("nan"))',
        "last",
        "expected NaN",
    ),
    "costs may fall": (
        BUDGET,
        "if bool((costs.diff(dim=1) < 0).any()):",
        "if False:",
        "expected a ValueError",
    ),
    "the smallest cost": (BUDGET, "cost[:, -1].min()", "cost.min()", "smallest *last* cost"),
    "the longest run": (
        BUDGET,
        "return min(float(cost[:, -1].min()) for cost in costs)",
        "return max(float(cost[:, -1].max()) for cost in costs)",
        "where the longest run ends",
    ),
    "the first run of each": (BUDGET, "cost[:, -1].min()", "cost[0, -1]", "only the first run"),
    "no agents": (
        BUDGET,
        'raise ValueError("costs is empty, expected a tensor [seeds, P] for each agent")',
        "return 0.0",
        "no agents",
    ),
    # 8.7
    "by the point": (VERDICT, "if improvement.low > 0:", "if improvement.point > 0:", "'not shown'"),
    "low first": (
        VERDICT,
        "    if improvement.low > 0:",
        "    improvement = Interval(*(improvement[i] for i in (1, 0, 2)))\n    if improvement.low > 0:",
        "in this order",
    ),
    "always good": (
        VERDICT,
        '"harmful" if improvement.high < 0 else "not shown"',
        '"not shown"',
        "'harmful'",
    ),
    "zero is enough": (VERDICT, "improvement.low > 0", "improvement.low >= 0", "0 is within"),
    "zero harms": (VERDICT, "improvement.high < 0", "improvement.high <= 0", "0 is within"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_loses_points_and_is_named(mistake):
    exercise, old, new, said = MISTAKES[mistake]
    points, messages = lost(exercise, edited(exercise, old, new))
    assert points > 0
    assert said in messages


def test_a_mistake_in_one_place_does_not_cost_the_whole_exercise():
    assert lost(IQM, edited(IQM, SORTED, "ordered = scores.flatten().sort().values"))[0] == 2
    assert lost(BOOTSTRAP, edited(BOOTSTRAP, "if not 0 < confidence < 1:", "if False:"))[0] == 2
    assert lost(WINS, edited(WINS, CHANCES, "(difference > 0).double().mean(dim=(-3, -2, -1))"))[0] <= 5
    assert lost(PROFILE, edited(PROFILE, "> thresholds", ">= thresholds"))[0] == 2
    assert lost(SHAPING, edited(SHAPING, "if not 0 < gamma <= 1:", "if False:"))[0] == 2
    assert lost(BUDGET, edited(BUDGET, "cost[:, -1].min()", "cost.min()"))[0] == 1


def test_nothing_written_earns_nothing():
    names = {
        IQM: ["interquartile_mean"],
        BOOTSTRAP: ["resample_seeds", "bootstrap_interval"],
        WINS: ["probability_of_improvement"],
        PROFILE: ["normalized_scores", "performance_profile"],
        SHAPING: ["shaping_reward"],
        BUDGET: ["score_at_budget", "common_budget"],
        VERDICT: ["verdict"],
    }
    for exercise, points in exercise_points(WEEK).items():
        stubs = [f"def {name}(*args, **kwargs):\n    raise NotImplementedError\n" for name in names[exercise]]
        assert lost_points(WEEK, {exercise: "\n".join(stubs)}) == points


RIGHT = {
    "scipy's trimmed mean": (
        IQM,
        """
        from scipy.stats import trim_mean

        def interquartile_mean(scores):
            flat = scores.numpy().reshape(*scores.shape[:-2], -1)
            return torch.from_numpy(trim_mean(flat, 0.25, axis=-1)[...].reshape(scores.shape[:-2]))
        """,
    ),
    "tables in a loop": (
        IQM,
        """
        def interquartile_mean(scores):
            means = []
            for table in scores.reshape(-1, scores.shape[-2] * scores.shape[-1]).tolist():
                table.sort()
                cut = len(table) // 4
                middle = table[cut : len(table) - cut]
                means.append(sum(middle) / len(middle))
            return torch.tensor(means).reshape(scores.shape[:-2])
        """,
    ),
    "column by column": (
        BOOTSTRAP,
        """
        def resample_seeds(scores, num_resamples, generator=None):
            columns = []
            for column in scores.T:
                numbers = torch.rand(num_resamples, len(column), generator=generator) * len(column)
                columns.append(column[numbers.long()])
            return torch.stack(columns, dim=-1)

        def bootstrap_interval(statistic, *samples, confidence=0.95, num_resamples=2000, generator=None):
            if confidence <= 0 or confidence >= 1:
                raise ValueError(confidence)
            point = statistic(*[sample.unsqueeze(0) for sample in samples]).squeeze(0)
            drawn = [resample_seeds(sample, num_resamples, generator) for sample in samples]
            tail = (1 - confidence) / 2
            low, high = torch.quantile(
                statistic(*drawn).float(), torch.tensor([tail, 1 - tail]), dim=0
            )
            return Interval(point, low, high)
        """,
    ),
    "resamples in numpy": (
        BOOTSTRAP,
        """
        import numpy as np

        def resample_seeds(scores, num_resamples, generator=None):
            rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
            seeds, tasks = scores.shape
            rows = rng.integers(seeds, size=(num_resamples, seeds, tasks))
            return torch.from_numpy(scores.numpy()[rows, np.arange(tasks)])

        def bootstrap_interval(statistic, *samples, confidence=0.95, num_resamples=2000, generator=None):
            if not 0 < confidence < 1:
                raise ValueError("confidence")
            point = statistic(*(sample[None] for sample in samples))
            values = statistic(*(resample_seeds(sample, num_resamples, generator) for sample in samples))
            percent = [50 - 50 * confidence, 50 + 50 * confidence]
            low, high = np.percentile(values.numpy(), percent, axis=0)
            return point[0], low, high
        """,
    ),
    "Mann and Whitney": (
        WINS,
        """
        from scipy.stats import mannwhitneyu

        def probability_of_improvement(scores_x, scores_y):
            if scores_x.shape[-1] != scores_y.shape[-1]:
                raise ValueError("tasks")
            u = mannwhitneyu(scores_x.numpy(), scores_y.numpy(), axis=-2).statistic  # [..., tasks]
            share = u / (scores_x.shape[-2] * scores_y.shape[-2])
            return torch.as_tensor(share).mean(dim=-1)
        """,
    ),
    "pairs in loops": (
        WINS,
        """
        def probability_of_improvement(scores_x, scores_y):
            tasks = scores_x.shape[-1]
            if tasks != scores_y.shape[-1]:
                raise ValueError("tasks")
            total = torch.zeros(scores_x.shape[:-2])
            for i in range(scores_x.shape[-2]):
                for j in range(scores_y.shape[-2]):
                    a, b = scores_x[..., i, :], scores_y[..., j, :]
                    total += ((a > b).float() + 0.5 * (a == b).float()).mean(dim=-1)
            return total / (scores_x.shape[-2] * scores_y.shape[-2])
        """,
    ),
    "thresholds in a loop": (
        PROFILE,
        """
        def normalized_scores(scores, random_score, reference_score):
            span = reference_score - random_score
            return torch.stack([(scores[..., t] - random_score[t]) / span[t] for t in range(len(span))], -1)

        def performance_profile(scores, thresholds):
            return torch.stack([(scores > tau).float().mean(dim=(-2, -1)) for tau in thresholds], dim=-1)
        """,
    ),
    "a profile by searchsorted": (
        PROFILE,
        """
        def normalized_scores(scores, random_score, reference_score):
            slope = 1 / (reference_score - random_score)
            return scores * slope - random_score * slope

        def performance_profile(scores, thresholds):
            ordered = scores.flatten(-2).sort(dim=-1).values.contiguous()
            n = ordered.shape[-1]
            values = thresholds.to(ordered).expand(*ordered.shape[:-1], -1).contiguous()
            return (n - torch.searchsorted(ordered, values, right=True)) / n
        """,
    ),
    "a mask as a number": (
        SHAPING,
        """
        def shaping_reward(potential, gamma, obs, next_obs, terminated):
            if gamma <= 0 or gamma > 1:
                raise ValueError("gamma")
            after, before = potential(next_obs), potential(obs)
            if after.shape != terminated.shape:
                raise ValueError("potential")
            return gamma * after * (1 - terminated.float()) - before
        """,
    ),
    "where": (
        SHAPING,
        """
        def shaping_reward(potential, gamma, obs, next_obs, terminated):
            if not 0 < gamma <= 1 or potential(obs).shape != obs.shape[:-1]:
                raise ValueError
            return torch.where(terminated, 0, gamma * potential(next_obs)) - potential(obs)
        """,
    ),
    "runs in a loop": (
        BUDGET,
        """
        import math

        def score_at_budget(costs, scores, budget):
            if costs.dim() != 2 or costs.shape != scores.shape:
                raise ValueError("shape")
            found = []
            for cost, score in zip(costs.tolist(), scores.tolist(), strict=True):
                if sorted(cost) != cost:
                    raise ValueError("costs")
                paid = [s for c, s in zip(cost, score, strict=True) if c <= budget]
                found.append(paid[-1] if paid else math.nan)
            return torch.tensor(found)

        def common_budget(*costs):
            return min(row[-1] for cost in costs for row in cost.tolist())
        """,
    ),
    "the budget by searchsorted": (
        BUDGET,
        """
        def score_at_budget(costs, scores, budget):
            if len(costs.shape) != 2 or costs.shape != scores.shape or (costs[:, 1:] < costs[:, :-1]).any():
                raise ValueError("costs")
            wanted = torch.full((len(costs), 1), budget, dtype=costs.dtype)
            count = torch.searchsorted(costs.contiguous(), wanted, right=True)
            padded = torch.cat([torch.full((len(costs), 1), torch.nan), scores], dim=1)
            return padded.gather(1, count)[:, 0]

        def common_budget(*costs):
            if len(costs) == 0:
                raise ValueError("costs")
            return torch.stack([cost.amax(dim=1).amin() for cost in costs]).min().item()
        """,
    ),
    "the verdict by signs": (
        VERDICT,
        """
        def verdict(improvement):
            low, high = (int(torch.sign(end)) for end in improvement[1:])
            return {(1, 1): "real", (-1, -1): "harmful"}.get((low, high), "not shown")
        """,
    ),
    "the verdict by the worst case": (
        VERDICT,
        """
        def verdict(improvement):
            _, low, high = (float(value) for value in improvement)
            if min(low, high) > 0:
                return "real"
            if max(low, high) < 0:
                return "harmful"
            return "not shown"
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
