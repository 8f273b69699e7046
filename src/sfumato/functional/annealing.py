"""Which labels still count: training signal annealing (Xie et al. 2020, UDA, arXiv:1904.12848, section 3.3).

Few labels are learned by heart long before the unlabeled images have taught anything. So a label stops counting once
its class is given a probability above

    eta(t) = alpha(t) (1 - 1 / C) + 1 / C        t: share of the training that is over

with alpha = t ("linear"), exp(5 (t - 1)) ("exp", late, for labels that are learned fast) or 1 - exp(-5 t) ("log").
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor

from sfumato.errors import check_choice
from sfumato.functional.probability import log_probability, probability

Rise = Literal["none", "linear", "exp", "log"]


def annealing_threshold(rise: Rise, t: float, num_classes: int) -> float:
    """eta at t in 0 to 1; 1, above which nothing is, with "none". Raises UsageError for an unknown rise."""
    check_choice("annealing_threshold", "rise", rise, get_args(Rise))
    if rise == "none":
        return 1.0
    alpha = {"linear": t, "exp": math.exp(5 * (t - 1)), "log": 1 - math.exp(-5 * t)}[rise]
    return alpha * (1 - 1 / num_classes) + 1 / num_classes


def unlearned(logits: Tensor, y: Tensor, threshold: float) -> Tensor:
    """1 where the class y (N, *S) has a probability of at most `threshold`, 0 elsewhere, (N, C, *S) -> (N, *S)."""
    p = log_probability(logits.detach()).gather(1, y.unsqueeze(1)).squeeze(1).exp()
    return (p <= threshold).to(p.dtype)


def unsure(logits: Tensor, threshold: float) -> Tensor:
    """1 where no class has a probability above `threshold`: USB's reading, by which a sure mistake stops counting."""
    p = probability(logits.detach())
    return (p.amax(dim=1) <= threshold).to(p.dtype)
