"""What an instructor sees of a run: a table in the terminal, `grades.csv`, and JSON for machines."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .model import (
    CRASHED,
    EARLIER,
    GRADED,
    MISSING,
    TIMED_OUT,
    UNREADABLE,
    ClassResult,
    Exercise,
    Row,
    max_score,
)

STATUSES = (GRADED, TIMED_OUT, UNREADABLE, CRASHED, MISSING, EARLIER)


def write_csv(path: Path, exercises: Sequence[Exercise], rows: Sequence[Row]) -> None:
    """Writes one line per student: name, number, a column per exercise, penalty, total, max, status, reason.

    The number is the student's on the learning platform, if it came from there. A mark that is still to be
    given by hand is empty. The file is put in place at once, never half-written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    best = number(max_score(exercises))
    draft = path.with_suffix(".part")
    with draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            [
                "student",
                "platform_id",
                *(e.id for e in exercises),
                "penalty",
                "total",
                "max",
                "status",
                "reason",
            ]
        )
        for row in rows:
            marks = [number(row.marks.get(exercise.id)) for exercise in exercises]
            cells = [
                row.student,
                row.number,
                *marks,
                number(row.penalty),
                number(row.total),
                best,
                row.status,
                row.reason,
            ]
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
    late = any(row.penalty for row in result.rows)
    header += ["late"] * late + ["total", "status"]
    maxima += [""] * late + [number(result.max_score), ""]
    lines = [header, maxima]
    for row in result.rows:
        cells = [row.student, *(number(row.marks.get(exercise.id)) for exercise in automatic)]
        if manual:
            cells.append(_by_hand([row.marks.get(exercise.id) for exercise in manual]))
        cells += [number(-row.penalty)] * late
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
    text += ["", _summary_line(result), f"marks: {_shown(result.csv)}"]
    if result.overview is not None:
        text.append(f"the class: {_shown(result.overview)}")
    if result.overview_problem:
        text.append(f"no page about the class: {result.overview_problem}")
    return "\n".join(text)


def summary(result: ClassResult) -> dict[str, float]:
    """How many students of each kind there are, and what grading took."""
    counts = {status: sum(row.status == status for row in result.rows) for status in STATUSES}
    notebooks = [outcome for one in result.outcomes.values() for outcome in one.values() if outcome.cells]
    new = [outcome.seconds for outcome in notebooks if not outcome.reused]
    return {
        "students": len(result.rows),
        **{status.replace(" ", "_"): count for status, count in counts.items()},
        "flagged": sum(bool(row.flags) for row in result.rows),
        "judged": len(new),
        "reused": len(notebooks) - len(new),
        "seconds": round(result.seconds, 3),
        "seconds_per_submission": round(result.seconds / max(1, len(new)), 3),
        "seconds_of_slowest": round(max(new, default=0.0), 3),
    }


def _summary_line(result: ClassResult) -> str:
    found = summary(result)
    parts = [f"{number(found['students'])} students: {number(found['graded'])} graded"]
    parts += [f"{number(count)} {name}" for name in STATUSES[1:] if (count := found[name.replace(" ", "_")])]
    parts += [f"{number(found['flagged'])} flagged"] if found["flagged"] else []
    text = f"{', '.join(parts)}; {number(found['judged'])} notebooks judged"
    text += f", {number(found['reused'])} known already" if found["reused"] else ""
    text += f" in {result.seconds:.1f} s"
    return text + (f" ({found['seconds_per_submission']:.2f} s each)" if found["judged"] else "")


def as_json(result: ClassResult) -> dict[str, Any]:
    """The result for machines; paths are whole, and a mark that is still to be given is null."""
    return {
        "assignment": result.assignment,
        "max_score": result.max_score,
        "exercises": [
            {
                "id": e.id,
                "notebook": e.notebook,
                "points": e.max_score,
                "by_hand": e.by_hand,
                "bonus": e.bonus,
            }
            for e in result.exercises
        ],
        "students": [
            {
                "student": row.student,
                "platform_id": row.number,
                "status": row.status,
                "reason": row.reason,
                "flags": list(row.flags),
                "marks": dict(row.marks),
                "penalty": row.penalty,
                "total": row.total,
                "tests": {
                    notebook: {name: asdict(cell) for name, cell in outcome.cells.items()}
                    for notebook, outcome in result.outcomes.get(row.student, {}).items()
                },
                "pages": [str(page) for page in row.pages],
            }
            for row in result.rows
        ],
        "summary": summary(result),
        "csv": str(result.csv),
        "overview": str(result.overview) if result.overview is not None else None,
        "overview_problem": result.overview_problem,
    }


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
