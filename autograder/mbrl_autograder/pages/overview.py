"""The instructor's page of a class: marks, where most fail and why, and what to look at."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mbrl_autograder.judge.notebook import grade_id, parse_notebook, text_of
from mbrl_autograder.judge.results import PARTIAL, PASSED, TIMED_OUT, UNREADABLE, CellResult

from .alike import Pair, alike
from .charts import histogram, legend, level_bar, levels
from .html import count, number, page, text, write

if TYPE_CHECKING:  # the grading imports this package
    from mbrl_autograder.grading.model import ClassResult, Outcome, Row

Outcomes = Mapping[str, Mapping[str, "Outcome"]]  # student -> notebook -> outcome

MOST_MESSAGES, MOST_PAIRS, MOST_NAMES, MOST_CODE = 6, 30, 12, 20_000
ABSENT = ("missing", UNREADABLE)  # statuses of those who have no marks to speak of
STYLE = """<style>
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
.legend span { display: inline-flex; align-items: center; gap: .35rem; }
.level { display: grid; grid-template: "name chart mean" / 14rem 1fr 6rem; gap: 0 .9rem;
  align-items: center; margin: .3rem 0; }
.level > :nth-child(1) { grid-area: name; overflow-wrap: anywhere; }
.level > :nth-child(2) { grid-area: chart; }
.level > :nth-child(3) { grid-area: mean; text-align: right; }
@media (max-width: 40rem) { .level { grid-template: "name mean" "chart chart" / 1fr auto; margin: .6rem 0; } }
.facts { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 1rem 0; }
.facts b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
table.full { width: 100%; }
.full td.number { width: 2.2rem; }
table.named { table-layout: fixed; }
.named .number:nth-child(2) { width: 5rem; }
.named th:first-child, .named td:first-child { width: 32%; overflow-wrap: anywhere; white-space: normal; }
.message { white-space: pre-wrap; overflow-wrap: anywhere; }
</style>"""


def write_overview(path: Path, result: ClassResult, outcomes: Outcomes, source: Path | None = None) -> Path:
    """Writes the overview of a class as one HTML file.

    It shows what hidden checks found, so it is for instructors alone.

    Args:
        path: the file; links to feedback pages are relative to its folder.
        result: the marks of the class.
        outcomes: for each student and notebook, what came of it in this run.
        source: the assignment's source folder: what its solutions have is no sign of copying.

    Returns:
        `path`.
    """
    sections = [
        _head(result, outcomes),
        _marks(result),
        _failures(result, outcomes),
        _trouble(result, outcomes),
        _pairs(outcomes, source),
        _students(path, result),
    ]
    body = STYLE + "\n".join(section for section in sections if section)
    return write(path, page(f"{result.assignment} · class overview", body, width="64rem"))


def _present(result: ClassResult) -> list[Row]:
    return [row for row in result.rows if row.status not in ABSENT]


def _head(result: ClassResult, outcomes: Outcomes) -> str:
    rows = _present(result)
    totals = [row.total for row in rows]
    waiting = sum(mark is None for row in rows for mark in row.marks.values())
    facts = [
        (str(len(result.rows)), "student" if len(result.rows) == 1 else "students"),
        (str(len(rows)), "with marks"),
        (
            number(sum(totals) / len(totals)) if totals else "–",
            f"points on average, of {number(result.max_score)}",
        ),
    ]
    if waiting:
        facts.append((str(waiting), "answers to mark by hand"))
    items = "".join(f"<div><b>{text(value)}</b>{text(what)}</div>" for value, what in facts)
    title = f'<p class="kicker">{text(result.assignment)}</p><h1>Class overview</h1>'
    note = "For instructors: this page shows what hidden checks found."
    if any(row.student not in outcomes for row in rows):
        note += " Marks are those of all, the rest is of those who were graded in the last run."
    note = f'<p class="soft small">{note}</p>'
    return f'{title}{note}<div class="facts">{items}</div>{histogram(totals, result.max_score)}'


def _marks(result: ClassResult) -> str:
    rows = _present(result)
    if not rows or not result.exercises:
        return ""
    lines = []
    for exercise in result.exercises:
        marks = [row.marks.get(exercise.id) for row in rows]
        given = [mark for mark in marks if mark is not None]
        mean = number(sum(given) / len(given)) if given else "–"
        bonus = " (bonus)" if exercise.bonus else " (by hand)" if exercise.by_hand else ""
        lines.append(
            f'<div class="level"><div>{text(exercise.id)}<span class="soft small">{bonus}</span></div>'
            f"<div>{level_bar(levels(marks, exercise.max_score))}</div>"
            f'<div class="points small">{mean} / {number(exercise.max_score)}</div></div>'
        )
    note = (
        '<p class="soft small">Students by their points in each exercise; on the right, mean and maximum.</p>'
    )
    return f"<h2>Marks per exercise</h2>{note}{legend()}{''.join(lines)}"


def _failures(result: ClassResult, outcomes: Outcomes) -> str:
    """For each exercise, how many failed and what its checks said to them, the most frequent first."""
    parts = []
    for exercise in result.exercises:
        said: dict[str, dict[str, str]] = defaultdict(dict)  # message without numbers -> student -> message
        for student, notebooks in outcomes.items():
            outcome = notebooks.get(exercise.notebook)
            for name in exercise.cells:
                cell = outcome.cells.get(name) if outcome else None
                if cell is not None and cell.status != PASSED:
                    message = _message(cell)
                    said[_NUMBER.sub("#", message)].setdefault(student, message)
        if said:
            failed = len({student for students in said.values() for student in students})
            parts.append((failed, exercise.id, list(said.values())))
    parts.sort(key=lambda part: -part[0])
    body = "".join(_said(*part) for part in parts)
    return f"<h2>Where most fail, and why</h2>{body}" if body else ""


_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|\bnan\b|\binf\b")


def _message(result: CellResult) -> str:
    message = (result.detail or result.message) if result.hidden else (result.message or result.detail)
    message = message.strip() or ("partly right" if result.status == PARTIAL else result.status)
    return f"(hidden check) {message}" if result.hidden else message


def _said(failed: int, exercise: str, said: Sequence[Mapping[str, str]]) -> str:
    """The messages of one exercise, each with the students who got it."""
    ranked = sorted(said, key=lambda students: -len(students))
    lines = []
    for students in ranked[:MOST_MESSAGES]:
        messages = list(dict.fromkeys(students.values()))
        other = ' <span class="soft small">(or with other numbers)</span>' if len(messages) > 1 else ""
        lines.append(
            f'<tr><td class="number">{len(students)}</td><td class="message">{text(messages[0][:600])}{other}'
            f'<div class="soft small">{text(_names(list(students)))}</div></td></tr>'
        )
    if len(ranked) > MOST_MESSAGES:
        more = count(len(ranked) - MOST_MESSAGES, "other message")
        lines.append(f'<tr><td></td><td class="soft">and {more}</td></tr>')
    head = f'<h3>{text(exercise)} <span class="soft">· {count(failed, "student")} lost points</span></h3>'
    return f'{head}<table class="full">{"".join(lines)}</table>'


def _trouble(result: ClassResult, outcomes: Outcomes) -> str:
    """Time-outs, flags, and what could not be graded or did not arrive."""
    slow = []
    flagged = []
    for student, notebooks in outcomes.items():
        cells = [
            name
            for outcome in notebooks.values()
            for name, cell in outcome.cells.items()
            if cell.status == TIMED_OUT
        ]
        if cells or any(outcome.status == TIMED_OUT for outcome in notebooks.values()):
            slow.append((student, ", ".join(cells) or "the notebook as a whole"))
        flags = [flag for outcome in notebooks.values() for flag in outcome.flags]
        if flags:
            flagged.append((student, "; ".join(flags)))
    ungraded = [(row.student, f"{row.status}: {row.reason}") for row in result.ungraded]
    missing = [row.student for row in result.rows if row.status == "missing"]
    parts = [
        _listed("Not graded, or not to the end", ungraded),
        _listed("Took too long", slow),
        _listed(
            "To be looked at", flagged, "What is listed here need not mean anything: look before you ask."
        ),
    ]
    if missing:
        parts.append(f"<h2>Nothing arrived</h2><p>{text(', '.join(missing))}</p>")
    return "".join(parts)


def _listed(title: str, items: Sequence[tuple[str, str]], note: str = "") -> str:
    if not items:
        return ""
    lines = "".join(
        f'<tr><th>{text(student)}</th><td class="message">{text(what)}</td></tr>' for student, what in items
    )
    note = f'<p class="soft small">{text(note)}</p>' if note else ""
    return f'<h2>{text(title)}</h2>{note}<table class="full named">{lines}</table>'


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _pairs(outcomes: Outcomes, source: Path | None) -> str:
    solutions = {
        student: {
            f"{name}/{grade_id(cell)}": str(cell.source)
            for name, outcome in notebooks.items()
            for cell in outcome.notebook.cells
            if cell.cell_type == "code" and _is_solution(cell)
        }
        for student, notebooks in outcomes.items()
    }
    pairs = alike(solutions, _references(source))
    if not pairs:
        return ""
    note = (
        "Two solutions share long pieces that few others have and that are not the reference's; names, "
        "comments and layout aside. There are good reasons for that, such as working together or the same "
        "book. Nobody is accused: read both."
    )
    shown = "".join(_pair(pair, solutions) for pair in pairs[:MOST_PAIRS])
    more = len(pairs) - MOST_PAIRS
    rest = f'<p class="soft">and {count(more, "other pair")}</p>' if more > 0 else ""
    return f'<h2>Solutions that resemble each other</h2><p class="soft small">{note}</p>{shown}{rest}'


def _is_solution(cell: Mapping[str, Mapping[str, Mapping[str, bool]]]) -> bool:
    return bool(cell["metadata"].get("nbgrader", {}).get("solution"))


def _references(source: Path | None) -> dict[str, list[str]]:
    """The reference's code of each cell, the signature that students are given included."""
    known: dict[str, list[str]] = defaultdict(list)
    for path in sorted(source.glob("*.ipynb")) if source is not None else ():
        for cell in parse_notebook(path.read_bytes())["cells"]:
            known[f"{path.stem}/{grade_id(cell)}"].append(text_of(cell))
    return known


