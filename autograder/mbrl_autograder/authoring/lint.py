"""Refuses notebook sources that would make a bad notebook, and says all that is wrong with them at once."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from mbrl_autograder.authoring.course import PACKAGE, Course, Problem, package_imports
from mbrl_autograder.authoring.cut import (
    ModuleSource,
    RefError,
    given_code,
    has_future_annotations,
    parse_refs,
    solution_code,
)
from mbrl_autograder.authoring.names import line_of, names_of
from mbrl_autograder.authoring.source import IDENTIFIER, Cell, Source, parse
from mbrl_autograder.authoring.testcells import forbidden, has_check, split_hidden
from mbrl_course.weeks import WEEKS, find_week, modules_due

MARKERS = ("BEGIN SOLUTION", "END SOLUTION", "BEGIN HIDDEN TESTS", "END HIDDEN TESTS")


def load(course: Course, path: Path) -> Source:
    """Parses a notebook source, fills in the code that its refs name, and checks it.

    Args:
        course: the checkout.
        path: a file such as course/notebooks/week03_cem/build.py; its folder tells the week.

    Returns:
        The source; it can be built if its `problems` are empty.
    """
    source = parse(path, find_week(path.resolve().parent.name), course.show(path.resolve()))
    trees = _resolve(course, source)
    _check_ids(source)
    _check_markers(source)
    _check_weeks(course, source, trees)
    if source.name == "build":
        _check_exercises(source, trees)
        _check_names(course, source, trees)
    else:
        for cell in source.of_kind("exercise", "solution", "test"):
            source.complain(cell, f"{cell.kind} cell in {source.name}: exercises are in build.py alone")
    for cell in source.of_kind("written"):
        if "rubric" not in cell.text.lower():
            source.complain(
                cell,
                f'written "{cell.options.get("id")}" holds no rubric (the model answer, then "Rubric: ...")',
            )
    for cell in source.of_kind("parameters")[1:]:
        source.complain(cell, "a second parameters cell")
    source.problems.sort(key=lambda problem: problem.line)
    return source


def lint(path: Path | str, course: Course | None = None) -> list[Problem]:
    """What is wrong with one notebook source; empty if it can be built."""
    return load(course or Course.here(), Path(path)).problems


Trees = dict[int, ast.Module]  # by a cell's line


def _resolve(course: Course, source: Source) -> Trees:
    """Puts the package's source into the cells that name it, and parses every code cell."""
    trees: Trees = {}
    for cell in source.cells:
        cell.code = cell.text
        ref = cell.options.get("ref")
        if isinstance(ref, str) and cell.kind in ("solution", "given"):
            make = solution_code if cell.kind == "solution" else given_code
            try:
                cell.code = make(course, ref, cell.text)
            except RefError as error:
                source.complain(cell, str(error))
                continue
        if cell.is_code:
            try:
                trees[cell.line] = ast.parse(cell.code)
            except SyntaxError as error:
                first = cell.code.splitlines()[(error.lineno or 1) - 1].lstrip()[:1]
                what = "magics and shell commands have no place here" if first in ("%", "!") else error.msg
                source.complain(cell, what, 0 if ref else error.lineno or 0)
    return trees


def _check_ids(source: Source) -> None:
    exercises = [cell["exercise"] for cell in source.of_kind("exercise") if "exercise" in cell.options]
    ids = [*exercises, *(cell["id"] for cell in source.cells if "id" in cell.options)]
    for cell in source.cells:
        own = cell.options.get("exercise") or cell.options.get("id")
        if not isinstance(own, str):
            continue
        if not IDENTIFIER.fullmatch(own):
            source.complain(cell, f'id "{own}": lower-case letters, digits, "-" and "_" only')
        first = next(c for c in source.cells if own in (c.options.get("exercise"), c.options.get("id")))
        if ids.count(own) > 1 and cell is not first:
            source.complain(cell, f'duplicate id "{own}" (the first is in line {first.line})')


