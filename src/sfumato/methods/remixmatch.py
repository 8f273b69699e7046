"""ReMixMatch (Berthelot et al. 2020, arXiv:1911.09785): MixMatch with aligned guesses from one weak view, which strong
views are to predict, and two further losses.

    q    = sharpen(align(p(u weak)), T)           one guess for all views of an image
    L_x  = mean CE(p(x'), y')                     x', u': rows (x strong, s_0, ..., s_K-1, u weak), mixed with all
    L_u  = mean CE(p(u'), q')                     shuffled as in MixMatch, but charged by the cross-entropy
    L_0  = mean CE(p(s_0), q)                     the first strong view before it is mixed
    L_r  = mean CE(rotation head(s_0 turned by v), v)     v: 0, 1, 2 or 3 quarters
    L    = L_x + r(k) (lambda_u L_u + lambda_premix L_0) + lambda_rotation L_r

r rises linearly over the first `ramp` of training, the paper's 1/64. Guesses are aligned with the class frequencies of
the labels by the mean prediction of the last `window` batches, so that a class without labels is hardly ever guessed.

The paper has K = 8 views of CTAugment; here, as in later libraries, they are 2 of the strong views that other methods
see. The mixed rows go through together, s_0 and the turned images each apart, and leave no trace in the
running statistics of batch norm: see `mixmatch`, of which the mixing is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.reduce import weighted_mean
from sfumato.functional.refine import sharpen
from sfumato.methods.base import Method
from sfumato.rules import DistributionAlignment, Ramp, Rotation
from sfumato.rules.mixup import checked_alpha, mixture
from sfumato.rules.refine import checked_temperature
from sfumato.types import Batch, Context, Losses, Networks, Output, Progress, Pseudo, Unlabeled, Views, ViewSpec

LabeledView = Literal["strong", "weak"]


class ReMixMatch(Method):
    mixes_labels: ClassVar[bool] = True

    def __init__(
        self,
        *,
        align: DistributionAlignment,
        temperature: float,
        alpha: float,
        weights: tuple[float, float, float],
        ramp: float,
        strong_views: int,
        labeled_view: LabeledView,
    ) -> None:
        super().__init__()
        check_choice("remixmatch", "labeled_view", labeled_view, get_args(LabeledView))
        if strong_views < 1:
            raise UsageError(f"remixmatch(strong_views={strong_views}): expected at least 1 view.")
        self.align = align
        self.temperature = checked_temperature("remixmatch", temperature)
        self.alpha = checked_alpha("remixmatch", alpha)
        self.lambda_u, self.lambda_premix, rotation = weights
        self.rotation = Rotation(weight=rotation, view="strong") if rotation else None
        self.ramp = Ramp(0.0, 1.0, over=ramp)
        self.views = ViewSpec(strong=strong_views, weak_gradient=True, labeled_strong=labeled_view == "strong")

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        if batch.labeled.strong is not None and self.views.labeled_strong:
            batch = replace(batch, labeled=replace(batch.labeled, x=batch.labeled.strong))
        u, labels_only = batch.unlabeled, replace(self.views, weak=False, labeled_strong=False)
        if u is None:
            supervised = self.supervised_loss(batch.labeled, nets.forward(batch, labels_only).labeled)
            return Losses(supervised, torch.zeros_like(supervised))
        with torch.no_grad():
            pseudo = self.guess(nets, batch, u, progress)
        warped = [warp(pseudo) for warp in u.warps]
        mixed = mixture(batch, (*u.strong, u.weak), (*warped, pseudo), self.alpha)
        logits = nets.forward(Batch(replace(batch.labeled, x=mixed.images)), labels_only).labeled.logits
        supervised = self.supervised_loss(*mixed.truth(logits))
        ramp, (rest, z) = self.ramp(progress), mixed.rest(logits)
        unsupervised = ramp * self.lambda_u * _charge(z, rest)
        extras = {}
        if self.lambda_premix:
            first = nets.further(u.strong[0], statistics=False).logits
            extras["premix"] = ramp * self.lambda_premix * _charge(first, warped[0])
        if self.rotation is not None:
            extras["rotation"] = self.rotation(Views(Output(logits)), batch, pseudo, nets)
        return Losses(supervised, unsupervised, extras, pseudo)

    def guess(self, nets: Networks, batch: Batch, u: Unlabeled, progress: Progress) -> Pseudo:
        """The aligned and sharpened prediction (N, C) for the weak view; each counts fully."""
        logits, labeled = nets.further(u.weak, statistics=False).logits, batch.labeled
        p = probability(logits)
        # No labeled image goes through as it is, and alignment with labels asks for none.
        seen = Context(progress, u.index, logits[:0], labeled.y, labeled.valid, labeled_index=labeled.index)
        self.align.observe(p, u.valid, seen)
        return Pseudo(sharpen(self.align(p), self.temperature), torch.ones_like(u.valid), u.valid)


def _charge(logits: Tensor, pseudo: Pseudo) -> Tensor:
    return weighted_mean(cross_entropy(logits, pseudo.target), pseudo.weight, over=pseudo.valid)


def remixmatch(
    num_classes: int,
    dense: bool = False,
    *,
    temperature: float = 0.5,
    alpha: float = 0.75,
    window: int | None = 128,
    strong_views: int = 2,
    labeled_view: LabeledView = "strong",
    lambda_u: float = 1.5,
    lambda_premix: float = 0.5,
    lambda_rotation: float = 0.5,
    ramp: float = 1 / 64,
) -> ReMixMatch:
    """The student is to predict mixed labels for mixed strong views, and how images are turned.

    Args:
        num_classes: C.
        dense: labels are maps.
        temperature: T of the guess.
        alpha: of the Beta distribution of the shares.
        window: batches over which predictions are averaged for the alignment; none for a moving average that remembers
            1,000.
        strong_views: K.
        labeled_view: of the labeled images, which is mixed with the others; "weak" in later libraries.
        lambda_u: weight of L_u.
        lambda_premix: of L_0; 0 leaves it and its forward out.
        lambda_rotation: of L_r, which is not ramped; 0 leaves it out, for images that are not square.
        ramp: share of training over which the first two weights rise from 0.

    Raises:
        UsageError: maps, an unknown view, or a number out of range.
    """
    if dense:
        raise UsageError(
            "remixmatch is for one class per image only: it asks by how much a whole image is turned, and mixes all of "
            "it. For masks take unimatch, which has two strong views and mixes them by CutMix."
        )
    return ReMixMatch(
        align=DistributionAlignment(num_classes, target="labeled", window=window),
        temperature=temperature,
        alpha=alpha,
        weights=(lambda_u, lambda_premix, lambda_rotation),
        ramp=ramp,
        strong_views=strong_views,
        labeled_view=labeled_view,
    )
