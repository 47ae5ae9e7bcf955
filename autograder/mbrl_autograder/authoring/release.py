"""Makes the bundle that an instructor hands out: notebooks, data, and the student edition of the package."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from mbrl_autograder.authoring.build import check
from mbrl_autograder.authoring.course import (
    PACKAGE,
    AuthoringError,
    Course,
    package_imports,
    parse_file,
)
from mbrl_course.weeks import WEEKS, Week, modules_due

# Only the instructor's side needs these.
INSTRUCTOR_ONLY = ("nbgrader", "jupytext", "setuptools")

README = """\
# {title} ({week})

You need Python 3.11 or newer. Unpack this folder, open a terminal in it, and type:

On Linux and macOS:

    python3 -m venv .venv
    .venv/bin/python -m pip install -c constraints.txt {wheel}
    .venv/bin/jupyter lab build.ipynb

On Windows:

    py -m venv .venv
    .venv\\Scripts\\python -m pip install -c constraints.txt {wheel}
    .venv\\Scripts\\jupyter lab build.ipynb

Start with `build.ipynb`. Where a cell says `raise NotImplementedError`, replace that line by your code, run
the cell, then run the check below it: its message says what is wrong. {experiments}

The package `mbrl_course` that you just installed holds what the course has written so far. What you write
this week is not in it.

Hand in {hand_in}. On Linux and macOS,

    .venv/bin/mbrl-course pack {week}

(on Windows `.venv\\Scripts\\mbrl-course pack {week}`) looks whether anything is missing, and packs them into
`{week}-hand-in.zip`: hand in that file.
"""
EXPERIMENTS = """When all checks pass, save the
notebook and open `experiments.ipynb`: it runs on what you wrote."""


def release(week_name: str | int, course: Course | None = None) -> Path:
    """Writes release/weekNN.zip, which holds the folder that students get.

    Raises:
        UnknownWeekError: no such week.
        AuthoringError: the week has no sources, or its notebooks are stale.
    """
    course = course or Course.here()
    (week,) = course.select(week_name)
    problems = check([week.id], course=course)
    if problems:
        raise AuthoringError(problems)
    target = course.root / "release" / f"{week.id}.zip"
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / week.id
        ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__", "runs")
        names = sorted(path.name for path in course.sources(week))
        folder.mkdir()
        for name in names:
            notebook = Path(name).with_suffix(".ipynb").name
            shutil.copyfile(course.weeks_dir(week) / notebook, folder / notebook)
        if (course.weeks_dir(week) / "data").is_dir():
            shutil.copytree(course.weeks_dir(week) / "data", folder / "data", ignore=ignored)
        wheel = student_wheel(week, folder, course)
        shutil.copyfile(course.root / "constraints.txt", folder / "constraints.txt")
        notebooks = [f"`{Path(name).stem}.ipynb`" for name in names]
        text = README.format(
            title=week.title,
            week=week.id,
            wheel=wheel.name,
            experiments=EXPERIMENTS if "experiments.py" in names else "",
            hand_in=" and ".join(notebooks),
        )
        (folder / "README.md").write_text(text, encoding="utf-8")
        _zip(folder, target)
    return target


def student_wheel(week: Week, target: Path, course: Course | None = None) -> Path:
    """Builds the student edition of `week` as a wheel in the folder `target`, offline.

    It is the package without the modules that are due in this week or later, and without the experiments of
    later weeks; in it are the week's notebooks as they are released.

    Returns:
        The wheel's path; its version is the package's with "+weekNN".

    Raises:
        RuntimeError: setuptools fails.
    """
    course = course or Course.here()
    project = tomllib.loads((course.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(
            course.package_dir, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
        )
        for path in course.weeks_dir(week).glob("*.ipynb"):  # what `mbrl-course pack` compares with
            target_path = folder / PACKAGE / "released" / week.id / path.name
            target_path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target_path)
        for module in _left_out(course, week):
            folder.joinpath(PACKAGE, *module.split(".")).with_suffix(".py").unlink(missing_ok=True)
        (folder / "pyproject.toml").write_text(_pyproject(project, week), encoding="utf-8")
        (folder / "README.md").write_text(f"# {PACKAGE}, student edition of {week.id}\n", encoding="utf-8")
        script = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
        result = subprocess.run(
            [sys.executable, "-c", script, str(target.resolve())],
            cwd=folder,
            env=os.environ | {"SOURCE_DATE_EPOCH": "1704067200"},  # the same files give the same bytes
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"the wheel of {week.id} can't be built:\n{result.stderr[-2000:]}")
        return target / result.stdout.split()[-1]


def _left_out(course: Course, week: Week) -> list[str]:
    """What is due, the experiments of later weeks, and whatever stands on what comes later."""
    later = {f"experiments.{other.id}" for other in WEEKS if other.number > week.number}
    later |= {module for module in modules_due(week) if module not in week.modules}
    uses = {}
    for path in course.package_dir.rglob("[!_]*.py"):
        name = ".".join(path.relative_to(course.package_dir).with_suffix("").parts)
        uses[name] = _imported_at_once(path, name)
    while more := {name for name, used in uses.items() if used & later} - later:
        later |= more
    return sorted({*modules_due(week), *later})


def _imported_at_once(path: Path, name: str) -> set[str]:
    """Modules of the package that a module imports when it is imported itself."""
    return {
        found
        for statement in parse_file(path).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for found in package_imports(statement, name)
    }


def _pyproject(project: dict[str, Any], week: Week) -> str:
    """The wheel's own pyproject.toml. Strings are quoted by repr, which TOML reads as literal strings."""
    needs = [
        name
        for name in project["dependencies"]
        if re.split(r"[^A-Za-z0-9_-]", name)[0] not in INSTRUCTOR_ONLY
    ]
    scripts = project.get("scripts", {})
    lines = [
        "[build-system]",
        'requires = ["setuptools"]',
        'build-backend = "setuptools.build_meta"',
        "[project]",
        f'name = "{project["name"]}"',
        f'version = "{project["version"]}+{week.id}"',
        f'description = "{project.get("description", "")}"',
        'readme = "README.md"',
        f'requires-python = "{project["requires-python"]}"',
        f"dependencies = {needs!r}",
        "[project.scripts]",
        *(f'{name} = "{entry}"' for name, entry in scripts.items() if entry.startswith(f"{PACKAGE}.")),
        "[tool.setuptools]",
        "include-package-data = false",
        "[tool.setuptools.packages.find]",
        f'include = ["{PACKAGE}*"]',
        "namespaces = false",
        "[tool.setuptools.package-data]",
        '"*" = ["*.csv", "results/*.csv", "*.xml", "assets/*", "*.npz", "py.typed", "released/*/*.ipynb"]',
    ]
    return "\n".join(lines) + "\n"


def _zip(folder: Path, target: Path) -> None:
    """Packs a folder; the same files give the same bytes."""
    partial = target.with_suffix(".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = zipfile.ZipInfo(path.relative_to(folder.parent).as_posix(), (2024, 1, 1, 0, 0, 0))
                info.external_attr = 0o644 << 16
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
    partial.replace(target)
