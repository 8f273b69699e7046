"""CoMatch's graphs: which samples of a batch are alike by their pseudo-labels, and by their features."""

from __future__ import annotations

import torch
from torch import Tensor


def label_graph(p: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """How alike two pseudo-labels are, (N, N), each row of valid samples sums to 1 (CoMatch, eq. 6).

    p_i . p_j where that reaches the threshold and 0 elsewhere, 1 on the diagonal. p: (N, C); valid: (N,) of 0 and 1,
    without which neither a row nor a column has an entry.
    """
    with torch.autocast(p.device.type, enabled=False):  # a product of matrices would be rounded
        alike = p @ p.T
    alike = alike.masked_fill(alike < threshold, 0.0)
    alike = torch.where(torch.eye(len(p), dtype=torch.bool, device=p.device), 1.0, alike)
    alike = alike * (valid.unsqueeze(0) * valid.unsqueeze(1)).to(p.dtype)
    return alike / alike.sum(dim=1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)


def graph_contrast(first: Tensor, second: Tensor, graph: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """-sum_j W_ij log softmax_j(cos / T) of the features of two views, (N,) (CoMatch, eq. 7-9).

    first, second: (N, D) of length 1, both with gradient; graph: W (N, N), without; valid: (N,), columns that count.
    """
    with torch.autocast(first.device.type, enabled=False):
        scores = first @ second.T / temperature
    # The least number instead of minus infinity: its softmax is 0 beside any other, and defined beside none.
    log_q = torch.log_softmax(scores.masked_fill(valid.unsqueeze(0) == 0, torch.finfo(scores.dtype).min), dim=1)
    return -(graph * log_q.masked_fill(graph == 0, 0.0)).sum(dim=1)
