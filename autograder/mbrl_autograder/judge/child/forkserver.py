# ruff: noqa: D107
"""The warm process inside the sandbox: it has imported what notebooks import, and forks a child per
submission.

Commands arrive on a socket as JSON, one per packet: `start` (with the student's socket attached),
`interrupt`, `kill`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from . import linux


class ForkServer:
    """Forks, watches and ends the processes of submissions, one at a time."""

    def __init__(self, control: socket.socket, options: dict[str, Any]) -> None:
        self.control = control
        self.options = options
        self.helper = 0  # the process that waits for the student's; a child of this one
        self.student = 0
        self.ended = ""
        self.address_space = 0
        self.own_memory = 0
        self.own_number = 0  # this process's, as /proc counts: there it may be the machine's
        self.parent = os.getppid()

    def measure(self) -> None:
        """Notes how much memory is the libraries', and keeps the collector off it in the forks."""
        self.address_space = linux.own_address_space()
        self.own_number = int(os.readlink("/proc/self")) if os.path.exists("/proc/self") else 0
        self.own_memory = linux.process_table().get(self.own_number, (0, 0))[1]
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        """Serves until the other side goes away."""
        while True:
            ready, _, _ = select.select([self.control], [], [], 0.05 if self.helper else 2)
            if os.getppid() != self.parent:  # datagrams, for one, do not tell
                self._end()
                return
            if ready:
                data, fds, _, _ = socket.recv_fds(self.control, 65536, 4)
                if not data:
                    self._end()
                    return
                self._command(json.loads(data), fds)
            if self.helper:
                self._watch()

    def _command(self, command: dict[str, Any], fds: list[int]) -> None:
        kind = command["do"]
        answer: dict[str, Any] = {}
        if kind == "start":
            self._end()
            answer = self._start(fds[0], command)
        elif kind == "interrupt":
            self._signal(signal.SIGINT)
        elif kind == "kill":
            self._end()
        elif kind == "preload":
            self._end()
            _preload(command["modules"])
            self.measure()
        elif kind == "why":
            answer = {"ended": self.ended}
        for fd in fds:
            os.close(fd)
        self.control.send(json.dumps(answer | {"n": command["n"]}).encode())

    def _start(self, fd: int, command: dict[str, Any]) -> dict[str, Any]:
        read, write = os.pipe()
        self.ended = ""
        self.helper = os.fork()
        if self.helper == 0:
            try:
                os.close(read)
                self.control.close()
                self._become_student(fd, write, command)
            except BaseException as error:
                os.write(write, f"!{type(error).__name__}: {error}".encode())
            os._exit(70)
        os.close(write)
        text = b""
        while part := os.read(read, 4096):
            text += part
        os.close(read)
        if not text.isdigit():
            self._end()
            return {"error": text.decode("utf-8", "replace") or "the process did not start"}
        self.student = int(text)
        return {}

    def _become_student(self, fd: int, write: int, command: dict[str, Any]) -> None:
        options = self.options
        if options["sandbox"]:
            linux.prctl(linux.PR_SET_DUMPABLE, 1)
            uid, gid = os.getuid(), os.getgid()
            flags = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWNET
            linux.unshare(linux.CLONE_NEWUSER | flags)
            linux.map_user(uid, gid)
            _private_file_systems(options["scratch_bytes"], options["below_tmp"])
        student = os.fork()
        if student:
            os.write(write, str(student).encode())
            os.close(write)
            os.close(fd)
            _, status = os.waitpid(student, 0)
            os._exit(0 if os.WIFEXITED(status) else 64)
        os.close(write)
        if options["cpus"]:
            os.sched_setaffinity(0, options["cpus"])
        if options["sandbox"]:
            os.chdir("/scratch")
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            linux.drop_capabilities()
        else:
            os.setsid()
            os.makedirs(command["folder"], exist_ok=True)
            os.chdir(command["folder"])
        _only_these_files(fd)
        linux.set_limits(
            options["memory_bytes"],
            options["processes"],
            options["file_bytes"],
            options["cpu_seconds"],
            self.address_space,
        )
        if options["sandbox"]:
            linux.filter_system_calls()
        if command.get("probe"):
            os.write(fd, b"1" if linux.fork_limit_holds() else b"0")
            os._exit(0)
        from IPython.core.interactiveshell import InteractiveShell

        from .student import Session

        sys.path[:] = [path for path in sys.path if path] + [os.getcwd()]
        Session(socket.socket(fileno=fd), InteractiveShell.instance()).serve()

    def _signal(self, number: int) -> None:
        if self.student:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.student, number)

    def _end(self) -> None:
        if not self.helper:
            return
        if self.student and not self.options["sandbox"]:
            with contextlib.suppress(OSError):
                os.killpg(self.student, signal.SIGKILL)
        self._signal(signal.SIGKILL)
        if not self.student:
            os.kill(self.helper, signal.SIGKILL)
        os.waitpid(self.helper, 0)
        self.helper = self.student = 0

    def _watch(self) -> None:
        """Ends a submission whose processes together take too much memory, or are too many."""
        if os.waitpid(self.helper, os.WNOHANG)[0]:
            self.helper = self.student = 0
            return
        if not self.own_number:
            return
        table = linux.process_table()
        family = {pid for pid, (parent, _) in table.items() if parent == self.own_number}
        for _ in range(64):
            more = {pid for pid, (parent, _) in table.items() if parent in family} - family
            if not more:
                break
            family |= more
        memory = sum(max(0, table[pid][1] - self.own_memory) for pid in family if pid in table)
        if memory > self.options["memory_bytes"]:
            self._end()
            self.ended = "memory"
        elif len(family) > 2 * self.options["processes"] + 1:  # the helper is one of them
            self._end()
            self.ended = "processes"


