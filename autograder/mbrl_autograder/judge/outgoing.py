# ruff: noqa: D107
"""Values of the test that are no plain data, on their way to the student's code.

Functions of the test are called back; what an installed library made (generators, networks, optimizers) is
built a
second time on the other side, and its state goes there before a call and comes back after it. No code of a
test and
nothing that it did not pass leaves the judge.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import random
import sys
import types
from typing import TYPE_CHECKING, Any

from . import proxies
from .child import wire
from .child.packing import Packer
from .child.twins import set_twin_state, twin_state
from .errors import behind
from .randomness import may_follow

if TYPE_CHECKING:
    from .connection import Student

SEARCHED = ("torch", "torch.nn.functional", "numpy", "math", "operator", "random")


class Outgoing:
    """Numbers the test's objects for one student's process."""

    def __init__(self, student: Student, shared: set[str]) -> None:
        self.student, self.shared = student, shared
        self.reset()

    def reset(self) -> None:
        """Forgets what an earlier process was given."""
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._callable: set[int] = set()
        self._twins: set[int] = set()
        self._of_call: list[int] = []

    def begin_call(self) -> None:
        """From now on `twins_of_call` lists what is passed."""
        self._of_call = []

    def twins_of_call(self) -> list[int]:
        """The twins that the call about to be made was given, and whose state comes back."""
        return list(dict.fromkeys(self._of_call))

    def _numbered(self, value: Any) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)  # also keeps it alive, so that its id stays its own
        return number

    def mine(self, number: Any) -> Any:
        """The test's object that comes back from the student's code."""
        if type(number) is not int or not 0 <= number < len(self._objects):
            raise wire.WireError("unknown object")
        return self._objects[number]

    # packing --------------------------------------------------------------------------------------

    def opaque(self, value: Any, packer: Packer) -> Any:
        """The tagged form of what is no plain data."""
        proxy = value if isinstance(value, proxies.Proxy) else behind(value)
        if proxy is not None:
            if not proxies.belongs_to(proxy, self.student):
                raise RuntimeError("the code's process was started again: this object of it is gone")
            return {"$": "handle", "id": proxies.number(proxy)}
        number = self._numbered(value)
        place = _library_place(value)
        if place is not None:
            self._callable.add(number)
            return {"$": "library", "m": place[0], "q": place[1], "id": number}
        function = (
            types.FunctionType | types.BuiltinFunctionType | types.MethodType | functools.partial | type
        )
        if isinstance(value, function):
            self._callable.add(number)
            return {"$": "callback", "id": number}
        if hasattr(type(value), "__next__"):
            self._callable.add(number)
            return {"$": "steps", "id": number}
        own = self._is_own(type(value))
        if own and type(value).__name__ not in self.shared:
            self._callable.add(number)
            return {"$": "callback", "id": number}
        return self._twin(value, number, packer)

    def _is_own(self, kind: type) -> bool:
        return kind.__module__ == self.student.namespace.get("__name__")

    def _twin(self, value: Any, number: int, packer: Packer) -> Any:
        packed: dict[str, Any] = {"$": "twin", "id": number}
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Generator):
            packed["k"] = "torch generator"
        elif number not in self._twins:
            packed |= {"k": "pickle", "b": packer.blob(self._pickled(value))}
        state = twin_state(value)
        if state is not None:
            packed["state"] = packer.pack(state)
        self._twins.add(number)
        self._of_call.append(number)
        return packed

    def _pickled(self, value: Any) -> bytes:
        outgoing = self
        torch = sys.modules.get("torch")
        parameters: dict[int, tuple[int, str]] = {}
        for number in self._twins:
            twin = self._objects[number]
            if torch is not None and isinstance(twin, torch.nn.Module):
                parameters |= {id(item): (number, name) for name, item in twin.named_parameters()}

        class Pickler(pickle.Pickler):
            def persistent_id(self, item: Any) -> Any:
                if isinstance(item, type) and outgoing._is_own(item) and item.__name__ in outgoing.shared:
                    return ("class", item.__name__)
                if id(item) in parameters:
                    return parameters[id(item)]
                known = outgoing._numbers.get(id(item))
                return (known, None) if known in outgoing._twins and item is not value else None

        file = io.BytesIO()
        try:
            Pickler(file).dump(value)
        except Exception as error:
            raise TypeError(f"a {type(value).__name__} cannot be passed to the student's code") from error
        return file.getvalue()

    # what comes back ------------------------------------------------------------------------------

    def call(self, number: Any, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A call of the test's function or object by the student's code."""
        value = self.mine(number)
        if number not in self._callable:
            raise wire.WireError("a call of what is no function")
        if name == "":
            return value(*args, **kwargs)
        if name == "next":
            try:
                return (True, next(value))
            except StopIteration:
                return (False, None)
        if not self._is_own(type(value)):
            raise AttributeError(f"a {type(value).__name__} can only be called")
        if name == "len":
            return len(value)
        if name == "item":
            return value[args[0]]
        if name == "get" and isinstance(args[0], str) and not args[0].startswith("_"):
            return getattr(value, args[0])
        raise wire.WireError("unknown request")

    def is_drawn_from(self, number: int) -> bool:
        """Whether the object is a random generator."""
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        kinds: tuple[type, ...] = (random.Random,)
        if torch is not None:
            kinds += (torch.Generator,)
        if numpy is not None:
            kinds += (numpy.random.Generator, numpy.random.RandomState)
        return isinstance(self._objects[number], kinds)

    def differs(self, number: int, state: Any) -> bool:
        """Whether a state is another one than the object has."""
        if state is None:
            return False
        ours, theirs = (Packer(lambda item, _: {"$": "other", "id": id(item)}) for _ in range(2))
        before = twin_state(self._objects[number])
        return (ours.pack(before), ours.blobs) != (theirs.pack(state), theirs.blobs)

    def take_state(self, number: int, state: Any) -> None:
        """Brings an object of the test's to the state that its twin has after a call."""
        value = self._objects[number]
        if state is None:
            return
        if isinstance(state, dict) and set(state) == {"attributes"}:
            for name, item in state["attributes"]:
                if isinstance(name, str) and name in vars(value) and not isinstance(item, proxies.Proxy):
                    vars(value)[name] = item
            return
        before = twin_state(value)
        if may_follow(value, before, state):
            set_twin_state(value, state)

    def change(self, target: Any, value: Any) -> None:
        """Changes an argument as the student's code changed its copy."""
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if torch is not None and isinstance(target, torch.Tensor):
            if isinstance(value, torch.Tensor) and value.shape == target.shape:
                with torch.no_grad():
                    target.copy_(value)
        elif numpy is not None and isinstance(target, numpy.ndarray):
            if isinstance(value, numpy.ndarray) and value.shape == target.shape:
                target[...] = value
        elif isinstance(target, list) and isinstance(value, list):
            if len(target) == len(value) and any(_holds_arrays(item) for item in target):
                for item, new in zip(target, value, strict=True):
                    self.change(item, new)
            else:
                target[:] = value
        elif isinstance(target, tuple) and isinstance(value, tuple) and len(target) == len(value):
            for item, new in zip(target, value, strict=True):
                self.change(item, new)
        elif isinstance(target, dict) and isinstance(value, dict):
            if target.keys() == value.keys() and any(_holds_arrays(item) for item in target.values()):
                for key, item in target.items():
                    self.change(item, value[key])
            else:
                target.clear()
                target.update(value)
        elif isinstance(target, set) and isinstance(value, set):
            target.clear()
            target.update(value)
        elif isinstance(target, bytearray) and isinstance(value, bytearray):
            target[:] = value


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, list | dict | tuple) or hasattr(value, "shape")


def _library_place(value: Any) -> tuple[str, str] | None:
    """Module and name of what an installed library defines, if the student's process can find it by them."""
    if isinstance(value, types.ModuleType):
        return (value.__name__, "") if value.__name__ in sys.modules else None
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str) or "<" in name or not callable(value):
        return None
    modules = (getattr(value, "__module__", None), *SEARCHED)
    for module in modules:
        if isinstance(module, str) and module in sys.modules and module != "__main__":
            try:
                found: Any = importlib.import_module(module)
                for part in name.split("."):
                    found = getattr(found, part)
            except (ImportError, AttributeError):
                continue
            if found is value:
                return module, name
    return None
