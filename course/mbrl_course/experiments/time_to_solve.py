"""How long it takes from an untrained model until the agent works: what whoever runs it feels.

A seed has solved its task when its score first reaches `Experiment.solved_at` (the reasons are in `solved`).
A seed that has not is never left out: all that is known is that it would have taken longer than it was
watched, so it counts as longer than every seed that did (a right-censored time).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mbrl_course.experiments import ConfigError, get_experiment, load_header, load_results
from mbrl_course.experiments.tables import chosen_results, first_reached, labelled_groups, layout_of

COSTS = {"env_steps": "env steps", "cpu_seconds": "CPU s", "seconds": "wall s"}
CONFIDENCE = 0.95
_ENDS = ("", " low", " high")


class MedianInterval(NamedTuple):
    """A median and the interval between two of the values it was made of."""

    median: float
    low: float
    high: float


def median_interval(times: ArrayLike) -> MedianInterval:
    """The median over seeds and its distribution-free interval, from the order statistics.

    The interval from the (k + 1)-th smallest of n values to the (k + 1)-th largest misses the true median
    with probability 2 P(B <= k), B binomial (n, 1/2), whatever the distribution (David and Nagaraja, 2003,
    "Order statistics", Section 7.1): the largest k that misses it in at most 5 % of cases is taken, or
    k = 0, the range, with few seeds: it holds the median in 94 % of cases with five, in 75 % with three.

    Args:
        times: [seeds]; infinite where a seed never got there.

    Raises:
        ValueError: there are no times, or NaN among them.
    """
    values = np.sort(np.asarray(times, dtype=np.float64))
    if values.ndim != 1 or len(values) == 0 or np.isnan(values).any():
        raise ValueError(f"times is {values.tolist()}, expected one number or infinity for each seed")
    count = len(values)
    missed = 2 * np.cumsum([math.comb(count, k) for k in range(count)]) / 2**count  # [n], by k
    k = max(0, int((missed <= 1 - CONFIDENCE).sum()) - 1)
    return MedianInterval(float(np.median(values)), float(values[k]), float(values[count - 1 - k]))


def time_to_solve(logs: pd.DataFrame, solved_at: float) -> pd.DataFrame:
    """What each variant of an experiment took until it solved its task.

    Args:
        logs: rows of an experiment (see `tables`), with some of the columns env_steps, cpu_seconds, seconds.
        solved_at: the score that solves the task.

    Returns:
        A row for each variant: "what", "seeds", "solved" (so many of them) and, for each cost, its median
        over seeds as COST, with "COST low" and "COST high" (see `median_interval`), infinite where too few
        seeds solved it. Each of the three stands there once more as "... bound", what it is at the least: for
        an unsolved seed, in place of infinity, its cost so far, or the largest of a solved one.
    """
    layout = layout_of(logs)
    rows = []
    for label, group in labelled_groups(logs, layout.by).items():
        first = first_reached(group, layout.y, solved_at).set_index("seed")
        last = group.groupby("seed").tail(1).set_index("seed")
        unsolved = last.drop(first.index)
        row = {"what": label, "seeds": len(last), "solved": len(first)}
        for cost in (name for name in COSTS if name in group):
            at_least = np.fmax(unsolved[cost], first[cost].max())  # NaN, where no seed solved it, loses
            for unknown, ending in (([math.inf] * len(unsolved), ""), (at_least, " bound")):
                ends = median_interval([*first[cost], *unknown])
                row |= {f"{cost}{end}{ending}": value for end, value in zip(_ENDS, ends, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)


def solve_text(names: Sequence[str] = ()) -> str:
    """The time to solve of everything that ships, beside what others measured, as a table in Markdown.

    Args:
        names: only these experiments; by default all whose task can be solved, without those that compare
            cheap and dear settings (see `pareto`).

    Raises:
        ConfigError: there is no such experiment, nothing of it ships, or its task has no threshold.
    """
    for name in names:
        if get_experiment(name).solved_at is None:
            raise ConfigError(f"{name!r} has no return from which on its task counts as solved")
    heads = ["task, solved at", "experiment", "agent", "solved", *COSTS.values(), "published"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    machines = []
    for name, scale in chosen_results(names):
        experiment, logs, header = get_experiment(name), load_results(name, scale), load_header(name, scale)
        assert logs is not None
        assert header is not None
        if experiment.solved_at is None or (experiment.preset and not names):
            continue
        machines += header["machine"].split(" | ")
        task = f"{json.loads(header['config'])['task']}, {experiment.solved_at:.0f}"
        command = name if scale == "laptop" else f"{name} --scale {scale}"
        for place, row in time_to_solve(logs, experiment.solved_at).iterrows():
            costs = [_cell(row, cost) for cost in COSTS]
            published = experiment.published if place == 0 else ""
            solved = f"{row['solved']} of {row['seeds']}"
            lines.append(_line([task, f"`{command}`", row["what"], solved, *costs, published]))
    notes = (
        "Time until a trial, or an evaluation, first reached that return, from an untrained model: median",
        "over seeds (its 95 % interval; with up to 8 seeds the range, which is 94 % with 5 and 75 % with 3).",
        "A seed that never got there counts as longer than all that did; > is what is known of it.",
        f"Measured on {' | '.join(dict.fromkeys(machines))}; wall seconds while other programs ran beside.",
    )
    return "\n".join([*lines, "", *notes])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: pd.Series, cost: str) -> str:
    """Such as "386 (292 to 431)", "12 (9 to > 40)", or "> 40" where none of the three is known."""
    if cost not in row or pd.isna(row[cost]):
        return "-"
    median, low, high = (_number(row[cost + end], row[f"{cost}{end} bound"]) for end in _ENDS)
    return median if math.isinf(row[f"{cost} low"]) else f"{median} ({low} to {high})"


def _number(value: float, bound: float) -> str:
    if math.isinf(value):
        return f"> {_number(bound, bound)}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
