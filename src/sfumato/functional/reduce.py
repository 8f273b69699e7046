"""The one reduction of the package."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.distributed import mean_over_ranks, world_size

DIVISORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "valid": lambda weight, over: over,
    "selected": lambda weight, over: (weight > 0).to(weight.dtype) * over,
    "all": lambda weight, over: torch.ones_like(over),
    "weight_sum": lambda weight, over: weight * over,
}


def mean(values: Tensor, *, over: Tensor) -> Tensor:
    """Sum of `values` where `over` is set, divided by the number of set entries; 0 when there is none.

    values: (N, *S). over: (N, *S) of 0 and 1. The count is averaged over ranks, so that the mean of the ranks'
    gradients is the gradient of the mean over the global batch, however unevenly ignored entries fall.
    An ignored entry weighs nothing even when its value is infinite or not a number.
    """
    kept = values.masked_fill(over == 0, 0.0)
    count = mean_over_ranks(over.to(values.dtype).sum())
    # With no entry the sum is 0: dividing by the count of a single entry keeps both value and gradient 0.
    return kept.sum() / count.clamp_min(1.0 / world_size())


def weighted_mean(values: Tensor, weight: Tensor, *, over: Tensor, normalize: str = "valid") -> Tensor:
    """Sum of `weight * values` where `over` is set, divided by what `normalize` names; 0 when that is nothing.

    "valid": the number of set entries, so that the loss grows with what is selected; "selected": how many of them have
    a weight; "all": of all entries, ignored ones too; "weight_sum": the sum of their weights. Over ranks as `mean`.
    """
    kept = (values * weight).masked_fill(over == 0, 0.0)
    divisor = mean_over_ranks(DIVISORS[normalize](weight, over).to(kept.dtype).sum())
    # Where the divisor is 0 the sum is 0 too: any positive number keeps value and gradient 0.
    return kept.sum() / torch.where(divisor > 0, divisor, 1.0)
