"""What a prediction is charged for missing its target. Unreduced: (N, C, *S) logits -> (N, *S).

A floating target is a distribution over axis 1, an integer one a label, a `Sparse` one a distribution over K classes,
for which cross-entropy and KL need K planes only. The gradient reaches the logits only, save in
`bhattacharyya_between`, whose two sides are alike. Everything is computed from log-softmax, in float32 or better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.functional.probability import full_precision, log_probability, one_hot, safe_log
from sfumato.types import Sparse, Target

Divergence = Callable[[Tensor, Target], Tensor]


def _distribution(target: Target, logits: Tensor) -> Tensor:
    """The target as a distribution without gradient, at the precision of the computation."""
    dtype = full_precision(logits).dtype
    if isinstance(target, Sparse):
        dense = torch.zeros(logits.shape, dtype=dtype, device=logits.device)
        return dense.scatter_add_(1, target.labels, target.share.detach().to(dtype))
    if target.is_floating_point():
        return target.detach().to(dtype)
    return one_hot(target, logits.shape[1], dtype)


def _sparse_log_probability(logits: Tensor, target: Sparse) -> tuple[Tensor, Tensor]:
    """Shares and log-probabilities of the K classes, each (N, K, *S): no C planes are kept beside the logits."""
    z = full_precision(logits)
    return target.share.detach().to(z.dtype), z.gather(1, target.labels) - z.logsumexp(dim=1, keepdim=True)


def cross_entropy(logits: Tensor, target: Target) -> Tensor:
    """-sum_c t_c log q_c; not divided by C."""
    if isinstance(target, Sparse):
        share, log_q = _sparse_log_probability(logits, target)
        return -(share * log_q).sum(dim=1)
    if target.is_floating_point():
        return -(_distribution(target, logits) * log_probability(logits)).sum(dim=1)
    return F.cross_entropy(full_precision(logits), target, reduction="none")


def kl(logits: Tensor, target: Target) -> Tensor:
    """KL(t || q) = sum t (log t - log q), zero iff equal."""
    if isinstance(target, Sparse):
        share, log_q = _sparse_log_probability(logits, target)
        return (share * (safe_log(share) - log_q)).sum(dim=1)
    t = _distribution(target, logits)
    return (t * (safe_log(t) - log_probability(logits))).sum(dim=1)


def js(logits: Tensor, target: Target) -> Tensor:
    """Jensen-Shannon: the mean KL of both sides to their midpoint, between 0 and log 2."""
    t, log_q = _distribution(target, logits), log_probability(logits)
    log_t = safe_log(t)
    log_m = torch.logaddexp(log_t, log_q) - math.log(2)
    return ((t * (log_t - log_m)).sum(dim=1) + (log_q.exp() * (log_q - log_m)).sum(dim=1)) / 2


def mse(logits: Tensor, target: Target) -> Tensor:
    """Mean over the classes of (q - t)^2, as in Pi-model, Mean Teacher and MixMatch."""
    return (log_probability(logits).exp() - _distribution(target, logits)).square().mean(dim=1)


class _Bhattacharyya(torch.autograd.Function):
    """-log sum sqrt(p q) from log p and log q of two softmaxes.

    With r the normalised geometric mean, the gradients by the two sets of logits are (p - r) / 2 and (q - r) / 2:
    bounded, and free of the infinite slope that a square root has at 0.
    """

    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        ctx.save_for_backward(log_p, log_q)
        return -torch.logsumexp((log_p + log_q) / 2, dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        log_p, log_q = ctx.saved_tensors
        r = torch.softmax((log_p + log_q) / 2, dim=1)
        # d/d log p of the distance is -r / 2; log_softmax upstream turns it into (p - r) / 2 by the logits.
        outer = grads[0].unsqueeze(1) * (-r / 2)
        return outer, outer


def bhattacharyya_between(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Bhattacharyya distance of two softmaxes, from logits, symmetric, with gradient to both."""
    distance: Tensor = _Bhattacharyya.apply(log_probability(logits_a), log_probability(logits_b))
    return distance


def bhattacharyya(logits: Tensor, target: Target) -> Tensor:
    """-log sum sqrt(t q): zero iff equal; the gradient by the logits, (q - r) / 2, has L1 norm at most 1.

    Uncertainty-weighted SSL, eq. 4. The value grows without bound for disjoint supports, the gradient does not.
    """
    return bhattacharyya_between(safe_log(_distribution(target, logits)), logits)


def hellinger(logits: Tensor, target: Target) -> Tensor:
    """Squared Hellinger distance 1 - sum sqrt(t q) = 1 - exp(-Bhattacharyya), between 0 and 1."""
    return -torch.expm1(-bhattacharyya(logits, target))


DIVERGENCES: dict[str, Divergence] = {
    "bhattacharyya": bhattacharyya,
    "cross_entropy": cross_entropy,
    "hellinger": hellinger,
    "js": js,
    "kl": kl,
    "mse": mse,
}
