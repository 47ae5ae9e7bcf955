"""What a marker reads beside the formgrader: `grades/ASSIGNMENT/marking/STUDENT.html`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from mbrl_autograder.judge.notebook import grade_id, parse_notebook, text_of
from mbrl_autograder.pages import Marked
from mbrl_autograder.pages import write_marking as write_page

from .course import Assignment

RERUN = "mbrl_course_rerun"  # in the metadata of a notebook that was run again: of which code, and what came


def write_marking(assignment: Assignment, student: str) -> Path | None:
    """Writes the page of one student from `autograded/`; None where nothing of it is marked by hand."""
    folder = assignment.course.folder("autograded", assignment.name, student)
    parts = []
    for name in assignment.templates:
        exercises = [one for one in assignment.exercises if one.notebook == name and one.by_hand]
        path = folder / f"{name}.ipynb"
        if not exercises or not path.is_file():
            continue
        notebook = _read(path)
        content = parse_notebook((assignment.source / path.name).read_bytes())
        answers = {grade_id(cell): text_of(cell) for cell in content["cells"] if grade_id(cell)}
        again, said = None, ""
        if (found := rerun_path(assignment, student, name)).is_file():
            again = _read(found)
            about = again.metadata.get(RERUN, {})
            said = about.get("said", "")
            if about.get("of") != code_digest(notebook):
                again, said = None, "An earlier version of this notebook was run again, not this one."
        parts.append(Marked(name, notebook, exercises, answers, again, said))
    if not parts:
        return None
    return write_page(marking_path(assignment, student), assignment.name, student, parts)


def marking_path(assignment: Assignment, student: str) -> Path:
    """Where a student's page for the marker lies."""
    return assignment.course.root / "grades" / assignment.name / "marking" / f"{student}.html"


def rerun_path(assignment: Assignment, student: str, notebook: str) -> Path:
    """Where a notebook lies that was run again; `autograded/` keeps what was handed in."""
    return assignment.course.root / "grades" / assignment.name / "rerun" / student / f"{notebook}.ipynb"


def code_digest(notebook: NotebookNode) -> str:
    """A hash of a notebook's code."""
    code = [str(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode("utf-8", "replace")).hexdigest()


def _read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    return notebook
