"""Maps on the grid of coarser ones, and the places of maps as rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def nearest(x: Tensor, space: Sequence[int]) -> Tensor:
    """Maps (..., *S) at the centers of a grid `space`, (..., *space), of any dtype; as they are for an empty space.

    As `interpolate(mode="nearest-exact")`, which takes floating values only, with places from integers.
    """
    for axis, size in enumerate(space, start=x.dim() - len(space)):
        length = x.shape[axis]
        if length != size:
            centers = (2 * torch.arange(size, device=x.device) + 1) * length // (2 * size)
            x = x.index_select(axis, centers)
    return x


def as_rows(x: Tensor) -> Tensor:
    """Features or probabilities (N, D, *S) with a row for each place, (M, D), in the order of `flatten`."""
    return x.movedim(1, -1).flatten(0, -2)