def _check_markers(source: Source) -> None:
    for cell in source.cells:
        if cell.kind == "test":
            for line, message in split_hidden(cell.text)[1]:
                source.complain(cell, message, line)
        for offset, text in enumerate(cell.text.splitlines(), 1):
            for marker in MARKERS[:2] if cell.kind == "test" else MARKERS:
                if marker in text:
                    source.complain(cell, f"{marker} in a {cell.kind} cell", offset)


def _check_weeks(course: Course, source: Source, trees: Trees) -> None:
    """No code or ref may need what a student doesn't have when the notebook is opened."""
    own = source.week.modules
    absent = {module: f"it is written in {_week_of(module)}" for module in modules_due(source.week)}
    for week in WEEKS:
        if week.number >= source.week.number:
            absent[f"experiments.{week.id}"] = f"it needs what is written in {week.id}"
    # Experiments run on the student's own modules of the week.
    available = {*own, f"experiments.{source.week.id}"} if source.name == "experiments" else set()
    for cell in source.cells:
        for module, line in package_imports(trees[cell.line]).items() if cell.line in trees else ():
            if cell.options.get("ref"):
                continue
            if module in absent and module not in available:
                message = f"import of {PACKAGE}.{module}: {absent[module]}"
                if module in own:
                    message += "; the names are defined by the notebook's own cells"
                source.complain(cell, message, line)
        try:
            refs = parse_refs(cell.options["ref"]) if isinstance(cell.options.get("ref"), str) else []
        except RefError:
            continue  # reported already
        for ref in refs:
            if ref.module in absent and not (source.name == "build" and ref.module in own):
                source.complain(cell, f"ref to {PACKAGE}.{ref.module}: {absent[ref.module]}")
            elif cell.kind == "solution" and ref.module not in own:
                source.complain(
                    cell, f"ref to {PACKAGE}.{ref.module}: {source.week.id}'s modules are {', '.join(own)}"
                )


def _week_of(module: str) -> str:
    return next(week.id for week in WEEKS if module in week.modules)


def _check_exercises(source: Source, trees: Trees) -> None:
    known: dict[str, Cell] = {}
    for cell in source.of_kind("exercise"):
        known.setdefault(cell.exercise, cell)
    for cell in source.of_kind("solution", "test"):
        header = known.get(cell.exercise)
        if header is None:
            names = ", ".join(known) or "none"
            source.complain(
                cell, f'{cell.kind} of "{cell.exercise}", which is no exercise (there are: {names})'
            )
        elif header.line > cell.line:
            source.complain(
                cell, f'{cell.kind} of "{cell.exercise}" stands before the exercise (line {header.line})'
            )
    for exercise, header in known.items():
        _check_exercise(source, trees, exercise, header)
    numbers = Counter(str(cell.options.get("number")) for cell in known.values())
    for cell in known.values():
        number = str(cell.options.get("number"))
        if number != "None" and not number.startswith(f"{source.week.number}."):
            source.complain(cell, f'number="{number}", expected "{source.week.number}.something"')
        if numbers[number] > 1:
            source.complain(cell, f"{numbers[number]} exercises have number {number}")
        difficulty, minutes = cell.options.get("difficulty", 1), cell.options.get("minutes", 1)
        if isinstance(difficulty, int) and not 1 <= difficulty <= 5:
            source.complain(cell, f"difficulty={difficulty}, expected 1 to 5")
        if isinstance(minutes, int) and minutes < 1:
            source.complain(cell, f"minutes={minutes}, expected 1 or more")


