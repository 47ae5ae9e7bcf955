"""What an experiment can be told: its fields at each scale, what they mean, and what is compared."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from typing import Any, Literal, get_origin, get_type_hints

from mbrl_course.experiments import get_experiment
from mbrl_course.experiments.config import describe
from mbrl_course.experiments.files import value_text
from mbrl_course.experiments.runner import SCALES
from mbrl_course.experiments.variants import Variants

WIDTH = 110
OTHER = re.compile(r"`(?:mbrl_course\.)?(\w+)\.(\w+Config)`")
"""How a docstring says where more fields are described: `mbpo.MBPOConfig`."""


def meanings(kind: type) -> dict[str, str]:
    """What a configuration's fields mean, by the "Attributes:" of its docstring and of those it names."""
    found: dict[str, str] = {}
    kinds, seen = [*kind.__mro__], set()
    while kinds:
        current = kinds.pop(0)
        if current in seen or not dataclasses.is_dataclass(current):
            continue
        seen.add(current)
        text = inspect.cleandoc(current.__doc__ or "")
        found = {**_attributes(text), **found}
        for module, name in OTHER.findall(text):
            try:
                other = getattr(importlib.import_module(f"mbrl_course.{module}"), name)
            except ModuleNotFoundError:  # a class edition, in which the students write this module
                continue
            kinds += other.__mro__
    return found


def _attributes(text: str) -> dict[str, str]:
    """The "Attributes:" of a docstring, each as one line."""
    section = re.search(r"^Attributes:\n((?:[ ]{4}.*\n?|\n)+)", text, re.MULTILINE)
    lines = inspect.cleandoc(section[1]).splitlines() if section else []
    found, name = {}, ""
    for line in lines:
        if entry := re.match(r"(\w+): (.*)", line):
            name, found[entry[1]] = entry[1], entry[2]
        elif line.strip():
            found[name] += f" {line.strip()}"
    return found


def slashed(value: Any) -> str:
    """A field's value as `--set`, `sweep` and `tune` take it: "64/64" for several numbers."""
    numbers = isinstance(value, tuple) and not any(isinstance(part, str) for part in value)
    return "/".join(map(str, value)) if numbers else value_text(value)


def values_text(values: dict[str, Any]) -> str:
    """A field's values by scale: "20 (smoke 2)", the laptop's first."""
    texts = {scale: slashed(value) for scale, value in values.items()}
    usual = texts.pop("laptop")
    others = [f"{scale} {text}" for scale, text in texts.items() if text != usual]
    return usual + (f" ({', '.join(others)})" if others else "")


def differences_from_full(name: str, scale: str) -> str:
    """What differs from the published setting: "num_iterations 6 (full 12), ..."; "" if nothing does."""
    configs = get_experiment(name).configs
    ours, full = configs[scale], configs["full"]
    found = []
    for field in dataclasses.fields(ours):
        value, published = (slashed(getattr(config, field.name)) for config in (ours, full))
        if value != published and field.name != "variants":
            found.append(f"{field.name} {value} (full {published})")
    if getattr(ours, "variants", ()) != getattr(full, "variants", ()):
        found.append("other variants")
    return ", ".join(found)


def fields_text(name: str) -> str:
    """All that `--set` can change in an experiment, as a text.

    Args:
        name: of the experiment.

    Raises:
        ConfigError: there is no such experiment.
    """
    experiment = get_experiment(name)
    kind = type(experiment.configs["laptop"])
    explained, hints = meanings(kind), get_type_hints(kind)
    lines = [f"{name}, week {experiment.week}: {experiment.title}"]
    if experiment.published:
        lines += _wrapped(f"published: {experiment.published}", "")
    if experiment.remark:
        lines += _wrapped(f"remark: {experiment.remark}", "")
    lines += ["", "fields at laptop scale (where another scale differs, its value), for --set FIELD=VALUE:"]
    for field in dataclasses.fields(kind):
        if field.name == "variants":
            continue
        values = {scale: getattr(experiment.configs[scale], field.name) for scale in SCALES}
        lines.append(f"  {field.name}={values_text(values)}")
        if get_origin(hints[field.name]) is Literal:
            lines += _wrapped(describe(hints[field.name]), " " * 6)
        lines += _wrapped(explained.get(field.name, ""), " " * 6)
    if issubclass(kind, Variants):
        lines += ["", "variants, each with what it changes, for --set 'variants=A; B; C' (none: variants=):"]
        variants = {scale: experiment.configs[scale].variants for scale in ("laptop", "smoke", "full")}
        for scale, texts in variants.items():
            if scale == "laptop" or texts != variants["laptop"]:
                lines += [f"  {text}{'' if scale == 'laptop' else f'   ({scale})'}" for text in texts]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
