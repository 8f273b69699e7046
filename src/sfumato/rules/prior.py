"""How frequent each class is among the unlabeled samples: by the labels, by a guess, or by what is predicted."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.errors import UsageError, check_choice
from sfumato.functional.adjust import adjusted, prior_offset, tilted
from sfumato.functional.prior_shift import class_shares
from sfumato.functional.probability import class_counts, class_sums, probability
from sfumato.rules.base import Refiner
from sfumato.running.average import RunningMean
from sfumato.running.prior import RunningPrior
from sfumato.types import Context

Source = Literal["labeled", "predicted", "estimated"] | tuple[float, ...]


class Prior(nn.Module):
    """`value` (C,): shares of the classes, positive and 1 in sum.

    Args:
        num_classes: C.
        label_counts: labels of each class in the training set, samples or pixels. A class without any counts as the
            rarest of the others.
        source: "labeled": the shares of the labels, right if the unlabeled set is as unbalanced as the labeled one.
            Numbers: what is known of the unlabeled set, one positive number a class. "predicted": moving average of the
            predictions observed, which is the network's leaning rather than the set's. "estimated": the prior under
            which the predictions are most likely, by expectation maximization, whatever the labels' is; see below.
        momentum: of the averages.
        hard: "predicted" counts the most probable class in place of the probabilities.

    "estimated" compares predictions for unlabeled samples with the mean prediction for labeled ones, which is the prior
    that the network holds within itself. Where the network has learned nothing the two are alike and the estimate stays
    at the labels' shares. It needs predictions as made: show it p before they are aligned or sharpened.

    Raises:
        UsageError: an unknown source, numbers that are no prior of C classes, or counts that are missing where needed.
    """

    fixed: Tensor | None

    def __init__(
        self,
        num_classes: int,
        label_counts: tuple[int, ...] = (),
        source: Source = "labeled",
        *,
        momentum: float = 0.999,
        hard: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.source, self.hard = num_classes, source, hard
        even = torch.full((num_classes,), 1.0 / num_classes)
        if not isinstance(source, tuple):
            check_choice("Prior", "source", source, ("labeled", "predicted", "estimated"))
        fixed = None
        if source == "predicted":
            self.average = RunningMean(even, momentum=momentum, init="given")
        elif source == "estimated":
            self.estimate = RunningPrior(label_shares(num_classes, label_counts), momentum=momentum)
            self.within = RunningMean(even, momentum=min(0.99, momentum), init="debiased")
        else:
            fixed = (
                given_shares(num_classes, source) if source != "labeled" else label_shares(num_classes, label_counts)
            )
        self.register_buffer("fixed", fixed, persistent=False)

    @property
    def learns(self) -> bool:
        """Whether `observe` changes anything."""
        return self.source in ("predicted", "estimated")

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        """p: (N, C, *S) of the unlabeled samples, valid: (N, *S); `context` for the predictions for labeled ones."""
        if self.source == "predicted":
            sums = (
                class_counts(p.argmax(dim=1), self.num_classes, valid.to(p.dtype))
                if self.hard
                else class_sums(p, valid)
            )
            self.average.observe(sums, valid.sum())
        elif self.source == "estimated":
            sums = class_sums(probability(context.labeled_logits), context.labeled_valid)
            self.within.observe(sums, context.labeled_valid.sum())
            self.estimate.observe(p, valid, self.within.value)

    @property
    def value(self) -> Tensor:
        if self.fixed is not None:
            return self.fixed
        return self.average.value if self.source == "predicted" else self.estimate.value


class Borrowed:
    """A prior of which another rule keeps the memory: that one shows it the predictions and is saved with it."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior

    @property
    def value(self) -> Tensor:
        return self._prior.value


class Watch(Refiner):
    """Shows predictions to a prior and leaves them as they are: the first refiner sees them before any correction.

    Args:
        prior: what learns.
        offset: (C,) which the loss adds to the logits of labeled samples, if it does. It is added here too: plain
            logits are then no predictions for samples as frequent as the labeled ones.
    """

    offset: Tensor | None

    def __init__(self, prior: Prior, *, offset: Tensor | None = None) -> None:
        super().__init__()
        self.prior = prior
        self.register_buffer("offset", offset, persistent=False)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        if self.offset is not None and self.prior.learns:
            p = tilted(p, self.offset)
            context = replace(context, labeled_logits=adjusted(context.labeled_logits, self.offset))
        self.prior.observe(p, valid, context)

    def forward(self, p: Tensor) -> Tensor:
        return p


class Debiased(Refiner):
    """p / prior^tau, renormalized: softmax(z - tau log prior), DebiasPL's pseudo-label (Wang et al. 2022).

    Args:
        prior: observes the predictions before the correction.
        tau: 0 corrects nothing, 1 takes the whole prior out.
    """

    def __init__(self, prior: Prior, *, tau: float = 0.4) -> None:
        super().__init__()
        self.prior, self.tau = prior, tau

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.prior.observe(p, valid, context)

    @property
    def offset(self) -> Tensor:
        """(C,) that is added to the logits."""
        return -prior_offset(self.prior.value, self.tau)

    def forward(self, p: Tensor) -> Tensor:
        return tilted(p, self.offset)


def label_shares(num_classes: int, label_counts: tuple[int, ...]) -> Tensor:
    """`class_shares` of the labels' counts, (C,).

    Raises:
        UsageError: there are no counts, or not C of them.
    """
    if len(label_counts) != num_classes:
        raise UsageError(
            f"label_counts has {len(label_counts)} numbers: expected how many labels there are of each of the "
            f"{num_classes} classes. In Python, give `Facts` its label_counts; or name another prior."
        )
    return class_shares(torch.tensor(label_counts, dtype=torch.float32))


def given_shares(num_classes: int, prior: tuple[float, ...]) -> Tensor:
    """Numbers over their sum, (C,).

    Raises:
        UsageError: not C of them, or one that is not positive.
    """
    if len(prior) != num_classes:
        raise UsageError(f"prior has {len(prior)} numbers: expected one for each of the {num_classes} classes.")
    numbers = torch.tensor(prior, dtype=torch.float32)
    wrong = [c for c in range(num_classes) if not 0 < prior[c] < float("inf")]
    if wrong:
        raise UsageError(
            f"prior[{wrong[0]}]={prior[wrong[0]]}: expected a positive share of each class; to one that the unlabeled "
            "images lack give a small one, such as 1e-4."
        )
    return numbers / numbers.sum()
