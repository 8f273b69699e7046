"""CorrMatch: the places of an image tell each other what they are, by how alike their features look.

With z the logits, p = softmax z and q = max p of the student on the weak view, f1 and f2 two projections of its
features to C channels on a coarse grid of h w places:

    A = softmax(f1^T f2 / sqrt(C)), row by row;  z_corr = z A, without gradient to z
    tau <- momentum tau + (1 - momentum) mean of the largest q of each class predicted in the batch, from 0.85
    y, m: the class of p and 1[q >= tau], then grown: of some rows of A, drawn at random, the part above the middle of
        the row's range takes one class whole if more than tau of it has m = 1, and more than tau of that is the class
    L_h = mean m CE(strong, y),  L_k = mean 1[q >= tau] KL(p || strong),  L_f = mean m CE(weak with features dropped, y)
    L_c = (mean m CE(z_corr of weak, y) + mean m CE(z_corr of strong, y)) / 2
    L = (0.5 CE(z, labels) + 0.5 CE(z_corr, labels) + 0.25 (L_h + L_k + L_f + L_c)) / 2

The weights are those of the released code of Sun et al. 2023, arXiv:2306.04300. Labels and p are mixed as the strong
view is before the two are compared. The release compares it with the p of the images before mixing, in part the pixels
of different images; this is `kl="released"`. Segments are judged by the labels from before any growth, and where two
overlap the later one in the order of the draw holds.

Here padding and void pixels take no part in A, in tau or in segments. The projection is a 3x3 convolution to 256
channels, a ReLU and two convolutions of 1x1, without norm or dropout. A grows with the fourth power of the side of its
grid, so features of more than `grid` x `grid` places are resized to so many: A then takes at most 11 MB an image, as
at stride 8 and crops of 321 pixels; at stride 8 and crops of 801 it would take 416 MB.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.errors import UsageError, check_choice
from sfumato.functional.correlation import bounded, correlation, drawn_regions, grown, propagated, resized
from sfumato.functional.divergence import Divergence, cross_entropy, kl
from sfumato.functional.probability import full_precision, probability
from sfumato.functional.reduce import DIVISORS, weighted_mean
from sfumato.methods.base import Method, Networks, context
from sfumato.rules import FeaturePerturbation, Hard, PeakThreshold
from sfumato.rules.base import attached
from sfumato.rules.perturbation import checked_rate
from sfumato.types import Batch, Labeled, Losses, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec

Shares = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Correlated:
    """What a view's places say of each other."""

    a: Tensor  # (N, h w, h w)
    valid: Tensor  # (N, h, w) of the grid
    output: Output  # z_corr as (N, C, H, W) logits


