"""Runs notebooks that are marked by hand again, in the judge's sandbox, for a marker to compare."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

from mbrl_autograder.judge.connection import Student, StudentEnded, StudentErrorInfo, TimedOut
from mbrl_autograder.judge.display import run_outputs
from mbrl_autograder.judge.engine import PRELOAD
from mbrl_autograder.judge.notebook import UnreadableError, files_beside, read_bytes
from mbrl_autograder.judge.sandbox import Sandbox, SandboxError
from mbrl_autograder.pages.html import write

from .collect import collect
from .course import Assignment, Course
from .engine import assignment_name, of_assignment
from .judging import Options
from .marking import RERUN, code_digest, rerun_path, write_marking
from .model import GradingError, Submission
from .notebooks import NotANotebookError, clean, for_marker, has_tests, read_content, restore, set_parameter

RESULTS = "runs"  # where experiments keep their results: a rerun computes them anew
# figures become pictures, as in a notebook; the judge has no need of them
FIGURES = """
def _figures():
    import matplotlib
    from matplotlib_inline.backend_inline import configure_inline_support
    matplotlib.interactive(True)
    configure_inline_support(get_ipython(), "inline")
_figures()
del _figures
"""
_PROGRESS = re.compile(r"\d+%\||\d+it \[|\[\d+:\d+<|it/s")
_OBJECT = re.compile(r"\[?<[\w.]+ .*>|\w+\(children=.*")  # a figure, a widget: no numbers


@dataclass(frozen=True)
class Rerun:
    """What came of a notebook that was run again.

    Attributes:
        student: whose it is.
        path: the notebook with the outputs of this run.
        page: the marker's page; None where the submission was not graded yet.
        failed: the cells that raised an error or ended the process, each with what it said.
        slow: the cell at which the time was up, or "".
        unreached: how many code cells were not reached.
        compared: how many cells showed text, handed in or now.
        different: in how many of them it is another text.
        seconds: how long it took.
    """

    student: str
    path: Path
    page: Path | None
    failed: tuple[str, ...]
    slow: str
    unreached: int
    compared: int
    different: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether all cells ran, and none failed."""
        return not (self.failed or self.slow or self.unreached)

    def __str__(self) -> str:
        """Some sentences."""
        return _said(self.failed, self.slow, self.unreached, self.compared, self.different, self.seconds)


