"""The project's own results: small tables that ship with the package, as reference bands for everybody."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mbrl_course.experiments.config import differences
from mbrl_course.experiments.files import read_csv, read_header, write_csv
from mbrl_course.experiments.runner import SCALES, StaleResultsError, command_line, run_folder

RESULTS = resources.files("mbrl_course") / "results"
"""The folder of the shipped tables, NAME-SCALE.csv."""


def ship_results(
    name: str, scale: str, config: Any, out: str | Path, results: Path | None = None, extend: bool = False
) -> Path:
    """Gathers all finished seeds of an experiment into one shipped table; see `ship`."""
    folder = run_folder(name, scale, {}, out)
    paths = sorted(folder.glob("seed_*.csv"), key=lambda path: path.name.removesuffix(".partial.csv"))
    paths = [path for path in paths if path.stem.removeprefix("seed_").isdigit()]
    if not paths:
        raise FileNotFoundError(f"no finished seed in {folder}: run `mbrl-course run {name} --scale {scale}`")
    headers = [read_header(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        if changes := differences(json.loads(header["config"]), config):
            raise StaleResultsError(f"{path} was made with another configuration ({changes})")
    target = (results or Path(str(RESULTS))) / f"{name}-{scale}.csv"
    tables = [read_csv(path) for path in paths]
    minutes = [float(header["minutes"]) for header in headers]
    in_all = sum(minutes)
    numbers = {int(header["seed"]) for header in headers}
    if extend and target.is_file():
        header, earlier = read_header(target), read_csv(target)
        if changes := differences(json.loads(header["config"]), config):
            raise StaleResultsError(f"{target} was made with another configuration ({changes})")
        others = earlier[~earlier["seed"].isin(numbers)]
        kept = [int(seed) for seed in others["seed"].unique()]
        numbers |= {*kept}
        tables.append(others)
        headers.append(header)
        # of the earlier seeds only the sum and the median are known
        total, median = (float(text) for text in re.findall(r"[\d.]+", header["minutes"]))
        in_all += total * len(kept) / earlier["seed"].nunique()
        minutes += [median] * len(kept)
    table = pd.concat(tables).sort_values("seed", kind="stable")
    seeds = seed_text(sorted(numbers))
    meta = {
        "experiment": name,
        "scale": scale,
        "seeds": seeds,
        "command": command_line(name, scale, seeds),
        "minutes": f"{in_all:.1f} in all, {np.median(minutes):.2f} for a seed (median)",
        "machine": " | ".join(dict.fromkeys(header["machine"] for header in headers)),
        "threads": " | ".join(dict.fromkeys(header["threads"] for header in headers)),
        "versions": " | ".join(dict.fromkeys(header["versions"] for header in headers)),
        "config": headers[0]["config"],
    }
    write_csv(target, table, meta)
    return target


def load_results(name: str, scale: str) -> pd.DataFrame | None:
    """The shipped results of an experiment at a scale, one row per seed and point; None where none ship."""
    path = Path(str(RESULTS)) / f"{name}-{scale}.csv"
    return read_csv(path) if path.is_file() else None


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
