"""Decides what runs where: reads the source and a submission, and lists code for each side.

From the source come the tests, and the locked cells in two groups: those that need nothing of the student's
run on
both sides, the others on the student's side. From the submission come the solution cells, whole, and of the
student's
other cells only those statements that the solutions need: imports, helpers, settings. So a scratch cell
that fails,
trains for an hour, rebinds what a test uses or tampers with the kernel has no part in the marks.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .names import Statement, imported_modules, parse, special_methods, statements, unwrapped
from .notebook import (
    LOCKED,
    PLAIN,
    SOLUTION,
    TEST,
    TEXT,
    Cell,
    UnreadableError,
    grade_id,
    hidden_lines,
    text_of,
    visible_text,
)
from .reading import Clock, joined

BUILTINS = frozenset(vars(builtins))
MAX_ROUNDS = 100  # helpers of helpers of helpers
MAX_OWN_TEXT = 2_000_000  # characters of all of a student's own cells together
MAX_CELLS = 20_000


@dataclass(frozen=True)
class TestCell:
    """A test of the source: its names are looked up when it starts."""

    id: str
    code: str
    points: float
    hidden: frozenset[int]
    asks: frozenset[str]
    binds: frozenset[str]


@dataclass
class SourcePlan:
    """What the source says, once for all submissions.

    Attributes:
        tests: in the source's order.
        prelude: code that the judge runs before the tests.
        imports: import statements of solution cells, which the judge runs as well, where it can.
        student_names: the names that are the student's: bound by solution cells, or by locked cells that
        use such.
        shared: names of classes that exist on both sides.
        operators: for each class of the source's, its special methods.
        tainted: the numbers of given cells that use the student's names.
        modules: what its cells import: to be imported once, before the first submission.
    """

    cells: list[Cell]
    tests: list[TestCell] = field(default_factory=list)
    prelude: list[str] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    student_names: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    operators: dict[str, set[str]] = field(default_factory=dict)
    tainted: set[int] = field(default_factory=set)
    modules: list[str] = field(default_factory=list)

    @cached_property
    def reference(self) -> list[Unit]:
        """What the student's process would run of the source's own solutions."""
        cells = [
            {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": cell.id}}, "source": cell.text}
            for cell in self.cells
            if cell.kind != TEXT
        ]
        return plan_submission(self, {"cells": cells})[0]

    @property
    def plain_objects(self) -> list[str]:
        """Classes of the source's without bases: what a student builds upon is not seen by tests."""
        trees = [tree for cell in self.cells if (tree := parse(cell.text))]
        nodes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
        return sorted({node.name for node in nodes if not node.bases})

    @property
    def wanted(self) -> set[str]:
        """The names that tests read of the student's side."""
        return {name for test in self.tests for name in test.asks}


def plan_source(cells: list[Cell]) -> SourcePlan:
    """Sorts the source's cells."""
    plan = SourcePlan(cells)
    facts = {
        i: statements(cell.text)
        for i, cell in enumerate(cells)
        if cell.kind in (LOCKED, PLAIN, SOLUTION, TEST)
    }
    imported: set[str] = set()
    solved: set[str] = set()
    for i, cell in enumerate(cells):
        if cell.kind == SOLUTION:
            plan.imports += [s.code for s in facts[i] if s.is_import]
            imported |= _union(s.binds for s in facts[i] if s.is_import)
            solved |= _union(s.binds for s in facts[i] if not s.is_import)
    plan.student_names = set(solved)
    given = [i for i, cell in enumerate(cells) if cell.kind in (LOCKED, PLAIN)]
    changed = True
    while changed:
        changed = False
        for i in given:
            if i not in plan.tainted and _union(s.reads for s in facts[i]) & plan.student_names:
                plan.tainted.add(i)
                plan.student_names |= _union(s.binds for s in facts[i] if not s.is_import)
                changed = True
    plan.student_names -= imported
    for i, cell in enumerate(cells):
        if cell.kind == TEST:
            hidden, binds = hidden_lines(cell.text), frozenset(_union(s.binds for s in facts[i]))
            asks = _asked(facts[i], binds - solved) - BUILTINS
            plan.tests.append(TestCell(cell.id, cell.text, cell.points, hidden, asks, binds))
    _plan_prelude(plan, facts, given)
    trees = [tree for cell in cells if cell.kind in (LOCKED, PLAIN, SOLUTION) and (tree := parse(cell.text))]
    plan.modules = sorted(_union(imported_modules(cell.text) for cell in cells if cell.kind != TEXT))
    plan.operators = special_methods(ast.Module([node for tree in trees for node in tree.body], []))
    return plan


