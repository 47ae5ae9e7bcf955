"""A student's notebook in the place of the week's modules; each test runs in an interpreter of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minicourse
from mbrl_autograder.authoring import Course, build

SOLVED = {
    "total": (
        "def total(rewards, discount=DISCOUNT):\n"
        "    return sum(r * discount**k for k, r in enumerate(rewards))"
    ),
    "planner": (
        "@dataclass\nclass Planner:\n    plans: list[Plan]\n    calls: int = 0\n\n"
        "    def plan(self, score):\n        self.calls += 1\n        return best(self.plans, score).plan\n\n"
        "    @classmethod\n    def of(cls, *plans) -> Planner:\n        return cls(list(plans))"
    ),
}
RING = (
    "class Ring:\n    def __init__(self, capacity):\n"
    "        self.items = []\n        self.capacity = capacity\n\n"
)
WEEK1_SOLVED = {
    "ring": RING + "    def add(self, item):\n        self.items = [*self.items, item][-self.capacity :]",
    "predict": (
        "def predict(state, action):\n    return action + state\n\n\n"
        "def predict_all(state, actions):\n    return [predict(state, action) for action in actions]"
    ),
}
TRY = """
from mbrl_course.student import StudentCodeError, use_notebook, use_mine
def attempt(*args, **kwargs):
    try:
        print(use_notebook(*args, **kwargs))
    except StudentCodeError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = minicourse.make_course(tmp_path_factory.mktemp("course"))
    build(course=course, progress=False, execute=False)
    return course


class Student:
    """A student with a folder of notebooks, beside a copy of the package."""

    def __init__(self, course: Course, root: Path) -> None:
        self.root = root
        shutil.copytree(course.root / "weeks", root / "weeks")
        shutil.copytree(course.root / "course", root / "course")
        self.folder = root / "weeks" / "week02"

    def writes(self, solutions: dict[str, str], week: str = "week02") -> None:
        """Fills in solution cells."""
        self.edits(lambda cell: {"source": solutions.get(cell["id"], cell["source"])}, week)

    def edits(self, change: Callable[[dict[str, Any]], dict[str, Any]], week: str = "week02") -> None:
        """Changes every cell."""
        path = self.root / "weeks" / week / "build.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
        notebook["cells"] = [cell | change(cell) for cell in notebook["cells"]]
        path.write_text(json.dumps(notebook))

    def adds(self, source: str, position: int = 99, week: str = "week02") -> None:
        """Adds a code cell of the student's own."""
        path = self.root / "weeks" / week / "build.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8-sig"))
        cell: dict[str, Any] = {
            "cell_type": "code",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": source,
        }
        notebook["cells"].insert(position, cell)
        path.write_text(json.dumps(notebook))

    def runs(self, code: str) -> str:
        """What code prints, run in the folder of week 2."""
        result = minicourse.run_python(TRY + code, self.folder, self.root / "course")
        assert result.returncode == 0, result.stderr
        assert not result.stderr
        return result.stdout


@pytest.fixture
def student(built: Course, tmp_path: Path) -> Student:
    return Student(built, tmp_path)


def test_a_solved_notebook_becomes_the_module(student: Student) -> None:
    student.writes(SOLVED)
    out = student.runs(
        "attempt('week02')\n"
        "from mbrl_course.mpc import total, Planner, DISCOUNT\n"
        "import mbrl_course.mpc, mbrl_course, pickle, inspect\n"
        "assert mbrl_course.mpc.total is total and DISCOUNT == 0.5\n"
        "assert pickle.loads(pickle.dumps(Planner.of([1.0]))) == Planner.of([1.0])\n"
        "assert 'enumerate' in inspect.getsource(total)\n"
        "print(mbrl_course.mpc, total([1.0, 1.0]))"
    )
    assert out == (
        "mbrl_course.mpc is now what build.ipynb defines.\n<module 'mbrl_course.mpc' (build.ipynb)> 1.5\n"
    )


def test_untouched_exercises_are_named_with_what_to_do(student: Student) -> None:
    out = student.runs("attempt('week02')\nimport sys; assert 'mbrl_course.mpc' not in sys.modules")
    assert out == (
        "build.ipynb can't stand in for mbrl_course.mpc yet:\n\n"
        "  Exercise 2.1 (Add up)\n      total is not written yet (cell 5)\n"
        "  Exercise 2.2 (Choose)\n      Planner.of is not written yet (cell 11)\n\n"
        "Open build.ipynb, finish what is named here until the checks below it pass, save the notebook, "
        "and run\n"
        "this cell again. Where the course's own solutions are installed, this takes them instead:\n"
        '    use_notebook("week02", reference=True)\n'
    )


