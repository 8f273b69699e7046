"""FixMatch: the class of a sure prediction on the weak view is the label of the strong one.

With p the prediction on the weak view, without gradient, and z_s the logits of the strong view:

    y^  = argmax p,  m = 1[max p >= tau]
    L_u = mean(m CE(z_s, y^))                 over all valid predictions, kept or not (eq. 4)
    L   = L_x + lambda_u L_u                  L_x: mean CE of the labels (eq. 3)

`target="soft"` has p^(1/T), renormalized, in the place of y^; the mask reads p before. In USB it is p itself, which is
`temperature=1` here.

Sohn et al. 2020 (arXiv:2001.07685).
"""

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
    """The method as a choice of rules.

    Args:
        threshold: tau.
        target: the most probable class of p or, as "soft", p sharpened.
        temperature: T of the soft target; a hard one has none.
        lambda_u: weight of L_u.
        labeled_strong: train on strong views of the labelled images too.

    Raises:
        UsageError: an unknown target, a threshold that is no probability, or a temperature that is not positive.
    """
    check_choice("fixmatch", "target", target, ("hard", "soft"))
    return Consistency(
        weigh=FixedThreshold(threshold),
        target=Hard() if target == "hard" else Sharpened(temperature),
        lambda_u=lambda_u,
        views=ViewSpec(labeled_strong=labeled_strong),
    )
