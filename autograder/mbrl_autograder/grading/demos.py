"""Finds the cells that marks do not need: the course's own demos, whose pictures and films take long."""

from __future__ import annotations

import ast

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from mbrl_autograder.authoring.names import Names, names_of

from .notebooks import COURSE_KEY, grade_id


def unneeded_demos(notebook: NotebookNode, template: NotebookNode) -> frozenset[int]:
    """The cells of `notebook` that are demos just as they were released, and that nothing else depends on.

    The build refuses a test that depends on a demo cell; a student's own code may, and then the demo is run.
    In a notebook that this course's build did not make, there are none.

    Args:
        notebook: a submission, restored.
        template: the source that it was restored from.
    """
    if COURSE_KEY not in template.metadata:
        return frozenset()
    demos = {cell.source for cell in template.cells if cell.cell_type == "code" and not grade_id(cell)}
    names = {i: _names(cell.source) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    skipped = {i for i in names if not grade_id(notebook.cells[i]) and notebook.cells[i].source in demos}
    while True:
        needed = {name for i in names.keys() - skipped for name in names[i].free}
        wanted = {i for i in skipped if names[i].bound & needed}
        if not wanted:
            return frozenset(skipped)
        skipped -= wanted


def _names(source: str) -> Names:
    try:
        return names_of(ast.parse(TransformerManager().transform_cell(source)))
    except (SyntaxError, ValueError, RecursionError):  # a cell that does not parse does not run either
        return Names(frozenset(), frozenset())
