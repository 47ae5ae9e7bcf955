"""`python -m mbrl_autograder.authoring`: build, check, release, and lint for whoever writes a notebook."""

from __future__ import annotations

import argparse
import sys

from mbrl_autograder.authoring import AuthoringError, build, check, lint, release
from mbrl_course.weeks import UnknownWeekError


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb; returns 0 if all is well, 1 if there are problems, 2 if it can't be done."""
    parser = argparse.ArgumentParser(prog="python -m mbrl_autograder.authoring", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("build", help="regenerate solutions/ and weeks/")
    verb.add_argument("weeks", nargs="*", metavar="WEEK", help="such as week03; all weeks by default")
    verb.add_argument("--force", action="store_true", help="run unchanged notebooks again")
    verb.add_argument("--no-execute", action="store_true", help="write the notebooks, run none")
    verb = verbs.add_parser("check", help="fail if solutions/ or weeks/ are stale")
    verb.add_argument("weeks", nargs="*", metavar="WEEK")
    verb = verbs.add_parser("release", help="make the bundle that students get")
    verb.add_argument("week", metavar="WEEK")
    verb = verbs.add_parser("lint", help="validate notebook sources")
    verb.add_argument("files", nargs="+", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "build":
            for built in build(options.weeks or None, force=options.force, execute=not options.no_execute):
                what = "executed" if built.executed else "written" if built.written else "unchanged"
                print(f"{built.path}: {what} ({built.seconds:.0f} s)")
            return 0
        if options.verb == "release":
            print(release(options.week))
            return 0
        if options.verb == "check":
            problems = check(options.weeks or None)
        else:
            problems = [problem for file in options.files for problem in lint(file)]
    except AuthoringError as error:
        problems = list(error.problems)
    except (UnknownWeekError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
