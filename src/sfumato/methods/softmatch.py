"""SoftMatch: every pseudo-label counts, the less the further its confidence is below the mean of all.

With p the prediction on the weak view, q the same aligned, and m the momentum:

    p~  average of p of all steps, of the last 1 / (1 - m) of them once there are more
    q   = p g / p~, renormalized                   g: 1/C, or another target of `align`; "none": q = p
    mu  <- m mu + (1 - m) mean max p               from 1/C
    v   <- m v + (1 - m) var max p                 from 1; the batch's, by n - 1 or with "population" by n
    w   = exp(-min(max q - mu, 0)^2 n_sigma^2 / (2 v))
    L_u = mean(w CE(z_s, argmax p))                over all valid predictions
    L   = L_x + lambda_u L_u

Averages take in a step before they are read, and are of all ranks. With `statistics="aligned"` mu and v are of max q. A
step with a single prediction leaves v as it was, unless by n, when it counts as 0.

Chen et al. 2023 (arXiv:2301.10921). n_sigma stands in the authors' code, which is 2 there; the paper's formula is that
of 1. The paper takes mu and v from p, its code in USB from q.
"""

from __future__ import annotations

from typing import Literal

from sfumato.errors import check_choice
from sfumato.methods.consistency import Consistency
from sfumato.rules import Aligned, DistributionAlignment, TruncatedGaussian, Weigher
from sfumato.types import ViewSpec


def softmatch(
    num_classes: int,
    *,
    n_sigma: float = 2.0,
    momentum: float = 0.999,
    align: Literal["uniform", "labeled", "model", "none"] = "uniform",
    statistics: Literal["raw", "aligned"] = "raw",
    estimate: Literal["unbiased", "population"] = "unbiased",
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        num_classes: C.
        n_sigma: the Gaussian's width is sqrt(v) / n_sigma; 2 as in the authors' code, 1 is the formula as written.
        momentum: m, of all averages; 0.999 remembers 1,000 steps.
        align: what the mean prediction is moved to before the weight is read: equal classes, the shares of the classes
            met in labelled batches, the mean prediction on labelled images, or none.
        statistics: mu and v are of p as made (the paper) or of the aligned q (USB).
        estimate: of the batch's variance: "unbiased" divides by n - 1, as the authors do, "population" by n.
        lambda_u: weight of L_u.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown name, or a momentum out of range.
    """
    gaussian = TruncatedGaussian(num_classes, n_sigma=n_sigma, momentum=momentum, estimate=estimate)
    weigh: Weigher = gaussian
    check_choice("softmatch", "statistics", statistics, ("raw", "aligned"))
    if align != "none":
        alignment = DistributionAlignment(num_classes, target=align, momentum=momentum)
        weigh = Aligned(alignment, gaussian, observe_raw=statistics == "raw")
    return Consistency(weigh=weigh, lambda_u=lambda_u, views=ViewSpec(labeled_strong=labeled_strong))