def _private_file_systems(scratch_bytes: int, below_tmp: list[str]) -> None:
    """A scratch folder and a /tmp of its own in memory, with `below_tmp` still there; nothing in /proc."""
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    flags = linux.MS_NOSUID | linux.MS_NODEV
    static = {}
    for name in ("cpuinfo", "meminfo"):
        try:
            with open(f"/proc/{name}") as file:
                static[name] = file.read()
        except OSError:
            continue
    linux.mount("tmpfs", "/scratch", "tmpfs", flags, f"size={scratch_bytes},nr_inodes=20000,mode=755")
    os.mkdir("/scratch/.home")
    kept = {folder: os.open(folder, os.O_PATH) for folder in below_tmp}
    for target in ("/tmp", "/dev/shm"):
        if os.path.isdir(target):
            linux.mount(
                "tmpfs", target, "tmpfs", flags, f"size={scratch_bytes // 4},nr_inodes=5000,mode=1777"
            )
    for folder, fd in kept.items():  # an environment in there: modules may be imported at any time
        os.makedirs(folder)
        linux.mount(f"/proc/self/fd/{fd}", folder, "", linux.MS_BIND | linux.MS_REC)
        os.close(fd)
    if os.path.isdir("/proc"):
        linux.mount("tmpfs", "/proc", "tmpfs", flags, "size=1m,mode=755")
        for name, text in static.items():
            with open(f"/proc/{name}", "w") as file:
                file.write(text)


def _only_these_files(fd: int) -> None:
    """Leaves the student's process no open file but its socket and three that lead nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, fd)
    os.closerange(fd + 1, 4096)


def _preload(modules: list[str]) -> list[str]:
    missing = []
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # a module that does not import here is the notebook's own matter
            missing.append(f"{name}: {type(error).__name__}")
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=0.0)  # the first one imports for seconds
        (weight * weight).sum().backward()
        optimizer.step()
    return missing


def _warm_shell() -> None:
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False  # type: ignore[assignment]
    shell = InteractiveShell.instance()
    shell.run_cell("None", store_history=False)


def main(fd: int) -> None:
    """Runs the fork server on the socket `fd`; the first packet holds its options."""
    control = socket.socket(fileno=fd)
    options = json.loads(control.recv(1 << 20))
    if options.get("uid"):
        os.setgroups([])
        os.setresgid(options["uid"], options["uid"], options["uid"])
        os.setresuid(options["uid"], options["uid"], options["uid"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:0] = options["python_path"]
    started = time.monotonic()
    missing = _preload(options["preload"])
    _warm_shell()
    server = ForkServer(control, options)
    server.measure()
    if options["sandbox"]:
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
    control.send(
        json.dumps({"ready": True, "missing": missing, "seconds": time.monotonic() - started}).encode()
    )
    server.run()
