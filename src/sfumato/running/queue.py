"""Features and predictions of the samples seen last, as a buffer that is written round and round."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import gather_batch


class SampleQueue(nn.Module):
    """The `size` samples written last, each a feature (D,) and a distribution (C,) (CoMatch's memory).

    Merge rule: the samples of all ranks are written in the order of their keys, so that k ranks of B / k write what one
    rank of B does, and in a batch larger than the queue chance says which are left out.
    Buffers: `features`, `probs`, and `written`, how many samples ever were.
    """

    features: Tensor  # (size, D), 0 where nothing was written yet
    probs: Tensor  # (size, C)
    written: Tensor  # () int64

    def __init__(self, num_classes: int, *, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("probs", torch.zeros(size, num_classes))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, features: Tensor, probs: Tensor, valid: Tensor, keys: Tensor) -> None:
        """features: (N, D); probs: (N, C); valid: (N,) of 0 and 1; keys: (N,), drawn from [0, 1) for each sample."""
        size, dim = self.features.shape
        ranked = keys.to(features.dtype).masked_fill(valid == 0, torch.inf).unsqueeze(1)
        rows = gather_batch(torch.cat((features, probs.to(features.dtype), ranked), dim=1))  # one collective for all
        ranked = rows[:, -1]
        order = ranked.argsort(stable=True)[:size]
        there = ranked[order].isfinite()
        slots = (self.written + torch.arange(len(order), device=order.device)) % size
        new = rows[order, :-1].to(self.features.dtype)
        kept = torch.where(there.unsqueeze(1), new, torch.cat((self.features, self.probs), dim=1)[slots])
        self.features.index_copy_(0, slots, kept[:, :dim])
        self.probs.index_copy_(0, slots, kept[:, dim:])
        self.written += there.sum()

    @property
    def filled(self) -> Tensor:
        """Which rows hold a sample, (size,) bool."""
        return torch.arange(len(self.features), device=self.written.device) < self.written
