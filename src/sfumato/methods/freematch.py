"""FreeMatch (Wang et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.distributed import sum_with_gradient
from sfumato.functional.fairness import fairness
from sfumato.functional.probability import class_counts, class_sums, probability
from sfumato.methods.consistency import Consistency
from sfumato.rules import Extra, SelfAdaptiveThreshold
from sfumato.rules.base import pseudo_labeled
from sfumato.running.average import RunningMean
from sfumato.types import Batch, Context, Networks, Pseudo, Views, ViewSpec


class Fairness(Extra):
    """Self-adaptive fairness (eq. 9-11): the strong predictions of selected samples are to spread over the classes as
    the running prediction does, both relative to their pseudo-label histograms.

    The sign is the paper's. On a toy model it evens the marginals while the model tells the classes apart; where it
    hardly does, a class that is seldom the argmax is pushed on to nothing (both tested). The small weight matters.
    """

    name = "fairness"

    def __init__(self, threshold: SelfAdaptiveThreshold, num_classes: int, *, weight: float, momentum: float) -> None:
        super().__init__()
        self._threshold = (threshold,)  # in a tuple: its state belongs to the weigher
        self.weight, self.num_classes = weight, num_classes
        start = torch.full((num_classes,), 1.0 / num_classes)
        self.histogram = RunningMean(start, momentum=momentum, init="given")

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.histogram.observe(class_counts(p.argmax(dim=1), self.num_classes, valid.to(p.dtype)), valid.sum())

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        u, pseudo = pseudo_labeled(batch, pseudo, "Fairness")
        prior, losses = self._threshold[0].prior.value, []
        for strong, warp in zip(views.strong, u.warps, strict=True):
            q, warped = probability(strong.logits), warp(pseudo)
            selected = warped.weight * warped.valid
            predicted = sum_with_gradient(class_sums(q, selected))
            counts = sum_with_gradient(class_counts(q.argmax(dim=1), self.num_classes, selected))
            losses.append(fairness(predicted, counts, prior, self.histogram.value))
        return self.weight * torch.stack(losses).mean()


def freematch(
    num_classes: int,
    *,
    momentum: float = 0.999,
    quantile: float | None = None,
    ceiling: float | None = None,
    lambda_u: float = 1.0,
    lambda_fairness: float = 0.001,
    labeled_strong: bool = False,
) -> Consistency:
    """Self-adaptive thresholds, updated before use (eq. 5-7), plus a fairness term (eq. 11).

    lambda_fairness=0 leaves the term out. quantile and ceiling are the authors' options; the paper uses neither.
    """
    threshold = SelfAdaptiveThreshold(num_classes, momentum=momentum, quantile=quantile, ceiling=ceiling)
    fair = Fairness(threshold, num_classes, weight=lambda_fairness, momentum=momentum) if lambda_fairness else None
    return Consistency(weigh=threshold, lambda_u=lambda_u, views=ViewSpec(labeled_strong=labeled_strong), extra=fair)
