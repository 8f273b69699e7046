"""Self-training in rounds: a trained network labels images on the disk, and the next is trained from scratch on them.

ST (Yang et al. 2022, ST++, arXiv:2106.05095, algorithm 1) trains on the labels, labels every other image by the trained
network, and trains another on both. ST++ (algorithm 2) labels in two parts, those images first of which the first
network was sure early:

    1. train on the labels, keeping copies of the network after 1/3, 2/3 and 3/3 of the steps
    2. s(x) = mean over the two earlier copies of mIoU(M_k(x), M_3(x));   the half with the largest s is reliable
    3. label the reliable half; train from scratch on labels and these
    4. label the rest by the new network; train from scratch on all

Labelled images are seen as weak views, pseudo-labelled ones as strong views with CutOut, whose boxes are filled with
noise and count as nothing. The loss of a round is the mean over the valid pixels of both,

    L = (n_x L_x + n_u L_u) / (n_x + n_u),   n_x and n_u the valid pixels of the step

which is the published mean over one shuffled list of both, where the list of labels is repeated to the length of the
other; here each step has its share of both. The labels are those of the image and of its mirror image together. The
released code also averages them over scales, takes the network that was best on the images it reports, and shows the
first network weak views only (`first="supervised"`); here the first one sees the strong views of the baseline.

With one label an image, s(x) is the share of the copies that agree, and the strong view is the one of the preset. Every
round takes `train.steps`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from sfumato.distributed import mean_over_ranks
from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.reduce import weighted_mean
from sfumato.methods.base import Method, Networks
from sfumato.types import Batch, Losses, Progress, Rounds, ViewSpec

First = Literal["supervised_strong", "supervised"]
Mean = Literal["union", "each"]


class SelfTraining(Method):
    """One round: labels, and labels of an earlier network that are read with the images.

    Args:
        rounds: how those labels come about.
        mean: "union", the mean over the valid entries of both; "each", the mean of the labels plus that of the others.
        cutout: erase boxes of the strong views.
        labeled_strong: train on strong views of the labelled images too.
    """

    def __init__(self, *, rounds: Rounds, mean: str, cutout: bool, labeled_strong: bool) -> None:
        super().__init__()
        check_choice("self-training", "mean", mean, ("union", "each"))
        check_choice("self-training", "first", rounds.first, ("supervised_strong", "supervised"))
        if rounds.reliable is not None and not 0 < rounds.reliable < 1:
            raise UsageError(
                f"st_pp: reliable={rounds.reliable}: expected a share of the images between 0 and 1, such as 0.5. "
                "method=st labels all of them at once."
            )
        self.rounds, self.mean = rounds, mean
        self.views = ViewSpec(stored=True, cutout=cutout, labeled_strong=labeled_strong)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out = nets.forward(batch, self.views)
        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
        u = batch.unlabeled
        if u is None:
            return Losses(supervised, torch.zeros_like(supervised))
        assert u.stored is not None
        pseudo = replace(u.stored, valid=u.stored.valid * u.valid)
        warped = u.warps[0](pseudo)
        charge = cross_entropy(out.strong[0].logits, warped.target)
        unsupervised = weighted_mean(charge, warped.weight, over=warped.valid)
        if self.mean == "union":
            share = labeled_share(batch.labeled.valid, warped.valid)
            supervised, unsupervised = share * supervised, (1 - share) * unsupervised
        return Losses(supervised, unsupervised, pseudo=pseudo)


def labeled_share(labeled: Tensor, unlabeled: Tensor) -> Tensor:
    """n_x / (n_x + n_u), of the valid entries (M, *S) and (N, *S) of all ranks; 0 where there are none."""
    x, u = mean_over_ranks(torch.stack([labeled.sum(), unlabeled.sum()])).unbind()
    both = x + u
    return x / torch.where(both > 0, both, 1.0)


def st(
    *,
    first: First = "supervised_strong",
    labeler: Literal["last", "best"] = "last",
    flip: bool = True,
    mean: Mean = "union",
    cutout: bool = True,
    labeled_strong: bool = False,
) -> SelfTraining:
    """Two rounds: the first network labels all images.

    Args:
        first: the labels-only method of the first round; "supervised" is the published one.
        labeler: the network that labels: the last of its training, or the one that was best on validation.
        flip: label by the image and its mirror image together, where the views of training are mirrored too.
        mean: "union" is the mean over the pixels of both kinds of labels; "each" adds the mean of each.
        cutout: erase boxes of the strong views of images with masks.
        labeled_strong: train on strong views of the labelled images too, after the first round.
    """
    rounds = Rounds(first, None, labeler, flip)
    return SelfTraining(rounds=rounds, mean=mean, cutout=cutout, labeled_strong=labeled_strong)


def st_pp(
    *,
    reliable: float = 0.5,
    first: First = "supervised_strong",
    labeler: Literal["last", "best"] = "last",
    flip: bool = True,
    mean: Mean = "union",
    cutout: bool = True,
    labeled_strong: bool = False,
) -> SelfTraining:
    """Three rounds: the first network labels the images that it was sure of early, the second one the others.

    Args:
        reliable: share of the images that the first network labels.
        first: the labels-only method of the first round; "supervised" is the published one.
        labeler: the network that labels: the last of its training, or the one that was best on validation.
        flip: label by the image and its mirror image together, where the views of training are mirrored too.
        mean: "union" is the mean over the pixels of both kinds of labels; "each" adds the mean of each.
        cutout: erase boxes of the strong views of images with masks.
        labeled_strong: train on strong views of the labelled images too, after the first round.
    """
    rounds = Rounds(first, reliable, labeler, flip)
    return SelfTraining(rounds=rounds, mean=mean, cutout=cutout, labeled_strong=labeled_strong)
