"""Who handed in what: the layouts that are read, and archives that mean no good."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
import pytest

from mbrl_autograder.grading import GradingError, Limits
from mbrl_autograder.grading.archives import ArchiveError, ArchiveLimits, unpack
from mbrl_autograder.grading.collect import collect, collection
from mbrl_autograder.grading.model import UNREADABLE, Submission
from mbrl_course.cli import main
from small_course import ASSIGNMENT, RIGHT, hand_in, make_course, submitted

NOTEBOOKS = ["build", "experiments"]
LIMITS = ArchiveLimits(members=100, total_bytes=10_000_000)


def fill(root: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def zipped(path: Path, files: Mapping[str, str | bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def by_name(submissions: Path, limits: Limits | None = None) -> dict[str, Submission]:
    found = collect(submissions, "week03", NOTEBOOKS, limits or Limits())
    assert [one.student for one in found] == sorted({one.student for one in found})
    return {one.student: one for one in found}


def texts(submission: Submission) -> dict[str, str]:
    """What will be graded; each notebook under its own name."""
    assert all(path.name == f"{name}.ipynb" for name, path in submission.files.items())
    return {name: path.read_text() for name, path in submission.files.items()}


# folders


def test_layouts(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "nested/week03/build.ipynb": "1",
            "nested/week03/experiments.ipynb": "2",
            "nested/week02/build.ipynb": "of another week",
            "flat/build.ipynb": "3",
            "single.ipynb": "4",
            "deeper/my solution/build.ipynb": "5",
            "README.txt": "not a submission",
            ".DS_Store": "",
        },
    )
    found = by_name(tmp_path)
    assert {name: texts(one) for name, one in found.items()} == {
        "nested": {"build": "1", "experiments": "2"},
        "flat": {"build": "3"},
        "single": {"build": "4"},
        "deeper": {"build": "5"},
    }
    assert all(one.reason == "" for one in found.values())
    assert found["single"].files["build"].parent != tmp_path, "others' files lie there"
    assert collection(tmp_path, "week03", NOTEBOOKS, Limits()).ignored == ("README.txt",)


def test_what_cannot_be_graded_has_a_reason(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "empty-file/build.ipynb": "",
            "large/build.ipynb": " " * 2000,
            "other/Untitled.ipynb": "{}",
            "word/homework.docx": "x",
            "bad\nname/build.ipynb": "{}",
        },
    )
    (tmp_path / "empty").mkdir()
    found = by_name(tmp_path, Limits(notebook_bytes=1000))
    assert {one.status for one in found.values()} == {UNREADABLE}
    reasons = {name: one.reason for name, one in found.items()}
    assert "0 bytes" in reasons["empty-file"] and "too large" in reasons["large"]
    assert "no notebook called build.ipynb or experiments.ipynb, but Untitled.ipynb" in reasons["other"]
    assert "no notebook, but homework.docx" in reasons["word"] and "empty" in reasons["empty"]
    assert "unprintable" in reasons["bad?name"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    secret = fill(tmp_path, {"secret.ipynb": "{}"}) / "secret.ipynb"
    arrived = tmp_path / "in"
    (arrived / "file").mkdir(parents=True)
    (arrived / "file" / "build.ipynb").symlink_to(secret)
    (arrived / "folder").symlink_to(tmp_path)
    (arrived / "flat.ipynb").symlink_to(secret)
    (arrived / "inner").mkdir()
    (arrived / "inner" / "week03").symlink_to(tmp_path)
    (arrived / "zip").mkdir()
    (arrived / "zip" / "mine.zip").symlink_to(zipped(tmp_path / "a.zip", {"build.ipynb": "{}"}))
    (arrived / "pipe").mkdir()
    os.mkfifo(arrived / "pipe" / "build.ipynb")
    os.mkfifo(arrived / "pipe" / "build.zip")
    found = by_name(arrived)
    assert set(found) == {"file", "flat", "folder", "inner", "pipe", "zip"}
    assert {one.status for one in found.values()} == {UNREADABLE}
    assert all("link" in found[name].reason for name in ("file", "flat", "folder", "inner", "zip"))
    assert "not a plain file" in found["pipe"].reason


def test_the_newest_version_is_taken_and_said(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "two/build.ipynb": "old",
            "two/build (1).ipynb": "new",
            "copy/build.ipynb": "mine",
            "copy/build-Copy1.ipynb": "a backup",
            "called/week03_build_final.ipynb": "final",
            "broken/build.ipynb": "good",
            "broken/build-2.ipynb": "",
            "both.ipynb": "file",
            "both/build.ipynb": "folder",
        },
    )
    for old in ("two/build.ipynb", "both/build.ipynb"):
        os.utime(tmp_path / old, (1e9, 1e9))
    os.utime(tmp_path / "copy/build.ipynb", (1e9, 1e9))
    found = by_name(tmp_path)
    assert texts(found["two"])["build"] == "new"
    assert "2 versions of build.ipynb arrived; the newest is taken (build (1).ipynb)" in found["two"].reason
    assert texts(found["copy"])["build"] == "mine" and not found["copy"].reason
    assert texts(found["called"])["build"] == "final" and "is taken as build" in found["called"].reason
    assert texts(found["broken"])["build"] == "good" and "0 bytes" in found["broken"].reason
    assert texts(found["both"])["build"] == "file" and "2 versions" in found["both"].reason


# what learning platforms export


CANVAS = {
    "lovelaceada_1001_20001_build.ipynb": "1",
    "lovelaceada_1001_20002_experiments.ipynb": "2",
    "hopper_LATE_1002_20003_build-2.ipynb": "newest",
    "hopper_LATE_1002_20004_build-1.ipynb": "older",
    "hopper_LATE_1002_20005_build.ipynb": "first",
    "noether_1003_20006_essay.pdf": "%PDF",
    "smith_1004_20007_build.ipynb": "of one Smith",
    "smith_1005_20008_build.ipynb": "of another",
}


def check_canvas(found: Mapping[str, Submission]) -> None:
    assert set(found) == {"lovelaceada", "hopper", "noether", "smith_1004", "smith_1005"}
    assert texts(found["lovelaceada"]) == {"build": "1", "experiments": "2"}
    assert texts(found["hopper"]) == {"build": "newest"}
    assert "late" in found["hopper"].reason and "3 versions" in found["hopper"].reason
    assert found["noether"].status == UNREADABLE and "essay.pdf" in found["noether"].reason
    assert texts(found["smith_1005"]) == {"build": "of another"}
    assert (found["hopper"].platform, found["hopper"].number) == ("Canvas", "1002")


def test_canvas(tmp_path: Path) -> None:
    check_canvas(by_name(zipped(tmp_path / "submissions.zip", CANVAS)))
    check_canvas(by_name(fill(tmp_path / "unpacked", CANVAS)))


def test_moodle(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("week03/build.ipynb", "packed")
        archive.writestr("week03/timestamp.txt", "2001-01-01 00:00:00 UTC")
    files: dict[str, str | bytes] = {
        "Ada Lovelace_11_assignsubmission_file_/build.ipynb": "1",
        "Ada Lovelace_11_assignsubmission_file_/experiments.ipynb": "2",
        "Grace Hopper_12_assignsubmission_file_/week03.zip": inner.getvalue(),
        "Emmy Nöther_13_assignsubmission_onlinetext_/onlinetext.html": "<p>my answer</p>",
        "Sofja Kowalewskaja_14_assignsubmission_file_build.ipynb": "without folders",
    }
    for path in (zipped(tmp_path / "moodle.zip", files), fill(tmp_path / "unpacked", files)):
        found = by_name(path)
        assert texts(found["Ada Lovelace"]) == {"build": "1", "experiments": "2"}
        assert texts(found["Grace Hopper"]) == {"build": "packed"}
        assert not (found["Grace Hopper"].files["build"].parent / "timestamp.txt").exists()
        assert found["Emmy Nöther"].status == UNREADABLE and "onlinetext.html" in found["Emmy Nöther"].reason
        assert texts(found["Sofja Kowalewskaja"]) == {"build": "without folders"}


def test_a_zip_of_a_folder_and_zips_of_students(tmp_path: Path) -> None:
    files = {"handed in/ada/week03/build.ipynb": "1", "handed in/bob/build.ipynb": "2", "__MACOSX/x": "?"}
    found = by_name(zipped(tmp_path / "class.zip", files))
    assert {name: texts(one)["build"] for name, one in found.items()} == {"ada": "1", "bob": "2"}
    one = by_name(zipped(tmp_path / "one.zip", {"ada/week03/build.ipynb": "1"}))
    assert set(one) == {"ada"}
    zipped(tmp_path / "in" / "ada.zip", {"build.ipynb": "flat"})
    zipped(tmp_path / "in" / "bob.zip", {"week03/week03/build.ipynb": "nested"})
    zipped(tmp_path / "in" / "carl" / "x.zip", {"week03/build.ipynb": "in a folder", "week03/x.zip": "bomb?"})
    zipped(tmp_path / "in" / "dora.zip", {})
    fill(tmp_path / "in", {"eve.zip": "no zip"})
    found = by_name(tmp_path / "in")
    assert texts(found["ada"])["build"] == "flat" and texts(found["bob"])["build"] == "nested"
    assert texts(found["carl"])["build"] == "in a folder"
    assert found["dora"].reason == "dora.zip is empty"
    assert found["eve"].reason == "eve.zip is not a zip file, or a damaged one"


# archives that mean no good


def test_members_that_lead_elsewhere_are_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("bob/build.ipynb")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "class.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ada/build.ipynb", "1")
        archive.writestr("../../evil/build.ipynb", "x")
        archive.writestr("/etc/build.ipynb", "x")
        archive.writestr("C:\\windows\\build.ipynb", "x")
        archive.writestr("ada/../carl/build.ipynb", "x")
        archive.writestr(link, "/etc/passwd")
    scratch = tmp_path / "a" / "b" / "scratch"
    result = {one.student: one for one in collect(path, "week03", NOTEBOOKS, Limits(), scratch)}
    assert texts(result["ada"]) == {"build": "1"}
    assert result["bob"].status == UNREADABLE and "link" in result["bob"].reason
    assert "leads out of the archive" in result["evil"].reason
    written = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if not p.is_dir())
    assert [str(p) for p in written] == ["a/b/scratch/1/ada/build.ipynb", "class.zip"]


def test_bombs_and_secrets(tmp_path: Path) -> None:
    zeros = bytes(5_000_000)
    path = zipped(tmp_path / "bomb.zip", {"build.ipynb": zeros, "small.txt": "x"})
    assert "times larger" in unpack(path, tmp_path / "1", LIMITS).refused["build.ipynb"]
    with pytest.raises(ArchiveError, match=r"too large unpacked \(5 MB, at most 4 MB\)"):
        unpack(path, tmp_path / "2", ArchiveLimits(members=10, total_bytes=4_000_000))
    many = zipped(tmp_path / "many.zip", {f"{i}.txt": "" for i in range(101)})
    with pytest.raises(ArchiveError, match="holds 101 files"):
        unpack(many, tmp_path / "3", LIMITS)
    secret = patched(zipped(tmp_path / "secret.zip", {"a": "x"}), flags=1)
    assert unpack(secret, tmp_path / "4", LIMITS).refused == {"a": "is encrypted"}


def test_a_member_that_is_larger_than_it_says(tmp_path: Path) -> None:
    liar = patched(zipped(tmp_path / "liar.zip", {"a": b"x" * 100_000}), size=10)
    result = unpack(liar, tmp_path / "out", LIMITS)
    assert set(result.refused) == {"a"}
    assert not list(result.folder.iterdir())


def test_damaged_archives(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good.zip", {"a": os.urandom(5000), "b": "fine"}).read_bytes()
    flipped = bytearray(good)
    flipped[200] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(bytes(flipped))
    result = unpack(tmp_path / "flipped.zip", tmp_path / "1", LIMITS)
    assert result.refused == {"a": "is damaged"} and (result.folder / "b").read_text() == "fine"
    for number, data in enumerate((b"", b"PK\x03\x04", good[: len(good) // 2], good[: len(good) - 10])):
        (tmp_path / "cut.zip").write_bytes(data)
        with pytest.raises(ArchiveError, match="damaged"):
            unpack(tmp_path / "cut.zip", tmp_path / f"cut{number}", LIMITS)


def test_what_one_student_hands_in_stops_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"ada/build.ipynb": "a", "eve.ipynb": "e"})
    zipped(tmp_path / "bob.zip", {"timestamp.txt/x": "1", "build.ipynb": "b"})
    cleo = zipped(tmp_path / "cleo.zip", {"build.ipynb": "c"})
    data = bytearray(cleo.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    offset = struct.unpack("<I", data[end + 16 : end + 20])[0]
    data[end + 16 : end + 20] = struct.pack("<I", offset + 5000)  # so members begin before the file does
    cleo.write_bytes(bytes(data))
    copy2 = shutil.copy2

    def copied(source: Path, target: Path, **kwargs: bool) -> None:
        if source.name == "eve.ipynb":
            raise PermissionError(errno.EACCES, "Permission denied")
        copy2(source, target, **kwargs)

    monkeypatch.setattr(shutil, "copy2", copied)
    found = by_name(tmp_path)
    assert texts(found["ada"]) == {"build": "a"} and texts(found["bob"]) == {"build": "b"}
    assert found["cleo"].status == UNREADABLE and "damaged" in found["cleo"].reason
    assert found["eve"].status == UNREADABLE and "cannot be read (Permission denied)" in found["eve"].reason

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(GradingError, match="No space left"):
        by_name(tmp_path)


def test_a_class_of_one_who_packed(tmp_path: Path) -> None:
    notebook = zipped(tmp_path / "inner.zip", {"build.ipynb": "a"}).read_bytes()
    class_zip = zipped(tmp_path / "class.zip", {"ada/week03-hand-in.zip": notebook})
    assert texts(by_name(class_zip)["ada"]) == {"build": "a"}


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for name, text in (("a", "file"), ("a/b", "in it"), ("c", "first"), ("c", "second"), ("n" * 250, "")):
            archive.writestr(name, text)
    result = unpack(path, tmp_path / "out", LIMITS)
    assert "a file" in result.refused["a/b"] and "twice" in result.refused["c"] and len(result.refused) == 3
    assert (result.folder / "c").read_text() == "first"


def patched(path: Path, *, flags: int = 0, size: int | None = None) -> Path:
    """A zip whose directory says something else than what is in it."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    for place in (entry + 8, 6):
        data[place : place + 2] = struct.pack("<H", flags)
    if size is not None:
        data[entry + 24 : entry + 28] = struct.pack("<I", size)
    path.write_bytes(bytes(data))
    return path


