"""A process to be killed: grades a class into a journal and a gradebook, and says when it goes on.

The judge is a stand-in that takes no time, so that kills fall on all that happens around it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from judge.small_notebook import POINTS
from mbrl_autograder.grading import Options, grade
from mbrl_autograder.grading.executor import JudgeExecutor
from mbrl_autograder.judge.journal import Journal
from mbrl_autograder.judge.results import GRADED, PARTIAL, CellResult, SubmissionResult


class StandIn:
    """Gives the points that a notebook's first cell asks for, and notes that it did."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def grade_content(
        self, source: Path, content: dict[str, Any], files: Mapping[str, bytes] | None = None
    ) -> SubmissionResult:
        asked = content["cells"][0]["source"]
        cells = {name: CellResult(0.0, most, PARTIAL) for name, most in POINTS.items()}
        cells["test_values"] = CellResult(float(asked.removeprefix("# ")), 3, PARTIAL)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{asked}\n")
        print(asked, flush=True)
        return SubmissionResult(GRADED, cells=cells)

    def close(self) -> None:
        pass


def main(folder: Path) -> None:
    """Grades `folder`/in for the course in `folder`/course."""
    print("started", flush=True)
    journal = Journal(folder / "results.jsonl")
    executor = JudgeExecutor(nullcontext(StandIn(folder / "graded.txt")), journal)
    grade("small", folder / "in", folder / "course", Options(workers=1), executor=executor, progress=False)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
