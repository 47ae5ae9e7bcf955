"""Turns `field=value` texts into fields of an experiment's typed configuration, or says what is wrong."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mbrl_course.envs import get_task

Config = TypeVar("Config")

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ConfigError(ValueError):
    """A configuration was asked for that there is not; the message names the field."""


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with some fields replaced.

    Args:
        config: a frozen dataclass.
        overrides: new values by field name; texts, as from a command line, are read by the field's type
            ("250,250" or "250/250" for a tuple, "true" for a bool), other values have to be of that type.

    Raises:
        ConfigError: no such field (the message says which are like it, and lists all of them), no such task,
            or the value does not fit.
    """
    hints = get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    values = {}
    for name, value in overrides.items():
        if name not in names:
            raise ConfigError(
                f"there is no field {name!r}{did_you_mean(name, names)}; the fields are {', '.join(names)}"
            )
        try:
            values[name] = parse(value, hints[name])
        except ValueError:
            expected = describe(hints[name])
            raise ConfigError(f"field {name!r} is {value!r}, expected {expected}") from None
    try:
        if "task" in values:
            get_task(values["task"])  # so that no run has to find out that there is none
        return dataclasses.replace(config, **values)  # type: ignore[type-var]
    except ValueError as error:
        raise ConfigError(str(error)) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known names that are most like `name`, as a part of an error message; empty where none is."""
    alike = get_close_matches(name, list(known), n=2)
    return f" (did you mean {' or '.join(map(repr, alike))}?)" if alike else ""


def parse(value: Any, kind: Any) -> Any:
    """`value` as something of the type `kind`: int, float, bool, str, Literal, tuple[x, ...] or x | None.

    Raises:
        ValueError: it is not of that type, nor a text that can be read as it.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
            return None
        return parse(value, options[0])
    if origin is Literal:
        if value not in get_args(kind):
            raise ValueError(value)
        return value
    if origin is tuple:
        parts = value
        if isinstance(value, str):
            separator = "[,/]"
            if str in get_args(kind):
                # a slash may be a part of a text; a comma, too, where semicolons stand between them
                separator = ";" if ";" in value else ","
            parts = [part.strip() for part in re.split(separator, value) if part.strip()]
        if not isinstance(parts, list | tuple):
            raise ValueError(value)
        return tuple(parse(part, get_args(kind)[0]) for part in parts)
    if isinstance(value, str) and kind is not str:
        if kind is bool:
            if value.strip().lower() not in _BOOLS:
                raise ValueError(value)
            return _BOOLS[value.strip().lower()]
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(value)
    return value


def describe(kind: Any) -> str:
    """What the type is called in an error message."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if option is type(None) else describe(option) for option in get_args(kind))
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if origin is tuple:
        between = "commas or semicolons" if str in get_args(kind) else "commas or slashes"
        return f"values separated by {between}, each {describe(get_args(kind)[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]


def to_plain(config: Any) -> dict[str, Any]:
    """The fields as plain data, tuples as lists, as JSON gives them back."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(config).items()
    }


def differences(old: Mapping[str, Any], config: Any) -> str:
    """Where a configuration differs from an older one's `to_plain`: "horizon 10, now 15; ...".

    A field that is newer than the old one counts there as its default: that is what was done before.
    """
    new = to_plain(config)
    defaults = {f.name: f.default for f in dataclasses.fields(config) if f.name not in old}
    old = {**{name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()}, **old}
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name} {old.get(name)}, now {new.get(name)}" for name in names)
