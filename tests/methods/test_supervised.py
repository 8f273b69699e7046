from __future__ import annotations

import torch

from sfumato.methods import Facts, build
from sfumato.types import Batch, Labeled, Output, Progress, Pseudo, Views


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


def test_the_strong_view_is_charged_with_the_labels_of_its_own_geometry():
    draw = torch.Generator().manual_seed(1)
    weak, strong = torch.randn((2, 3, 4, 5), generator=draw), torch.randn((2, 3, 4, 5), generator=draw)
    y, valid = torch.randint(3, (2, 4, 5), generator=draw), torch.ones(2, 4, 5)
    valid[0, :, 3:] = 0  # padded on the right, and mirrored on the left

    def mirrored(pseudo):
        return Pseudo(*(part.flip(-1) for part in (pseudo.target, pseudo.weight, pseudo.valid)))

    labeled = Labeled(weak, y.masked_fill(valid == 0, 255), valid, torch.arange(2), strong, mirrored)
    got = build("supervised_strong", Facts(3, dense=True)).loss(TwoViews(weak, strong), Batch(labeled), Progress(0, 1))
    parts = [torch.nn.functional.cross_entropy(z, labeled.y, ignore_index=255) for z in (weak, strong.flip(-1))]
    torch.testing.assert_close(got.total, sum(parts) / 2)
