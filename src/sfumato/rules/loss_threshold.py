"""Dash's rules: pseudo-labels that cost no more than a limit, which starts at what labels cost and falls."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import one_hot
from sfumato.functional.refine import sharpen
from sfumato.functional.weigh import own_cost
from sfumato.rules.base import Targeter, Weigher
from sfumato.rules.refine import checked_temperature
from sfumato.running.average import RunningMean
from sfumato.types import Context, Progress


class LossThreshold(Weigher):
    """1 where a prediction costs at most rho_t against its own target (Dash, Xu et al. 2021, eq. 6).

    rho_t = max(factor gamma^-t rho, floor); t counts stages from the end of the warm-up, of which all weights are 0.
    rho is what the labelled batches cost late in the warm-up, a moving average; where the warm-up had no unlabelled
    images, so that nothing was observed, it is what the first labelled batch after it costs, and t counts from there.
    Nothing else moves it.

    Args:
        factor, gamma: C and gamma of the paper.
        floor: rho_min; from there on the target is hard.
        temperature: of the soft target p^(1/T).
        warmup: share of training without pseudo-labels, in which rho is measured.
        stage: share of training over which rho_t is constant; the published 10 of 1,024 epochs.
        momentum: of the average of the labelled loss.

    Raises:
        UsageError: a number out of range.
    """

    rho: Tensor  # rho_t; below 0 until the warm-up ends
    begin: Tensor  # the step from which t counts; below 0 until labels were observed

    def __init__(
        self,
        *,
        factor: float = 1.0001,
        gamma: float = 1.27,
        floor: float = 0.05,
        temperature: float = 0.5,
        warmup: float = 0.12,
        stage: float = 0.01,
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if gamma <= 1:
            raise UsageError(f"LossThreshold(gamma={gamma}): expected a number above 1; 1.27 lets the limit fall.")
        for key, value in (("factor", factor), ("floor", floor), ("stage", stage)):
            if value <= 0:
                raise UsageError(f"LossThreshold({key}={value}): expected a number above 0.")
        if not 0.0 <= warmup < 1.0:
            raise UsageError(f"LossThreshold(warmup={warmup}): expected a share of training, 0 or more and below 1.")
        self.factor, self.gamma, self.floor = factor, gamma, floor
        self.temperature = checked_temperature("LossThreshold", temperature)
        self.warmup, self.stage = warmup, stage
        self.labeled = RunningMean(floor, momentum=momentum, init="debiased")
        self.register_buffer("rho", torch.tensor(-1.0))
        self.register_buffer("begin", torch.tensor(-1))

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        seen, step, end = context.labeled_valid, context.progress.step, round(self.warmup * context.progress.steps)
        cost = cross_entropy(context.labeled_logits, context.labeled_y.masked_fill(seen == 0, 0))
        measured = seen if step < end else seen * (self.labeled.batches == 0)
        self.labeled.observe(cost.masked_fill(measured == 0, 0.0).sum(), measured.sum())
        first = (self.begin < 0) & (self.labeled.batches > 0)
        self.begin.copy_(torch.where(first, max(step, end), self.begin))
        if step >= end:
            rho = self.factor * self.gamma ** -self._stage(context.progress) * self.labeled.value
            self.rho.copy_(torch.where(self.begin < 0, self.rho, rho.clamp_min(self.floor)))

    def _stage(self, progress: Progress) -> Tensor:
        """t, (). Of whole steps: a quotient of shares would be off by one now and then."""
        t = (progress.step - self.begin) // max(1, round(self.stage * progress.steps))
        return t.to(self.rho.dtype)

    @property
    def hard(self) -> Tensor:
        """Whether rho_t has come down to the floor, ()."""
        return (self.rho >= 0) & (self.rho <= self.floor)

    def forward(self, p: Tensor) -> Tensor:
        soft, hard = own_cost(p, self.temperature), own_cost(p, 0.0)
        return (torch.where(self.hard, hard, soft) <= self.rho).to(p.dtype)


class SoftThenHard(Targeter):
    """p^(1/T) until the limit has come down to its floor, then the most probable class; a distribution in either case.

    limit: whose T and whose state it reads.
    """

    def __init__(self, limit: LossThreshold) -> None:
        super().__init__()
        self._limit = (limit,)  # in a tuple: its state belongs to the weigher

    def forward(self, p: Tensor) -> Tensor:
        (limit,) = self._limit
        hard = one_hot(p.argmax(dim=1), p.shape[1], p.dtype)
        return torch.where(limit.hard, hard, sharpen(p, limit.temperature))
