"""The marker's page, and notebooks that are run again for a marker."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from judge.conftest import needs_linux
from mbrl_autograder.grading import GradingError, Limits, Options, grade, rerun
from mbrl_autograder.grading.course import Assignment, Course
from mbrl_autograder.grading.marking import write_marking
from mbrl_autograder.grading.model import Job, Outcome
from mbrl_autograder.judge.sandbox import Sandbox
from mbrl_course.cli import main
from small_course import ASSIGNMENT, experiments_source, hand_in, make_course, submitted

RUBRIC = "Because it is so. Rubric: 4 points for <b>saying</b> so."


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """These notebooks need no torch."""
    monkeypatch.setattr("mbrl_autograder.grading.rerunning.PRELOAD", ("IPython.core.interactiveshell",))


def judged(job: Job) -> Outcome:
    """In the judge's place: nothing is run."""
    return Outcome(job.notebook, {})


def notebook(*codes: str) -> nbformat.NotebookNode:
    """A student's experiments notebook with an answer and these cells, which have shown "1 apple" each."""
    book = experiments_source()
    book.cells[1].source = "My <script>alert(1)</script> answer."
    book.cells[2:] = [new_code_cell(code) for code in codes]
    for number, cell in enumerate(book.cells[2:]):
        cell.id = f"own-{number}"
        cell.outputs = [new_output("stream", name="stdout", text="1 apple\n")]
    return book


def course(root: Path, *codes: str, student: str = "ada") -> Path:
    """A course in which one student's work was graded."""
    make_course(root, experiments=True)
    path = root / "source" / ASSIGNMENT / "experiments.ipynb"
    source = nbformat.read(path, as_version=4)
    source.cells[1].source = RUBRIC
    nbformat.write(source, path)
    hand_in(root / "submitted", student, notebook(*codes), "experiments")
    hand_in(root / "submitted", student, submitted())
    grade(ASSIGNMENT, None, root, executor=judged, progress=False)
    return root


def page_of(root: Path, student: str = "ada") -> str:
    return (root / "grades" / ASSIGNMENT / "marking" / f"{student}.html").read_text()


def test_a_marker_sees_answer_output_and_rubric(tmp_path: Path) -> None:
    course(tmp_path, "print('1 apple')")
    page = page_of(tmp_path)
    assert "Rubric: 4 points for &lt;b&gt;saying" in page and "1 apple" in page
    assert "<script" not in page and "My &lt;script&gt;" in page
    overview = (tmp_path / "grades" / ASSIGNMENT / "overview.html").read_text()
    assert 'href="marking/ada.html"' in overview
    path = tmp_path / "autograded" / "ada" / ASSIGNMENT / "experiments.ipynb"
    kept = nbformat.read(path, as_version=4)
    assert "<script" not in kept.cells[1].source, "the formgrader shows no live HTML"
    for folder in ("autograded", "feedback"):
        for file in (tmp_path / folder).rglob("*.*"):
            assert "Rubric" not in file.read_text(), file
    kept.cells[2].source = "x = 1\ny = 2"
    nbformat.write(kept, path)  # as nbgrader does
    assignment = Assignment(Course(tmp_path), ASSIGNMENT)
    assert write_marking(assignment, "ada") and "x = 1\ny = 2" in page_of(tmp_path)


