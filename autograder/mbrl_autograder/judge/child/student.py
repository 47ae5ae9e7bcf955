# ruff: noqa: D107
"""One submission's process: runs the student's cells, and serves the judge's questions about what they
define."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from . import wire
from .capture import Capture, Displays
from .errors import describe_error, error_of_judge, is_own_error, packed_bases, packed_error
from .generators import InStep
from .packing import Packer, Unpacker, make_named
from .special import SPECIAL
from .twins import FromJudge, FromJudgeIterator, make_twin, set_twin_state, twin_state

MAX_HANDLES = 200_000


class Session:
    """The student's namespace behind a socket: objects that are no plain data stay here and get a number."""

    def __init__(self, sock: socket.socket, shell: Any) -> None:
        self.sock = sock
        self.shell = shell
        self.namespace: dict[str, Any] = shell.user_ns
        self.out, self.displays = Capture(), Displays()
        self.objects: frozenset[str] = frozenset()
        self.handles: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.twins: dict[int, Any] = {}
        self.random = InStep(lambda generator, before, after: after)
        self.pid = os.getpid()
        self.on_wire = False
        self.interrupted = False
        self.running = 0
        self._hooks()

    # the loop -------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Answers the judge until it closes the connection."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        while True:
            message, blobs = self._receive()
            self._answer(message, blobs)

    def _answer(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        packer = Packer(self._opaque, self.objects)
        try:
            unpacker = Unpacker(blobs, self._resolve)
            reply = {"ok": getattr(self, "do_" + message["op"])(message, unpacker, packer)}
        except BaseException as error:
            packer = Packer(self._opaque, self.objects)
            reply = {"error": packed_error(error, packer)}
        reply["id"] = message["id"]
        if message["op"] == "run" or self.interrupted:
            self.interrupted = False
        self._send(reply, packer.blobs)

    def _send(self, reply: dict[str, Any], blobs: list[bytes]) -> None:
        if os.getpid() != self.pid:
            os._exit(0)  # a fork of the student's that came back here
        packer = Packer(self._opaque)
        packer.blobs = blobs
        try:
            reply["random"] = self.random.changes(packer)
        except Exception:  # the student has put something else in a generator's place
            reply["random"] = []
        self.on_wire = True
        try:
            wire.send(self.sock, reply, blobs)
        except wire.Closed:
            os._exit(0)
        except wire.WireError as error:
            wire.send(self.sock, {"id": reply["id"], "error": describe_error(error)}, [])
        finally:
            self.on_wire = False

    def _receive(self) -> tuple[Any, list[bytes]]:
        self.on_wire = True
        try:
            message, blobs = wire.receive(self.sock)
        except wire.Closed:
            os._exit(0)
        finally:
            self.on_wire = False
        changed = message.get("random")
        if self.random.on != (changed is not None):
            self.random.begin(changed is not None)
        with contextlib.suppress(Exception):
            self.random.take(changed or [], Unpacker(blobs, self._resolve))
        return message, blobs

    def _on_interrupt(self, number: int, frame: Any) -> None:
        if self.running and not self.on_wire:
            raise KeyboardInterrupt
        self.interrupted = bool(self.running)

    def _student(self, work: Callable[[], Any]) -> Any:
        """Runs the student's code so that an interrupt reaches it."""
        self.running += 1
        try:
            return work()
        finally:
            self.running -= 1

    # cells ----------------------------------------------------------------------------------------

    def _hooks(self) -> None:
        shell, displays = self.shell, self.displays
        sys.stdout = sys.stderr = self.out
        shell.system = shell.system_piped = shell.system_raw = self._system
        shell.enable_gui = lambda gui=None: None
        matplotlib: Any = sys.modules.get("matplotlib")
        if matplotlib is not None:
            matplotlib.use = lambda *args, **options: None  # there is no window here, and none is needed
        shell.enable_matplotlib = lambda gui=None: (None, "inline")
        shell.showtraceback = shell.showsyntaxerror = lambda *args, **options: None
        shell.display_pub.publish = lambda data=None, metadata=None, **more: displays.add(
            "display", data or {}
        )
        shell.displayhook.write_output_prompt = lambda: None
        shell.displayhook.write_format_data = lambda data, metadata=None: displays.add("result", data)
        self._transformers = (
            list(shell.input_transformers_post),
            list(shell.input_transformer_manager.cleanup_transforms),
            list(shell.input_transformer_manager.line_transforms),
            list(shell.input_transformer_manager.token_transformers),
        )

    def _system(self, command: str) -> None:
        done = subprocess.run(
            str(command),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.out.write(done.stdout.decode("utf-8", "replace"))

    def do_run(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> Any:
        """Runs a cell; the reply says how it ended and what it showed."""
        shell = self.shell
        manager = shell.input_transformer_manager
        shell.input_transformers_post[:] = self._transformers[0]
        manager.cleanup_transforms[:] = self._transformers[1]
        manager.line_transforms[:] = self._transformers[2]
        manager.token_transformers[:] = self._transformers[3]
        shell.ast_transformers.clear()
        shell.custom_exceptions = ()
        sys.stdout = sys.stderr = self.out
        self.out.take()
        result = self._student(lambda: shell.run_cell(message["code"], store_history=False))
        error = result.error_before_exec or result.error_in_exec
        return {
            "text": self.out.take(),
            "displays": self.displays.take(),
            "error": describe_error(error) if error is not None else None,
            "dtype": str(sys.modules["torch"].get_default_dtype()) if "torch" in sys.modules else "",
        }

    def do_setup(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> None:
        """Names of classes whose instances are objects, even if a student builds them upon a list."""
        self.objects = frozenset(message["objects"])

    def do_files(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> None:
        """Writes the files that lie beside the notebook into the scratch folder."""
        for name, number in message["files"]:
            parts = [part for part in name.split("/") if part not in ("", ".", "..")]
            path = os.path.join(os.getcwd(), *parts)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(unpacker.blobs[number])

    # questions about objects ----------------------------------------------------------------------

    def do_lookup(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> Any:
        """The values of those of the names that exist."""
        found = [name for name in message["names"] if name in self.namespace]
        return [[name, packer.pack(self.namespace[name])] for name in found]

    def do_call(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> Any:
        """Calls an object; the reply holds the result, and the arguments that the call changed."""
        function = self.handles[message["h"]]
        packed = [*message["args"], *(value for _, value in message["kwargs"])]
        values = [unpacker.unpack(value) for value in packed]
        before = [self._freeze(value) for value in values]
        count = len(message["args"])
        keywords = {name: value for (name, _), value in zip(message["kwargs"], values[count:], strict=True)}
        self.out.take()
        result = self._student(lambda: function(*values[:count], **keywords))
        answer = {"value": packer.pack(result), "changed": []}
        for number, (value, old) in enumerate(zip(values, before, strict=True)):
            if old is not None and self._freeze(value) != old:
                answer["changed"].append([number, packer.pack(value)])
        answer["twins"] = self._twin_states(message.get("twins", []), packer)
        return answer

    def _freeze(self, value: Any) -> Any:
        """What `value` holds, for a comparison; None for what cannot change."""
        if value is None or isinstance(value, bool | int | float | str | bytes):
            return None
        packer = Packer(lambda item, _: {"$": "other", "id": id(item)})
        try:
            return packer.pack(value), packer.blobs
        except wire.WireError:
            return None

    def do_get(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> Any:
        """An attribute."""
        target, name = self.handles[message["h"]], message["name"]
        return packer.pack(self._student(lambda: getattr(target, name)))

    def do_set(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> None:
        """Sets an attribute."""
        self._student(
            lambda: setattr(self.handles[message["h"]], message["name"], unpacker.unpack(message["v"]))
        )

    def do_special(self, message: dict[str, Any], unpacker: Unpacker, packer: Packer) -> Any:
        """A special method of an object, such as `__len__`, as Python's own syntax would call it."""
        target = self.handles[message["h"]]
        values = [unpacker.unpack(value) for value in message["args"]]
        return packer.pack(self._student(lambda: SPECIAL[message["name"]](target, *values)))

    # values ---------------------------------------------------------------------------------------

    def _opaque(self, value: Any, packer: Packer) -> Any:
        if isinstance(value, FromJudge):
            return {"$": "mine", "id": value.number}
        for twin_number, twin in self.twins.items():
            if twin is value:
                return {"$": "mine", "id": twin_number}
        number = self.numbers.get(id(value))
        if number is None:
            if len(self.handles) >= MAX_HANDLES:
                raise wire.WireError("too many objects")
            number = len(self.handles)
            self.handles.append(value)  # keeps it alive, so that its id stays its own
            self.numbers[id(value)] = number
        kind = (
            "class"
            if isinstance(value, type)
            else "iterator"
            if hasattr(type(value), "__next__")
            else "object"
        )
        if kind == "object" and callable(value) and hasattr(value, "__code__"):
            kind = "function"
        name = getattr(value, "__name__", "") if kind in ("class", "function") else type(value).__name__
        packed = {"$": "handle", "id": number, "k": kind, "n": str(name)[:100], "c": callable(value)}
        if kind == "class" and is_own_error(value):
            packed["e"] = packed_bases(value, packer)
        elif is_own_error(type(value)):
            packed["e"] = packer.pack(type(value))
        return packed

    def _twin_states(self, numbers: list[int], packer: Packer) -> list[Any]:
        """The states of the judge's own objects that a call was given, after it."""
        return [[number, packer.pack(twin_state(self.twins[number]))] for number in numbers]

    def _resolve(self, tag: str, packed: dict[str, Any], unpacker: Unpacker) -> Any:
        if tag == "handle":
            return self.handles[packed["id"]]
        if tag == "named":
            name, fields = packed["n"], packed["f"]
            own = self.namespace.get(name)
            if (
                isinstance(own, type)
                and issubclass(own, tuple)
                and list(getattr(own, "_fields", ())) == list(fields)
            ):
                return tuple.__new__(own, packed["items"])
            return make_named(name, list(fields), packed["items"])
        if tag == "library":
            try:
                value: Any = importlib.import_module(packed["m"])
                for part in packed["q"].split("."):
                    value = getattr(value, part)
                return value
            except (ImportError, AttributeError):
                return FromJudge(self, packed["id"])
        if tag == "callback":
            return FromJudge(self, packed["id"])
        if tag == "steps":
            return FromJudgeIterator(self, packed["id"])
        if tag == "twin":
            number = packed["id"]
            if number not in self.twins:
                self.twins[number] = make_twin(packed, unpacker, self)
            if packed.get("state") is not None:
                set_twin_state(self.twins[number], unpacker.value(packed["state"]))
            return self.twins[number]
        raise wire.WireError(f"unknown kind of value {tag!r}")

    def ask_judge(self, number: int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a function of the judge's, and serves it while it runs."""
        packer = Packer(self._opaque, self.objects)
        message = {
            "back": number,
            "name": name,
            "args": [packer.pack(value) for value in args],
            "kwargs": [[str(key), packer.pack(value)] for key, value in kwargs.items()],
            "id": -1,
        }
        self._send(message, packer.blobs)
        while True:
            message, blobs = self._receive()
            if "op" in message:
                self._answer(message, blobs)
                continue
            if self.interrupted:
                self.interrupted = False
                raise KeyboardInterrupt
            if "error" in message:
                raise error_of_judge(message["error"], Unpacker(blobs, self._resolve), self.namespace)
            return Unpacker(blobs, self._resolve).unpack(message["ok"])
