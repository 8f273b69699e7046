"""The class prior of a set without labels, found while the predictions for it go by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks
from sfumato.functional.prior_shift import shifted_sums
from sfumato.running.average import checked_momentum

_PATIENCE = 10  # batches that the start is worth: the first ones, of few samples, are not to undo it
_DECAY = 0.6  # of the gain; convergence needs more than 1/2 and at most 1


class RunningPrior(nn.Module):
    """On-line expectation maximization of a class prior (Cappe and Moulines 2009, of Saerens et al. 2002).

    prior <- prior + gain (mean of the predictions shifted to the prior - prior), where the gain falls as
    (batches + 10)^-0.6, but no further than 1 - momentum, so that it follows a network which is still learning.
    `functional.prior_shift.estimate_prior` is what it tends to, of the predictions of the last 1 / (1 - momentum)
    batches.

    Args:
        start: (C,) the prior before the first batch.
        momentum: see above.
        floor: no share in `value` is less than this over C. A product with 0 stays 0: a class that went out of sight
            could not come back.

    Merge rule: expected counts are added over ranks before the update, so k ranks of B / k equal one rank of B. A batch
    without a valid entry changes nothing. Buffers: `share` (C,), `batches`.
    """

    share: Tensor
    batches: Tensor

    def __init__(self, start: Tensor, *, momentum: float = 0.999, floor: float = 0.01) -> None:
        super().__init__()
        self.momentum, self.floor = checked_momentum(momentum), floor
        self.register_buffer("share", start.float() / start.sum())
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, p: Tensor, valid: Tensor, source: Tensor) -> None:
        """p: (N, C, *S) in which the prior `source` (C,) is held; valid: (N, *S)."""
        p, valid = p.to(self.share.dtype), valid.to(self.share.dtype)
        sums = shifted_sums(p, valid, self.value, source)
        both = sum_over_ranks(torch.cat([sums, valid.sum().reshape(1)]))
        gain = ((self.batches + _PATIENCE).to(sums.dtype) ** -_DECAY).clamp_min(1 - self.momentum)
        mean, seen = both[:-1] / both[-1].clamp_min(1), both[-1] > 0
        self.share.copy_(torch.where(seen, torch.lerp(self.share, mean, gain), self.share))
        self.batches += seen

    @property
    def value(self) -> Tensor:
        """(C,), sums to 1."""
        value = self.share.clamp_min(self.floor / self.share.numel())
        return value / value.sum()
