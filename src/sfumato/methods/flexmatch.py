"""FlexMatch: FixMatch with a threshold for each class, lower while few samples have been learned for the class.

With p the prediction on the weak view, c its class, and s_c how many unlabeled samples had c as their last prediction
with max p >= tau, s_0 of them none so far:

    beta_c = s_c / max(s_0, s_1, ..., s_C)
    T_c    = tau beta_c / (2 - beta_c)
    L_u    = mean(1[max p >= T_c] CE(z_s, c))        over all valid predictions, kept or not
    L      = L_x + lambda_u L_u

A step reads the thresholds that the steps before have left, and then counts its own predictions; a prediction below tau
leaves the record of its sample as it was. Until a first one reaches tau every threshold is 0 and all pass, as in the
paper, and so they do for ever for a class that is never predicted so surely. With `count_unused=false` s_0 does not
compete: thresholds rise at once. On maps of labels an image counts in s_c by the share of its pixels.

Zhang et al. 2021 (arXiv:2110.08263). The counts are of all ranks.
"""

from __future__ import annotations

from sfumato.methods.consistency import Consistency
from sfumato.rules import ClassCurriculum
from sfumato.types import ViewSpec


def flexmatch(
    num_classes: int,
    num_unlabeled: int,
    dense: bool = False,
    *,
    threshold: float = 0.95,
    count_unused: bool = True,
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        num_classes, num_unlabeled: C, and the size of the unlabelled set.
        dense: labels are maps.
        threshold: tau, the largest that a class can have.
        count_unused: the samples without a sure prediction so far take part in the maximum, which keeps thresholds low
            until most have one (the paper's threshold warm-up).
        lambda_u: weight of L_u.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a threshold that is no probability, or no unlabelled set.
    """
    curriculum = ClassCurriculum(
        num_classes, num_unlabeled, threshold=threshold, count_unused=count_unused, dense=dense
    )
    return Consistency(weigh=curriculum, lambda_u=lambda_u, views=ViewSpec(labeled_strong=labeled_strong))
