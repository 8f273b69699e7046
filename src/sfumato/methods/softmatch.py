"""SoftMatch (Chen et al. 2023)."""

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
    """Weight 1 above the running mean confidence, a Gaussian tail below (eq. 5-7); hard labels of the raw prediction.

    The weight is read from the aligned confidence. Its mean and variance are of the raw one (paper; default) or, with
    statistics="aligned", of the aligned one as the authors' benchmark code has it. n_sigma=1 is the formula as written.
    """
    gaussian = TruncatedGaussian(num_classes, n_sigma=n_sigma, momentum=momentum, estimate=estimate)
    weigh: Weigher = gaussian
    check_choice("softmatch", "statistics", statistics, ("raw", "aligned"))
    if align != "none":
        alignment = DistributionAlignment(num_classes, target=align, momentum=momentum)
        weigh = Aligned(alignment, gaussian, observe_raw=statistics == "raw")
    return Consistency(weigh=weigh, lambda_u=lambda_u, views=ViewSpec(labeled_strong=labeled_strong))
