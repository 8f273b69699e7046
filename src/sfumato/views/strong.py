"""The strong view: one interpolation for all geometry, then filters, then one table per channel, then the cutout.

The order of a sample's slots holds among its geometric and among its pointwise operations. Between the kinds it is
fixed as above, so that each costs one pass however many slots there are.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sfumato.views import affine, filters, tables
from sfumato.views.presets import Operation, Preset
from sfumato.views.slots import Slots, on_rows


def distorted(values: Tensor, crop: Tensor, slots: Slots, preset: Preset, size: int) -> Tensor:
    """The pixels (N, channels, size * size) int64 in 0..255 after geometry, sharpness and color.

    `values` are images (N, channels, H, W) float in 0..255, `crop` their maps (N, 2, 3).
    """
    return filtered(affine.warp(values, affine.distort(crop, slots), size, preset.padding), slots, preset.operations)


def filtered(values: Tensor, slots: Slots, pool: tuple[Operation, ...]) -> Tensor:
    """The pixels (N, channels, H * W) int64 in 0..255 after sharpness, color, hue and blur, as far as `pool` has them.

    `values` (N, channels, H, W) float in 0..255 may be overwritten.
    """
    names = {operation.name for operation in pool}
    for name, function in (("sharpness", filters.sharpen), ("color", filters.saturate)):
        if name in names:
            factor = slots.magnitude_of(name, 1.0).prod(1)
            values = on_rows(slots.drew(name).any(1), function, values, factor)
    if "hue" in names:
        values = on_rows(slots.drew("hue").any(1), filters.turn, values, slots.magnitude_of("hue", 0.0).sum(1))
    if "blur" in names:
        sigma = slots.magnitude_of("blur", 0.0).square().sum(1).sqrt()  # of several Gaussians one after the other
        widest = max(operation.high for operation in pool if operation.name == "blur") * slots.magnitude.shape[1] ** 0.5
        values = on_rows(slots.drew("blur").any(1), partial(filters.blur, widest=widest), values, sigma)
    return values.add_(0.5).long().flatten(2)  # no step leaves 0..255


def recolored(pixels: Tensor, slots: Slots, scale: Tensor, offset: Tensor, views: Tensor) -> None:
    """Into `views`: `pixels` after the pointwise operations, times `scale` plus `offset` (channels, 1), in one pass."""
    table = tables.composed(pixels, slots).mul_(scale).add_(offset)
    torch.gather(table, 2, pixels, out=views.flatten(2))


def cut_out(views: Tensor, draw: Tensor, largest: float, fill: Tensor) -> None:
    """Replaces in `views` a square of up to `largest` of the side, its centre anywhere, by `fill` (channels, 1, 1).

    `draw` (N, 3) in [0, 1): side, and centre across and down.
    """
    size = views.shape[-1]
    half = draw[:, :1] * (largest * size / 2)
    places = torch.arange(size, device=views.device) + 0.5
    across = ((places - draw[:, 1:2] * size).abs() < half).to(views.dtype)  # (N, size)
    down = ((places - draw[:, 2:3] * size).abs() < half).to(views.dtype)
    hole = down[:, None, :, None] * across[:, None, None, :]
    views.mul_(1 - hole).addcmul_(hole, fill)  # a quarter of the time of torch.where
