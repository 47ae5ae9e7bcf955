import itertools
import math
from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

from mbrl_course.cli import main
from mbrl_course.commands import OK, USAGE
from mbrl_course.envs import get_task
from mbrl_course.experiments import ConfigError, get_config, get_experiment, list_experiments
from mbrl_course.experiments.solved import SOLVED_AT
from mbrl_course.experiments.time_to_solve import median_interval, solve_text, time_to_solve


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 8, 9, 12])
def test_the_interval_of_the_median_covers_as_often_as_it_says(count):
    """All 2^n ways in which n values can lie below or above the true median are equally likely."""
    place = {float(value): k for k, value in enumerate(range(count))}
    interval = median_interval(np.arange(count))
    low, high = place[interval.low], place[interval.high]
    assert low + high == count - 1
    covered = {}
    for k in range(count // 2 + count % 2):
        # the k-th smallest lies below the median when more than k values do; the k-th largest likewise
        hits = sum(k < sum(below) < count - k for below in itertools.product((0, 1), repeat=count))
        covered[k] = hits / 2**count
    assert covered[low] >= 0.95 or low == 0
    assert all(covered[k] < 0.95 for k in covered if k > low)


def test_the_median_is_the_middle_one_or_infinite():
    assert median_interval([3, 1, 2]) == (2, 1, 3)
    assert median_interval([1, math.inf, 2, 3]) == (2.5, 1, math.inf)
    assert median_interval([1, math.inf, math.inf]) == (math.inf, 1, math.inf)
    for bad in ([], [math.nan, 1.0], [[1.0]]):
        with pytest.raises(ValueError, match="times is"):
            median_interval(bad)


def logs_of(returns, costs=("env_steps", "cpu_seconds")):
    """Rows of one variant with a list of returns for each seed; every trial costs 100 steps and 2 seconds."""
    price = {"env_steps": 100, "cpu_seconds": 2.0, "seconds": 5.0}
    return pd.DataFrame(
        [
            {
                "seed": seed,
                "variant": "A",
                "trial": trial,
                "eval_return": value,
                **{cost: price[cost] * (trial + 1) for cost in costs},
            }
            for seed, trials in enumerate(returns)
            for trial, value in enumerate(trials)
        ]
    )


def test_unsolved_seeds_are_counted_and_never_dropped():
    logs = logs_of([[0, 60, 0], [0, 0, 50], [0, 49, 49], [0, 49]])
    (row,) = time_to_solve(logs, 50.0).to_dict("records")
    assert (row["what"], row["seeds"], row["solved"]) == ("A", 4, 2)
    assert (row["env_steps"], row["env_steps low"], row["env_steps high"]) == (math.inf, 200, math.inf)
    # the last seed was given up after 200, but counts as longer than those that took 200 and 300
    bounds = [row[f"env_steps{end} bound"] for end in ("", " low", " high")]
    assert bounds == [300, 200, 300]
    assert "seconds" not in row

    (row,) = time_to_solve(logs[logs["seed"] < 3], 50.0).to_dict("records")
    assert (row["cpu_seconds"], row["cpu_seconds high"], row["cpu_seconds high bound"]) == (
        6.0,
        math.inf,
        6.0,
    )
    (row,) = time_to_solve(logs[logs["seed"] < 2], 50.0).to_dict("records")
    assert (row["cpu_seconds"], row["cpu_seconds low"], row["cpu_seconds high"]) == (5.0, 4.0, 6.0)
    (row,) = time_to_solve(logs, 1000.0).to_dict("records")  # given up after 300, 300, 300 and 200
    assert (row["solved"], row["env_steps low"], row["env_steps low bound"]) == (0, math.inf, 200)


def test_the_table_shows_what_ships(monkeypatch):
    shipped = {
        ("pets-cartpole-balance", "laptop"): logs_of([[200.0], [0, 200.0], [0, 0, 0]]),
        ("pareto-pets-balance", "laptop"): logs_of([[200.0]]),
        ("q1", "full"): logs_of([[1000.0]]),
    }
    header = {"machine": "a laptop", "config": '{"task": "cartpole-balance"}'}
    monkeypatch.setattr("mbrl_course.experiments.tables.list_results", lambda: list(shipped))
    module = "mbrl_course.experiments.time_to_solve"
    monkeypatch.setattr(f"{module}.load_results", lambda name, scale: shipped[name, scale])
    monkeypatch.setattr(f"{module}.load_header", lambda name, scale: header)
    lines = solve_text().splitlines()
    (row,) = [line for line in lines if "pets-cartpole-balance" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["cartpole-balance, 200", "`pets-cartpole-balance`", "A", "2 of 3"]
    assert cells[4:7] == ["200 (100 to > 300)", "4.0 (2.0 to > 6.0)", "-"]
    assert "1052 s" in cells[7]
    assert "q1" not in "".join(lines) and "a laptop" in lines[-1]
    assert "pareto" not in "".join(lines) and "pareto" in solve_text(["pareto-pets-balance"])


def test_the_readme_states_what_ships():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    head, *measured = solve_text().splitlines()
    assert head in readme
    rows = readme[readme.index(head) :].split("\n\n")[0].splitlines()[2:]
    assert len(rows) >= 5
    assert [row for row in rows if row not in measured] == []
    shown = {row.split("|")[2].split()[0].strip("`") for row in rows}
    theirs = [
        row for row in measured if row.startswith("|") and row.split("|")[2].split()[0].strip("`") in shown
    ]
    assert [row for row in theirs if row not in rows] == [], "of an experiment all agents are shown, or none"


def test_each_threshold_is_that_of_its_task():
    for name in list_experiments():
        experiment = get_experiment(name)
        if experiment.solved_at is not None:
            task = get_config(name).task
            assert experiment.solved_at == SOLVED_AT[task], name
    for task in ("cartpole", "InvertedPendulum-v5"):
        registered = gym.spec(get_task(task).env_id).reward_threshold
        assert registered is not None
        assert registered <= SOLVED_AT[task] <= get_task(task).max_steps
    assert get_task("cartpole-balance").max_steps == SOLVED_AT["cartpole-balance"]


def test_what_can_not_be_solved_is_refused(capsys):
    with pytest.raises(ConfigError, match="'q1' has no return from which on"):
        solve_text(["q1"])
    with pytest.raises(ConfigError, match="there is no experiment 'nothing'"):
        solve_text(["nothing"])
    assert main(["results", "--time-to-solve", "q1"]) == USAGE
    assert "'q1' has no return" in capsys.readouterr().err
    assert main(["results", "--time-to-solve", "pets-cartpole-balance"]) == OK
    assert "10 of 10" in capsys.readouterr().out
