"""Grading: judges a class's notebooks, marks them in nbgrader's gradebook, writes feedback and `grades.csv`.

`grade` is the whole of it for callers. What meets the student's code is one function (`model.Executor`), so
that it can be replaced without a change to what collects, records and reports.
"""

from .course import find_course
from .edition import student_edition
from .engine import grade
from .judging import Options
from .model import ClassResult, Executor, GradingError, Job, Limits, Outcome
from .preview import Preview, preview
from .report import as_json, format_table
from .rerunning import Rerun, rerun

__all__ = [
    "ClassResult",
    "Executor",
    "GradingError",
    "Job",
    "Limits",
    "Options",
    "Outcome",
    "Preview",
    "Rerun",
    "as_json",
    "find_course",
    "format_table",
    "grade",
    "preview",
    "rerun",
    "student_edition",
]
