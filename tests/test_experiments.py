import dataclasses
import json
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pandas.api.types import is_numeric_dtype
from pandas.testing import assert_frame_equal

from mbrl_course import experiments
from mbrl_course.cli import main, make_parser
from mbrl_course.commands import USAGE
from mbrl_course.dyna_ppo import DynaPPOConfig
from mbrl_course.ensembles import EnsembleConfig
from mbrl_course.envs import get_task
from mbrl_course.experiments import (
    ConfigError,
    Run,
    StaleResultsError,
    get_config,
    list_experiments,
    run,
    ship,
    sweep,
)
from mbrl_course.experiments.config import differences, parse, with_overrides
from mbrl_course.experiments.files import LABELS, command_line, read_csv, read_header, run_folder
from mbrl_course.experiments.runner import run_experiment
from mbrl_course.experiments.shipping import changed_settings, seed_text, seeds_and_changes
from mbrl_course.experiments.tuning import final_score
from mbrl_course.experiments.variants import CountingModel, divergence_named, settings_of, variant_of
from mbrl_course.experiments.week01 import curves_of, open_loop, parse_model, relative_error, trajectories
from mbrl_course.experiments.week03 import PlannersConfig, make_oracle_planner
from mbrl_course.mbpo import MBPOConfig
from mbrl_course.pets import PETSConfig

QUICK_LOOP = {
    "initial_steps": "300",
    "steps_per_iteration": "100",
    "gradient_steps": "5",
    "num_sequences": "10",
    "hidden_sizes": "8",
}
QUICK = {
    "q1": {"num_steps": "300", "num_test_steps": "100", "num_sequences": "5", "models": "5x(1x8),2x(2x8)"},
    "model-shift": {"num_steps": "300", "num_test_steps": "100", "num_sequences": "5", "model": "5x(1x8)"},
    "q2": QUICK_LOOP,
    "early-end": QUICK_LOOP,
    "q3-obstacles": QUICK_LOOP,
    "q3-reacher": QUICK_LOOP,
    "q3-cheetah": QUICK_LOOP,
    "cartpole-growing-data": {"data_sizes": "20,40", "gradient_steps": "5", "num_sequences": "10"},
    "planners-pendulum": {"budgets": "20", "horizon": "3", "num_iterations": "2"},
    "planners-swingup": {"budgets": "20", "horizon": "3", "num_iterations": "2"},
    "warm-start": {"population_size": "5", "num_iterations": "1", "horizon": "3"},
    "q5": {**QUICK_LOOP, "num_elites": "3"},
}
CLOCKS = ["seconds", "cpu_seconds", "ms_per_plan"]


def without_clocks(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns=CLOCKS, errors="ignore")


def quick_run(name: str, out: Path | None, **kwargs: Any) -> pd.DataFrame:
    return run(name, [3], "smoke", QUICK.get(name), out=out, progress=False, **kwargs)


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_runs_and_leaves_its_files(name: str, tmp_path: Path) -> None:
    frame = quick_run(name, tmp_path)
    assert set(frame["seed"]) == {3}
    (path,) = (tmp_path / name).glob("*/seed_3.csv")
    assert_frame_equal(read_csv(path), frame)
    header = read_header(path)
    command = f"mbrl-course run {name} --scale smoke --seeds 3"
    assert header["command"].startswith(f"{command} --set " if name in QUICK else command)
    assert {"machine", "threads", "minutes", "cpu_minutes", "versions", "config"} <= set(header)
    assert {column for column in frame if not is_numeric_dtype(frame[column])} <= set(LABELS)
    assert math.isfinite(final_score(name, frame))  # every experiment can be tuned
    config = get_config(name, "smoke", QUICK.get(name))
    assert json.loads(header["config"]) == json.loads(json.dumps(dataclasses.asdict(config)))
    assert list(path.parent.glob("tensorboard/seed_3/events*"))
    left = {entry.name for entry in path.parent.iterdir()}
    assert left == {"seed_3.csv", "tensorboard"}


