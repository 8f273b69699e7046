"""A row for every sample, as it was given last."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch
from sfumato.running.status import last_writes


class SampleTable(nn.Module):
    """For each sample the row (C,) written last, `start` until there is one.

    Merge rule: the batch is gathered first, and all ranks hold the whole table. Of a sample that occurs more than once
    in a batch the last one counts. A step costs O(batch). Buffer: `rows` (num_samples + 1, C) float32, the last a bin
    for writes that must not happen.
    """

    rows: Tensor

    def __init__(self, num_samples: int, start: Tensor) -> None:
        super().__init__()
        self.num_samples = num_samples
        self.register_buffer("rows", start.float().repeat(num_samples + 1, 1))

    @torch.no_grad()
    def observe(self, index: Tensor, row: Tensor, valid: Tensor) -> None:
        """index: (N,) int64; row: (N, C); valid: (N,), where 0 nothing is written."""
        index = gather_batch(torch.where(valid > 0, index, self.num_samples))
        slot, order = last_writes(index, self.num_samples)
        kept = (slot < self.num_samples).unsqueeze(1)
        self.rows[slot] = torch.where(kept, gather_batch(row.to(self.rows.dtype))[order], self.rows[-1:])

    @property
    def value(self) -> Tensor:
        """(num_samples, C)."""
        return self.rows[:-1]
