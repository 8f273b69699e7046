"""Runs of a folder as tables: methods below one another for each data and number of labels, seeds made one figure.

Everything is a fraction here; percents are made when a table is written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sfumato.bench.names import BENCH, told_apart
from sfumato.bench.runs import Run, find_runs
from sfumato.bench.statistics import Difference, Mean, difference_of, mean_of
from sfumato.criterion import criterion_of
from sfumato.errors import UsageError, nearest
from sfumato.run import files
from sfumato.run.prepare import FAIR_BASELINE

Part = Literal["test", "val"]
SCALED = "ece_scaled"  # once logits are divided by the temperature
BESIDE = {  # what a table shows beside what a task is judged by
    "acc": ("balanced_acc", "f1_macro", "ece", SCALED, "nll"),
    "miou": ("miou_rare", "boundary_iou", "acc", "ece", SCALED, "nll"),
}
CLASSES = {"acc": "recall/", "miou": "iou/"}  # what a class is judged by


@dataclass(frozen=True)
class Row:
    """A method on one data, with a figure for every metric."""

    method: str
    asked: tuple[int, ...]  # seeds that there are runs of
    ended: tuple[int, ...]
    collapsed: bool
    means: dict[str, Mean]
    difference: Difference | None  # None for the baseline, and where there is none

    @property
    def n(self) -> str:
        return str(len(self.ended)) if self.ended == self.asked else f"{len(self.ended)} of {len(self.asked)}"


@dataclass(frozen=True)
class Block:
    """The rows of the same data and labels."""

    data: str
    labels: str
    part: Part
    metric: str
    against: str | None
    rows: list[Row]
    classes: dict[str, str]  # metric of a class -> its name
    beside: tuple[str, ...]

    @property
    def title(self) -> str:
        labels = f", {self.labels} labels" if self.labels else ""
        return f"{self.data}{labels}, {'test' if self.part == 'test' else 'validation'} images"


@dataclass(frozen=True)
class Tables:
    """All blocks, and what a reader has to know of them."""

    blocks: list[Block]
    notes: list[str]


def tables(folder: Path, *, metric: str | None = None, against: str | None = None, split: Part = "test") -> Tables:
    """The tables of all runs below `folder`.

    metric: of metrics.json, such as ece or recall/CLASS; by default what the task is judged by. against: the method
    that differences are to; by default the baseline of the bench, else labels only with strong views where it is
    there; "none" for none. split: "test", which is the validation split where there is no other, or "val".

    Raises DataError when there are no runs, UsageError for an unknown metric or method.
    """
    about = _about(folder)
    notes: list[str] = []
    found = _grouped(find_runs(folder), notes)
    groups = sorted(
        found.items(), key=lambda item: _place(about, "data", item[0][0]) + _place(about, "labels", item[0][1])
    )
    wanted = _against(against, about, [row for group in found.values() for row in group])
    blocks = []
    for (data, labels), rows in groups:
        baseline = _baseline_of(wanted, rows, named=against is not None)
        ordered = sorted(rows, key=lambda name: (name != baseline, _place(about, "methods", name)))
        blocks.append(_block(data, labels, {name: rows[name] for name in ordered}, metric, baseline, split, notes))
    _check_metric(metric, blocks)
    return Tables(blocks, list(dict.fromkeys(notes)))


# Which runs belong together

Rows = dict[str, dict[int, Run]]  # method -> seed -> run


def _grouped(runs: Sequence[Run], notes: list[str]) -> dict[tuple[str, str], Rows]:
    """By data, labels and method, those of one name and different settings told apart."""
    runs = _renamed(runs, lambda run: (run.data, run.labels), lambda run: run.about_data, "data")
    runs = _renamed(runs, lambda run: (run.data, run.labels), lambda run: run.about_labels, "labels")
    runs = _renamed(runs, lambda run: (run.data, run.labels, run.method), lambda run: run.about_training, "method")
    found: dict[tuple[str, str], Rows] = {}
    for run in runs:
        seeds = found.setdefault((run.data, run.labels), {}).setdefault(run.method, {})
        other = seeds.get(run.seed)
        if other is not None:
            kept, left = (other, run) if run.metrics is None or other.metrics is not None else (run, other)
            notes.append(f"{kept.folder} and {left.folder} are the same run; the first one counts.")
            run = kept
        seeds[run.seed] = run
    return found


def _renamed(
    runs: Sequence[Run], name: Callable[[Run], Any], settings: Callable[[Run], Mapping[str, Any]], field: str
) -> list[Run]:
    """Where runs have one name and several settings, the settings behind the name."""
    kinds: dict[Any, list[dict[str, Any]]] = {}
    for run in runs:
        known = kinds.setdefault(name(run), [])
        if dict(settings(run)) not in known:
            known.append(dict(settings(run)))
    found = []
    for run in runs:
        known = kinds[name(run)]
        words = told_apart([getattr(run, field)] * len(known), known)
        renamed: dict[str, Any] = {field: words[known.index(dict(settings(run)))]}
        found.append(replace(run, **renamed))
    return found


# What is compared, in which order


def _about(folder: Path) -> dict[str, Any]:
    """What the bench was that the folder is of or lies in; empty if it is none."""
    for place in (folder, *folder.resolve().parents[:4]):
        if (place / BENCH).is_file():
            return files.read_json(place / BENCH, "Delete it, or put it back.")
    return {}


def _place(about: Mapping[str, Any], axis: str, name: str) -> tuple[int, list[tuple[int, str]]]:
    """In the order of the bench's file; what is not in it follows, numbers by their size."""
    known = about.get(axis) or []
    words = [(int(word) if word.isdigit() else 0, word) for word in re.split(r"(\d+)", name)]
    return (known.index(name) if name in known else len(known)), words


