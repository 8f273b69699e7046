"""Class offsets that make held-out predictions as good for every class: a convex problem, solved exactly.

The offsets are logarithms of a vector pi by which probabilities are divided: softmax(z - log pi). pi acts as a prior,
so it is large for a class that is predicted too often. Source: SEVAL (Li et al. 2024), refinement of pseudo-labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.errors import UsageError

LIMIT = math.log(30)  # of an offset: no class is made more than 30 times likelier or less likely than the average one
_DENSE = 300  # classes up to which the Hessian is a matrix; beyond, its products are enough
_MOST_STEPS = 60
_TOLERANCE = 1e-10  # of the gradient


def balanced_cross_entropy(logits: Tensor, y: Tensor, log_pi: Tensor | None = None) -> Tensor:
    """Mean over the classes present of the mean cross-entropy of their samples, of softmax(z - log pi), in nats.

    logits (K, C), y (K,) int64, log_pi (C,) -> () float64.
    """
    z = logits.double() if log_pi is None else logits.double() - log_pi.to(logits.device, torch.float64)
    return (sample_weights(y, z.shape[1]) * _charges(z, y)).sum()


def sample_weights(y: Tensor, num_classes: int) -> Tensor:
    """What each sample counts where all classes present count alike, (K,) float64, sum 1."""
    counts = torch.bincount(y, minlength=num_classes)
    return 1.0 / (counts[y] * (counts > 0).sum()).double()


def class_offsets(
    logits: Tensor, y: Tensor, *, ridge: float = 0.01, start: Tensor | None = None, limit: float = LIMIT
) -> Tensor:
    """log pi, (C,) float64: the minimum of balanced_cross_entropy(z - log pi) + ridge/2 |log pi|^2.

    Damped Newton in float64. The mean over the classes present is 0, since the first term does not see a common shift.
    A class without samples keeps 0: unseen, its offset would grow without end (without ridge, to forbid the class).

    Args:
        logits: (K, C), finite; K = 0 gives zeros.
        y: (K,) int64 below C.
        ridge: keeps the offsets of classes with few samples small.
        start: (C,) of an earlier solution; changes how long it takes, not what comes out.
        limit: of an offset's size. The minimum is that of the offsets within it.

    Raises:
        UsageError: a negative ridge or shapes that do not fit.
    """
    if not ridge >= 0:
        raise UsageError(f"ridge={ridge}: expected a number of 0 or more, such as 0.01.")
    if logits.dim() != 2 or y.shape != logits.shape[:1]:
        raise UsageError(f"labels {tuple(y.shape)} do not fit logits {tuple(logits.shape)}: expected (K, C) and (K,).")
    z = logits.detach().double()
    present = torch.bincount(y, minlength=z.shape[1]) > 0
    b = torch.zeros(z.shape[1], dtype=torch.float64, device=z.device) if start is None else start.to(z)
    b = _within(b, present, limit)
    if int(present.sum()) < 2:
        return torch.zeros_like(b)  # one class says nothing of the balance between classes
    return _newton(_Problem(z, y, present, ridge), b, limit)


def _charges(z: Tensor, y: Tensor) -> Tensor:
    return z.logsumexp(dim=1) - z.gather(1, y.unsqueeze(1)).squeeze(1)


def _within(b: Tensor, present: Tensor, limit: float) -> Tensor:
    """The nearest point of zero mean over the classes present, 0 in the others, and no larger than `limit`."""
    moved = torch.where(present, b - b[present].mean(), 0.0)
    if not bool((moved.abs() > limit).any()):
        return moved
    low, high = moved.min() - limit, moved.max() + limit
    for _ in range(100):  # clip(b - shift) falls as the shift grows: bisection finds where its sum is 0
        shift = (low + high) / 2
        above = (moved[present] - shift).clamp(-limit, limit).sum() > 0
        low, high = torch.where(above, shift, low), torch.where(above, high, shift)
    return torch.where(present, (moved - shift).clamp(-limit, limit), 0.0)


class _Problem:
    """The objective with its derivatives at a point, all in float64."""

    def __init__(self, z: Tensor, y: Tensor, present: Tensor, ridge: float) -> None:
        self.z, self.y, self.present, self.ridge = z, y, present, ridge
        self.weight = sample_weights(y, z.shape[1])
        self.share = present / present.sum().double()

    def value(self, b: Tensor) -> float:
        return float((self.weight * _charges(self.z - b, self.y)).sum() + self.ridge / 2 * b.square().sum())

    def probabilities(self, b: Tensor) -> Tensor:
        return torch.softmax(self.z - b, dim=1)

    def slope(self, b: Tensor, p: Tensor) -> Tensor:
        return self.share - self.weight @ p + self.ridge * b

    def direction(self, p: Tensor, slope: Tensor, free: Tensor) -> Tensor:
        """Newton's step from a centered slope, with sum 0 over the free classes and none in the others."""
        solve = _by_matrix if len(slope) <= _DENSE else _by_products
        return solve(self.weight, p, self.ridge, slope, free)


