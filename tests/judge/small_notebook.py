"""A source notebook of ten points, and builders of submissions of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

SENTINEL = "SECRET-EXPECTATION-7391"

IMPORTS = """import numpy as np
import torch
from typing import NamedTuple


class Reading(NamedTuple):
    time: float
    values: torch.Tensor"""

SMOOTH = """def smooth(values, window):
    ### BEGIN SOLUTION
    return values.unfold(0, window, 1).mean(-1)
    ### END SOLUTION"""

TWICE = """def smooth_twice(values, window):
    return smooth(smooth(values, window), window)"""

TEST_SHAPE = """signal = torch.tensor([1.0, 2.0, 6.0, 3.0])
result = smooth(signal, 2)
assert result.shape == (3,), "smooth leaves len(values) - window + 1 values" """

TEST_VALUES = f"""result = smooth(signal, 2)
assert torch.allclose(result, torch.tensor([1.5, 4.0, 4.5])), "each value is the mean of a window"
### BEGIN HIDDEN TESTS
# {SENTINEL}
result = smooth(torch.tensor([4.0, -8.0, 1.0, 7.0, 3.0]), 3)
np.testing.assert_allclose(result.numpy(), [-1.0, 0.0, 11 / 3], rtol=1e-5)
### END HIDDEN TESTS"""

TEST_TWICE = f"""long = torch.linspace(0.0, 1.0, 20) ** 2
found = smooth_twice(long, 3)
### BEGIN HIDDEN TESTS
# {SENTINEL}
kernel = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]) / 9
right = (long.unfold(0, 5, 1) * kernel).sum(-1)
error = float((found - right).abs().max())
### END HIDDEN TESTS
points = 2.0 if "error" not in dir() else 2.0 if error < 1e-5 else 0.5 if error < 1 else float(error - error)
points"""

COUNTER = """class Counter:
    def __init__(self, start=0):
        ### BEGIN SOLUTION
        self.total = start
        self.steps = 0
        ### END SOLUTION

    def add(self, reading):
        ### BEGIN SOLUTION
        self.total += float(reading.values.sum())
        self.steps += 1
        return self
        ### END SOLUTION

    def __len__(self):
        ### BEGIN SOLUTION
        return self.steps
        ### END SOLUTION"""

TEST_COUNTER = """counter = Counter(1)
counter.add(Reading(0.0, torch.tensor([1.0, 2.0]))).add(Reading(0.5, torch.tensor([4.0])))
assert len(counter) == 2, "len(counter) counts the readings"
assert abs(counter.total - 8) < 1e-6, "total sums the values" """

SEARCH = """def best_of(score, low, high, count, generator):
    ### BEGIN SOLUTION
    guesses = low + (high - low) * torch.rand(count, generator=generator)
    return guesses[torch.argmax(score(guesses))]
    ### END SOLUTION"""

TEST_SEARCH = f"""seen = []


def score(x):
    seen.append(x)
    return -((x - 0.3) ** 2)


generator = torch.Generator().manual_seed(5)
best = best_of(score, -1.0, 1.0, 400, generator)
assert abs(float(best) - 0.3) < 0.05, "the best of 400 guesses is near 0.3"
### BEGIN HIDDEN TESTS
# {SENTINEL}
assert sum(x.numel() for x in seen) == 400
again = best_of(score, -1.0, 1.0, 400, generator)
assert float(again) != float(best), "a generator is drawn from, not set back"
assert abs(float(best_of(lambda x: x, 2.0, 3.0, 300, generator)) - 3) < 0.1
try:
    best_of(lambda x: 1 / 0, 0.0, 1.0, 5, generator)
    raised = False
except ZeroDivisionError:
    raised = True
assert raised
### END HIDDEN TESTS"""

POINTS = {"test_shape": 1, "test_values": 3, "test_twice": 2, "test_counter": 2, "test_search": 2}
WRONG_SMOOTH = "def smooth(values, window):\n    return torch.zeros(len(values) - window + 1)"
WRONG_COUNTER = """class Counter:
    def __init__(self, start=0):
        self.total = 0

    def add(self, reading):
        return self

    def __len__(self):
        return 7"""
