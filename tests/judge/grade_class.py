"""A process to be killed: records a class's results in a journal and a gradebook, and says when it is
done."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from judge.small_notebook import POINTS, Submission
from mbrl_autograder.judge.display import marked_notebook
from mbrl_autograder.judge.gradebook import GradebookWriter
from mbrl_autograder.judge.journal import Journal
from mbrl_autograder.judge.results import GRADED, PARTIAL, CellResult, SubmissionResult


def main(folder: Path, students: int) -> None:
    """Grades students 0, 1, ...: the first test of each earns its number's share of the points."""
    journal = Journal(folder / "results.jsonl")
    with (
        open(folder / "graded.txt", "a", encoding="utf-8") as log,
        Gradebook(f"sqlite:///{folder / 'g.db'}") as book,
    ):
        writer = GradebookWriter(book, "small")
        for number in range(students):
            result = journal.find(f"key {number}")
            if result is None:
                cells = {name: CellResult(0.0, most, PARTIAL) for name, most in POINTS.items()}
                cells["test_values"] = CellResult(3 * number / students, 3, PARTIAL)
                result = SubmissionResult(GRADED, cells=cells)
                journal.add(f"key {number}", result)
                log.write(f"{number}\n")
                log.flush()
            notebook = marked_notebook(nbformat.from_dict(Submission(True).notebook), result.cells, {})
            writer.write(f"student{number}", {"nb": (notebook, result.cells)}, folder / "out" / str(number))
            print(number, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
