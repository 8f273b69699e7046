"""DebiasPL (Wang et al. 2022, arXiv:2201.01490): pseudo-labels without the network's leaning, and a loss with it.

With z_w and z_s the logits of the weak and the strong view, and m the momentum:

    a   <- m a + (1 - m) mean softmax z_w              (C,), from 1/C: the leaning
    p   = softmax(z_w - tau log a)                     of which mask w and target t are made
    L_u = mean(w CE(z_s + tau log a, t))

The average is of all ranks, and of predictions before any other correction. The loss has a margin that grows with how
rarely a class is predicted. What is evaluated is z. The batch is averaged in before it is read, where the authors make
its mask first; with momentum 0.999 that is a thousandth. The paper's contrastive branch, CLD, is left out.

The paper's targets are the most probable class. One that is a distribution t, which a method of its own choice has, is
charged as softmax(log t + 2 tau log a), with the tau that is out of it and the tau that is in the loss: a student
that predicts as z_w does would otherwise be sent on to the rarest class. The sharper t is, the nearer to the paper.

A correction of the method's own comes after, and is shown predictions for labeled images without the leaning too.

The peer averages over the classes too, which leaves 1/C, the same for all, and no effect at all.
"""

from __future__ import annotations

from typing import cast

from sfumato.errors import UsageError
from sfumato.methods import Consistency, Method
from sfumato.rules import Adjusted, Debiased, OffsetFirst, Prior
from sfumato.rules.prior import Borrowed, Source


def debiaspl(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    *,
    tau: float = 0.4,
    momentum: float = 0.999,
    prior: Source = "predicted",
) -> None:
    """Take the network's leaning out of pseudo-labels and into their loss.

    Args:
        method: whose pseudo-labels.
        num_classes, label_counts: C, and how many labels each class has; the latter for other priors only.
        tau: how much of the leaning; the paper tunes it, and 0 changes nothing.
        momentum: of the average.
        prior: "predicted" is the paper; the others are those of `logit_adjustment`.

    Raises:
        UsageError: a negative tau, or a prior that is none.
    """
    if not tau >= 0:
        raise UsageError(f"debiaspl.tau={tau}: expected a number of 0 or more, such as 0.4.")
    leaning, family = Prior(num_classes, label_counts, prior, momentum=momentum), cast(Consistency, method)
    family.refine = OffsetFirst(Debiased(leaning, tau=tau), family.refine)
    family.divergence = Adjusted(family.divergence, Borrowed(leaning), tau=tau, target_tau=2 * tau)
