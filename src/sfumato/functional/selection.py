"""Which of the images that a network has labeled are taken as labeled. n images, C classes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sfumato.functional.prior_shift import class_shares

Rates = Literal["counts", "rank", "official"]


def place_in_class(confidence: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """How many images of the same label are surer, (n,) int64; of equally sure ones the earlier goes first.

    confidence: (n,); label: (n,) int64.
    """
    order = confidence.argsort(descending=True, stable=True)
    order = order[label[order].argsort(stable=True)]
    counts = torch.bincount(label, minlength=num_classes)
    begins = counts.cumsum(0) - counts
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - begins[label[order]]
    return place


def frequency_rank(counts: Tensor) -> Tensor:
    """(C,) int64 of label counts (C,): 0 for the most frequent class; of equal ones the earlier goes first."""
    order = counts.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank


def sampling_rates(counts: Tensor, alpha: float, rates: Rates = "counts") -> Tensor:
    """The share of each class's pseudo-labels that joins the labeled set, (C,) float64.

    CReST (Wei et al. 2021, section 3.2).
    The class of rank r by frequency, 0 first, has the rate (n_{C-1-r} / n_0)^(1 / alpha): the rarest one 1, the most
    frequent one least.

    counts: (C,) labels of each class; one without any counts as the rarest of the others. alpha: the inverse of the
    paper's exponent. rates: "counts", by the counts themselves; "rank", by those of the geometric tail from the largest
    to the smallest count; "official", by this tail too, with the number of the class in the place of its rank, as the
    released code has it: the same where classes are sorted by frequency, and wrong elsewhere.
    """
    counts = class_shares(counts.double())
    last = len(counts) - 1
    rank = frequency_rank(counts) if rates != "official" else torch.arange(last + 1, device=counts.device)
    if rates == "counts":
        ratio = counts.sort(descending=True).values[last - rank] / counts.max()
    else:
        imbalance = counts.max() / counts.min()
        ratio = imbalance ** (-(last - rank).double() / max(1, last))
    return ratio ** (1 / alpha)


def surest_of_each_class(p: Tensor, rates: Tensor) -> Tensor:
    """The places (m,) of the surest images of each predicted class, in their order: of n_c the first floor(r_c n_c).

    p: (n, C) probabilities; rates: (C,) float64 in [0, 1].
    """
    confidence, label = p.max(dim=1)
    found = torch.bincount(label, minlength=p.shape[1])
    # A rate that is a whole number of images but for rounding is that number.
    take = torch.floor(rates * found + 1e-9).to(torch.int64)
    return torch.nonzero(place_in_class(confidence, label, p.shape[1]) < take[label]).squeeze(1)


def surer_than(p: Tensor, threshold: float) -> Tensor:
    """The places (m,) of images with a confidence above `threshold`. p: (n, C)."""
    return torch.nonzero(p.max(dim=1).values > threshold).squeeze(1)


def surest(p: Tensor, k: int) -> Tensor:
    """The places (min(k, n),) of the k surest images, in their order; of equally sure ones the earlier. p: (n, C)."""
    order = p.max(dim=1).values.argsort(descending=True, stable=True)
    return order[:k].sort().values


def equally_many(p: Tensor, per_class: int) -> Tensor:
    """Places (m,) of the `per_class` surest images of each predicted class, those of a rarer class again and again.

    A class that is never predicted has none. p: (n, C). (Noisy Student, Xie et al. 2020, section 3.1.)
    """
    confidence, label = p.max(dim=1)
    found = torch.bincount(label, minlength=p.shape[1])
    order = (label * len(p) + place_in_class(confidence, label, p.shape[1])).argsort()
    slots = torch.arange(per_class, device=p.device) % found.clamp_min(1)[:, None]
    begins = (found.cumsum(0) - found)[:, None]
    return order[(begins + slots)[found > 0]].flatten().sort().values


def progressive_power(generation: int, generations: int, last: float) -> float:
    """The power of the labels' shares that predictions are aligned with, from 1 down to `last` (CReST+, section 3.3).

    generation: from 1 to `generations`, of which there are two or more.
    """
    done = (generation - 1) / (generations - 1)
    return (1 - done) + done * last
