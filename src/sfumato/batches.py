"""The batch of a step: which samples, which views. A function of (seed, step) and of nothing that happened before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfumato import distributed
from sfumato.data import Splits, StepSampler
from sfumato.errors import UsageError
from sfumato.evaluate import Measured, Scored
from sfumato.types import Batch, Labeled, Unlabeled, ViewSpec


@dataclass(frozen=True, slots=True)
class Part:
    """A rank's share of the labeled or of the unlabeled samples of a step."""

    rows: NDArray[np.int64]  # (n,) of the table
    slots: NDArray[np.int64]  # (n,) places in the global batch
    step: int
    labeled: bool


class TrainData(ABC):
    """What training may see, which rows of it are for what, and how to make views of it and measure on it."""

    splits: Splits
    classes: list[str]
    names: list[str]
    held: NDArray[np.int64] | None = None  # labeled rows not trained on, for `Method.calibrate` in place of validation
    criterion: str  # the metric by which the best network is chosen on validation, the larger the better

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def own_labeled(self) -> NDArray[np.int64]:
        """The labeled rows without those that have joined them under the label of a network."""
        return self.splits.labeled

    @abstractmethod
    def read(self, part: Part) -> tuple[Tensor, ...]:
        """What is read from the disk, on the CPU. Called on another thread, while the step before it runs."""

    @abstractmethod
    def labeled(self, part: Part, read: tuple[Tensor, ...], spec: ViewSpec) -> Labeled:
        """The views of what was read, which is on the device by now."""

    @abstractmethod
    def unlabeled(self, part: Part, read: tuple[Tensor, ...], spec: ViewSpec) -> tuple[Unlabeled, Tensor]:
        """The same, and the known labels (N, *S), -1 where there is none: for telemetry, which alone may see them.

        Labels that training uses are not known here: the network learns them, so agreeing with them would say nothing
        of the pseudo-labels.
        """

    @abstractmethod
    def predictions(
        self, models: Sequence[nn.Module], rows: NDArray[np.int64], device: torch.device, *, flip: bool
    ) -> Iterator[tuple[NDArray[np.int64], list[Tensor]]]:
        """The labels that each of `models` gives to whole images of the table, some images at a time.

        Of `rows` this rank takes its share, a consecutive one, in order. Gives (n,) rows and for each model integer
        labels (n, *S) on the CPU, S the size at which the images are read.

        flip: by the image and its mirror image together, if the weak views are mirrored at times.
        """

    @abstractmethod
    def score(self, model: nn.Module, rows: NDArray[np.int64], device: torch.device) -> Scored:
        """How good `model` is on the known labels of these rows, nothing without rows. Every rank gets the whole."""

    @abstractmethod
    def measure(self, model: nn.Module, device: torch.device, *, bins: int) -> Measured:
        """How good `model` is in the end, on the validation and the test split; `bins` of the calibration errors.

        Raises CollapseError when its predictions are not finite.
        """

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """What card.json keeps of the data, so that images can be prepared for the network as in training."""

    @abstractmethod
    def label_counts(self) -> Tensor:
        """(C,) how often each class is among the training labels, in samples or in pixels."""

    def watched_labels(self) -> Tensor | None:
        """Training labels (L,) that every evaluation looks at, for `label_history`; None for none."""
        return None

    def predict_labeled(self, model: nn.Module, device: torch.device) -> Tensor:
        """Logits (L, C) of the `own_labeled` in order, as they are without augmentation; on the CPU."""
        raise NotImplementedError

    def told(self) -> dict[str, Any]:
        """What metrics.json keeps of the data beside the number of images."""
        return {}


@dataclass(frozen=True, slots=True)
class Drawn:
    """The global batch of a step, as rows of the table, before any image is read."""

    labeled: NDArray[np.int64]
    unlabeled: NDArray[np.int64] | None


Micro = tuple[Part, tuple[Tensor, ...], Part | None, tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Read:
    """A step as far as it needs no device: its micro-batches, labeled and unlabeled."""

    step: int
    parts: list[Micro]


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

    def at(self, step: int, steps: int, *, labels_only_until: int = 0) -> list[tuple[Batch, Tensor | None]]:
        """The micro-batches of `step` on this rank, each with the known labels of its unlabeled samples.

        What the next step needs is read meanwhile, on another thread.
        """
        read = self._ahead.result() if self._ahead is not None else None
        if read is None or read.step != step:
            read = self._read(step, step >= labels_only_until)
        self._ahead = None
        if step + 1 < steps:
            self._ahead = self._reader.submit(self._read, step + 1, step + 1 >= labels_only_until)
        return [self._batch(*micro) for micro in read.parts]

    def _read(self, step: int, with_unlabeled: bool) -> Read:
        drawn, parts = self.drawn(step, with_unlabeled=with_unlabeled), []
        for micro in range(self.accumulate):
            first = self._part(drawn.labeled, step, micro, labeled=True)
            second = None if drawn.unlabeled is None else self._part(drawn.unlabeled, step, micro, labeled=False)
            parts.append((first, self._load(first), second, () if second is None else self._load(second)))
        return Read(step, parts)

    def _load(self, part: Part) -> tuple[Tensor, ...]:
        """In pinned memory where there is a GPU: from any other, a copy to it would wait for the steps before."""
        pinned = self.device.type == "cuda"
        return tuple(tensor.pin_memory() if pinned else tensor for tensor in self.data.read(part))

    def _part(self, rows: NDArray[np.int64], step: int, micro: int, *, labeled: bool) -> Part:
        """What falls to this rank of a micro-batch: consecutive places of the global batch."""
        world = distributed.world_size()
        per = len(rows) // (world * self.accumulate)
        start = (micro * world + distributed.rank()) * per
        slots = np.arange(start, start + per)
        return Part(rows[slots], slots, step, labeled)

    def _batch(
        self, first: Part, images: tuple[Tensor, ...], second: Part | None, more: tuple[Tensor, ...]
    ) -> tuple[Batch, Tensor | None]:
        labeled = self.data.labeled(first, self._to_device(images), self.spec)
        twin = None if labeled.strong is None else self._laid_out(labeled.strong)
        labeled = replace(labeled, x=self._laid_out(labeled.x), strong=twin)
        if second is None:
            return Batch(labeled), None
        unlabeled, truth = self.data.unlabeled(second, self._to_device(more), self.spec)
        strong = tuple(self._laid_out(view) for view in unlabeled.strong)
        return Batch(labeled, replace(unlabeled, weak=self._laid_out(unlabeled.weak), strong=strong)), truth

    def _laid_out(self, view: Tensor) -> Tensor:
        return view.contiguous(memory_format=torch.channels_last) if self.channels_last else view

    def _to_device(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in tensors)

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
