"""A course of two tiny weeks in a temporary folder, with a package of pure Python beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mbrl_course
from mbrl_autograder.authoring import Course

REAL_PACKAGE = Path(mbrl_course.__file__).parent

MPC = '''"""Scores plans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from mbrl_course.buffers import Batch

Plan = list[float]
"""A plan: one action for each step."""

# How far the future counts.
DISCOUNT = 0.5


class Scored(NamedTuple):
    """A plan and its score."""

    plan: Plan
    score: float


def total(
    rewards: list[float],
    discount: float = DISCOUNT,
) -> float:
    """The discounted sum of rewards.

    Args:
        rewards: one for each step.
    """
    # the first reward counts in full
    weights = [discount**k for k in range(len(rewards))]
    return math.fsum(w * r for w, r in zip(weights, rewards, strict=True))
    # nothing else


def best(plans: list[Plan], score) -> Scored:
    scores = [score(plan) for plan in plans]
    top = max(range(len(plans)), key=scores.__getitem__)
    return Scored(plans[top], scores[top])


@dataclass
class Planner:
    """Chooses among plans."""

    plans: list[Plan]
    calls: int = 0

    def plan(self, score) -> Plan:
        """The best plan."""
        self.calls += 1
        return best(self.plans, score).plan

    @classmethod
    def of(cls, *plans: Plan) -> Planner:
        return cls(list(plans))


def _private(batch: Batch) -> int:
    return len(batch)
'''

BUFFERS = '''"""Keeps things."""

from __future__ import annotations


class Batch(list):
    """Things."""


class Ring:
    """The last few things."""

    def __init__(self, capacity: int) -> None:
        """An empty ring."""
        self.capacity = capacity
        self.items: list[int] = []

    def add(self, item: int) -> None:
        """Adds one."""
        self.items.append(item)
        del self.items[: -self.capacity]

    @property
    def last(self) -> int:
        """The newest."""
        return self.items[-1]

    def __len__(self) -> int:
        """How many."""
        return len(self.items)
'''

DYNAMICS = '''"""Predicts."""

from mbrl_course.buffers import Batch


def predict(state: int, action: int) -> int:
    """Where an action leads."""
    return state + action


def predict_all(state: int, actions: Batch) -> Batch:
    """Where actions lead."""
    return Batch(predict(state, action) for action in actions)
'''

BUILD = """# %% [markdown]
# # Planning
# A plan is a list.

# %% kind="setup"
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from mbrl_course.buffers import Batch

REWARDS = [1.0, 2.0, 4.0]

# %% kind="given" ref="mpc:Plan,DISCOUNT,Scored"

# %% [markdown] exercise="total" number="2.1" title="Add up" points=3 difficulty=2 minutes=10
# What is the sum?
#
# $$\\sum_k \\gamma^k r_k$$

# %% kind="solution" of="total" ref="mpc:total"
# TODO: the weights, then the sum

# %% kind="test" of="total" points=1
assert abs(total([1.0, 1.0]) - 1.5) < 1e-9, "the second reward counts half"

# %% kind="test" of="total" points=2
assert total([]) == 0, "no rewards, no sum"
### BEGIN HIDDEN TESTS
expected = 3.0
assert abs(total(REWARDS) - expected) < 1e-9, "three rewards"
### END HIDDEN TESTS

# %%
print("total", total(REWARDS))

# %% [markdown] exercise="planner" number="2.2" title="Choose" points=2 difficulty=1 minutes=1
# Choose the best.

# %% kind="given" ref="mpc:best"

# %% kind="solution" of="planner" ref="mpc:Planner.plan,Planner.of"
# TODO: call best
# of:
# TODO: make a planner

# %% kind="test" of="planner" points=2
planner = Planner.of([1.0], [3.0], [2.0])
assert planner.plan(score=sum) == [3.0], "the highest score wins"
assert planner.calls == 1, "count the calls"
"""

EXPERIMENTS = """# %% [markdown]
# # Experiments

# %% kind="setup"
from mbrl_course.student import use_notebook

use_notebook("week02")

# %% kind="parameters"
SCALE = "laptop"

# %%
from mbrl_course.mpc import total

N = {"smoke": 2, "laptop": 4}[SCALE]
print("sum", total([1.0] * N))

# %% [markdown]
# Why does the sum stay below 2?

# %% [markdown] kind="written" id="why" points=3
# Because of the geometric series.
#
# Rubric: 3 points for naming it.
"""

WEEK1 = """# %% kind="setup"
from __future__ import annotations

# %% kind="given" ref="buffers:Batch"

# %% [markdown] exercise="ring" number="1.1" title="A ring" points=1 difficulty=1 minutes=5
# Keep the last few.

# %% kind="solution" of="ring" ref="buffers:Ring.add"
# TODO: append, then forget

# %% kind="test" of="ring" points=1
ring = Ring(2)
for item in range(3):
    ring.add(item)
assert ring.items == [1, 2], "keep the newest two"

# %% [markdown] exercise="predict" number="1.2" title="Predict" points=1 difficulty=1 minutes=5
# Where to?

# %% kind="solution" of="predict" ref="dynamics:predict,predict_all"
# TODO: add

# %% kind="test" of="predict" points=1
assert predict_all(1, Batch([1, 2])) == [2, 3], "state and action add up"
"""


def make_course(root: Path) -> Course:
    """Writes the course into `root`; its package has the real `weeks` and `student` modules."""
    package = root / "course" / "mbrl_course"
    package.mkdir(parents=True)
    for name in ("weeks.py", "student.py", "student_notebook.py"):
        if (REAL_PACKAGE / name).is_file():
            shutil.copyfile(REAL_PACKAGE / name, package / name)
    (package / "__init__.py").write_text('"""A tiny package."""\n')
    (package / "plots.py").write_text('"""Draws."""\n\nfrom mbrl_course.mpc import total\n\nTOTAL = total\n')
    for name, text in (("buffers", BUFFERS), ("dynamics", DYNAMICS), ("mpc", MPC)):
        (package / f"{name}.py").write_text(text)
    for name in ("cem", "mppi", "icem"):
        (package / f"{name}.py").write_text(
            f'"""A later week."""\n\nfrom mbrl_course.mpc import Plan\n\nNAME = "{name}"\n'
        )
    write_source(root, "week01_dynamics/build.py", WEEK1)
    write_source(root, "week02_mpc/build.py", BUILD)
    write_source(root, "week02_mpc/experiments.py", EXPERIMENTS)
    (root / "pyproject.toml").write_text(
        '[project]\nname = "mini"\nversion = "0.1.0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["numpy>=2", "nbgrader>=0.9"]\n'
        '[project.scripts]\nmini = "mbrl_course.cli:main"\nother = "mbrl_autograder.cli:main"\n'
    )
    (root / "constraints.txt").write_text("numpy==2.4.6\n")
    return Course(root.resolve())


def write_source(root: Path, name: str, text: str) -> Path:
    """Writes a notebook source."""
    path = root / "course" / "notebooks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run_python(code: str, folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter, with `paths` first on its path."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
