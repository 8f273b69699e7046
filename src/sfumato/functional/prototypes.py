"""The mean feature of each class, and how near to it the features of the class are.

Features (M, D): M samples or pixels of any number of images. Labels (M,) int64; selected (M,) 0 or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8  # a feature of length 0 has a cosine of 0 with everything


def feature_sums(features: Tensor, labels: Tensor, selected: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Of each class the sum of its selected features (C, D) and their number (C,). Both add up over ranks."""
    weight = selected.to(features.dtype)
    sums = features.new_zeros((num_classes, features.shape[1]))
    counts = weight.new_zeros(num_classes)
    return sums.index_add(0, labels, features * weight.unsqueeze(1)), counts.index_add(0, labels, weight)


def class_means(sums: Tensor, counts: Tensor) -> Tensor:
    """Prototypes (C, D): 0 for a class without a selected feature (FARCLUSS, eq. 9)."""
    return sums / counts.clamp_min(1).unsqueeze(1)


def unit(features: Tensor) -> Tensor:
    """Features of length 1, (M, D)."""
    return torch.nn.functional.normalize(features, dim=1, eps=EPS)


def attraction(unit_means: Tensor, prototypes: Tensor, present: Tensor) -> Tensor:
    """Mean over the classes present of the mean of 1 - cos(feature, prototype) over the class, () (FARCLUSS, eq. 10).

    A mean of cosines is the product of the mean unit feature (C, D) with the unit prototype, so sums over the features
    are all that it takes, and they may be sums over ranks. present: (C,) bool; 0 when no class is.
    """
    cosines = (unit_means * unit(prototypes)).sum(dim=1)
    return torch.where(present, 1 - cosines, 0.0).sum() / present.sum().clamp_min(1)


def contrast(features: Tensor, labels: Tensor, prototypes: Tensor, present: Tensor, temperature: float = 0.1) -> Tensor:
    """InfoNCE against the prototypes: -log softmax(cos / T) of the own class among those present, (M,).

    It draws to the own prototype and drives from all others. present: (C,) bool. 0 when only the own class is there.
    """
    with torch.autocast(features.device.type, enabled=False):  # a product of matrices would be rounded
        scores = unit(features) @ unit(prototypes).T / temperature
    # A feature that is not selected may be of an absent class; it must not be infinite while it counts for nothing.
    own = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, labels.unsqueeze(1), True)
    log_q = torch.log_softmax(scores.masked_fill(~(present | own), -torch.inf), dim=1)
    return -log_q.gather(1, labels.unsqueeze(1)).squeeze(1)


def mean_over_classes(charges: Tensor, labels: Tensor, selected: Tensor, counts: Tensor) -> Tensor:
    """The mean over the classes present of the mean charge of their selected features, ().

    counts: (C,) how many features of each class are selected. 0 with gradient 0 when there are none.
    """
    present = (counts > 0).sum().clamp_min(1)
    shares = selected.to(charges.dtype) / counts.to(charges.dtype).clamp_min(1)[labels]
    return (charges * shares).sum() / present
