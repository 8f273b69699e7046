"""How much each pseudo-label counts. Probabilities (N, C, *S) or entropies (N, *S) -> weights (N, *S) >= 0."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import confidence, safe_log
from sfumato.functional.refine import sharpen


def above(p: Tensor, threshold: float | Tensor) -> Tensor:
    """1 where the confidence reaches `threshold`, a number or one value per class (C,) read at the predicted class."""
    top, label = confidence(p)
    limit = threshold[label] if isinstance(threshold, Tensor) and threshold.dim() == 1 else threshold
    return (top >= limit).to(p.dtype)


def curriculum_threshold(status: Tensor, threshold: float) -> Tensor:
    """FlexMatch (eq. 7, convex map): tau * beta / (2 - beta) for the learning status beta in [0, 1], (C,) -> (C,)."""
    return threshold * status / (2 - status)


def self_adaptive_threshold(level: Tensor, prior: Tensor) -> Tensor:
    """FreeMatch (eq. 7): the global level scaled by each class's share of the largest class, (), (C,) -> (C,)."""
    return level * prior / prior.max()


def bell(e: Tensor) -> Tensor:
    """4 e (1 - e) of the normalised entropy: 1 at e = 0.5, 0 at both ends (uncertainty-weighted SSL, eq. 7)."""
    return 4 * e * (1 - e)


def one_sided_bell(e: Tensor) -> Tensor:
    """1 up to e = 0.5, then the bell: doubts only the uncertain side, so sure pseudo-labels keep their weight."""
    return torch.where(e <= 0.5, torch.ones_like(e), bell(e))


def truncated_gaussian(confidence: Tensor, mean: Tensor, variance: Tensor, n_sigma: float = 2.0) -> Tensor:
    """SoftMatch (eq. 5): 1 above the mean confidence, a Gaussian tail below it.

    exp(-min(conf - mean, 0)^2 n_sigma^2 / (2 variance)), as the authors' code: n_sigma = 1 is the paper's formula.
    """
    below = (confidence - mean).clamp_max(0.0)
    return torch.exp(-below.square() * (n_sigma**2) / (2 * variance.clamp_min(1e-12)))


def own_cost(p: Tensor, temperature: float) -> Tensor:
    """What p is charged for missing its own target p^(1/T), or its most probable class for T = 0 (Dash).

    -sum_c t_c log p_c, (N, C, *S) -> (N, *S). The temperature is that of the target alone.
    """
    if temperature == 0:
        return -safe_log(confidence(p)[0])
    return -(sharpen(p, temperature) * safe_log(p)).sum(dim=1)
