"""nbgrader's configuration of this course: `nbgrader` commands work in this folder as they are."""

from mbrl_autograder.authoring.settings import configure
from mbrl_autograder.grading.nbgrader_hooks import configure as configure_grading

config = get_config()  # type: ignore[name-defined]  # noqa: F821
configure(config)
configure_grading(config)
