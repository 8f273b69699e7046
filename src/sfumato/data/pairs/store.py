"""The images and masks of a table, decoded on demand, kept in memory as far as they fit, and cut into crops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from sfumato.data.decode import BrokenImage, attempt_each, decode_whole, digest
from sfumato.data.images import KEEP_LIMIT, describe_broken
from sfumato.data.pairs.coding import Coding
from sfumato.data.pairs.listing import Pair
from sfumato.data.pairs.masks import read_raw
from sfumato.errors import DataError, UsageError
from sfumato.types import VOID, Windows

Resize = tuple[int, int] | int | None  # (width, height), the long side, or as they are
PIXELS_PER_TASK = 1 << 18  # of crops, for each task of a thread
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Crops:
    images: Tensor  # (n, channels, h, w) uint8, 0 where padded
    masks: Tensor | None  # (n, h, w) uint8, VOID where padded, without a class, or not known
    inside: Tensor  # (n, h, w) uint8, 0 where padded, else 1


class PairStore:
    """N images of any size, and the masks of those that have one.

    pairs: where they are. sizes: (N, 2) width and height of the upright images. coding: what the numbers in the masks
    mean. resize: resize each pair when it is decoded, images by smoothing and masks by the nearest pixel. keep_limit:
    bytes of decoded images and masks to keep; once they are used up, what comes later is decoded each time. Either way
    the same row gives the same bits.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        sizes: NDArray[np.int64],
        coding: Coding,
        *,
        channels: int,
        resize: Resize = None,
        keep_limit: int = KEEP_LIMIT,
    ) -> None:
        self.pairs = pairs
        self.channels = channels
        self.coding = coding
        self._resized = resize is not None
        self._sizes = resized(sizes, resize)
        self._images = Kept(keep_limit)
        self._masks = self._images.beside()
        self._digests: dict[tuple[str, int], str] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def sizes(self, rows: ArrayLike) -> NDArray[np.int64]:
        """(n, 2) width and height, known without decoding."""
        return self._sizes[np.asarray(rows, dtype=np.int64)]

    def image(self, row: int) -> Tensor:
        """(channels, H, W) uint8 on the CPU. Raises DataError naming the image if it cannot be decoded."""
        return torch.from_numpy(self._planes(self._one(self._open_image, row)))

    def mask(self, row: int) -> Tensor:
        """(H, W) uint8, VOID where there is no class; all VOID of an image without a mask."""
        return torch.from_numpy(np.array(self._one(self._open_mask, row)))

    def crops(self, rows: ArrayLike, windows: Windows, size: tuple[int, int], *, masks: bool) -> Crops:
        """Cut, resize, pad and flip: one crop of `size` (height, width) of each of n rows.

        The window is resized straight from the image (bilinear, smoothing where it shrinks; masks by the nearest
        pixel), which samples the same points as resizing the whole image first.
        """
        wanted = [int(row) for row in np.asarray(rows, dtype=np.int64)]
        height, width = size
        check_windows(windows, len(wanted), size)
        images = np.zeros((len(wanted), self.channels, height, width), dtype=np.uint8)
        labels = np.full((len(wanted), height, width), VOID, dtype=np.uint8) if masks else None
        inside = np.zeros((len(wanted), height, width), dtype=np.uint8)

        def cut(place: int) -> None:
            row, flip = wanted[place], bool(windows.flip[place])
            box = clipped(windows.box[place], self._sizes[row])
            across, down = (int(side) for side in windows.shape[place])
            columns = slice(width - across, width) if flip else slice(0, across)
            image = self._open_image(row).resize((across, down), Image.Resampling.BILINEAR, box)
            images[place, :, :down, columns] = _turned(self._planes(image), flip)
            inside[place, :down, columns] = 1
            if labels is not None and self.pairs[row].mask is not None:
                cut_labels(self._open_mask(row), windows, place, labels[place])

        done = attempt_each(cut, range(len(wanted)), chunk=max(1, PIXELS_PER_TASK // (height * width)))
        self._all_sound(wanted, done)
        return Crops(
            torch.from_numpy(images), None if labels is None else torch.from_numpy(labels), torch.from_numpy(inside)
        )

    def image_digests(self, rows: ArrayLike) -> list[str]:
        """A hash of each image: equal for equal pixels, whatever the file format or `resize`."""
        return self._hash("image", rows, lambda row: digest(self.pairs[row].image))

    def digests(self, rows: ArrayLike) -> list[str]:
        """A hash of each image and its mask: equal for equal pixels and equal classes."""
        masks = self._hash("mask", rows, self._digest_mask)
        return [f"{image}+{mask}" for image, mask in zip(self.image_digests(rows), masks, strict=True)]

    def _digest_mask(self, row: int) -> str:
        item = self.pairs[row].mask
        if item is None:
            return "none"
        labels = self.coding.labels(read_raw(item))
        return hashlib.sha256(f"{labels.shape}".encode() + labels.tobytes()).hexdigest()

    def _hash(self, kind: str, rows: ArrayLike, function: Callable[[int], str]) -> list[str]:
        wanted = [int(row) for row in np.asarray(rows, dtype=np.int64)]
        missing = [row for row in dict.fromkeys(wanted) if (kind, row) not in self._digests]
        found = self._all_sound(missing, attempt_each(function, missing))
        self._digests.update(((kind, row), value) for row, value in zip(missing, found, strict=True))
        return [self._digests[kind, row] for row in wanted]

    def _open_image(self, row: int) -> Image.Image:
        return self._images.get(row, lambda: decode_whole(self.pairs[row].image, self.channels, self._target(row)))

    def _open_mask(self, row: int) -> Image.Image:
        return self._masks.get(row, lambda: self._decode_mask(row))

    def _decode_mask(self, row: int) -> Image.Image:
        item = self.pairs[row].mask
        if item is None:
            return Image.new("L", self._size(row), VOID)
        mask = Image.fromarray(self.coding.labels(read_raw(item)))
        return mask.resize(self._size(row), Image.Resampling.NEAREST) if self._resized else mask

    def _target(self, row: int) -> tuple[int, int] | None:
        return self._size(row) if self._resized else None

    def _size(self, row: int) -> tuple[int, int]:
        width, height = self._sizes[row]
        return int(width), int(height)

    def _planes(self, image: Image.Image) -> NDArray[np.uint8]:
        """(channels, H, W), a copy."""
        pixels = np.array(image)
        return pixels[None] if self.channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _one(self, function: Callable[[int], T], row: int) -> T:
        return self._all_sound([row], attempt_each(function, [row]))[0]

    def _all_sound(self, rows: Sequence[int], results: Sequence[T | BrokenImage]) -> list[T]:
        pairs = zip(rows, results, strict=True)
        broken = {self.pairs[row].name: str(result) for row, result in pairs if isinstance(result, BrokenImage)}
        if broken:
            raise DataError(describe_broken(broken))
        return [result for result in results if not isinstance(result, BrokenImage)]


class Kept:
    """Decoded images by row, until their bytes are used up."""

    def __init__(self, limit: int) -> None:
        self._left = [limit]  # shared by what is kept beside it
        self._lock = Lock()
        self._images: dict[int, Image.Image] = {}

    def beside(self) -> Kept:
        other = Kept(0)
        other._left, other._lock = self._left, self._lock
        return other

    def get(self, row: int, decode: Callable[[], Image.Image]) -> Image.Image:
        kept = self._images.get(row)
        if kept is not None:
            return kept
        image = decode()
        need = image.width * image.height * (1 if image.mode == "L" else 4)  # Pillow stores RGB in four bytes
        with self._lock:
            if need <= self._left[0] and row not in self._images:
                self._left[0] -= need
                self._images[row] = image
        return image


def resized(sizes: NDArray[np.int64], resize: Resize) -> NDArray[np.int64]:
    """(n, 2) width and height after `resize`, at least 1 each. Raises UsageError for a size that cannot be."""
    if resize is None:
        return sizes
    sides = (resize,) if isinstance(resize, int) else tuple(resize)
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise UsageError(f"resize={resize}: expected the long side in pixels, or (width, height).")
    if len(sides) == 2:
        return np.broadcast_to(np.array(sides, dtype=np.int64), sizes.shape).copy()
    scaled = np.rint(sizes * (sides[0] / sizes.max(axis=1, keepdims=True)))
    return np.asarray(scaled.clip(1), dtype=np.int64)


def cut_labels(mask: Image.Image, windows: Windows, place: int, out: NDArray[np.uint8]) -> None:
    """What window `place` shows of a mask, by the nearest pixel, into `out` (h, w); padding is left as it is."""
    across, down = (int(side) for side in windows.shape[place])
    flip = bool(windows.flip[place])
    columns = slice(out.shape[1] - across, out.shape[1]) if flip else slice(0, across)
    box = clipped(windows.box[place], np.array(mask.size))
    cut = mask.resize((across, down), Image.Resampling.NEAREST, box)
    out[:down, columns] = _turned(np.asarray(cut), flip)


def check_windows(windows: Windows, count: int, size: tuple[int, int]) -> None:
    if not len(windows) == len(windows.shape) == len(windows.flip) == count:
        raise ValueError(f"{len(windows)} windows for {count} rows")
    if count and ((windows.shape < 1).any() or (windows.shape > np.array([size[1], size[0]])).any()):
        raise ValueError(f"a window is resized to nothing, or to more than the crop of {size[1]}x{size[0]}")


def clipped(box: NDArray[np.float64], size: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """Without the trifle by which rounding may carry a window over the edge, which Pillow refuses."""
    left, top, right, bottom = (float(edge) for edge in box)
    width, height = float(size[0]), float(size[1])
    if left < -0.01 or top < -0.01 or right > width + 0.01 or bottom > height + 0.01 or left >= right or top >= bottom:
        raise ValueError(f"window {left, top, right, bottom} is not in an image of {width:.0f}x{height:.0f}")
    return max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)


def _turned(pixels: NDArray[np.uint8], flip: bool) -> NDArray[np.uint8]:
    return pixels[..., ::-1] if flip else pixels
