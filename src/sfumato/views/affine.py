"""All geometry of a view as one affine map and one interpolation.

A map is (N, 2, 3): it takes a place of the view to the place in the image that is shown there. Places are (x, y), with
-1 and 1 at the borders of the view, and at the centres of the outermost pixels of the image as in `grid_sample`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from sfumato.views.slots import Slots


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The map that applies `inner` first and then `outer`.

    Written out because a matrix product may round differently for batches of other lengths.
    """
    composed = outer[:, :, 0:1] * inner[:, 0:1, :] + outer[:, :, 1:2] * inner[:, 1:2, :]
    composed[:, :, 2] += outer[:, :, 2]
    return composed


def crop(width: int, height: int, center: Tensor, half: Tensor) -> Tensor:
    """The map whose view is an upright rectangle of an image of `width` times `height` pixels.

    `center` (N, 2) is its middle in pixels from the middle of the image, `half` (N, 2) half its sides in pixels; a
    negative one mirrors.
    """
    theta = center.new_zeros(len(center), 2, 3)
    for axis, length in enumerate((width, height)):
        scale = 2 / max(1, length - 1)
        theta[:, axis, axis] = half[:, axis] * scale
        theta[:, axis, 2] = center[:, axis] * scale
    return theta


def distort(theta: Tensor, slots: Slots) -> Tensor:
    """`theta` followed by the rotation, shears and translations among the slots, in their order."""
    angle = slots.magnitude_of("rotate", 0.0) * (math.pi / 180)
    shear_x, shear_y = slots.magnitude_of("shear_x", 0.0), slots.magnitude_of("shear_y", 0.0)
    across, down = slots.magnitude_of("translate_x", 0.0), slots.magnitude_of("translate_y", 0.0)
    cosine, sine = angle.cos(), angle.sin()
    # A slot draws one operation, so at most one term of each sum is not zero; a side is 2 long.
    rows = (cosine, shear_x - sine, 2 * across, shear_y + sine, cosine, 2 * down)
    steps = torch.stack(rows, 2).view(*angle.shape, 2, 3)  # (N, K, 2, 3)
    for place in range(steps.shape[1]):
        theta = compose(theta, steps[:, place])
    return theta


def warp(images: Tensor, theta: Tensor, size: int, padding: str) -> Tensor:
    """The views of `images` (N, channels, H, W) float under the maps `theta`: (N, channels, size, size), bilinear."""
    places = (2 * torch.arange(size, device=images.device) + 1) / size - 1
    across = theta[:, :, :1] * places  # (N, 2, size)
    down = theta[:, :, 1:2] * places + theta[:, :, 2:]
    grid = across[:, :, None, :] + down[:, :, :, None]  # (N, 2, size, size): one add over whole rows
    return grid_sample(images, grid.movedim(1, 3), mode="bilinear", padding_mode=padding, align_corners=True)
