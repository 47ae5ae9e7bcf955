"""The command `mbrl-course`: everything that the course does, for people without make, on any system.

Exit codes: 0 all is well, 1 a problem was found (stale notebooks, submissions that could not be graded), 2
the command cannot be carried out as it was given, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mbrl_course import commands, experiment_commands
from mbrl_course.commands import INTERRUPTED, OK, USAGE, CommandError

DESCRIPTION = "A hands-on course on model-based reinforcement learning."
EPILOG = """\
for students:      lab, pack, run, sweep, plot, results, tune
for instructors:   demo, release, grade, rerun
for authors:       build, check

`mbrl-course VERB --help` says more about each, with an example.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code (see the module)."""
    options = make_parser().parse_args(arguments)
    try:
        code: int = options.function(options)
        return code
    except KeyboardInterrupt:
        print(f"\ninterrupted: {options.if_interrupted}", file=sys.stderr)
        return INTERRUPTED
    except CommandError as error:
        print(f"mbrl-course {options.verb}: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def make_parser() -> argparse.ArgumentParser:
    """The command line. Nothing heavy is imported before a verb runs."""
    parser = argparse.ArgumentParser(
        prog="mbrl-course",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    verb = _add(
        verbs,
        "build",
        commands.build,
        "regenerate solutions/ and weeks/ from course/notebooks/",
        "mbrl-course build week03",
        if_interrupted="notebooks that were finished are kept; the same command does the rest",
    )
    verb.add_argument("weeks", nargs="*", metavar="WEEK", help="such as week03 or 3; all weeks by default")
    verb.add_argument("--force", action="store_true", help="run unchanged notebooks again, too")

    _add(
        verbs,
        "check",
        commands.check,
        "fail if solutions/ or weeks/ are not what the sources give",
        "mbrl-course check",
    )

    verb = _add(
        verbs,
        "release",
        commands.release,
        "make the bundle of a week that students get",
        "mbrl-course release week03",
    )
    verb.add_argument("week", metavar="WEEK", help="such as week03 or 3")

    verb = _add(
        verbs,
        "grade",
        commands.grade,
        "grade what a class handed in for a week",
        "mbrl-course grade week03 --submissions ~/handed-in/week03",
        if_interrupted="what was graded is in the gradebook; the same command does the rest",
    )
    verb.add_argument(
        "week", metavar="WEEK", help="such as week03, or an assignment of the course in --course"
    )
    verb.add_argument(
        "--submissions",
        type=Path,
        metavar="PATH",
        help="a folder with one per student, or a zip as Canvas or Moodle export it; by default the course's "
        "own submitted/",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="list what would be graded and what is wrong with each, and grade nothing",
    )
    verb.add_argument(
        "--course",
        type=Path,
        metavar="DIR",
        help="any nbgrader course directory; by default the nearest one at or above this folder",
    )
    verb.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")
    verb.add_argument("--fresh", action="store_true", help="judge everything again, also what is finished")
    where = verb.add_argument_group("where submissions are judged")
    where.add_argument(
        "--workers",
        type=experiment_commands.count,
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="submissions at the same time (default: as many as there are cores, here %(default)s)",
    )
    where.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="a Dask cluster, such as tcp://host:8786"
    )
    where.add_argument(
        "--no-sandbox",
        action="store_true",
        help="run submissions as you, without bubblewrap: only for a class that you trust",
    )
    bounds = verb.add_argument_group("limits of one notebook")
    bounds.add_argument(
        "--cell-timeout",
        type=_duration,
        default=30.0,
        metavar="TIME",
        help="of one cell or test, in seconds or such as 2m (default %(default)gs)",
    )
    bounds.add_argument(
        "--scratch-timeout",
        type=_duration,
        default=10.0,
        metavar="TIME",
        help="of a cell that a student added and the solutions need (default %(default)gs)",
    )
    bounds.add_argument(
        "--timeout",
        type=_duration,
        default=180.0,
        metavar="TIME",
        help="of all of it together (default %(default)gs)",
    )
    bounds.add_argument(
        "--memory",
        type=_size,
        default=2 << 30,
        metavar="SIZE",
        help="beyond the libraries, in bytes or such as 500M or 4G (default 2G)",
    )
    bounds.add_argument(
        "--file-size",
        type=_size,
        default=64 << 20,
        metavar="SIZE",
        help="of one file that it writes; all together four times as much (default 64M)",
    )
    bounds.add_argument(
        "--processes",
        type=experiment_commands.count,
        default=64,
        metavar="N",
        help="processes and threads (default %(default)s)",
    )

    verb = _add(
        verbs,
        "rerun",
        commands.rerun,
        "run notebooks that are marked by hand again, for the marker to compare",
        "mbrl-course rerun week03 ada grace --set SCALE=smoke",
        if_interrupted="what was finished is written, the rest is as it was",
    )
    verb.add_argument("week", metavar="WEEK", help="such as week03, or an assignment of the course")
    verb.add_argument("students", nargs="+", metavar="STUDENT", help="whose notebooks; graded before")
    verb.add_argument(
        "--notebook", default="experiments", metavar="NAME", help="which notebook (default %(default)s)"
    )
    verb.add_argument(
        "--set",
        action="append",
        type=_setting,
        dest="values",
        metavar="NAME=VALUE",
        help="a parameter of the notebook, such as SCALE=smoke",
    )
    verb.add_argument("--course", type=Path, metavar="DIR", help="as for grade")
    verb.add_argument(
        "--timeout", type=_duration, default=1200.0, metavar="TIME", help="of a notebook (default 20m)"
    )
    verb.add_argument("--memory", type=_size, default=4 << 30, metavar="SIZE", help="default 4G")
    verb.add_argument("--no-sandbox", action="store_true", help="as for grade")

    verb = _add(
        verbs,
        "demo",
        commands.demo,
        "show it all: release, grade a sample class, film an agent",
        "mbrl-course demo",
        if_interrupted="run the same command again to start afresh",
    )
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("demo"),
        metavar="DIR",
        help="where everything goes (default %(default)s/)",
    )

    experiment_commands.add_verbs(verbs, _add)

    verb = _add(
        verbs,
        "pack",
        commands.pack,
        "check your notebooks of a week, and pack them to hand in",
        "mbrl-course pack week03",
    )
    verb.add_argument("week", metavar="WEEK", help="such as week03 or 3")
    verb.add_argument(
        "--notebook", type=Path, metavar="PATH", help="a notebook, or the folder with the week's notebooks"
    )
    verb.add_argument(
        "--release",
        type=Path,
        metavar="PATH",
        help="the zip or folder that you were given, where this installation has no copy of it",
    )

    verb = _add(verbs, "lab", commands.lab, "open JupyterLab in weeks/", "mbrl-course lab week03")
    verb.add_argument("week", nargs="?", metavar="WEEK", help="open this week's folder")
    return parser


def _add(
    verbs: Any,
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
    example: str,
    if_interrupted: str = "nothing was changed",
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(function=function, if_interrupted=if_interrupted)
    return verb


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return value


def _duration(text: str) -> float:
    """Seconds, from "90", "90s", "1.5m" or "1h"."""
    units = {"s": 1, "m": 60, "h": 3600}
    factor = units.get(text[-1:].lower())
    try:
        return _positive(text[:-1] if factor else text) * (factor or 1)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time, expected such as 90, 90s or 2m") from error


def _size(text: str) -> int:
    """Bytes, from "1000000", "500M" or "1.5G" (powers of 1024; "MB" and "MiB" are the same)."""
    units = {"K": 10, "M": 20, "G": 30, "T": 40}
    plain = text.upper().removesuffix("B").removesuffix("I")
    power = units.get(plain[-1:])
    try:
        return int(_positive(plain[:-1] if power else plain) * 2 ** (power or 0))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size, expected such as 500M or 4G") from error


def _setting(text: str) -> tuple[str, str]:
    """A name and a value, from "NAME=VALUE"."""
    name, sign, value = text.partition("=")
    if not (sign and name.isidentifier()):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
