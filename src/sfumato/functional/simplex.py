"""The searches of SEVAL's authors, by the Nelder-Mead simplex: named options, for comparison.

The search of offsets is right but takes seconds at 10 classes and minutes at 100. That of thresholds hardly searches:
the gap is constant between two confidences, so that the simplex stops within 0.05 of where it starts, 0.95.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from sfumato.functional.offsets import sample_weights
from sfumato.functional.precision import Predictions

BOUNDS = (1e-3, 3.0)  # of pi
_START = 0.95
Array = NDArray[np.float64]


def simplex_offsets(
    logits: Tensor,
    y: Tensor,
    *,
    groups: int | None = None,
    bounds: tuple[float, float] = BOUNDS,
    most_calls: int | None = None,
) -> Tensor:
    """log pi, (C,) float64, from pi = 1 within `bounds`, tolerance 1e-7; neither of mean 0 nor regularized.

    logits: (K, C); y: (K,). groups: so many runs of consecutive classes share a value, C by default; most_calls: of
    the objective, where the search is to stop early.
    """
    z, true = logits.detach().double().cpu().numpy(), y.cpu().numpy()
    weight = sample_weights(y, z.shape[1]).cpu().numpy() / z.shape[1]  # the authors' mean goes over one-hot rows too
    groups = z.shape[1] if groups is None else groups
    place = np.minimum(np.arange(z.shape[1]) // (z.shape[1] // groups), groups - 1)
    rows = np.arange(len(true))

    def objective(pi: Array) -> float:
        moved = z - np.log(pi)[place]
        top = moved.max(axis=1)
        charges = np.log(np.exp(moved - top[:, None]).sum(axis=1)) + top - moved[rows, true]
        return float(weight @ charges)

    calls = {} if most_calls is None else {"maxfev": most_calls, "maxiter": most_calls}
    found = minimize(
        objective, np.ones(groups), method="Nelder-Mead", tol=1e-7, bounds=[bounds] * groups, options=calls
    )
    return torch.from_numpy(np.log(found.x)[place]).to(logits.device)


def simplex_thresholds(seen: Predictions, target: float) -> Tensor:
    """The threshold of each group, (G,) float64, that the search for |precision - target| ends at; strict, as theirs.

    0 where all predictions of the group reach the target, or there are none.
    """
    confidence, hit, mass = (values.double().cpu().numpy() for values in (seen.confidence, seen.hit, seen.mass))
    group = seen.group[seen.predicted].cpu().numpy()
    found = [_search(confidence[mine], hit[mine], mass[mine], target) for mine in _members(group, seen.groups)]
    return torch.tensor(found, dtype=torch.float64, device=seen.y.device)


def _members(group: NDArray[np.int64], groups: int) -> list[NDArray[np.bool_]]:
    return [group == number for number in range(groups)]


def _search(confidence: Array, hit: Array, mass: Array, target: float) -> float:
    def precision(threshold: float) -> float:
        kept = confidence > threshold
        return float(hit[kept].sum() / (mass[kept].sum() + 1e-6))

    if not len(confidence) or precision(0.0) >= target:
        return 0.0
    return float(
        minimize(lambda x: abs(precision(float(x[0])) - target), [_START], method="Nelder-Mead", tol=1e-7).x[0]
    )
