# ruff: noqa: D105
"""What a test sees of an object that lives in the student's process: a number, behind Python's ordinary
syntax.

Data never stays behind a proxy; only what is no data does: functions, classes, instances, iterators. An
operator or a
comparison reaches the student's object only where the source's own class of that name defines it, so that
an object
that claims to equal everything is equal to nothing but itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from .child.packing import Packer

if TYPE_CHECKING:
    from .connection import Student

MAX_LENGTH = 10_000_000


class Proxy:
    """Stands for an object of the student's."""

    __slots__ = ("_callable", "_generation", "_kind", "_name", "_number", "_student")
    _callable: bool
    _generation: int
    _kind: str
    _name: str
    _number: int
    _student: Student

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in (
            "__name__",
            "__doc__",
            "__qualname__",
            "__dict__",
            "__wrapped__",
        ):
            raise AttributeError(name)
        packed, blobs = _student(self).ask("get", h=number(self), name=name)
        return _student(self).value(packed, blobs)

    def __setattr__(self, name: str, value: Any) -> None:
        student = _student(self)
        packer = Packer(student.outgoing.opaque)
        packed = packer.pack(value)
        student.ask("set", packer.blobs, h=number(self), name=name, v=packed)

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_kind')} {object.__getattribute__(self, '_name')}>"

    def __hash__(self) -> int:
        return hash((object.__getattribute__(self, "_generation"), number(self)))

    def __eq__(self, other: Any) -> Any:
        if isinstance(other, Proxy) and number(other) == number(self):
            return True
        return special(self, "__eq__", other) if defines(self, "__eq__") else NotImplemented

    def __ne__(self, other: Any) -> Any:
        if defines(self, "__ne__"):
            return special(self, "__ne__", other)
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __bool__(self) -> bool:
        if defines(self, "__bool__") or defines(self, "__len__"):
            return bool(special(self, "__bool__"))
        return True

    def __str__(self) -> str:
        text = (
            special(self, "__str__") if defines(self, "__str__") or defines(self, "__repr__") else repr(self)
        )
        return text if isinstance(text, str) else repr(self)

    def __len__(self) -> int:
        length = special(self, "__len__")
        if type(length) is not int or not 0 <= length <= MAX_LENGTH:
            raise TypeError("the length of the object is not a length")
        return length

    def __iter__(self) -> Any:
        return special(self, "__iter__")

    def __next__(self) -> Any:
        step = special(self, "__next__")
        if not isinstance(step, tuple) or len(step) != 2 or type(step[0]) is not bool:
            raise TypeError("the iterator does not iterate")
        if not step[0]:
            raise StopIteration
        return step[1]

    def __contains__(self, item: Any) -> bool:
        if defines(self, "__contains__"):
            return special(self, "__contains__", item) is True
        return any(value is item or value == item for value in self)

    def __getitem__(self, key: Any) -> Any:
        return special(self, "__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        special(self, "__setitem__", key, value)

    def __delitem__(self, key: Any) -> None:
        special(self, "__delitem__", key)

    def __dir__(self) -> list[str]:
        names = special(self, "__dir__")
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def __enter__(self) -> Any:
        return special(self, "__enter__")

    def __exit__(self, *error: Any) -> Literal[False]:
        special(self, "__exit__")
        return False  # an assertion that fails within the student's context fails

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Proxy) and special(self, "__instancecheck__", instance) is True

    def __subclasscheck__(self, other: Any) -> bool:
        return isinstance(other, Proxy) and special(self, "__subclasscheck__", other) is True

    def __float__(self) -> float:
        return float(_number(self, "__float__"))

    def __int__(self) -> int:
        return int(_number(self, "__int__"))

    def __index__(self) -> int:
        return int(_number(self, "__index__"))


class CallableProxy(Proxy):
    """Stands for an object of the student's that can be called."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the student's object with plain data, proxies and functions of the test's."""
        return _student(self).call(number(self), args, kwargs)


def make(student: Student, handle: int, name: str, kind: str, is_callable: bool) -> Proxy:
    """The proxy of the object with that number."""
    proxy = object.__new__(CallableProxy if is_callable else Proxy)
    values = (is_callable, student.generation, kind, name, handle, student)
    for slot, value in zip(Proxy.__slots__, values, strict=True):
        object.__setattr__(proxy, slot, value)
    return proxy


def number(proxy: Proxy) -> int:
    """The number of the student's object."""
    return int(object.__getattribute__(proxy, "_number"))


def belongs_to(proxy: Proxy, student: Student) -> bool:
    """Whether the object still exists in the student's process."""
    same = object.__getattribute__(proxy, "_student") is student
    return same and object.__getattribute__(proxy, "_generation") == student.generation


def _student(proxy: Proxy) -> Student:
    student: Student = object.__getattribute__(proxy, "_student")
    if not belongs_to(proxy, student):
        raise RuntimeError("the code's process was started again: this object of it is gone")
    return student


def defines(proxy: Proxy, name: str) -> bool:
    """Whether the source's class of that name has the special method."""
    student = _student(proxy)
    if object.__getattribute__(proxy, "_kind") != "object":
        return False
    return name in student.operators.get(object.__getattribute__(proxy, "_name"), ())


def special(proxy: Proxy, name: str, *values: Any) -> Any:
    """Calls a special method of the student's object."""
    student = _student(proxy)
    packer = Packer(student.outgoing.opaque)
    packed = [packer.pack(value) for value in values]
    result, blobs = student.ask("special", packer.blobs, h=number(proxy), name=name, args=packed)
    return student.value(result, blobs)


def _number(proxy: Proxy, name: str) -> Any:
    if not defines(proxy, name):
        raise TypeError(f"a {object.__getattribute__(proxy, '_name')} is not a number")
    value = special(proxy, name)
    if type(value) not in (int, float, bool):
        raise TypeError(f"a {object.__getattribute__(proxy, '_name')} is not a number")
    return value


def _operator(name: str) -> Callable[..., Any]:
    plain = f"__{name.removeprefix('__r')}" if name.startswith("__r") and name != "__rshift__" else name

    def method(self: Proxy, *others: Any) -> Any:
        if defines(self, name) or defines(self, plain):
            return special(self, name, *others)
        return NotImplemented

    return method


_NAMES = "add sub mul matmul truediv floordiv mod pow and or xor"
for _name in [
    *_NAMES.split(),
    *(f"r{n}" for n in _NAMES.split()),
    "lshift",
    "rshift",
    "lt",
    "le",
    "gt",
    "ge",
]:
    setattr(Proxy, f"__{_name}__", _operator(f"__{_name}__"))


def _unary(name: str) -> Callable[..., Any]:
    def method(self: Proxy) -> Any:
        if not defines(self, name):
            raise TypeError(f"a {object.__getattribute__(self, '_name')} has no {name}")
        return special(self, name)

    return method


for _name in ("neg", "pos", "abs", "invert"):
    setattr(Proxy, f"__{_name}__", _unary(f"__{_name}__"))
