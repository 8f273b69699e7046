"""Confidence thresholds at which held-out predictions of each class, or group of classes, reach one precision.

One sort and one exact sweep over all thresholds that make a difference. Source: SEVAL (Li et al. 2024), thresholds
that equalize the precision of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.errors import UsageError, check_choice

FEWEST = 10  # held-out samples of a class or group by whose precision a threshold may be chosen
_EPS = 1e-12  # what rounding may take from a precision


@dataclass(frozen=True, slots=True)
class Predictions:
    """Held-out predictions as a threshold sees them. Where groups are spoken of there are G, numbered from 0."""

    confidence: Tensor  # (K,)
    predicted: Tensor  # (K,) int64, a class
    y: Tensor  # (K,) int64
    group: Tensor  # (C,) int64, of the predicted class
    weight: Tensor  # (C,) what a sample of each true class counts

    @property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @property
    def mass(self) -> Tensor:
        return self.weight[self.y].double()

    @property
    def hit(self) -> Tensor:
        return self.mass * (self.predicted == self.y)


def inverse_frequency(y: Tensor, num_classes: int) -> Tensor:
    """1 / p(y), p the class frequencies over the largest: weights (C,) by which all classes count alike.

    A class without samples, which no sample reads, gets 1.
    """
    counts = torch.bincount(y, minlength=num_classes).double()
    return torch.where(counts > 0, counts.max() / counts.clamp_min(1), 1.0)


def frequency_groups(counts: Tensor, *, fewest: int = FEWEST, groups: int | None = None) -> Tensor:
    """Which classes share a threshold, (C,) int64: each class alone where it has `fewest` samples or more.

    The others join, in the order of their frequency, until together they have as many; what remains of them joins the
    group before or, for want of one, the rarest of the frequent classes. Group 0 has the most frequent class.

    counts: (C,) held-out samples of each class. groups: so many groups of equal size instead, in that order; C at most.
    """
    order = torch.argsort(counts, descending=True, stable=True)
    ranked = counts[order].tolist()
    if groups is not None:
        numbers = [rank * min(groups, len(ranked)) // len(ranked) for rank in range(len(ranked))]
    else:
        numbers = _joined(ranked, fewest)
    group = torch.empty(len(ranked), dtype=torch.int64)
    group[order.cpu()] = torch.tensor(numbers)
    return group.to(counts.device)


def _joined(ranked: list[int], fewest: int) -> list[int]:
    frequent = sum(count >= fewest for count in ranked)
    numbers, held = list(range(frequent)), fewest
    for count in ranked[frequent:]:
        if held >= fewest:
            numbers.append(numbers[-1] + 1 if numbers else 0)
            held = count
        else:
            numbers.append(numbers[-1])
            held += count
    if numbers and held < fewest and numbers[-1] > 0:
        last = numbers[-1]
        numbers = [min(number, last - 1) for number in numbers]
    return numbers


Choice = Literal["first_reaching", "argmin_gap"]


def precision_thresholds(
    seen: Predictions,
    target: float,
    *,
    choice: Choice = "first_reaching",
    fewest: int = 5,
    share: float = 0.02,
    strict: bool = False,
    everywhere: bool = False,
) -> Tensor:
    """The threshold of each group, (G,) float64, among 0 and the confidences in it: selected is what reaches it.

    0 where the precision of all predictions reaches `target`, or there are none. Otherwise "first_reaching" is the
    smallest at which the selection does, if it has at least max(`fewest`, `share` of the group) predictions; if there
    is none, and always by "argmin_gap", the smallest of those whose precision is nearest to the target. `fewest=1,
    share=0` lets any selection count.

    The precision is hits over predictions, each sample with the weight of its true class. Costs one sort of K numbers.

    strict: selected is what exceeds the threshold, as in the authors' search, and not in their training.
    everywhere: a group whose predictions reach the target without a threshold is searched too.

    Raises:
        UsageError: a target that is no precision or an unknown choice.
    """
    if not 0.0 < target <= 1.0:
        raise UsageError(f"target={target}: expected a precision above 0 and up to 1, such as 0.75.")
    check_choice("precision_thresholds", "choice", choice, ("first_reaching", "argmin_gap"))
    groups, found = seen.groups, torch.zeros(seen.groups, dtype=torch.float64, device=seen.y.device)
    if not len(seen.y):
        return found
    sweep = _sweep(seen, strict)
    counts = torch.bincount(sweep.group, minlength=groups)
    needed = (share * counts).ceil().clamp_min(fewest)[sweep.group]
    allowed = sweep.distinct & ((sweep.selected >= needed) | sweep.all)
    reaching = sweep.precision >= target - _EPS
    gap = (sweep.precision - target).abs().masked_fill(~allowed, torch.inf)
    least = _per_group(gap, sweep.group, groups, "amin")
    nearest = _last(allowed & (gap <= least[sweep.group] + _EPS), sweep.group, groups)
    best = nearest if choice == "argmin_gap" else _last(allowed & reaching, sweep.group, groups)
    best = torch.where(best >= 0, best, nearest)
    done = _per_group((sweep.all & reaching).double(), sweep.group, groups, "amax") > 0
    searched = (best >= 0) if everywhere else (best >= 0) & ~done
    return torch.where(searched, sweep.threshold[best.clamp_min(0)], found)


def selected_precision(seen: Predictions, thresholds: Tensor, *, strict: bool = False) -> tuple[Tensor, Tensor]:
    """Precision and number of the predictions that reach their group's threshold (G,), both (G,) float64.

    Without any, the precision is 0, as the authors' search has it.
    """
    group = seen.group[seen.predicted]
    limit = thresholds.to(seen.confidence)[group]
    kept = (seen.confidence > limit) if strict else (seen.confidence >= limit)

    def total(values: Tensor) -> Tensor:
        zeros = torch.zeros(seen.groups, dtype=torch.float64, device=group.device)
        return zeros.index_add_(0, group, values * kept)

    return total(seen.hit) / total(seen.mass).clamp_min(torch.finfo(torch.float64).tiny), total(kept.double())


def rare_groups(seen: Predictions, *, fewest: int = FEWEST) -> Tensor:
    """Groups of which the held-out samples say too little, (G,) bool, by the authors' rule.

    Fewer than `fewest` samples of its classes, or no more than a tenth of an equal share of the weighted predictions.
    """
    samples = torch.bincount(seen.group[seen.y], minlength=seen.groups)
    mass = torch.zeros(seen.groups, dtype=torch.float64, device=seen.y.device)
    mass.index_add_(0, seen.group[seen.predicted], seen.mass)
    return (samples < fewest) | (mass <= seen.mass.sum() / (10 * seen.groups))


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Row k: everything in its group that is as confident as prediction k is selected, (K,) each, groups in order."""

    group: Tensor
    threshold: Tensor
    precision: Tensor
    selected: Tensor  # how many
    distinct: Tensor  # bool, the last of equal confidences, which cannot be told apart
    all: Tensor  # bool, the whole group is selected


