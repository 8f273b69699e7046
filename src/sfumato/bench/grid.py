"""From the file of a bench to its runs: every combination, each with settings of its own, checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sfumato.bench.file import BenchFile, Choice
from sfumato.bench.names import folder_name
from sfumato.config import Config, SettingsError, layer, load
from sfumato.errors import UsageError

NO_LABELS = Choice("")


@dataclass(frozen=True)
class Cell:
    """One run of the grid; `labels` is "" where they are no axis."""

    data: str
    labels: str
    method: str
    config: Config

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def path(self) -> Path:
        """Of its folder, inside that of the bench."""
        parts = (self.data, f"labels-{self.labels}" if self.labels else "", self.method)
        return Path(*(folder_name(part) for part in parts if part), f"seed-{self.seed}")

    @property
    def setting(self) -> str:
        """Data and labels in words."""
        return f"{self.data}, {self.labels} labels" if self.labels else self.data

    @property
    def name(self) -> str:
        return f"{self.setting}, {self.method}, seed {self.seed}"


def cells(bench: BenchFile) -> list[Cell]:
    """All runs, the first seed of everything first.

    Raises SettingsError with the mistakes of all of them, each told once.
    """
    problems: list[str] = []
    found = []
    for data in bench.data:
        for labels in bench.labels or (NO_LABELS,):
            for method in bench.methods:
                try:
                    config = _config(bench, data, labels, method)
                except UsageError as error:
                    told = error.problems if isinstance(error, SettingsError) else [str(error)]
                    problems += [_placed(problem, bench.path) for problem in told]
                else:
                    found.append(Cell(data.name, labels.name, method.name, config))
    if problems:
        raise SettingsError(problems)
    every = [replace(cell, config=cell.config.with_seed(seed)) for seed in bench.seeds for cell in found]
    _refuse_same_folders(every, bench.path)
    return every


def _config(bench: BenchFile, data: Choice, labels: Choice, method: Choice) -> Config:
    layers = [
        layer(bench.settings, f"{bench.path}, settings"),
        layer(data.settings, f"{bench.path}, data '{data.name}'"),
        layer(labels.settings, f"{bench.path}, labels '{labels.name}'"),
        layer(method.settings, f"{bench.path}, methods '{method.name}'"),
        layer({"baseline": False, "seed": bench.seeds[0]}, bench.path),
    ]
    return load(overrides=bench.overrides, layers=layers)


def _placed(problem: str, path: str) -> str:
    return problem if problem.startswith((path, "command line")) else f"{path}: {problem}"


def _refuse_same_folders(every: list[Cell], path: str) -> None:
    names: dict[Path, str] = {}
    for cell in every:
        other = names.setdefault(cell.path, cell.name)
        if other != cell.name:
            raise SettingsError(
                [f"{path}: '{other}' and '{cell.name}' would share the folder {cell.path}. Rename one."]
            )


def distinct(every: Sequence[Cell]) -> Iterator[Cell]:
    """The first run of each data, labels and method."""
    seen = set()
    for cell in every:
        key = (cell.data, cell.labels, cell.method)
        if key not in seen:
            seen.add(key)
            yield cell
