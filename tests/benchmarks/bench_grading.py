"""How fast classes are graded: the judge against stock `nbgrader autograde`, on the same notebooks.

    python tests/benchmarks/bench_grading.py --out grading.json

For a light notebook (five tests) and for week 3: submissions a second with two workers, starting them
included; the same of nbgrader, timed on a sample in the same run; their ratio; the peak memory of all
processes (shared pages counted once); and whether both give the same marks to the sample.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tqdm import tqdm

from judge.small_notebook import WRONG, Submission, source
from mbrl_autograder.grading import student_edition
from mbrl_autograder.judge import GradingTask, Judge
from mbrl_course.experiments.runner import machine

COURSE = Path(__file__).parents[2]
STUB = "def unanswered():\n    raise NotImplementedError()"
COMMENT = "# by student {number}\n"  # no two notebooks are the same


@dataclass(frozen=True)
class Measured:
    """One class: seconds for each side's submissions, and what they agree on."""

    notebook: str
    submissions: int
    judge_seconds: float
    stock_sample: int
    stock_seconds: float
    peak_megabytes: float
    stock_peak_megabytes: float
    same_marks: int

    @property
    def ratio(self) -> float:
        """How many times as many submissions the judge grades in the same time."""
        judged = self.submissions / self.judge_seconds
        return judged / (self.stock_sample / self.stock_seconds)


def light_class(count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The small notebook's source, and submissions that have some of its exercises right."""
    chance, made = random.Random(0), []
    for number in range(count):
        submission = Submission(right=True)
        for name, text in WRONG.items():
            if chance.random() < 0.3:
                submission.code(name, text)
        submission.cell("smooth")["source"] += f"\n{COMMENT.format(number=number)}"
        made.append(submission.notebook)
    return source(), made


def week_class(count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Week 3's source, and submissions that leave some of its exercises."""
    text = (COURSE / "solutions" / "week03" / "build.ipynb").read_text(encoding="utf-8")
    chance, made = random.Random(0), []
    for number in range(count):
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["metadata"].get("nbgrader", {}).get("solution") and cell["cell_type"] == "code":
                answer = STUB if chance.random() < 0.2 else "".join(cell["source"])
                cell["source"] = f"{answer}\n{COMMENT.format(number=number)}"
        made.append(notebook)
    return json.loads(text), made


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Watches the memory of this process's children; the list's one item is its peak, in megabytes."""
    peak, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.3):
            peak[0] = max(peak[0], _memory_of_children() / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _memory_of_children() -> int:
    """Bytes of all descendants; what several share is divided among them."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family - {os.getpid()}:
        try:
            lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total


def judged(folder: Path, workers: int, python_path: Sequence[Path]) -> tuple[dict[str, float], float]:
    """The points of every student in a course's folder, and the seconds that it took."""
    assignment = next((folder / "source").iterdir())
    source_path = next(assignment.glob("*.ipynb"))
    tasks = [
        GradingTask(student.name, source_path, student / assignment.name / source_path.name)
        for student in sorted((folder / "submitted").iterdir())
    ]
    started = time.perf_counter()
    with Judge(workers=workers, python_path=python_path) as judge:
        graded = tqdm(judge.grade_many(tasks), total=len(tasks), desc="judge", unit="submission")
        points = {task.student: result.points for task, result in graded}
    return points, time.perf_counter() - started


def stock(folder: Path, students: Sequence[str]) -> tuple[dict[str, float], float]:
    """The same of stock nbgrader, for some of the students; the seconds of `autograde` alone."""
    from nbgrader.api import Gradebook

    assignment = next((folder / "source").iterdir()).name
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def nbgrader(*arguments: str) -> None:
        environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"}
        subprocess.run(
            ["nbgrader", *arguments],
            cwd=folder,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    (folder / "nbgrader_config.py").write_text("c = get_config()\nc.CourseDirectory.course_id = 'bench'\n")
    nbgrader("generate_assignment", assignment)
    for other in (folder / "submitted").iterdir():
        if other.name not in students:
            shutil.rmtree(other)
    started = time.perf_counter()
    nbgrader("autograde", assignment)
    seconds = time.perf_counter() - started
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        found = {
            student: sum(
                grade.auto_score or 0.0
                for notebook in book.find_submission(assignment, student).notebooks
                for grade in notebook.grades
            )
            for student in students
        }
    return found, seconds


def measure(kind: str, submissions: int, sample: int, workers: int) -> Measured:
    """Grades a class of `submissions` with the judge, and the first `sample` of it with nbgrader."""
    original, notebooks = (light_class if kind == "light" else week_class)(submissions)
    students = [f"s{number:04}" for number in range(submissions)]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        places = [folder / "source" / kind, *(folder / "submitted" / s / kind for s in students)]
        for place, notebook in zip(places, [original, *notebooks], strict=True):
            place.mkdir(parents=True)
            (place / "build.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        edition = stack.enter_context(student_edition(COURSE, kind)) if kind != "light" else ()
        with peak_memory() as memory:
            points, seconds = judged(folder, workers, edition)
        with peak_memory() as stock_memory:
            stock_points, stock_seconds = stock(folder, students[:sample])
    same = sum(abs(points[student] - stock_points[student]) < 1e-6 for student in students[:sample])
    return Measured(kind, submissions, seconds, sample, stock_seconds, memory[0], stock_memory[0], same)


def report(found: Measured) -> str:
    """One measurement in words."""
    judge, stock_rate = found.submissions / found.judge_seconds, found.stock_sample / found.stock_seconds
    return (
        f"{found.notebook}: judge {judge:.2f}/s ({found.submissions} in {found.judge_seconds:.1f} s, "
        f"{found.peak_megabytes:.0f} MB), nbgrader {stock_rate:.2f}/s (a sample of {found.stock_sample} in "
        f"{found.stock_seconds:.1f} s, {found.stock_peak_megabytes:.0f} MB): {found.ratio:.1f} times; "
        f"the same marks for {found.same_marks} of {found.stock_sample}"
    )


def main() -> None:
    """Measures both classes, prints what it finds and writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--submissions", type=int, default=200, help="of the light notebook")
    parser.add_argument("--sample", type=int, default=10, help="of these, graded by nbgrader too")
    parser.add_argument("--week-submissions", type=int, default=20, help="of week 3; 0 to leave it out")
    parser.add_argument("--week-sample", type=int, default=3, help="of these, graded by nbgrader too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the numbers to this file, .json")
    arguments = parser.parse_args()
    found = [measure("light", arguments.submissions, arguments.sample, arguments.workers)]
    print(report(found[0]), flush=True)
    if arguments.week_submissions:
        found.append(measure("week03", arguments.week_submissions, arguments.week_sample, arguments.workers))
        print(report(found[1]), flush=True)
    if arguments.out is not None:
        rows = [{**asdict(item), "ratio": item.ratio} for item in found]
        content = {**machine(), "workers": arguments.workers, "classes": rows}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
