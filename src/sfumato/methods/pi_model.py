"""The Pi-model (Laine and Aila 2017, arXiv:1610.02242): two weak views of an image are to be predicted alike.

    L = L_x + lambda_u r(k) mean |q2 - q1|^2 / C        q1, q2: probabilities of the two views

r(k) = exp(-5 (1 - k / ramp)^2) over the first `ramp` of training, then 1. The paper's ramp are its first 80 of 300
epochs, and its largest weight is 100 times the share of images that have labels.

In the paper the gradient flows through both predictions, `gradient="both"`. With the default it flows through q2 alone,
and the forward of q1 keeps nothing for it: as both views are drawn alike, the expected gradient is half of the other.

On maps both views have the same geometry and colors, and differ by CutMix boxes where the preset has them: the first
prediction is then mixed as the second image is. Without these and without dropout there is nothing to learn from.
"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor

from sfumato.errors import check_choice
from sfumato.functional.divergence import mse
from sfumato.functional.probability import probability
from sfumato.functional.reduce import mean
from sfumato.methods.both_views import BothViews
from sfumato.methods.consistency import Consistency
from sfumato.rules import All, Extra, Schedule, Soft
from sfumato.rules.base import pseudo_labeled
from sfumato.rules.schedule import Rise, rising
from sfumato.types import Batch, Context, Networks, Output, Pseudo, Views, ViewSpec


class OtherBranch(Extra):
    """The gradient of the loss by the first view's prediction, for `gradient="both"`; its value is 0, since the loss
    counts the distance already.
    """

    name = "other_branch"

    def __init__(self, lambda_u: Schedule) -> None:
        super().__init__()
        self.lambda_u = lambda_u
        self.weight = 0.0  # of this step; not memory

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.weight = self.lambda_u(context.progress)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        (u, pseudo), weak = pseudo_labeled(batch, pseudo, "OtherBranch"), cast(Output, views.weak)
        first = u.warps[0](Pseudo(probability(weak.logits), pseudo.weight, pseudo.valid))
        second = probability(views.strong[0].logits.detach())
        charge = first.weight * (cast(Tensor, first.target) - second).square().mean(dim=1)
        pull = self.weight * mean(charge, over=first.valid)
        return pull - pull.detach()


def pi_model(
    *,
    gradient: Literal["one", "both"] = "one",
    lambda_u: float = 10.0,
    rise: Rise = "exponential",
    ramp: float = 0.4,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        gradient: through the second prediction, or through both as in the paper; with both, no add-on may correct the
            predictions or change what they are charged.
        lambda_u: weight of the unlabelled loss, reached at the end of the ramp.
        rise: the ramp's form: "exponential" is the paper's, "linear" that of later implementations.
        ramp: share of training over which lambda_u rises; 0 for a constant one.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown name.
    """
    check_choice("pi_model", "gradient", gradient, ("one", "both"))
    weight, both = rising(rise, lambda_u, over=ramp), gradient == "both"
    return (BothViews if both else Consistency)(
        weigh=All(),
        target=Soft(),
        divergence=mse,
        lambda_u=weight,
        views=ViewSpec(further="weak", weak_gradient=both, labeled_strong=labeled_strong),
        extra=OtherBranch(weight) if both else None,
    )
