"""The verbs of `mbrl-course` that run experiments and show what came out: run, sweep, plot, results, tune."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mbrl_course.commands import OK, PROBLEM, CommandError

AddVerb = Callable[..., argparse.ArgumentParser]
GOES_ON = "the same command goes on where this one stopped"
CLOCKS = {"processor": " ", "processor, without evaluation": "*", "wall": "~"}
"""How minutes were measured."""


def add_verbs(verbs: Any, add: AddVerb) -> None:
    """Adds the verbs to the command line; `add(verbs, name, function, text, example)` adds one."""
    example = "mbrl-course run planners-pendulum --seeds 0..4 --scale smoke"
    text = "run an experiment of the course; without NAME, list them"
    verb = add(verbs, "run", run, text, example, if_interrupted=GOES_ON)
    verb.add_argument("name", nargs="?", metavar="NAME", help="the experiment")
    text = "run nothing: say what NAME compares, and list its fields, their values and meanings"
    verb.add_argument("--show", action="store_true", help=text)
    _add_run_options(verb)

    example = "mbrl-course sweep pets-cartpole-balance horizon=10,15,25 hidden_sizes=64/64,128/128"
    text = "run an experiment with every combination of some settings"
    verb = add(verbs, "sweep", sweep, text, example, if_interrupted=GOES_ON)
    verb.add_argument("name", metavar="NAME", help="the experiment")
    verb.add_argument("grid", nargs="+", type=_grid_field, metavar="FIELD=A,B,C", help="values to try")
    _add_run_options(verb, jobs=os.cpu_count() or 1)

    example = "mbrl-course plot planners-pendulum"
    text = "draw an experiment's figure and print its table, from its logs or, without any, what ships"
    verb = add(verbs, "plot", plot, text, example)
    verb.add_argument("name", metavar="NAME", help="the experiment")
    _add_scale(verb)
    _add_out(verb)
    verb.add_argument("--save", type=Path, metavar="FILE", help="the figure (default OUT/NAME/SCALE.png)")

    text = "print the course's own results beside the published ones"
    verb = add(verbs, "results", results, text, "mbrl-course results")
    verb.add_argument(
        "names", nargs="*", metavar="NAME", help="only these experiments, with what their results cost"
    )
    text = "how long each agent took from an untrained model until it solved its task"
    verb.add_argument("--time-to-solve", action="store_true", help=text)

    example = "mbrl-course tune mbpo-pendulum learning_rate=log:1e-4..3e-3 updates_per_step=5,10 --trials 30"
    text = "search for good settings of an experiment with Optuna"
    verb = add(verbs, "tune", tune, text, example, if_interrupted="finished trials are kept; " + GOES_ON)
    text = (
        f"{verb.description} A trial's score is the return (or, where there is none, the error) over the "
        "last quarter of the learning curve, averaged over the seeds: one alone is a noisy judge. Variants "
        "are left out, unless --set variants=... names some. Trials lie in OUT/NAME/tune.journal, which "
        "several calls may work on at once. `mbrl-course run NAME --show` lists the fields."
    )
    verb.description = textwrap.fill(text, 79)
    verb.add_argument("name", metavar="NAME", help="the experiment")
    verb.add_argument(
        "space", nargs="+", metavar="FIELD=RANGE", help="LOW..HIGH, log:LOW..HIGH, or values A,B,C"
    )
    text = "in all, earlier ones included (default %(default)s)"
    verb.add_argument("--trials", type=count, default=20, metavar="N", help=text)
    _add_run_options(verb, cluster=False)


def _add_run_options(verb: argparse.ArgumentParser, cluster: bool = True, jobs: int = 1) -> None:
    verb.add_argument(
        "--seeds", type=parse_seeds, default=[0], metavar="SEEDS", help="such as 0..4 or 0,3,7 (default 0)"
    )
    _add_scale(verb)
    verb.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        dest="settings",
        help="change a field; several values as 64/64; may be repeated (`run NAME --show` lists the fields)",
    )
    _add_out(verb)
    verb.add_argument(
        "--fresh", action="store_true", help="forget earlier results and begin again, instead of going on"
    )
    text = "so many at a time, each a process (default %(default)s"
    text += ", the number of cores)" if jobs > 1 else ")"
    verb.add_argument("--jobs", type=count, default=jobs, metavar="N", help=text)
    text = "PyTorch's, in each process (default %(default)s, as for all results that ship)"
    verb.add_argument("--threads", type=count, default=1, metavar="N", help=text)
    if cluster:
        verb.add_argument(
            "--scheduler", metavar="ADDRESS", help="run on this Dask cluster, such as tcp://10.0.0.1:8786"
        )


def _add_scale(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--scale",
        choices=("smoke", "laptop", "full"),
        default="laptop",
        help="seconds, minutes, or the published setting (default %(default)s)",
    )


def _add_out(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="where results lie (default %(default)s/)",
    )


def run(options: argparse.Namespace) -> int:
    """Runs an experiment, or lists them."""
    from mbrl_course import experiments

    if options.name is None:
        return _list_experiments()
    if options.show:
        if options.settings:
            raise CommandError("--show lists what can be set, and takes no --set")
        from mbrl_course.experiments.fields import fields_text

        print(_explained(options.name, lambda: fields_text(options.name)))
        return OK
    frame = _ran(options, experiments.run)
    return _show_last(frame, ["seed"], options)


def _list_experiments() -> int:
    from mbrl_course import experiments
    from mbrl_course.experiments.tables import minutes_per_seed

    print(f"{'experiment':<26} week  minutes")
    for name in experiments.list_experiments():
        experiment, minutes = experiments.get_experiment(name), minutes_per_seed(name)
        measured = "-" if minutes is None else f"{max(minutes.minutes, 0.1):.1f}{CLOCKS[minutes.clock]}"
        print(f"{name:<26} {experiment.week:>4} {measured:>8}  {experiment.title}")
    print("\nminutes: of the processor (AMD EPYC), for one seed at laptop scale, where results ship")
    print("*: without evaluation; ~: on the wall, while other programs ran")
    print("`mbrl-course run NAME --show` says what is in an experiment, and what can be changed")
    return OK


def sweep(options: argparse.Namespace) -> int:
    """Runs a grid."""
    from mbrl_course import experiments

    grid = _fields(options.grid)
    frame = _ran(options, experiments.sweep, grid)
    return _show_last(frame, [*grid, "seed"], options)


def plot(options: argparse.Namespace) -> int:
    """Draws the figure and prints the table."""
    from mbrl_course.experiments import tables
    from mbrl_course.experiments.shipping import seed_text

    path = options.save or options.out / options.name / f"{options.scale}.png"
    logs = _explained(options.name, lambda: tables.own_logs(options.name, options.scale, options.out))
    if logs is None:
        logs = _explained(options.name, lambda: tables.read_logs(options.name, options.scale, options.out))
        print(f"nothing of it was run in {options.out}/ at this scale: this is what ships with the course")
    print(_explained(options.name, lambda: tables.tables_text(options.name, logs)))
    for changes, seeds in tables.unfinished_seeds(options.name, options.scale, options.out).items():
        print(f"not finished, so these rows end early: {changes}, seeds {seed_text(seeds)}")
    print(_explained(options.name, lambda: tables.save_figure(options.name, logs, path)))
    return OK


def results(options: argparse.Namespace) -> int:
    """Prints what ships."""
    from mbrl_course.experiments.tables import results_text
    from mbrl_course.experiments.time_to_solve import solve_text

    text = solve_text if options.time_to_solve else results_text
    print(_explained("results", lambda: text(options.names)))
    return OK


def tune(options: argparse.Namespace) -> int:
    """Searches for good settings."""
    from mbrl_course.experiments import tuning
    from mbrl_course.experiments.files import command_line
    from mbrl_course.experiments.shipping import seed_text

    asked = _fields(options.settings)

    def search() -> Any:
        return tuning.tune(
            options.name,
            options.space,
            options.trials,
            options.seeds,
            options.scale,
            asked,
            options.out,
            fresh=options.fresh,
            jobs=options.jobs,
            threads=options.threads,
        )

    trials = _explained(options.name, search)
    if trials.empty:
        print("no trial has a score: each diverged, or its values can't be taken together")
        return PROBLEM
    print(trials.head(10).to_string(index=False))
    best: dict[Any, Any] = trials.drop(columns=["trial", "score"]).to_dict("records")[0]  # whole numbers stay
    settings = {**tuning.tuned_settings(options.name, options.scale, asked), **best}
    command = command_line(options.name, options.scale, seed_text(options.seeds), settings)
    print(f"{len(trials)} trials; the best: {command}")
    return OK


def _ran(options: argparse.Namespace, function: Callable[..., Any], *what: Any) -> Any:
    """The rows of an experiment with the seeds, settings and processes of the command line."""
    return _explained(
        options.name,
        lambda: function(
            options.name,
            *what,
            options.seeds,
            options.scale,
            _fields(options.settings),
            options.out,
            fresh=options.fresh,
            jobs=options.jobs,
            threads=options.threads,
            scheduler=options.scheduler,
        ),
    )


def _explained(name: str, action: Callable[[], Any]) -> Any:
    """What `action` returns; what can go wrong becomes a CommandError."""
    from mbrl_course.experiments import JobError

    try:
        return action()
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("mbrl_course"):
            raise
        missing = (error.name or "").removeprefix("mbrl_course.")
        raise CommandError(
            f"{name!r} needs mbrl_course.{missing}, which this edition leaves to you: write it in "
            "the week's build.ipynb, and run experiments.ipynb beside it"
        ) from error
    except FloatingPointError as error:
        raise CommandError(f"{name!r} diverged: {error}") from error
    except (ValueError, JobError, FileNotFoundError) as error:  # an unknown name or field, stale results, ...
        raise CommandError(str(error)) from error


def _show_last(frame: Any, by: list[str], options: argparse.Namespace) -> int:
    """Prints the last row of every run, and of every part of it that has a name."""
    parts = [name for name in ("variant",) if name in frame.columns]
    print(frame.groupby([*by, *parts], sort=False).tail(1).to_string(index=False))
    print(f"{len(frame)} rows; files in {options.out / options.name}, for TensorBoard, too")
    return OK


def parse_seeds(text: str) -> list[int]:
    """The seeds that "0..4" (both ends included), "0,3,7" or a mixture of them name.

    Raises:
        argparse.ArgumentTypeError: the text is no such list, or the same seed comes twice.
    """
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dots, last = part.partition("..")
            seeds += range(int(first), int(last) + 1) if dots else [int(first)]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds, expected such as 0..4 or 0,3,7")
    return seeds


def _setting(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise argparse.ArgumentTypeError(f"{text!r} has no value, expected FIELD=VALUE")
    return field.strip(), value.strip()


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """What the command line says of each field.

    Raises:
        CommandError: it speaks of one twice.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(name for name in fields if [other for other, _ in pairs].count(name) > 1)
        raise CommandError(f"field {repeated!r} is given twice, expected once")
    return fields


def _grid_field(text: str) -> tuple[str, list[str]]:
    field, values = _setting(text)
    found = [value.strip().replace("/", ",") for value in values.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty value, expected FIELD=A,B,C")
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} has a value twice; several numbers in one are 64/64")
    return field, found


def count(text: str) -> int:
    """A whole number of 1 or more, from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)
