"""Pseudo-Label (Lee 2013, eq. 15-16) with the threshold of its later implementations.

    L = CE(labelled) + lambda_u r(t) mean(1[max p >= tau] CE(z, argmax p)),  p = softmax(z)     z: of the weak view

r rises linearly from 0 over the first part of training. The weak view is its own target: the gradient flows through its
logits, not through mask or label. The paper has no threshold and ramps between two epochs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, cast

from sfumato.methods.base import Slot
from sfumato.methods.consistency import Consistency
from sfumato.rules import FixedThreshold, Ramp
from sfumato.types import Output, Unlabeled, Views, ViewSpec, Warp, unwarped


class PseudoLabel(Consistency):
    """The family without a strong view; add-ons whose losses want one do not fit."""

    slots: ClassVar[frozenset[Slot]] = Consistency.slots - {"extras"}

    def students(self, out: Views, u: Unlabeled) -> Iterable[tuple[Output, Warp]]:
        return ((cast(Output, out.weak), unwarped),)


def pseudo_label(*, threshold: float = 0.95, lambda_u: float = 1.0, ramp: float = 0.4) -> PseudoLabel:
    """The weak view learns its own label, where it is sure of it.

    Args:
        threshold: tau; 0 is the paper, which takes all.
        lambda_u: weight of the unlabelled loss at the end of the ramp.
        ramp: share of training over which it rises.
    """
    return PseudoLabel(
        weigh=FixedThreshold(threshold),
        lambda_u=Ramp(0.0, lambda_u, over=ramp),
        views=ViewSpec(strong=0, weak_gradient=True),
    )
