"""Grading in a course that somebody else set up, and grading again: what is kept, and what goes wrong."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbgrader.api import Gradebook

from mbrl_autograder.grading import ClassResult, GradingError, Job, Options, Outcome, as_json, grade
from mbrl_autograder.grading.course import Course
from mbrl_autograder.grading.executor import JudgeExecutor
from mbrl_autograder.grading.model import CRASHED, EARLIER, MISSING, Limits, Row
from mbrl_autograder.grading.notebooks import grade_id
from mbrl_autograder.grading.preview import preview
from mbrl_autograder.grading.state import exclusive
from mbrl_autograder.judge.journal import Journal
from mbrl_autograder.judge.results import GRADED, PASSED, CellResult, SubmissionResult
from small_course import ASSIGNMENT, RIGHT, build_source, experiments_source, hand_in, make_course, submitted

CONFIG = """
c = get_config()
c.CourseDirectory.db_url = "sqlite:///marks.db"
c.CourseDirectory.submitted_directory = "handed-in"
c.CourseDirectory.source_directory = "src"
c.ClearHiddenTests.begin_test_delimeter = "SECRET FROM HERE"
c.ClearHiddenTests.end_test_delimeter = "SECRET TO HERE"
c.LateSubmissionPlugin.penalty_method = "zero"
"""


def all_right(job: Job) -> Outcome:
    """An executor that runs nothing and gives all points."""
    points = {
        grade_id(cell): cell.metadata.nbgrader.points
        for cell in job.notebook.cells
        if cell.metadata.get("nbgrader", {}).get("grade")
    }
    return Outcome(job.notebook, points)


def run(course: Path, submissions: Path | None, executor: Any = all_right) -> ClassResult:
    return grade(ASSIGNMENT, submissions, course, Options(workers=1), executor=executor, progress=False)


def by_name(result: ClassResult) -> dict[str, Row]:
    return {row.student: row for row in result.rows}


def mark(database: Path, points: float) -> None:
    """A marker gives points for the written answer."""
    with Gradebook(f"sqlite:///{database}") as gradebook:
        grade = gradebook.find_grade("q1", "experiments", ASSIGNMENT, "ada")
        grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.find_comment("q1", "experiments", ASSIGNMENT, "ada").manual_comment = "Say why, too."
        gradebook.db.commit()


def needs_marker(database: Path) -> bool:
    with Gradebook(f"sqlite:///{database}") as gradebook:
        return bool(gradebook.find_grade("q1", "experiments", ASSIGNMENT, "ada").needs_manual_grade)


def test_the_same_again_asks_no_marker_again(tmp_path: Path) -> None:
    make_course(tmp_path, experiments=True)
    answer = experiments_source()
    answer.cells[1].source = "Because."
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    hand_in(tmp_path / "in", "ada", answer, "experiments")
    run(tmp_path, tmp_path / "in")
    database = tmp_path / "gradebook.db"
    assert needs_marker(database)
    mark(database, 3.5)
    row = by_name(run(tmp_path, tmp_path / "in"))["ada"]
    assert row.marks["q1"] == 3.5
    assert not needs_marker(database), "nothing changed"
    assert "Say why, too." in row.pages[1].read_text(encoding="utf-8")
    answer.cells[1].source = "Because of that."
    hand_in(tmp_path / "in", "ada", answer, "experiments")
    assert by_name(run(tmp_path, tmp_path / "in"))["ada"].marks["q1"] == 3.5
    assert needs_marker(database), "another answer is to be looked at"


def test_a_foreign_course_keeps_its_ways(tmp_path: Path) -> None:
    make_course(tmp_path)
    (tmp_path / "source").rename(tmp_path / "src")
    source = tmp_path / "src" / ASSIGNMENT / "build.ipynb"
    text = source.read_text(encoding="utf-8")
    text = text.replace("BEGIN HIDDEN TESTS", "SECRET FROM HERE").replace(
        "END HIDDEN TESTS", "SECRET TO HERE"
    )
    source.write_text(text, encoding="utf-8")
    (tmp_path / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    arrived = tmp_path / "handed-in"
    for student, year in (("early", 2020), ("late", 2030), ("odd", 0)):
        path = hand_in(arrived, student, submitted(RIGHT))
        path.with_name("timestamp.txt").write_text(f"{year}-01-01 12:00:00 UTC" if year else "yesterday")
    hand_in(arrived, "nowhere", submitted(RIGHT)).parent.rename(arrived / "nowhere" / "another-week")
    run(tmp_path, None)
    with Gradebook(f"sqlite:///{tmp_path / 'marks.db'}") as gradebook:
        gradebook.update_or_create_assignment(ASSIGNMENT, duedate="2025-01-01 00:00:00 UTC")
    result = run(tmp_path, None)
    rows = by_name(result)
    assert {name: row.total for name, row in rows.items()} == {"early": 5, "late": 0, "odd": 5, "nowhere": 0}
    assert rows["late"].penalty == 5 and "holds no time" in rows["odd"].reason
    assert rows["nowhere"].status == MISSING
    assert not (tmp_path / "gradebook.db").exists()
    students = {one["student"]: one for one in as_json(result)["students"]}
    assert students["late"]["penalty"] == 5 and students["late"]["total"] == 0


def test_what_was_handed_in_stays_as_it_is(tmp_path: Path) -> None:
    make_course(tmp_path)
    arrived = tmp_path / "submitted"
    paths = [hand_in(arrived, "ada", submitted(RIGHT)), hand_in(arrived, "bob", b"")]
    paths += [hand_in(arrived, "cy", b"x")]
    hand_in(arrived, "dora", b"").unlink()
    folder = arrived / "dora" / ASSIGNMENT / "build.ipynb"
    folder.mkdir()
    before = [path.read_bytes() for path in paths]
    for submissions in (None, arrived):
        rows = by_name(run(tmp_path, submissions))
        assert {name: row.total for name, row in rows.items()} == {"ada": 5, "bob": 0, "cy": 0, "dora": 0}
        assert [path.read_bytes() for path in paths] == before and folder.is_dir()


def test_what_lies_beside_belongs_to_one_student(tmp_path: Path) -> None:
    make_course(tmp_path)
    seen: dict[str, set[str]] = {}

    def look(job: Job) -> Outcome:
        seen[job.student] = set(job.files)
        return all_right(job)

    arrived = tmp_path / "in"
    hand_in(arrived, "ada", submitted(RIGHT)).with_name("helper.py").write_text("x = 1")
    (arrived / "bob.ipynb").write_text(nbformat.writes(submitted(RIGHT)))
    (arrived / "roster.csv").write_text("ada,bob")
    run(tmp_path, arrived, look)
    assert seen == {"ada": {"helper.py"}, "bob": set()}


def test_one_notebook_handed_in_again_keeps_the_other(tmp_path: Path) -> None:
    """The other one's marks, also those given by hand, and the files beside it."""
    make_course(tmp_path, experiments=True)
    seen: dict[str, set[str]] = {}

    def look(job: Job) -> Outcome:
        seen[job.name] = set(job.files)
        return all_right(job)

    hand_in(tmp_path / "first", "ada", submitted(RIGHT)).with_name("helper.py").write_text("x = 1")
    answer = experiments_source()
    answer.cells[1].source = "Because."
    written = hand_in(tmp_path / "first", "ada", answer, "experiments")
    written.with_name("timestamp.txt").write_text("2030-01-01 00:00:00 UTC")
    run(tmp_path, tmp_path / "first", look)
    mark(tmp_path / "gradebook.db", 3.5)
    kept = tmp_path / "submitted" / "ada" / ASSIGNMENT
    assert {path.name for path in kept.iterdir()} == {
        "build.ipynb",
        "experiments.ipynb",
        "helper.py",
        "timestamp.txt",
    }

    hand_in(tmp_path / "second", "ada", submitted({**RIGHT, "add": "def add(a, b): return b + a"}))
    seen.clear()
    looked = str(preview(ASSIGNMENT, tmp_path / "second", tmp_path, Limits()))
    assert looked.count(" ok ") == 2 and "experiments.ipynb: did not arrive; the one handed" in looked
    row = by_name(run(tmp_path, tmp_path / "second", look))["ada"]
    assert row.marks == {"add": 3, "double": 2, "q1": 3.5} and row.status == GRADED
    assert row.reason == "experiments.ipynb: did not arrive; the one handed in before counts"
    assert seen == {"build": set()}, "what lay beside the old one is not beside the new one"
    assert "b + a" in (kept / "build.ipynb").read_text(), "the new one is kept"
    assert "Because." in (kept / "experiments.ipynb").read_text()
    assert not (kept / "timestamp.txt").exists(), "nobody said when the new one arrived"

    hand_in(tmp_path / "third", "ada", answer, "experiments")
    row = by_name(run(tmp_path, tmp_path / "third", look))["ada"]
    assert row.marks == {"add": 3, "double": 2, "q1": 3.5} and "build.ipynb: did not arrive" in row.reason
    assert by_name(run(tmp_path, None, look))["ada"].marks == row.marks
    assert seen == {"build": {"helper.py"}}


