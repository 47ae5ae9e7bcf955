"""Grading: runs a class's notebooks, marks them with nbgrader, writes feedback pages and `grades.csv`.

`grade` is the whole of it for callers. What meets the student's code is one function (`model.Executor`), so
that it can be replaced without a change to what collects, records and reports.
"""

from .course import find_course
from .edition import student_edition
from .engine import grade
from .model import ClassResult, Executor, GradingError, Job, Limits, Outcome
from .report import format_table

__all__ = [
    "ClassResult",
    "Executor",
    "GradingError",
    "Job",
    "Limits",
    "Outcome",
    "find_course",
    "format_table",
    "grade",
    "student_edition",
]
