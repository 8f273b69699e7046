"""CSL: which predictions of an image are reliable, and how much the others count.

Two features of a prediction: its confidence, and how unevenly the losing classes share the rest (their variance). One
rival holding it all makes an error likely at any confidence. The predictions of an image are split in two along these
features; Gaussians of the reliable part weigh the rest.

Shapes: G images (or sets of any kind) of n predictions. Confidence, dispersion, valid (G, n); sums, limits and
parameters (G, ...). All sums run in float64, add up over ranks, and need no singular value decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.functional.one_pass import as_places, blocks, first_zero

ALPHA = 8.0  # width of the kernel, eq. 10
RANK_ONE = 1e-12  # share of the second eigenvalue at or below which all predictions lie on one line
UNIFORM = 1e-6  # standard deviation of the confidence below which there is nothing to split
CERTAIN = 0.95  # stands in where a set is too small to be split

Floor = Literal["shared", "each"]
Keep = Literal["or", "and", "onesided"]
FLOORS: dict[str, tuple[float, float]] = {"shared": (1e-4, 1e-4), "each": (1e-4, 1e-6)}


def residual_dispersion(p: Tensor) -> Tensor:
    """Variance of the probabilities of the C - 1 losing classes about their mean, (N, C, *S) -> (N, *S).

    CSL, eq. 7 without its minus sign: small is good. Computed from the losers alone, since 1 - confidence and
    sum p^2 - confidence^2 have no digits left for a sure prediction.
    """
    n, classes, *space = p.shape
    flat, others = as_places(p), max(1, classes - 1)
    out = p.new_empty((n, flat.shape[2]))
    for part in blocks(flat.shape, p.device):
        block = flat[part[0], :, part[1]]
        winner = first_zero(block - block.amax(dim=1, keepdim=True))
        losers = block.scatter(1, winner.unsqueeze(1), 0.0)
        mean = losers.sum(dim=1) / others
        out[part] = losers.square_().sum(dim=1) / others - mean.square()
    return out.clamp_min_(0.0).reshape(n, *space)


def winner_slot_dispersion(p: Tensor) -> Tensor:
    """As the authors' code: the winner's slot is emptied but still summed over, which adds mean^2 / (C - 1)."""
    others = max(1, p.shape[1] - 1)
    mean = (1 - p.amax(dim=1)) / others
    return residual_dispersion(p) + mean.square() / others


DISPERSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "raw": residual_dispersion,
    "raw_winner_slot": winner_slot_dispersion,
    "sqrt": lambda p: residual_dispersion(p).sqrt(),
    "log": lambda p: (residual_dispersion(p) + 1e-8).log(),
}


def moments(confidence: Tensor, dispersion: Tensor, chosen: Tensor) -> Tensor:
    """Over the chosen: their number, the sums of c and d, of c^2, c d and d^2. (G, n) -> (G, 6) float64.

    chosen: 1, and 0 elsewhere.
    """
    groups, n = confidence.shape
    chosen = chosen.to(confidence.dtype)
    sums = torch.zeros((groups, 6), dtype=torch.float64, device=confidence.device)
    for part in blocks((groups, 2, n), confidence.device):
        x = (torch.stack([confidence[part], dispersion[part]], dim=1) * chosen[part].unsqueeze(1)).double()
        products = (x @ x.transpose(1, 2)).flatten(1)
        number = chosen[part].sum(dim=1, keepdim=True)
        sums[part[0]] += torch.cat([number, x.sum(dim=2), products[:, :2], products[:, 3:]], dim=1)
    return sums


def principal_axis(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First axis (G, 2) of the uncentered features, and both eigenvalues of their Gram matrix, the larger first.

    Closed form: the angle is atan2(2 b, a - c) / 2 for the Gram matrix [[a, b], [b, c]].
    """
    a, b, c = sums[:, 3:].unbind(1)
    angle = torch.atan2(2 * b, a - c) / 2
    first = (a + c) / 2 + torch.hypot((a - c) / 2, b)
    second = ((a * c - b * b) / first.clamp_min(torch.finfo(first.dtype).tiny)).clamp_min(0.0)
    return torch.stack([angle.cos(), angle.sin()], dim=1), first, second


def spectral_split(sums: Tensor, confidence: Tensor, dispersion: Tensor) -> Tensor:
    """Eq. 8-9: to which of the two right singular vectors a prediction lends more, |V_1| >= |V_2|, (G, n) bool.

    |V_i| = |u_i . h| / sqrt(eigenvalue_i); that one square is no smaller than another is a product of two linear forms
    that is not negative. What it comes to is a cut of the ratio of dispersion to confidence. All True where the
    features lie on one line, so that the second vector is arbitrary.
    """
    axis, first, second = principal_axis(sums)
    cos, sin = axis.T
    long, short = first.sqrt(), second.sqrt()  # V_1 ~ short u_1 . h, V_2 ~ long u_2 . h
    line = second <= RANK_ONE * first
    difference, total = (
        [torch.where(line, 0.0, part).to(confidence.dtype).unsqueeze(1) for part in parts]
        for parts in (
            (short * cos + long * sin, short * sin - long * cos),
            (short * cos - long * sin, short * sin + long * cos),
        )
    )
    first_part = torch.empty(confidence.shape, dtype=torch.bool, device=confidence.device)
    for part in blocks((len(confidence), 2, confidence.shape[1]), confidence.device):
        c, d = confidence[part], dispersion[part]
        factors = [torch.addcmul(c * a[part[0]], d, b[part[0]]) for a, b in (difference, total)]
        first_part[part] = factors[0].mul_(factors[1]) >= 0
    return first_part


