"""`shapes`: 600 generated images of 64 x 64 with a mask each: textured ground and five shapes, two of them rare.

Made from a fixed seed when asked for, so that nothing is downloaded or stored. A shape's color only hints at its
class; a border of one pixel around each shape is void, as in PASCAL VOC. Every mask is known, so pseudo-labels can
be compared with the truth.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sfumato.data.pairs.classes import table_of
from sfumato.data.pairs.listing import Pair, PairListing
from sfumato.types import VOID

CLASSES = ["ground", "disc", "square", "triangle", "ring", "cross"]
RARE = (4, 5)
SIDE = 64
SPLIT = {"train": 400, "val": 80, "test": 120}
COUNT = sum(SPLIT.values())
# chance that there is a shape, its classes from-to, its radius from-to; the later lie on top of the earlier
SLOTS = ((1.0, (1, 3), (9.0, 14.0)), (0.7, (1, 3), (8.0, 13.0)), (0.4, (1, 3), (7.0, 12.0)), (0.3, (4, 5), (7.0, 9.5)))
# of red, green and blue, by class: weak against the spread of each shape's color
TINT = np.array([[0, 0, 0], [1, -1, 0], [-1, 1, 0], [0, -1, 1], [0, 1, -1], [-1, 0, 1]]) * 65.0
SPREAD = 58.0
LEAST_CONTRAST = 110.0  # of a shape with the ground, over the three channels

Floats = NDArray[np.float64]


def read() -> PairListing:
    images, masks = _generated()
    splits = [split for split, count in SPLIT.items() for _ in range(count)]
    pairs = [
        Pair(images[row], f"shapes/{row:04d}", masks[row], f"shapes/{row:04d} (mask)", split)
        for row, split in enumerate(splits)
    ]
    return PairListing(pairs, "built-in set shapes", table=table_of(CLASSES))


@lru_cache(maxsize=1)
def _generated() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, S, S, 3) and masks (N, S, S)."""
    ground = 128 + SPREAD * _spread("ground color", COUNT, 3)
    pixels = ground[:, None, None, :] + _texture("ground texture", 9, 45.0)
    masks = np.zeros((COUNT, SIDE, SIDE), dtype=np.uint8)
    for slot, (chance, (first, last), radii) in enumerate(SLOTS):
        classes = first + np.floor(_uniform(f"class {slot}", COUNT) * (last - first + 1)).astype(np.int64)
        inside = _shapes(slot, classes, radii) & (_uniform(f"there {slot}", COUNT) < chance)[:, None, None]
        color = _apart(128 + TINT[classes] + SPREAD * _spread(f"color {slot}", COUNT, 3), ground)
        painted = color[:, None, None, :] + _texture(f"texture {slot}", 5, 25.0)
        pixels = np.where(inside[..., None], painted, pixels)
        masks[_grown(inside) & ~inside] = VOID
        masks = np.where(inside, classes[:, None, None], masks).astype(np.uint8)
    pixels += 14.0 * _spread("noise", COUNT, SIDE, SIDE, 3)
    return np.rint(pixels.clip(0, 255)).astype(np.uint8), masks


def _shapes(slot: int, classes: NDArray[np.int64], radii: tuple[float, float]) -> NDArray[np.bool_]:
    """(N, S, S): inside of one turned shape an image, anywhere that keeps most of it in the image."""
    radius = radii[0] + (radii[1] - radii[0]) * _uniform(f"radius {slot}", COUNT)
    center = 8 + (SIDE - 16) * _uniform(f"center {slot}", COUNT, 2)
    angle = 2 * np.pi * _uniform(f"angle {slot}", COUNT)
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    grid = np.arange(SIDE) + 0.5
    x = (grid[None, None, :] - center[:, 0, None, None]) / radius[:, None, None]
    y = (grid[None, :, None] - center[:, 1, None, None]) / radius[:, None, None]
    u, v = np.abs(cosine * x + sine * y), cosine * y - sine * x  # the shapes are symmetric in u
    distance = u**2 + v**2
    kinds = (
        distance < 1,
        np.maximum(u, np.abs(v)) < 0.85,
        (v > -0.6) & (np.sqrt(3) * u + v < 1.2),
        (distance < 1) & (distance > 0.5**2),
        (np.minimum(u, np.abs(v)) < 0.33) & (np.maximum(u, np.abs(v)) < 1.1),
    )
    return np.asarray(np.choose((classes - 1)[:, None, None], kinds), dtype=bool)


def _apart(color: Floats, ground: Floats) -> Floats:
    """Colors of enough contrast: those too near to the ground's become their complement."""
    near = np.abs(color - ground).sum(axis=1, keepdims=True) < LEAST_CONTRAST
    away = ground + np.where(ground < 128, 1, -1) * 60.0
    return np.where(near, away, color)


def _grown(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the neighbors in a row and in a column."""
    grown = inside.copy()
    grown[:, 1:] |= inside[:, :-1]
    grown[:, :-1] |= inside[:, 1:]
    grown[:, :, 1:] |= inside[:, :, :-1]
    grown[:, :, :-1] |= inside[:, :, 1:]
    return grown


def _texture(purpose: str, cells: int, height: float) -> Floats:
    """(N, S, S, 1): coarse noise of `cells` x `cells`, smoothly interpolated."""
    place = (np.arange(SIDE) + 0.5) * (cells - 1) / SIDE
    weight = np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(cells)))  # (S, cells)
    smooth = weight @ _spread(purpose, COUNT, cells, cells) @ weight.T
    return np.asarray(height * smooth[..., None])


def _spread(purpose: str, *shape: int) -> Floats:
    """Uniform in -1..1."""
    return 2 * _uniform(purpose, *shape) - 1


def _uniform(purpose: str, *shape: int) -> Floats:
    """In 0..1, a function of the purpose alone; only raw bits are drawn, which NumPy promises never to change."""
    seed = int.from_bytes(hashlib.sha256(f"shapes/{purpose}".encode()).digest()[:16], "little")
    bits = np.random.Philox(key=seed).random_raw(int(np.prod(shape)))
    return (bits >> np.uint64(11)).astype(np.float64).reshape(shape) * 2.0**-53
