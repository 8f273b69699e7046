"""FreeMatch's fairness term."""

from __future__ import annotations

import torch
from torch import Tensor


def _normalized_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator scaled to sum 1; 0 where the denominator is 0.

    Or as good as 0: the histogram of a class never predicted halves with every 700 batches, down to where the ratio
    overflows.
    """
    present = denominator > 1e-12
    ratio = torch.where(present, numerator / torch.where(present, denominator, 1.0), 0.0)
    return ratio / ratio.sum().clamp_min(1e-12)


def fairness(predicted: Tensor, counts: Tensor, prior: Tensor, histogram: Tensor) -> Tensor:
    """sum_c a_c log b_c with a = norm(prior / histogram), b = norm(predicted / counts); minus a cross-entropy.

    FreeMatch eq. 9-11, with the sign of the paper. All (C,): `predicted` is the sum over the selected samples of the
    strong probabilities (the gradient goes here), `counts` how often each class is their argmax, `prior` and
    `histogram` the running mean prediction and pseudo-label histogram of the weak views. Exactly 0 when nothing is
    selected; a class that no selected sample predicts adds a constant without gradient.
    """
    a, b = _normalized_ratio(prior, histogram), _normalized_ratio(predicted, counts)
    term = (a * (b + 1e-12).log()).sum()
    return torch.where(counts.sum() > 0, term, torch.zeros_like(term))
