"""The charge of uncertainty-weighted SSL: a gated cross-entropy and a distance, of one prediction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from sfumato.functional.adjust import tilted_target
from sfumato.functional.divergence import DIVERGENCES, cross_entropy
from sfumato.functional.weigh import above
from sfumato.rules import Targeter

Distance = Literal["bhattacharyya", "kl", "js", "hellinger", "none"]


class GatedDivergence:
    """g CE(t, q) + h D(p, q), the charge inside eq. 8. The gates g and h are 1[max p >= tau], with a tau each in
    `gates`: 0 lets all pass. They are read on p itself, never on the sharpened t.
    """

    def __init__(self, target: Targeter, *, divergence: Distance, gates: tuple[float, float]) -> None:
        self.target, self.divergence, self.gates = target, divergence, gates

    # p is dense: the family's target is Soft
    def __call__(self, logits: Tensor, p: Any, move: Callable[[Any], Any] = lambda t: t) -> Tensor:
        ce = above(p, self.gates[0]) * cross_entropy(logits, move(self.target(p)))
        distance = 0.0 if self.divergence == "none" else DIVERGENCES[self.divergence](logits, move(p))
        return ce + above(p, self.gates[1]) * distance

    def moved(self, logits: Tensor, p: Any, offset: Tensor) -> Tensor:
        """The same with what q is compared with moved by the offset (C,), and the gates as they are."""
        return self(logits, p, partial(tilted_target, offset=offset))
