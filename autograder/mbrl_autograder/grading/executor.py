# ruff: noqa: D107
"""The judge as what runs and marks a notebook: a job in, marks and a marker's notebook out."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import mbrl_autograder.judge
from mbrl_autograder.judge.display import marked_notebook
from mbrl_autograder.judge.journal import Journal, JournalError, result_key
from mbrl_autograder.judge.notebook import files_beside
from mbrl_autograder.judge.results import CRASHED as JUDGE_CRASHED
from mbrl_autograder.judge.results import NOT_RUN, SubmissionResult
from mbrl_autograder.judge.results import STOPPED as TEST_STOPPED
from mbrl_autograder.judge.results import TIMED_OUT as TEST_TIMED_OUT
from mbrl_autograder.judge.results import UNREADABLE as JUDGE_UNREADABLE
from mbrl_autograder.judge.sandbox import SandboxError

from .model import CRASHED, GRADED, TIMED_OUT, UNREADABLE, GradingError, Job, Limits, Outcome
from .notebooks import locked_text


class Grader(Protocol):
    """What grades one notebook: a `Judge`, or a cluster of them."""

    def grade_content(  # noqa: D102
        self, source: Path, content: dict[str, Any], files: Mapping[str, bytes] | None = None
    ) -> SubmissionResult: ...

    def close(self) -> None: ...  # noqa: D102


class JudgeExecutor:
    """Marks one notebook of the grading with a judge; may be called from several threads at once.

    Args:
        judge: enters a judge; it is entered when the first notebook needs it.
        journal: where finished results are kept, and found again after a run that was killed.
        setting: what results depend on besides the notebooks: limits, packages.
        ignore: patterns of names of files beside a source that are not the assignment's.
        fresh: whether everything is graded again, also what the journal has.
    """

    def __init__(
        self,
        judge: AbstractContextManager[Grader],
        journal: Journal | None = None,
        setting: Iterable[bytes] = (),
        ignore: Sequence[str] = (),
        fresh: bool = False,
    ) -> None:
        self.journal, self._fresh, self._ignore = journal, fresh, tuple(ignore)
        self._judge, self._entered = judge, ExitStack()
        self._grader: Grader | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._setting = (code_version().encode(), *setting)

    def __call__(self, job: Job) -> Outcome:
        """See `model.Executor`."""
        try:
            result, reused = self._result(job)
        except (SandboxError, JournalError) as error:
            raise GradingError(str(error)) from error
        except GradingError:
            raise
        except Exception as error:  # a class is graded to its end
            text = f"the judge failed: {type(error).__name__}: {error}"[:300]
            return Outcome(job.notebook, {}, CRASHED, text)
        notebook = marked_notebook(job.notebook, result.cells, result.outputs, locked_text(job.notebook))
        scores = {name: cell.points for name, cell in result.cells.items()}
        status, reason = _status(result)
        return Outcome(
            notebook, scores, status, reason, result.cells, result.flags, result.seconds, reused=reused
        )

    def _result(self, job: Job) -> tuple[SubmissionResult, bool]:
        parts = [job.source.read_bytes(), json.dumps(job.content, sort_keys=True).encode(), *self._setting]
        for files in (files_beside(job.source, Limits.extra_file_bytes, self._ignore), job.files):
            parts += [part for name, data in sorted(files.items()) for part in (name.encode(), data)]
        key = result_key(parts)
        found = self.journal.find(key) if self.journal is not None and not self._fresh else None
        if found is not None:
            return found, True
        result = self._started().grade_content(job.source, dict(job.content), job.files)
        if self.journal is not None:
            self.journal.add(key, result)
        return result, False

    def _started(self) -> Grader:
        with self._lock:
            if self._closed:
                raise RuntimeError("the run has ended")
            if self._grader is None:
                self._grader = self._entered.enter_context(self._judge)
            return self._grader

    def close(self) -> None:
        """Ends the judge, also under a notebook that it is grading."""
        with self._lock:
            self._closed = True
            self._entered.close()


@cache
def code_version() -> str:
    """A hash of the judge's own code: another judge may come to other results."""
    digest = hashlib.sha256()
    for path in sorted(Path(mbrl_autograder.judge.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def folder_version(folders: Iterable[Path]) -> bytes:
    """A hash of what lies in folders, such as a package that submissions may import."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.digest()


def _status(result: SubmissionResult) -> tuple[str, str]:
    if result.status == JUDGE_CRASHED:
        return CRASHED, result.reason
    if result.status == JUDGE_UNREADABLE:
        return UNREADABLE, result.reason
    slow = [name for name, cell in result.cells.items() if cell.status in (TEST_TIMED_OUT, NOT_RUN)]
    ended = [name for name, cell in result.cells.items() if cell.status == TEST_STOPPED]
    reasons = [f"too slow: {', '.join(slow)}"] if slow else []
    reasons += [f"the code's process ended in {', '.join(ended)}"] if ended else []
    reasons += [result.reason] if result.reason else []
    return (TIMED_OUT if slow else GRADED), "; ".join([*reasons, *result.flags])
