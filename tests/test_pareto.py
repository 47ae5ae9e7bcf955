from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl_course.cli import main
from mbrl_course.commands import OK
from mbrl_course.experiments import get_config, get_experiment, list_experiments
from mbrl_course.experiments.files import write_csv
from mbrl_course.experiments.pareto import pareto_front, pareto_table, plot_pareto
from mbrl_course.experiments.variants import variant_of

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(-3, 3)), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def _close_figures() -> Iterator[None]:
    yield
    plt.close("all")


@given(POINTS)
def test_a_point_is_on_the_front_unless_another_one_beats_it(points):
    def beats(one, other):
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    expected = [not any(beats(other, point) for other in points) for point in points]
    costs, scores = zip(*points, strict=True)
    assert pareto_front(costs, scores).tolist() == expected


def test_points_without_a_number_are_refused():
    for costs, scores in (([1.0, 2.0], [1.0]), ([np.nan], [1.0]), ([1.0], [np.nan]), ([[1.0]], [[1.0]])):
        with pytest.raises(ValueError, match="expected one number each for every point"):
            pareto_front(costs, scores)


def logs() -> pd.DataFrame:
    """Cheap earns 30 for 8 s, dear 90 for 80 s, waste 20 for 40 s; seed 1 earns 1 less."""
    returns = {"waste": [0, 10, 20, 30], "cheap": [0, 20, 30, 40], "dear": [0, 80, 90, 100]}
    prices = {"waste": 10.0, "cheap": 2.0, "dear": 20.0}
    return pd.DataFrame(
        [
            {
                "seed": seed,
                "variant": name,
                "trial": trial,
                "eval_return": float(value) - (1 if seed else 0),
                "env_steps": 100 * (trial + 1),
                "cpu_seconds": prices[name] * (trial + 1),
            }
            for name, values in returns.items()
            for seed in (0, 1)
            for trial, value in enumerate(values)
        ]
    )


def test_the_table_finds_cost_score_front_and_what_was_solved():
    table = pareto_table(logs(), solved_at=90.0).set_index("what")
    assert table.index.tolist() == ["cheap", "waste", "dear"]  # by cost
    assert table["cost"].tolist() == [8.0, 40.0, 80.0]
    assert table["score"].tolist() == [29.5, 19.5, 89.5]  # the last three trials, mean of two seeds
    assert table["front"].tolist() == [True, False, True]
    assert table["solved"].tolist() == [0, 0, 2]
    assert table.loc["dear", "solve_costs"] == [60.0, 80.0]
    assert pareto_table(logs(), 100.0).set_index("what").loc["dear", "solve_costs"] == [80.0, np.inf]
    with pytest.raises(ValueError, match="cost is 'price', expected a column: seed, variant"):
        pareto_table(logs(), 90.0, "price")


def test_the_picture_draws_the_front_and_marks_the_preset():
    front, solved = plot_pareto(logs(), 100.0, preset="cheap", title="A title")
    (line,) = [line for line in front.lines if line.get_label() == "Pareto front"]
    assert line.get_xydata().tolist() == [[8.0, 29.5], [80.0, 89.5], [80.0, 89.5]]
    shown = ["Pareto front", "solved", "all seeds", "preset"]
    assert front.get_legend_handles_labels()[1] == shown
    assert [text.get_text() for text in front.texts] == ["1", "2", "3"]
    ticks = [text.get_text() for text in solved.get_yticklabels()]
    assert ticks == ["dear  3", "waste  2", "cheap (preset)  1"]  # from below
    drawn = [line for line in solved.lines if line.get_ydata().tolist() == [0]]
    points = {line.get_marker(): line.get_xdata().tolist() for line in drawn}
    assert points == {"o": [80.0], ">": [80.0]}  # dear: solved by one seed, the other was given up
    assert "CPU seconds" in front.get_xlabel()


def test_the_front_goes_on_to_the_dearest_setting():
    front, _ = plot_pareto(logs().query("variant != 'dear'"), 100.0)
    (line,) = [line for line in front.lines if line.get_label() == "Pareto front"]
    assert line.get_xydata().tolist() == [[8.0, 29.5], [40.0, 29.5]]
    assert "preset" not in front.get_legend_handles_labels()[1]


LENGTHS = ("num_trials", "num_iterations", "total_steps", "eval_every", "variants")
PRESETS = {
    "pareto-obstacles": ("obstacles-preset", "1 member, 2x64"),
    "pareto-pets-balance": ("pets-cartpole-balance", "iCEM 40/15/2"),
    "pareto-pets-cartpole": ("pets-cartpole-preset", "iCEM 40/35/2"),
    "pareto-pets-pendulum": ("pets-pendulum-preset", "3 members"),
    "pareto-dyna-ppo": ("dyna-ppo-cartpole", "Dyna-PPO, horizon 20"),
    "pareto-mbpo": ("mbpo-inverted-pendulum", "MBPO, k = 10"),
}
"""What runs the preset of each comparison until its task is solved: an experiment, and its variant."""


def test_presets_are_variants_and_their_experiments_run_them():
    presets = {
        name: get_experiment(name).preset for name in list_experiments() if get_experiment(name).preset
    }
    assert set(presets) == set(PRESETS)
    for name, preset in presets.items():
        experiment, label = PRESETS[name]
        config, own = get_config(name), get_config(experiment)
        own = dict(variant_of(own, text) for text in own.variants)[label]
        chosen = dict(variant_of(config, text) for text in config.variants)[preset]
        assert get_experiment(name).solved_at == get_experiment(experiment).solved_at
        # the iterations of PETS are those of a plan, and belong to the setting
        lengths = [field for field in LENGTHS if field != "num_iterations" or "pets" not in name]
        differing = {field for field, value in vars(own).items() if vars(chosen)[field] != value}
        assert differing <= {*lengths}, name
        if experiment.endswith("-preset"):
            assert label == preset and len(get_config(experiment).variants) == 1
        for field in {"num_trials", "total_steps"} & set(vars(own)):  # until it is solved, and some longer
            assert getattr(own, field) > getattr(chosen, field), name


@pytest.mark.parametrize("scale", ["laptop", "full"])
def test_the_settings_are_what_they_are_called(scale):
    config = get_config("pareto-obstacles", scale)
    variants = dict(variant_of(config, text) for text in config.variants)
    assert variants["200 sequences"].num_sequences == 200
    assert variants["200 sequences"].gradient_steps > variants["100 gradient steps"].gradient_steps == 100


def test_plot_draws_it_from_the_logs_alone(tmp_path, capsys):
    folder = tmp_path / "pareto-pets-pendulum" / "laptop"
    for seed, rows in logs().groupby("seed"):
        write_csv(folder / f"seed_{seed}.csv", rows, {})
    assert main(["plot", "pareto-pets-pendulum", "--out", str(tmp_path)]) == OK
    assert "cheap" in capsys.readouterr().out
    assert (tmp_path / "pareto-pets-pendulum" / "laptop.png").stat().st_size > 10_000