def test_nothing_is_kept_by_way_of_a_link(tmp_path: Path) -> None:
    make_course(tmp_path)
    first = hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    for name in ("data/x.txt", "taken/y.txt", "z.txt"):
        file = first.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("new")
    kept, outside = tmp_path / "submitted" / "ada" / ASSIGNMENT, tmp_path / "outside"
    kept.mkdir(parents=True)
    outside.mkdir()
    (outside / "x.txt").write_text("old")
    (kept / "data").symlink_to(outside)
    (kept / "taken").write_text("a file where a folder should be")
    (kept / "z.txt").symlink_to(outside / "x.txt")
    assert by_name(run(tmp_path, tmp_path / "in"))["ada"].total == 5
    assert [path.name for path in outside.iterdir()] == ["x.txt"]
    assert (outside / "x.txt").read_text() == "old" and (kept / "z.txt").read_text() == "new"


def exported(folder: Path, names: dict[str, str]) -> Path:
    """An export of a learning platform's: for each file the text of its first solution."""
    folder.mkdir()
    for name, add in names.items():
        (folder / name).write_text(nbformat.writes(submitted({**RIGHT, "add": add})))
    return folder


def test_two_people_of_one_name_are_told_apart_in_every_export(tmp_path: Path) -> None:
    make_course(tmp_path)
    right = RIGHT["add"]
    first = exported(tmp_path / "first", {"smith_1004_1_build.ipynb": right})
    assert {name: row.number for name, row in by_name(run(tmp_path, first)).items()} == {"smith": "1004"}
    second = exported(tmp_path / "second", {"smith_1005_2_build.ipynb": "broken("})
    rows = by_name(run(tmp_path, second))
    assert {name: (row.status, row.number) for name, row in rows.items()} == {
        "smith": (EARLIER, "1004"),
        "smith_1005": (GRADED, "1005"),
    }
    both = {"smith_1004_3_build-1.ipynb": right, "smith_1005_4_build-1.ipynb": right}
    third = exported(tmp_path / "third", both)
    assert "smith_1005  ok" in str(preview(ASSIGNMENT, third, tmp_path, Limits()))
    result = run(tmp_path, third)
    assert [row.student for row in result.rows] == ["smith", "smith_1005"]
    with result.csv.open(encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["platform_id"] for line in lines] == ["1004", "1005"]
    assert [student["platform_id"] for student in as_json(result)["students"]] == ["1004", "1005"]