WRONG = {
    "a failed check": ("    return sum(rewards)", "fails its check in cell 6: the second reward counts half"),
    "an error": (
        "    return 1 / 0",
        "raises ZeroDivisionError: division by zero (cell 5, line 2: return 1 / 0)",
    ),
    "another name": (
        "    return summe(rewards)",
        "raises NameError: name 'summe' is not defined (cell 5, line 2",
    ),
    "nothing returned": ("    sum(rewards)", "raises TypeError: unsupported operand"),
    "no Python": ("    return (", "'(' was never closed (cell 5, line 2)"),
    "an exit": ("    raise SystemExit", "raises SystemExit (cell 5, line 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(student: Student, name: str) -> None:
    body, message = WRONG[name]
    student.writes(SOLVED | {"total": f"def total(rewards, discount=0.5):\n{body}"})
    out = student.runs("attempt(2)")
    assert f"  Exercise 2.1 (Add up)\n      {message}" in out
    assert "Exercise 2.2" not in out, "it works"


def test_an_exercise_that_needs_another_says_which(student: Student) -> None:
    planner = SOLVED["planner"].replace("best(self.plans, score).plan", "self.plans[int(total([1, 2]))]")
    student.writes({"planner": planner})
    out = student.runs("attempt(2)")
    assert "Exercise 2.2 (Choose)\n      needs exercise 2.1 (Add up), which is not written yet (cell 5" in out


def test_a_missing_cell_is_named(student: Student) -> None:
    student.writes(SOLVED | {"total": ""})
    assert (
        "Exercise 2.1 (Add up)\n      raises NameError: name 'total' is not defined (cell 6"
        in student.runs("attempt(2)")
    )


def test_a_bonus_exercise_may_be_missing(student: Student) -> None:
    student.writes({"planner": SOLVED["planner"]})
    path = student.folder / "build.ipynb"
    path.write_text(path.read_text().replace('"exercise": "total"', '"bonus": true, "exercise": "total"'))
    out = student.runs(
        "attempt(2)\nfrom mbrl_course.mpc import total\n"
        "try:\n    total([])\nexcept NotImplementedError as e: print(e)"
    )
    assert out == (
        "mbrl_course.mpc is now what build.ipynb defines.\n"
        "Bonus, Exercise 2.1 (Add up): total is not written yet (cell 5)\nthis part is still to be written\n"
    )


def test_only_definitions_are_executed(student: Student) -> None:
    student.writes(
        SOLVED
        | {
            "total": "print('ran')\nHALF = 1 / 2\nresult = open('gone')\n"
            + SOLVED["total"].replace("DISCOUNT", "HALF")
        }
    )
    student.adds("raise RuntimeError\nfor i in range(3):\n    print('ran')", 4)
    student.adds("COSTLY = print('ran')\nimport no_such_package", 4)
    student.adds("%matplotlib inline\n!ls\ndef helper():\n    return 7\nhelper?", 4)
    student.adds("%%time\ndef timed():\n    return 8\nprint('ran')", 4)
    student.adds("%%bash\necho ran", 4)
    student.adds("((", 4)
    out = student.runs("attempt(2)\nfrom mbrl_course.mpc import helper, timed\nprint(helper() + timed())")
    assert out == "mbrl_course.mpc is now what build.ipynb defines.\n15\n"


def test_helpers_of_own_cells_count_and_scratch_copies_do_not(student: Student) -> None:
    student.writes(SOLVED | {"total": "def total(rewards, discount=0.5):\n    return helper(rewards)"})
    student.adds("def helper(rewards):\n    return sum(0.5**k * r for k, r in enumerate(rewards))")
    student.adds("def total(rewards):\n    return 'an earlier try'")
    assert "is now what build.ipynb defines" in student.runs("attempt(2)")


def test_hidden_tests_of_a_solution_notebook_are_not_run(built: Course, student: Student) -> None:
    path = student.folder / "solution.ipynb"
    shutil.copy(built.root / "solutions/week02/build.ipynb", path)
    text = path.read_text()
    assert "expected = 3.0" in text
    path.write_text(text.replace("expected = 3.0", "raise RuntimeError"))
    assert "is now what solution.ipynb defines" in student.runs("attempt(2, 'solution.ipynb')")


@pytest.mark.parametrize("damage", ["bom", "crlf", "colab"])
def test_notebooks_as_editors_leave_them(student: Student, damage: str) -> None:
    student.writes(SOLVED)
    path = student.folder / "build.ipynb"
    if damage == "colab":  # the course's own metadata are gone, nbgrader's are there
        student.edits(
            lambda cell: {"metadata": {k: v for k, v in cell["metadata"].items() if k == "nbgrader"}}
        )
        student.edits(lambda cell: {"source": "".join(cell["source"])})
    elif damage == "crlf":
        student.edits(lambda cell: {"source": "".join(cell["source"]).replace("\n", "\r\n")})
    else:
        path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert "is now what build.ipynb defines" in student.runs("attempt(2)")
    student.writes({"total": "def total(rewards):\n    return 0"})
    name = 'Exercise "total"' if damage == "colab" else "Exercise 2.1 (Add up)"
    assert name in student.runs("attempt(2)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no build.ipynb"),
        ("", "build.ipynb is no notebook of format 4"),
        ("{}", "build.ipynb is no notebook of format 4"),
        ("[1]", "build.ipynb is no notebook of format 4"),
        ('{"cells": [{"cell_type": "code"}]}', "build.ipynb is no notebook of format 4"),
    ],
)
def test_what_is_no_notebook(student: Student, text: str | None, message: str) -> None:
    path = student.folder / "build.ipynb"
    path.unlink()
    if text is not None:
        path.write_text(text)
    out = student.runs("attempt(2)")
    assert out.startswith(message) and "Open build.ipynb" in out


