"""FixMatch (Sohn et al. 2020)."""

from __future__ import annotations

from typing import Literal

from sfumato.errors import check_choice
from sfumato.methods.consistency import Consistency
from sfumato.rules import FixedThreshold, Hard, Sharpened
from sfumato.types import ViewSpec


def fixmatch(
    *,
    threshold: float = 0.95,
    target: Literal["hard", "soft"] = "hard",
    temperature: float = 0.5,
    lambda_u: float = 1.0,
    labeled_strong: bool = False,
) -> Consistency:
    """L = CE + lambda_u mean(1[max p_w >= tau] CE(z_s, argmax p_w)), the mean over the whole unlabelled batch (eq. 4).

    target="soft" predicts p_w^(1/T) instead; labeled_strong adds strong views of the labelled images.
    """
    check_choice("fixmatch", "target", target, ("hard", "soft"))
    return Consistency(
        weigh=FixedThreshold(threshold),
        target=Hard() if target == "hard" else Sharpened(temperature),
        lambda_u=lambda_u,
        views=ViewSpec(labeled_strong=labeled_strong),
    )
