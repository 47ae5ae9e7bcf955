"""Reads a student's build notebook: its definitions become a namespace, its visible checks say what works.

Nothing else of the notebook is run: no plots, no scratch cells, no call whose result only the notebook shows.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import io
import json
import linecache
import re
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HIDDEN = re.compile(r"^[^\n]*BEGIN HIDDEN TESTS.*?(?:END HIDDEN TESTS[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
MAGIC = re.compile(r"^\s*([%!?]|\w+\s*=\s*[%!]|\w[\w.]*\?+\s*$)")
SKIPPED_CELLS = ("%%bash", "%%sh", "%%html", "%%javascript", "%%latex", "%%svg", "%%script", "%%writefile")


class NotebookError(Exception):
    """The file is missing, or is no notebook."""


@dataclass(frozen=True)
class Exercise:
    """An exercise, as the notebook's cells name it."""

    id: str
    number: str = ""
    title: str = ""
    bonus: bool = False

    def __str__(self) -> str:
        """For example "exercise 3.1 (Refit to the elites)"."""
        return f"exercise {self.number} ({self.title})" if self.number else f'exercise "{self.id}"'


@dataclass(frozen=True)
class Cell:
    """A code cell. `kind` is setup, given, solution, test, or "" for the student's own and for plots."""

    position: int  # among all cells, from 1
    kind: str
    exercise: Exercise | None
    source: str
    filename: str  # what tracebacks call it


@dataclass
class Finding:
    """Something that keeps the notebook from standing in for a module."""

    where: str
    message: str
    exercise: str = ""
    bonus: bool = False


