"""SAW, smoothed adaptive weighting (Lai et al. 2022, ICML): errors weighed by how rare the class is, leveling off.

With n_c the samples of class c, and N their mean over the classes:

    v_c = (1 - beta) / (1 - beta^n_c) over its mean,  beta = (N - 1) / N      the weight by effective numbers
    L_x = mean v_y CE(z, y)                                                   n_c: labels of class c
    L_u = mean(w v_t CE(z_s, t))                                              n_c = N_u pi_c, pi the prior
    pi <- m pi + (1 - m) shares of argmax p                                   from 1/C, with prior="predicted"

with the method's own weights w, targets t and divergence. N_u is the number of unlabeled images, p the prediction on
the weak view before any correction, m the momentum, and n_c at least 1. The paper counts by a pass over the unlabeled
set after each epoch. A soft target stays soft and has the mean weight under it.

The peer puts its weighted mean in the place of the cross-entropy, which breaks every method that masks or weighs each
sample, and makes soft targets hard.
"""

from __future__ import annotations

from typing import cast

from sfumato.addons.unlabeled_prior import shown
from sfumato.methods import Consistency, Method
from sfumato.rules import ClassWeighted, Prior
from sfumato.rules.prior import Source


def saw(
    method: Method,
    num_classes: int,
    num_unlabeled: int,
    label_counts: tuple[int, ...],
    *,
    prior: Source = "predicted",
    momentum: float = 0.999,
) -> None:
    """Weigh errors by how rare the class is.

    Args:
        method: whose losses.
        num_classes, num_unlabeled, label_counts: C, how many unlabeled images there are, and how many labels each class
            has. A class counts as one image at least; on maps, of which pixels are counted, as the share of one image.
        prior: of the unlabeled set: "predicted" is the paper; the others are those of `logit_adjustment`.
        momentum: of a prior that is learned.

    Raises:
        UsageError: a prior that is none.
    """
    family = cast(Consistency, method)
    family.charge = ClassWeighted(family.charge, Prior(num_classes, label_counts), sum(label_counts))
    unlabeled = Prior(num_classes, label_counts, prior, momentum=momentum, hard=True)
    family.divergence = ClassWeighted(family.divergence, shown(method, unlabeled), num_unlabeled)
