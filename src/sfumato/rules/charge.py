"""Charges with a class prior in them: logits adjusted by it, errors weighed by it."""

from __future__ import annotations

from abc import ABC
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from sfumato.functional.adjust import adjusted, prior_offset, tilted_target
from sfumato.functional.divergence import Divergence
from sfumato.functional.rebalance import effective_number_weights, expected_weight
from sfumato.rules.base import Charge, shifted
from sfumato.rules.prior import Borrowed, Prior
from sfumato.types import Context, Target


@runtime_checkable
class Moving(Protocol):
    """A charge that makes something of a target first, and can move what it has made."""

    def moved(self, logits: Tensor, target: Target, offset: Tensor) -> Tensor:
        """The charge for the logits, (N, *S), with targets that are distributions moved by the offset (C,)."""


def moved(base: Divergence | Moving, logits: Tensor, target: Target, offset: Tensor) -> Tensor:
    """base(logits, softmax(log t + offset)), (N, *S), past any gate, weight or sharpening of t that the base has."""
    if isinstance(base, Moving):
        return base.moved(logits, target, offset)
    return base(logits, tilted_target(target, offset))


class Around(Charge, ABC):
    """A charge that makes something of another one, `base`, which still observes if it is one with memory."""

    def __init__(self, base: Divergence) -> None:
        super().__init__()
        self.base = base

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        if isinstance(self.base, Charge):
            self.base.observe(p, valid, context)


class ByPrior(Around, ABC):
    """One that does so by a class prior.

    A prior that learns sees predictions as charges do, after any correction. For one that is to see them as made, or
    that serves several rules, give a `Borrowed` one, and let a `Watch` show it the predictions.
    """

    def __init__(self, base: Divergence, prior: Prior | Borrowed) -> None:
        super().__init__(base)
        self.prior = prior

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        super().observe(p, valid, context)
        if isinstance(self.prior, Prior):
            self.prior.observe(p, valid, context)


class Adjusted(ByPrior):
    """base(z + tau log prior, target): logit adjustment while training (Menon et al. 2021, eq. 10).

    What the loss wants is met once the prior and the logits together predict the target. The logits alone are then as
    if all classes were equally frequent: rare ones come out higher than without, and those of the network are used.

    A label, a soft one too, is of a sample as frequent as the prior says, and is met so. A prediction that the logits
    alone have made is not: the prior is missing in it, and a student that predicts the same would be sent on to the
    rarest class at every step. With `target_tau` distributions get it too; those on one class stay as they are.

    Args:
        base: the charge, (logits, target) -> (N, *S).
        prior: of the samples that are charged.
        tau: 1 is the formula that Bayes' rule gives.
        target_tau: for softmax(log target + target_tau log prior): 0 for labels, tau for predictions of the logits
            alone, and more by as much as a correction has taken out of these.
    """

    def __init__(self, base: Divergence, prior: Prior | Borrowed, *, tau: float = 1.0, target_tau: float = 0.0) -> None:
        super().__init__(base, prior)
        self.tau, self.target_tau = tau, target_tau

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        z = self._with_prior(logits)
        return moved(self.base, z, target, self._missing()) if self.target_tau else self.base(z, target)

    def moved(self, logits: Tensor, target: Target, offset: Tensor) -> Tensor:
        return moved(self.base, self._with_prior(logits), target, offset + self._missing())

    def _with_prior(self, logits: Tensor) -> Tensor:
        return adjusted(logits, prior_offset(self.prior.value, self.tau))

    def _missing(self) -> Tensor:
        return prior_offset(self.prior.value, self.target_tau)


class AdjustedAfterwards(ByPrior):
    """The charge as it is; the network evaluated and kept gives z - tau log prior (Menon et al. 2021, eq. 9)."""

    def __init__(self, base: Divergence, prior: Prior | Borrowed, *, tau: float = 1.0) -> None:
        super().__init__(base, prior)
        self.tau = tau

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        return self.base(logits, target)

    def deployed(self, net: nn.Module) -> nn.Module:
        return shifted(net, -prior_offset(self.prior.value, self.tau))


class ClassWeighted(ByPrior):
    """base(z, target) times the weight of the target's class, for a distribution the mean weight under it.

    Weights by effective numbers, `functional.rebalance.effective_number_weights`, 1 in the mean over the classes. The
    charge stays unreduced and the target as it is, so that thresholds, bells and soft targets mean what they did.

    Args:
        base: the charge, (logits, target) -> (N, *S).
        prior: shares of the classes among the samples that are charged.
        total: how many samples these are; a share of less than one of them counts as one.
    """

    def __init__(self, base: Divergence, prior: Prior | Borrowed, total: int) -> None:
        super().__init__(base, prior)
        self.total = total

    @property
    def weights(self) -> Tensor:
        """Of each class, (C,)."""
        return effective_number_weights(self.prior.value * self.total)

    def forward(self, logits: Tensor, target: Target) -> Tensor:
        return self._weighed(self.base(logits, target), target)

    def moved(self, logits: Tensor, target: Target, offset: Tensor) -> Tensor:
        return self._weighed(moved(self.base, logits, target, offset), target)

    def _weighed(self, charge: Tensor, target: Target) -> Tensor:
        return charge * expected_weight(self.weights, target).to(charge.dtype)
