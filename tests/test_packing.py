"""What a student hands in: what is said about it, what is put right, and what is packed."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mbrl_course import packing
from mbrl_course.cli import main
from mbrl_course.packing import PackError, pack
from mbrl_course.packing_cells import Cells, grade_id, text
from mbrl_course.weeks import find_week

STUB = 'def {name}(x):\n    """Doc."""\n    # TODO\n    raise NotImplementedError()'


def mark(name: str, exercise: str = "", *, grade: bool = False, solution: bool = False) -> dict[str, Any]:
    own = {"exercise": exercise, "number": "3.1" if exercise == "one" else "3.2", "title": exercise.title()}
    flags = {"grade_id": name, "grade": grade, "solution": solution, "locked": not solution}
    return {"nbgrader": flags, **({"mbrl_course": own} if exercise else {})}


def code(source: str, cell_id: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "source": source,
        "id": cell_id,
        "metadata": metadata or {},
        "outputs": [],
        "execution_count": None,
    }


def prose(source: str, cell_id: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "id": cell_id, "metadata": metadata or {}}


def whole(cells: list[dict[str, Any]], name: str, week: str = "week03") -> dict[str, Any]:
    own = {"notebook": name, "week": week}
    return {"cells": cells, "metadata": {"mbrl_course": own}, "nbformat": 4, "nbformat_minor": 5}


def released() -> dict[str, Any]:
    cells = [
        prose("# Week", "title"),
        code("import math", "setup-1", mark("setup-1")),
        code(STUB.format(name="one"), "one", mark("one", "one", solution=True)),
        code("assert one(1) == 1", "one-test-1", mark("one-test-1", "one", grade=True)),
        code("assert one(2) == 2", "one-test-2", mark("one-test-2", "one", grade=True)),
        code(STUB.format(name="two"), "two", mark("two", "two", solution=True)),
        code("assert two(1) == 2", "two-test-1", mark("two-test-1", "two", grade=True)),
        code("plot()", "demo"),
    ]
    return whole(cells, "build")


def experiments() -> dict[str, Any]:
    cells = [
        prose("## 1. Planners", "head"),
        prose("YOUR ANSWER HERE", "why", mark("why", grade=True, solution=True)),
        code("plot()", "demo"),
    ]
    return whole(cells, "experiments")


def cell(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in notebook["cells"] if grade_id(one) == name)


def done() -> dict[str, Any]:
    """A notebook in which everything is written and was run."""
    notebook = released()
    cell(notebook, "one")["source"] = "def one(x):\n    return x"
    cell(notebook, "two")["source"] = ["def two(x):\n", "    return 2 * x"]
    for number, one in enumerate(notebook["cells"], 1):
        if one["cell_type"] == "code":
            one["execution_count"] = number
    return notebook


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the release in `given` and the finished notebook of a student in `mine`."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "given" / "build.ipynb", released())
    write(tmp_path / "mine" / "build.ipynb", done())
    return tmp_path


def write(path: Path, notebook: dict[str, Any] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook if isinstance(notebook, str) else json.dumps(notebook), encoding="utf-8")
    return path


def packed(path: Path, name: str = "build") -> dict[str, Any]:
    """A notebook in the zip; it is a valid one."""
    with zipfile.ZipFile(path) as archive:
        raw = archive.read(f"week03/{name}.ipynb").decode()
    nbformat.validate(nbformat.reads(raw, as_version=4))
    result: dict[str, Any] = json.loads(raw)
    return result


def compare(notebook: dict[str, Any]) -> Cells:
    before = copy.deepcopy(notebook)
    cells = Cells(notebook, released())
    assert notebook == before, "the student's notebook stays as it is"
    nbformat.validate(nbformat.from_dict(cells.repaired))
    names = [grade_id(one) for one in cells.repaired["cells"] if grade_id(one)]
    assert names == ["setup-1", "one", "one-test-1", "one-test-2", "two", "two-test-1"]
    return cells


# what is put right


def test_nothing_is_said_about_a_finished_notebook() -> None:
    cells = compare(done())
    assert cells.notes == [] and cells.remarks() == []
    assert cells.summary() == "2 of 2 exercises written"
    assert cells.repaired["cells"] == done()["cells"]


def test_a_split_cell_is_one_again() -> None:
    notebook = done()
    first = cell(notebook, "two")
    second = {**copy.deepcopy(first), "source": "    return 2 * x"}
    first["source"] = "def two(x):"
    notebook["cells"].insert(notebook["cells"].index(first) + 1, second)
    cells = compare(notebook)
    assert text(cell(cells.repaired, "two")) == "def two(x):\n    return 2 * x"
    (note,) = cells.notes
    assert note.startswith("exercise 3.2 (Two): its cell was there 2 times") and cells.remarks() == []


def test_a_copied_cell_counts_once_and_an_untouched_copy_not_at_all() -> None:
    notebook = done()
    notebook["cells"] += [copy.deepcopy(cell(notebook, "one")), copy.deepcopy(cell(released(), "two"))]
    notebook["cells"].append(copy.deepcopy(cell(notebook, "one-test-1")))
    cells = compare(notebook)
    assert text(cell(cells.repaired, "one")) == "def one(x):\n    return x"
    assert text(cell(cells.repaired, "two")) == "def two(x):\n    return 2 * x"
    assert len(cells.repaired["cells"]) == len(done()["cells"])


def test_missing_cells_come_back() -> None:
    notebook = done()
    gone = ("setup-1", "two", "one-test-2")
    notebook["cells"] = [one for one in notebook["cells"] if grade_id(one) not in gone]
    cells = compare(notebook)
    assert text(cell(cells.repaired, "two")) == STUB.format(name="two")
    said = "\n".join(cells.notes)
    assert "exercise 3.2 (Two): its cell was missing" in said and "move your code" in said
    assert (
        "exercise 3.1 (One): its check was missing" in said
        and "setup-1 (in 'Week'): its locked cell was missing" in said
    )
    assert cells.remarks() == [
        "exercise 3.1 (One): not all of its checks were run",
        "exercise 3.2 (Two): not written yet",
    ]


def test_changed_checks_are_as_released_again() -> None:
    notebook = done()
    cell(notebook, "one-test-1")["source"] = "pass"
    cells = compare(notebook)
    assert text(cell(cells.repaired, "one-test-1")) == "assert one(1) == 1"
    assert "exercise 3.1 (One): its check was changed" in cells.notes[0]


def test_names_that_a_tool_dropped_are_found_by_the_cells_ids() -> None:
    notebook = done()
    for one in notebook["cells"]:
        one["metadata"] = {}
    cells = compare(notebook)
    assert text(cell(cells.repaired, "two")) == "def two(x):\n    return 2 * x"
    assert "had lost its name" in cells.notes[0]


def test_own_cells_and_old_formats_are_kept() -> None:
    notebook = done()
    notebook["cells"].insert(0, code("x = 1", "mine", {"nbgrader": {"grade_id": "unknown", "grade": True}}))
    for one in notebook["cells"]:
        one.pop("id")
    notebook["nbformat_minor"] = 4
    cells = compare(notebook)
    assert text(cells.repaired["cells"][0]) == "x = 1" and grade_id(cells.repaired["cells"][0]) == ""


# what is said


def remarks(change: dict[str, dict[str, Any]]) -> list[str]:
    notebook = done()
    for name, values in change.items():
        cell(notebook, name).update(values)
    return compare(notebook).remarks()


def test_remarks() -> None:
    stub = STUB.format(name="one")
    assert remarks({"one": {"source": stub}}) == ["exercise 3.1 (One): not written yet"]
    half = "def one(x):\n    return x\n\ndef helper(x):\n    raise NotImplementedError"
    assert "helper still says raise NotImplementedError" in remarks({"one": {"source": half}})[0]
    (said,) = remarks({"one": {"source": "%timeit 1\ndef one(x)\n    return"}})
    assert "no valid Python (line 2" in said
    (said,) = remarks({"one": {"execution_count": None}})
    assert said == "exercise 3.1 (One): the cell was never run: run it, then the checks below it"
    assert "not all of its checks were run" in remarks({"one-test-2": {"execution_count": None}})[0]
    assert "run again after its checks" in remarks({"one": {"execution_count": 99}})[0]
    error = {"output_type": "error", "ename": "AssertionError", "evalue": "too small\nmore", "traceback": []}
    (said,) = remarks({"one-test-2": {"outputs": [error]}})
    assert said == "exercise 3.1 (One): check 2 said, when it was last run: too small"
    assert remarks({"one": {"source": "%matplotlib inline\ndef one(x):\n    return x"}}) == []


def test_questions_and_plots() -> None:
    cells = Cells(experiments(), experiments())
    assert cells.remarks() == [
        "why (in '1. Planners'): not answered yet",
        "1 cell was never run, and what is not there can't be marked: number 3",
    ]
    assert cells.summary() == "0 of 1 question answered"


# files


def test_the_zip_and_what_the_command_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "mine" / "build.ipynb").read_bytes()
    assert main(["pack", "3", "--notebook", "mine", "--release", "given"]) == 0
    target = folder / "mine" / "week03-hand-in.zip"
    assert packed(target) == done()
    said = capsys.readouterr().out
    assert "build.ipynb: 2 of 2 exercises written" in said and str(Path("mine") / target.name) in said
    assert (folder / "mine" / "build.ipynb").read_bytes() == before
    write(folder / "given" / "experiments.ipynb", experiments())
    assert main(["pack", "3", "--notebook", "mine/build.ipynb", "--release", "given"]) == 0
    assert "experiments.ipynb: not there, so not packed" in capsys.readouterr().out


def test_where_notebooks_are_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = folder / "given"
    monkeypatch.chdir(folder / "mine")
    assert pack("week03", release=given).path.parent.resolve() == folder / "mine", (
        "it says which week it is of"
    )
    write(folder / "weeks" / "week03" / "build.ipynb", done())
    monkeypatch.chdir(folder)
    assert pack("week03", release=given).path.parent == folder / "weeks" / "week03"
    renamed = write(folder / "elsewhere" / "my final.ipynb", done())
    assert packed(pack("week03", renamed, given).path) == done()
    with pytest.raises(PackError, match=r"found no build.ipynb of week03 in .*void.*--notebook"):
        (folder / "void").mkdir()
        pack("week03", folder / "void", given)


def test_releases_are_read_from_zips_and_the_edition(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(folder / "week03.zip", "w") as archive:
        archive.writestr("week03/build.ipynb", json.dumps(released()))
        archive.writestr("week03/README.md", "")
    assert pack("week03", folder / "mine", folder / "week03.zip").notebooks[0].remarks == ()
    monkeypatch.setattr(packing, "RELEASED", folder / "released")
    write(folder / "released" / "week03" / "build.ipynb", released())
    assert packing.released(find_week(3)) == {"build": released()}
    with pytest.raises(PackError, match="neither a folder nor a zip"):
        pack("week03", folder / "mine", write(folder / "x.zip", "no zip"))
    with pytest.raises(PackError, match=r"no release of week03 in .*empty to compare with: pass --release"):
        (folder / "empty").mkdir()
        pack("week03", folder / "mine", folder / "empty")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ('{"cells": [', r"not valid JSON \(line 1"),
        ('{\n<<<<<<< HEAD\n"cells": []}', "git left marks of a merge.*ipynb_checkpoints"),
        ("[1]", "no cells"),
        ('{"worksheets": []}', "too old: open it in JupyterLab and save it"),
    ],
)
def test_damaged_files(folder: Path, content: str, words: str) -> None:
    write(folder / "mine" / "build.ipynb", content)
    with pytest.raises(PackError, match=words):
        pack("week03", folder / "mine", folder / "given")
    assert not list(folder.glob("mine/*.zip"))


def test_other_problems_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "mine" / "build.ipynb", whole(released()["cells"], "build", "week02"))
    assert main(["pack", "week03", "--notebook", "mine", "--release", "given"]) == 2
    assert "is a notebook of week02, not of week03" in capsys.readouterr().err
    assert main(["pack", "week99"]) == 2
    notebook = done()
    text_output = {"output_type": "stream", "name": "stdout", "text": "x" * 21_000_000}
    notebook["cells"][-1]["outputs"] = [text_output]
    write(folder / "mine" / "build.ipynb", notebook)
    assert (
        "too large to be graded (21 MB"
        in pack("week03", folder / "mine", folder / "given").notebooks[0].remarks[0]
    )


def test_a_checkout_makes_the_release_anew(folder: Path) -> None:
    with zipfile.ZipFile(pack("week03", write(folder / "a.ipynb", done())).path) as archive:
        notebook = json.loads(archive.read("week03/build.ipynb"))
    assert "refit-to-elites" in [grade_id(one) for one in notebook["cells"]]
