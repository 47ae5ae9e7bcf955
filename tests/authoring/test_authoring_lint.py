"""What the build refuses, and the line that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minicourse
from mbrl_autograder.authoring import AuthoringError, Course, Problem, build, check, lint

FIRST_TEST = 'assert abs(total([1.0, 1.0]) - 1.5) < 1e-9, "the second reward counts half"'
VISIBLE = 'assert total([]) == 0, "no rewards, no sum"'
TOTAL = 'exercise="total" number="2.1" title="Add up" points=3 difficulty=2 minutes=10'


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return minicourse.make_course(tmp_path)


def problems_of(course: Course, text: str, name: str = "week02_mpc/build.py") -> list[Problem]:
    return lint(minicourse.write_source(course.root, name, text), course)


def changed(old: str, new: str, text: str = minicourse.BUILD) -> str:
    assert text.count(old) == 1, f"{text.count(old)} times: {old}"
    return text.replace(old, new)


def line_with(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_the_small_course_is_fine(course: Course) -> None:
    for week in course.select(None):
        for path in course.sources(week):
            assert lint(path, course) == []


# What is changed, what the message says, and a part of the line that it names ("" for the whole file).
DEFECTS = {
    "unknown option": (TOTAL, f'{TOTAL} mood="good"', 'unknown option "mood"', "mood"),
    "unknown kind": ('kind="given" ref="mpc:best"', 'kind="gift"', 'unknown kind "gift"', "gift"),
    "kind of markdown": (
        "# %% [markdown]\n# # Planning",
        '# %% [markdown] kind="test"\n#',
        "unknown kind",
        "kind=",
    ),
    "unquoted option": ('kind="setup"', "kind=setup", "kind=setup", "kind=setup"),
    "title without key": ('# %%\nprint("total"', '# %% A demo\nprint("total"', "is no option", "A demo"),
    "option of a wrong type": (
        "difficulty=2",
        'difficulty="2"',
        "difficulty is '2', expected int",
        'difficulty="2"',
    ),
    "difficulty": ("difficulty=2", "difficulty=6", "expected 1 to 5", "difficulty=6"),
    "minutes": ("minutes=10", "minutes=0", "minutes=0", "minutes=0"),
    "no points": ("points=3 ", "", "without points", 'exercise="total"'),
    "test without points": ('of="total" points=1', 'of="total"', "without points", 'kind="test" of="total"'),
    "points don't add up": ("points=3", "points=4", "have 1 + 2 = 3", "points=4"),
    "points of zero": ('of="total" points=1', 'of="total" points=0', "expected more than 0", "points=0"),
    "wrong number": ('number="2.1"', 'number="3.1"', 'expected "2.', "3.1"),
    "doubled number": ('number="2.2"', 'number="2.1"', "2 exercises have number 2.1", "Choose"),
    "bad id": ('exercise="planner"', 'exercise="The planner"', "lower-case", "The planner"),
    "duplicate id": (
        'kind="setup"',
        'kind="setup" id="planner"',
        'duplicate id "planner"',
        'exercise="planner"',
    ),
    "test of nothing": (
        '"test" of="planner"',
        '"test" of="planer"',
        '"planer", which is no exercise',
        "planer",
    ),
    "no solution": (
        '# %% kind="solution" of="total" ref="mpc:total"\n# TODO: the weights, then the sum',
        '# %% kind="given" ref="mpc:total"',
        'exercise "total" has no solution',
        'exercise="total"',
    ),
    "solution without ref": (' ref="mpc:total"', "", "without ref", 'solution" of="total"'),
    "two solutions": (
        '# %% kind="given" ref="mpc:best"',
        '# %% kind="solution" of="total" ref="mpc:best"',
        "a second solution cell",
        'ref="mpc:best"',
    ),
    "test before its solution": (
        '# %% kind="solution" of="total"',
        '# %% kind="test" of="total" points=1\nassert True\n\n# %% kind="solution" of="total"',
        "stands before its solution",
        'of="total" points=1',
    ),
    "no module": ("mpc:best", "planning:best", "no module mbrl_course.planning", "planning:best"),
    "no name": ("mpc:best", "mpc:worst", "mbrl_course.mpc defines no worst", "mpc:worst"),
    "no method": (
        "Planner.plan,Planner.of",
        "Planner.from",
        "has no method from (it has: plan, of)",
        "Planner.from",
    ),
    "no form": ("mpc:best", "mpc.best", "not of the form", "mpc.best"),
    "solution is no function": ('ref="mpc:total"', 'ref="mpc:DISCOUNT"', "is no function", "mpc:DISCOUNT"),
    "code in a solution": (
        "# TODO: the weights, then the sum",
        "weights = 1",
        "comment lines only",
        "mpc:total",
    ),
    "ref to a later week": ('"mpc:best"', '"mpc:best;cem:NAME"', "ref to mbrl_course.cem", "cem:NAME"),
    "solution of an earlier week": ("mpc:total", "dynamics:predict", "week02's modules are mpc", "dynamics:"),
    "import of a later week": (
        "import math",
        "import math\nimport mbrl_course.cem",
        "mbrl_course.cem",
        "course.cem",
    ),
    "import of this week": (
        "import math",
        "from mbrl_course import mpc\nimport math",
        "own cells",
        "import mpc",
    ),
    "import of its experiments": (
        "import math",
        "import math\nfrom mbrl_course.experiments.week02 import x",
        "needs what is written",
        "experiments.week02",
    ),
    "name that nobody defines": (FIRST_TEST, "assert total(Y)", "test cell uses Y", "total(Y)"),
    "name of another test": (VISIBLE, f"{VISIBLE}\nassert ring", "test cell uses ring", "assert ring"),
    "name of a later cell": (FIRST_TEST, "assert total(Planner)", "test cell uses Planner", "total(Planner)"),
    "name that is hidden": (
        VISIBLE,
        "assert total([expected])",
        "only the hidden tests define",
        "([expected])",
    ),
    "missing import": ("import math\n", "", "solution cell uses math", 'ref="mpc:total"'),
    "setup with student's name": (
        '# %%\nprint("total"',
        '# %% kind="setup"\nSUM = total([1.0])\n\n# %%\nprint("total"',
        "setup cell uses total",
        "SUM = ",
    ),
    "defined twice": (
        'ref="mpc:best"',
        'ref="mpc:best,total"',
        "total is defined a second time",
        "best,total",
    ),
    "public name left out": (
        'ref="mpc:Plan,DISCOUNT,Scored"',
        'ref="mpc:Plan,DISCOUNT"',
        "defines Scored of",
        "",
    ),
    "no future import": (
        "from __future__ import annotations\n",
        "",
        "at the top of its first setup",
        'kind="setup"',
    ),
    "all hidden": (
        FIRST_TEST,
        f"### BEGIN HIDDEN TESTS\n{FIRST_TEST}\n### END HIDDEN TESTS",
        "no visible check",
        "=1",
    ),
    "check of nothing": (FIRST_TEST, "print(total([]))", "no visible check", 'of="total" points=1'),
    "markers: no end": ("### END HIDDEN TESTS\n", "", "without ### END HIDDEN TESTS", "BEGIN HIDDEN"),
    "markers: no begin": ("### BEGIN HIDDEN TESTS\n", "", "without ### BEGIN HIDDEN TESTS", "END HIDDEN"),
    "markers: written otherwise": (
        "### BEGIN HIDDEN TESTS",
        "# BEGIN HIDDEN TESTS now",
        "line of its own",
        "# BEGIN",
    ),
    "markers: in a demo": (
        'print("total"',
        '### BEGIN HIDDEN TESTS\nprint("total"',
        "in a demo cell",
        "BEGIN HIDDEN TESTS",
    ),
    "markers: of a solution": (
        'print("total"',
        '### BEGIN SOLUTION\nprint("total"',
        "in a demo cell",
        "BEGIN SOLUTION",
    ),
    "syntax error": ('print("total", total(REWARDS))', "print((", "was never closed", "print(("),
    "magic": ('print("total", total(REWARDS))', "%matplotlib inline", "magics", "%matplotlib"),
    "mock": (VISIBLE, f"from unittest import mock\n{VISIBLE}", "import of unittest", "import mock"),
    "inspect": (VISIBLE, f"import inspect\n{VISIBLE}", "reading source", "import inspect"),
    "replaced": (VISIBLE, f"total = sum\n{VISIBLE}", "total is the student's", "total = sum"),
    "patched": (VISIBLE, f"total.cache = {{}}\n{VISIBLE}", "can't patch", "total.cache"),
    "setattr": (VISIBLE, f'setattr(total, "x", 1)\n{VISIBLE}', "setattr()", "setattr"),
    "isinstance": (VISIBLE, f"assert isinstance(1, Scored)\n{VISIBLE}", "student's Scored", "isinstance"),
    "subclass": (VISIBLE, f"class Mine(Scored): pass\n{VISIBLE}", "extends the student's Scored", "Mine"),
    "type of": (VISIBLE, f"assert type(1) is Scored\n{VISIBLE}", "student's Scored", "type(1)"),
    "match": (
        VISIBLE,
        f"match 1:\n    case Scored(): pass\n{VISIBLE}",
        "Scored is the student's",
        "case Scored",
    ),
    "metaclass": (VISIBLE, f"class Mine(metaclass=Scored): pass\n{VISIBLE}", "extends", "metaclass"),
    "await": (VISIBLE, f"await total([])\n{VISIBLE}", "async", "await"),
    "async comprehension": (VISIBLE, f"x = [i async for i in total([])]\n{VISIBLE}", "async", "async for"),
    "shell in a test": (VISIBLE, f"!ls\n{VISIBLE}", "magics", "!ls"),
    "gradient module": (VISIBLE, f"from torch.func import vmap\n{VISIBLE}", "a gradient", "torch.func"),
    "async": (VISIBLE, f"async def f(): pass\n{VISIBLE}", "async", "async def"),
    "backward": (VISIBLE, f"total([]).backward()\n{VISIBLE}", ".backward", "backward"),
    "requires_grad": (VISIBLE, f"x = dict(requires_grad=True)\n{VISIBLE}", "requires_grad", "dict("),
    "source of a function": (VISIBLE, f"assert total.__code__\n{VISIBLE}", ".__code__", "__code__"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_refused_in_its_line(course: Course, name: str) -> None:
    old, new, message, place = DEFECTS[name]
    text = changed(old, new)
    found = [problem for problem in problems_of(course, text) if message in problem.message]
    assert found, f"{message!r} is in none of: {[str(p) for p in problems_of(course, text)]}"
    assert found[0].path == Path("course/notebooks/week02_mpc/build.py")
    lines = text.splitlines()
    named = {lines[problem.line - 1] if problem.line else "" for problem in found}
    assert any(place in line for line in named) if place else named == {""}, named


def test_all_problems_are_collected(course: Course) -> None:
    text = changed(
        "points=3", "points=4", changed("mpc:best", "mpc:worst", changed('of="planner" p', 'of="x" p'))
    )
    messages = " ".join(problem.message for problem in problems_of(course, text))
    assert "1 + 2 = 3" in messages and "no worst" in messages and "no exercise" in messages
    with pytest.raises(AuthoringError) as error:
        build(2, course=course)
    assert len(error.value.problems) >= 3
    assert not (course.root / "solutions").exists(), "a refused source writes nothing"
    assert {str(problem) for problem in error.value.problems} <= {
        str(problem) for problem in check(course=course)
    }


def test_experiments_have_no_exercises_and_may_import_the_week(course: Course) -> None:
    name = "week02_mpc/experiments.py"
    text = minicourse.EXPERIMENTS + '\n# %% kind="test" of="x" points=1\nassert True\n'
    assert any("exercises are in build.py" in p.message for p in problems_of(course, text, name))
    text = changed("import total\n", "import total\nimport mbrl_course.cem\n", minicourse.EXPERIMENTS)
    assert [p.message for p in problems_of(course, text, name)] == [
        "import of mbrl_course.cem: it is written in week03"
    ]
    text = minicourse.EXPERIMENTS + '\n# %% kind="given" ref="mpc:total"\n'
    assert any("ref to mbrl_course.mpc" in p.message for p in problems_of(course, text, name)), (
        "a solution would leak"
    )
    text = changed("Rubric", "Marks", minicourse.EXPERIMENTS)
    assert any("rubric" in p.message for p in problems_of(course, text, name))


def test_a_marker_inside_a_string_starts_no_cell(course: Course) -> None:
    text = changed('print("total", total(REWARDS))', 'print("""\n# %% kind="no"\n""")')
    assert problems_of(course, text) == []
    text = changed("minutes=1\n", "minutes=0\n", text)
    assert [problem.line for problem in problems_of(course, text)] == [line_with(text, "minutes=0")]


def test_comments_that_look_like_shell_commands_stay_comments(course: Course) -> None:
    text = changed('print("total", total(REWARDS))', "# cat the two\n# ls is a list\nprint(1)")
    assert problems_of(course, text) == []


def test_text_before_the_first_cell_is_refused(course: Course) -> None:
    found = problems_of(course, '"""A docstring."""\n\n' + minicourse.BUILD)
    assert any("before the first" in problem.message for problem in found)


def test_the_readme_example_is_accepted_but_for_what_it_leaves_out(course: Course) -> None:
    real = Course.here()
    readme = (real.root / "course" / "notebooks" / "README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)[-1]
    path = course.root / "week03_cem" / "build.py"
    path.parent.mkdir()
    path.write_text(example)
    messages = [problem.message for problem in lint(path, real)]
    assert all(message.startswith("no given or solution cell defines") for message in messages), messages
