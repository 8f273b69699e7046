"""A look into every image and mask of a listing, once, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sfumato.data.decode import BrokenImage, Header, attempt_each, read_header
from sfumato.data.images import describe_broken
from sfumato.data.listing import Problem, examples, plural
from sfumato.data.pairs.classes import ClassTable
from sfumato.data.pairs.coding import Coding, decide, more
from sfumato.data.pairs.listing import Pair, PairListing
from sfumato.data.pairs.masks import MaskLook, UnusableMask, look_at


@dataclass(frozen=True, eq=False)
class Survey:
    """What the files of a listing hold, those that cannot be read left out of it."""

    listing: PairListing
    headers: list[Header]
    counts: NDArray[np.int64]  # (N, C + 1) pixels of each class and, last, of void; 0 of an image without a mask
    coding: Coding
    table: ClassTable
    broken: dict[str, str]  # name of the image or mask -> reason
    problems: list[Problem]  # of the masks; neither those of the listing nor the broken files

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N, 2) width and height."""
        sizes = [(header.width, header.height) for header in self.headers]
        return np.array(sizes, dtype=np.int64).reshape(len(sizes), 2)


def survey(
    listing: PairListing,
    *,
    table: ClassTable | None,
    mapping: Mapping[int, int] | None,
    void: int,
    read: Callable[[Pair], Header] | None = None,
) -> Survey:
    """Reads the header of every image (or what `read` does) and decodes every mask."""
    read = read or (lambda pair: read_header(pair.image))
    found = attempt_each(read, listing.pairs)
    looks = attempt_each(_look, listing.pairs)
    broken = {
        pair.name: str(header)
        for pair, header in zip(listing.pairs, found, strict=True)
        if isinstance(header, BrokenImage)
    }
    broken |= {
        pair.mask_name: str(look)
        for pair, look in zip(listing.pairs, looks, strict=True)
        if isinstance(look, BrokenImage) and not isinstance(look, UnusableMask)
    }
    sound = [
        (pair, header, look)
        for pair, header, look in zip(listing.pairs, found, looks, strict=True)
        if isinstance(header, Header) and not (isinstance(look, BrokenImage) and not isinstance(look, UnusableMask))
    ]
    named = [(pair.mask_name, look) for pair, _, look in sound if isinstance(look, MaskLook)]
    decided = decide(named, table or listing.table, mapping or listing.mapping, void)
    classes = len(decided.table)
    counts = np.zeros((len(sound), classes + 1), dtype=np.int64)
    for place, (_, _, look) in enumerate(sound):
        if isinstance(look, MaskLook):
            counts[place] = decided.coding.count(look, classes)
    return Survey(
        listing=replace(listing, pairs=[pair for pair, _, _ in sound]),
        headers=[header for _, header, _ in sound],
        counts=counts,
        coding=decided.coding,
        table=decided.table,
        broken=broken,
        problems=[*_unusable(sound), *_other_sizes(sound), *decided.problems],
    )


def broken_problems(found: Survey, skip: bool) -> list[Problem]:
    """Of the files that cannot be read: an error, or a warning when they are to be left out."""
    if not found.broken:
        return []
    if not skip or not len(found.listing):
        return [Problem("error", describe_broken(found.broken))]
    message = f"{plural(len(found.broken), 'file')} left out because they cannot be read: "
    return [Problem("warning", f"{message}{examples(list(found.broken))}.")]


def errors_of(problems: Iterable[Problem]) -> list[str]:
    return [problem.message for problem in problems if problem.severity == "error"]


def _look(pair: Pair) -> MaskLook | None:
    return None if pair.mask is None else look_at(pair.mask)


Sound = Sequence[tuple[Pair, Header, MaskLook | BrokenImage | None]]


def _unusable(sound: Sound) -> list[Problem]:
    bad = [(pair.mask_name, str(look)) for pair, _, look in sound if isinstance(look, UnusableMask)]
    if not bad:
        return []
    return [Problem("error", f"{bad[0][0]}: the mask is {bad[0][1]}{more(bad)}")]


def _other_sizes(sound: Sound) -> list[Problem]:
    bad = [
        (pair.mask_name, (pair, header, look))
        for pair, header, look in sound
        if isinstance(look, MaskLook) and (look.width, look.height) != (header.width, header.height)
    ]
    if not bad:
        return []
    pair, header, look = bad[0][1]
    turned = (look.height, look.width) == (header.width, header.height)
    hint = " One of them is turned: does the image have an EXIF orientation that the mask lacks?" if turned else ""
    message = (
        f"{pair.mask_name}: the mask is {look.width}x{look.height} pixels, its image {pair.name} "
        f"{header.width}x{header.height}. Export the mask again at the size of its image.{hint}{more(bad)}"
    )
    return [Problem("error", message)]