def test_a_class_list_gives_canvas_names(tmp_path: Path) -> None:
    with Course(make_course(tmp_path)).gradebook() as gradebook:
        gradebook.add_student("ada", lms_user_id="1001")
        gradebook.add_student("hopper")
    names = ["lovelaceada_1001_1_build.ipynb", "hopper_LATE_1002_2_build.ipynb", "ada_1003_3_build.ipynb"]
    arrived = exported(tmp_path / "in", dict.fromkeys(names, RIGHT["add"]))
    rows = by_name(run(tmp_path, arrived))
    assert {name: row.number for name, row in rows.items()} == {
        "ada": "1001",
        "ada_1003": "1003",
        "hopper": "1002",
    }
    moodle = exported(tmp_path / "moodle", {"hopper_12_assignsubmission_file_build.ipynb": RIGHT["add"]})
    assert by_name(run(tmp_path, moodle))["hopper"].number == "12"
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        assert gradebook.find_student("hopper").lms_user_id == "1002", "Moodle's are others every time"


class StandIn:
    """Gives all points, without running anything."""

    def grade_content(self, *arguments: Any) -> SubmissionResult:
        tests = {"add-test-1": 1, "add-test-2": 2, "double-test-1": 2}
        cells = {name: CellResult(most, most, PASSED) for name, most in tests.items()}
        return SubmissionResult(GRADED, cells=cells)

    def close(self) -> None:
        pass


