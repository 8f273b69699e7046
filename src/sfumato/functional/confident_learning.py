"""Confident learning (Northcutt et al. 2021, arXiv:1911.00068): which labels the network's probabilities contradict.

Probabilities of networks that did not train on the labels count for most: a network that has learned a label by heart
does not contradict it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import full_precision


def self_confidence(p: Tensor, y: Tensor) -> Tensor:
    """The mean probability of each class among the samples labeled with it (eq. 2): (N, C), (N,) int64 -> (C,).

    It is the threshold of that class. Infinite for a class that no sample is labeled with, which none can reach.
    """
    p = full_precision(p)
    counts = torch.zeros(p.shape[1], dtype=p.dtype, device=p.device)
    counts.index_add_(0, y, torch.ones_like(p[:, 0]))
    sums = torch.zeros_like(counts).index_add_(0, y, p.gather(1, y.unsqueeze(1)).squeeze(1))
    return torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)


def confident_class(p: Tensor, y: Tensor) -> Tensor:
    """The likeliest class of those whose threshold a sample reaches, -1 where it reaches none: (N, C), (N,) -> (N,)."""
    p = full_precision(p)
    reached = p >= self_confidence(p, y)
    best = p.masked_fill(~reached, -1.0).argmax(dim=1)
    return torch.where(reached.any(dim=1), best, -1)


def confident_joint(p: Tensor, y: Tensor) -> Tensor:
    """Counts (C, C): row = the label, column = the class that is confidently predicted (eq. 1).

    Samples off the diagonal are the suspects; those that reach no threshold are not counted.
    """
    classes, found = p.shape[1], confident_class(p, y)
    place = (y * classes + found)[found >= 0]
    return torch.bincount(place, minlength=classes * classes).reshape(classes, classes)
