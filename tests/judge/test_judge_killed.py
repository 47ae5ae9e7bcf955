"""A run that is killed at any moment and started again ends with what an undisturbed run gives."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from nbgrader.api import Gradebook

import mbrl_autograder
from judge.small_notebook import POINTS, Submission, source

STUDENTS, KILLS = 25, 20
GRADES = len(POINTS) + 1  # one is given by hand


def start(folder: Path) -> subprocess.Popen[str]:
    here = Path(__file__).parents[1]
    code = Path(mbrl_autograder.__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(here), str(code), *filter(None, sys.path)]),
    }
    command = [sys.executable, "-W", "ignore", "-m", "judge.grade_class", str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def make_class(folder: Path) -> None:
    notebook = folder / "course" / "source" / "small" / "small.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(json.dumps(source()))
    for number in range(STUDENTS):
        submission = Submission(right=True)
        cell: dict[str, Any] = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        submission.cells.insert(0, cell | {"id": "asked", "source": f"# {3 * number / STUDENTS}"})
        path = folder / "in" / f"student{number}" / "small.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(submission.data())


@pytest.mark.slow
def test_killed_twenty_times(tmp_path: Path) -> None:
    make_class(tmp_path)
    database = tmp_path / "course" / "gradebook.db"
    chance = random.Random(4)
    for kill in range(KILLS):
        process = start(tmp_path)
        assert process.stdout is not None
        process.stdout.readline()  # it has started: the gradebook is made, or looked at
        for _ in range(chance.randrange(kill // 2 + 1)):  # so that kills fall on all parts of the run
            process.stdout.readline()
        time.sleep(chance.random() * (1.5 if kill < 5 else 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        if database.exists():
            with sqlite3.connect(database) as db:
                assert db.execute("pragma integrity_check").fetchone() == ("ok",)
                parts = db.execute("select count(*) from grade group by notebook_id").fetchall()
                assert all(count == (GRADES,) for count in parts), "a submission was written by half"
            db.close()
    last = start(tmp_path)
    assert "done" in last.communicate(timeout=120)[0]
    with Gradebook(f"sqlite:///{database}") as book:
        found = {s.student_id: s.score for s in book.assignment_submissions("small")}
    expected = {f"student{n}": 3 * n / STUDENTS for n in range(STUDENTS)}
    assert found == pytest.approx(expected)
    graded = (tmp_path / "graded.txt").read_text().splitlines()
    assert len(graded) - len(set(graded)) <= KILLS, "finished work was done again"
    with (tmp_path / "course" / "grades" / "small" / "grades.csv").open() as file:
        lines = {line["student"]: float(line["total"]) for line in csv.DictReader(file)}
    assert lines == pytest.approx(expected, abs=1e-3)
    assert len(list((tmp_path / "course").glob("feedback/*/small/*.html"))) == STUDENTS
