"""What the parts of the grading hand to each other.

    collect -> Submission -> (restore) -> Job -> Executor -> Outcome -> record -> report

Only the `Executor` meets the student's code. It takes one notebook whose locked and test cells already come
from the source again, and says what each test cell earned; it never sees the gradebook, another submission,
or where marks are kept. `executor.JudgeExecutor` is the one that ships; whatever keeps this contract can be
put in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from nbformat import NotebookNode

from mbrl_autograder.judge.results import CellResult, JudgeLimits

Limits = JudgeLimits
"""What one submission may cost."""

GRADED = "graded"
TIMED_OUT = "timed out"  # a cell passed its limit, or the whole submission did
CRASHED = "not graded"  # the judge itself failed: grade again
UNREADABLE = "not readable"  # something arrived, but nothing that can be graded
MISSING = "missing"  # nothing arrived
EARLIER = "earlier"  # not part of this run; the marks are those of an earlier one

UNGRADED = (CRASHED, UNREADABLE)


class GradingError(Exception):
    """The run cannot start or go on; the message says what to do."""


class Earlier(NamedTuple):
    """A notebook of an earlier hand-in that counts on, and what is wrong with this time's."""

    path: Path
    problem: str


@dataclass(frozen=True)
class Submission:
    """What arrived from one student: a file per notebook, or the reason why there is none.

    Attributes:
        student: who.
        files: what arrived, by the notebook's name (without .ipynb).
        status: GRADED, or UNREADABLE.
        reason: what is to be said of it, or "".
        earlier: what counts of the notebooks that are not in `files`.
        platform: the learning platform that it came from ("Canvas", "Moodle"), or "".
        number: that platform's number of the student, or "".
    """

    student: str
    files: Mapping[str, Path] = field(default_factory=dict)
    status: str = GRADED
    reason: str = ""
    earlier: Mapping[str, Earlier] = field(default_factory=dict)
    platform: str = ""
    number: str = ""

    @property
    def notebooks(self) -> dict[str, Path]:
        """All that count, by name."""
        return {**self.files, **{name: one.path for name, one in self.earlier.items()}}


@dataclass(frozen=True)
class Job:
    """One notebook to be run and marked.

    Attributes:
        student: whose it is; for messages only.
        assignment: such as "week03".
        name: the notebook's name, such as "build".
        notebook: what a marker reads: the submission, with locked and test cells (hidden tests included)
            taken from the source.
        source: the instructor's notebook; the files beside it lie beside the running notebook, too.
        content: the JSON that arrived, which tells more than the restored notebook does.
        files: what the student handed in beside the notebook, by path.
    """

    student: str
    assignment: str
    name: str
    notebook: NotebookNode
    source: Path
    content: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of one notebook.

    Attributes:
        notebook: what a marker reads: the job's notebook with the outputs of the run.
        scores: points of each automatic test cell, by grade_id; one that is absent earned 0.
        status: GRADED, TIMED_OUT, UNREADABLE or CRASHED.
        reason: one line that names the cell and the exercise, or "".
        cells: what each automatic test cell earned and why, by grade_id.
        flags: what a human should look at, in words, without any accusation.
        seconds: how long its grading took.
        reused: whether the result is an earlier run's.
        instead_of: what is wrong with the notebook in whose place an earlier one was graded, or "".
    """

    notebook: NotebookNode
    scores: Mapping[str, float]
    status: str = GRADED
    reason: str = ""
    cells: Mapping[str, CellResult] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    reused: bool = False
    instead_of: str = ""


class Executor(Protocol):
    """Runs and marks one notebook; may be called from several threads at once.

    It raises `GradingError` only, where no further submission can be graded either.
    """

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
    """One student's line: marks by exercise id; None is still to be marked by hand.

    `flags` are what a human should look at, `penalty` what lateness costs, `number` is the student's on the
    learning platform.
    """

    student: str
    marks: Mapping[str, float | None]
    status: str
    reason: str = ""
    pages: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    penalty: float = 0.0
    number: str = ""

    @property
    def total(self) -> float:
        """The points so far, less the penalty."""
        return sum(mark for mark in self.marks.values() if mark is not None) - self.penalty


@dataclass(frozen=True)
class ClassResult:
    """The result of a run: what the table, the CSV file and the exit code are made of.

    Attributes:
        assignment: what was graded.
        exercises: the columns of the marks.
        rows: a line for each student, in the order of their names.
        csv: the file of the marks.
        overview: the page about the class, if there is one.
        outcomes: what came of each notebook of this run, by student and notebook.
        seconds: how long the run took.
        overview_problem: why there is no page about the class, where writing it failed.
    """

    assignment: str
    exercises: tuple[Exercise, ...]
    rows: tuple[Row, ...]
    csv: Path
    overview: Path | None = None
    outcomes: Mapping[str, Mapping[str, Outcome]] = field(default_factory=dict)
    seconds: float = 0.0
    overview_problem: str = ""

    @property
    def max_score(self) -> float:
        """The points that can be reached without bonuses."""
        return max_score(self.exercises)

    @property
    def ungraded(self) -> tuple[Row, ...]:
        """The submissions that arrived but could not be graded to their end."""
        return tuple(row for row in self.rows if row.status in UNGRADED)
