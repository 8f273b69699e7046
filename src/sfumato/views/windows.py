"""Which part of an image a crop shows: the geometry of "resize, pad, crop, flip", read as "crop, then resize".

Resizing first reads every pixel of an image that may have been enlarged four times over, and then throws most of it
away. The same draws say which window of the stored image the crop will show, and only that is read.

The conventions are UniMatch's. The long side of the resized image is a whole number, each in int(L * smallest) to
int(L * largest) equally likely. The short side is int(short * long / L + 0.5). A side below the crop's is padded right
or below, after which the crop's place is one of all that lie in the image, in whole pixels of the resized image. So the
edges of the window are these pixels times (stored side / resized side), in general fractions of a stored pixel: a
resize that takes a fractional box, as PIL's does, gives the pixels of resize-then-crop. The flip comes last.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.types import Windows
from sfumato.views.dense_presets import DensePreset
from sfumato.views.draws import uniform

_DRAWS = 4  # numbers per sample: scale, place across, place down, flip


def draw_windows(
    preset: DensePreset,
    sizes: NDArray[np.int64],
    crop: tuple[int, int],
    *,
    seed: int,
    step: int,
    slots: NDArray[np.int64] | Tensor,
    purpose: str,
) -> Windows:
    """The windows of n crops, a function of (seed, step, purpose, slot) and of the size of the image.

    Args:
        preset: scale, base and flip count here.
        sizes: (n, 2) width and height of the stored images.
        crop: (height, width).
        seed: of the run.
        step: of the training.
        slots: (n,) places of the samples in the global batch.
        purpose: what the crops are for. Views of one purpose share their window.

    """
    draw = uniform(seed, step, f"{purpose} window", torch.as_tensor(slots), _DRAWS).numpy().astype(np.float64)
    resized = _resized(preset, sizes, draw[:, 0])
    shape = np.minimum(resized, [crop[1], crop[0]])
    corner = np.floor(draw[:, 1:3] * (resized - shape + 1))
    box = np.concatenate([corner, corner + shape], 1) * np.tile(sizes, 2) / np.tile(resized, 2)
    return Windows(box, shape, draw[:, 3] < preset.flip)


def whole(sizes: NDArray[np.int64]) -> Windows:
    """The images as they are, (n, 2) width and height, for evaluation; a larger crop pads them."""
    box = np.concatenate([np.zeros_like(sizes), sizes], 1).astype(np.float64)
    return Windows(box, sizes.astype(np.int64), np.zeros(len(sizes), dtype=np.bool_))


def _resized(preset: DensePreset, sizes: NDArray[np.int64], draw: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, 2) width and height to which the whole images would be resized."""
    longest = sizes.max(1)
    base = longest if preset.base is None else np.full_like(longest, preset.base)
    smallest, largest = (np.floor(base * share) for share in preset.scale)
    side = np.maximum(1, smallest + np.floor(draw * (largest - smallest + 1)))
    resized = np.floor(sizes * side[:, None] / longest[:, None] + 0.5)  # the long side comes out as drawn
    pixels: NDArray[np.int64] = np.maximum(1, resized).astype(np.int64)
    return pixels
