"""UniMatch: two strong views and dropped features, all taught by one weak view.

With p the student's own prediction on the weak view, y its class and m = 1[max p >= tau]:

    L_s = (mean m CE(strong 1, y) + mean m CE(strong 2, y)) / 2       views of one crop, colors and boxes of their own
    L_f = mean m CE(weak view from features with half of the channels dropped, y)
    L = (L_x + 0.5 L_s + 0.5 L_f) / 2                                 means over all valid pixels, selected or not

From the released code (Yang et al. 2023, arXiv:2208.09910). The student labels itself in training mode and in the same
forward as all other views; there the strong views have a forward of their own, and the partner of a CutMix is labeled
in evaluation mode. `halve=False` leaves out the division by 2, which is a matter of the learning rate: methods that do
not divide are then compared at the same one. Of images with one label each it is the pooled features that are dropped.
"""

from __future__ import annotations

from typing import Literal

from sfumato.methods.consistency import Consistency
from sfumato.rules import FeaturePerturbation, FixedThreshold
from sfumato.rules.perturbation import checked_rate
from sfumato.types import ViewSpec


def unimatch(
    *,
    threshold: float = 0.95,
    feature_dropout: float = 0.5,
    normalize: Literal["valid", "selected", "all", "weight_sum"] = "valid",
    lambda_u: float = 0.5,
    lambda_feature: float = 0.5,
    halve: bool = True,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        threshold: tau; 0 takes every pixel, as the authors do on Cityscapes.
        feature_dropout: share of the channels to drop; 0 leaves L_f out.
        normalize: what divides each term: valid predictions, selected ones, all, or the sum of the weights.
        lambda_u: weight of L_s, both strong views together.
        lambda_feature: weight of L_f; 0 leaves it out.
        halve: divide the whole loss by 2.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a threshold that is no probability, or nothing left of the features.
    """
    rate = checked_rate("unimatch", feature_dropout) if lambda_feature else 0.0
    dropped = FeaturePerturbation(weight=lambda_feature, normalize=normalize) if rate else None
    method = Consistency(
        weigh=FixedThreshold(threshold),
        lambda_u=lambda_u,
        views=ViewSpec(strong=2, feature_dropout=rate, labeled_strong=labeled_strong),
        extra=dropped,
        normalize=normalize,
        scale=0.5 if halve else 1.0,
    )
    if dropped is not None:
        dropped.of(method)
    return method
