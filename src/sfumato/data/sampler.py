"""Which rows a step sees: a function of the step, with nothing to save or restore."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.data.shuffle import permutation
from sfumato.errors import UsageError


class StepSampler:
    """Batches for ever: pass after pass over `rows`, each pass in its own order.

    Step s is entries s * batch_size to (s + 1) * batch_size - 1 of the endless sequence, where pass k is a permutation
    drawn from (seed, purpose, k) alone. So a step needs no earlier step, and a rank takes its slice of the global
    batch. A batch larger than `rows` spans several passes. The orders last used are kept, only to save time.

    Raises UsageError when there are no rows or the batch is empty.
    """

    def __init__(self, rows: ArrayLike, batch_size: int, *, seed: int, purpose: str) -> None:
        self._rows: NDArray[np.int64] = np.asarray(rows, dtype=np.int64)
        if self._rows.ndim != 1 or len(self._rows) == 0:
            raise UsageError(f"StepSampler({purpose}): expected at least one row, got shape {self._rows.shape}.")
        if batch_size < 1:
            raise UsageError(f"StepSampler({purpose}): batch_size={batch_size}; expected 1 or more.")
        self.batch_size = batch_size
        self.seed = seed
        self.purpose = purpose
        self._orders: dict[int, NDArray[np.int64]] = {}

    def rows(self, step: int) -> NDArray[np.int64]:
        """The rows (batch_size,) of the global batch at `step`, counted from 0."""
        start = step * self.batch_size
        passes, places = np.divmod(np.arange(start, start + self.batch_size), len(self._rows))
        numbers = range(int(passes[0]), int(passes[-1]) + 1)
        # Read and replaced as a whole, never changed in place: several threads may ask at once.
        known = self._orders
        orders = {number: known[number] if number in known else self._order(number) for number in numbers}
        self._orders = orders
        batch = np.empty(self.batch_size, dtype=np.int64)
        for number, order in orders.items():
            batch[passes == number] = order[places[passes == number]]
        return self._rows[batch]

    def _order(self, number: int) -> NDArray[np.int64]:
        return permutation(len(self._rows), "order", self.seed, self.purpose, number)
