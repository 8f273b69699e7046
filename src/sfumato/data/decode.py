"""From a file, encoded bytes or an array to pixels. Everything here is a function of one image."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Item = Path | bytes | NDArray[np.uint8]  # a file, an encoded image, or pixels (H, W) or (H, W, 3)
S = TypeVar("S")
T = TypeVar("T")

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
ORIENTATION = 0x0112
THREADS = min(8, os.cpu_count() or 1)
CHUNK = 16  # images for each task of a thread


class BrokenImage(Exception):
    """One image that cannot be decoded; the text is the reason, fit for a message."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image say. Width and height are those of the upright image."""

    width: int
    height: int
    mode: str  # as Pillow names it: L, RGB, CMYK, P, I;16, ...
    animated: bool = False

    @property
    def grey(self) -> bool:
        return self.mode in GREY_MODES


def read_header(item: Item) -> Header:
    """Size, mode and whether there is more than one frame.

    Decodes only an image whose end marker is missing, to find truncated files early at little cost.
    Raises BrokenImage.
    """
    with opened(item) as image:
        width, height = image.size
        if "exif" in image.info and image.getexif().get(ORIENTATION) in TURNED:
            width, height = height, width
        animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))  # MPO: a photo and its preview
        mode = image.mode
        if not _has_end_marker(item, image.format):
            image.load()
    return Header(width, height, mode, animated)


def decode(item: Item, image_size: int, channels: int) -> NDArray[np.uint8]:
    """Pixels (channels, image_size, image_size): upright, on white, shorter side resized (bicubic), centre cropped.

    Raises BrokenImage.
    """
    with opened(item) as image:
        image.draft(None, (2 * image_size, 2 * image_size))  # lets libjpeg skip detail that resizing would drop
        pixels = _flatten(image).convert("L" if channels == 1 else "RGB")
        pixels = ImageOps.fit(pixels, (image_size, image_size), method=Image.Resampling.BICUBIC)
    array = np.asarray(pixels)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def decode_whole(item: Item, channels: int, size: tuple[int, int] | None = None) -> Image.Image:
    """The whole image, upright, on white, in mode L or RGB; resized to `size` (width, height; bilinear) if given.

    Resizing smooths: an output pixel averages all that it covers. Raises BrokenImage.
    """
    with opened(item) as image:
        if size is not None:
            largest = 2 * max(size)  # either way round: the image may be stored turned
            image.draft(None, (largest, largest))
        pixels = _flatten(image).convert("L" if channels == 1 else "RGB")
        return pixels if size is None else pixels.resize(size, Image.Resampling.BILINEAR)


def digest(item: Item) -> str:
    """A hash of what is seen: the upright RGB pixels at full size, whatever the file format. Raises BrokenImage."""
    with opened(item) as image:
        pixels = _flatten(image).convert("RGB")
    return hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()


def attempt_each(function: Callable[[S], T], items: Sequence[S], chunk: int = CHUNK) -> list[T | BrokenImage]:
    """`function` of every item, in order, on a few threads (Pillow decodes and resizes outside the interpreter lock).

    A thread takes `chunk` items at a time; so few items are done here and now.
    """

    def attempt(item: S) -> T | BrokenImage:
        try:
            return function(item)
        except BrokenImage as broken:
            return broken

    def attempt_all(batch: Sequence[S]) -> list[T | BrokenImage]:
        return [attempt(item) for item in batch]

    if len(items) <= chunk or THREADS == 1:
        return attempt_all(items)
    with ThreadPoolExecutor(THREADS) as pool:
        return list(chain.from_iterable(pool.map(attempt_all, _batched(items, chunk))))


def _batched(items: Sequence[S], size: int) -> list[Sequence[S]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


@contextmanager
def opened(item: Item) -> Iterator[Image.Image]:
    """The image, closed afterwards. Whatever a decoder raises on bad bytes becomes BrokenImage."""
    try:
        if isinstance(item, np.ndarray):
            yield Image.fromarray(item)
            return
        if (len(item) if isinstance(item, bytes) else item.stat().st_size) == 0:
            raise BrokenImage("empty, 0 bytes")
        with Image.open(io.BytesIO(item) if isinstance(item, bytes) else item) as image:
            yield image
    except (BrokenImage, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error and more
        raise BrokenImage(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return "too many pixels to decode safely"
    if "truncated" in str(error).lower():
        return "truncated"
    return f"corrupt: {error}"


def _has_end_marker(item: Item, image_format: str | None) -> bool:
    """Whether the last bytes are those of a complete file; True for formats that have no marker."""
    if isinstance(item, np.ndarray) or image_format not in {"JPEG", "MPO", "PNG", "GIF"}:
        return True
    tail = item[-64:] if isinstance(item, bytes) else _tail(item)
    if image_format == "PNG":
        return b"IEND" in tail
    return tail.rstrip(b"\0").endswith(b";" if image_format == "GIF" else b"\xff\xd9")


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return file.read()


def _flatten(image: Image.Image) -> Image.Image:
    """The first frame, upright, on white where it has alpha; 8-bit, in a mode that converts plainly to L and RGB."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Integers are 16-bit grey, 0..65535; floats are 0..1, or 0..255 when any is larger than 1."""
    if np.issubdtype(values.dtype, np.floating):
        scale = 255.0 if values.max() <= 1 else 1.0
        scaled = np.rint(np.asarray(values, dtype=np.float64) * scale)
        return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255), dtype=np.uint8)
    return np.asarray((np.clip(np.asarray(values, dtype=np.int64), 0, 65535) + 128) // 257, dtype=np.uint8)
