"""Plain `nbgrader autograde` and `nbgrader generate_feedback` with the judge of this course.

A course's `nbgrader_config.py` calls `configure(c)`. Then nbgrader itself brings back locked and test cells,
marks are the judge's and never an output's, notebooks without automatic points stay as they were handed in,
and feedback shows no hidden test.
"""

from __future__ import annotations

import atexit
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearHiddenTests,
    GetGrades,
    LimitOutput,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from traitlets import Bool, Dict
from traitlets.config import Config

from mbrl_autograder.judge.notebook import files_beside

from .course import Assignment, Course
from .edition import student_edition
from .executor import JudgeExecutor
from .judging import Options, judging
from .model import CRASHED, GradingError, Job, Limits, Outcome
from .notebooks import (
    clean,
    for_marker,
    grade_id,
    grading_template,
    has_tests,
    is_test,
    read_content,
    restore,
)
from .state import FOLDER

Resources = dict[str, Any]
OUTCOME = "mbrl_course_outcome"  # what the judge said, on its way from one preprocessor to the next


def _directory(preprocessor: NbGraderPreprocessor) -> CourseDirectory:
    exporter: Any = preprocessor.parent
    return exporter.parent.coursedir


class RestoreCells(NbGraderPreprocessor):
    """Takes locked and test cells from the source notebook, wherever the student moved or lost them."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        """See `notebooks.restore`."""
        names, directory = resources["nbgrader"], _directory(self)
        folder = directory.format_path(directory.source_directory, ".", names["assignment"])
        source = Path(folder) / f"{names['notebook']}.ipynb"
        return restore(clean(nb), grading_template(source, self.config)), resources


class Judged(NbGraderPreprocessor):
    """In nbgrader's place for `Execute`: a notebook with automatic points goes to the judge."""

    sandbox = Bool(True, help="False judges without bubblewrap: for a class that is trusted").tag(config=True)
    limits = Dict(help="such as {'cell_seconds': 60, 'memory_bytes': 4 << 30}").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        """Puts what ran into the notebook, and what it earned into `resources`.

        Raises:
            GradingError: the judge failed, so that there are no marks.
        """
        if not has_tests(nb):
            return for_marker(nb), resources
        names, directory = resources["nbgrader"], _directory(self)
        options = Options(limits=Limits(**self.limits), workers=1, sandbox=self.sandbox)
        executor, assignment = _opened(Path(directory.root).resolve(), names["assignment"], options)
        folder = directory.format_path(directory.submitted_directory, names["student"], names["assignment"])
        arrived = Path(folder) / f"{names['notebook']}.ipynb"
        outcome = executor(
            Job(
                names["student"],
                names["assignment"],
                names["notebook"],
                nb,
                assignment.source / arrived.name,
                read_content(arrived),
                files_beside(arrived, Limits.extra_file_bytes),
            )
        )
        if outcome.status == CRASHED:
            raise GradingError(f"{arrived}: {outcome.reason}")
        if outcome.reason:
            self.log.warning("%s: %s", arrived, outcome.reason)
        return outcome.notebook, {**resources, OUTCOME: outcome}


class SaveJudgedGrades(SaveAutoGrades):
    """Saves the marks that the judge gave; an output says nothing about marks."""

    def _add_score(self, cell: NotebookNode, resources: Resources) -> None:
        if not is_test(cell):
            super()._add_score(cell, resources)  # waits for a marker, or nothing was written
            return
        outcome: Outcome | None = resources.get(OUTCOME)
        name = grade_id(cell)
        grade = self.gradebook.find_grade(name, self.notebook_id, self.assignment_id, self.student_id)
        grade.auto_score = float(outcome.scores.get(name, 0.0)) if outcome is not None else 0.0
        grade.needs_manual_grade = grade.manual_score is not None
        self.gradebook.db.commit()


class HideTests(NbGraderPreprocessor):
    """Leaves of each test cell what a student may read: its visible part, and what went wrong."""

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        """Cuts the hidden region and the traceback, which quotes it."""
        if is_test(cell):
            cell, resources = ClearHiddenTests(parent=self).preprocess_cell(cell, resources, index)
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}" if output.evalue else output.ename]
        return cell, resources


_open: dict[tuple[Path, str], tuple[JudgeExecutor, Assignment]] = {}
_stack = ExitStack()
_lock = threading.Lock()


def _opened(root: Path, name: str, options: Options) -> tuple[JudgeExecutor, Assignment]:
    """The judge of an assignment, for as long as this process lives."""
    with _lock:
        if (root, name) not in _open:
            if not _open:
                atexit.register(_stack.close)
            assignment = Assignment(Course(root), name)
            edition = _stack.enter_context(student_edition(root, name))
            options = replace(options, python_path=edition)
            executor = _stack.enter_context(judging(assignment, options, root / FOLDER))
            _open[root, name] = executor, assignment
        return _open[root, name]


def configure(config: Config) -> None:
    """Sets up nbgrader's autograding and feedback in `config`, the `c` of an `nbgrader_config.py`.

    `c.Judged.sandbox = False` judges without the sandbox, for a class that is trusted; `c.Judged.limits` is a
    dictionary of limits (see `model.Limits`).
    """
    config.Autograde.sanitize_preprocessors = [
        RestoreCells,
        OverwriteKernelspec,
        OverwriteCells,
        CheckCellMetadata,
    ]
    config.Autograde.autograde_preprocessors = [
        Judged,
        ClearMetadataPreprocessor,
        LimitOutput,
        SaveJudgedGrades,
        AssignLatePenalties,
        CheckCellMetadata,
    ]
    config.GenerateFeedback.preprocessors = [HideTests, GetGrades, CSSHTMLHeaderPreprocessor]
    config.HTMLExporter.sanitize_html = True