def _newton(problem: _Problem, b: Tensor, limit: float) -> Tensor:
    """Steps over the classes that are free, the others being held at the limit, beyond which they are drawn.

    The minimum is where no class that may fall has a larger slope than another that may rise.
    """
    value, edge = problem.value(b), limit * (1 - 1e-12)
    held = torch.zeros_like(problem.present)
    for _ in range(_MOST_STEPS):
        p = problem.probabilities(b)
        slope, free = problem.slope(b, p), problem.present & ~held
        falling = slope.masked_fill(~problem.present | (b <= -edge), -torch.inf)
        rising = slope.masked_fill(~problem.present | (b >= edge), torch.inf)
        if not bool(falling.max() - rising.min() > 2 * _TOLERANCE):
            break
        pull = _centered(slope, free)
        if bool(pull.abs().max() > _TOLERANCE):
            found = _along(problem, b, value, slope, problem.direction(p, pull, free), limit)
            if found is None:
                break  # no step helps any more: rounding decides
            b, value = found
            held = problem.present & (b.abs() >= edge)
        else:
            held[falling.argmax()] = held[rising.argmin()] = False
    return b


def _along(
    problem: _Problem, b: Tensor, value: float, slope: Tensor, step: Tensor, limit: float
) -> tuple[Tensor, float] | None:
    """The first better point: the step cut to the limit, then the step until one class meets it, and shorter ones."""
    room = (limit + b * step.sign()) / step.abs().clamp_min(1e-300)
    size = min(1.0, float(room[step != 0].min()))
    points = [_within(b - step, problem.present, limit)] if size < 1 else []
    points += [b - size / 2**k * step for k in range(40)]
    for new in points:
        reached, gain = problem.value(new), float(slope @ (b - new))
        if gain > 0 and reached <= value - 1e-4 * gain:
            return new, reached
    return None


def _by_matrix(weight: Tensor, p: Tensor, ridge: float, slope: Tensor, free: Tensor) -> Tensor:
    q = p[:, free]
    hessian = torch.diag(weight @ q + ridge) - q.T @ (weight.unsqueeze(1) * q)
    # The common shift, which changes nothing, is made to cost something, so that there is one solution, without it.
    hessian += hessian.diagonal().mean() / len(hessian) + 1e-14 * torch.eye(len(hessian)).to(hessian)
    step = torch.zeros_like(slope)
    step[free] = torch.linalg.solve(hessian, slope[free])
    return _centered(step, free)


def _by_products(weight: Tensor, p: Tensor, ridge: float, slope: Tensor, free: Tensor) -> Tensor:
    """Conjugate gradients with the diagonal as preconditioner: each product with the Hessian costs K x C."""
    diagonal = (weight @ (p * (1 - p)) + ridge).clamp_min(1e-12)

    def product(v: Tensor) -> Tensor:
        return _centered(weight * (p @ v) @ -p + (weight @ p) * v + ridge * v, free)

    return _conjugate_gradients(product, lambda r: _centered(r / diagonal, free), slope)


def _conjugate_gradients(
    product: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], target: Tensor
) -> Tensor:
    x, r = torch.zeros_like(target), target
    s = precondition(r)
    d, rho = s, r @ s
    for _ in range(100):
        hd = product(d)
        a = rho / (d @ hd)
        x, r = x + a * d, r - a * hd
        if not bool(r.abs().max() > 1e-3 * target.abs().max()):
            break
        s = precondition(r)
        rho, before = r @ s, rho
        d = s + rho / before * d
    return x


def _centered(values: Tensor, free: Tensor) -> Tensor:
    """Without the mean over the free classes, and 0 in the others."""
    return torch.where(free, values - values[free].sum() / free.sum().clamp_min(1), 0.0)
