"""Images turned by quarters of a circle."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import UsageError

QUARTERS = 4


def quarters(uniform: Tensor) -> Tensor:
    """0, 1, 2 or 3, alike often, for numbers in [0, 1)."""
    return (uniform * QUARTERS).long()


def turned(x: Tensor, by: Tensor) -> Tensor:
    """Each image by its own number of quarters, counter-clockwise. x: (N, channels, H, H); by: (N,) of 0 to 3.

    Rows of a table (N, D) are moved cyclically by so many quarters of D.

    Raises:
        UsageError: images that are not square.
    """
    if x.dim() == 2:
        turns = [x.roll(-k * x.shape[1] // QUARTERS, 1) for k in range(QUARTERS)]
    elif x.shape[-1] != x.shape[-2]:
        raise UsageError(
            f"Images of {x.shape[-2]} x {x.shape[-1]} pixels cannot be turned by a quarter: that takes square ones."
        )
    else:
        turns = [x.rot90(k, (-2, -1)) for k in range(QUARTERS)]
    out = turns[0]
    for k in range(1, QUARTERS):
        out = torch.where((by == k).reshape(-1, *(1,) * (x.dim() - 1)), turns[k], out)
    return out
