"""One training: one method, one seed, one folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.config import Config, dump, identity
from sfumato.data import Splits
from sfumato.errors import UsageError
from sfumato.image_data import ImageData
from sfumato.methods import Method
from sfumato.pair_data import PairData
from sfumato.run import files, label_files, prepare
from sfumato.run.conclude import conclude
from sfumato.run.environment import environment
from sfumato.run.ranks import is_first
from sfumato.run.table import one_line
from sfumato.train import train

Say = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """One training of several that make up a method: see `run.rounds`."""

    number: int  # from 1
    count: int
    method: str  # the name of the whole
    shares: tuple[label_files.Share, ...] = ()  # labels of earlier rounds to train on
    copies: int = 0  # of the network to keep on the way
    soft: bool = False  # these labels are distributions
    joined: NDArray[np.int64] | None = None  # (N,) labels under which images have joined the labeled set, or -1
    earlier: tuple[dict[str, Any], ...] = ()  # the metrics of the rounds before
    word: str = "round"

    def __str__(self) -> str:
        return f"{self.word} {self.number} of {self.count}"


def _nothing(method: Method) -> None:
    pass


@dataclass(frozen=True)
class Lesson:
    """What a training has to do with held-out labels: see `run.held_labels`."""

    held: NDArray[np.int64] | None = None  # labeled rows that are not trained on, to learn from
    begin: Callable[[Method], None] = _nothing  # with the method, before it is trained
    end: Callable[[Method], None] = _nothing  # after it is


def open_part(config: Config, folder: Path) -> None:
    """The folder with what is known before training: its settings, and what it runs on."""
    if not is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / files.CONFIG, f"# sfumato train {folder / files.CONFIG}\n{dump(config)}")
    if not (folder / files.ENVIRONMENT).exists():
        files.write_json(folder / files.ENVIRONMENT, environment())


def finished(folder: Path, label: str, say: Say) -> dict[str, Any] | None:
    """The metrics of a training that has ended before, which `say` is told; None if there is something left to do."""
    metrics = files.metrics_of(folder)
    if metrics is None or not all((folder / name).is_file() for name in (files.CARD, files.WEIGHTS)):
        return None
    say(f"{label}: finished before, {one_line(metrics)}")
    return metrics


def run_part(
    config: Config,
    table: prepare.AnyTable,
    splits: Splits,
    folder: Path,
    *,
    say: Say,
    quiet: bool,
    this: Round | None = None,
    lesson: Lesson | None = None,
) -> dict[str, Any]:
    """Train and conclude, or go on where an earlier call in the same folder stopped; the metrics of the end.

    this: which of several trainings it is, where it is one.
    lesson: what of it is about held-out labels.
    """
    whole = this.method if this else config.label
    label = f"{whole}, seed {config.seed}" + (f", {this}" if this else "")
    metrics = finished(folder, label, say)
    if metrics is not None:
        return metrics
    new = 0 if this is None or this.joined is None else int((this.joined >= 0).sum())
    count = f"{len(splits.labeled) - new:,} labelled" + (f", {new:,} joined" if new else "")
    if prepare.sees_unlabeled(config.method.name):
        count += f" and {len(splits.unlabeled):,} {'pseudo-labelled' if this and this.shares else 'unlabelled'}"
    say(f"{label}: {config.train.steps:,} steps on {count} images")
    model = prepare.make_model(config, table)
    data = prepare.make_data(config, table, splits, model)
    data = label_files.with_labels(data, this.shares, soft=this.soft) if this and this.shares else data
    if this is not None and this.joined is not None:
        assert isinstance(data, ImageData)
        data = replace(data, joined=this.joined)
    lesson = lesson or Lesson()
    if lesson.held is not None:
        assert isinstance(data, ImageData | PairData)
        data = replace(data, held=lesson.held)
    method = prepare.make_method(config, data)
    lesson.begin(method)
    try:
        result = train(
            method,
            model,
            data,
            config.train,
            seed=config.seed,
            folder=folder,
            identity=identity(config) | ({"round": this.number} if this else {}),
            resume=True,
            quiet=quiet,
            title=f"{whole}, {this}" if this else whole,
            copies=this.copies if this else 0,
        )
        lesson.end(method)  # before metrics.json, which says that all is done
        metrics = conclude(result, data, config, folder, earlier=this.earlier if this else ())
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{label}: the device is out of memory. Train in smaller pieces with the same gradient, accumulate="
            f"{2 * config.train.accumulate}, or take a smaller batch_size, image_size (crop, of masks) or model."
        ) from error
    say(f"{label}: {one_line(metrics)}")
    return metrics
