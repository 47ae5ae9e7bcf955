"""The course's nbgrader configuration: the same for the build and for `nbgrader` on the command line."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets.config import Config

from mbrl_autograder.authoring.notebook import without_outputs

CODE_STUB = '# YOUR CODE HERE\nraise NotImplementedError("this part is still to be written")'
TEXT_STUB = "YOUR ANSWER HERE"


class ClearExecution(NbGraderPreprocessor):
    """Takes what belongs to an executed notebook out of the one that students get."""

    def preprocess(self, nb: NotebookNode, resources: Any) -> tuple[NotebookNode, Any]:
        """Removes outputs and the note of what they were made with."""
        return without_outputs(nb), resources


def configure(config: Any) -> None:
    """Sets the course's options on an nbgrader configuration; `nbgrader_config.py` calls it."""
    config.CourseDirectory.source_directory = "solutions"
    config.CourseDirectory.release_directory = "weeks"
    config.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "*.log", "runs"]
    config.ClearSolutions.code_stub = {"python": CODE_STUB}
    config.ClearSolutions.text_stub = TEXT_STUB
    config.GenerateAssignment.preprocessors = [
        *GenerateAssignment().preprocessors,
        ClearExecution,
    ]


def generate_assignment(root: Path, assignment: str) -> None:
    """Lets nbgrader make the student notebooks: `root`/solutions/X becomes `root`/weeks/X.

    Args:
        root: a course directory of which nothing is kept; a gradebook is written into it.
        assignment: the folder in solutions/.

    Raises:
        nbgrader.converters.base.NbGraderException: nbgrader refuses a notebook.
    """
    config = Config()
    configure(config)
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.assignment_id = assignment
    gradebook = root / "gradebook.db"
    with contextlib.closing(sqlite3.connect(gradebook)) as database:
        # Where there is a table, nbgrader doesn't start alembic, which takes far longer than the rest.
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    config.CourseDirectory.db_url = f"sqlite:///{gradebook}"
    GenerateAssignment(coursedir=CourseDirectory(config=config), config=config).start()
