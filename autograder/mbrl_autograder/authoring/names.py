"""Which names a piece of code binds, and which it takes from elsewhere."""

from __future__ import annotations

import ast
import builtins
import copy
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins)) | {"__name__"}


@dataclass(frozen=True)
class Names:
    """The names of a cell: those it binds at its top level, and those it needs from other cells."""

    bound: frozenset[str]
    free: frozenset[str]


def names_of(tree: ast.Module) -> Names:
    """The names that code binds and needs. Annotations need none: they are not evaluated in the notebooks."""
    stripped = ast.unparse(ast.fix_missing_locations(_WithoutAnnotations().visit(copy.deepcopy(tree))))
    top = symtable.symtable(stripped, "<cell>", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    free = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    for scope in _scopes(top):
        for symbol in scope.get_symbols():
            if symbol.is_declared_global() and symbol.is_assigned():
                bound.add(symbol.get_name())
            if symbol.is_global() and symbol.is_referenced():
                free.add(symbol.get_name())
    return Names(frozenset(bound), frozenset(free - bound - BUILTINS))


def line_of(tree: ast.Module, name: str) -> int:
    """The first line in which code mentions `name`, 0 if it never does."""
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    return min(lines, default=0)


def _scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    for child in table.get_children():
        yield child
        yield from _scopes(child)


class _WithoutAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant("annotation")
        return self.generic_visit(node)
