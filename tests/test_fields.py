import dataclasses
import re
from pathlib import Path

import pytest

from mbrl_course.cli import main
from mbrl_course.commands import OK, USAGE
from mbrl_course.experiments import get_config, get_experiment, list_experiments
from mbrl_course.experiments.fields import differences_from_full, fields_text, meanings, values_text
from mbrl_course.experiments.files import value_text


@pytest.mark.parametrize("name", list_experiments())
def test_every_field_of_every_experiment_is_explained(name: str) -> None:
    kind = type(get_experiment(name).configs["laptop"])
    explained = meanings(kind)
    missing = [field.name for field in dataclasses.fields(kind) if not explained.get(field.name)]
    assert not missing
    text = fields_text(name)
    assert all(f"\n  {field.name}=" in text for field in dataclasses.fields(kind) if field.name != "variants")
    assert all(len(line) <= 110 for line in text.splitlines() if line.startswith("      "))


def test_meanings_follow_the_docstrings_that_a_docstring_names() -> None:
    found = meanings(type(get_experiment("q6").configs["laptop"]))
    assert found["total_steps"] == "real steps."  # the experiment's own
    assert found["rollout_lengths"].startswith("first and last k")  # of MBPOConfig
    assert found["tau"].startswith("share of the critics")  # of SACConfig, which that one extends


def test_a_meaning_of_several_lines_becomes_one() -> None:
    @dataclasses.dataclass
    class Config:
        """A configuration.

        Attributes:
            first: of two
                lines.
            second: of one.

        More of it.
        """

        first: int = 1
        second: int = 2

    assert meanings(Config) == {"first": "of two lines.", "second": "of one."}


def test_values_are_texts_that_set_takes() -> None:
    values = {"smoke": (16,), "laptop": (64, 64), "full": (64, 64)}
    assert values_text(values) == "64/64 (smoke 16)"
    for name in list_experiments():
        for field in dataclasses.fields(type(get_config(name))):
            text = values_text({"laptop": getattr(get_config(name), field.name)})
            if field.name == "variants":
                texts = getattr(get_config(name), field.name)
                assert get_config(name, overrides={"variants": value_text(texts)}).variants == texts
            else:
                assert getattr(get_config(name), field.name) == getattr(
                    get_config(name, overrides={**NO_VARIANTS.get(name, {}), field.name: text}), field.name
                )


NO_VARIANTS = {name: {"variants": ""} for name in list_experiments() if hasattr(get_config(name), "variants")}
"""Else some fields would have no effect."""


def test_what_differs_from_the_published_setting_is_named() -> None:
    assert "num_sequences 300 (full 1000)" in differences_from_full("q2", "laptop")
    assert differences_from_full("q2", "full") == ""
    assert "variants" not in differences_from_full("clinic-pets", "smoke")
    assert differences_from_full("pets-cartpole-balance", "laptop").endswith("other variants")


def test_run_show_lists_fields_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mbrl_course.experiments.run", lambda *_, **__: pytest.fail("ran"))
    assert main(["run", "q6", "--show"]) == OK
    shown = capsys.readouterr().out
    assert "published: rising in this order" in shown
    assert "  MBPO: rollout_lengths=10/10 real_ratio=0.1" in shown
    assert main(["run", "pets-cartpole", "--show"]) == OK
    assert "      one of ts1, ts_inf, mean, single\n" in capsys.readouterr().out
    assert main(["run", "q6", "--show", "--set", "tau=1"]) == USAGE
    assert "--show" in capsys.readouterr().err
    assert main(["run", "q7", "--show"]) == USAGE
    assert "there is no experiment 'q7'" in capsys.readouterr().err


def test_the_readme_states_the_minutes_of_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == OK
    listed = re.findall(r"^(\S+) +(\d) +([\d.]+)[ *~]", capsys.readouterr().out, re.MULTILINE)
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| week | minutes of computing") :].split("\n\n")[0]
    stated = {
        (name, week, minutes)
        for week, cell in re.findall(r"^\| (\d) \| (.*) \|$", table, re.MULTILINE)
        for name, minutes in re.findall(r"`(\S+)` ([\d.]+)", cell)
    }
    assert stated == set(listed)
    assert {name for name, _, _ in stated} == set(list_experiments()), "each of them ships at laptop scale"
