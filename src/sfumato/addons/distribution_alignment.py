"""Distribution alignment (Berthelot et al. 2020, ReMixMatch, arXiv:1911.09785, section 3.1).

With p the prediction for an unlabeled image and g what the classes' shares ought to be:

    a   = average of p, moving, or over the last `window` batches
    g   = prior^power, renormalized
    q_c = p_c (g_c + 1e-6) / (a_c + 1e-6), renormalized

and q takes the place of p. It follows the method's own correction, if it has one; a batch is averaged in before it is
aligned. The moving average is debiased: all batches so far count alike at first, which is no option of the peers. An
estimated prior is estimated from predictions as made, before any correction.
"""

from __future__ import annotations

from typing import Literal, cast

from sfumato.addons.unlabeled_prior import shown
from sfumato.errors import UsageError
from sfumato.methods import Consistency, Method
from sfumato.rules import DistributionAlignment, Prior, Then


def distribution_alignment(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    *,
    prior: Literal["labeled", "estimated", "uniform"] | tuple[float, ...] = "labeled",
    power: float = 1.0,
    momentum: float = 0.999,
    window: int | None = None,
) -> None:
    """Align predictions with a class prior.

    Args:
        method: whose correction of predictions this follows.
        num_classes, label_counts: C, and how many labels each class has.
        prior: the target: the shares of the labels, those estimated for the unlabeled set, even ones, or one number a
            class.
        power: exponent of it, renormalized; below 1 it is flatter (CReST+), with 0 even.
        momentum: of the average of predictions, and of an estimated prior.
        window: the average is that of the last so many batches (the paper: 128) in place of a moving one.

    Raises:
        UsageError: a prior that is none, a negative power, or a window of no batch.
    """
    if not power >= 0:
        raise UsageError(f"distribution_alignment.power={power}: expected a number of 0 or more; 1 is the prior.")
    if window is not None and window < 1:
        raise UsageError(f"distribution_alignment.window={window}: expected a number of batches, such as 128.")
    if prior == "uniform":
        align = DistributionAlignment(num_classes, power=power, momentum=momentum, window=window)
    else:
        target = shown(method, Prior(num_classes, label_counts, prior, momentum=momentum))
        align = DistributionAlignment(
            num_classes, target="labeled", prior=target, power=power, momentum=momentum, window=window
        )
    family = cast(Consistency, method)
    family.refine = Then(family.refine, align)
