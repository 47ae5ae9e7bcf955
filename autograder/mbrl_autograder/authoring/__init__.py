"""Authoring: notebook sources in, solution notebooks, student notebooks and release bundles out."""

from mbrl_autograder.authoring.build import Built, build, check, student_notebooks
from mbrl_autograder.authoring.course import AuthoringError, Course, Problem
from mbrl_autograder.authoring.lint import lint
from mbrl_autograder.authoring.release import release

__all__ = [
    "AuthoringError",
    "Built",
    "Course",
    "Problem",
    "build",
    "check",
    "lint",
    "release",
    "student_notebooks",
]