# what is no class


def test_errors_say_what_to_pass(tmp_path: Path) -> None:
    fill(tmp_path, {"a.ipynb": "{}", "broken.zip": "x", "empty/.hidden": ""})
    for name, words in {
        "a.ipynb": "is a file: pass a folder",
        "nowhere": "there is no .*nowhere: pass --submissions",
        "broken.zip": "is not a zip file",
        "empty": "holds no submissions",
    }.items():
        with pytest.raises(GradingError, match=words):
            collect(tmp_path / name, "week03", NOTEBOOKS, Limits())


# the dry run


def test_a_dry_run_lists_and_grades_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    course = make_course(tmp_path / "course")
    arrived = tmp_path / "in"
    hand_in(arrived, "right", submitted(RIGHT))
    hand_in(arrived, "untouched", submitted())
    hand_in(arrived, "broken", "{")
    odd = submitted(RIGHT)
    odd.cells = [one for one in odd.cells if one.metadata.get("nbgrader", {}).get("grade_id") != "double"]
    odd.cells.append(nbformat.from_dict({**odd.cells[2], "id": "again"}))
    hand_in(arrived, "odd", odd)
    fill(arrived, {"word/essay.docx": "x", "roster.csv": "x", "else/sums/build.ipynb": nbformat.writes(v4())})
    before = sorted(course.rglob("*"))
    arguments = ["grade", ASSIGNMENT, "--course", str(course), "--submissions", str(arrived), "--dry-run"]
    assert main(arguments) == 1
    text = capsys.readouterr().out
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line}
    assert lines["right"] == "ok" and lines["untouched"] == "untouched"
    assert lines["broken"].startswith("broken build.ipynb: the file is not JSON")
    assert lines["odd"] == "ok build.ipynb: add more than once, without double"
    assert lines["else"] == "wrong one build.ipynb: none of the assignment's cells is in it"
    assert lines["word"] == "missing no notebook, but essay.docx"
    assert "3 of 6 can be graded; this was a dry run, nothing was graded" in text
    assert "passed over: roster.csv" in text
    assert sorted(course.rglob("*")) == before, "nothing is written"
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    students = ["broken", "else", "odd", "right", "untouched", "word"]
    assert [line["student"] for line in found["lines"]] == students
    fine = tmp_path / "fine"
    hand_in(fine, "right", submitted(RIGHT))
    assert main([*arguments[:-2], str(fine), "--dry-run"]) == 0


def v4() -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