@pytest.mark.parametrize(
    ("name", "checkpoints"),
    [
        ("q1", 0),
        ("q1", 1),
        ("q3-obstacles", 0),
        ("q3-obstacles", 1),
        ("q3-obstacles", 2),
        ("q5", 1),
        ("q5", 3),
        ("ensemble-size", 2),
        ("prioritized-model", 1),
        ("pets-cartpole", 1),
        ("pets-cartpole", 3),
        ("dyna-ppo-cartpole", 1),
        ("dyna-ppo-cartpole", 7),
        ("mbpo-pendulum", 1),
        ("mbpo-pendulum", 7),
        ("final-comparison", 1),
        ("final-comparison", 3),
        ("final-comparison", 4),
        ("ensemble-gap", 1),
        ("ensemble-on-policy", 1),
        ("multi-step", 2),
        ("pareto-obstacles", 4),
    ],
)
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    name: str, checkpoints: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = quick_run(name, tmp_path / "undisturbed")
    save, log, saved = Run.checkpoint, Run.log, 0

    def counting_checkpoint(self: Run, state: Any) -> None:
        nonlocal saved
        saved += 1
        save(self, state)

    def interrupted_log(self: Run, **row: Any) -> None:
        log(self, **row)  # rows after the last checkpoint are written, and have to be taken back
        if saved == checkpoints:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, "checkpoint", counting_checkpoint)
        patch.setattr(Run, "log", interrupted_log)
        quick_run(name, tmp_path / "interrupted")
    logged = 0

    def counting_log(self: Run, **row: Any) -> None:
        nonlocal logged
        logged += 1
        log(self, **row)

    monkeypatch.setattr(Run, "log", counting_log)
    resumed = quick_run(name, tmp_path / "interrupted")
    assert_frame_equal(without_clocks(resumed), without_clocks(expected))
    assert (logged < len(expected)) == (checkpoints > 0)


@pytest.mark.parametrize(("rows", "message"), [(1, "starts over"), (4, "goes on from its last checkpoint")])
def test_an_interruption_says_what_is_kept(
    rows: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = Run.log

    def interrupted_log(self: Run, **row: Any) -> None:
        log(self, **row)
        if len(self.rows) == rows:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "log", interrupted_log)
    with pytest.raises(KeyboardInterrupt):
        run("planners-pendulum", [3], "smoke", {"horizon": 2}, out=tmp_path, progress=False)
    assert f"Seed 3 {message} when you run this again." in capsys.readouterr().out


def test_long_settings_get_short_folders(tmp_path: Path) -> None:
    settings = {"variants": ",".join(f"horizon={h} num_trials=1" for h in range(300))}
    folders = {run_folder("q2", "smoke", {**settings, "noise": noise}, tmp_path) for noise in ("0.1", "0.2")}
    assert len(folders) == 2
    for folder in folders:
        folder.mkdir(parents=True)
        assert folder.name.startswith("smoke,noise=0.") and len(folder.name) < 120
    sizes = [run_folder("q2", "smoke", {"hidden_sizes": value}, tmp_path) for value in ((8, 8), "8,8")]
    assert sizes[0] == sizes[1]  # however the field was given
    short = run_folder("q2", "smoke", {"horizon": "5"}, tmp_path)
    assert short == tmp_path / "q2" / "smoke,horizon=5"


def test_commands_can_be_given_to_a_shell() -> None:
    settings = {"variants": "a name: horizon=5; b & $HOME: horizon=6", "hidden_sizes": (64, 32), "noise": 0.1}
    words = shlex.split(command_line("q4", "smoke", "0..4", settings))
    options = make_parser().parse_args(words[1:])
    assert options.name == "q4" and options.seeds == [0, 1, 2, 3, 4]
    assert get_config("q4", "smoke", dict(options.settings)) == get_config("q4", "smoke", settings)


@pytest.mark.parametrize(
    "variants",
    [("PPO, twice: horizon=5",), ("PPO, twice: horizon=5", "PPO: horizon=6"), ("PPO: horizon=6",), ()],
)
def test_a_command_keeps_variants_whose_names_have_commas(variants: tuple[str, ...]) -> None:
    words = shlex.split(command_line("q4", "smoke", "", {"variants": variants}))
    options = make_parser().parse_args(words[1:])
    assert get_config("q4", "smoke", dict(options.settings)).variants == variants


