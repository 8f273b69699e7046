"""Moving mean and variance of a scalar quantity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks
from sfumato.running.average import Init, RunningMean, checked_momentum


def batch_moments(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and sum of squared deviations of the valid entries of all ranks. x, valid: (N, *S)."""
    n, total = sum_over_ranks(torch.stack([valid.sum(), (x * valid).sum()])).unbind()
    mean = total / n.clamp_min(1)
    # Two passes, so that the squares are of deviations: no cancellation when the spread is small.
    return n, mean, sum_over_ranks(((x - mean).square() * valid).sum())


class RunningMoments(nn.Module):
    """Mean and variance under moving averages m1, m2 of the batch means of x and x^2: m1, m2 - m1^2.

    Uncertainty-weighted SSL, eq. 6; the first batch is the first value. The variance itself is kept and moved, which is
    the same number without the difference of squares that would cost half of the digits of float32:

        v' = m v + (1 - m) batch variance + m (1 - m) (batch mean - mean)^2

    Merge rule: counts, sums and squared deviations are added over ranks. A batch without a valid entry changes nothing.
    Buffers: `mean`, `variance`, `batches`.
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, *, momentum: float = 0.999) -> None:
        super().__init__()
        self.momentum = checked_momentum(momentum)
        for name in ("mean", "variance"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, x: Tensor, valid: Tensor) -> None:
        """x, valid: (N, *S)."""
        x, valid = x.to(self.mean.dtype), valid.to(self.mean.dtype)
        n, mean, squares = batch_moments(x, valid)
        keep = self.momentum * (self.batches > 0).to(self.mean.dtype)
        step = mean - self.mean
        variance = keep * self.variance + (1 - keep) * squares / n.clamp_min(1) + keep * (1 - keep) * step.square()
        self.variance.copy_(torch.where(n > 0, variance, self.variance))
        self.mean.copy_(torch.where(n > 0, self.mean + (1 - keep) * step, self.mean))
        self.batches += n > 0

    @property
    def std(self) -> Tensor:
        return self.variance.sqrt()


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
        n, mean, squares = batch_moments(x, valid)
        divisor = n - 1 if self.estimate == "unbiased" else n
        self.centre.blend(mean, n > 0)
        self.spread.blend(squares / divisor.clamp_min(1), divisor > 0)

    @property
    def mean(self) -> Tensor:
        return self.centre.value

    @property
    def variance(self) -> Tensor:
        return self.spread.value
