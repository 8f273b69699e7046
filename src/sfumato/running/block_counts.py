"""Counts of the last whole block of steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks


class BlockCounts(nn.Module):
    """How often each class was counted in the last `length` steps that are complete, (C,).

    Blocks begin at multiples of `length`: what is read is of a fixed number of steps, and up to as many steps old. As
    long as there is none that is complete, it is what was counted so far.
    Merge rule: counts are added over ranks. Buffers: `complete`; `pending` of the block that is under way, and `block`,
    which one it is.
    """

    complete: Tensor  # (C,), 0 while no block is
    pending: Tensor  # (C,)
    block: Tensor  # () int64

    def __init__(self, num_classes: int, *, length: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("complete", torch.zeros(num_classes))
        self.register_buffer("pending", torch.zeros(num_classes))
        self.register_buffer("block", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def begin(self, step: int) -> None:
        """To be called before a step counts: at the first one of a block the block before it is what is read."""
        block = step // self.length
        over = (self.block < block) & (self.pending.sum() > 0)
        self.complete.copy_(torch.where(over, self.pending, self.complete))
        self.pending.copy_(torch.where(over, 0.0, self.pending))
        self.block.fill_(block)

    @torch.no_grad()
    def observe(self, counts: Tensor) -> None:
        """counts: (C,), this rank's."""
        self.pending += sum_over_ranks(counts.to(self.pending.dtype))

    @property
    def value(self) -> Tensor:
        """(C,)."""
        return torch.where(self.complete.sum() > 0, self.complete, self.pending)
