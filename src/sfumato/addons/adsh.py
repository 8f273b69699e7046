"""Adsh, adaptive thresholding (Guo and Li 2022, ICML): every class lets in the same share of its predictions.

The most frequent class has the threshold tau; the share of its predictions that reach it is rho. The threshold of any
other class is the confidence of the last of its surest predictions that make up the share rho of them. It takes the
place of the method's own weights. See `rules.equal_share.EqualShare` for what replaces the paper's pass over the
unlabeled set after each epoch.

What the method's weights remember goes on being learned for the rules that read it: the fairness of freematch, and
when Dash's targets turn from soft to hard. Dash's warm-up is a part of its weights and goes with them: pseudo-labels
count from the first step on, by these thresholds. The gate of uncertainty_weighted goes too, a threshold as it is.

The peer begins at exp(-0.95) = 0.387 in place of 0.95, takes class 0 for the head, and falls to the least confident
prediction of a class whose share is less than one of them, or of all classes when the head has none above tau.
"""

from __future__ import annotations

from typing import cast

from sfumato.addons.unlabeled_prior import shown
from sfumato.methods import Consistency, Method
from sfumato.methods.gated_divergence import ungated
from sfumato.rules import EqualShare, Prior
from sfumato.rules.offset import instead
from sfumato.rules.prior import Source


def adsh(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    *,
    threshold: float = 0.95,
    prior: Source = "labeled",
    momentum: float = 0.999,
) -> None:
    """Let in the same share of each class's predictions.

    Args:
        method: whose weights these replace.
        num_classes, label_counts: C, and how many labels each class has.
        threshold: of the most frequent class.
        prior: says which class that is; as in `logit_adjustment`, of predictions before any correction.
        momentum: what is left of the predictions of a batch after the next one.

    Raises:
        UsageError: a threshold that is no probability, or a prior that is none.
    """
    head = shown(method, Prior(num_classes, label_counts, prior, momentum=momentum))
    family = cast(Consistency, method)
    ungated(family)
    family.weigh = instead(family.weigh, EqualShare(num_classes, head, threshold=threshold, momentum=momentum))
