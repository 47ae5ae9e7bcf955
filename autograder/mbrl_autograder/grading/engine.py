"""Grades a class: collect, restore, judge, record, give feedback, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from mbrl_autograder.judge.notebook import files_beside
from mbrl_autograder.pages import write_feedback, write_overview
from mbrl_course.weeks import UnknownWeekError, find_week

from .collect import collect
from .course import Assignment, Course
from .earlier import with_earlier
from .judging import Options, judging
from .marking import write_marking
from .model import (
    CRASHED,
    GRADED,
    TIMED_OUT,
    UNREADABLE,
    ClassResult,
    Executor,
    GradingError,
    Job,
    Limits,
    Outcome,
    Row,
    Submission,
)
from .notebooks import NotANotebookError, clean, for_marker, has_tests, read_content, restore
from .record import Recorder, arrival, keep_submitted
from .report import write_csv
from .roster import identified, numbers, remember
from .state import exclusive

CLUSTER_THREADS = 64


def grade(
    week: str,
    submissions: Path | None,
    course: Path,
    options: Options = Options(),  # noqa: B008  # it is frozen
    *,
    executor: Executor | None = None,
    progress: bool = True,
) -> ClassResult:
    """Grades what a class handed in for one week, and writes marks and feedback into the course directory.

    A notebook with automatic points is judged; one without (the `experiments` notebooks) is not run: its
    written answers wait for a marker, with the outputs that it was handed in with. Whatever arrives gets a
    line in the result. A run that was killed is taken up again by the same call.

    Args:
        week: a week's name in any of its forms ("week03", "3"), or the name of an assignment of the course.
        submissions: what the class handed in (see `collect`); by default the course's own `submitted/`.
        course: the course directory: `solutions/` or `source/`, perhaps an `nbgrader_config.py`;
            `submitted/`, `autograded/`, `feedback/`, `grades/` and the gradebook are written there.
        options: limits, number of workers, and where submissions are judged.
        executor: what judges a notebook, in place of what `options` say.
        progress: whether to show progress bars.

    Raises:
        GradingError: no such assignment, no submissions, a gradebook that does not fit the notebooks, no
            sandbox, or a disk that cannot be written; what was recorded before stays as it is.
        UnknownWeekError: neither a week nor an assignment of the course.
    """
    started = time.monotonic()
    home = Course(course)
    assignment = Assignment(home, assignment_name(home, week))
    own = home.submitted_folder(assignment.name)
    arrived = collect(submissions or own, assignment.name, list(assignment.templates), options.limits)
    roster: list[str] = []
    elsewhere = (submissions or own).resolve() != own
    if not elsewhere:
        arrived, roster = of_assignment(assignment, arrived)
    with errors_said(home), ExitStack() as stack:
        folder = stack.enter_context(exclusive(home.root))
        assignment.register()
        execute = executor or stack.enter_context(judging(assignment, options, folder))
        gradebook = stack.enter_context(home.gradebook())
        recorder = Recorder(assignment, gradebook)
        if elsewhere:
            arrived = identified(arrived, numbers(gradebook))
            arrived = [with_earlier(assignment, one, options.limits.notebook_bytes) for one in arrived]
        shared = _shared_folders(arrived, (submissions or own).resolve())
        work = partial(_execute, assignment, execute=execute, limits=options.limits, shared=shared)
        keep = partial(_keep, assignment, limits=options.limits, shared=shared) if elsewhere else None
        threads = CLUSTER_THREADS if options.scheduler else options.workers  # there, they only wait
        outcomes, run = _graded(assignment, arrived, work, threads, recorder, keep, progress)
        rows = _with_pages(assignment, recorder, outcomes, recorder.rows(run, roster), progress)
        csv = home.root / "grades" / assignment.name / "grades.csv"
        write_csv(csv, assignment.exercises, rows)
        seconds = time.monotonic() - started
        result = ClassResult(assignment.name, assignment.exercises, rows, csv, None, outcomes, seconds)
        try:
            page = write_overview(csv.with_name("overview.html"), result, outcomes, assignment.source)
        except OSError:
            raise
        except Exception as error:  # all marks are written by now
            return replace(result, overview_problem=f"{type(error).__name__}: {error}"[:200])
        return replace(result, overview=page)


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


@contextmanager
def errors_said(course: Course) -> Iterator[None]:
    """What a disk or a database refuses, in words."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        old = "If an older nbgrader made it: `nbgrader db upgrade`. " if "no such" in cause else ""
        raise GradingError(
            f"the gradebook {course.directory.db_url} cannot be used ({cause}); it is as it was. {old}"
            "The same command goes on from there"
        ) from error
    except OSError as error:
        place = f" {error.filename}" if error.filename else ""
        raise GradingError(
            f"cannot write{place} ({error.strerror or error}); the gradebook is as it was. The same command "
            "goes on from there"
        ) from error


def of_assignment(
    assignment: Assignment, arrived: Sequence[Submission]
) -> tuple[list[Submission], list[str]]:
    """What is there of this assignment in `submitted/`, and the students who handed in only other ones."""
    found, others = [], []
    for one in arrived:
        folder = assignment.course.folder("submitted", assignment.name, one.student)
        mine = assignment.course.submitted_folder(assignment.name) / one.student
        named = folder.exists() or folder.is_symlink()
        elsewhere = mine.is_dir() and any(path.is_dir() for path in mine.iterdir())
        direct = mine.is_dir() and any(path.suffix in (".ipynb", ".zip") for path in mine.iterdir())
        if elsewhere and not named and not direct:
            others.append(one.student)
        else:
            found.append(one)
    return found, others


