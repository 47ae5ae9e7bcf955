"""Checks what a student is about to hand in, and packs it: `mbrl-course pack week03`.

The notebook is compared with the one that was released. In the packed copy, cells that are missing, doubled,
or locked and changed are as they should be; the student's own file is never touched. What only the student
can mend is said.
"""

from __future__ import annotations

import importlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbrl_course.packing_cells import Cells, Notebook
from mbrl_course.weeks import Week, find_week

MAX_BYTES = 20_000_000  # a larger notebook is not graded
RELEASED = Path(__file__).parent / "released"  # in the student edition: the notebooks as they were released


class PackError(Exception):
    """There is nothing that can be packed; the message says why and what to do."""


@dataclass(frozen=True)
class Checked:
    """A notebook that is packed.

    Attributes:
        name: such as "build".
        path: the student's file.
        notebook: the copy that is packed.
        repaired: what was put right in that copy.
        remarks: what the student should look at first.
        summary: one line on what is there.
    """

    name: str
    path: Path
    notebook: Notebook
    repaired: tuple[str, ...]
    remarks: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class Packed:
    """What `pack` wrote, what is in it, and which notebooks of the week are not."""

    path: Path
    notebooks: tuple[Checked, ...]
    absent: tuple[str, ...]


def pack(week: str | int, notebook: Path | None = None, release: Path | None = None) -> Packed:
    """Checks a week's notebooks, and writes WEEK-hand-in.zip beside them.

    Args:
        week: such as "week03" or 3.
        notebook: one notebook, or the folder with the week's; found from the current folder by default.
        release: what to compare with: the zip or the folder that was handed out, or a notebook in it; by
            default what this installation holds.

    Raises:
        UnknownWeekError: no such week.
        PackError: there is no notebook of the week, one cannot be read, or there is no release of it.
    """
    found = find_week(week)
    originals = released(found, release)
    files = {name: (path, read_notebook(path)) for name, path in _files(found, originals, notebook).items()}
    for path, content in files.values():
        _check_week(path, content, found)
    checked = tuple(check(name, *files[name], originals[name]) for name in originals if name in files)
    target = checked[0].path.parent / f"{found.id}-hand-in.zip"
    draft = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            for one in checked:
                text = json.dumps(one.notebook, ensure_ascii=False, indent=1) + "\n"
                archive.writestr(f"{found.id}/{one.name}.ipynb", text.encode("utf-8", "replace"))
        os.replace(draft, target)
    except OSError as error:
        raise PackError(f"cannot write {target} ({error.strerror or error})") from error
    return Packed(target, checked, tuple(name for name in originals if name not in files))


def check(name: str, path: Path, notebook: Notebook, original: Notebook) -> Checked:
    """What is to be said about one notebook, and the copy that is packed.

    Args:
        name: such as "build".
        path: the file that `notebook` was read from.
        notebook: the student's; stays as it is.
        original: the notebook as it was released.
    """
    cells = Cells(notebook, original)
    remarks = cells.remarks()
    size = len(json.dumps(cells.repaired, ensure_ascii=False).encode("utf-8", "replace"))
    if size > MAX_BYTES:
        remarks.insert(
            0,
            f"it is too large to be graded ({size / 1e6:.0f} MB, at most {MAX_BYTES / 1e6:.0f} MB): clear "
            "the outputs of the cells with the longest films, save, and pack again",
        )
    return Checked(name, path, cells.repaired, tuple(cells.notes), tuple(remarks), cells.summary())


