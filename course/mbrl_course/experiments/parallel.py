"""Several seeds and settings at once: in local processes, or on a Dask cluster that is there already."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

SECONDS_TO_ANSWER = 10
"""So long a cluster's scheduler may take to answer."""


class JobError(RuntimeError):
    """Some of the runs failed, or the cluster can't be used; the message says which, and why."""


@dataclass(frozen=True)
class Job:
    """One seed of an experiment with some settings; what `mbrl_course.experiments.run` takes."""

    name: str
    seed: int
    scale: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    out: str = "runs"
    fresh: bool = False
    threads: int = 1

    def __str__(self) -> str:
        """Such as "q2 horizon=5, seed 3"."""
        settings = "".join(f" {name}={value}" for name, value in self.overrides.items())
        return f"{self.name}{settings}, seed {self.seed}"


def run_job(job: Job) -> tuple[str, str]:
    """Runs a job, or what is missing of it; the path of its CSV file, and what is in it."""
    from mbrl_course import experiments
    from mbrl_course.experiments.files import run_folder

    how: dict[str, Any] = {"progress": False, "fresh": job.fresh, "threads": job.threads}
    experiments.run(job.name, [job.seed], job.scale, job.overrides, job.out, **how)
    path = run_folder(job.name, job.scale, job.overrides, job.out) / f"seed_{job.seed}.csv"
    return str(path), path.read_text(encoding="utf-8")


def run_job_apart(job: Job) -> tuple[str, str]:
    """`run_job` in a process of its own, for whoever runs several at a time in threads.

    All threads of a process share the clock of the processor, and PyTorch's number of threads. The process
    also ends when this one is killed. (A cluster's worker may not use `multiprocessing` for it.)

    Raises:
        JobError: the job failed, or its process did.
    """
    code = f"from {__name__} import answer; answer()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        question = pickle.dumps(job)
        process.stdin.write(b"%d\n" % len(question) + question)
        process.stdin.flush()  # and stays open as long as this process lives
        content = process.stdout.read()
    found, failure = pickle.loads(content) if content else (None, f"exit code {process.returncode}")
    if found is None:
        raise JobError(failure)
    path, text = found
    return path, text


def answer() -> None:
    """What runs in the process of `run_job_apart`: a job from its input, its result as its output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed must not get into the answer
    job = pickle.loads(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))
    threading.Thread(target=_end_with_input, daemon=True).start()
    found = failure = None
    try:
        found = run_job(job)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    with output:
        output.write(pickle.dumps((found, failure)))


def _end_with_input() -> None:
    os.read(0, 1)  # there is nothing more to come: this waits for its end
    os._exit(1)


def run_in_processes(
    function: Callable[[Any], object],
    items: Sequence[Any],
    num_processes: int,
    title: str = "",
    progress: bool = True,
) -> None:
    """Calls `function` with each of the items, each in a process of its own, some of them at a time.

    An interruption ends all of them; a process also ends when this one is killed.

    Args:
        function: of a module, since a fresh process has to import it.
        items: what it is called with, anything that can be pickled.
        num_processes: at the same time.
        title: of the progress bar.
        progress: whether there is one.

    Raises:
        JobError: some calls failed; the others were carried out.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    waiting, failed = list(items), list[str]()
    running: dict[Any, tuple[SpawnProcess, Connection, Any]] = {}  # by the process's sentinel
    bar = tqdm(total=len(items), desc=title, disable=not progress)
    try:
        while waiting or running:
            while waiting and len(running) < num_processes:
                item = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_call, args=(function, item, theirs))
                process.start()
                theirs.close()
                running[process.sentinel] = (process, ours, item)
            for sentinel in wait(list(running)):
                process, ours, item = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    reason = ours.recv() if ours.poll() else f"ended with exit code {process.exitcode}"
                    failed.append(f"{item}: {reason}")
                ours.close()
                bar.update()
                bar.set_postfix_str(str(item))
    finally:
        for process, ours, _ in running.values():
            process.terminate()
            process.join()
            ours.close()
        bar.close()
    _raise_failed(failed, len(items))


def _call(function: Callable[[Any], object], item: Any, connection: Connection) -> None:
    """What runs in a fresh process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(item)
    except KeyboardInterrupt:  # the parent has it too, and speaks of it
        raise SystemExit(1) from None
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        raise SystemExit(1) from error


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_on_cluster(jobs: Sequence[Job], address: str, title: str = "", progress: bool = True) -> None:
    """Runs the jobs on an existing Dask cluster, and writes each result here as soon as it is there.

    A worker keeps its checkpoints in the job's folder `out`, made absolute: where the workers share this
    machine's disk, interrupted runs go on; where they don't, a finished run still arrives here. A worker with
    several threads runs as many jobs at a time, each in a process of its own.

    Args:
        jobs: what to run.
        address: of the scheduler, such as "tcp://10.0.0.1:8786".
        title: of the progress bar.
        progress: whether there is one.

    Raises:
        JobError: Dask is not installed, the address does not answer, or some jobs failed.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise JobError(
            "a cluster needs the package distributed: in a checkout, "
            "pip install -c constraints.txt -e '.[cluster]'"
        ) from error
    try:
        client = Client(address, timeout=SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise JobError(f"no Dask scheduler answers at {address!r}: {error}") from error
    failed = []
    with client:
        futures = {client.submit(run_job_apart, job, pure=False): job for job in jobs}
        bar = tqdm(as_completed(futures, loop=client.loop), title, total=len(futures), disable=not progress)
        for future in bar:
            if (reason := future.exception()) is not None:
                kind = "" if isinstance(reason, JobError) else f"{type(reason).__name__}: "
                failed.append(f"{futures[future]}: {kind}{reason}")
                continue
            path, content = future.result()
            _write(Path(path), content)
            bar.set_postfix_str(str(futures[future]))
    _raise_failed(failed, len(jobs))


def _write(path: Path, content: str) -> None:
    """Puts a worker's result in its place, where it lies already if the worker shares this disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(content, encoding="utf-8", newline="\n")
    os.replace(partial, path)


def _raise_failed(failed: Sequence[str], total: int) -> None:
    if failed:
        listed = "\n  ".join(failed)
        raise JobError(f"{len(failed)} of {total} failed, the others are finished:\n  {listed}")
