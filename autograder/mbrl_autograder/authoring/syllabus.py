"""Writes the syllabus: weeks/README.md for students, and solutions/README.md for whoever teaches.

The frame is text in `course/notebooks/syllabus.md` and `syllabus_teaching.md`; the table of the weeks, and
what stands about each of them, is read from the notebooks' sources: points and minutes are said once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mbrl_autograder.authoring.course import Course, Problem, package_imports, parse_file
from mbrl_autograder.authoring.source import Source, parse
from mbrl_course.weeks import WEEKS, Week

GOALS, PAPERS = "After this notebook you can", "Where it comes from"
MINUTES_PER_QUESTION = 10
"""An estimate: a written question of an experiments notebook, the run and the picture before it included."""
_IMPORT = re.compile(r"^from mbrl_course\.(\w+) import ", re.MULTILINE)
PAGES = {"syllabus.md": "weeks/README.md", "syllabus_teaching.md": "solutions/README.md"}


def write_syllabus(course: Course) -> list[Path]:
    """Writes the pages whose frame there is, and returns those that changed."""
    stale = dict(_stale_pages(course))
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    return list(stale)


def check_syllabus(course: Course) -> list[Problem]:
    """What is stale."""
    told = "is not what the sources give: run the build"
    return [Problem(course.show(path), 0, told) for path, _ in _stale_pages(course)]


def builds_on(course: Course, week: Week) -> list[int]:
    """Numbers of the earlier weeks whose modules the modules or the notebooks of `week` import."""
    imported: set[str] = set()
    for module in week.modules:
        if (path := course.module_path(module)) is not None:
            imported |= set(package_imports(parse_file(path), module))
    for source in course.sources(week):
        imported |= set(_IMPORT.findall(source.read_text(encoding="utf-8")))
    return [w.number for w in WEEKS if w.number < week.number and imported & set(w.modules)]


def _stale_pages(course: Course) -> Iterator[tuple[Path, str]]:
    for path, text in _pages(course):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield path, text


def _pages(course: Course) -> Iterator[tuple[Path, str]]:
    """The pages with their text; none without a frame, or while a source is broken (told elsewhere)."""
    sheets = {week: [parse(path, week) for path in course.sources(week)] for week in course.select(None)}
    if any(sheet.problems for pair in sheets.values() for sheet in pair):
        return
    for frame, page in PAGES.items():
        source = course.root / "course" / "notebooks" / frame
        if source.is_file():
            text = source.read_text(encoding="utf-8")
            text = text.replace("{weeks}", _table(course, sheets))
            text = text.replace("{chapters}", "\n\n".join(_chapter(w, s) for w, s in sheets.items()))
            yield course.root / page, text.replace("{exercises}", _exercises(sheets))


def _table(course: Course, sheets: dict[Week, list[Source]]) -> str:
    rows = ["| week | | points | bonus | written | hours | builds on |", "|--:|---|--:|--:|--:|--:|---|"]
    total = [0.0] * 4
    for week, sources in sheets.items():
        numbers = [*_points(sources), _minutes(sources) / 60]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        links = " · ".join(f"[{s.name}]({week.id}/{s.name}.ipynb)" for s in sources)
        needs = ", ".join(map(str, builds_on(course, week))) or "–"
        rows.append(f"| {week.number} | **{week.title}**: {links} | {_cells(numbers)} | {needs} |")
    rows.append(f"| | together | {_cells(total)} | |")
    return "\n".join(rows)


def _cells(numbers: Sequence[float]) -> str:
    *points, hours = numbers
    return " | ".join([*(f"{n:g}" if n else "–" for n in points), f"{hours:.1f}"])


def _points(sources: Sequence[Source]) -> list[float]:
    """Points of the exercises, of the bonus exercises, and of the written questions."""
    exercises = [cell for source in sources for cell in source.of_kind("exercise")]
    written = [cell for source in sources for cell in source.of_kind("written")]
    bonus = sum(cell.points for cell in exercises if cell.options.get("bonus"))
    every = sum(cell.points for cell in exercises)
    return [every - bonus, bonus, sum(cell.points for cell in written)]


def _minutes(sources: Sequence[Source]) -> float:
    """The minutes of the exercises, bonus aside, and of the written questions."""
    exercises = [c for s in sources for c in s.of_kind("exercise") if not c.options.get("bonus")]
    questions = sum(len(source.of_kind("written")) for source in sources)
    return sum(float(cell["minutes"]) for cell in exercises) + questions * MINUTES_PER_QUESTION


def _chapter(week: Week, sources: Sequence[Source]) -> str:
    """What one will be able to do after the week, and what to read, as its build notebook says it."""
    opening = next((s.cells[0].text for s in sources if s.name == "build" and s.cells), "")
    goals, papers = _section(opening, GOALS), _section(opening, PAPERS)
    parts = [f"### Week {week.number} · {week.title}"]
    parts += [f"{GOALS.replace('this notebook', 'this week')}\n\n{goals}"] if goals else []
    parts += [f"To read:\n\n{papers}"] if papers else []
    return "\n\n".join(parts)


def _section(text: str, title: str) -> str:
    """The list below a line in bold."""
    found = re.search(rf"^\*\*{title}\*\*\n+(.*?)(?=\n\*\*|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def _exercises(sheets: dict[Week, list[Source]]) -> str:
    rows = ["| exercise | | points | difficulty | minutes |", "|--:|---|--:|---|--:|"]
    for sources in sheets.values():
        for cell in [cell for source in sources for cell in source.of_kind("exercise")]:
            points = f"{cell.points:g}{' (bonus)' if cell.options.get('bonus') else ''}"
            dots = "●" * cell["difficulty"] + "○" * (5 - cell["difficulty"])
            rows.append(f"| {cell['number']} | {cell['title']} | {points} | {dots} | {cell['minutes']} |")
    return "\n".join(rows)
