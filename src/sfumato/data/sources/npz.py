"""Arrays in a `.npz`: `x` or `images`, `y` or `labels` (-1 = unlabelled), perhaps `split` and `classes`."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.data.listing import SPLIT_NAMES, Listing, did_you_mean, encode_labels
from sfumato.errors import DataError, nearest

SHAPES = "(N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)"


def read(path: Path) -> Listing:
    arrays = _load(path)
    images = _pick(arrays, ("x", "images"), path)
    labels = _pick(arrays, ("y", "labels"), path)
    classes = [str(name) for name in arrays["classes"]] if "classes" in arrays else None
    split = [str(value) for value in arrays["split"]] if "split" in arrays else None
    return from_arrays(images, labels, split=split, classes=classes, source=str(path))


def from_arrays(
    images: ArrayLike,
    labels: ArrayLike,
    *,
    split: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    source: str = "arrays",
) -> Listing:
    """Rows from arrays in memory.

    images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3; uint8, floats in 0..1 (or 0..255), bool or 16 bit.
    labels: (N,) class numbers with -1 for none, or class names with '' for none. Raises DataError.
    """
    pixels = _to_uint8(_channels_last(np.asarray(images), source), source)
    numbers, known = _numbers(np.asarray(labels), classes, source)
    for what, count in (("labels", len(numbers)), ("split", len(pixels) if split is None else len(split))):
        if count != len(pixels):
            raise DataError(f"{source}: {len(pixels)} images but {count} entries in {what}. Expected one for each.")
    digits = len(str(max(0, len(pixels) - 1)))
    return Listing(
        items=pixels,
        names=[f"{row:0{digits}d}" for row in range(len(pixels))] if names is None else list(names),
        labels=numbers,
        split=_splits(split or [""] * len(pixels), source),
        classes=known,
        layout="arrays",
    )


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaks a broken file it opens
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        if "allow_pickle" in str(error):
            hint = "it holds Python objects; save plain arrays, strings as dtype=str"
        else:
            hint = f"not a complete .npz file ({error})"
        raise DataError(f"{path}: cannot be read: {hint}.") from error


def _pick(arrays: dict[str, NDArray[Any]], names: tuple[str, str], path: Path) -> NDArray[Any]:
    for name in names:
        if name in arrays:
            return arrays[name]
    near = did_you_mean(names[0], arrays) or did_you_mean(names[1], arrays)
    raise DataError(f"{path}: no array '{names[0]}' or '{names[1]}' (it has: {', '.join(arrays) or 'nothing'}).{near}")


def _channels_last(images: NDArray[Any], source: str) -> NDArray[Any]:
    """(N, H, W) for grey, (N, H, W, 3) for colour."""
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    known = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not known or 0 in images.shape:
        raise DataError(f"{source}: the images have the shape {images.shape}. Expected {SHAPES}.")
    return images


def _to_uint8(images: NDArray[Any], source: str) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind not in "iuf":
        raise DataError(f"{source}: the images have the type {images.dtype}. Expected uint8 (0..255) or floats (0..1).")
    low, high = images.min(), images.max()
    limit = 65535 if images.dtype == np.uint16 else 255
    if not (low >= 0 and high <= limit):  # also false for NaN
        raise DataError(
            f"{source}: the images have values from {low:g} to {high:g}. Expected uint8 (0..255) or floats (0..1), "
            "before any normalisation."
        )
    if images.dtype.kind == "f":
        return np.rint(images * (255.0 if high <= 1 else 1.0)).astype(np.uint8)
    if images.dtype == np.uint16 and high > 255:
        return ((images.astype(np.int64) + 128) // 257).astype(np.uint8)
    return images.astype(np.uint8)


def _numbers(labels: NDArray[Any], classes: Sequence[str] | None, source: str) -> tuple[NDArray[np.int64], list[str]]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{source}: the labels have the shape {labels.shape}. Expected (N,), one for each image.")
    if labels.dtype.kind in "US":
        return _named_numbers([str(value) for value in labels.astype(np.str_)], classes, source)
    if labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels)):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        raise DataError(f"{source}: the labels have the type {labels.dtype}. Expected whole numbers, -1 for none.")
    numbers = labels.astype(np.int64)
    return numbers, check_numbers(numbers, classes, source)


def _named_numbers(
    labels: list[str], classes: Sequence[str] | None, source: str
) -> tuple[NDArray[np.int64], list[str]]:
    numbers, found = encode_labels(labels)
    if classes is None:
        return numbers, found
    unknown = [name for name in found if name not in classes]
    if unknown:
        raise DataError(f"{source}: label '{unknown[0]}' is not one of the classes.{nearest(unknown[0], classes)}")
    place = [list(classes).index(name) for name in found] + [-1]  # the last entry is what -1 finds
    return np.array(place, dtype=np.int64)[numbers], list(classes)


def check_numbers(numbers: NDArray[np.int64], classes: Sequence[str] | None, source: str) -> list[str]:
    """The class names for these numbers. Raises DataError naming the first row with a number out of range."""
    known = [str(number) for number in range(numbers.max(initial=-1) + 1)] if classes is None else list(classes)
    bad = np.flatnonzero((numbers < -1) | (numbers >= len(known)))
    if len(bad):
        raise DataError(
            f"{source}: row {bad[0]} has the label {numbers[bad[0]]}. Expected 0..{len(known) - 1} "
            f"({len(known)} classes), or -1 for none. Rows out of range: {len(bad)}."
        )
    return known


def _splits(split: Sequence[str], source: str) -> NDArray[np.str_]:
    known = {"": "", **SPLIT_NAMES}
    bad = [row for row, value in enumerate(split) if value not in known]
    if bad:
        raise DataError(f"{source}: row {bad[0]} has the split '{split[bad[0]]}'. Expected train, val, test or ''.")
    return np.array([known[value] for value in split], dtype=np.str_)
