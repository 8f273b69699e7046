"""FreeMatch: thresholds that follow how sure the network is, of all classes and of each, and a fairness term.

With p the prediction on the weak view, c its class, q the prediction on the strong view, and m the momentum:

    level <- m level + (1 - m) mean max p              from 1/C; with `quantile` that quantile of max p, not the mean
    p~    <- m p~ + (1 - m) mean p                     (C,), from 1/C
    h~    <- m h~ + (1 - m) shares of the classes c    (C,), from 1/C
    T_c   = min(level, ceiling) p~_c / max p~
    L_u   = mean(1[max p >= T_c] CE(q, c))             over all valid predictions, kept or not
    L_f   = sum_k a_k log b_k,  a ~ p~ / h~,  b ~ mean q / shares of argmax q, both over the kept samples
    L     = L_x + lambda_u L_u + lambda_fairness L_f

Averages take in a step before they are read. a and b are scaled to a sum of 1, and 0 where they would divide by 0; L_f
is 0 where nothing is kept, and has a gradient through mean q alone. Means and shares are of all ranks. As the level
starts at 1/C nearly all samples pass at first.

Wang et al. 2023 (arXiv:2205.07246).
"""

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
    """The method as a choice of rules.

    Args:
        num_classes: C.
        momentum: m, of all averages; 0.999 remembers 1,000 steps.
        quantile: of the confidences of a step, 0 to 1, in the place of their mean: an option of the authors' code;
            none is the paper.
        ceiling: the level is at most this, 0 to 1: an option of the authors' code, with 0.95; none is the paper.
        lambda_u: weight of L_u.
        lambda_fairness: weight of L_f; 0 leaves it out.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a momentum, quantile or ceiling out of range.
    """
    threshold = SelfAdaptiveThreshold(num_classes, momentum=momentum, quantile=quantile, ceiling=ceiling)
    fair = Fairness(threshold, num_classes, weight=lambda_fairness, momentum=momentum) if lambda_fairness else None
    return Consistency(weigh=threshold, lambda_u=lambda_u, views=ViewSpec(labeled_strong=labeled_strong), extra=fair)
