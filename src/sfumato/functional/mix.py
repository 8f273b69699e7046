"""Mixed images and what they are to be called: shares, partners, and the loss of a label that is two.

M images to mix, N to choose a partner among. All chance comes from uniform numbers that are given.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional as F

from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import full_precision, one_hot

_NODES = 4096


@lru_cache(maxsize=16)
def _beta_table(alpha: float, beta: float, device: torch.device) -> Tensor:
    """Quantiles at u = sin^2(pi t / 2) for evenly spaced t: dense at both ends, where they bend."""
    t = np.linspace(0, 1, _NODES + 1)
    return torch.as_tensor(betaincinv(alpha, beta, np.sin(np.pi * t / 2) ** 2)).to(device)


def beta_quantile(uniform: Tensor, alpha: float, beta: float | None = None) -> Tensor:
    """Numbers distributed as Beta(alpha, beta), by default Beta(alpha, alpha), from uniform ones in [0, 1).

    The inverse of the distribution function, linear between 4096 places of a table, and within 1e-5 of it for the
    parameters that mixup knows (0.1 to 2): one number each, so no rejection, loop or wait for the device.
    """
    table = _beta_table(alpha, alpha if beta is None else beta, uniform.device)
    place = uniform.double().sqrt().asin() * (2 / torch.pi * _NODES)  # in float32 all above 0.9999 would be 1
    low = place.long().clamp(0, _NODES - 1)
    return torch.lerp(table[low], table[low + 1], place - low).to(uniform.dtype)


def mixed(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """share a + (1 - share) b, (M, ...), (M, ...), (M,) -> (M, ...): images, or distributions (mixup)."""
    weight = share.to(a.dtype).reshape(-1, *(1,) * (a.dim() - 1))
    return weight * a + (1 - weight) * b


def mixed_cross_entropy(logits: Tensor, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy of share on label a and the rest on label b, (M, C), (M,), (M,), (M,) -> (M,)."""
    return share * cross_entropy(logits, a) + (1 - share) * cross_entropy(logits, b)


def mixed_binary_cross_entropy(logits: Tensor, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """The same with a yes or no for every class, the mean over the C classes: about C times smaller.

    What the released code of CalibrateMix computes, where its text has the cross-entropy.
    """
    z = full_precision(logits)
    target = mixed(one_hot(a, z.shape[1], z.dtype), one_hot(b, z.shape[1], z.dtype), share)
    return F.binary_cross_entropy_with_logits(z, target, reduction="none").mean(dim=1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every row of a (M, ...) with every row of b (N, ...), (M, N), at least float32; 0 for rows of 0."""
    with torch.autocast(a.device.type, enabled=False):  # a product of matrices would be rounded
        rows = (F.normalize(full_precision(x).flatten(1), dim=1) for x in (a, b))
        left, right = rows
        return left @ right.T


def pool_size(allowed: Tensor, *, percent: float = 5.0, count: int | None = None) -> Tensor:
    """k of each row of `allowed` (M, N) bool: ceil(percent / 100 of its true entries), or `count` of them; (M,) int64.

    At least 1 and at most all; 0 in a row without any.
    """
    size = allowed.sum(dim=1)
    wanted = torch.ceil(size.double() * percent / 100).long() if count is None else torch.full_like(size, count)
    return torch.minimum(wanted.clamp_min(1), size)


def least_similar(similarity: Tensor, allowed: Tensor, most: int) -> Tensor:
    """Places of the `most` least similar entries of each row where `allowed`, the least similar first.

    (M, N), (M, N) bool -> (M, most) int64. Where a row allows fewer, what follows those is to be left alone.
    """
    return similarity.masked_fill(~allowed, torch.inf).topk(most, dim=1, largest=False).indices


def picked(order: Tensor, size: Tensor, uniform: Tensor) -> Tensor:
    """One of the first `size` entries of each row, (M, K), (M,), (M,) -> (M,); the first of all where `size` is 0."""
    place = (uniform.double() * size).long()  # below size: a float32 product may round up to it
    return order.gather(1, place.unsqueeze(1)).squeeze(1)
