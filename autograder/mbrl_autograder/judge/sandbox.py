# ruff: noqa: D107
"""Starts the warm fork server inside bubblewrap, and says why where that is not possible."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .results import JudgeLimits

CHILD = Path(__file__).parent / "child"
FIRST_UID = (
    61184  # ids that no account has; a grader who is root hands its right to everything back before it starts
)
START_SECONDS = 120.0
OWN_PACKAGES = ("mbrl_course", "mbrl_autograder")
# what keeps commands apart; macOS has no SOCK_SEQPACKET for local sockets
PACKETS = socket.SOCK_SEQPACKET if sys.platform.startswith("linux") else socket.SOCK_DGRAM
PACKET_BYTES = 65536


class SandboxError(RuntimeError):
    """The sandbox is missing or locked down on this machine; the message says what to do."""


def namespaces_advice(switch: Path = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")) -> str:
    """What to do where the system, as Ubuntu since 24.04, keeps ordinary users from making namespaces."""
    try:
        closed = switch.read_text().strip() == "1"
    except OSError:
        return ""
    command = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    return f"This system lets no ordinary user make namespaces; `{command}` allows it. " if closed else ""


class Sandbox:
    """A running fork server and the socket it takes commands on.

    Args:
        limits: what a submission may cost.
        python_path: folders that the student's code may import from, such as the student edition of the
        package.
        preload: modules to import before the first submission.
        index: the worker's number.
        enabled: False runs the fork server without bubblewrap.
        cpus: the processors that the student's code keeps to; none for all.

    Raises:
        SandboxError: bubblewrap is missing, or namespaces are not allowed here.
    """

    def __init__(
        self,
        limits: JudgeLimits,
        python_path: Sequence[Path] = (),
        preload: Sequence[str] = (),
        index: int = 0,
        enabled: bool = True,
        cpus: Sequence[int] = (),
    ) -> None:
        self.enabled, self._cpus = enabled, list(cpus)
        self._limits, self._preload, self._index = limits, list(preload), index
        self._python_path = [Path(path).resolve() for path in python_path]
        self._number = 0
        self._folder = Path(tempfile.mkdtemp(prefix="judge-"))
        self.process: subprocess.Popen[bytes] | None = None
        if not enabled:
            self._launch([], {}, bind_path=False)
            return
        if not sys.platform.startswith("linux"):
            raise SandboxError(f"there is no sandbox for {sys.platform}: it needs Linux. {ADVICE}")
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError(f"bubblewrap is missing: install the package `bubblewrap`. {ADVICE}")
        reasons: list[str] = []
        for arguments, options in self._variants(program):
            try:
                self._launch(arguments, options)
                self._probe()
                return
            except SandboxError as error:
                reasons.append(str(error))
                self.close()
        said = "; ".join(dict.fromkeys(reasons))
        raise SandboxError(f"the sandbox does not start here ({said}). {namespaces_advice()}{ADVICE}")

    def _variants(self, program: str) -> list[tuple[list[str], dict[str, Any]]]:
        """Ways to start bubblewrap, the best first: with its own /proc, or with one that is covered later."""
        common = [
            program,
            "--unshare-pid",
            "--unshare-net",
            "--unshare-ipc",
            "--unshare-uts",
            "--die-with-parent",
        ]
        common += ["--new-session", "--cap-drop", "ALL"]
        users: list[tuple[list[str], dict[str, Any]]] = []
        if os.getuid() == 0:
            change = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
            users.append((change, {"uid": FIRST_UID + self._index % 4000}))
        users.append((["--unshare-user", "--uid", "1000", "--gid", "1000"], {}))
        return [
            (common + user + self._mounts() + proc + ["--remount-ro", "/", "--chdir", "/scratch"], options)
            for user, options in users
            for proc in (["--proc", "/proc"], ["--bind", "/proc", "/proc"])
        ]

    def _mounts(self) -> list[str]:
        arguments = ["--perms", "1777", "--tmpfs", "/tmp"]  # first: the environment may lie in there
        for name in ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin"):
            path = Path(name)
            if path.is_symlink():
                arguments += ["--symlink", os.readlink(name), name]
            elif path.is_dir():
                arguments += ["--ro-bind", name, name]
        folders = python_folders()
        parents = {parent for folder in folders for parent in folder.parents} | {Path("/etc"), Path("/judge")}
        for parent in sorted(parents - {Path("/")}):
            if not parent.is_relative_to("/usr"):
                arguments += ["--dir", str(parent)]  # bubblewrap's own would be closed to all but its user
        for name in (
            "/etc/ld.so.cache",
            "/etc/alternatives",
            "/etc/fonts",
            "/etc/localtime",
            "/etc/mime.types",
        ):
            arguments += ["--ro-bind-try", name, name]
        bound = outermost(folders)
        for folder in bound:
            arguments += ["--ro-bind", str(folder), str(folder)]
        for folder in installed_folders(OWN_PACKAGES):
            if any(folder.is_relative_to(other) for other in [Path("/usr"), *bound]):
                arguments += ["--tmpfs", str(folder)]
        arguments += [
            "--dev",
            "/dev",
            "--remount-ro",
            "/dev",
            "--dir",
            "/scratch",
        ]
        arguments += ["--perms", "0777", "--dir", "/tmp/mpl", "--ro-bind", str(CHILD), "/judge/judge_child"]
        arguments += ["--dir", "/path"]
        for number, folder in enumerate(self._python_path):
            arguments += ["--ro-bind", str(folder), f"/path/{number}"]
        fonts = _font_list()
        if fonts is not None:
            arguments += ["--ro-bind", str(fonts), f"/tmp/mpl/{fonts.name}"]
        return arguments

    def _launch(self, arguments: list[str], more: dict[str, Any], bind_path: bool = True) -> None:
        limits = self._limits
        path = [f"/path/{i}" if bind_path else str(p) for i, p in enumerate(self._python_path)]
        options = {
            "sandbox": self.enabled,
            "python_path": path,
            "preload": self._preload,
            "scratch_bytes": 4 * limits.file_bytes,
            "below_tmp": [str(f) for f in outermost(python_folders()) if f.is_relative_to("/tmp")],
            "memory_bytes": limits.memory_bytes,
            "processes": limits.processes if self.enabled else 100_000,
            "file_bytes": limits.file_bytes,
            "cpus": self._cpus if self.enabled else [],
            "cpu_seconds": int(2 * limits.submission_seconds) + 1,
            **more,
        }
        self.control, theirs = socket.socketpair(socket.AF_UNIX, PACKETS)
        if PACKETS == socket.SOCK_DGRAM:  # by default, macOS sends 2048 bytes at most
            for end in (self.control, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_BYTES)
        os.set_inheritable(theirs.fileno(), True)
        judge = "/judge" if bind_path else str(self._bare_child())
        code = f"import sys; sys.path.insert(0, {judge!r}); from judge_child.forkserver import main; "
        command = [*arguments, sys.executable, "-I", "-B", "-c", f"{code}main({theirs.fileno()})"]
        with open(self._folder / "stderr", "wb") as errors:
            self.process = subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                cwd=self._folder,
            )
        theirs.close()
        self.control.settimeout(START_SECONDS)
        try:
            self.control.send(json.dumps(options).encode())
            answer = self.control.recv(PACKET_BYTES)
        except OSError as error:
            answer = b""
            self._last_error = str(error)
        if not answer:
            text = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
            raise SandboxError(text[-1][:300] if text else "the fork server did not start")

    def _bare_child(self) -> Path:
        link = self._folder / "judge_child"
        if not link.exists():
            link.symlink_to(CHILD, target_is_directory=True)
        return self._folder

    def _environment(self) -> dict[str, str]:
        home = "/scratch/.home" if self.enabled else str(self._folder)
        cache = "/tmp/mpl" if self.enabled else str(self._folder)
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": home,
            "USER": "student",
            "LOGNAME": "student",
            "LANG": "C.UTF-8",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "MPLCONFIGDIR": cache,
            "IPYTHONDIR": f"{cache}/ipython",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MUJOCO_GL": "disable",
            "PYTHONHASHSEED": "0",
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS ends forks of a process that has libraries
        }

    def _probe(self) -> None:
        ours = self.start_student(probe=True)
        with ours:
            ours.settimeout(20)
            try:
                answer = ours.recv(1)
            except OSError:
                answer = b""
        self.kill_student()
        if answer != b"1":
            raise SandboxError(
                "the number of processes cannot be limited" if answer else "a sandboxed process ends at once"
            )

    # commands -------------------------------------------------------------------------------------

    def start_student(self, probe: bool = False) -> socket.socket:
        """A fresh student's process; returns the socket that it listens on."""
        ours, theirs = socket.socketpair()
        self._number += 1
        folder = str(self._folder / f"scratch{self._number}")
        with theirs:
            answer = self._command({"do": "start", "probe": probe, "folder": folder}, [theirs.fileno()])
        if "error" in answer:
            ours.close()
            raise SandboxError(answer["error"][:300])
        return ours

    def interrupt_student(self) -> None:
        """Raises KeyboardInterrupt in the student's code."""
        self._command({"do": "interrupt"})

    def kill_student(self) -> None:
        """Ends the student's process and everything that it started."""
        self._command({"do": "kill"})

    def preload(self, modules: Sequence[str]) -> None:
        """Imports modules that submissions are going to import."""
        self._command({"do": "preload", "modules": list(modules)}, seconds=START_SECONDS)

    def why_ended(self) -> str:
        """ "memory" or "processes" where a limit ended the last student's process, otherwise ""."""
        return str(self._command({"do": "why"}).get("ended", ""))

    def _command(
        self, command: dict[str, Any], fds: Iterable[int] = (), seconds: float = 30
    ) -> dict[str, Any]:
        self.control.settimeout(seconds)
        number = int.from_bytes(
            os.urandom(6), "big"
        )  # whoever asks, in whatever process: its answer is known by it
        try:
            socket.send_fds(self.control, [json.dumps(command | {"n": number}).encode()], list(fds))
            while True:
                data = self.control.recv(PACKET_BYTES)
                if not data:
                    raise SandboxError("the sandbox has ended")
                answer: dict[str, Any] = json.loads(data)
                if answer.get("n") == number:
                    return answer
        except OSError as error:
            raise SandboxError(f"the sandbox does not answer ({error})") from error

    def close(self) -> None:
        """Ends the fork server."""
        self.control.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)
        if self.process is not None and self.process.returncode is not None:
            for path in self._folder.glob("scratch*"):
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """As `close`, and removes the working folder."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)


ADVICE = "Grade on a Linux machine that allows it, or, if you trust the class, with --no-sandbox."


def python_folders() -> list[Path]:
    """The folders that this interpreter and its installed packages live in, outer ones first."""
    names = {
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        sys.base_exec_prefix,
        str(Path(sys.executable).parent),
    }
    names |= {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")}
    names.add(str(Path(os.path.realpath(sys.executable)).parent))
    return sorted(Path(name) for name in names if Path(name).is_dir() and name != "/")


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Those of the folders that lie neither in another one nor in /usr."""
    found: list[Path] = []
    for folder in sorted(folders):
        if not any(folder.is_relative_to(other) for other in (Path("/usr"), *found)):
            found.append(folder)
    return found


def installed_folders(packages: Iterable[str]) -> list[Path]:
    """Where the packages lie: what they hold must not be seen by a student."""
    found = []
    for name in packages:
        spec = importlib.util.find_spec(name)
        for location in (spec.submodule_search_locations or []) if spec else []:
            found.append(Path(location))
    return found


def _font_list() -> Path | None:
    """Matplotlib's list of fonts, if this user has one: making it takes seconds."""
    cache = Path(os.environ.get("MPLCONFIGDIR", Path.home() / ".cache" / "matplotlib"))
    lists = sorted(cache.glob("fontlist-v*.json"))
    return lists[-1] if lists else None
