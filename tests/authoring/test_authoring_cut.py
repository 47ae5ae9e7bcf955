"""Cutting solutions out of the package's source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import minicourse
from mbrl_autograder.authoring import Course
from mbrl_autograder.authoring.cut import ModuleSource, RefError, given_code, solution_code, split_hints
from mbrl_autograder.authoring.names import names_of

TRICKY = '''"""Layouts that a cut must survive."""

import functools


def plain(x):
    return x


def commented(x):

    # why

    y = x
    return y


@functools.cache
def long_signature(
    x,  # the only one
    *,
    y=(1,
       2),
):  # a comment
    """One line."""

    if x:
        return y
    return x


async def coroutine():
    return 1


def one_line(x): return x


def one_line_more(
    x,
): return x


def doc_line():
    """Doc."""; return 1


def only_doc():
    """Nothing else."""


class Outer:
    """A class."""

    size = 3

    @property
    def area(self):
        """Area."""
        return self.size**2

    @area.setter
    def area(self, value):
        self.size = value

    def nested(self):
        """Nested."""

        def inner():
            """Inner."""
            return 1

        return inner()


FIRST, SECOND = 1, 2
TABLE: dict[str, int] = {
    "a": 1,
}
"""What is in it."""
'''


@pytest.fixture
def course(tmp_path: Path) -> Course:
    course = minicourse.make_course(tmp_path)
    (course.package_dir / "tricky.py").write_text(TRICKY)
    return course


def uncut(code: str) -> str:
    return "\n".join(line for line in code.splitlines() if "SOLUTION" not in line and "TODO" not in line)


def stub(code: str) -> str:
    """What a student would see."""
    lines: list[str] = []
    inside = False
    for line in code.splitlines():
        if "BEGIN SOLUTION" in line:
            lines.append(line.split("#")[0] + "raise NotImplementedError")
        inside = "BEGIN SOLUTION" in line or (inside and "END SOLUTION" not in line)
        if not inside and "SOLUTION" not in line:
            lines.append(line)
    return "\n".join(lines)


@pytest.mark.parametrize("name", ["plain", "commented", "long_signature", "coroutine"])
def test_a_cut_function_is_the_source_and_its_stub_is_code(course: Course, name: str) -> None:
    code = solution_code(course, f"tricky:{name}", "# TODO: think")
    original = ast.get_source_segment(TRICKY, ModuleSource.read(course, "tricky").find(name))
    assert original is not None and original.strip() in uncut(code)
    (function,) = ast.parse(stub(code)).body
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    assert isinstance(function.body[-1], ast.Raise) and len(function.body) <= 2
    assert code.index("# TODO: think") < code.index("### BEGIN SOLUTION")


def test_decorators_signature_and_docstring_stay(course: Course) -> None:
    code = stub(solution_code(course, "tricky:long_signature", ""))
    assert code.startswith("@functools.cache\ndef long_signature(\n    x,  # the only one")
    assert '"""One line."""' in code and "if x" not in code


def test_comments_around_a_body_belong_to_the_solution(course: Course) -> None:
    assert "# why" not in stub(solution_code(course, "tricky:commented", ""))
    total = solution_code(course, "mpc:total", "")
    assert "nothing else" in total and "nothing else" not in stub(total)
    assert "in full" not in stub(total)


def test_methods_are_cut_and_the_rest_of_the_class_is_given(course: Course) -> None:
    code = solution_code(course, "tricky:Outer.nested", "# TODO: call inner")
    assert code.count("### BEGIN SOLUTION") == 1
    assert "        # TODO: call inner\n        ### BEGIN SOLUTION" in code
    assert "return self.size**2" in stub(code) and "inner" not in stub(code).replace("TODO: call inner", "")


def test_several_functions_share_their_hints_by_name(course: Course) -> None:
    code = solution_code(
        course, "mpc:Planner.plan,Planner.of", "# TODO: one\n# of:\n# TODO: two\n# and three"
    )
    assert code.index("# TODO: one") < code.index("BEGIN") < code.index("END") < code.index("# TODO: two")
    assert "        # TODO: two\n        # and three\n        ### BEGIN SOLUTION" in code
    both = solution_code(course, "mpc:total;dynamics:predict", "# total:\n# a\n# predict:\n# b")
    assert both.index("def total") < both.index("# a") < both.index("def predict") < both.index("# b")
    assert split_hints("", ["f"]) == {"f": ""}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("tricky:one_line", "line of its own"),
        ("tricky:one_line_more", "line of its own"),
        ("tricky:doc_line", "line of its own"),
        ("tricky:only_doc", "has no body"),
        ("tricky:Outer", "is no function"),
        ("tricky:TABLE", "is no function"),
        ("tricky:plain.x", "is no class"),
        ("tricky", "not of the form"),
        ("tricky:", "not of the form"),
        ("nothing:x", "no module"),
    ],
)
def test_what_cannot_be_cut_is_said(course: Course, ref: str, message: str) -> None:
    with pytest.raises(RefError, match=message):
        solution_code(course, ref, "")


def test_given_code_is_verbatim(course: Course) -> None:
    code = given_code(course, "tricky:TABLE,FIRST,SECOND", "# Mine.\n")
    assert code.startswith("# Mine.\n\n\nTABLE: dict[str, int] = {\n")
    assert '}\n"""What is in it."""\n\nFIRST, SECOND = 1, 2' in code
    assert code.count("FIRST, SECOND") == 1, "one statement may define two names"
    assert given_code(course, "mpc:DISCOUNT", "").startswith("# How far the future counts.\n")
    with pytest.raises(RefError, match="whole classes"):
        given_code(course, "mpc:Planner.plan", "")


def test_public_names(course: Course) -> None:
    module = ModuleSource.read(course, "mpc")
    assert module.public_names == ["Plan", "DISCOUNT", "Scored", "total", "best", "Planner"]
    (course.package_dir / "listed.py").write_text('__all__ = ["a"]\na = b = 1\n')
    assert ModuleSource.read(course, "listed").public_names == ["a"]


@pytest.mark.parametrize(
    ("code", "bound", "free"),
    [
        ("x = y", {"x"}, {"y"}),
        ("def f(a: T) -> U:\n    return a + b", {"f"}, {"b"}),
        ("import a.b, c as d\nfrom e import f", {"a", "d", "f"}, set()),
        ("xs = [i * k for i in range(3)]", {"xs"}, {"k"}),
        ("class A(B):\n    x: T = z\n    def m(self):\n        return self.x + A.x", {"A"}, {"B", "z"}),
        ("for i in items:\n    with f() as g:\n        pass", {"i", "g"}, {"items", "f"}),
        ("def f():\n    global g\n    g = 1", {"f", "g"}, set()),
        ("f = lambda x: x + y", {"f"}, {"y"}),
        ("def f(x=default):\n    def g():\n        return x\n    return g", {"f"}, {"default"}),
        ("(n := 3)\nprint(n)", {"n"}, set()),
    ],
)
def test_names_of_code(code: str, bound: set[str], free: set[str]) -> None:
    names = names_of(ast.parse(code))
    assert (set(names.bound), set(names.free)) == (bound, free)
