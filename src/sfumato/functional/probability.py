"""Probabilities and their uncertainty. N samples, C classes on axis 1, *S space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.types import Sparse, Target


def full_precision(x: Tensor) -> Tensor:
    """`x` in float32 when it is half or bfloat16, as it is otherwise: statistics never run in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def probability(logits: Tensor) -> Tensor:
    """Softmax over the classes, (N, C, *S) -> (N, C, *S), at least float32 also under autocast."""
    return torch.softmax(full_precision(logits), dim=1)


def log_probability(logits: Tensor) -> Tensor:
    """Log-softmax over the classes, (N, C, *S) -> (N, C, *S), at least float32."""
    return torch.log_softmax(full_precision(logits), dim=1)


def safe_log(p: Tensor) -> Tensor:
    """log p with p no smaller than the least normal number: finite for p = 0."""
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def confidence(p: Tensor) -> tuple[Tensor, Tensor]:
    """The largest probability and its class, each (N, *S)."""
    values, labels = p.max(dim=1)
    return values, labels


def entropy(p: Tensor) -> Tensor:
    """-sum p log p over the classes, in nats, (N, C, *S) -> (N, *S); 0 log 0 = 0."""
    h: Tensor = torch.special.entr(p).sum(dim=1)
    return h


def normalized_entropy(p: Tensor) -> Tensor:
    """Entropy over log C: 0 for a sure prediction, 1 for a uniform one, (N, C, *S) -> (N, *S)."""
    return entropy(p) / math.log(p.shape[1])


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, *S) int64 -> (N, C, *S), without asking the device for the largest label."""
    hot = torch.zeros((labels.shape[0], num_classes, *labels.shape[1:]), dtype=dtype, device=labels.device)
    return hot.scatter_(1, labels.unsqueeze(1), 1.0)


def class_sums(p: Tensor, valid: Tensor) -> Tensor:
    """Sum of p over samples and space where `valid`, (N, C, *S), (N, *S) -> (C,)."""
    return (p * valid.unsqueeze(1)).transpose(0, 1).flatten(1).sum(dim=1)


def class_counts(labels: Tensor, num_classes: int, weight: Tensor) -> Tensor:
    """Weighted count of each class, (N, *S), (N, *S) -> (C,)."""
    counts = torch.zeros(num_classes, dtype=weight.dtype, device=weight.device)
    return counts.scatter_add_(0, labels.flatten(), weight.flatten())


def most_probable(target: Target) -> Tensor:
    """The class of a target of any form, (N, *S) int64."""
    if isinstance(target, Sparse):
        return target.labels[:, 0]
    return target.argmax(dim=1) if target.is_floating_point() else target
