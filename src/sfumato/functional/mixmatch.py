"""MixMatch on tensors (Berthelot et al. 2019, arXiv:1905.02249, section 3): guess labels, shuffle, mix.

R rows of everything: labeled images and views of unlabeled ones, each with a distribution over the C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.functional.mix import beta_quantile, mixed
from sfumato.functional.probability import probability
from sfumato.functional.refine import sharpen
from sfumato.types import Pseudo


def guessed(views: Sequence[Tensor], temperature: float) -> Tensor:
    """The mean of the probabilities of all views of an image, sharpened, from logits (N, C) each -> (N, C) (eq. 7)."""
    return sharpen(torch.stack([probability(logits) for logits in views]).mean(dim=0), temperature)


def permutation(first: Tensor, second: Tensor) -> Tensor:
    """A random order of R rows from two random numbers of each, (R,), (R,) -> (R,) int64: who stands in its place.

    The row with the k-th smallest first number gets the one with the k-th smallest second number. So who gets whom is
    a matter of the rows' own numbers: the order in which the rows come, or lie on ranks, does not change it.
    """
    order = torch.empty(len(first), dtype=torch.int64, device=first.device)
    return order.scatter_(0, first.argsort(stable=True), second.argsort(stable=True))


def larger_share(uniform: Tensor, alpha: float) -> Tensor:
    """max(s, 1 - s) with s distributed as Beta(alpha, alpha), from uniform numbers: most of it stays (eq. 8-9)."""
    share = beta_quantile(uniform, alpha)
    return torch.maximum(share, 1 - share)


def mixed_labels(own: Pseudo, other: Pseudo, share: Tensor) -> Pseudo:
    """The labels of s x + (1 - s) x', (R, C) distributions each, (R,) (eq. 11).

    They weigh what their own row weighs, and are valid where both are.
    """
    assert isinstance(own.target, Tensor)
    assert isinstance(other.target, Tensor)
    return Pseudo(mixed(own.target, other.target, share), own.weight, own.valid * other.valid)
