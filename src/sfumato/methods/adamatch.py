"""AdaMatch: FixMatch with aligned pseudo-labels, a threshold relative to labels, and logits between two batch norms.

With p the prediction on the weak view, q the same aligned to the model's own predictions on labeled images:

    z_x   = lambda z'_x + (1 - lambda) z''_x       z': beside unlabeled images, z'': labeled images alone
    c     = tau mean max softmax(z_x), of the weak labeled views of the step
    kept  = max q >= c
    L     = (CE(z_x weak) + CE(z_x strong)) / 2 + mu(k) mean(kept CE(strong view, argmax q))
    mu(k) = 1/2 - 1/2 cos(min(pi, 2 pi k / K))

Berthelot et al. 2021 (arXiv:2106.04732), section 3. lambda is uniform, of its own for each logit. z'' takes a forward
of the labeled views alone, which moves no running statistics: a quarter more images at three unlabeled ones for each
labeled, an eighth at seven. Without batch norm z' and z'' are equal, and `interpolate=false` saves it. On maps lambda
is of an image and a class, for all pixels. In z' the labeled images go through with the strong views, and with
`train.layout=concat`, as published, with the weak ones too.

Targets are hard as in the released code; "soft" is q. Both averages of the alignment move with `momentum`; the released
code takes the unlabeled one over the last 128 batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from sfumato.errors import check_choice
from sfumato.methods.base import Networks
from sfumato.methods.consistency import Consistency
from sfumato.rules import CosineRamp, DistributionAlignment, Hard, RelativeThreshold, Soft
from sfumato.types import Batch, Losses, Output, Progress, Views, ViewSpec


@dataclass(frozen=True, slots=True)
class Interpolated:
    """Networks whose labeled logits lie between those beside unlabeled images and those of labeled images alone."""

    nets: Networks

    def forward(self, batch: Batch, spec: ViewSpec, weak: Output | None = None) -> Views:
        views = self.nets.forward(batch, spec, weak)
        if batch.unlabeled is None:
            return views
        labeled = batch.labeled
        images = [labeled.x] if views.labeled_strong is None or labeled.strong is None else [labeled.x, labeled.strong]
        alone = self.nets.further(torch.cat(images), statistics=False).logits.chunk(len(images))
        classes = alone[0].shape[1]
        shares = labeled.draw("interpolation", len(images) * classes).chunk(len(images), dim=1)
        strong = views.labeled_strong
        if strong is not None:
            strong = replace(strong, logits=between(strong.logits, alone[-1], shares[-1]))
        return replace(
            views,
            labeled=replace(views.labeled, logits=between(views.labeled.logits, alone[0], shares[0])),
            labeled_strong=strong,
        )

    def weak(self, batch: Batch, spec: ViewSpec) -> Output:
        return self.nets.weak(batch, spec)

    def further(self, x: Tensor, *, statistics: bool = True, dropout: bool = True) -> Output:
        return self.nets.further(x, statistics=statistics, dropout=dropout)

    def average(self, x: Tensor) -> Output:
        return self.nets.average(x)

    def momentum(self, step: int) -> float:
        return self.nets.momentum(step)

    def beside(self, net: nn.Module) -> Networks:
        return self.nets.beside(net)


def between(joint: Tensor, alone: Tensor, share: Tensor) -> Tensor:
    """share joint + (1 - share) alone, (M, C, *S) each, with a share (M, C) of its own for each logit of an image."""
    share = share.reshape(*share.shape, *(1,) * (joint.dim() - 2)).to(joint.device)
    return share * joint + (1 - share) * alone


class AdaMatch(Consistency):
    """The family with interpolated labeled logits."""

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        return super().loss(Interpolated(nets), batch, progress)


def adamatch(
    num_classes: int,
    *,
    threshold: float = 0.9,
    target: Literal["hard", "soft"] = "hard",
    interpolate: bool = True,
    momentum: float = 0.999,
    lambda_u: float = 1.0,
    ramp: float = 0.5,
    labeled_strong: bool = True,
) -> Consistency:
    """The method with its rules.

    Args:
        num_classes: C.
        threshold: tau, relative to the mean confidence on labeled images; 0.95 in later benchmarks.
        target: the most probable class of q, or q itself.
        interpolate: take labeled logits between two passes; without it there is one.
        momentum: of the averages of the alignment.
        lambda_u: weight of the unlabelled loss at the end of its ramp.
        ramp: share of training over which mu rises to 1; 0 for a constant one.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a threshold that is no probability, or an unknown name.
    """
    check_choice("adamatch", "target", target, ("hard", "soft"))
    family = AdaMatch if interpolate else Consistency
    return family(
        refine=DistributionAlignment(num_classes, target="model", momentum=momentum),
        weigh=RelativeThreshold(threshold),
        target=Hard() if target == "hard" else Soft(),
        lambda_u=CosineRamp(lambda_u, over=ramp),
        views=ViewSpec(labeled_strong=labeled_strong),
    )
