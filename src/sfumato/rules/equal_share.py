"""Adsh's weigher: every class lets in the share of its predictions that the most frequent class lets in."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.equal_share import confidence_edges, equal_share_thresholds
from sfumato.functional.probability import confidence
from sfumato.functional.weigh import above
from sfumato.rules.base import Weigher
from sfumato.rules.prior import Borrowed, Prior
from sfumato.rules.threshold import checked_threshold
from sfumato.running.histogram import ConfidenceHistogram
from sfumato.types import Context

_SUPPORT = 10  # predictions of the head class before their share above the threshold means anything


class EqualShare(Weigher):
    """1 where the confidence reaches a threshold of its class, `functional.equal_share.equal_share_thresholds`.

    Adsh (Guo and Li 2022). The paper predicts the whole unlabeled set after each epoch and sorts it; here histograms of
    the predictions made while training take its place, which fade in about 1 / (1 - momentum) batches, need no record
    of each image, and serve maps as well. The batch is observed first. Until the head class has 10 predictions, and in
    classes without any, the threshold is that of the head.

    Args:
        num_classes: C.
        prior: its most frequent class is the head. One that is to see predictions before any correction is borrowed.
        threshold: of the head class.
        momentum: what is left of a count after a batch.
        bins: of each histogram, half of them below the threshold.

    Raises:
        UsageError: a threshold that is no probability, or fewer than 2 bins.
    """

    def __init__(
        self,
        num_classes: int,
        prior: Prior | Borrowed,
        *,
        threshold: float = 0.95,
        momentum: float = 0.999,
        bins: int = 200,
    ) -> None:
        super().__init__()
        if bins < 2:
            raise UsageError(f"EqualShare(bins={bins}): expected at least 2; the default is 200.")
        self.threshold = checked_threshold("EqualShare", threshold)
        self.prior: Prior | Borrowed = prior
        edges = confidence_edges(self.threshold, bins)
        self.seen = ConfidenceHistogram(num_classes, edges, momentum=momentum)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        if isinstance(self.prior, Prior):
            self.prior.observe(p, valid, context)
        self.seen.observe(*confidence(p), valid)

    @property
    def thresholds(self) -> Tensor:
        """One for each class, (C,)."""
        head = self.prior.value.argmax()
        found = equal_share_thresholds(self.seen.mass, self.seen.edges, head, self.threshold)
        support = self.seen.mass.index_select(0, head.reshape(1)).sum()
        return torch.where(support < _SUPPORT, self.threshold, found)

    def forward(self, p: Tensor) -> Tensor:
        return above(p, self.thresholds)
