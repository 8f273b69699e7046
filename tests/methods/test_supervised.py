from __future__ import annotations

import torch

from sfumato.methods import Facts, build
from sfumato.types import Batch, Labeled, Output, Progress, Views


class TwoViews:
    """Other logits for the strong view of the labelled images than for the weak."""

    def __init__(self, weak, strong):
        self.weak, self.strong = weak, strong

    def forward(self, batch, spec):
        return Views(Output(self.weak), Output(self.strong) if spec.labeled_strong else None)


def losses(name):
    draw = torch.Generator().manual_seed(0)
    weak, strong = torch.randn((6, 3), generator=draw), torch.randn((6, 3), generator=draw)
    y, valid = torch.tensor([0, 1, 2, 255, 1, 0]), torch.tensor([1.0, 1, 1, 0, 1, 1])
    batch = Batch(Labeled(weak, y, valid, torch.arange(6), strong))
    got = build(name, Facts(3)).loss(TwoViews(weak, strong), batch, Progress(0, 1))
    kept = valid > 0
    return got, [torch.nn.functional.cross_entropy(z[kept], y[kept]) for z in (weak, strong)]


def test_weak_views_only():
    got, (weak, _) = losses("supervised")
    torch.testing.assert_close(got.total, weak)
    assert not build("supervised", Facts(3)).views.weak


def test_strong_views_count_as_much():
    got, (weak, strong) = losses("supervised_strong")
    torch.testing.assert_close(got.total, (weak + strong) / 2)
    assert got.unsupervised.item() == 0
