"""Averages of what is found once an evaluation, of which there are few."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError

_MANY = 100  # evaluations up to which the default weight of the old value is 0.9


class EvaluationMean(nn.Module):
    """new = d * old + (1 - d) * value, once an evaluation. Takes values that are equal on every rank.

    Args:
        start: what it is until the first evaluation.
        decay: d. None: 0.9 for 100 evaluations, and then 1 - 10 / k at the k-th, which is a longer and longer memory.
        debiased: every evaluation counts as its weight says and the start nothing, once there is one. Otherwise the
            start is the old value of the first: of 500 evaluations with d = 0.999 it keeps 61 %.
    """

    start: Tensor
    average: Tensor
    left: Tensor  # (), weight of the start
    evaluations: Tensor  # () int64

    def __init__(self, start: Tensor, *, decay: float | None = None, debiased: bool = True) -> None:
        super().__init__()
        if decay is not None and not 0.0 <= decay < 1.0:
            raise UsageError(f"decay={decay}: expected at least 0 and below 1, such as 0.9, or None.")
        self.decay, self.debiased = decay, debiased
        self.register_buffer("start", start.clone(), persistent=False)
        self.register_buffer("average", torch.zeros_like(start) if debiased else start.clone())
        self.register_buffer("left", torch.ones(()))
        self.register_buffer("evaluations", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, value: Tensor) -> None:
        self.evaluations += 1
        k = int(self.evaluations)
        d = self.decay if self.decay is not None else max(0.9, 1 - 0.1 * _MANY / k)
        self.average.copy_(torch.lerp(value.to(self.average), self.average, d))
        self.left *= d

    @property
    def value(self) -> Tensor:
        if not self.debiased:
            return self.average
        corrected = self.average / (1 - self.left).clamp_min(1e-12)
        return torch.where(self.evaluations > 0, corrected, self.start)
