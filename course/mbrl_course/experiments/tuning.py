"""Searches for good settings of any experiment with Optuna; finished trials lie on disk."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mbrl_course import experiments
from mbrl_course.experiments.config import ConfigError
from mbrl_course.experiments.parallel import run_in_processes
from mbrl_course.experiments.runner import Objective
from mbrl_course.experiments.tables import labelled_groups, layout_of
from mbrl_course.experiments.variants import Variants
from mbrl_course.seeding import independent_seeds


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

    def __str__(self) -> str:
        """As `parse_range` takes it."""
        if self.choices:
            return ",".join(choice.replace(",", "/") for choice in self.choices)
        low, high = self.ends()
        return f"{'log:' * self.log}{low}..{high}"

    def ends(self) -> Sequence[Any]:
        """Values that have to be possible."""
        if self.choices:
            return self.choices
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def some(self) -> Sequence[Any]:
        """The ends, and at most twenty whole numbers between them."""
        if self.choices or not self.whole:
            return self.ends()
        low, high = self.ends()
        return sorted({low, high, *range(low, high, max(1, (high - low) // 20))})

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
    threads: int = 1
    started: datetime = dataclasses.field(default_factory=datetime.now)

    def __str__(self) -> str:
        """What a failed process is called."""
        return f"tuning {self.name}"


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
    whole = kind.get(name) in (int, int | None)
    if whole and not all(end.is_integer() for end in ends):
        raise ConfigError(f"{text!r} has fractions, expected whole numbers for {name}")
    return name, Range((), *ends, whole=whole, log=log)


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
    threads: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Tries settings of an experiment; each trial teaches Optuna (its TPE sampler) where to look next.

    A trial's score is the experiment's objective, mostly the return, over the last quarter of its learning
    curve, averaged over seeds. An experiment that compares variants is tuned without them, unless `settings`
    names some, see `tuned_settings`. A trial that diverges has no score, nor has one whose values can be
    taken alone, but not together.

    What a trial tries depends on its number and on what was learned before it, not on how many calls it took.

    Args:
        name: of the experiment.
        space: of each field what to try, see `parse_range`. Another space is another search.
        num_trials: in all, those of earlier calls included.
        seeds: each trial runs all of them.
        scale: "smoke", "laptop" or "full".
        settings: further fields to change, alike in all trials.
        out: trials are kept in OUT/NAME/tune.journal; the same call goes on with them, and several
            processes, those of other calls too, can work on them at once.
        fresh: forget earlier trials.
        jobs: processes at the same time.
        threads: of PyTorch, for each process, see `experiments.run`.
        progress: show progress bars.

    Returns:
        The finished trials that have a score, the best first: trial, score, and the fields' values.

    Raises:
        ConfigError: Optuna is not installed, a range can't be read, a field has two of them or is also set,
            the experiment refuses a value, or has nothing that could be made better.
        JobError: a process failed.
    """
    asked, settings = settings or {}, tuned_settings(name, scale, settings or {})
    config, objective = experiments.get_config(name, scale, settings), objective_of(name)
    ranges = dict(parse_range(text, get_type_hints(type(config))) for text in space)
    if len(ranges) < len(space):
        raise ConfigError(f"a field comes twice in {' '.join(space)}, expected one range for each")
    if both := set(ranges) & set(asked):
        raise ConfigError(f"field {min(both)!r} is set, and has a range, expected one of the two")
    _refuse_impossible(name, scale, settings, ranges)
    changes = "".join(f",{field}={value}" for field, value in sorted(settings.items()))
    tried_texts = ",".join(f"{field}={tried}" for field, tried in sorted(ranges.items()))
    study = f"{scale}{changes},seeds={','.join(map(str, seeds))},{tried_texts}"
    storage = Path(out).resolve() / name / "tune.journal"
    search = Search(name, ranges, num_trials, tuple(seeds), scale, settings, str(storage), study, threads)
    storage.parent.mkdir(parents=True, exist_ok=True)
    if fresh:
        _forget(search)
    processes = min(jobs, num_trials - len(_finished(_open_study(search))))
    if processes == 1:
        run_trials(search, progress)
    elif processes > 1:
        run_in_processes(run_trials, [search] * processes, processes, f"tune {name}", progress)
    return _table(_finished(_open_study(search)), list(ranges), objective)


