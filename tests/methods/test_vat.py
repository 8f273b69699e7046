"""VAT against its formulas, in float64, and on a network with batch norm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.functional.adversarial import normal
from sfumato.methods import Facts, build
from sfumato.types import Output, Progress
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, TASKS, Tiny, image_batch, logits_batch, on_images

C = 3
END = Progress(9, 10)


class Normed(nn.Module):
    """A classifier of (N, 2, 4, 4) with batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, C))

    def forward(self, x):
        return Output(self.net(x))


def kl(t, q):
    return (t * (t.log() - q.log())).sum(1)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_loss_and_gradient(task):
    """The direction by finite differences, the losses as they are written."""
    method = build("vat", Facts(C), {"xi": 1e-5})
    net = Tiny(C, dense=task.dense).double()
    batch = on_images(image_batch(task, method.views), torch.Tensor.double)
    draw = torch.Generator().manual_seed(0)
    valid = (torch.rand(batch.unlabeled.valid.shape, generator=draw) < 0.8).double()
    u = replace(batch.unlabeled, valid=valid)
    losses = method.loss(Nets(net), replace(batch, unlabeled=u), END)

    x, p = u.weak, net(u.weak).logits.softmax(1)
    d = normal(u.draw("adversarial direction", x[0].numel())).view_as(x).double()
    d /= d.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    moved = (1e-5 * d).requires_grad_()
    charge = (kl(p.detach(), net(x + moved).logits.softmax(1)) * u.valid).sum()
    (g,) = torch.autograd.grad(charge, moved)
    r = 6 * g / g.flatten(1).norm(dim=1).clamp_min(1e-300).view(-1, 1, 1, 1)
    adversarial = (kl(p.detach(), net(x + r).logits.softmax(1)) * u.valid).sum() / u.valid.sum()
    entropy = -0.06 * ((p * p.log()).sum(1) * u.valid).sum() / u.valid.sum()
    torch.testing.assert_close(losses.unsupervised, adversarial, rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.extras["entropy"], entropy)
    torch.testing.assert_close(losses.pseudo.target, p.detach())
    got, want = (
        torch.autograd.grad(loss, list(net.parameters()))
        for loss in (losses.unsupervised + losses.extras["entropy"], adversarial + entropy)
    )
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def directions(xi, net, x, dtype):
    method = build("vat", Facts(C), {"xi": xi})
    batch = on_images(image_batch(CLASSIFICATION, method.views), lambda _: x.to(dtype))
    nets = Nets(net.to(dtype))
    return method.direction(nets, batch.unlabeled, nets.further(batch.unlabeled.weak).logits).double()


def test_the_direction_is_that_of_double_precision():
    x = torch.randn(18, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    net = Tiny(C, dense=False)
    exact = directions(1e-4, net, x, torch.float64)

    def cosine(xi):
        return F.cosine_similarity(directions(xi, net, x, torch.float32).flatten(1), exact.flatten(1))

    assert cosine(1e-2).min() > 0.99
    assert cosine(1e-6).mean() < 0.9  # the peers' step


def test_autocast_does_not_round_the_direction():
    method, net = build("vat", Facts(C)), Tiny(C, dense=False)
    batch = image_batch(CLASSIFICATION, method.views)
    seen = []

    class Watched(Nets):
        def further(self, x, **how):
            out = super().further(x, **how)
            seen.append(out.logits.dtype)
            return out

    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.loss(Watched(net), batch, END)
    assert seen == [torch.float32, torch.float32, torch.bfloat16]


def test_the_perturbed_images_leave_no_trace_in_batch_norm():
    """Two images go through that count, the labeled and the plain unlabeled ones."""
    method, net, plain = build("vat", Facts(C), {"iterations": 3}), Normed(), Normed()
    batch = image_batch(CLASSIFICATION, method.views)
    method.loss(Nets(net), batch, END).total.backward()
    for images in (batch.labeled.x, batch.unlabeled.weak):
        plain(images)
    assert net.net[1].num_batches_tracked == 2
    torch.testing.assert_close(net.state_dict(), plain.state_dict())


class Dropping(nn.Module):
    """A classifier of (N, 2, 4, 4) with batch norm that drops features at this rate."""

    def __init__(self, rate):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(32, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(rate), nn.Linear(256, C)
        )

    def forward(self, x):
        return Output(self.net(x))


def test_dropout_does_not_decide_the_direction():
    """With other masks in each pass the direction is that in which the masks differ."""
    method = build("vat", Facts(C))
    batch, found = image_batch(CLASSIFICATION, method.views), []
    for rate in (0.0, 0.3):
        losses = method.loss(Nets(Dropping(rate)), batch, END)
        found.append((losses.unsupervised, losses.extras["entropy"]))
    torch.testing.assert_close(found[1], found[0])


def test_labeled_images_have_dropout_and_so_has_the_network_afterwards():
    method, net = build("vat", Facts(C)), Dropping(0.3)
    batch = image_batch(CLASSIFICATION, method.views)
    supervised = [method.loss(Nets(net), batch, END).supervised.item() for _ in range(2)]
    assert supervised[0] != supervised[1]
    assert all(module.training for module in net.modules())


def test_only_one_backward_reaches_the_parameters():
    """A peer takes the direction by a whole backward pass, whose parameter gradients it has to delete."""
    method, net = build("vat", Facts(C)), Normed()
    batch = image_batch(CLASSIFICATION, method.views)
    losses = method.loss(Nets(net), batch, END)
    assert all(parameter.grad is None for parameter in net.parameters())
    losses.total.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_tables_have_directions_too():
    method = build("vat", Facts(5), {"lambda_entropy": 0.0})
    batch = logits_batch(CLASSIFICATION, method.views, void=0.0)

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen, self.gain = [], nn.Parameter(torch.ones(5))

        def forward(self, x):
            self.seen.append(x.detach())
            return Output(x * self.gain)

    net = Spy()
    assert method.loss(Nets(net), batch, END).unsupervised > 0
    step, perturbed = (seen - batch.unlabeled.weak for seen in net.seen[-2:])
    assert step.shape == (24, 5)
    torch.testing.assert_close(step.norm(dim=1), torch.full((24,), 1e-2), rtol=1e-3, atol=0)
    torch.testing.assert_close(perturbed.norm(dim=1), torch.full((24,), 6.0), rtol=1e-4, atol=0)


def test_the_same_step_draws_the_same_direction():
    method, net = build("vat", Facts(C)), Tiny(C, dense=True)
    batch = image_batch(SEGMENTATION, method.views)
    before = torch.get_rng_state()
    first, second = (method.loss(Nets(net), batch, END).unsupervised for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_the_entropy_is_not_ramped():
    method, net = build("vat", Facts(C)), Tiny(C, dense=False)
    batch = image_batch(CLASSIFICATION, method.views)
    start, end = (method.loss(Nets(net), batch, at) for at in (Progress(0, 10), END))
    assert start.unsupervised == 0 < end.unsupervised
    torch.testing.assert_close(start.extras["entropy"], end.extras["entropy"])


@pytest.mark.parametrize("option", ["epsilon", "xi", "iterations"])
def test_wrong_options_say_what_is_expected(option):
    with pytest.raises(UsageError, match=rf"vat\({option}=0.*\): expected a number above 0"):
        build("vat", Facts(C), {option: 0})
