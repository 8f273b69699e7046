"""DARP: pseudo-labels moved as little as possible until every class has its budget (Kim et al. 2020, arXiv:2007.08844).

A table of N samples and C classes, rows that are distributions; a budget (C,) of samples, which sums to N. The refined
table M minimizes sum_n w_n KL(M_n || A_n) with rows that sum to 1 and columns that sum to the budget. A sure sample
weighs much, w_n = 1 / H(A_n), so that doubtful ones move first.

Setting the gradient to 0 leaves one number a class: M_nc is proportional to A_nc exp(H_n theta_c). In theta the dual is
convex with C unknowns, whatever N is. `projected` solves it by damped Newton steps, `alternated` goes the paper's way
and stops after some rounds, which leaves the budgets missed where they are hard to meet. Both are in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import safe_log

EPS = 1e-6  # the authors' constant, in every place
_HALVINGS = 40


def pruned(p: Tensor, budget: Tensor, *, keep: float = 2.0) -> Tensor:
    """Of each class the floor(keep * budget) largest entries, scaled to the budget, rows renormalized; (N, C) float64.

    What a class has beyond these is nearly taken from it: EPS is left, so that a row without an entry is uniform.
    """
    p = p.double()
    limit = (keep * budget.to(p)).floor().clamp(0, len(p))
    order = p.argsort(dim=0, descending=True, stable=True)
    among = torch.arange(len(p), device=p.device).unsqueeze(1) < limit
    kept = p * torch.zeros_like(p).scatter_(0, order, among.to(p.dtype))
    scaled = kept * ((budget.to(p) + EPS) / (kept.sum(dim=0) + EPS)) + EPS
    return scaled / scaled.sum(dim=1, keepdim=True)


def projected(a: Tensor, budget: Tensor, *, tolerance: float = 1e-3, steps: int = 50) -> tuple[Tensor, Tensor]:
    """The refined table (N, C) and by how many samples its worst column misses the budget, (); float64.

    It stops at `tolerance` samples. Where no table meets the budget, as when all rows are sure of other classes, it
    ends with a larger miss. It waits for the device once a step.
    """
    a = a.double()
    height, log_a, goal = _height(a), safe_log(a), _goal(a, budget)
    theta = torch.zeros_like(goal)
    value, m = _dual(log_a, height, goal, theta)
    for _ in range(steps):
        gap = m.sum(dim=0) - goal
        if float(gap.abs().max()) <= tolerance:
            break
        move = _newton(m, height, gap)
        slope, size = float(gap @ move), 1.0
        for _ in range(_HALVINGS):
            further = _dual(log_a, height, goal, theta + size * move)
            if float(further[0]) <= float(value) + 1e-4 * size * slope:
                break
            size /= 2
        else:
            break  # no way down is left that float64 could tell
        theta, (value, m) = theta + size * move, further
    return m, (m.sum(dim=0) - goal).abs().max()


def alternated(a: Tensor, budget: Tensor, *, rounds: int = 10, inner: int = 30) -> Tensor:
    """The paper's algorithm 1: rows are brought to 1 and columns to the budget in turn, `rounds` times; (N, C) float64.

    Each column is one equation for its theta, solved by Newton steps on its logarithm, which cannot leap out of range
    as steps on the equation itself do. Rows are brought to 1 last.
    """
    a = a.double()
    height, log_a, goal = _height(a).unsqueeze(1), safe_log(a), _goal(a, budget).clamp_min(EPS)
    theta = torch.zeros_like(goal)
    for _ in range(rounds):
        row = log_a - torch.logsumexp(log_a + height * theta, dim=1, keepdim=True)
        for _ in range(inner):
            column = row + height * theta
            mass = torch.logsumexp(column, dim=0)
            steepness = (torch.softmax(column, dim=0) * height).sum(dim=0)
            theta = theta - (mass - goal.log()) / steepness
    return torch.softmax(log_a + height * theta, dim=1)


def _height(a: Tensor) -> Tensor:
    """1 / w, the entropy of each row, (N,), as the authors have it, which a sure row turns negative."""
    return (-a * (a + EPS).log()).sum(dim=1).clamp_min(EPS)


def _goal(a: Tensor, budget: Tensor) -> Tensor:
    return budget.to(a) * (len(a) / budget.to(a).sum())  # rows sum to N, so columns can only


def _dual(log_a: Tensor, height: Tensor, goal: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The dual to minimize, (), and the table at theta."""
    moved = log_a + height.unsqueeze(1) * theta
    total = torch.logsumexp(moved, dim=1, keepdim=True)
    return (total.squeeze(1) / height).sum() - goal @ theta, (moved - total).exp()


def _newton(m: Tensor, height: Tensor, gap: Tensor) -> Tensor:
    weighted = m * height.unsqueeze(1)
    curve = torch.diag(weighted.sum(dim=0)) - weighted.T @ m
    # A common shift of theta changes nothing: the flat direction is filled, and what float64 left of it too.
    scale = curve.diagonal().max().clamp_min(torch.finfo(curve.dtype).tiny)
    eye = torch.eye(len(gap), dtype=curve.dtype, device=curve.device)
    move: Tensor = torch.linalg.solve_ex(curve + scale / len(gap) + 1e-13 * scale * eye, -gap)[0]
    return move
