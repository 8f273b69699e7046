"""Boundary IoU (Cheng et al. 2021, eq. 2): the overlap of what lies near the contours, where large regions do not drown
thin ones.

The band of a region is what an erosion by d pixels takes away: its pixels with another class, or the edge of the image,
no more than d rows and d columns away. As in the authors' code, the edge of the image counts as a contour. Theirs
erodes each class; here the classes of an image are disjoint, so a pixel is in its class's band where the window around
it holds a larger or a smaller class than its own, which takes two planes instead of C.

Void pixels, of which the paper does not speak, make no contour and are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.functional.confusion import confusion, ignored
from sfumato.types import VOID

SHARE = 0.02  # of the image's diagonal, the paper's width for COCO; it takes 0.5 % for the larger Cityscapes images


def band_width(height: int, width: int, share: float = SHARE) -> int:
    """Pixels in `share` of the image's diagonal, at least 1."""
    return max(1, round(share * math.hypot(height, width)))


def band(labels: Tensor, width: int, ignore: Tensor | None = None) -> Tensor:
    """Which pixels lie within `width` of another class or of the image's edge, (N, H, W) bool.

    labels: (N, H, W) integers; ignore: (N, H, W) bool, pixels that make no contour.
    """
    near = torch.ones_like(labels, dtype=torch.bool)
    if min(labels.shape[1:]) <= 2 * width:
        return near
    low, high = labels, labels
    if ignore is not None:
        limits = torch.iinfo(labels.dtype)
        low, high = labels.masked_fill(ignore, limits.max), labels.masked_fill(ignore, limits.min)
    inner = (slice(None), slice(width, -width), slice(width, -width))
    here = labels[inner]
    near[inner] = (_window(high, width, torch.maximum) > here) | (_window(low, width, torch.minimum) < here)
    return near


def boundary_confusion(prediction: Tensor, labels: Tensor, num_classes: int, share: float = SHARE) -> Tensor:
    """What `intersection_union` needs for the bands of all classes, (C + 1, C + 1) int64, to be added up over images.

    prediction, labels: (N, H, W) as in `functional.confusion`. Row and column C hold the pixels outside their class's
    band, on the side of the labels and of the predictions: the first C intersections and unions are those of the bands.
    """
    void = ignored(labels, num_classes)
    small = torch.uint8 if num_classes <= VOID else torch.int32  # the windows read memory and do little else
    width = band_width(labels.shape[1], labels.shape[2], share)
    far = ~band(labels.to(small), width, void)
    row = labels.long().masked_fill(far, num_classes).masked_fill(void, -1)
    column = prediction.masked_fill(~band(prediction.to(small), width), num_classes)
    return confusion(column, row, num_classes + 1)


def _window(values: Tensor, width: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Extremes of squares of 2 `width` + 1 pixels, where these fit, (N, H, W) -> (N, H - 2 width, W - 2 width).

    Each pass joins two spans of the one before, so that a span of k takes log2 k passes.
    """
    wanted = 2 * width + 1
    for dim in (1, 2):
        span = 1
        while span < wanted:
            step = min(span, wanted - span)
            rest = values.shape[dim] - step
            values = pick(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
            span += step
    return values
