"""What stands under each experiment in a notebook: its learning curves, and the ledger of what they cost.

    plot_results("pets-cartpole", rows, SCALE, title="Cart-pole swing-up")
    plt.show()
    ledger_table("pets-cartpole", rows, SCALE)

`rows` are those of runs on this machine; behind them the curves draw the results that ship with the course.
Without rows the shipped results are drawn themselves; `show_shipped` does all of this for them, or says what
makes them where none ship. How variants are told apart is said in `tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes

from mbrl_course.evaluation import iqm_interval
from mbrl_course.experiments import get_experiment, list_experiments, load_header, load_results
from mbrl_course.experiments.pareto import pareto_table, plot_pareto
from mbrl_course.experiments.shipping import minutes_text, seeds_and_changes
from mbrl_course.experiments.tables import Layout, final_rows, labelled_groups, layout_of
from mbrl_course.plotting import line_colors, new_axes, plot_learning_curves, styled

AXIS_LABELS = {
    "env_steps": "environment steps",
    "model_calls": "model calls, imagined steps",
    "minutes": "minutes on one core",
    "trial": "trial, 0 is random",
}
LEDGER = {
    "env_steps": "env steps",
    "model_calls": "model calls",
    "agent_updates": "agent gradient steps",
    "model_updates": "model gradient steps",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
}
"""What the columns of costs are called in a ledger."""


def shipped(name: str, scale: str = "laptop") -> pd.DataFrame | None:
    """The results that a run at `scale` is compared with: those of that scale, else of the full one.

    None where none ship, and for "smoke", which shows no more than that the code runs.
    """
    for candidate in () if scale == "smoke" else (scale, "full"):
        if (table := load_results(name, candidate)) is not None:
            return table
    return None


def shipped_note(name: str, scale: str = "laptop") -> str:
    """How the shipped results of an experiment were made, in a line; what makes them, where none ship."""
    for candidate in (scale, "full"):
        if header := load_header(name, candidate):
            made = f"{seeds_and_changes(header)}, {header['machine']}, {minutes_text(header)}"
            return f"Shipped with the course: {name}, {candidate}, {made}"
    return f"No results of {name} ship yet; to make them: mbrl-course run {name} --scale {scale} --seeds 0..4"


def plot_results(
    name: str,
    rows: pd.DataFrame | None = None,
    scale: str = "laptop",
    *,
    x: str = "env_steps",
    y: str | None = None,
    ylabel: str | None = None,
    title: str = "",
    where: str = "",
    compare: bool = True,
    baseline: str | None = None,
    colors: Mapping[str, str] | None = None,
    published: tuple[float, float] | None = None,
    random_return: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Learning curves of all variants: IQM and interval over seeds, with the shipped ones dashed behind them.

    Args:
        name: of the experiment.
        rows: what was measured here; the shipped results by default.
        scale: at which it was measured, "smoke", "laptop" or "full".
        x: horizontal axis, "env_steps", another column of costs, or "minutes" of the processor. Where the
            seeds do not share its values, the curve goes through the median over seeds.
        y: column of the score; the experiment's own by default.
        ylabel: label of the vertical axis; "return" for one that is.
        title: title.
        where: draws only the rows of which this is true, such as "trial > 0" (see `pandas.DataFrame.query`).
        compare: draw the shipped results behind the rows; not where other settings were measured here.
        baseline: the variant that the others are compared with, drawn in black; the experiment's own by
            default, "" for none.
        colors: of variants, by name (see `plotting.line_colors`).
        published: lowest and highest published final return.
        random_return: return of the random policy.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: a column is missing, or there are neither rows nor shipped results.
    """
    reference = shipped(name, scale)
    if rows is None:
        rows = reference
        if rows is None:
            raise ValueError(f"rows is None and no results of {name!r} ship at {scale!r}: expected either")
        compare = False
    if not compare:
        reference = None
    if where:
        rows = rows.query(where, engine="python")
        reference = None if reference is None else reference.query(where, engine="python")
    layout = layout_of(rows)
    score = y or layout.y
    return plot_learning_curves(
        _curves(rows, layout, x, "measured here"),
        reference=None if reference is None else _curves(reference, layout_of(reference), x, "shipped"),
        x=x,
        y=score,
        baseline=_baseline(name) if baseline is None else baseline,
        colors=colors,
        published=published,
        random_return=random_return,
        xlabel=AXIS_LABELS.get(x, x.replace("_", " ")),
        ylabel=ylabel or ("return" if score.endswith("return") else score.replace("_", " ")),
        title=title,
        ax=ax,
    )


def ledger_table(
    name: str,
    rows: pd.DataFrame | None = None,
    scale: str = "laptop",
    *,
    where: str = "",
    compare: bool = True,
) -> pd.DataFrame:
    """What each variant earned in the end, and what it spent until then.

    Args:
        name: of the experiment.
        rows: what was measured here; None for the shipped results alone.
        scale: at which it was measured.
        where: counts only the rows of which this is true, as in `plot_results`.
        compare: list the shipped results below the rows.

    Returns:
        A row for each variant measured here, then for each that ships, as texts to be shown: seeds, score
        (IQM and its 95 % interval, from three seeds on), and the costs as medians over seeds; model calls are
        imagined steps, seconds leave evaluation out, and are those of the processor where they were counted.
        Costs that the experiment does not count are left out.

    Raises:
        ValueError: there are neither rows nor shipped results.
    """
    sources = {"here": rows, "shipped": shipped(name, scale) if compare or rows is None else None}
    found = []
    for source, table in sources.items():
        if table is not None:
            table = table.query(where) if where else table
            layout = layout_of(table)
            groups = labelled_groups(table, layout.by)
            found += [_ledger_row(label, source, group, layout) for label, group in groups.items()]
    if not found:
        raise ValueError(f"rows is None and no results of {name!r} ship at {scale!r}: expected either")
    return pd.DataFrame(found).fillna("").set_index(["variant", "measured"])