def tuned_settings(name: str, scale: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all trials of an experiment share: those asked for, and no variants but those.

    Raises:
        ConfigError: see `experiments.get_config`.
    """
    has_variants = isinstance(experiments.get_config(name, scale), Variants)
    shared = {"variants": "", **settings} if has_variants else dict(settings)
    experiments.get_config(name, scale, shared)
    return shared


def _refuse_impossible(
    name: str, scale: str, settings: Mapping[str, Any], ranges: Mapping[str, Range]
) -> None:
    """Checks the ends of the ranges, each by itself and together with a value of another range.

    Raises:
        ConfigError: one goes with none of these.
    """
    some = [(field, value) for field, tried in ranges.items() for value in tried.some()]
    ends = [(field, value) for field, tried in ranges.items() for value in tried.ends()]
    for field, value in ends:
        errors = []
        for other in [{}, *({partner: tried} for partner, tried in some if partner != field)]:
            try:
                config = experiments.get_config(name, scale, {**settings, **other, field: value})
                experiments.check_settings(config)
                break
            except ConfigError as error:
                errors.append(error)
        else:
            more = ", and no value of another range goes with it" if len(ranges) > 1 else ""
            raise ConfigError(f"{errors[0]}{more}")


def run_trials(search: Search, progress: bool = False) -> None:
    """Adds trials to the study on disk until it has `num_trials`, those of other processes included."""
    optuna = _optuna()
    study = _open_study(search)
    done = optuna.trial.TrialState
    with tqdm(total=search.num_trials, desc=f"tune {search.name}", disable=not progress) as bar:
        while (count := _claimed(study, search)) < search.num_trials:
            bar.update(count - bar.n)
            trial = study.ask()
            state, score = done.FAIL, None
            try:
                if (
                    _claimed(study, search, before=trial.number) < search.num_trials
                ):  # else another was faster
                    score = _score(study, trial, search)
                    state = done.COMPLETE if score is not None else done.PRUNED
            finally:
                study.tell(trial, score, state)
        bar.update(search.num_trials - bar.n)


def _claimed(study: Any, search: Search, before: float = math.inf) -> int:
    """How many trials are finished or under way, of those with smaller numbers than `before`.

    One that began before this search was perhaps left by a process that is no more; it does not count.
    """
    return sum(
        trial.number < before
        and (
            _is_finished(trial) or (trial.state.name == "RUNNING" and trial.datetime_start >= search.started)
        )
        for trial in study.trials
    )


def _score(study: Any, trial: Any, search: Search) -> float | None:
    """Runs a trial; None where it diverges, or its values do not go together."""
    (seed,) = independent_seeds([trial.number], 1)  # so no two trials begin with the same draws
    study.sampler = _optuna().samplers.TPESampler(seed=seed, constant_liar=True)
    values = {field: tried.suggest(trial, field) for field, tried in search.space.items()}
    how: dict[str, Any] = {"out": None, "progress": False, "threads": search.threads}
    try:
        logs = experiments.run(search.name, search.seeds, search.scale, {**search.settings, **values}, **how)
    except (ConfigError, FloatingPointError) as error:
        trial.set_user_attr("error", str(error))
        return None
    score = final_score(search.name, logs)
    return score if math.isfinite(score) else None


def objective_of(name: str) -> Objective:
    """What is made better when an experiment is tuned.

    Raises:
        ConfigError: there is no such experiment, or it has nothing that could be made better.
    """
    objective = experiments.get_experiment(name).objective
    if objective is None:
        raise ConfigError(f"{name!r} can't be tuned: it has no number that could be made better")
    return objective


def final_score(name: str, logs: pd.DataFrame) -> float:
    """The objective over the last quarter of every seed's and every group's rows, averaged.

    Raises:
        ConfigError: the experiment has no objective.
    """
    objective = objective_of(name)
    if objective.where:
        logs = logs.query(objective.where, engine="python")
    scores = []
    for group in labelled_groups(logs, layout_of(logs).by).values():
        for _, rows in group.groupby("seed"):
            scores.append(rows[objective.column].tail(-(-len(rows) // 4)).mean())
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
    return _optuna().create_study(
        storage=_storage(search),
        study_name=search.study,
        direction="minimize" if objective_of(search.name).lower else "maximize",
        load_if_exists=True,
    )


def _forget(search: Search) -> None:
    optuna = _optuna()
    if search.study in optuna.get_all_study_names(_storage(search)):
        optuna.delete_study(study_name=search.study, storage=_storage(search))


def _is_finished(trial: Any) -> bool:
    return trial.state.name in ("COMPLETE", "PRUNED")


def _finished(study: Any) -> list[Any]:
    return [trial for trial in study.trials if _is_finished(trial)]


def _table(trials: Sequence[Any], fields: Sequence[str], objective: Objective) -> pd.DataFrame:
    rows = [
        {"trial": trial.number, "score": trial.value, **{field: trial.params.get(field) for field in fields}}
        for trial in trials
        if trial.state.name == "COMPLETE"
    ]
    table = pd.DataFrame(rows, columns=["trial", "score", *fields])
    return table.sort_values("score", ascending=objective.lower, ignore_index=True)
