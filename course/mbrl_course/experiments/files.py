"""The tables on disk: CSV files below comment lines that say how they were made."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch


def machine() -> dict[str, str]:
    """What the results were made on: processor, threads and versions, for the comment lines of a file."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that does not say its name
    return {
        "machine": f"{processor}, {os.cpu_count()} cores, {platform.system()}",
        "threads": str(torch.get_num_threads()),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
    }


def write_csv(path: Path, frame: pd.DataFrame, header: Mapping[str, str]) -> None:
    """Writes a table below comment lines; the file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for key, value in header.items():
            file.write(f"# {key}: {value}\n")
        frame.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")
    os.replace(partial, path)


def read_csv(path: Path) -> pd.DataFrame:
    """The table of a file that `write_csv` wrote."""
    return pd.read_csv(path, comment="#")


def read_header(path: Path) -> dict[str, str]:
    """The comment lines of a file that `write_csv` wrote."""
    header = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("# "):
                break
            key, _, value = line[2:].rstrip("\n").partition(": ")
            header[key] = value
    return header


def append_csv(path: Path, rows: list[dict[str, Any]], first: bool) -> None:
    """Adds rows to a table without comment lines; the `first` ones come below the names of the columns."""
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = pd.DataFrame(rows)
        frame.to_csv(path, mode="a", header=first, index=False, float_format="%.6g", lineterminator="\n")
