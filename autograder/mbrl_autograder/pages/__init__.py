"""What people see of a graded class in a browser: a feedback page for each notebook, a marker's page for each
student, and one overview."""

from .feedback import write_feedback
from .marking import Marked, write_marking
from .overview import write_overview

__all__ = ["Marked", "write_feedback", "write_marking", "write_overview"]
