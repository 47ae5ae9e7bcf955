import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mbrl_course import films, plotting
from mbrl_course.envs import get_task
from mbrl_course.evaluation import collect_random
from mbrl_course.films import Film, SearchStep
from quick_curves import quick_curve


@pytest.fixture(autouse=True)
def _plain_matplotlib() -> Iterator[None]:
    """Whatever style a notebook's cells, tested in the same process, have chosen."""
    with mpl.rc_context():
        mpl.rcdefaults()
        yield
    plt.close("all")


def curves(seeds: int, shift: float = 0.0) -> pd.DataFrame:
    noise = np.random.default_rng(0)
    rows = [
        {"seed": seed, "env_steps": 1000 * i, "eval_return": shift + i + noise.normal()}
        for seed in range(seeds)
        for i in range(6)
    ]
    return pd.DataFrame(rows)


def colours(figure: Any) -> int:
    figure.canvas.draw()
    return len(np.unique(np.asarray(figure.canvas.buffer_rgba()).reshape(-1, 4), axis=0))


def frames(image: Any) -> int:
    return image.n_frames


def labels(ax: Any) -> list[str]:
    return ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_learning_curves_show_lines_reference_and_bands(seeds: int, tmp_path: Path) -> None:
    ax: Any = plotting.plot_learning_curves(
        {"mine": curves(seeds)},
        reference={"q2, full": curves(5, 1.0)},
        published=(4.0, 5.0),
        random_return=-3.0,
    )
    seeds_text = "1 seed" if seeds == 1 else f"{seeds} seeds"
    assert labels(ax) == [
        f"mine ({seeds_text})",
        "q2, full (reference, 5 seeds)",
        "published, at the end",
        "random policy",
    ]
    assert ax.get_xlabel() == "environment steps"
    line = next(line for line in ax.lines if line.get_label() == f"mine ({seeds_text})")
    assert list(line.get_xdata()) == [1000 * i for i in range(6)]
    ax.figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def named(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.lines}