class Correlation(nn.Module):
    """Features (N, D, h, w) and logits (N, C, H, W) to A and z_corr.

    The second projection has no bias: it would add the same to all of a row, which softmax takes out again.
    """

    def __init__(self, features: int, num_classes: int, *, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.project = nn.Conv2d(features, width, 3, padding=1)
        self.queries = nn.Conv2d(width, num_classes, 1)
        self.keys = nn.Conv2d(width, num_classes, 1, bias=False)

    def forward(self, out: Output, valid: Tensor) -> Correlated:
        """valid: (N, H, W) of 0 and 1. At least float32, under autocast too: segments must not hang on rounding."""
        if out.features is None or out.features.dim() != 4:
            raise UsageError(
                "corrmatch needs maps of features, Output(features=(N, D, h, w)), and the network has none."
            )
        x = full_precision(out.features)
        size = bounded((x.shape[2], x.shape[3]), self.grid)
        there = (resized(valid.to(x.dtype).unsqueeze(1), size) > 0.5).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            y = F.relu(self.project(resized(x, size).masked_fill(there == 0, 0.0)))
            a = correlation(self.queries(y), self.keys(y), there[:, 0])
        low = propagated(resized(out.logits.detach(), size), a, there[:, 0])
        # Places that are not valid have 0 in `low`: pixels beside them are to be means of the others, not of zeros too.
        high, share = (resized(x, (valid.shape[1], valid.shape[2])) for x in (low, there))
        return Correlated(a, there[:, 0], Output(high / torch.where(share > 0, share, 1.0)))


class CorrMatch(Method):
    """A labeler, a student and a correlation of its features, all one network but for the projection.

    Args:
        num_classes: C.
        weigh: q against tau.
        correlate: makes the projection from the number of features.
        regions: rows of A to draw for each image.
        kl: with which p the strong view is compared, "mixed" or "released".
        shares: of L_h, L_k, L_f and L_c; features are dropped only if the third is above 0.
        feature_dropout: share of the channels to drop.
        normalize: as in `Consistency`.
        scale: of the whole loss.
        labeled_strong: train on strong views of the labelled images too.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        weigh: PeakThreshold,
        correlate: Callable[[int], Correlation],
        regions: int,
        kl: str,
        shares: Shares,
        feature_dropout: float,
        normalize: str,
        scale: float,
        labeled_strong: bool,
    ) -> None:
        super().__init__()
        check_choice("corrmatch", "normalize", normalize, DIVISORS)
        if min(shares) < 0:
            raise UsageError(f"corrmatch(shares={shares}): expected four shares, none of them below 0.")
        if regions < 1:
            raise UsageError(f"corrmatch(regions={regions}): expected a number of rows to draw, at least 1.")
        self.num_classes, self.regions, self.kl = num_classes, regions, kl
        self.weigh, self.target, self.correlate = weigh, Hard(), correlate
        self.shares, self.normalize, self.scale = shares, normalize, scale
        self.correlation: Correlation | None = None
        rate = checked_rate("corrmatch", feature_dropout) if shares[2] else 0.0
        self.dropped = FeaturePerturbation(weight=scale * shares[2], normalize=normalize) if rate else None
        self.views = ViewSpec(weak_gradient=True, feature_dropout=rate, labeled_strong=labeled_strong)

    def attach(self, net: nn.Module) -> None:
        super().attach(net)
        self.correlation = self.correlate(cast(int, net.num_features))

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out, u = nets.forward(batch, self.views), batch.unlabeled
        supervised = self.scale * self._supervised(batch.labeled, out)
        if u is None or out.weak is None:
            return Losses(supervised, torch.zeros_like(supervised))

        weak = self._correlated(out.weak, u.valid)
        with torch.no_grad():
            p = probability(out.weak.logits)
            self.weigh.observe(p, u.valid, context(batch, out, progress))
            sure = self.weigh(p)
            pseudo = self._grown(Pseudo(self.target(p), sure, u.valid), weak, u)
            soft = Pseudo(p, sure, u.valid)
        (strong,), (warp,) = out.strong, u.warps
        warped = warp(pseudo)
        spread = self._correlated(strong, warped.valid)

        hard_term = self._mean(cross_entropy, strong, warped)
        soft_term = self._mean(kl, strong, warp(soft) if self.kl == "mixed" else soft)
        spread_term = self._mean(cross_entropy, weak.output, pseudo) + self._mean(cross_entropy, spread.output, warped)
        unsupervised = self.scale * (self.shares[0] * hard_term + self.shares[1] * soft_term)
        extras = {"correlation": self.scale * self.shares[3] * spread_term / 2}
        if self.dropped is not None:
            extras[self.dropped.name] = self.dropped(out, batch, pseudo, nets)
        return Losses(supervised, unsupervised, extras, pseudo)

    def _supervised(self, labeled: Labeled, out: Views) -> Tensor:
        plain = self.supervised_loss(labeled, out.labeled, out.labeled_strong)
        weak, strong = self._correlated(out.labeled, labeled.valid).output, None
        if out.labeled_strong is not None:
            seen = labeled.warp(Pseudo(labeled.y, torch.ones_like(labeled.valid), labeled.valid)).valid
            strong = self._correlated(out.labeled_strong, seen).output
        return (plain + self.supervised_loss(labeled, weak, strong)) / 2

    def _correlated(self, out: Output, valid: Tensor) -> Correlated:
        found: Correlated = attached(self.correlation, "corrmatch")(out, valid)
        return found

    def _grown(self, pseudo: Pseudo, weak: Correlated, u: Unlabeled) -> Pseudo:
        regions = drawn_regions(weak.a.detach(), weak.valid, u.draw("regions", self.regions))
        label, selected = grown(
            regions,
            cast(Tensor, pseudo.target),
            pseudo.weight,
            pseudo.valid,
            threshold=self.weigh.level.value,
            num_classes=self.num_classes,
        )
        return Pseudo(label, selected, pseudo.valid)

    def _mean(self, divergence: Divergence, out: Output, pseudo: Pseudo) -> Tensor:
        charge = divergence(out.logits, pseudo.target)
        return weighted_mean(charge, pseudo.weight, over=pseudo.valid, normalize=self.normalize)


def corrmatch(
    num_classes: int,
    dense: bool,
    *,
    threshold: float = 0.85,
    momentum: float = 0.999,
    regions: int = 128,
    grid: int = 41,
    width: int = 256,
    kl: Literal["mixed", "released"] = "mixed",
    shares: Shares = (0.25, 0.25, 0.25, 0.25),
    feature_dropout: float = 0.5,
    normalize: Literal["valid", "selected", "all", "weight_sum"] = "valid",
    halve: bool = True,
    labeled_strong: bool = False,
) -> CorrMatch:
    """The method as released, but for the comparison of different images.

    Args:
        num_classes: C.
        dense: labels are maps; must be true.
        threshold: tau to start with.
        momentum: of tau.
        regions: rows of A to draw for each image.
        grid: features of more than `grid` x `grid` places are resized to so many; memory grows with its fourth power.
        width: channels of the projection before f1 and f2.
        kl: compare the mixed strong view with p mixed alike or, as released, with p of the images before mixing.
        shares: of L_h, L_k, L_f and L_c; with 0 for L_f features stay whole.
        feature_dropout: share of the channels to drop; 0 leaves L_f out.
        normalize: what divides each term: valid predictions, selected ones, all, or the sum of the weights.
        halve: divide the whole loss by 2.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: labels that are no maps, or a number out of range.
    """
    if not dense:
        raise UsageError(
            "corrmatch is for images with masks only: it spreads labels between the places of an image, and the label "
            "of a whole image has none. Take unimatch, of which it is a refinement."
        )
    check_choice("corrmatch", "kl", kl, ("mixed", "released"))
    for key, value in (("grid", grid), ("width", width)):
        if value < 1:
            raise UsageError(f"corrmatch({key}={value}): expected a number of at least 1.")
    if kl == "released":
        warnings.warn(
            "corrmatch(kl='released') compares predictions on mixed images with p of the images before mixing: in the "
            "region of a CutMix they are of different images. 'mixed' mixes p too.",
            stacklevel=2,
        )
    return CorrMatch(
        num_classes,
        weigh=PeakThreshold(num_classes, threshold=threshold, momentum=momentum),
        correlate=partial(Correlation, num_classes=num_classes, width=width, grid=grid),
        regions=regions,
        kl=kl,
        shares=shares,
        feature_dropout=feature_dropout,
        normalize=normalize,
        scale=0.5 if halve else 1.0,
        labeled_strong=labeled_strong,
    )
