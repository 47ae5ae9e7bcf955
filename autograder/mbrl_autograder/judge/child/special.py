"""Python's special methods by their names, as the judge asks for them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

ARITHMETIC = "add sub mul matmul truediv floordiv mod pow and or xor"


def _step(target: Any) -> tuple[bool, Any]:
    try:
        return True, next(target)
    except StopIteration:
        return False, None


def _contains(target: Any, item: Any) -> bool:
    return item in target


def _leave(target: Any) -> Any:
    return type(target).__exit__(target, None, None, None)


def _delete(target: Any, key: Any) -> None:
    del target[key]


def _specials() -> dict[str, Callable[..., Any]]:
    names = f"{ARITHMETIC} lshift rshift lt le gt ge eq ne neg pos abs invert"
    table: dict[str, Callable[..., Any]] = {
        f"__{name}__": getattr(operator, f"__{name}__") for name in names.split()
    }
    for name in ARITHMETIC.split():
        table[f"__r{name}__"] = lambda target, other, function=table[f"__{name}__"]: function(other, target)
    table |= {
        "__len__": len, "__iter__": iter, "__next__": _step, "__str__": str, "__repr__": repr, "__bool__":
        bool,
        "__float__": float, "__int__": int, "__index__": operator.index, "__contains__": _contains,
        "__getitem__": operator.getitem, "__setitem__": operator.setitem, "__delitem__": _delete, "__dir__":
        dir,
        "__enter__": lambda target: type(target).__enter__(target), "__exit__": _leave,
        "__instancecheck__": lambda target, other: isinstance(other, target),
        "__subclasscheck__": lambda target, other: issubclass(other, target),
    }  # fmt: skip
    return table


SPECIAL = _specials()
