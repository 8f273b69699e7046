"""Do probabilities mean what they say? Proper scores and calibration errors.

Shapes everywhere: probabilities (N, C, *S), labels (N, *S) int64, valid (N, *S) or None for all. An entry weighs
nothing where `valid` is 0 or its label is negative; any other `valid` counts it in full. Results are float64 and
NaN when nothing is left to count. All sums run in float64.

Edges: B bins, bin i holds the confidences in [i / B, (i + 1) / B), and confidence 1 belongs to the last one. With
`split_one` the confidences of exactly 1 form a bin of their own after it, which is what torchmetrics does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.probability import confidence, one_hot

Norm = Literal["l1", "l2", "max"]
NLL_FLOOR = 1e-12  # a probability of 0 for the true class costs 27.6 nats instead of infinitely many
_BLOCK = 1 << 22  # entries binned at once: bounds the float64 copies when there are many classes or pixels


@dataclass(frozen=True, slots=True)
class BinSums:
    """What the bins hold: enough for every binned error, and added up it merges batches and ranks."""

    count: Tensor  # (..., B) float64, entries
    confidence: Tensor  # (..., B) float64, sum of their confidences
    correct: Tensor  # (..., B) float64, how many were right

    def __add__(self, other: BinSums) -> BinSums:
        return BinSums(self.count + other.count, self.confidence + other.confidence, self.correct + other.correct)


@dataclass(frozen=True, slots=True)
class Reliability:
    """The table behind a reliability diagram; mean confidence and accuracy are NaN in an empty bin."""

    lower: Tensor  # (B,) float64
    upper: Tensor  # (B,) float64
    count: Tensor  # (B,) float64
    confidence: Tensor  # (B,) float64
    accuracy: Tensor  # (B,) float64


def valid_entries(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The entries that count, as (n, C) probabilities and (n,) labels, space flattened behind the samples.

    Raises UsageError when the shapes do not fit, when a label is C or more, or when the values are not probabilities.
    """
    expected = (probabilities.shape[0], *probabilities.shape[2:]) if probabilities.dim() > 1 else None
    for name, given in (("labels", labels), ("valid", valid)):
        if given is not None and tuple(given.shape) != expected:
            raise UsageError(
                f"{name} of shape {tuple(given.shape)} do not fit probabilities of shape {tuple(probabilities.shape)}: "
                "expected (N, C, *S) probabilities, class axis 1, and (N, *S) for the rest."
            )
    kept = labels >= 0 if valid is None else (labels >= 0) & (valid > 0)
    flat = probabilities.movedim(1, -1)[kept]
    chosen = labels[kept].long()
    if chosen.numel():
        _check_values(flat, chosen)
    return flat, chosen


def _check_values(p: Tensor, labels: Tensor) -> None:
    classes, largest = p.shape[1], int(labels.max())
    if largest >= classes:
        raise UsageError(
            f"label {largest} found where there are {classes} classes, 0 to {classes - 1}: "
            "mark what is to be ignored with a negative label or with valid = 0."
        )
    low, high = float(p.min()), float(p.max())
    if low < -1e-3 or high > 1 + 1e-3:  # false for NaN, which shows in the result
        raise UsageError(
            f"probabilities expected, between 0 and 1, but values run from {low:.3g} to {high:.3g}: "
            "pass logits through softmax over axis 1 first."
        )


def bin_index(values: Tensor, bins: int, *, split_one: bool = False) -> Tensor:
    """Bin of each value, int64, of the same shape; rounding below 0 or above 1 stays in the outer bins."""
    if bins < 1:
        raise UsageError(f"bins={bins}: expected at least 1.")
    # i / B in float64, not multiples of a rounded 1 / B: a value that is i / B exactly opens bin i.
    inner = torch.arange(1, bins, dtype=torch.float64, device=values.device) / bins
    values = values.double()
    index = torch.bucketize(values, inner, right=True)
    return torch.where(values >= 1, bins, index) if split_one else index


def bin_sums(
    probabilities: Tensor, labels: Tensor, valid: Tensor | None = None, *, bins: int = 15, split_one: bool = False
) -> BinSums:
    """Bins of the winning probability, each (B,), or (B + 1,) with `split_one`."""
    p, y = valid_entries(probabilities, labels, valid)
    top, guess = confidence(p)
    return entry_bin_sums(top, guess == y, bins=bins, split_one=split_one)


def entry_bin_sums(top: Tensor, right: Tensor, *, bins: int = 15, split_one: bool = False) -> BinSums:
    """The same from each entry's winning probability and whether it was right, (n,), (n,) bool."""
    return _fill(bin_index(top, bins, split_one=split_one), top, right, bins + split_one)


def class_bin_sums(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None, *, bins: int = 15) -> BinSums:
    """Bins of every class's own probability, each (C, B): "correct" counts the entries that are of that class."""
    p, y = valid_entries(probabilities, labels, valid)
    classes = p.shape[1]
    total = BinSums(*torch.zeros((3, classes, bins), dtype=torch.float64, device=p.device))
    for part, own in _blocks(p, y):
        slot = bin_index(part, bins) + torch.arange(classes, device=p.device) * bins
        sums = _fill(slot.flatten(), part.flatten(), one_hot(own, classes).flatten(), classes * bins)
        total = total + BinSums(*(s.reshape(classes, bins) for s in (sums.count, sums.confidence, sums.correct)))
    return total


