"""Calibration over a stream of batches in O(bins) memory, class-wise O(C bins), however many images or pixels pass.

Each equals its namesake in `functional.calibration` on everything observed at once. Adaptive ECE is missing: its
groups are quantiles of all confidences, which a fixed number of sums cannot give.

Merge rule: what a rank has observed stays its own, in its buffers; counts and sums are added over ranks when a value
is read. Every rank must therefore read together, and reading changes nothing. Ranks may observe unequal shares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks
from sfumato.functional.calibration import (
    BinSums,
    Norm,
    Reliability,
    bin_sums,
    binned_error,
    brier_each,
    class_bin_sums,
    entry_bin_sums,
    nll_each,
    reliability_of,
    valid_entries,
)


class TopLabelBins(nn.Module):
    """Bins of the winning probability. `value` is the expected calibration error, () float64.

    Buffer: `filled` (3, B) float64, or (3, B + 1) with `split_one`: counts, confidence sums, correct ones.
    """

    filled: Tensor

    def __init__(self, bins: int = 15, *, split_one: bool = False) -> None:
        super().__init__()
        self.bins, self.split_one = bins, split_one
        self.register_buffer("filled", torch.zeros((3, bins + split_one), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, probabilities: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """probabilities: (N, C, *S); labels, valid: (N, *S). C may be anything."""
        self._add(bin_sums(probabilities, labels, valid, bins=self.bins, split_one=self.split_one))

    @torch.no_grad()
    def observe_entries(self, top: Tensor, right: Tensor) -> None:
        """The same from winning probabilities and whether they were right, (n,), (n,) bool."""
        self._add(entry_bin_sums(top, right, bins=self.bins, split_one=self.split_one))

    def _add(self, new: BinSums) -> None:
        self.filled += _stacked(new).to(self.filled.device)

    @property
    def sums(self) -> BinSums:
        """The bins of all ranks."""
        return BinSums(*sum_over_ranks(self.filled))

    @property
    def value(self) -> Tensor:
        return self.error("l1")

    def error(self, norm: Norm) -> Tensor:
        """As `ece` with that norm."""
        return binned_error(self.sums, norm)

    @property
    def table(self) -> Reliability:
        """What a reliability diagram draws. A bin of exact ones (`split_one`) is shown within the last bin."""
        merged = sum_over_ranks(self.filled)
        plain = merged[:, : self.bins].clone()
        plain[:, -1] += merged[:, self.bins :].sum(dim=1)
        return reliability_of(BinSums(*plain))


class ClassBins(nn.Module):
    """Bins of every class's own probability. `value` is the class-wise calibration error, () float64.

    Buffer: `filled` (3, C, B) float64: counts, probability sums, entries of that class.
    """

    filled: Tensor

    def __init__(self, num_classes: int, bins: int = 15) -> None:
        super().__init__()
        self.bins = bins
        self.register_buffer("filled", torch.zeros((3, num_classes, bins), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, probabilities: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """probabilities: (N, C, *S); labels, valid: (N, *S)."""
        self.filled += _stacked(class_bin_sums(probabilities, labels, valid, bins=self.bins)).to(self.filled.device)

    @property
    def sums(self) -> BinSums:
        """The bins of all ranks."""
        return BinSums(*sum_over_ranks(self.filled))

    @property
    def each(self) -> Tensor:
        """The calibration error of each class, (C,)."""
        return binned_error(self.sums)

    @property
    def value(self) -> Tensor:
        return self.each.mean()


class ProperScores(nn.Module):
    """Negative log-likelihood and Brier score. `value` is both means, (2,) float64 in this order.

    Buffer: `totals` (3,) float64: sum of either score, and the count.
    """

    totals: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("totals", torch.zeros(3, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, probabilities: Tensor, labels: Tensor, valid: Tensor | None = None) -> None:
        """probabilities: (N, C, *S); labels, valid: (N, *S)."""
        p, y = valid_entries(probabilities, labels, valid)
        self.observe_entries(nll_each(p, y), brier_each(p, y))

    @torch.no_grad()
    def observe_entries(self, nll: Tensor, brier: Tensor) -> None:
        """The same from each entry's two scores, (n,), (n,)."""
        new = torch.stack([nll.double().sum(), brier.double().sum(), torch.ones_like(nll, dtype=torch.float64).sum()])
        self.totals += new.to(self.totals.device)

    @property
    def value(self) -> Tensor:
        merged = sum_over_ranks(self.totals)
        return merged[:2] / merged[2]  # 0 / 0 is the NaN of nothing observed


def _stacked(sums: BinSums) -> Tensor:
    return torch.stack([sums.count, sums.confidence, sums.correct])
