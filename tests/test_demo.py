"""The demo: the sample class fits the package and the notebook, and the whole of it runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from torch import Tensor

from mbrl_autograder import demo
from mbrl_autograder.grading.model import CRASHED, GRADED, TIMED_OUT, UNREADABLE
from mbrl_course import cem, icem, mppi
from mbrl_course.weeks import find_week

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "weeks" / demo.WEEK / "build.ipynb"
RIGHT = ("perfect", "another-way", "raises-early")
FUNCTIONS = ("refit_to_elites", "cem_iteration", "cem_plan", "shift_plan", "mppi_weights", "colored_noise")


def answers(student: str) -> str:
    return (demo.SAMPLES / student / "answers.txt").read_text(encoding="utf-8")


def functions(student: str) -> dict[str, Callable[..., Any]]:
    """The student's functions, defined."""
    text = answers(student)
    namespace: dict[str, Any] = {"torch": torch}
    exec(text[text.index("def ") :], namespace)
    return {name: namespace[name] for name in FUNCTIONS if name in namespace}


def quadratic(sequences: Tensor) -> Tensor:
    return -(sequences - 0.3).square().sum(dim=(1, 2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("student", RIGHT)
def test_right_answers_do_what_the_package_does(student: str) -> None:
    own = functions(student)
    sequences = torch.randn(40, 5, 2, generator=generator())
    scores = torch.randn(40, generator=generator(1))
    scores[3], scores[4], scores[5] = torch.nan, torch.inf, -torch.inf
    for mine, theirs in zip(
        own["refit_to_elites"](sequences, scores, 7), cem.refit_to_elites(sequences, scores, 7), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    plan = torch.randn(5, 2, generator=generator())
    for fill in ("repeat", "zero"):
        torch.testing.assert_close(own["shift_plan"](plan, fill), cem.shift_plan(plan, fill))
    with pytest.raises(ValueError):
        own["shift_plan"](plan, "nothing")
    weights = own["mppi_weights"](1000 * scores, 2.0)
    torch.testing.assert_close(weights, mppi.mppi_weights(1000 * scores, 2.0))
    low, high = -torch.ones(2), torch.ones(2)
    config = cem.CEMConfig(population_size=200, num_elites=20, num_iterations=8, horizon=5)
    best = own["cem_plan"](quadratic, torch.zeros(5, 2), low, high, config, generator())
    torch.testing.assert_close(best, torch.full((5, 2), 0.3), atol=0.05, rtol=0)
    for length in (15, 16):
        noise = own["colored_noise"](2.0, (4000, length), generator())
        reference = icem.colored_noise(2.0, (4000, length), generator(1))
        power, expected = (torch.fft.rfft(x).abs().square().mean(0) for x in (noise, reference))
        torch.testing.assert_close(power, expected, rtol=0.2, atol=0)


def test_typical_mistakes_are_mistakes() -> None:
    own = functions("typical-mistakes")
    assert set(own) == set(FUNCTIONS)
    scores = torch.tensor([torch.nan, 2.0, 3.0])
    sequences = torch.arange(3.0).reshape(3, 1, 1)
    assert own["refit_to_elites"](sequences, scores, 2)[0] != cem.refit_to_elites(sequences, scores, 2)[0]
    plan = torch.tensor([[1.0], [2.0]])
    assert not torch.equal(own["shift_plan"](plan, "zero"), cem.shift_plan(plan, "zero"))
    assert own["mppi_weights"](torch.tensor([1000.0, 0.0]), 1.0).isnan().any()


def gap(*names: str) -> nbformat.NotebookNode:
    text = "\n\n\n".join(f'def {name}(a):\n    """Text."""\n    raise NotImplementedError' for name in names)
    metadata = {"nbgrader": {"grade_id": names[0], "solution": True, "grade": False, "locked": False}}
    return new_code_cell(f"# TODO: a hint\n{text}", metadata=metadata)


def test_fill_in_replaces_functions_of_the_same_name() -> None:
    release = new_notebook(cells=[gap("one", "two"), gap("three"), new_code_cell("three(3)")])
    text = (
        "# %% first\nimport os\n\n\ndef two(a):\n    return 2\n\n\n# a remark\ndef three(a):\n    return 3\n"
    )
    filled = demo.fill_in(release, text)
    assert filled.cells[0].source == "import os"
    namespace: dict[str, Any] = {}
    for cell in filled.cells:
        exec(cell.source, namespace)
    assert namespace["two"](0) == 2 and namespace["three"](0) == 3
    with pytest.raises(NotImplementedError):
        namespace["one"](0)
    assert "# a remark" in filled.cells[2].source and "a hint" in filled.cells[2].source
    assert "return 2" not in release.cells[0].source, "the release itself stays as it is"


def test_fill_in_refuses_answers_of_another_notebook() -> None:
    with pytest.raises(ValueError, match="no function four"):
        demo.fill_in(new_notebook(cells=[gap("one")]), "def four():\n    pass\n")


def test_the_demo_deletes_only_what_it_made(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(demo.DemoError, match="--out"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_film_of_the_agent(tmp_path: Path) -> None:
    film = demo.film_agent(tmp_path / "film.gif", max_steps=6)
    with Image.open(film) as picture:
        assert picture.format == "GIF" and getattr(picture, "n_frames", 1) > 1


def test_the_class_fits_the_notebook() -> None:
    release = nbformat.read(NOTEBOOK, as_version=4)
    for student in demo.sample_students():
        if (demo.SAMPLES / student / "answers.txt").is_file():
            nbformat.validate(demo.fill_in(release, answers(student)))


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_week(demo.WEEK).id == demo.WEEK
    result = demo.run_demo(tmp_path / "demo", max_steps=5)
    rows = {row.student: row for row in result.rows}
    assert set(rows) == set(demo.sample_students()) and len(rows) >= 6
    best = sum(exercise.max_score for exercise in result.exercises)  # bonuses too
    for student in RIGHT:
        assert rows[student].total == best, rows[student]
        assert rows[student].status == GRADED
    shift = next(exercise.max_score for exercise in result.exercises if exercise.id == "shift-plan")
    assert rows[demo.CHEAT].total == shift, "what it wrote, and nothing for what it patched"
    assert 0 < rows["half-done"].total < best
    assert 0 < rows["typical-mistakes"].total < best
    assert rows["untouched"].total == 0 and rows["not-a-notebook"].status == UNREADABLE
    assert rows["endless-loop"].status in (TIMED_OUT, CRASHED) and rows["endless-loop"].total > 0
    with (tmp_path / "demo" / "grades.csv").open(encoding="utf-8") as stream:
        assert {line["student"] for line in csv.DictReader(stream)} == set(rows)
    shown = capsys.readouterr().out
    assert all(student in shown for student in rows) and "build.html" in shown
    for student, row in rows.items():
        assert row.pages, f"{student} has a page, if only to say what was wrong with the file"
