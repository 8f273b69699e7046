"""Logit adjustment (Menon et al. 2021, arXiv:2007.07314).

With pi_x the shares of the labels and pi_u those that `prior` names:

    form="training":    L_x = mean CE(z + tau log pi_x, y),  L_u = mean(w CE(z_s + tau log pi_u, t))      (eq. 10)
    form="afterwards":  the network that is evaluated and kept gives z - tau log pi_u                      (eq. 9)

w and t are the method's own. While training, what frequency explains is explained by the prior, so that z
itself is left with what the classes look like: it comes out higher for rare classes than without, and it is z that
makes pseudo-labels and is used. The pseudo-labels that a mask lets in need not be as frequent as the classes of the
set: a prior far from what they are overdoes it. A pseudo-label that is a distribution is made of z alone, and is
charged as softmax(log t + tau log pi_u): a student that predicts it would still be sent to the rarest class otherwise.

A method that has no loss of pseudo-labels as a choice of its own adjusts its labels alone: supervised, and those that
charge guesses in a way of their own, such as vat, cps, csl, u2pl, augseg, corrmatch or pseudo_label, whose guesses are
then learned by another loss than the labels. Where labeled images are mixed with unlabeled ones, as in mixmatch, the
frequency of labels is not that of what is charged, and training so is refused.

Afterwards training is as it was.

The peer that adjusts by the inverse frequency pushes rare classes down; the sign is tested.
"""

from __future__ import annotations

from typing import Literal, cast

from sfumato.addons.unlabeled_prior import shown
from sfumato.errors import UsageError
from sfumato.functional.adjust import prior_offset
from sfumato.methods import Consistency, Method
from sfumato.rules import Adjusted, AdjustedAfterwards, Prior
from sfumato.rules.prior import Source


def logit_adjustment(
    method: Method,
    num_classes: int,
    label_counts: tuple[int, ...],
    *,
    form: Literal["training", "afterwards"] = "training",
    tau: float = 1.0,
    prior: Source = "labeled",
    momentum: float = 0.999,
) -> None:
    """Adjust logits by a class prior.

    Args:
        method: whose losses, or whose network.
        num_classes, label_counts: C, and how many labels each class has.
        form: "training" adjusts the loss, that of labels alone where the method has no other as a choice of its own;
            "afterwards" the network that is evaluated and kept.
        tau: 1 is what Bayes' rule gives, 0 changes nothing.
        prior: of the unlabeled set (form="training") or of the network that is corrected ("afterwards"): "labeled", the
            shares of the labels; "predicted", how often the network predicts each class; "estimated", by expectation
            maximization from its predictions; or one number a class.
        momentum: of a prior that is learned.

    Raises:
        UsageError: a negative tau, a prior that is none, one for unlabeled images and a method without them, or
            form="training" where labeled images are mixed with unlabeled ones.
    """
    if not tau >= 0:
        raise UsageError(f"logit_adjustment.tau={tau}: expected a number of 0 or more; 1 is the whole adjustment.")
    unlabeled = Prior(num_classes, label_counts, prior, momentum=momentum)
    if form == "afterwards":
        method.charge = AdjustedAfterwards(method.charge, shown(method, unlabeled), tau=tau)
        return
    if method.mixes_labels:
        raise UsageError(
            "logit_adjustment.form='training' needs labels that are as frequent as in the labeled set, and the method "
            "mixes labeled images with unlabeled ones, and their labels with guesses. Use form='afterwards'."
        )
    if "divergence" not in method.slots and prior != "labeled":
        raise UsageError(
            f"logit_adjustment.prior={prior!r} is that of unlabeled images, for which the method has no loss to "
            "adjust; that of labels is their own. Leave it out, or use form='afterwards'."
        )
    labels = Prior(num_classes, label_counts)
    method.charge = Adjusted(method.charge, labels, tau=tau)
    if "divergence" in method.slots:
        family, offset = cast(Consistency, method), prior_offset(labels.value, tau)
        prior_shown = shown(method, unlabeled, offset=offset)
        family.divergence = Adjusted(family.divergence, prior_shown, tau=tau, target_tau=tau)
