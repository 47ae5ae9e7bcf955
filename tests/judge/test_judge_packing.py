"""Values arrive as they were sent, and what is malformed is refused."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from mbrl_autograder.judge.child import wire
from mbrl_autograder.judge.child.packing import Packer, Unpacker, make_named


def refuse(*values: Any) -> Any:
    raise wire.WireError("no plain data")


def resolve(tag: str, packed: dict[str, Any], unpacker: Unpacker) -> Any:
    if tag == "named":
        return make_named(packed["n"], packed["f"], packed["items"])
    raise wire.WireError(tag)


def there_and_back(value: Any) -> Any:
    packer = Packer(refuse)
    packed = json.loads(json.dumps(packer.pack(value)))
    return Unpacker(packer.blobs, resolve).unpack(packed)


plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
)
keys = st.integers() | st.text() | st.booleans() | st.tuples(st.integers(), st.text())
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(keys, inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(), max_size=1)
    ),
    max_leaves=20,
)


@given(nested)
@settings(deadline=None)
def test_plain_values_come_back_the_same(value: Any) -> None:
    back = there_and_back(value)
    assert repr(back) == repr(value)  # NaN and the types of numbers included


@given(arrays(scalar_dtypes(), array_shapes(min_dims=0, min_side=0)))
@settings(deadline=None)
def test_arrays_come_back_the_same(array: np.ndarray) -> None:
    back = there_and_back(array)
    assert type(back) is np.ndarray and back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "bfloat16", "complex64", "uint8"])
def test_tensors_come_back_detached_and_whole(dtype: str) -> None:
    tensor = torch.arange(12).reshape(3, 4).T.to(getattr(torch, dtype))
    assert torch.equal(there_and_back(tensor), tensor)
    assert there_and_back(tensor).dtype == tensor.dtype


def test_subclasses_become_what_they_are_made_of() -> None:
    class Liar(float):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = float.__hash__

    class Tensor(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
            return True

    assert type(there_and_back(Liar(2.0))) is float
    assert type(there_and_back(torch.ones(2).as_subclass(Tensor))) is torch.Tensor
    assert type(there_and_back(torch.ones(2, requires_grad=True) * 2)) is torch.Tensor


def test_named_tuples_keep_their_names() -> None:
    found = there_and_back(make_named("Fit", ["mean", "count"], [1.5, 2]))
    assert found == (1.5, 2) and found.mean == 1.5 and found.count == 2
    assert math.isclose(sum(found), 3.5)


MALFORMED = [
    {"$": "tensor", "d": "float32", "s": [1 << 40], "b": 0},
    {"$": "tensor", "d": "float32", "s": [-1], "b": 0},
    {"$": "tensor", "d": "load", "s": [2], "b": 0},
    {"$": "array", "d": "O", "s": [1], "b": 0},
    {"$": "array", "d": "f8,f8", "s": [1], "b": 0},
    {"$": "array", "d": "<f8", "s": [1.0], "b": 0},
    {"$": "array", "d": "<f8", "s": [1], "b": -1},
    {"$": "array", "d": "<f8", "s": [1], "b": 3},
    {"$": "set", "v": [[]]},
    {"$": "named", "n": "A", "f": ["__class__"], "v": [1]},
    {"$": "named", "n": "A", "f": ["a"], "v": [1, 2]},
    {"$": "named", "n": "a b", "f": ["a"], "v": [1]},
    {"$": "pickle", "b": 0},
    {"$": "unpack"},
    {"$": "twin", "b": 0},
    {"$": ["list"]},
    {"v": 1},
    {"$": "dict", "v": [[1]]},
    {"$": "int", "v": "9" * 10_000},
    {"$": "float", "v": "1"},
]


@pytest.mark.parametrize("packed", MALFORMED, ids=str)
def test_malformed_values_are_refused(packed: Any) -> None:
    with pytest.raises(wire.WireError):
        Unpacker([b"12345678"], resolve).unpack(packed)


def test_depth_and_number_are_bounded() -> None:
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    for value in (deep, [0] * 1_000_000):
        with pytest.raises(wire.WireError):
            Packer(refuse).pack(value)
        with pytest.raises(wire.WireError):
            Unpacker([], resolve).unpack(value)


@given(st.binary(max_size=64))
@settings(deadline=None, max_examples=50)
def test_bytes_that_are_no_frame_are_refused(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        with pytest.raises(wire.WireError):
            wire.receive(ours, time.monotonic() + 5)


def test_a_deadline_holds_for_the_whole_message() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        theirs.sendall(wire.HEAD.pack(1000, 0))
        while not stop.wait(0.02):
            theirs.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    with ours, theirs:
        with pytest.raises(wire.DeadlineError):
            wire.receive(ours, time.monotonic() + 0.3)
        stop.set()
        thread.join()