def recorded(database: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{database}") as gradebook:
        return {one.student_id: one.score for one in gradebook.assignment_submissions(ASSIGNMENT)}


def test_a_full_disk_ends_the_run_and_spares_the_gradebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    run(tmp_path, tmp_path / "in")
    hand_in(tmp_path / "in", "bob", submitted(RIGHT))
    journal = Journal(tmp_path / "results.jsonl")
    with io.FileIO("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(journal, "_file", full)
        with pytest.raises(GradingError, match="No space left"):
            run(tmp_path, tmp_path / "in", JudgeExecutor(nullcontext(StandIn()), journal))
    assert recorded(tmp_path / "gradebook.db") == {"ada": 5}
    full_path = tmp_path / "autograded" / "bob"
    full_path.write_text("a file stands where a folder should be")
    with pytest.raises(GradingError, match="cannot write"):
        run(tmp_path, tmp_path / "in", JudgeExecutor(nullcontext(StandIn()), journal))
    assert recorded(tmp_path / "gradebook.db") == {"ada": 5}
    full_path.unlink()
    run(tmp_path, tmp_path / "in", JudgeExecutor(nullcontext(StandIn()), journal))
    assert recorded(tmp_path / "gradebook.db") == {"ada": 5, "bob": 5}


def test_a_gradebook_in_use_is_a_clear_error(tmp_path: Path) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    run(tmp_path, tmp_path / "in")
    hand_in(tmp_path / "in", "bob", submitted(RIGHT))
    other = sqlite3.connect(tmp_path / "gradebook.db", isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(GradingError, match=r"gradebook.*locked.*goes on"):
        run(tmp_path, tmp_path / "in")
    other.close()
    assert recorded(tmp_path / "gradebook.db") == {"ada": 5}


@pytest.mark.skipif(os.name == "nt", reason="the lock is POSIX's")
def test_one_run_at_a_time(tmp_path: Path) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    with exclusive(tmp_path), pytest.raises(GradingError, match="another run"):
        run(tmp_path, tmp_path / "in")
    run(tmp_path, tmp_path / "in")
    assert (tmp_path / ".mbrl-course" / ".gitignore").read_text() == "*\n"


def test_a_judge_that_fails_takes_no_mark_away(tmp_path: Path) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    run(tmp_path, tmp_path / "in")

    def broken(job: Job) -> Outcome:
        raise MemoryError

    row = by_name(run(tmp_path, tmp_path / "in", broken))["ada"]
    assert row.status == CRASHED and row.total == 5
    row = by_name(run(tmp_path, hand_in(tmp_path / "in2", "bob", submitted(RIGHT)).parents[2]))["ada"]
    assert row.status == EARLIER and row.total == 5


def test_a_source_without_cell_ids(tmp_path: Path) -> None:
    make_course(tmp_path)
    old = build_source()
    for cell in old.cells:
        del cell["id"]
    old.nbformat_minor = 4
    (tmp_path / "source" / ASSIGNMENT / "build.ipynb").write_text(nbformat.writes(old), encoding="utf-8")
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    assert by_name(run(tmp_path, tmp_path / "in"))["ada"].total == 5