WRONG_SEARCH = "def best_of(score, low, high, count, generator):\n    return torch.tensor(low)"
WRONG = {"smooth": WRONG_SMOOTH, "counter": WRONG_COUNTER, "search": WRONG_SEARCH}
WRONG_EARNS = 1.5  # the shape, and half a point for an error below one


def _cell(name: str, kind: str, text: str, points: float = 0, markdown: bool = False) -> dict[str, Any]:
    flags: dict[str, Any] = {"grade_id": name, "schema_version": 3, "task": False}
    flags |= {"solution": kind in ("solution", "manual"), "grade": kind in ("test", "manual")}
    flags["locked"] = kind in ("locked", "test")
    if kind in ("test", "manual"):
        flags["points"] = points
    cell: dict[str, Any] = {
        "cell_type": "markdown" if markdown else "code",
        "id": f"id-{name}",
        "source": text.strip(),
    }
    cell["metadata"] = {"nbgrader": flags}
    return cell if markdown else cell | {"outputs": [], "execution_count": None}


def source() -> dict[str, Any]:
    """The instructor's notebook."""
    cells = [
        _cell("imports", "locked", IMPORTS),
        _cell("smooth", "solution", SMOOTH),
        _cell("twice", "locked", TWICE),
        _cell("test_shape", "test", TEST_SHAPE, 1),
        _cell("test_values", "test", TEST_VALUES, 3),
        _cell("test_twice", "test", TEST_TWICE, 2),
        _cell("counter", "solution", COUNTER),
        _cell("test_counter", "test", TEST_COUNTER, 2),
        _cell("search", "solution", SEARCH),
        _cell("test_search", "test", TEST_SEARCH, 2),
        _cell("why", "manual", "Because.", 3, markdown=True),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def without(text: str, begin: str, end: str, instead: str = "") -> str:
    """`text` without the regions between two markers."""
    lines, inside = [], False
    for line in text.split("\n"):
        if begin in line:
            inside = True
            if instead:
                lines.append(line[: len(line) - len(line.lstrip())] + instead)
        elif end in line:
            inside = False
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


class Submission:
    """A released notebook that a builder changes: `code` sets a cell's text, `insert` adds one.

    Builders name the small notebook's cells; `alias` says which cells of another notebook stand for them.
    """

    notebook_of = staticmethod(source)
    wrong: Mapping[str, str] = {}
    alias: Mapping[str, str] = {}

    def __init__(self, right: bool) -> None:
        self.notebook = copy.deepcopy(self.notebook_of())
        self.files: dict[str, bytes] = {}
        for cell in self.notebook["cells"]:
            text = without(cell["source"], "BEGIN HIDDEN TESTS", "END HIDDEN TESTS")
            cell["source"] = "\n".join(line for line in text.split("\n") if "SOLUTION" not in line)
        for name, text in (self.wrong or WRONG).items():
            if not right:
                self.code(name, text)

    @property
    def cells(self) -> list[dict[str, Any]]:
        return self.notebook["cells"]

    def index(self, name: str) -> int:
        wanted = self.alias.get(name, name)
        return next(i for i, c in enumerate(self.cells) if self.flags(c).get("grade_id") == wanted)

    @staticmethod
    def flags(cell: dict[str, Any]) -> dict[str, Any]:
        return cell["metadata"].get("nbgrader", {})

    def cell(self, name: str) -> dict[str, Any]:
        return self.cells[self.index(name)]

    def code(self, name: str, text: str) -> Submission:
        self.cell(name)["source"] = text
        return self

    def insert(self, before: str, text: str) -> Submission:
        plain: dict[str, Any] = {
            "cell_type": "code",
            "metadata": {},
            "source": text,
            "outputs": [],
            "execution_count": None,
        }
        self.cells.insert(self.index(before), plain | {"id": f"extra-{len(self.cells)}"})
        return self

    def data(self) -> bytes:
        return json.dumps(self.notebook).encode()
