"""Dash: pseudo-labels count as long as they cost no more than a limit, which starts at what labels cost and falls.

With p the prediction on the weak view and t its target, p^(1/T) renormalized at first:

    rho   = mean loss of the labeled batches at the end of a warm-up on labels alone
    rho_t = max(C gamma^-t rho, rho_min)                      t: stages since the warm-up
    keep H(t, p) <= rho_t;   L = L_x + lambda_u mean(kept H(t, strong view))

Once rho_t has come down to rho_min the target is the most probable class: rho_min = 0.05 keeps p >= 0.951. T is that of
the target alone; p itself is not sharpened in H(t, p).

Xu et al. 2021 (Dash: Semi-Supervised Learning with Dynamic Thresholding, ICML), section 3.2. As there, rho comes from
labeled training images; validation and test images have no part in it. It is a moving average over about the last ten
labeled batches of the warm-up, in which the network does not stand still, rather than one more pass over the labeled
set. The published warm-up is 2,048 of about a million steps, the stages are 10 of 1,024 epochs; here both are shares of
the training. The recipes classic, long_tail and usb have these numbers; the defaults are those of trainings of minutes,
the first tenth of which is of labels alone.

The warm-up counts the labels-only steps at the start, `train.unlabeled_start`, in which nothing can be measured, as the
method is told of no step without unlabeled images: `warmup` is to be a little larger. If it is not, rho is what the
first labeled batch beside unlabeled images costs, and the stages count from this step.
"""

from __future__ import annotations

from sfumato.methods.consistency import Consistency
from sfumato.rules import LossThreshold, SoftThenHard
from sfumato.types import ViewSpec


def dash(
    *,
    gamma: float = 1.27,
    factor: float = 1.0001,
    floor: float = 0.05,
    temperature: float = 0.5,
    warmup: float = 0.12,
    stage: float = 0.01,
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """The method with its limit.

    Args:
        gamma: by which rho_t falls from stage to stage.
        factor: C.
        floor: rho_min; it makes the target hard.
        temperature: T.
        warmup: share of training before pseudo-labels count.
        stage: share of training that is a stage.
        lambda_u: weight of the unlabelled loss.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: a number out of range.
    """
    limit = LossThreshold(
        factor=factor,
        gamma=gamma,
        floor=floor,
        temperature=temperature,
        warmup=warmup,
        stage=stage,
    )
    return Consistency(
        weigh=limit,
        target=SoftThenHard(limit),
        lambda_u=lambda_u,
        views=ViewSpec(labeled_strong=labeled_strong),
    )
