"""Nobody earns what their code does not deserve, and no honest submission loses a mark."""

from __future__ import annotations

import pytest

from judge.dishonest import all_dishonest
from judge.honest import all_honest
from judge.small_notebook import POINTS, SENTINEL
from mbrl_autograder.judge import SubmissionResult
from mbrl_autograder.judge.results import CRASHED, UNREADABLE

pytestmark = pytest.mark.slow

DISHONEST = {name: deserves for name, (deserves, _, _) in all_dishonest().items()}
SECRETS = (SENTINEL, "SECRET-ENVIRONMENT-2648", "SECRET-REFERENCE-1853", "unfold(0, 5, 1) * kernel")


def test_the_corpus_is_large() -> None:
    assert len(DISHONEST) >= 60
    assert len(all_honest()) >= 30


@pytest.mark.parametrize("name", DISHONEST)
def test_dishonest_or_broken(name: str, graded: dict[str, SubmissionResult]) -> None:
    result = graded[f"dishonest: {name}"]
    assert result.status != CRASHED, result.reason
    assert result.points == pytest.approx(DISHONEST[name], abs=1e-6), result.cells


@pytest.mark.parametrize("name", list(all_honest()))
def test_honest(name: str, graded: dict[str, SubmissionResult]) -> None:
    result = graded[f"honest: {name}"]
    assert result.points == sum(POINTS.values()), (result.cells, result.outputs)


@pytest.mark.parametrize("name", [n for n, d in DISHONEST.items() if d == 0])
def test_what_is_no_notebook_has_a_reason(name: str, graded: dict[str, SubmissionResult]) -> None:
    result = graded[f"dishonest: {name}"]
    assert result.status != UNREADABLE or result.reason
    assert set(result.cells) == set(POINTS)


def test_no_secret_comes_out(graded: dict[str, SubmissionResult]) -> None:
    for name, result in graded.items():
        seen = [cell.message for cell in result.cells.values()], result.outputs, result.reason, result.flags
        for secret in SECRETS:
            assert secret not in str(seen), name


def test_messages_of_hidden_checks_say_nothing_of_them(graded: dict[str, SubmissionResult]) -> None:
    told = graded["dishonest: smooth: shows the hidden input"]
    assert (
        "[1.0, 2.0, 6.0, 3.0]" in told.cells["test_shape"].message
    )  # the input of a visible check may be seen
    assert all("-8.0" not in cell.message for cell in told.cells.values())
    wrong = graded["dishonest: atexit"].cells["test_values"]
    assert wrong.message == "each value is the mean of a window"
