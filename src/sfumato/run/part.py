"""One training: one method, one seed, one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sfumato.config import Config, dump, identity
from sfumato.data import Splits
from sfumato.errors import UsageError
from sfumato.run import files, prepare
from sfumato.run.conclude import conclude
from sfumato.run.environment import environment
from sfumato.run.ranks import is_first
from sfumato.run.table import one_line
from sfumato.train import train

Say = Callable[[str], None]


def open_part(config: Config, folder: Path) -> None:
    """The folder with what is known before training: its settings, and what it runs on."""
    if not is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / files.CONFIG, f"# sfumato train {folder / files.CONFIG}\n{dump(config)}")
    if not (folder / files.ENVIRONMENT).exists():
        files.write_json(folder / files.ENVIRONMENT, environment())


def run_part(
    config: Config, table: prepare.AnyTable, splits: Splits, folder: Path, *, say: Say, quiet: bool
) -> dict[str, Any]:
    """Train and conclude, or go on where an earlier call in the same folder stopped; the metrics of the end."""
    label = f"{config.method.name}, seed {config.seed}"
    metrics = files.metrics_of(folder)
    if metrics is not None and all((folder / name).is_file() for name in (files.CARD, files.WEIGHTS)):
        say(f"{label}: finished before, {one_line(metrics)}")
        return metrics
    count = f"{len(splits.labeled):,} labelled"
    if prepare.uses_unlabeled(config.method.name):
        count += f" and {len(splits.unlabeled):,} unlabelled"
    say(f"{label}: {config.train.steps:,} steps on {count} images")
    model = prepare.make_model(config, table)
    data = prepare.make_data(config, table, splits, model)
    method = prepare.make_method(config, data)
    try:
        result = train(
            method,
            model,
            data,
            config.train,
            seed=config.seed,
            folder=folder,
            identity=identity(config),
            resume=True,
            quiet=quiet,
        )
        metrics = conclude(result, data, config, folder)
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"{label}: the device is out of memory. Train in smaller pieces with the same gradient, accumulate="
            f"{2 * config.train.accumulate}, or take a smaller batch_size, image_size (crop, of masks) or model."
        ) from error
    say(f"{label}: {one_line(metrics)}")
    return metrics
