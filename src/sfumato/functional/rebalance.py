"""Weights of classes from how often each is predicted: rare ones more, frequent ones less. (C,) -> (C,)."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import full_precision
from sfumato.functional.refine import per_class
from sfumato.types import Sparse, Target


def literal_class_weights(counts: Tensor) -> Tensor:
    """median(F) / (F_c + 1e-6), the median over all C classes, of two middle values the lower (FARCLUSS, eq. 7).

    As soon as half of the classes are absent the median is 0, and with it every weight. A class that is absent while
    the median is not has a weight of a million times the median.
    """
    return counts.median() / (counts + 1e-6)


def safe_class_weights(counts: Tensor, *, limits: tuple[float, float] = (0.1, 10.0)) -> Tensor:
    """median over the classes present / F_c within `limits`, and 1 for an absent class, over their mean by F.

    The mean weight of the counted entries is then 1, whatever the batch holds: rebalancing changes no loss's size.
    Counts may be shares; all 1 when nothing was counted.
    """
    present = counts > 0
    weights = _median_of(counts, present) / torch.where(present, counts, 1.0)
    weights = torch.where(present, weights.clamp(*limits), 1.0)
    total = counts.sum()
    mean = torch.where(total > 0, (weights * counts).sum() / total.clamp_min(torch.finfo(counts.dtype).tiny), 1.0)
    return weights / mean


def effective_number_weights(counts: Tensor) -> Tensor:
    """(1 - beta) / (1 - beta^n_c) with beta = (N - 1) / N, scaled to a mean of 1 over the classes.

    Class-balanced loss (Cui et al. 2019, arXiv:1901.05555); N is the mean of the counts, which SAW (Lai et al.
    2022) takes. A weight falls as 1 / n_c where n_c is small, and levels off where samples abound. Each class counts at
    least 1.
    """
    n = counts.clamp_min(1.0)
    # 1 - beta^n without the difference of numbers near 1; N = 1, where all classes have one sample, weighs them alike
    raw = 1 / -torch.expm1(n * torch.log1p(-1 / n.mean().clamp_min(1 + 1e-6)))
    return raw / raw.mean()


def expected_weight(weights: Tensor, target: Target) -> Tensor:
    """The weight of the target's class, of a distribution the mean weight under it, (C,) and a target -> (N, *S)."""
    if isinstance(target, Sparse):
        return (weights[target.labels] * target.share).sum(dim=1)
    if target.is_floating_point():
        p = full_precision(target)
        return (p * per_class(weights, p)).sum(dim=1)
    return weights[target]


def _median_of(values: Tensor, chosen: Tensor) -> Tensor:
    """The median of the chosen values, the mean of two middle ones, without asking the device how many there are."""
    ordered = values.masked_fill(~chosen, torch.inf).sort().values
    last = (chosen.sum() - 1).clamp_min(0)
    middle = ordered[torch.stack([last // 2, last - last // 2])]
    return middle.mean()