def _graded(
    assignment: Assignment,
    arrived: Sequence[Submission],
    work: partial[tuple[dict[str, Outcome], Row]],
    workers: int,
    recorder: Recorder,
    keep: Callable[[Submission], None] | None,
    progress: bool,
) -> tuple[dict[str, dict[str, Outcome]], dict[str, Row]]:
    """Judges what arrived with several threads; records each result in this one as it comes."""
    outcomes: dict[str, dict[str, Outcome]] = {}
    run: dict[str, Row] = {}
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, one): one for one in arrived}
        try:
            for future in _shown(futures, f"grading {assignment.name}", progress):
                submission = futures[future]
                found, row = future.result()
                run[submission.student] = row
                if row.status == CRASHED:
                    continue  # an earlier result, if there is one, is worth more
                timestamp, problem = arrival(submission)
                if problem:
                    run[row.student] = replace(row, reason="; ".join(filter(None, [row.reason, problem])))
                if keep is not None:
                    keep(submission)
                recorder.write(submission.student, found, timestamp)
                remember(recorder.gradebook, submission)
                outcomes[submission.student] = found
        except BaseException:  # Ctrl-C, a full disk: what waits is dropped, what runs is ended
            pool.shutdown(wait=False, cancel_futures=True)
            getattr(work.keywords["execute"], "close", lambda: None)()
            raise
    return outcomes, run


def _execute(
    assignment: Assignment, submission: Submission, execute: Executor, limits: Limits, shared: set[Path]
) -> tuple[dict[str, Outcome], Row]:
    """The outcome of each notebook, and the student's line without marks.

    Raises:
        GradingError: no further submission can be graded either.
    """
    outcomes: dict[str, Outcome] = {}
    statuses, reasons = [submission.status], [submission.reason]
    for name, path in submission.notebooks.items():
        template = assignment.templates[name]
        try:
            content = read_content(path, limits.notebook_bytes)
            notebook = restore(clean(content), template)
            if has_tests(template):
                files = _own_files(path, limits, shared)
                source = assignment.source / f"{name}.ipynb"
                job = Job(submission.student, assignment.name, name, notebook, source, content, files)
                outcomes[name] = execute(job)
            else:
                outcomes[name] = Outcome(for_marker(notebook), {})
        except GradingError:
            raise
        except NotANotebookError as error:
            statuses.append(UNREADABLE)
            reasons.append(f"{path.name}: {error}")
            continue
        except Exception as error:  # one submission costs only itself
            statuses.append(CRASHED)
            reasons.append(f"{path.name} could not be graded: {error!r}"[:300])
            continue
        if name in submission.earlier:
            outcomes[name] = replace(outcomes[name], instead_of=submission.earlier[name].problem)
        statuses.append(outcomes[name].status)
        reasons.append(outcomes[name].reason)
    missing = [name for name in assignment.templates if name not in submission.notebooks]
    if submission.notebooks and missing:
        reasons.append(f"{', '.join(f'{name}.ipynb' for name in missing)} did not arrive")
    order = [CRASHED, UNREADABLE, TIMED_OUT, GRADED]
    status, reason = min(statuses, key=order.index), "; ".join(reason for reason in reasons if reason)
    flags = tuple(flag for outcome in outcomes.values() for flag in outcome.flags)
    return outcomes, Row(submission.student, {}, status, reason, flags=flags, number=submission.number)


def _own_files(notebook: Path, limits: Limits, shared: set[Path]) -> dict[str, bytes]:
    """What a student handed in beside a notebook, by path."""
    alone = notebook.resolve().parent not in shared
    return files_beside(notebook, limits.extra_file_bytes) if alone else {}


def _keep(assignment: Assignment, submission: Submission, limits: Limits, shared: set[Path]) -> None:
    """Takes what arrived elsewhere into the course."""
    beside: dict[str, bytes] = {}
    for path in submission.files.values():
        beside |= _own_files(path, limits, shared)
    keep_submitted(assignment, submission, beside)


def _shared_folders(arrived: Sequence[Submission], base: Path) -> set[Path]:
    """Folders in or below which several students' notebooks lie: what else is in them is no student's own."""
    owners: dict[Path, set[str]] = {}
    for submission in arrived:
        for path in submission.files.values():
            for folder in path.resolve().parents:
                owners.setdefault(folder, set()).add(submission.student)
    return {base} | {folder for folder, students in owners.items() if len(students) > 1}


def _with_pages(
    assignment: Assignment,
    recorder: Recorder,
    outcomes: Mapping[str, Mapping[str, Outcome]],
    rows: Sequence[Row],
    progress: bool,
) -> tuple[Row, ...]:
    """The lines, with a feedback page for each notebook that was graded, or one that says why nothing was."""
    done = []
    for row in tqdm(rows, desc="feedback", unit="student", disable=not progress):
        found = outcomes.get(row.student)
        if found is not None:
            folder = assignment.course.folder("feedback", assignment.name, row.student)
            try:
                comments = recorder.comments(row.student)
                pages = write_feedback(
                    folder,
                    assignment.name,
                    row,
                    assignment.exercises,
                    found,
                    comments,
                    assignment.course.hidden_markers,
                )
                row = replace(row, pages=tuple(pages))
                write_marking(assignment, row.student)
            except OSError:
                raise
            except Exception as error:  # a page costs no marks
                reason = f"no feedback page: {type(error).__name__}: {error}"[:200]
                row = replace(row, reason="; ".join(filter(None, [row.reason, reason])))
        done.append(row)
    return tuple(done)


def _shown(futures: Iterable[Future], title: str, progress: bool) -> Iterable[Future]:
    total = len(list(futures))
    return tqdm(as_completed(futures), total=total, desc=title, unit="submission", disable=not progress)
