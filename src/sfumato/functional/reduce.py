"""The one reduction of the package."""

from __future__ import annotations

from torch import Tensor

from sfumato.distributed import mean_over_ranks, world_size


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
