"""A course directory as nbgrader knows it: where its sources, submissions and gradebook lie."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nbformat import NotebookNode
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearHiddenTests
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from .model import Exercise, GradingError
from .notebooks import COURSE_KEY, grade_id, grading_template, has_tests, is_test

CONFIG_FILE = "nbgrader_config.py"


def find_course(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: here) that holds a course.

    Raises:
        GradingError: there is none; the message says what to pass.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (
            (folder / "solutions").is_dir()
            or (folder / CONFIG_FILE).is_file()
            or (folder / "source").is_dir()
        ):
            return folder
    raise GradingError(
        f"found no course at or above {start}: pass --course DIR (a folder with solutions/ or source/), "
        "or run this in the course's checkout after `mbrl-course build`"
    )


def _find_scripts() -> None:
    """Puts this environment's programs on PATH: nbgrader calls `alembic`, also where nobody activated it."""
    scripts, path = sysconfig.get_path("scripts"), os.environ.get("PATH", "")
    if scripts not in path.split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join(filter(None, [scripts, path]))


class Course:
    """A course directory, read through its own `nbgrader_config.py` where it has one."""

    def __init__(self, root: Path) -> None:
        """Reads the configuration.

        Raises:
            GradingError: `root` is no folder, or its configuration cannot be read.
        """
        if not root.is_dir():
            raise GradingError(f"there is no course folder {root}")
        _find_scripts()
        self.root = root.resolve()
        self.config = self._load_config()
        self.directory = CourseDirectory(config=self.config, root=str(self.root))
        path = self._database
        if path is not None and not path.is_absolute():  # nbgrader is run in the course's folder
            self.directory.db_url = f"sqlite:///{self.root / path}"
        self.config.CourseDirectory.db_url = self.directory.db_url

    def _load_config(self) -> Config:
        config = Config()
        if (self.root / "solutions").is_dir() and not (self.root / "source").is_dir():
            config.CourseDirectory.source_directory = "solutions"
            config.CourseDirectory.release_directory = "weeks"
        if (self.root / CONFIG_FILE).is_file():
            try:
                config.merge(PyFileConfigLoader(CONFIG_FILE, path=str(self.root)).load_config())
            except Exception as error:  # the file may hold any code
                raise GradingError(f"{self.root / CONFIG_FILE} cannot be read: {error!r}") from error
        return config

    def folder(self, step: str, assignment: str, student: str = ".") -> Path:
        """The folder of a step ("source", "submitted", "autograded", "feedback"), as nbgrader forms it."""
        name = getattr(self.directory, f"{step}_directory")
        return Path(self.directory.format_path(name, student, assignment)).resolve()

    def submitted_folder(self, assignment: str) -> Path:
        """The folder in which nbgrader keeps what students handed in, a folder for each."""
        anybody = "anybody-at-all"
        folder = self.folder("submitted", assignment, anybody)
        return next((up.parent for up in (folder, *folder.parents) if up.name == anybody), folder)

    @property
    def hidden_markers(self) -> tuple[str, str]:
        """What begins and ends the hidden part of a test in this course's sources."""
        cut = ClearHiddenTests(config=self.config)
        return cut.begin_test_delimeter, cut.end_test_delimeter

    @property
    def assignments(self) -> list[str]:
        """The names of the assignments that have source notebooks."""
        source = self.folder("source", ".")
        found = source.glob("*/*.ipynb") if source.is_dir() else ()
        return sorted({path.parent.name for path in found if not path.parent.name.startswith(".")})

    @property
    def _database(self) -> Path | None:
        """The gradebook's file, where it is one."""
        kind, _, name = self.directory.db_url.partition(":///")
        return Path(name) if kind == "sqlite" and name else None

    @property
    def has_gradebook(self) -> bool:
        """Whether a gradebook is there already."""
        return self._database is None or self._database.exists()

    @contextmanager
    def gradebook(self) -> Iterator[Gradebook]:
        """The course's gradebook, open; made if it is not there, by no half even when that is interrupted."""
        course_id = self.directory.course_id or "default_course"
        path = self._database
        if path is not None and not path.exists():
            draft = path.with_name(f".{path.name}.part")
            draft.unlink(missing_ok=True)
            Gradebook(f"sqlite:///{draft}", course_id).close()
            draft.replace(path)
        gradebook = Gradebook(self.directory.db_url, course_id)
        try:
            yield gradebook
        finally:
            gradebook.close()
            gradebook.engine.dispose()


