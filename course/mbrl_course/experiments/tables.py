"""Figures and tables of experiments, from their logs alone: from runs on this machine, or from what ships.

Every experiment's rows follow the same conventions, so that nothing here has to know any of them: columns of
texts name what is compared ("metric" the panels), the first of `AXES` that is there is the horizontal axis,
the first of `SCORES` is drawn over it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from mbrl_course.evaluation import iqm, iqm_interval
from mbrl_course.experiments import (
    SCALES,
    ConfigError,
    get_experiment,
    list_experiments,
    list_results,
    load_header,
    load_results,
)
from mbrl_course.experiments.fields import differences_from_full
from mbrl_course.experiments.files import read_csv
from mbrl_course.experiments.shipping import minutes_text, seeds_and_changes

AXES = ("trial", "env_steps", "budget", "step", "iteration")
SCORES = ("eval_return", "return", "value")
COSTS = ("env_steps", "model_calls", "agent_updates", "model_updates", "seconds", "cpu_seconds")
PANELS, SETTINGS = "metric", "settings"
AS_SET = "as set"
"""What an experiment is called that compares nothing."""
ERRORS = ("E_1", "E_5", "E_10")
"""What a model is off by after so many steps, where an agent has one."""
OUTCOME = ("what", "seeds", "iqm", "low", "high", "env_steps")
JUDGEMENT = ("number", "claim", "promised", "gain", "low", "high", "verdict")
"""The columns of a final table, and of verdicts, that fit in a line of a wide terminal."""
MOSTLY_EVALUATION = 3
"""So many times what a run computed it took on the wall, if evaluation was most of it."""
RESAMPLES = 500
"""Of the bootstrap: enough for the digits that a table shows."""


class Layout(NamedTuple):
    """Which columns of a table are what."""

    x: str | None
    y: str
    by: list[str]


def layout_of(logs: pd.DataFrame) -> Layout:
    """Finds the axis, the score and the columns that name what is compared, by the module's conventions."""
    by = [name for name in logs.columns if name != "seed" and not is_numeric_dtype(logs[name])]
    x = next((name for name in AXES if name in logs.columns), None)
    return Layout(x, next(name for name in SCORES if name in logs.columns), by)


def read_logs(name: str, scale: str = "laptop", out: str | Path = "runs") -> pd.DataFrame:
    """The rows of an experiment, those of unfinished seeds included; the shipped ones if it was not run here.

    Args:
        name: of the experiment.
        scale: "smoke", "laptop" or "full".
        out: where the runs lie.

    Returns:
        All rows; runs with changed fields, as those of a sweep, are told apart by the column "settings".

    Raises:
        ConfigError: there is no such experiment.
        FileNotFoundError: it was not run, and nothing ships.
    """
    get_experiment(name)
    own = own_logs(name, scale, out)
    if own is not None:
        return own
    shipped = load_results(name, scale)
    if shipped is None:
        raise FileNotFoundError(
            f"there are no logs of {name} in {Path(out) / name}, and none ship at this scale: "
            f"run `mbrl-course run {name} --scale {scale}`"
        )
    return shipped


def own_logs(name: str, scale: str = "laptop", out: str | Path = "runs") -> pd.DataFrame | None:
    """The rows of an experiment that was run on this machine, see `read_logs`; None where it was not."""
    found: dict[str, list[pd.DataFrame]] = {}
    for changes, files in _seed_files(name, scale, out):
        tables = [read_csv(path) for path in files.values() if path.stat().st_size > 0]
        if tables:
            found[changes] = tables
    if not found:
        return None
    logs = pd.concat([t.assign(**{SETTINGS: key}) for key, tables in found.items() for t in tables])
    logs = logs.sort_values("seed", kind="stable", ignore_index=True)
    return logs if len(found) > 1 else logs.drop(columns=SETTINGS)


def unfinished_seeds(name: str, scale: str = "laptop", out: str | Path = "runs") -> dict[str, list[int]]:
    """The seeds that have rows on this machine and are not finished, by what was changed in them.

    They were interrupted, are still running, or stopped with an error, a loss that is not finite say.
    """
    found = {}
    for changes, files in _seed_files(name, scale, out):
        seeds = [
            int(seed.removeprefix("seed_")) for seed, path in files.items() if ".partial" in path.suffixes
        ]
        if seeds:
            found[changes] = sorted(seeds)
    return found


