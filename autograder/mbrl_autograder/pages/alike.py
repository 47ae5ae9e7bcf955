"""Finds solutions that resemble each other more than chance explains, for a human to look at.

What two students share counts only where few others have it and neither the release nor the reference does,
and only where it is long: half a page that only two have is worth a look, the one obvious line that
everybody writes is not. Pieces of code are compared as in Schleimer, Wilkerson & Aiken, "Winnowing" (2003),
without the thinning, which a class does not need.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

PIECE = 6  # tokens
MIN_PIECES = 40  # about five lines
MIN_SHARE = 0.7
MOST = 20  # what more students share is how one writes it, and pairs of them would be many
MAX_SOURCE = 50_000
_TOKEN = re.compile(r"\w+|[^\w\s]")

Piece = tuple[str, tuple[str, ...]]  # a cell's id, and some tokens in a row


@dataclass(frozen=True)
class Pair:
    """Two students whose solutions resemble each other.

    Attributes:
        students: their names.
        share: the part of the shorter one's own code that both have, between 0 and 1.
        pieces: how many pieces of code both have, and few others.
        cells: the ids of the cells in which most of them are.
    """

    students: tuple[str, str]
    share: float
    pieces: int
    cells: tuple[str, ...]


def alike(
    solutions: Mapping[str, Mapping[str, str]], known: Mapping[str, Sequence[str]] | None = None
) -> list[Pair]:
    """The pairs of students to look at, the most alike first.

    Names of variables, comments, docstrings, annotations and layout make no difference.

    Args:
        solutions: for each student, the code of each solution cell by the cell's id.
        known: for each cell, code that anybody may have: the release's and the reference's.
    """
    given = {cell: set(_pieces(cell, sources)) for cell, sources in (known or {}).items()}
    own: dict[str, set[Piece]] = {}
    for student, cells in solutions.items():
        own[student] = set()
        for cell, source in cells.items():
            own[student] |= set(_pieces(cell, [source])) - given.get(cell, set())
    spread = Counter(piece for pieces in own.values() for piece in pieces)
    most = min(max(3, len(own) // 4), MOST)
    weight = {piece: math.log2((len(own) + 2) / number) for piece, number in spread.items() if number <= most}
    owners: dict[Piece, list[str]] = defaultdict(list)
    for student in sorted(own):
        own[student] &= weight.keys()
        for piece in own[student]:
            owners[piece].append(student)
    shared: dict[tuple[str, str], list[Piece]] = defaultdict(list)
    for piece, students in owners.items():
        for first, second in combinations(students, 2):
            shared[first, second].append(piece)
    whole = {student: sum(weight[piece] for piece in pieces) for student, pieces in own.items()}
    found: list[tuple[float, Pair]] = []
    for pair, common in shared.items():
        heavy = sum(weight[piece] for piece in common)
        share = heavy / min(whole[student] for student in pair)
        if len(common) >= MIN_PIECES and share >= MIN_SHARE:
            where = Counter(cell for cell, _ in common)
            names = tuple(sorted(cell for cell, number in where.items() if number >= MIN_PIECES / 4))
            found.append((heavy, Pair(pair, share, len(common), names)))
    return [pair for _, pair in sorted(found, key=lambda item: (-item[0], item[1].students))]


def _pieces(cell: str, sources: Iterable[str]) -> Iterable[Piece]:
    for source in sources:
        tokens = _TOKEN.findall(normal_form(source))
        for start in range(len(tokens) - PIECE + 1):
            yield cell, tuple(tokens[start : start + PIECE])


def normal_form(source: str) -> str:
    """Code without what a copier would change: own names, comments, docstrings, annotations, layout.

    Code that does not parse gives "".
    """
    lines = source[:MAX_SOURCE].split("\n")
    python = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)
    try:
        tree = ast.parse(python)
        return ast.unparse(_Normal(tree).visit(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""


class _Normal(ast.NodeTransformer):
    """Calls every name that the code itself binds "_", and drops what has no effect."""

    def __init__(self, tree: ast.AST) -> None:
        nodes = list(ast.walk(tree))
        names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        self.bound = names | {node.arg for node in nodes if isinstance(node, ast.arg)}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("_", node.ctx) if node.id in self.bound else node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg("_")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        self.generic_visit(node)
        node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        self.generic_visit(node)
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