def test_tracebacks_show_the_students_lines(student: Student) -> None:
    student.writes(SOLVED)
    student.adds("def broken():\n    return 1 / 0  # my mistake")
    result = minicourse.run_python(
        TRY + "attempt(2)\nfrom mbrl_course.mpc import broken\nimport traceback\n"
        "try:\n    broken()\nexcept ZeroDivisionError: traceback.print_exc()",
        student.folder,
        student.root / "course",
    )
    assert 'cell 13", line 2, in broken\n    return 1 / 0  # my mistake' in result.stderr


def test_modules_that_imported_the_old_one_are_forgotten(student: Student) -> None:
    student.writes(SOLVED)
    experiments = student.root / "course/mbrl_course/experiments"
    experiments.mkdir()
    (experiments / "__init__.py").write_text("VALUE = 1\n")
    (experiments / "week02.py").write_text("from . import VALUE\nfrom ..mpc import total\n")
    (experiments / "chart.py").write_text("from ..plots import TOTAL\n")
    (experiments / "lazy.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mbrl_course.mpc\n\n"
        "def total():\n    from mbrl_course import mpc\n\n    return mpc.total\n"
    )
    out = student.runs(
        "import sys, mbrl_course.experiments.week02, mbrl_course.experiments.chart, mbrl_course.buffers\n"
        "from mbrl_course.mpc import total\n"
        "from mbrl_course.experiments import lazy\n"
        "old, buffers, package = total, mbrl_course.buffers, mbrl_course.experiments\n"
        "attempt(2)\n"
        "assert 'mbrl_course.plots' not in sys.modules and not hasattr(mbrl_course, 'plots')\n"
        "assert mbrl_course.buffers is buffers, 'it needs nothing of the week'\n"
        "assert mbrl_course.experiments is package, 'its __init__ does not'\n"
        "assert package.lazy is lazy and lazy.total() is mbrl_course.mpc.total\n"
        "import mbrl_course.experiments.week02, mbrl_course.experiments.chart\n"
        "from mbrl_course.mpc import total\n"
        "from mbrl_course.experiments import chart, week02\n"
        "assert week02.total is chart.TOTAL is total is not old\n"
    )
    assert out == (
        "mbrl_course.mpc is now what build.ipynb defines.\n"
        "Run the cells again that import old, total: these names still mean what they did before.\n"
    )


def test_using_a_notebook_again_after_an_edit(student: Student) -> None:
    student.writes(SOLVED)
    edit = (
        "import pathlib\np = pathlib.Path('build.ipynb')\n"
        "p.write_text(p.read_text().replace('discount**k', '0.5**k'))\n"
    )
    out = student.runs(
        f"attempt(2)\nimport mbrl_course.plots\n{edit}attempt(2)\nimport mbrl_course.plots, inspect\n"
        "print('0.5**k' in inspect.getsource(mbrl_course.plots.TOTAL))"
    )
    assert out.splitlines()[-1] == "True"


