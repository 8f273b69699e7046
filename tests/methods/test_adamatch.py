from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.methods.adamatch import Interpolated, between
from sfumato.models import build_model
from sfumato.rules import CosineRamp
from sfumato.types import Batch, Labeled, Progress, Unlabeled, ViewSpec
from sfumato.views.draws import draw_for
from tests.given import step

SPEC = ViewSpec(labeled_strong=True)


def network():
    torch.manual_seed(0)
    return build_model("small", num_classes=3, in_channels=1, image_size=8).train()


def images(seed, n):
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * (1 + seed)


def batch():
    """Labeled and unlabeled images of different scale: a batch norm tells them apart."""
    weak, strong = images(4, 6), images(5, 6)
    slots = torch.arange(4)
    return Batch(
        Labeled(
            images(0, 4), torch.tensor([0, 1, 2, 0]), torch.ones(4), slots, images(1, 4), draw=draw_for(0, 0, slots)
        ),
        Unlabeled(weak, (strong,), torch.ones(6), torch.arange(6)),
    )


def test_labeled_logits_lie_between_the_joint_and_the_lone_pass():
    for layout in ("split", "concat"):
        plain = Nets(network(), layout=layout).forward(batch(), SPEC)
        nets = Nets(network(), layout=layout)
        views = Interpolated(nets).forward(batch(), SPEC)
        alone = network()(torch.cat([images(0, 4), images(1, 4)])).logits.split(4)
        share = batch().labeled.draw("interpolation", 6).split(3, dim=1)
        for k, (got, joint) in enumerate(
            [(views.labeled, plain.labeled), (views.labeled_strong, plain.labeled_strong)]
        ):
            want = share[k] * joint.logits + (1 - share[k]) * alone[k]
            torch.testing.assert_close(got.logits, want)
            assert (joint.logits - alone[k]).abs().max() > 0.05
        torch.testing.assert_close(views.strong[0].logits, plain.strong[0].logits)


def test_the_lone_pass_moves_no_running_statistics_and_has_gradient():
    plain, nets = Nets(network()), Nets(network())
    plain.forward(batch(), SPEC)
    views = Interpolated(nets).forward(batch(), SPEC)
    for got, want in zip(nets.student.buffers(), plain.student.buffers(), strict=True):
        assert torch.equal(got, want)
    views.labeled.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in nets.student.parameters())


def test_shares_are_of_each_image_and_class():
    joint, alone = torch.ones(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
    share = torch.rand(2, 3)
    assert torch.equal(between(joint, alone, share), share[..., None, None].expand(2, 3, 4, 5))
    draws = batch().labeled.draw("interpolation", 3)
    assert draws.unique().numel() == 12


def test_without_unlabeled_images_there_is_one_pass():
    looks = []
    student = network()
    student.register_forward_hook(lambda net, given, out: looks.append(len(given[0])))
    Interpolated(Nets(student)).forward(Batch(batch().labeled), SPEC)
    assert looks == [8]


def test_the_ramp_is_half_a_cosine_over_half_of_training():
    steps, rise = 101, CosineRamp(2.0)
    for k in range(steps):
        wanted = 0.5 - 0.5 * math.cos(min(math.pi, 2 * math.pi * k / (steps - 1)))
        assert math.isclose(rise(Progress(k, steps)), 2.0 * wanted, abs_tol=1e-12)
    assert CosineRamp(3.0, over=0.0)(Progress(0, 10)) == 3.0


def test_the_loss_by_hand():
    """In float64, at the end of the ramp: alignment to the labeled predictions, a threshold relative to theirs."""
    draw = torch.Generator().manual_seed(1)
    labeled, weak, strong = (torch.randn(n, 4, dtype=torch.float64, generator=draw) * 2 for n in (6, 20, 20))
    y = torch.randint(4, (6,), generator=draw)
    method = build("adamatch", Facts(4), {"threshold": 0.9, "target": "soft", "interpolate": False}).double()
    losses = step(method, weak, strong, labeled=labeled, y=y, progress=Progress(9, 10))
    p_x, p = labeled.softmax(1), weak.softmax(1)
    q = p * (p_x.mean(0) + 1e-6) / (p.mean(0) + 1e-6)
    q = q / q.sum(1, keepdim=True)
    kept = (q.amax(1) >= 0.9 * p_x.amax(1).mean()).double()
    assert 0 < kept.sum() < 20
    torch.testing.assert_close(losses.pseudo.weight, kept)
    wanted = (kept * -(q * strong.log_softmax(1)).sum(1)).mean()
    torch.testing.assert_close(losses.unsupervised, wanted)
    torch.testing.assert_close(losses.supervised, nn.functional.cross_entropy(labeled, y))


def test_names_are_checked():
    with pytest.raises(UsageError, match="input should be 'hard' or 'soft'"):
        build("adamatch", Facts(3), {"target": "sfot"})
