"""What goes into the judge and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

PASSED, PARTIAL, FAILED, TIMED_OUT, STOPPED, NOT_RUN = (
    "passed",
    "partial",
    "failed",
    "timed out",
    "stopped",
    "not run",
)
GRADED, UNREADABLE, CRASHED = "graded", "not readable", "crashed"


@dataclass(frozen=True)
class JudgeLimits:
    """What one submission may cost.

    Attributes:
        cell_seconds: wall-clock time of one cell, and of one test; after that it is interrupted, then killed.
        scratch_seconds: wall-clock time of a cell of the student's own.
        submission_seconds: wall-clock time of one notebook altogether.
        memory_bytes: memory of all of a submission's processes together, beyond the libraries.
        processes: processes and threads.
        file_bytes: size of one file; the scratch folder holds four times as much.
        notebook_bytes: size of a notebook file; a larger one is not read.
        extra_file_bytes: size of all the files beside a notebook that its code may open.
    """

    cell_seconds: float = 30.0
    scratch_seconds: float = 10.0
    submission_seconds: float = 180.0
    memory_bytes: int = 2 << 30
    processes: int = 64
    file_bytes: int = 64 << 20
    notebook_bytes: int = 20_000_000
    extra_file_bytes: int = 20_000_000


@dataclass(frozen=True)
class GradingTask:
    """One notebook to grade.

    Attributes:
        student: whose it is; only handed back with the result.
        source: the instructor's notebook, solutions and hidden tests included.
        submission: the student's notebook file.
        seconds: overrides `JudgeLimits.cell_seconds` where the notebook needs more.
    """

    student: str
    source: Path
    submission: Path
    seconds: float | None = None


@dataclass(frozen=True)
class CellResult:
    """What one test cell earned.

    Attributes:
        points: between 0 and `max_points`.
        max_points: what the source gives for it.
        status: PASSED, PARTIAL, FAILED, TIMED_OUT, STOPPED (the student's process ended) or NOT_RUN.
        message: for the student: the check's words; nothing of a hidden check.
        detail: for the instructor: what went wrong and in which line, hidden checks too.
        hidden: a hidden check is what failed.
        output: what the test itself printed; for the instructor.
    """

    points: float
    max_points: float
    status: str
    message: str = ""
    detail: str = ""
    hidden: bool = False
    output: str = ""


@dataclass(frozen=True)
class SubmissionResult:
    """What came of one notebook.

    Attributes:
        status: GRADED, UNREADABLE or CRASHED (the judge itself failed: grade again).
        reason: one line, where there is something to say.
        cells: by grade_id, the tests of the source in its order.
        outputs: what the student's cells showed in the run, by grade_id: text, displays and an error.
        flags: what a human should look at, in words, without any accusation.
        seconds: how long it took.
    """

    status: str
    reason: str = ""
    cells: Mapping[str, CellResult] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """The points of all test cells."""
        return sum(cell.points for cell in self.cells.values())

    @property
    def max_points(self) -> float:
        """The points that all test cells together give."""
        return sum(cell.max_points for cell in self.cells.values())

    def to_json(self) -> dict[str, Any]:
        """A form that `json.dumps` takes."""
        return asdict(
            replace(self, cells=dict(self.cells), outputs=dict(self.outputs), flags=tuple(self.flags))
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SubmissionResult:
        """The reverse of `to_json`."""
        cells = {name: CellResult(**cell) for name, cell in data["cells"].items()}
        return cls(**{**data, "cells": cells, "flags": tuple(data["flags"])})
