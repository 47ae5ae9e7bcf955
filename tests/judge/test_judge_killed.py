"""A run that is killed at any moment and started again ends with what an undisturbed run gives."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

import mbrl_autograder
from judge.small_notebook import POINTS

STUDENTS, KILLS = 25, 20


def start(folder: Path) -> subprocess.Popen[str]:
    here = Path(__file__).parents[1]
    code = Path(mbrl_autograder.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here), str(code), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-W", "ignore", "-m", "judge.grade_class", str(folder), str(STUDENTS)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    with Gradebook(f"sqlite:///{tmp_path / 'g.db'}") as book:
        book.add_assignment("small")
        book.add_notebook("nb", "small")
        for name, points in POINTS.items():
            book.add_grade_cell(name, "nb", "small", max_score=points, cell_type="code")
    chance = random.Random(4)
    for kill in range(KILLS):
        process = start(tmp_path)
        assert process.stdout is not None
        for _ in range(chance.randrange(kill + 1) + 1):  # so that kills fall on all parts of the run
            process.stdout.readline()
        time.sleep(chance.random() * 0.03)
        process.kill()
        process.wait()
        process.stdout.close()
        with sqlite3.connect(tmp_path / "g.db") as db:
            assert db.execute("pragma integrity_check").fetchone() == ("ok",)
            parts = db.execute("select count(*) from grade group by notebook_id").fetchall()
            assert all(count == (len(POINTS),) for count in parts), "a submission was written by half"
        db.close()
    last = start(tmp_path)
    assert "done" in last.communicate(timeout=120)[0]
    with Gradebook(f"sqlite:///{tmp_path / 'g.db'}") as book:
        found = {s.student_id: s.score for s in book.assignment_submissions("small")}
    assert found == pytest.approx({f"student{n}": 3 * n / STUDENTS for n in range(STUDENTS)})
    graded = (tmp_path / "graded.txt").read_text().split()
    assert len(graded) == len(set(graded)), "finished work was done again"
