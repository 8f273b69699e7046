"""A further loss that needs no pseudo-label: by how many quarters is this image turned?"""

from __future__ import annotations

from typing import Literal, cast

from torch import Tensor, nn

from sfumato.errors import check_choice
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.reduce import mean
from sfumato.functional.rotate import QUARTERS, quarters, turned
from sfumato.rules.base import Extra, attached, features_of, pseudo_labeled
from sfumato.types import Batch, Networks, Pseudo, Views


class Rotation(Extra):
    """lambda mean(CE(head(features of a turned image), its quarters)) (RotNet, Gidaris et al. 2018, arXiv:1803.07728).

    Each unlabelled image is turned by one of four angles, drawn for it, and goes through in a forward of its own: as
    many images more as there are unlabelled ones. They move no running statistics of batch norm, since the network that
    is kept sees images upright. The head is a linear layer on the features, trained here. For one class per image.

    Args:
        weight: lambda.
        view: which view of the images, the weak one or the first strong one.
    """

    name = "rotation"

    def __init__(self, *, weight: float = 1.0, view: Literal["weak", "strong"] = "weak") -> None:
        super().__init__()
        check_choice("Rotation", "view", view, ("weak", "strong"))
        self.weight, self.view = weight, view
        self.head: nn.Linear | None = None

    def attach(self, net: nn.Module) -> None:
        self.head = nn.Linear(cast(int, net.num_features), QUARTERS)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        u, _ = pseudo_labeled(batch, pseudo, "Rotation")
        by = quarters(u.draw("rotation", 1)[:, 0])
        out = nets.further(turned(u.weak if self.view == "weak" else u.strong[0], by), statistics=False)
        logits = attached(self.head, "Rotation")(features_of(out, u.valid, "Rotation"))
        return self.weight * mean(cross_entropy(logits, by), over=u.valid)
