"""Temperature scaling: one number that makes confidences match held-out labels (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.errors import UsageError

SHARPEST, SOFTEST = 0.05, 20.0  # beyond either, the probabilities of usual logits are all but one-hot or uniform
_MOST_STEPS = 60  # of bisection alone these would reach 1e-17; Newton's steps need about six
_TOLERANCE = 1e-10  # relative, of T


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in [0.05, 20] that minimises the mean negative log-likelihood of softmax(logits / T), in float64.

    logits: (N, C, *S); labels: (N, *S), negative ones are ignored. Dividing by T > 0 leaves every argmax as it is, and
    on these labels T = 1 is never better. 1.0 when there is nothing to fit: no label, or logits without differences.

    Where the labels set no limit to confidence (every prediction right, say, as happens with few labels), that minimum
    is T = 0.05, which would swear to every future mistake. Then one more label is supposed, spread evenly over the
    classes, and T is the minimum including it, at most 1: the more labels agree, the sharper it may get.

    Raises UsageError when shapes or labels do not fit, or a logit is not finite.
    """
    z, y = _entries(logits, labels)
    # Only differences within a row count; with the largest at 0, exp cannot overflow.
    z = z - z.amax(dim=1, keepdim=True)
    if z.numel() == 0 or float(z.min()) == 0:
        return 1.0
    true = z.gather(1, y.unsqueeze(1)).sum()
    if float(_excess(z, true / len(y), 1 / SHARPEST)[0]) > 0:
        return 1 / _minimum(z, true / len(y))
    # slope of N nll(b) + the supposed label's share, divided by N + 1
    return min(1.0, 1 / _minimum(z, (true + z.mean()) / (len(y) + 1)))


def _entries(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if logits.dim() < 2 or (logits.shape[0], *logits.shape[2:]) != tuple(labels.shape):
        raise UsageError(
            f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: "
            "expected (N, C, *S) logits, class axis 1, and (N, *S) labels."
        )
    kept = labels >= 0
    z, y = logits.detach().movedim(1, -1)[kept].double(), labels[kept].long()
    if y.numel() and int(y.max()) >= z.shape[1]:
        raise UsageError(f"label {int(y.max())} found where there are {z.shape[1]} classes, 0 to {z.shape[1] - 1}.")
    if not bool(z.isfinite().all()):
        raise UsageError("logits that are not finite cannot be calibrated: the model they come from has diverged.")
    return z, y


def _excess(z: Tensor, aim: Tensor, inverse: float) -> tuple[Tensor, Tensor]:
    """Slope of the loss by b = 1 / T, mean E_p[z] - aim, and its own slope, mean Var_p[z] >= 0: the loss is convex."""
    p = torch.softmax(z * inverse, dim=1)
    mean = (p * z).sum(dim=1)
    variance = (p * (z - mean.unsqueeze(1)).square()).sum(dim=1)
    return mean.mean() - aim, variance.mean()


def _minimum(z: Tensor, aim: Tensor) -> float:
    """The b = 1 / T in its bounds where the slope vanishes, or the bound it points to: Newton kept in a bracket."""
    low, high = 1 / SOFTEST, 1 / SHARPEST
    if float(_excess(z, aim, low)[0]) >= 0:
        return low
    if float(_excess(z, aim, high)[0]) <= 0:
        return high
    b = 1.0
    for _ in range(_MOST_STEPS):
        slope, curvature = (float(value) for value in _excess(z, aim, b))
        low, high = (low, b) if slope > 0 else (b, high)
        newton = b - slope / curvature if curvature > 0 else math.inf
        # where the curve is flat Newton leaps out of the bracket: halve it on the log scale instead
        following = newton if low < newton < high else math.sqrt(low * high)
        if abs(following - b) <= _TOLERANCE * b:
            return following
        b = following
    return b
