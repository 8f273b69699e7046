"""CR-Match against its equations, in float64, and where its gradients flow."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.models import build_model
from sfumato.rules import FeatureDistance, Rotation
from sfumato.types import Batch, Labeled, Output, Progress, Pseudo, Unlabeled, Views
from sfumato.views.draws import draw_for
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, Echo, logits_batch, on_images

C = 5


def method(**options):
    made = build("crmatch", Facts(C), {"threshold": 0.6, **options})
    torch.manual_seed(0)
    made.attach(Echo(classes=C))
    return made.double()


def run(one, *, layout="split", marked=False):
    batch = on_images(logits_batch(CLASSIFICATION, one.views, classes=C, void=0.0), torch.Tensor.double)
    if marked:
        batch = on_images(batch, lambda x: x.clone().requires_grad_())
    return batch, one.loss(nets_of(Echo(classes=C).double(), layout=layout), batch, Progress(5, 10))


def test_the_losses_by_hand():
    one = method(lambda_u=0.5, lambda_distance=2.0, lambda_rotation=0.25)
    batch, losses = run(one)
    u, (distance, rotation) = batch.unlabeled, one.extras
    p, strong = u.weak.softmax(1), u.strong[0]
    kept = (p.amax(1) >= 0.6).double()
    assert 0 < kept.sum() < len(kept)
    charged = F.cross_entropy(strong, p.argmax(1), reduction="none")
    torch.testing.assert_close(losses.unsupervised, 0.5 * (kept * charged).mean())

    g = [view @ distance.map.weight.T + distance.map.bias for view in (u.weak, strong)]
    cosines = (g[0] * g[1]).sum(1) / (g[0].norm(dim=1) * g[1].norm(dim=1))
    torch.testing.assert_close(losses.extras["feature_distance"], 2.0 * (kept * cosines.clamp_min(0)).mean())

    by = (4 * u.draw("rotation", 1)[:, 0]).long()
    assert by.unique().tolist() == [0, 1, 2, 3]
    rows = torch.stack([row.roll(-int(k) * C // 4) for row, k in zip(u.weak, by, strict=True)])
    torch.testing.assert_close(losses.extras["rotation"], 0.25 * F.cross_entropy(rotation.head(rows), by))
    torch.testing.assert_close(losses.total, losses.supervised + losses.unsupervised + sum(losses.extras.values()))


def test_features_at_a_right_angle_are_far_enough():
    distance, slots = FeatureDistance(dim=2), torch.arange(3)
    distance.attach(Echo(classes=2))
    with torch.no_grad():
        distance.map.weight.copy_(torch.eye(2))
        distance.map.bias.zero_()
    weak = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    strong = torch.tensor([[3.0, 0.0], [-1.0, 0.5], [0.0, -2.0]])
    batch = Batch(Labeled(weak, slots, torch.ones(3), slots), Unlabeled(weak, (strong,), torch.ones(3), slots))
    views = Views(Output(weak, weak), weak=Output(weak, weak), strong=(Output(strong, strong),))
    for weight, want in ((torch.ones(3), 1 / 3), (torch.tensor([0.0, 1.0, 1.0]), 0.0)):
        loss = distance(views, batch, Pseudo(slots % 2, weight, torch.ones(3)), None)
        torch.testing.assert_close(loss.item(), want)


def test_every_weight_is_one():
    """In the peer lambda_u does nothing and the weight of the rotation is a switch."""
    _, plain = run(method())
    for option, read in (
        ("lambda_u", lambda x: x.unsupervised),
        ("lambda_distance", lambda x: x.extras["feature_distance"]),
        ("lambda_rotation", lambda x: x.extras["rotation"]),
    ):
        _, other = run(method(**{option: 0.3}))
        torch.testing.assert_close(read(other), 0.3 * read(plain))
    assert set(run(method(lambda_rotation=0.0))[1].extras) == {"feature_distance"}
    assert set(run(method(lambda_distance=0.0))[1].extras) == {"rotation"}


@pytest.mark.parametrize("layout", ["split", "concat"])
def test_where_the_distance_sends_gradient_is_an_option_and_not_the_layout(layout):
    for gradient in ("both", "strong"):
        batch, losses = run(method(gradient=gradient), layout=layout, marked=True)
        views = [batch.unlabeled.strong[0], batch.unlabeled.weak]
        strong, weak = torch.autograd.grad(losses.extras["feature_distance"], views, allow_unused=True)
        assert strong.abs().sum() > 0
        assert (weak is not None and weak.abs().sum() > 0) == (gradient == "both")


def test_turned_images_move_no_running_statistics_and_teach():
    torch.manual_seed(0)
    net = build_model("small", num_classes=3, in_channels=1, image_size=8).train()
    rotation, slots = Rotation(), torch.arange(6)
    rotation.attach(net)
    x = torch.randn(6, 1, 8, 8)
    batch = Batch(
        Labeled(x, slots % 3, torch.ones(6), slots),
        Unlabeled(x, (x,), torch.ones(6), slots, draw=draw_for(0, 0, slots)),
    )
    before = [buffer.clone() for buffer in net.buffers()]
    out = net(x)
    seen = [buffer.clone() for buffer in net.buffers()]
    assert any(not torch.equal(a, b) for a, b in zip(before, seen, strict=True))
    loss = rotation(Views(out, weak=out), batch, Pseudo(slots % 3, torch.ones(6), torch.ones(6)), Nets(net))
    assert all(torch.equal(a, b) for a, b in zip(seen, net.buffers(), strict=True))
    loss.backward()
    assert all(one.grad is not None for one in net.backbone.parameters())


def test_no_maps_and_no_wrong_names():
    with pytest.raises(UsageError, match="crmatch is for one class per image only: it compares one feature"):
        build("crmatch", Facts(3, dense=True))
    with pytest.raises(UsageError, match="input should be 'both' or 'strong'"):
        build("crmatch", Facts(3), {"gradient": "bth"})
    with pytest.raises(UsageError, match=r"FeatureDistance\(dim=0\): expected at least 1"):
        FeatureDistance(dim=0)
    with pytest.raises(UsageError, match=r"Rotation\(view='wek'\): expected one of weak, strong. Did you mean 'weak'"):
        Rotation(view="wek")