def _seed_files(name: str, scale: str, out: str | Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """For each folder of runs what was changed in them, and the rows of each of its seeds, "seed_0" say."""
    for folder in sorted((Path(out) / name).glob(f"{scale}*")):
        if not folder.is_dir() or folder.name.split(",")[0] != scale:
            continue
        files = {path.name.split(".")[0]: path for path in folder.glob("seed_*.partial.csv")}
        files |= {path.stem: path for path in folder.glob("seed_*.csv") if path.stem.count(".") == 0}
        yield folder.name.removeprefix(scale).removeprefix(",") or AS_SET, files


def labelled_groups(logs: pd.DataFrame, by: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The rows of each group by its name, such as "CEM", in the order in which they appear."""
    if not by:
        return {AS_SET: logs}
    names = logs[list(by)].astype(str).agg(", ".join, axis=1)
    return {str(name): logs[names == name] for name in dict.fromkeys(names)}


def final_rows(group: pd.DataFrame, x: str | None) -> pd.DataFrame:
    """The row of each seed at the last place that all of them have reached, or the last row of each."""
    if x is not None:
        shared = set.intersection(*(set(rows[x]) for _, rows in group.groupby("seed")))
        if shared:
            group = group[group[x] <= max(shared)]
    return group.groupby("seed").tail(1)


def first_reached(group: pd.DataFrame, y: str, threshold: float) -> pd.DataFrame:
    """The row of each seed in which the score first was `threshold` or more; none of other seeds."""
    return group[group[y] >= threshold].groupby("seed").head(1)


def thresholds_of(name: str, logs: pd.DataFrame) -> dict[str, float]:
    """The returns that count: 80 % of what the baseline earns in the end, and what solves the task.

    Args:
        name: of the experiment.
        logs: its rows, with the same settings all of them.

    Returns:
        The returns by what they are, such as "80 % of PPO".
    """
    experiment, layout = get_experiment(name), layout_of(logs)
    by = [column for column in layout.by if column != SETTINGS]
    baseline = labelled_groups(logs, by).get(experiment.baseline) if experiment.baseline else None
    thresholds = {}
    if baseline is not None:
        final = iqm(final_rows(baseline, layout.x)[layout.y])
        thresholds[f"80 % of {experiment.baseline}"] = final - 0.2 * abs(final)
    if experiment.solved_at is not None:
        thresholds["solved"] = experiment.solved_at
    return thresholds


def final_table(name: str, logs: pd.DataFrame) -> pd.DataFrame:
    """What came out in the end, for each group: the score's IQM with its interval, and what it cost.

    Args:
        name: of the experiment.
        logs: its rows.

    Returns:
        One row per group: its name, seeds, iqm, low and high at the end of the curves, the costs and the
        model's errors there (medians over seeds) and, for each of `thresholds_of`, how many seeds reached it,
        and the median of the steps and seconds that they took; infinite where half of them did not. A
        threshold is called by its number; where there are several settings, each has its own 80 %, called
        "80 % of PPO", say.
    """
    parts = [logs] if SETTINGS not in logs else [part for _, part in logs.groupby(SETTINGS, sort=False)]
    table = pd.DataFrame([row for part in parts for row in _final_lines(name, part, len(parts) > 1)])
    first = [column for column in ("what", "seeds", "iqm", "low", "high", *COSTS, *ERRORS) if column in table]
    table = table[[*first, *table.columns.drop(first)]]
    return table.round({column: 3 for column in ("iqm", "low", "high", *ERRORS)})


def outcome_table(name: str, logs: pd.DataFrame) -> pd.DataFrame:
    """What came out in the end, without what it cost: `final_table` in few columns.

    Several metrics stand side by side, each as "IQM [low,high]", a row for each group; where there are fewer
    groups than metrics, the other way round.
    """
    if PANELS not in logs:
        return final_table(name, logs).filter(items=OUTCOME)
    columns = {}
    for metric, rows in logs.groupby(PANELS, sort=False):
        table = final_table(name, rows.drop(columns=PANELS)).set_index("what")
        columns[metric] = table.apply(lambda row: f"{row.iqm:.3g} [{row.low:.3g},{row.high:.3g}]", axis=1)
    frame = pd.DataFrame(columns)
    frame = frame.T if len(frame.columns) > len(frame) else frame
    return frame.rename_axis("what").reset_index()


def _final_lines(name: str, logs: pd.DataFrame, several: bool) -> list[dict[str, Any]]:
    """The rows of `final_table` for the rows of one setting; `several`: there are others."""
    layout, rows = layout_of(logs), []
    thresholds = {
        what if several and what != "solved" else f"{value:.0f}": value
        for what, value in thresholds_of(name, logs).items()
    }
    for label, group in labelled_groups(logs, layout.by).items():
        final = final_rows(group, layout.x)
        point, low, high = iqm_interval(final[layout.y], num_resamples=RESAMPLES)
        row = {"what": label, "seeds": len(final), "iqm": point, "low": low, "high": high}
        row |= {cost: final[cost].median() for cost in COSTS if cost in final.columns}
        # without a model there is no error of it
        row |= {k: final[k].dropna().median() for k in ERRORS if k in final and final[k].notna().any()}
        for what, threshold in thresholds.items():
            first, seeds = first_reached(group, layout.y, threshold), group["seed"].nunique()
            row[f"reached {what}"] = len(first)
            for cost in [name for name in ("env_steps", "seconds", "cpu_seconds") if name in group]:
                taken = [*first[cost], *[np.inf] * (seeds - len(first))]
                row[f"{cost} to {what}"] = float(np.median(taken))
        rows.append(row)
    return rows


def tables_text(name: str, logs: pd.DataFrame, costs: bool = True) -> str:
    """The final table of an experiment, what its thresholds are, and, where it has claims, its verdicts.

    Args:
        name: of the experiment.
        logs: its rows.
        costs: what the results cost, too, and when the thresholds were reached; else only what came out.
    """
    table = final_table(name, logs) if costs else outcome_table(name, logs)
    text = table.to_string(index=False, na_rep="-")
    if costs and SETTINGS not in logs.columns:
        for what, value in thresholds_of(name, logs).items():
            if what.startswith("80 % of "):
                what = f"at most 20 % less than what {what.removeprefix('80 % of ')} earns in the end"
            text += f"\nreached {value:.0f}: {what}"
    verdicts = get_experiment(name).verdicts
    if verdicts is None or SETTINGS in logs.columns:
        return text
    try:
        judged = verdicts(logs)
        return f"{text}\n\n{(judged if costs else judged.filter(items=JUDGEMENT)).to_string(index=False)}"
    except ModuleNotFoundError as error:  # an edition that leaves week 8's module to the students
        return f"{text}\n\nno verdicts without {error.name}"


def save_figure(name: str, logs: pd.DataFrame, path: str | Path) -> Path:
    """Draws an experiment's figure into a file.

    Args:
        name: of the experiment.
        logs: its rows.
        path: the file; its ending chooses the format.

    Returns:
        The path.
    """
    import matplotlib.pyplot as plt

    experiment = get_experiment(name)
    if experiment.preset and experiment.solved_at is not None:
        from mbrl_course.experiments.pareto import plot_pareto

        axes = plot_pareto(logs, experiment.solved_at, preset=experiment.preset)
    else:
        axes = _plot_panels(logs, experiment.baseline)
    figure = axes[0].figure
    figure.suptitle(experiment.title, x=0.01, ha="left", fontweight="bold", fontsize=11)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return target


def _plot_panels(logs: pd.DataFrame, baseline: str = "") -> NDArray[np.object_]:
    """The learning curves, or where there are none the scores, in a panel for each metric."""
    from mbrl_course.plotting import line_colors, new_axes, plot_learning_curves, plot_scores

    layout = layout_of(logs)
    by = [column for column in layout.by if column != PANELS]
    panels = {layout.y.replace("_", " "): (layout.y, logs)}
    if PANELS in layout.by:
        panels = {str(panel): (layout.y, rows) for panel, rows in logs.groupby(PANELS, sort=False)}
    errors = [name for name in ERRORS if name in logs.columns and logs[name].notna().any()]
    if layout.x is not None and errors:
        panels[f"{errors[-1]}, the model's error"] = (errors[-1], logs.dropna(subset=errors[-1]))
    colors = line_colors(list(labelled_groups(logs, by)), baseline)  # the same in all panels
    axes = new_axes(len(panels), width=6.4, height=4.2)
    for ax, (ylabel, (y, rows)) in zip(axes, panels.items(), strict=True):
        groups = labelled_groups(rows, by)
        if layout.x is not None and rows[layout.x].nunique() > 1:
            xlabel = {"env_steps": "environment steps"}.get(layout.x, layout.x)
            plot_learning_curves(
                groups,
                x=layout.x,
                y=y,
                baseline=baseline,
                colors=colors,
                xlabel=xlabel,
                ylabel=ylabel,
                ax=ax,
            )
            if y in ERRORS:
                ax.set_yscale("log")
        else:
            named = pd.concat([group.assign(what=label) for label, group in groups.items()])
            plot_scores(named, "what", y, ylabel=ylabel, ax=ax)
    return axes


class SeedMinutes(NamedTuple):
    """What a seed takes, and how that was measured."""

    minutes: float
    clock: Literal["processor", "processor, without evaluation", "wall"]


def minutes_per_seed(name: str, scale: str = "laptop") -> SeedMinutes | None:
    """What one seed of an experiment takes with all its variants, by what ships; None where nothing does.

    The median over seeds of the processor's time, which other programs hardly change. Of older results the
    evaluation's is not known; where it seems to be most of it, and where even that is not known, the time on
    the wall.
    """
    logs, header = load_results(name, scale), load_header(name, scale)
    if logs is None or header is None:
        return None
    key = "cpu_minutes" if "cpu_minutes" in header else "minutes"
    median = float(header[key].split(", ")[-1].split()[0])  # such as "8.3 in all, 2.11 for a seed"
    if key == "cpu_minutes":
        return SeedMinutes(median, "processor")
    if "cpu_seconds" in logs:
        variants = logs.groupby(["seed", *layout_of(logs).by[:1]], sort=False)["cpu_seconds"].max()
        minutes = variants.groupby("seed").sum().median() / 60
        if minutes > median / MOSTLY_EVALUATION:
            return SeedMinutes(minutes, "processor, without evaluation")
    return SeedMinutes(median, "wall")


def chosen_results(names: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Name and scale of the shipped results of these experiments, or of all, in the order of the course.

    Raises:
        ConfigError: there is no such experiment, or nothing of it ships.
    """
    shipped = list_results()
    for name in names:
        get_experiment(name)
        if name not in {known for known, _ in shipped}:
            raise ConfigError(f"no results of {name!r} ship; there are those of {_listed(shipped)}")
    order = {name: place for place, name in enumerate(list_experiments())}
    chosen = [pair for pair in shipped if pair[0] in order and pair[0] in (names or order)]
    return sorted(chosen, key=lambda pair: (order[pair[0]], SCALES.index(pair[1])))


def results_text(names: Sequence[str] = ()) -> str:
    """All shipped results beside the published figures, as a text.

    Args:
        names: only these experiments, and then with what their results cost; all of them by default.

    Raises:
        ConfigError: there is no such experiment, or nothing of it ships.
    """
    texts = [_one_result(name, scale, costs=bool(names)) for name, scale in chosen_results(names)]
    return "\n\n".join(
        [*texts, *([] if names else ["`mbrl-course results NAME` shows what these results cost."])]
    )


def _one_result(name: str, scale: str, costs: bool) -> str:
    logs, header = load_results(name, scale), load_header(name, scale)
    assert logs is not None
    assert header is not None
    experiment = get_experiment(name)
    about = {"published": experiment.published or "nothing that we know of", "remark": experiment.remark}
    if experiment.published:
        about["settings"] = differences_from_full(name, scale)
    about["measured"] = f"{seeds_and_changes(header)}; {minutes_text(header)}; {header['machine']}"
    lines = [f"{name}, {scale}: {experiment.title}"]
    for what, text in about.items():
        lines += textwrap.wrap(text, 110, initial_indent=f"  {what:<10} ", subsequent_indent=" " * 13)
    return "\n".join([*lines, *(f"    {line}" for line in tables_text(name, logs, costs).splitlines())])


def _listed(shipped: Sequence[tuple[str, str]]) -> str:
    return ", ".join(dict.fromkeys(name for name, _ in shipped))
