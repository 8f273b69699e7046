"""What a source is read into before any image is opened, and the parts that several sources share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.data.decode import Item

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".avif", ".jp2"}
)
UNLABELED_NAMES = frozenset({"unlabeled", "unlabelled"})
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
SHOWN = 3  # examples in a message


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the data: an error stops training, a warning does not, and a note is worth knowing."""

    severity: Literal["error", "warning", "note"]
    message: str


@dataclass(frozen=True)
class Listing:
    """The rows of a source: where each image is, its name, label (-1 = none) and split ('' = not said)."""

    items: Sequence[Item] | NDArray[np.uint8]  # files, encoded bytes, or an array (N, H, W) or (N, H, W, 3)
    names: list[str]
    labels: NDArray[np.int64]  # (N,)
    split: NDArray[np.str_]  # (N,)
    classes: list[str]
    layout: str  # one line for people: what the source was taken for
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def keep(self, rows: NDArray[np.int64]) -> Listing:
        """The listing with these rows only."""
        items = self.items[rows] if isinstance(self.items, np.ndarray) else [self.items[row] for row in rows]
        names = [self.names[row] for row in rows]
        return replace(self, items=items, names=names, labels=self.labels[rows], split=self.split[rows])


def find_images(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted by path; hidden files and folders are passed over, links are followed once."""
    return sorted(path for path in _walk(folder, set()) if path.suffix.lower() in IMAGE_SUFFIXES)


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from _walk(folder / entry.name, seen)
            else:
                yield folder / entry.name


def loose_images(folder: Path) -> list[Path]:
    """The images in `folder` itself, sorted."""
    entries = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in entries if not is_hidden(path.name) and path.is_file())


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def encode_labels(values: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Class names to numbers: classes in alphabetical order (numbers by value), '' becomes -1."""
    classes = order_classes({value for value in values if value})
    number = {name: place for place, name in enumerate(classes)} | {"": -1}
    return np.array([number[value] for value in values], dtype=np.int64), classes


def order_classes(names: Iterable[str]) -> list[str]:
    """Sorted names; names that are all whole numbers are sorted by value, so that '10' follows '9'."""
    names = set(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def examples(names: Sequence[str]) -> str:
    """The first few of `names` in quotes and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A closing sentence with the nearest of `options`, or nothing when none is close."""
    close = get_close_matches(name, list(options), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
