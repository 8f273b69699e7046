"""How far predicted and labeled regions overlap, from confusion matrices (..., C, C) int64: rows = label."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from sfumato.errors import check_choice

Absent = Literal["nan", "zero"]
_EPSILON = 1e-10  # beside the union, as in published code


def intersection_union(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels that are of a class and predicted so, and pixels that are either, both (..., C) int64."""
    intersection = counts.diagonal(dim1=-2, dim2=-1)
    return intersection, counts.sum(dim=-1) + counts.sum(dim=-2) - intersection


def ratio(intersection: Tensor, union: Tensor, absent: Absent = "nan") -> Tensor:
    """Intersection over union, (...,) float64.

    absent: what a class gets that is neither labeled nor predicted. "nan" leaves it out of means. "zero", the
    I / (U + 1e-10) behind published tables, counts it as a failure: right only where every class is known to occur.
    """
    check_choice("iou", "absent", absent, get_args(Absent))
    return intersection.double() / (union.double() + (_EPSILON if absent == "zero" else 0.0))


def iou(counts: Tensor, absent: Absent = "nan") -> Tensor:
    """Intersection over union of each class, (..., C, C) -> (..., C) float64; `absent` as in `ratio`."""
    return ratio(*intersection_union(counts), absent)


def mean_iou(counts: Tensor, absent: Absent = "nan") -> Tensor:
    """The mean over the classes of `iou`, (..., C, C) -> (...) float64; NaN where nothing was counted."""
    return mean_ratio(*intersection_union(counts), absent)


def mean_ratio(intersection: Tensor, union: Tensor, absent: Absent = "nan") -> Tensor:
    """The mean over the classes of `ratio`, (..., C), (..., C) -> (...) float64; NaN where every union is empty."""
    return ratio(intersection, union, absent).nanmean(dim=-1).masked_fill(union.sum(dim=-1) == 0, torch.nan)