def _sweep(seen: Predictions, strict: bool) -> _Sweep:
    confidence, order = seen.confidence.sort(descending=True)
    group, by_group = seen.group[seen.predicted[order]].sort(stable=True)
    confidence, order = confidence[by_group].double(), order[by_group]
    counts = torch.bincount(group, minlength=seen.groups)
    start = (counts.cumsum(0) - counts)[group]
    hit, mass = (_within_group(values[order], start) for values in (seen.hit, seen.mass))
    place = torch.arange(len(group), device=group.device)
    whole = place + 1 == start + counts[group]
    following = confidence.roll(-1)
    threshold = torch.where(whole, 0.0, following if strict else confidence)
    return _Sweep(group, threshold, hit / mass, place - start + 1, whole | (following != confidence), whole)


def _within_group(values: Tensor, start: Tensor) -> Tensor:
    """Running sums that begin anew in each group, of which `start` (K,) is the first row."""
    sums = values.cumsum(0)
    return sums - (sums - values)[start]


def _per_group(values: Tensor, group: Tensor, groups: int, how: str) -> Tensor:
    start = torch.full((groups,), torch.inf if how == "amin" else 0.0, dtype=values.dtype, device=values.device)
    return start.scatter_reduce(0, group, values, how)


def _last(chosen: Tensor, group: Tensor, groups: int) -> Tensor:
    """The last row of each group that is chosen, -1 for none, (G,) int64: the smallest threshold."""
    rows = torch.arange(len(group), device=group.device).masked_fill(~chosen, -1)
    return torch.full((groups,), -1, device=group.device).scatter_reduce(0, group, rows, "amax")
