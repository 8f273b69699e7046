"""Mixing all images of a step with each other, as MixMatch and ReMixMatch do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from sfumato.distributed import gather_batch, rank
from sfumato.errors import UsageError
from sfumato.functional.mix import mixed
from sfumato.functional.mixmatch import larger_share, mixed_labels, permutation
from sfumato.functional.probability import one_hot
from sfumato.types import Batch, Labeled, Output, Pseudo

_NUMBERS = 3  # that a row draws: two for its place in the order, one for its share


def checked_alpha(owner: str, alpha: float) -> float:
    if alpha <= 0:
        raise UsageError(f"{owner}(alpha={alpha}): expected a number above 0; near 0 hardly anything is mixed.")
    return alpha


@dataclass(frozen=True, slots=True)
class Mixture:
    """R mixed images, of which those that are mostly one of the M labeled images come first."""

    images: Tensor  # (R, channels, *image)
    labels: Pseudo  # (R, C)
    labeled: Labeled  # the plain ones

    def truth(self, logits: Tensor) -> tuple[Labeled, Output]:
        """The labeled rows with mixed labels, and their part of the `logits` (R, C)."""
        m, target = len(self.labeled.valid), cast(Tensor, self.labels.target)
        return replace(self.labeled, y=target[:m], valid=self.labels.valid[:m]), Output(logits[:m])

    def rest(self, logits: Tensor) -> tuple[Pseudo, Tensor]:
        """The labels of the other rows, and their part of the `logits` (R, C)."""
        m, target = len(self.labeled.valid), cast(Tensor, self.labels.target)
        return Pseudo(target[m:], self.labels.weight[m:], self.labels.valid[m:]), logits[m:]


def mixture(batch: Batch, views: Sequence[Tensor], labels: Sequence[Pseudo], alpha: float) -> Mixture:
    """Every image mixed with a random one of all.

    Args:
        batch: of which the labeled images are and the random numbers are drawn.
        views: of the unlabeled images, (N, channels, *image) each.
        labels: of each of `views`, distributions (N, C).
        alpha: the larger share of each mixture is max(s, 1 - s), s distributed as Beta(alpha, alpha).

    The others are those of all ranks, each of which gathers them: k ranks of B / k mix as one rank of B.
    """
    u, x = batch.unlabeled, torch.cat([batch.labeled.x, *views])
    assert u is not None
    draws = torch.split(u.draw("mixup", _NUMBERS * len(views)), _NUMBERS, dim=1)
    uniform = torch.cat([batch.labeled.draw("mixup", _NUMBERS), *draws])
    own = _joined([_truth(batch.labeled, cast(Tensor, labels[0].target)), *labels])
    keys = gather_batch(uniform)
    partner = permutation(keys[:, 0], keys[:, 1])[rank() * len(x) : (rank() + 1) * len(x)]
    target, valid = (gather_batch(part)[partner] for part in (cast(Tensor, own.target), own.valid))
    share = larger_share(uniform[:, 2], alpha)
    images = mixed(x, gather_batch(x)[partner], share)
    return Mixture(images, mixed_labels(own, Pseudo(target, own.weight, valid), share), batch.labeled)


def _truth(labeled: Labeled, like: Tensor) -> Pseudo:
    """Labels as distributions (M, C), of the classes and precision of `like` (N, C)."""
    y = labeled.y.masked_fill(labeled.valid == 0, 0)
    return Pseudo(one_hot(y, like.shape[1], like.dtype), torch.ones_like(labeled.valid), labeled.valid)


def _joined(parts: Sequence[Pseudo]) -> Pseudo:
    """The rows of all parts, one after another."""
    target = torch.cat([cast(Tensor, part.target) for part in parts])
    return Pseudo(target, torch.cat([part.weight for part in parts]), torch.cat([part.valid for part in parts]))