@dataclass
class StudentNotebook:
    """A notebook's definitions, executed, and what was found wrong."""

    path: Path
    cells: list[Cell]
    namespace: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    def define(self) -> None:
        """Executes the definitions in `namespace`; what raises is noted in `findings`."""
        trees = [(cell, self._parse(cell)) for cell in self.cells if cell.kind != "test"]
        flags = 0
        for _, tree in trees:
            imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
            if any(node.module == "__future__" for node in imports):
                flags = __future__.annotations.compiler_flag
        own = {name for cell, tree in trees if cell.kind for node in tree.body for name in _binds(node)}
        for cell, tree in trees:
            for node in tree.body:
                if cell.kind not in ("setup", "given") and not _is_definition(node, strict=not cell.kind):
                    continue
                if not cell.kind and own & set(_binds(node)):
                    continue  # a scratch cell doesn't replace what an exercise is about
                code = compile(ast.Module([node], []), cell.filename, "exec", flags, dont_inherit=True)
                try:
                    exec(code, self.namespace)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    if cell.kind:  # else it is missed where it is needed
                        self._note(cell, error)

    def check(self) -> None:
        """Runs the visible part of each exercise's tests; each one's first failure is noted."""
        failed = {finding.exercise for finding in self.findings}
        for cell in self.cells:
            if cell.kind != "test" or cell.exercise is None or cell.exercise.id in failed:
                continue
            try:
                source = HIDDEN.sub(lambda match: "\n" * match[0].count("\n"), cell.source)
                code = compile(source, cell.filename, "exec", self._flags(), dont_inherit=True)
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    exec(code, dict(self.namespace))
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failed.add(cell.exercise.id)
                self._note(cell, error)

    def _flags(self) -> int:
        return __future__.annotations.compiler_flag if "annotations" in self.namespace else 0

    def _parse(self, cell: Cell) -> ast.Module:
        source = cell.source
        if source.startswith("%%"):
            first, _, rest = source.partition("\n")
            source = "" if first.startswith(SKIPPED_CELLS) else f"\n{rest}"
        try:
            return ast.parse(source)
        except SyntaxError:
            lines = source.split("\n")
            blanked = "\n".join("pass" if MAGIC.match(line) else line for line in lines)
        try:
            return ast.parse(blanked, cell.filename)
        except SyntaxError as error:
            if cell.kind:
                self._note(cell, error)
            return ast.Module([], [])

    def _note(self, cell: Cell, error: BaseException) -> None:
        """Turns an error into words: which exercise, which cell, what is wrong, and in which line."""
        by_file = {other.filename: other for other in self.cells}
        frames = [
            (frame.f_code, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if frame.f_code.co_filename in by_file
        ]
        code, line = frames[-1] if frames else (None, 0)
        inner = by_file[code.co_filename] if code else cell
        text = linecache.getline(inner.filename, line).strip()
        exercise = cell.exercise
        label = str(exercise) if exercise else f"the {cell.kind} cell"
        where = f"{label[0].upper()}{label[1:]}"
        place = f"cell {inner.position}"
        if line:
            place += f", line {line}: {text}"
        if isinstance(error, SyntaxError):
            message = f"{error.msg} (cell {cell.position}, line {error.lineno})"
        elif inner.exercise is not None and inner.exercise != exercise and inner.kind == "solution":
            what = "is not written yet" if isinstance(error, NotImplementedError) else f"raises {_say(error)}"
            message = f"needs {inner.exercise}, which {what} ({place})"
        elif isinstance(error, NotImplementedError):
            name = code.co_qualname if code and code.co_name != "<module>" else "it"
            message = f"{name} is not written yet (cell {inner.position})"
        elif isinstance(error, AssertionError) and inner.kind == "test":
            message = f"fails its check in cell {inner.position}: {str(error) or text}"
        elif isinstance(error, AssertionError) and str(error):  # a helper says what is wrong
            message = f"fails its check in cell {cell.position}: {error}"
        else:
            message = f"raises {_say(error)} ({place})"
        self.findings.append(
            Finding(where, message, exercise.id if exercise else "", bool(exercise and exercise.bonus))
        )


def read_notebook(path: Path, module: str) -> StudentNotebook:
    """Reads the code cells of a notebook; nothing is executed.

    Args:
        path: a notebook of nbformat 4.
        module: the `__name__` of what it defines, such as "mbrl_course.cem".

    Raises:
        NotebookError: the file is missing, or is no notebook; the message says which.
    """
    if not path.is_file():
        raise NotebookError(f"there is no {path}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
        cells = list(_cells(raw["cells"], f"{path.resolve().parent.name}/{path.name}"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotebookError(f"{path} is no notebook of format 4 ({type(error).__name__}: {error})") from None
    namespace = {"__name__": module, "__doc__": f"What {path.name} defines.", "__package__": "mbrl_course"}
    return StudentNotebook(path, cells, namespace)


def _cells(raw_cells: list[dict[str, Any]], name: str) -> Iterator[Cell]:
    for position, raw in enumerate(raw_cells, 1):
        if raw["cell_type"] != "code":
            continue
        source = raw["source"] if isinstance(raw["source"], str) else "".join(raw["source"])
        source = source.replace("\r\n", "\n")
        filename = f"{name}, cell {position}"
        # A modification time of None keeps the lines in the cache: tracebacks show the student's code.
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
        kind, exercise = _role(raw.get("metadata", {}))
        yield Cell(position, kind, exercise, source, filename)


def _role(metadata: dict[str, Any]) -> tuple[str, Exercise | None]:
    """A cell's kind and exercise: from the course's own metadata, or else from nbgrader's."""
    own, graded = metadata.get("mbrl_course", {}), metadata.get("nbgrader", {})
    kind, id_ = str(own.get("kind", "")), str(own.get("exercise", ""))
    if not kind and graded:
        grade_id = str(graded.get("grade_id", ""))
        kind = "solution" if graded.get("solution") else "test" if graded.get("grade") else "given"
        id_ = "" if kind == "given" else grade_id.partition("-test-")[0]
    if kind not in ("setup", "given", "solution", "test"):
        return "", None
    if not id_:
        return kind, None
    return kind, Exercise(id_, str(own.get("number", "")), str(own.get("title", "")), bool(own.get("bonus")))


def _is_definition(node: ast.stmt, strict: bool) -> bool:
    """Whether a statement only defines something.

    Assignments count where they make a constant (UPPERCASE), a type alias (CamelCase) or hold a literal;
    `strict`, for cells that belong to no exercise, admits literals only, since anything else may be costly.
    """
    if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return True
    if type(node).__name__ == "TypeAlias":  # Python 3.12: type X = ...
        return True
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if node.value is None or not all(isinstance(target, ast.Name) for target in targets):
            return False
        named = all(isinstance(t, ast.Name) and t.id.lstrip("_")[:1].isupper() for t in targets)
        return _is_literal(node.value) or (named and not strict)
    if isinstance(node, ast.If | ast.Try):
        handlers = [statement for h in getattr(node, "handlers", []) for statement in h.body]
        nested = [*node.body, *node.orelse, *handlers, *getattr(node, "finalbody", [])]
        return all(isinstance(item, ast.Pass) or _is_definition(item, strict) for item in nested)
    return False


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    return []


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
