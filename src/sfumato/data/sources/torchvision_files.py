"""The files in which torchvision keeps CIFAR-10, CIFAR-100, SVHN, STL-10 and EuroSAT. Nothing is fetched on reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import Listing
from sfumato.data.sources import npz
from sfumato.errors import DataError

Part = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (N, H, W, 3), labels (N,) with -1 for none


def recognizes(folder: Path) -> bool:
    return any((folder / marker).exists() for marker in _READERS)


def read(folder: Path) -> Listing:
    """The images of a folder that `recognizes`. Raises DataError when files are missing or damaged."""
    marker = next(marker for marker in _READERS if (folder / marker).exists())
    try:
        parts, classes = _READERS[marker](folder)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{folder}: holds {marker}, but torchvision cannot read it: {error} Get the files again (download=true), "
            "or take another source."
        ) from error
    names = [f"{part}/{row:06d}" for part, (images, _) in parts.items() for row in range(len(images))]
    split = [part if part in ("train", "test") else "" for part, (images, _) in parts.items() for _ in images]
    listing = npz.from_arrays(
        np.concatenate([images for images, _ in parts.values()]),
        np.concatenate([labels for _, labels in parts.values()]),
        split=split,
        classes=classes,
        names=names,
        source=str(folder),
    )
    return replace(listing, layout=f"files of torchvision ({marker})")


def download(name: str, folder: Path) -> None:
    """Fetch all parts of a data set into `folder`. Raises whatever the transport raises."""
    from torchvision import datasets

    folder.mkdir(parents=True, exist_ok=True)
    fetchers: dict[str, list[Callable[[], object]]] = {
        "cifar10": [lambda: datasets.CIFAR10(folder, download=True)],
        "cifar100": [lambda: datasets.CIFAR100(folder, download=True)],
        "svhn": [_fetch_svhn(folder, part) for part in ("train", "test", "extra")],
        "stl10": [lambda: datasets.STL10(folder, download=True)],
        "eurosat": [lambda: datasets.EuroSAT(folder, download=True)],
    }
    for fetched in fetchers[name]:
        fetched()


def _fetch_svhn(folder: Path, part: str) -> Callable[[], object]:
    from torchvision import datasets

    return lambda: datasets.SVHN(folder, split=part, download=True)


def _cifar(kind: str) -> Callable[[Path], tuple[dict[str, Part], list[str]]]:
    def read_parts(folder: Path) -> tuple[dict[str, Part], list[str]]:
        from torchvision import datasets

        found: dict[str, Any] = {
            part: getattr(datasets, kind)(folder, train=part == "train") for part in ("train", "test")
        }
        parts = {part: (one.data, np.asarray(one.targets, dtype=np.int64)) for part, one in found.items()}
        return parts, list(found["train"].classes)

    return read_parts


def _svhn(folder: Path) -> tuple[dict[str, Part], list[str]]:
    """Digits; the extra images, where they are there, are for training too."""
    from torchvision import datasets

    there = [part for part in ("train", "test", "extra") if (folder / f"{part}_32x32.mat").exists()]
    found = {part: datasets.SVHN(folder, split=part) for part in there}
    parts = {part: (one.data.transpose(0, 2, 3, 1), one.labels.astype(np.int64)) for part, one in found.items()}
    return parts, [str(digit) for digit in range(10)]


def _stl10(folder: Path) -> tuple[dict[str, Part], list[str]]:
    from torchvision import datasets

    found = {part: datasets.STL10(folder, split=part) for part in ("train", "test", "unlabeled")}
    parts = {part: (one.data.transpose(0, 2, 3, 1), one.labels.astype(np.int64)) for part, one in found.items()}
    return parts, list(found["train"].classes)


_READERS: dict[str, Callable[[Path], tuple[dict[str, Part], list[str]]]] = {
    "cifar-10-batches-py": _cifar("CIFAR10"),
    "cifar-100-python": _cifar("CIFAR100"),
    "train_32x32.mat": _svhn,
    "stl10_binary": _stl10,
}
