"""The sandbox itself: who may start it, and what cannot be reached from inside."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from judge.conftest import LIMITS, needs_linux
from judge.dishonest import CELLS
from judge.small_notebook import WRONG_EARNS, Submission, source
from mbrl_autograder.judge import sandbox as module
from mbrl_autograder.judge.connection import Student, StudentEnded
from mbrl_autograder.judge.sandbox import Sandbox

ORDINARY = 65534
PRELOAD = ("IPython.core.interactiveshell",)


@contextmanager
def inside() -> Iterator[Any]:
    """A function that runs a cell in a fresh sandbox and returns what it printed."""
    needs_linux()
    sandbox = Sandbox(LIMITS, preload=PRELOAD)
    student = Student(sandbox, {}, set(), {})

    def run(code: str) -> str:
        student.deadline = time.monotonic() + 20
        answer, _ = student.ask("run", code=code)
        assert not answer["error"], answer["error"]
        return str(answer["text"]).strip()

    try:
        student.start()
        yield run
    finally:
        student.stop()
        sandbox.remove()


def test_no_listener_of_the_machine_is_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0judge-test-socket")
        unix.listen()
        with inside() as run:
            code = f"""import socket
def reach(kind, address):
    try:
        socket.socket(kind).connect(address)
        return "reached"
    except OSError as error:
        return "refused"
print(reach(socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})))
print(reach(socket.AF_UNIX, "\\0judge-test-socket"))"""
            assert run(code).split() == ["refused"] * 2
        socket.create_connection(tcp.getsockname()).close()  # it does listen


def test_no_file_of_the_grader_is_reached(tmp_path: Path) -> None:
    gradebook = tmp_path / "gradebook.db"
    gradebook.write_text("SECRET-GRADES")
    hidden = [str(gradebook), str(Path(__file__)), "/etc/passwd", "/etc/shadow", "/var/log"]
    home = Path.home()  # it may hold the interpreter, and then shows the way to that
    ways = {path.relative_to(home).parts[0] for path in module.python_folders() if path.is_relative_to(home)}
    with inside() as run:
        assert run(f"import os\nprint([path for path in {hidden} if os.path.exists(path)])") == "[]"
        listed = f"os.listdir({str(home)!r}) if os.path.isdir({str(home)!r}) else []"
        assert run(f"print(sorted({listed}))") == str(sorted(ways))


FAMILY = """import os, time
children = [os.fork() for _ in range(2)]
filled = b"x" * (200 << 20)
time.sleep(15)"""


@pytest.mark.parametrize("own_proc", [True, False], ids=["own /proc", "the machine's /proc, covered"])
def test_proc_shows_no_process_and_memory_is_summed(own_proc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = Sandbox._variants

    def chosen(self: Sandbox, program: str) -> list[tuple[list[str], dict[str, Any]]]:
        return [pair for pair in variants(self, program) if ("--proc" in pair[0]) == own_proc]

    monkeypatch.setattr(Sandbox, "_variants", chosen)
    with inside() as run:
        assert run("import os\nprint([n for n in os.listdir('/proc') if n.isdigit()])") == "[]"
        assert run(FAMILY.replace("range(2)", "range(0)").replace("15", "0.5")) == "", "one alone may have it"
        with pytest.raises(StudentEnded, match="took too much memory"):  # four of 200 MB: 600 are allowed
            run(FAMILY)


def test_an_environment_below_tmp_is_seen_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules that were not imported before are found, too: a clone may lie in /tmp."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name) / "environment"
        folder.mkdir()
        (folder / "late_module.py").write_text("VALUE = 'seen'")
        (Path(name) / "beside").write_text("not seen")
        folders = module.python_folders()
        monkeypatch.setattr(module, "python_folders", lambda: sorted([*folders, folder]))
        with inside() as run:
            run(f"import sys\nsys.path.insert(0, {str(folder)!r})")
            assert run("import late_module\nprint(late_module.VALUE)") == "seen"
            assert run(f"import os; print(os.listdir({name!r}))") == "['environment']"
            attempt = f"""try:
    open({str(folder / "new")!r}, "w")
