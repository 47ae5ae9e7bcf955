"""The tables on disk: CSV files below comment lines that say how they were made."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

LABELS = (
    *("variant", "planner", "policy", "model", "warm_start"),
    *("metric", "where", "trained_on", "tested_on"),
)
"""Columns that hold names: "1" is one, too."""
LONGEST = 100
"""Letters that a folder's name spends on settings; file systems allow 255 for all of it."""


def run_folder(name: str, scale: str, overrides: Mapping[str, Any], out: str | Path) -> Path:
    """Where the files lie: OUT/NAME/SCALE, with the overrides, if any, behind the scale.

    Long overrides are cut off, and told apart by eight digits of their SHA-256.
    """
    changes = "".join(f",{field}={value_text(value)}" for field, value in sorted(overrides.items()))
    safe = "".join(letter if letter.isalnum() or letter in ",=.-_" else "_" for letter in changes)
    if len(safe.encode()) > LONGEST:
        digits = hashlib.sha256(changes.encode()).hexdigest()[:8]
        safe = safe.encode()[: LONGEST - 9].decode(errors="ignore") + "-" + digits
    return Path(out) / name / (scale + safe)


def command_line(name: str, scale: str, seeds: str, overrides: Mapping[str, Any] | None = None) -> str:
    """The command that makes these results, as a shell takes it; without seeds where they are ""."""
    command = ["mbrl-course", "run", name, "--scale", scale, *(["--seeds", seeds] if seeds else [])]
    for field, value in sorted((overrides or {}).items()):
        command += ["--set", f"{field}={value_text(value)}"]
    return shlex.join(command)


def value_text(value: Any) -> str:
    """A field's value as it stands behind `--set FIELD=`; between texts with commas there are semicolons."""
    if not isinstance(value, list | tuple):
        return str(value)
    if any("," in str(part) for part in value):
        return "; ".join(map(str, value)) + (";" if len(value) == 1 else "")
    return ",".join(map(str, value))


def machine(device: str = "cpu") -> dict[str, str]:
    """What the results were made on: processor, threads and versions, for the comment lines of a file.

    With the GPU, where `device` is "cuda".
    """
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        processor = about["model name"]
        # a virtual machine may leave out of the name which generation it is
        processor += f" (family {about['cpu family']}, model {about['model']})"
    except (OSError, KeyError):
        pass  # not Linux, or a processor that does not say its name
    if device == "cuda":
        processor += f" with {torch.cuda.get_device_name()}"
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
    return pd.read_csv(path, comment="#", converters=dict.fromkeys(LABELS, str))


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
