"""nbgrader's configuration of this course: `nbgrader` commands work in this folder as they are."""

from mbrl_autograder.authoring.settings import configure

configure(get_config())  # type: ignore[name-defined]  # noqa: F821
