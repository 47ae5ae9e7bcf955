"""The weeks of the course, and which modules of the package belong to which week.

One table serves everybody: the build refuses a notebook that uses a module of a later week, the student
edition leaves out the modules that are not handed in yet, and `mbrl_course.student` knows which module
a student's notebook stands for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Week:
    """One week of the course: `id` names its folder in `weeks/` and `solutions/` ("week03")."""

    number: int
    source: str  # folder in course/notebooks
    title: str
    modules: tuple[str, ...]  # what the student writes in this week, in reading order

    @property
    def id(self) -> str:
        """The nbgrader assignment's name, such as "week03"."""
        return f"week{self.number:02d}"


WEEKS: tuple[Week, ...] = (
    Week(1, "week01_dynamics", "Learning a dynamics model", ("buffers", "dynamics")),
    Week(2, "week02_mpc", "Model-predictive control", ("mpc",)),
    Week(3, "week03_cem", "The cross-entropy method and its friends", ("cem", "mppi", "icem")),
    Week(4, "week04_ensembles", "Knowing what you don't know", ("ensembles", "calibration", "prioritized")),
    Week(5, "week05_pets", "PETS", ("pets",)),
    Week(6, "week06_dyna_ppo", "Dyna-PPO", ("ppo", "imagination", "dyna_ppo")),
    Week(
        7,
        "week07_mbpo",
        "MBPO",
        ("sac", "branching", "learned_termination", "multistep", "mbpo", "mbpo_theory"),
    ),
    Week(8, "week08_clinic", "The clinic", ("clinic",)),
)


class UnknownWeekError(ValueError):
    """The name fits no week of the course."""


def find_week(name: str | int) -> Week:
    """The week called `name`: 3, "3", "03", "week3", "week03" and "week03_cem" all name week 3.

    Raises:
        UnknownWeekError: no such week; the message lists the weeks there are.
    """
    text = str(name).strip().lower()
    digits = text.removeprefix("week").split("_")[0]
    for week in WEEKS:
        if text in (week.id, week.source) or (digits.isdigit() and int(digits) == week.number):
            return week
    known = ", ".join(f"{week.id} ({week.title})" for week in WEEKS)
    raise UnknownWeekError(f"there is no week {name!r}; the weeks are: {known}")


def modules_before(week: Week) -> tuple[str, ...]:
    """The modules that were handed in before `week` starts."""
    return tuple(module for other in WEEKS if other.number < week.number for module in other.modules)


def modules_due(week: Week) -> tuple[str, ...]:
    """The modules that are due in `week` or later, which its students must not be given."""
    return tuple(module for other in WEEKS if other.number >= week.number for module in other.modules)
