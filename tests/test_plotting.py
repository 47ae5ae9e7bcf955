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


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
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
        "q2, full (reference, 5 seeds)",
        f"mine ({seeds_text})",
        "published, at the end",
        "random policy",
    ]
    assert ax.get_xlabel() == "environment steps"
    line = next(line for line in ax.lines if line.get_label() == f"mine ({seeds_text})")
    assert list(line.get_xdata()) == [1000 * i for i in range(6)]
    ax.figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


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
