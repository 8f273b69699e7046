"""What is asked of the splits: how many labels, and how much to hold out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import plural
from sfumato.data.long_tail import LongTail
from sfumato.data.stratify import Rows, draw_per_class, spread
from sfumato.data.table import Table
from sfumato.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """Labels in total, or per class, or a fraction of each class; none of the three means all labels.

    long_tail: where its labels are asked to be a long tail, `labels` is the most that it may have in total, and the
    other two cannot be.
    """

    labels: int | None = None
    labels_per_class: int | None = None
    fraction: float | None = None
    long_tail: LongTail = field(default_factory=LongTail)

    def __post_init__(self) -> None:
        asked = {
            name: value
            for name in ("labels", "labels_per_class", "fraction")
            if (value := getattr(self, name)) is not None
        }
        if len(asked) > 1:
            raise UsageError(f"{' and '.join(asked)} were both given; expected one of them, or none for all labels.")
        for name, value in asked.items():
            if value <= 0:
                raise UsageError(f"{name}={value}: expected more than 0.")
        if self.fraction is not None and self.fraction > 1:
            raise UsageError(f"fraction={self.fraction}: expected at most 1 (all labels).")
        self._check_tail(asked)

    def _check_tail(self, asked: Mapping[str, float]) -> None:
        if self.long_tail.gamma_labeled is None:
            return
        for name in asked:
            if name != "labels":
                raise UsageError(
                    f"{name} and gamma_labeled were both given: the labels of a long tail are not alike in number. "
                    "Say how many the largest class has (head_labeled), or all together (labels)."
                )
        if self.labels is not None and self.long_tail.head_labeled is not None:
            raise UsageError(
                "labels and head_labeled were both given; expected the number of all labels, or of the largest class's."
            )

    def draw(self, table: Table, pool: Rows, aside: str, seed: int) -> Rows:
        """Rows of `pool`, all labelled. `aside` says what is no longer in the pool. Raises DataError if too few."""
        counts = np.bincount(table.labels[pool], minlength=len(table.classes))
        if self.long_tail.gamma_labeled is not None:
            take = self.long_tail.take_labeled(table, counts, self.labels, aside)
        else:
            take = self._take(table.source, counts, aside, seed)
        short = np.flatnonzero((counts < take) | (counts == 0))
        if len(short):
            label = short[0]
            raise DataError(
                f"{table.source}: class '{table.classes[label]}' has {plural(int(counts[label]), 'labelled image')} "
                f"to draw from{aside}, but {max(1, take[label])} are asked for. Ask for at most {counts.min()} per "
                f"class, or for no number to use all {counts.sum()} labels."
            )
        return draw_per_class(table.labels, pool, take, ("labels", seed))

    def _take(self, source: str, counts: NDArray[np.int64], aside: str, seed: int) -> NDArray[np.int64]:
        """How many of each class (C,)."""
        if self.labels_per_class is not None:
            return np.full(len(counts), self.labels_per_class, dtype=np.int64)
        if self.fraction is not None:
            return np.asarray(np.rint(self.fraction * counts).clip(1), dtype=np.int64)
        if self.labels is None:
            return counts
        if self.labels < len(counts):
            raise DataError(
                f"{source}: labels={self.labels} cannot cover {len(counts)} classes. "
                f"Ask for at least {len(counts)}, one for each class."
            )
        if self.labels > counts.sum():
            raise DataError(
                f"{source}: labels={self.labels} asked for, but there are only {counts.sum()} labelled images to draw "
                f"from{aside}. Ask for fewer, or for no number to use all of them."
            )
        return spread(self.labels, len(counts), ("labels", seed))


def hold_out_size(part: str, share: int | float, known: int) -> int:
    """Images to hold out: an int is their number, a float a share of the `known` labels (at least one image)."""
    if share < 0 or (isinstance(share, float) and share >= 1):
        raise UsageError(f"{part}={share}: expected a number of images, or a share of at least 0 and less than 1.")
    return max(1, round(share * known)) if isinstance(share, float) and share > 0 else int(share)
