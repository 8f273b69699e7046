"""Labels that are not quite sure."""

from __future__ import annotations

from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.divergence import Divergence
from sfumato.functional.probability import one_hot
from sfumato.functional.refine import smooth
from sfumato.rules.charge import Around
from sfumato.types import Sparse, Target


class Smoothed(Around):
    """base(z, t) with 1 - s of t where it is and s / (C - 1) on each other class (Szegedy et al. 2016, section 7).

    Args:
        base: the charge, (logits, target) -> (N, *S).
        smoothing: s.

    Raises:
        UsageError: an s outside 0 to 1.
    """

    def __init__(self, base: Divergence, *, smoothing: float = 0.1) -> None:
        super().__init__(base)
        if not 0.0 <= smoothing < 1.0:
            raise UsageError(f"Smoothed(smoothing={smoothing}): expected at least 0 and below 1, such as 0.1.")
        self.smoothing = smoothing

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        if isinstance(target, Sparse):
            raise UsageError("Smoothed takes labels or distributions over all classes.")
        whole = target if target.is_floating_point() else one_hot(target, logits.shape[1])
        return self.base(logits, smooth(whole, self.smoothing))
