"""Every experiment of the course, by name: the same ones for the notebooks and for the command line.

    from mbrl_course.experiments import run
    frame = run("q2", seeds=range(5), scale="laptop")

An experiment is a typed configuration for each of three scales, and a function that runs one seed of it. The
modules of a week are imported only when an experiment runs, so a student's own functions can stand for them.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mbrl_course.experiments.config import ConfigError, did_you_mean, with_overrides
from mbrl_course.experiments.files import run_folder
from mbrl_course.experiments.parallel import Job, JobError, run_in_processes, run_job, run_on_cluster
from mbrl_course.experiments.runner import (
    SCALES,
    Experiment,
    Run,
    StaleResultsError,
    is_finished,
    run_experiment,
)
from mbrl_course.experiments.shipping import (
    list_results,
    load_header,
    load_reference,
    load_results,
    ship_results,
)
from mbrl_course.experiments.variants import Variants, refuse_without_effect, variant_settings

__all__ = [
    "SCALES",
    "ConfigError",
    "Experiment",
    "JobError",
    "Run",
    "StaleResultsError",
    "get_config",
    "get_experiment",
    "list_experiments",
    "list_results",
    "load_header",
    "load_reference",
    "load_results",
    "run",
    "ship",
    "sweep",
]


def _all_experiments() -> Iterator[Experiment[Any]]:
    """The experiments of every week that is there: a student edition lacks those of later weeks."""
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        if name.startswith("week"):
            yield from importlib.import_module(f"{__name__}.{name}").EXPERIMENTS


_EXPERIMENTS: dict[str, Experiment[Any]] = {experiment.name: experiment for experiment in _all_experiments()}


def list_experiments() -> list[str]:
    """The names of all experiments, in the order of the course."""
    return list(_EXPERIMENTS)


def get_experiment(name: str) -> Experiment[Any]:
    """The experiment called `name`.

    Raises:
        ConfigError: there is no such experiment; the message lists those there are.
    """
    if name not in _EXPERIMENTS:
        alike = did_you_mean(name, _EXPERIMENTS)
        raise ConfigError(f"there is no experiment {name!r}{alike}; there are {', '.join(_EXPERIMENTS)}")
    return _EXPERIMENTS[name]


def get_config(name: str, scale: str = "laptop", overrides: Mapping[str, Any] | None = None) -> Any:
    """The configuration of an experiment, a frozen dataclass.

    Args:
        name: of the experiment.
        scale: "smoke", "laptop" or "full".
        overrides: fields to change, texts or values, such as {"horizon": "15"}.

    Raises:
        ConfigError: no such experiment, scale or field, a value that does not fit, or a field whose value
            makes no difference, since all variants set it; the message names it, and says what there is.
    """
    experiment, overrides = get_experiment(name), overrides or {}
    if scale not in experiment.configs:
        raise ConfigError(f"scale is {scale!r}, expected one of {', '.join(experiment.configs)}")
    config = with_overrides(experiment.configs[scale], overrides)
    if isinstance(config, Variants):
        refuse_without_effect(config, overrides)
    return config


def check_settings(config: Any) -> None:
    """Makes the settings of every variant, so that fields which only these check are refused.

    Raises:
        ConfigError: some can't be; the message names the field.
    """
    if isinstance(config, Variants):
        variant_settings(config)


def run(
    name: str,
    seeds: Sequence[int] = (0,),
    scale: str = "laptop",
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = "runs",
    progress: bool = True,
    *,
    fresh: bool = False,
    jobs: int = 1,
    threads: int | None = None,
    scheduler: str | None = None,
) -> pd.DataFrame:
    """Runs an experiment, or what is missing of it, and returns its results.

    Each seed leaves a CSV file OUT/NAME/SCALE/seed_K.csv and event files for TensorBoard. A seed that is
    finished is not run again; one that was interrupted goes on from its last checkpoint, and ends with the
    same numbers as if it had not been interrupted.

    Args:
        name: of the experiment, see `list_experiments`.
        seeds: one run for each.
        scale: "smoke" (seconds), "laptop" (minutes) or "full" (the published setting).
        overrides: fields to change, texts or values; such runs get a folder of their own.
        out: where the files go; None keeps everything in memory, writes nothing, and reads nothing old.
        progress: show progress bars.
        fresh: forget earlier results and checkpoints of these seeds.
        jobs: so many seeds at a time, each in a process of its own.
        threads: of PyTorch, for each seed; None leaves them as they are, and gives one to each process of
            `jobs`. All results that ship were made with one, as the command line does it; the last digits of
            a sum, and with them a whole run, can depend on it.
        scheduler: address of a Dask cluster that runs the seeds instead.

    Returns:
        The rows of all seeds, with the column "seed" first; the others are those of the experiment.

    Raises:
        ConfigError: see `get_config` and `check_settings`.
        StaleResultsError: the folder holds results that another configuration gave.
        FloatingPointError: a network diverged.
        JobError: a seed failed in its process, or the cluster can't be used.
    """
    experiment, config = get_experiment(name), get_config(name, scale, overrides)
    if jobs > 1 or scheduler is not None:
        if out is None:
            raise ConfigError("out is None, expected a folder where processes can leave their results")
        each = 1 if threads is None else threads
        todo = _jobs(name, config, seeds, scale, overrides or {}, out, fresh, each)
        _run_jobs(todo, jobs, scheduler, progress)
        fresh = progress = False  # what is left to do is to read the results
    else:
        _seeds_left(name, config, seeds, scale, overrides or {}, out, fresh)
    with _torch_threads(torch.get_num_threads() if threads is None else threads):
        return run_experiment(
            experiment, config, seeds, scale, overrides=overrides, out=out, fresh=fresh, progress=progress
        )


@contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    """So many threads of PyTorch inside, and afterwards as many as before."""
    if number < 1:
        raise ConfigError(f"threads is {number}, expected at least 1")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sweep(
    name: str,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int] = (0,),
    scale: str = "laptop",
    overrides: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    progress: bool = True,
    *,
    fresh: bool = False,
    jobs: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
) -> pd.DataFrame:
    """Runs an experiment with every combination of some fields' values.

    Args:
        name: of the experiment.
        grid: the values of each field.
        seeds: one run for each, with each combination.
        scale: "smoke", "laptop" or "full".
        overrides: further fields to change, alike in all of them.
        out: where the files go, a folder for each combination.
        progress: show progress bars.
        fresh: forget earlier results and checkpoints.
        jobs: so many runs at a time, each in a process of its own.
        threads: of PyTorch, for each run, see `run`.
        scheduler: address of a Dask cluster that does the runs instead.

    Returns:
        The rows of all runs, the fields of the grid as first columns.

    Raises:
        ConfigError: see `get_config` and `check_settings`; the whole grid is checked before anything runs.
        StaleResultsError: a folder holds results that another configuration gave.
        JobError: a run failed, or the cluster can't be used.
    """
    if both := set(grid) & set(overrides or {}):
        raise ConfigError(f"field {min(both)!r} is set, and has values to try, expected one of the two")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    settings = [{**(overrides or {}), **point} for point in points]
    configs = [get_config(name, scale, setting) for setting in settings]
    todo = [
        job
        for setting, config in zip(settings, configs, strict=True)
        for job in _jobs(name, config, seeds, scale, setting, out, fresh, threads)
    ]
    _run_jobs(todo, jobs, scheduler, progress)
    tables = []
    for point, setting, config in zip(points, settings, configs, strict=True):
        experiment = get_experiment(name)
        table = run_experiment(experiment, config, seeds, scale, overrides=setting, out=out, progress=False)
        for place, (field, value) in enumerate(point.items()):
            table.insert(place, field, str(value))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _jobs(
    name: str,
    config: Any,
    seeds: Sequence[int],
    scale: str,
    overrides: Mapping[str, Any],
    out: str | Path,
    fresh: bool,
    threads: int,
) -> list[Job]:
    """What is left to do of some seeds; what would only fail in its process is refused at once."""
    if threads < 1:
        raise ConfigError(f"threads is {threads}, expected at least 1")
    left = _seeds_left(name, config, seeds, scale, overrides, out, fresh)
    where = str(Path(out).resolve())
    return [Job(name, seed, scale, dict(overrides), where, fresh, threads) for seed in left]


def _seeds_left(
    name: str,
    config: Any,
    seeds: Sequence[int],
    scale: str,
    overrides: Mapping[str, Any],
    out: str | Path | None,
    fresh: bool,
) -> list[int]:
    """The seeds that are not finished; settings with which they can't run are refused."""
    left = list(seeds)
    if out is not None and not fresh:
        folder = run_folder(name, scale, overrides, out)
        left = [seed for seed in seeds if not is_finished(folder, seed, config)]
    if left:  # results can be read where an agent's module is not there
        check_settings(config)
    return left


def _run_jobs(todo: Sequence[Job], jobs: int, scheduler: str | None, progress: bool) -> None:
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}, expected at least 1")
    if not todo:
        return
    title = todo[0].name
    if scheduler is not None:
        run_on_cluster(todo, scheduler, title, progress)
    else:
        run_in_processes(run_job, todo, jobs, title, progress)


def ship(
    name: str,
    scale: str,
    out: str | Path = "runs",
    results: Path | None = None,
    *,
    extend: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Gathers the finished seeds of an experiment into one table of the package, results/NAME-SCALE.csv.

    Args:
        name: of the experiment.
        scale: "smoke", "laptop" or "full".
        out: where the runs lie.
        results: the folder to write to; the package's own by default.
        extend: keep the seeds of the table there is that were not run again.
        overrides: fields in which the runs differ from the preset, such as {"precision": "bfloat16"}; the
            table's command names them, and whoever shows its results says so.

    Returns:
        The path of the table.

    Raises:
        FileNotFoundError: no seed is finished.
        FileExistsError: `overrides` are given, and the table there is was made without them.
        StaleResultsError: a seed was run, or the table was made, with another configuration than today's.
    """
    return ship_results(name, scale, get_config(name, scale, overrides), out, results, extend, overrides)
