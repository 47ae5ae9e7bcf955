"""Every test cell of every week passes with the solution, both ways: in nbgrader's kernel, and judged."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from benchmarks.bench_grading import COURSE, judged, stock
from mbrl_autograder.grading import student_edition
from mbrl_course.weeks import WEEKS

BUILT = [week.id for week in WEEKS if (COURSE / "solutions" / week.id / "build.ipynb").is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("week", BUILT)
def test_the_solution_earns_all_points_both_ways(week: str, tmp_path: Path) -> None:
    text = (COURSE / "solutions" / week / "build.ipynb").read_text(encoding="utf-8")
    for place in (tmp_path / "source" / week, tmp_path / "submitted" / "perfect" / week):
        place.mkdir(parents=True)
        (place / "build.ipynb").write_text(text, encoding="utf-8")
    flags = [cell.metadata.get("nbgrader", {}) for cell in nbformat.reads(text, as_version=4).cells]
    points = sum(flag["points"] for flag in flags if flag.get("grade") and not flag.get("solution"))
    assert points >= 25
    with student_edition(COURSE, week) as edition:
        by_judge, _ = judged(tmp_path, 1, edition)
    by_nbgrader, _ = stock(tmp_path, ["perfect"])
    assert (by_judge, by_nbgrader) == ({"perfect": points}, {"perfect": points})


def test_no_week_is_without_its_solution() -> None:
    sources = {path.parent.name for path in (COURSE / "course" / "notebooks").glob("week*/build.py")}
    assert {week.source for week in WEEKS if week.id in BUILT} == sources
