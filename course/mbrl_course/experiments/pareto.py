"""What a return costs: settings of one agent by what they earn and by the seconds that they compute.

A setting is on the *Pareto front* when no other earns at least as much for at most the same computing. What
lies behind the front is wasted; where on the front to stand is a matter of patience.
"""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mbrl_course.evaluation import iqm
from mbrl_course.experiments.tables import first_reached, labelled_groups, layout_of
from mbrl_course.plotting import COLORS, GREY, new_axes, styled

ABOVE: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "columnspacing": 1.2}
"""Where a legend hides nothing."""
LAST = 3
"""Evaluations at the end of a curve whose mean is what a seed earns: a single trial says little."""


def pareto_front(costs: ArrayLike, scores: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other one beats: at most the same cost, at least the same score, and better in one.

    Args:
        costs: [N], lower is better.
        scores: [N], higher is better.

    Returns:
        Whether each point is on the front, bool [N]; of equal points all are.

    Raises:
        ValueError: costs and scores are not of one length, or NaN is among them.
    """
    cost, score = np.asarray(costs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if cost.ndim != 1 or cost.shape != score.shape or np.isnan(cost).any() or np.isnan(score).any():
        got = f"costs has shape {list(cost.shape)} and scores {list(score.shape)}"
        raise ValueError(f"{got}, expected one number each for every point")
    no_worse = (cost[None] <= cost[:, None]) & (score[None] >= score[:, None])  # [N, N]: is j as good as i?
    better = (cost[None] < cost[:, None]) | (score[None] > score[:, None])
    return np.logical_not((no_worse & better).any(axis=1))


def pareto_table(logs: pd.DataFrame, solved_at: float, cost: str = "cpu_seconds") -> pd.DataFrame:
    """What each setting costs, earns, and takes until it solves the task; the cheapest first.

    Args:
        logs: rows of an experiment (see `tables`) in which every variant had as many trials or steps.
        solved_at: the return that solves the task.
        cost: the column of costs.

    Returns:
        A row for each variant: "what", "cost" of the whole run (median over seeds), "score" (IQM over seeds
        of the mean return of the last `LAST` evaluations), "seeds", "solved" (so many of them), "front"
        (whether it is on the Pareto front), and with one entry per seed "costs", "scores", and "solve_costs"
        (what was spent until the task was solved; infinite where it was not).

    Raises:
        ValueError: there is no such column of costs.
    """
    if cost not in logs:
        raise ValueError(f"cost is {cost!r}, expected a column: {', '.join(logs.columns)}")
    layout = layout_of(logs)
    rows: list[dict[str, Any]] = []
    for label, group in labelled_groups(logs, layout.by).items():
        by_seed = group.groupby("seed")
        costs, scores = by_seed[cost].last(), by_seed[layout.y].agg(lambda returns: returns.tail(LAST).mean())
        solved = first_reached(group, layout.y, solved_at).set_index("seed")[cost]
        rows.append(
            {
                "what": label,
                "cost": float(costs.median()),
                "score": iqm(scores),
                "seeds": len(costs),
                "solved": len(solved),
                "costs": costs.tolist(),
                "scores": scores.tolist(),
                "solve_costs": solved.reindex(costs.index, fill_value=np.inf).tolist(),
            }
        )
    table = pd.DataFrame(rows)
    table.insert(5, "front", pareto_front(table["cost"], table["score"]))
    return table.sort_values("cost", kind="stable", ignore_index=True)


@styled
def plot_pareto(
    logs: pd.DataFrame, solved_at: float, *, preset: str = "", cost: str = "cpu_seconds", title: str = ""
) -> NDArray[np.object_]:
    """Two panels: what each setting earns for its computing, with the front, and when each solved the task.

    The settings are numbered from the cheapest to the dearest, alike in both panels. The front goes on to the
    dearest setting: what costs more than its last point earns no more.

    Args:
        logs: see `pareto_table`.
        solved_at: see `pareto_table`.
        preset: the variant that was chosen; it is marked where it is among them.
        cost: see `pareto_table`.
        title: title of the figure.

    Returns:
        The axes [2].

    Raises:
        ValueError: see `pareto_table`.
    """
    table = pareto_table(logs, solved_at, cost)
    axes = new_axes(2, width=5.6, height=0.24 * len(table) + 1.6)
    colors = [COLORS[0] if front else GREY for front in table["front"]]
    colors = [
        COLORS[1] if what == preset else color for what, color in zip(table["what"], colors, strict=True)
    ]
    _plot_front(axes[0], table, colors, solved_at)
    _plot_solve_costs(axes[1], table, colors, preset)
    unit = {"cpu_seconds": "CPU seconds", "seconds": "seconds"}.get(cost, cost.replace("_", " "))
    axes[0].set(xlabel=f"{unit} of a whole run, median", ylabel=f"return of the last {LAST} evaluations, IQM")
    axes[1].set(xlabel=f"{unit} until a return of {solved_at:.0f}")
    if title:
        axes[0].figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return axes


def _plot_front(ax: Any, table: pd.DataFrame, colors: list[str], solved_at: float) -> None:
    front = table[table["front"]]
    costs = [*front["cost"], table["cost"].max()]
    scores = [*front["score"], front["score"].max()]
    ax.step(costs, scores, where="post", color=COLORS[0], linewidth=1.5, label="Pareto front")
    ax.axhline(solved_at, color=GREY, linestyle=":", linewidth=1.2, label="solved")
    for row, color in zip(table.itertuples(), colors, strict=True):
        ax.plot([row.cost] * 2, [min(row.scores), max(row.scores)], color=color, linewidth=1, alpha=0.6)
        marker = {"markersize": 17, "markeredgecolor": color, "markeredgewidth": 1.5}
        ax.plot(row.cost, row.score, "o", **marker, markerfacecolor="white" if color == GREY else color)
        ink = color if color == GREY else "white"
        text = {"ha": "center", "va": "center_baseline", "fontsize": 10, "fontweight": "bold"}
        ax.annotate(str(row.Index + 1), (row.cost, row.score), color=ink, **text)
    _short_log_axis(ax)
    ax.plot([], [], color=GREY, linewidth=1, alpha=0.6, label="all seeds")
    if COLORS[1] in colors:
        ax.plot([], [], "o", color=COLORS[1], markersize=9, label="preset")
    ax.legend(**ABOVE, ncols=4)


def _plot_solve_costs(ax: Any, table: pd.DataFrame, colors: list[str], preset: str) -> None:
    for row, color in zip(table.itertuples(), colors, strict=True):
        height = len(table) - 1 - row.Index
        solved = [spent for spent in row.solve_costs if np.isfinite(spent)]
        never = [whole for whole, spent in zip(row.costs, row.solve_costs, strict=True) if np.isinf(spent)]
        ax.plot(solved, [height] * len(solved), "o", color=color, markersize=6, alpha=0.8)
        ax.plot(never, [height] * len(never), ">", color=color, markersize=7, markerfacecolor="white")
    marks = [" (preset)" if what == preset else "" for what in table["what"]]
    names = [
        f"{row.what}{mark}  {row.Index + 1}" for row, mark in zip(table.itertuples(), marks, strict=True)
    ]
    ax.set_yticks(range(len(table)), names[::-1])
    ax.set_ylim(-0.6, len(table) - 0.4)
    _short_log_axis(ax)
    ax.plot([], [], "o", color=GREY, label="one seed")
    ax.plot([], [], ">", color=GREY, markersize=7, markerfacecolor="white", label="not solved until its end")
    ax.legend(**ABOVE, ncols=2)


def _short_log_axis(ax: Any) -> None:
    """A logarithmic horizontal axis that spans less than a decade or two, with plain numbers."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ticks = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8) if high < 15 * low else (1, 2, 3, 5)
    ax.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=ticks))
    ax.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