def _blocks(p: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    rows = max(1, _BLOCK // max(1, p.shape[1]))
    return zip(torch.split(p, rows), torch.split(y, rows), strict=True)


def _fill(index: Tensor, values: Tensor, hits: Tensor, length: int) -> BinSums:
    """Three sums per index, each (length,). One-dimensional index_add_ is quick, and may run deterministically."""
    zero = torch.zeros(length, dtype=torch.float64, device=values.device)
    parts = (torch.ones_like(values, dtype=torch.float64), values.double(), hits.double())
    return BinSums(*(zero.index_add(0, index, part) for part in parts))


def binned_error(sums: BinSums, norm: Norm = "l1") -> Tensor:
    """Calibration error of the bins on the last axis, (..., B) -> (...).

    With n_b the count and g_b = |accuracy - mean confidence| of bin b: "l1" sum n_b / N g_b (Guo et al. 2017, eq. 3),
    "l2" sqrt(sum n_b / N g_b^2), "max" max over non-empty bins of g_b.
    """
    total = sums.count.sum(dim=-1)
    gap = (sums.correct - sums.confidence).abs() / sums.count.clamp_min(1)
    share = sums.count / total.clamp_min(1).unsqueeze(-1)
    if norm == "l1":
        error = (share * gap).sum(dim=-1)
    elif norm == "l2":
        error = (share * gap.square()).sum(dim=-1).sqrt()
    elif norm == "max":
        error = gap.amax(dim=-1)
    else:
        raise UsageError(f"norm={norm!r}: expected 'l1', 'l2' or 'max'.")
    return torch.where(total > 0, error, torch.nan)


def ece(
    probabilities: Tensor,
    labels: Tensor,
    valid: Tensor | None = None,
    *,
    bins: int = 15,
    norm: Norm = "l1",
    split_one: bool = False,
) -> Tensor:
    """Expected calibration error of the winning probability, () in [0, 1]; norms as in `binned_error`."""
    return binned_error(bin_sums(probabilities, labels, valid, bins=bins, split_one=split_one), norm)


def classwise_ece_each(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None, *, bins: int = 15) -> Tensor:
    """Calibration error of every class's probability, (C,)."""
    return binned_error(class_bin_sums(probabilities, labels, valid, bins=bins))


def classwise_ece(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None, *, bins: int = 15) -> Tensor:
    """Mean over all C classes of their calibration errors, () (Kull et al. 2019).

    A class without a label is not left out: probability given to it is miscalibrated whoever is absent.
    """
    return classwise_ece_each(probabilities, labels, valid, bins=bins).mean()


def adaptive_ece(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None, *, bins: int = 15) -> Tensor:
    """Calibration error over groups of equal size instead of equal width, () (Nguyen and O'Connor 2015).

    A stable sort by confidence, cut into `bins` groups of which the first N mod bins hold one entry more; groups of
    tied confidences therefore depend on the order of the entries. Needs all entries at once: it has no streaming form.
    """
    if bins < 1:
        raise UsageError(f"bins={bins}: expected at least 1.")
    p, y = valid_entries(probabilities, labels, valid)
    top, guess = confidence(p)
    top, order = top.double().sort(stable=True)
    hit = (guess == y)[order]
    size, longer = divmod(len(top), bins)
    rank = torch.arange(len(top), device=p.device)
    # the first `longer` groups hold size + 1 entries, the others size
    split = longer * (size + 1)
    group = torch.where(rank < split, rank // (size + 1), longer + (rank - split) // max(1, size))
    return binned_error(_fill(group, top, hit, bins))


def nll_each(p: Tensor, labels: Tensor) -> Tensor:
    """-log of the true class's probability in nats, clipped at 1e-12, (n, C), (n,) -> (n,) float64."""
    return -p.gather(1, labels.unsqueeze(1)).squeeze(1).double().clamp_min(NLL_FLOOR).log()


def brier_each(p: Tensor, labels: Tensor) -> Tensor:
    """Squared distance to the one-hot label, summed over the classes, (n, C), (n,) -> (n,) float64 in [0, 2]."""
    classes = p.shape[1]
    blocks = ((part.double(), one_hot(own, classes, torch.float64)) for part, own in _blocks(p, labels))
    return torch.cat([(part - target).square().sum(dim=1) for part, target in blocks])


def nll(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood in nats, (); probabilities are clipped at 1e-12."""
    return nll_each(*valid_entries(probabilities, labels, valid)).mean()


def brier(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over entries of the squared distance to the one-hot label, summed over the classes, () in [0, 2]."""
    return brier_each(*valid_entries(probabilities, labels, valid)).mean()


def reliability(probabilities: Tensor, labels: Tensor, valid: Tensor | None = None, *, bins: int = 15) -> Reliability:
    """The reliability table of the winning probability, B bins."""
    return reliability_of(bin_sums(probabilities, labels, valid, bins=bins))


def reliability_of(sums: BinSums) -> Reliability:
    """The reliability table of bins (B,) filled without `split_one`."""
    bins = sums.count.shape[-1]
    edges = torch.arange(bins + 1, dtype=torch.float64, device=sums.count.device) / bins
    # 0 / 0 is the NaN of an empty bin
    return Reliability(edges[:-1], edges[1:], sums.count, sums.confidence / sums.count, sums.correct / sums.count)
