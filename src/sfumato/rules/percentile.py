"""U2PL's weigher: the least certain share of the batch is dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.distributed import gather_batch
from sfumato.functional.percentile import percentiles
from sfumato.functional.probability import normalized_entropy
from sfumato.rules.base import Weigher
from sfumato.rules.schedule import Constant, Ramp, Schedule
from sfumato.types import Context


class EntropyPercentile(Weigher):
    """1 where the entropy is below its percentile of the batch: a `share` of the valid predictions gets 0.

    U2PL (Wang et al. 2022, arXiv:2203.03884), section 3.2: keep e < gamma, gamma the 100 (1 - share)-th percentile of
    the entropies of the batch observed last, of all ranks, which takes one collective of 4 bytes an entry. A prediction
    without any entropy is kept: where most are that sure, gamma is 0 and none would be.

    Args:
        share: dropped, a number that moves with training; the authors' falls from 20 % to 0.
        surest: the share of whose entropies `sure` tells; all of them but the largest, unless given.
    """

    gamma: Tensor
    floor: Tensor  # the percentile of `surest`

    def __init__(self, share: Schedule | None = None, *, surest: Schedule | None = None) -> None:
        super().__init__()
        self.share: Schedule = share or Ramp(0.2, 0.0)
        self.surest: Schedule = surest or Constant(1.0)
        self.register_buffer("gamma", torch.ones(()))
        self.register_buffer("floor", torch.ones(()))

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        e = gather_batch(normalized_entropy(p).masked_fill(valid == 0, torch.inf)).flatten()
        shares = 1 - self.share(context.progress), self.surest(context.progress)
        gamma, floor = percentiles(e, e.isfinite(), shares).unbind()
        self.gamma.copy_(torch.where(gamma.isfinite(), gamma, self.gamma))
        self.floor.copy_(torch.where(floor.isfinite(), floor, self.floor))

    def forward(self, p: Tensor) -> Tensor:
        return _below(p, self.gamma)

    def sure(self, p: Tensor) -> Tensor:
        """1 where the entropy is below the percentile of the surest, (N, C, *S) -> (N, *S)."""
        return _below(p, self.floor)


def _below(p: Tensor, limit: Tensor) -> Tensor:
    e = normalized_entropy(p)
    return ((e < limit) | (e <= 0)).to(p.dtype)
