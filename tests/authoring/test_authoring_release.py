"""The bundle for students, and the edition of the package in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import minicourse
from mbrl_autograder.authoring import AuthoringError, Course, build, release
from mbrl_autograder.authoring.execute import execute_notebook
from mbrl_autograder.authoring.lint import load
from mbrl_autograder.authoring.notebook import assemble, to_text
from mbrl_autograder.authoring.release import student_wheel
from mbrl_autograder.grading import student_edition
from mbrl_course.weeks import Week, find_week, modules_before, modules_due


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = minicourse.make_course(tmp_path_factory.mktemp("course"))
    data = course.source_dir(find_week(2)) / "data"
    data.mkdir()
    (data / "numbers.csv").write_text("1,2\n")
    experiments = course.package_dir / "experiments"
    experiments.mkdir()
    for name in ("__init__", "week01", "week02", "week03"):
        (experiments / f"{name}.py").write_text('"""Experiments."""\n')
    (course.package_dir / "__pycache__").mkdir()
    (course.package_dir / "__pycache__" / "mpc.cpython-311.pyc").write_bytes(b"secret")
    build(course=course, progress=False, execute=False)
    return course


# An editable installation answers for every module of the package that the edition lacks.
HIDE_EDITABLE = """import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in str(finder)]
"""


def install(wheel: Path, target: Path) -> Path:
    """Installs a wheel alone into a folder, offline."""
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, capture_output=True)
    (target / "sitecustomize.py").write_text(HIDE_EDITABLE)
    return target


def test_the_bundle_holds_what_a_student_needs(course: Course) -> None:
    path = release("week02", course)
    assert path == course.root / "release" / "week02.zip"
    with zipfile.ZipFile(path) as bundle:
        names = set(bundle.namelist())
        readme = bundle.read("week02/README.md").decode()
        notebook = bundle.read("week02/build.ipynb").decode()
    wheel = "mini-0.1.0+week02-py3-none-any.whl"
    assert names == {
        f"week02/{name}"
        for name in (
            *("build.ipynb", "experiments.ipynb", "data/numbers.csv"),
            *("README.md", "constraints.txt", wheel),
        )
    }
    assert f"pip install -c constraints.txt {wheel}" in readme and "`experiments.ipynb`" in readme
    assert "fsum" not in notebook and "NotImplementedError" in notebook
    before = path.read_bytes()
    assert release(2, course).read_bytes() == before, "the same sources give the same bundle"


def test_the_edition_lacks_what_is_due(course: Course, tmp_path: Path) -> None:
    with zipfile.ZipFile(student_wheel(find_week(2), tmp_path, course)) as wheel:
        modules = {name for name in wheel.namelist() if name.endswith(".py")}
        metadata = wheel.read("mini-0.1.0+week02.dist-info/METADATA").decode()
        entries = wheel.read("mini-0.1.0+week02.dist-info/entry_points.txt").decode()
        assert not any(name.endswith(".pyc") for name in wheel.namelist())
        released = wheel.read("mbrl_course/released/week02/build.ipynb").decode()
    assert released == (course.weeks_dir(find_week(2)) / "build.ipynb").read_text(encoding="utf-8")
    stems = {"__init__", "buffers", "dynamics", "plots", "student", "student_notebook", "weeks"}
    stems |= {"experiments/__init__", "experiments/week01", "experiments/week02"}
    assert modules == {f"mbrl_course/{stem}.py" for stem in stems}
    assert "Requires-Dist: numpy>=2" in metadata and "nbgrader" not in metadata
    assert "mbrl_course.cli:main" in entries and "autograder" not in entries


def test_a_week_in_another_folder_is_graded_with_this_checkouts_edition(tmp_path: Path) -> None:
    with student_edition(tmp_path, "week02") as (folder,):
        assert (folder / "mbrl_course" / "buffers.py").is_file()
        assert not (folder / "mbrl_course" / "mpc.py").exists()
    with student_edition(tmp_path, "sums") as folders:
        assert folders == ()


def test_a_stale_week_is_not_released(course: Course) -> None:
    path = course.weeks_dir(find_week(1)) / "build.ipynb"
    text = path.read_text()
    path.write_text(text.replace("Keep the last few.", "Cheat."))
    with pytest.raises(AuthoringError, match="stale"):
        release(1, course)
    path.write_text(text)
    assert release(1, course).is_file()
    with pytest.raises(AuthoringError, match="week03 has no"):
        release(3, course)


def run_on_edition(
    course: Course, week: Week, folder: Path, parameters: dict[str, str] | None = None
) -> None:
    """Runs a week's solution notebooks with the student edition as the only `mbrl_course` there is."""
    edition = install(student_wheel(week, folder, course), folder / "edition")
    code = (
        "import importlib.util as u, mbrl_course; print(mbrl_course.__file__)\n"
        f"print([m for m in {modules_due(week)!r} if u.find_spec('mbrl_course.' + m)])\n"
        f"print([m for m in {modules_before(week)!r} if not u.find_spec('mbrl_course.' + m)])"
    )
    result = minicourse.run_python(code, folder, edition)
    assert result.returncode == 0, result.stderr
    file, due, missing = result.stdout.splitlines()
    assert Path(file).is_relative_to(edition) and (due, missing) == ("[]", "[]")
    for path in course.sources(week):
        source = load(course, path)
        assert source.problems == []
        notebook = assemble(source)
        (folder / f"{path.stem}.ipynb").write_text(to_text(notebook))
        values = parameters if path.stem == "experiments" else None
        execute_notebook(notebook, folder, edition, parameters=values, progress=False)


def test_solutions_of_the_small_course_run_on_its_edition(course: Course, tmp_path: Path) -> None:
    run_on_edition(course, find_week(2), tmp_path, {"SCALE": "smoke"})


REAL = Course.here()


@pytest.mark.slow
@pytest.mark.parametrize("week", REAL.select(None), ids=lambda week: week.id)
def test_all_of_an_edition_can_be_imported(week: Week, tmp_path: Path) -> None:
    edition = install(student_wheel(week, tmp_path, REAL), tmp_path / "edition")
    code = (
        "import importlib, pkgutil, mbrl_course\n"
        "for module in pkgutil.walk_packages(mbrl_course.__path__, 'mbrl_course.'):\n"
        "    try:\n"
        "        importlib.import_module(module.name)\n"
        "    except ModuleNotFoundError as error:  # some may need what the student writes this week\n"
        f"        if error.name not in {[f'mbrl_course.{name}' for name in week.modules]}: raise"
    )
    result = minicourse.run_python(code, tmp_path, edition)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("week", REAL.select(None), ids=lambda week: week.id)
def test_each_weeks_solutions_run_on_its_student_edition(week: Week, tmp_path: Path) -> None:
    run_on_edition(REAL, week, tmp_path, {"SCALE": "smoke"})
