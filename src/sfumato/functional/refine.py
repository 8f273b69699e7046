"""Corrections of teacher probabilities before they are weighed, (N, C, *S) -> (N, C, *S), and their largest few."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.one_pass import largest
from sfumato.functional.probability import safe_log
from sfumato.types import Sparse


def per_class(values: Tensor, like: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...) to stand beside `like` (N, C, *S)."""
    return values.to(like.dtype).reshape(1, -1, *(1,) * (like.dim() - 2))


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """p^(1/T) renormalised, which is softmax(z / T) when p = softmax(z).

    T < 1 sharpens, T > 1 softens, T = 1 changes nothing. Works on probabilities, so it also acts after alignment
    (UDA; MixMatch eq. 7). Computed in log space: no underflow for small T.
    """
    return torch.softmax(safe_log(p) / temperature, dim=1)


def smooth(p: Tensor, smoothing: float) -> Tensor:
    """(1 - s) p + s (1 - p) / (C - 1): of a one-hot label, 1 - s on the label and s / (C - 1) on each other class."""
    return (1 - smoothing) * p + smoothing / (p.shape[1] - 1) * (1 - p)


def align(p: Tensor, target: Tensor, model: Tensor, eps: float = 1e-6) -> Tensor:
    """p_c (target_c + eps) / (model_c + eps), renormalised per sample (ReMixMatch, distribution alignment).

    `target`, `model`: class priors, (C,). A class the model never predicts is raised by at most 1 / eps: finite.
    """
    aligned = p * per_class((target + eps) / (model + eps), p)
    return aligned / aligned.sum(dim=1, keepdim=True)


def top_k(p: Tensor, k: int) -> Sparse:
    """The k largest probabilities, renormalized, the largest first (FARCLUSS, eq. 2-3); all C when there are fewer."""
    k = min(k, p.shape[1])
    share, labels = p.topk(k, dim=1) if p.dim() == 2 else largest(p, k)
    return Sparse(labels, share / share.sum(dim=1, keepdim=True))
