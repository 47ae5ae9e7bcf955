"""The corpus upon a week of the course: what harms nobody in a small notebook harms nobody there."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from judge.conftest import LIMITS
from judge.dishonest import BYTES, CELLS, STRUCTURE
from judge.honest import SCRATCH
from judge.honest import STRUCTURE as HONEST_STRUCTURE
from judge.small_notebook import Submission, without
from mbrl_autograder.grading import student_edition
from mbrl_autograder.judge import Judge, SubmissionResult
from mbrl_autograder.judge.results import CRASHED

COURSE = Path(__file__).parents[2]
SOURCE = COURSE / "solutions" / "week03" / "build.ipynb"
UNANSWERED = ("cem-iteration", "cem-plan", "mppi-weights", "colored-noise")
WRONG_EARNS = 3.0  # the exercise shift-plan, which is left as it is


def week() -> dict[str, Any]:
    """The week's source, with the texts of cells in one piece."""
    notebook: dict[str, Any] = json.loads(SOURCE.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


class WeekSubmission(Submission):
    """The week's notebook; the wrong one has one right answer, and one of no more than the right shapes."""

    notebook_of = staticmethod(week)
    wrong: Mapping[str, str] = {
        name: "def unanswered():\n    raise NotImplementedError" for name in UNANSWERED
    } | {
        "refit-to-elites": "def refit_to_elites(sequences, scores, num_elites):\n"
        "    return torch.zeros(sequences.shape[1:]), torch.zeros(sequences.shape[1:])"
    }
    alias: Mapping[str, str] = {
        "imports": "setup-1",
        "smooth": "refit-to-elites",
        "test_shape": "refit-to-elites-test-1",
        "test_values": "refit-to-elites-test-2",
        "test_twice": "refit-to-elites-test-3",
        "counter": "cem-iteration",
        "test_counter": "cem-iteration-test-1",
        "search": "colored-noise",
        "test_search": "colored-noise-test-1",
        "why": "given-5",
    }


# Of the small notebook's builders, those that write no code for its own exercises.
DISHONEST_STRUCTURE = [name for name in STRUCTURE if name not in ("tests marked as solutions",)]
NEEDED = ("exits", "kills everything", "fork bomb", "memory", "floods stdout", "segmentation fault")
KEPT: tuple[str, ...] = (
    "plain",
    "solution below its tests",
    "imports deleted",
    "imports at the end",
    "kernel of another name",
)
KEPT += ("metadata of solution lost", "sources as lists", "minor version 0", "tests deleted")
KEPT += ("solution turned into markdown",)
QUICK = ("patches torch", "exits", "input transformer", "plain", "scratch fails", "right: refit in numpy")


def dishonest() -> dict[str, bytes]:
    """Name and notebook; each is answered wrongly."""
    cases = {}
    for name, code in CELLS.items():
        cases[name] = WeekSubmission(False).insert("smooth", code).data()
    for name in DISHONEST_STRUCTURE:
        submission = WeekSubmission(False)
        STRUCTURE[name][1](submission)
        cases[name] = submission.data()
    for name in NEEDED:
        body = "\n".join("    " + line for line in CELLS[name].split("\n"))
        answer = f"def refit_to_elites(sequences, scores, num_elites):\n    import os, sys\n{body}\n"
        cases[f"in a call: {name}"] = WeekSubmission(False).code("smooth", answer).data()
    return cases | BYTES


def honest() -> dict[str, bytes]:
    """Name and notebook; each deserves every point."""
    cases = {}
    for name, code in SCRATCH.items():
        s = WeekSubmission(True).insert("smooth", code).insert("test_values", code).insert("why", code)
        cases[name] = s.data()
    for build in HONEST_STRUCTURE:
        name = build.__name__.replace("_", " ")
        if name in KEPT:
            submission = WeekSubmission(True)
            build(submission)
            cases[name] = submission.data()
    right = importlib.import_module("checks.test_week03").RIGHT
    for name, (exercise, text) in right.items():
        cases[f"right: {name}"] = WeekSubmission(True).code(exercise, dedent(text)).data()
    return cases


DISHONEST, HONEST = dishonest(), honest()


def marks(names: dict[str, bytes]) -> list[Any]:
    """A few run always; all of them where slow tests run."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def week_judge() -> Iterator[Judge]:
    with student_edition(COURSE, "week03") as edition, Judge(python_path=edition, limits=LIMITS) as judge:
        yield judge


def graded(judge: Judge, data: bytes, folder: Path) -> SubmissionResult:
    path = folder / "build.ipynb"
    path.write_bytes(data)
    return judge.grade(SOURCE, path)


def test_the_corpus_is_large() -> None:
    assert len(DISHONEST) >= 60
    assert len(HONEST) >= 30


@pytest.mark.parametrize("name", marks(DISHONEST))
def test_dishonest_or_broken(name: str, week_judge: Judge, tmp_path: Path) -> None:
    result = graded(week_judge, DISHONEST[name], tmp_path)
    assert result.status != CRASHED, result.reason
    nothing = name in BYTES or name == "solutions are gone"
    assert result.points == pytest.approx(0 if nothing else WRONG_EARNS), result.cells


@pytest.mark.parametrize("name", marks(HONEST))
def test_honest(name: str, week_judge: Judge, tmp_path: Path) -> None:
    result = graded(week_judge, HONEST[name], tmp_path)
    assert result.points == result.max_points == 30, (result.cells, result.outputs)


def test_nothing_hidden_is_said(week_judge: Judge, tmp_path: Path) -> None:
    wrong = graded(week_judge, WeekSubmission(False).data(), tmp_path)
    assert wrong.points == WRONG_EARNS
    hidden = [
        line.strip()
        for cell in week()["cells"]
        if cell["metadata"].get("nbgrader", {}).get("grade")
        for line in set(cell["source"].split("\n"))
        - set(without(cell["source"], "BEGIN HIDDEN TESTS", "END HIDDEN TESTS").split("\n"))
        if len(line.strip()) > 25
    ]
    assert hidden
    said = str([cell.message for cell in wrong.cells.values()]) + str(wrong.outputs)
    assert not [line for line in hidden if line in said]
