"""Which names a piece of code binds, reads and changes: read from its syntax, never by running it."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager

WRAPPERS = re.compile(r"\s*%%(time|capture|timeit|prun)\b.*")
SETTINGS = re.compile(
    r"(set_|manual_seed$|seed$|filterwarnings$|simplefilter$|seterr$|setrecursionlimit$|basicConfig$)"
)
FOLDERS = {"makedirs", "mkdir"}
MAX_TEXT = 300_000  # characters of a cell: nobody writes more, and reading it takes the time of others
MAX_WORK = 3_000_000  # characters times lines with magics: each of them makes IPython read the cell again
MAX_STATEMENTS = 2000
_MAGIC = re.compile(r"^\s*[%!?,;/]|[=?]\s*[%!]|\?\s*$", re.M)


def unwrapped(code: str) -> str:
    """`code` without a first line such as `%%time`, which changes nothing about what the cell does."""
    lines = code.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is not None and WRAPPERS.fullmatch(lines[first]):
        lines[first] = ""
    return "\n".join(lines)


@lru_cache(maxsize=4096)
def parse(code: str) -> ast.Module | None:
    """The syntax tree of a cell, magics translated; None where it has no valid syntax."""
    if len(code) > MAX_TEXT:
        return None
    try:
        text = unwrapped(code)
        magics = 0 if text.lstrip().startswith("%%") else len(_MAGIC.findall(text))
        if magics * len(text) > MAX_WORK:
            return None
        return ast.parse(TransformerManager().transform_cell(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@dataclass(frozen=True)
class Statement:
    """One top-level statement.

    Attributes:
        code: its text.
        binds: names that it binds in the notebook's namespace.
        reads: names that it reads anywhere, functions' bodies included.
        changes: names whose objects it changes: assigns to a part of them or calls a method of them.
        is_import: it imports, and does nothing else.
        is_setting: it sets an option of a library, a seed or the like.
        is_stub: it defines what has no body yet.
        writes_module: the module that a `%%writefile` makes.
    """

    code: str
    binds: frozenset[str]
    reads: frozenset[str]
    changes: frozenset[str]
    is_import: bool
    is_setting: bool
    is_stub: bool
    writes_module: str = ""


@lru_cache(maxsize=4096)
def statements(code: str) -> tuple[Statement, ...]:
    """The top-level statements of a cell, or none where it has no valid syntax."""
    tree = parse(code)
    if tree is None or len(tree.body) > MAX_STATEMENTS:
        return ()
    try:
        return tuple(_statement(node) for node in tree.body)
    except RecursionError:
        return ()


def _statement(node: ast.stmt) -> Statement:
    binds, changes = set(), set()
    for item in _same_scope(node):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            binds.add(item.name)
        elif isinstance(item, ast.Import | ast.ImportFrom):
            binds |= {alias.asname or alias.name.split(".")[0] for alias in item.names}
        elif isinstance(item, ast.Name) and not isinstance(item.ctx, ast.Load):
            binds.add(item.id)
        elif isinstance(item, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and item.name:
            binds.add(item.name)
        elif isinstance(item, ast.Attribute | ast.Subscript) and not isinstance(item.ctx, ast.Load):
            changes |= root_of(item)
        elif isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute):
            changes |= root_of(item.func)
        if isinstance(item, ast.AugAssign) and isinstance(item.target, ast.Name):
            changes.add(item.target.id)
    code = ast.unparse(node)
    reads = global_reads(code)
    for inner in ast.walk(node):
        if isinstance(inner, ast.Global):
            reads |= set(
                inner.names
            )  # a function that sets them when it is called; who binds them first is another
    is_import = isinstance(node, ast.Import | ast.ImportFrom)
    return Statement(
        code=code,
        binds=frozenset(binds),
        reads=frozenset(reads),
        changes=frozenset(changes),
        is_import=is_import,
        is_setting=_is_setting(node),
        is_stub=_is_stub(node),
        writes_module=_written_module(node),
    )


def global_reads(code: str) -> set[str]:
    """The names that `code` reads from the notebook's namespace, in functions' bodies too; not their local
    names."""
    try:
        tables = [symtable.symtable(code, "cell", "exec")]
    except (SyntaxError, ValueError, RecursionError):
        return set()
    reads: set[str] = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        reads |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (top or s.is_global())}
    return reads - {"get_ipython"}


def _same_scope(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and what is in it, but not the bodies of functions, classes and comprehensions."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for decorator in node.decorator_list:
            yield from _same_scope(decorator)
        return
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return
    for child in ast.iter_child_nodes(node):
        yield from _same_scope(child)


def root_of(node: ast.expr) -> set[str]:
    """The name at the beginning of `name.part[0](...)`, if it begins with one."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _is_setting(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
        return False
    function = node.value.func
    if not isinstance(function, ast.Attribute):
        return False
    makes_folder = function.attr in FOLDERS and root_of(function) in ({"os"}, {"Path"})
    return makes_folder or SETTINGS.match(function.attr) is not None


def _is_stub(node: ast.AST) -> bool:
    if isinstance(node, ast.ClassDef):
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
        return bool(methods) and all(_is_stub(item) for item in methods)
    if not isinstance(node, ast.FunctionDef):
        return False
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return all(isinstance(item, ast.Pass) or _is_not_implemented(item) for item in body)


def _is_not_implemented(node: ast.stmt) -> bool:
    return isinstance(node, ast.Raise) and node.exc is not None and "NotImplemented" in ast.unparse(node.exc)


def _written_module(node: ast.stmt) -> str:
    text = ast.unparse(node) if isinstance(node, ast.Expr) else ""
    match = re.match(r"get_ipython\(\)\.run_cell_magic\('writefile', '(?:-a )?(\w+)\.py'", text)
    return match[1] if match else ""


def imported_modules(code: str) -> set[str]:
    """The full names of the modules that `code` imports anywhere."""
    tree = parse(code)
    found: set[str] = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def special_methods(tree: ast.Module) -> dict[str, set[str]]:
    """For each class, the special methods that it defines, by itself, by its bases or as a dataclass."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def methods(name: str, seen: frozenset[str]) -> set[str]:
        node = classes[name]
        found = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
        for item in node.body:
            if isinstance(item, ast.Assign):
                found |= {target.id for target in item.targets if isinstance(target, ast.Name)}
        if any("dataclass" in ast.unparse(item) for item in node.decorator_list):
            found |= {"__eq__", "__repr__"}
            if any("order" in ast.unparse(item) for item in node.decorator_list):
                found |= {"__lt__", "__le__", "__gt__", "__ge__"}
        if any("total_ordering" in ast.unparse(item) for item in node.decorator_list):
            found |= {"__lt__", "__le__", "__gt__", "__ge__"}
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in classes and base.id not in seen:
                found |= methods(base.id, seen | {base.id})
        return {item for item in found if item.startswith("__")}

    return {name: methods(name, frozenset({name})) for name in classes}