@pytest.mark.parametrize("overrides", [{"learning_rate": "1e30"}, {"learning_rate": "1e30", "variants": ""}])
def test_divergence_is_one_error_with_one_line(
    overrides: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "mbpo-pendulum" if "variants" in overrides else "ensemble-gap"
    with pytest.raises(FloatingPointError, match="is learning_rate small enough"):
        run(name, [0], "smoke", overrides, out=None, progress=False)
    sets = [word for field, value in overrides.items() for word in ("--set", f"{field}={value}")]
    assert main(["run", name, "--scale", "smoke", "--out", str(tmp_path), *sets]) == USAGE
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "diverged" in line]
    assert f"'{name}' diverged" in line


def test_errors_of_finite_networks_stay_what_they_are() -> None:
    network = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="a bug"), divergence_named(network):
        raise ValueError("a bug")
    torch.nn.init.constant_(network.weight, float("nan"))
    with pytest.raises(FloatingPointError, match=r"any more.*\(a bug\)"), divergence_named(network):
        raise RuntimeError("a bug")


def test_finished_seeds_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = quick_run("warm-start", tmp_path)
    monkeypatch.setattr(Run, "log", lambda self, **row: pytest.fail("ran again"))
    assert_frame_equal(quick_run("warm-start", tmp_path), first)


def test_fresh_runs_forget_and_seeds_differ(tmp_path: Path) -> None:
    both = run("warm-start", [0, 1], "smoke", QUICK["warm-start"], out=tmp_path, progress=False)
    (path,) = tmp_path.glob("warm-start/*/seed_0.csv")
    path.write_text(path.read_text().replace("repeat", "spoilt"))
    again = run("warm-start", [0, 1], "smoke", QUICK["warm-start"], out=tmp_path, progress=False, fresh=True)
    assert_frame_equal(again, both)
    assert both["return"][both["seed"] == 0].tolist() != both["return"][both["seed"] == 1].tolist()


def test_runs_in_memory_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_memory = quick_run("warm-start", None)
    assert list(tmp_path.iterdir()) == []
    on_disk = quick_run("warm-start", tmp_path)
    assert_frame_equal(in_memory, on_disk, rtol=1e-5)


def test_results_of_another_configuration_are_refused(tmp_path: Path) -> None:
    quick_run("warm-start", tmp_path)
    (path,) = tmp_path.glob("warm-start/*/seed_3.csv")
    path.write_text(path.read_text().replace('"horizon": 3', '"horizon": 4'))
    with pytest.raises(StaleResultsError, match=r"seed_3\.csv was made with another .*\(horizon 4, now 3\)"):
        quick_run("warm-start", tmp_path)


@pytest.mark.parametrize(
    ("name", "agents", "not_meant"),
    [
        ("mbpo-pendulum", [MBPOConfig], set()),
        ("clinic-mbpo", [MBPOConfig], set()),
        ("dyna-ppo-cartpole", [DynaPPOConfig], {"record_capacity"}),
        (
            "pets-pendulum",
            [PETSConfig, EnsembleConfig],
            {"optimizer", "num_elites", "activation", "weight_decay", "holdout_fraction", "bound_penalty"},
        ),
    ],
)
def test_what_an_agent_can_be_set_to_its_experiments_can(
    name: str, agents: list[type], not_meant: set[str]
) -> None:
    settings = {field.name for agent in agents for field in dataclasses.fields(agent)}
    own = {field.name for field in dataclasses.fields(get_config(name))}
    assert settings - own == not_meant


def test_fields_newer_than_the_results_count_as_their_defaults() -> None:
    config = get_config("warm-start", "laptop")
    old = json.loads(json.dumps(dataclasses.asdict(config)))
    del old["horizon"], old["warm_starts"]
    assert differences(old, config) == ""
    assert differences(old, dataclasses.replace(config, horizon=5)) == "horizon 30, now 5"
    assert differences({**old, "colour": "red"}, config) == "colour red, now None"


def test_a_run_that_ends_before_its_first_result_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="learning_rate is -1"):  # refused before it is begun
        run("mbpo-pendulum", [0], "smoke", {"learning_rate": "-1"}, out=tmp_path, progress=False)

    def fails(config: Any, run: Run) -> None:
        raise ValueError("out of order")

    broken = dataclasses.replace(experiments.get_experiment("warm-start"), function=fails)
    changes = QUICK["warm-start"]
    config = get_config("warm-start", "smoke", changes)
    for others in (False, True):
        if others:
            quick_run("warm-start", tmp_path)
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match="out of order"):
            run_experiment(broken, config, [4], "smoke", overrides=changes, out=tmp_path, progress=False)
        assert sorted(tmp_path.rglob("*")) == before


