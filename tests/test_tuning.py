"""Searches for settings: where trials look, what is kept, what they are worth, and the command at the end."""

import dataclasses
import shlex

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from mbrl_course import experiments
from mbrl_course.cli import main
from mbrl_course.commands import OK, PROBLEM, USAGE
from mbrl_course.experiments import ConfigError
from mbrl_course.experiments.runner import Objective
from mbrl_course.experiments.tuning import final_score, parse_range, tune

NAME = "planners-pendulum"
SPACE = ("horizon=2..6", "elite_share=0.1..0.5")


@pytest.fixture
def invented(monkeypatch):
    """Trials without an experiment: the score is the horizon, if `run` does nothing else."""

    def use(run=lambda overrides: None):
        def invent(name, seeds, scale, overrides, **kwargs):
            run(overrides)
            return pd.DataFrame({"seed": [0], "planner": ["CEM"], "return": [overrides["horizon"]]})

        monkeypatch.setattr(experiments, "run", invent)

    use()
    return use


def search(out, num_trials, space=SPACE, **kwargs):
    return tune(NAME, space, num_trials, scale="smoke", out=out, progress=False, **kwargs)


def test_trials_differ_and_do_not_depend_on_how_many_calls_they_took(tmp_path, invented):
    for count in (2, 4, 6):
        parts = search(tmp_path / "parts", count)
        assert sorted(parts["trial"]) == list(range(count))
    assert parts["elite_share"].nunique() == 6 and parts["horizon"].nunique() > 1
    assert_frame_equal(search(tmp_path / "whole", 6), parts)
    assert len(search(tmp_path / "whole", 2)) == 6


def test_calls_at_the_same_time_try_different_points_and_share_the_number(tmp_path, invented):
    calls: list[object] = []

    def another_call_meanwhile(overrides):
        if not calls:
            calls.append("once")
            search(tmp_path, 3)

    invented(another_call_meanwhile)
    table = search(tmp_path, 3)
    assert table["elite_share"].nunique() == len(table) == 4  # what was under way could have been dead


def test_another_space_is_another_search(tmp_path, invented):
    assert len(search(tmp_path, 2)) == 2
    wide = search(tmp_path, 3, ["horizon=20..30", SPACE[1]])
    assert wide["horizon"].between(20, 30).all() and len(wide) == 3
    assert len(search(tmp_path, 2, SPACE[::-1])) == 2  # in another order it is the same
    (path,) = tmp_path.glob("*/tune.journal")
    assert "elite_share=0.1..0.5,horizon=2..6" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["x=1..3", "x=log:0.1..2.0", "x=64/64,128/128"])
def test_ranges_are_written_as_they_are_read(text):
    name, tried = parse_range(text, {"x": int} if "1..3" in text else {})
    assert f"{name}={tried}" == text


def test_a_range_of_whole_numbers_has_no_fractions():
    with pytest.raises(ConfigError, match=r"'x=1\.5\.\.3' has fractions, expected whole numbers for x"):
        parse_range("x=1.5..3", {"x": int})
    assert parse_range("x=1.5..3", {"x": float})[1].low == 1.5


def test_values_that_only_go_together_are_taken(tmp_path, monkeypatch):
    def run(name, seeds, scale, overrides, **kwargs):
        return pd.DataFrame(
            {"seed": [0], "variant": ["as set"], "eval_return": [float(overrides.get("num_elites", 0))]}
        )

    monkeypatch.setattr(experiments, "run", run)
    how = {"scale": "smoke", "out": tmp_path, "progress": False}
    space = ["num_elites=3,6", "ensemble_size=4,8"]  # 6 goes with 8, and not with the preset's 5
    assert tune("mbpo-pendulum", space, 8, **how)["num_elites"].iloc[0] == "6"
    space = ["num_particles=9,12", "ensemble_size=2..4"]  # 9 goes with 3, in the middle
    assert len(tune("pets-pendulum", space, 2, **how)) == 2
    message = (
        "num_elites is 9, expected at most the ensemble_size 5, and no value of another range goes with it"
    )
    with pytest.raises(ConfigError, match=message):
        tune("mbpo-pendulum", ["num_elites=3,9", "ensemble_size=4,8"], 6, **how)
    with pytest.raises(ConfigError, match=r"a field comes twice in gamma=0\.\.1 gamma=0"):
        tune("mbpo-pendulum", ["gamma=0..1", "gamma=0.5..0.9"], 6, **how)


