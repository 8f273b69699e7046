"""Logit adjustment: a class prior taken into the logits, or out of them. Priors and offsets (C,)."""

from __future__ import annotations

from torch import Tensor

from sfumato.functional.probability import full_precision, safe_log
from sfumato.functional.refine import per_class
from sfumato.types import Sparse, Target


def prior_offset(prior: Tensor, tau: float = 1.0) -> Tensor:
    """tau log prior, (C,) -> (C,).

    Menon et al. 2021 (arXiv:2007.07314). Added to the logits while training (eq. 10) it leaves the logits themselves to
    say what the classes look like, whatever their frequency: those of rare classes come out higher. Subtracted from the
    logits of a network trained without it (eq. 9) it does the same afterwards.
    """
    return tau * safe_log(prior)


def adjusted(logits: Tensor, offset: Tensor) -> Tensor:
    """z + offset, (N, C, *S) -> (N, C, *S), at least float32."""
    z = full_precision(logits)
    return z + per_class(offset, z)


def tilted(p: Tensor, offset: Tensor) -> Tensor:
    """softmax(z + offset) of p = softmax(z), (N, C, *S) -> (N, C, *S): p exp(offset), renormalized in log space."""
    return adjusted(safe_log(p), offset).softmax(dim=1)


def tilted_target(target: Target, offset: Tensor) -> Target:
    """`tilted` for targets of every form: a label is sure whatever the prior, and stays."""
    if isinstance(target, Sparse):
        share = safe_log(full_precision(target.share)) + full_precision(offset)[target.labels]
        return Sparse(target.labels, share.softmax(dim=1))
    return tilted(full_precision(target), offset) if target.is_floating_point() else target
