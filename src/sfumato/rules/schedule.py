"""Numbers that move with training."""

from __future__ import annotations

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
