"""Pseudo-Label (Lee 2013) with the threshold and ramp of its later implementations."""

from __future__ import annotations

import torch

from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import mean
from sfumato.methods.base import Method, Networks, context
from sfumato.rules import FixedThreshold, Hard, Ramp
from sfumato.types import Batch, Losses, Progress, Pseudo, ViewSpec


class PseudoLabel(Method):
    """The weak view is its own target: gradient flows through its logits, not through mask or label."""

    views = ViewSpec(strong=0, weak_gradient=True)

    def __init__(self, *, threshold: float, lambda_u: float, ramp: float) -> None:
        super().__init__()
        self.weigh, self.target = FixedThreshold(threshold), Hard()
        self.lambda_u = Ramp(0.0, lambda_u, over=ramp)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out = nets.forward(batch, self.views)
        supervised = self.supervised_loss(batch.labeled, out.labeled)
        u = batch.unlabeled
        if u is None or out.weak is None:
            return Losses(supervised, torch.zeros_like(supervised))
        with torch.no_grad():
            p = probability(out.weak.logits)
            self.weigh.observe(p, u.valid, context(batch, out, progress))
            pseudo = Pseudo(self.target(p), self.weigh(p), u.valid)
        charge = cross_entropy(out.weak.logits, pseudo.target)
        unsupervised = mean(charge * pseudo.weight, over=pseudo.valid)
        return Losses(supervised, self.lambda_u(progress) * unsupervised, pseudo=pseudo)


def pseudo_label(*, threshold: float = 0.95, lambda_u: float = 1.0, ramp: float = 0.4) -> PseudoLabel:
    """L = CE + lambda_u r(t) mean(1[conf >= tau] CE(z, argmax z)), r rising linearly over the first `ramp` of training.

    The 2013 paper has no threshold (threshold=0) and ramps between two epochs.
    """
    return PseudoLabel(threshold=threshold, lambda_u=lambda_u, ramp=ramp)
