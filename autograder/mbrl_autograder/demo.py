"""`mbrl-course demo`: the whole course at work in a few minutes, on week 3.

Releases the week, lets a sample class hand in, grades it, writes feedback pages and `grades.csv`; then runs
the agent of the lesson, CEM planning with the true dynamics, and saves a film of it. One of the class tries
to cheat, one never ends, one hands in no notebook.
"""

from __future__ import annotations

import ast
import re
import shutil
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nbformat
import torch
from nbformat import NotebookNode
from tqdm import tqdm

from mbrl_autograder import authoring
from mbrl_autograder.grading import ClassResult, GradingError, Limits, Options, format_table, grade
from mbrl_autograder.grading.notebooks import grade_id
from mbrl_autograder.judge import SandboxError
from mbrl_course.cem import CEMConfig, CEMPlanner
from mbrl_course.envs import get_task
from mbrl_course.films import episode_film
from mbrl_course.mpc import run_episode

WEEK = "week03"
SAMPLES = Path(__file__).parent / "samples"
MARKER = ".made-by-mbrl-course-demo"  # what the demo may delete when it starts afresh
CHEAT = "patches-the-checks"
LIMITS = Limits(cell_seconds=6, submission_seconds=60)  # the loop that never ends is to be cut soon


class DemoError(Exception):
    """The demo cannot run; the message says what to do."""


def run_demo(out: Path, *, workers: int = 2, max_steps: int | None = None) -> ClassResult:
    """Runs the demo in the folder `out`, and prints what it does.

    Args:
        out: made if it is not there; what an earlier demo left in it is deleted.
        workers: submissions that are graded at the same time.
        max_steps: length of the agent's episode; the task's own by default.

    Raises:
        DemoError: `out` holds something else, or there are no notebooks of the week.
    """
    started = time.monotonic()
    _clear(out)
    print(f"1/4 Releasing {WEEK}: the notebooks and the package as students get them")
    edition = _release(out)
    number = len(sample_students())
    print(
        f"2/4 A sample class of {number} hands in; one of them replaces the checks by others, one never ends,"
    )
    print("    one is not a notebook")
    submissions = out / "submissions"
    release = nbformat.read(out / "release" / WEEK / "build.ipynb", as_version=4)
    for student in sample_students():
        write_submission(student, release, submissions / student / WEEK / "build.ipynb")
    print("3/4 Grading: their code runs in a sandbox, the tests outside of it")
    result = _grade(out, Options(limits=LIMITS, workers=workers, python_path=(edition,)))
    shutil.copyfile(result.csv, out / "grades.csv")
    print(f"\n{format_table(result)}\n")
    earned = next(row.total for row in result.rows if row.student == CHEAT)
    print(
        f"{CHEAT} replaced every check by one that always passes. But checks don't run where students'\n"
        f"code runs: it earns {earned:g} points, those of the one function that it did write.\n"
    )
    print("4/4 The agent of the lesson: CEM swings up a cart-pole, planning with the true dynamics")
    film = film_agent(out / "cem_swingup.gif", max_steps=max_steps)
    print(f"\nmarks:     {out / 'grades.csv'}\nfeedback:  {out / 'course' / 'feedback'}")
    print(f"the class: {result.overview}\nfilm:      {film}")
    print(f"finished after {time.monotonic() - started:.0f} s")
    return result


def _grade(out: Path, options: Options) -> ClassResult:
    """Grades the class; without the sandbox where there is none, since these students mean no harm."""
    try:
        return grade(WEEK, out / "submissions", out / "course", options)
    except GradingError as error:
        if not (options.sandbox and isinstance(error.__cause__, SandboxError)):
            raise DemoError(str(error)) from error
        print(f"    {error}\n    The sample class is harmless: it is graded with --no-sandbox.")
        return _grade(out, replace(options, sandbox=False))


def _clear(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).is_file())):
        raise DemoError(f"{out} is there already and was not made by the demo: pass another folder as --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).write_text(
        "`mbrl-course demo` deletes this folder when it runs again.\n", encoding="utf-8"
    )