def brightness(color: str) -> float:
    return float(np.dot(mpl.colors.to_rgb(color), (0.3, 0.6, 0.1)))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves without the bootstrap, where only their looks matter."""
    monkeypatch.setattr(plotting, "learning_curve", quick_curve)


def strengths(ax: Any) -> list[float]:
    return [band.get_alpha() for band in ax.collections]


def test_what_differs_in_a_number_is_drawn_in_its_order_beside_a_black_baseline(quick: None) -> None:
    results = {name: curves(3) for name in ("noise=0.3", "PPO", "noise=0.03", "noise=inf", "noise=1e-05")}
    ax: Any = plotting.plot_learning_curves(results, baseline="PPO")
    assert labels(ax) == ["PPO", "noise 1e-05", "noise 0.03", "noise 0.3", "noise inf"]
    found = named(ax)
    assert found["PPO"].get_color() == "black" and found["PPO"].get_linestyle() == "--"
    shades = [brightness(line.get_color()) for line in ax.lines[1:]]
    assert shades == sorted(shades) and shades[-1] < 0.8 and min(np.diff(shades)) > 0.05
    assert {line.get_linestyle() for line in ax.lines[1:]} == {"-"}
    widths = [line.get_linewidth() for line in ax.lines[1:]]
    assert widths == sorted(widths, reverse=True) and widths[-1] > 1  # one over another hides none


def test_names_that_differ_in_more_than_numbers_keep_their_places(quick: None) -> None:
    names = ("horizon=5", "SAC", "horizon=3", "members=2")
    assert labels(plotting.plot_learning_curves({name: curves(3) for name in names})) == list(names)
    ways = ("propagation=ts1", "propagation=mean", "propagation=True")
    shown = labels(plotting.plot_learning_curves({name: curves(3) for name in ways}))
    assert shown == ["ts1", "mean", "propagation True"]
    assert labels(plotting.plot_learning_curves({"horizon=5": curves(3)})) == ["horizon=5 (3 seeds)"]
    lengths = {f"k = {k}": curves(3) for k in (1, 10)}
    shown = labels(plotting.plot_learning_curves(lengths))
    assert [label.removesuffix(" (3 seeds)") for label in shown] == ["k 1", "k 10"]


def test_colors_of_lines(quick: None) -> None:
    names = [f"agent {letter}" for letter in "abcdefghijkl"]
    colors = plotting.line_colors(names, "agent b")
    assert list(colors) == names and colors["agent b"] == "black"
    assert len(set(colors.values())) == 11  # ten, one of them twice, and black
    assert list(plotting.line_colors(["k = 3", "k = 1"]).values()) == plotting.COLORS[:2]  # two are no order
    dark, light, middle = map(brightness, plotting.line_colors(["1/5/3", "20/5/4", "3/5/4"]).values())
    assert dark < middle < light
    ax: Any = plotting.plot_learning_curves({"a": curves(3), "b": curves(3)}, colors={"b": "#123456"})
    assert [line.get_color() for line in ax.lines] == [plotting.COLORS[0], "#123456"]


def test_seeds_are_said_once_where_all_lines_have_as_many(quick: None) -> None:
    two = {"a": curves(3), "b": curves(3)}
    ax: Any = plotting.plot_learning_curves(two, ylabel="score")
    assert labels(ax) == ["a", "b"] and ax.get_ylabel() == "score, IQM over 3 seeds"
    ax = plotting.plot_learning_curves({"a": curves(1), "b": curves(1)})
    assert labels(ax) == ["a", "b"] and ax.get_ylabel() == "return, 1 seed"
    ax = plotting.plot_learning_curves({"a": curves(3), "b": curves(4)})
    assert labels(ax) == ["a (3 seeds)", "b (4 seeds)"] and ax.get_ylabel() == "return"
    ax = plotting.plot_learning_curves(two, reference={"a": curves(5)})
    assert labels(ax) == ["a (3 seeds)", "b (3 seeds)", "reference (5 seeds)"]
    assert ax.get_ylabel() == "return"


def test_more_than_four_bands_are_faint(quick: None) -> None:
    assert strengths(plotting.plot_learning_curves({name: curves(3) for name in "abcd"})) == [0.2] * 4
    assert strengths(plotting.plot_learning_curves({name: curves(3) for name in "abcde"})) == [0.08] * 5


def test_a_reference_leaves_its_band_to_the_line_of_the_same_name(quick: None) -> None:
    both = {"a": curves(5, 1.0)}
    assert len(strengths(plotting.plot_learning_curves({"a": curves(3)}, reference=both))) == 1
    ax: Any = plotting.plot_learning_curves({"a": curves(1)}, reference=both)
    assert len(strengths(ax)) == 1  # that of the reference, since a single seed has none
    assert named(ax)["_a (reference, 5 seeds)"].get_color() == named(ax)["a (1 seed)"].get_color()


def test_a_reference_has_the_colour_of_its_number_or_is_grey(quick: None) -> None:
    here = {"10/2": curves(1), "100/2": curves(1)}
    more = {"1000/2": curves(5), **here}
    found = named(plotting.plot_learning_curves(here, reference=more))
    line = found["1000/2 (reference, 5 seeds)"]
    shades = [brightness(found[f"{name} (1 seed)"].get_color()) for name in here]
    assert sorted([*shades, brightness(line.get_color())]) == [*shades, brightness(line.get_color())]
    assert line.get_linestyle() == "--" and line.get_color() != plotting.GREY
    found = named(plotting.plot_learning_curves(here, reference={"PPO": curves(5), "SAC": curves(5)}))
    others = [found[f"{name} (reference, 5 seeds)"] for name in ("PPO", "SAC")]
    assert {line.get_color() for line in others} == {plotting.GREY}
    assert others[0].get_linestyle() != others[1].get_linestyle()


def test_a_baseline_with_a_reference_is_solid_since_that_is_dashed(quick: None) -> None:
    two = {"PPO": curves(3), "b": curves(3)}
    found = named(plotting.plot_learning_curves(two, reference=two, baseline="PPO"))
    here, there = found["PPO (3 seeds)"], found["_PPO (reference, 3 seeds)"]
    assert here.get_color() == there.get_color() == "black"
    assert here.get_linestyle() == "-" and there.get_linestyle() == "--"


def test_the_style_can_be_that_of_all_pictures() -> None:
    with mpl.rc_context():
        plotting.use_style()
        _, ax = plt.subplots()
        ax.plot([0, 1], label="a line")
        ax.set_title("A title")
        assert not ax.legend().get_frame_on() and not ax.spines["top"].get_visible()
        assert ax.get_title(loc="left") == "A title"
        assert mpl.rcParams["image.cmap"] == "viridis"
        bars = ax.bar([0, 1], [1, 2])
        assert bars[0].get_edgecolor()[3] == 0  # no white edges that hide what is narrow


def test_plots_leave_matplotlibs_settings_alone() -> None:
    before = dict(mpl.rcParams)
    plotting.plot_losses({"a": [1.0, 0.5]})
    assert dict(mpl.rcParams) == before


def test_losses_and_errors_are_drawn_on_logarithmic_axes() -> None:
    left, right = plotting.new_axes(columns=2)
    plotting.plot_losses({"a": [1.0, 0.5, 0.25]}, holdout={"a": 0.3}, ax=left)
    plotting.plot_k_step_errors({"one": np.arange(1.0, 6), "seeds": np.ones((3, 5))}, ax=right)
    assert left.get_yscale() == right.get_yscale() == "log"
    assert list(left.lines[0].get_xdata()) == [1, 2, 3]
    assert list(right.lines[0].get_xdata()) == [1, 2, 3, 4, 5]
    assert labels(left) == ["a", "hold-out loss"]
    assert colours(left.figure) > 10


def test_a_prediction_that_runs_away_does_not_hide_the_real_trajectory() -> None:
    real = np.stack([np.sin(np.arange(20.0)), np.arange(20.0)], axis=1)
    ensemble = np.stack([real * 1e6, real])
    axes: Any = plotting.plot_trajectories(real, {"model": ensemble}, names=["angle", "place"], columns=2)
    assert len(axes) == 2
    assert axes[0].get_ylim()[1] < 5
    assert axes[0].get_title(loc="left") == "angle"
    assert len(axes[0].lines) == 3


def test_scores_mark_median_and_worst_run() -> None:
    frame = pd.DataFrame({"planner": ["CEM"] * 3 + ["random"] * 3, "return": [3.0, 1.0, 2.0, 0.0, -7.0, 0.5]})
    ax: Any = plotting.plot_scores(frame)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["random", "CEM"]
    worst = [
        line.get_xdata()[0]
        for line in ax.lines
        if line.get_markerfacecolor() == "none" and len(line.get_xdata())
    ]
    assert worst == [1.0, -7.0]
    medians = [
        line.get_xdata()[0]
        for line in ax.lines
        if len(set(line.get_ydata())) == 2 and len(line.get_xdata()) == 2
    ]
    assert medians == [2.0, 0.0]


def make_search(iterations: int) -> list[SearchStep]:
    population = torch.rand(20, 2)
    return [
        SearchStep(population, population[:4], torch.zeros(2), torch.ones(2) / (i + 1))
        for i in range(iterations)
    ]


def test_search_film_has_a_frame_for_each_iteration(tmp_path: Path) -> None:
    film = films.search_film(make_search(3), lambda x: -x.square().sum(-1), progress=False)
    path = film.save(tmp_path / "deep" / "search.gif")
    with Image.open(path) as image:
        assert frames(image) == 3
        assert image.width == film.width
    assert "data:image/gif;base64," in film._repr_html_()
    shown = films.show_film(path)
    assert isinstance(shown, Film)
    assert shown.data == film.data
    assert films.show_film(film) is film
    assert films.show_film(None) is None


@pytest.mark.parametrize("name", ["obstacles", "pendulum", "cartpole-swingup", "cheetah", "reacher7"])
def test_episode_film_draws_every_task_without_a_graphics_driver(name: str) -> None:
    task = get_task(name)
    data, _ = collect_random(task, 8, torch.Generator().manual_seed(0))
    film = films.episode_film(task, data.obs, rewards=data.reward, progress=False)
    assert len(film.data) < films.MAX_BYTES
    with Image.open(io.BytesIO(film.data)) as image:
        assert frames(image) >= 5
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 5


def test_a_thinned_film_counts_the_steps_of_the_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(films, "make_film", lambda draw, frames, **_: made.append((draw, frames)))
    shown: list[list[float]] = []
    task = replace(get_task("obstacles"), plot_state=lambda ax, state: shown.append(state.tolist()))
    obs = torch.arange(10.0)[:, None].expand(10, 4)
    films.episode_film(task, obs, rewards=torch.ones(10), every=4, title="trial 1")
    ((draw, number),) = made
    shown.clear()
    titles = []
    for frame in range(number):
        ax: Any = plt.figure().add_subplot()
        draw(ax, frame)
        titles.append(ax.get_title())
    assert [state[0] for state in shown] == [0, 4, 8]
    assert titles == [f"trial 1: step {step}, return {step + 1}" for step in (0, 4, 8)]
    with pytest.raises(ValueError, match="every is 0, expected at least 1"):
        films.episode_film(task, obs, every=0)


def test_films_stay_small_and_keep_their_length() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 240, 240, 3), dtype=np.uint8)
    film = films.film_of_images(list(noise), max_bytes=300_000)
    assert len(film.data) <= 300_000 or film.width < 120
    long_film = films.make_film(
        lambda ax, i: ax.plot([0, i]), 400, fps=40, max_frames=20, size=(1, 1), progress=False
    )
    with Image.open(io.BytesIO(long_film.data)) as image:
        assert frames(image) == 20
        assert image.info["duration"] == pytest.approx(500, abs=10)  # 400 frames at 40 per second, in 20


def test_bad_films_are_refused(tmp_path: Path) -> None:
    task = get_task("obstacles")
    with pytest.raises(ValueError, match=r"obs has shape \[5, 3\], expected \[T, 4\]"):
        films.episode_film(task, torch.zeros(5, 3))
    with pytest.raises(ValueError, match="task 'obstacles' has no picture"):
        films.episode_film(replace(task, plot_state=None), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="num_frames is 0"):
        films.make_film(lambda ax, i: None, 0)
    with pytest.raises(ValueError, match="images is empty"):
        films.film_of_images([])
    with pytest.raises(FileNotFoundError, match=r"no film at .*nothing.gif"):
        films.show_film(tmp_path / "nothing.gif")


def test_mujoco_film_says_why_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(**kwargs: Any) -> None:
        raise RuntimeError("no OpenGL")

    class Task:
        name = "cheetah"
        make_env = staticmethod(broken)

    assert films.mujoco_film(Task(), torch.zeros(3, 6), progress=False) is None  # type: ignore[arg-type]
    assert "No MuJoCo film of cheetah: this machine can't render (RuntimeError)" in capsys.readouterr().out
