"""What a method is: a loss over the views it declares. No optimiser, device or logging inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from sfumato.functional.divergence import Divergence, cross_entropy
from sfumato.functional.ohem import hardest
from sfumato.functional.probability import probability
from sfumato.functional.reduce import mean, weighted_mean
from sfumato.rules.annealing import SignalAnnealing
from sfumato.rules.base import Extra, Rule
from sfumato.types import (
    Batch,
    Context,
    Generations,
    HeldOut,
    Labeled,
    Losses,
    Networks,
    Output,
    Progress,
    Pseudo,
    Rounds,
    Views,
    ViewSpec,
)

__all__ = ["HeldLabels", "Method", "Networks", "Slot", "context"]

Slot = Literal["charge", "extras", "refine", "weigh", "target", "divergence"]
"""An attribute of a method in which a rule of an add-on may stand."""

HeldLabels = Literal["extra", "split_online", "split_estimate"]
"""Whose labels teach what `calibrate` learns: the validation split's, or half of the training labels, not trained on;
"split_estimate": those too, in a training of which only what was learned is kept, for a second one on all labels."""


class Extras(Protocol):
    """A module list of further losses."""

    def __iter__(self) -> Iterator[Extra]: ...

    def append(self, module: Extra) -> object: ...


class Method(nn.Module, ABC):
    """`state_dict()` is all its memory; `views` is all it sees.

    Rules in any attribute are attached, calibrated and deployed with it.
    """

    views: ViewSpec = ViewSpec()
    rounds: Rounds | Generations | None = None  # the trainings of a method that takes several; `Rounds` if `stored`
    held_labels: HeldLabels | None = None  # of a method that cannot do without held-out labels
    ohem: float | None = None  # set by the loop from `train.ohem`; see `supervised_loss`
    annealing: SignalAnnealing | None = None  # which labels count, where `supervised_loss` is told the progress
    slots: ClassVar[frozenset[Slot]] = frozenset({"charge"})  # what of it an add-on may change
    closed: ClassVar[str | None] = None  # why it has not the slots of its family, and what to do to have them
    mixes_labels: ClassVar[bool] = False  # whether labeled images are trained on mixed with unlabeled ones

    def __init__(self) -> None:
        super().__init__()
        self.charge: Divergence = cross_entropy  # of the labeled loss
        self.extras = cast("Extras", nn.ModuleList())  # further losses, of a method that has this slot

    def attach(self, net: nn.Module) -> None:
        """Make the modules that are trained beside the student `net`, once, before training. Most methods have none.

        Kept as submodules they are saved with the method and trained by the same optimizer at the rate of the student's
        head; whatever has `parameter_groups`, as a copy of the student does, by its own groups. `net` is on its device
        and is neither changed nor kept. Random numbers come from torch, seeded alike on all ranks.
        """
        for rule in self._rules():
            rule.attach(net)

    @abstractmethod
    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        """The losses of one step.

        `batch.unlabeled` is None during the warm start: only the labeled loss then, and what `labels_alone` adds.
        """

    def supervised_loss(
        self, labeled: Labeled, weak: Output, strong: Output | None = None, progress: Progress | None = None
    ) -> Tensor:
        """Mean charge, the cross-entropy, over the labelled samples and the views there are, each counting alike.

        With `ohem`, of each view only over what `functional.ohem.hardest` keeps for this share; with `annealing`, only
        over what it keeps at this `progress`. The labels of mixed images may be distributions (M, C, *S).
        """
        truth = Pseudo(labeled.y, torch.ones_like(labeled.valid), labeled.valid)
        total = self._charged(weak, truth, progress)
        return total if strong is None else (total + self._charged(strong, labeled.warp(truth), progress)) / 2

    def labels_alone(
        self, out: Views, batch: Batch, nets: Networks, progress: Progress, *, all_extras: bool = False
    ) -> dict[str, Tensor]:
        """The further losses of a step without unlabeled images: of the extras with `labels_only`, or of all."""
        none, seen = probability(out.labeled.logits[:0].detach()), context(batch, out, progress)
        losses = {}
        for extra in self.extras:
            if all_extras or extra.labels_only:
                extra.observe(none, batch.labeled.valid[:0], seen)
                losses[extra.name] = extra(out, batch, None, nets)
        return losses

    def further_losses(
        self, p: Tensor, seen: Context, out: Views, batch: Batch, pseudo: Pseudo, nets: Networks
    ) -> dict[str, Tensor]:
        """Those of all extras, which observe the predictions p (N, C, *S) that the pseudo-labels are made of first."""
        losses = {}
        for extra in self.extras:
            extra.observe(p, pseudo.valid, seen)
            losses[extra.name] = extra(out, batch, pseudo, nets)
        return losses

    def calibrate(self, held_out: HeldOut) -> None:
        """Called after each evaluation with validation predictions of the network that `deployed` gives.

        There may be none of them: a method that learns from them learns nothing then.
        """
        for rule in self._rules():
            rule.calibrate(held_out)

    def deployed(self, net: nn.Module, *, student: bool = False) -> nn.Module:
        """What is evaluated and kept in the place of the network `net`: `net` itself or a changed copy.

        student: `net` is the weights themselves although there is an average of them.
        """
        for rule in self._rules():
            net = rule.deployed_student(net) if student else rule.deployed(net)
        return net

    def _rules(self) -> Iterator[Rule]:
        return (module for module in self.modules() if isinstance(module, Rule))

    def _charged(self, out: Output, truth: Pseudo, progress: Progress | None) -> Tensor:
        y = cast(Tensor, truth.target)
        if not y.is_floating_point():
            y = y.masked_fill(truth.valid == 0, 0)  # an ignored label may be any number, 255 say
        charge = self.charge(out.logits, y)
        counted = truth.valid
        if self.ohem is not None:
            counted = hardest(torch.exp(-cross_entropy(out.logits.detach(), y)), truth.valid, self.ohem)
        if self.annealing is None or progress is None:
            return mean(charge, over=counted)
        kept = self.annealing(out.logits, y, progress)
        return weighted_mean(charge, kept, over=counted, normalize=self.annealing.normalize)


def context(batch: Batch, views: Views, progress: Progress) -> Context:
    """What the rules may see of this step."""
    features = None if views.weak is None else views.weak.features
    return Context(
        progress=progress,
        index=batch.labeled.index[:0] if batch.unlabeled is None else batch.unlabeled.index,
        labeled_logits=views.labeled.logits.detach(),
        labeled_y=batch.labeled.y,
        labeled_valid=batch.labeled.valid,
        features=None if features is None else features.detach(),
        logits=None if views.weak is None else views.weak.logits.detach(),
        labeled_index=batch.labeled.index,
    )
