"""How confident the predictions of each class were lately."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks
from sfumato.running.average import checked_momentum


class ConfidenceHistogram(nn.Module):
    """For each class, the number of predictions in each bin of confidence; what was counted fades by the batch.

    Entries, samples or pixels, are counted alike, so that no record of each image is needed.

    Args:
        num_classes: C.
        edges: (B + 1,) ascending from 0 to 1.
        momentum: what is left of a count after a batch.

    Merge rule: counts are added over ranks. A batch without a valid entry changes nothing. Buffer: `mass` (C, B).
    """

    mass: Tensor
    edges: Tensor

    def __init__(self, num_classes: int, edges: Tensor, *, momentum: float = 0.999) -> None:
        super().__init__()
        self.momentum = checked_momentum(momentum)
        self.register_buffer("edges", edges.float(), persistent=False)
        self.register_buffer("mass", torch.zeros(num_classes, len(edges) - 1))

    @torch.no_grad()
    def observe(self, confidence: Tensor, label: Tensor, valid: Tensor) -> None:
        """confidence, label, valid: (N, *S)."""
        bins = self.mass.shape[1]
        place = torch.bucketize(confidence.to(self.edges.dtype), self.edges, right=True).sub_(1).clamp_(0, bins - 1)
        counts = torch.zeros_like(self.mass)
        counts.view(-1).scatter_add_(0, (label * bins + place).flatten(), valid.to(counts.dtype).flatten())
        counts = sum_over_ranks(counts)
        self.mass.copy_(torch.where(counts.sum() > 0, self.momentum * self.mass + counts, self.mass))
