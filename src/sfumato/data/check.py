"""A look at a data set before any training: what is there, and what is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.data import sources
from sfumato.data.decode import BrokenImage, Header, Item, attempt_each, digest, read_header
from sfumato.data.draw import class_errors
from sfumato.data.images import describe_broken
from sfumato.data.listing import Listing, Problem, examples, plural
from sfumato.data.table import Table
from sfumato.errors import DataError

NO_POOL = "There are no unlabelled images: unless some labels are set aside, training falls back to supervised."
Look = tuple[Header, str]  # of one image: its header and the hash of its pixels


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. `counts[split][class]` are labelled images; images without a split count as train."""

    source: str
    layout: str = ""
    images: int = 0
    classes: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    unlabeled: int = 0
    sizes: dict[str, int] = field(default_factory=dict)  # "640x480" -> images, the most frequent first
    modes: dict[str, int] = field(default_factory=dict)  # "RGB" -> images, the most frequent first
    broken: dict[str, str] = field(default_factory=dict)  # name -> reason
    duplicates: list[list[str]] = field(default_factory=list)  # names of images with equal pixels in one split
    leaks: list[list[str]] = field(default_factory=list)  # names of images with equal pixels in different splits
    problems: list[Problem] = field(default_factory=list)
    drawn: dict[str, dict[str, int]] = field(default_factory=dict)  # part -> class -> images, of some settings

    @property
    def ok(self) -> bool:
        """Whether training can start: there may be warnings but no error."""
        return not any(problem.severity == "error" for problem in self.problems)


def check(source: str | Path | Table, *, labels: Path | None = None, protocol: str | None = None) -> CheckReport:
    """Read a source, decode each image once, and list what is there and every problem, instead of raising the first.

    source, labels, protocol: as for `load_table`, or a table. Raises UsageError for options that cannot be.
    """
    name = source.source if isinstance(source, Table) else str(source)
    try:
        listing = _listing_of(source) if isinstance(source, Table) else sources.read(source, labels, protocol)
    except DataError as error:
        return CheckReport(source=name, problems=[Problem("error", str(error))])
    looks = attempt_each(_look, list(listing.items))
    sound = {row: look for row, look in enumerate(looks) if not isinstance(look, BrokenImage)}
    broken = {listing.names[row]: str(look) for row, look in enumerate(looks) if isinstance(look, BrokenImage)}
    split = np.where(listing.split == "", "train", listing.split)
    copies = _copies(sound)
    leaks = [rows for rows in copies if len(set(split[rows])) > 1]
    duplicates = [rows for rows in copies if len(set(split[rows])) == 1]
    return CheckReport(
        source=name,
        layout=listing.layout,
        images=len(listing),
        classes=listing.classes,
        counts=_counts(listing, split),
        unlabeled=int((listing.labels < 0).sum()),
        sizes=_most_frequent(f"{header.width}x{header.height}" for header, _ in sound.values()),
        modes=_most_frequent(header.mode for header, _ in sound.values()),
        broken=broken,
        duplicates=[_names(listing, rows) for rows in duplicates],
        leaks=[_names(listing, rows) for rows in leaks],
        problems=[
            *listing.problems,
            *_broken_problems(broken),
            *_label_problems(name, listing, split),
            *_frame_problems(listing, sound),
            *_leak_problems(listing, split, leaks),
            *_duplicate_problems(listing, duplicates),
            *_contradictions(listing, copies),
        ],
    )


def _listing_of(table: Table) -> Listing:
    notes = [Problem("warning", note) for note in table.notes]
    return Listing(
        table.images.items, table.names, table.labels, table.split, table.classes, table.layout, problems=notes
    )


def _look(item: Item) -> Look:
    return read_header(item), digest(item)


def _copies(sound: dict[int, Look]) -> list[list[int]]:
    """Groups of rows with equal pixels."""
    rows_of = defaultdict(list)
    for row, (_, pixels) in sound.items():
        rows_of[pixels].append(row)
    return [rows for rows in rows_of.values() if len(rows) > 1]


def _counts(listing: Listing, split: NDArray[np.str_]) -> dict[str, dict[str, int]]:
    counts = {}
    for part in ("train", "val", "test"):
        labels = listing.labels[(split == part) & (listing.labels >= 0)]
        if len(labels):
            numbers = np.bincount(labels, minlength=len(listing.classes))
            counts[part] = dict(zip(listing.classes, numbers.tolist(), strict=True))
    return counts


def _most_frequent(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _names(listing: Listing, rows: list[int]) -> list[str]:
    return [listing.names[row] for row in rows]


def _broken_problems(broken: dict[str, str]) -> Iterator[Problem]:
    if broken:
        yield Problem("error", describe_broken(broken))


def _label_problems(name: str, listing: Listing, split: NDArray[np.str_]) -> Iterator[Problem]:
    for message in class_errors(name, listing.labels, listing.split, listing.classes):
        yield Problem("error", message)
    held_out = split != "train"
    blank = _names(listing, np.flatnonzero(held_out & (listing.labels < 0)).tolist())
    if blank:
        count = plural(len(blank), "val or test image")
        yield Problem("warning", f"{count} without a label, of no use: {examples(blank)}.")
    if not (listing.labels[~held_out] < 0).any():
        yield Problem("warning", NO_POOL)


def _frame_problems(listing: Listing, sound: dict[int, Look]) -> Iterator[Problem]:
    animated = [listing.names[row] for row, (header, _) in sound.items() if header.animated]
    if animated:
        count = plural(len(animated), "image")
        yield Problem("warning", f"{count} with several frames: only the first is used: {examples(animated)}.")


def _leak_problems(listing: Listing, split: NDArray[np.str_], leaks: list[list[int]]) -> Iterator[Problem]:
    """A labelled training image that is also held out is an error, other copies across splits a warning."""
    labeled = [rows for rows in leaks if any(split[row] == "train" and listing.labels[row] >= 0 for row in rows)]
    other = [rows for rows in leaks if rows not in labeled]
    if labeled:
        shown = examples([_group(listing, rows) for rows in labeled])
        count = plural(len(labeled), "labelled image")
        message = f"{count} also in the validation or test split, pixel by pixel: {shown}. Remove one of each pair."
        yield Problem("error", message)
    if other:
        shown = examples([_group(listing, rows) for rows in other])
        yield Problem("warning", f"{plural(len(other), 'image')} in more than one split: {shown}.")


def _duplicate_problems(listing: Listing, duplicates: list[list[int]]) -> Iterator[Problem]:
    if duplicates:
        shown = examples([_group(listing, rows) for rows in duplicates])
        yield Problem("warning", f"{plural(len(duplicates), 'image')} there more than once: {shown}.")


def _contradictions(listing: Listing, copies: list[list[int]]) -> Iterator[Problem]:
    """Equal pixels with different labels."""
    bad = [rows for rows in copies if len({label for label in listing.labels[rows].tolist() if label >= 0}) > 1]
    if bad:
        rows = [row for row in bad[0] if listing.labels[row] >= 0]
        shown = ", ".join(f"'{listing.names[row]}' is {listing.classes[listing.labels[row]]}" for row in rows)
        yield Problem("warning", f"{plural(len(bad), 'image')} there more than once with different labels: {shown}.")


def _group(listing: Listing, rows: list[int]) -> str:
    return " = ".join(_names(listing, rows))
