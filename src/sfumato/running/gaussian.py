"""Moving mean and variance of a scalar quantity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks
from sfumato.running.average import Init, RunningMean


class RunningMoments(nn.Module):
    """Moving averages of the batch mean and the batch mean square; variance = m2 - m1^2 (uncertainty-weighted SSL)."""

    def __init__(self, *, momentum: float = 0.999, init: Init = "first") -> None:
        super().__init__()
        self.moments = RunningMean(torch.zeros(2), momentum=momentum, init=init)

    def observe(self, x: Tensor, valid: Tensor) -> None:
        """x, valid: (N, *S)."""
        self.moments.observe(torch.stack([(x * valid).sum(), (x.square() * valid).sum()]), valid.sum())

    @property
    def mean(self) -> Tensor:
        return self.moments.value[0]

    @property
    def std(self) -> Tensor:
        first, second = self.moments.value.unbind()
        return (second - first.square()).clamp_min(0.0).sqrt()


class RunningGaussian(nn.Module):
    """Moving averages of the batch mean and of the batch *variance* (SoftMatch, eq. 6-7).

    variance: "unbiased" divides by n - 1 as the authors do; "population" by n. A batch with a single entry says
    nothing of the spread: the unbiased variance keeps its value then (the peers turn to NaN for good).
    Merge rule: sums, squares and counts are added over ranks first.
    """

    def __init__(
        self,
        mean: float,
        variance: float = 1.0,
        *,
        momentum: float = 0.999,
        init: Init = "given",
        estimate: Literal["unbiased", "population"] = "unbiased",
    ) -> None:
        super().__init__()
        self.estimate = estimate
        self.centre = RunningMean(mean, momentum=momentum, init=init)
        self.spread = RunningMean(variance, momentum=momentum, init=init)

    @torch.no_grad()
    def observe(self, x: Tensor, valid: Tensor) -> None:
        """x, valid: (N, *S)."""
        n, total = sum_over_ranks(torch.stack([valid.sum(), (x * valid).sum()])).unbind()
        mean = total / n.clamp_min(1)
        # Two passes, so that the squares are of deviations: no cancellation when the spread is small.
        squares = sum_over_ranks(((x - mean).square() * valid).sum())
        divisor = n - 1 if self.estimate == "unbiased" else n
        self.centre.blend(mean, n > 0)
        self.spread.blend(squares / divisor.clamp_min(1), divisor > 0)

    @property
    def mean(self) -> Tensor:
        return self.centre.value

    @property
    def variance(self) -> Tensor:
        return self.spread.value