def rerun(
    week: str,
    students: Sequence[str],
    course: Path,
    options: Options = Options(),  # noqa: B008  # it is frozen
    notebook: str = "experiments",
    values: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Iterator[Rerun]:
    """Runs what students handed in from top to bottom, one after another; a cell that fails stops nothing.

    Beside the notebook lie the student's other notebooks and files. `autograded/`, the gradebook and marks
    stay as they are: the result goes to `grades/ASSIGNMENT/rerun/` and to the marker's page, at once when a
    student's notebook has run.

    Args:
        week: a week, or an assignment of the course.
        students: who.
        course: the course directory.
        options: limits, sandbox, folders to import from; `limits.submission_seconds` is for a whole notebook.
        notebook: the notebook's name.
        values: what the notebook's parameters are set to, such as {"SCALE": "smoke"}.
        progress: whether there is a progress bar.

    Raises:
        GradingError: no such assignment, notebook, student or parameter; a notebook that cannot be read, or
            that the judge runs; no sandbox.
    """
    home = Course(course)
    assignment = Assignment(home, assignment_name(home, week))
    template = assignment.templates.get(notebook)
    if template is None:
        known = ", ".join(assignment.templates)
        raise GradingError(f"{assignment.name} has no notebook {notebook!r}; it has: {known}")
    if has_tests(template):
        raise GradingError(f"{notebook}.ipynb has tests: `mbrl-course grade {assignment.name}` runs it")
    limits = options.limits
    own = home.submitted_folder(assignment.name)
    arrived, _ = of_assignment(assignment, collect(own, assignment.name, list(assignment.templates), limits))
    by_name = {one.student: one for one in arrived}
    jobs = []
    for student in dict.fromkeys(students):
        if student not in by_name:
            raise GradingError(f"nothing arrived from {student!r}; students: {', '.join(by_name) or 'none'}")
        original = _submitted(by_name[student], notebook, template, limits.notebook_bytes)
        changed = copy.deepcopy(original)
        for name, value in (values or {}).items():
            set_parameter(changed, name, value)
        jobs.append((by_name[student], original, changed))
    return _all(assignment, notebook, jobs, options, values or {}, progress)


def _submitted(submission: Submission, name: str, template: NotebookNode, limit: int) -> NotebookNode:
    path = submission.files.get(name)
    if path is None:
        reason = f" ({submission.reason})" if submission.reason else ""
        raise GradingError(f"{submission.student} handed in no {name}.ipynb{reason}")
    try:
        return for_marker(restore(clean(read_content(path, limit)), template))
    except NotANotebookError as error:
        raise GradingError(f"{path}: {error}") from error


def _all(
    assignment: Assignment,
    name: str,
    jobs: Sequence[tuple[Submission, NotebookNode, NotebookNode]],
    options: Options,
    values: Mapping[str, str],
    progress: bool,
) -> Iterator[Rerun]:
    try:
        sandbox = Sandbox(options.limits, options.python_path, PRELOAD, enabled=options.sandbox)
    except SandboxError as error:
        raise GradingError(str(error)) from error
    try:
        for submission, original, changed in jobs:
            files = _files(assignment, submission, name, options)
            run = _Run(sandbox, submission.student, changed, options.limits.submission_seconds)
            run.all(files, name, progress)
            pairs = zip(original.cells, changed.cells, strict=True)
            reached = [pair for pair in pairs if pair[1].id in run.reached]
            texts = [(texts_of(before), texts_of(after)[-1]) for before, after in reached]
            texts = [(before, after) for before, after in texts if after or before[-1]]
            different = sum(after not in before for before, after in texts)
            path = rerun_path(assignment, submission.student, name)
            result = Rerun(
                submission.student, path, None, tuple(run.failed), run.slow, run.unreached, len(texts),
                different, run.seconds,
            )  # fmt: skip
            said = " ".join(["Run again", *(f"with {k} = {v}" for k, v in values.items())])
            changed.metadata[RERUN] = {"of": code_digest(original), "said": f"{said}: {result}"}
            write(path, nbformat.writes(changed))
            yield replace(result, page=write_marking(assignment, submission.student))
    except SandboxError as error:
        raise GradingError(str(error)) from error
    finally:
        sandbox.remove()


def _files(assignment: Assignment, submission: Submission, name: str, options: Options) -> dict[str, bytes]:
    """What lies beside the notebook: the source's files, the student's, and the student's other notebooks."""
    limits = options.limits
    path = submission.files[name]
    ignore = [*assignment.course.directory.ignore, RESULTS]
    files = files_beside(assignment.source / f"{name}.ipynb", limits.extra_file_bytes, ignore)
    if submission.student in (path.parent.name, path.parent.parent.name):  # a folder of the student's own
        files |= files_beside(path, limits.extra_file_bytes, ignore)
    for other, file in submission.files.items():
        try:
            files[f"{other}.ipynb"] = read_bytes(file, limits.notebook_bytes)
        except UnreadableError:
            continue
    return files


class _Run:
    """One notebook in a fresh process; its cells get the outputs of this run."""

    def __init__(self, sandbox: Sandbox, student: str, notebook: NotebookNode, seconds: float) -> None:
        self.name, self.limit = student, seconds
        self.cells = [
            (number, cell)
            for number, cell in enumerate(notebook.cells, 1)
            if cell.cell_type == "code" and cell.source.strip()
        ]
        self.student = Student(sandbox, {}, set(), {})
        self.failed: list[str] = []
        self.slow = ""
        self.reached: set[str] = set()
        self.seconds = 0.0

    @property
    def unreached(self) -> int:
        return len(self.cells) - len(self.reached)

    def all(self, files: Mapping[str, bytes], notebook: str, progress: bool) -> None:
        started = time.monotonic()
        for _, cell in self.cells:
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="(not reached)")]
        bar = tqdm(
            self.cells, desc=f"{self.name}: {notebook}", unit="cell", disable=not progress, leave=False
        )
        try:
            self.student.start()
            self.student.deadline = started + self.limit
            names = [[name, number] for number, name in enumerate(files)]
            self.student.ask("files", list(files.values()), files=names)
            self.student.ask("run", code=FIGURES)
            for number, cell in bar:
                bar.set_postfix_str(_label(number, cell)[:40])
                if not self._cell(number, cell):
                    break
        except TimedOut:
            self.slow = "the start"
        except StudentEnded as trouble:
            self.failed.append(f"the start: {trouble}")
        finally:
            bar.close()
            self.student.stop()
            self.seconds = time.monotonic() - started

    def _cell(self, number: int, cell: NotebookNode) -> bool:
        """Runs one cell; whether there can be a next one."""
        answer: Any
        self.reached.add(cell.id)
        label, ended = _label(number, cell), False
        try:
            answer, _ = self.student.ask("run", code=cell.source)
            answer = answer if isinstance(answer, dict) else {}
        except TimedOut:
            self.slow, ended = label, True
            answer = {"error": {"types": ["TimedOut"], "message": f"more than {_time(self.limit)} in all"}}
        except StudentEnded as trouble:
            ended = True
            answer = {"error": {"types": ["ProcessEnded"], "message": str(trouble)}}
        except Exception as error:
            answer = {"error": {"types": [type(error).__name__], "message": str(error)}}
        info = StudentErrorInfo(answer["error"]) if answer.get("error") else None
        displays = answer.get("displays")
        displays = displays if isinstance(displays, list) else []
        shown = {
            "text": _without_bars(str(answer.get("text", ""))),
            "displays": [d for d in displays if isinstance(d, dict) and isinstance(d.get("data"), dict)],
            "error": [info.types[0], info.message] if info else None,
        }
        cell.outputs = run_outputs(shown)
        if info and not self.slow:
            message = info.message.splitlines()[0][:200] if info.message else ""
            self.failed.append(f"{label}: {info.types[0]}: {message}")
        return not ended


