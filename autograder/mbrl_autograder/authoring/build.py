"""Builds `solutions/` and `weeks/` from the sources, and checks that what is committed is what they give."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.converters.base import NbGraderException

from mbrl_autograder.authoring.course import AuthoringError, Course, Problem, package_imports
from mbrl_autograder.authoring.cut import parse_refs
from mbrl_autograder.authoring.execute import ExecutionError, execute_notebook
from mbrl_autograder.authoring.lint import load
from mbrl_autograder.authoring.notebook import (
    EXECUTED_KEY,
    METADATA_KEY,
    assemble,
    to_text,
    without_outputs,
)
from mbrl_autograder.authoring.settings import generate_assignment
from mbrl_autograder.authoring.source import Source
from mbrl_autograder.authoring.syllabus import check_syllabus, write_syllabus
from mbrl_course.weeks import WEEKS, Week

Weeks = Iterable[str | int] | str | int | None


@dataclass(frozen=True)
class Built:
    """What `build` did with one notebook."""

    path: Path  # in solutions/
    written: bool  # whether the solution or the student notebook changed on disk
    executed: bool
    seconds: float


@dataclass
class _Sheet:
    """One notebook on its way: its source, the notebook made of it, and what a student gets."""

    source: Source
    notebook: NotebookNode
    student: str = ""


def build(
    weeks: Weeks = None,
    *,
    force: bool = False,
    execute: bool = True,
    course: Course | None = None,
    progress: bool = True,
) -> list[Built]:
    """Regenerates solutions/weekNN and weeks/weekNN of `weeks` (all that have sources, by default).

    A notebook whose source, package modules and data are what they were keeps its outputs and isn't run.

    Args:
        weeks: names such as "week03" or 3.
        force: run all notebooks again.
        execute: False writes the notebooks and runs none; outputs of unchanged cells are kept, and
            the next build runs the notebook.
        course: the checkout; found by itself otherwise.
        progress: whether to show a progress bar for each notebook.

    Returns:
        What was done with each notebook.

    Raises:
        AuthoringError: sources are refused, or notebooks failed to run; it lists every problem. What was
            fine is written all the same when a notebook fails; nothing is when a source is refused.
        UnknownWeekError: a name fits no week.
    """
    course = course or Course.here()
    selected = course.select(weeks)
    sheets = {week: _sheets(course, week) for week in selected}
    refused = [p for pair in sheets.values() for sheet in pair for p in sheet.source.problems]
    if refused:
        raise AuthoringError(refused)
    report: list[Built] = []
    failed: list[Problem] = []
    for week in selected:
        _generate(course, week, sheets[week])
        _copy_data(course, week)
        for sheet in sheets[week]:
            try:
                report.append(_write(course, week, sheet, force, execute, progress))
            except ExecutionError as error:
                failed.append(_at_cell(sheet, error))
    write_syllabus(course)
    if failed:
        raise AuthoringError(failed)
    return report


def check(weeks: Weeks = None, *, course: Course | None = None) -> list[Problem]:
    """What is stale: committed notebooks and data that differ from what the sources give, outputs aside.

    Nothing is executed and nothing is written. Sources that are refused are reported as well.
    """
    course = course or Course.here()
    problems: list[Problem] = []
    selected = course.select(weeks)
    expected: set[Path] = set()
    for week in selected:
        sheets = _sheets(course, week)
        refused = [problem for sheet in sheets for problem in sheet.source.problems]
        expected |= {
            folder / f"{sheet.source.name}.ipynb"
            for sheet in sheets
            for folder in (course.solutions_dir(week), course.weeks_dir(week))
        }
        if refused:
            problems += refused
            continue
        try:
            _generate(course, week, sheets)
        except AuthoringError as error:
            problems += error.problems
            continue
        for sheet in sheets:
            name = f"{sheet.source.name}.ipynb"
            problems += _compare(course, course.solutions_dir(week) / name, sheet.notebook)
            problems += _compare(course, course.weeks_dir(week) / name, nbformat.reads(sheet.student, 4))
        problems += _compare_data(course, week)
    searched = [week for week in WEEKS if week in selected or weeks is None]
    for week in searched:
        for folder in (course.solutions_dir(week), course.weeks_dir(week)):
            for path in sorted(folder.glob("*.ipynb")):
                if path not in expected:
                    problems.append(Problem(course.show(path), 0, "no source gives this notebook: delete it"))
    return problems + check_syllabus(course)


def student_notebooks(week_name: str | int, course: Course | None = None) -> dict[str, str]:
    """The week's notebooks as students get them, made anew: the text of each by its name.

    Raises:
        UnknownWeekError: no such week.
        AuthoringError: it has no sources, or they have problems.
    """
    course = course or Course.here()
    (week,) = course.select(week_name)
    sheets = _sheets(course, week)
    problems = [problem for sheet in sheets for problem in sheet.source.problems]
    if problems:
        raise AuthoringError(problems)
    _generate(course, week, sheets)
    return {sheet.source.name: sheet.student for sheet in sheets}


def _sheets(course: Course, week: Week) -> list[_Sheet]:
    sheets = []
    for path in course.sources(week):
        source = load(course, path)
        notebook = assemble(source) if not source.problems else nbformat.v4.new_notebook()
        sheets.append(_Sheet(source, notebook))
    return sheets


def _generate(course: Course, week: Week, sheets: list[_Sheet]) -> None:
    """Lets nbgrader make the student notebooks, in a temporary course directory."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        for sheet in sheets:
            path = root / "solutions" / week.id / f"{sheet.source.name}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(to_text(sheet.notebook), encoding="utf-8")
        try:
            generate_assignment(root, week.id)
        except NbGraderException as error:
            place = course.show(course.source_dir(week))
            raise AuthoringError([Problem(place, 0, f"nbgrader refuses {week.id}: {error}")]) from error
        for sheet in sheets:
            path = root / "weeks" / week.id / f"{sheet.source.name}.ipynb"
            sheet.student = path.read_text(encoding="utf-8")


