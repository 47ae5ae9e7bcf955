"""Checks of a configuration's fields. An error names the field, what it is, and what was expected."""

from __future__ import annotations

from numbers import Integral
from typing import Any


def need_whole(config: Any, *names: str, least: int = 1) -> None:
    """Checks whole numbers of a configuration, or all of a field's numbers.

    Raises:
        ValueError: one is no whole number (2.0 and True are none), or smaller than `least`.
    """
    for name in names:
        for number in _numbers(getattr(config, name)):
            if not isinstance(number, Integral) or isinstance(number, bool):
                _refuse(config, name, f"a whole number of at least {least}")
    need_at_least(config, least, *names)


def need_at_least(config: Any, least: float, *names: str) -> None:
    """Checks numbers of a configuration, or all of a field's numbers.

    Raises:
        ValueError: one is smaller, or NaN.
    """
    for name in names:
        if not all(number >= least for number in _numbers(getattr(config, name))):
            _refuse(config, name, f"at least {least}" if least else "0 or more")


def need_positive(config: Any, *names: str) -> None:
    """Checks numbers of a configuration.

    Raises:
        ValueError: one is 0, negative, or NaN.
    """
    for name in names:
        if not getattr(config, name) > 0:
            _refuse(config, name, "more than 0")


def need_in_unit(config: Any, *names: str) -> None:
    """Checks probabilities, discounts and the like.

    Raises:
        ValueError: one is below 0, above 1, or NaN.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            _refuse(config, name, "in [0, 1]")


def need_share(config: Any, name: str) -> None:
    """Checks a share of which something has to be left.

    Raises:
        ValueError: it is not above 0, or is above 1.
    """
    if not 0 < getattr(config, name) <= 1:
        _refuse(config, name, "above 0 and at most 1")


def need_some(config: Any, *names: str) -> None:
    """Checks fields that hold several values.

    Raises:
        ValueError: one is empty.
    """
    for name in names:
        if not getattr(config, name):
            raise ValueError(f"{name} is empty, expected at least one value")


def _numbers(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _refuse(config: Any, name: str, expected: str) -> None:
    value = getattr(config, name)
    each = " each" if isinstance(value, tuple) else ""
    raise ValueError(f"{name} is {value}, expected {expected}{each}")
