"""Running a bench: every run a process of its own in a folder of its own, so that it can be stopped and gone on with.

    FOLDER/bench.json                                  threads of each run, and the file
    FOLDER/mnist5k/labels-40/fixmatch/seed-0/          a run, with cell.json (what the bench calls it) and log.txt
    FOLDER/table.md, table.csv                         once all have ended

How many threads a process computes on can change the last digits of its results. So the number is settled when a bench
begins, and stays with it however many runs are at a time later.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sfumato.bench.file import BenchFile
from sfumato.bench.grid import Cell, cells
from sfumato.bench.names import BENCH, CELL
from sfumato.bench.ready import begun, ready
from sfumato.config import dump
from sfumato.data.listing import examples, plural
from sfumato.errors import DataError, UsageError
from sfumato.interrupt import Interrupted
from sfumato.run import files
from sfumato.run.part import Say
from sfumato.run.pool import Failure, Job, cores, run_all, threads_of_each

LOG = "log.txt"
PATIENCE = 60.0  # seconds for the processes of a bench that was killed to save and end


@dataclass(frozen=True)
class Plan:
    """A bench and what it runs on."""

    file: BenchFile
    cells: tuple[Cell, ...]
    folder: Path
    jobs: int  # at a time
    threads: int  # of each

    @property
    def left(self) -> list[Cell]:
        return [cell for cell in self.cells if files.metrics_of(self.folder / cell.path) is None]


@dataclass
class Outcome:
    """What came of it."""

    folder: Path
    count: int
    failures: list[Failure] = field(default_factory=list)

    def raise_failures(self, again: str) -> None:
        """Raise an error that names every run without a result, with the last line of its log."""
        if not self.failures:
            return
        told = [f"- {one.job.name}: {_last_line(one)} ({one.log})" for one in self.failures]
        head = f"{len(self.failures)} of {self.count} runs ended without a result; the others are finished:"
        tail = f"Once mended, go on with them: {again}"
        raise type(self.failures[0].error)("\n".join([head, *told, tail]))


def _last_line(failure: Failure) -> str:
    return failure.tail(1).strip() or f"exit code {failure.code}"


def plan(bench: BenchFile, folder: Path, jobs: int | None = None, threads: int | None = None) -> Plan:
    """Everything checked, the data read; nothing is written.

    jobs: runs at a time; by default one a core, or one an accelerator. threads: of each; by default the cores divided
    by the runs at a time, at most OMP_NUM_THREADS, or what the bench in `folder` began with.

    Raises the SfumatoError of what is wrong with any run.
    """
    kept = _kept(folder)
    for name, value in (("--jobs", jobs), ("--threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: expected a whole number of at least 1.")
    jobs = jobs or torch.cuda.device_count() or cores()
    found = tuple(ready(cells(bench), folder))
    before = kept and kept["threads"]
    if threads is not None and before not in (None, threads) and any(begun(folder / cell.path) for cell in found):
        raise UsageError(
            f"--threads {threads}: the runs in {folder} began with {before}, and another number may change the last "
            "digits of their results. Leave it out, or take another folder with --out."
        )
    return Plan(bench, found, folder, jobs, threads or before or threads_of_each(jobs))


def _kept(folder: Path) -> dict[str, Any] | None:
    """What a bench left in the folder; None for a new or empty one."""
    path = folder / BENCH
    if path.exists():
        return files.read_json(path, "Take another folder with --out.")
    files.refuse_taken(folder)
    return None


def bench(planned: Plan, *, say: Say = print, progress: bool = True, again: str = "") -> Outcome:
    """Run what is missing, `planned.jobs` at a time. A run that fails stops no other.

    again: the command to go on with.

    Raises:
        DataError: another bench writes to the folder.
        Interrupted: Ctrl-C or SIGTERM, once all runs have saved.
    """
    folder = planned.folder
    folder.mkdir(parents=True, exist_ok=True)
    with files.alone(folder):
        _write(planned)
        left = planned.left
        count = len(planned.cells)
        say(
            f"{plural(count, 'run')} in {folder}, {count - len(left)} finished; {planned.jobs} at a time, "
            f"each on {plural(planned.threads, 'thread')}"
        )
        for note in _notes(planned):
            say(f"note: {note}")
        outcome = Outcome(folder, count)

        def failed(failure: Failure) -> None:
            outcome.failures.append(failure)
            say(f"{failure.job.name}: FAILED: {_last_line(failure)}")

        try:
            run_all(
                [_job(cell, folder) for cell in left],
                folder,
                say=say,
                progress=progress,
                again=again,
                at_once=planned.jobs,
                threads=planned.threads,
                devices=_devices(),
                failed=failed,
            )
        except KeyboardInterrupt:  # before the first of them runs; from then on they are waited for
            raise Interrupted(f"Interrupted; every run is saved. Continue with: {again}") from None
    return outcome


def _write(planned: Plan) -> None:
    """What the bench is, and the settings of all runs that have not begun."""
    bench = planned.file
    about = {"file": Path(bench.path).name, "threads": planned.threads, "baseline": bench.baseline}
    order = {axis: [choice.name for choice in getattr(bench, axis)] for axis in ("methods", "data", "labels")}
    files.write_json(planned.folder / BENCH, about | order)
    for cell in planned.cells:
        path = planned.folder / cell.path
        path.mkdir(parents=True, exist_ok=True)
        if begun(path):
            _wait_until_free(path)
        else:
            files.write_text(path / files.CONFIG, f"# sfumato train {path / files.CONFIG}\n{dump(cell.config)}")
        named = {"data": cell.data, "labels": cell.labels, "method": cell.method}
        files.write_json(path / CELL, named)


def _wait_until_free(folder: Path) -> None:
    """A bench that was killed leaves processes that are still saving."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with files.alone(folder):
                return
        except DataError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _notes(planned: Plan) -> list[str]:
    known = {planned.folder / cell.path for cell in planned.cells}
    others = sorted({path.parent for path in planned.folder.rglob(CELL)} - known)
    if not others:
        return []
    return [f"not in this grid, and left as they are: {examples(list(map(str, others)))}"]


def _job(cell: Cell, folder: Path) -> Job:
    path = folder / cell.path
    return Job(name=cell.name, folder=path, arguments=[], steps=cell.config.train.steps, log=str(cell.path / LOG))


def _devices() -> list[str]:
    """The accelerators that the runs are spread over, by their numbers."""
    count = torch.cuda.device_count()
    if count < 2:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(number) for number in range(count)]
