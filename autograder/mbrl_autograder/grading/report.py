"""What an instructor sees of a run: a table in the terminal, and `grades.csv`."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from .model import EARLIER, GRADED, ClassResult, Exercise, Row, max_score


def write_csv(path: Path, exercises: Sequence[Exercise], rows: Sequence[Row]) -> None:
    """Writes one line per student: student, a column per exercise, total, max, status, reason.

    A mark that is still to be given by hand is empty. The file is put in place at once, never half-written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    best = number(max_score(exercises))
    draft = path.with_suffix(".part")
    with draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["student", *(e.id for e in exercises), "total", "max", "status", "reason"])
        for row in rows:
            marks = [number(row.marks.get(exercise.id)) for exercise in exercises]
            cells = [row.student, *marks, number(row.total), best, row.status, row.reason]
            writer.writerow([_no_formula(cell) for cell in cells])
    os.replace(draft, path)


def _no_formula(cell: str) -> str:
    """A spreadsheet would run a text that starts like a formula, such as a folder called "=1+1"."""
    return f"'{cell}" if cell.startswith(("=", "+", "@", "-")) else cell


def number(value: float | None) -> str:
    """A mark as people write it: 3, 2.5, and nothing for None."""
    return "" if value is None else f"{value:.3f}".rstrip("0").rstrip(".")


def format_table(result: ClassResult) -> str:
    """The table student x exercise, the reasons, and where each student's feedback pages lie."""
    automatic = [exercise for exercise in result.exercises if not exercise.by_hand]
    manual = [exercise for exercise in result.exercises if exercise.by_hand]
    header = ["student", *(exercise.id for exercise in automatic)]
    maxima = ["(maximum)", *(f"{'+' * e.bonus}{number(e.max_score)}" for e in automatic)]
    if manual:
        header.append("by hand")
        maxima.append(number(sum(exercise.max_score for exercise in manual)))
    header += ["total", "status"]
    maxima += [number(result.max_score), ""]
    lines = [header, maxima]
    for row in result.rows:
        cells = [row.student, *(number(row.marks.get(exercise.id)) for exercise in automatic)]
        if manual:
            cells.append(_by_hand([row.marks.get(exercise.id) for exercise in manual]))
        lines.append([*cells, number(row.total), row.status])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [_line(line, widths) for line in lines]
    text.insert(2, "-" * max(map(len, text)))
    notes = [f"  {row.student}: {row.reason}" for row in result.rows if row.reason and row.status != EARLIER]
    if notes:
        text += ["", "What happened:", *notes]
    pages = [f"  {row.student}: {'  '.join(map(_shown, row.pages))}" for row in result.rows if row.pages]
    if pages:
        text += ["", "Feedback pages:", *pages]
    graded = sum(row.status == GRADED for row in result.rows)
    text += [
        "",
        f"{len(result.rows)} students, {graded} graded without a problem; marks: {_shown(result.csv)}",
    ]
    return "\n".join(text)


def _by_hand(marks: Sequence[float | None]) -> str:
    given = [mark for mark in marks if mark is not None]
    waiting = len(marks) - len(given)
    return number(sum(given)) + (f" (+{waiting} to mark)" if waiting else "")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *middle = (
        cell.ljust(w) if i in (0, len(cells) - 1) else cell.rjust(w)
        for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *middle]).rstrip()


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
