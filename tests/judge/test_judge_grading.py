"""The judge as the executor of the grading: a class folder in, the gradebook and a table out."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from judge.conftest import LIMITS
from judge.dishonest import STRUCTURE
from judge.small_notebook import Submission, source
from mbrl_autograder.grading.engine import grade
from mbrl_autograder.grading.executor import JudgeExecutor
from mbrl_autograder.judge import Judge
from mbrl_autograder.judge.journal import Journal


def test_a_class_is_graded_to_its_end(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    course, arrived = tmp_path / "course", tmp_path / "in"
    notebook = course / "source" / "small" / "small.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(json.dumps(source()))
    split = Submission(right=True)
    split.code("smooth", "def smooth(values, window):\n    parts = values.unfold(0, window, 1)")
    half = json.loads(json.dumps(split.cell("smooth")))
    half["source"] = "    return parts.mean(-1)"
    split.cells.insert(split.index("smooth") + 1, half)
    forged = Submission(right=False)
    STRUCTURE["points of a hundred"][1](forged)
    deserved = {"ada": (split.data(), 10), "bob": (forged.data(), 1.5), "cy": (b"", 0), "dan": (b"[]", 0)}
    for student, (data, _) in deserved.items():
        (arrived / student).mkdir(parents=True)
        (arrived / student / "small.ipynb").write_bytes(data)
    journal = Journal(tmp_path / "results.jsonl")
    executor = JudgeExecutor(nullcontext(judge), journal)
    result = grade("small", arrived, course, executor=executor, progress=False)
    assert {row.student: row.total for row in result.rows} == {k: v for k, (_, v) in deserved.items()}
    assert all(row.reason for row in result.rows if row.student in ("cy", "dan"))
    marked = (course / "autograded" / "bob" / "small" / "small.ipynb").read_text()
    assert "each value is the mean of a window" in marked
    journal.close()
    shutil.rmtree(course / "autograded")

    def forbidden() -> Judge:
        raise AssertionError("a finished result is not judged again")

    unused = JudgeExecutor(Judge(limits=LIMITS), Journal(tmp_path / "results.jsonl"))
    monkeypatch.setattr(unused, "_started", forbidden)
    again = grade("small", arrived, course, executor=unused, progress=False)
    assert [row.marks for row in again.rows] == [row.marks for row in result.rows]
