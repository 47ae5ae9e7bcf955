"""What each verb of `mbrl-course` does; `cli.py` reads the command line.

A verb imports what it needs when it runs, so that `mbrl-course --help` answers at once, and so that the
student edition, which has no instructor's side, can have the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

OK, PROBLEM, USAGE, INTERRUPTED = 0, 1, 2, 130


class CommandError(Exception):
    """The command cannot be carried out; the message says why, and what to do instead."""


def build(options: argparse.Namespace) -> int:
    """Regenerates solutions/ and weeks/."""
    authoring = _instructor_part("authoring")
    return _authored(lambda: _show_built(authoring.build(options.weeks or None, force=options.force)))


def _show_built(report: Sequence[Any]) -> int:
    for built in report:
        what = "executed" if built.executed else "written" if built.written else "unchanged"
        print(f"{built.path}: {what} ({built.seconds:.0f} s)")
    return OK


def check(options: argparse.Namespace) -> int:
    """Lists what is stale."""
    authoring = _instructor_part("authoring")

    def report() -> int:
        problems = authoring.check()
        for problem in problems:
            print(problem)
        if problems:
            print(
                f"{len(problems)} found: run `mbrl-course build` and commit what it writes", file=sys.stderr
            )
            return PROBLEM
        print("solutions/ and weeks/ are what the sources give")
        return OK

    return _authored(report)


def release(options: argparse.Namespace) -> int:
    """Makes a week's bundle."""
    authoring = _instructor_part("authoring")

    def make() -> int:
        print(authoring.release(_week_id(options.week)))
        return OK

    return _authored(make)


def _authored(action: Callable[[], int]) -> int:
    """Runs an authoring verb, and says what it found wrong."""
    from mbrl_autograder.authoring import AuthoringError
    from mbrl_course.weeks import UnknownWeekError

    try:
        return action()
    except AuthoringError as error:
        print(error, file=sys.stderr)
        return PROBLEM
    except (UnknownWeekError, FileNotFoundError) as error:
        raise CommandError(str(error)) from error


def grade(options: argparse.Namespace) -> int:
    """Grades a class, and prints the table, or JSON."""
    grading = _instructor_part("grading")
    from mbrl_course.weeks import UnknownWeekError

    limits = grading.Limits(
        cell_seconds=options.cell_timeout,
        scratch_seconds=options.scratch_timeout,
        submission_seconds=options.timeout,
        memory_bytes=options.memory,
        processes=options.processes,
        file_bytes=options.file_size,
    )
    try:
        course = options.course or grading.find_course()
        if options.dry_run:
            found = grading.preview(options.week, options.submissions, course, limits)
            print(json.dumps(dataclasses.asdict(found), indent=1) if options.json else found)
            return PROBLEM if found.ungradable else OK
        with grading.student_edition(course, options.week) as edition:
            how = grading.Options(
                limits=limits,
                workers=options.workers,
                sandbox=not options.no_sandbox,
                python_path=edition,
                scheduler=options.scheduler,
                fresh=options.fresh,
            )
            result = grading.grade(options.week, options.submissions, course, how)
    except (grading.GradingError, UnknownWeekError) as error:
        raise CommandError(str(error)) from error
    if options.json:
        print(json.dumps(grading.as_json(result), indent=1))
    else:
        print(grading.format_table(result))
    if result.ungraded:
        names = ", ".join(row.student for row in result.ungraded)
        print(f"not graded, or not to the end: {names}", file=sys.stderr)
        return PROBLEM
    return OK


def rerun(options: argparse.Namespace) -> int:
    """Runs notebooks that are marked by hand again."""
    grading = _instructor_part("grading")
    from mbrl_course.weeks import UnknownWeekError

    limits = grading.Limits(
        cell_seconds=options.timeout, submission_seconds=options.timeout, memory_bytes=options.memory
    )
    complete = True
    try:
        course = options.course or grading.find_course()
        with grading.student_edition(course, options.week) as edition:
            how = grading.Options(limits=limits, sandbox=not options.no_sandbox, python_path=edition)
            values = dict(options.values or [])
            for one in grading.rerun(options.week, options.students, course, how, options.notebook, values):
                complete = complete and one.complete
                print(f"{one.student}: {one}\n  {one.path}")
                print(f"  {one.page or 'no page for the marker: grade this submission first'}", flush=True)
    except (grading.GradingError, UnknownWeekError) as error:
        raise CommandError(str(error)) from error
    return OK if complete else PROBLEM


def demo(options: argparse.Namespace) -> int:
    """Shows the whole course at work."""
    demo = _instructor_part("demo")
    try:
        demo.run_demo(options.out)
    except demo.DemoError as error:
        raise CommandError(str(error)) from error
    return OK


def pack(options: argparse.Namespace) -> int:
    """Checks a student's notebooks and packs them."""
    from mbrl_course import packing
    from mbrl_course.weeks import UnknownWeekError

    try:
        packed = packing.pack(options.week, options.notebook, options.release)
    except (packing.PackError, UnknownWeekError) as error:
        raise CommandError(str(error)) from error
    for notebook in packed.notebooks:
        print(f"{notebook.path.name}: {notebook.summary}")
        _list("put right in the packed copy:", notebook.repaired)
        _list("look at this before you hand in:", notebook.remarks)
    for name in packed.absent:
        print(f"{name}.ipynb: not there, so not packed")
    print(f"\npacked: {packed.path}\nHand in this file.")
    return OK


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print(f"  {title}")
    for line in lines:
        print(f"    - {line}")


def lab(options: argparse.Namespace) -> int:
    """Opens JupyterLab."""
    week = _week_id(options.week) if options.week else ""
    folder = _weeks_folder()
    if week:
        folder = folder / week
        if not folder.is_dir():
            raise CommandError(f"there is no folder {folder}: run `mbrl-course build {week}` first")
    command = [sys.executable, "-m", "jupyterlab"]
    return subprocess.run(command, cwd=folder, check=False).returncode


def _weeks_folder() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "weeks").is_dir() and any((folder / "weeks").glob("week*")):
            return folder / "weeks"
    raise CommandError(
        f"found no weeks/ with notebooks at or above {here}: run this in the course's checkout, after "
        "`mbrl-course build`; with an unpacked bundle, run `jupyter lab` in its folder"
    )


def _week_id(name: str) -> str:
    from mbrl_course.weeks import UnknownWeekError, find_week

    try:
        return find_week(name).id
    except UnknownWeekError as error:
        raise CommandError(str(error)) from error


def _instructor_part(name: str) -> Any:
    """A module of the instructor's side, which the student edition does not have."""
    try:
        return importlib.import_module(f"mbrl_autograder.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mbrl_autograder"):
            reason = (
                "this is the student edition, without the instructor's side: use a checkout of the course"
            )
        else:
            reason = f"the package {error.name} is not installed: run `make setup` in the checkout"
        raise CommandError(reason) from error
