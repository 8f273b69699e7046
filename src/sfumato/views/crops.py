"""The part of an image that a view shows before anything else happens to it: shifted, flipped, or a random part."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.views import affine
from sfumato.views.presets import Preset

DRAWS = 5  # numbers per sample: flip, position across and down, area, aspect


def shift_of(preset: Preset, draw: Tensor, size: int) -> Tensor:
    """(N, 2) int64: pixels to the right and downwards, each whole shift up to the preset's equally likely."""
    reach = round(preset.shift * size)
    return (draw[:, 1:3] * (2 * reach + 1)).long() - reach


def flip_of(preset: Preset, draw: Tensor) -> Tensor:
    """(N,) bool: which views are mirrored."""
    return draw[:, 0] < preset.flip


def shifted(images: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """`images` (N, channels, H, W) of any dtype, moved by whole pixels and reflected at the border, in one gather."""
    count, channels, height, width = images.shape
    x = torch.arange(width, device=images.device)
    x = torch.where(flip[:, None], width - 1 - x, x) + shift[:, :1]
    y = torch.arange(height, device=images.device) + shift[:, 1:]
    places = _reflected(y, height)[:, :, None] * width + _reflected(x, width)[:, None, :]  # (N, H, W)
    places = places.view(count, 1, -1).expand(-1, channels, -1)
    return images.reshape(count, channels, -1).gather(2, places).view_as(images)


def _reflected(place: Tensor, length: int) -> Tensor:
    """Indices up to one length beyond the border, mirrored there without repeating the outermost pixel."""
    return ((length - 1) - ((length - 1) - place.abs()).abs()).clamp(min=0)


def crop_map(preset: Preset, draw: Tensor, width: int, height: int, size: int) -> Tensor:
    """The affine map (N, 2, 3) of the crop: the middle square, shifted, or a random part of the image; and the flip."""
    extent = torch.stack((torch.full_like(draw[:, 0], width), torch.full_like(draw[:, 0], height)), 1)  # (N, 2)
    side = min(width, height)
    if preset.area is None:
        half = torch.full_like(extent, side / 2)
        center = shift_of(preset, draw, size) * (side / size)
    else:
        smallest, largest = preset.area
        share = smallest + (largest - smallest) * draw[:, 3]
        stretch = ((draw[:, 4] - 0.5) * math.log(preset.aspect)).exp()  # square root of width to height
        half = side / 2 * share.sqrt()[:, None] * torch.stack((stretch, 1 / stretch), 1)
        half = half.minimum(extent / 2)
        center = (2 * draw[:, 1:3] - 1) * (extent / 2 - half)
    mirror = torch.where(flip_of(preset, draw), -1.0, 1.0)
    return affine.crop(width, height, center, half * torch.stack((mirror, torch.ones_like(mirror)), 1))
