"""Random rows, class by class: functions of the labels and a key."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.data.shuffle import permutation

Rows = NDArray[np.int64]


def draw_per_class(labels: Rows, pool: Rows, take: NDArray[np.int64], key: Sequence[int | str]) -> Rows:
    """`take[c]` random rows of each class c of `pool`, sorted.

    For one key, more rows of a class include the fewer, and no class depends on the others.
    """
    chosen = []
    for label, count in enumerate(take):
        rows = pool[labels[pool] == label]
        chosen.append(rows[permutation(len(rows), *key, label)[:count]])
    return np.sort(np.concatenate(chosen))


def carve(labels: Rows, pool: Rows, size: int, key: Sequence[int | str]) -> Rows:
    """`size` random rows of `pool`, each class in proportion (largest remainder), never the last row of a class.

    Raises ValueError unless the pool has at least `size` rows more than it has classes.
    """
    counts = np.bincount(labels[pool])
    if size > len(pool) - np.count_nonzero(counts):
        raise ValueError(f"cannot take {size} of {len(pool)} rows and leave each class one")
    ideal = size * counts / counts.sum()
    take = np.minimum(np.floor(ideal).astype(np.int64), counts - 1).clip(0)
    tie = permutation(len(counts), "ties", *key)
    while (short := size - int(take.sum())) > 0:
        room = np.flatnonzero(take < counts - 1)
        by_need = room[np.lexsort((tie[room], take[room] - ideal[room]))]
        take[by_need[:short]] += 1
    return draw_per_class(labels, pool, take, key)


def spread(total: int, classes: int, key: Sequence[int | str]) -> NDArray[np.int64]:
    """`total` divided evenly over the classes; the remainder goes to random ones."""
    counts = np.full(classes, total // classes, dtype=np.int64)
    counts[permutation(classes, "remainder", *key)[: total % classes]] += 1
    return counts
