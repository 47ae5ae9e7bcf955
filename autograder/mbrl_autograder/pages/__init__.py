"""What people see of a graded class in a browser: a feedback page for each notebook, and one overview."""

from .feedback import write_feedback
from .overview import write_overview

__all__ = ["write_feedback", "write_overview"]
