"""The charge of uncertainty-weighted SSL: a gated cross-entropy and a distance, of one prediction."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor

from sfumato.functional.adjust import tilted_target
from sfumato.functional.divergence import DIVERGENCES, cross_entropy
from sfumato.functional.weigh import above
from sfumato.methods.base import Method
from sfumato.methods.consistency import Consistency
from sfumato.rules import Charge, Targeter
from sfumato.types import Context, Target

Distance = Literal["bhattacharyya", "kl", "js", "hellinger", "none"]


class GatedDivergence:
    """g CE(t, q) + h D(p, q), the charge inside eq. 8. The gates g and h are 1[max p >= tau], with a tau each in
    `gates`: 0 lets all pass. They are read on p itself, never on the sharpened t.
    """

    def __init__(self, target: Targeter, *, divergence: Distance, gates: tuple[float, float]) -> None:
        self.target, self.divergence, self.gates = target, divergence, gates

    # p is dense: the family's target is Soft
    def __call__(
        self, logits: Tensor, p: Any, move: Callable[[Any], Any] = lambda t: t, *, sure: Tensor | None = None
    ) -> Tensor:
        """sure: what the gates are read on where p is no prediction; by default p."""
        sure = p if sure is None else sure
        ce = above(sure, self.gates[0]) * cross_entropy(logits, move(self.target(p)))
        distance = 0.0 if self.divergence == "none" else DIVERGENCES[self.divergence](logits, move(p))
        return ce + above(sure, self.gates[1]) * distance

    def moved(self, logits: Tensor, p: Any, offset: Tensor) -> Tensor:
        """The same with what q is compared with moved by the offset (C,), and the gates as they are."""
        return self(logits, p, partial(tilted_target, offset=offset))


class GatedAsPredicted(Charge):
    """A gated charge of targets that are other than the prediction: its gates are read on what was observed last.

    For one label per image, which no warp moves.
    """

    def __init__(self, base: GatedDivergence) -> None:
        super().__init__()
        self.base = base
        self.p: Tensor | None = None  # (N, C) of the step; no memory

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.p = p

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        return self.base(logits, target, sure=self.p)


def gated_as_predicted(method: Consistency) -> None:
    """To be called by whatever puts other targets in the place of predictions."""
    if isinstance(method.divergence, GatedDivergence):
        method.divergence = GatedAsPredicted(method.divergence)


def ungated(method: Method) -> None:
    """To be called by whatever puts other thresholds in the place of the method's own."""
    charge = getattr(method, "divergence", None)
    if isinstance(charge, GatedDivergence):
        charge.gates = (0.0, 0.0)
