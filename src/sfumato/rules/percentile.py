"""U2PL's weigher: the least certain share of the batch is dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.distributed import gather_batch
from sfumato.functional.percentile import percentile
from sfumato.functional.probability import normalized_entropy
from sfumato.rules.base import Weigher
from sfumato.rules.schedule import Ramp, Schedule
from sfumato.types import Context


class EntropyPercentile(Weigher):
    """1 where the entropy is below its percentile of the batch: a `share` of the valid predictions gets 0.

    U2PL (Wang et al. 2022, arXiv:2203.03884), section 3.2: keep e < gamma, gamma the 100 (1 - share)-th percentile of
    the entropies of the batch observed last, of all ranks, which takes one collective of 4 bytes an entry. A prediction
    without any entropy is kept: where most are that sure, gamma is 0 and none would be.

    Args:
        share: dropped, a number that moves with training; the authors' falls from 20 % to 0.
    """

    gamma: Tensor

    def __init__(self, share: Schedule | None = None) -> None:
        super().__init__()
        self.share: Schedule = share or Ramp(0.2, 0.0)
        self.register_buffer("gamma", torch.ones(()))

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        e = gather_batch(normalized_entropy(p).masked_fill(valid == 0, torch.inf)).flatten()
        gamma = percentile(e, e.isfinite(), 1 - self.share(context.progress))
        self.gamma.copy_(torch.where(gamma.isfinite(), gamma, self.gamma))

    def forward(self, p: Tensor) -> Tensor:
        e = normalized_entropy(p)
        return ((e < self.gamma) | (e <= 0)).to(p.dtype)
