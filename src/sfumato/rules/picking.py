"""Which of the images that a network has labeled the next training takes as labeled: the choices of `types.Pick`.

One class per image: of a map, parts would have to be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sfumato.functional.selection import (
    Rates,
    equally_many,
    sampling_rates,
    surer_than,
    surest,
    surest_of_each_class,
)


@dataclass(frozen=True)
class SurerThan:
    """Images with a confidence above `threshold`."""

    threshold: float

    def __call__(self, p: Tensor, counts: Tensor) -> Tensor:
        return surer_than(p, self.threshold)


@dataclass(frozen=True)
class Surest:
    """The `k` surest images."""

    k: int

    def __call__(self, p: Tensor, counts: Tensor) -> Tensor:
        return surest(p, self.k)


@dataclass(frozen=True)
class RarestFirst:
    """Of each class a share that is the larger, the fewer labels it has: see `functional.selection.sampling_rates`."""

    alpha: float
    rates: Rates

    def __call__(self, p: Tensor, counts: Tensor) -> Tensor:
        return surest_of_each_class(p, sampling_rates(counts.to(p.device), self.alpha, self.rates))


@dataclass(frozen=True)
class EquallyMany:
    """Images with a confidence above `threshold`, of each class the `per_class` surest ones, or all."""

    threshold: float
    per_class: int | None

    def __call__(self, p: Tensor, counts: Tensor) -> Tensor:
        sure = surer_than(p, self.threshold)
        return sure if self.per_class is None or not len(sure) else sure[equally_many(p[sure], self.per_class)]