def _write(course: Course, week: Week, sheet: _Sheet, force: bool, execute: bool, progress: bool) -> Built:
    """Writes the solution notebook, executed or with the outputs it had, and the student notebook."""
    start = time.monotonic()
    path = course.solutions_dir(week) / f"{sheet.source.name}.ipynb"
    label = f"{week.id}/{sheet.source.name}"
    state = fingerprint(course, sheet.source, sheet.notebook)
    old = _read(path)
    fresh = old is not None and old.metadata.get(METADATA_KEY, {}).get(EXECUTED_KEY) == state
    run = execute and (force or not fresh)
    if run:
        path.parent.mkdir(parents=True, exist_ok=True)
        result = execute_notebook(
            sheet.notebook, path.parent, course.root / "course", label=label, progress=progress
        )
    else:
        result = _with_outputs_of(sheet.notebook, old)
    if run or fresh:
        result.metadata[METADATA_KEY][EXECUTED_KEY] = state
    _number_cells(result)
    written = _write_text(path, to_text(result))
    written |= _write_text(course.weeks_dir(week) / path.name, sheet.student)
    return Built(course.show(path), written, run, time.monotonic() - start)


def _number_cells(notebook: NotebookNode) -> None:
    """Numbers the code cells of a notebook with outputs, the same in each build: nbval asks for numbers."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    executed = any(cell.outputs for cell in cells)
    for number, cell in enumerate(cells, start=1):
        cell.execution_count = number if executed else None


def fingerprint(course: Course, source: Source, notebook: NotebookNode) -> str:
    """A hash of all that the outputs depend on: the cells, the modules they import in any way, and data.

    Data are the week's own and the shipped results that a cell names. The experiments run on the build
    notebook beside them, so its source counts for them too.
    """
    digest = hashlib.sha256(to_text(without_outputs(notebook)).encode())
    modules: set[str] = set()
    for cell in source.cells:
        if cell.options.get("ref"):
            modules |= {ref.module for ref in parse_refs(cell["ref"])}
    for node in notebook.cells:
        if node.cell_type == "code":
            modules |= set(package_imports(ast.parse(node.source)))
    files = _data_files(course, source.week) + _named_results(course, notebook)
    if source.name != "build":
        modules |= set(source.week.modules)
        files += [path for path in course.sources(source.week) if path.stem == "build"]
    files += [path for m in sorted(course.imports_closure(modules)) if (path := course.module_path(m))]
    for path in files:
        digest.update(str(course.show(path)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


def _with_outputs_of(notebook: NotebookNode, old: NotebookNode | None) -> NotebookNode:
    """A copy of `notebook` with the outputs of the old cells that have the same source."""
    result = nbformat.from_dict(notebook)
    outputs = {cell.id: cell for cell in old.cells if cell.cell_type == "code"} if old else {}
    for cell in result.cells:
        same = outputs.get(cell.id)
        if cell.cell_type == "code" and same is not None and same.source == cell.source:
            cell.outputs = same.outputs
    return result


def _read(path: Path) -> NotebookNode | None:
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return None


def _write_text(path: Path, text: str) -> bool:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


def _at_cell(sheet: _Sheet, error: ExecutionError) -> Problem:
    """An error of a notebook's cell, as a problem of the source's line."""
    ids = [cell.id for cell in sheet.notebook.cells]
    cell = sheet.source.cells[ids.index(error.cell_id)]
    what = f"{cell.kind} cell{f' of {cell.exercise}' if cell.exercise else ''}"
    return Problem(sheet.source.path, cell.line, f"{what} fails when run: {error.message}")


def _compare(course: Course, path: Path, expected: NotebookNode) -> Iterator[Problem]:
    shown = course.show(path)
    if not path.is_file():
        yield Problem(shown, 0, "missing: run the build")
        return
    found = _read(path)
    if found is None:
        yield Problem(shown, 0, "is no notebook: run the build")
        return
    found = without_outputs(found)
    if _canonical(found) == _canonical(expected):
        return
    for number, (have, want) in enumerate(zip(found.cells, expected.cells, strict=False), 1):
        if _canonical(have) != _canonical(want):
            yield Problem(shown, 0, f'stale from cell {number} ("{want.get("id", "")}") on: run the build')
            return
    if len(found.cells) != len(expected.cells):
        yield Problem(
            shown, 0, f"stale: {len(found.cells)} cells, expected {len(expected.cells)}: run the build"
        )
    else:
        yield Problem(shown, 0, "stale: the notebook's metadata differ: run the build")


def _canonical(node: NotebookNode) -> str:
    return json.dumps(node, sort_keys=True)


def _data_files(course: Course, week: Week) -> list[Path]:
    folder = course.source_dir(week) / "data"
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _named_results(course: Course, notebook: NotebookNode) -> list[Path]:
    """The shipped results whose experiment's name stands in a string of a code cell."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    paths = sorted((course.package_dir / "results").glob("*-*.csv"))
    return [path for path in paths if f'"{path.stem.rpartition("-")[0]}"' in code]


def _data_pairs(course: Course, week: Week) -> Iterator[tuple[Path, Path]]:
    for path in _data_files(course, week):
        for target in (course.solutions_dir(week), course.weeks_dir(week)):
            yield path, target / path.relative_to(course.source_dir(week))


def _copy_data(course: Course, week: Week) -> None:
    for path, target in _data_pairs(course, week):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != path.read_bytes():
            shutil.copyfile(path, target)


def _compare_data(course: Course, week: Week) -> Iterator[Problem]:
    for path, target in _data_pairs(course, week):
        if not target.is_file() or target.read_bytes() != path.read_bytes():
            yield Problem(course.show(target), 0, f"differs from {course.show(path)}: run the build")
