"""What a student handed in before, and not again: it counts on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .course import Assignment
from .model import GRADED, Earlier, Submission
from .notebooks import NotANotebookError, read_content


def with_earlier(assignment: Assignment, submission: Submission, limit: int) -> Submission:
    """A hand-in with the last one's notebooks in place of those that did not come again or can't be read.

    So handing in one notebook again, or a broken file, costs nobody the marks that were earned before.

    Args:
        assignment: whose `submitted/` folder holds the last hand-in.
        submission: what arrived elsewhere.
        limit: the most bytes of a notebook.
    """
    folder = assignment.course.folder("submitted", assignment.name, submission.student)
    files, earlier, said = dict(submission.files), {}, [submission.reason]
    for name in assignment.templates:
        old = folder / f"{name}.ipynb"
        if not old.exists() or _problem(old, limit):
            continue
        problem = _problem(files[name], limit) if name in files else "did not arrive"
        if problem:
            files.pop(name, None)
            earlier[name] = Earlier(old, problem)
            said.append(f"{name}.ipynb: {problem}; the one handed in before counts")
    if not earlier:
        return submission
    reason = "; ".join(filter(None, said))
    return replace(submission, files=files, status=GRADED, reason=reason, earlier=earlier)


def _problem(path: Path, limit: int) -> str:
    """Why a file holds no notebook, or ""."""
    try:
        read_content(path, limit)
    except NotANotebookError as error:
        return str(error)
    return ""
