"""The harness for tests of checks."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
import minicourse
from mbrl_autograder.authoring import AuthoringError, Course


@pytest.fixture
def course(tmp_path: Path) -> Course:
    # Its cells import `mbrl_course.buffers`, which is the real one in this process; its Batch will do.
    return minicourse.make_course(tmp_path)


def test_the_reference_passes(course: Course) -> None:
    results = harness.run("week02", course=course)
    assert results == {"total-test-1": None, "total-test-2": None, "planner-test-1": None}
    assert harness.exercise_points(2, course=course) == {"total": 3, "planner": 2}


def test_a_mutant_fails_where_it_is_wrong(course: Course) -> None:
    wrong = harness.replace_in_solution(2, "total", "discount**k", "discount", course=course)
    results = harness.run(2, {"total": wrong}, course=course)
    assert results["total-test-1"] == "the second reward counts half"
    assert results["total-test-2"] == "three rewards", "the hidden part is run"
    assert results["planner-test-1"] is None
    assert harness.lost_points(2, {"total": wrong}, course=course) == 3
    assert set(harness.run(2, {"total": wrong}, exercises=["planner"], course=course)) == {"planner-test-1"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit", "SystemExit: "),
        ("assert 0", "AssertionError"),
        ("print('x')\n    import warnings\n    warnings.warn('w')\n    return 'y'", "TypeError: "),
    ],
)
def test_errors_are_messages(course: Course, body: str, message: str) -> None:
    results = harness.run(2, {"total": f"def total(rewards):\n    {body}"}, course=course)
    assert str(results["total-test-1"]).startswith(message)


def test_an_endless_mutant_is_stopped(course: Course) -> None:
    endless = "def total(rewards):\n    while True:\n        pass"
    results = harness.run(2, {"total": endless}, exercises=["total"], course=course, timeout=0.2)
    assert set(results.values()) == {"TimeoutError: no end within 0.2 s"}


def test_tests_do_not_see_each_others_names(course: Course) -> None:
    leaky = minicourse.BUILD.replace('assert total([]) == 0, "no', 'assert "planner" not in dir(), "no')
    first = leaky.replace("assert abs(total([1.0, 1.0])", "planner = 0\nassert abs(total([1.0, 1.0])", 1)
    minicourse.write_source(course.root, "week02_mpc/build.py", first)
    assert set(harness.run(2, course=course).values()) == {None}


def test_mistakes_of_a_test_are_errors(course: Course) -> None:
    with pytest.raises(KeyError, match=r"no exercise 'totel'; there are: .*planner"):
        harness.run(2, {"totel": ""}, course=course)
    with pytest.raises(KeyError, match="no exercise"):
        harness.solution(2, "totel", course=course)
    with pytest.raises(ValueError, match="0 times"):
        harness.replace_in_solution(2, "total", "no such text", "", course=course)
    with pytest.raises(ValueError, match="expected once"):
        harness.replace_in_solution(2, "total", "rewards", "x", course=course)
    with pytest.raises(SyntaxError):
        harness.run(2, {"total": "def total(:"}, course=course)
    minicourse.write_source(
        course.root, "week02_mpc/build.py", minicourse.BUILD.replace("points=3", "points=4")
    )
    with pytest.raises(AuthoringError, match=r"1 \+ 2 = 3"):
        harness.run(2, course=course)
