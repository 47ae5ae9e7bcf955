"""Who is who: the senders in a learning platform's export, and the students of the gradebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nbgrader.api import Gradebook

from .filenames import CANVAS
from .model import Submission


def identified(arrived: Iterable[Submission], students: Mapping[str, str]) -> list[Submission]:
    """What arrived, under the names that the gradebook has for those who sent it.

    Canvas's numbers are the same in every export, while two people may share a name: who is known by the
    number gets the name that goes with it, and nobody gets the name of somebody with another number.

    Args:
        arrived: one submission for each sender.
        students: the gradebook's, each with the platform's number (nbgrader's `lms_user_id`) or "".
    """
    names = {number: student for student, number in students.items() if number}
    found: dict[str, Submission] = {}
    for one in arrived:
        name = one.student
        if one.platform == CANVAS:
            name = names.get(one.number, name)
            if students.get(name, "") not in ("", one.number) or name in found:
                name = f"{one.student}_{one.number}"
        found[name] = replace(one, student=name)
    return sorted(found.values(), key=lambda one: one.student)


def numbers(gradebook: Gradebook) -> dict[str, str]:
    """The platform's number of each student in the gradebook, or ""."""
    return {student.id: student.lms_user_id or "" for student in gradebook.students}


def remember(gradebook: Gradebook, submission: Submission) -> None:
    """Notes Canvas's number with the student, where the gradebook has none yet.

    Moodle's are others in every assignment.
    """
    if submission.platform == CANVAS:
        student = gradebook.find_student(submission.student)
        if not student.lms_user_id:
            student.lms_user_id = submission.number
            gradebook.db.commit()
