"""Grades a class: collect, restore, run, record, give feedback, report."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from mbrl_course.weeks import UnknownWeekError, find_week

from . import kernel
from .collect import collect
from .course import Assignment, Course
from .demos import unneeded_demos
from .feedback import write_feedback
from .model import (
    CRASHED,
    GRADED,
    TIMED_OUT,
    UNREADABLE,
    ClassResult,
    Executor,
    Job,
    Limits,
    Outcome,
    Submission,
)
from .notebooks import NotANotebookError, has_tests, read_notebook, restore
from .processes import end_running
from .record import keep_submitted, read_rows, record
from .report import write_csv


def grade(
    week: str,
    submissions: Path,
    course: Path,
    *,
    workers: int = 2,
    limits: Limits | None = None,
    executor: Executor = kernel.execute,
    pythonpath: Iterable[Path] = (),
    progress: bool = True,
) -> ClassResult:
    """Grades what a class handed in for one week, and writes marks and feedback into the course directory.

    A notebook with automatic points is run; one without (the `experiments` notebooks) is not: its written
    answers wait for a marker, with the outputs that it was handed in with. Whatever arrives gets a line in
    the result.

    Args:
        week: a week's name in any of its forms ("week03", "3"), or the name of an assignment of the course.
        submissions: the folder with what the class handed in (see `collect`).
        course: the course directory: `solutions/` or `source/`, perhaps an `nbgrader_config.py`;
        `submitted/`,
            `autograded/`, `feedback/`, `grades/` and the gradebook are written there.
        workers: how many submissions run at the same time.
        limits: time and sizes that one submission may take.
        executor: what runs and marks a notebook.
        pythonpath: folders that come before the installed packages in the student's process.
        progress: whether to show progress bars.

    Raises:
        GradingError: no such assignment, no submissions, or a gradebook that does not fit the notebooks.
        ValueError: `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}, expected 1 or more")
    limits = limits or Limits()
    home = Course(course)
    assignment = Assignment(home, assignment_name(home, week))
    arrived = collect(submissions, assignment.name, list(assignment.templates), limits)
    assignment.register()
    paths = tuple(path.resolve() for path in pythonpath)
    run: dict[str, tuple[str, str]] = {}

    def execute(submission: Submission) -> tuple[dict[str, Outcome], str, str]:
        return _execute(assignment, submission, executor, paths, limits)

    futures: dict[Future, Submission] = {}
    pages: dict[Future, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        try:
            futures.update((pool.submit(execute, one), one) for one in arrived)
            for future in _shown(futures, f"grading {assignment.name}", progress):
                submission = futures[future]
                outcomes, status, reason = future.result()
                run[submission.student] = (status, reason)
                keep_submitted(assignment, submission)
                record(assignment, submission.student, outcomes)
            with_pages = [student for student in run if _has_notebooks(assignment, student)]
            pages.update((pool.submit(write_feedback, home.root, assignment.name, s), s) for s in with_pages)
            for future in _shown(pages, "feedback", progress):
                if problem := future.result():
                    status, reason = run[pages[future]]
                    run[pages[future]] = (status, "; ".join(filter(None, [reason, problem])))
        except BaseException:  # Ctrl-C: what waits is dropped, what runs is ended
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in (*futures, *pages)):
                end_running()
                time.sleep(0.1)
            raise
    rows = tuple(read_rows(assignment, run))
    csv = home.root / "grades" / assignment.name / "grades.csv"
    write_csv(csv, assignment.exercises, rows)
    return ClassResult(assignment.name, assignment.exercises, rows, csv)


def assignment_name(course: Course, week: str) -> str:
    """The assignment that `week` names: an assignment of the course by its own name, else a week in any form.

    Raises:
        UnknownWeekError: neither; the message lists the weeks and the course's other assignments.
    """
    if week in course.assignments:
        return week
    try:
        return find_week(week).id
    except UnknownWeekError as error:
        others = ", ".join(course.assignments) or "none"
        raise UnknownWeekError(f"{error}; assignments in {course.root}: {others}") from None


def _execute(
    assignment: Assignment,
    submission: Submission,
    executor: Executor,
    pythonpath: tuple[Path, ...],
    limits: Limits,
) -> tuple[dict[str, Outcome], str, str]:
    """The outcome of each notebook, and the submission's status and reason; never raises."""
    outcomes: dict[str, Outcome] = {}
    statuses, reasons = [submission.status], [submission.reason]
    for name, path in submission.files.items():
        template = assignment.templates[name]
        try:
            notebook = restore(read_notebook(path), template)
            if has_tests(template):
                job = Job(
                    student=submission.student,
                    assignment=assignment.name,
                    name=name,
                    notebook=notebook,
                    data=assignment.source,
                    skip=unneeded_demos(notebook, template),
                    pythonpath=pythonpath,
                    limits=limits,
                    submission=path,
                )
                outcomes[name] = executor(job)
            else:
                outcomes[name] = Outcome(copy.deepcopy(notebook), {})
        except NotANotebookError as error:
            statuses.append(UNREADABLE)
            reasons.append(f"{path.name}: {error}")
            continue
        except Exception as error:  # one submission costs only itself
            statuses.append(CRASHED)
            reasons.append(f"{path.name} could not be graded: {error!r}"[:300])
            continue
        statuses.append(outcomes[name].status)
        reasons.append(outcomes[name].reason)
    missing = [name for name in assignment.templates if name not in submission.files]
    if submission.files and missing:
        reasons.append(f"{', '.join(f'{name}.ipynb' for name in missing)} did not arrive")
    order = [UNREADABLE, CRASHED, TIMED_OUT, GRADED]
    return outcomes, min(statuses, key=order.index), "; ".join(reason for reason in reasons if reason)


def _has_notebooks(assignment: Assignment, student: str) -> bool:
    return any(assignment.course.folder("autograded", assignment.name, student).glob("*.ipynb"))


def _shown(futures: Iterable[Future], title: str, progress: bool) -> Iterable[Future]:
    return tqdm(
        as_completed(futures), total=len(list(futures)), desc=title, unit="submission", disable=not progress
    )
