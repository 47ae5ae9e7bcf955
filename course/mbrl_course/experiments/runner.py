"""Runs experiments, seed by seed, so that nothing is lost when they are interrupted.

An experiment is a function of a configuration and a `Run`. The run holds the seed's generator, takes the
rows of the result, and keeps checkpoints; its files are

    runs/NAME/SCALE/seed_0.csv              the rows, below comment lines that say how they were made
    runs/NAME/SCALE/seed_0.partial.csv      the rows so far, while the seed is running
    runs/NAME/SCALE/seed_0.checkpoint       what is needed to go on after an interruption
    runs/NAME/SCALE/tensorboard/seed_0/     the same numbers for TensorBoard
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
import torch
from tqdm.auto import tqdm

from mbrl_course.experiments.config import ConfigError, differences, to_plain
from mbrl_course.experiments.files import (
    append_csv,
    command_line,
    machine,
    read_csv,
    read_header,
    run_folder,
    write_csv,
)

SCALES = ("smoke", "laptop", "full")
"""A few seconds, a few minutes, and the published setting."""

C = TypeVar("C")
T = TypeVar("T")


class StaleResultsError(ValueError):
    """The folder holds results of the same name that were made with another configuration."""


@dataclass(frozen=True)
class Objective:
    """What a search for good settings (see `tuning`) makes better.

    Attributes:
        column: of the rows.
        lower: whether less of it is better.
        where: counts only the rows of which this is true (see `pandas.DataFrame.query`); all by default.
    """

    column: str = "eval_return"
    lower: bool = False
    where: str = ""


@dataclass(frozen=True)
class Experiment(Generic[C]):
    """An experiment of the course.

    Attributes:
        name: as the command line takes it.
        week: the week whose lesson it belongs to.
        title: what it shows, in a line.
        function: runs one seed: takes the configuration and a `Run`, to which it logs its rows.
        configs: a configuration for each of `SCALES`.
        published: what others measured, or what is expected, in a few words.
        remark: what one has to know to compare that with what we measured.
        solved_at: the return from which on the task counts as solved, where there is such a number.
        baseline: the variant that the others are compared with: how fast do they reach 80 % of what it earns
            in the end?
        preset: the variant to start with, of cheap and dear ones: then the figure shows what each of them
            earns for its computing, see `pareto`.
        verdicts: makes a further table of the rows, where the experiment puts claims to the test.
        objective: what `tuning` makes better; None where there is no such thing.
    """

    name: str
    week: int
    title: str
    function: Callable[[C, Run], None]
    configs: Mapping[str, C]
    published: str = ""
    remark: str = field(default="", kw_only=True)
    solved_at: float | None = None
    baseline: str = ""
    preset: str = ""
    verdicts: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    objective: Objective | None = Objective()


class Run:
    """One seed of an experiment, as its function sees it.

    Attributes:
        seed: the seed.
        generator: source of all randomness, seeded with `seed`.
        progress: whether to show progress bars.
        rows: the rows so far.
    """

    def __init__(self, seed: int, folder: Path | None = None, progress: bool = False) -> None:
        """A fresh run; with `folder`, rows and checkpoints are kept there, else in memory alone."""
        self.seed, self.progress = seed, progress
        self.generator = torch.Generator().manual_seed(seed)
        self.rows: list[dict[str, Any]] = []
        self._folder = folder
        self._unit, self._unit_start = 0, (0.0, 0.0)
        self._held: tuple[float, float] | None = None  # what had been counted when `not_counted` began
        self._state: dict[str, Any] | None = None
        self._clock_start = _clocks()
        self._writer: Any = None

    @property
    def _clock(self) -> tuple[float, float]:
        """Seconds on the wall, and of the processor, spent on this seed so far, interruptions left out."""
        return _minus(_clocks(), self._clock_start)

    @property
    def seconds(self) -> float:
        """Time spent on this seed so far, interruptions left out."""
        return self._clock[0]

    @property
    def unit_seconds(self) -> tuple[float, float]:
        """Seconds that the present unit took so far, `not_counted` ones left out: on the wall, and the CPU's.

        The latter, of all threads together, says more where other programs run at the same time.
        """
        return _minus(self._clock, self._unit_start)

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """What is done inside does not count in `unit_seconds`: evaluation, say."""
        self._held = self.unit_seconds
        yield
        self._unit_start, self._held = _minus(self._clock, self._held), None

    def log(self, **row: Any) -> None:
        """Adds a row to the result: numbers and short texts by column name.

        Raises:
            ValueError: the columns are not those of the first row.
        """
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(f"a row has the columns {list(row)}, expected {list(self.rows[0])}")
        row = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
        self.rows.append(row)
        if self._folder is not None:
            append_csv(self._file("partial.csv"), [{"seed": self.seed, **row}], first=len(self.rows) == 1)
            self._tensorboard(row)

    def units(self, items: Iterable[T], name: str = "") -> Iterator[T]:
        """Goes through `items`; after an interruption, from the first one on that was not finished.

        The generator is seeded afresh for each, so that they are compared on the same draws of chance.

        Args:
            items: the parts of the experiment, the same ones in the same order each time.
            name: what a part is called in the progress bar.
        """
        all_items = list(items)
        hidden = not (self.progress and name)
        bar = tqdm(all_items, name, initial=self._unit, leave=False, disable=hidden)
        for number in range(self._unit, len(all_items)):
            if self._state is None:  # else the unit goes on from a checkpoint, with its own generator state
                self.generator.manual_seed(self.seed)
                self._unit_start = self._clock
            yield all_items[number]
            self._unit = number + 1
            self.checkpoint(None)
            bar.update()
        bar.close()

    def checkpoint(self, state: dict[str, Any] | None) -> None:
        """Remembers how far the run has come, so that it can go on from here after an interruption.

        Args:
            state: what `restore` shall give back: tensors, numbers, texts, and lists and dicts of them.
        """
        self._state = state
        if self._folder is None:
            return
        content = {
            "state": state,
            "unit": self._unit,
            "unit_start": self._unit_start if self._held is None else _minus(self._clock, self._held),
            "rows": self.rows,
            "generator": self.generator.get_state(),
            "clock": self._clock,
        }
        path = self._file("checkpoint")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        torch.save(content, partial)
        os.replace(partial, path)

    def restore(self) -> dict[str, Any] | None:
        """The state of the last checkpoint within the present unit; None where there is none."""
        return self._state

    def _load(self) -> None:
        """Goes back to the last checkpoint on disk, if there is one."""
        path = self._file("checkpoint")
        if path.is_file():
            content = torch.load(path, map_location="cpu", weights_only=True)
            self.rows, self._unit, self._state = content["rows"], content["unit"], content["state"]
            self.generator.set_state(content["generator"])
            self._clock_start = _minus(_clocks(), content["clock"])
            self._unit_start = content["unit_start"]
        for leftover in (self._file("partial.csv"), self._event_folder()):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            leftover.unlink(missing_ok=True)
        append_csv(self._file("partial.csv"), [{"seed": self.seed, **row} for row in self.rows], first=True)
        for row in self.rows:
            self._tensorboard(row)

    def _finish(self, header: Mapping[str, str]) -> None:
        """Writes the seed's CSV file and removes what was only needed on the way."""
        write_csv(self._file("csv"), self.table(), header)
        self._close()
        for name in ("partial.csv", "checkpoint"):
            self._file(name).unlink(missing_ok=True)

    def _discard(self) -> None:
        """Removes what a run leaves that stopped before its first result, and its folders, if that is all."""
        assert self._folder is not None
        for name in ("partial.csv", "config.json"):
            self._file(name).unlink(missing_ok=True)
        shutil.rmtree(self._event_folder(), ignore_errors=True)
        for folder in (self._event_folder().parent, self._folder, self._folder.parent):
            with suppress(OSError):  # other seeds lie there
                folder.rmdir()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def table(self) -> pd.DataFrame:
        """All rows, with the seed as first column."""
        frame = pd.DataFrame(self.rows)
        frame.insert(0, "seed", self.seed)
        return frame

    def _file(self, ending: str) -> Path:
        assert self._folder is not None
        return self._folder / f"seed_{self.seed}.{ending}"

    def _event_folder(self) -> Path:
        assert self._folder is not None
        return self._folder / "tensorboard" / f"seed_{self.seed}"

    def _tensorboard(self, row: Mapping[str, Any]) -> None:
        """Texts of the row name the curve, "env_steps" or "step" is its axis, the other numbers are drawn."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._event_folder()))
        names = [str(value) for value in row.values() if isinstance(value, str)]
        axis = next((name for name in ("env_steps", "step", "iteration") if name in row), None)
        for name, value in row.items():
            if name != axis and not isinstance(value, str):
                step = 0 if axis is None else int(row[axis])
                self._writer.add_scalar("/".join([*names, name]), float(value), step)


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _minus(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] - second[0], first[1] - second[1]


def run_experiment(
    experiment: Experiment[C],
    config: C,
    seeds: Sequence[int],
    scale: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    out: str | Path | None = "runs",
    fresh: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Runs the seeds that are not finished yet, and returns the rows of all of them; see `run`."""
    if not seeds:
        raise ConfigError("seeds is empty, expected at least one seed")
    folder = None if out is None else run_folder(experiment.name, scale, overrides or {}, out)
    tables = []
    bar = tqdm(seeds, f"{experiment.name} ({scale}), seeds", disable=not progress)
    for seed in bar:
        bar.set_postfix_str(f"seed {seed}")
        tables.append(_run_seed(experiment, config, seed, scale, overrides or {}, folder, fresh, progress))
    return pd.concat(tables, ignore_index=True)


