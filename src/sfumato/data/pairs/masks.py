"""From a mask file to the numbers it stores, whatever its format. What they mean is not decided here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from sfumato.data.decode import BrokenImage, Item, opened

Values = NDArray[np.uint8] | NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """A mask that no file holds: made from its annotations each time it is asked for."""

    draw: Callable[[], NDArray[np.uint8]]  # (H, W)


MaskItem = Item | Drawn

INDEX_MODES = frozenset({"1", "L", "P"})
WIDE_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
COLOR_MODES = frozenset({"RGB", "RGBA", "RGBX"})
MOST_COLORS = 4096  # a mask has a handful; a photograph has more than this
# Pillow stretches grey of 2 and 4 bits to 0..255; the stored numbers are these shares of what it gives
STRETCHED = {"L;2": 85, "L;4": 17}


class UnusableMask(BrokenImage):
    """A mask that decodes but can hold no classes; the text is the reason and how to mend it."""


@dataclass(frozen=True, slots=True)
class Raw:
    """The numbers of a mask: class numbers, or colors as 0xRRGGBB."""

    values: Values  # (H, W)
    colored: bool


@dataclass(frozen=True, slots=True)
class MaskLook:
    """What one mask holds."""

    width: int
    height: int
    colored: bool
    counts: dict[int, int]  # stored value -> pixels


def look_at(item: MaskItem) -> MaskLook:
    """Size and values of a mask, decoded once. Raises BrokenImage, and UnusableMask of a file that cannot be a mask."""
    raw = read_raw(item)
    height, width = raw.values.shape
    if raw.values.dtype == np.uint8:
        numbers = np.bincount(raw.values.ravel(), minlength=256)
        return MaskLook(width, height, raw.colored, {int(v): int(numbers[v]) for v in np.flatnonzero(numbers)})
    values, numbers = np.unique(raw.values, return_counts=True)
    return MaskLook(width, height, raw.colored, dict(zip(values.tolist(), numbers.tolist(), strict=True)))


def read_raw(item: MaskItem) -> Raw:
    """The numbers of a mask, turned as its EXIF orientation says. Raises BrokenImage and UnusableMask."""
    if isinstance(item, Drawn):
        return Raw(item.draw(), colored=False)
    with opened(item) as image:
        if image.format in {"JPEG", "MPO"}:
            raise UnusableMask(
                "a JPEG, whose lossy compression changes the class numbers. Export the mask again as PNG."
            )
        stretch = STRETCHED.get(_raw_mode(image), 1)
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode in COLOR_MODES:
        return Raw(_packed(upright.convert("RGB")), colored=True)
    if upright.mode in WIDE_MODES:
        return Raw(_whole(np.asarray(upright)), colored=False)
    if upright.mode == "LA":
        upright = upright.getchannel("L")
    if upright.mode not in INDEX_MODES:
        raise UnusableMask(f"an image of mode {upright.mode}. Export the mask as PNG with one class number a pixel.")
    return Raw(np.asarray(upright).astype(np.uint8) // stretch, colored=False)


def _raw_mode(image: Image.Image) -> str:
    """How the file stores a pixel, which is forgotten once it is loaded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return args if isinstance(args, str) else ""


def _packed(image: Image.Image) -> NDArray[np.int64]:
    if image.getcolors(MOST_COLORS) is None:
        raise UnusableMask(
            f"more than {MOST_COLORS} colours, as a photograph has. Is it the image, or was it resized or compressed "
            "with loss? Export the mask as PNG with one class number (or one colour of the class table) a pixel."
        )
    pixels = np.asarray(image).astype(np.int64)
    return pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]


def _whole(values: NDArray[np.generic]) -> NDArray[np.int64]:
    numbers = np.asarray(values, dtype=np.int64) if np.issubdtype(values.dtype, np.integer) else None
    if numbers is None:
        floats = np.asarray(values, dtype=np.float64)
        if not np.isfinite(floats).all() or (floats != np.rint(floats)).any():
            raise UnusableMask("fractions instead of whole class numbers. Export the mask with one number a pixel.")
        numbers = floats.astype(np.int64)
    return numbers
