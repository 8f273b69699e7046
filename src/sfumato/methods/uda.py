"""UDA, unsupervised data augmentation (Xie et al. 2020, arXiv:1904.12848).

    L = L_x + lambda_u mean(1[max p_w >= tau] CE(z_s, p_w^(1/T) / Z))

The target is the weak prediction sharpened by T; the threshold reads it before. Sharpening acts on probabilities, not
on logits, so that it does after distribution alignment too. In a peer library the temperature is passed and without
effect: there the target is p_w itself, which is `temperature=1` here.

L_x is the cross-entropy, or with `annealing` its mean over the labels that are not learned yet (section 3.3, see
`functional.annealing`).
"""

from __future__ import annotations

from typing import Literal, get_args

from sfumato.errors import UsageError, check_choice
from sfumato.functional.annealing import Rise
from sfumato.methods.consistency import Consistency
from sfumato.rules import FixedThreshold, Sharpened
from sfumato.rules.annealing import SignalAnnealing
from sfumato.types import ViewSpec


def uda(
    num_classes: int,
    *,
    threshold: float = 0.8,
    temperature: float = 0.4,
    annealing: Rise = "none",
    annealing_form: Literal["paper", "peer"] = "paper",
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """The method as a choice of rules.

    Args:
        num_classes: C.
        threshold: tau, on the probabilities before they are sharpened.
        temperature: T of the target.
        annealing: how the probability rises above which a label no longer counts; "none" counts all of them.
        annealing_form: "paper", by the probability of the labelled class, the mean over the labels that count; "peer",
            by the largest probability, over all labels.
        lambda_u: weight of the unlabelled loss.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown name, a threshold or temperature out of range, or a form without annealing.
    """
    check_choice("uda", "annealing", annealing, get_args(Rise))
    if annealing == "none" and annealing_form != "paper":
        raise UsageError(f"uda(annealing_form={annealing_form!r}) needs annealing, such as annealing='linear'.")
    method = Consistency(
        weigh=FixedThreshold(threshold),
        target=Sharpened(temperature),
        lambda_u=lambda_u,
        views=ViewSpec(labeled_strong=labeled_strong),
    )
    if annealing != "none":
        method.annealing = SignalAnnealing(num_classes, annealing, annealing_form)
    return method