def _run_seed(
    experiment: Experiment[C],
    config: C,
    seed: int,
    scale: str,
    overrides: Mapping[str, Any],
    folder: Path | None,
    fresh: bool,
    progress: bool,
) -> pd.DataFrame:
    run = Run(seed, folder, progress)
    if folder is None:
        experiment.function(config, run)
        return run.table()
    path, notes = run._file("csv"), run._file("config.json")
    plain = to_plain(config)
    if fresh:
        for old in (path, notes, run._file("checkpoint")):
            old.unlink(missing_ok=True)
    if is_finished(folder, seed, config):
        return read_csv(path)
    folder.mkdir(parents=True, exist_ok=True)
    notes.write_text(json.dumps(plain))
    run._load()
    try:
        experiment.function(config, run)
    except BaseException as error:
        run._close()
        if not run.rows and not run._file("checkpoint").is_file():
            run._discard()  # there is nothing to go on from
        if isinstance(error, KeyboardInterrupt):
            goes_on = run._file("checkpoint").is_file()
            then = "goes on from its last checkpoint" if goes_on else "starts over"
            tqdm.write(f"Interrupted. Seed {seed} {then} when you run this again.")
        raise
    header = {
        "experiment": experiment.name,
        "scale": scale,
        "seed": str(seed),
        "command": command_line(experiment.name, scale, str(seed), overrides),
        "minutes": f"{run.seconds / 60:.2f}",
        "cpu_minutes": f"{run._clock[1] / 60:.2f}",
        **machine(getattr(config, "device", "cpu")),
        "config": json.dumps(plain),
    }
    run._finish(header)
    notes.unlink()
    return read_csv(path)


def is_finished(folder: Path, seed: int, config: Any) -> bool:
    """Whether the results of a seed lie in the folder of its runs.

    Raises:
        StaleResultsError: what lies there, finished or not, was made with another configuration.
    """
    run = Run(seed, folder)
    path, notes = run._file("csv"), run._file("config.json")
    if path.is_file():
        _refuse_stale(path, json.loads(read_header(path)["config"]), config)
        return True
    if notes.is_file():
        _refuse_stale(notes, json.loads(notes.read_text()), config)
    return False


def _refuse_stale(path: Path, old: Mapping[str, Any], config: Any) -> None:
    if changes := differences(old, config):
        raise StaleResultsError(
            f"{path} was made with another configuration ({changes}): "
            "remove that file, start afresh (--fresh, fresh=True), or choose another folder (--out, out=...)"
        )
