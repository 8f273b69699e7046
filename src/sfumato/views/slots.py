"""Which operations the strong view of each sample draws, and how an operation reaches only the samples that drew it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.views.presets import OPERATIONS


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