def _release(out: Path) -> Path:
    """Unpacks the week's bundle, sets up a course directory, and returns the student edition's folder."""
    try:
        bundle = authoring.release(WEEK)
    except (authoring.AuthoringError, FileNotFoundError) as error:
        raise DemoError(
            f"{WEEK} cannot be released: {error}\nrun `mbrl-course build {WEEK}` first"
        ) from error
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(out / "release")
    (wheel,) = (out / "release" / WEEK).glob("*.whl")
    edition = out / "edition"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(edition)
    checkout = authoring.Course.here()
    source = out / "course" / "solutions" / WEEK
    ignored = shutil.ignore_patterns("experiments.ipynb", ".*")  # the class hands in `build` only
    shutil.copytree(checkout.root / "solutions" / WEEK, source, ignore=ignored)
    shutil.copy(checkout.root / "nbgrader_config.py", out / "course")
    return edition


def sample_students() -> list[str]:
    """The names of the sample class."""
    return sorted(path.name for path in SAMPLES.iterdir() if path.is_dir() and any(path.glob("*.txt")))


def write_submission(student: str, release: NotebookNode, path: Path) -> None:
    """Writes what a student of the sample class hands in, made from the release of today."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = SAMPLES / student / "build.txt"
    if raw.is_file():
        shutil.copyfile(raw, path)
        return
    answers = (SAMPLES / student / "answers.txt").read_text(encoding="utf-8")
    nbformat.write(fill_in(release, answers), path)


def fill_in(release: NotebookNode, answers: str) -> NotebookNode:
    """The release with a student's functions in place of those of the same names.

    Args:
        release: the notebook that students get.
        answers: the text of functions, after a cell `# %% first` if there is one.

    Raises:
        ValueError: the notebook has no gap for a function, so that the answers are those of another notebook.
    """
    notebook = nbformat.from_dict(release)
    first, functions = _split(answers)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code":
            cell.source, used = _replace_functions(cell.source, functions)
            functions = {name: text for name, text in functions.items() if name not in used}
    if functions:
        gaps = ", ".join(grade_id(cell) for cell in notebook.cells if grade_id(cell))
        raise ValueError(f"the notebook asks for no function {', '.join(functions)}; its cells are {gaps}")
    if first:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(first))
    return notebook


def _split(answers: str) -> tuple[str, dict[str, str]]:
    """The student's own first cell, and the functions by name, each with the comment above it."""
    first = ""
    if answers.startswith("# %% first\n"):
        first, _, answers = answers.removeprefix("# %% first\n").partition("\n\n\n")
    functions: dict[str, str] = {}
    for block in re.split(r"\n\n\n+", answers.strip()):
        if block:
            functions[_names(block)[0]] = block
    return first, functions


def _names(source: str) -> list[str]:
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]


def _replace_functions(source: str, functions: Mapping[str, str]) -> tuple[str, set[str]]:
    lines = source.split("\n")
    used = set()
    for node in reversed(ast.parse(source).body):
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            lines[node.lineno - 1 : node.end_lineno] = functions[node.name].split("\n")
            used.add(node.name)
    return "\n".join(lines), used


def film_agent(path: Path, *, max_steps: int | None = None) -> Path:
    """Runs CEM with the true dynamics on the cart-pole swing-up, and saves a film of the episode.

    Args:
        path: where the GIF goes.
        max_steps: length of the episode; the task's own by default.
    """
    task = get_task("cartpole-swingup")
    generator = torch.Generator().manual_seed(0)
    planner = CEMPlanner(task, task.action_low, task.action_high, CEMConfig(), generator)
    steps = max_steps or task.max_steps
    with tqdm(total=steps, desc="planning", unit="step") as bar:
        episode = run_episode(task, _Counted(planner, bar), seed=0, max_steps=steps)
    print(f"return {episode.reward.sum():.0f} in {len(episode.reward)} steps")
    return episode_film(task, episode.next_obs, rewards=episode.reward, title="CEM, true dynamics").save(path)


class _Counted:
    """A planner that moves a progress bar."""

    def __init__(self, planner: CEMPlanner, bar: tqdm) -> None:
        self.planner, self.bar = planner, bar

    def reset(self) -> None:
        self.planner.reset()

    def plan(self, obs: torch.Tensor) -> torch.Tensor:
        self.bar.update()
        return self.planner.plan(obs)
