"""AugSeg: unlabelled images of which the teacher is unsure get boxes of labelled images, with their true labels.

With p the teacher's prediction on the weak view of image i, y its class, q = max p, e the normalised entropy of p:

    c_i = mean q (1 - e) over the pixels of the image
    with probability 1 - c_i a box of the strong view, and of y and m, is filled from a labelled image; there m = 1
    then a box of each strong view, of y and m, is filled from another image so treated
    L = L_x + sum m CE(strong, y) / all pixels,   m = 1[q >= tau]

From the released code (Zhao et al. 2023, arXiv:2212.04976): labelled images are pasted as their weak views are, and
their void pixels count as nothing, as padding does. The mean c_i is over valid pixels. The law of the boxes is that of
`views.preset`; "augseg" has the published one. The teacher is the average of the weights, `train.ema`. Images with one
label each have no boxes; FixMatch with a teacher is what is left.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import check_choice
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import confidence, normalized_entropy, probability
from sfumato.functional.reduce import DIVISORS, weighted_mean
from sfumato.methods.base import Method, Networks
from sfumato.rules import FixedThreshold, Hard
from sfumato.types import Batch, Labeled, Losses, Pasting, Progress, Pseudo, ViewSpec


class AugSeg(Method):
    """A strong view into which the method itself pastes, once it knows the pseudo-labels.

    Args:
        threshold: tau.
        lambda_u: weight of the unlabelled loss.
        normalize: as in `Consistency`.
        labeled_strong: train on strong views of the labelled images too.
    """

    def __init__(self, *, threshold: float, lambda_u: float, normalize: str, labeled_strong: bool) -> None:
        super().__init__()
        check_choice("augseg", "normalize", normalize, DIVISORS)
        self.weigh, self.target = FixedThreshold(threshold), Hard()
        self.lambda_u, self.normalize = lambda_u, normalize
        self.views = ViewSpec(uncut=1, pasting=True, teacher="ema", labeled_strong=labeled_strong)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        u = batch.unlabeled
        if u is None:
            out = nets.forward(batch, self.views)
            supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
            return Losses(supervised, torch.zeros_like(supervised))

        weak = nets.weak(batch, self.views)
        with torch.no_grad():
            p = probability(weak.logits)
            pseudo = Pseudo(self.target(p), self.weigh(p), u.valid)
            unsure = u.draw("label-adaptive boxes", 1)[:, 0] >= certainty(p, u.valid)
        assert u.pasting is not None
        strong, warped = pasted(u.strong[0], u.warps[0](pseudo), batch.labeled, u.pasting, unsure)
        batch = replace(batch, unlabeled=replace(u, strong=(strong,)))
        out = nets.forward(batch, self.views, weak)

        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
        charge = cross_entropy(out.strong[0].logits, warped.target)
        unsupervised = weighted_mean(charge, warped.weight, over=warped.valid, normalize=self.normalize)
        return Losses(supervised, self.lambda_u * unsupervised, pseudo=pseudo)


def certainty(p: Tensor, valid: Tensor) -> Tensor:
    """c_i, the mean of max p (1 - e) over the valid pixels of each image, (N, C, *S), (N, *S) -> (N,)."""
    sure = (confidence(p)[0] * (1 - normalized_entropy(p)) * valid).reshape(len(p), -1)
    return sure.sum(dim=1) / valid.reshape(len(p), -1).sum(dim=1).clamp_min(1.0)


def pasted(strong: Tensor, pseudo: Pseudo, labeled: Labeled, pasting: Pasting, unsure: Tensor) -> tuple[Tensor, Pseudo]:
    """Strong views (N, channels, *image) and pseudo-labels with both boxes filled."""
    rows = torch.arange(len(strong), device=strong.device) * len(labeled.x) // len(strong)  # each used equally often
    y = labeled.y.masked_fill(labeled.valid == 0, 0)
    truth = Pseudo(y[rows], torch.ones_like(pseudo.weight), labeled.valid[rows])
    adaptive = pasting.labeled.only(unsure)
    helped, known = adaptive.images(strong, labeled.x[rows]), adaptive(pseudo, truth)
    return pasting.others.images(strong, helped), pasting.others(pseudo, known)


def augseg(
    *,
    threshold: float = 0.95,
    normalize: Literal["valid", "selected", "all", "weight_sum"] = "all",
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> AugSeg:
    """The method as released.

    Args:
        threshold: tau; the authors take every pixel on Cityscapes, 0.
        normalize: what divides the unlabelled loss: valid predictions, selected ones, all, or the sum of the weights.
        lambda_u: weight of the unlabelled loss.
        labeled_strong: train on strong views of the labelled images too.
    """
    return AugSeg(threshold=threshold, lambda_u=lambda_u, normalize=normalize, labeled_strong=labeled_strong)
