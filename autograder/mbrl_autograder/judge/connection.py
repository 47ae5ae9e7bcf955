# ruff: noqa: D107
"""The judge's end of a student's process: questions, deadlines, callbacks, and the values that travel."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import proxies
from .child import wire
from .child.generators import InStep
from .child.packing import Packer, Unpacker, make_named
from .errors import BUILTIN_ERRORS, StandIn, StandInClass, StudentErrorInfo, behind, stand_in, stand_in_class
from .outgoing import Outgoing
from .randomness import drawn_state
from .sandbox import Sandbox, SandboxError

GRACE_SECONDS = 2.0
MAX_REENTRY = 20
MALFORMED = (TypeError, LookupError, ValueError, ArithmeticError, AttributeError, RuntimeError)


class Interrupted(BaseException):
    """The test cannot go on; no `except Exception` of a test catches it."""


class TimedOut(Interrupted):
    """The student's code, or the test itself, took too long."""


class StudentEnded(Interrupted):
    """The student's process ended, or sent what is no answer; the message says which."""


class Student:
    """Asks one student's process at a time; restarts are the caller's decision.

    Args:
        sandbox: the fork server.
        namespace: the names of the trusted side, by which its own named tuples and classes are known.
        shared: names of the classes that locked cells define on both sides.
        operators: for each class of the source's, the special methods that it defines.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        namespace: dict[str, Any],
        shared: set[str],
        operators: Mapping[str, set[str]],
    ) -> None:
        self.sandbox, self.namespace, self.operators = sandbox, namespace, operators
        self.outgoing = Outgoing(self, shared)
        self.random = InStep(drawn_state)
        self._errors: dict[int, StandInClass] = {}  # by the numbers of the student's classes
        self.generation = 0
        self.deadline = 0.0
        self.alive = False
        self.trouble: Interrupted | None = None
        self.coerce: Callable[[Any], Any] | None = None
        self.saw_arrays = False
        self._sock: socket.socket | None = None
        self._next = 0
        self._depth = 0
        self.test = ""  # the file name of the test that runs
        self.changed: set[tuple[int, int]] = set()  # line of the test, argument: what calls there changed
        self.allowed: set[tuple[int, int]] | None = None  # where arguments change; None for everywhere

    # life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """A fresh process; whatever came from an earlier one is of no use any more."""
        self.stop()
        self._sock = self.sandbox.start_student()
        self.generation += 1
        self.alive = True
        self._depth = 0
        self.outgoing.reset()
        self._errors = {}

    def stop(self) -> None:
        """Ends the process, and everything that it started."""
        self.alive = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            self.sandbox.kill_student()

    def _end(self, trouble: Interrupted) -> Interrupted:
        self.trouble = trouble
        self.stop()
        return trouble

    # questions ------------------------------------------------------------------------------------

    def ask(self, op: str, blobs: list[bytes] | None = None, **fields: Any) -> tuple[Any, list[bytes]]:
        """Sends one question and waits for its answer, serving callbacks meanwhile.

        Raises:
            TimedOut, StudentEnded: see there.
            Exception: what the student's code raised, as the nearest built-in kind.
        """
        if not self.alive or self._sock is None:
            raise self.trouble or StudentEnded("the code's process has ended")
        self._next += 1
        number = self._next
        self._depth += 1
        finished = False
        try:
            self._send({"op": op, "id": number, **fields}, blobs or [])
            answer = self._wait(number)
            finished = True
            return answer
        except wire.DeadlineError as error:
            raise self._too_slow(number) from error
        except wire.Closed as error:
            raise self._end(StudentEnded(self._why())) from error
        except wire.WireError as error:
            raise self._end(StudentEnded(f"the code's process sent what is no answer: {error}")) from error
        except Interrupted:
            if not finished and self.alive:
                self.stop()  # the connection is amid a message
            raise
        finally:
            self._depth -= 1

    def _why(self) -> str:
        limit = {"memory": "took too much memory", "processes": "started too many processes"}
        why = self.sandbox.why_ended()
        return f"the code's process {limit.get(why, 'ended')}"

    def _wait(self, number: int) -> tuple[Any, list[bytes]]:
        assert self._sock is not None
        while True:
            message, blobs = wire.receive(self._sock, self.deadline)
            if not isinstance(message, dict):
                raise wire.WireError("not a message")
            self._take_random(message.get("random"), blobs)
            if "back" in message:
                self._serve(message, blobs)
                continue
            if message.get("id") != number or isinstance(message["id"], bool):
                raise wire.WireError("an answer to another question")
            if "error" in message:
                raise self._error(message["error"], blobs)
            return message.get("ok"), blobs

    def _error(self, data: Any, blobs: list[bytes]) -> Exception:
        info = StudentErrorInfo(data)
        packed = data.get("object") if isinstance(data, dict) else None
        error = self.unpacker(blobs).unpack(packed)
        if not isinstance(error, StandIn):
            return info.exception()
        error.student_error = info
        return error

    def _too_slow(self, number: int) -> Interrupted:
        """Interrupts the student's code; what does not heed that is ended."""
        self.trouble = TimedOut("took too long")
        self.deadline = time.monotonic() + GRACE_SECONDS
        try:
            self.sandbox.interrupt_student()
            self._wait(number)
        except (wire.WireError, wire.DeadlineError, SandboxError, Interrupted):
            self.stop()
        except Exception:
            pass  # the student's own KeyboardInterrupt: the process can be asked again
        if self._depth > 1:
            self.stop()  # an outer call still waits in the process
        return self.trouble

    def _serve(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        """Calls a function of the test's for the student's code."""
        assert self._sock is not None
        if self._depth > MAX_REENTRY:
            raise wire.WireError("calls back and forth are nested too deeply")
        packer = Packer(self.outgoing.opaque)
        unpack = self.unpacker(blobs).unpack
        args, kwargs, name = message.get("args"), message.get("kwargs"), message.get("name")
        if not isinstance(args, list) or not isinstance(kwargs, list) or not isinstance(name, str):
            raise wire.WireError("malformed call of a function")
        values = [unpack(value) for value in args]
        pairs = {str(key): unpack(value) for key, value in kwargs}
        reply: dict[str, Any]
        try:
            reply = {"ok": packer.pack(self.outgoing.call(message["back"], name, values, pairs))}
        except wire.WireError:
            raise
        except Exception as error:
            packer = Packer(self.outgoing.opaque)
            kind = next(
                (k.__name__ for k in type(error).__mro__ if k.__name__ in BUILTIN_ERRORS), "RuntimeError"
            )
            packed = packer.pack(error) if behind(error) is not None else None
            name = type(error).__name__ if self._shared_error(type(error).__name__) is type(error) else ""
            reply = {"error": {"type": kind, "message": str(error)[:500], "object": packed, "name": name}}
        self._send(reply, packer.blobs)

    def _send(self, message: dict[str, Any], blobs: list[bytes]) -> None:
        assert self._sock is not None
        packer = Packer(self.outgoing.opaque)
        packer.blobs = blobs
        wire.send(self._sock, message | {"random": self.random.changes(packer)}, blobs, self.deadline)

    def _take_random(self, changed: Any, blobs: list[bytes]) -> None:
        """What the student's code drew from the global generators, if the test has it in step."""
        if not self.random.on or not changed:
            return
        try:
            self.random.take(changed[:3], self.unpacker(blobs))
        except MALFORMED as error:
            raise wire.WireError("malformed state of a generator") from error

    # values ---------------------------------------------------------------------------------------

    def unpacker(self, blobs: list[bytes]) -> Unpacker:
        """Builds values out of what the student's process sent."""
        return Unpacker(blobs, self._resolve)

    def value(self, packed: Any, blobs: list[bytes]) -> Any:
        """A result, brought to what the test expects where that is asked for."""
        try:
            value = self.unpacker(blobs).unpack(packed)
        except wire.WireError as error:
            raise self._end(StudentEnded(f"the code's process sent what is no value: {error}")) from error
        self.saw_arrays = self.saw_arrays or bool(blobs)
        return self.coerce(value) if self.coerce is not None else value

    def _resolve(self, tag: str, packed: dict[str, Any], unpacker: Unpacker) -> Any:
        if tag == "handle":
            number, name, kind = packed["id"], packed["n"], packed["k"]
            if (
                type(number) is not int
                or number < 0
                or not isinstance(name, str)
                or not isinstance(kind, str)
            ):
                raise wire.WireError("malformed handle")
            proxy = proxies.make(self, number, name[:100], kind, packed["c"] is True)
            return proxy if "e" not in packed else self._stand_in(proxy, packed, unpacker)
        if tag == "mine":
            return self.outgoing.mine(packed["id"])
        if tag == "named":
            own: Any = self.namespace.get(packed["n"])
            known = isinstance(own, type) and issubclass(own, tuple) and not isinstance(own, proxies.Proxy)
            if known and list(getattr(own, "_fields", ())) == packed["f"]:
                return tuple.__new__(own, packed["items"])
            return make_named(packed["n"], packed["f"], packed["items"])
        raise wire.WireError(f"unknown kind of value {str(tag)[:20]!r}")

    def _stand_in(self, proxy: proxies.Proxy, packed: dict[str, Any], unpacker: Unpacker) -> Any:
        """What stands for a student's class of exceptions, or for an object of one."""
        if packed["k"] != "class":
            kind = self._error_class(packed["e"], unpacker)
            if not isinstance(kind, StandInClass):
                raise wire.WireError("malformed exception")
            return stand_in(proxy, kind)
        if packed["id"] not in self._errors:
            name = packed["n"][:100]
            bases = [self._error_class(base, unpacker) for base in packed["e"][:20]]
            own = self._shared_error(name)
            self._errors[packed["id"]] = stand_in_class(proxy, name, [own] if own else bases)
        return self._errors[packed["id"]]

    def _error_class(self, packed: Any, unpacker: Unpacker) -> Any:
        if isinstance(packed, str):
            return BUILTIN_ERRORS.get(packed, Exception)
        found = self._resolve("handle", packed, unpacker)
        if not isinstance(found, StandInClass):
            raise wire.WireError("malformed class of an exception")
        return found

    def _shared_error(self, name: str) -> type[Exception] | None:
        """The class of exceptions of that name that a locked cell defines on both sides."""
        own: Any = self.namespace.get(name) if name in self.outgoing.shared else None
        return own if isinstance(own, type) and issubclass(own, Exception) else None

    def lookup(self, names: list[str]) -> dict[str, Any]:
        """Those of the names that the student's cells define."""
        found, blobs = self.ask("lookup", names=names)
        if not isinstance(found, list):
            raise self._end(StudentEnded("the code's process sent what is no answer"))
        result = {}
        for item in found:
            if isinstance(item, list) and len(item) == 2 and item[0] in names:
                result[item[0]] = self.value(item[1], blobs)
        return result

    def call(self, handle: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an object of the student's; arguments that it changes are changed here as well."""
        packer = Packer(self.outgoing.opaque)
        self.outgoing.begin_call()
        packed = [packer.pack(value) for value in args]
        keywords = [[name, packer.pack(value)] for name, value in kwargs.items()]
        twins = self.outgoing.twins_of_call()
        answer, blobs = self.ask("call", packer.blobs, h=handle, args=packed, kwargs=keywords, twins=twins)
        try:
            unpack = self.unpacker(blobs).unpack
            given = [*args, *kwargs.values()]
            line = self._line()
            for number, value in answer["changed"]:
                if self._may_change((line, number)):
                    self.outgoing.change(given[number], unpack(value))
            for number, state in answer["twins"]:
                if number in twins:
                    new = unpack(state)
                    if self.outgoing.is_drawn_from(number) or (
                        self.outgoing.differs(number, new)
                        and self._may_change((line, -1 - twins.index(number)))
                    ):
                        self.outgoing.take_state(number, new)
            packed_result = answer["value"]
        except (wire.WireError, *MALFORMED) as error:
            raise self._end(StudentEnded("the code's process sent what is no answer")) from error
        return self.value(packed_result, blobs)

    def _line(self) -> int:
        """The line of the test that is running, or 0."""
        frame: Any = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename == self.test:
                return int(frame.f_lineno)
            frame = frame.f_back
        return 0

    def _may_change(self, place: tuple[int, int]) -> bool:
        self.changed.add(place)
        return self.allowed is None or place in self.allowed
