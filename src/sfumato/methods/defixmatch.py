"""DeFixMatch: FixMatch, less what the same loss costs on labeled images, which makes the risk unbiased.

With y^ and w the pseudo-labels and weights that the rules give, to labeled images as to unlabeled ones:

    L_x = (CE(z_x weak, y) + CE(z_x strong, y)) / 2
    L   = L_x + lambda_u (mean(w_u CE(z_u strong, y^_u)) - mean(w_x CE(z_x strong, y^_x)))

Schmutz, Humbert and Mattei 2023 (Don't fear the unlabelled: safe semi-supervised learning via debiasing,
arXiv:2203.07512), section 3. y^_x is the model's own prediction on the weak view of a labeled image, not its label.
What is in brackets has mean 0 where labeled and unlabeled images are of one distribution, so whatever the pseudo-labels
are the expected loss is that of the labels. It may be negative.

Rules that learn from predictions learn from those on unlabeled images alone, once a step: labeled images are read with
the rules as they are then. The peer's alignment is updated by labeled predictions too.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from sfumato.functional.probability import probability
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.consistency import Consistency
from sfumato.rules import Constant, Extra, FixedThreshold
from sfumato.types import Batch, Networks, Output, Pseudo, Views, ViewSpec


class Debias(Extra):
    """- lambda_u mean(w_x D(strong labeled view, y^_x)), with the rules of the method that it is put into."""

    name = "debias"

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self._method: tuple[Consistency, ...] = ()  # in a tuple: it is not a part of this

    def of(self, method: Consistency) -> None:
        self._method = (method,)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        (method,), labeled = self._method, batch.labeled
        with torch.no_grad():
            p = method.refine(probability(views.labeled.logits))
            warped = labeled.warp(Pseudo(method.target(p), method.weigh(p), labeled.valid))
        charge = method.divergence(cast(Output, views.labeled_strong).logits, warped.target)
        return -self.weight * weighted_mean(charge, warped.weight, over=warped.valid, normalize=method.normalize)


def defixmatch(*, threshold: float = 0.95, lambda_u: float = 0.5) -> Consistency:
    """The method with FixMatch's rules. Strong views of the labelled images are part of it.

    Args:
        threshold: of the confidence, on labelled and unlabelled images.
        lambda_u: weight of both terms of pseudo-labels.
    """
    debias = Debias(lambda_u)
    method = Consistency(
        weigh=FixedThreshold(threshold), lambda_u=Constant(lambda_u), views=ViewSpec(labeled_strong=True), extra=debias
    )
    debias.of(method)
    return method
