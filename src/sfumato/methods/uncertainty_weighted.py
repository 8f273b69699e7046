"""Uncertainty-weighted SSL: a moving entropy mask, a bell of the entropy, and a Bhattacharyya term.

With p the weak and q the strong prediction, and e the normalised entropy of p:

    m = 1[e <= mean + k_t std], running mean and std                the mask follows the entropies (eq. 6)
    w = 4 e (1 - e)                                                 the bell (eq. 7)
    g = 1[max p >= tau],  t = p^(1/T)                               gate and sharpened target (eq. 2, 3)
    L_u = mean(m w (g CE(t, q) + D(p, q)))                          D: Bhattacharyya distance (eq. 4, 8)

The defaults are the paper as it can best be read. Its bell fades exactly as pseudo-labels become right (at most 0.46
past the gate with 10 classes), so `weight="one"`, offered as `uncertainty_weighted_flat`, learns faster when there are
labels enough; with very few it can collapse, and the bell is the insurance. The documentation shows both, measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, cast, get_args

from torch import Tensor

from sfumato.errors import UsageError, check_choice
from sfumato.functional.divergence import bhattacharyya_between
from sfumato.functional.reduce import mean
from sfumato.functional.weigh import above
from sfumato.methods.both_views import BothViews
from sfumato.methods.consistency import Consistency
from sfumato.methods.gated_divergence import Distance, GatedDivergence
from sfumato.rules import (
    All,
    Bell,
    DistributionAlignment,
    EntropyGate,
    Extra,
    Hard,
    MeanNormalized,
    OneMinusEntropy,
    OneSidedBell,
    Ramp,
    Sharpened,
    Soft,
    Weigher,
)
from sfumato.rules.base import pseudo_labeled
from sfumato.rules.threshold import checked_threshold
from sfumato.types import Batch, Networks, Output, Pseudo, Views, ViewSpec

Gate = Literal["ce", "none", "both"]
Weight = Literal["bell", "one", "one_minus_e", "normalised_bell", "one_sided_bell"]
Make = Callable[[], Weigher]
WEIGHERS: dict[str, Make] = {"bell": Bell, "one": All, "one_minus_e": OneMinusEntropy, "one_sided_bell": OneSidedBell}


class WeakPull(Extra):
    """The gradient of D by the weak view, for `detach_weak=False`; its value is 0, since eq. 8 holds D already."""

    name = "weak_pull"

    def __init__(self, charge: GatedDivergence, *, lambda_u: float) -> None:
        super().__init__()
        self.charge, self.lambda_u = charge, lambda_u

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        (u, pseudo), weak = pseudo_labeled(batch, pseudo, "WeakPull"), cast(Output, views.weak)
        aimed = u.warps[0](Pseudo(weak.logits, pseudo.weight, pseudo.valid))
        distance = bhattacharyya_between(cast(Tensor, aimed.target), views.strong[0].logits.detach())
        charge = above(cast(Tensor, u.warps[0](pseudo).target), self.charge.gates[1]) * aimed.weight * distance
        pull = self.lambda_u * mean(charge, over=aimed.valid)
        return pull - pull.detach()


def uncertainty_weighted(
    num_classes: int,
    *,
    gate: Gate = "ce",
    weight: Weight = "bell",
    target: Literal["soft", "hard"] = "soft",
    divergence: Distance = "bhattacharyya",
    detach_weak: bool = True,
    threshold: float = 0.95,
    temperature: float = 0.5,
    k: tuple[float, float] = (1.0, 2.0),
    entropy_range: tuple[float, float] = (0.2, 0.95),
    momentum: float = 0.999,
    align: Literal["none", "uniform", "labeled", "model"] = "none",
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        num_classes: C.
        gate: what tau gates: the cross-entropy, nothing, or the distance too.
        weight: w; "normalised_bell" divides m w by its moving mean, at most 10.
        target: t, sharpened or the label.
        divergence: D.
        detach_weak: False lets D pull the weak view too; for the Bhattacharyya distance without alignment only, and
            without add-ons that correct predictions or change what they are charged.
        threshold: tau.
        temperature: T.
        k: k_t at the start and the end of training, linear between.
        entropy_range: limits of the mask's threshold.
        momentum: of the running statistics.
        align: distribution alignment of p before all else, to this target.
        lambda_u: weight of L_u.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown name, or `detach_weak=False` where there is no such gradient.
    """
    for key, value, allowed in (("gate", gate, Gate), ("weight", weight, Weight), ("divergence", divergence, Distance)):
        check_choice("uncertainty_weighted", key, value, get_args(allowed))
    if not detach_weak and (divergence != "bhattacharyya" or align != "none"):
        raise UsageError("uncertainty_weighted(detach_weak=False) needs divergence='bhattacharyya' and align='none'.")
    tau = checked_threshold("uncertainty_weighted", threshold)
    gates = (0.0 if gate == "none" else tau, tau if gate == "both" else 0.0)
    mask = EntropyGate(k=Ramp(*k), entropy_range=entropy_range, momentum=momentum)
    weigh = mask * WEIGHERS[weight.removeprefix("normalised_")]()
    targeter = Hard() if target == "hard" else Sharpened(temperature)
    charge = GatedDivergence(targeter, divergence=divergence, gates=gates)
    return (Consistency if detach_weak else BothViews)(
        refine=None if align == "none" else DistributionAlignment(num_classes, target=align, momentum=momentum),
        weigh=MeanNormalized(weigh, momentum=momentum) if weight == "normalised_bell" else weigh,
        target=Soft(),
        divergence=charge,
        lambda_u=lambda_u,
        views=ViewSpec(weak_gradient=not detach_weak, labeled_strong=labeled_strong),
        extra=None if detach_weak else WeakPull(charge, lambda_u=lambda_u),
    )


uncertainty_weighted_flat = partial(uncertainty_weighted, weight="one")
