"""The operations that map each value of a channel to another: as tables of 256 entries, composed over the slots.

A table (N, channels, 256) holds, for each grey value of the image, the value it has become. With the histogram of the
image (`counts`, the same shape) it knows every statistic of the image it stands for, so an image of any size is read
twice, once for the histogram and once through the finished table, however many operations it undergoes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.views.filters import luma
from sfumato.views.slots import Slots, on_rows

LEVELS = 256


def histogram(pixels: Tensor) -> Tensor:
    """(N, channels, 256) float32 counts of `pixels` (N, channels, P) int64 in 0..255; exact below 2^24 pixels."""
    counts = torch.zeros(*pixels.shape[:2], LEVELS, device=pixels.device)
    return counts.scatter_add_(2, pixels, counts.new_ones(1).expand_as(pixels))


def brightness(table: Tensor, counts: Tensor, factor: Tensor) -> Tensor:
    """Away from black."""
    return table * factor


def contrast(table: Tensor, counts: Tensor, factor: Tensor) -> Tensor:
    """Away from the mean grey value of the image, rounded as PIL does."""
    means = (table * counts).sum(2, keepdim=True) / counts.sum(2, keepdim=True)
    mean = (luma(means) + 0.5).floor()
    return mean + factor * (table - mean)


def autocontrast(table: Tensor, counts: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a constant one stays."""
    present = counts > 0
    low = table.where(present, table.new_full((), 255)).amin(2, keepdim=True)
    high = table.where(present, table.new_zeros(())).amax(2, keepdim=True)
    stretched = (table - low) * (255 / (high - low).clamp(min=1))
    return torch.where(high > low, stretched, table)


def equalize(table: Tensor, counts: Tensor, bins: Tensor) -> Tensor:
    """Each channel's histogram of `bins` equal bins made flat; a channel that fills one bin only stays.

    PIL rounds the pixels per output level down, which drives images below some hundred pixels a side into white; here
    the ratio is exact. The two agree on large images.
    """
    place = (table * (bins / LEVELS)).long().clamp(0, LEVELS - 1)
    filled = torch.zeros_like(counts).scatter_add_(2, place, counts).long()
    below = filled.cumsum(2) - filled  # pixels in darker bins
    spread = torch.where(filled > 0, below, 0).amax(2, keepdim=True)  # pixels below the brightest bin that is filled
    level = (510 * below + spread) // (2 * spread).clamp(min=1)  # 255 * below / spread, rounded
    return torch.where(spread > 0, level.gather(2, place).to(table.dtype), table)


def posterize(table: Tensor, counts: Tensor, bits: Tensor) -> Tensor:
    """The `bits` (rounded down) most significant bits of each value."""
    dropped = (8 - bits.int()).clamp(0, 8)
    return ((table.int() >> dropped) << dropped).to(table.dtype)


def solarize(table: Tensor, counts: Tensor, threshold: Tensor) -> Tensor:
    """Values from the threshold on inverted."""
    return torch.where(table >= threshold, 255 - table, table)


POINTWISE = {
    "autocontrast": autocontrast,
    "brightness": brightness,
    "contrast": contrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
}
STATISTICAL = ("autocontrast", "contrast", "equalize")  # those that look at the histogram


def composed(pixels: Tensor, slots: Slots) -> Tensor:
    """The table (N, channels, 256) of all slots, in their order, for `pixels` (N, channels, P) int64 in 0..255."""
    table = torch.arange(LEVELS, dtype=torch.float32, device=pixels.device).repeat(*pixels.shape[:2], 1)
    asked = torch.stack([slots.drew(name) for name in STATISTICAL]).any(2).any(0)
    counts = on_rows(asked, lambda _, rows: histogram(rows), torch.zeros_like(table), pixels)
    magnitudes = slots.magnitude[:, :, None, None]
    for place in range(magnitudes.shape[1]):
        for name, operation in POINTWISE.items():
            drew = slots.drew(name)[:, place]
            table = on_rows(drew, operation, table, counts, magnitudes[:, place])
        table = table.round_().clamp_(0, LEVELS - 1)
    return table
