"""Which class's mean feature a sample resembles, and how much a pseudo-label heeds it (DASO).

DASO (Oh et al. 2022, arXiv:2106.05682), section 3. N samples, C classes, D values of a feature. The answer by
resemblance leans to rare classes, the classifier's to frequent ones; of a sample whose pseudo-label is of a frequent
class the first counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.prototypes import unit


def resemblance(features: Tensor, prototypes: Tensor, temperature: float = 0.05) -> Tensor:
    """Logits cos(f, prototype) / T (N, C); of a prototype of length 0, a class not met yet, they are 0.

    features: (N, D), with gradient to them; prototypes: (C, D).
    """
    with torch.autocast(features.device.type, enabled=False):  # a product of matrices would be rounded
        return unit(features.to(prototypes.dtype)) @ unit(prototypes).T / temperature


def heed(counts: Tensor, temperature: float = 1.5) -> Tensor:
    """How much of the pseudo-labels of each class resemblance decides, (C,) -> (C,): share^(1/T) over the largest.

    1 for the class predicted most often; the higher T, the more for the others too. 0 for all while nothing is counted.
    """
    powered = counts ** (1 / temperature)
    return powered / torch.where(counts.sum() > 0, powered.max(), 1.0)


def blend(p: Tensor, similar: Tensor, share: Tensor) -> Tensor:
    """(1 - v) p + v similar with v of the most probable class of p; (N, C), (N, C), (C,) -> (N, C)."""
    v = share.to(p.dtype)[p.argmax(dim=1)].unsqueeze(1)
    return torch.lerp(p, similar.to(p.dtype), v)
