"""What the student is to predict."""

from __future__ import annotations

from torch import Tensor

from sfumato.errors import UsageError
from sfumato.functional.refine import sharpen, top_k
from sfumato.rules.base import Targeter
from sfumato.rules.refine import checked_temperature
from sfumato.types import Sparse


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


class TopK(Targeter):
    """The k most probable classes in the proportion of their probabilities (FARCLUSS, eq. 2-3); k = 1 is `Hard`.

    Raises:
        UsageError: k is below 1.
    """

    def __init__(self, k: int = 2) -> None:
        super().__init__()
        if k < 1:
            raise UsageError(f"TopK(k={k}): expected at least 1 class.")
        self.k = k

    def forward(self, p: Tensor) -> Sparse:
        return top_k(p, self.k)