def _pair(pair: Pair, solutions: Mapping[str, Mapping[str, str]]) -> str:
    first, second = pair.students
    cells = ", ".join(cell.rpartition("/")[2] for cell in pair.cells)
    head = (
        f"{text(first)} and {text(second)}: {pair.share:.0%} of the shorter one's own code, in {text(cells)}"
    )
    sides = "".join(
        f'<h3>{text(cell)}</h3><div class="pair">'
        + "".join(_side(student, solutions[student].get(cell, "")) for student in pair.students)
        + "</div>"
        for cell in pair.cells
    )
    return f"<details><summary>{head}</summary>{sides}</details>"


def _side(student: str, code: str) -> str:
    return f'<div><p class="small soft">{text(student)}</p><pre>{text(code[:MOST_CODE])}</pre></div>'


def _students(path: Path, result: ClassResult) -> str:
    head = '<th>student</th><th class="number">points</th><th>status</th><th>pages</th>'
    lines = "".join(
        f'<tr><td>{text(row.student)}</td><td class="number">{number(row.total)}</td>'
        f'<td>{text(row.status)}<div class="soft small">{text(row.reason)}</div></td>'
        f"<td>{_links(path, row.pages)} {_marking(path, row.student)}</td></tr>"
        for row in result.rows
    )
    return f'<h2>All students</h2><table class="full named"><tr>{head}</tr>{lines}</table>'


def _links(path: Path, pages: Iterable[Path]) -> str:
    return " ".join(
        f'<a href="{quote(Path(os.path.relpath(one, path.parent)).as_posix())}">{text(one.stem)}</a>'
        for one in pages
    )


def _marking(path: Path, student: str) -> str:
    """A link to the marker's page of a student, if there is one."""
    found = path.parent / "marking" / f"{student}.html"
    return f'<a href="{quote(f"marking/{found.name}")}">to mark</a>' if found.is_file() else ""
