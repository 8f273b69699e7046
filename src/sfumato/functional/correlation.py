"""How alike the places of an image are, and what follows for its labels: CorrMatch (Sun et al. 2023, arXiv:2306.04300).

A of an image is m x m for m = h w places of a coarse grid. Places that are not valid take part in nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.functional.probability import full_precision, one_hot

# Values of segments at the size of the labels at a time: what a processor keeps in its cache, and elsewhere 128 MB.
_ON_CPU, _ELSEWHERE = 1 << 19, 1 << 25


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, channels, h, w) to height and width `size`, bilinear, corner on corner; `x` itself if it has them."""
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=True)


def bounded(size: tuple[int, int], limit: int) -> tuple[int, int]:
    """The size of the largest grid of that shape with at most limit x limit places, itself if it has no more.

    A side never falls below 1, so a shape longer than limit x limit to 1 becomes a line with more places than that.
    """
    height, width = size
    if height * width <= limit * limit:
        return size
    # In integers: 41 / 267 of 267 is less than 41 in floating numbers.
    sides = (math.isqrt(limit * limit * height // width), math.isqrt(limit * limit * width // height))
    return max(1, sides[0]), max(1, sides[1])


def correlation(queries: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """A = softmax(queries^T keys / sqrt(D)) over the valid places, (N, m, m): row i says whom place i is like.

    queries, keys: (N, D, h, w). valid: (N, h, w) of 0 and 1. Every row sums to 1; rows of places that are not valid
    mean nothing. At least float32, under autocast too, for segments are cut out of A.
    """
    f1, f2 = (full_precision(x).flatten(2) for x in (queries, keys))
    barred = (1 - valid.flatten(1).to(f1.dtype)) * (torch.finfo(f1.dtype).min / 2)
    with torch.autocast(f1.device.type, enabled=False):
        scores = torch.baddbmm(barred.unsqueeze(1), f1.transpose(1, 2), f2, alpha=1 / math.sqrt(f1.shape[1]))
    return torch.softmax(scores, dim=2)


def propagated(logits: Tensor, a: Tensor, valid: Tensor) -> Tensor:
    """z A: place j gets from every valid place i as much of its logits as row i of A gives to j, (N, C, h, w).

    logits: (N, C, h, w), to which no gradient flows. a: (N, h w, h w). valid: (N, h, w).
    """
    z = full_precision(logits.detach()).to(a.dtype).flatten(2) * valid.flatten(1).unsqueeze(1)
    with torch.autocast(a.device.type, enabled=False):
        return torch.bmm(z, a).reshape(logits.shape)


@dataclass(frozen=True, slots=True)
class Regions:
    """K soft regions of each image, one after another."""

    maps: Tensor  # (N, K, h, w), large inside
    there: Tensor  # (N, K) bool; the others grow nothing


def drawn_regions(a: Tensor, valid: Tensor, uniform: Tensor) -> Regions:
    """Rows of A at K random places of each image, the same one more than once perhaps.

    a: (N, h w, h w). valid: (N, h, w). uniform: (N, K) in [0, 1).
    """
    n, k = uniform.shape
    height, width = valid.shape[1:]
    place = (uniform * (height * width)).long()
    rows = a.gather(1, place.unsqueeze(2).expand(n, k, height * width))
    return Regions(rows.reshape(n, k, height, width), valid.flatten(1).gather(1, place) > 0)


def grown(
    regions: Regions, label: Tensor, selected: Tensor, valid: Tensor, *, threshold: float | Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Labels and selection after whole segments took the class that rules in them.

    A region is brought to the size of the labels; its segment is where it is above the middle of its smallest and
    largest value, that is above 0.5 once these are 0 and 1. If more than `threshold` of the segment is selected, and
    more than `threshold` of that is of one class, then all of it takes the class and is selected. What is selected is
    read as it was before the first region; where segments overlap, the last one in the order of the regions holds.

    label: (N, H, W) int64. selected, valid: (N, H, W) of 0 and 1. Returns both of the shape and dtype they had.
    """
    n, size = len(label), (label.shape[1], label.shape[2])
    kept = valid.flatten(1) > 0
    votes = (one_hot(label, num_classes, regions.maps.dtype) * selected.unsqueeze(1)).flatten(2)
    ballot = torch.cat([votes, kept.unsqueeze(1).to(votes.dtype)], dim=1).transpose(1, 2)  # (N, H W, C + 1)
    last, classes = torch.zeros_like(kept, dtype=torch.int32), []
    span = max(1, (_ON_CPU if kept.device.type == "cpu" else _ELSEWHERE) // kept.numel())
    for start in range(0, regions.maps.shape[1], span):  # as many regions at a time as memory is meant to hold
        part = slice(start, start + span)
        inside = _segments(regions.maps[:, part], size, kept)
        ruler, accepted = _ruled(inside, ballot, threshold)
        inside &= (accepted & regions.there[:, part]).unsqueeze(2)
        order = torch.arange(start + 1, start + 1 + inside.shape[1], dtype=torch.int32, device=label.device)
        last = torch.maximum(last, (inside * order.reshape(1, -1, 1)).amax(dim=1))
        classes.append(ruler)
    taken = torch.cat(classes, dim=1).gather(1, (last.long() - 1).clamp_min(0)).reshape(n, *size)
    covered = last.reshape(n, *size) > 0
    return torch.where(covered, taken, label), torch.where(covered, torch.ones_like(selected), selected)


def _segments(maps: Tensor, size: tuple[int, int], kept: Tensor) -> Tensor:
    """(N, k, h, w) -> (N, k, H W) bool, inside `kept` (N, H W)."""
    up = resized(maps, size).flatten(2)
    kept = kept.unsqueeze(1)
    low = up.masked_fill(~kept, torch.inf).amin(dim=2, keepdim=True)
    high = up.masked_fill(~kept, -torch.inf).amax(dim=2, keepdim=True)
    return (up > (low + high) / 2) & kept


def _ruled(inside: Tensor, ballot: Tensor, threshold: float | Tensor) -> tuple[Tensor, Tensor]:
    """The ruling class of each segment, and whether it rules, each (N, k). Counts are exact up to 2^24 pixels."""
    with torch.autocast(ballot.device.type, enabled=False):
        counts = torch.bmm(inside.to(ballot.dtype), ballot)
    pixels, of_class = counts[..., -1], counts[..., :-1]
    sure, (most, ruler) = of_class.sum(dim=2), of_class.max(dim=2)
    return ruler, (sure > threshold * pixels) & (most > threshold * sure)
