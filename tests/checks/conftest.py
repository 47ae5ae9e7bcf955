"""Every check is tried both ways: in the notebook's own process, and by the judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from mbrl_autograder.grading import student_edition
from mbrl_autograder.judge import Judge, JudgeLimits

COURSE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    """A judge with the package as students of the module's week have it."""
    with (
        student_edition(COURSE, request.module.WEEK) as edition,
        Judge(python_path=edition, limits=JudgeLimits(cell_seconds=20)) as judge,
    ):
        yield judge


@pytest.fixture(autouse=True, params=["here", pytest.param("judged", marks=pytest.mark.slow)])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where `harness.run` runs the tests."""
    if request.param == "judged":
        harness.judges.append(request.getfixturevalue("judge"))
    yield request.param
    harness.judges.clear()
