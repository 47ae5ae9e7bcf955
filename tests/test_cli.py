"""The command line: help, usage errors and exit codes of `mbrl-course`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl_course import commands, experiments
from mbrl_course.cli import main, make_parser
from mbrl_course.commands import INTERRUPTED, OK, PROBLEM, USAGE
from mbrl_course.experiment_commands import parse_seeds
from small_course import ASSIGNMENT, RIGHT, hand_in, make_course, submitted

VERBS = ("build", "check", "release", "grade", "demo", "run", "sweep", "plot", "results", "tune", "lab")


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == OK
    text = capsys.readouterr().out
    example = text.split("example:\n")[1].strip().split()
    assert example[:2] == ["mbrl-course", verb]
    make_parser().parse_args(example[1:])  # the example is a valid command


def test_help_lists_all_verbs_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mbrl_course.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'numpy', 'pandas', 'nbgrader') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(f"  {verb} " in shown for verb in VERBS)
    assert shown.strip().endswith("[]")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["grade"],
        ["grade", "week03", "--submissions", ".", "--memory", "lots"],
        ["grade", "week03", "--submissions", ".", "--cell-timeout", "2 weeks"],
        ["grade", "week03", "--submissions", ".", "--workers", "0"],
        ["grade", "week03", "--submissions", ".", "--cell-timeout", "-1"],
        ["grade", "week03", "--submissions", ".", "--timeout", "nan"],
        ["run", "--seeds", "4..0"],
        ["run", "--seeds", "one"],
        ["run", "--scale", "huge"],
        ["run", "--set", "horizon"],
        ["sweep", "q2", "hidden_sizes=16,16"],
        ["sweep", "q2", "horizon=3,"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == USAGE
    assert "usage: mbrl-course" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seeds"), [("0..4", [0, 1, 2, 3, 4]), ("3", [3]), ("0,3,7", [0, 3, 7]), ("5,0..2", [5, 0, 1, 2])]
)
def test_seeds(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@given(st.text(max_size=8))
def test_seeds_are_parsed_or_refused(text: str) -> None:
    try:
        seeds = parse_seeds(text)
    except argparse.ArgumentTypeError as error:
        assert repr(text) in str(error)
    else:
        assert seeds and len(set(seeds)) == len(seeds) and min(seeds) >= 0


@pytest.mark.parametrize("arguments", [["release", "week77"], ["build", "week77"], ["lab", "week77"]])
def test_an_unknown_week_lists_the_weeks(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == USAGE
    shown = capsys.readouterr().err
    assert "week77" in shown and "week01" in shown


def test_lab_says_what_to_run_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lab"]) == USAGE
    assert "mbrl-course build" in capsys.readouterr().err
    (tmp_path / "weeks" / "week01").mkdir(parents=True)
    assert main(["lab", "week02"]) == USAGE
    assert "mbrl-course build week02" in capsys.readouterr().err


def test_lab_opens_jupyterlab_in_the_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Sequence[str], Path]] = []

    def start(command: Sequence[str], cwd: Path, check: bool) -> subprocess.CompletedProcess[str]:
        calls.append((command, cwd))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(commands.subprocess, "run", start)
    inner = tmp_path / "weeks" / "week02"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert main(["lab", "2"]) == OK
    assert calls == [([sys.executable, "-m", "jupyterlab"], inner)]


@pytest.mark.slow
def test_grade_a_foreign_course(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    command = ["grade", ASSIGNMENT, "--course", str(tmp_path), "--submissions", str(tmp_path / "in")]
    assert main([*command, "--json"]) == OK
    (ada,) = json.loads(capsys.readouterr().out)["students"]
    assert (ada["student"], ada["total"], ada["status"]) == ("ada", 5, "graded")
    assert ada["tests"]["build"]["double-test-1"]["status"] == "passed"
    hand_in(tmp_path / "in", "bob", "no notebook")
    assert main(command) == PROBLEM
    captured = capsys.readouterr()
    assert "bob" in captured.out and "bob" in captured.err
    assert main([*command[:1], "week98", *command[2:]]) == USAGE
    assert ASSIGNMENT in capsys.readouterr().err
    assert main([*command[:-1], str(tmp_path / "nowhere")]) == USAGE
    assert "--submissions" in capsys.readouterr().err


def test_sizes_and_durations() -> None:
    for text, size in {
        "512": 512,
        "500M": 500 << 20,
        "1.5G": 3 << 29,
        "2GiB": 2 << 30,
        "64kb": 64 << 10,
    }.items():
        options = make_parser().parse_args(["grade", "week03", "--memory", text])
        assert options.memory == size
    for text, seconds in {"90": 90, "90s": 90, "1.5m": 90, "1h": 3600}.items():
        options = make_parser().parse_args(["grade", "week03", "--timeout", text])
        assert options.timeout == seconds


def test_run_lists_the_experiments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == OK
    shown = capsys.readouterr().out
    assert all(name in shown for name in experiments.list_experiments())


def test_run_hands_over_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pandas as pd

    calls: list[Any] = []

    def run(*arguments: Any, **options: Any) -> pd.DataFrame:
        calls.append((arguments, options))
        return pd.DataFrame({"seed": [0, 0, 1], "value": [1.0, 2.0, 3.0]})

    monkeypatch.setattr(experiments, "run", run)
    command = [
        "run",
        "q2",
        "--seeds",
        "0..1",
        "--scale",
        "smoke",
        "--set",
        "horizon=7",
        "--jobs",
        "2",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == OK
    options = {"fresh": False, "jobs": 2, "threads": 1, "scheduler": None}
    assert calls == [(("q2", [0, 1], "smoke", {"horizon": "7"}, tmp_path), options)]
    assert "3 rows" in capsys.readouterr().out


def test_run_names_unknown_experiments_and_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nothing"]) == USAGE
    assert "planners-pendulum" in capsys.readouterr().err
    known = ["run", "planners-pendulum", "--scale", "smoke", "--out", str(tmp_path)]
    assert main([*known, "--set", "colour=red"]) == USAGE
    assert "colour" in capsys.readouterr().err


def test_an_experiment_of_this_week_in_the_student_edition(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("No module named 'mbrl_course.cem'", name="mbrl_course.cem")

    monkeypatch.setattr(experiments, "run", run)
    assert main(["run", "planners-pendulum"]) == USAGE
    assert "mbrl_course.cem" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["build"], ["check"], ["release", "1"], ["demo"]])
def test_the_student_edition_says_what_it_lacks(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mbrl_autograder"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_NoAutograder(), *sys.meta_path])
    assert main(verb) == USAGE
    assert "student edition" in capsys.readouterr().err


class _NoAutograder:
    """Finds no module of the instructor's side, as where it is not installed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] == "mbrl_autograder":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_an_interrupted_command_ends_tidily(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run", run)
    assert main(["run", "q2"]) == INTERRUPTED
    shown = capsys.readouterr().err
    assert "interrupted" in shown and "goes on where this one stopped" in shown and "Traceback" not in shown


def test_check_reports_stale_notebooks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mbrl_autograder import authoring

    monkeypatch.setattr(authoring, "check", lambda: ["weeks/week01/build.ipynb: stale"])
    assert main(["check"]) == PROBLEM
    captured = capsys.readouterr()
    assert "stale" in captured.out and "mbrl-course build" in captured.err
    monkeypatch.setattr(authoring, "check", lambda: [])
    assert main(["check"]) == OK