def test_rows_need_the_same_columns() -> None:
    seed_run = Run(0)
    seed_run.log(step=1, value=2.0)
    with pytest.raises(ValueError, match=r"columns \['step'\], expected \['step', 'value'\]"):
        seed_run.log(step=2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"horizn": "5"},
            "there is no field 'horizn' (did you mean 'horizon'?); the fields are task, num_iterations,",
        ),
        ({"zzz": "5"}, "there is no field 'zzz'; the fields are task"),
        ({"task": "nosuch"}, "unknown task 'nosuch', expected one of obstacles, cartpole,"),
        ({"horizon": "five"}, "field 'horizon' is 'five', expected a whole number"),
        ({"horizon": 2.5}, "field 'horizon' is 2.5, expected a whole number"),
        ({"horizon": True}, "field 'horizon' is True, expected a whole number"),
        ({"hidden_sizes": "32,x"}, "expected values separated by commas or slashes, each a whole number"),
        ({"hidden_sizes": 32}, "field 'hidden_sizes' is 32"),
        ({"search": "luck"}, "field 'search' is 'luck', expected one of random shooting, CEM"),
        ({"plan_to_end": "maybe"}, "field 'plan_to_end' is 'maybe', expected true or false"),
        ({"noise": "much"}, "field 'noise' is 'much', expected a number"),
        ({"num_iterations": "0"}, "num_iterations is 0, expected at least 1"),
        ({"noise": "-1"}, "noise is -1.0, expected 0 or more"),
        ({"learning_rate": "nan"}, "learning_rate is nan, expected more than 0"),
        ({"search": "CEM", "num_sequences": "9"}, "num_elites is 50, expected at most num_sequences = 9"),
    ],
)
def test_bad_overrides_name_the_field(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_config("q2", "laptop", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("pets-cartpole", {"variants": "horizn=5"}, "variants holds 'horizn=5': there is no field 'horizn'"),
        ("pets-cartpole", {"variants": "task=moon"}, "variants holds 'task=moon': unknown task 'moon'"),
        ("pets-cartpole", {"variants": "one: horizon=x"}, "field 'horizon' is 'x', expected a whole number"),
        ("pets-cartpole", {"variants": "horizon"}, "expected such as 'NAME: FIELD=VALUE FIELD=VALUE'"),
        (
            "prioritized-model",
            {"variants": "few: num_points=2"},
            "variants holds 'few: num_points=2': all variants share the field 'num_points'",
        ),
        ("ensemble-size", {"variants": "holds=3"}, "all variants share the field 'holds'"),
        ("multi-step", {"situations": "fog"}, "situations holds 'fog', expected some of whole state, small"),
        ("multi-step", {"data_sizes": "5,500"}, "data_sizes is (5, 500), expected at least 10 each"),
        ("multi-step", {"seen": "4"}, "seen is 4, expected at most 3, all of the state"),
        ("multi-step", {"small_hidden_sizes": "0"}, "small_hidden_sizes is (0,), expected at least 1 each"),
        ("pareto-obstacles", {"horizon": "0"}, "horizon is 0, expected at least 1"),
        ("dyna-ppo-gate", {"eval_every": "100"}, "eval_every is 100, expected a multiple of"),
        ("dyna-ppo-gate", {"match_updates": "yes"}, "match_updates is true, expected use_model false"),
        ("mbpo-pendulum", {"total_steps": "0"}, "total_steps is 0, expected at least 1"),
        ("q4", {"num_iterations": "0"}, "num_iterations is 0, expected at least 1"),
        ("ensemble-gap", {"points_per_stage": "0"}, "points_per_stage is 0, expected at least 1"),
        ("ensemble-gap", {"points_per_stage": "999"}, "points_per_stage is 999, expected at most"),
        ("ensemble-gap", {"holdout_fraction": "1"}, "holdout_fraction is 1.0, expected in [0, 1)"),
        ("planners-pendulum", {"num_iterations": "0"}, "num_iterations is 0, expected at least 1"),
        ("planners-pendulum", {"elite_share": "5"}, "elite_share is 5.0, expected above 0 and at most 1"),
        ("planners-pendulum", {"budgets": ""}, "budgets is empty, expected at least one value"),
        ("warm-start", {"elite_share": "0"}, "elite_share is 0.0, expected above 0 and at most 1"),
        ("warm-start", {"population_size": "1"}, "population_size is 1, expected at least 2"),
        ("prioritized-model", {"num_points": "0"}, "num_points is 0, expected at least 1"),
        ("prioritized-model", {"num_points": "9999"}, "num_points is 9999, expected at most gradient"),
        ("ensemble-on-policy", {"num_iterations": "-2"}, "num_iterations is -2, expected at least 1"),
        ("ensemble-on-policy", {"num_elites": "61"}, "num_elites is 61, expected at most"),
        ("ensemble-size", {"holds": "2,0"}, "holds is (2, 0), expected at least 1 each"),
        ("ensemble-uncertainty", {"near": "0"}, "near is 0.0, expected more than 0"),
        ("q1", {"num_sequences": "0"}, "num_sequences is 0, expected at least 1"),
        ("q1", {"models": "0x(1x8)"}, "models holds '0x(1x8)', expected STEPSx"),
        ("q1", {"num_steps": "9"}, "num_steps is 9, expected at least 10"),
        ("q2", {"initial_steps": "9"}, "initial_steps is 9, expected at least 10"),
        ("q4", {"variants": "hidden_sizes=0"}, "hidden_sizes is (0,), expected at least 1 each"),
        ("ensemble-size", {"variants": "hidden_sizes=0"}, "hidden_sizes is (0,), expected at least 1 each"),
        ("prioritized-model", {"variants": "alpha=2"}, "alpha is 2.0, expected in [0, 1]"),
        ("q1", {"num_test_steps": "5"}, "num_test_steps is 5, expected at least max_k = 20"),
        ("cartpole-growing-data", {"data_sizes": "50,0"}, "data_sizes is (50, 0), expected at least 1 each"),
        ("q5", {"num_elites": "201"}, "num_elites is 201, expected at most num_sequences = 200"),
        ("pets-cartpole", {"elite_share": "5"}, "elite_share is 5.0, expected above 0 and at most 1"),
        ("dyna-ppo-gate", {"num_steps": "0"}, "num_steps is 0, expected at least 1"),
        ("final-comparison", {"gamma": "2"}, "gamma is 2.0, expected in [0, 1]"),
    ],
)
def test_variants_and_agents_name_the_bad_field(name: str, overrides: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_config(name, "laptop", overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("pets-pendulum", {"variants": ":,horizon=0"}, "horizon is 0, expected at least 1"),
        ("pets-pendulum", {"robust": "worst", "propagation": "ts1"}, "robust is 'worst'"),
        ("dyna-ppo-gate", {"variants": "gate=-1"}, "gate is -1.0, expected more than 0"),
        ("mbpo-pendulum", {"variants": ":,rollout_lengths=1"}, "rollout_lengths is (1,), expected two"),
    ],
)
def test_agents_refuse_bad_fields_before_anything_runs(name: str, overrides: Any, message: str) -> None:
    seed_run = Run(0)
    with pytest.raises(ValueError) as caught:
        experiments.get_experiment(name).function(get_config(name, "smoke", overrides), seed_run)
    assert message in str(caught.value)
    assert seed_run.rows == []


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "pets-cartpole",
            {"horizon": "7"},
            "field 'horizon' would have no effect, since every variant sets it",
        ),
        ("pets-pendulum-preset", {"ensemble_size": 5}, "'3 members: ensemble_size=3 num_particles=3'"),
        ("q5", {"search": "CEM"}, "field 'search' would have no effect, since every variant sets it"),
        ("early-end", {"plan_to_end": "yes"}, "field 'plan_to_end' would have no effect"),
    ],
)
def test_settings_without_effect_are_refused(name: str, overrides: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        get_config(name, "laptop", overrides)
    assert message in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        sweep(name, {field: [value] for field, value in overrides.items()})
    assert message in str(caught.value)


def test_settings_with_some_effect_are_taken() -> None:
    assert get_config("pets-cartpole", "laptop", {"horizon": "7", "variants": ""}).horizon == 7
    assert get_config("q4", "laptop", {"horizon": "7"}).horizon == 7  # some variants change other fields


def test_the_searches_and_the_precision_of_pets() -> None:
    text = "shooting: planner=random shooting precision=bfloat16"
    name, variant = variant_of(get_config("pets-pendulum", "smoke", {"variants": text}), text)
    model, pets = variant.settings()
    assert (name, model.precision) == ("shooting", "bfloat16")
    assert (pets.optimizer.num_sequences, pets.optimizer.horizon) == (10, 3)
    rows = run("pets-pendulum", [0], "smoke", {"variants": text}, out=None, progress=False)
    assert rows["model_calls"].iloc[-1] == 200 * 10 * 3 * 5  # plans, sequences, steps, particles
    with pytest.raises(ConfigError, match=r"num_particles is 5, expected a multiple of ensemble_size = 3"):
        run("pets-pendulum", [0], "smoke", {"variants": "", "ensemble_size": 3}, out=None, progress=False)


def test_dyna_ppo_can_learn_when_episodes_end() -> None:
    config = get_config("dyna-ppo-cartpole", "smoke", {"learn_termination": "yes"})
    first, again = config.learned_end(0), config.learned_end(0)
    assert torch.equal(first.logits(torch.ones(4)), again.logits(torch.ones(4)))
    assert get_config("dyna-ppo-cartpole").learned_end(0) is None
    _, without_model = variant_of(config, "PPO: use_model=false")
    assert without_model.learned_end(0) is None


def test_mbpo_can_be_compiled() -> None:
    config = get_config("mbpo-pendulum", "smoke", {"compile": "yes"})
    assert settings_of(MBPOConfig, config).compile and not get_config("mbpo-pendulum").compile


def test_seconds_are_those_of_the_unit_without_what_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mbrl_course.experiments.runner._clocks", lambda: (now[0], now[0] / 2))
    seed_run = Run(0)
    now[0] += 5
    for _ in seed_run.units(["one", "two"]):
        now[0] += 1
        with seed_run.not_counted():
            now[0] += 10
        now[0] += 2
        assert seed_run.unit_seconds == (3.0, 1.5)
    assert seed_run.seconds == 5 + 2 * 13


def test_a_checkpoint_during_an_evaluation_does_not_count_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("mbrl_course.experiments.runner._clocks", lambda: (now[0], now[0]))
    first = Run(0, tmp_path)
    for _ in first.units(["one"]):
        now[0] += 3
        with first.not_counted():
            now[0] += 10
            first.checkpoint({})
        break
    now[0] += 1000  # interrupted
    second = Run(0, tmp_path)
    second._load()
    for _ in second.units(["one"]):
        now[0] += 2
        assert second.unit_seconds == (5.0, 5.0)
    assert second.seconds == 15


def test_variants_change_what_they_name() -> None:
    config = get_config("q4", "laptop", {"horizon": "7"})
    name, variant = variant_of(config, "a name: hidden_sizes=8/16 ensemble_size=2")
    assert (name, variant.hidden_sizes, variant.ensemble_size, variant.horizon) == ("a name", (8, 16), 2, 7)
    assert variant_of(config, "horizon=3")[0] == "horizon=3"
    assert variant_of(config, "as it is:")[1] == dataclasses.replace(config, variants=())


def test_ppo_with_as_many_updates_takes_as_many() -> None:
    small = {"total_steps": "128", "num_epochs": "2", "minibatch_size": "8", "imag_batches": "3"}
    variants = "PPO: use_model=false match_updates=true,Dyna-PPO:"
    frame = run("dyna-ppo-cartpole", [0], "smoke", {**small, "variants": variants}, None, False)
    last = frame.groupby("variant").tail(1).set_index("variant")
    assert last["agent_updates"]["PPO"] >= last["agent_updates"]["Dyna-PPO"] > 50
    assert last["model_calls"]["PPO"] == 0 < last["model_calls"]["Dyna-PPO"]


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(ConfigError, match="there is no experiment 'q9'; there are q1, model-shift, q2"):
        get_config("q9")
    with pytest.raises(ConfigError, match="scale is 'huge', expected one of smoke, laptop, full"):
        get_config("q2", "huge")
    with pytest.raises(ConfigError, match="seeds is empty"):
        run("q2", [], "smoke", out=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_config("q1", "smoke", {"models": "500"}), "models holds '500', expected STEPSx"),
        (lambda: get_config("planners-pendulum", "smoke", {"planners": "CME"}), "planners holds 'CME'"),
        (lambda: get_config("planners-pendulum", "smoke", {"budgets": "3"}), "expected at least 2 x num_it"),
    ],
)
def test_configurations_check_their_own_texts(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        call()
    assert message in str(caught.value)


def test_overrides_are_read_by_the_fields_type() -> None:
    overrides = {"hidden_sizes": "64, 32", "plan_to_end": "yes", "noise": 0, "search": "CEM", "horizon": "7"}
    config = get_config("q2", "full", overrides)
    assert (config.hidden_sizes, config.plan_to_end, config.noise) == ((64, 32), True, 0.0)
    assert (config.search, config.horizon) == ("CEM", 7)
    assert with_overrides(config, {}) == config
    assert get_config("q2", "full", {"hidden_sizes": "64/32"}).hidden_sizes == (64, 32)
    assert parse("q1/2,q3", tuple[str, ...]) == ("q1/2", "q3")
    assert parse("none", int | None) is None
    assert parse("4", int | None) == 4


@pytest.mark.parametrize("name", list_experiments())
def test_every_experiment_has_all_scales_and_a_known_task(name: str) -> None:
    experiment = experiments.get_experiment(name)
    assert set(experiment.configs) == set(experiments.SCALES)
    for config in experiment.configs.values():
        if hasattr(config, "task"):  # the world of one dimension is none
            assert get_task(config.task).name == config.task
        json.dumps(dataclasses.asdict(config))
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.task = "other"


def test_shipping_gathers_all_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "results"
    monkeypatch.setitem(
        experiments.get_experiment("warm-start").configs,
        "smoke",
        get_config("warm-start", "smoke", QUICK["warm-start"]),
    )
    frame = run("warm-start", [0, 1, 10], "smoke", out=tmp_path, progress=False)
    path = ship("warm-start", "smoke", out=tmp_path, results=shipped)
    assert path == shipped / "warm-start-smoke.csv"
    assert_frame_equal(read_csv(path), frame)
    header = read_header(path)
    assert header["seeds"] == "0,1,10"
    assert header["command"] == "mbrl-course run warm-start --scale smoke --seeds 0,1,10"
    with pytest.raises(
        FileNotFoundError, match=r"no finished seed in .*: run `mbrl-course run q2 --scale smoke`"
    ):
        ship("q2", "smoke", out=tmp_path, results=shipped)
    changes = {"horizon": "2"}
    with pytest.raises(FileNotFoundError, match=r"run `mbrl-course run q2 --scale smoke --set horizon=2`"):
        ship("q2", "smoke", out=tmp_path, results=shipped, overrides=changes)
    run("warm-start", [0, 1], "smoke", changes, out=tmp_path, progress=False)
    with pytest.raises(FileExistsError, match=r"warm-start-smoke\.csv was made with other settings"):
        ship("warm-start", "smoke", tmp_path, shipped, overrides=changes)
    path.unlink()
    header = read_header(ship("warm-start", "smoke", tmp_path, shipped, overrides=changes))
    assert header["command"] == "mbrl-course run warm-start --scale smoke --seeds 0..1 --set horizon=2"
    assert json.loads(header["config"])["horizon"] == 2
    assert changed_settings(header) == changes
    assert seeds_and_changes(header) == "seeds 0..1 with horizon=2"


def test_shipping_more_seeds_keeps_those_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = experiments.get_experiment("warm-start").configs
    monkeypatch.setitem(configs, "smoke", get_config("warm-start", "smoke", QUICK["warm-start"]))
    shipped, first, second = (tmp_path / name for name in ("results", "first", "second"))
    both = [run("warm-start", [0, 1], "smoke", out=first, progress=False)]
    ship("warm-start", "smoke", first, shipped, extend=True)  # nothing there to extend yet
    both.append(run("warm-start", [2], "smoke", out=second, progress=False))
    run("warm-start", [1], "smoke", out=second, progress=False)
    path = ship("warm-start", "smoke", second, shipped, extend=True)
    assert_frame_equal(read_csv(path), pd.concat(both, ignore_index=True))
    assert read_header(path)["seeds"] == "0..2"
    for key in ("minutes", "cpu_minutes"):
        assert re.fullmatch(r"[\d.]+ in all, [\d.]+ for a seed \(median\)", read_header(path)[key])
    old = [line for line in path.read_text().splitlines(True) if not line.startswith("# cpu_minutes")]
    path.write_text("".join(old))  # as it was before the processor's minutes were noted
    header = read_header(ship("warm-start", "smoke", second, shipped, extend=True))
    assert header["seeds"] == "0..2" and "minutes" in header and "cpu_minutes" not in header
    assert read_header(ship("warm-start", "smoke", second, shipped))["seeds"] == "1..2"
    text = path.read_text().replace("# machine: ", "# machine: another one, ")
    path.write_text(text)
    again = read_header(ship("warm-start", "smoke", second, shipped, extend=True))
    assert "another one" not in again["machine"], "no seed of the earlier table is left"
    changed = get_config("warm-start", "smoke", {**QUICK["warm-start"], "horizon": "2"})
    monkeypatch.setitem(configs, "smoke", changed)
    third = tmp_path / "third"
    run("warm-start", [5], "smoke", out=third, progress=False)
    with pytest.raises(experiments.StaleResultsError, match=r"warm-start-smoke\.csv was made with another"):
        ship("warm-start", "smoke", third, shipped, extend=True)


def test_everything_that_ships_can_be_read_and_says_how_it_was_made() -> None:
    assert experiments.list_results()
    for name, scale in experiments.list_results():
        frame, header = experiments.load_results(name, scale), experiments.load_header(name, scale)
        assert frame is not None
        assert header is not None
        assert frame["seed"].nunique() >= 3
        assert {"machine", "threads", "minutes", "command", "seeds", "config"} <= set(header)
        assert (
            differences(json.loads(header["config"]), get_config(name, scale, changed_settings(header))) == ""
        )
    assert experiments.load_results("q2", "nonsense") is None
    assert experiments.load_header("q2", "nonsense") is None
    assert set(experiments.load_reference("q2")) <= {"q2, full", "q2, laptop"}


def test_seeds_are_written_as_a_range_where_they_are_one() -> None:
    assert [seed_text(seeds) for seeds in ([0, 1, 2], [4], [0, 2])] == ["0..2", "4", "0,2"]


@pytest.mark.parametrize("name", ["random shooting", "CEM", "MPPI", "iCEM"])
@pytest.mark.parametrize("budget", [20, 50, 250])
def test_planners_get_equal_numbers_of_model_calls(name: str, budget: int) -> None:
    task = get_task("pendulum")
    config = PlannersConfig(horizon=4)
    model = CountingModel(task)
    planner = make_oracle_planner(name, task, model, budget, config, torch.Generator().manual_seed(0))
    for _ in range(5):
        assert planner.plan(torch.tensor([1.0, 0.0, 0.0])).shape == (4, 1)
    assert 0.75 * budget <= model.calls / (5 * 4) <= budget


def test_curves_are_seeds_by_steps() -> None:
    frame = run("q1", [0, 1], "smoke", {**QUICK["q1"], "max_k": 4}, out=None, progress=False)
    errors = curves_of(frame, "E_k")
    assert list(errors) == ["5x(1x8)", "2x(2x8)"]
    assert all(curve.shape == (2, 4) for curve in errors.values())
    mean = frame[(frame["metric"] == "mpe") & (frame["model"] == "2x(2x8)")]["value"]
    assert errors["2x(2x8)"].mean(axis=1).tolist() == pytest.approx(mean.tolist(), rel=1e-5)
    assert list(curves_of(frame, "loss")["5x(1x8)"].columns) == [1, 2, 3, 4, 5]


def test_texts_of_models() -> None:
    assert parse_model("500x(2x250)") == (500, (250, 250))


def test_open_loop_predictions_follow_the_real_trajectory_of_a_perfect_model() -> None:
    task = get_task("obstacles")
    generator = torch.Generator().manual_seed(0)
    data, _ = experiments.week01.collect_random(task, 300, generator)
    assert task.dynamics is not None
    obs, actions = trajectories(data, 6, 10, generator)
    assert obs.shape == (10, 7, 4)
    assert torch.allclose(open_loop(task.dynamics, obs[:, 0], actions), obs, atol=1e-5)
    assert relative_error(task.dynamics, data) < 1e-6
    assert relative_error(lambda obs, action: obs, data) == pytest.approx(1.0)  # the goal never moves
