"""Several runs at once, sweeps, tables and figures from logs, and tuning."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from mbrl_course import experiments
from mbrl_course.cli import main, make_parser
from mbrl_course.commands import OK, USAGE
from mbrl_course.experiments import (
    ConfigError,
    JobError,
    StaleResultsError,
    parallel,
    run,
    shipping,
    sweep,
    tables,
)
from mbrl_course.experiments.files import read_csv, read_header, write_csv
from mbrl_course.experiments.parallel import Job, run_in_processes, run_job_apart, run_on_cluster
from mbrl_course.experiments.tables import (
    _plot_panels,
    final_table,
    layout_of,
    minutes_per_seed,
    outcome_table,
    read_logs,
    results_text,
    thresholds_of,
    unfinished_seeds,
)
from mbrl_course.experiments.tuning import Range, final_score, parse_range, tune

QUICK = {"population_size": "5", "num_iterations": "1", "horizon": "3"}


def quick(name="warm-start", seeds=(0, 1), out="runs", **kwargs):
    return run(name, seeds, "smoke", QUICK, out=out, progress=False, **kwargs)


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path):
    expected = quick(out=tmp_path / "one")
    assert_frame_equal(quick(out=tmp_path / "two", jobs=2), expected)
    assert list(tmp_path.glob("two/warm-start/*/tensorboard/seed_1/events*"))


def fail_on_two(item):
    if item == 2:
        raise ValueError("no twos")


@pytest.mark.slow
def test_a_failed_process_is_named_and_the_others_go_on():
    with pytest.raises(JobError, match=r"1 of 3 failed, the others are finished:\n  2: ValueError: no twos"):
        run_in_processes(fail_on_two, [1, 2, 3], 2, progress=False)


def test_bad_requests_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="out is None"):
        quick(out=None, jobs=2)
    with pytest.raises(ConfigError, match="jobs is 0, expected at least 1"):
        sweep("warm-start", {"horizon": [2]}, scale="smoke", out=tmp_path, jobs=0)
    with pytest.raises(ConfigError, match="field 'horizon' is 'x', expected a whole number"):
        sweep("warm-start", {"horizon": ["3", "x"]}, scale="smoke", out=tmp_path)
    with pytest.raises(ConfigError, match=r"tau is 2\.0, expected"):  # a field of the agent's
        sweep("mbpo-pendulum", {"tau": ["0.01", "2"]}, scale="smoke", out=tmp_path)
    with pytest.raises(ConfigError, match=r"tau is 2\.0, expected"):
        run("mbpo-pendulum", [0], "smoke", {"tau": "2"}, tmp_path, jobs=2)
    with pytest.raises(ConfigError, match="field 'horizon' is set, and has values to try"):
        sweep("warm-start", {"horizon": ["3"]}, [0], "smoke", {"horizon": "4"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_field_may_be_named_once(tmp_path, capsys):
    where = ["--scale", "smoke", "--out", str(tmp_path)]
    for command in (
        ["run", "warm-start", "--set", "horizon=2", "--set", "horizon=3"],
        ["sweep", "warm-start", "horizon=2", "horizon=3"],
        ["tune", "warm-start", "population_size=5,6", "--set", "horizon=2", "--set", "horizon=3"],
    ):
        assert main([*command, *where]) == USAGE
        assert "field 'horizon' is given twice, expected once" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_finished_is_read_without_the_agents_module(tmp_path, monkeypatch):
    small = {"total_steps": "30", "variants": ""}
    expected = run("mbpo-pendulum", [0], "smoke", small, tmp_path, progress=False)
    monkeypatch.setitem(sys.modules, "mbrl_course.mbpo", None)  # as in an edition for students
    how = {"out": tmp_path, "progress": False, "jobs": 2}
    assert_frame_equal(run("mbpo-pendulum", [0], "smoke", small, **how), expected)
    with pytest.raises(ModuleNotFoundError, match="mbpo"):
        run("mbpo-pendulum", [0, 1], "smoke", small, **how)


def test_what_is_finished_needs_no_process(tmp_path, monkeypatch):
    """Of three seeds one is finished; a cluster whose workers have another disk gets the others."""
    started = []

    class Future:
        def __init__(self, job):
            started.append((job.seed, job.fresh))
            folder = Path(job.out) / "warm-start" / results.name
            self.result = lambda: (str(folder / f"seed_{job.seed}.csv"), texts[job.seed])

        def exception(self):
            return None

    class Client:
        loop = None

        def __init__(self, address, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, function, job, pure):
            return Future(job)

    expected = quick(seeds=(0, 1, 2), out=tmp_path / "workers")
    results = next(tmp_path.glob("workers/warm-start/*"))
    texts = {seed: (results / f"seed_{seed}.csv").read_text(encoding="utf-8") for seed in range(3)}
    cluster = SimpleNamespace(Client=Client, as_completed=lambda futures, loop: futures)
    monkeypatch.setitem(sys.modules, "distributed", cluster)
    quick(seeds=(1,), out=tmp_path / "own")
    found = quick(seeds=(0, 1, 2), out=tmp_path / "own", scheduler="tcp://127.0.0.1:1")
    assert started == [(0, False), (2, False)]
    assert_frame_equal(found, expected)
    # afresh, what comes from the cluster takes the place of what is there
    own = tmp_path / "own" / "warm-start" / results.name / "seed_1.csv"
    texts[1] = re.sub(r"# minutes: .*", "# minutes: 77", texts[1])
    quick(seeds=(1,), out=tmp_path / "own", scheduler="tcp://127.0.0.1:1", fresh=True)
    assert started[2:] == [(1, True)] and read_header(own)["minutes"] == "77"
    # what is out of date is refused before anything is computed
    own.write_text(own.read_text(encoding="utf-8").replace('"horizon": 3', '"horizon": 4'), encoding="utf-8")
    with pytest.raises(StaleResultsError, match="horizon 4, now 3"):
        quick(seeds=(1, 2, 3), out=tmp_path / "own", scheduler="tcp://127.0.0.1:1")
    assert len(started) == 3


@pytest.mark.slow
def test_sweeps_run_every_combination(tmp_path):
    settings = {"population_size": "5"}
    grid = {"num_iterations": ["1", "2"], "horizon": ["2", "3"]}
    frame = sweep("warm-start", grid, [0], "smoke", settings, tmp_path, progress=False, jobs=2)
    assert len(frame.groupby(["num_iterations", "horizon"])) == 4
    one = run("warm-start", [0], "smoke", {**settings, "num_iterations": "2", "horizon": "3"}, None, False)
    part = frame[(frame["num_iterations"] == "2") & (frame["horizon"] == "3")]
    assert part["return"].tolist() == pytest.approx(one["return"].tolist(), rel=1e-5)
    logs = read_logs("warm-start", "smoke", tmp_path)
    assert logs["settings"].nunique() == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_stops_all_processes_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, "-m", "mbrl_course.cli", "run", "pets-cartpole-balance", "--scale", "smoke"]
    command += ["--set", "num_trials=60", "--set", "variants=", "--seeds", "0,1", "--jobs", "2"]
    command += ["--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        give_up = time.monotonic() + 120
        while len(list(tmp_path.glob("*/*/seed_*.checkpoint"))) < 2 and time.monotonic() < give_up:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in shown and "Traceback" not in shown
    partial = {path.name: len(path.read_text().splitlines()) for path in tmp_path.glob("*/*/*.partial.csv")}
    assert partial
    resumed = run(
        "pets-cartpole-balance",
        [0, 1],
        "smoke",
        {"num_trials": "60", "variants": ""},
        tmp_path,
        progress=False,
    )
    assert resumed.groupby("seed").size().tolist() == [61, 61]


def test_a_cluster_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(parallel, "SECONDS_TO_ANSWER", 1)
    with pytest.raises(JobError, match=r"no Dask scheduler answers at 'tcp://127\.0\.0\.1:9'"):
        run_on_cluster([Job("warm-start", 0, "smoke")], "tcp://127.0.0.1:9", progress=False)


@pytest.mark.slow
def test_a_cluster_gives_what_one_process_gives(tmp_path):
    from distributed import LocalCluster

    expected = quick(out=tmp_path / "one")
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        found = quick(out=tmp_path / "cluster", scheduler=cluster.scheduler_address)
        wrong = Job("warm-start", 4, "smoke", {"horizon": "0"})
        with pytest.raises(JobError, match=r"warm-start horizon=0, seed 4: ConfigError: horizon is 0"):
            run_on_cluster([wrong], cluster.scheduler_address, progress=False)
    assert_frame_equal(found, expected)


def test_a_job_apart_has_a_process_of_its_own(tmp_path):
    before = torch.get_num_threads()
    with threads_of_torch(3):
        path, text = run_job_apart(Job("warm-start", 0, "smoke", QUICK, str(tmp_path), threads=2))
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    assert Path(path).read_text(encoding="utf-8") == text
    assert read_header(Path(path))["threads"] == "2"


@contextmanager
def threads_of_torch(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


def test_a_run_keeps_the_threads_there_are_unless_it_is_told_otherwise(tmp_path):
    with threads_of_torch(2):
        for threads in ({}, {"threads": 3}):
            quick(out=tmp_path, seeds=[len(threads)], **threads)
            assert torch.get_num_threads() == 2
    found = [read_header(path)["threads"] for path in sorted(tmp_path.glob("*/*/seed_*.csv"))]
    assert found == ["2", "3"]
    for jobs in (1, 2):
        with pytest.raises(ConfigError, match="threads is 0, expected at least 1"):
            quick(out=tmp_path, threads=0, jobs=jobs)


def test_sweeps_use_all_cores_and_other_verbs_one():
    parse = make_parser().parse_args
    assert parse(["sweep", "q2", "horizon=1,2"]).jobs == os.cpu_count()
    assert parse(["run", "q2"]).jobs == parse(["tune", "q2", "horizon=1..2"]).jobs == 1
    assert parse(["sweep", "q2", "horizon=1,2", "--threads", "2", "--jobs", "3"]).threads == 2
    assert parse(["run", "q2"]).threads == 1


def test_tables_find_their_columns_and_count_what_was_reached():
    logs = pd.DataFrame(
        {
            "seed": [0, 0, 1, 1, 0, 0, 1, 1],
            "variant": ["PPO"] * 4 + ["Dyna-PPO"] * 4,
            "env_steps": [10, 20] * 4,
            "eval_return": [0.0, 100.0, 0.0, 100.0, 90.0, 100.0, 0.0, 10.0],
            "seconds": [1.0, 2.0] * 4,
        }
    )
    assert layout_of(logs) == ("env_steps", "eval_return", ["variant"])
    table = final_table("dyna-ppo-cartpole", logs).set_index("what")
    assert table["iqm"].tolist() == [100.0, 55.0]
    assert table["reached 80"].tolist() == [2, 1]  # 80 % of PPO's final return
    assert table["env_steps to 80"].tolist() == [20.0, float("inf")]


def test_metrics_stand_side_by_side_and_an_experiment_without_variants_has_a_name():
    scores = [("error", 1.0), ("doubt", 2.0), ("ece", 3.0)]
    rows = [(0, agent, metric, value) for agent in ("A", "B") for metric, value in scores]
    logs = pd.DataFrame(rows, columns=["seed", "variant", "metric", "value"])
    table = outcome_table("ensemble-size", logs).set_index("what")
    assert list(table.index) == ["error", "doubt", "ece"] and list(table.columns) == ["A", "B"]
    assert table.loc["doubt", "B"] == "2 [2,2]"
    table = outcome_table("ensemble-size", logs[logs["metric"] == "ece"]).set_index("what")
    assert list(table.index) == ["A", "B"] and list(table.columns) == ["ece"]
    alone = pd.DataFrame({"seed": [0], "eval_return": [5.0], "iteration": [1]})
    assert outcome_table("q2", alone)["what"].tolist() == ["as set"]


def test_a_models_error_is_drawn_and_listed_where_there_is_a_model(tmp_path):
    logs = pd.DataFrame(
        {
            "seed": [0, 0, 1, 1] * 2,
            "variant": ["PPO"] * 4 + ["Dyna-PPO"] * 4,
            "env_steps": [10, 20] * 4,
            "eval_return": [1.0] * 8,
            "E_1": [np.nan] * 4 + [0.1, 0.2, 0.3, 0.4],
            "E_10": [np.nan] * 4 + [1.0, 2.0, np.nan, 4.0],  # no episode of one seed was long enough
        }
    )
    table = final_table("dyna-ppo-cartpole", logs).set_index("what")
    assert table.loc["Dyna-PPO", ["E_1", "E_10"]].tolist() == pytest.approx([0.3, 3.0])
    assert table.loc["PPO", ["E_1", "E_10"]].isna().all()
    returns, errors = _plot_panels(logs.assign(E_10=logs["E_1"]), "PPO")
    assert len(returns.lines) >= 2
    assert "the model's error" in errors.get_ylabel()
    assert [text.get_text() for text in errors.get_legend().get_texts()] == ["Dyna-PPO (2 seeds)"]


def test_each_setting_of_a_sweep_has_its_own_baseline():
    rows = [
        (settings, variant, score)
        for settings, scores in {"clip=0.1": (100.0, 90.0), "clip=0.2": (50.0, 30.0)}.items()
        for variant, score in zip(("PPO", "Dyna-PPO"), scores, strict=True)
    ]
    logs = pd.DataFrame(rows, columns=["settings", "variant", "eval_return"])
    logs = logs.assign(seed=0, env_steps=10)[["seed", "variant", "env_steps", "eval_return", "settings"]]
    one = logs[logs["settings"] == "clip=0.2"]
    assert thresholds_of("dyna-ppo-cartpole", one) == {"80 % of PPO": 40.0, "solved": 475.0}
    assert thresholds_of("dyna-ppo-cartpole", one.drop(columns="settings"))["80 % of PPO"] == 40.0
    table = final_table("dyna-ppo-cartpole", logs).set_index("what")
    assert list(table.index) == [f"{v}, {s}" for s in ("clip=0.1", "clip=0.2") for v in ("PPO", "Dyna-PPO")]
    assert table["reached 80 % of PPO"].tolist() == [1, 1, 1, 0]
    assert table["reached 475"].tolist() == [0] * 4


def test_names_that_look_like_numbers_are_names(tmp_path):
    rows = [(0, "1", 2.0), (0, "2", 3.0), (0, "none", 4.0), (0, "NA", 5.0)]
    frame = pd.DataFrame(rows, columns=["seed", "variant", "eval_return"])
    write_csv(tmp_path / "numbers.csv", frame[:2], {})
    write_csv(tmp_path / "all.csv", frame, {})
    numbers = read_csv(tmp_path / "numbers.csv")
    assert final_table("pets-pendulum", numbers)["what"].tolist() == ["1", "2"]
    assert read_csv(tmp_path / "all.csv")["variant"].tolist() == ["1", "2", "none", "NA"]


def test_figures_and_tables_come_from_the_logs_alone(tmp_path, capsys, monkeypatch):
    quick(out=tmp_path)
    folder = next((tmp_path / "warm-start").iterdir())
    folder.rename(folder.with_name("smoke"))
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("ran again"))
    assert main(["plot", "warm-start", "--scale", "smoke", "--out", str(tmp_path)]) == OK
    shown = capsys.readouterr().out
    assert "repeat" in shown and "ships with the course" not in shown
    assert (tmp_path / "warm-start" / "smoke.png").stat().st_size > 10_000
    target = tmp_path / "shipped.png"
    assert main(["plot", "q1", "--scale", "full", "--out", str(tmp_path), "--save", str(target)]) == OK
    assert target.is_file()
    assert "this is what ships with the course" in capsys.readouterr().out
    assert main(["plot", "q1", "--scale", "smoke", "--out", str(tmp_path)]) == USAGE
    assert "mbrl-course run q1 --scale smoke" in capsys.readouterr().err


def test_unfinished_seeds_are_drawn_too_and_named(tmp_path, capsys):
    quick(out=tmp_path)
    assert unfinished_seeds("warm-start", "smoke", tmp_path) == {}
    (path,) = (tmp_path / "warm-start").glob("*/seed_1.csv")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    path.with_name("seed_1.partial.csv").write_text("\n".join(lines[:2]) + "\n")
    path.unlink()
    logs = read_logs("warm-start", "smoke", tmp_path)
    assert logs.groupby("seed").size().tolist() == [3, 1]
    assert list(unfinished_seeds("warm-start", "smoke", tmp_path).values()) == [[1]]
    assert main(["plot", "warm-start", "--scale", "smoke", "--out", str(tmp_path)]) == OK
    assert re.search(r"not finished, so these rows end early: .*, seeds 1\n", capsys.readouterr().out)


def test_results_name_what_ships_and_what_was_published():
    laptop, full = results_text(["q2"]).split("\n\n")
    assert "q2, full" in full and "MPC -70 to -50" in full and "0..4" in full
    assert "minutes on the wall: " in full and "minutes of the processor: " in laptop
    assert "settings   num_sequences 300 (full 1000)" in laptop and "settings" not in full
    text = results_text(["q3-obstacles"])
    assert "settings   num_iterations 6 (full 12), steps_per_iteration 500 (full 1000)" in text
    assert "20 gradient steps per iteration our returns stay below" in text
    assert "reached -25: solved" in text
    text = results_text(["dyna-ppo-cartpole"])
    assert "cpu_seconds to 475" in text
    assert re.search(r"reached \d+: at most 20 % less than what PPO earns in the end\n +reached 475", text)


def test_results_that_do_not_ship_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "RESULTS", tmp_path)
    with pytest.raises(ConfigError, match="no results of 'q2' ship"):
        results_text(["q2"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("horizon=3..5", Range(low=3, high=5, whole=True)),
        ("learning_rate=log:1e-4..1e-2", Range(low=1e-4, high=1e-2, log=True)),
        ("hidden_sizes=64/64,128/128", Range(("64,64", "128,128"))),
        ("imag_epochs=1..5", Range(low=1, high=5, whole=True)),
    ],
)
def test_ranges(text, expected):
    kinds = {"horizon": int, "learning_rate": float, "imag_epochs": int | None}
    assert parse_range(text, kinds)[1] == expected


@pytest.mark.parametrize("text", ["horizon", "horizon=", "horizon=5..3", "horizon=log:0..3", "horizon=a..b"])
def test_bad_ranges_are_refused(text):
    with pytest.raises(ConfigError, match="horizon"):
        parse_range(text, {"horizon": int})


def test_tuning_goes_on_where_it_stopped(tmp_path):
    settings = {"planners": "CEM", "num_iterations": "2", "budgets": "20"}
    space = ["horizon=2..4", "elite_share=0.1..0.5"]

    def search(num_trials, **kwargs):
        return tune(
            "planners-pendulum", space, num_trials, scale="smoke", settings=settings, out=tmp_path, **kwargs
        )

    first = search(2, progress=False)
    assert sorted(first["trial"]) == [0, 1]
    second = search(3, progress=False)
    assert sorted(second["trial"]) == [0, 1, 2]
    assert second["score"].is_monotonic_decreasing
    assert second["horizon"].between(2, 4).all()
    assert sorted(search(1, progress=False, fresh=True)["trial"]) == [0]


@pytest.mark.slow
def test_processes_share_the_trials(tmp_path):
    settings = {"planners": "CEM", "num_iterations": "2", "budgets": "20"}
    table = tune(
        "planners-pendulum",
        ["horizon=2..4"],
        3,
        scale="smoke",
        settings=settings,
        out=tmp_path,
        jobs=2,
        progress=False,
    )
    assert sorted(table["trial"]) == [0, 1, 2]


def test_tuning_refuses_what_the_experiment_does_not_take(tmp_path):
    with pytest.raises(ConfigError, match="there is no field 'horizn'"):
        tune("planners-pendulum", ["horizn=2..4"], scale="smoke", out=tmp_path)
    with pytest.raises(ConfigError, match="total_steps is 0, expected at least 1"):
        tune("mbpo-pendulum", ["total_steps=0..9"], 1, scale="smoke", out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_score_is_the_end_of_the_curve():
    logs = pd.DataFrame({"seed": [0] * 8, "env_steps": range(8), "eval_return": [0.0] * 6 + [1.0, 3.0]})
    assert final_score("q2", logs) == 2.0


def test_the_minutes_of_a_seed_are_those_of_all_its_variants(monkeypatch):
    rows = [(0, "a", 30.0), (0, "a", 60.0), (0, "b", 60.0), (0, "b", 120.0), (1, "a", 90.0), (1, "b", 30.0)]
    logs = pd.DataFrame(rows, columns=["seed", "variant", "cpu_seconds"]).assign(value=0.0)
    header: dict[str, str] = {"minutes": "8.3 in all, 4.10 for a seed (median)"}
    monkeypatch.setattr(tables, "load_results", lambda name, scale: logs)
    monkeypatch.setattr(tables, "load_header", lambda name, scale: header or None)
    assert minutes_per_seed("q2") == ((3 + 2) / 2, "processor, without evaluation")
    mostly_evaluation = {"minutes": "40.0 in all, 20.00 for a seed (median)"}
    header, kept = mostly_evaluation, header
    assert minutes_per_seed("q2") == (20.0, "wall")
    header = kept
    header = {**header, "cpu_minutes": "7.0 in all, 3.50 for a seed (median)"}
    assert minutes_per_seed("q2") == (3.5, "processor")
    del header["cpu_minutes"]
    logs = logs.drop(columns="cpu_seconds")
    assert minutes_per_seed("q2") == (4.1, "wall")
    header = {}
    assert minutes_per_seed("q2") is None


def test_all_results_together_fit_in_a_wide_terminal():
    text = results_text()
    assert all(f"{name}, {scale}: " in text for name, scale in experiments.list_results())
    assert max(map(len, text.splitlines())) <= 130
    assert "gain" in text and "cpu_seconds" not in text and "`mbrl-course results NAME`" in text