def _union(sets: Iterable[Iterable[str]]) -> set[str]:
    return {name for names in sets for name in names}


def _asked(facts: Sequence[Statement], own: frozenset[str]) -> frozenset[str]:
    """The names that a test reads before it binds them itself, and that are not its own in any case."""
    asked: set[str] = set()
    bound: set[str] = set()
    for statement in facts:
        asked |= statement.reads - bound - own
        bound |= statement.binds
    return frozenset(asked)


def _plan_prelude(plan: SourcePlan, facts: Mapping[int, Sequence[Statement]], given: list[int]) -> None:
    needed = plan.wanted
    chosen: set[int] = set()
    changed = True
    while changed:
        changed = False
        for i in given:
            binds = _union(s.binds for s in facts[i])
            settings = bool(facts[i]) and all(s.is_setting or s.is_import for s in facts[i])
            if i not in chosen and i not in plan.tainted and (binds & needed or settings):
                chosen.add(i)
                needed |= _union(s.reads for s in facts[i])
                changed = True
    for i in given:
        if i in plan.tainted:
            plan.prelude += [s.code for s in facts[i] if s.is_import]
        elif i in chosen:
            plan.prelude.append(unwrapped(plan.cells[i].text))
            tree = parse(plan.cells[i].text)
            plan.shared |= (
                {node.name for node in tree.body if isinstance(node, ast.ClassDef)} if tree else set()
            )


# the student's side -------------------------------------------------------------------------------


@dataclass
class Unit:
    """Code that the student's process runs: a solution cell, a locked cell, or statements of another cell."""

    id: str
    kind: str
    code: str
    facts: Sequence[Statement]
    late: bool = False


def check_size(content: dict[str, Any]) -> None:
    """Raises `UnreadableError` where a notebook has more cells than anybody writes."""
    if len(content["cells"]) > MAX_CELLS:
        raise UnreadableError(
            f"the notebook has {len(content['cells'])} cells, and at most {MAX_CELLS} are read"
        )


def plan_submission(plan: SourcePlan, content: dict[str, Any]) -> tuple[list[Unit], list[str], list[str]]:
    """The code to run for one submission, in order.

    Returns:
        The units; what was repaired, in words; and the ids of solution cells that stand behind every test.

    Raises:
        UnreadableError: there is more than anybody writes, and reading it takes the time of others.
    """
    check_size(content)
    clock = Clock()
    kinds = {cell.id: cell for cell in plan.cells if cell.id}
    order: list[Unit] = []
    parts: dict[str, list[str]] = {}
    notes: list[str] = []
    last_test, own = -1, 0
    positions: dict[str, int] = {}
    for number, cell in enumerate(content["cells"]):
        name, text = grade_id(cell), text_of(cell)
        known = kinds.get(name)
        if known is not None and known.kind == TEST:
            last_test = number
        elif known is not None and known.kind == LOCKED:
            if not any(unit.id == name for unit in order):
                order.append(Unit(name, LOCKED, unwrapped(known.text), statements(known.text)))
        elif known is not None and known.kind == SOLUTION:
            positions.setdefault(name, number)
            if name in parts:
                notes.append(f"the cell {name} occurs more than once")
                parts[name].append(text)
            else:
                parts[name] = [text]
                order.append(Unit(name, SOLUTION, "", ()))
        elif isinstance(cell, dict) and cell.get("cell_type") == "code" and text.strip():
            own += len(text) + 100
            if own > MAX_OWN_TEXT:
                continue
            order.append(Unit(f"cell {number + 1}", PLAIN, text, ()))
    for unit in order:
        if unit.kind == SOLUTION:
            unit.code = unwrapped(joined(parts[unit.id], clock))
            unit.facts = statements(unit.code)
    missing = [
        c.id for c in plan.cells if c.kind == SOLUTION and c.id not in parts and parse(c.text) is not None
    ]
    notes += [f"the cell {name} is missing" for name in missing]
    _insert_locked(plan, order)
    behind = [name for name, place in positions.items() if last_test >= 0 and place > last_test]
    return _chosen(plan, order, clock), notes, behind


