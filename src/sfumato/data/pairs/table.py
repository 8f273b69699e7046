"""Every source of images and masks becomes one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.data.decode import Header, decode_whole, read_header
from sfumato.data.images import KEEP_LIMIT
from sfumato.data.listing import examples
from sfumato.data.pairs import sources
from sfumato.data.pairs.classes import ClassTable, Color, read_classes
from sfumato.data.pairs.listing import ListFile, Pair, PairListing
from sfumato.data.pairs.protocols import Contents, check_protocol
from sfumato.data.pairs.store import PairStore, Resize, resized
from sfumato.data.pairs.survey import Survey, broken_problems, errors_of, survey
from sfumato.errors import DataError, UsageError
from sfumato.types import VOID

Classes = Path | str | Sequence[str | tuple[str, Color]]


@dataclass(frozen=True, eq=False, repr=False)
class PairTable:
    """N images with what is known about their pixels."""

    images: PairStore
    names: list[str]  # unique
    known: NDArray[np.bool_]  # (N,) has a mask
    split: NDArray[np.str_]  # (N,) '' | 'train' | 'val' | 'test'
    classes: list[str]
    colors: NDArray[np.uint8]  # (C, 3) to paint the classes with
    counts: NDArray[np.int64]  # (N, C + 1) pixels of each class and, last, of void, in the masks as stored
    may_label: NDArray[np.bool_]  # (N,) False: the source says that its mask, if any, is no label
    source: str
    layout: str = ""  # what the source was taken for, in words
    notes: tuple[str, ...] = ()  # what the user should know about how the source was read
    lists: tuple[ListFile, ...] = ()  # the files that say which images are for what, if there are any

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"{self.source}: these names occur more than once: {examples(twice)}.")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return (
            f"PairTable({self.source!r}: {len(self)} images, {int(self.known.sum())} with a mask, "
            f"{len(self.classes)} classes)"
        )

    def contents(self, rows: NDArray[np.int64]) -> dict[str, Sequence[object]]:
        """What splits rest on, column by column; of the pixels those of `rows`."""
        return {
            "names": self.names,
            "known": self.known.tolist(),
            "may_label": self.may_label.tolist(),
            "split": self.split.tolist(),
            "classes": self.classes,
            "pairs": self.images.digests(rows),
        }


def load_pairs(
    source: str | Path,
    *,
    masks: Path | None = None,
    csv: Path | None = None,
    lists: Path | None = None,
    layout: str | None = None,
    classes: Classes | None = None,
    mapping: Mapping[int, int] | None = None,
    void: int = VOID,
    resize: Resize = None,
    channels: int | None = None,
    skip_broken: bool = False,
    protocol: str | None = None,
    keep_limit: int = KEEP_LIMIT,
) -> PairTable:
    """The table of a folder of images and masks, in whichever of the known layouts, or of a built-in set.

    masks: a folder of masks for the images of `source`. csv: rows image,mask[,split] with files below `source`. lists:
    a folder of labeled.txt, unlabeled.txt and val.txt with paths below `source`. layout: one of voc, cityscapes,
    ade20k, folders, coco, instead of the one that is recognized.

    classes: a file of class names, perhaps with colors, or the names; None: classes.txt, .csv or .json in the folder,
    else the classes of the layout, else as many as the masks hold. mapping: stored number -> class (255: void), for
    masks that number otherwise. void: the stored number of pixels without a class; 0: classes are numbered from 1.

    resize: the long side in pixels, or (width, height), of each image and mask once decoded; None: as they are.
    channels: 1 or 3; None: 1 if every image is grey. skip_broken: leave out pairs that cannot be decoded (decodes all
    of them once to find out) instead of raising. protocol: the published data set that it must be, one of
    `data.pairs.protocols.PROTOCOLS`; other numbers of images or classes are refused. keep_limit: bytes of decoded
    images and masks to keep in memory.

    Every mask is decoded once to see that its values are classes and its size is the image's. Raises DataError naming
    what is wrong with the data, UsageError for options that cannot be.
    """
    _check_options(channels, void, resize)
    table = None if classes is None else read_classes(classes)
    listing = sources.read(source, masks=masks, csv=csv, lists_in=lists, layout=layout)
    made = build_pairs(
        listing,
        str(source),
        table=table,
        mapping=mapping,
        void=void,
        resize=resize,
        channels=channels,
        skip_broken=skip_broken,
        keep_limit=keep_limit,
    )
    return made if protocol is None else _of_protocol(made, protocol)


def _of_protocol(table: PairTable, protocol: str) -> PairTable:
    """The same with a note on which one it is. Raises DataError unless it is."""
    found = Contents(
        table.source, len(table.classes), table.names, table.split, table.known & table.may_label, table.lists
    )
    problems = check_protocol(protocol, found)
    if errors := errors_of(problems):
        raise DataError("\n".join(errors))
    return replace(table, notes=(*table.notes, *(problem.message for problem in problems)))


def pairs_from_arrays(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.uint8] | None],
    *,
    split: Sequence[str] | None = None,
    classes: Sequence[str | tuple[str, Color]] | None = None,
) -> PairTable:
    """A table of images (H, W) or (H, W, 3) in memory and their masks (H, W), None where there is none."""
    if not len(images) == len(masks) == len(images if split is None else split):
        raise DataError(f"arrays: {len(images)} images, {len(masks)} masks. Expected as many masks (None for none).")
    pairs = [
        Pair(image, f"{row:06d}", mask, f"mask {row:06d}", "" if split is None else split[row])
        for row, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]
    table = None if classes is None else read_classes(classes)
    return build_pairs(PairListing(pairs, "arrays"), "arrays", table=table)


def build_pairs(
    listing: PairListing,
    source: str,
    *,
    table: ClassTable | None = None,
    mapping: Mapping[int, int] | None = None,
    void: int = VOID,
    resize: Resize = None,
    channels: int | None = None,
    skip_broken: bool = False,
    keep_limit: int = KEEP_LIMIT,
) -> PairTable:
    """The table of a listing, once its errors are ruled out and its files looked at."""
    if errors := errors_of(listing.problems):
        raise DataError("\n".join(errors))
    found = survey(listing, table=table, mapping=mapping, void=void, read=_thorough if skip_broken else None)
    problems = [*listing.problems, *broken_problems(found, skip_broken), *found.problems]
    if errors := errors_of(problems):
        raise DataError("\n".join(errors))
    notes = [problem.message for problem in problems]
    return table_of_survey(found, source, notes, resize=resize, channels=channels, keep_limit=keep_limit)


def table_of_survey(
    found: Survey,
    source: str,
    notes: Sequence[str] = (),
    *,
    resize: Resize = None,
    channels: int | None = None,
    keep_limit: int = KEEP_LIMIT,
) -> PairTable:
    """The table of files that have been looked at, whatever their problems."""
    listing = found.listing
    store = PairStore(
        listing.pairs,
        found.sizes,
        found.coding,
        channels=channels or (1 if all(header.grey for header in found.headers) else 3),
        resize=resize,
        keep_limit=keep_limit,
    )
    return PairTable(
        images=store,
        names=[pair.name for pair in listing.pairs],
        known=listing.known,
        split=listing.split,
        classes=found.table.names,
        colors=found.table.colors,
        counts=found.counts,
        may_label=np.array([pair.may_label for pair in listing.pairs], dtype=bool),
        source=source,
        layout=listing.layout,
        notes=tuple(notes),
        lists=listing.lists,
    )


def _thorough(pair: Pair) -> Header:
    header = read_header(pair.image)
    decode_whole(pair.image, channels=1)
    return header


def _check_options(channels: int | None, void: int, resize: Resize) -> None:
    if channels not in (None, 1, 3):
        raise UsageError(f"channels={channels}: expected 1 (grey) or 3 (colour).")
    if not 0 <= void <= 65535:
        raise UsageError(f"void={void}: expected a number of 0 to 65535, as masks can store.")
    resized(np.ones((1, 2), dtype=np.int64), resize)
