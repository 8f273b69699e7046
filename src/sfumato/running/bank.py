"""A feature of every labelled sample, kept between its visits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch
from sfumato.functional.prototypes import unit
from sfumato.running.average import checked_momentum
from sfumato.running.memory import check_fits


class LabeledBank(nn.Module):
    """Of each labelled sample a feature of length 1 and its label (SimMatch's labelled memory).

    A visit moves the row: M_i <- momentum M_i + (1 - momentum) h_i, brought back to length 1; the first one is h_i
    itself. Each row is normalised over its own D values. Where a sample occurs more than once in a batch, h_i is the
    mean of its features: whichever stands last does not matter.

    Merge rule: batches are gathered first, and all ranks hold the whole bank. A step costs O(batch), however many
    samples there are. Buffers: `features`, `label`, `filled`, each with a last row for writes that must not happen.
    UsageError where they do not fit in the memory of the machine.
    """

    features: Tensor  # (num_labeled + 1, D)
    label: Tensor  # (num_labeled + 1,) int64
    filled: Tensor  # (num_labeled + 1,) bool

    def __init__(self, num_labeled: int, *, dim: int, momentum: float = 0.7) -> None:
        super().__init__()
        self.num_labeled, self.momentum = num_labeled, checked_momentum(momentum)
        check_fits(
            f"The features of {num_labeled:,} labeled samples, {dim:,} numbers each,",
            4 * (num_labeled + 1) * dim,
            "Use a smaller dim, or a method that keeps none of each sample, such as comatch.",
        )
        self.register_buffer("features", torch.zeros(num_labeled + 1, dim))
        self.register_buffer("label", torch.zeros(num_labeled + 1, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros(num_labeled + 1, dtype=torch.bool))

    @torch.no_grad()
    def observe(self, features: Tensor, label: Tensor, index: Tensor, valid: Tensor) -> None:
        """features: (M, D); label: (M,); index: (M,) places in the labelled set; valid: (M,) of 0 and 1."""
        told = torch.stack((label.masked_fill(valid == 0, 0), index, (valid > 0).to(index.dtype)), dim=1)
        h, (label, index, seen) = gather_batch(unit(features)), gather_batch(told).unbind(1)
        same = (index.unsqueeze(0) == index.unsqueeze(1)) & (seen > 0)  # (M, M): visits of the sample of each row
        h = h.to(self.features.dtype)
        with torch.autocast(h.device.type, enabled=False):
            h = unit(same.to(h.dtype) @ h)
        old = self.features[index]
        moved = unit(self.momentum * old + (1 - self.momentum) * h)
        first = same & (same.cumsum(dim=1) == 1)  # the visit that writes, for all of the sample
        writes = first.diagonal()
        slot = torch.where(writes, index, self.num_labeled)
        keep = torch.where(self.filled[index].unsqueeze(1), moved, h)
        self.features[slot] = torch.where(writes.unsqueeze(1), keep, self.features[-1:])
        self.label[slot] = torch.where(writes, label, self.label[-1:])
        self.filled[slot] = writes
        self.filled[-1] = False

    @property
    def rows(self) -> Tensor:
        """(num_labeled, D)."""
        return self.features[:-1]