def read_notebook(path: Path) -> Notebook:
    """The JSON of a notebook of format 4.

    Raises:
        PackError: the file is missing, empty, damaged, or no notebook.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PackError(f"{path} cannot be read ({error.strerror})") from error
    if not data.strip():
        raise PackError(
            f"{path} is empty: open it in JupyterLab, look whether your work is there, and save it"
        )
    try:
        text = data.decode("utf-8-sig")
        content = json.loads(text)
    except UnicodeDecodeError as error:
        raise PackError(f"{path} is no notebook: it is not text. {_RESCUE}") from error
    except (ValueError, RecursionError) as error:
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        merged = any(part.startswith(("<<<<<<<", ">>>>>>>")) for part in text.splitlines())
        reason = "git left marks of a merge in it" if merged else line
        raise PackError(f"{path} is damaged: it is not valid JSON ({reason}). {_RESCUE}") from error
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        old = isinstance(content, dict) and "worksheets" in content
        reason = "its format is too old: open it in JupyterLab and save it" if old else "it has no cells"
        raise PackError(f"{path} is no notebook: {reason}")
    return content


_RESCUE = (
    "JupyterLab keeps an older copy in the hidden folder .ipynb_checkpoints beside it; File > Revert "
    "Notebook to Checkpoint takes that"
)


def _check_week(path: Path, notebook: Notebook, week: Week) -> None:
    other = _course_mark(notebook).get("week", week.id)
    if other != week.id:
        raise PackError(f"{path} is a notebook of {other}, not of {week.id}")


def _course_mark(notebook: Notebook) -> dict[str, Any]:
    """Week and name of a notebook, as the build wrote them into it."""
    metadata = notebook.get("metadata")
    found = metadata.get("mbrl_course") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _files(week: Week, originals: Mapping[str, Notebook], given: Path | None) -> dict[str, Path]:
    """The student's notebooks, by the name that they are handed in under."""
    if given is not None and given.is_file():
        for name in (_course_mark(read_notebook(given)).get("notebook"), given.stem):
            if name in originals:
                return {str(name): given}
        return {next(iter(originals)): given}
    if given is not None and not given.is_dir():
        raise PackError(f"there is no {given}")
    here = Path.cwd()
    folders = [given] if given is not None else [here, here / week.id]
    if given is None:
        folders += [folder / "weeks" / week.id for folder in (here, *here.parents)]
    for folder in folders:
        found = {name: folder / f"{name}.ipynb" for name in originals}
        found = {name: path for name, path in found.items() if path.is_file()}
        if found and (given is not None or folder.name == week.id or _is_of(week, found)):
            return found
    names = " or ".join(f"{name}.ipynb" for name in originals)
    raise PackError(
        f"found no {names} of {week.id} in {given or here}: go to the folder that it is in, or pass "
        "--notebook PATH"
    )


def _is_of(week: Week, files: Mapping[str, Path]) -> bool:
    """Whether notebooks in a folder of any name are the week's."""
    for path in files.values():
        try:
            if _course_mark(read_notebook(path)).get("week") == week.id:
                return True
        except PackError:
            continue
    return False


def released(week: Week, given: Path | None = None) -> dict[str, Notebook]:
    """The week's notebooks as students got them, by name, `build` first.

    Raises:
        PackError: there are none in `given`, or in this installation.
    """
    if given is not None:
        texts = _from_path(week, given)
    elif (RELEASED / week.id).is_dir():
        texts = {path.stem: path.read_text(encoding="utf-8") for path in (RELEASED / week.id).glob("*.ipynb")}
    else:
        texts = _from_checkout(week)
    if not texts:
        where = f"in {given}" if given else "in this installation"
        raise PackError(
            f"there is no release of {week.id} {where} to compare with: pass --release with the zip or the "
            "folder that you were given"
        )
    try:
        return {name: json.loads(texts[name]) for name in sorted(texts)}
    except ValueError as error:
        raise PackError(f"the release of {week.id} cannot be read: {error}") from error


def _from_path(week: Week, path: Path) -> dict[str, str]:
    if path.is_dir():
        folder = path / week.id if (path / week.id).is_dir() else path
        return {one.stem: one.read_text(encoding="utf-8") for one in folder.glob("*.ipynb")}
    if path.suffix == ".ipynb" and path.is_file():
        return {path.stem: path.read_text(encoding="utf-8")}
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".ipynb")]
            return {Path(name).stem: archive.read(name).decode("utf-8") for name in names}
    except (OSError, zipfile.BadZipFile) as error:
        raise PackError(f"{path} is neither a folder nor a zip of the release: {error}") from error


def _from_checkout(week: Week) -> dict[str, str]:
    """In a checkout `weeks/` is where students work, so the release is made anew from the sources."""
    try:
        authoring: Any = importlib.import_module("mbrl_autograder.authoring")
        texts: dict[str, str] = authoring.student_notebooks(week.id)
        return texts
    except (ModuleNotFoundError, FileNotFoundError):
        return {}
    except Exception as error:  # the authoring says what is wrong with the sources
        raise PackError(f"the release of {week.id} cannot be made from the sources: {error}") from error