def component_split(sums: Tensor, confidence: Tensor, dispersion: Tensor) -> Tensor:
    """The sign of the first principal component of the standardized features: z(confidence) > z(dispersion), (G, n).

    The relaxation of 2-means that eq. 8 is after. All True where the confidences hardly differ.
    """
    center, variance = _center_and_variance(sums)
    spread = variance.sqrt()
    sure, uneven = _standardized(confidence, dispersion, center, spread.clamp_min(torch.finfo(spread.dtype).tiny))
    return (spread[:, :1] < UNIFORM) | (sure > uneven)


def fixed_split(sums: Tensor, confidence: Tensor, dispersion: Tensor) -> Tensor:
    """The fixed threshold that the method is to replace, (G, n) bool."""
    return confidence >= CERTAIN


SPLITS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "absV": spectral_split,
    "pc1": component_split,
    "fixed": fixed_split,
}


@dataclass(frozen=True, slots=True)
class Gaussians:
    """Center and standard deviation of both features over the reliable predictions of each set."""

    center: Tensor  # (G, 2) float64
    scale: Tensor  # (G, 2) float64
    small: Tensor  # (G,) bool: fewer than two predictions, so neither means anything


def gaussians(whole: Tensor, first: Tensor, *, larger: bool, floor: Floor = "shared") -> Gaussians:
    """Of the reliable part, from the moments of the whole set and of the first part of its split.

    larger: the part with the larger mean confidence is the reliable one (eq. 9), otherwise the first. An empty part is
    never chosen. The variance is unbiased, 0 for a single prediction; `floor` keeps its root from 0 as the authors do,
    by 1e-8 inside the root for "shared", or by 1e-8 for the confidence and 1e-12 for the dispersion for "each".
    """
    rest = whole - first
    other = first[:, 0] < 0.5
    if larger:
        means = [part[:, 1] / part[:, 0].clamp_min(1) for part in (first, rest)]
        other = other | ((means[1] > means[0]) & (rest[:, 0] > 0.5))
    center, variance = _center_and_variance(torch.where(other.unsqueeze(1), rest, first))
    roots = [(variance[:, i] + low**2).sqrt() for i, low in enumerate(FLOORS[floor])]
    return Gaussians(center, torch.stack(roots, dim=1), whole[:, 0] < 1.5)


def _center_and_variance(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of both features, each (G, 2); 0 when there is nothing to take them of."""
    n = sums[:, :1]
    center = sums[:, 1:3] / n.clamp_min(1)
    return center, ((sums[:, 3::2] - n * center.square()) / (n - 1).clamp_min(1)).clamp_min(0.0)


def _standardized(confidence: Tensor, dispersion: Tensor, center: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return (
        (confidence - center[:, :1]) / scale[:, :1],
        (dispersion - center[:, 1:]) / scale[:, 1:],
    )


def wide_kernel(z_confidence: Tensor, z_dispersion: Tensor) -> Tensor:
    """exp(-z^2 / 8), multiplied over the features: eq. 10, and the authors' code."""
    return torch.exp(-(z_confidence.square() + z_dispersion.square()) / ALPHA)


def narrow_kernel(z_confidence: Tensor, z_dispersion: Tensor) -> Tensor:
    """exp(-(z / 8)^2): the pseudocode, eight times as forgiving."""
    return torch.exp(-(z_confidence.square() + z_dispersion.square()) / ALPHA**2)


KERNELS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "z2_over_alpha": wide_kernel,
    "z_over_alpha_sq": narrow_kernel,
}


def reliability_weight(
    confidence: Tensor, dispersion: Tensor, fit: Gaussians, *, keep: Keep, kernel: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Weights in [0, 1], (G, n) float64; exactly 1 for what counts as reliable (eq. 10-11).

    keep: full weight where the confidence is above its center "or" the dispersion below (the authors), "and" (the
    paper), and the kernel elsewhere; "onesided": the kernel of what is on the bad side of either center, so that
    nothing jumps. A set of fewer than two keeps what is at least 0.95 confident.
    """
    sure, uneven = _standardized(confidence, dispersion, fit.center, fit.scale)
    if keep == "onesided":
        weight = kernel(sure.clamp_max(0.0), uneven.clamp_min(0.0))
    else:
        good = (sure > 0) | (uneven < 0) if keep == "or" else (sure > 0) & (uneven < 0)
        weight = torch.where(good, 1.0, kernel(sure, uneven))
    return torch.where(fit.small.unsqueeze(1), (confidence >= CERTAIN).to(weight.dtype), weight)
