"""What the neighbors of a sample among remembered ones say of it.

Features (N, D) and (K, D) of length 1. A remembered row counts where `filled` (K,) is true and nowhere else; all
similarities are in log space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import safe_log


def log_similarity(features: Tensor, memory: Tensor, filled: Tensor, temperature: float) -> Tensor:
    """log softmax over the filled rows of cos / T, (N, K); the same for all rows where none is filled."""
    with torch.autocast(features.device.type, enabled=False):  # a product of matrices would be rounded
        scores = features @ memory.to(features.dtype).T / temperature
    # The least number instead of minus infinity: its softmax is 0 beside any other, and defined beside none.
    return torch.log_softmax(scores.masked_fill(~filled, torch.finfo(scores.dtype).min), dim=1)


def blended(p: Tensor, found: Tensor, filled: Tensor, alpha: float) -> Tensor:
    """alpha p + (1 - alpha) found, distributions (N, C), and p alone where no row is filled."""
    return torch.where(filled.any(), alpha * p + (1 - alpha) * found, p)


def recalled(log_a: Tensor, p_memory: Tensor) -> Tensor:
    """The mean prediction of the neighbors, (N, K) and (K, C) -> (N, C) (CoMatch, eq. 4)."""
    with torch.autocast(log_a.device.type, enabled=False):
        return log_a.exp() @ p_memory.to(log_a.dtype)


def aggregated(log_a: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """The share of the neighbors that have each class, (N, K) and labels (K,) -> (N, C) (SimMatch, eq. 9)."""
    return log_a.new_zeros((num_classes, len(log_a))).index_add(0, label, log_a.exp().T).T


def unfolded(log_a: Tensor, p: Tensor, label: Tensor, filled: Tensor) -> Tensor:
    """a_k p_label(k), renormalized over the filled rows, (N, K) (SimMatch, eq. 8)."""
    return torch.softmax((log_a + safe_log(p)[:, label]).masked_fill(~filled, torch.finfo(log_a.dtype).min), dim=1)


def similarity_cross_entropy(log_q: Tensor, a: Tensor) -> Tensor:
    """-sum_k a_k log q_k of two distributions over rows, each (N, K) -> (N,); rows without a share count nothing."""
    return -(a * log_q.masked_fill(a == 0, 0.0)).sum(dim=1)
