"""What crosses between a test and the student's code: randomness and exceptions, as in one kernel."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from judge.small_notebook import _cell
from mbrl_autograder.judge import Judge
from mbrl_autograder.judge.child.twins import twin_state
from mbrl_autograder.judge.child.wire import WireError
from mbrl_autograder.judge.connection import Student
from mbrl_autograder.judge.randomness import MAX_STEPS, TORCH_CACHE, drawn_state, may_follow
from mbrl_autograder.judge.results import CellResult

IMPORTS = "import random\n\nimport numpy as np\nimport torch"


def run(
    judge: Judge, folder: Path, solution: str, *tests: str, locked: str = "", handed_in: str = ""
) -> list[CellResult]:
    """The results of tests of one point each, for a submission that is the source unless one is given."""

    def notebook(code: str) -> dict[str, Any]:
        cells = [_cell("imports", "locked", f"{IMPORTS}\n{locked}"), _cell("solution", "solution", code)]
        cells += [_cell(f"test_{i}", "test", test, 1) for i, test in enumerate(tests)]
        return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}

    source, path = folder / "source.ipynb", folder / "submission.ipynb"
    source.write_text(json.dumps(notebook(solution)))
    path.write_text(json.dumps(notebook(handed_in or solution)))
    return list(judge.grade(source, path).cells.values())


def details(results: list[CellResult]) -> list[str]:
    return [result.detail for result in results if result.points != 1]


NOISE = """def noise():
    return np.random.rand(), random.random(), float(torch.rand(1)), float(torch.randn(1))


def called(function):
    before = random.random()
    return before, function(), random.random()


def from_numpy(generator):
    return generator.normal(size=3)


def from_torch(generator):
    return torch.rand(3, generator=generator)"""

SEED = "np.random.seed(3); random.seed(4); torch.manual_seed(5)"
SEEDED = f"""{SEED}
first = noise()
{SEED}
assert noise() == first, "the same seeds, the same numbers"
assert noise() != first
{SEED}
own = np.random.rand(), random.random(), float(torch.rand(1)), float(torch.randn(1))
assert own == first, "the test draws the same" """
TURNS = f"""{SEED}
expected = [random.random() for _ in range(4)], [np.random.rand() for _ in range(3)]
expected = *expected, [float(torch.rand(1)) for _ in range(2)]
{SEED}
first = noise()
assert first[1] == expected[0][0]
assert random.random() == expected[0][1] and np.random.rand() == expected[1][1]
assert noise()[:2] == (expected[1][2], expected[0][2])
random.seed(4)
assert called(random.random) == tuple(expected[0][:3]), "drawn on both sides within one call" """
RESTORED = """from numpy.random import seed as plant
states = torch.get_rng_state(), np.random.get_state(), random.getstate()
first = noise()
torch.set_rng_state(states[0]); np.random.set_state(states[1]); random.setstate(states[2])
assert noise() == first
plant(8)
assert noise()[0] == np.random.RandomState(8).rand()"""
PASSED = """generator = np.random.default_rng(7)
expected = np.random.default_rng(7).normal(size=9)
assert np.array_equal(from_numpy(generator), expected[:3])
assert np.array_equal(generator.normal(size=3), expected[3:6]), "the test goes on where the student stopped"
assert np.array_equal(from_numpy(generator), expected[6:])
generator, same = (torch.Generator().manual_seed(7) for _ in range(2))
assert torch.equal(from_torch(generator), torch.rand(3, generator=same))
assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=same))
assert torch.equal(from_torch(generator), torch.rand(3, generator=same))"""


@pytest.mark.parametrize("locked", ["", "torch.manual_seed(0)"])
def test_seeds_and_generators_reach_both_sides(judge: Judge, tmp_path: Path, locked: str) -> None:
    results = run(judge, tmp_path, NOISE, SEEDED, TURNS, RESTORED, PASSED, SEEDED, locked=locked)
    assert details(results) == []


def test_a_forged_state_is_not_drawn_from(judge: Judge, tmp_path: Path) -> None:
    honest = "def noise():\n    return random.random()"
    others = "random.seed(0); np.random.seed(0); torch.manual_seed(0)"
    forged = f"def noise():\n    value = random.random()\n    {others}\n    return value"
    test = f"""{SEED}
expected = random.random(), random.random(), np.random.rand(), torch.rand(1)
{SEED}
assert noise() == expected[0]
assert random.random() != random.Random(0).random()
assert np.random.rand() == expected[2] and torch.rand(1) == expected[3]"""
    assert details(run(judge, tmp_path, honest, test, handed_in=forged)) == []


def state(numbers: np.random.BitGenerator) -> dict[str, Any]:
    return dict(numbers.state)


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.PCG64DXSM])
def test_a_pcg_follows_where_it_was_drawn_from(kind: type[np.random.PCG64]) -> None:
    numbers = kind(3)
    before = state(numbers)
    assert may_follow(numbers, before, before)
    numbers.random_raw(1000)
    assert may_follow(numbers, before, state(numbers))
    numbers.advance(MAX_STEPS - 1000)
    assert may_follow(numbers, before, state(numbers))
    numbers.advance(1)
    assert not may_follow(numbers, before, state(numbers)), "too many steps"
    assert not may_follow(numbers, before, state(kind(4))), "another stream"
    inner: Any = before["state"]
    for forged in (inner["state"] ^ 1 << 100, -1, 1 << 128, 0.5):
        assert not may_follow(numbers, before, before | {"state": inner | {"state": forged}})


def test_global_generators_take_over_what_was_drawn_and_nothing_else() -> None:
    python, numpy, torchs = random.Random(1), np.random.RandomState(1), torch.Generator().manual_seed(1)
    for generator, draw in (
        (python, lambda: python.gauss(0, 1)),
        (numpy, numpy.standard_normal),
        (torchs, lambda: torch.randn(1, generator=torchs)),
    ):
        before = twin_state(generator)
        draw()
        found = drawn_state(generator, before, twin_state(generator))
        assert found is not None, type(generator)
    raw = torchs.get_state()
    assert drawn_state(torchs, raw, raw)[TORCH_CACHE:].sum() == 0, "no number is kept for the next draw"
    assert drawn_state(torchs, raw, torch.Generator().manual_seed(2).get_state()) is None
    for place in (8, 16):  # positions that would read beyond the words
        forged = raw.clone()
        forged[place : place + 2] = torch.tensor([112, 2], dtype=torch.uint8)  # 624
        assert drawn_state(torchs, raw, forged) is None


ERRORS = """class AppError(Exception):
    limit = 3


