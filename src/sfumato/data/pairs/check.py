"""A look at a data set of images and masks before any training: what is there, and what is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sfumato.data.decode import Header, digest, read_header
from sfumato.data.listing import Problem, examples, plural
from sfumato.data.pairs import sources
from sfumato.data.pairs.classes import read_classes
from sfumato.data.pairs.draw import pair_errors
from sfumato.data.pairs.listing import Pair
from sfumato.data.pairs.protocols import Contents, check_protocol
from sfumato.data.pairs.survey import Survey, broken_problems, survey
from sfumato.data.pairs.table import Classes, table_of_survey
from sfumato.errors import DataError
from sfumato.types import VOID


@dataclass(frozen=True)
class PairReport:
    """What `check_pairs` found. Images without a split count as train."""

    source: str
    layout: str = ""
    images: int = 0
    masks: int = 0  # images with a mask
    classes: list[str] = field(default_factory=list)
    splits: dict[str, tuple[int, int]] = field(default_factory=dict)  # split -> (images, of them with a mask)
    sizes: dict[str, int] = field(default_factory=dict)  # "640x480" -> images, the most frequent first
    modes: dict[str, int] = field(default_factory=dict)  # "RGB" -> images, the most frequent first
    shares: dict[str, float] = field(default_factory=dict)  # class -> share of the pixels that have a class
    shown_in: dict[str, int] = field(default_factory=dict)  # class -> masks that show it
    void: float = 0.0  # share of the pixels of all masks that have no class
    broken: dict[str, str] = field(default_factory=dict)  # name of an image or mask -> reason
    duplicates: list[list[str]] = field(default_factory=list)  # names of images with equal pixels in one split
    leaks: list[list[str]] = field(default_factory=list)  # names of images with equal pixels in different splits
    lists: dict[str, str] = field(default_factory=dict)  # list of the source -> SHA-256
    problems: list[Problem] = field(default_factory=list)

    @property
    def unlabeled(self) -> int:
        return self.images - self.masks

    @property
    def ok(self) -> bool:
        """Whether training can start: there may be warnings but no error."""
        return not any(problem.severity == "error" for problem in self.problems)


def check_pairs(
    source: str | Path,
    *,
    masks: Path | None = None,
    csv: Path | None = None,
    lists: Path | None = None,
    layout: str | None = None,
    classes: Classes | None = None,
    mapping: Mapping[int, int] | None = None,
    void: int = VOID,
    protocol: str | None = None,
) -> PairReport:
    """Read a source, decode each image and mask, and list what is there and every problem, not only the first.

    protocol: the published data set that it must be, one of `data.pairs.protocols.PROTOCOLS`. The other arguments are
    those of `load_pairs`. Raises UsageError for options that cannot be.
    """
    name = str(source)
    try:
        listing = sources.read(source, masks=masks, csv=csv, lists_in=lists, layout=layout)
        given = None if classes is None else read_classes(classes)
    except DataError as error:
        return PairReport(source=name, problems=[Problem("error", str(error))])
    pixels: dict[str, str] = {}  # by name: the rows move when broken ones are left out

    def look(pair: Pair) -> Header:
        header = read_header(pair.image)
        pixels[pair.name] = digest(pair.image)
        return header

    found = survey(listing, table=given, mapping=mapping, void=void, read=look)
    problems = [*listing.problems, *broken_problems(found, skip=False), *found.problems]
    pairs = found.listing.pairs
    split = [pair.split or "train" for pair in pairs]
    copies = _copies([pixels[pair.name] for pair in pairs])
    leaks = [rows for rows in copies if len({split[row] for row in rows}) > 1]
    duplicates = [rows for rows in copies if len({split[row] for row in rows}) == 1]
    told = any(problem.severity == "error" for problem in listing.problems) and not listing.known.any()
    if not told and not any(problem.severity == "error" for problem in found.problems) and len(pairs):
        problems += _table_problems(found, name)
    if protocol is not None:
        problems += check_protocol(protocol, _contents(found, name))
    total = found.counts.sum(axis=0)
    real = max(1, int(total[:-1].sum()))
    names = found.table.names
    return PairReport(
        source=name,
        layout=listing.layout,
        images=len(listing),
        masks=int(listing.known.sum()),
        classes=names,
        splits=_splits(pairs, split),
        sizes=_most_frequent([f"{header.width}x{header.height}" for header in found.headers]),
        modes=_most_frequent([header.mode for header in found.headers]),
        shares=dict(zip(names, (total[:-1] / real).tolist(), strict=True)),
        shown_in=dict(zip(names, (found.counts[:, :-1] > 0).sum(axis=0).tolist(), strict=True)),
        void=float(total[-1] / max(1, int(total.sum()))),
        broken=found.broken,
        duplicates=[[pairs[row].name for row in rows] for rows in duplicates],
        leaks=[[pairs[row].name for row in rows] for rows in leaks],
        lists={file.part: file.sha256 for file in listing.lists},
        problems=[*problems, *_copy_problems(pairs, split, leaks, duplicates), *_no_pool(pairs, split)],
    )


def _table_problems(found: Survey, name: str) -> list[Problem]:
    try:
        return [Problem("error", message) for message in pair_errors(table_of_survey(found, name))]
    except DataError as error:
        return [Problem("error", str(error))]


def _contents(found: Survey, name: str) -> Contents:
    listing = found.listing
    labeled = listing.known & np.array([pair.may_label for pair in listing.pairs], dtype=bool)
    names = [pair.name for pair in listing.pairs]
    return Contents(name, len(found.table), names, listing.split, labeled, listing.lists)


def _splits(pairs: Sequence[Pair], split: list[str]) -> dict[str, tuple[int, int]]:
    images = Counter(split)
    masks = Counter(part for part, pair in zip(split, pairs, strict=True) if pair.mask is not None)
    return {part: (images[part], masks[part]) for part in ("train", "val", "test") if images[part]}


def _copies(digests: list[str]) -> list[list[int]]:
    """Groups of rows with equal pixels."""
    rows_of = defaultdict(list)
    for row, pixels in enumerate(digests):
        rows_of[pixels].append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _most_frequent(values: list[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _copy_problems(
    pairs: Sequence[Pair], split: list[str], leaks: list[list[int]], duplicates: list[list[int]]
) -> list[Problem]:
    """A labelled training image that is also held out is an error, other copies are warnings."""

    def shown(groups: list[list[int]]) -> str:
        return examples([" = ".join(pairs[row].name for row in rows) for rows in groups])

    bad = [
        rows
        for rows in leaks
        if any(split[row] == "train" and pairs[row].mask is not None and pairs[row].may_label for row in rows)
    ]
    other = [rows for rows in leaks if rows not in bad]
    problems = []
    if bad:
        message = f"{plural(len(bad), 'labelled image')} also in the validation or test split, pixel by pixel: "
        problems.append(Problem("error", f"{message}{shown(bad)}. Remove one of each pair."))
    if other:
        problems.append(Problem("warning", f"{plural(len(other), 'image')} in more than one split: {shown(other)}."))
    if duplicates:
        message = f"{plural(len(duplicates), 'image')} there more than once: {shown(duplicates)}."
        problems.append(Problem("warning", message))
    return problems


def _no_pool(pairs: Sequence[Pair], split: list[str]) -> list[Problem]:
    train = [pair for part, pair in zip(split, pairs, strict=True) if part == "train"]
    if any(pair.mask is None or not pair.may_label for pair in train):
        return []
    message = "There are no unlabelled images: unless some masks are set aside, training falls back to supervised."
    return [Problem("warning", message)]
