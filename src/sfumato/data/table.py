"""Every source becomes one table: images, names, labels, splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.data import sources
from sfumato.data.decode import BrokenImage, Header, Item, attempt_each, decode, read_header
from sfumato.data.images import KEEP_LIMIT, ImageStore, describe_broken
from sfumato.data.listing import Listing, examples, plural
from sfumato.data.sources import npz
from sfumato.errors import DataError, UsageError

DEFAULT_SIZE = 224
NATIVE_SIZE_LIMIT = 64  # images that are all of one size up to this are used as they are


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """N images with what is known about them."""

    images: ImageStore
    names: list[str]  # unique
    labels: NDArray[np.int64]  # (N,) place in `classes`, -1 = none
    split: NDArray[np.str_]  # (N,) '' | 'train' | 'val' | 'test'
    classes: list[str]
    source: str
    layout: str = ""  # what the source was taken for, in words
    notes: tuple[str, ...] = ()  # what the user should know about how the source was read

    def __post_init__(self) -> None:
        lengths = {len(self.images), len(self.names), len(self.labels), len(self.split)}
        if len(lengths) > 1:
            raise DataError(f"{self.source}: images, names, labels and split differ in length: {sorted(lengths)}.")
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"{self.source}: these names occur more than once: {examples(twice)}.")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        shape = f"{self.images.channels}x{self.images.image_size}x{self.images.image_size}"
        labeled = int((self.labels >= 0).sum())
        return f"Table({self.source!r}: {len(self)} images {shape}, {labeled} labelled, {len(self.classes)} classes)"

    def contents(self, rows: NDArray[np.int64]) -> dict[str, Sequence[object]]:
        """What splits rest on, column by column; of the pixels those of `rows`."""
        return {
            "names": self.names,
            "labels": self.labels.tolist(),
            "split": self.split.tolist(),
            "classes": self.classes,
            "images": self.images.digests(rows),
        }


def load_table(
    source: str | Path,
    *,
    labels: Path | None = None,
    protocol: str | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    skip_broken: bool = False,
    keep_limit: int = KEEP_LIMIT,
) -> Table:
    """The table of a folder of class folders, a folder with a CSV (`labels`), a .parquet or .npz file or a built-in.

    protocol: the name of the published data set that it must be, such as "cifar10": its split is taken.
    image_size: pixels of the square that each image is resized and cropped to; None: the size all images share if it
    is square and at most 64, otherwise 224. channels: 1 or 3; None: 1 if every image is grey, otherwise 3.
    skip_broken: leave out images that cannot be decoded (decodes all of them once to find out) instead of raising.
    keep_limit: bytes of decoded images to keep in memory; a set that needs more is decoded anew each time.

    Raises DataError naming what is wrong with the data, UsageError for options that cannot be.
    """
    return build_table(
        sources.read(source, labels, protocol),
        str(source),
        image_size=image_size,
        channels=channels,
        skip_broken=skip_broken,
        keep_limit=keep_limit,
    )


def table_from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    split: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
) -> Table:
    """A table of arrays in memory.

    images: (N, H, W), (N, H, W, C) or (N, C, H, W), C 1 or 3; uint8, or floats in 0..1. labels: (N,) class numbers with
    -1 for none, or class names with '' for none. Raises DataError.
    """
    listing = npz.from_arrays(images, labels, split=split, classes=classes)
    return build_table(listing, "arrays", image_size=image_size, channels=channels)


def build_table(
    listing: Listing,
    source: str,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    skip_broken: bool = False,
    keep_limit: int = KEEP_LIMIT,
) -> Table:
    """The table of a listing, once its errors are ruled out and its images looked at."""
    _check_options(image_size, channels)
    errors = [problem.message for problem in listing.problems if problem.severity == "error"]
    if errors:
        raise DataError("\n".join(errors))
    notes = [problem.message for problem in listing.problems]
    headers = survey(listing, thorough=skip_broken)
    broken = {name: str(found) for name, found in zip(listing.names, headers, strict=True) if _is_broken(found)}
    if broken and (not skip_broken or len(broken) == len(listing)):
        raise DataError(describe_broken(broken))
    if broken:
        notes.append(f"{plural(len(broken), 'image')} left out because they cannot be read: {examples(list(broken))}.")
        listing = listing.keep(np.flatnonzero([not _is_broken(found) for found in headers]))
    sound = [found for found in headers if isinstance(found, Header)]
    notes += _animated_note(listing.names, sound)
    store = ImageStore(
        listing.items,
        listing.names,
        image_size=image_size or native_size(sound),
        channels=channels or (1 if all(header.grey for header in sound) else 3),
        keep_limit=keep_limit,
    )
    return Table(
        images=store,
        names=listing.names,
        labels=listing.labels,
        split=listing.split,
        classes=listing.classes,
        source=source,
        layout=listing.layout,
        notes=tuple(notes),
    )


def survey(listing: Listing, *, thorough: bool = False) -> list[Header | BrokenImage]:
    """The header of every image, or why it cannot be read; `thorough` decodes each one completely."""
    if isinstance(listing.items, np.ndarray):
        mode = "L" if listing.items.ndim == 3 else "RGB"
        height, width = listing.items.shape[1:3]
        return [Header(width, height, mode)] * len(listing)
    return attempt_each(_read_thoroughly if thorough else read_header, listing.items)


def native_size(headers: Sequence[Header]) -> int:
    """The size that all images share if it is square and at most 64 pixels, otherwise 224."""
    sizes = {(header.width, header.height) for header in headers}
    side = max((max(size) for size in sizes), default=DEFAULT_SIZE)
    return side if sizes == {(side, side)} and side <= NATIVE_SIZE_LIMIT else DEFAULT_SIZE


def _read_thoroughly(item: Item) -> Header:
    header = read_header(item)
    decode(item, image_size=8, channels=1)
    return header


def _is_broken(found: Header | BrokenImage) -> bool:
    return isinstance(found, BrokenImage)


def _animated_note(names: list[str], headers: list[Header]) -> list[str]:
    animated = [name for name, header in zip(names, headers, strict=True) if header.animated]
    if not animated:
        return []
    return [f"{plural(len(animated), 'image')} with several frames: only the first is used: {examples(animated)}."]


def _check_options(image_size: int | None, channels: int | None) -> None:
    if image_size is not None and image_size < 1:
        raise UsageError(f"image_size={image_size}: expected a number of pixels, 1 or more.")
    if channels not in (None, 1, 3):
        raise UsageError(f"channels={channels}: expected 1 (grey) or 3 (colour).")
