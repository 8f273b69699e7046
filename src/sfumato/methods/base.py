"""What a method is: a loss over the views it declares. No optimiser, device or logging inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from sfumato.functional.divergence import cross_entropy
from sfumato.functional.ohem import hardest
from sfumato.functional.reduce import mean
from sfumato.types import Batch, Context, HeldOut, Labeled, Losses, Output, Progress, Pseudo, Rounds, Views, ViewSpec


class Networks(Protocol):
    """What a method asks of the networks: the outputs of its views, gradient and batch norm decided elsewhere."""

    def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views: ...

    def weak(self, batch: Batch, spec: ViewSpec) -> Output:
        """The weak view's output before the rest, for a method that makes a strong view from it."""
        ...

    def momentum(self, step: int) -> float:
        """Of the teacher's average after this step, for a method that averages modules of its own alike."""
        ...

    def beside(self, net: nn.Module) -> Networks:
        """The same with `net`, one of the method's own, in the student's place, and without a teacher."""
        ...


class Method(nn.Module, ABC):
    """`state_dict()` is all its memory; `views` is all it sees."""

    views: ViewSpec = ViewSpec()
    rounds: Rounds | None = None  # of a method whose `views` are `stored`: how its labels are made
    ohem: float | None = None  # set by the loop from `train.ohem`; see `supervised_loss`

    def attach(self, net: nn.Module) -> None:
        """Make the modules that are trained beside the student `net`, once, before training. Most methods have none.

        Kept as submodules they are saved with the method and trained by the same optimizer at the rate of the student's
        head; whatever has `parameter_groups`, as a copy of the student does, by its own groups. `net` is on its device
        and is neither changed nor kept. Random numbers come from torch, seeded alike on all ranks.
        """

    @abstractmethod
    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        """The losses of one step. `batch.unlabeled` is None during the warm start: only the labelled loss then."""

    def supervised_loss(self, labeled: Labeled, weak: Output, strong: Output | None = None) -> Tensor:
        """Mean cross-entropy over the labelled samples and the views that are there, each view counting alike.

        With `ohem`, of each view only over what `functional.ohem.hardest` keeps for this share.
        """
        truth = Pseudo(labeled.y, torch.ones_like(labeled.valid), labeled.valid)
        total = _charged(weak, truth, self.ohem)
        return total if strong is None else (total + _charged(strong, labeled.warp(truth), self.ohem)) / 2

    def calibrate(self, held_out: HeldOut) -> None:
        """Called after each evaluation with validation predictions. Most methods learn nothing from them."""


def _charged(out: Output, truth: Pseudo, ohem: float | None) -> Tensor:
    y = cast(Tensor, truth.target).masked_fill(truth.valid == 0, 0)  # an ignored label may be any number, 255 say
    charge = cross_entropy(out.logits, y)
    counted = truth.valid if ohem is None else hardest(torch.exp(-charge.detach()), truth.valid, ohem)
    return mean(charge, over=counted)


def context(batch: Batch, views: Views, progress: Progress) -> Context:
    """What the rules may see of this step."""
    assert batch.unlabeled is not None
    return Context(
        progress=progress,
        index=batch.unlabeled.index,
        labeled_logits=views.labeled.logits.detach(),
        labeled_y=batch.labeled.y,
        labeled_valid=batch.labeled.valid,
    )