class Assignment:
    """An assignment's notebooks as they are graded, and the columns of its marks."""

    def __init__(self, course: Course, name: str) -> None:
        """Reads the source notebooks.

        Raises:
            GradingError: the course has no such assignment; the message lists those it has.
        """
        self.course, self.name = course, name
        self.source = course.folder("source", name)
        paths = sorted(self.source.glob("*.ipynb")) if self.source.is_dir() else []
        if not paths:
            known = ", ".join(course.assignments) or "none: run `mbrl-course build` first"
            raise GradingError(f"{course.root} has no notebooks for {name!r}; assignments there: {known}")
        templates = {path.stem: grading_template(path, course.config) for path in paths}
        order = sorted(templates, key=lambda notebook: (not has_tests(templates[notebook]), notebook))
        self.templates: dict[str, NotebookNode] = {notebook: templates[notebook] for notebook in order}
        columns = [column for item in self.templates.items() for column in exercises(*item)]
        ids = [column.id for column in columns]
        self.exercises = tuple(
            replace(column, id=f"{column.notebook}/{column.id}") if ids.count(column.id) > 1 else column
            for column in columns
        )

    def register(self) -> None:
        """Tells the gradebook of the assignment and its cells, as `nbgrader generate_assignment` does.

        Nothing happens where it knows them already, just as they are.

        Raises:
            GradingError: cells came or went since submissions were recorded, or the source is not valid.
        """
        if self._is_registered():
            return
        release = Path(tempfile.mkdtemp(prefix="mbrl-course-"))
        config = copy.deepcopy(self.course.config)
        config["CourseDirectory"].update(
            root=str(self.course.root), release_directory=str(release), assignment_id=self.name
        )
        messages: list[str] = []
        log = quiet_log(messages)
        try:
            directory = CourseDirectory(config=config, log=log)
            converter = GenerateAssignment(coursedir=directory, config=config, log=log)
            converter.force = True
            converter.start()
        except Exception as error:  # nbgrader ends with many kinds
            raise GradingError(
                f"the gradebook does not accept {self.name}: {self._why(messages, error)}"
            ) from error
        finally:
            shutil.rmtree(release, ignore_errors=True)

    def _is_registered(self) -> bool:
        """Whether the gradebook has the same notebooks and cells, with the same points."""
        with self.course.gradebook() as gradebook:
            known = next((one for one in gradebook.assignments if one.name == self.name), None)
            if known is None:
                return False
            recorded = {
                (notebook.name, cell.name, cell.max_score)
                for notebook in known.notebooks
                for cell in (*notebook.grade_cells, *notebook.task_cells)
            }
            written = {
                (notebook.name, c.name) for notebook in known.notebooks for c in notebook.solution_cells
            }
            sources = {
                (notebook.name, cell.name, cell.source)
                for notebook in known.notebooks
                for cell in notebook.source_cells
            }
        cells = [(name, cell) for name, one in self.templates.items() for cell in one.cells if grade_id(cell)]
        flags = [(name, cell, cell.metadata.nbgrader) for name, cell in cells]
        return (
            recorded
            == {(n, grade_id(c), float(f.points)) for n, c, f in flags if f.get("grade") or f.get("task")}
            and written == {(n, grade_id(c)) for n, c, f in flags if f.get("solution")}
            and sources == {(n, grade_id(c), c.source) for n, c in cells}
        )

    def _why(self, messages: list[str], error: Exception) -> str:
        with self.course.gradebook() as gradebook:
            known = next((one for one in gradebook.assignments if one.name == self.name), None)
            if known is not None and known.submissions:
                recorded = {cell.name for notebook in known.notebooks for cell in notebook.source_cells}
                current = {grade_id(cell) for one in self.templates.values() for cell in one.cells} - {""}
                changed = sorted(recorded ^ current)
                if changed:
                    return (
                        f"its notebooks changed since submissions were recorded ({', '.join(changed[:5])}). "
                        "Grade with the notebooks as they were released, or remove the assignment from the "
                        f"gradebook (`nbgrader db assignment remove {self.name} --force`; keep a copy, this "
                        "deletes marks and comments given by hand, too) and grade all again"
                    )
        reasons = [message.strip().splitlines()[-1] for message in messages if "Traceback" in message]
        return reasons[-1] if reasons else str(error)


def quiet_log(messages: list[str]) -> logging.Logger:
    """A logger for nbgrader that prints nothing and appends errors to `messages`."""
    log = logging.Logger("nbgrader", logging.ERROR)
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    return log


def exercise_of(name: str) -> str:
    """The exercise that a test cell belongs to: "refit" for "refit-test-2", else the cell's own id."""
    head, separator, number = name.rpartition("-test-")
    return head if separator and number.isdigit() else name


def exercises(notebook: str, template: NotebookNode) -> list[Exercise]:
    """The columns of one notebook's marks, in the order of its cells."""
    columns: dict[str, Exercise] = {}
    for cell in template.cells:
        metadata = cell.metadata.get("nbgrader", {})
        if not (metadata.get("grade") or metadata.get("task")):
            continue
        name, points = grade_id(cell), float(metadata.get("points") or 0)
        key = exercise_of(name)
        old = columns.get(key, Exercise(key, notebook, (), 0.0, by_hand=not is_test(cell)))
        bonus = bool(cell.metadata.get(COURSE_KEY, {}).get("bonus"))
        best = old.max_score + points
        columns[key] = Exercise(key, notebook, (*old.cells, name), best, old.by_hand, bonus)
    return list(columns.values())
