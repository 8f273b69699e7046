"""Which patches of an image may be masked."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.views.dense_presets import Patches
from sfumato.views.draws import uniform


def small_patches(size: tuple[int, int]) -> Patches:
    """CSL's patches of 32 pixels, of a quarter of the shorter side where that is less."""
    return Patches(side=max(1, min(Patches().side, min(size) // 4)))


def draw_patches(
    slots: Tensor, size: tuple[int, int], patches: Patches, *, seed: int, step: int, purpose: str
) -> Tensor:
    """1 where a patch may be masked and 0 elsewhere, (N, height, width) float32 for `size` = (height, width).

    All over an image that is to stay whole it is 0. A function of seed, step, purpose and slot.
    """
    down, across = (max(1, length // patches.side) for length in size)
    draw = uniform(seed, step, purpose, slots, 1 + down * across)
    grid = (draw[:, 1:] < patches.rate) & (draw[:, :1] < patches.probability)
    rows, columns = (
        torch.arange(length, device=slots.device) * count // length
        for length, count in zip(size, (down, across), strict=True)
    )
    return grid.view(-1, down, across).index_select(1, rows).index_select(2, columns).float()


def with_patches(slots: Tensor, patches: Patches, *, seed: int, step: int, purpose: str) -> Tensor:
    """(N,) bool: the images of which `draw_patches` may mask any."""
    return uniform(seed, step, purpose, slots, 1)[:, 0] < patches.probability
