"""CSL: confidence separated by learning, and trusted regions masked.

With p the student's prediction on the weak view, and h = (confidence, dispersion of the losing classes) of each:

    the predictions of an image are split in two by the singular vectors of all its h                      (eq. 7-9)
    weight 1 at the good side of the reliable part's mean h, a Gaussian of the distance from it elsewhere  (eq. 10-11)
    masked view: 0 where a patch is drawn and the prediction is reliable, which has weight 1               (eq. 12-13)
    dropped view: the weak one from features with half of the channels dropped                         (as released)
    L = L_x + lambda_u (0.25 L_strong + 0.25 L_masked + 0.5 L_dropped),  each mean w CE(view, argmax p)       (eq. 15)

Images with one prediction each form one set, the batch. Of such an image either nothing is masked or, when its
prediction is reliable, every patch that was drawn.

Where the paper contradicts itself this follows the authors' code. Eq. 7 calls a large dispersion reliable, all else the
small one. Eq. 11 gives weight 1 beyond both means, `keep="and"`; the code beyond either, which lets flat predictions
of low confidence in early on. Eq. 10 is exp(-z^2 / 8), the pseudocode's kernel another. Eq. 12-13 keep of an image only
the reliable patches drawn, `polarity="literal_eq13"`; all else masks them. `split="pc1"` is what the split is meant to
be, and tells confident from doubtful predictions, which the printed one does not: it cuts dispersion / confidence.

Eq. 15 has the first two terms, half each: `shares=(0.5, 0.5, 0)`. The third is half of the authors' unlabelled loss.
The loss is not halved as theirs, which is a matter of the learning rate. Views of images with one label each draw the
same colors for the masked view as for the strong one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import DIVISORS, weighted_mean
from sfumato.functional.spectral import Floor, Keep
from sfumato.methods.base import Method, Networks
from sfumato.rules import FeaturePerturbation, Hard, Spectral
from sfumato.rules.perturbation import checked_rate
from sfumato.rules.spectral import Features, Kernel, Split
from sfumato.types import Batch, Context, Losses, Progress, Pseudo, Unlabeled, ViewSpec

Polarity = Literal["mask_reliable", "literal_eq13"]
Shares = tuple[float, float, float]


class CSL(Method):
    """A strong view that may be cut and mixed, one of which trusted patches are masked, and one from dropped features.

    Args:
        weigh: the split and its weights; a weight of 1 is reliable.
        shares: of the strong, the masked and the dropped term; features are dropped only if the last is above 0.
        feature_dropout: share of the channels to drop.
        lambda_u: weight of all three.
        polarity: whether drawn reliable patches are masked or, as printed, all but them.
        normalize: as in `Consistency`.
        labeled_strong: train on strong views of the labelled images too.
    """

    def __init__(
        self,
        weigh: Spectral,
        *,
        shares: Shares,
        feature_dropout: float,
        lambda_u: float,
        polarity: Polarity,
        normalize: str,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        check_choice("csl", "polarity", polarity, ("mask_reliable", "literal_eq13"))
        check_choice("csl", "normalize", normalize, DIVISORS)
        if min(shares) < 0 or not sum(shares) > 0:
            raise UsageError(
                f"csl(shares={shares}): expected three shares, of the strong, masked and dropped term, not below 0."
            )
        self.weigh, self.target = weigh, Hard()
        self.shares, self.lambda_u, self.polarity, self.normalize = shares, lambda_u, polarity, normalize
        rate = checked_rate("csl", feature_dropout) if shares[2] else 0.0
        self.dropped = FeaturePerturbation(weight=lambda_u * shares[2], normalize=normalize) if rate else None
        self.views = ViewSpec(strong=2, uncut=1, patches=True, labeled_strong=labeled_strong, feature_dropout=rate)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        u = batch.unlabeled
        if u is None:
            out = nets.forward(batch, self.views)
            supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
            return Losses(supervised, torch.zeros_like(supervised))

        weak = nets.weak(batch, self.views)
        with torch.no_grad():
            p = probability(weak.logits)
            self.weigh.observe(p, u.valid, _before_labels(batch, p, progress))
            pseudo = Pseudo(self.target(p), self.weigh(p), u.valid)
        strong = (*u.strong[:-1], self._masked(u, pseudo))
        out = nets.forward(replace(batch, unlabeled=replace(u, strong=strong)), self.views, weak)

        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
        unsupervised = torch.zeros_like(supervised)
        for view, warp, share in zip(out.strong, u.warps, self.shares[:2], strict=True):
            warped = warp(pseudo)
            charge = cross_entropy(view.logits, warped.target)
            loss = weighted_mean(charge, warped.weight, over=warped.valid, normalize=self.normalize)
            unsupervised = unsupervised + share * loss
        extras = {} if self.dropped is None else {self.dropped.name: self.dropped(out, batch, pseudo, nets)}
        return Losses(supervised, self.lambda_u * unsupervised, extras, pseudo)

    def _masked(self, u: Unlabeled, pseudo: Pseudo) -> Tensor:
        """The last strong view, 0 (the mean color) where it is masked."""
        assert u.patches is not None
        reliable = replace(pseudo, weight=(pseudo.weight >= 1).to(pseudo.weight.dtype))
        there = u.warps[-1](reliable).weight > 0
        # one prediction for the image holds in all its places
        there = there.reshape(*there.shape, *(1,) * (u.patches.dim() - there.dim()))
        trusted = there & (u.patches > 0)
        kept = trusted if self.polarity == "literal_eq13" else ~trusted
        return u.strong[-1] * kept.unsqueeze(1)


def _before_labels(batch: Batch, p: Tensor, progress: Progress) -> Context:
    """What there is to see before the labelled images have gone through: nothing of them."""
    assert batch.unlabeled is not None
    return Context(progress, batch.unlabeled.index, p[:0], batch.labeled.y[:0], batch.labeled.valid[:0])


def csl(
    *,
    split: Split = "absV",
    features: Features = "raw",
    keep: Keep = "or",
    kernel: Kernel = "z2_over_alpha",
    floor: Floor = "shared",
    conf_floor: float = 0.0,
    polarity: Polarity = "mask_reliable",
    normalize: Literal["valid", "selected", "all", "weight_sum"] = "valid",
    shares: Shares = (0.25, 0.25, 0.5),
    feature_dropout: float = 0.5,
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> CSL:
    """The method with the authors' readings; `csl_robust` has those that separate better.

    Args:
        split: "absV" compares the two right singular vectors (eq. 9); "pc1" takes the sign of the first principal
            component of the standardized features; "fixed" a confidence of 0.95.
        features: of the losing classes: their variance, the authors' variant of it, its root or its logarithm.
        keep: weight 1 beyond either mean, beyond both, or from a Gaussian that is flat on the good side.
        kernel: exp(-z^2 / 8) or exp(-(z / 8)^2).
        floor: of the standard deviations: the authors', or one for each feature.
        conf_floor: no weight below this confidence.
        polarity: mask the reliable patches that are drawn or, as printed, all but them.
        normalize: what divides each term: valid predictions, selected ones, all, or the sum of the weights.
        shares: of the strong, the masked and the dropped term; a last one of 0 leaves features whole.
        feature_dropout: share of the channels to drop; 0 leaves the dropped term out.
        lambda_u: weight of the unlabelled loss.
        labeled_strong: train on strong views of the labelled images too.
    """
    weigh = Spectral(split=split, features=features, keep=keep, kernel=kernel, floor=floor, conf_floor=conf_floor)
    return CSL(
        weigh,
        shares=shares,
        feature_dropout=feature_dropout,
        lambda_u=lambda_u,
        polarity=polarity,
        normalize=normalize,
        labeled_strong=labeled_strong,
    )


csl_robust = partial(csl, split="pc1", features="sqrt", keep="onesided", conf_floor=0.5)
