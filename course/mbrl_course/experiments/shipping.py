"""The project's own results: small tables that ship with the package, as reference bands for everybody."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mbrl_course.experiments.config import differences
from mbrl_course.experiments.files import command_line, read_csv, read_header, run_folder, write_csv
from mbrl_course.experiments.runner import SCALES, StaleResultsError

RESULTS = resources.files("mbrl_course") / "results"
"""The folder of the shipped tables, NAME-SCALE.csv."""
MINUTES = {"minutes": "minutes on the wall", "cpu_minutes": "minutes of the processor"}
"""What runs note in their headers of the time that they took, evaluation included."""
MADE_WITH = ("machine", "threads", "versions")
"""What else they note, of which a table names all that there were."""


def ship_results(
    name: str,
    scale: str,
    config: Any,
    out: str | Path,
    results: Path | None = None,
    extend: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Gathers all finished seeds of an experiment into one shipped table; see `ship`."""
    folder = run_folder(name, scale, overrides or {}, out)
    paths = sorted(folder.glob("seed_*.csv"), key=lambda path: path.name.removesuffix(".partial.csv"))
    paths = [path for path in paths if path.stem.removeprefix("seed_").isdigit()]
    if not paths:
        command = command_line(name, scale, "", overrides)
        raise FileNotFoundError(f"no finished seed in {folder}: run `{command}`")
    headers = [read_header(path) for path in paths]
    for path, finished in zip(paths, headers, strict=True):
        if changes := differences(json.loads(finished["config"]), config):
            raise StaleResultsError(f"{path} was made with another configuration ({changes})")
    target = (results or Path(str(RESULTS))) / f"{name}-{scale}.csv"
    header = read_header(target) if target.is_file() else None
    changes = differences(json.loads(header["config"]), config) if header else ""
    if changes and overrides:
        raise FileExistsError(f"{target} was made with other settings; remove it first, if it is to go")
    if changes and extend:
        raise StaleResultsError(f"{target} was made with another configuration ({changes})")
    tables = [read_csv(path) for path in paths]
    spent = {key: [float(finished.get(key, "nan")) for finished in headers] for key in MINUTES}
    in_all = {key: sum(minutes) for key, minutes in spent.items()}
    numbers = {int(finished["seed"]) for finished in headers}
    if extend and header:
        earlier = read_csv(target)
        others = earlier[~earlier["seed"].isin(numbers)]
        kept = [int(seed) for seed in others["seed"].unique()]
        if kept:  # else nothing of the earlier table is left, and nothing has to be said of it
            numbers |= {*kept}
            tables.append(others)
            headers.append(header)
            for key in MINUTES:  # of earlier seeds only sum and median are known, if anything
                known = re.findall(r"[\d.]+", header.get(key, "")) or ["nan", "nan"]
                total, median = map(float, known)
                in_all[key] += total * len(kept) / earlier["seed"].nunique()
                spent[key] += [median] * len(kept)
    table = pd.concat(tables).sort_values("seed", kind="stable")
    seeds = seed_text(sorted(numbers))
    meta = {
        "experiment": name,
        "scale": scale,
        "seeds": seeds,
        "command": command_line(name, scale, seeds, overrides),
        **{
            key: f"{in_all[key]:.1f} in all, {np.median(minutes):.2f} for a seed (median)"
            for key, minutes in spent.items()
            if not math.isnan(in_all[key])  # older runs did not note the processor's
        },
        **{key: " | ".join(dict.fromkeys(made[key] for made in headers)) for key in MADE_WITH},
        "config": headers[0]["config"],
    }
    write_csv(target, table, meta)
    return target


def load_results(name: str, scale: str) -> pd.DataFrame | None:
    """The shipped results of an experiment at a scale, one row per seed and point; None where none ship."""
    path = Path(str(RESULTS)) / f"{name}-{scale}.csv"
    return read_csv(path) if path.is_file() else None


def minutes_text(header: Mapping[str, str]) -> str:
    """How long results took, of the processor where that is known: "minutes of the processor: 9.5 in all"."""
    key = "cpu_minutes" if "cpu_minutes" in header else "minutes"
    return f"{MINUTES[key]}: {header[key]}"


def changed_settings(header: Mapping[str, str]) -> dict[str, str]:
    """The fields in which results differ from their preset, and their values, by the header's command."""
    words = shlex.split(header.get("command", ""))
    return dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "--set")


def seeds_and_changes(header: Mapping[str, str]) -> str:
    """Seeds of shipped results, and what differs from the preset: "seeds 0..4 with precision=bfloat16"."""
    changes = ", ".join(f"{field}={value}" for field, value in changed_settings(header).items())
    return f"seeds {header['seeds']}" + (f" with {changes}" if changes else "")


def load_header(name: str, scale: str) -> dict[str, str] | None:
    """How shipped results were made: seeds, command, minutes, machine, ...; None where none ship."""
    path = Path(str(RESULTS)) / f"{name}-{scale}.csv"
    return read_header(path) if path.is_file() else None


def load_reference(name: str, scales: Sequence[str] = ("full", "laptop")) -> dict[str, pd.DataFrame]:
    """All shipped results of an experiment by a label such as "q2, full", as plots take them."""
    tables = {f"{name}, {scale}": load_results(name, scale) for scale in scales}
    return {label: table for label, table in tables.items() if table is not None}


def list_results() -> list[tuple[str, str]]:
    """Name and scale of everything that ships, sorted."""
    names = [path.stem.rpartition("-") for path in Path(str(RESULTS)).glob("*.csv")]
    return sorted((name, scale) for name, _, scale in names if scale in SCALES)


def seed_text(seeds: Sequence[int]) -> str:
    """Seeds as the command line takes them: "0..4" for a range, else "0,2,5"."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return ",".join(map(str, seeds))
