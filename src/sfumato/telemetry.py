"""What training says of itself: sums on the device, read at the log interval only.

Known labels of unlabelled samples live here and nowhere else in training: a method cannot reach them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch, rank, sum_over_ranks
from sfumato.functional.probability import class_counts, most_probable
from sfumato.types import Losses, Pseudo

SUMS = ("losses", "weight", "known", "agreed", "seen")


class Telemetry(nn.Module):
    """Losses and pseudo-labels since the last reading. All memory is in buffers, so a resumed run logs the same.

    Args:
        classes: C names.
    """

    losses: Tensor
    weight: Tensor
    known: Tensor
    agreed: Tensor
    seen: Tensor
    broken: Tensor

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = list(classes)
        self.register_buffer("losses", torch.zeros(3))  # supervised, unsupervised, batches
        for name in ("weight", "known", "agreed"):
            self.register_buffer(name, torch.zeros(len(classes)))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("broken", torch.full((), -1, dtype=torch.int64))

    @torch.no_grad()
    def observe(self, losses: Losses, truth: Tensor | None, step: int) -> None:
        """Add one batch. No host synchronisation: a loss that is not finite is remembered by its step.

        truth: (N, *S) labels of the unlabelled samples where known, negative elsewhere.
        """
        unlabeled = losses.unsupervised + sum(losses.extras.values(), torch.zeros_like(losses.supervised))
        self.losses += torch.stack([losses.supervised, unlabeled, torch.ones_like(unlabeled)]).float()
        bad = ~torch.isfinite(losses.total) & (self.broken < 0)
        self.broken.copy_(torch.where(bad, step, self.broken))
        if losses.pseudo is not None and truth is not None:
            self._observe_pseudo(losses.pseudo, truth)

    def _observe_pseudo(self, pseudo: Pseudo, truth: Tensor) -> None:
        label = most_probable(pseudo.target)
        # What counts more than once, as acr's do, covers no more than one image.
        weight = (pseudo.weight.clamp_max(1.0) * pseudo.valid).float()
        known = weight * (truth >= 0)
        self.weight += class_counts(label, len(self.classes), weight)
        self.seen += pseudo.valid.sum()
        self.known += class_counts(label, len(self.classes), known)
        self.agreed += class_counts(label, len(self.classes), known * (truth == label))

    def read(self) -> dict[str, float]:
        """The record of the interval, over all ranks. Waits for the device. The first broken step is kept."""
        weight, known, agreed, losses = (
            sum_over_ranks(x).tolist() for x in (self.weight, self.known, self.agreed, self.losses)
        )
        seen = float(sum_over_ranks(self.seen))
        batches = max(1.0, losses[2])
        record = {"train/loss_sup": losses[0] / batches, "train/loss_unsup": losses[1] / batches}
        if seen > 0:
            record["pl/coverage"] = sum(weight) / seen
            record["pl/precision"] = _share(sum(agreed), sum(known))
            for name, w, k, a in zip(self.classes, weight, known, agreed, strict=True):
                record[f"pl/coverage/{name}"] = _share(w, sum(weight))
                record[f"pl/precision/{name}"] = _share(a, k)
        return record

    @property
    def histogram(self) -> Tensor:
        """Share of the pseudo-label weight that goes to each class, (C,), over all ranks since the last reading."""
        weight = sum_over_ranks(self.weight)
        return weight / weight.sum().clamp_min(1e-12)

    def broken_step(self) -> int | None:
        """The first step whose loss was not finite, on any rank, or None. Waits for the device."""
        steps = [int(s) for s in _gathered(self.broken) if s >= 0]
        return min(steps) if steps else None

    def merge(self) -> None:
        """Moves the sums of all ranks to the first, whose checkpoint is then whole. What `read` says stays the same."""
        for name in SUMS:
            total = sum_over_ranks(getattr(self, name))
            getattr(self, name).copy_(total if rank() == 0 else torch.zeros_like(total))

    def reset(self) -> None:
        for name in SUMS:
            getattr(self, name).zero_()


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _gathered(value: Tensor) -> list[int]:
    values: list[int] = gather_batch(value.reshape(1)).tolist()
    return values
