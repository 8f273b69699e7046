"""The runs in a folder, however they came there: by a bench, by several seeds of one training, by the demo, by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from sfumato.bench.names import CELL, data_name, labels_name, method_name
from sfumato.config import layer, read_settings
from sfumato.config.check import COUNTS
from sfumato.errors import DataError, UsageError
from sfumato.methods import describe
from sfumato.run import files

BESIDE = (  # settings that make no other run of it
    "name", "recipe", "budget", "seed", "seeds", "baseline", "data.task", "data.classes", "data.skip_broken",
    "train.log_every", "train.save_every", "train.keep", "train.tensorboard", "train.on_collapse",
    "evaluate.batch", "evaluate.bins",
)  # fmt: skip
INSIDE = ("rounds", "checkpoints")  # folders of a run that hold trainings of its own


@dataclass(frozen=True)
class Run:
    """A folder with settings; `metrics` is None while it has not ended."""

    folder: Path
    data: str
    labels: str
    method: str
    seed: int
    about_data: dict[str, Any] = field(repr=False)  # dotted settings, without how many labels
    about_labels: dict[str, Any] = field(repr=False)
    about_training: dict[str, Any] = field(repr=False)
    metrics: dict[str, Any] | None = field(repr=False)
    splits: str | None  # fingerprint: which images are labelled, and which are for testing

    @property
    def images(self) -> float:
        """How many images training saw, NaN where it cannot be told."""
        return math.nan if self.metrics is None else images_seen(self.about_training, self.metrics)


def find_runs(folder: Path) -> list[Run]:
    """All runs below `folder`, or it itself, in the order of their names.

    Raises DataError when there are none, or when a file of one cannot be read.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder. Give one that holds runs, as `sfumato bench` and `train` make them."
        )
    found = [_run(path.parent) for path in sorted(folder.rglob(files.CONFIG)) if _counts(path.parent, folder)]
    runs = [run for run in found if run is not None]
    if not runs:
        raise DataError(f"{folder} holds no runs: no {files.CONFIG} with settings of one in it.")
    return runs


def _counts(path: Path, folder: Path) -> bool:
    return not any(part in INSIDE or part.startswith(".") for part in path.relative_to(folder).parts)


def _run(folder: Path) -> Run | None:
    settings = layer(read_settings(folder / files.CONFIG), "").values
    metrics = files.metrics_of(folder)
    if "method.name" not in settings or (settings.get("seeds") and metrics is None):  # seeds: their folders hold runs
        return None
    named = files.read_json(folder / CELL, "Delete it.") if (folder / CELL).exists() else {}
    data = {key: value for key, value in settings.items() if key.startswith("data.")}
    counts = {key: data.pop(key, None) for key in (*COUNTS, "data.lists")}
    kept = {key: value for key, value in settings.items() if key not in BESIDE}
    name = method_name(settings)
    if metrics is not None and metrics.get("method", name) != name:  # there was nothing but labels
        kept["method.name"] = name = str(metrics["method"])
    return Run(
        folder=folder,
        data=named.get("data") or data_name(settings),
        labels=named.get("labels", labels_name(counts)),
        method=named.get("method") or name,
        seed=int(settings.get("seed", 0)),
        about_data={key: value for key, value in data.items() if key not in BESIDE},
        about_labels=counts,
        about_training={key: value for key, value in kept.items() if not key.startswith("data.")},
        metrics=metrics,
        splits=_splits(folder),
    )


def _splits(folder: Path) -> str | None:
    path = folder / files.CARD
    return (
        files.read_json(path, "Delete it and resume the run to write it anew.").get("splits") if path.exists() else None
    )


def images_seen(settings: Mapping[str, Any], metrics: Mapping[str, Any]) -> float:
    """Images of all steps, each as often as it was drawn; further views of the same image are not counted.

    settings: dotted; metrics: of metrics.json, which names earlier rounds of training where there were any.
    """
    try:
        steps, batch = int(settings["train.steps"]), int(settings["train.batch_size"])
        ratio, start = int(settings["train.unlabeled_ratio"]), float(settings["train.unlabeled_start"])
        total = 0
        for one in (*metrics.get("rounds", ()), metrics):
            total += steps * batch
            unlabeled, stored = _sees(one["method"].partition("+")[0])
            if unlabeled and one["images"]["unlabeled"]:
                total += (steps - (0 if stored else round(start * steps))) * batch * ratio
    except (KeyError, TypeError, ValueError, UsageError):  # of another version
        return math.nan
    return float(total)


@cache
def _sees(method: str) -> tuple[bool, bool]:
    """Whether a method sees unlabelled images, and whether from the first step on."""
    views = describe(method).views
    return views.weak or views.stored, views.stored
