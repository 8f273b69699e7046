"""CR-Match's second loss: the views are to differ in their features while they agree in their class."""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.errors import UsageError, check_choice
from sfumato.functional.probability import full_precision
from sfumato.functional.reduce import weighted_mean
from sfumato.rules.base import Extra, attached, features_of, pseudo_labeled
from sfumato.types import Batch, Networks, Output, Pseudo, Views


class FeatureDistance(Extra):
    """lambda mean(w max(0, cos(g_weak, g_strong))), g a linear map of the features (CR-Match, eq. 3, equivariance).

    Over the pseudo-labels with their weights w: whose class is not sure is not driven apart.

    Args:
        weight: lambda.
        dim: values of g.
        gradient: through the features of "both" views, as printed, where the method's views have `weak_gradient`, or
            of the "strong" one alone.

    Raises:
        UsageError: an unknown name, or a map to nothing.
    """

    name = "feature_distance"

    def __init__(self, *, weight: float = 1.0, dim: int = 128, gradient: Literal["both", "strong"] = "both") -> None:
        super().__init__()
        check_choice("FeatureDistance", "gradient", gradient, ("both", "strong"))
        if dim < 1:
            raise UsageError(f"FeatureDistance(dim={dim}): expected at least 1.")
        self.weight, self.dim, self.both = weight, dim, gradient == "both"
        self.map: nn.Linear | None = None

    def attach(self, net: nn.Module) -> None:
        self.map = nn.Linear(cast(int, net.num_features), self.dim)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        u, pseudo = pseudo_labeled(batch, pseudo, "FeatureDistance")
        strong, weak = self._mapped(views.strong[0], u.valid), self._mapped(cast(Output, views.weak), u.valid)
        cosine = F.cosine_similarity(strong, weak if self.both else weak.detach(), dim=1)
        return self.weight * weighted_mean(cosine.clamp_min(0), pseudo.weight, over=pseudo.valid)

    def _mapped(self, view: Output, valid: Tensor) -> Tensor:
        g: Tensor = attached(self.map, "FeatureDistance")(features_of(view, valid, "FeatureDistance"))
        return full_precision(g)
