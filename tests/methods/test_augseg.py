"""AugSeg: who is helped by labelled boxes, what the mixed images are to predict, and the loss, by loops over images."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.methods.augseg import certainty
from sfumato.teacher import Ema
from sfumato.types import Pasting, Progress, ViewSpec
from sfumato.views.cutmix import from_boxes
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Echo, Task, logits_batch

C, SIZE = 5, (6, 8)
TASK = Task("segmentation", SIZE)


class Recorder(Echo):
    def forward(self, x, perturb=None):
        self.last = x
        return super().forward(x, perturb)


def boxes(slots):
    """Left, top, right, bottom of each image's two boxes, no two alike."""
    left, top = slots % 4, slots % 3
    return [torch.stack([left + k, top, left + 3 + k, top + 2 + k], dim=1) for k in (0, 1)]


def made(**options):
    """The method, a batch with real boxes, what the student saw, and the losses. 4 labeled, 12 unlabeled images."""
    method = build("augseg", Facts(C, dense=True), options).double()
    batch = logits_batch(TASK, method.views, labeled=4, unlabeled=12)
    n = len(batch.unlabeled.weak)  # this rank's
    mine = batch.unlabeled.draw.slots
    labeled, others = (
        from_boxes(box, SIZE, partner) for box, partner in zip(boxes(mine), (torch.arange(n), None), strict=True)
    )
    x, u = batch.labeled, batch.unlabeled
    batch = replace(
        batch,
        labeled=replace(x, x=x.x.double(), valid=x.valid.double()),
        unlabeled=replace(
            u,
            weak=u.weak.double(),
            strong=(u.strong[0].double(),),
            valid=u.valid.double(),
            pasting=Pasting(labeled, others),
        ),
    )
    net = Recorder().double()
    losses = method.loss(Nets(net, Ema(net)), batch, Progress(3, 9))
    return method, batch, net, losses


def certainty_by_hand(z, valid):
    total = count = 0.0
    for pixel, v in zip(z.flatten(1).T, valid.flatten(), strict=True):
        if v:
            p = pixel.softmax(0)
            total += float(p.max() * (1 + (p * p.log()).sum() / math.log(len(p))))
            count += 1
    return total / count


def mixed_by_hand(batch, tau):
    """Images, labels, weights and validity, pasted box by box; and who was helped."""
    x, u = batch.labeled, batch.unlabeled
    p = u.weak.softmax(1)
    planes = [u.strong[0].clone(), p.argmax(1), (p.amax(1) >= tau).double(), u.valid.clone()]
    known = [x.x, x.y.masked_fill(x.valid == 0, 0), torch.ones_like(x.valid), x.valid]
    draw = u.draw("label-adaptive boxes", 1)[:, 0]
    first, second = boxes(u.draw.slots)
    helped = []
    stage = [plane.clone() for plane in planes]
    for i in range(len(p)):
        helped.append(bool(draw[i] >= certainty_by_hand(u.weak[i], u.valid[i])))
        if helped[-1]:
            left, top, right, bottom = first[i].tolist()
            for plane, own in zip(stage, known, strict=True):
                plane[i, ..., top:bottom, left:right] = own[i // 3, ..., top:bottom, left:right]
    for i in range(len(p)):
        left, top, right, bottom = second[i].tolist()
        for plane, other in zip(planes, stage, strict=True):
            plane[i, ..., top:bottom, left:right] = other[i ^ 1, ..., top:bottom, left:right]
    return planes, helped


@pytest.mark.parametrize("normalize", ["all", "valid"])
def test_by_hand(normalize):
    _, batch, net, losses = made(threshold=0.7, normalize=normalize, lambda_u=2.0)
    (images, label, weight, valid), helped = mixed_by_hand(batch, 0.7)
    assert 2 < sum(helped) < 11
    assert torch.equal(net.last[4:], images)
    charge = torch.nn.functional.cross_entropy(images, label, reduction="none")
    divisor = valid.numel() if normalize == "all" else valid.sum()
    torch.testing.assert_close(losses.unsupervised, 2 * (charge * weight * valid).sum() / divisor, rtol=1e-9, atol=0)
    assert losses.supervised > 0


def test_the_pseudo_label_handed_on_is_the_teachers():
    _, batch, _, losses = made()
    u = batch.unlabeled
    assert torch.equal(losses.pseudo.target, u.weak.argmax(1))
    assert torch.equal(losses.pseudo.weight, (u.weak.softmax(1).amax(1) >= 0.95).double())
    assert torch.equal(losses.pseudo.valid, u.valid)


def test_certainty():
    draw = torch.Generator().manual_seed(0)
    z = torch.randn((6, C, *SIZE), generator=draw, dtype=torch.float64) * 3
    valid = (torch.rand((6, *SIZE), generator=draw) < 0.6).double()
    want = torch.tensor([certainty_by_hand(*one) for one in zip(z, valid, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(certainty(z.softmax(1), valid), want)
    assert certainty(z.softmax(1), torch.zeros_like(valid)).tolist() == [0.0] * 6
    sure = torch.nn.functional.one_hot(torch.arange(3), C).double()
    torch.testing.assert_close(certainty(sure, torch.ones(3)), torch.ones(3, dtype=torch.float64))
    flat = torch.full((2, C), 1 / C, dtype=torch.float64)
    torch.testing.assert_close(certainty(flat, torch.ones(2)), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_void_of_a_labeled_box_gives_no_gradient():
    method, batch, net, losses = made(threshold=0.0)
    batch.labeled.x.requires_grad_()
    losses = method.loss(Nets(net, Ema(net)), batch, Progress(3, 9))
    (gradient,) = torch.autograd.grad(losses.unsupervised, batch.labeled.x)
    void = batch.labeled.valid == 0
    assert gradient.abs().sum() > 0  # what was pasted teaches
    assert void.any()
    assert (gradient.movedim(1, -1)[void] == 0).all()


def on_ranks():
    _, _, net, losses = made(threshold=0.7)
    world = distributed.world_size()
    return distributed.mean_over_ranks(losses.unsupervised.detach()), distributed.gather(net.last[4 // world :])


def test_two_ranks_equal_one(two_ranks):
    loss, images = on_ranks()
    for got, seen in two_ranks.call(on_ranks):
        torch.testing.assert_close(got, loss)
        assert torch.equal(seen, images)


def test_of_images_with_one_label_nothing_is_pasted():
    method = build("augseg", Facts(C))
    batch = logits_batch(CLASSIFICATION, method.views)
    losses = method.loss(nets_of(), batch, Progress(3, 9))
    u = batch.unlabeled
    p = u.weak.softmax(1)
    charge = torch.nn.functional.cross_entropy(u.strong[0], p.argmax(1), reduction="none")
    torch.testing.assert_close(losses.unsupervised, (charge * (p.amax(1) >= 0.95) * u.valid).sum() / len(p))


def test_what_it_declares_and_needs():
    method = build("augseg", Facts(C))
    assert method.views == ViewSpec(strong=1, uncut=1, pasting=True, teacher="ema")
    batch = logits_batch(SEGMENTATION, method.views)
    batch = replace(batch, unlabeled=replace(batch.unlabeled, pasting=None))
    with pytest.raises(UsageError, match="pastes boxes into the last strong view, but the batch says of none"):
        method.loss(nets_of(), batch, Progress(0, 9))
