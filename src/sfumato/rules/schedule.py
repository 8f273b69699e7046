"""Numbers that move with training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from sfumato.errors import check_choice
from sfumato.types import Progress

Schedule = Callable[[Progress], float]
Rise = Literal["linear", "exponential"]


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, progress: Progress) -> float:
        return self.value


@dataclass(frozen=True)
class Ramp:
    """Linear from `start` to `end` over the first `over` of training, constant after; over=0 is `end` throughout."""

    start: float
    end: float
    over: float = 1.0

    def __call__(self, progress: Progress) -> float:
        reached = progress.fraction / self.over if progress.fraction < self.over else 1.0
        return self.start + (self.end - self.start) * reached


@dataclass(frozen=True)
class CosineRamp:
    """`end` (1 - cos(pi t)) / 2, t rising from 0 to 1 over the first `over` of training; over=0 is `end` throughout."""

    end: float
    over: float = 0.5

    def __call__(self, progress: Progress) -> float:
        reached = progress.fraction / self.over if progress.fraction < self.over else 1.0
        return self.end * (0.5 - 0.5 * math.cos(math.pi * reached))


@dataclass(frozen=True)
class ExponentialRamp:
    """end exp(-5 (1 - t / over)^2) over the first `over` of training, t its share that is past, and `end` after.

    Laine and Aila 2017, arXiv:1610.02242; e^-5 of `end` at the very start. over=0 is `end` throughout.
    """

    end: float
    over: float = 1.0

    def __call__(self, progress: Progress) -> float:
        if progress.fraction >= self.over:
            return self.end
        return self.end * math.exp(-5 * (1 - progress.fraction / self.over) ** 2)


def rising(rise: Rise, end: float, *, over: float) -> Schedule:
    """From nothing to `end` over the first `over` of training. Raises UsageError for an unknown `rise`."""
    check_choice("rising", "rise", rise, get_args(Rise))
    return Ramp(0.0, end, over=over) if rise == "linear" else ExponentialRamp(end, over=over)
