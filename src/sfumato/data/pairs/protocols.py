"""The published data sets that results are compared on: how many images there are of what, and whether these are they.

Which images are labeled is a list that comes with the papers, and the list identifies the protocol, not the number of
its lines: the "blended" lists of PASCAL VOC with 662 labels hold 93 masks of the challenge and 569 rougher ones of SBD,
U2PL's of the same length the challenge's only, which is worth 3 points of mIoU. The lists of "classic" VOC are not
nested either: a curve over their lengths changes the sample, not just its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import Problem, plural
from sfumato.data.pairs.listing import ListFile
from sfumato.data.pairs.sources.voc import clean_stems
from sfumato.errors import check_choice

ProtocolName = Literal["ade20k", "camvid", "cityscapes", "coco", "voc"]


@dataclass(frozen=True)
class Protocol:
    """Images of each part. `train` are labeled and unlabeled together, `subsets` the lengths of the labeled lists."""

    title: str
    classes: int
    train: int
    val: int
    test: int | None = None  # None: results are told on the validation images
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # none: any


PROTOCOLS: dict[ProtocolName, Protocol] = {
    "ade20k": Protocol("ADE20K", 150, 20210, 2000, subsets={"": (316, 631, 1263, 2526, 5052, 10105)}),
    "camvid": Protocol("CamVid", 11, 367, 101, 233),
    "cityscapes": Protocol("Cityscapes", 19, 2975, 500, subsets={"": (100, 186, 372, 744, 1488)}),
    "coco": Protocol("COCO", 81, 118287, 5000, subsets={"": (232, 463, 925, 1849, 3697)}),
    "voc": Protocol(
        "PASCAL VOC",
        21,
        10582,
        1449,
        subsets={"classic": (92, 183, 366, 732, 1464), "blended or U2PL's": (662, 1323, 2646)},
    ),
}
assert set(PROTOCOLS) == set(get_args(ProtocolName))


@dataclass(frozen=True)
class Contents:
    """What a data set holds, as far as a protocol says it: of a table of pairs, or of a listing that was checked."""

    source: str
    classes: int
    names: Sequence[str]
    split: NDArray[np.str_]  # (N,) '' | 'train' | 'val' | 'test'
    labeled: NDArray[np.bool_]  # (N,) has a mask that may be a label
    lists: Sequence[ListFile] = ()

    @property
    def training(self) -> NDArray[np.bool_]:
        return ~np.isin(self.split, ["val", "test"])

    def place(self, *parts: str) -> str:
        """The lists of these parts, or else the source: where to look for a mistake."""
        there = {file.part: file.path for file in self.lists}
        told = [str(there[part]) for part in parts if part in there]
        if "labeled" in there:
            beside = there["labeled"].parent
            told += [f"no {beside / part}.txt" for part in parts if part not in there and part != "train"]
        return " and ".join(told) or self.source


def check_protocol(name: str, found: Contents) -> list[Problem]:
    """Whether these are the images of the protocol: an error for each number that differs, and notes on the lists.

    Raises UsageError for an unknown name.
    """
    check_choice("data", "protocol", name, PROTOCOLS)
    wanted = PROTOCOLS[name]  # type: ignore[index]  # as has just been checked
    problems = [*_classes(wanted, found), *_counts(name, wanted, found), *_subset(name, wanted, found)]
    return problems or [Problem("note", _told(wanted, found))]


def _classes(wanted: Protocol, found: Contents) -> list[Problem]:
    if found.classes == wanted.classes:
        return []
    message = (
        f"{found.source}: {plural(found.classes, 'class')}, expected the {wanted.classes} of {wanted.title}. Name them "
        "(classes=FILE), say which number is void (void=…), or translate the numbers of the masks (mapping=…)."
    )
    return [Problem("error", message)]


def _counts(name: str, wanted: Protocol, found: Contents) -> list[Problem]:
    images = {part: int((found.split == part).sum()) for part in ("val", "test")}
    checked = [
        ("labelled and unlabelled image", ("labeled", "unlabeled", "train"), int(found.training.sum()), wanted.train),
        ("validation image", ("val",), images["val"], wanted.val),
        ("test image", ("test",), images["test"], wanted.test),
    ]
    return [
        Problem(
            "error",
            f"{found.place(*parts)}: {_number(count, what)}, expected {expected:,} of {wanted.title}. {_mend(name)}",
        )
        for what, parts, count, expected in checked
        if expected is not None and count != expected
    ]


def _subset(name: str, wanted: Protocol, found: Contents) -> list[Problem]:
    """Without a list of labelled images, labels are those of the source or drawn from them, any number."""
    labeled = int((found.labeled & found.training).sum())
    if not _listed(found) or not wanted.subsets or labeled in {n for sizes in wanted.subsets.values() for n in sizes}:
        return []
    sizes = "; ".join(
        f"{', '.join(f'{size:,}' for size in sizes)}{f' ({variant})' if variant else ''}"
        for variant, sizes in wanted.subsets.items()
    )
    count = _number(labeled, "labelled image")
    return [Problem("error", f"{found.place('labeled')}: {count}, expected one of {sizes}. {_mend(name)}")]


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _mend(name: str) -> str:
    return (
        f"Take the published lists (lists=FOLDER), or leave out protocol={name}; "
        f"protocol=none recipe={name} keeps its settings."
    )


def _listed(found: Contents) -> ListFile | None:
    return next((file for file in found.lists if file.part == "labeled"), None)


def _told(wanted: Protocol, found: Contents) -> str:
    labeled = int((found.labeled & found.training).sum())
    file = _listed(found)
    if file is None:
        hashes = ", ".join(f"{one.part} {one.hash}" for one in found.lists)
        return (
            f"{wanted.title}: {labeled:,} of {wanted.train:,} training images have a mask, and no list says which of "
            "them are labels. Labels that are drawn from them compare with runs of the same splits only, not with "
            f"published figures.{f' Hashes of the lists: {hashes}.' if hashes else ''}"
        )
    newline = "" if file.ended else " (the file lacks a final newline, so that `wc -l` says one less)"
    return (
        f"{wanted.title}{_variant(wanted, found, labeled)}: {labeled:,} of {wanted.train:,} images labelled, list "
        f"{file.path.name} with hash {file.hash}{newline}."
    )


def _variant(wanted: Protocol, found: Contents, labeled: int) -> str:
    variant = next((name for name, sizes in wanted.subsets.items() if labeled in sizes), "")
    clean = clean_stems(Path(found.source)) if "or" in variant.split() else frozenset()
    if not clean:
        return f", {variant}" if variant else ""
    rows = np.flatnonzero(found.labeled & found.training).tolist()
    inside = sum(PurePosixPath(found.names[row]).stem in clean for row in rows)
    which = "U2PL's" if inside == min(labeled, len(clean)) else "blended"
    return f", {which} ({inside:,} of the labels are the challenge's own)"
