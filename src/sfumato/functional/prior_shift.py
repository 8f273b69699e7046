"""Class priors: of a set from its counts, and of a set without labels from what is predicted for it. (C,) shares."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.functional.probability import class_sums
from sfumato.functional.refine import align


def class_shares(counts: Tensor) -> Tensor:
    """Counts over their sum, (C,) -> (C,), a class without any counting as the rarest of the others; even for none.

    No share is 0, so that logarithm and reciprocal are finite, and a class without labels is not raised more than the
    rarest one that has some.
    """
    present = counts > 0
    rarest = counts.masked_fill(~present, torch.inf).amin()
    filled = torch.where(present, counts, torch.where(rarest.isfinite(), rarest, 1.0))
    return filled / filled.sum()


def shifted_sums(p: Tensor, valid: Tensor, prior: Tensor, source: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Expected number of entries of each class where `valid`, were their prior `prior`, (N, C, *S), (N, *S) -> (C,).

    p are predictions of a network for whose training data `source` is the prior; by Bayes' rule they are
    p_c prior_c / source_c, renormalized, under another one (Saerens et al. 2002, eq. 2.4), which is what `align` does.
    eps keeps the ratio finite for a class that the network never predicts.
    """
    return class_sums(align(p, prior, source, eps), valid)


def estimate_prior(
    p: Tensor,
    source: Tensor,
    valid: Tensor | None = None,
    *,
    steps: int = 1000,
    tolerance: float = 1e-7,
) -> Tensor:
    """The most likely class prior of a set without labels, (C,), of which a network predicts p (N, C, *S).

    Saerens, Latinne and Decaestecker 2002 (Neural Computation 14), eq. 2.9: expectation maximization. From `source` on,
    the mean of the predictions that the prior found last makes is the next one. The likelihood is concave in the prior,
    so that where it starts does not matter; a class that no prediction ever holds gets next to nothing.

    Args:
        p: calibrated probabilities; too sure a network gives a histogram of its predictions.
        source: (C,) the prior that p holds within itself: class shares of the training data, or better the mean of
            what the network predicts for such data (Alexandari et al. 2020), the two being equal when it is calibrated.
        valid: (N, *S), what counts; all by default.
        steps: at most so many.
        tolerance: of the largest change of a share, at which it ends.

    Computed in float64, asking the device at every step; for a training step there is `running.prior.RunningPrior`.
    """
    p, source = p.double(), source.double()
    valid = torch.ones_like(p[:, 0]) if valid is None else valid.double()
    count, prior = valid.sum(), source
    for _ in range(steps if count > 0 else 0):
        before, prior = prior, shifted_sums(p, valid, prior, source, eps=1e-12) / count
        if (prior - before).abs().amax() < tolerance:
            break
    return prior
