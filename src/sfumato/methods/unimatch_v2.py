"""UniMatch V2: two strong views that see complementary halves of the features, taught by an averaged teacher.

With p the teacher's prediction on the weak view, y its class and m = 1[max p >= tau]; s a mask of the channels, each 0
or 2 with equal probability:

    view 1 from features times s, view 2 from features times 2 - s; half of the images keep theirs whole
    L_u = (mean m CE(view 1, y) + mean m CE(view 2, y)) / 2           means over all valid pixels, selected or not
    L = (L_x + L_u) / 2

From the released code (Yang et al. 2025, arXiv:2410.10777). There channels are those of the tokens of a transformer,
one mask for all maps that the decoder takes. Here maps of several widths draw their own, and where an image has one
label it is the pooled features that are masked. The teacher is the average of the weights, `train.ema`; the authors'
momentum is 0.996. `halve=False` leaves out the division by 2, which is a matter of the learning rate.
"""

from __future__ import annotations

from typing import Literal

from sfumato.methods.consistency import Consistency
from sfumato.rules import FixedThreshold
from sfumato.types import ViewSpec


def unimatch_v2(
    *,
    threshold: float = 0.95,
    complementary: bool = True,
    normalize: Literal["valid", "selected", "all", "weight_sum"] = "valid",
    lambda_u: float = 1.0,
    halve: bool = True,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        threshold: tau.
        complementary: False leaves all features whole.
        normalize: what divides each term: valid predictions, selected ones, all, or the sum of the weights.
        lambda_u: weight of L_u.
        halve: divide the whole loss by 2.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a threshold that is no probability.
    """
    return Consistency(
        weigh=FixedThreshold(threshold),
        lambda_u=lambda_u,
        views=ViewSpec(strong=2, teacher="ema", complementary=complementary, labeled_strong=labeled_strong),
        normalize=normalize,
        scale=0.5 if halve else 1.0,
    )
