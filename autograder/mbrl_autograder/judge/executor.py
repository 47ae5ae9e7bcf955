# ruff: noqa: D107
"""The judge in the place of the grading's executor: a job in, marks and a marker's notebook out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mbrl_autograder.grading.model import CRASHED, GRADED, TIMED_OUT, Job, Outcome

from .display import marked_notebook
from .engine import Judge
from .journal import Journal, result_key
from .notebook import UnreadableError, files_beside, parse_notebook, read_bytes
from .results import CRASHED as JUDGE_CRASHED
from .results import NOT_RUN, SubmissionResult
from .results import STOPPED as TEST_STOPPED
from .results import TIMED_OUT as TEST_TIMED_OUT


class JudgeExecutor:
    """Marks one notebook of the grading with a judge; may be called from several threads at once.

    Args:
        judge: entered already.
        journal: where finished results are kept, and found again after a run that was killed.
    """

    def __init__(self, judge: Judge, journal: Journal | None = None) -> None:
        self.judge, self.journal = judge, journal

    def __call__(self, job: Job) -> Outcome:
        """See `grading.model.Executor`."""
        source = job.data / f"{job.name}.ipynb"
        try:
            result = self._result(job, source)
        except Exception as error:  # an executor raises nothing: a class is graded to its end
            return Outcome(
                job.notebook, {}, CRASHED, f"the judge failed: {type(error).__name__}: {error}"[:300]
            )
        notebook = marked_notebook(job.notebook, result.cells, result.outputs, _text_of_source(job))
        scores = {name: cell.points for name, cell in result.cells.items()}
        status, reason = _status(result)
        return Outcome(notebook, scores, status, reason, result.cells, result.flags)

    def _result(self, job: Job, source: Path) -> SubmissionResult:
        content, files = self._arrived(job)
        beside = [part for name, data in files.items() for part in (name.encode(), data)]
        limits = repr((self.judge.limits, job.limits)).encode()
        key = result_key([source.read_bytes(), json.dumps(content, sort_keys=True).encode(), limits, *beside])
        found = self.journal.find(key) if self.journal is not None else None
        if found is not None:
            return found
        result = self.judge.grade_content(source, content, files, seconds=job.limits.cell_seconds)
        if self.journal is not None:
            self.journal.add(key, result)
        return result

    def _arrived(self, job: Job) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The notebook as it arrived, which tells more than the restored one, and the files beside it."""
        limits = self.judge.limits
        if job.submission is not None:
            try:
                content = parse_notebook(read_bytes(job.submission, limits.notebook_bytes))
                return content, files_beside(job.submission, limits.extra_file_bytes)
            except UnreadableError:
                pass  # an older format, which nbformat has converted
        restored: dict[str, Any] = json.loads(json.dumps(job.notebook))
        return restored, {}


def _text_of_source(job: Job) -> list[str]:
    """The ids of markdown cells that are locked: theirs is the source's text."""
    ids = []
    for cell in job.notebook.cells:
        flags = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and flags.get("locked") and not flags.get("solution"):
            ids.append(flags.get("grade_id", ""))
    return ids


def _status(result: SubmissionResult) -> tuple[str, str]:
    if result.status == JUDGE_CRASHED:
        return CRASHED, result.reason
    slow = [name for name, cell in result.cells.items() if cell.status in (TEST_TIMED_OUT, NOT_RUN)]
    ended = [name for name, cell in result.cells.items() if cell.status == TEST_STOPPED]
    reasons = [f"too slow: {', '.join(slow)}"] if slow else []
    reasons += [f"the code's process ended in {', '.join(ended)}"] if ended else []
    reasons += [result.reason] if result.reason else []
    return (TIMED_OUT if slow else GRADED), "; ".join([*reasons, *result.flags])
