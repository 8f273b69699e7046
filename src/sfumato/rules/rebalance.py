"""Weighers that even out the classes."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.distributed import sum_over_ranks
from sfumato.errors import check_choice
from sfumato.functional.probability import class_counts
from sfumato.functional.rebalance import literal_class_weights, safe_class_weights
from sfumato.functional.refine import top_k
from sfumato.rules.base import Weigher
from sfumato.running.average import RunningMean
from sfumato.types import Context

Rebalancing = Literal["safe", "safe_ema", "expected", "literal"]


class ClassRebalance(Weigher):
    """The weight of the predicted class, larger the rarer its predictions are in the batch (FARCLUSS, eq. 7).

    Args:
        num_classes: C.
        reading: "safe" takes the median over the classes present, limits the weights to 0.1 to 10, gives absent classes
            1 and divides by the mean weight, which is then 1. "safe_ema" is the same of counts averaged over batches
            with momentum 0.9. "expected" weighs by the mean of the safe weights under the k most probable classes
            rather than by that of the first. "literal" is the formula as printed: all weights are 0 as soon as half of
            the classes are absent from the batch.
        k: for "expected".

    The batch is observed first: predictions are counted where valid, over all ranks.
    """

    def __init__(self, num_classes: int, *, reading: Rebalancing = "safe", k: int = 2) -> None:
        super().__init__()
        check_choice("ClassRebalance", "reading", reading, get_args(Rebalancing))
        self.num_classes, self.reading, self.k = num_classes, reading, k
        self.counts = RunningMean(torch.zeros(num_classes), momentum=0.9 if reading == "safe_ema" else 0.0)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        counts = sum_over_ranks(class_counts(p.argmax(dim=1), self.num_classes, valid.to(p.dtype)))
        self.counts.blend(counts, (counts.sum() > 0).expand_as(counts))

    @property
    def weights(self) -> Tensor:
        """Of each class, (C,)."""
        formula = literal_class_weights if self.reading == "literal" else safe_class_weights
        return formula(self.counts.value)

    def forward(self, p: Tensor) -> Tensor:
        weights = self.weights.to(p.dtype)
        if self.reading != "expected":
            return weights[p.argmax(dim=1)]
        fuzzy = top_k(p, self.k)
        return (weights[fuzzy.labels] * fuzzy.share).sum(dim=1)
