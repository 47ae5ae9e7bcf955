# ruff: noqa: D105, D107
"""The judge's own objects, built a second time in the student's process, and functions that call back to
it."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .packing import Unpacker
    from .student import Session


class FromJudge:
    """A function or object of the judge's: it can be called, and shows the attributes that the judge
    allows."""

    def __init__(self, session: Session, number: int) -> None:
        self.__dict__.update(number=number, _session=session)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._session.ask_judge(self.number, "", args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._session.ask_judge(self.number, "get", (name,), {})

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return self._session.ask_judge(self.number, "len", (), {})

    def __getitem__(self, key: Any) -> Any:
        return self._session.ask_judge(self.number, "item", (key,), {})


class FromJudgeIterator(FromJudge):
    """An iterator of the judge's."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        more, value = self._session.ask_judge(self.number, "next", (), {})
        if not more:
            raise StopIteration
        return value


def make_twin(packed: dict[str, Any], unpacker: Unpacker, session: Session) -> Any:
    """Builds the twin of an object of the judge's that an installed library made; the judge is trusted
    here."""
    if packed["k"] == "torch generator":
        import torch

        return torch.Generator()

    class Loader(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            number, name = pid
            if number == "class":
                return session.namespace[name]
            twin = session.twins[number]
            return twin if name is None else dict(twin.named_parameters())[name]

    return Loader(io.BytesIO(unpacker.bytes_of(packed))).load()


def twin_state(twin: Any) -> Any:
    """What may change in a twin: a generator's state, a module's parameters."""
    torch = sys.modules.get("torch")
    numpy = sys.modules.get("numpy")
    if torch is not None and isinstance(twin, torch.Generator):
        return twin.get_state()
    if torch is not None and isinstance(twin, torch.nn.Module):
        return {"values": dict(torch.nn.Module.state_dict(twin)), "training": bool(twin.training)}
    if numpy is not None and isinstance(twin, numpy.random.Generator):
        return twin.bit_generator.state
    if numpy is not None and isinstance(twin, numpy.random.RandomState):
        return twin.get_state(legacy=False)
    import random

    if isinstance(twin, random.Random):
        return twin.getstate()
    if type(twin).__module__ == "__main__" and hasattr(twin, "__dict__"):
        return {"attributes": [[name, value] for name, value in vars(twin).items()]}
    return None


def set_twin_state(twin: Any, state: Any) -> None:
    """The reverse of `twin_state`."""
    torch = sys.modules.get("torch")
    numpy = sys.modules.get("numpy")
    if state is None:
        return
    if isinstance(state, dict) and set(state) == {"attributes"}:
        vars(twin).update((name, value) for name, value in state["attributes"])
    elif torch is not None and isinstance(twin, torch.Generator):
        twin.set_state(state)
    elif torch is not None and isinstance(twin, torch.nn.Module):
        with torch.no_grad():
            for name, value in torch.nn.Module.state_dict(twin).items():
                value.copy_(state["values"][name])
        twin.train(bool(state["training"]))
    elif numpy is not None and isinstance(twin, numpy.random.Generator):
        twin.bit_generator.state = state
    elif numpy is not None and isinstance(twin, numpy.random.RandomState):
        twin.set_state(state)
    else:
        twin.setstate(state)
