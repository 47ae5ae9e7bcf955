"""Plain `nbgrader autograde` and `nbgrader generate_feedback` with the habits of this engine.

A course's `nbgrader_config.py` calls `configure(c)`. Then nbgrader itself brings back locked and test cells,
takes no points for what is written to stderr, leaves notebooks without automatic points as they were handed
in, and shows no hidden test in its feedback.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbformat import NotebookNode
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    Execute,
    LimitOutput,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)
from traitlets.config import Config

from .feedback import configure_feedback
from .notebooks import grading_template, has_tests, is_test, restore, stderr_to_stdout

Resources = dict[str, Any]


class RestoreCells(NbGraderPreprocessor):
    """Takes locked and test cells from the source notebook, wherever the student moved or lost them."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        """See `notebooks.restore`."""
        names = resources["nbgrader"]
        exporter: Any = self.parent
        directory = exporter.parent.coursedir
        folder = directory.format_path(directory.source_directory, ".", names["assignment"])
        source = Path(folder) / f"{names['notebook']}.ipynb"
        return restore(nb, grading_template(source, self.config)), resources


class ClearTestedOutput(ClearOutput):
    """Clears outputs, except of a notebook that is marked by hand."""

    def preprocess(self, nb: NotebookNode, resources: Resources) -> tuple[NotebookNode, Resources]:
        """Clears the outputs of a notebook that will be run."""
        return super().preprocess(nb, resources) if has_tests(nb) else (nb, resources)


class ExecuteTested(Execute):
    """Runs a notebook, except one that is marked by hand."""

    def preprocess(self, nb: NotebookNode, resources: Any = None, km: Any = None) -> tuple[NotebookNode, Any]:
        """Runs the notebook, and keeps what its tests wrote to stderr as ordinary output."""
        if not has_tests(nb):
            return nb, resources
        nb, resources = super().preprocess(nb, resources, km)
        for cell in nb.cells:
            if is_test(cell):
                stderr_to_stdout(cell)
        return nb, resources


def configure(config: Config) -> None:
    """Sets up nbgrader's autograding and feedback in `config`, the `c` of an `nbgrader_config.py`."""
    config.Autograde.sanitize_preprocessors = [
        RestoreCells,
        ClearTestedOutput,
        OverwriteKernelspec,
        OverwriteCells,
        CheckCellMetadata,
    ]
    config.Autograde.autograde_preprocessors = [
        ExecuteTested,
        ClearMetadataPreprocessor,
        LimitOutput,
        SaveAutoGrades,
        AssignLatePenalties,
        CheckCellMetadata,
    ]
    configure_feedback(config)
