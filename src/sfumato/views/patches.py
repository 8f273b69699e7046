"""Which patches of an image may be masked."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.views.draws import uniform

SIDE = 32  # pixels of a patch; a quarter of a small image
MASKED = 0.7  # probability that a patch may be masked, in
IMAGES = 0.5  # the share of images of which any may


def draw_patches(
    slots: Tensor, size: tuple[int, int], *, seed: int, step: int, purpose: str, side: int | None = None
) -> Tensor:
    """1 where a patch may be masked and 0 elsewhere, (N, height, width) float32 for `size` = (height, width).

    CSL masks half of the images, each patch of `side` pixels (32, or a quarter of the shorter side of a small image)
    with probability 0.7; patches at the right and lower edge may be cut. A function of seed, step, purpose and slot.
    """
    height, width = size
    side = side or max(1, min(SIDE, min(size) // 4))
    rows, columns = -(-height // side), -(-width // side)
    draw = uniform(seed, step, purpose, slots, 1 + rows * columns)
    grid = ((draw[:, 1:] < MASKED) & (draw[:, :1] < IMAGES)).to(torch.float32).reshape(-1, rows, columns)
    return grid.repeat_interleave(side, dim=1).repeat_interleave(side, dim=2)[:, :height, :width]
