"""The mean of the last L batches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks


class WindowMean(nn.Module):
    """Ring buffer of the last `length` batch means of a vector (C,) (ReMixMatch, CoMatch).

    init: "first" averages the slots filled so far; "given" counts the unfilled slots as `start` (the peers: zeros).
    Merge rule: sums and counts are added over ranks first. Buffers: `rows` (length, C), `batches`.
    """

    rows: Tensor
    batches: Tensor

    def __init__(self, start: Tensor, *, length: int, init: Literal["first", "given"] = "first") -> None:
        super().__init__()
        self.length, self.init = length, init
        self.register_buffer("rows", start.float().repeat(length, 1))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, total: Tensor, count: Tensor) -> None:
        """total: (C,), this rank's sum. count: (), the entries summed."""
        both = sum_over_ranks(torch.cat([total, count.reshape(1).to(total.dtype)]))
        slot = (self.batches % self.length).reshape(1)
        seen = both[-1] > 0
        row = torch.where(seen, both[:-1] / both[-1].clamp_min(1e-12), self.rows[slot][0]).to(self.rows.dtype)
        self.rows.index_copy_(0, slot, row.unsqueeze(0))
        self.batches += seen

    @property
    def value(self) -> Tensor:
        if self.init == "given":
            return self.rows.mean(dim=0)
        filled = (torch.arange(self.length, device=self.rows.device) < self.batches).to(self.rows.dtype)
        mean = (self.rows * filled.unsqueeze(1)).sum(dim=0) / filled.sum().clamp_min(1)
        return torch.where(self.batches == 0, self.rows[0], mean)
