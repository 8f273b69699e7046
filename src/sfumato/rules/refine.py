"""Corrections of the teacher's probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.prior_shift import class_shares
from sfumato.functional.probability import class_counts, class_sums, probability
from sfumato.functional.refine import align, sharpen
from sfumato.rules.base import Refiner
from sfumato.rules.prior import Borrowed, Prior
from sfumato.running.average import RunningMean
from sfumato.running.window import WindowMean
from sfumato.types import Context


class NoRefinement(Refiner):
    """The probabilities as they are."""

    def forward(self, p: Tensor) -> Tensor:
        return p


class Then(Refiner):
    """One correction after another; the second observes what the first has made of the batch."""

    def __init__(self, first: Refiner, second: Refiner) -> None:
        super().__init__()
        self.first, self.second = first, second

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.first.observe(p, valid, context)
        self.second.observe(self.first(p), valid, context)

    def forward(self, p: Tensor) -> Tensor:
        refined: Tensor = self.second(self.first(p))
        return refined


def checked_temperature(owner: str, temperature: float) -> float:
    if temperature <= 0:
        raise UsageError(f"{owner}(temperature={temperature}): expected a number above 0; 1 changes nothing.")
    return temperature


class Sharpen(Refiner):
    """p^(1/T) before weighing; as a target only, see `Sharpened`.

    Raises:
        UsageError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = checked_temperature("Sharpen", temperature)

    def forward(self, p: Tensor) -> Tensor:
        return sharpen(p, self.temperature)


class DistributionAlignment(Refiner):
    """Moves the average prediction towards a target prior: p * target / average, renormalised (ReMixMatch).

    Args:
        num_classes: C.
        target: "uniform"; "labeled", the class frequencies met in labelled batches (or `prior`, when given); "model",
            the moving average of the model's own predictions on labelled data (AdaMatch).
        prior: a known target (C,), or one that learns, from what is aligned or, borrowed, from what another rule shows
            it; it takes the place of the frequencies of "labeled".
        power: exponent of the prior, renormalised (CReST+'s progressive alignment); 1 leaves it.
        momentum: of the moving averages.
        init: how the averages start, see `RunningMean`. "debiased" (default) counts every batch seen alike; the peers
            start the average of unlabelled predictions at the first batch and the labelled one at uniform, and count
            the unfilled part of a window as zeros: "peer".
        window: mean of the last so many batches in place of the moving averages of predictions (ReMixMatch 128,
            CoMatch 32).
        eps: keeps the ratio finite for a class never predicted.

    The current batch is observed before it is aligned.

    Raises:
        UsageError: an unknown target or init, or a `prior` with a target that would not read it.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        target: Literal["uniform", "labeled", "model"] = "uniform",
        prior: Tensor | Prior | Borrowed | None = None,
        power: float = 1.0,
        momentum: float = 0.999,
        init: Literal["debiased", "peer"] = "debiased",
        window: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_choice("DistributionAlignment", "target", target, ("uniform", "labeled", "model"))
        check_choice("DistributionAlignment", "init", init, ("debiased", "peer"))
        if prior is not None and target != "labeled":
            raise UsageError(
                f"DistributionAlignment(prior=..., target={target!r}): a prior is read with target='labeled' only."
            )
        self.target, self.power, self.eps = target, power, eps
        uniform = torch.full((num_classes,), 1.0 / num_classes)

        def memory(peer: Literal["first", "given"]) -> RunningMean | WindowMean:
            if window is None:
                return RunningMean(uniform, momentum=momentum, init=peer if init == "peer" else "debiased")
            if init == "peer":
                return WindowMean(torch.zeros(num_classes), length=window, init="given")
            return WindowMean(uniform, length=window)

        self.model = memory("first")
        self.labeled: RunningMean | WindowMean | None = None
        if target == "model":
            self.labeled = memory("given")
        elif target == "labeled" and prior is None:
            # momentum 1 - 1/k would be the plain mean; a slow debiased average is the same to three digits.
            self.labeled = RunningMean(uniform, momentum=0.999, init="debiased")
        self.prior: Tensor | Prior | Borrowed | None
        if isinstance(prior, Tensor):
            self.register_buffer("prior", prior.float() / prior.sum())
        else:
            self.prior = prior

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.model.observe(class_sums(p, valid), valid.sum())
        if isinstance(self.prior, Prior):
            self.prior.observe(p, valid, context)
        if self.labeled is None:
            return
        if self.target == "model":
            sums = class_sums(probability(context.labeled_logits), context.labeled_valid)
        else:
            labels = context.labeled_y.masked_fill(context.labeled_valid == 0, 0)
            sums = class_counts(labels, p.shape[1], context.labeled_valid)
        self.labeled.observe(sums, context.labeled_valid.sum())

    @property
    def goal(self) -> Tensor:
        """The target prior, (C,)."""
        if self.prior is not None:
            goal = self.prior if isinstance(self.prior, Tensor) else self.prior.value
        elif self.labeled is not None:
            goal = self.labeled.value
        else:
            goal = torch.full_like(self.model.value, 1.0 / self.model.value.numel())
        if self.power == 1:
            return goal  # not renormalised: the peers' half-filled window does not sum to 1, and eps notices
        powered = goal**self.power
        return powered / powered.sum()

    def forward(self, p: Tensor) -> Tensor:
        return align(p, self.goal, self.model.value, self.eps)


class ProgressiveAlignment(DistributionAlignment):
    """Alignment with the labels' shares, or another prior, to a power that sinks by the generation (CReST+).

    Args:
        num_classes: C.
        prior: (C,) how many labels each class has; or one that is not the labels'.
        momentum: of the average prediction.
    """

    def __init__(self, num_classes: int, prior: Tensor | Prior | Borrowed, *, momentum: float = 0.999) -> None:
        super().__init__(num_classes, target="labeled", prior=prior, momentum=momentum)

    def enter(self, power: float, counts: Tensor) -> None:
        """Before the training of a generation: its power, and the labels (C,) that were there before any joined."""
        self.power = power
        if isinstance(self.prior, Tensor):
            self.prior.copy_(class_shares(counts.float()))
