"""Which operations the strong view of each sample draws, and how an operation reaches only the samples that drew it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sfumato.views.presets import OPERATIONS, Operation


@dataclass(frozen=True, slots=True)
class Slots:
    """The operations of N samples in the order of their application, K each."""

    operation: Tensor  # (N, K) int64, place in OPERATIONS
    magnitude: Tensor  # (N, K) float32

    def drew(self, name: str) -> Tensor:
        """(N, K) bool: where `name` was drawn."""
        return self.operation == OPERATIONS.index(name)

    def magnitude_of(self, name: str, otherwise: float) -> Tensor:
        """(N, K) float32: the magnitude where `name` was drawn, `otherwise` elsewhere."""
        return self.magnitude.where(self.drew(name), torch.full_like(self.magnitude, otherwise))


@cache
def _pool(operations: tuple[Operation, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(pool,) each: place in OPERATIONS, lowest and highest magnitude. Kept, so that no step waits for a copy."""
    places = [OPERATIONS.index(operation.name) for operation in operations]
    ranges = [(operation.low, operation.high) for operation in operations]
    low, high = torch.tensor(ranges, dtype=torch.float32, device=device).view(-1, 2).unbind(1)
    return torch.tensor(places, dtype=torch.int64, device=device), low, high


def chosen(operations: tuple[Operation, ...], choice: Tensor, place: Tensor) -> Slots:
    """The operations that numbers in [0, 1) choose from the pool, and magnitudes at that place of their range."""
    operation, low, high = _pool(operations, choice.device)
    picked = (choice * len(operations)).long()
    return Slots(operation[picked], low[picked] + (high[picked] - low[picked]) * place)


def on_rows(mask: Tensor, function: Callable[..., Tensor], values: Tensor, *beside: Tensor) -> Tensor:
    """`values` with `function(values, *beside)` in the rows where `mask` (N,) is true. May overwrite `values`.

    On a CPU only those rows are computed. Elsewhere all are, since to count them the host would wait for the device:
    a function must bear the magnitudes of other operations without failing, whatever it makes of them.
    """
    if values.device.type != "cpu":
        return everywhere(mask, function, values, *beside)
    rows = mask.nonzero().squeeze(1)
    if len(rows) == 0:
        return values
    chosen = [whole.index_select(0, rows) for whole in (values, *beside)]
    return values.index_copy_(0, rows, function(*chosen))


def everywhere(mask: Tensor, function: Callable[..., Tensor], values: Tensor, *beside: Tensor) -> Tensor:
    """As `on_rows`, computing every row and keeping those of the mask."""
    return torch.where(mask.view(-1, *[1] * (values.ndim - 1)), function(values, *beside), values)