def _label(number: int, cell: NotebookNode) -> str:
    lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("#")]
    return f"cell {number} ({lines[0].strip()[:60] if lines else 'comments'})"


def _without_bars(text: str) -> str:
    """What was printed, without the states of progress bars."""
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    kept = [line for line in lines if not _PROGRESS.search(line) and line != "\x1b[A"]
    return "\n".join(kept).lstrip("\n") if len(kept) < len(lines) else text


def texts_of(cell: NotebookNode) -> list[str]:
    """What a cell shows as text: with its warnings, and without; no progress bars, pictures and widgets."""
    if cell.cell_type != "code":
        return [""]
    with_warnings: list[str] = []
    without: list[str] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            lines = [line.rpartition("\r")[2] for line in output.text.replace("\r\n", "\n").split("\n")]
        elif output.output_type == "error":
            lines = [output.ename]
        else:
            lines = str(output.data.get("text/plain", "")).split("\n")
        lines = [one.rstrip() for one in lines if not (_PROGRESS.search(one) or _OBJECT.match(one))]
        with_warnings += filter(None, lines)
        if output.get("name") != "stderr":
            without += filter(None, lines)
    return ["\n".join(with_warnings), "\n".join(without)]


def _said(
    failed: Sequence[str], slow: str, unreached: int, compared: int, different: int, seconds: float
) -> str:
    parts = [f"{_time(seconds)}."]
    if failed:
        parts.append(f"Failed: {'; '.join(failed)}.")
    if slow:
        parts.append(f"Time was up in {slow}.")
    if unreached:
        parts.append(f"Not reached: {unreached} code cells.")
    if not (failed or slow or unreached):
        parts.append("All cells ran.")
    parts.append(
        f"Other text than handed in: {different} of {compared} cells that show text"
        + (" (time, seeds, versions and machine can be reasons)." if different else ".")
    )
    return " ".join(parts)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
