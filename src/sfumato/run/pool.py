"""Several runs at a time, each `sfumato train` in a process of its own, stopped and continued together.

The processes hear nothing of Ctrl-C, which a terminal sends to all of its group: they are asked to stop once, by the
one that started them. A second signal would end them before they have saved.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from sfumato.errors import CollapseError, DataError, SfumatoError, UsageError
from sfumato.run import files
from sfumato.run.part import Say
from sfumato.run.table import one_line
from sfumato.train import Interrupted

MOST = 8  # processes
POLL = 0.2  # seconds
TOLD = 8  # last lines of a log
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A run and its arguments for `sfumato train`."""

    name: str
    folder: Path
    arguments: list[str]
    steps: int
    log: str = ""  # name of the log; "" makes one of the job's name

    @property
    def log_name(self) -> str:
        return self.log or f"{self.name.replace(', ', '-').replace(' ', '-')}.txt"

    def command(self) -> list[str]:
        begun = (self.folder / files.CONFIG).exists()
        start = ["--resume", str(self.folder)] if begun else [*self.arguments, "--no-baseline", "-o", str(self.folder)]
        return [sys.executable, "-m", "sfumato.run.worker", "train", "--quiet", "--no-report", *start]

    def step(self) -> int:
        """The last step that it logged."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            return int(json.loads(lines[-1])["step"])
        except (OSError, ValueError, KeyError, IndexError):
            return 0


@dataclass
class Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    slot: int  # a number below that of the processes; none has the same at a time


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result."""

    job: Job
    code: int
    log: Path

    @property
    def error(self) -> SfumatoError:
        """What the run would have raised here, with the end of its log."""
        kinds: dict[int, type[SfumatoError]] = {kind.exit_code: kind for kind in (UsageError, DataError, CollapseError)}
        command = shlex.join(["sfumato", *self.job.command()[3:]])
        killed = " (killed, as when memory runs out)" if self.code == -signal.SIGKILL else ""
        told = f"{self.job.name} stopped with exit code {self.code}{killed}: {command}\n{self.tail()}"
        return kinds.get(self.code, DataError)(told)

    def tail(self, lines: int = TOLD) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


Show = Callable[[Sequence[Running]], None]
Failed = Callable[[Failure], None]


def raise_error(failure: Failure) -> None:
    raise failure.error


def run_all(
    jobs: Sequence[Job],
    logs: Path,
    *,
    say: Say,
    progress: bool,
    again: str,
    at_once: int | None = None,
    threads: int = 1,
    devices: Sequence[str] = (),
    failed: Failed = raise_error,
) -> None:
    """Run the jobs that have not ended.

    again: the command to go on with. at_once: processes; as many as there are cores by default. threads: of each.
    devices: accelerators by their numbers, over which the processes are spread. failed: told of each run that ended
    without a result; by default raises what it would have raised, once the others have stopped.

    Raises Interrupted after Ctrl-C or SIGTERM, once all have saved.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if files.metrics_of(job.folder) is None]
    running: list[Running] = []
    with _bars(progress) as show, _sigterm_as_interrupt():
        try:
            while waiting or running:
                while waiting and len(running) < (at_once or cores()):
                    slot = min(set(range(len(running) + 1)) - {one.slot for one in running})
                    running.append(_start(waiting.pop(0), logs, slot, threads, devices))
                time.sleep(POLL)
                show(running)
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    _finish(one, say, failed)
        except KeyboardInterrupt:
            _stop(running)
            raise Interrupted(f"Interrupted; every run is saved. Continue with: {again}") from None
        except BaseException:
            _stop(running)
            raise


def all_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_each(processes: int) -> int:
    """The cores divided by the processes, at most as many as OMP_NUM_THREADS asks for, at least one."""
    share = all_cores() // processes
    asked = os.environ.get(THREADS[0], "")
    return max(1, min(share, int(asked)) if asked.isdecimal() else share)


def cores() -> int:
    """How many processes at a time, unless told."""
    return min(all_cores(), MOST)


def _start(job: Job, logs: Path, slot: int, threads: int, devices: Sequence[str]) -> Running:
    settings = os.environ | dict.fromkeys(THREADS, str(threads))
    if devices:
        settings["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    log = logs / job.log_name
    with log.open("wb") as out:
        process = subprocess.Popen(
            job.command(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=settings, start_new_session=True
        )
    return Running(job, process, log, slot)


def _finish(one: Running, say: Say, failed: Failed) -> None:
    """Tell how it went. A run that ended with collapsed pseudo-labels is a result, not a failure."""
    metrics = files.metrics_of(one.job.folder)
    code = one.process.returncode
    if metrics is not None and code in (0, CollapseError.exit_code):
        warning = "; its pseudo-labels were collapsed at the end" if metrics["collapse"] else ""
        say(f"{one.job.name}: {one_line(metrics)}{warning}")
        return
    if code in (Interrupted("").code, -signal.SIGINT):
        raise KeyboardInterrupt
    failed(Failure(one.job, code, one.log))


def _stop(running: Sequence[Running]) -> None:
    """Ask all to save and stop, and wait until they have."""
    for one in running:
        if one.process.poll() is None:
            one.process.terminate()
    for one in running:
        one.process.wait()


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bars(wanted: bool) -> Iterator[Show]:
    """One bar a running process, on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not wanted or not console.is_terminal:
        yield lambda running: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, transient=True) as bars:

        def show(running: Sequence[Running]) -> None:
            for one in running:
                if one.job.name not in tasks:
                    tasks[one.job.name] = bars.add_task(one.job.name, total=one.job.steps)
                bars.update(tasks[one.job.name], completed=one.job.step())
            for name in tasks.keys() - {one.job.name for one in running}:
                bars.update(tasks[name], visible=False)

        yield show
