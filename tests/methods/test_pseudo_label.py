from __future__ import annotations

import pytest
import torch

from sfumato.functional.probability import probability
from sfumato.methods import Facts, build
from sfumato.types import Progress
from tests.given import step

LATE = Progress(9, 10)


def weak_logits():
    return (torch.randn((30, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3).requires_grad_()


def test_gradient_flows_through_the_logits_only():
    """Not through the label, and not through the mask: the cross-entropy's own gradient, softmax minus one-hot."""
    weak = weak_logits()
    losses = step(build("pseudo_label", Facts(4), {"threshold": 0.8}), weak, weak, progress=LATE)
    losses.unsupervised.backward()
    p = probability(weak.detach())
    top, label = p.max(dim=1)
    mask = (top >= 0.8).double().unsqueeze(1)
    expected = mask * (p - torch.nn.functional.one_hot(label, 4)) / 30
    torch.testing.assert_close(weak.grad, expected)
    assert 0 < mask.sum() < 30


def test_the_weight_ramps_up_from_exactly_nothing():
    weak = weak_logits()
    sizes = []
    for k in (0, 2, 4, 9):
        losses = step(build("pseudo_label", Facts(4), {"ramp": 0.5}), weak, weak, progress=Progress(k, 9))
        sizes.append(losses.unsupervised.item())
    assert sizes[0] == 0
    assert sizes[1] == pytest.approx(sizes[2] / 2)
    assert sizes[2] == sizes[3] > 0


def test_no_strong_view_is_asked_for():
    views = build("pseudo_label", Facts(4)).views
    assert (views.strong, views.weak_gradient, views.weak) == (0, True, True)


def test_threshold_zero_is_the_paper():
    weak = weak_logits()
    pseudo = step(build("pseudo_label", Facts(4), {"threshold": 0.0}), weak, weak, progress=LATE).pseudo
    assert (pseudo.weight == 1).all()
