"""Messages between the judge and a student's process: JSON and raw bytes, never pickles.

A message is one frame: the lengths of a JSON text and of all blobs (two unsigned 32-bit numbers), the JSON
text
`{"m": message, "b": [length of each blob]}`, and the blobs.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any

HEAD = struct.Struct("<II")
MAX_JSON = 8 << 20
MAX_BLOBS = 64 << 20


class WireError(Exception):
    """What arrived is no message of this protocol, or too large."""


class Closed(WireError):
    """The other side has closed the connection, or its process has ended."""


class DeadlineError(Exception):
    """The whole message did not pass within its time."""


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineError
    return left


def send(sock: socket.socket, message: Any, blobs: list[bytes], deadline: float | None = None) -> None:
    """Sends one frame; `deadline` (monotonic seconds) holds for the whole of it."""
    text = json.dumps({"m": message, "b": [len(blob) for blob in blobs]}, separators=(",", ":")).encode()
    total = sum(len(blob) for blob in blobs)
    if len(text) > MAX_JSON or total > MAX_BLOBS:
        raise WireError(f"the message is too large ({(len(text) + total) / 1e6:.0f} MB)")
    for part in (HEAD.pack(len(text), total) + text, *blobs):
        view = memoryview(part)
        while view:
            sock.settimeout(_remaining(deadline))
            try:
                view = view[sock.send(view[: 1 << 20]) :]
            except TimeoutError as error:
                raise DeadlineError from error
            except OSError as error:
                raise Closed(str(error)) from error


def _receive_exactly(sock: socket.socket, size: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < size:
        sock.settimeout(_remaining(deadline))
        try:
            part = sock.recv(min(size - len(data), 1 << 20))
        except TimeoutError as error:
            raise DeadlineError from error
        except OSError as error:
            raise Closed(str(error)) from error
        if not part:
            raise Closed("the connection was closed")
        data += part
    return data


def receive(sock: socket.socket, deadline: float | None = None) -> tuple[Any, list[bytes]]:
    """One frame: the message and its blobs. The deadline holds for the whole of it, however slowly bytes
    drip."""
    json_size, blob_size = HEAD.unpack(_receive_exactly(sock, HEAD.size, deadline))
    if json_size > MAX_JSON or blob_size > MAX_BLOBS:
        raise WireError("the message is too large")
    text = _receive_exactly(sock, json_size, deadline)
    data = memoryview(bytes(_receive_exactly(sock, blob_size, deadline)))
    try:
        frame = json.loads(text.decode("ascii"))
        sizes = frame["b"]
        message = frame["m"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError("the message is not a frame") from error
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise WireError("the blobs' lengths are malformed")
    if sum(sizes) != blob_size:
        raise WireError("the blobs' lengths do not add up")
    blobs, start = [], 0
    for size in sizes:
        blobs.append(bytes(data[start : start + size]))
        start += size
    return message, blobs
