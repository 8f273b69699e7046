"""UniMatch's second stream: the weak view once more, from features with channels dropped."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import Divergence, cross_entropy
from sfumato.functional.reduce import DIVISORS, weighted_mean
from sfumato.rules.base import Extra
from sfumato.types import Batch, Networks, Pseudo, Views


class Charging(Protocol):
    """A method with a loss of pseudo-labels."""

    divergence: Divergence


class FeaturePerturbation(Extra):
    """lambda mean(w D(perturbed, target)): the pseudo-label of the weak view charged to its perturbed output.

    UniMatch (Yang et al. 2023, arXiv:2208.09910), section 3.2. For methods whose views have `feature_dropout` above 0.

    Args:
        weight: lambda.
        divergence: the charge, (logits, target) -> (N, *S); after `of` it is that of the method.
        normalize: as in `Consistency`.

    Raises:
        UsageError: an unknown name, or views without the perturbed output.
    """

    name = "feature_dropout"

    def __init__(
        self, *, weight: float = 0.5, divergence: Divergence = cross_entropy, normalize: str = "valid"
    ) -> None:
        super().__init__()
        check_choice("FeaturePerturbation", "normalize", normalize, DIVISORS)
        self.weight, self.divergence, self.normalize = weight, divergence, normalize
        self._method: tuple[Charging, ...] = ()  # in a tuple: it is not a part of this

    def of(self, method: Charging) -> None:
        """Charge as `method` does at every call, with what add-ons have made of its divergence."""
        self._method = (method,)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        if views.perturbed is None or pseudo is None:
            raise UsageError("FeaturePerturbation needs the perturbed output: ViewSpec(feature_dropout=0.5).")
        divergence = self._method[0].divergence if self._method else self.divergence
        charge = divergence(views.perturbed.logits, pseudo.target)
        return self.weight * weighted_mean(charge, pseudo.weight, over=pseudo.valid, normalize=self.normalize)


def checked_rate(owner: str, rate: float) -> float:
    if not 0.0 <= rate < 1.0:
        raise UsageError(f"{owner}(feature_dropout={rate}): expected a share of the channels, 0 or more and below 1.")
    return rate
