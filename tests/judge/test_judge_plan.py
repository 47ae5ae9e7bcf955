"""What is read of a submission, and what a test's last line is worth."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from judge.small_notebook import Submission, _cell, source
from mbrl_autograder.judge import Judge, reading
from mbrl_autograder.judge.display import MAX_PIXELS, safe_data
from mbrl_autograder.judge.notebook import UnreadableError, source_cells
from mbrl_autograder.judge.plan import MAX_CELLS, SourcePlan, plan_source, plan_submission
from mbrl_autograder.judge.results import FAILED, GRADED, PARTIAL, PASSED, UNREADABLE


def crowded(cells: int) -> Submission:
    """A right submission with so many cells in all, most of them scratch cells that use one another."""
    submission = Submission(right=True)
    submission.code("smooth", submission.cell("smooth")["source"] + "\n\nHELP = helper0")
    place, more = submission.index("smooth"), cells - len(submission.cells)
    submission.insert("smooth", "helper0 = 1")
    scratch = [{**submission.cells[place], "source": f"x{i} = x{i - 1}\nprint(x{i})"} for i in range(1, more)]
    submission.cells[place:place] = scratch
    assert len(submission.cells) == cells
    return submission


@pytest.fixture(scope="module")
def plan() -> SourcePlan:
    return plan_source(source_cells(source()))


def test_of_many_cells_those_that_are_needed_are_found(plan: SourcePlan) -> None:
    units, notes, _ = plan_submission(plan, crowded(5000).notebook)
    assert not notes
    assert [unit.code for unit in units if unit.kind == "plain" and unit.id != "given"] == ["helper0 = 1"]


def test_too_many_cells_cost_only_their_own_notebook(judge: Judge, source_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.ipynb"
    path.write_bytes(crowded(MAX_CELLS + 1).data())
    result = judge.grade(source_path, path)
    assert (result.status, result.points, result.max_points) == (UNREADABLE, 0, 10)
    assert result.reason == f"the notebook has {MAX_CELLS + 1} cells, and at most {MAX_CELLS} are read"
    path.write_bytes(Submission(right=True).data())
    assert judge.grade(source_path, path).points == 10


def test_reading_ends_in_time(plan: SourcePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_SECONDS", -1.0)
    with pytest.raises(UnreadableError, match="takes too long to read"):
        plan_submission(plan, Submission(right=True).notebook)


SHARE = "def share():\n    return {}\n\ndef idle():\n    return None"
LAST = ["0.5 * share()", "share()", "share() and None", "print(share())", "assert share()", "idle()"]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("1.0", [0.5, 1, 1, 1, 1, 1]),
        ("0.5", [0.25, 0.5, 1, 1, 1, 1]),
        ("float('nan')", [0, 0, 1, 1, 1, 1]),
        ("None", [0, 0, 1, 1, 0, 1]),
        ("object()", [0, 0, 1, 1, 1, 1]),
        ("True", [0.5, 0, 1, 1, 1, 1]),
        ("False", [0, 0, 0, 1, 0, 1]),
    ],
)
def test_what_is_no_number_is_no_partial_credit(
    judge: Judge, tmp_path: Path, returned: str, expected: list[float]
) -> None:
    def written(value: str) -> Path:
        cells = [_cell("share", "solution", SHARE.format(value))]
        cells += [_cell(f"test_{i}", "test", code, 1) for i, code in enumerate(LAST)]
        notebook: dict[str, Any] = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.ipynb"
        path.write_text(json.dumps(notebook))
        return path

    result = judge.grade(written("1.0"), written(returned))
    assert result.status == GRADED
    cells = list(result.cells.values())
    assert [cell.points for cell in cells] == expected
    assert [cell.status for cell in cells] == [
        PASSED if points == 1 else PARTIAL if points else FAILED for points in expected
    ]
    if returned in ("None", "object()"):
        assert cells[1].message == "The check's result is not a number."


def png(width: int, height: int, lines: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_pictures_of_enormous_size_are_left_out() -> None:
    def shown(data: bytes) -> bool:
        return "image/png" in safe_data({"image/png": base64.b64encode(data).decode()})

    assert shown(png(2, 1, b"\0\1\2"))
    assert shown(png(MAX_PIXELS, 1)) and not shown(png(MAX_PIXELS, 2)) and not shown(png(1 << 31, 1 << 31))
    assert not shown(png(2, 1)[:24]) and not shown(b"\x89PNG\r\n\x1a\n")
