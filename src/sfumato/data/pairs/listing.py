"""What a source of image-mask pairs is read into before any file is opened, and the parts that several share."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from sfumato.data.decode import Item
from sfumato.data.listing import SPLIT_NAMES, UNLABELED_NAMES, Problem, examples, find_images, plural
from sfumato.data.pairs.classes import ClassTable
from sfumato.data.pairs.masks import MaskItem

SHOWN_DIGITS = 12
SPLITS = {**SPLIT_NAMES, "training": "train"}


@dataclass(frozen=True, slots=True)
class Pair:
    """One image, and its mask if it has one."""

    image: Item
    name: str  # unique
    mask: MaskItem | None = None
    mask_name: str = ""
    split: str = ""  # '' | 'train' | 'val' | 'test'
    may_label: bool = True  # False: its mask, if any, is the truth for telemetry and no label


@dataclass(frozen=True, slots=True)
class ListFile:
    """A text file that says which images are for what. It, and not the share of labels, identifies a protocol."""

    part: str  # labeled, unlabeled, train, val, test, or the file's stem
    path: Path
    lines: int  # that are not blank
    sha256: str  # of these lines, whatever their ends, with or without a final newline
    ended: bool  # has a final newline: without it, tools that count newlines find one line less

    @classmethod
    def read(cls, path: Path, part: str = "") -> ListFile:
        text = path.read_text("utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
        return cls(part or path.stem, path, len(lines), digest, text.endswith(("\n", "\r")))

    @property
    def hash(self) -> str:
        """Enough of it to tell lists from each other."""
        return self.sha256[:SHOWN_DIGITS]


@dataclass(frozen=True)
class PairListing:
    """The pairs of a source and what it says about the numbers in its masks."""

    pairs: Sequence[Pair]
    layout: str  # one line for people: what the source was taken for
    table: ClassTable | None = None
    mapping: Mapping[int, int] | None = None
    problems: list[Problem] = field(default_factory=list)
    lists: tuple[ListFile, ...] = ()  # the files that say which images are for what

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def split(self) -> NDArray[np.str_]:
        return np.array([pair.split for pair in self.pairs], dtype="<U5")

    @property
    def known(self) -> NDArray[np.bool_]:
        return np.array([pair.mask is not None for pair in self.pairs], dtype=bool)


def split_of(folder: str) -> str | None:
    """The split that a folder's name says ('train2017' is train, 'unlabeled' is ''), None when it says none."""
    name = folder.lower().rstrip("0123456789")
    return "" if name in UNLABELED_NAMES else SPLITS.get(name)


def is_unlabeled(folder: str) -> bool:
    return folder.lower().rstrip("0123456789") in UNLABELED_NAMES


def stems_of(
    folder: Path, root: Path, ending: str = "", without: Path | None = None
) -> tuple[dict[str, Path], list[Problem]]:
    """Images below `folder` by their path in it without suffix and `ending`; two of one stem are an error.

    without: a folder in it that is passed over.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    for path in find_images(folder):
        if without is not None and path.is_relative_to(without):
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        found[stem.removesuffix(ending)].append(path)
    problems = [
        Problem(
            "error",
            f"{root}: {examples([relative(path, root) for path in paths])} have the same stem, so it is not clear "
            "which one is meant. Keep one of them.",
        )
        for paths in found.values()
        if len(paths) > 1
    ]
    return {stem: paths[0] for stem, paths in found.items()}, problems[:1]


def bare(paths: Mapping[str, Path]) -> dict[str, Path]:
    """By the last part of the stem, where only one path has it."""
    counts = Counter(PurePosixPath(stem).name for stem in paths)
    return {PurePosixPath(stem).name: path for stem, path in paths.items() if counts[PurePosixPath(stem).name] == 1}


def relative(path: Path, root: Path) -> str:
    """As a name: below `root` where it is, with slashes."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def spare_masks(root: Path, masks: Iterable[Path], used: set[Path]) -> list[Problem]:
    """A warning about masks that belong to no image."""
    spare = [relative(path, root) for path in masks if path not in used]
    if not spare:
        return []
    return [Problem("warning", f"{root}: {plural(len(spare), 'mask')} without an image: {examples(spare)}.")]
