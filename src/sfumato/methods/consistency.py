"""The family: a pseudo-label from the weak view, charged to the strong views. Most methods are choices of its rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from sfumato.errors import check_choice
from sfumato.functional.divergence import Divergence, cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import DIVISORS, weighted_mean
from sfumato.methods.base import Method, Networks, Slot, context
from sfumato.rules import Charge, Constant, Extra, Hard, NoRefinement, Refiner, Schedule, Targeter, Weigher
from sfumato.types import Batch, Context, Losses, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec, Warp


def pseudo_label(
    p: Tensor, valid: Tensor, seen: Context, weigh: Weigher, target: Targeter, charges: tuple[Divergence, ...]
) -> Pseudo:
    """The target and weight of refined predictions p (N, C, *S) where valid (N, *S), which all of these observe."""
    weigh.observe(p, valid, seen)
    target.observe(p, valid, seen)
    pseudo = Pseudo(target(p), weigh(p), valid)
    for charge in charges:
        if isinstance(charge, Charge):
            charge.observe(p, valid, seen)
    return pseudo


class Consistency(Method):
    """Weak view -> refine -> weigh -> target -> warp -> divergence on every strong view.

    Args:
        weigh: how much each pseudo-label counts.
        refine: corrects the weak view's probabilities first.
        target: what the strong view is to predict.
        divergence: the charge, (logits, target) -> (N, *S).
        lambda_u: weight of the unlabelled loss, a number or a schedule.
        views: what the method sees; `ViewSpec(labeled_strong=True)` trains on strong views of the labelled images too.
        extra: a further loss.
        normalize: what divides the sum of weight times charge: "valid" entries, "selected" ones, which are those with
            a weight, "all" of them, ignored ones too, or the "weight_sum".
        scale: of the whole loss, that of the labels too, a number or a schedule.
    """

    slots: ClassVar[frozenset[Slot]] = frozenset({"charge", "extras", "refine", "weigh", "target", "divergence"})

    def __init__(
        self,
        *,
        weigh: Weigher,
        refine: Refiner | None = None,
        target: Targeter | None = None,
        divergence: Divergence = cross_entropy,
        lambda_u: float | Schedule = 1.0,
        views: ViewSpec | None = None,
        extra: Extra | None = None,
        normalize: str = "valid",
        scale: float | Schedule = 1.0,
    ) -> None:
        super().__init__()
        check_choice("Consistency", "normalize", normalize, DIVISORS)
        self.refine: Refiner = refine or NoRefinement()
        self.weigh = weigh
        self.target: Targeter = target or Hard()
        self.divergence = divergence
        self.lambda_u: Schedule = lambda_u if callable(lambda_u) else Constant(lambda_u)
        self.views = views or ViewSpec()
        if extra is not None:
            self.extras.append(extra)
        self.normalize = normalize
        self.scale: Schedule = scale if callable(scale) else Constant(scale)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out, scale = nets.forward(batch, self.views), self.scale(progress)
        supervised = scale * self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong, progress)
        u = batch.unlabeled
        if u is None or out.weak is None:
            alone = {name: scale * one for name, one in self.labels_alone(out, batch, nets, progress).items()}
            return Losses(supervised, torch.zeros_like(supervised), alone)

        with torch.no_grad():
            p, seen = probability(out.weak.logits), context(batch, out, progress)
            self.refine.observe(p, u.valid, seen)
            p = self.refine(p)
            pseudo = pseudo_label(p, u.valid, seen, self.weigh, self.target, (self.charge, self.divergence))

        charges = []
        for student, warp in self.students(out, u):
            warped = warp(pseudo)
            charged = self.divergence(student.logits, warped.target)
            charges.append(weighted_mean(charged, warped.weight, over=warped.valid, normalize=self.normalize))
        unsupervised = torch.stack(charges).mean()

        further = self.further_losses(p, seen, out, batch, pseudo, nets)
        extras = {name: scale * one for name, one in further.items()}
        return Losses(supervised, scale * self.lambda_u(progress) * unsupervised, extras, pseudo)

    def students(self, out: Views, u: Unlabeled) -> Iterable[tuple[Output, Warp]]:
        """The views that are to predict the pseudo-labels, and where in them each place of these is."""
        return zip(out.strong, u.warps, strict=True)
