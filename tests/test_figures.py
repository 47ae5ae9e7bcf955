"""Learning curves and ledgers of the notebooks: what was measured here, over what ships."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from mbrl_course import plotting
from mbrl_course.experiments import figures, shipping
from mbrl_course.experiments.figures import (
    ledger_table,
    plot_results,
    shipped,
    shipped_note,
    show_pareto,
    show_shipped,
)
from mbrl_course.experiments.files import write_csv
from quick_curves import quick_curve

NAME = "pets-cartpole"


def trials(seeds: int, steps: int, gain: float) -> pd.DataFrame:
    """Two variants of two trials each; a seed's trials are `steps` + seed long, and B earns twice as much."""
    rows = []
    for seed in range(seeds):
        for factor, variant in ((1, "A"), (2, "B")):
            for trial in (0, 1):
                done = (trial + 1) * (steps + seed)
                row: dict[str, Any] = {"seed": seed, "variant": variant, "trial": trial}
                row |= {"eval_return": factor * gain * trial, "env_steps": done, "model_calls": 1e6 * done}
                row |= {"agent_updates": 0, "model_updates": 10 * trial, "seconds": 99 * trial}
                rows.append(row | {"cpu_seconds": 60 * factor * trial})
    return pd.DataFrame(rows)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five seeds of both variants ship, at laptop scale."""
    header = {"seeds": "0..4", "minutes": "9.5 in all, 1.9 for a seed (median)", "machine": "a laptop"}
    write_csv(tmp_path / f"{NAME}-laptop.csv", trials(5, 100, 50.0), header)
    monkeypatch.setattr(shipping, "RESULTS", tmp_path)
    yield
    plt.close("all")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves without the bootstrap, where only their looks matter."""
    monkeypatch.setattr(plotting, "learning_curve", quick_curve)
    monkeypatch.setattr(figures, "iqm_interval", lambda scores: (scores.mean(), scores.min(), scores.max()))


def lines(ax: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in ax.lines}


def test_curves_stand_over_the_shipped_ones_in_the_same_colour() -> None:
    found = lines(plot_results(NAME, trials(3, 200, 40.0), title="swing-up"))
    assert set(found) == {
        "A (3 seeds)",
        "B (3 seeds)",
        "_A (reference, 5 seeds)",
        "_B (reference, 5 seeds)",
        "reference (5 seeds)",
    }
    here, there = found["B (3 seeds)"], found["_B (reference, 5 seeds)"]
    assert here.get_color() == there.get_color() != found["A (3 seeds)"].get_color()
    assert here.get_linestyle() == "-" and there.get_linestyle() == "--"
    assert list(here.get_xdata()) == [201, 402]  # the median of trials of 200, 201 and 202 steps
    assert list(here.get_ydata()) == [0, 80] and list(there.get_ydata()) == [0, 100]


def test_without_rows_the_shipped_results_are_the_curves() -> None:
    ax: Any = plot_results(NAME, x="minutes")
    found = lines(ax)
    assert set(found) == {"A", "B"} and ax.get_ylabel() == "return, IQM over 5 seeds"
    assert list(found["B"].get_xdata()) == [0, 2]
    assert ax.get_xlabel() == "minutes on one core"


def test_a_part_of_the_rows_is_drawn() -> None:
    found = lines(plot_results(NAME, trials(3, 200, 40.0), where="variant.str.startswith('B') and trial > 0"))
    assert list(found["B (3 seeds)"].get_ydata()) == [80]
    assert list(found["_B (reference, 5 seeds)"].get_ydata()) == [100]
    assert "A (3 seeds)" not in found


def test_a_smoke_run_is_compared_with_nothing() -> None:
    assert shipped(NAME, "smoke") is None
    assert set(lines(plot_results(NAME, trials(1, 5, 1.0), "smoke"))) == {"A", "B"}
    assert list(ledger_table(NAME, trials(1, 5, 1.0), "smoke").index) == [("A", "here"), ("B", "here")]


def test_rows_of_other_settings_stand_alone() -> None:
    found = lines(plot_results(NAME, trials(3, 200, 40.0), compare=False))
    assert set(found) == {"A", "B"}
    table = ledger_table(NAME, trials(3, 200, 40.0), compare=False)
    assert list(table.index) == [("A", "here"), ("B", "here")]


def test_the_ledger_counts_what_each_variant_cost() -> None:
    table = ledger_table(NAME, trials(1, 300, 40.0))
    assert list(table.index) == [("A", "here"), ("B", "here"), ("A", "shipped"), ("B", "shipped")]
    expected = {"seeds": "1", "return": "80", "env steps": "600", "model calls": "600.0 M"}
    expected |= {"agent gradient steps": "0", "model gradient steps": "10"}
    assert table.loc["B", "here"].to_dict() == {**expected, "CPU seconds": "120"}
    assert table.loc["B", "shipped"]["return"] == "100 [100, 100]"
    assert table.loc["B", "shipped"]["env steps"] == "204"
    assert list(ledger_table(NAME, where="variant == 'B'").index) == [("B", "shipped")]
    rows = trials(1, 300, 40.0)
    on_the_wall = ledger_table(NAME, rows.drop(columns="cpu_seconds"), compare=False)
    assert on_the_wall.loc["B", "here"].to_dict() == {**expected, "seconds": "99"}
    quick = ledger_table(NAME, rows.assign(cpu_seconds=rows["cpu_seconds"] / 50), compare=False)
    assert quick["CPU seconds"].to_list() == ["1.2", "2.4"]