def test_divergence_ends_a_trial_and_no_search(tmp_path, invented):
    def run(overrides):
        if overrides["horizon"] > 4:
            raise FloatingPointError("the loss is nan")
        if overrides["horizon"] == 3:
            raise ConfigError("3 does not go with the rest")

    invented(run)
    table = search(tmp_path, 12)
    assert 0 < len(table) < 12 and set(table["horizon"]) <= {2, 4}


def test_a_score_that_is_not_finite_is_none(tmp_path, monkeypatch):
    logs = pd.DataFrame({"seed": [0], "planner": ["CEM"], "return": [float("nan")]})
    monkeypatch.setattr(experiments, "run", lambda *_, **__: logs)
    assert search(tmp_path, 2).empty


def test_a_bug_ends_the_search(tmp_path, invented):
    def run(overrides):
        raise ValueError("a bug")

    invented(run)
    with pytest.raises(ValueError, match="a bug"):
        search(tmp_path, 2)
    invented()
    assert sorted(search(tmp_path, 2)["trial"]) == [1, 2]


def test_nothing_is_run_where_nothing_can_be_made_better(tmp_path, monkeypatch):
    experiment = dataclasses.replace(experiments.get_experiment(NAME), objective=None)
    monkeypatch.setitem(experiments._EXPERIMENTS, NAME, experiment)
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("ran"))
    with pytest.raises(ConfigError, match="'planners-pendulum' can't be tuned"):
        search(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_what_should_be_low_is_made_low(tmp_path, monkeypatch):
    assert experiments.get_experiment("q1").objective == Objective("value", True, "metric == 'holdout_loss'")

    def run(name, seeds, scale, overrides, **kwargs):
        steps = overrides["num_steps"]
        rows = [(0, "a", "loss", 1, 0.0), (0, "a", "holdout_loss", 1, steps)]
        return pd.DataFrame(rows, columns=["seed", "model", "metric", "step", "value"])

    monkeypatch.setattr(experiments, "run", run)
    table = tune("q1", ["num_steps=100..2000"], 25, scale="smoke", out=tmp_path, progress=False)
    assert table["score"].tolist() == sorted(table["num_steps"])
    assert table[table["trial"] >= 15]["score"].mean() < table[table["trial"] < 10]["score"].mean()


def test_scores_leave_out_what_does_not_count():
    rows = [(0, "model-based", 20, 1.0), (0, "model-based", 40, 9.0), (0, "random", 40, 500.0)]
    logs = pd.DataFrame(rows, columns=["seed", "policy", "env_steps", "eval_return"])
    assert final_score("cartpole-growing-data", logs) == 9.0


def test_the_command_at_the_end_runs(tmp_path, capsys):
    where = ["--scale", "smoke", "--out", str(tmp_path)]
    space = ["updates_per_step=1..2", "learning_rate=log:1e-4..1e-3"]
    small = ["--set", "total_steps=30", "--seeds", "0,2"]
    assert main(["tune", "mbpo-pendulum", *space, "--trials", "1", *small, *where]) == OK
    command = capsys.readouterr().out.splitlines()[-1].partition("the best: ")[2]
    assert "--set variants=" in command and "--seeds 0,2" in command
    assert main([*shlex.split(command)[1:], "--out", str(tmp_path)]) == OK
    assert "2 rows" in capsys.readouterr().out  # one of each seed, without variants
    apart = ["num_elites=3,6", "ensemble_size=4,8", "--set", "total_steps=30", "--set", "num_elites=3"]
    assert main(["tune", "mbpo-pendulum", *apart, "--trials", "1", *where]) == USAGE
    assert "field 'num_elites' is set, and has a range" in capsys.readouterr().err
    assert main(["tune", "mbpo-pendulum", "num_elites=8,9", "--trials", "1", *where]) == USAGE
    assert "num_elites is 8, expected at most the ensemble_size 5" in capsys.readouterr().err
    assert main(["tune", "mbpo-pendulum", "learning_rate=1e30,1e31", "--trials", "1", *where]) == PROBLEM
    assert "no trial has a score" in capsys.readouterr().out
    assert main(["tune", "pets-pendulum", "elite_share=2..3", *where]) == USAGE
    assert "elite_share is 2.0, expected above 0" in capsys.readouterr().err
