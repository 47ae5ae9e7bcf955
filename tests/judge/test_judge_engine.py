"""The engine around the marks: files that are none, missing sandboxes, journals, the gradebook, what is
shown."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbconvert.filters.markdown import markdown2html
from nbgrader.api import Gradebook

from judge.small_notebook import POINTS, Submission, source
from mbrl_autograder.judge import Judge, SandboxError, SubmissionResult
from mbrl_autograder.judge.display import marked_notebook, safe_markdown
from mbrl_autograder.judge.gradebook import GradebookWriter
from mbrl_autograder.judge.journal import Journal, JournalError, result_key
from mbrl_autograder.judge.results import FAILED, GRADED, PASSED, UNREADABLE, CellResult
from mbrl_autograder.judge.runner import MAX_DISPLAYS, _displays


def test_a_right_notebook_earns_everything(judge: Judge, source_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    path.write_bytes(Submission(right=True).data())
    result = judge.grade(source_path, path)
    assert (result.status, result.points, result.max_points) == (GRADED, 10, 10)
    assert SubmissionResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_what_is_no_plain_file_is_not_opened(judge: Judge, source_path: Path, tmp_path: Path) -> None:
    link, pipe, folder, large = (tmp_path / name for name in ("link", "pipe", "folder", "large"))
    link.symlink_to(source_path)
    os.mkfifo(pipe)
    folder.mkdir()
    with open(large, "wb") as file:
        file.truncate(60_000_000)
    words = {link: "link", pipe: "plain", folder: "plain", large: "large", tmp_path / "x": "missing"}
    for path, word in words.items():
        result = judge.grade(source_path, path)
        assert result.status == UNREADABLE and word in result.reason
        assert result.points == 0 and result.max_points == 10


def test_without_bubblewrap_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"bubblewrap is missing.*--no-sandbox"), Judge():
        pass


def results(points: float) -> dict[str, CellResult]:
    cells = {name: CellResult(0.0, most, FAILED, "no") for name, most in POINTS.items()}
    return cells | {"test_values": CellResult(points, 3, PASSED)}


def test_a_journal_survives_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a" / "results.jsonl"
    journal = Journal(path)
    first, second = (SubmissionResult(GRADED, cells=results(n)) for n in (1, 2))
    journal.add("first", first)
    journal.add("second", second)
    journal.close()
    data = path.read_bytes()
    for length in range(len(data) // 2 + 1, len(data), 97):
        path.write_bytes(data[:length])
        again = Journal(path)
        assert again.find("first") == first
        assert again.find("second") in (None, second)
        again.add("third", second)
        again.close()
        assert Journal(path).find("third") == second


def test_a_journal_in_a_place_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be written"):
        Journal(tmp_path / "file" / "results.jsonl")


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "results.jsonl")
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    monkeypatch.setattr(journal, "_file", full)
    with pytest.raises(JournalError, match="No space left"):
        journal.add("key", SubmissionResult(GRADED))
    assert journal.find("key") is None
    with contextlib.suppress(OSError):
        full.close()


def test_keys_depend_on_where_parts_end() -> None:
    assert result_key([b"ab", b"c"]) != result_key([b"a", b"bc"])


@pytest.fixture
def gradebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gradebook]:
    scripts = str(Path(sys.executable).parent)  # nbgrader starts alembic by its name
    monkeypatch.setenv("PATH", os.pathsep.join([scripts, os.environ["PATH"]]))
    book = Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}")
    book.add_assignment("small", duedate="2030-01-01 00:00:00")
    book.add_notebook("nb", "small")
    for name, points in POINTS.items():
        book.add_grade_cell(name, "nb", "small", max_score=points, cell_type="code")
    book.add_grade_cell("why", "nb", "small", max_score=3, cell_type="markdown")
    book.add_solution_cell("why", "nb", "small")
    yield book
    book.close()


def marked(right: bool = True) -> nbformat.NotebookNode:
    notebook = nbformat.from_dict(Submission(right).notebook)
    return marked_notebook(notebook, results(3), {})


def test_writing_twice_is_writing_once(gradebook: Gradebook, tmp_path: Path) -> None:
    writer = GradebookWriter(gradebook, "small")
    for points in (1.0, 2.0, 2.0):
        writer.write("ada", {"nb": (marked(), results(points))}, tmp_path / "out")
    submission = gradebook.find_submission("small", "ada")
    assert len(gradebook.assignment_submissions("small")) == 1
    assert submission.score == 2.0
    grades = {grade.name: grade for grade in submission.notebooks[0].grades}
    assert grades["why"].needs_manual_grade and not grades["test_values"].needs_manual_grade
    assert nbformat.read(tmp_path / "out" / "nb.ipynb", as_version=4).cells


def test_a_mark_given_by_hand_stays(gradebook: Gradebook, tmp_path: Path) -> None:
    writer = GradebookWriter(gradebook, "small")
    writer.write("ada", {"nb": (marked(), results(1))}, tmp_path / "out")
    grade = gradebook.find_grade("why", "nb", "small", "ada")
    grade.manual_score = 2.5
    gradebook.db.commit()
    writer.write("ada", {"nb": (marked(), results(2))}, tmp_path / "out")
    grade = gradebook.find_grade("why", "nb", "small", "ada")
    assert grade.manual_score == 2.5 and grade.needs_manual_grade


def test_a_failure_leaves_the_gradebook_as_it_was(gradebook: Gradebook, tmp_path: Path) -> None:
    writer = GradebookWriter(gradebook, "small")
    writer.write("ada", {"nb": (marked(), results(3))}, tmp_path / "out")
    broken = {**results(1), "test_search": None}
    with pytest.raises(AttributeError):
        writer.write("bob", {"nb": (marked(), broken)}, tmp_path / "bob")  # type: ignore[dict-item]
    assert [s.student_id for s in gradebook.assignment_submissions("small")] == ["ada"]
    assert gradebook.find_submission("small", "ada").score == 3


def test_late_submissions_go_through_nbgraders_plugin(gradebook: Gradebook, tmp_path: Path) -> None:
    class Half:
        def late_submission_penalty(self, student: str, score: float, seconds: float) -> float:
            return score / 2 if seconds > 3000 else 0.0

    writer = GradebookWriter(gradebook, "small", late=Half())
    due = datetime.datetime(2030, 1, 1)
    for student, hours in (("ada", -1), ("bob", 1)):
        arrived = due + datetime.timedelta(hours=hours)
        writer.write(student, {"nb": (marked(), results(3))}, tmp_path / student, arrived)
    assert not gradebook.find_submission("small", "ada").late_submission_penalty
    assert gradebook.find_submission("small", "bob").late_submission_penalty == 1.5  # exports subtract it


def test_nothing_live_is_shown() -> None:
    submission = Submission(right=True)
    evil = "<script>x</script> [a](javascript:alert(1)) <img src=x onerror=y> a < b `<b>`"
    submission.code("why", evil)
    html = {"text/html": "<script>x</script>", "text/plain": "<script>", "image/svg+xml": "<svg onload=x>"}
    picture = {"image/png": "PHNjcmlwdD4=", "application/javascript": "x"}
    submission.cell("smooth")["outputs"] = [
        {"output_type": "display_data", "data": data, "metadata": {}} for data in (html, picture)
    ]
    notebook = marked_notebook(nbformat.from_dict(submission.notebook), results(3), {})
    text = json.dumps([[o.get("data") for o in c.get("outputs", [])] for c in notebook.cells])
    assert (
        "text/html" not in text and "svg" not in text and "javascript" not in text and "image/png" not in text
    )
    answer = next(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert "<script" not in answer and "<img" not in answer and "javascript:" not in answer
    assert "a < b `&lt;b>`" in answer
    nbformat.validate(notebook)


@pytest.mark.parametrize(
    "text",
    [
        "\\`<img src=x onerror=alert(1)>\\`",  # an escaped backtick begins no code
        "a ~~~ <script>alert(1)</script> ~~~",  # nor do tildes within a line
        "`` ` `` <img src=x onerror=alert(1)> `x` ``",  # and two backticks end with two
        "``` x\n```\n<img src=x onerror=alert(1)>\n```",
        "`[a](javascript:alert(1))` \\`[a](javascript:alert(1))\\`",
    ],
)
def test_what_looks_like_code_is_not_live_either(text: str) -> None:
    shown = markdown2html(safe_markdown(text))  # as nbconvert's templates render an answer
    assert not re.search(r"<(?:img|script)|href=.javascript", shown)


@pytest.mark.parametrize(
    "text", ["x < y and y > z", "$a<b$ `<i>`", "1 <2", "```\n<div>\n```", "[a](http://b.c)"]
)
def test_harmless_markdown_reads_the_same(text: str) -> None:
    assert safe_markdown(text).replace("&lt;", "<") == text


def test_displays_have_an_end() -> None:
    large = {"data": {"image/png": "x" * (MAX_DISPLAYS // 3), "text/plain": "picture"}}
    assert len(_displays([large] * 5)) == 2
    assert _displays([{"data": {"text/plain": "fine"}}])[0]["data"] == {"text/plain": "fine"}


def test_two_cells_of_one_name_in_a_source_are_an_error(judge: Judge, tmp_path: Path) -> None:
    notebook = source()
    notebook["cells"].append(notebook["cells"][1])
    path = tmp_path / "twice.ipynb"
    path.write_text(json.dumps(notebook))
    with pytest.raises(ValueError, match="smooth"):
        judge.grade(path, path)
