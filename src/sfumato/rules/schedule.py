"""Numbers that move with training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sfumato.types import Progress

Schedule = Callable[[Progress], float]


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
