"""Grading a class: what is collected and restored, what a broken notebook costs, what is written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from traitlets.config import Config

from mbrl_autograder.grading import (
    GradingError,
    Job,
    Limits,
    Options,
    Outcome,
    format_table,
    grade,
)
from mbrl_autograder.grading.course import Course, exercise_of, find_course
from mbrl_autograder.grading.model import (
    CRASHED,
    EARLIER,
    GRADED,
    MISSING,
    TIMED_OUT,
    UNREADABLE,
    ClassResult,
    Row,
)
from mbrl_autograder.grading.notebooks import (
    NotANotebookError,
    grade_id,
    grading_template,
    read_notebook,
    restore,
)
from mbrl_course.weeks import UnknownWeekError
from small_course import ASSIGNMENT, RIGHT, build_source, experiments_source, hand_in, make_course, submitted

ONE_WORKER = pytest.mark.xdist_group("graded_class")  # the class is graded once, not in each worker
LIMITS = Limits(cell_seconds=3, submission_seconds=60)


def by_name(result: ClassResult) -> dict[str, Row]:
    return {row.student: row for row in result.rows}


def all_right(job: Job) -> Outcome:
    """An executor that runs nothing and gives all points."""
    points = {grade_id(cell): cell.metadata.nbgrader.points for cell in job.notebook.cells if _graded(cell)}
    return Outcome(job.notebook, points)


def _graded(cell: nbformat.NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def run(course: Path, submissions: Path | None, executor: Any = None, **options: Any) -> ClassResult:
    how = Options(**{"limits": LIMITS, "workers": 2, **options})
    return grade(ASSIGNMENT, submissions, course, how, executor=executor, progress=False)


@pytest.fixture(scope="module")
def graded_class(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClassResult]:
    """One real run over a class with every kind of trouble."""
    root = tmp_path_factory.mktemp("course")
    make_course(root, experiments=True)
    arrived = root / "arrived"
    hand_in(arrived, "right", submitted(RIGHT))
    written = experiments_source()
    written.cells[1].source = "Because."
    written.cells[2].outputs = [nbformat.v4.new_output("stream", text="my own output")]
    hand_in(arrived, "right", written, "experiments")
    hand_in(
        arrived,
        "half",
        submitted(
            {"add": "def add(a, b):\n    return 3 if a == 1 else 0", "double": "def double(x):\n    return x"}
        ),
    )
    noisy = "import sys\ndef double(x):\n    print('e', file=sys.stderr)\n    return 2*x"
    hand_in(arrived, "noisy", submitted({**RIGHT, "double": noisy}))
    early = submitted(RIGHT)
    early.cells.insert(0, new_code_cell("import no_such_module"))
    hand_in(arrived, "early", early)
    hand_in(arrived, "untouched", submitted())
    hand_in(arrived, "endless", submitted({**RIGHT, "double": "def double(x):\n    while True: pass"}))
    hand_in(arrived, "dies", submitted({**RIGHT, "double": "import os\ndef double(x):\n    os._exit(1)"}))
    script = (
        "from IPython.display import HTML, display\ndisplay(HTML('<script>steal()</script>'))\n"
        + RIGHT["add"]
    )
    hand_in(arrived, "script", submitted({**RIGHT, "add": script}))
    hand_in(arrived, "not-json", "hello")
    hand_in(arrived, "empty", b"")
    (arrived / "no-file").mkdir()
    return root, run(root, arrived)


@pytest.mark.slow
@ONE_WORKER
def test_marks(graded_class: tuple[Path, ClassResult]) -> None:
    rows = by_name(graded_class[1])
    assert rows["right"].marks == {"add": 3, "double": 2, "q1": None}
    assert rows["right"].status == GRADED and rows["right"].reason == ""
    assert rows["half"].marks["add"] == 1 and rows["half"].marks["double"] == 0
    assert rows["noisy"].total == 5, "what is written to stderr costs no points"
    assert rows["early"].total == 5, "a scratch cell that fails has no part in the marks"
    assert rows["untouched"].total == 0


@pytest.mark.slow
@ONE_WORKER
def test_trouble_costs_only_itself_and_is_named(graded_class: tuple[Path, ClassResult]) -> None:
    rows = by_name(graded_class[1])
    endless = rows["endless"]
    assert endless.status == TIMED_OUT and endless.marks["add"] == 3 and endless.marks["double"] == 0
    assert "double-test-1" in endless.reason
    dies = rows["dies"]
    assert dies.marks["add"] == 3 and dies.marks["double"] == 0 and "double-test-1" in dies.reason
    assert {"not-json", "empty", "no-file"} == {
        row.student for row in graded_class[1].rows if row.status == UNREADABLE
    }
    assert "not JSON" in rows["not-json"].reason
    assert "0 bytes" in rows["empty"].reason
    assert {row.student for row in graded_class[1].ungraded} == {"not-json", "empty", "no-file"}


@pytest.mark.slow
@ONE_WORKER
def test_feedback_pages_hide_tests_and_scripts(graded_class: tuple[Path, ClassResult]) -> None:
    rows = by_name(graded_class[1])
    assert [page.name for page in rows["right"].pages] == ["build.html", "experiments.html"]
    assert all(row.pages for row in rows.values() if row.status != UNREADABLE)
    assert "is empty" in rows["empty"].pages[0].read_text(encoding="utf-8")
    half = rows["half"].pages[0].read_text(encoding="utf-8")
    assert "twice as much" in half, "the message of a failed check is shown"
    assert "HIDDEN" not in half and "add(20, 22)" not in half and "the answer" not in half
    assert "<script>steal" not in rows["script"].pages[0].read_text(encoding="utf-8")


@pytest.mark.slow
@ONE_WORKER
def test_experiments_are_not_run_and_wait_for_a_marker(graded_class: tuple[Path, ClassResult]) -> None:
    root, _ = graded_class
    kept = nbformat.read(root / "autograded" / "right" / ASSIGNMENT / "experiments.ipynb", as_version=4)
    assert kept.cells[1].source == "Because."
    assert kept.cells[2].outputs[0].text == "my own output"
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        waiting = gradebook.find_grade("q1", "experiments", ASSIGNMENT, "right")
        assert waiting.needs_manual_grade and waiting.auto_score is None
        absent = gradebook.find_grade("q1", "experiments", ASSIGNMENT, "half")
        assert not absent.needs_manual_grade and absent.auto_score == 0


@pytest.mark.slow
@ONE_WORKER
def test_csv_and_table(graded_class: tuple[Path, ClassResult]) -> None:
    _, result = graded_class
    with result.csv.open(encoding="utf-8") as stream:
        lines = {line["student"]: line for line in csv.DictReader(stream)}
    columns = ["student", "platform_id", "add", "double", "q1", "penalty", "total", "max", "status", "reason"]
    assert list(lines["right"]) == columns
    assert [lines["right"][key] for key in ("add", "double", "q1", "total", "max")] == [
        "3",
        "2",
        "",
        "5",
        "9",
    ]
    assert set(lines) == {row.student for row in result.rows}
    table = format_table(result)
    assert all(student in table for student in lines)
    assert "build.html" in table and "grades.csv" in table and "+1 to mark" in table


def test_a_later_run_keeps_what_was_graded(tmp_path: Path) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "first", "ada", submitted(RIGHT))
    run(tmp_path, tmp_path / "first", executor=all_right)
    hand_in(tmp_path / "second", "bob", submitted(RIGHT))
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        gradebook.update_or_create_student("carl")
    rows = by_name(run(tmp_path, tmp_path / "second", executor=all_right))
    assert (rows["ada"].status, rows["ada"].total) == (EARLIER, 5)
    assert (rows["bob"].status, rows["bob"].total) == (GRADED, 5)
    assert (rows["carl"].status, rows["carl"].total) == (MISSING, 0)
    unreadable: tuple[str | bytes, ...] = ("broken now", b"")
    for number, broken in enumerate(unreadable):
        again = tmp_path / f"again-{number}"
        hand_in(again, "ada", broken)
        rows = by_name(run(tmp_path, again, executor=all_right))
        assert (rows["ada"].status, rows["ada"].total) == (GRADED, 5)
        (page,) = rows["ada"].pages
        assert "that you handed in before, which counts" in page.read_text()
    assert "is empty (0 bytes)" in rows["ada"].reason and "before counts" in rows["ada"].reason
    kept = tmp_path / "submitted" / "ada" / ASSIGNMENT / "build.ipynb"
    kept.write_text("broken, too")
    row = by_name(run(tmp_path, tmp_path / "again-0", executor=all_right))["ada"]
    assert (row.status, row.total) == (UNREADABLE, 0)
    (page,) = row.pages
    assert "not JSON" in page.read_text(), "the page of the earlier submission is gone"


def test_marks_given_by_hand_stay(tmp_path: Path) -> None:
    make_course(tmp_path, experiments=True)
    answer = experiments_source()
    answer.cells[1].source = "Because."
    hand_in(tmp_path / "in", "ada", answer, "experiments")
    run(tmp_path, tmp_path / "in", executor=all_right)
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        gradebook.find_grade("q1", "experiments", ASSIGNMENT, "ada").manual_score = 3.5
        gradebook.db.commit()
    row = by_name(run(tmp_path, tmp_path / "in", executor=all_right))["ada"]
    assert row.marks["q1"] == 3.5
    assert "build.ipynb did not arrive" in row.reason


def test_an_executor_that_raises_costs_one_submission(tmp_path: Path) -> None:
    def picky(job: Job) -> Outcome:
        if job.student == "bad":
            raise OSError("disk")
        return all_right(job)

    make_course(tmp_path)
    for student in ("bad", "good"):
        hand_in(tmp_path / "in", student, submitted(RIGHT))
    rows = by_name(run(tmp_path, tmp_path / "in", executor=picky))
    assert rows["bad"].status == CRASHED and "disk" in rows["bad"].reason
    assert rows["good"].total == 5


@pytest.mark.slow
def test_more_points_than_a_cell_has_are_not_believed(tmp_path: Path) -> None:
    make_course(tmp_path)
    forged = submitted({**RIGHT, "double": "def double(x):\n    raise ValueError"})
    for cell in forged.cells:
        if grade_id(cell) == "add-test-1":
            cell.metadata.nbgrader.points = 100
    forged.cells = [cell for cell in forged.cells if grade_id(cell) not in ("add-test-2", "double-test-1")]
    forged.cells.append(new_markdown_cell("gone", metadata=build_source().cells[6].metadata))
    hand_in(tmp_path / "in", "forger", forged)
    assert by_name(run(tmp_path, tmp_path / "in"))["forger"].marks == {"add": 3, "double": 0}


@pytest.mark.slow
def test_student_edition_comes_before_the_installed_package(tmp_path: Path) -> None:
    make_course(tmp_path)
    edition = tmp_path / "edition" / "mbrl_course"
    edition.mkdir(parents=True)
    (edition / "__init__.py").write_text("EDITION = 'student'", encoding="utf-8")
    answer = "import mbrl_course\ndef double(x):\n    return 2 * x * (mbrl_course.EDITION == 'student')"
    hand_in(tmp_path / "in", "ada", submitted({**RIGHT, "double": answer}))
    rows = by_name(run(tmp_path, tmp_path / "in", python_path=(edition.parent,)))
    assert rows["ada"].marks["double"] == 2


@pytest.fixture
def template(tmp_path: Path) -> nbformat.NotebookNode:
    path = tmp_path / "build.ipynb"
    nbformat.write(build_source(), path)
    return grading_template(path, Config())


def test_restore_brings_back_locked_and_test_cells(template: nbformat.NotebookNode) -> None:
    lost = submitted(RIGHT)
    lost.cells = [cell for cell in lost.cells if grade_id(cell) not in ("intro", "setup", "add-test-2")]
    restored = restore(lost, template)
    assert [grade_id(cell) for cell in restored.cells] == [grade_id(cell) for cell in template.cells]
    assert "HIDDEN" in restored.cells[4].source


def test_restore_keeps_both_halves_of_a_split_solution(template: nbformat.NotebookNode) -> None:
    split = submitted(RIGHT)
    half = new_code_cell("unit = 1", metadata=split.cells[2].metadata)
    split.cells.insert(2, half)
    restored = restore(split, template)
    nbformat.validate(restored)
    assert [cell.source for cell in restored.cells[2:4]] == ["unit = 1", RIGHT["add"]]
    assert [grade_id(cell) for cell in restored.cells].count("add") == 1


def test_restore_moves_a_test_below_its_solution(template: nbformat.NotebookNode) -> None:
    moved = submitted(RIGHT)
    moved.cells.insert(6, moved.cells.pop(2))  # the solution of add now stands behind double's test
    order = [grade_id(cell) for cell in restore(moved, template).cells]
    assert order.index("add") < order.index("add-test-1") < order.index("add-test-2")
    assert order.index("double") < order.index("double-test-1")


def test_restore_ignores_odd_metadata(template: nbformat.NotebookNode) -> None:
    odd = submitted(RIGHT)
    odd.cells[3].metadata.nbgrader = ["a list"]
    odd.cells[4].metadata.tags = ["skip-execution"]
    odd.metadata = nbformat.from_dict({"kernelspec": {"name": "../../evil"}})
    restored = restore(odd, template)
    assert "tags" not in restored.cells[5].metadata
    assert restored.metadata.kernelspec.name == "python3"
    assert [grade_id(cell) for cell in restored.cells if _graded(cell)] == [
        "add-test-1",
        "add-test-2",
        "double-test-1",
    ]


@pytest.mark.parametrize("change", ["bom", "crlf", "no-ids", "old-minor"])
def test_read_notebook_mends(tmp_path: Path, change: str) -> None:
    content = json.loads(nbformat.writes(submitted(RIGHT)))
    if change in ("no-ids", "old-minor"):
        for cell in content["cells"]:
            del cell["id"]
        content["nbformat_minor"] = 0 if change == "old-minor" else 4
    text = json.dumps(content, indent=1)
    path = tmp_path / "a.ipynb"
    data = text.replace("\n", "\r\n").encode() if change == "crlf" else text.encode()
    path.write_bytes(b"\xef\xbb\xbf" + data if change == "bom" else data)
    notebook = read_notebook(path)
    assert len(notebook.cells) == len(content["cells"]) and all(cell.id for cell in notebook.cells)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfe\x00", "UTF-8"),
        (b"print('hello')", "not JSON"),
        (b"[1, 2]", "not a notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "no cells"),
        (b'{"nbformat": 99, "nbformat_minor": 5, "metadata": {}, "cells": []}', "format"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "x"}]}', "no cells"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_read_notebook_refuses(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "a.ipynb"
    path.write_bytes(data)
    with pytest.raises(NotANotebookError, match=reason):
        read_notebook(path)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    make_course(tmp_path / "c")
    with pytest.raises(GradingError, match="--submissions"):
        run(tmp_path / "c", tmp_path / "nowhere")
    with pytest.raises(GradingError, match="no submissions"):
        (tmp_path / "void").mkdir()
        run(tmp_path / "c", tmp_path / "void")
    with pytest.raises(UnknownWeekError, match=r"week03.*sums"):
        grade("week99", tmp_path, tmp_path / "c", progress=False)
    with pytest.raises(GradingError, match=r"no notebooks for 'week03'.*sums"):
        grade("3", tmp_path, tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="workers is 0"):
        run(tmp_path / "c", tmp_path, workers=0)
    with pytest.raises(GradingError, match="no course folder"):
        run(tmp_path / "nothing", tmp_path)
    with pytest.raises(GradingError, match="--course"):
        find_course(Path(tmp_path.anchor))
    (tmp_path / "c" / "nbgrader_config.py").write_text("1 / 0", encoding="utf-8")
    with pytest.raises(GradingError, match="ZeroDivisionError"):
        Course(tmp_path / "c")


def test_changed_notebooks_after_submissions(tmp_path: Path) -> None:
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    run(tmp_path, tmp_path / "in", executor=all_right)
    source = tmp_path / "source" / ASSIGNMENT / "build.ipynb"
    notebook = build_source()
    del notebook.cells[6]
    nbformat.write(notebook, source)
    with pytest.raises(GradingError, match=r"changed since.*double-test-1"):
        run(tmp_path, tmp_path / "in", executor=all_right)


def test_find_course_looks_upwards(tmp_path: Path) -> None:
    make_course(tmp_path)
    inner = tmp_path / "source" / ASSIGNMENT
    assert find_course(inner) == tmp_path.resolve()


def test_exercise_of() -> None:
    assert exercise_of("refit-test-2") == "refit"
    assert exercise_of("my-test-case") == "my-test-case"


@pytest.mark.slow
def test_plain_nbgrader_autograde(tmp_path: Path) -> None:
    make_course(tmp_path, experiments=True)
    hooks = "from mbrl_autograder.grading.nbgrader_hooks import configure\nconfigure(get_config())\n"
    (tmp_path / "nbgrader_config.py").write_text(hooks, encoding="utf-8")
    noisy = submitted(
        {**RIGHT, "add": "import sys\ndef add(a, b):\n    print('!', file=sys.stderr); return a + b"}
    )
    del noisy.cells[4]
    noisy.cells.insert(2, new_code_cell("x = 1", metadata=noisy.cells[2].metadata))
    hand_in(tmp_path / "submitted", "ada", noisy)
    hand_in(tmp_path / "submitted", "ada", experiments_source(), "experiments")
    silent = submitted(
        {"add": "def add(a, b):\n    return 3", "double": "def double(x):\n    return float('nan')"}
    )
    for cell in silent.cells:
        if _graded(cell):  # nbgrader gives a test full points that it does not run
            cell.metadata.tags = ["skip-execution"]
            cell.outputs = [nbformat.v4.new_output("execute_result", data={"text/plain": "all right"})]
    hand_in(tmp_path / "submitted", "eve", silent)
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for step in ("generate_assignment", "autograde", "generate_feedback"):
        command = [sys.executable, "-m", "nbgrader", step, ASSIGNMENT]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        notebook = gradebook.find_submission_notebook("build", ASSIGNMENT, "ada")
        assert notebook.score == 5
        assert gradebook.find_submission_notebook("build", ASSIGNMENT, "eve").score == 1
    page = tmp_path / "feedback" / "ada" / ASSIGNMENT / "build.html"
    assert "HIDDEN" not in page.read_text(encoding="utf-8")
