"""Takes solutions and given code out of the package's own source: one source for every solution.

Everything is read through `ast`; the package is never imported, so an unfinished module can't stop a build.
"""

from __future__ import annotations

import ast
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from mbrl_autograder.authoring.course import PACKAGE, Course, parse_file

BEGIN_SOLUTION = "### BEGIN SOLUTION"
END_SOLUTION = "### END SOLUTION"
Function = ast.FunctionDef | ast.AsyncFunctionDef


class RefError(ValueError):
    """A reference names nothing that can be printed."""


@dataclass(frozen=True)
class Ref:
    """The names of one module, as in "cem:CEMConfig,CEMPlanner" or "buffers:ReplayBuffer.add"."""

    module: str
    names: tuple[str, ...]


def parse_refs(text: str) -> list[Ref]:
    """Reads "module:name,name" (several of them separated by ";").

    Raises:
        RefError: it isn't written that way.
    """
    refs = []
    for part in text.split(";"):
        module, colon, names = part.strip().partition(":")
        listed = tuple(name.strip() for name in names.split(","))
        if not colon or not module or not all(listed):
            raise RefError(f'ref="{text}" is not of the form "module:name,name"')
        refs.append(Ref(module.removeprefix(f"{PACKAGE}."), listed))
    return refs


@dataclass
class ModuleSource:
    """A module's text and what it defines at its top level, each name with its statement."""

    module: str
    path: Path
    lines: list[str]
    tree: ast.Module
    definitions: dict[str, ast.stmt] = field(default_factory=dict)

    @classmethod
    def read(cls, course: Course, module: str) -> ModuleSource:
        """Reads a module of the package.

        Raises:
            RefError: there is no such module, or it can't be parsed.
        """
        path = course.module_path(module)
        if path is None:
            raise RefError(f"there is no module {PACKAGE}.{module}")
        try:
            tree = parse_file(path)
        except SyntaxError as error:
            raise RefError(f"{course.show(path)}:{error.lineno} can't be parsed: {error.msg}") from None
        source = cls(module, path, path.read_text(encoding="utf-8").splitlines(), tree)
        for node in tree.body:
            for name in defined_names(node):
                source.definitions[name] = node
        return source

    @property
    def public_names(self) -> list[str]:
        """What the module offers: `__all__`, or else every name it defines without a leading underscore."""
        for node in self.tree.body:
            if (
                "__all__" in defined_names(node)
                and isinstance(node, ast.Assign | ast.AnnAssign)
                and node.value
            ):
                return [str(name) for name in ast.literal_eval(node.value)]
        return [name for name in self.definitions if not name.startswith("_")]

    @property
    def future_annotations(self) -> bool:
        """Whether the module starts with `from __future__ import annotations`."""
        return has_future_annotations(self.tree)

    def find(self, name: str) -> ast.stmt:
        """The statement that defines `name`, or the method "Class.method".

        Raises:
            RefError: there is none; the message lists the names that there are.
        """
        owner, _, method = name.partition(".")
        node = self.definitions.get(owner)
        if node is None:
            known = ", ".join(self.definitions)
            raise RefError(f"{PACKAGE}.{self.module} defines no {owner} (it defines: {known})")
        if not method:
            return node
        if not isinstance(node, ast.ClassDef):
            raise RefError(f"{PACKAGE}.{self.module}.{owner} is no class, so there is no {name}")
        for item in node.body:
            if isinstance(item, Function) and item.name == method:
                return item
        methods = ", ".join(item.name for item in node.body if isinstance(item, Function))
        raise RefError(f"{PACKAGE}.{self.module}.{owner} has no method {method} (it has: {methods})")

    def span(self, node: ast.stmt) -> tuple[int, int]:
        """First and last line of a statement, with decorators, comments right above, and a string below.

        A string literal below an assignment is how a constant is documented.
        """
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        while first > 1 and self.lines[first - 2].startswith("#"):
            first -= 1
        last = node.end_lineno or node.lineno
        if isinstance(node, ast.Assign | ast.AnnAssign) and node in self.tree.body:
            below = self.tree.body[self.tree.body.index(node) + 1 :][:1]
            if below and _is_string(below[0]) and below[0].lineno == last + 1:
                last = below[0].end_lineno or last
        return first, last

    def verbatim(self, name: str) -> str:
        """The source of a function, class, constant or type alias.

        Raises:
            RefError: it isn't defined, or is a method.
        """
        node = self.find(name)
        if "." in name:
            raise RefError(f"{name} is a method: a given cell prints whole classes")
        first, last = self.span(node)
        return "\n".join(self.lines[first - 1 : last])

    def cut(self, names: list[str], hints: dict[str, str]) -> str:
        """The source of one function, or of one class, with the bodies of `names` marked as solutions.

        Args:
            names: one function, or methods of one class ("Class.method").
            hints: comment lines that come before the body, for each name.

        Raises:
            RefError: a name isn't defined, is no function, or its body can't be cut out.
        """
        outer = self.find(names[0].partition(".")[0])
        first, last = self.span(outer)
        lines = list(self.lines)
        nodes = [(name, self.find(name)) for name in names]
        for name, node in sorted(nodes, key=lambda item: -item[1].lineno):  # from the end: line numbers hold
            if not isinstance(node, Function):
                raise RefError(f"{name} is no function: a solution is a function, or methods of a class")
            begin, end, indent = self._body(name, node)
            marked = [
                *(textwrap.indent(hints[name], indent).splitlines() if hints.get(name) else []),
                indent + BEGIN_SOLUTION,
                *self.lines[begin - 1 : end],
                indent + END_SOLUTION,
            ]
            lines[begin - 1 : end] = marked
            last = max(last, end)  # comments that end a body belong to it
            last += len(marked) - (end - begin + 1)
        return "\n".join(lines[first - 1 : last])

    def _body(self, name: str, node: Function) -> tuple[int, int, str]:
        """First and last line of a function's body without its docstring, and the indentation there."""
        statements = node.body[1:] if _is_string(node.body[0]) else node.body
        if not statements:
            raise RefError(f"{name} has no body")
        header_end = node.body[0].end_lineno if _is_string(node.body[0]) else self._signature_end(node)
        begin = (header_end or node.lineno) + 1
        end = node.end_lineno or node.lineno
        if self.lines[statements[0].lineno - 1][: statements[0].col_offset].strip():
            raise RefError(f"{name}'s body has to start on a line of its own")
        while not self.lines[begin - 1].strip():
            begin += 1
        indent = " " * statements[0].col_offset
        while end < len(self.lines) and self.lines[end].startswith(f"{indent}#"):
            end += 1
        return begin, end, indent

    def _signature_end(self, node: Function) -> int:
        """The line of the colon that ends a signature: above the body's comments and blank lines."""
        line = node.body[0].lineno - 1
        while line > node.lineno and self.lines[line - 1].strip()[:1] in ("", "#"):
            line -= 1
        return line


