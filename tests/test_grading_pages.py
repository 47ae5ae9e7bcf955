"""The pages that grading writes: who gets one, and what happens where one cannot be written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mbrl_autograder.grading import ClassResult, Job, Options, Outcome, as_json, engine, format_table, grade
from mbrl_autograder.grading.model import UNREADABLE, Row
from small_course import ASSIGNMENT, RIGHT, hand_in, make_course, submitted


def all_right(job: Job) -> Outcome:
    """An executor that runs nothing and gives all points."""
    tests = [cell.metadata.nbgrader for cell in job.notebook.cells if cell.metadata.get("nbgrader")]
    return Outcome(job.notebook, {flags.grade_id: flags.points for flags in tests if flags.grade})


def by_name(result: ClassResult) -> dict[str, Row]:
    return {row.student: row for row in result.rows}


def run(course: Path, submissions: Path, executor: Any) -> ClassResult:
    return grade(ASSIGNMENT, submissions, course, Options(workers=1), executor=executor, progress=False)


def test_who_handed_in_what_cannot_be_read_gets_a_page_that_says_so(tmp_path: Path) -> None:
    make_course(tmp_path)
    arrived = tmp_path / "arrived"
    hand_in(arrived, "ada", submitted(RIGHT))
    hand_in(arrived, "bob", "hello")
    (arrived / "eve").mkdir()

    def too_much(job: Job) -> Outcome:
        return replace(all_right(job), status=UNREADABLE, reason="it has 9999 cells")

    for executor, students in (
        (all_right, {"bob": "not JSON", "eve": ""}),
        (too_much, {"ada": "9999 cells"}),
    ):
        rows = by_name(run(tmp_path, arrived, executor))
        assert rows["ada"].pages
        for student, reason in students.items():
            (page,) = rows[student].pages
            text = page.read_text()
            assert page.is_relative_to(tmp_path / "feedback" / student)
            assert "could not be graded" in text and reason in text and rows[student].reason in text


def test_marks_are_shown_also_without_the_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Path:
        raise ZeroDivisionError("nobody")

    make_course(tmp_path)
    hand_in(tmp_path / "arrived", "ada", submitted(RIGHT))
    monkeypatch.setattr(engine, "write_overview", broken)
    result = run(tmp_path, tmp_path / "arrived", all_right)
    assert by_name(result)["ada"].total == 5 and result.csv.is_file() and result.overview is None
    assert "no page about the class: ZeroDivisionError: nobody" in format_table(result)
    assert as_json(result)["overview_problem"] == "ZeroDivisionError: nobody"
