# ruff: noqa: D105, D107
"""Judging on a Dask cluster: notebooks go out as data, results come back; this process alone writes marks.

Each worker process keeps one judge warm. It needs the same version of this package, Linux and bubblewrap;
it needs no shared disk.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from mbrl_autograder.judge import Judge
from mbrl_autograder.judge.notebook import files_beside
from mbrl_autograder.judge.results import SubmissionResult
from mbrl_autograder.judge.sandbox import SandboxError

from .model import GradingError, Limits

CONNECT_SECONDS = 15
Files = dict[str, bytes]


@dataclass(frozen=True)
class Setting:
    """What all notebooks of a run need on a worker.

    Attributes:
        digest: tells one setting from another.
        name: the source notebook's file name.
        source: the assignment's source folder, by path in it.
        packages: each folder that submissions may import from.
        limits: what one submission may cost.
        sandbox: whether submissions are judged inside bubblewrap.
        hidden_markers: what begins and ends the hidden part of a test.
    """

    digest: str
    name: str
    source: Files
    packages: tuple[Files, ...]
    limits: Limits
    sandbox: bool
    hidden_markers: tuple[str, str]


class ClusterGrader:
    """Sends notebooks to a Dask cluster; a context manager, and a `Grader`.

    Args:
        address: of the scheduler, such as "tcp://host:8786".
        python_path, limits, sandbox, ignore, hidden_markers: as for `Judge`.

    Raises:
        GradingError: Dask is not installed, or nobody answers at the address.
    """

    def __init__(
        self,
        address: str,
        python_path: tuple[Path, ...],
        limits: Limits,
        sandbox: bool,
        ignore: tuple[str, ...],
        hidden_markers: tuple[str, str],
    ) -> None:
        self.address, self._limits, self._sandbox = address, limits, sandbox
        self._ignore, self._hidden_markers = ignore, hidden_markers
        self._packages = tuple(_files(folder) for folder in python_path)
        self._client: Any = None
        self._settings: dict[Path, Any] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ClusterGrader:
        try:
            from distributed import Client
        except ImportError as error:
            raise GradingError(
                "--scheduler needs Dask, which is not installed here: in a checkout, "
                "pip install -c constraints.txt -e '.[cluster]'"
            ) from error
        try:
            self._client = Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise GradingError(
                f"no Dask scheduler answers at {self.address!r} ({error}): expected such as tcp://host:8786"
            ) from error
        if not self._client.nthreads():
            self.close()
            raise GradingError(f"the Dask cluster at {self.address} has no workers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the cluster; what waits there is dropped."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close(timeout=5)

    def grade_content(
        self, source: Path, content: dict[str, Any], files: Mapping[str, bytes] | None = None
    ) -> SubmissionResult:
        """As `Judge.grade_content`, on the cluster.

        Raises:
            SandboxError: a worker has no sandbox.
        """
        setting = self._setting(source)
        future = self._client.submit(judge_on_worker, setting, content, dict(files or {}), pure=False)
        answer: dict[str, Any] = future.result()
        if "sandbox" in answer:
            raise SandboxError(answer["sandbox"])
        return SubmissionResult.from_json(answer)

    def _setting(self, source: Path) -> Any:
        """The setting of one source notebook, sent to the workers once."""
        with self._lock:
            if source not in self._settings:
                beside = files_beside(source, self._limits.extra_file_bytes, self._ignore)
                beside[source.name] = source.read_bytes()
                how = (self._limits, self._sandbox, self._hidden_markers)
                digest = hashlib.sha256(repr((source.name, beside, self._packages, how)).encode())
                setting = Setting(digest.hexdigest(), source.name, beside, self._packages, *how)
                self._settings[source] = self._client.scatter(setting, broadcast=True)
            return self._settings[source]


def _files(folder: Path) -> Files:
    """What lies in a folder, by path in it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _unpack(files: Files, folder: Path) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


# on a worker --------------------------------------------------------------------------------------

_judges: dict[str, tuple[Judge, Path]] = {}
_judging = threading.Lock()  # one judge for each worker process, so one notebook at a time


def judge_on_worker(setting: Setting, content: dict[str, Any], files: Files) -> dict[str, Any]:
    """Judges one notebook in a worker's process; returns `SubmissionResult.to_json`, or why there is no
    sandbox."""
    with _judging:
        if setting.digest not in _judges:
            _forget()
            folder = Path(tempfile.mkdtemp(prefix="mbrl-course-"))
            _unpack(setting.source, folder / "source")
            packages = [_unpack(one, folder / f"path{i}") for i, one in enumerate(setting.packages)]
            judge = Judge(
                python_path=packages,
                limits=setting.limits,
                sandbox=setting.sandbox,
                hidden_markers=setting.hidden_markers,
            )
            try:
                judge.__enter__()
            except SandboxError as error:
                shutil.rmtree(folder, ignore_errors=True)
                return {"sandbox": str(error)}
            _judges[setting.digest] = judge, folder
        judge, folder = _judges[setting.digest]
        return judge.grade_content(folder / "source" / setting.name, content, files).to_json()


@atexit.register
def _forget() -> None:
    """Ends the judge of another run."""
    for judge, folder in _judges.values():
        judge.close()
        shutil.rmtree(folder, ignore_errors=True)
    _judges.clear()
