"""Searches for good settings of any experiment with Optuna; finished trials lie on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd

from mbrl_course import experiments
from mbrl_course.experiments.config import ConfigError
from mbrl_course.experiments.parallel import run_in_processes
from mbrl_course.experiments.tables import labelled_groups, layout_of
from mbrl_course.experiments.variants import Variants


@dataclass(frozen=True)
class Range:
    """What to try for a field: some texts, or numbers between two ends.

    Attributes:
        choices: the texts; none for numbers.
        low: the lowest number.
        high: the highest number.
        whole: whether only whole numbers are meant.
        log: whether to look for orders of magnitude.
    """

    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    def ends(self) -> Sequence[Any]:
        """Values that have to be possible."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def suggest(self, trial: Any, name: str) -> Any:
        """A value, chosen by an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(name, self.choices)
        low, high = self.ends()
        ask = trial.suggest_int if self.whole else trial.suggest_float
        return ask(name, low, high, log=self.log)


@dataclass(frozen=True)
class Search:
    """What a process has to know to try settings; the fields are those of `tune`."""

    name: str
    space: Mapping[str, Range]
    num_trials: int
    seeds: Sequence[int]
    scale: str
    settings: Mapping[str, Any]
    storage: str
    study: str
    process: int = 0

    def __str__(self) -> str:
        """What a failed process is called."""
        return f"tuning {self.name}, process {self.process}"


def parse_range(text: str, kind: Any) -> tuple[str, Range]:
    """A field and what to try for it: "FIELD=LOW..HIGH", "FIELD=log:LOW..HIGH" or "FIELD=A,B,C".

    Args:
        text: the text.
        kind: type hints of the fields by name.

    Raises:
        ConfigError: it can't be read.
    """
    name, _, values = text.partition("=")
    if not values:
        raise ConfigError(f"{text!r} has no values, expected FIELD=LOW..HIGH or FIELD=A,B,C")
    if ".." not in values:
        return name, Range(tuple(value.strip().replace("/", ",") for value in values.split(",")))
    log = values.startswith("log:")
    low, _, high = values.removeprefix("log:").partition("..")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = (0.0, 0.0)
    if not ends[0] < ends[1] or (log and ends[0] <= 0):
        raise ConfigError(f"{text!r} is no range, expected FIELD=LOW..HIGH, or FIELD=log:LOW..HIGH above 0")
    return name, Range((), *ends, whole=kind.get(name) is int, log=log)


def tune(
    name: str,
    space: Sequence[str],
    num_trials: int = 20,
    seeds: Sequence[int] = (0,),
    scale: str = "laptop",
    settings: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    *,
    fresh: bool = False,
    jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Tries settings of an experiment; each trial teaches Optuna (its TPE sampler) where to look next.

    A trial's score is the return over the last quarter of its learning curve, averaged over seeds. An
    experiment that compares variants is tuned without them, unless `settings` names some.

    Args:
        name: of the experiment.
        space: of each field what to try, see `parse_range`.
        num_trials: in all, those of earlier calls included.
        seeds: each trial runs all of them.
        scale: "smoke", "laptop" or "full".
        settings: further fields to change, alike in all trials.
        out: trials are kept in OUT/NAME/tune.journal; the same call goes on with them, and several
            processes, those of other calls too, can work on them at once.
        fresh: forget earlier trials.
        jobs: processes at the same time.
        progress: show progress bars.

    Returns:
        The finished trials, the best first: trial, score, and the fields' values.

    Raises:
        ConfigError: Optuna is not installed, a range can't be read, or the experiment refuses a value.
        JobError: a process failed.
    """
    settings = dict(settings or {})
    config = experiments.get_config(name, scale, settings)
    if isinstance(config, Variants):
        settings.setdefault("variants", "")
    ranges = dict(parse_range(text, get_type_hints(type(config))) for text in space)
    for field, tried in ranges.items():
        for value in tried.ends():
            experiments.get_config(name, scale, {**settings, field: value})
    changes = "".join(f",{field}={value}" for field, value in sorted(settings.items()))
    study = f"{scale}{changes},seeds={','.join(map(str, seeds))}"
    storage = Path(out).resolve() / name / "tune.journal"
    search = Search(name, ranges, num_trials, tuple(seeds), scale, settings, str(storage), study)
    storage.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        _forget(search)
    missing = num_trials - len(_finished(_open_study(search)))
    shares = [len(range(process, missing, jobs)) for process in range(jobs)]
    parts = [
        dataclasses.replace(search, num_trials=share, process=process)
        for process, share in enumerate(shares)
        if share > 0
    ]
    if len(parts) == 1:
        run_trials(parts[0], progress)
    elif parts:
        run_in_processes(run_trials, parts, len(parts), f"tune {name}", progress)
    return _table(_finished(_open_study(search)), list(ranges))


def run_trials(search: Search, progress: bool = False) -> None:
    """Adds `num_trials` trials to the study on disk."""
    optuna = _optuna()
    study = _open_study(search)

    def score(trial: Any) -> float:
        values = {field: tried.suggest(trial, field) for field, tried in search.space.items()}
        overrides = {**search.settings, **values}
        try:
            logs = experiments.run(
                search.name, search.seeds, search.scale, overrides, out=None, progress=False
            )
        except ValueError as error:  # values that can be taken alone, but not together
            raise optuna.TrialPruned(str(error)) from error
        return final_score(search.name, logs)

    study.optimize(score, n_trials=search.num_trials, show_progress_bar=progress)


def final_score(name: str, logs: pd.DataFrame) -> float:
    """The return over the last quarter of every seed's and every group's rows, averaged.

    Raises:
        ConfigError: the experiment has no return.
    """
    layout = layout_of(logs)
    if not layout.y.endswith("return"):
        raise ConfigError(f"{name!r} can't be tuned: its rows have no return that could be raised")
    scores = []
    for group in labelled_groups(logs, layout.by).values():
        for _, rows in group.groupby("seed"):
            scores.append(rows[layout.y].tail(-(-len(rows) // 4)).mean())
    return float(np.mean(scores))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("tuning needs the package optuna: pip install 'mbrl-course[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _storage(search: Search) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    lock = JournalFileOpenLock(search.storage)  # works where links can't be made, too
    return JournalStorage(JournalFileBackend(search.storage, lock))


def _open_study(search: Search) -> Any:
    optuna = _optuna()
    sampler = optuna.samplers.TPESampler(seed=search.process)  # processes have to begin in different places
    return optuna.create_study(
        storage=_storage(search),
        study_name=search.study,
        sampler=sampler,
        direction="maximize",
        load_if_exists=True,
    )


def _forget(search: Search) -> None:
    optuna = _optuna()
    if search.study in optuna.get_all_study_names(_storage(search)):
        optuna.delete_study(study_name=search.study, storage=_storage(search))


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _table(trials: Sequence[Any], fields: Sequence[str]) -> pd.DataFrame:
    rows = [
        {"trial": trial.number, "score": trial.value, **{field: trial.params.get(field) for field in fields}}
        for trial in trials
        if trial.state.name == "COMPLETE"
    ]
    table = pd.DataFrame(rows, columns=["trial", "score", *fields])
    return table.sort_values("score", ascending=False, ignore_index=True)
