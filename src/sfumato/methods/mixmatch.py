"""MixMatch (Berthelot et al. 2019, arXiv:1905.02249).

    q   = sharpen(mean over K weak views of p(u), T)
    L_x = mean CE(p(x'), y')            (x', y') and (u', q'): s a + (1 - s) b of all rows and the same rows shuffled,
    L_u = mean |p(u') - q'|^2 / C       s = max(s, 1 - s) of its own for each, Beta(alpha, alpha)
    L   = L_x + lambda_u r(k) L_u

Rows are the labeled images and all K views of the unlabeled ones, of all ranks. r rises linearly over the first `ramp`
of training, the paper's first 16,000 steps of 2^20 by default.

Batch norm: all mixed images go through together, and its statistics are of all of them, labeled and not. The released
code cuts the mixed rows into batches of the labeled size, of which it interleaves some of each kind, and counts the
first alone; a peer cuts them without interleaving. One forward needs neither, nor sizes that divide each other. For
the guess the views go through unmixed and together, and leave no trace in the running statistics.

For one class per image: on maps the K weak views are the same image, and to average them says nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from sfumato.errors import UsageError
from sfumato.functional.divergence import mse
from sfumato.functional.mixmatch import guessed
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.base import Method
from sfumato.rules import Ramp
from sfumato.rules.mixup import checked_alpha, mixture
from sfumato.rules.refine import checked_temperature
from sfumato.types import Batch, Losses, Networks, Progress, Pseudo, Unlabeled, ViewSpec


class MixMatch(Method):
    mixes_labels: ClassVar[bool] = True

    def __init__(self, *, weak_views: int, temperature: float, alpha: float, lambda_u: float, ramp: float) -> None:
        super().__init__()
        if weak_views < 1:
            raise UsageError(f"mixmatch(weak_views={weak_views}): expected at least 1 view; the paper has 2.")
        self.temperature = checked_temperature("mixmatch", temperature)
        self.alpha = checked_alpha("mixmatch", alpha)
        self.lambda_u = Ramp(0.0, lambda_u, over=ramp)
        self.views = ViewSpec(strong=weak_views - 1, further="weak", weak_gradient=True)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        u, labels_only = batch.unlabeled, replace(self.views, weak=False)
        if u is None:
            supervised = self.supervised_loss(batch.labeled, nets.forward(batch, labels_only).labeled)
            return Losses(supervised, torch.zeros_like(supervised))
        with torch.no_grad():
            pseudo = self.guess(nets, u)
        labels = (pseudo, *(warp(pseudo) for warp in u.warps))
        mixed = mixture(batch, (u.weak, *u.strong), labels, self.alpha)
        logits = nets.forward(Batch(replace(batch.labeled, x=mixed.images)), labels_only).labeled.logits
        supervised = self.supervised_loss(*mixed.truth(logits))
        rest, z = mixed.rest(logits)
        unsupervised = weighted_mean(mse(z, rest.target), rest.weight, over=rest.valid)
        return Losses(supervised, self.lambda_u(progress) * unsupervised, pseudo=pseudo)

    def guess(self, nets: Networks, u: Unlabeled) -> Pseudo:
        """One label (N, C) for all weak views of an image; each counts fully."""
        views = (u.weak, *u.strong)
        logits = nets.further(torch.cat(views), statistics=False).logits
        return Pseudo(guessed(torch.split(logits, len(u.weak)), self.temperature), torch.ones_like(u.valid), u.valid)


def mixmatch(
    dense: bool = False,
    *,
    weak_views: int = 2,
    temperature: float = 0.5,
    alpha: float = 0.75,
    lambda_u: float = 10.0,
    ramp: float = 1 / 64,
) -> MixMatch:
    """The student is to predict mixed labels for mixed images, with labels and with guesses alike.

    Args:
        dense: labels are maps.
        weak_views: K, over which a guess is averaged, and each of which is mixed.
        temperature: T of the guess.
        alpha: of the Beta distribution of the shares.
        lambda_u: weight of L_u: 75 on CIFAR-10, 150 on CIFAR-100 and 250 on SVHN in the paper, whose optimizer is Adam
            at a rate of 0.002. With SGD at a rate of 0.1 that is too much.
        ramp: share of training over which lambda_u rises from 0; 0.4 in later benchmarks.

    Raises:
        UsageError: maps, or a number out of range.
    """
    if dense:
        raise UsageError(
            "mixmatch is for one class per image only: it labels an image by the mean of several weak views, which on "
            "masks are all the same. For masks take cutmix_seg, which mixes too, or fixmatch."
        )
    return MixMatch(weak_views=weak_views, temperature=temperature, alpha=alpha, lambda_u=lambda_u, ramp=ramp)
