"""SEVAL's rules: probabilities divided by learned class offsets, and a learned threshold for each class."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from sfumato.errors import check_choice
from sfumato.functional.adjust import adjusted, tilted
from sfumato.functional.weigh import above
from sfumato.rules.base import Refiner, Weigher, shifted
from sfumato.rules.prior import Debiased
from sfumato.rules.refine import Then
from sfumato.running.curriculum import Curriculum, Replay
from sfumato.types import Context, HeldOut

TestRefine = Literal["none", "ema", "current"]


class ClassOffset(Refiner):
    """softmax(z - log pi), which is p / pi renormalized: pi is learned from held-out predictions at each evaluation.

    Args:
        curriculum: what it learns, with the thresholds that belong to it.
        test_refine: what is deployed: the network with its logits moved alike, by the average of log pi ("ema") or by
            the last ("current"), or as it is ("none").

    Raises:
        UsageError: an unknown name; in `deployed`, a network that does not give its last layer.
    """

    def __init__(self, curriculum: Curriculum, *, test_refine: TestRefine = "ema") -> None:
        super().__init__()
        check_choice("ClassOffset", "test_refine", test_refine, ("none", "ema", "current"))
        self.curriculum: Curriculum | Replay = curriculum
        self.test_refine = test_refine

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.curriculum.follow(context.progress)

    @property
    def offset(self) -> Tensor:
        """(C,) that is added to the logits."""
        return -self.curriculum.offset

    def forward(self, p: Tensor) -> Tensor:
        return tilted(p, self.offset)

    def calibrate(self, held_out: HeldOut) -> None:
        """`held_out` is of the deployed network, so that what was deployed is added back first."""
        self.curriculum.learn(held_out, self._deployed_offset())

    def deployed(self, net: nn.Module) -> nn.Module:
        return net if self.test_refine == "none" else shifted(net, -self._deployed_offset())

    def _deployed_offset(self) -> Tensor:
        c = self.curriculum
        if self.test_refine == "none":
            return c.offset.new_zeros(c.offset.shape)
        return c.offset if self.test_refine == "ema" else c.last_offset


class OffsetFirst(Then):
    """Another correction of what an offset has made of the predictions, those for labeled images alike.

    The offset is learned from plain logits. A correction that came first would take out what the offset takes out, and
    the two together overdo it. One that compares with predictions for labeled images is shown these corrected too: it
    would otherwise take back what the offset has done.

    Args:
        first: which moves the logits.
        second: the other.
    """

    def __init__(self, first: ClassOffset | Debiased, second: Refiner) -> None:
        super().__init__(first, second)
        self._moving = (first,)  # by its type; it is saved once

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.first.observe(p, valid, context)
        labeled = adjusted(context.labeled_logits, self._moving[0].offset)
        self.second.observe(self.first(p), valid, replace(context, labeled_logits=labeled))


class ClassThreshold(Weigher):
    """1 where the confidence reaches the threshold of its class: that at which held-out predictions are right enough.

    Args:
        offset: whose curriculum it reads. p is to be refined by it first.
    """

    def __init__(self, offset: ClassOffset) -> None:
        super().__init__()
        self._offset = (offset,)  # in a tuple: its state belongs to the refiner

    @property
    def thresholds(self) -> Tensor:
        """(C,)"""
        return self._offset[0].curriculum.threshold

    def forward(self, p: Tensor) -> Tensor:
        return above(p, self.thresholds.to(p.dtype))


class Instead(Weigher):
    """The weights of `second` in the place of those of `first`, which goes on observing for whoever else reads it."""

    def __init__(self, first: Weigher, second: Weigher) -> None:
        super().__init__()
        self.first, self.second = first, second

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.first.observe(p, valid, context)
        self.second.observe(p, valid, context)

    def forward(self, p: Tensor) -> Tensor:
        weight: Tensor = self.second(p)
        return weight


def instead(first: Weigher, second: Weigher) -> Weigher:
    """`second` in the place of `first`. What has a memory keeps it up to date, for other rules may read it."""
    return Instead(first, second) if first.state_dict() else second