def defined_names(node: ast.stmt) -> list[str]:
    """The names that a top-level statement defines: a function, a class, a constant or a type alias."""
    if isinstance(node, Function | ast.ClassDef):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    elif type(node).__name__ == "TypeAlias":  # Python 3.12: type X = ...
        targets = [node.name]  # type: ignore[attr-defined]
    return [item.id for target in targets for item in ast.walk(target) if isinstance(item, ast.Name)]


def has_future_annotations(tree: ast.Module) -> bool:
    """Whether code has `from __future__ import annotations`."""
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == "__future__"
        and any(alias.name == "annotations" for alias in node.names)
        for node in tree.body
    )


def split_hints(text: str, names: list[str]) -> dict[str, str]:
    """Shares a solution cell's comment lines out to the functions it names.

    A line that is only a name and a colon ("# ReplayBuffer.add:", or "# add:") starts the hints of that
    function; lines before the first such line belong to the first function.

    Raises:
        RefError: a line is no comment.
    """
    labels = {label: name for name in names for label in (name, name.rpartition(".")[2])}
    hints: dict[str, list[str]] = {name: [] for name in names}
    current = names[0]
    for line in text.strip().splitlines():
        if line.strip() and not line.startswith("#"):
            raise RefError(f"a solution cell holds comment lines only, its code comes from the ref: {line!r}")
        label = line.lstrip("# ").rstrip()
        if label.endswith(":") and label[:-1] in labels:
            current = labels[label[:-1]]
        elif line.strip():
            hints[current].append(line)
    return {name: "\n".join(lines) for name, lines in hints.items()}


def solution_code(course: Course, ref_text: str, hints_text: str) -> str:
    """The code of a solution cell: what `ref` names, with its bodies marked as solutions.

    Raises:
        RefError: the ref or the cell's text is not as it should be.
    """
    refs = parse_refs(ref_text)
    names = [name for ref in refs for name in ref.names]
    hints = split_hints(hints_text, names)
    blocks = []
    for ref in refs:
        module = ModuleSource.read(course, ref.module)
        owners = list(dict.fromkeys(name.partition(".")[0] for name in ref.names))
        for owner in owners:
            members = [name for name in ref.names if name.partition(".")[0] == owner]
            blocks.append(module.cut(members, hints))
    return "\n\n\n".join(blocks)


def given_code(course: Course, ref_text: str, own_text: str) -> str:
    """The code of a given cell: its own text, then what `ref` names, verbatim.

    Raises:
        RefError: the ref is not as it should be.
    """
    blocks = [own_text.strip()] if own_text.strip() else []
    small = False  # short statements stand close to each other
    for ref in parse_refs(ref_text):
        module = ModuleSource.read(course, ref.module)
        done: list[ast.stmt] = []
        for name in ref.names:
            if (node := module.find(name)) not in done:  # one statement may define two names
                text = module.verbatim(name)
                if small and isinstance(node, ast.Assign | ast.AnnAssign):
                    blocks[-1] += f"\n\n{text}"
                else:
                    blocks.append(text)
                small = isinstance(node, ast.Assign | ast.AnnAssign)
                done.append(node)
    return "\n\n\n".join(blocks)


def _is_string(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
