"""The syllabus says what the notebooks' sources say."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

import minicourse
from mbrl_autograder.authoring import Course, check
from mbrl_autograder.authoring.syllabus import builds_on, check_syllabus, write_syllabus
from mbrl_course.weeks import WEEKS, find_week

REPOSITORY = Course.here()


@pytest.fixture
def course(tmp_path: Path) -> Course:
    course = minicourse.make_course(tmp_path)
    (tmp_path / "weeks").mkdir(exist_ok=True)
    frame = "# Plan\n\n{weeks}\n\n{chapters}\n\n{exercises}\n"
    (tmp_path / "course/notebooks/syllabus.md").write_text(frame)
    return course


def test_it_holds_the_points_and_minutes_of_the_sources(course: Course) -> None:
    assert write_syllabus(course) == [course.root / "weeks/README.md"]
    text = (course.root / "weeks/README.md").read_text()
    exercises = re.findall(r"points=(\d+) difficulty=\d minutes=(\d+)", minicourse.BUILD)
    questions = re.findall(r'kind="written".*points=(\d+)', minicourse.EXPERIMENTS)
    points, minutes = (sum(map(int, column)) for column in zip(*exercises, strict=True))
    hours = (minutes + 10 * len(questions)) / 60
    row = next(line for line in text.splitlines() if line.startswith("| 2 |"))
    written = sum(map(int, questions)) or "–"
    assert f"| {points} | – | {written} | {hours:.1f} |" in row
    assert "[build](week02/build.ipynb)" in row
    assert text.count("●") >= len(exercises)


def test_it_is_written_once_and_a_changed_page_is_stale(course: Course) -> None:
    write_syllabus(course)
    assert write_syllabus(course) == []
    assert check_syllabus(course) == []
    page = course.root / "weeks/README.md"
    page.write_text(page.read_text() + "by hand")
    (problem,) = check_syllabus(course)
    assert str(problem) == "weeks/README.md: is not what the sources give: run the build"
    assert problem in check(course=course)


def test_a_course_without_a_frame_has_no_page(course: Course) -> None:
    (course.root / "course/notebooks/syllabus.md").unlink()
    assert write_syllabus(course) == check_syllabus(course) == []


def test_a_week_builds_on_the_weeks_that_its_modules_and_notebooks_import() -> None:
    assert builds_on(REPOSITORY, find_week(1)) == []
    assert builds_on(REPOSITORY, find_week(2)) == [1]
    assert 4 in builds_on(REPOSITORY, find_week(5))
    assert 6 in builds_on(REPOSITORY, find_week(7))
    assert {2, 3} <= set(builds_on(REPOSITORY, find_week(8)))  # its modules import nothing, its notebooks do


@pytest.mark.parametrize("page", ["weeks/README.md", "solutions/README.md"])
def test_the_pages_of_the_course_lead_somewhere(page: str) -> None:
    path = REPOSITORY.root / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("week", [week for week in WEEKS if REPOSITORY.sources(week)], ids=lambda w: w.id)
def test_each_week_says_what_one_can_do_after_it(week) -> None:
    chapter = (REPOSITORY.root / "weeks/README.md").read_text().split(f"### Week {week.number} ")[1]
    assert "After this week you can\n\n- " in chapter.split("###")[0]
    assert "To read:\n\n- " in chapter.split("###")[0]


def test_the_points_are_those_of_the_released_notebooks() -> None:
    """Independent of the sources: nbgrader's own metadata in what students open."""
    text = (REPOSITORY.root / "weeks/README.md").read_text()
    for path in sorted((REPOSITORY.root / "weeks").glob("week*/build.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        total = sum(cell.metadata.get("nbgrader", {}).get("points", 0) for cell in cells)
        number = int(path.parent.name[4:])
        row = next(line for line in text.splitlines() if line.startswith(f"| {number} | **"))
        points, bonus = (0 if cell == "–" else float(cell) for cell in row.split(" | ")[2:4])
        assert points + bonus == total, path


def test_a_broken_source_is_reported_as_before(course: Course) -> None:
    write_syllabus(course)
    source = next(course.source_dir(find_week(2)).glob("build.py"))
    source.write_text(source.read_text().replace(" minutes=", " hours="))
    assert any("hours" in str(problem) for problem in check(course=course))
