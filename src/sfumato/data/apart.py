"""Labels drawn apart from what is held out: no labelled image is also a validation or test image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import examples, plural
from sfumato.data.splits import Splits, Splittable, fingerprint, fingerprint_parts
from sfumato.data.stratify import Rows
from sfumato.errors import DataError


@dataclass(frozen=True, eq=False)
class HeldOut:
    val: Rows
    test: Rows
    given: tuple[str, ...]  # the parts that the table itself prescribes
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> Rows:
        return np.concatenate([self.val, self.test])

    def aside(self) -> str:
        """A reminder of what was carved, for messages about too few labels."""
        carved = [
            plural(len(rows), f"{part} image")
            for part, rows in (("val", self.val), ("test", self.test))
            if part not in self.given and len(rows)
        ]
        return f" after {' and '.join(carved)} were set aside" if carved else ""


class Named(Protocol):
    """Images with names, and the split that the source prescribes."""

    @property
    def source(self) -> str: ...

    @property
    def names(self) -> list[str]: ...

    @property
    def split(self) -> NDArray[np.str_]: ...


class Drawable(Named, Splittable, Protocol):
    """What splits are drawn of."""

    @property
    def notes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...


def draw_apart(
    table: Named, digests: Callable[[Rows], list[str]], held: HeldOut, pool: Rows, draw: Callable[[Rows], Rows]
) -> tuple[Rows, Rows]:
    """Labelled rows of `pool` without copies of held-out images; and the copies that had to be passed over.

    A copy in a split that the table prescribes is an error of the data. Where we carved ourselves it only means that
    the same picture is there twice: then it is passed over and the draw repeated.
    """
    seen = dict(zip(digests(held.rows), held.rows.tolist(), strict=True))
    copies = np.empty(0, dtype=np.int64)
    while True:
        labeled = draw(np.setdiff1d(pool, copies))
        keys = digests(labeled)
        pairs = [(row, seen[key]) for row, key in zip(labeled.tolist(), keys, strict=True) if key in seen]
        _refuse_given(table, [(row, twin) for row, twin in pairs if table.split[twin] in held.given])
        if not pairs:
            return labeled, copies
        copies = np.union1d(copies, np.array([row for row, _ in pairs], dtype=np.int64))


def as_splits(
    table: Drawable,
    held: HeldOut,
    labeled: Rows,
    copies: Rows,
    *,
    seed: int,
    split_seed: int,
    include_labeled: bool,
    notes: Sequence[str] = (),
    keep: Callable[[Rows], Rows] | None = None,
) -> Splits:
    """The unlabelled rows are what is left: neither labelled, held out, a copy, nor in a split that the table names.

    keep: which of them, if not all.
    """
    out_of_reach = [held.rows, copies, np.flatnonzero(np.isin(table.split, ["val", "test"]))]
    others = np.setdiff1d(np.arange(len(table)), np.concatenate([*out_of_reach, labeled]))
    others = others if keep is None else keep(others)
    hashes = fingerprint_parts(table, np.concatenate([labeled, held.rows]))
    return Splits(
        labeled=labeled,
        unlabeled=np.union1d(others, labeled) if include_labeled and len(others) else others,
        val=held.val,
        test=held.test,
        seed=seed,
        split_seed=split_seed,
        fingerprint=fingerprint(hashes),
        notes=[*table.notes, *held.notes, *notes, *_copies_note(table.names, copies), *_pool_note(others)],
        names=table.names,
        hashes=hashes,
    )


def _refuse_given(table: Named, pairs: list[tuple[int, int]]) -> None:
    if not pairs:
        return
    shown = [f"{table.names[row]} = {table.names[twin]} ({table.split[twin]})" for row, twin in pairs]
    raise DataError(
        f"{table.source}: {plural(len(pairs), 'labelled image')} also in the validation or test split, pixel by pixel: "
        f"{examples(shown)}. Remove one of each pair; results would be too good otherwise."
    )


def _copies_note(names: list[str], copies: Rows) -> list[str]:
    if not len(copies):
        return []
    shown = examples([names[row] for row in copies])
    return [f"{plural(len(copies), 'image')} left out as exact copies of val or test images: {shown}."]


def _pool_note(others: Rows) -> list[str]:
    if len(others):
        return []
    return ["There are no unlabelled images: training falls back to supervised, on the labels alone."]
