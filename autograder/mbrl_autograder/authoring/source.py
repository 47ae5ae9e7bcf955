"""Reads a notebook source: py:percent text with short cell options, as `course/notebooks/README.md` says."""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupytext

from mbrl_autograder.authoring.course import Problem
from mbrl_course.weeks import Week

# Comments stay comments: "# cat the two tensors" is no shell command.
PERCENT_FORMAT = {"extension": ".py", "format_name": "percent", "comment_magics": False}

# Options of each kind of cell: name -> (type, is it needed). "prose" and "demo" are cells without a kind.
OPTIONS: dict[str, dict[str, tuple[tuple[type, ...], bool]]] = {
    "prose": {},
    "exercise": {
        "exercise": ((str,), True),
        "number": ((str, float), True),
        "title": ((str,), True),
        "points": ((int, float), True),
        "difficulty": ((int,), True),
        "minutes": ((int,), True),
        "bonus": ((bool,), False),
    },
    "written": {"kind": ((str,), True), "id": ((str,), True), "points": ((int, float), True)},
    "demo": {},
    "setup": {"kind": ((str,), True), "id": ((str,), False)},
    "given": {"kind": ((str,), True), "id": ((str,), False), "ref": ((str,), False)},
    "solution": {"kind": ((str,), True), "of": ((str,), True), "ref": ((str,), True)},
    "test": {"kind": ((str,), True), "of": ((str,), True), "points": ((int, float), True)},
    "parameters": {"kind": ((str,), True)},
}
MARKDOWN_KINDS = ("prose", "exercise", "written")
JUPYTEXT_KEYS = ("lines_to_next_cell", "lines_to_end_of_cell_marker")
IDENTIFIER = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass
class Cell:
    """One cell of a source. `line` is that of its `# %%`; the text starts on the line after it."""

    kind: str
    text: str
    line: int
    options: dict[str, Any] = field(default_factory=dict)
    code: str = ""  # the text, with the package's source filled in

    @property
    def is_code(self) -> bool:
        """Whether this is a code cell."""
        return self.kind not in MARKDOWN_KINDS

    @property
    def exercise(self) -> str:
        """The exercise that the cell belongs to, or ""."""
        return str(self.options.get("exercise") or self.options.get("of") or "")

    @property
    def points(self) -> float:
        """The points that it carries, 0 where they are missing or no number."""
        points = self.options.get("points", 0)
        return points if isinstance(points, int | float) else 0

    def __getitem__(self, option: str) -> Any:
        """The value of an option."""
        return self.options[option]


@dataclass
class Source:
    """A parsed notebook source, and what is wrong with its form."""

    path: Path
    week: Week
    name: str  # "build" or "experiments"
    cells: list[Cell]
    problems: list[Problem] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> list[Cell]:
        """The cells of these kinds, in order."""
        return [cell for cell in self.cells if cell.kind in kinds]

    def complain(self, cell: Cell | None, message: str, offset: int = 0) -> None:
        """Notes a problem in `cell`, in the line `offset` of its text (1 is the first), or on its header."""
        self.problems.append(Problem(self.path, (cell.line if cell else 0) + offset, message))


def parse(path: Path, week: Week, shown_as: Path | None = None) -> Source:
    """Reads the notebook source at `path`. What is wrong with its form is in the result's `problems`.

    Args:
        path: a py:percent file.
        week: the week it belongs to.
        shown_as: how the path reads in messages.
    """
    text = path.read_text(encoding="utf-8")
    source = Source(shown_as or path, week, path.stem, [])
    try:
        cells = jupytext.reads(text, fmt=PERCENT_FORMAT).cells
    except Exception as error:  # jupytext raises whatever its parts raise
        source.complain(None, f"jupytext can't read it: {error}")
        return source
    lines = _marker_lines(text)
    if len(cells) > len(lines) and cells[0].source.strip():
        source.complain(None, "there is text before the first `# %%`: put it into a cell")
    cells = cells[len(cells) - len(lines) :] if len(cells) > len(lines) else cells
    if len(cells) != len(lines):
        source.complain(None, f"jupytext finds {len(cells)} cells where {len(lines)} lines start with `# %%`")
        return source
    for raw, line in zip(cells, lines, strict=True):
        options = {key: value for key, value in raw.metadata.items() if key not in JUPYTEXT_KEYS}
        _add_cell(source, raw.cell_type, options, raw.source, line)
    return source


def _marker_lines(text: str) -> list[int]:
    """The lines that start a cell, counted from 1; a `# %%` inside a string starts none."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        return [
            token.start[0]
            for token in tokens
            if token.type == tokenize.COMMENT and token.start[1] == 0 and re.match(r"# ?%%", token.string)
        ]
    except (tokenize.TokenError, SyntaxError):  # broken code is reported cell by cell
        return [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"# ?%%", line)]


def _add_cell(source: Source, cell_type: str, options: dict[str, Any], text: str, line: int) -> None:
    if cell_type == "markdown":
        kind = "exercise" if "exercise" in options else str(options.get("kind", "prose"))
        allowed: tuple[str, ...] = MARKDOWN_KINDS
    else:
        kind = str(options.get("kind", "demo"))
        allowed = tuple(k for k in OPTIONS if k not in MARKDOWN_KINDS)
    cell = Cell(kind if kind in allowed else ("prose" if cell_type == "markdown" else "demo"), text, line)
    cell.options = options
    source.cells.append(cell)
    if cell_type not in ("markdown", "code"):
        source.complain(cell, f"a cell is code or [markdown], not [{cell_type}]")
        return
    if kind not in allowed:
        kinds = ", ".join(k for k in allowed if k not in ("demo", "prose", "exercise"))
        source.complain(cell, f'unknown kind "{kind}" of a {cell_type} cell; there are: {kinds}')
        return
    _check_options(source, cell)


def _check_options(source: Source, cell: Cell) -> None:
    known = OPTIONS[cell.kind]
    if "incorrectly_encoded_metadata" in cell.options:
        wrong = cell.options["incorrectly_encoded_metadata"]
        source.complain(cell, f'options are written key="text" or key=3, not: {wrong}')
        return
    for name, value in cell.options.items():
        if name not in known:
            if name == "title":
                source.complain(cell, f'"{value}" after the %% is no option: options are written key="text"')
            else:
                what = (
                    f"a {cell.kind} cell's options are: {', '.join(known)}" if known else "it takes none here"
                )
                source.complain(cell, f'unknown option "{name}": {what}')
        elif not isinstance(value, known[name][0]) or (
            isinstance(value, bool) and bool not in known[name][0]
        ):
            types = " or ".join(t.__name__ for t in known[name][0])
            source.complain(cell, f"option {name} is {value!r}, expected {types}")
    for name, (_, needed) in known.items():
        if needed and name not in cell.options:
            owner = f' of "{cell.exercise}"' if cell.exercise else ""
            source.complain(cell, f"{cell.kind} cell{owner} without {name}=...")
    if "points" in known and "points" in cell.options and cell.points <= 0:
        source.complain(cell, f"points={cell['points']!r}, expected more than 0")
