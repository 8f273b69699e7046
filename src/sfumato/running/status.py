"""How many samples each class has been confidently learnt for: FlexMatch's memory, kept incrementally."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch
from sfumato.functional.probability import one_hot
from sfumato.running.memory import check_fits


class LearningStatus(nn.Module):
    """The last confident label of every sample and how often each class is among them.

    A step costs O(batch) however many samples there are: each changed record moves one count. All ranks hold the
    whole table, since the batch is gathered first. Of a sample that occurs twice in a batch the last one counts.

    Buffers: `label` (num_samples + 1) int32, num_classes = not yet confident; `counts` (C + 1) int64, the last bucket
    counts the samples not yet confident. The last row of `label` is a bin for writes that must not happen.
    """

    label: Tensor
    counts: Tensor

    def __init__(self, num_classes: int, num_samples: int) -> None:
        super().__init__()
        self.num_classes, self.num_samples = num_classes, num_samples
        self.register_buffer("label", torch.full((num_samples + 1,), num_classes, dtype=torch.int32))
        counts = torch.zeros(num_classes + 1, dtype=torch.int64)
        counts[num_classes] = num_samples
        self.register_buffer("counts", counts)

    @torch.no_grad()
    def observe(self, index: Tensor, label: Tensor, confident: Tensor) -> None:
        """index, label: (N,) int64; confident: (N,) bool."""
        index, label, confident = (gather_batch(x) for x in (index, label, confident.to(torch.int64)))
        # A not-confident occurrence must not hide a confident one earlier in the batch: it goes to the bin first.
        slot, order = last_writes(torch.where(confident > 0, index, self.num_samples), self.num_samples)
        kept = slot < self.num_samples
        old, new = self.label[slot].long(), torch.where(kept, label[order], self.num_classes)
        self.counts.scatter_add_(0, old, -kept.long())
        self.counts.scatter_add_(0, new, kept.long())
        self.label[slot] = new.to(torch.int32)

    def value(self, *, count_unused: bool) -> Tensor:
        """Counts over the largest, (C,) in [0, 1]; `count_unused`: samples not yet confident are a bucket too."""
        counts = self.counts.to(torch.get_default_dtype())
        largest = counts.max() if count_unused else counts[:-1].max()
        return counts[:-1] / largest.clamp_min(1)


class PixelStatus(nn.Module):
    """As `LearningStatus` for dense labels: of every image, the share of its pixels confident in each class.

    Buffer: `share` (num_samples + 1, C + 1), the last column being the share not yet confident, the last row a bin
    for writes that must not happen. UsageError where it does not fit in the memory of the machine.
    """

    share: Tensor

    def __init__(self, num_classes: int, num_samples: int) -> None:
        super().__init__()
        self.num_classes, self.num_samples = num_classes, num_samples
        check_fits(
            f"The shares of {num_classes:,} classes in each of {num_samples:,} images",
            4 * (num_samples + 1) * (num_classes + 1),
            "Train on fewer unlabeled images, or use a method that keeps none of each image, such as freematch.",
        )
        share = torch.zeros(num_samples + 1, num_classes + 1)
        share[:, -1] = 1.0
        self.register_buffer("share", share)

    @torch.no_grad()
    def observe(self, index: Tensor, label: Tensor, confident: Tensor) -> None:
        """index: (N,); label, confident: (N, *S). An image without a confident pixel keeps its record."""
        hot = one_hot(label, self.num_classes) * confident.unsqueeze(1)
        share = hot.flatten(2).mean(dim=2)
        share = gather_batch(torch.cat([share, 1 - share.sum(dim=1, keepdim=True)], dim=1))
        slot, order = last_writes(
            torch.where(share[:, -1] < 1, gather_batch(index), self.num_samples), self.num_samples
        )
        kept = (slot < self.num_samples).unsqueeze(1)
        self.share[slot] = torch.where(kept, share[order], self.share[-1:]).to(self.share.dtype)

    def value(self, *, count_unused: bool) -> Tensor:
        counts = self.share[:-1].sum(dim=0)
        largest = counts.max() if count_unused else counts[:-1].max()
        return counts[:-1] / largest.clamp_min(1e-12)


def last_writes(slot: Tensor, bin_slot: int) -> tuple[Tensor, Tensor]:
    """Sorted slots in which all but the last occurrence of each are sent to the bin, and the order that sorts."""
    ordered, order = slot.sort(stable=True)
    last = torch.ones_like(ordered, dtype=torch.bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return torch.where(last, ordered, bin_slot), order
