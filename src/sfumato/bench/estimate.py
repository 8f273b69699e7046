"""What a bench will take, before it is begun: runs, time and memory, from a few steps of each kind of run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sfumato.bench.grid import Cell, distinct
from sfumato.bench.measure import Cost, measure, silent
from sfumato.bench.run import Plan
from sfumato.config import Config
from sfumato.data.listing import plural
from sfumato.run import files
from sfumato.run.part import Say
from sfumato.run.pool import THREADS, Job

Measured = tuple[Cost, dict[str, int]]
Measure = Callable[[Sequence[Config], Plan], list[Measured]]


@dataclass(frozen=True)
class Kind:
    """The runs of one method on one data."""

    data: str
    method: str
    cost: Cost
    runs: int
    done: int
    seconds: float  # of a run, on average
    left: float  # seconds of all that is left of them, one after the other


@dataclass(frozen=True)
class Estimate:
    """A line a kind of run, and the totals."""

    kinds: list[Kind]
    jobs: int
    threads: int

    def columns(self) -> list[str]:
        return ["data, method", "runs", "done", "steps/s", "a run", "left", "GiB"]

    def rows(self) -> list[list[str]]:
        return [
            [
                f"{kind.data}, {kind.method}", str(kind.runs), str(kind.done), f"{kind.cost.steps_per_second:.3g}",
                duration(kind.seconds), duration(kind.left), f"{max(kind.cost.memory, kind.cost.device_memory):.1f}",
            ]
            for kind in self.kinds
        ]  # fmt: skip

    @property
    def seconds(self) -> float:
        """Until all have ended."""
        longest = max((kind.seconds for kind in self.kinds if kind.done < kind.runs), default=0.0)
        return max(sum(kind.left for kind in self.kinds) / self.jobs, longest if self._left else 0.0)

    @property
    def _left(self) -> int:
        return sum(kind.runs - kind.done for kind in self.kinds)

    def totals(self) -> list[str]:
        runs = sum(kind.runs for kind in self.kinds)
        at_once = min(self.jobs, max(self._left, 1))
        memory = sum(sorted((kind.cost.memory for kind in self.kinds), reverse=True)[:1]) * at_once
        lines = [
            f"{plural(runs, 'run')}, {runs - self._left} done and {self._left} left; {self.jobs} at a time, each on "
            f"{plural(self.threads, 'thread')}: about {duration(self.seconds)}",
            f"memory: up to {memory:.1f} GiB{_there()}" + self._device(at_once),
        ]
        free = available()
        if free is not None and memory > free:
            most = int(free / max(kind.cost.memory for kind in self.kinds))
            lines.append(
                f"warning: that is more than is free. Take --jobs {most}." if most else "warning: one run needs more."
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """In seconds and GiB."""
        kinds = [asdict(kind) for kind in self.kinds]
        return {"kinds": kinds, "jobs": self.jobs, "threads": self.threads, "seconds": self.seconds}

    def _device(self, at_once: int) -> str:
        most = max((kind.cost.device_memory for kind in self.kinds), default=0.0)
        return f"; of the accelerators up to {most * at_once:.1f} GiB" if most else ""


def estimate(plan: Plan, *, say: Say = print, measure_all: Measure | None = None) -> Estimate:
    """Try each method on each data for a few steps, `plan.jobs` at a time as the bench would; nothing is kept.

    What several runs at a time take from each other is in it as far as these few steps show it. Runs that are half
    done count by the steps that are left.
    """
    kinds: dict[tuple[str, str], Cell] = {}
    for cell in distinct(plan.cells):
        kinds.setdefault((cell.data, cell.method), cell)
    say(f"trying a few steps of each method on each data, {len(kinds)} in all")
    found = (measure_all or in_processes)([cell.config for cell in kinds.values()], plan)
    made = [
        _kind(plan, [cell for cell in plan.cells if (cell.data, cell.method) == key], *one)
        for key, one in zip(kinds, found, strict=True)
    ]
    return Estimate(made, plan.jobs, plan.threads)


def _kind(plan: Plan, cells: Sequence[Cell], cost: Cost, held_out: dict[str, int]) -> Kind:
    seconds = [cost.seconds(cell.config, held_out) for cell in cells]
    left, done = 0.0, 0
    for cell, whole in zip(cells, seconds, strict=True):
        folder = plan.folder / cell.path
        if files.metrics_of(folder) is not None:
            done += 1
            continue
        left += whole * max(
            0.0, 1 - _steps_done(folder, cell.config) / (cell.config.train.steps * cost.count(cell.config))
        )
    return Kind(cells[0].data, cells[0].method, cost, len(cells), done, sum(seconds) / len(cells), left)


def _steps_done(folder: Path, config: Config) -> int:
    """Of the trainings of a run, those before the last in folders of their own."""
    trainings = [*folder.glob("rounds/*"), folder]
    return sum(min(Job("", one, [], config.train.steps).step(), config.train.steps) for one in trainings)


def in_processes(configs: Sequence[Config], plan: Plan) -> list[Measured]:
    """Each in a process of its own, since the memory of a process is only known at its highest."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(plan.threads)))
    try:
        with ProcessPoolExecutor(plan.jobs, get_context("spawn"), initializer=silent, max_tasks_per_child=1) as pool:
            return list(pool.map(measure, configs, [plan.threads] * len(configs)))
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def available() -> float | None:
    """Free memory in GiB, None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (OSError, ValueError):
        return None


def _there() -> str:
    free = available()
    return "" if free is None else f" of {free:.1f} free"


def duration(seconds: float) -> str:
    """In the two largest units."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
