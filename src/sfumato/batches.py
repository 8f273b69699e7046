"""The batch of a step: which samples, which views. A function of (seed, step) and of nothing that happened before."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato import distributed
from sfumato.data import Splits, StepSampler, Table
from sfumato.errors import UsageError
from sfumato.types import Batch, Labeled, Unlabeled, ViewSpec, unwarped
from sfumato.views import Augment


@dataclass(frozen=True)
class TrainData:
    """What training may see: the table, which rows are for what, and how to make views of them."""

    table: Table
    splits: Splits
    augment: Augment
    eval_batch: int = 256

    @property
    def num_classes(self) -> int:
        return len(self.table.classes)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The global batch of a step, as rows of the table, before any image is read."""

    labeled: NDArray[np.int64]
    unlabeled: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Read:
    """A step as far as it needs no device: its rows, and of each micro-batch the labeled and unlabeled images."""

    step: int
    drawn: Drawn
    images: list[tuple[Tensor, Tensor | None]]


@dataclass
class BatchMaker:
    """Batches of this rank: the slice of the global batch that its place gives it, views made on `device`.

    accumulate: the global batch is cut into so many consecutive micro-batches.
    channels_last: memory format of the views.
    """

    data: TrainData
    spec: ViewSpec
    batch_size: int
    unlabeled_ratio: int
    seed: int
    device: torch.device
    channels_last: bool = True
    accumulate: int = 1
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), repr=False)
    _ahead: Future[Read] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size, self.accumulate)
        splits = self.data.splits
        self.labeled = StepSampler(splits.labeled, self.batch_size, seed=self.seed, purpose="labeled")
        self.unlabeled = None
        if self.spec.weak:
            count = self.batch_size * self.unlabeled_ratio
            self.unlabeled = StepSampler(splits.unlabeled, count, seed=self.seed, purpose="unlabeled")

    def drawn(self, step: int, *, with_unlabeled: bool = True) -> Drawn:
        unlabeled = self.unlabeled.rows(step) if self.unlabeled is not None and with_unlabeled else None
        return Drawn(self.labeled.rows(step), unlabeled)

    def at(self, step: int, steps: int, *, labels_only_until: int = 0) -> list[Batch]:
        """The micro-batches of `step` on this rank. Images of the next step are read meanwhile, on another thread."""
        read = self._ahead.result() if self._ahead is not None else None
        if read is None or read.step != step:
            read = self._read(step, step >= labels_only_until)
        self._ahead = None
        if step + 1 < steps:
            self._ahead = self._reader.submit(self._read, step + 1, step + 1 >= labels_only_until)
        return [self._batch(step, micro, read.drawn, *read.images[micro]) for micro in range(self.accumulate)]

    def _read(self, step: int, with_unlabeled: bool) -> Read:
        drawn, images = self.drawn(step, with_unlabeled=with_unlabeled), []
        for micro in range(self.accumulate):
            labeled = self._load(drawn.labeled[self._slots(len(drawn.labeled), micro)])
            u = drawn.unlabeled
            images.append((labeled, None if u is None else self._load(u[self._slots(len(u), micro)])))
        return Read(step, drawn, images)

    def _load(self, rows: NDArray[np.int64]) -> Tensor:
        """In pinned memory where there is a GPU: from any other, a copy to it would wait for the steps before."""
        images = self.data.table.images.load(rows)
        return images.pin_memory() if self.device.type == "cuda" else images

    def _slots(self, size: int, micro: int) -> NDArray[np.int64]:
        """Places in the global batch that are this rank's in this micro-batch."""
        world = distributed.world_size()
        per = size // (world * self.accumulate)
        start = (micro * world + distributed.rank()) * per
        return np.arange(start, start + per)

    def _batch(self, step: int, micro: int, drawn: Drawn, labeled: Tensor, unlabeled: Tensor | None) -> Batch:
        splits, labels = self.data.splits, self.data.table.labels
        slots = self._slots(len(drawn.labeled), micro)
        rows, images = drawn.labeled[slots], self._to_device(labeled)
        first = Labeled(
            x=self._view("weak", images, step, slots, "labeled weak"),
            y=self._to_device(torch.from_numpy(labels[rows])),
            valid=torch.ones(len(rows), device=self.device),
            index=self._to_device(torch.from_numpy(np.searchsorted(splits.labeled, rows))),
            strong=self._view("strong", images, step, slots, "labeled strong") if self.spec.labeled_strong else None,
        )
        if drawn.unlabeled is None or unlabeled is None:
            return Batch(first)
        slots = self._slots(len(drawn.unlabeled), micro)
        rows, images = drawn.unlabeled[slots], self._to_device(unlabeled)
        strong = [self._view("strong", images, step, slots, f"strong {i}") for i in range(self.spec.strong)]
        second = Unlabeled(
            weak=self._view("weak", images, step, slots, "weak"),
            strong=tuple(strong),
            valid=torch.ones(len(rows), device=self.device),
            index=self._to_device(torch.from_numpy(np.searchsorted(splits.unlabeled, rows))),
            warps=(unwarped,) * self.spec.strong,  # one class per image: no geometry changes it
        )
        return Batch(first, second)

    def _view(self, kind: str, images: Tensor, step: int, slots: NDArray[np.int64], purpose: str) -> Tensor:
        make = self.data.augment.weak if kind == "weak" else self.data.augment.strong
        view = make(images, step=step, slots=self._to_device(torch.from_numpy(slots)), purpose=purpose)
        return view.contiguous(memory_format=torch.channels_last) if self.channels_last else view

    def _to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)

    def close(self) -> None:
        self._reader.shutdown(wait=True, cancel_futures=True)


def check_batch_size(batch_size: int, accumulate: int) -> None:
    """Raise a UsageError unless the global batch is cut into equal parts."""
    parts = distributed.world_size() * accumulate
    if batch_size % parts:
        raise UsageError(
            f"batch_size={batch_size}: the global batch must be a multiple of ranks x accumulate = {parts}. "
            f"Take {parts * max(1, round(batch_size / parts))}."
        )
