"""A folder with one folder for each class, perhaps below train/, val/ and test/, perhaps with unlabeled/ beside them.

photos/cat/1.jpg                        photos/train/cat/1.jpg
photos/dog/2.jpg                        photos/test/dog/2.jpg
photos/unlabeled/3.jpg                  photos/unlabeled/3.jpg
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato.data.listing import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    UNLABELED_NAMES,
    Listing,
    Problem,
    examples,
    find_images,
    is_hidden,
    loose_images,
    order_classes,
    plural,
)
from sfumato.errors import DataError


@dataclass(frozen=True, slots=True)
class _Group:
    """The images of one folder: one class (or none) in one split (or none)."""

    folder: Path
    label: str  # '' = unlabelled
    split: str


def read(root: Path) -> Listing:
    """Class names are folder names; `unlabeled/` (or `unlabelled/`) and images lying loose have no label."""
    groups = list(_groups(root))
    loose = loose_images(root)
    found = [(path, group) for group in groups for path in find_images(group.folder)]
    if not found and not loose:
        raise DataError(
            f"{root}: no image in it or below it. Expected one folder per class, each holding images "
            f"({' '.join(sorted(IMAGE_SUFFIXES))})."
        )
    classes = order_classes(group.label for group in groups if group.label)
    if not classes:
        raise DataError(
            f"{root}: {plural(len(found) + len(loose), 'image')}, but no class folder. Put the labelled images into "
            "one folder per class, or give a CSV with the columns file,label (an empty label means unlabelled)."
        )
    number = {name: place for place, name in enumerate(classes)} | {"": -1}
    paths = [path for path, _ in found] + loose
    return Listing(
        items=paths,
        names=[path.relative_to(root).as_posix() for path in paths],
        labels=np.array([number[group.label] for _, group in found] + [-1] * len(loose), dtype=np.int64),
        split=np.array([group.split for _, group in found] + [""] * len(loose), dtype=np.str_),
        classes=classes,
        layout="class folders in split folders" if any(group.split for group in groups) else "class folders",
        problems=[*_mixture(root, groups), *_loose_warning(root, loose), *_flat_splits(root)],
    )


def _groups(root: Path) -> Iterator[_Group]:
    for folder in _subfolders(root):
        split = SPLIT_NAMES.get(folder.name.lower())
        if folder.name.lower() in UNLABELED_NAMES:
            yield _Group(folder, "", "")
        elif split and _subfolders(folder):
            for inner in _subfolders(folder):
                unlabeled = inner.name.lower() in UNLABELED_NAMES
                yield _Group(inner, "" if unlabeled else inner.name, split)
        else:
            yield _Group(folder, folder.name, "")


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _has_split_folders(root: Path) -> bool:
    """A folder called `train` that holds images itself is a class (of vehicles); one that holds folders is a split."""
    return any(folder.name.lower() in SPLIT_NAMES and _subfolders(folder) for folder in _subfolders(root))


def _mixture(root: Path, groups: list[_Group]) -> list[Problem]:
    outside = sorted({group.label for group in groups if group.label and not group.split})
    if not outside or not any(group.split == "train" for group in groups):
        return []
    message = f"{root}: has train/ but also class folders beside it: {examples(outside)}. Move them into train/."
    return [Problem("error", message)]


def _loose_warning(root: Path, loose: list[Path]) -> list[Problem]:
    if not loose:
        return []
    count = plural(len(loose), "image")
    message = f"{root}: {count} outside the class folders ({examples([path.name for path in loose])}): unlabelled."
    return [Problem("warning", message)]


def _flat_splits(root: Path) -> list[Problem]:
    """Split folders whose images are not in class folders have no labels, so they are of no use as a split."""
    if not _has_split_folders(root):
        return []
    return [
        Problem("error", f"{folder}: holds images outside class folders. Put them into {folder.name}/CLASS/.")
        for folder in _subfolders(root)
        if folder.name.lower() in SPLIT_NAMES and loose_images(folder)
    ]
