"""Adsh, adaptive thresholding (Guo and Li 2022, ICML): every class lets in the same share of its predictions.

With p the prediction on the weak view, c its class, and h the most frequent class by the prior:

    rho = share of the predictions of h with max p >= tau
    T_h = tau;   T_c: the confidence of the (rho n_c)-th surest of the n_c predictions of c, or of the surest
    w   = 1[max p >= T_c]

w takes the place of the method's own weights. The paper sorts the predictions for the unlabeled set after each epoch.
Here those made while training are counted in histograms of 200 bins, n <- momentum n + n of the step, of all ranks, and
T_c is the lower edge of a bin. T_c is tau for a class without predictions, and for all while rho is 0 or h has had
fewer than 10.

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