def _insert_locked(plan: SourcePlan, order: list[Unit]) -> None:
    """Puts locked cells that are gone from the submission behind the cell that precedes them in the
    source."""
    previous = ""
    for cell in plan.cells:
        if cell.kind == LOCKED and not any(unit.id == cell.id for unit in order if cell.id):
            place = next((i + 1 for i, unit in enumerate(order) if previous and unit.id == previous), 0)
            order.insert(place, Unit(cell.id, LOCKED, unwrapped(cell.text), statements(cell.text)))
        previous = cell.id if cell.kind in (LOCKED, SOLUTION) and cell.id else previous


def _chosen(plan: SourcePlan, order: list[Unit], clock: Clock) -> list[Unit]:
    """Of `order`, what the tests need."""
    solution_names, stub_names = set(), set()
    for unit in order:
        if unit.kind == SOLUTION:
            solution_names |= _union(s.binds for s in unit.facts if not s.is_stub)
            stub_names |= _union(s.binds for s in unit.facts if s.is_stub)
    stub_names -= solution_names
    locked_names = _union(s.binds for unit in order if unit.kind == LOCKED for s in unit.facts)
    protected = solution_names | locked_names - stub_names
    needed = plan.wanted | _union(s.reads for unit in order if unit.kind == SOLUTION for s in unit.facts)
    modules: set[str] = set()
    for unit in order:
        clock.check()
        modules |= imported_modules(unit.code)
        unit.facts = unit.facts or statements(unit.code)  # now, while its syntax tree is at hand
    modules.discard("")
    spare = _spare_units(plan)
    keep: dict[int, Sequence[Statement]] = {}
    for _ in range(MAX_ROUNDS):
        changed = False
        for i, unit in enumerate([*order, *spare]):
            clock.check()
            if unit.kind == SOLUTION:
                continue
            if unit.kind == LOCKED:
                settings = all(s.is_setting or s.is_import for s in unit.facts)
                if i not in keep and (settings or _union(s.binds for s in unit.facts) & needed):
                    keep[i] = unit.facts
                    needed |= _union(s.reads for s in unit.facts)
                    changed = True
                continue
            facts = unit.facts
            bound_elsewhere = protected if i < len(order) else protected | _bound(order, keep)
            for statement in facts:
                if statement in keep.get(i, ()) or not _is_needed(
                    statement, needed, bound_elsewhere, modules
                ):
                    continue
                keep[i] = [*keep.get(i, ()), statement]
                needed |= statement.reads
                changed = True
        if not changed:
            break
    units = []
    for i, unit in enumerate([*order, *spare]):
        if unit.kind == SOLUTION or (unit.kind == LOCKED and i in keep):
            units.append(unit)
        elif i in keep:
            kept = [statement for statement in unit.facts if statement in keep[i]]
            late = bool(_union(s.binds for s in kept) & stub_names)
            units.append(Unit(unit.id, PLAIN, "\n".join(s.code for s in kept), kept, late))
    shared = [
        u for u in units if u.kind == LOCKED and not _union(s.reads for s in u.facts) & plan.student_names
    ]
    spares = [u for u in units if u in spare or u.id == "given"]
    rest = [u for u in units if u not in shared and u not in spares]
    return [*shared, *spares, *(u for u in rest if not u.late), *(u for u in rest if u.late)]


def _bound(order: list[Unit], keep: dict[int, Sequence[Statement]]) -> set[str]:
    return _union(s.binds for i in keep if i < len(order) for s in keep[i])


def _spare_units(plan: SourcePlan) -> list[Unit]:
    """What the source gives besides: its cells without an id, and the visible part of tests, for names that
    are lost."""
    texts = [cell.text for cell in plan.cells if cell.kind == PLAIN]
    texts += [visible_text(test.code) for test in plan.tests]
    units = []
    for text in texts:
        facts = [s for s in statements(text) if s.binds and not s.reads & plan.student_names]
        units.append(Unit("given", PLAIN, text, facts))
    return [unit for unit in units if unit.facts]


def _is_needed(statement: Statement, needed: set[str], bound_elsewhere: set[str], modules: set[str]) -> bool:
    if "*" in statement.binds or statement.writes_module in modules:
        return True
    if statement.is_setting:
        return bool(statement.changes & needed)
    if statement.binds & needed - bound_elsewhere:
        return True
    return not statement.binds and bool(statement.changes & needed - bound_elsewhere)
