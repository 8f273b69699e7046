"""Thresholds that let in the same share of each class's predictions, from histograms of confidences."""

from __future__ import annotations

import torch
from torch import Tensor


def confidence_edges(threshold: float, bins: int) -> Tensor:
    """Edges of bins between 0 and 1, (bins + 1,): half of the bins are below `threshold`, which is an edge."""
    below, above = torch.linspace(0, threshold, bins // 2 + 1), torch.linspace(threshold, 1, bins - bins // 2 + 1)
    return torch.cat([below[:-1], above])


def equal_share_thresholds(mass: Tensor, edges: Tensor, head: Tensor, threshold: float) -> Tensor:
    """For each class the confidence that its surest predictions reach, in the share in which the head's reach theirs.

    Adsh (Guo and Li 2022): with rho the share of the predictions of the head class whose confidence is at
    least `threshold`, the threshold of class c is the confidence of its (rho n_c)-th surest prediction, of the first
    where that is less than one. Here it is the lower edge of the bin of that prediction.

    A class without predictions keeps `threshold`; so do all when rho is 0: nothing says then how far to go down.

    Args:
        mass: (C, B) how many predictions of each class are in each bin.
        edges: (B + 1,) of the bins; `threshold` is one of them.
        head: () the most frequent class.
        threshold: of the head class.
    """
    reaching = mass.flip(1).cumsum(1).flip(1)  # the lower edge of each bin
    count = reaching[:, 0]
    place = (edges[:-1] < threshold - 1e-6).sum()
    of_head = reaching.index_select(0, head.reshape(1))[0]  # plain indexing would wait for the device
    rho = of_head.index_select(0, place.reshape(1)) / of_head[:1].clamp_min(torch.finfo(mass.dtype).tiny)
    # Sums in another order differ in the last digits, and rho n_c is often a sum of whole bins.
    enough = reaching >= (rho * count).unsqueeze(1) * (1 - 1e-5)
    found = edges[enough.sum(dim=1) - 1]
    kept = (count == 0) | (rho == 0) | (torch.arange(len(mass), device=mass.device) == head)
    return torch.where(kept, threshold, found)
