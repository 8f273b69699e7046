"""The family where the loss has a gradient by the weak view's prediction too."""

from __future__ import annotations

from typing import ClassVar

from sfumato.methods.base import Slot
from sfumato.methods.consistency import Consistency


class BothViews(Consistency):
    """An extra adds the gradient by the weak prediction as it was made, so that no add-on may come between the two."""

    slots: ClassVar[frozenset[Slot]] = Consistency.slots - {"refine", "target", "divergence"}
    closed: ClassVar[str | None] = (
        "Its loss has a gradient by the weak view's prediction too, as it was made: of a corrected one it would be the "
        "gradient of another loss than the one that is counted. Use method.gradient=one (pi_model) or "
        "method.detach_weak=true (uncertainty_weighted)."
    )
