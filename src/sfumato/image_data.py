"""Training on images that have one class each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfumato import distributed, label_history
from sfumato.batches import Part, TrainData
from sfumato.data import Splits, Table, class_counts
from sfumato.evaluate import PARTS, Measured, Scored, evaluate, predict, refuse_broken
from sfumato.posthoc.temperature import fit_temperature
from sfumato.types import HeldOut, Labeled, Pasting, Pseudo, Unlabeled, Unmixed, ViewSpec, unwarped
from sfumato.views import Augment
from sfumato.views.draws import draw_for
from sfumato.views.patches import draw_patches, small_patches


@dataclass(frozen=True, eq=False)
class Distributions:
    """What a network made of images of a table, which may lie in a file."""

    p: NDArray[np.float32]  # (n, C)
    place: NDArray[np.int64]  # (N,) of the table: in which row of p, -1 for none

    def of(self, rows: NDArray[np.int64]) -> Tensor:
        """(m, C) of the rows (m,) of the table."""
        return torch.from_numpy(np.array(self.p[self.place[rows]]))


@dataclass(frozen=True)
class ImageData(TrainData):
    """A table of images with a class each, its splits and the views of it.

    eval_batch: images at a time in an evaluation; changes no result.
    stored: (N,) labels that an earlier network gave to images of the table, -1 where none, for methods that train on
        them.
    distributions: of images with a stored label, to train on in its place.
    joined: (N,) labels that a network gave to unlabeled images of the table, -1 elsewhere; these are among the labeled
        in `splits` too, and trained on as such. Nothing but training knows of them.
    held: see `TrainData`.
    """

    table: Table
    splits: Splits
    augment: Augment
    eval_batch: int = 256
    stored: NDArray[np.int64] | None = None
    distributions: Distributions | None = None
    joined: NDArray[np.int64] | None = None
    held: NDArray[np.int64] | None = None
    criterion = "acc"

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        return self.table.classes

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) of the table, label noise included: what validation goes by, and training but for what has joined."""
        return self.splits.told(self.table.labels)

    @cached_property
    def taught(self) -> NDArray[np.int64]:
        """(N,) of the table: what the labeled ones are trained on."""
        return self.labels if self.joined is None else np.where(self.joined >= 0, self.joined, self.labels)

    @cached_property
    def own_labeled(self) -> NDArray[np.int64]:
        rows = self.splits.labeled
        return rows if self.joined is None else rows[self.joined[rows] < 0]

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        return self.table.names

    def read(self, part: Part) -> tuple[Tensor, ...]:
        """Images, labels (-1 = none), places in the labeled or unlabeled set, and places in the global batch.

        Of the unlabeled come last the stored labels, and their distributions, where there are any.
        """
        splits, rows = self.splits, part.rows
        labels = self.taught[rows]
        if not part.labeled:
            labels = np.where(np.isin(rows, self.own_labeled), -1, self.labels[rows])
        index = np.searchsorted(splits.labeled if part.labeled else splits.unlabeled, rows)
        arrays = [labels, index, part.slots]
        if self.stored is not None and not part.labeled:
            arrays.append(self.stored[rows])
        read = [self.table.images.load(rows), *(torch.from_numpy(array) for array in arrays)]
        if self.distributions is not None and not part.labeled:
            read.append(self.distributions.of(rows))
        return tuple(read)

    def labeled(self, part: Part, read: tuple[Tensor, ...], spec: ViewSpec) -> Labeled:
        images, labels, index, slots = read
        strong = None
        if spec.labeled_strong:
            strong = self.augment.strong(images, step=part.step, slots=slots, purpose="labeled strong")
        return Labeled(
            x=self.augment.weak(images, step=part.step, slots=slots, purpose="labeled weak"),
            y=labels,
            valid=torch.ones(len(labels), device=labels.device),
            index=index,
            strong=strong,
            draw=draw_for(self.augment.seed, part.step, slots, "labeled"),
        )

    def unlabeled(self, part: Part, read: tuple[Tensor, ...], spec: ViewSpec) -> tuple[Unlabeled, Tensor]:
        images, truth, index, slots, *stored = read
        make = self.augment.strong if spec.further == "strong" else self.augment.weak
        strong = [
            make(images, step=part.step, slots=slots, purpose=f"{spec.further} {number}")
            for number in range(spec.strong)
        ]
        patches = None
        if spec.patches:
            size, seed = (self.augment.image_size,) * 2, self.augment.seed
            patches = draw_patches(slots, size, small_patches(size), seed=seed, step=part.step, purpose="patches")
        views = Unlabeled(
            weak=self.augment.weak(images, step=part.step, slots=slots, purpose="weak"),
            strong=tuple(strong),
            valid=torch.ones(len(truth), device=truth.device),
            index=index,
            warps=(unwarped,) * spec.strong,  # one class per image: no geometry changes it
            patches=patches,
            pasting=Pasting(Unmixed(), Unmixed()) if spec.pasting else None,
            stored=_pseudo(*stored) if spec.stored and stored else None,
            draw=draw_for(self.augment.seed, part.step, slots),
        )
        return views, truth

    def predictions(
        self, models: Sequence[nn.Module], rows: NDArray[np.int64], device: torch.device, *, flip: bool
    ) -> Iterator[tuple[NDArray[np.int64], list[Tensor]]]:
        mine = np.array_split(rows, distributed.world_size())[distributed.rank()]
        for start in range(0, len(mine), self.eval_batch):
            batch = mine[start : start + self.eval_batch]
            prepared = self.augment.evaluation(self.table.images.load(batch).to(device))
            found = []
            for model in models:
                p = torch.softmax(predict(model, [prepared], device=device), dim=1)
                if flip and self.augment.preset.flip > 0:
                    p += torch.softmax(predict(model, [prepared.flip(-1)], device=device), dim=1)
                found.append(p.argmax(dim=1))
            yield batch, found

    def score(self, model: nn.Module, rows: NDArray[np.int64], device: torch.device) -> Scored:
        logits, labels = self.predict(model, rows, device)
        found = evaluate(logits, labels, classes=self.classes) if len(rows) else {}
        return Scored(found, HeldOut(logits, labels, torch.ones_like(labels, dtype=torch.float32)))

    def predict(self, model: nn.Module, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Logits (N, C) float32 and known labels (N,) of these rows of the table, on the CPU, in their order.

        Each rank predicts its share; all ranks get the whole.
        """
        labels = torch.from_numpy(self.labels[rows])
        if not len(rows):
            return torch.zeros(0, self.num_classes), labels
        mine = np.array_split(rows, distributed.world_size())[distributed.rank()]

        def batches() -> Iterator[Tensor]:
            for start in range(0, len(mine), self.eval_batch):
                images = self.table.images.load(mine[start : start + self.eval_batch])
                yield self.augment.evaluation(images.to(device))

        logits = predict(model, batches(), device=device) if len(mine) else torch.zeros(0, self.num_classes)
        return distributed.gather(logits.to(device)).cpu(), labels

    def measure(self, model: nn.Module, device: torch.device, *, bins: int) -> Measured:
        found = {part: self.predict(model, getattr(self.splits, part), device) for part in PARTS}
        refuse_broken({part: logits for part, (logits, _) in found.items()})
        temperature = fit_temperature(*found["val"])
        arrays = {}
        for part, (logits, labels) in found.items():
            rows = getattr(self.splits, part)
            names = np.array([self.names[row] for row in rows], dtype=np.str_)
            arrays[part] = {"rows": rows, "names": names, "logits": logits.numpy(), "labels": labels.numpy()}
        return Measured(temperature, sections(found, self.classes, bins, temperature), arrays)

    def watched_labels(self) -> Tensor | None:
        labels = torch.from_numpy(self.labels[self.own_labeled])
        return labels if len(labels) <= label_history.LARGEST else None

    def predict_labeled(self, model: nn.Module, device: torch.device) -> Tensor:
        return self.predict(model, self.own_labeled, device)[0]

    def told(self) -> dict[str, Any]:
        """Images of each class in every part, and the labels that are wrong on purpose.

        Of the images that have joined the labeled ones: how many, and which share of them under the right label.
        """
        own = replace(self.splits, labeled=self.own_labeled)
        told: dict[str, Any] = {"class_counts": class_counts(self.table, own), "wrong_labels": len(self.splits.wrong)}
        if self.joined is not None:
            rows = np.flatnonzero(self.joined >= 0)
            known = rows[self.table.labels[rows] >= 0]
            right = self.joined[known] == self.table.labels[known]
            told["class_counts"]["joined"] = np.bincount(self.joined[rows], minlength=self.num_classes).tolist()
            told["joined"] = {"images": len(rows), "right": float(right.mean()) if len(known) else None}
        return told

    def card(self) -> dict[str, Any]:
        return {
            "image_size": self.augment.image_size,
            "channels": self.table.images.channels,
            "mean": list(self.augment.mean),
            "std": list(self.augment.std),
        }

    def label_counts(self) -> Tensor:
        return torch.from_numpy(np.bincount(self.taught[self.splits.labeled], minlength=self.num_classes))


def _pseudo(labels: Tensor, p: Tensor | None = None) -> Pseudo:
    """Stored labels (N,), or their distributions (N, C), as a pseudo-label of weight 1, valid where there is one."""
    known = labels >= 0
    target = labels.masked_fill(~known, 0) if p is None else p
    return Pseudo(target, torch.ones_like(labels, dtype=torch.float32), known.float())


def sections(
    found: Mapping[str, tuple[Tensor, Tensor]], classes: list[str], bins: int, temperature: float
) -> dict[str, dict[str, float]]:
    """The sections "val", "test" and "test_calibrated" of metrics.json, from logits (N, C) and labels (N,) by part."""

    def score(part: str, temperature: float = 1.0) -> dict[str, float]:
        logits, labels = found[part]
        return evaluate(logits, labels, classes=classes, bins=bins, temperature=temperature) if len(labels) else {}

    return {"test": score("test"), "test_calibrated": score("test", temperature), "val": score("val")}
