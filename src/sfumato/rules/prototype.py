"""FARCLUSS's second loss: features draw near to the mean feature of their pseudo-class."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from sfumato.distributed import sum_over_ranks, sum_with_gradient, world_size
from sfumato.errors import UsageError, check_choice
from sfumato.functional.grid import as_rows, nearest
from sfumato.functional.probability import full_precision, most_probable
from sfumato.functional.prototypes import attraction, class_means, contrast, feature_sums, mean_over_classes, unit
from sfumato.rules.base import Extra, Weigher, attached, features_of, pseudo_labeled
from sfumato.rules.weigh import OneMinusEntropy
from sfumato.running.representation import Projection
from sfumato.types import Batch, Context, Networks, Pseudo, Views


class PrototypeAttraction(Extra):
    """lambda mean_c mean_{i in P_c} (1 - cos(f_i, prototype_c)) over the classes present (FARCLUSS, eq. 9-10).

    P_c: the samples or pixels of the strong views, of all ranks, whose pseudo-label is c and whose certainty is above
    `threshold`. Prototypes are their mean features f. These are the network's own or, as in the paper, a projection of
    them that is trained here and that evaluation has no use for; at the resolution at which the network gives features,
    with labels taken from the nearest pixel.

    Args:
        num_classes: C.
        weight: lambda.
        threshold: of the certainty 1 - e, e the normalised entropy.
        proto_grad: "detached" keeps the prototypes as constants; "literal" lets the gradient through them, as printed.
        proto_repulsion: "infonce" drives features from the prototypes of other classes too. Attraction alone has its
            minimum where all features are equal.
        projection: values of f, 128 in the paper; None takes the network's own features. The projection has two layers
            on each place, the same as in U2PL.

    Raises:
        UsageError: an unknown name, a repulsion with gradient through the prototypes, a projection to nothing or one
            without `attach` before training, or a network that gives no features, or no map of them where labels are
            maps.
    """

    name = "prototypes"

    def __init__(
        self,
        num_classes: int,
        *,
        weight: float = 0.1,
        threshold: float = 0.5,
        proto_grad: Literal["detached", "literal"] = "detached",
        proto_repulsion: Literal["off", "infonce"] = "off",
        projection: int | None = None,
    ) -> None:
        super().__init__()
        check_choice("PrototypeAttraction", "proto_grad", proto_grad, ("detached", "literal"))
        check_choice("PrototypeAttraction", "proto_repulsion", proto_repulsion, ("off", "infonce"))
        if proto_grad == "literal" and proto_repulsion == "infonce":
            raise UsageError("PrototypeAttraction(proto_repulsion='infonce') needs proto_grad='detached'.")
        if projection is not None and projection < 1:
            raise UsageError(f"PrototypeAttraction(projection={projection}): expected at least 1, or None.")
        self.num_classes, self.weight, self.threshold = num_classes, weight, threshold
        self.literal, self.repels = proto_grad == "literal", proto_repulsion == "infonce"
        self.dim = projection
        self.projection: Projection | None = None
        self.certainty: Weigher = OneMinusEntropy()
        self.selected: Tensor | None = None  # (N, *S) of the batch observed last; no memory

    def attach(self, net: nn.Module) -> None:
        if self.dim is not None:
            self.projection = Projection(cast(int, net.num_features), self.dim)

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.selected = (self.certainty(p) > self.threshold).to(p.dtype)

    def forward(self, views: Views, batch: Batch, pseudo: Pseudo | None, nets: Networks) -> Tensor:
        assert self.selected is not None, "observe comes first"
        u, pseudo = pseudo_labeled(batch, pseudo, "PrototypeAttraction")
        chosen = Pseudo(most_probable(pseudo.target), self.selected, pseudo.valid)
        features, labels, selected = [], [], []
        for strong, warp in zip(views.strong, u.warps, strict=True):
            warped = warp(chosen)
            f = full_precision(features_of(strong, pseudo.valid, "PrototypeAttraction"))
            features.append(as_rows(f))
            labels.append(nearest(most_probable(warped.target), f.shape[2:]).flatten())
            selected.append(nearest((warped.weight * warped.valid > 0).to(f.dtype), f.shape[2:]).flatten())
        rows = torch.cat(features)
        if self.dim is not None:
            rows = attached(self.projection, "PrototypeAttraction")(rows)
        return self.weight * self._loss(rows, torch.cat(labels), torch.cat(selected))

    def _loss(self, features: Tensor, labels: Tensor, selected: Tensor) -> Tensor:
        sums, counts = feature_sums(features, labels, selected, self.num_classes)
        counts = sum_over_ranks(counts)
        prototypes = class_means(sum_with_gradient(sums) if self.literal else sum_over_ranks(sums.detach()), counts)
        if self.repels:
            charges = contrast(features, labels, prototypes, counts > 0)
            # Gradients are averaged over ranks, while the counts are of all of them.
            return world_size() * mean_over_classes(charges, labels, selected, counts)
        units, _ = feature_sums(unit(features), labels, selected, self.num_classes)
        return attraction(class_means(sum_with_gradient(units), counts), prototypes, counts > 0)
