"""The plots of the course, all in one clean style. The films are in `mbrl_course.films`.

Every function draws into the axes it is given, or into a new figure, and returns the axes. So a picture can
be put beside another one, or be changed afterwards with plain matplotlib.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from keyword import iskeyword
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike, NDArray

from mbrl_course.evaluation import aggregate_curves, learning_curve, summary

COLORS: list[str] = [mpl.colors.to_hex(color) for color in sns.color_palette("colorblind")]
"""The colours of the lines in order; they can be told apart by colour-blind readers."""
GREY = "#6b6b6b"
STYLE: dict[Any, Any] = {
    **sns.axes_style("ticks"),
    "axes.grid": True,
    "axes.prop_cycle": mpl.rcsetup.cycler(color=COLORS),
    "axes.labelsize": 11,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "figure.figsize": (6.4, 4.0),
    "font.sans-serif": ["DejaVu Sans"],
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "image.cmap": "viridis",
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "patch.force_edgecolor": False,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
}

P = ParamSpec("P")
R = TypeVar("R")


def use_style() -> None:
    """Makes the course's style the one of all pictures that follow, those of plain matplotlib too.

    The functions of this module draw in it anyway, but what is set on their axes afterwards, a title or a
    legend, say, is not theirs.
    """
    mpl.rcParams.update(STYLE)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A plotting function that draws in the course's style and leaves matplotlib's settings as they were."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


@styled
def new_axes(columns: int = 1, rows: int = 1, width: float = 5.2, height: float = 3.6) -> NDArray[np.object_]:
    """A figure in the course's style with a grid of axes, as an array [rows * columns].

    Args:
        columns: axes beside each other.
        rows: axes above each other.
        width: of each, in inches.
        height: of each, in inches.
    """
    _, axes = plt.subplots(rows, columns, figsize=(columns * width, rows * height), squeeze=False)
    return np.asarray(axes.ravel(), dtype=object)


def line_colors(names: Sequence[str], baseline: str = "") -> dict[str, str]:
    """The colour of each line by its name.

    Three or more names that differ in their numbers only, such as "noise=0", "noise=0.1" and "noise=1", get
    colours from dark to light in the order of these numbers; others those of `COLORS`, in an order in which
    those that look alike stand far apart.

    Args:
        names: of the lines.
        baseline: the one that the others are compared with; it is black, and has no part in the order.
    """
    others = [name for name in names if name != baseline]
    ordered = _by_number(others)
    colors = [COLORS[place] for place in _APART] * (1 + len(others) // len(_APART))
    if len(ordered) >= 3:
        others, shades = ordered, plt.get_cmap("viridis")(np.linspace(0, 0.82, len(ordered)))
        colors = [mpl.colors.to_hex(shade) for shade in shades]
    found = dict(zip(others, colors, strict=False))
    return {name: found.get(name, "black") for name in names}


@styled
def plot_learning_curves(
    results: Mapping[str, pd.DataFrame],
    *,
    x: str = "env_steps",
    y: str = "eval_return",
    reference: Mapping[str, pd.DataFrame] | None = None,
    baseline: str = "",
    colors: Mapping[str, str] | None = None,
    published: tuple[float, float] | None = None,
    random_return: float | None = None,
    xlabel: str = "environment steps",
    ylabel: str = "return",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Return against environment steps: IQM over seeds with its 95 % bootstrap interval.

    Lines whose names differ in their numbers only stand in the order of these numbers. Where all names but
    the baseline's are of the form "field=value", the labels say "field 3" for numbers, and "value" for words.
    Where all lines have as many seeds, and there is no reference, the vertical axis says how many.

    Args:
        results: a table for each line, one row per seed and point, with the columns "seed", `x` and `y`. With
            one or two seeds, where an interval means nothing, the seeds are drawn instead.
        x: column of the horizontal axis.
        y: column of the score.
        reference: tables of shipped results, drawn dashed behind the lines: in the colour of the line of the
            same name, without their interval where that line has one; others in the colour that their number
            has among those of the lines, or in grey.
        baseline: the line that the others are compared with: black, and dashed where no reference is.
        colors: of the lines, by name; those of `line_colors` by default.
        published: lowest and highest published final return, drawn as a band at the right.
        random_return: return of the random policy, drawn as a dotted line.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
        title: title.
        ax: where to draw.

    Raises:
        ValueError: a table lacks one of the columns.
    """
    ax = ax or new_axes()[0]
    reference = reference or {}
    names = list(dict.fromkeys([*results, *reference]))
    if ordered := _by_number([name for name in names if name != baseline]):
        names = [*(name for name in names if name == baseline), *ordered]
    known = line_colors(names if len(ordered) >= 3 else list(results), baseline) | dict(colors or {})
    labels = _short_labels(names, baseline)
    strength = 0.2 if len(names) <= 4 else 0.08  # many bands over each other hide the lines
    curves = {name: learning_curve(frame, x, y) for name, frame in results.items()}
    counts = {name: int(curve["seeds"].iloc[0]) for name, curve in curves.items()}
    said_once = not reference and len(counts) > 1 and len(set(counts.values())) == 1
    dashes = iter(_DASHES * (1 + len(names) // len(_DASHES)))
    for name in names:
        if name in reference:
            curve = learning_curve(reference[name], x, y)
            color = known.get(name, "black" if name == baseline else GREY)
            style = _DASHES[0] if color != GREY else next(dashes)
            if counts.get(name, 0) < 3:  # two bands in one colour could not be told apart
                low, high = curve["low"], curve["high"]
                ax.fill_between(
                    curve[x], low, high, color=color, alpha=0.75 * strength, linewidth=0, zorder=1
                )
            label = f"{labels[name]} (reference, {_seeds(int(curve['seeds'].iloc[0]))})"
            if name in results:
                label = "_" + label  # one entry for all of them says what dashes mean
            ax.plot(
                curve[x], curve["iqm"], color=color, linestyle=style, linewidth=1.5, label=label, zorder=2
            )
        if name not in results:
            continue
        curve, color = curves[name], known[name]
        line: dict[str, Any] = {"color": color, "marker": "o" if len(curve) <= 25 else None, "markersize": 4}
        if name == baseline and not reference:
            line["linestyle"] = _DASHES[0]
        elif len(ordered) >= 3:  # of lines that run together the later one is the thinner one
            line["linewidth"] = 3.2 - 1.8 * ordered.index(name) / (len(ordered) - 1)
        if counts[name] >= 3:
            low, high = curve["low"], curve["high"]
            ax.fill_between(curve[x], low, high, color=color, alpha=strength, linewidth=0, zorder=3)
        elif counts[name] == 2:
            for _, one in results[name].groupby("seed"):
                ax.plot(one[x], one[y], color=color, alpha=0.4, linewidth=1, zorder=3)
        label = labels[name] if said_once else f"{labels[name]} ({_seeds(counts[name])})"
        ax.plot(curve[x], curve["iqm"], label=label, zorder=4, **line)
    if shared := set(results) & set(reference):
        seeds = max(reference[name]["seed"].nunique() for name in shared)
        label = f"reference ({_seeds(seeds)})"
        ax.plot([], [], color=GREY, linestyle=_DASHES[0], linewidth=1.5, label=label)
    if published is not None:
        ax.axhspan(
            *published, color=COLORS[2], alpha=0.12, linewidth=0, zorder=0, label="published, at the end"
        )
    if random_return is not None:
        ax.axhline(random_return, color=GREY, linestyle=":", linewidth=1.5, label="random policy")
    if said_once:
        seeds = max(counts.values())
        ylabel += f", IQM over {_seeds(seeds)}" if seeds >= 3 else f", {_seeds(seeds)}"
    return _finish(ax, xlabel, ylabel, title)


@styled
def plot_losses(
    losses: Mapping[str, Sequence[float] | pd.Series],
    *,
    holdout: Mapping[str, float] | None = None,
    xlabel: str = "gradient step",
    ylabel: str = "mean squared error, normalised",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Training loss against gradient steps, with a logarithmic vertical axis.

    Args:
        losses: the losses of each fit, one per gradient step; or a pandas Series with the step as index.
        holdout: final hold-out loss of each fit, drawn as a cross at its last step.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
        title: title.
        ax: where to draw.
    """
    ax = ax or new_axes()[0]
    for (name, values), color in zip(losses.items(), _cycle(), strict=False):
        steps = np.asarray(values.index if isinstance(values, pd.Series) else range(1, len(values) + 1))
        marker = "o" if len(steps) <= 25 else None  # a handful of steps would be hard to see beside hundreds
        ax.plot(steps, values, color=color, label=name, linewidth=1.5, marker=marker, markersize=4)
        if holdout is not None and name in holdout:
            ax.plot(steps[-1], holdout[name], "X", color=color, markersize=8, markeredgecolor="white")
    if holdout:
        ax.plot([], [], "X", color=GREY, markersize=8, markeredgecolor="white", label="hold-out loss")
    ax.set_yscale("log")
    return _finish(ax, xlabel, ylabel, title)


@styled
def plot_k_step_errors(
    errors: Mapping[str, ArrayLike],
    *,
    ylabel: str = "$E_k$, squared units of the state",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Error E_k of the open-loop prediction against the number of steps k, logarithmic.

    Args:
        errors: for each model E_1 .. E_K, [K], or one row per seed, [seeds, K], of which the IQM and its
            interval are drawn.
        ylabel: label of the vertical axis.
        title: title.
        ax: where to draw.
    """
    ax = ax or new_axes()[0]
    for (name, values), color in zip(errors.items(), _cycle(), strict=False):
        curves = np.atleast_2d(np.asarray(values, dtype=np.float64))  # [seeds, K]
        steps = np.arange(1, curves.shape[1] + 1)
        point, low, high = aggregate_curves(curves)
        if len(curves) > 1:
            ax.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        ax.plot(steps, point, "o-", color=color, markersize=4, label=name)
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    return _finish(ax, "k, steps predicted without a look at the world", ylabel, title)


@styled
def plot_trajectories(
    real: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    *,
    names: Sequence[str] | None = None,
    dims: Sequence[int] | None = None,
    columns: int = 3,
    title: str = "",
) -> NDArray[np.object_]:
    """Predicted trajectories beside the real one, a panel for each dimension of the state.

    Args:
        real: the real trajectory, [T, D].
        predicted: of each model the prediction, [T, D], or one of each member, [E, T, D].
        names: what the dimensions are called, D names.
        dims: the dimensions to draw; the first six by default.
        columns: panels beside each other.
        title: title of the figure.

    Returns:
        The axes of the panels.
    """
    truth = np.asarray(real, dtype=np.float64)
    dims = list(range(min(6, truth.shape[1]))) if dims is None else list(dims)
    rows = -(-len(dims) // columns)
    axes = new_axes(min(columns, len(dims)), rows, width=3.4, height=2.4)
    for ax, dim in zip(axes, dims, strict=False):
        ax.plot(truth[:, dim], color="black", linewidth=2.5, alpha=0.8, label="real")
        for (name, values), color in zip(predicted.items(), _cycle(), strict=False):
            members = np.asarray(values, dtype=np.float64)
            members = members[None] if members.ndim == 2 else members  # [E, T, D]
            for number, member in enumerate(members):
                label = name if number == 0 else None
                ax.plot(member[:, dim], color=color, linewidth=1.5, linestyle="--", label=label)
        # A model that runs away must not hide the real curve: the real range, and as much again on each side.
        low, high = truth[:, dim].min(), truth[:, dim].max()
        margin = max(high - low, 1e-3)
        ax.set_ylim(max(ax.get_ylim()[0], low - margin), min(ax.get_ylim()[1], high + margin))
        ax.set_title(
            names[dim] if names is not None else f"dimension {dim}", fontweight="normal", fontsize=11
        )
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, nbins=5))
    for ax in axes[len(dims) :]:
        ax.set_visible(False)
    for ax in axes[max(0, len(dims) - columns) : len(dims)]:
        ax.set_xlabel("step")
    handles, labels = axes[0].get_legend_handles_labels()
    figure = axes[0].figure
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    return axes


@styled
def plot_scores(
    frame: pd.DataFrame,
    by: str = "planner",
    y: str = "return",
    *,
    ylabel: str = "return",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Compares groups over seeds: each run as a dot, the median, the worst run, and the IQM's interval.

    Args:
        frame: one row per group and seed, with the columns `by` and `y`.
        by: column of the groups, in the order in which they appear.
        y: column of the score.
        ylabel: label of the axis.
        title: title.
        ax: where to draw.
    """
    table = summary(frame, by, y)
    ax = ax or new_axes(width=7.0, height=0.62 * len(table) + 1.3)[0]
    for row, (_, group), color in zip(
        table.itertuples(), frame.groupby(by, sort=False), _cycle(), strict=False
    ):
        scores = np.sort(group[y].to_numpy(dtype=np.float64))
        place = len(table) - 1 - row.Index
        spread = 0.18 * (np.arange(len(scores)) % 3 - 1)  # neighbours do not hide each other
        ax.plot(scores, place + spread, "o", color=color, alpha=0.45, markersize=5, markeredgewidth=0)
        ax.plot(
            [row.low, row.high], [place, place], color=color, linewidth=7, alpha=0.35, solid_capstyle="butt"
        )
        ax.plot([row.median] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2.5)
        ax.plot(
            row.worst, place + spread[0], "o", markersize=9, markerfacecolor="none", markeredgecolor="black"
        )
    ax.plot([], [], "o", color=GREY, alpha=0.5, markersize=5, label="one run")
    ax.plot([], [], color=GREY, linewidth=7, alpha=0.35, label="IQM, 95 %")
    ax.plot([], [], "|", color=GREY, markersize=12, markeredgewidth=2.5, label="median")
    ax.plot([], [], "o", markersize=9, markerfacecolor="none", markeredgecolor="black", label="worst run")
    ax.set_yticks(range(len(table)), list(table[by])[::-1])
    ax.set_ylim(-0.6, len(table) - 0.4)
    ax.grid(axis="y", visible=False)
    _finish(ax, ylabel, "", title)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


@styled
def plot_search(
    population: ArrayLike,
    elites: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    objective: Callable[[torch.Tensor], torch.Tensor] | None = None,
    low: float = -1.0,
    high: float = 1.0,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """One iteration of a search in the plane: samples, elites, and the Gaussian that they were drawn from.

    Args:
        population: the samples, [N, 2].
        elites: the best of them, [K, 2].
        mean: of the Gaussian, [2].
        std: of the Gaussian, [2]; ellipses are drawn at one and two standard deviations.
        objective: the function that is maximised, [M, 2] to [M], drawn as a landscape behind.
        low: lower end of both axes.
        high: upper end of both axes.
        title: title.
        ax: where to draw.
    """
    ax = ax or new_axes(width=4.4, height=4.4)[0]
    if objective is not None:
        grid = torch.linspace(low, high, 121)
        x, y = torch.meshgrid(grid, grid, indexing="xy")
        values = objective(torch.stack([x.flatten(), y.flatten()], dim=-1)).reshape(x.shape)
        extent = (low, high, low, high)
        ax.imshow(values.numpy(), extent=extent, origin="lower", cmap="YlGnBu_r", alpha=0.7, zorder=0)
        ax.contour(
            x.numpy(),
            y.numpy(),
            values.numpy(),
            levels=8,
            colors="white",
            linewidths=0.7,
            linestyles="solid",
            zorder=1,
        )
    samples, best = np.asarray(population), np.asarray(elites)
    center, spread = np.asarray(mean), np.asarray(std)
    ax.plot(*samples.T, "o", color="black", markersize=3, alpha=0.45, markeredgewidth=0, label="population")
    ax.plot(*best.T, "o", color=COLORS[1], markersize=6, markeredgecolor="white", label="elites")
    for scale in (1, 2):
        size = 2 * scale * spread
        ax.add_patch(
            Ellipse(
                tuple(center), *size, fill=False, edgecolor=COLORS[3], linewidth=2.2 - 0.6 * scale, zorder=5
            )
        )
    ax.plot(*center, "+", color=COLORS[3], markersize=11, markeredgewidth=2, label="Gaussian")
    ticks = np.linspace(low, high, 5)
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal", xticks=ticks, yticks=ticks)
    ax.grid(visible=False)
    _finish(ax, "first action", "second action", title)
    ax.legend(loc="upper right", frameon=True, framealpha=0.85, edgecolor="none")
    return ax


_APART = (0, 1, 2, 3, 4, 9, 5, 8, 7, 6)
"""Places in `COLORS`; orange, vermillion and tan look alike, and so do the two pinks."""
_DASHES = ("--", "-.", ":", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)))


_NUMBER = re.compile(r"(?:(?<=[= ])-)?\d+(?:\.\d+)?(?:e-?\d+)?|\binf\b")


def _by_number(names: Sequence[str]) -> list[str]:
    """The names in the order of their numbers; none where there are not two that differ in nothing else."""
    if len(names) < 2 or len({_NUMBER.sub("#", name) for name in names}) > 1:
        return []
    return sorted(names, key=lambda name: [float(number) for number in _NUMBER.findall(name)])


def _short_labels(names: Sequence[str], baseline: str) -> dict[str, str]:
    """What the names are called in a legend: the field of all "field=value" as words, or not at all."""
    labels = {name: name for name in names}
    pairs = {name: name.partition("=") for name in names if name != baseline}
    if len(pairs) < 2 or {equals for _, equals, _ in pairs.values()} != {"="}:
        return labels
    if len({field for field, _, _ in pairs.values()}) > 1:
        return labels
    for name, (field, _, value) in pairs.items():
        field, value = field.strip(), value.strip()
        speaks = not _NUMBER.match(value) and not iskeyword(value)  # "mean" does, unlike "3" and "True"
        labels[name] = value if speaks else f"{field.replace('_', ' ')} {value}"
    return labels


def _cycle() -> list[str]:
    return COLORS * 4


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _finish(ax: Axes, xlabel: str, ylabel: str, title: str) -> Axes:
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    if ax.get_legend_handles_labels()[1]:
        ax.legend()
    if ax.get_xscale() == "linear" and max(map(abs, ax.get_xlim())) >= 5000:
        ax.xaxis.set_major_formatter(mpl.ticker.EngFormatter(sep=""))
    return ax
