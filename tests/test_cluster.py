"""Grading on a Dask cluster of processes: the same marks, one gradebook; what is said without one."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from mbrl_autograder.grading import GradingError, Limits, Options, grade
from small_course import ASSIGNMENT, RIGHT, hand_in, make_course, submitted

LIMITS = Limits(cell_seconds=5, submission_seconds=60)


def options(address: str) -> Options:
    return Options(limits=LIMITS, scheduler=address)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_grades_as_one_machine_does(tmp_path: Path) -> None:
    from distributed import LocalCluster

    make_course(tmp_path)
    edition = tmp_path / "edition" / "helper"
    edition.mkdir(parents=True)
    (edition / "__init__.py").write_text("ONE = 1", encoding="utf-8")
    helped = "import helper\ndef double(x):\n    return 2 * x * helper.ONE"
    hand_in(tmp_path / "in", "ada", submitted({**RIGHT, "double": helped}))
    hand_in(tmp_path / "in", "bob", submitted({"add": "def add(a, b):\n    return 3 if a == 1 else 0"}))
    hand_in(tmp_path / "in", "cy", b"")
    hand_in(tmp_path / "in", "dora", submitted({**RIGHT, "add": "import os\ndef add(a, b): os._exit(0)"}))
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=logging.ERROR
    ) as cluster:
        how = Options(limits=LIMITS, scheduler=cluster.scheduler_address, python_path=(edition.parent,))
        result = grade(ASSIGNMENT, tmp_path / "in", tmp_path, how, progress=False)
    assert {row.student: row.total for row in result.rows} == {"ada": 5, "bob": 1, "cy": 0, "dora": 2}
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        found = {one.student_id: one.score for one in gradebook.assignment_submissions(ASSIGNMENT)}
    assert found == {"ada": 5, "bob": 1, "cy": 0, "dora": 2}
    again = grade(ASSIGNMENT, tmp_path / "in", tmp_path, how, progress=False)  # without the cluster
    assert [row.marks for row in again.rows] == [row.marks for row in result.rows]


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mbrl_autograder.grading.cluster.CONNECT_SECONDS", 1)
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    for address in ("tcp://127.0.0.1:9", "no address"):
        with pytest.raises(GradingError, match="no Dask scheduler answers at"):
            grade(ASSIGNMENT, tmp_path / "in", tmp_path, options(address), progress=False)


def test_dask_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    make_course(tmp_path)
    hand_in(tmp_path / "in", "ada", submitted(RIGHT))
    with pytest.raises(GradingError, match=r"pip install.*cluster"):
        grade(ASSIGNMENT, tmp_path / "in", tmp_path, options("tcp://127.0.0.1:9"), progress=False)
