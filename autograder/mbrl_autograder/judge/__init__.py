"""The judge: runs the source's tests outside the sandbox, on a student's code inside it, over plain data."""

from .engine import Judge
from .results import CellResult, GradingTask, JudgeLimits, SubmissionResult
from .sandbox import SandboxError

__all__ = ["CellResult", "GradingTask", "Judge", "JudgeLimits", "SandboxError", "SubmissionResult"]
