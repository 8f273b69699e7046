"""How far pseudo-labels are to be adjusted, by which known tail the unlabeled set resembles (ACR). (C,) shares."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import safe_log


def anchors(shares: Tensor) -> Tensor:
    """Three class distributions (3, C): as the labels', even, and reversed, the rarest class with the largest share.

    Reversed by the rank of the classes, whatever their order.
    """
    ordered, order = shares.sort()
    reverse = torch.empty_like(shares).scatter_(0, order, ordered.flip(0))
    return torch.stack((shares, torch.full_like(shares, 1 / len(shares)), reverse))


def distance(first: Tensor, second: Tensor) -> Tensor:
    """(KL(a || b) + KL(b || a)) / 2 of distributions (..., C), (...)."""
    return ((first - second) * (safe_log(first) - safe_log(second))).sum(dim=-1) / 2


def adjustment(estimate: Tensor, shares: Tensor, strength: float = 2.0) -> Tensor:
    """strength * softmax(distances of the estimate to the anchors), its entry of the labels' own distribution, ().

    Near to 0 where the unlabeled set is as the labels, so that their prior is left in the predictions, and near to
    `strength` where it is the reverse.
    """
    return strength * torch.softmax(distance(estimate, anchors(shares)), dim=0)[0]