@styled
def show_shipped(
    name: str,
    *panels: dict[str, Any],
    ylim: tuple[float, float] | None = None,
    where: str = "",
    scale: str = "laptop",
) -> None:
    """Shows learning curves and ledger of the results that ship; the command that makes them, where none do.

    A variant has the same colour in all pictures.

    Args:
        name: of the experiment.
        panels: of each picture, what `plot_results` is given, `title` and `x`, say.
        ylim: vertical range, the same in all pictures; by default one that shows everything.
        where: uses only the rows of which this is true, as in `plot_results`.
        scale: of the results, "laptop" or "full"; where there are none, those of the full one.
    """
    print(shipped_note(name, scale))
    rows = shipped(name, scale)
    if rows is None:
        return
    by, parts = layout_of(rows).by, [panel.get("where", where) for panel in panels]
    drawn = [labelled_groups(rows.query(part, engine="python") if part else rows, by) for part in parts]
    colors = line_colors(
        list(dict.fromkeys(variant for groups in drawn for variant in groups)), _baseline(name)
    )
    axes = new_axes(columns=len(panels), width=6.2, height=4.2)
    for ax, panel in zip(axes, panels, strict=True):
        plot_results(name, scale=scale, ax=ax, **{"where": where, "colors": colors, **panel})
    labels = [ax.get_legend_handles_labels()[1] for ax in axes]
    styles = [(panel.get("colors"), panel.get("baseline")) for panel in panels]
    shared = len(panels) > 1 and all(
        (names, style) == (labels[0], styles[0]) for names, style in zip(labels, styles, strict=True)
    )
    for ax, names in zip(axes, labels, strict=True):  # below the picture a legend hides no line
        ax.get_legend().remove()
        if not shared:
            columns = 2 if len(names) > 4 and max(map(len, names)) < 30 else 1
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)
    if shared:
        handles = axes[0].get_legend_handles_labels()[0]
        columns = max(1, min(len(handles), 120 // (max(map(len, labels[0])) + 8)))
        axes[0].figure.legend(handles, labels[0], loc="outside lower center", ncols=columns)
    lowest, highest = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(ylim or (min(lowest), max(highest)))
    plt.show()
    display(ledger_table(name, scale=scale, where=where))


def show_pareto(name: str, scale: str = "laptop") -> None:
    """Shows what each setting earns for its computing; the command that measures it, where nothing ships.

    Args:
        name: of an experiment with a preset, see `pareto`.
        scale: of the results.
    """
    print(shipped_note(name, scale))
    rows, experiment = shipped(name, scale), get_experiment(name)
    if rows is None or experiment.solved_at is None:
        return
    plot_pareto(rows, experiment.solved_at, preset=experiment.preset, title=experiment.title)
    plt.show()
    table = pareto_table(rows, experiment.solved_at).rename(columns={"cost": "CPU seconds"})
    table.index += 1  # the numbers in the picture
    display(table[["what", "CPU seconds", "score", "seeds", "solved", "front"]].round(0))


def _baseline(name: str) -> str:
    """What the variants of an experiment are compared with; "" for nothing, or where that week is missing."""
    return get_experiment(name).baseline if name in list_experiments() else ""


def _ledger_row(label: str, source: str, group: pd.DataFrame, layout: Layout) -> dict[str, str]:
    final = final_rows(group, layout.x)
    scores = final[layout.y].to_numpy(dtype=np.float64)
    point, low, high = iqm_interval(scores)
    interval = f" [{_score(low)}, {_score(high)}]" if len(scores) >= 3 else ""
    score = "return" if layout.y.endswith("return") else layout.y
    row = {"variant": label or "-", "measured": source, "seeds": str(len(scores))}
    row[score] = f"{_score(point)}{interval}"
    costs = [cost for cost in LEDGER if cost in final]
    if "cpu_seconds" in costs and final["cpu_seconds"].notna().all():
        costs.remove("seconds")  # on the wall they count what else the machine had to do
    return row | {LEDGER[cost]: _amount(final[cost].median()) for cost in costs}


def _score(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _amount(value: float) -> str:
    """A number in a few digits, such as "2.5", "1,800" or "37.5 M"."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.1f}" if value < 10 and value != round(value) else f"{value:,.0f}"


def _curves(rows: pd.DataFrame, layout: Layout, x: str, name: str) -> dict[str, pd.DataFrame]:
    """The rows of each variant, ready to be drawn over `x`; `name` where there is nothing to compare."""
    if x == "minutes":
        rows = rows.assign(minutes=rows["cpu_seconds" if "cpu_seconds" in rows else "seconds"] / 60)
    if x not in rows.columns:
        raise ValueError(f"x is {x!r}, expected 'minutes' or a column: {', '.join(rows.columns)}")
    curves = {}
    for label, group in labelled_groups(rows, layout.by).items():
        if layout.x not in (None, x):  # at each trial, say, all seeds stand at their median
            group = group.assign(**{x: group.groupby(layout.x)[x].transform("median")})
        curves[label if layout.by else name] = group
    return curves
