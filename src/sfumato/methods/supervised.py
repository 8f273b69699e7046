"""Labels only: the two baselines that every gain is measured against.

With z_w and z_s the logits of the weak and the strong view of a labelled image, and y its label:

    supervised:         L = mean CE(z_w, y)
    supervised_strong:  L = (mean CE(z_w, y) + mean CE(z_s, y)) / 2

The means are over the valid labels. Unlabelled images are not looked at.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from sfumato.methods.base import Method, Networks, Slot
from sfumato.types import Batch, Losses, Progress, ViewSpec


class Supervised(Method):
    """Cross-entropy on the labelled images, with strong views of them too when `strong`."""

    slots: ClassVar[frozenset[Slot]] = frozenset({"charge", "extras"})

    def __init__(self, *, strong: bool) -> None:
        super().__init__()
        self.views = ViewSpec(strong=0, weak=False, labeled_strong=strong)

    def loss(self, nets: Networks, batch: Batch, progress: Progress) -> Losses:
        out = nets.forward(batch, self.views)
        supervised = self.supervised_loss(batch.labeled, out.labeled, out.labeled_strong)
        extras = self.labels_alone(out, batch, nets, progress, all_extras=True)
        return Losses(supervised, torch.zeros_like(supervised), extras)


def supervised() -> Supervised:
    """Weak views of the labelled images only."""
    return Supervised(strong=False)


def supervised_strong() -> Supervised:
    """Weak and strong views of the labelled images: the fair baseline, since strong views alone explain much of the
    gain that papers credit to unlabelled data.
    """
    return Supervised(strong=True)
