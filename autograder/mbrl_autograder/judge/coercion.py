"""Converts results where a test stumbles over their kind: correct numbers earn their marks in any of the
usual forms."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .child.packing import is_namedtuple, make_named


def _mapped(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`convert` applied to the arrays within lists, tuples and dictionaries."""

    def mapped(value: Any) -> Any:
        if isinstance(value, list):
            return [mapped(item) for item in value]
        if is_namedtuple(value):
            items = [mapped(item) for item in value]
            made = tuple.__new__(type(value), items)
            return (
                made if type(made) is type(value) else make_named(type(value).__name__, value._fields, items)
            )
        if type(value) is tuple:
            return tuple(mapped(item) for item in value)
        if isinstance(value, dict):
            return {key: mapped(item) for key, item in value.items()}
        return convert(value)

    return mapped


def _as_tensor(dtype_name: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        import numpy
        import torch

        if isinstance(value, numpy.ndarray | numpy.generic):
            if value.dtype.kind not in "biuf":
                return value
            value = torch.from_numpy(numpy.array(value))
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value.to(getattr(torch, dtype_name))
        return value

    return convert


def _as_array(value: Any) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return value
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()


COERCIONS: tuple[Callable[[Any], Any], ...] = tuple(
    _mapped(convert) for convert in (_as_tensor("float32"), _as_tensor("float64"), _as_array)
)