def _against(given: str | None, about: Mapping[str, Any], groups: Iterable[str]) -> str | None:
    if given == "none":
        return None
    names = list(dict.fromkeys(groups))
    wanted = given or about.get("baseline", FAIR_BASELINE)
    if given is not None and given not in names and not _variants(given, names):
        raise UsageError(f"--against {given}: no run is of this method.{nearest(given, names)}")
    return wanted


def _variants(name: str, names: Iterable[str]) -> list[str]:
    return [one for one in names if one.startswith(f"{name} (")]


def _baseline_of(wanted: str | None, rows: Iterable[str], *, named: bool) -> str | None:
    """The row that is meant, None where it is not there."""
    if wanted is None or wanted in rows:
        return wanted
    variants = _variants(wanted, rows)
    if len(variants) > 1 and named:
        raise UsageError(f"--against {wanted}: there are {len(variants)} of it. Write which: {', '.join(variants)}.")
    return variants[0] if len(variants) == 1 else None


# Figures


def _block(
    data: str, labels: str, rows: Rows, metric: str | None, against: str | None, split: Part, notes: list[str]
) -> Block:
    ended = [run.metrics for seeds in rows.values() for run in seeds.values() if run.metrics is not None]
    part: Part = "val" if split == "val" or (ended and not all(one.get("test") for one in ended)) else "test"
    criterion = criterion_of(ended[0] if ended else None).key
    wanted = metric or criterion
    values = {name: _values(seeds, part) for name, seeds in rows.items()}
    known = [key for found in values.values() for key in found]
    classes = {key: key.removeprefix(CLASSES[criterion]) for key in known if key.startswith(CLASSES[criterion])}
    made = []
    for name, seeds in rows.items():
        difference = None
        if against is not None and name != against:
            mine, theirs = (values[one].get(wanted, {}) for one in (name, against))
            difference = difference_of(_paired(mine, seeds, rows[against], notes), theirs)
        made.append(
            Row(
                method=name,
                asked=tuple(sorted(seeds)),
                ended=tuple(sorted(seed for seed, run in seeds.items() if run.metrics is not None)),
                collapsed=any(run.metrics is not None and run.metrics.get("collapse") for run in seeds.values()),
                means={key: mean_of(list(found.values())) for key, found in values[name].items()},
                difference=difference,
            )
        )
    beside = tuple(key for key in (criterion, *BESIDE[criterion]) if key in known and key != wanted)
    block = Block(data, labels, part, wanted, against, made, classes, beside)
    lengths = sorted({one["steps"] for one in ended if "steps" in one})
    if len(lengths) > 1:
        several = " and ".join(f"{steps:,}" for steps in lengths)
        notes.append(f"{block.title}: trainings of {several} steps stand side by side.")
    return block


def _values(seeds: Mapping[int, Run], part: Part) -> dict[str, dict[int, float]]:
    """Metric -> seed -> value; a value that is not a number is left out."""
    found: dict[str, dict[int, float]] = {}
    for seed, run in sorted(seeds.items()):
        if run.metrics is None:
            continue
        costs = {key: run.metrics.get(key) for key in ("seconds", "cpu_seconds")} | {"images": run.images}
        fitted = run.metrics.get("images", {}).get("val")  # the temperature is 1 where there is nothing to fit it on
        scaled = {SCALED: run.metrics.get("test_calibrated", {}).get("ece")} if part == "test" and fitted else {}
        for key, value in (run.metrics.get(part, {}) | scaled | costs).items():
            if value is not None and math.isfinite(value):
                found.setdefault(key, {})[seed] = float(value)
    return found


def _paired(
    mine: Mapping[int, float], seeds: Mapping[int, Run], baseline: Mapping[int, Run], notes: list[str]
) -> dict[int, float]:
    """The values of seeds that had the same labelled and held-out images as the baseline's."""
    found = {}
    for seed, value in mine.items():
        other = baseline.get(seed)
        if other is None or other.splits == seeds[seed].splits:
            found[seed] = value
        else:
            notes.append(f"{seeds[seed].folder} and {other.folder} had other images, so they are not compared.")
    return found


def _check_metric(metric: str | None, blocks: Sequence[Block]) -> None:
    known = {key for block in blocks for row in block.rows for key in row.means}
    if metric is not None and known and metric not in known:
        raise UsageError(f"--metric {metric}: no run has it.{nearest(metric, known)}")
