"""Runs of a method in generations: train, let images join the labeled set, train another network from scratch.

    rounds/1/              the first network
    rounds/1/joined.csv    file,label,confidence: which images join the labeled set after it, under which label
    rounds/2/ ...          the networks that follow
    (itself)               the last network, as of any other method

Each training is resumed as any is, and which images join is decided once, so that a run can be stopped anywhere. Where
no further image joins, there is nothing to train on anew: the last network then is moved to where it belongs.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato import distributed
from sfumato.config import Config
from sfumato.data import Splits, Table
from sfumato.errors import DataError
from sfumato.functional.selection import progressive_power
from sfumato.image_data import ImageData
from sfumato.methods import Method
from sfumato.rules import ProgressiveAlignment
from sfumato.run import files, prepare
from sfumato.run.label_files import Rows
from sfumato.run.labeler import loaded, probabilities, weights_of
from sfumato.run.part import Lesson, Round, Say, run_part
from sfumato.run.ranks import is_first, own_device
from sfumato.types import Generations

JOINED = "joined.csv"
COLUMNS = ("file", "label", "confidence")
_OWN = (JOINED, files.METRICS, "checkpoints")  # of a network that is not the last one


def run_generations(
    config: Config, table: Table, splits: Splits, folder: Path, plan: Generations, *, say: Say, quiet: bool
) -> dict[str, Any]:
    """All generations, or what is missing of them; the metrics of the last network, with those of the others beside."""
    work = _Work(config, table, splits, folder, plan, say, quiet)
    joined = np.full(len(table), -1, dtype=np.int64)  # the label of each image that has joined
    earlier: list[dict[str, Any]] = []
    for number in range(1, plan.count + 1):
        left = work.rows[joined[work.rows] < 0] if plan.stay else work.rows
        place = folder / "rounds" / str(number) if number < plan.count and len(left) else folder
        earlier.append(work.train(number, place, joined, earlier))
        if place == folder:
            break
        rows, labels = work.join(number, place, left)
        if plan.stay and not len(rows):
            say(f"{config.label}: no image is sure enough to join after round {number}, which is the last one")
            return _moved(place, folder)
        if not plan.stay:
            joined = np.full_like(joined, -1)
        joined[rows] = labels
    return earlier[-1]


@dataclass(frozen=True)
class _Work:
    """What the generations of one run have in common."""

    config: Config
    table: Table
    splits: Splits
    folder: Path
    plan: Generations
    say: Say
    quiet: bool

    @property
    def rows(self) -> Rows:
        """Those that may join."""
        return np.setdiff1d(self.splits.unlabeled, self.splits.labeled)

    @property
    def counts(self) -> torch.Tensor:
        """(C,) labels of each class, before any image has joined."""
        labels = self.splits.told(self.table.labels)[self.splits.labeled]
        return torch.from_numpy(np.bincount(labels, minlength=len(self.table.classes)))

    def train(self, number: int, place: Path, joined: Rows, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
        rows = np.flatnonzero(joined >= 0)
        this = Round(
            number, self.plan.count, self.config.label, earlier=tuple(earlier), joined=joined if len(rows) else None,
            word="round" if self.plan.stay else "generation",
        )  # fmt: skip
        splits = replace(self.splits, labeled=np.union1d(self.splits.labeled, rows))

        def begin(method: Method) -> None:
            if self.plan.last_power is not None:
                power = progressive_power(number, self.plan.count, self.plan.last_power)
                for rule in method.modules():
                    if isinstance(rule, ProgressiveAlignment):
                        rule.enter(power, self.counts)

        metrics = run_part(
            self.config,
            self.table,
            splits,
            place,
            say=self.say,
            quiet=self.quiet,
            this=this,
            lesson=Lesson(None, begin),
        )
        distributed.barrier()  # what the first rank wrote is there
        return metrics

    def join(self, number: int, place: Path, left: Rows) -> tuple[Rows, Rows]:
        """Rows of those `left` that join after this generation, and their labels."""
        path, device = place / JOINED, own_device()
        known = path.exists()
        distributed.barrier()  # all ranks have seen whether it is there
        if not known:
            word = "round" if self.plan.stay else "generation"
            self.say(f"{self.config.label}: the network of {word} {number} labels {len(left):,} images")
            net = loaded(self.config, self.table, weights_of(place, self.plan.labeler), device)
            data = prepare.make_data(self.config, self.table, self.splits, net)  # type: ignore[arg-type]
            assert isinstance(data, ImageData)
            p = probabilities(data, net, left, device)
            places = self.plan.pick(p, self.counts)
            if is_first():
                write_joined(path, self.table, left[places.numpy()], p[places])
            distributed.barrier()
        return read_joined(path, self.table, left)


def write_joined(path: Path, table: Table, rows: Rows, p: torch.Tensor) -> None:
    """p: (m, C) of the rows (m,)."""
    confidence, labels = p.max(dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row, label, value in zip(rows.tolist(), labels.tolist(), confidence.tolist(), strict=True):
        writer.writerow([table.names[row], table.classes[label], f"{value:.6f}"])
    files.write_text(path, text.getvalue())


def read_joined(path: Path, table: Table, left: Rows) -> tuple[Rows, Rows]:
    """Rows and labels, both (m,). Raises DataError for a file, image or label that cannot be.

    left: the rows that may join.
    """
    mend = f"Restore it, or delete {path.parent}, and `sfumato train --resume` makes it anew with what follows."
    try:
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable ({error}). {mend}") from error
    classes = {name: number for number, name in enumerate(table.classes)}
    row_of = {table.names[row]: row for row in left.tolist()}
    for line in lines:
        if line.get("file") not in row_of:
            raise DataError(f"{path}: '{line.get('file')}' is no image that may join. {mend}")
        if line.get("label") not in classes:
            raise DataError(f"{path}: '{line['file']}' has the label '{line.get('label')}', which is no class. {mend}")
    rows = np.array([row_of[line["file"]] for line in lines], dtype=np.int64)
    return rows, np.array([classes[line["label"]] for line in lines], dtype=np.int64)


def _moved(place: Path, folder: Path) -> dict[str, Any]:
    """The network of `place` as that of the run; metrics.json goes last, and says that the run has ended."""
    metrics = files.read_json(place / files.METRICS, "Delete it and resume the run to write it anew.")
    if is_first():
        shutil.copytree(place, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_OWN))
        files.write_json(folder / files.METRICS, metrics)
    distributed.barrier()
    return metrics
