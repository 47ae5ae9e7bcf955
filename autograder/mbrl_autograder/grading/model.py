"""What the parts of the grading engine hand to each other.

    collect -> Submission -> (sanitize) -> Job -> Executor -> Outcome -> record -> report

Only the `Executor` meets the student's code. It takes one notebook whose locked and test cells already come
from the source again, and says what each test cell earned; it never sees the gradebook, another submission,
or where marks are kept. Whatever keeps this contract can be put in the place of the executor that ships.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nbformat import NotebookNode

from mbrl_autograder.judge.results import CellResult

GRADED = "graded"
TIMED_OUT = "timed out"  # a cell passed its limit, or the whole submission did
CRASHED = "crashed"  # the kernel or its process ended before the notebook did
UNREADABLE = "not readable"  # something arrived, but nothing that can be graded
MISSING = "missing"  # nothing arrived
EARLIER = "earlier"  # not part of this run; the marks are those of an earlier one

UNGRADED = (CRASHED, UNREADABLE)


class GradingError(Exception):
    """The run cannot start or go on; the message says what to do."""


@dataclass(frozen=True)
class Limits:
    """What one submission may cost.

    Attributes:
        cell_seconds: wall-clock time of one cell; after that it is interrupted.
        submission_seconds: wall-clock time of one notebook; after that its process is killed.
        notebook_bytes: size of a notebook file; a larger one is not read.
        output_bytes: size of one cell's outputs; larger ones are replaced by a note.
    """

    cell_seconds: float = 30.0
    submission_seconds: float = 300.0
    notebook_bytes: int = 20_000_000
    output_bytes: int = 1_000_000


@dataclass(frozen=True)
class Submission:
    """What arrived from one student: a file per notebook, or the reason why there is none."""

    student: str
    files: Mapping[str, Path] = field(default_factory=dict)  # notebook's name (without .ipynb) -> file
    status: str = GRADED
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """One notebook to be run and marked.

    Attributes:
        student: whose it is; for messages only.
        assignment: such as "week03".
        name: the notebook's name, such as "build".
        notebook: the submission, with locked and test cells (hidden tests included) taken from the source.
        skip: cells that need not run, since no test depends on them; they keep the outputs they came with.
        data: the assignment's source folder; its files other than notebooks lie beside the running notebook.
        pythonpath: folders that come before the installed packages, such as the student edition.
        limits: time and sizes.
        submission: the file as it arrived, if there is one; files of the student's may lie beside it.
    """

    student: str
    assignment: str
    name: str
    notebook: NotebookNode
    data: Path
    skip: frozenset[int] = frozenset()
    pythonpath: tuple[Path, ...] = ()
    limits: Limits = Limits()
    submission: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of one notebook.

    Attributes:
        notebook: what a marker reads: the job's notebook with the outputs of the run.
        scores: points of each automatic test cell, by grade_id; one that is absent earned 0.
        status: GRADED, TIMED_OUT or CRASHED.
        reason: one line that names the cell and the exercise, or "".
        cells: what each automatic test cell earned and why, by grade_id.
        flags: what a human should look at, in words, without any accusation.
    """

    notebook: NotebookNode
    scores: Mapping[str, float]
    status: str = GRADED
    reason: str = ""
    cells: Mapping[str, CellResult] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


class Executor(Protocol):
    """Runs and marks one notebook. It may be called from several threads at once, and raises nothing."""

    def __call__(self, job: Job) -> Outcome: ...  # noqa: D102


@dataclass(frozen=True)
class Exercise:
    """One column of the marks: the test cells `<id>-test-<k>` together, or one cell marked by hand.

    A bonus adds to a student's total, but not to the total that can be reached.
    """

    id: str
    notebook: str
    cells: tuple[str, ...]
    max_score: float
    by_hand: bool = False
    bonus: bool = False


def max_score(exercises: Iterable[Exercise]) -> float:
    """The points that can be reached without bonuses."""
    return sum(exercise.max_score for exercise in exercises if not exercise.bonus)


@dataclass(frozen=True)
class Row:
    """One student's line: marks by exercise id; None is still to be marked by hand."""

    student: str
    marks: Mapping[str, float | None]
    status: str
    reason: str = ""
    pages: tuple[Path, ...] = ()

    @property
    def total(self) -> float:
        """The points so far."""
        return sum(mark for mark in self.marks.values() if mark is not None)


@dataclass(frozen=True)
class ClassResult:
    """The result of a run: what the table, the CSV file and the exit code are made of."""

    assignment: str
    exercises: tuple[Exercise, ...]
    rows: tuple[Row, ...]
    csv: Path

    @property
    def max_score(self) -> float:
        """The points that can be reached without bonuses."""
        return max_score(self.exercises)

    @property
    def ungraded(self) -> tuple[Row, ...]:
        """The submissions that arrived but could not be graded to their end."""
        return tuple(row for row in self.rows if row.status in UNGRADED)