def _check_exercise(source: Source, trees: Trees, exercise: str, header: Cell) -> None:
    solutions = [cell for cell in source.of_kind("solution") if cell.exercise == exercise]
    tests = [cell for cell in source.of_kind("test") if cell.exercise == exercise]
    if not solutions:
        source.complain(header, f'exercise "{exercise}" has no solution cell')
    for cell in solutions[1:]:
        source.complain(cell, f'a second solution cell of "{exercise}" (one cell may hold several functions)')
    for cell in tests:
        if solutions and cell.line < solutions[0].line:
            source.complain(
                cell, f'a test of "{exercise}" stands before its solution (line {solutions[0].line})'
            )
    if not tests:
        source.complain(header, f'exercise "{exercise}" has no test cell')
        return
    total = sum(cell.points for cell in tests)
    if header.points > 0 and total != header.points:
        parts = " + ".join(f"{cell.points:g}" for cell in tests)
        source.complain(
            header, f'"{exercise}" has {header.points:g} points, its tests have {parts} = {total:g}'
        )
    try:
        visible = ast.parse(split_hidden(tests[0].text)[0])
    except SyntaxError as error:
        if tests[0].line in trees:  # else reported already
            source.complain(tests[0], f"without its hidden tests: {error.msg}", error.lineno or 0)
        return
    if not has_check(visible):
        source.complain(tests[0], f'exercise "{exercise}" has no visible check: its first test is all hidden')


def _check_names(course: Course, source: Source, trees: Trees) -> None:
    """Every cell finds the names it needs, and the notebook defines all that the week's modules offer."""
    defined: dict[str, Cell] = {}  # by setup, given and solution cells, in order
    student: set[str] = set()  # by given and solution cells: proxies under the judge
    everything: set[str] = set()
    for cell in source.of_kind("setup", "given", "solution"):
        if cell.line in trees:
            everything |= names_of(trees[cell.line]).bound
    for cell in source.cells:
        tree = trees.get(cell.line)
        if tree is None:
            continue
        names = names_of(tree)
        if cell.kind == "setup":
            for name in sorted(names.free & student):
                source.complain(
                    cell,
                    f'setup cell uses {name}, which a solution or given cell defines: make it kind="given"',
                    line_of(tree, name),
                )
        if cell.kind in ("setup", "given", "solution"):
            for name in sorted(names.free - everything):
                line = 0 if cell.options.get("ref") else line_of(tree, name)
                source.complain(
                    cell,
                    f"{cell.kind} cell uses {name}, which no setup, given or solution cell defines",
                    line,
                )
            for name in sorted(names.bound):
                first = defined.setdefault(name, cell)
                if first is not cell and name in student and not name.startswith("_"):
                    source.complain(
                        cell, f"{name} is defined a second time (first in the cell of line {first.line})"
                    )
            if cell.kind != "setup":
                student |= names.bound
        elif cell.kind == "test":
            _check_test(source, cell, tree, set(defined), student)
    _check_modules(course, source, set(defined), trees)


def _check_test(source: Source, cell: Cell, tree: ast.Module, defined: set[str], student: set[str]) -> None:
    for line, message in forbidden(tree, student):
        source.complain(cell, message, line)
    for name in sorted(names_of(tree).free - defined):
        source.complain(
            cell,
            f"test cell uses {name}, which no setup, given or solution cell above defines",
            line_of(tree, name),
        )
    text, problems = split_hidden(cell.text)
    try:
        visible = ast.parse(text)
    except SyntaxError:
        return
    for name in sorted(names_of(visible).free - defined - names_of(tree).free):
        if not problems:
            source.complain(
                cell,
                f"the visible part uses {name}, which only the hidden tests define",
                line_of(visible, name),
            )


def _check_modules(course: Course, source: Source, defined: set[str], trees: Trees) -> None:
    future = any(
        has_future_annotations(trees[c.line]) for c in source.of_kind("setup")[:1] if c.line in trees
    )
    for module in source.week.modules:
        try:
            text = ModuleSource.read(course, module)
        except RefError as error:
            source.complain(None, str(error))
            continue
        missing = [name for name in text.public_names if name not in defined]
        if missing:
            source.complain(
                None, f"no given or solution cell defines {', '.join(missing)} of {PACKAGE}.{module}"
            )
        if text.future_annotations and not future:
            source.complain(
                next(iter(source.of_kind("setup")), None),
                f"{PACKAGE}.{module} has `from __future__ import annotations`: "
                "so must the notebook, at the top of its first setup cell",
            )
            break
