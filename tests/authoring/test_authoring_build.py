"""From sources to `solutions/` and `weeks/`, and whether these are fresh."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.nbgraderformat import MetadataValidator

import minicourse
from mbrl_autograder.authoring import AuthoringError, Course, build, check, execute
from mbrl_autograder.authoring.__main__ import main
from mbrl_autograder.authoring.build import fingerprint
from mbrl_autograder.authoring.execute import ExecutionError, execute_notebook
from mbrl_autograder.authoring.lint import load
from mbrl_autograder.authoring.notebook import EXECUTED_KEY, METADATA_KEY, assemble, silent, to_text
from mbrl_autograder.authoring.source import parse
from mbrl_course.weeks import find_week

NOTEBOOKS = ["week01/build", "week02/build", "week02/experiments"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Course:
    course = minicourse.make_course(tmp_path_factory.mktemp("course"))
    data = course.source_dir(find_week(2)) / "data"
    data.mkdir()
    (data / "numbers.csv").write_text("1,2\n")
    build(course=course, progress=False)
    return course


@pytest.fixture
def course(built: Course, tmp_path: Path) -> Course:
    """A copy of the built course, which a test may change."""
    shutil.copytree(built.root, tmp_path / "course", symlinks=True)
    return Course((tmp_path / "course").resolve())


def read(path: Path) -> NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def files(course: Course) -> dict[str, bytes]:
    folders = (course.root / "solutions", course.root / "weeks")
    return {str(course.show(p)): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def source_of(course: Course, name: str = "build") -> Path:
    return course.source_dir(find_week(2)) / f"{name}.py"


def executed(course: Course, **options: bool) -> list[str]:
    """The notebooks that a build runs."""
    report = build(course=course, progress=False, **options)
    return [str(item.path.relative_to("solutions").with_suffix("")) for item in report if item.executed]


def test_solutions_are_executed_nbgrader_sources(built: Course) -> None:
    notebook = read(built.root / "solutions/week02/build.ipynb")
    MetadataValidator().validate_nb(notebook)
    ids = [cell.metadata.nbgrader.grade_id for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert ids == [
        *("setup-1", "given-1", "total", "total-test-1", "total-test-2"),
        *("given-2", "planner", "planner-test-1"),
    ]
    cells = {cell.id: cell for cell in notebook.cells}
    assert (
        cells["total-test-2"].metadata.nbgrader.points == 2 and cells["total-test-2"].metadata.nbgrader.locked
    )
    assert cells["total"].metadata.nbgrader.solution and not cells["total"].metadata.nbgrader.locked
    assert not cells["setup-1"].metadata.nbgrader.grade and cells["setup-1"].metadata.nbgrader.locked
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", [])]
    assert printed == ["total 3.0\n"]
    assert "execution" not in str(notebook.metadata) and notebook.metadata.language_info == {"name": "python"}
    numbers = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert numbers == list(range(1, len(numbers) + 1))  # the same in each build; nbval needs them


def test_students_get_stubs_and_no_secret(built: Course) -> None:
    text = (built.root / "weeks/week02/build.ipynb").read_text()
    for secret in ("fsum", "SOLUTION", "HIDDEN", "three rewards", "executed", "total 3.0"):
        assert secret not in text
    assert text.count("raise NotImplementedError") == 3
    notebook = read(built.root / "weeks/week02/build.ipynb")
    assert all(cell.get("outputs", []) == [] for cell in notebook.cells)
    header = next(cell.source for cell in notebook.cells if "Exercise 2.1" in cell.source)
    assert header.startswith("### Exercise 2.1 · Add up\ndifficulty ●●○○○ · about 10 minutes · 3 points\n\n")
    total = next(cell.source for cell in notebook.cells if cell.id == "total")
    assert total.endswith(
        "    # TODO: the weights, then the sum\n    # YOUR CODE HERE\n"
        '    raise NotImplementedError("this part is still to be written")'
    )


def test_written_questions_are_marked_by_hand(built: Course) -> None:
    solution = read(built.root / "solutions/week02/experiments.ipynb").cells[-1]
    student = read(built.root / "weeks/week02/experiments.ipynb").cells[-1]
    assert "Rubric" in solution.source and student.source == "YOUR ANSWER HERE"
    meta = student.metadata.nbgrader
    assert (meta.grade_id, meta.points, meta.grade, meta.solution) == ("why", 3, True, True)


def test_experiments_run_on_the_notebook_beside_them(built: Course) -> None:
    outputs = [
        out
        for cell in read(built.root / "solutions/week02/experiments.ipynb").cells
        for out in cell.get("outputs", [])
    ]
    assert outputs[0].data["text/plain"] == "mbrl_course.mpc is now what build.ipynb defines."
    assert outputs[1].text == "sum 1.875\n"


def test_data_are_copied(built: Course) -> None:
    for folder in ("solutions", "weeks"):
        assert (built.root / folder / "week02/data/numbers.csv").read_text() == "1,2\n"


def test_an_unchanged_course_is_left_alone(course: Course) -> None:
    before = files(course)
    assert executed(course) == []
    assert executed(course, force=True) == NOTEBOOKS
    assert files(course) == before
    assert check(course=course) == []


def outdated(course: Course) -> list[str]:
    """The notebooks that a build would run, by the note of what they were run with; then takes a new note."""
    found = []
    for week in course.select(None):
        for path in course.sources(week):
            solution = course.solutions_dir(week) / f"{path.stem}.ipynb"
            notebook = read(solution)
            source = load(course, path)
            now = fingerprint(course, source, assemble(source))
            if notebook.metadata[METADATA_KEY][EXECUTED_KEY] != now:
                found.append(f"{week.id}/{path.stem}")
            notebook.metadata[METADATA_KEY][EXECUTED_KEY] = now
            solution.write_text(to_text(notebook))
    return found


def test_only_what_changed_is_run_again(course: Course) -> None:
    package = course.package_dir
    assert outdated(course) == []
    edit(package / "plots.py", "Draws", "Draws much")
    assert outdated(course) == [], "no notebook imports it"
    edit(package / "dynamics.py", "Predicts", "Predicts well")
    assert outdated(course) == ["week01/build"]
    edit(package / "buffers.py", "Keeps things", "Keeps all things")
    assert outdated(course) == NOTEBOOKS, "imported by all, the last through mpc"
    edit(source_of(course), "# A plan is a list.", "# A plan is just a list.")
    assert outdated(course) == NOTEBOOKS[1:], "experiments run on the build notebook"
    (course.source_dir(find_week(2)) / "data/numbers.csv").write_text("3")
    assert outdated(course) == NOTEBOOKS[1:]
    edit(source_of(course, "experiments"), "# # Experiments", "# # All experiments")
    assert outdated(course) == NOTEBOOKS[2:]
    edit(
        source_of(course, "experiments"),
        "# # All experiments",
        '# %%\nshow("sums")\n# %% [markdown]\n# # Sums',
    )
    assert outdated(course) == NOTEBOOKS[2:]
    (package / "results").mkdir()
    (package / "results/other-sums-laptop.csv").write_text("1")
    assert outdated(course) == [], "no notebook shows it"
    (package / "results/sums-laptop.csv").write_text("1")
    assert outdated(course) == NOTEBOOKS[2:], "shows these results"
    edit(
        source_of(course, "experiments"),
        '# %%\nshow("sums")\n# %% [markdown]\n# # Sums',
        "# # Experiments at last",
    )
    assert executed(course) == NOTEBOOKS[2:], "and so does the build"


def test_without_execution_unchanged_cells_keep_their_outputs(course: Course) -> None:
    edit(source_of(course), "# A plan is a list.", "# A plan is just a list.")
    assert executed(course, execute=False) == []
    notebook = read(course.root / "solutions/week02/build.ipynb")
    assert [out.text for cell in notebook.cells for out in cell.get("outputs", [])] == ["total 3.0\n"]
    assert check(course=course) == []
    assert executed(course) == NOTEBOOKS[1:], "the next build runs it"


def problems(course: Course) -> list[str]:
    before = files(course)
    found = [str(problem) for problem in check(course=course)]
    assert files(course) == before, "a check writes nothing"
    return found


def test_slow_cells_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "SLOW", 0.4)
    cells = [nbformat.v4.new_code_cell(text) for text in ("1", "import time; time.sleep(0.5)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    execute_notebook(notebook, tmp_path, label="week02/build")
    assert "week02/build: cell 1 took " in capsys.readouterr().err


def test_outputs_do_not_count_as_stale(course: Course) -> None:
    edit(course.root / "solutions/week02/build.ipynb", "total 3.0", "total 4.0")
    assert problems(course) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("solutions/week02/build.ipynb", "fsum", "sum", 'cell 5 ("total")'),
        ("weeks/week02/build.ipynb", "A plan is a list", "A plan", "cell 1 "),
        ("weeks/week02/build.ipynb", '"points": 2', '"points": 3', "total-test-2"),
        ("weeks/week02/build.ipynb", '"name": "python3"', '"name": "other"', "metadata differ"),
        ("weeks/week02/build.ipynb", '"cells"', '"sells"', "is no notebook"),
        ("weeks/week02/data/numbers.csv", "1,2", "1,3", "differs from course/notebooks/week02_mpc/data"),
    ],
)
def test_a_changed_file_is_stale(course: Course, name: str, old: str, new: str, message: str) -> None:
    edit(course.root / name, old, new)
    (found,) = problems(course)
    assert found.startswith(f"{name}: ") and message in found


def test_a_changed_source_makes_both_notebooks_stale(course: Course) -> None:
    edit(course.package_dir / "mpc.py", "# the first reward counts in full", "# all count")
    (found,) = problems(course)
    assert found.startswith("solutions/week02/build.ipynb: stale from cell 5")
    edit(source_of(course), "# What is the sum?", "# What is the total?")
    assert [line.split(":")[0] for line in problems(course)] == [
        "solutions/week02/build.ipynb",
        "weeks/week02/build.ipynb",
    ]


def test_missing_and_left_over_notebooks_are_found(course: Course) -> None:
    (course.root / "weeks/week02/build.ipynb").unlink()
    shutil.copy(course.root / "weeks/week01/build.ipynb", course.root / "weeks/week01/old.ipynb")
    source_of(course, "experiments").unlink()
    assert sorted(problems(course)) == [
        "solutions/week02/experiments.ipynb: no source gives this notebook: delete it",
        "weeks/week01/old.ipynb: no source gives this notebook: delete it",
        "weeks/week02/build.ipynb: missing: run the build",
        "weeks/week02/experiments.ipynb: no source gives this notebook: delete it",
    ]


def test_a_cell_that_fails_is_named_and_the_others_are_built(course: Course) -> None:
    edit(source_of(course, "experiments"), '"laptop": 4', '"laptop": 4 / 0')
    edit(course.source_dir(find_week(1)) / "build.py", "Keep the last few.", "Keep them.")
    before = (course.root / "solutions/week02/experiments.ipynb").read_bytes()
    with pytest.raises(AuthoringError) as error:
        build(course=course, progress=False)
    (problem,) = error.value.problems
    assert str(problem).startswith(
        "course/notebooks/week02_mpc/experiments.py:12: demo cell fails when run: "
    )
    assert "ZeroDivisionError" in problem.message
    assert (course.root / "solutions/week02/experiments.ipynb").read_bytes() == before
    assert "Keep them." in (course.root / "weeks/week01/build.ipynb").read_text()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import warnings; warnings.warn('careful')", "careful"),
        ("import sys; print('100%|####| 3/3\\noops', file=sys.stderr)", "oops"),
        ("import os; os._exit(1)", "the kernel died"),
    ],
)
def test_warnings_and_dead_kernels_are_errors(course: Course, code: str, message: str) -> None:
    edit(source_of(course), 'print("total", total(REWARDS))', code)
    with pytest.raises(AuthoringError, match=message) as error:
        build(2, course=course, progress=False)
    assert str(error.value).startswith("course/notebooks/week02_mpc/build.py:")


def test_progress_bars_leave_no_trace(course: Course) -> None:
    code = "from tqdm.auto import tqdm\nfor _ in tqdm(range(2), disable=False):\n    pass\nprint(5)"
    edit(source_of(course), 'print("total", total(REWARDS))', code)
    build(2, course=course, progress=False)
    notebook = read(course.root / "solutions/week02/build.ipynb")
    assert [out.get("text") for cell in notebook.cells for out in cell.get("outputs", [])] == ["5\n"]


def test_parameters_replace_what_the_cell_sets(course: Course) -> None:
    path = course.root / "solutions/week02/experiments.ipynb"
    result = execute_notebook(
        read(path), path.parent, course.root / "course", parameters={"SCALE": "smoke"}, progress=False
    )
    assert result.cells[3].outputs[0].text == "sum 1.5\n"
    assert result.cells[2].source == 'SCALE = "laptop"'
    with pytest.raises(ValueError, match="no parameters cell"):
        execute_notebook(read(path.parent / "build.ipynb"), path.parent, parameters={"SCALE": "smoke"})


def test_a_failing_cell_is_told_by_its_id(course: Course) -> None:
    notebook = read(course.root / "weeks/week02/build.ipynb")
    with pytest.raises(
        ExecutionError, match="NotImplementedError: this part is still to be written"
    ) as error:
        execute_notebook(notebook, course.root, course.root / "course", progress=False)
    assert error.value.cell_id == "total-test-1"


def test_cells_of_the_same_text_have_different_ids(tmp_path: Path) -> None:
    path = tmp_path / "build.py"
    path.write_text("# %% [markdown]\n# a\n\n# %% [markdown]\n# a\n\n# %%\n1\n\n# %%\n1\n")
    ids = [cell.id for cell in assemble(parse(path, find_week(2))).cells]
    assert len(set(ids)) == 4


def test_plain_nbgrader_generates_the_same_notebooks(course: Course) -> None:
    shutil.copy(Course.here().root / "nbgrader_config.py", course.root)
    before = files(course)
    shutil.rmtree(course.root / "weeks")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "week02"]
    result = subprocess.run(
        command, cwd=course.root, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    for name in ("weeks/week02/build.ipynb", "weeks/week02/experiments.ipynb"):
        assert (course.root / name).read_bytes() == before[name]


def test_the_command_line(
    course: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Course, "here", lambda: course)
    assert main(["build", "week01", "2"]) == 0
    assert "solutions/week02/experiments.ipynb: unchanged" in capsys.readouterr().out
    assert main(["check"]) == 0
    assert main(["build", "week77"]) == 2
    assert "week03 (" in capsys.readouterr().err
    assert main(["build", "week03"]) == 1
    assert "week03 has no build.py" in capsys.readouterr().err
    edit(source_of(course), "points=3", "points=4")
    assert main(["lint", str(source_of(course))]) == 1
    assert "build.py:18: " in capsys.readouterr().err
    assert main(["build"]) == main(["check"]) == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = f()\ncheck(x)  # µ", "x = f()\ncheck(x);  # µ"),
        ("check(\n    'µ',\n    x,\n)\n### END", "check(\n    'µ',\n    x,\n);\n### END"),
        ("check(x)\nprint('Right')", "check(x)\nprint('Right')"),
        ("x = 1", "x = 1"),
        ("# nothing", "# nothing"),
    ],
)
def test_a_test_cell_shows_no_value(code, expected):
    assert silent(code) == expected
