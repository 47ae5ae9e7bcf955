"""Feedback pages: nbgrader's own, one HTML file per student and notebook.

Each student's are made in a process of its own, which has a deadline.
"""

from __future__ import annotations

import glob
import sys
import tempfile
from pathlib import Path

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbformat import NotebookNode
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import ClearHiddenTests, GetGrades, NbGraderPreprocessor
from traitlets.config import Config

from .course import Course, quiet_log
from .kernel import environment
from .notebooks import is_test
from .processes import run_bounded

SECONDS = 120.0


class HideTests(NbGraderPreprocessor):
    """Leaves of each test cell what a student may read: its visible part, and what went wrong."""

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        """Cuts the hidden region and the traceback, which quotes it."""
        if is_test(cell):
            cell, resources = ClearHiddenTests(parent=self).preprocess_cell(cell, resources, index)
            for output in cell.outputs:
                if output.output_type == "error":
                    output.traceback = [f"{output.ename}: {output.evalue}" if output.evalue else output.ename]
        return cell, resources


def configure_feedback(config: Config) -> None:
    """Has nbgrader's feedback hide hidden tests, and clean what HTML a submission brings."""
    config.GenerateFeedback.preprocessors = [HideTests, GetGrades, CSSHTMLHeaderPreprocessor]
    config.HTMLExporter.sanitize_html = True


def write_feedback(course: Path, assignment: str, student: str) -> str:
    """Writes the pages of one student's autograded notebooks; returns "" or why that failed."""
    with tempfile.TemporaryDirectory(prefix="mbrl-course-") as scratch:
        log = Path(scratch) / "log.txt"
        command = [sys.executable, "-m", "mbrl_autograder.grading.feedback", str(course), assignment, student]
        code = run_bounded(command, seconds=SECONDS, cwd=Path(scratch), env=environment(), log=log)
        if code == 0:
            return ""
        if code is None:
            return f"no feedback page: it took longer than {SECONDS:g} s"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"no feedback page: {lines[-1][:160] if lines else f'exit code {code}'}"


def main(root: str, assignment: str, student: str) -> int:
    """Runs nbgrader's feedback step for one student of the course in `root`."""
    course = Course(Path(root))
    config = course.config
    configure_feedback(config)
    config["CourseDirectory"].update(
        root=str(course.root), assignment_id=assignment, student_id=glob.escape(student)
    )
    messages: list[str] = []
    log = quiet_log(messages)
    converter = GenerateFeedback(coursedir=CourseDirectory(config=config, log=log), config=config, log=log)
    converter.force = True
    try:
        converter.start()
    except Exception:
        tracebacks = [message for message in messages if "Traceback" in message]
        if not tracebacks:
            raise
        print(tracebacks[-1])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
