"""What the student is to predict."""

from __future__ import annotations

from torch import Tensor

from sfumato.functional.refine import sharpen
from sfumato.rules.base import Targeter
from sfumato.rules.refine import checked_temperature


class Hard(Targeter):
    """The most probable class, (N, *S) int64."""

    def forward(self, p: Tensor) -> Tensor:
        return p.argmax(dim=1)


class Soft(Targeter):
    """The probabilities as they are."""

    def forward(self, p: Tensor) -> Tensor:
        return p


class Sharpened(Targeter):
    """p^(1/T) renormalised: softmax(z / T). T < 1 sharpens.

    Raises:
        UsageError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        self.temperature = checked_temperature("Sharpened", temperature)

    def forward(self, p: Tensor) -> Tensor:
        return sharpen(p, self.temperature)
