"""SEVAL's rules: probabilities divided by learned class offsets, and a learned threshold for each class."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from sfumato.errors import check_choice
from sfumato.functional.adjust import adjusted, tilted
from sfumato.functional.weigh import above
from sfumato.rules.base import Refiner, Weigher, shifted
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

    def forward(self, p: Tensor) -> Tensor:
        return tilted(p, -self.curriculum.offset)

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


class OffsetFirst(Refiner):
    """Another correction of what the offset has made of the predictions, those for labeled images alike.

    The offset is learned from plain logits. A correction that came first would take out what the offset takes out, and
    the two together overdo it. One that compares with predictions for labeled images is shown these refined too.

    Args:
        offset: the first.
        rest: the second.
    """

    def __init__(self, offset: ClassOffset, rest: Refiner) -> None:
        super().__init__()
        self.offset, self.rest = offset, rest

    def observe(self, p: Tensor, valid: Tensor, context: Context) -> None:
        self.offset.observe(p, valid, context)
        labeled = adjusted(context.labeled_logits, -self.offset.curriculum.offset)
        self.rest.observe(self.offset(p), valid, replace(context, labeled_logits=labeled))

    def forward(self, p: Tensor) -> Tensor:
        refined: Tensor = self.rest(self.offset(p))
        return refined


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