class BudgetError(AppError, ValueError):
    def __init__(self, amount):
        super().__init__(f"{amount} is too much")
        self.amount = amount


class Missing(KeyError):
    pass


def spend(amount):
    if amount > 3:
        raise BudgetError(amount)
    if amount < 0:
        raise LockedError("locked", amount)
    return amount


def find(name):
    raise Missing(name)


def tried(function):
    try:
        return function()
    except BudgetError as error:
        return "budget", error.amount
    except LockedError as error:
        return "locked", str(error)


def last():
    return BudgetError(9)"""
LOCKED = """class LockedError(RuntimeError):
    @property
    def second(self):
        return self.args[1]"""
CAUGHT = """for kind in (BudgetError, AppError, ValueError, (KeyError, AppError)):
    try:
        spend(5)
        assert False
    except kind as error:
        assert str(error) == "5 is too much" and error.amount == 5 and error.args == ("5 is too much",)
for kind in (Missing, KeyError, LookupError, Exception):
    try:
        find("x")
        assert False
    except TypeError:
        assert False
    except BudgetError:
        assert False
    except kind as error:
        assert error.args == ("x",)
try:
    spend(-1)
    assert False
except LockedError as error:
    assert error.second == -1 and isinstance(error, LockedError)"""
MADE = """error = BudgetError(7)
assert error.amount == 7 and str(error) == "7 is too much"
assert isinstance(error, BudgetError) and isinstance(last(), AppError) and not isinstance(last(), Missing)
assert issubclass(BudgetError, ValueError) and BudgetError.limit == 3
assert BudgetError.__name__ == "BudgetError"
try:
    raise BudgetError(8)
except BudgetError as caught:
    assert caught.amount == 8"""
BACK = """def fail(error):
    raise error


assert tried(lambda: fail(BudgetError(6))) == ("budget", 6)
assert tried(lambda: spend(5)) == ("budget", 5)
assert tried(lambda: fail(LockedError("shut"))) == ("locked", "shut")
try:
    tried(lambda: fail(Missing("y")))
    assert False
except Missing as error:
    assert error.args == ("y",)"""


def test_the_students_exceptions_are_caught_by_their_names(judge: Judge, tmp_path: Path) -> None:
    results = run(judge, tmp_path, ERRORS, CAUGHT, MADE, BACK, "spend(4)", locked=LOCKED)
    assert details(results[:3]) == []
    assert results[3].points == 0 and "BudgetError: 4 is too much" in results[3].message


def test_an_exception_runs_nothing_of_the_students_on_the_judges_side(judge: Judge, tmp_path: Path) -> None:
    hostile = """import os

class Meta(type):
    def __instancecheck__(cls, other):
        return True
    def __subclasscheck__(cls, other):
        return True

class BudgetError(AssertionError, metaclass=Meta):
    def __str__(self):
        return f"ran in {os.getpid()}"
    def __eq__(self, other):
        return True
    __hash__ = None

def spend(amount):
    raise BudgetError(amount)

def last():
    return BudgetError(1)

def where():
    return os.getpid()"""
    tests = [
        "assert isinstance(ValueError(), BudgetError)",
        "assert last() == 5",
        "try:\n    raise ValueError('5 is too much')\nexcept BudgetError:\n    pass",
        "import os\nassert str(last()) == f'ran in {where()}' != f'ran in {os.getpid()}'\n"
        "try:\n    spend(1)\nexcept BudgetError as error:\n    assert str(error) == f'ran in {where()}'",
    ]
    results = run(judge, tmp_path, ERRORS, *tests, locked=LOCKED, handed_in=hostile)
    assert [result.points for result in results] == [0, 0, 0, 1], details(results)


FORGED: list[Any] = [
    {"e": 1}, {"e": ["BaseException", "KeyboardInterrupt", 3]}, {"e": [{"$": "handle"}]}, {"n": "\0"},
    {"e": ["OSError", "ImportError"]}, {"k": "object", "e": "ValueError"}, {"k": "object", "e": []},
]  # fmt: skip


@pytest.mark.parametrize("forged", FORGED, ids=str)
def test_a_forged_class_of_exceptions_is_no_value(forged: dict[str, Any]) -> None:
    student = Student(Any, {}, set(), {})  # type: ignore[arg-type]
    packed = {"$": "handle", "id": 3, "n": "Error", "k": "class", "c": True, "e": ["ValueError"]}
    assert issubclass(student.unpacker([]).unpack(packed | {"id": 4}), ValueError)
    with pytest.raises(WireError):
        student.unpacker([]).unpack(packed | forged)
