"""The table of weeks against the package's files and imports."""

import ast
from pathlib import Path

import pytest

import mbrl_course
from mbrl_course.weeks import WEEKS, UnknownWeekError, find_week, modules_before, modules_due

PACKAGE = Path(mbrl_course.__file__).parent


@pytest.mark.parametrize("name", [3, "3", "03", "week3", "week03", "week03_cem", "Week03"])
def test_a_week_goes_by_many_names(name):
    assert find_week(name).number == 3


@pytest.mark.parametrize("name", ["week99", "", "cem", "three"])
def test_an_unknown_week_is_refused_with_the_list_of_weeks(name):
    with pytest.raises(UnknownWeekError, match=r"week01 .*week03 "):
        find_week(name)


def test_before_and_due_are_all_modules():
    for week in WEEKS:
        both = modules_before(week) + modules_due(week)
        assert both == tuple(module for other in WEEKS for module in other.modules)
        assert set(week.modules) <= set(modules_due(week))


def test_every_module_of_a_week_imports_earlier_weeks_only():
    order = {module: week.number for week in WEEKS for module in week.modules}
    for module, number in order.items():
        tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mbrl_course."):
                imported = (node.module or "").split(".")[1]
                assert order.get(imported, 0) <= number, f"{module} imports {imported} of a later week"
