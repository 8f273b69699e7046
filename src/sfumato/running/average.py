"""Exponential moving averages of batch means, equal for one rank and for many."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks
from sfumato.errors import UsageError

Init = Literal["first", "given", "debiased"]


def checked_momentum(momentum: float) -> float:
    if not 0.0 <= momentum < 1.0:
        raise UsageError(f"momentum={momentum}: expected at least 0 and below 1; 0.999 remembers 1,000 batches.")
    return momentum


class RunningMean(nn.Module):
    """new = momentum * old + (1 - momentum) * batch mean, for a scalar or a vector.

    init:
        "first": the first batch mean is the first value.
        "given": starts at `start` (the peers' 1/C) and needs about 1 / (1 - momentum) batches to forget it.
        "debiased": starts at 0 and divides by 1 - momentum^k, so that every batch seen counts (Adam's correction);
            until the first batch the value is `start`.

    Merge rule: sums and counts are added over ranks before the update, so k ranks of B / k equal one rank of B.
    A batch without a valid entry changes nothing; with a count per class, neither does one without that class.
    Buffers: `average`, and `batches`, how often each entry of it was seen.

    Raises:
        UsageError: a momentum that is no weight of the old value.
    """

    average: Tensor
    batches: Tensor
    start: Tensor

    def __init__(self, start: float | Tensor, *, momentum: float = 0.999, init: Init = "first") -> None:
        super().__init__()
        first = torch.as_tensor(start, dtype=torch.float32)
        self.momentum, self.init = checked_momentum(momentum), init
        self.register_buffer("start", first.clone(), persistent=False)
        self.register_buffer("average", torch.zeros_like(first) if init == "debiased" else first.clone())
        self.register_buffer("batches", torch.zeros_like(first, dtype=torch.int64))

    @torch.no_grad()
    def observe(self, total: Tensor, count: Tensor) -> None:
        """total: this rank's sum, of the shape of `start`. count: () or that shape, the number of entries summed."""
        total, count = total.to(self.average.dtype), count.to(self.average.dtype).expand_as(total)
        both = sum_over_ranks(torch.stack([total, count]))
        seen = both[1] > 0
        self.blend(both[0] / both[1].clamp_min(torch.finfo(total.dtype).tiny), seen)

    @torch.no_grad()
    def blend(self, batch: Tensor, seen: Tensor) -> None:
        """Takes one value that is already equal on every rank; entries where `seen` is false stay as they are."""
        blended = torch.lerp(batch.to(self.average.dtype), self.average, self.momentum)
        if self.init == "first":
            blended = torch.where(self.batches == 0, batch, blended)
        self.average.copy_(torch.where(seen, blended, self.average))
        self.batches += seen

    @property
    def value(self) -> Tensor:
        if self.init != "debiased":
            return self.average
        weight = 1 - self.momentum ** self.batches.to(self.average.dtype)
        return torch.where(self.batches == 0, self.start, self.average / weight.clamp_min(1e-12))
