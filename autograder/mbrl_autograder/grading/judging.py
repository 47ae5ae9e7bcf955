"""Where and how a class's notebooks are judged, and the executor that does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mbrl_autograder.judge import Judge
from mbrl_autograder.judge.journal import Journal, JournalError

from .cluster import ClusterGrader
from .course import Assignment
from .executor import Grader, JudgeExecutor, folder_version
from .model import GradingError, Limits


@dataclass(frozen=True)
class Options:
    """How to grade.

    Attributes:
        limits: what one submission may cost.
        workers: how many submissions are judged at the same time.
        sandbox: False judges without bubblewrap: for a class that is trusted.
        python_path: folders that submissions may import from, such as the student edition.
        scheduler: the address of a Dask cluster that judges, such as "tcp://host:8786"; "" for this machine.
        fresh: whether everything is judged again, also what an earlier run has finished.
    """

    limits: Limits = field(default_factory=Limits)
    workers: int = min(8, os.cpu_count() or 1)
    sandbox: bool = True
    python_path: tuple[Path, ...] = ()
    scheduler: str = ""
    fresh: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError where there are no workers."""
        if self.workers < 1:
            raise ValueError(f"workers is {self.workers}, expected 1 or more")


@contextmanager
def judging(assignment: Assignment, options: Options, folder: Path) -> Iterator[JudgeExecutor]:
    """An executor for one assignment, with a journal in `folder`; a judge starts when a notebook needs it.

    Raises:
        GradingError: the journal cannot be written.
    """
    try:
        journal = Journal(folder / "journal" / f"{assignment.name}.jsonl")
    except JournalError as error:
        raise GradingError(str(error)) from error
    markers = assignment.course.hidden_markers
    setting = [repr((options.limits, options.sandbox, markers)).encode(), folder_version(options.python_path)]
    ignore = tuple(assignment.course.directory.ignore)
    executor = JudgeExecutor(_judge(options, markers, ignore), journal, setting, ignore, options.fresh)
    try:
        yield executor
    finally:
        executor.close()
        with suppress(OSError):
            journal.close()


def _judge(
    options: Options, markers: tuple[str, str], ignore: tuple[str, ...]
) -> AbstractContextManager[Grader]:
    if options.scheduler:
        return ClusterGrader(
            options.scheduler, options.python_path, options.limits, options.sandbox, ignore, markers
        )
    judge = Judge(
        python_path=options.python_path,
        limits=options.limits,
        workers=options.workers,
        sandbox=options.sandbox,
        ignore=ignore,
        hidden_markers=markers,
    )
    return judge
