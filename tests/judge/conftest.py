from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from judge.dishonest import all_dishonest
from judge.honest import all_honest
from judge.small_notebook import source
from mbrl_autograder.judge import GradingTask, Judge, JudgeLimits, SubmissionResult

LIMITS = JudgeLimits(
    cell_seconds=4, scratch_seconds=2, submission_seconds=30, memory_bytes=600 << 20, processes=40
)


def needs_linux() -> None:
    """Skips where there can be no sandbox, but never in the continuous integration."""
    if not sys.platform.startswith("linux") and not os.environ.get("CI"):
        pytest.skip(f"the sandbox needs Linux, and this is {sys.platform}")


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    """One judge for all tests; on a Linux machine that has no sandbox, they fail."""
    needs_linux()
    os.environ["JUDGE_TEST_SECRET"] = "SECRET-ENVIRONMENT-2648"
    with Judge(workers=2, limits=LIMITS) as judge:
        yield judge


@pytest.fixture(scope="session")
def source_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("course") / "source" / "small.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps(source()))
    (path.parents[1] / "reference.py").write_text("SECRET = 'SECRET-REFERENCE-1853'")
    return path


@pytest.fixture(scope="session")
def graded(
    judge: Judge, source_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, SubmissionResult]:
    """Every submission of the corpus, graded in one run, the harmful among the honest."""
    folder = tmp_path_factory.mktemp("class")
    honest = {f"honest: {name}": case for name, case in all_honest().items()}
    dishonest = {f"dishonest: {name}": case[1:] for name, case in all_dishonest().items()}
    names = [name for pair in zip_longest(list(dishonest), list(honest)) for name in pair if name]
    tasks = []
    for number, name in enumerate(names):
        data, files = {**honest, **dishonest}[name]
        path = folder / str(number) / "small.ipynb"
        path.parent.mkdir()
        path.write_bytes(data)
        for file, content in files.items():
            (path.parent / file).write_bytes(content)
        tasks.append(GradingTask(name, source_path, path))
    return {task.student: result for task, result in judge.grade_many(tasks)}


def zip_longest(*lists: list[str]) -> Iterator[tuple[str, ...]]:
    """The lists' items side by side."""
    for i in range(max(map(len, lists))):
        yield tuple(items[i] for items in lists if i < len(items))
