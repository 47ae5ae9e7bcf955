"""What a test cell may hold: an exercise's visible and hidden checks, which the judge can run.

The judge runs test cells in a process of its own, where the student's names are proxies: a call sends plain
data and brings plain data back. So a test calls functions and looks at what comes back, and no more.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from mbrl_autograder.authoring.names import line_of, names_of

BEGIN_HIDDEN = "### BEGIN HIDDEN TESTS"
END_HIDDEN = "### END HIDDEN TESTS"

FORBIDDEN_MODULES = {
    "mock": "patching",
    "unittest": "patching",
    "pytest": "patching",
    "inspect": "reading source",
    "asyncio": "async code",
    "torch.autograd": "a gradient",
    "torch.func": "a gradient",
}
FORBIDDEN_NAMES = (
    "exec",
    "eval",
    "globals",
    "locals",
    "vars",
    "setattr",
    "delattr",
    "get_ipython",
    "__import__",
)
GRADIENTS = frozenset(
    [
        "backward",
        "requires_grad",
        "requires_grad_",
        "autograd",
        "grad",
        "grad_fn",
        "jacobian",
        "hessian",
        "jacrev",
        "jacfwd",
        "vjp",
        "jvp",
    ]
)
INTERNALS = frozenset(
    [
        "__class__",
        "__code__",
        "__closure__",
        "__defaults__",
        "__dict__",
        "__globals__",
        "__wrapped__",
        "__bases__",
        "__mro__",
        "__subclasses__",
        "__setattr__",
    ]
)


def split_hidden(text: str) -> tuple[str, list[tuple[int, str]]]:
    """A test cell's visible part, and what is wrong with its markers.

    Hidden lines are blank, so that line numbers hold. A problem is a line (the first is 1) and a message.
    """
    visible: list[str] = []
    problems: list[tuple[int, str]] = []
    opened = 0
    for number, line in enumerate(text.splitlines(), 1):
        begins, ends = "BEGIN HIDDEN TESTS" in line, "END HIDDEN TESTS" in line
        if (begins or ends) and line.strip() not in (BEGIN_HIDDEN, END_HIDDEN):
            problems.append((number, f"a marker is a line of its own: {BEGIN_HIDDEN} or {END_HIDDEN}"))
        if begins and opened:
            problems.append(
                (number, f"{BEGIN_HIDDEN} inside the hidden tests that begin {number - opened} lines above")
            )
        if ends and not opened:
            problems.append((number, f"{END_HIDDEN} without {BEGIN_HIDDEN}"))
        visible.append("" if opened or begins or ends else line)
        opened = number if begins else 0 if ends else opened
    if opened:
        problems.append((opened, f"{BEGIN_HIDDEN} without {END_HIDDEN}"))
    return "\n".join(visible), problems


def has_check(tree: ast.Module) -> bool:
    """Whether code checks anything: an assert, a raise, or a call whose result nobody keeps."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert | ast.Raise):
            return True
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _called(node.value) != "print":
            return True
        if isinstance(node, ast.Call) and _called(node).startswith(("check_", "assert_")):
            return True  # they return what they checked
    return False


def forbidden(tree: ast.Module, student: set[str]) -> Iterator[tuple[int, str]]:
    """What the judge can't run in a test cell: pairs of line (the first is 1) and message.

    Args:
        tree: the whole cell.
        student: the names that the student's cells define.
    """
    for name in sorted(names_of(tree).bound & student):
        yield line_of(tree, name), f"{name} is the student's: a test can't replace it"
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                top = ".".join(name.split(".")[: 2 if name.startswith("torch.") else 1])
                if reason := FORBIDDEN_MODULES.get(top):
                    yield line, f"import of {name}: {reason} doesn't reach the student's process"
        elif isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield line, "async code in a test cell"
        elif isinstance(node, ast.comprehension) and node.is_async:
            yield node.target.lineno, "async code in a test cell"
        elif isinstance(node, ast.MatchClass | ast.ExceptHandler):
            kind = node.cls if isinstance(node, ast.MatchClass) else node.type
            if kind is not None and (found := _mentions(kind, student)):
                yield line, f"{found} is the student's: classes can't cross processes, look at the data"
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = next((side.id for side in sides if isinstance(side, ast.Name) and side.id in student), "")
            if found and any(isinstance(side, ast.Call) and _called(side) == "type" for side in sides):
                yield line, f"type(...) against the student's {found}: classes can't cross processes"
        elif isinstance(node, ast.ClassDef):
            for base in [*node.bases, *(keyword.value for keyword in node.keywords)]:
                if found := _mentions(base, student):
                    yield (
                        line,
                        f"class {node.name} extends the student's {found}: subclassing can't cross processes",
                    )
        elif isinstance(node, ast.Call):
            yield from _forbidden_call(node, student)
        elif isinstance(node, ast.Attribute):
            if node.attr in GRADIENTS:
                yield (
                    line,
                    f".{node.attr}: no gradient crosses processes; use a closed form or differences",
                )
            if node.attr in INTERNALS:
                yield line, f".{node.attr}: a test looks at the data that come back, not inside objects"
            root = _root(node)
            if isinstance(node.ctx, ast.Store | ast.Del) and root in student:
                yield line, f"{ast.unparse(node)} is set: a test can't patch the student's {root}"


def _forbidden_call(node: ast.Call, student: set[str]) -> Iterator[tuple[int, str]]:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name in FORBIDDEN_NAMES:
        yield node.lineno, f"{name}() in a test cell"
    if name in ("isinstance", "issubclass") and len(node.args) == 2:
        first, second = node.args
        found = (first.id if isinstance(first, ast.Name) and first.id in student else "") or _mentions(
            second, student
        )
        if found:
            yield (
                node.lineno,
                f"{name} with the student's {found}: classes can't cross processes, look at the data",
            )
    if any(keyword.arg == "requires_grad" for keyword in node.keywords):
        yield node.lineno, "requires_grad=...: no gradient crosses processes"


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _mentions(node: ast.AST, names: set[str]) -> str:
    return next((n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in names), "")


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
