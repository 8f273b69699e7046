"""Labels that stop counting once they are learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sfumato.errors import check_choice
from sfumato.functional.annealing import Rise, annealing_threshold, unlearned, unsure
from sfumato.types import Progress


@dataclass(frozen=True)
class SignalAnnealing:
    """Training signal annealing of UDA, for `Method.annealing`; see `functional.annealing`.

    Args:
        num_classes: C.
        rise: of the threshold over training.
        form: "paper" leaves out labels whose class has a probability above the threshold, and takes the mean over
            those that are left; "peer" (USB) leaves out all whose most probable class has one, mistaken or not, and
            divides by the number of all.

    Raises:
        UsageError: an unknown form.
    """

    num_classes: int
    rise: Rise = "linear"
    form: Literal["paper", "peer"] = "paper"

    def __post_init__(self) -> None:
        check_choice("SignalAnnealing", "form", self.form, ("paper", "peer"))

    @property
    def normalize(self) -> str:
        """What divides the loss, as in `functional.reduce.weighted_mean`."""
        return "selected" if self.form == "paper" else "valid"

    def __call__(self, logits: Tensor, y: Tensor, progress: Progress) -> Tensor:
        """Which labels count, 1 or 0, (N, C, *S), (N, *S) -> (N, *S)."""
        limit = annealing_threshold(self.rise, progress.fraction, self.num_classes)
        return unlearned(logits, y, limit) if self.form == "paper" else unsure(logits, limit)