def test_a_failing_notebook_leaves_the_modules_as_they_were(student: Student) -> None:
    out = student.runs(
        "import mbrl_course.mpc as before\nattempt(2)\n"
        "import mbrl_course.mpc as after\nprint(before is after)"
    )
    assert out.endswith("True\n")


def test_the_reference_is_one_switch_away(student: Student) -> None:
    student.writes(SOLVED)
    out = student.runs(
        "attempt(2, reference=True)\nattempt(2)\nimport mbrl_course.plots\nattempt(2, reference=True)\n"
        "import mbrl_course.mpc, mbrl_course.plots\n"
        "assert mbrl_course.mpc.__file__ and mbrl_course.plots.TOTAL is mbrl_course.mpc.total"
    )
    assert out.splitlines()[0] == "mbrl_course.mpc is now the course's reference."


def test_without_a_reference_there_is_only_the_students(student: Student) -> None:
    student.writes(SOLVED)
    for name in ("mpc", "plots", "cem", "mppi", "icem"):
        (student.root / f"course/mbrl_course/{name}.py").unlink()
    out = student.runs(
        "attempt(2)\nattempt(2, reference=True)\nfrom mbrl_course.mpc import total\nprint(total([1.0]))"
    )
    assert "the reference of week02 is not installed here (mbrl_course.mpc)" in out
    assert out.endswith("1.0\n"), "the student's is still in place"


def test_two_modules_of_a_week_share_one_notebook(student: Student) -> None:
    student.writes(WEEK1_SOLVED, "week01")
    out = student.runs(
        "print(use_notebook(1, '../week01/build.ipynb'))\n"
        "import mbrl_course.buffers, mbrl_course.dynamics\n"
        "assert mbrl_course.buffers.Ring is mbrl_course.dynamics.Ring\n"
        "assert mbrl_course.dynamics.__name__ == 'mbrl_course.dynamics'\n"
        "assert mbrl_course.dynamics.predict_all(1, [1]) == [2]"
    )
    assert out == "mbrl_course.buffers and mbrl_course.dynamics are now what build.ipynb defines.\n"


def test_earlier_weeks_are_taken_too(student: Student) -> None:
    student.writes(SOLVED)
    student.writes(WEEK1_SOLVED, "week01")
    out = student.runs(
        "print(use_notebook(2, use_mine=True))\n"
        "import mbrl_course.mpc, mbrl_course.buffers\n"
        "assert mbrl_course.mpc.Batch is mbrl_course.buffers.Batch\n"
        "assert not hasattr(mbrl_course.buffers, '__file__')\n"
        "print(use_mine(['week01']))\n"
        "from mbrl_course.mpc import Batch, total\n"
        "import mbrl_course.buffers\n"
        "assert Batch is mbrl_course.buffers.Batch, 'week 2 was made anew on the new week 1'\n"
        "assert total.__code__.co_filename.startswith('week02/')"
    )
    assert out.splitlines()[:2] == [
        "mbrl_course.mpc is now what build.ipynb defines.",
        "mbrl_course.buffers and mbrl_course.dynamics are now what build.ipynb defines.",
    ]


def test_an_earlier_week_that_fails_falls_back_to_the_reference(student: Student) -> None:
    student.writes(SOLVED)
    student.writes({"ring": WEEK1_SOLVED["ring"]}, "week01")
    code = (
        "print(use_notebook(2, use_mine=True))\nfrom mbrl_course import buffers as b\nprint(bool(b.__file__))"
    )
    assert student.runs(code) == (
        "mbrl_course.mpc is now what build.ipynb defines.\n"
        "mbrl_course.buffers and mbrl_course.dynamics are now the course's reference.\n"
        "  Your own is not used: Exercise 1.2 (Predict): predict_all is not written yet (cell 7)\nTrue\n"
    )
    (student.root / "weeks/week01/build.ipynb").unlink()
    assert "Your own is not used: there is no " in student.runs(code)


def test_an_unknown_week_lists_the_weeks(student: Student) -> None:
    out = student.runs(
        "from mbrl_course.weeks import UnknownWeekError\n"
        "try:\n    use_notebook(77)\nexcept UnknownWeekError as e: print(e)"
    )
    assert "there is no week 77; the weeks are: week01" in out


def test_ipython_shows_the_message_alone(student: Student) -> None:
    out = student.runs(
        "try:\n    use_notebook(2)\nexcept StudentCodeError as e: print(e._render_traceback_()[0])"
    )
    assert out.startswith("StudentCodeError: build.ipynb can't stand in")
