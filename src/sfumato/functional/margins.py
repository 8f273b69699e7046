"""Margins of logits, by which training dynamics tell easy samples from hard ones. (N, C, *S), C at least 2."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import full_precision


def margins(logits: Tensor) -> Tensor:
    """z_c - max_{j != c} z_j of every class, (N, C, *S) -> (N, C, *S), at least float32: positive for the winner only.

    MarginMatch (Sosea and Caragea 2023), pseudo-margin. The two largest logits give all C of them: each class loses to
    the winner, the winner leads the runner-up. The authors' code takes 0 for a runner-up below 0; this does not.
    Logits and their log-softmax have the same margins.
    """
    z = full_precision(logits)
    top, labels = z.topk(2, dim=1)
    lead = top[:, :1] - top[:, 1:]
    return (z - top[:, :1]).scatter_(1, labels[:, :1], lead)


def margin_of(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin of one class, z_y - max_{j != y} z_j, (N, C, *S), (N, *S) int64 -> (N, *S).

    Its mean over the visits of a labeled sample is the AUM (Pleiss et al. 2020, eq. 2): low where the label contradicts
    what the other samples teach.
    """
    z = full_precision(logits)
    top, order = z.topk(2, dim=1)
    rival = torch.where(order[:, 0] == labels, top[:, 1], top[:, 0])
    return z.gather(1, labels.unsqueeze(1)).squeeze(1) - rival


def hard_half(score: Tensor, valid: Tensor) -> Tensor:
    """True for the floor(V / 2) lowest scores of the V valid ones, (N,), (N,) -> (N,) bool; all others are easy.

    CalibrateMix splits a batch at the median of its average margins; by rank, both halves keep their size where scores
    are equal, and the earlier of two equal ones is the harder.
    """
    order = score.masked_fill(valid == 0, torch.inf).argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return rank < (valid != 0).sum() // 2