def test_shipped_results_are_shown_in_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    show_shipped(NAME, {"title": "steps"}, {"title": "minutes", "x": "minutes"}, where="trial > 0")
    steps, minutes = plt.gcf().axes
    assert (steps.get_title("left"), minutes.get_title("left")) == ("steps", "minutes")
    assert minutes.get_legend() is None and steps.get_legend() is None
    (legend,) = plt.gcf().legends  # they hold the same curves
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]
    assert steps.get_ylim() == minutes.get_ylim()
    shown = capsys.readouterr().out
    assert shown.startswith("Shipped with the course: pets-cartpole") and "CPU seconds" in shown


def test_results_of_another_scale_are_shown_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = {"seeds": "0..2", "minutes": "1", "machine": "a"}
    write_csv(tmp_path / f"{NAME}-full.csv", trials(3, 500, 40.0), header)
    for scale, seeds in (("full", 3), ("laptop", 5)):
        show_shipped(NAME, {"title": scale}, scale=scale)
        assert plt.gcf().axes[0].get_ylabel() == f"return, IQM over {seeds} seeds"
        assert capsys.readouterr().out.startswith(f"Shipped with the course: {NAME}, {scale}, seeds 0..")


def test_each_picture_can_show_its_own_part() -> None:
    parts = [{"title": name, "where": f"variant == '{name}'"} for name in "AB"]
    show_shipped(NAME, *parts, ylim=(-1, 200))
    for ax, name in zip(plt.gcf().axes, "AB", strict=True):
        assert set(lines(ax)) == {f"{name} (5 seeds)"} and ax.get_ylim() == (-1, 200)
        assert ax.get_legend_handles_labels()[1] == [f"{name} (5 seeds)"]


def test_a_variant_has_one_colour_in_all_pictures_of_a_call(quick: None) -> None:
    show_shipped(NAME, {"where": "variant == 'B'"}, {}, {"colors": {"A": "red", "B": "blue"}})
    assert not plt.gcf().legends and all(ax.get_legend() is not None for ax in plt.gcf().axes)
    first, second, own = (lines(ax) for ax in plt.gcf().axes)
    assert first["B (5 seeds)"].get_color() == second["B"].get_color() != second["A"].get_color()
    assert (own["A"].get_color(), own["B"].get_color()) == ("red", "blue")
    show_shipped(NAME, {}, {"colors": {"A": "red", "B": "blue"}})
    assert not plt.gcf().legends and all(ax.get_legend() is not None for ax in plt.gcf().axes)


def test_long_names_stand_in_one_column(tmp_path: Path, quick: None) -> None:
    rows = trials(3, 100, 50.0)
    for length, columns in ((29, 2), (30, 1)):
        table = pd.concat([rows.assign(variant=rows["variant"] + letter * (length - 1)) for letter in "cde"])
        write_csv(tmp_path / f"{NAME}-laptop.csv", table, {"seeds": "0..2", "minutes": "1", "machine": "a"})
        show_shipped(NAME, {"title": "steps"})
        legend = plt.gcf().axes[0].get_legend()
        assert legend is not None
        assert legend._ncols == columns  # type: ignore[attr-defined]


def test_an_experiments_baseline_is_black_and_the_ledger_keeps_the_names(tmp_path: Path, quick: None) -> None:
    names = ("noise=1", "PPO", "noise=0", "noise=0.1")
    rows = trials(3, 100, 50.0).query("variant == 'A'")
    table = pd.concat([rows.assign(variant=name) for name in names])
    header = {"seeds": "0..2", "minutes": "1", "machine": "a laptop"}
    write_csv(tmp_path / "dyna-ppo-noise-laptop.csv", table, header)
    show_shipped("dyna-ppo-noise", {"title": "noise"}, {"title": "none", "baseline": ""})
    left, right = (lines(ax) for ax in plt.gcf().axes)
    assert list(left) == ["PPO", "noise 0", "noise 0.1", "noise 1"]
    assert left["PPO"].get_color() == "black" and left["PPO"].get_linestyle() == "--"
    assert list(right) == list(names) and right["PPO"].get_linestyle() == "-"
    assert [name for name, _ in ledger_table("dyna-ppo-noise").index] == list(names)


def test_what_a_return_costs_is_shown_in_one_call(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "pareto-pets-cartpole"
    show_pareto(name)
    assert f"mbrl-course run {name} --scale laptop" in capsys.readouterr().out and not plt.get_fignums()
    header = {"seeds": "0..2", "minutes": "1", "machine": "a laptop", "command": "mbrl-course run"}
    write_csv(tmp_path / f"{name}-laptop.csv", trials(3, 100, 50.0), header)
    show_pareto(name)
    assert len(plt.gcf().axes) == 2
    shown = capsys.readouterr().out
    assert shown.startswith(f"Shipped with the course: {name}") and "CPU seconds" in shown


def test_where_nothing_ships_the_command_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_shipped("q4", {"title": "reacher"})
    assert "mbrl-course run q4 --scale laptop" in capsys.readouterr().out
    assert not plt.get_fignums()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert shipped_note(NAME) == (
        "Shipped with the course: pets-cartpole, laptop, seeds 0..4, a laptop, "
        "minutes on the wall: 9.5 in all, 1.9 for a seed (median)"
    )
    (tmp_path / f"{NAME}-laptop.csv").unlink()
    assert "mbrl-course run pets-cartpole --scale laptop" in shipped_note(NAME)
    with pytest.raises(ValueError, match="rows is None and no results of 'pets-cartpole' ship"):
        plot_results(NAME)
    with pytest.raises(ValueError, match="rows is None and no results of 'pets-cartpole' ship"):
        ledger_table(NAME)
    with pytest.raises(ValueError, match="x is 'age', expected 'minutes' or a column: seed, variant"):
        plot_results(NAME, trials(1, 5, 1.0), x="age")
