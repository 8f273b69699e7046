"""From settings to what training takes: table, splits, method and net, of whichever task the data is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato import distributed
from sfumato.addons import join
from sfumato.batches import TrainData
from sfumato.config import Config
from sfumato.data import BUILTIN_NAMES, CheckReport, Problem, Splits, Table, class_counts, hub
from sfumato.data.check import NO_POOL
from sfumato.data.pairs import BUILTIN_NAMES as GENERATED
from sfumato.data.pairs import PairTable
from sfumato.data.protocols import CLASS_PROTOCOLS, find
from sfumato.data.task import task_of
from sfumato.errors import UsageError
from sfumato.methods import Facts, Method, build, describe
from sfumato.models import Net
from sfumato.run import for_images, for_pairs
from sfumato.run.ranks import decided_by_first, is_first

FAIR_BASELINE = "supervised_strong"
AnyTable = Table | PairTable
Pictures = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


class Room(Protocol):
    """What a task brings: the modules `for_images` and `for_pairs`."""

    def open_table(self, config: Config) -> Any: ...
    def settled(self, config: Config, table: Any) -> Config: ...
    def draw(self, config: Config, table: Any) -> Splits: ...
    def make_model(self, config: Config, table: Any) -> Any: ...
    def make_data(self, config: Config, table: Any, splits: Splits, model: Any) -> TrainData: ...


def _room(config: Config) -> Room:
    return for_pairs if config.data.task == "segmentation" else for_images


def located(config: Config) -> Config:
    """Paths made absolute, so that the settings mean the same from any folder, and the task settled."""
    data, model = config.data, config.model
    source = data.source
    protocol = data.protocol
    if not source and protocol in CLASS_PROTOCOLS and protocol is not None:
        source = decided_by_first(lambda: str(find(protocol, download=data.download)))
    if source.startswith(hub.PREFIX):
        source = decided_by_first(lambda: str(hub.find(data.source, download=data.download)))
    if source and Path(source).exists():  # otherwise a built-in set, or a mistake to be told of as it was written
        source = str(Path(source).absolute())
    task = data.task
    if task == "auto":
        named = {key: getattr(data, key) for key in ("masks", "labels_csv", "lists", "format", "protocol")}
        task = task_of(data.source, **named)
    files = {key: _absolute(getattr(data, key)) for key in ("labels_csv", "masks", "lists", "classes")}
    return config.model_copy(
        update={
            "data": data.model_copy(update={"source": source, "task": task, **files}),
            "model": model.model_copy(update={"weights": _absolute(model.weights)}),
        }
    )


def _absolute(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path else None


def open_table(config: Config) -> AnyTable:
    """The images of a located configuration, with their labels or masks."""
    source_of(config)
    table: AnyTable = _room(config).open_table(config)
    return table


def source_of(config: Config) -> str:
    """The data of a located configuration. Raises UsageError where there is none."""
    if not config.data.source:
        raise UsageError(
            "No data was given. Say where the images are: sfumato train photos/ --labels labels.csv, or data=PATH; "
            f"built in are {', '.join((*BUILTIN_NAMES, *GENERATED))}."
        )
    return config.data.source


def with_draw(found: CheckReport, config: Config) -> CheckReport:
    """What was found, and the images of each class that a run of these settings has in each part."""
    table = for_images.open_table(config)
    splits = for_images.draw(config, table)
    drawn = {
        part: dict(zip(table.classes, counts, strict=True)) for part, counts in class_counts(table, splits).items()
    }
    known = {problem.message for problem in found.problems}
    notes = [Problem("note", note) for note in splits.notes if note not in known]
    kept = [one for one in found.problems if one.message != NO_POOL or not len(splits.unlabeled)]
    return replace(found, drawn=drawn, problems=[*kept, *notes])


def settled(config: Config, table: AnyTable) -> Config:
    """Every "auto" decided by the images."""
    return _room(config).settled(config, table)


def draw(config: Config, table: AnyTable) -> Splits:
    return _room(config).draw(config, table)


def counted(config: Config, splits: Splits) -> Config:
    """Epochs made steps, of which the splits say how many."""
    train = config.train.counted(labeled=len(splits.labeled), unlabeled=len(splits.unlabeled))
    return config.model_copy(update={"train": train})


def make_model(config: Config, table: AnyTable) -> Net:
    """Initialised from the seed alone."""
    torch.manual_seed(config.seed)
    model: Net = _room(config).make_model(config, table)
    return model


def make_data(config: Config, table: AnyTable, splits: Splits, model: Net) -> TrainData:
    return _room(config).make_data(config, table, splits, model)


def pictures(table: AnyTable) -> Pictures | None:
    """The images of a report's gallery; None where the run keeps those that it shows."""
    return None if isinstance(table, PairTable) else lambda rows: table.images.load(rows).numpy()


def splits_of(config: Config, table: AnyTable, path: Path) -> Splits:
    """The splits kept in `path`, or else drawn and kept there: once there, they are never drawn again."""
    if path.exists():
        splits = Splits.load(path, table)
    else:
        splits = draw(config, table)
        distributed.barrier()  # all ranks have seen that there was none
        if is_first():
            splits.save(path)
    distributed.barrier()
    return splits


def uses_unlabeled(method: str) -> bool:
    """In training, or between its trainings."""
    about = describe(method)
    return about.views.weak or about.rounds is not None


def sees_unlabeled(method: str) -> bool:
    """In training."""
    return describe(method).views.weak


def make_method(config: Config, data: TrainData) -> Method:
    dense = config.data.task == "segmentation"
    facts = Facts(
        num_classes=data.num_classes,
        num_unlabeled=len(data.splits.unlabeled),
        dense=dense,
        num_labeled=len(data.splits.labeled),
        label_counts=tuple(data.label_counts().tolist()),
    )
    method = build(config.method.name, facts, config.method.options)
    if config.addon.name is not None:
        join(config.addon.name, method, facts, config.addon.options, method_name=config.method.name)
    return method