except OSError as error:
    print(error.strerror)"""
            assert run(attempt) == "Read-only file system"


OPENED = """
mount --bind "$1" "$PLACE"
mount -t tmpfs -o mode=755 none "$0"
mkdir -p "$1"
mount --bind "$PLACE" "$1"
shift
exec "$@"
"""
AS_ANOTHER = """
import json, sys
from pathlib import Path
from mbrl_autograder.judge import Judge, JudgeLimits
with Judge(limits=JudgeLimits(cell_seconds=4, submission_seconds=30)) as judge:
    print(json.dumps([judge.grade(Path(sys.argv[1]), Path(path)).points for path in sys.argv[2:]]))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine can read; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def closed_above(path: str) -> list[Path]:
    """The folders on the way to `path` that others may not enter."""
    return [folder for folder in Path(path).parents if not folder.stat().st_mode & 1]


@pytest.mark.skipif(os.getuid() != 0, reason="whoever runs this is an ordinary user: all other tests show it")
def test_an_ordinary_user_can_grade(open_folder: Path) -> None:
    needs_linux()
    folder = open_folder
    if closed_above(sys.prefix) or closed_above(module.__file__):
        pytest.skip("the checkout lies where only root can read it: no other user can grade from there")
    wrong = Submission(right=False).insert("smooth", CELLS["kills everything"])
    notebooks = {"source": source(), "right": Submission(right=True).notebook, "wrong": wrong.notebook}
    paths = []
    for name, notebook in notebooks.items():
        path = folder / name / "small.ipynb"
        path.parent.mkdir()
        path.write_text(json.dumps(notebook))
        paths.append(str(path))
    home = folder / "home"
    home.mkdir()
    (folder / "python").mkdir()
    command = ["setpriv", f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"]
    command += [sys.executable, "-c", AS_ANOTHER, *paths]
    os.chown(home, ORDINARY, ORDINARY)
    if closed := closed_above(sys.base_prefix):
        # the interpreter lies in root's home: a view of it, for this process alone, that others can read
        command = ["unshare", "-m", "sh", "-euc", OPENED, str(closed[-1]), sys.base_prefix, *command]
    done = subprocess.run(
        command,
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PLACE": str(folder / "python")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == [10, WRONG_EARNS]


def test_without_packets_that_say_when_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: datagrams carry the commands, and the fork server ends with whoever started it."""
    monkeypatch.setattr(module, "PACKETS", socket.SOCK_DGRAM)
    sandbox = Sandbox(LIMITS, preload=PRELOAD, enabled=False)
    student = Student(sandbox, {}, set(), {})
    try:
        student.start()
        student.deadline = time.monotonic() + 20
        answer, _ = student.ask("run", code="print(1 + 1)")
        assert answer["text"].strip() == "2"
    finally:
        student.stop()
        sandbox.remove()
    code = (
        "import os, socket\nfrom mbrl_autograder.judge import sandbox\n"
        "sandbox.PACKETS = socket.SOCK_DGRAM\n"
        "one = sandbox.Sandbox(sandbox.JudgeLimits(), enabled=False)\n"
        "print(one.process.pid, one._folder, flush=True)\nos._exit(1)"
    )
    pid, folder = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    shutil.rmtree(folder)
    until = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < until:
        time.sleep(0.2)
    assert not _runs(pid)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_system_without_namespaces_for_users_is_recognised(tmp_path: Path) -> None:
    switch = tmp_path / "restrict"
    assert module.namespaces_advice(switch) == ""
    switch.write_text("0\n")
    assert module.namespaces_advice(switch) == ""
    switch.write_text("1\n")
    assert "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0" in module.namespaces_advice(switch)
