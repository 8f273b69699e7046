"""Directions in which a small step changes predictions most (Miyato et al. 2018, VAT, arXiv:1704.03976, section 3.3).

N samples, each with an input (N, ...) of any shape. Norms are L2 norms of whole samples.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.functional.probability import full_precision, log_probability


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones in [0, 1), multiples of 2^-24 as draws are; all are finite."""
    # The middle of each interval of length 2^-24, but for the last, whose middle is 1 in float32.
    middle = (uniform + 2.0**-25).clamp_max(1 - 2.0**-24)
    z: Tensor = torch.special.ndtri(middle)
    return z


def unit(x: Tensor) -> Tensor:
    """Each sample over its norm, (N, ...) -> (N, ...); 0 stays 0. Gradients of 1e-30 do not vanish when squared."""
    flat = x.flatten(1)
    flat = flat / flat.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return F.normalize(flat, dim=1).view_as(x)


def probability_change(logits: Tensor, changed: Tensor) -> Tensor:
    """softmax(changed) - softmax(logits), the gradient of KL(softmax(logits) || softmax(changed)) by `changed`.

    (N, C, *S) each, without gradient. Exact to the last digits also where the two hardly differ or a class is all but
    certain: the plain difference of two numbers near 1 has none left. With t = softmax(logits), d the change of the
    logits beyond that of the most probable class, and A = log sum t e^d, it is t (e^(d - A) - 1).
    """
    z, other = full_precision(logits.detach()), full_precision(changed.detach())
    t, d = log_probability(z).exp(), other - z
    d = d - d.gather(1, t.argmax(dim=1, keepdim=True))
    grown = torch.log1p((t * torch.expm1(d)).sum(dim=1, keepdim=True))
    return t * torch.expm1(d - grown)


def adversarial_direction(
    predict: Callable[[Tensor], Tensor],
    x: Tensor,
    start: Tensor,
    *,
    step: float,
    iterations: int = 1,
    valid: Tensor | None = None,
    logits: Tensor | None = None,
) -> Tensor:
    """The unit direction of x (N, ...) along which KL(p(x) || p(x + r)) grows fastest, by power iteration (eq. 12).

    Args:
        predict: inputs to logits (N, C, *S), each sample's from that sample alone but for batch norm. Only gradients by
            the inputs are asked for, so that those of the parameters are neither computed nor kept.
        x: the inputs.
        start: (N, ...) random numbers around 0; their length is of no matter.
        step: xi, the norm of the step by which the change is measured. Too small a step is lost in rounding: with
            inputs of unit variance and float32 the direction has a cosine to the exact one of 0.1 at 1e-6, and above
            0.999 from 1e-3 to 1e-1.
        iterations: of the power method.
        valid: (N, *S) 0 where a prediction does not count.
        logits: predict(x), where they are known; otherwise one forward more.

    Returns:
        (N, ...) of norm 1, without gradient; 0 where no direction changes anything.
    """
    if logits is None:
        with torch.no_grad():
            logits = predict(x)
    d, x = unit(start), x.detach()
    for _ in range(iterations):
        with torch.enable_grad():
            moved = (step * d).requires_grad_()
            changed = predict(x + moved)
        pull = probability_change(logits, changed)
        if valid is not None:
            pull = pull.masked_fill(valid.unsqueeze(1) == 0, 0.0)
        (gradient,) = torch.autograd.grad(changed, moved, pull.to(changed.dtype))
        d = unit(gradient)
    return d