def test_rerun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_linux()
    course(
        tmp_path,
        'SCALE = "laptop"  # a comment\nN = 3',
        "print('\\r 50%|##   | 1/2 [00:00<00:00]', '\\r', sep='')\nprint('1 apple')",
        "import warnings; warnings.warn('look')\nprint('2 apples', SCALE)",
        "1 / 0",
        "import json; print(len(json.load(open('build.ipynb'))['cells']) > 3 and '1 apple')",
        "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('1 apple')",
        "import socket; socket.create_connection(('127.0.0.1', 22))",
    )
    before = (tmp_path / "autograded" / "ada" / ASSIGNMENT / "experiments.ipynb").read_bytes()
    code = main(["rerun", ASSIGNMENT, "ada", "--course", str(tmp_path), "--set", "SCALE=smoke"])
    out = capsys.readouterr().out
    assert code == 1, out
    assert "cell 6 (1 / 0): ZeroDivisionError: division by zero; cell 9" in out
    assert "Other text than handed in: 4 of 7 cells" in out  # the first one showed what it can't have shown
    done = nbformat.read(
        tmp_path / "grades" / ASSIGNMENT / "rerun" / "ada" / "experiments.ipynb", as_version=4
    )
    assert done.cells[2].source == "SCALE = 'smoke'  # a comment\nN = 3"
    assert done.cells[3].outputs[0].text.strip() == "1 apple", "no progress bar"
    assert "2 apples smoke" in done.cells[4].outputs[0].text
    assert done.cells[5].outputs[0].ename == "ZeroDivisionError"
    assert any("image/png" in output.get("data", {}) for output in done.cells[7].outputs)
    assert (tmp_path / "autograded" / "ada" / ASSIGNMENT / "experiments.ipynb").read_bytes() == before
    page = page_of(tmp_path)
    assert "run again" in page and "with SCALE = smoke" in page and "2 apples smoke" in page
    grade(ASSIGNMENT, None, tmp_path, executor=judged, progress=False)
    assert "2 apples smoke" in page_of(tmp_path), "grading again keeps it"
    hand_in(tmp_path / "submitted", "ada", notebook("print('new')"), "experiments")
    grade(ASSIGNMENT, None, tmp_path, executor=judged, progress=False)
    assert "2 apples smoke" not in page_of(tmp_path) and "An earlier version" in page_of(tmp_path)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("while True: pass", "Time was up in cell 4 (while True: pass). Not reached: 1 code cells."),
        ("import os; os._exit(3)", "ProcessEnded"),
    ],
)
def test_rerun_that_does_not_reach_its_end(tmp_path: Path, code: str, said: str) -> None:
    needs_linux()
    course(tmp_path, "print('1 apple')", code, "print('1 apple')")
    options = Options(limits=Limits(submission_seconds=3))
    (one,) = rerun(ASSIGNMENT, ["ada"], tmp_path, options, progress=False)
    assert said in str(one) and one.unreached == 1 and one.different == 1 and one.compared == 2
    done = nbformat.read(one.path, as_version=4)
    assert done.cells[-1].outputs[0].text == "(not reached)"


def test_rerun_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course(tmp_path, "print('1 apple')")

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sandbox, "__init__", interrupted)
    assert main(["rerun", ASSIGNMENT, "ada", "--course", str(tmp_path)]) == 130
    assert not (tmp_path / "grades" / ASSIGNMENT / "rerun").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["grace"], "nothing arrived from 'grace'; students: ada, bob"),
        (["bob"], "bob handed in no experiments.ipynb"),
        (["ada", "--notebook", "other"], "it has: build, experiments"),
        (["ada", "--notebook", "build"], "`mbrl-course grade sums` runs it"),
        (["ada", "--set", "SIZE=3"], "no parameter 'SIZE'; it has: SCALE"),
    ],
)
def test_errors(tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_course(tmp_path, experiments=True)
    hand_in(tmp_path / "submitted", "ada", notebook("SCALE = 1"), "experiments")
    hand_in(tmp_path / "submitted", "bob", submitted())
    assert main(["rerun", ASSIGNMENT, *arguments, "--course", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_no_rerun_before_all_is_checked(tmp_path: Path) -> None:
    make_course(tmp_path, experiments=True)
    hand_in(tmp_path / "submitted", "ada", new_notebook(), "experiments")
    with pytest.raises(GradingError, match="no cells"):
        rerun(ASSIGNMENT, ["ada"], tmp_path, progress=False)
