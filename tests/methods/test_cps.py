from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.methods.cps import with_new_head
from sfumato.models import build_model, build_segmenter
from sfumato.teacher import Ema
from sfumato.types import Progress
from tests.methods.problems import (
    CLASSIFICATION,
    SEGMENTATION,
    Tiny,
    flip,
    image_batch,
    on_images,
    with_validity,
    with_warps,
)

MIDDLE = Progress(5, 10)


def ready(task, **options):
    """A student, its method with a twin that answers otherwise, and a batch with ignored entries, all in float64."""
    student = Tiny(3, dense=task.dense).double()
    method = build("cps", Facts(3, 1, task.dense), options)
    torch.manual_seed(1)
    method.attach(student)
    batch = image_batch(task, method.views)
    draw = torch.Generator().manual_seed(2)
    seen = [(torch.rand(x.shape, generator=draw) < 0.7).double() for x in (batch.labeled.valid, batch.unlabeled.valid)]
    return student, method, on_images(with_validity(batch, *seen), torch.Tensor.double)


def plain_mean(logits, labels, weight, count):
    """Cross-entropy entry by entry: what is 0 in `weight` is left out of the sum, and `count` divides it."""
    z, y, w = logits.movedim(1, -1).reshape(-1, 3), labels.flatten().tolist(), weight.flatten().tolist()
    charges = [z[i].exp().sum().log() - z[i, y[i]] for i in range(len(z)) if w[i]]
    return torch.stack(charges).sum() / count


def reference(student, twin, batch, *, threshold=0.0, lambda_u=1.5, strong_too=False, mirror=lambda x: x):
    marked, rest = batch.labeled, batch.unlabeled
    supervised, labels, kept = 0.0, [], []
    for net in (student, twin):
        views = [marked.x, marked.strong] if strong_too else [marked.x]
        charges = [plain_mean(net(x).logits, marked.y, marked.valid, marked.valid.sum()) for x in views]
        supervised = supervised + sum(charges) / len(charges)
        p = torch.softmax(net(rest.weak).logits.detach(), dim=1)
        labels.append(p.argmax(dim=1))
        kept.append((p.amax(dim=1) >= threshold) * rest.valid)
    crossed = 0.0
    for net, other in ((student, 1), (twin, 0)):
        z = net(rest.strong[0]).logits
        crossed = crossed + plain_mean(z, mirror(labels[other]), mirror(kept[other]), rest.valid.sum())
    return supervised, lambda_u * crossed, labels


def assert_is_the_reference(student, method, batch, **about):
    nets = Nets(student, Ema(student))
    losses = method.loss(nets, batch, MIDDLE)
    supervised, crossed, labels = reference(student, method.twin, batch, **about)
    torch.testing.assert_close(losses.supervised, supervised, rtol=1e-12, atol=0)
    torch.testing.assert_close(losses.unsupervised, crossed, rtol=1e-12, atol=0)
    assert torch.equal(losses.pseudo.target, labels[1]), "telemetry judges what the student is taught"
    assert (labels[0] != labels[1]).any(), "the networks agree everywhere: the test sees no difference"
    trained = [*student.parameters(), *method.twin.parameters()]
    got = torch.autograd.grad(losses.total, trained)
    want = torch.autograd.grad(supervised + crossed, trained)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda task: task.name)
def test_loss_and_gradients_are_the_formula(task):
    assert_is_the_reference(*ready(task))


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda task: task.name)
def test_options_are_those_of_the_formula(task):
    student, method, batch = ready(task, threshold=0.8, lambda_u=6.0, labeled_strong=True)
    assert_is_the_reference(student, method, batch, threshold=0.8, lambda_u=6.0, strong_too=True)


def test_labels_follow_the_images_of_both_networks():
    student, method, batch = ready(SEGMENTATION)
    flipped = with_warps(batch, flip, lambda x: x.flip(-1))
    assert_is_the_reference(student, method, flipped, mirror=lambda x: x.flip(-1))


def test_the_average_of_the_student_labels_nothing():
    """Each network labels for the other itself; the average is what is evaluated, and no more."""
    student, method, batch = ready(SEGMENTATION)
    nets = Nets(student, Ema(student))
    for parameter in nets.teacher.module.parameters():
        parameter.zero_()
    with_average = method.loss(nets, batch, MIDDLE).total
    assert torch.equal(with_average, method.loss(Nets(student), batch, MIDDLE).total)


def test_both_networks_learn_the_labels_before_there_are_pseudo_labels():
    student, method, batch = ready(SEGMENTATION)
    losses = method.loss(Nets(student), replace(batch, unlabeled=None), MIDDLE)
    supervised, _, _ = reference(student, method.twin, batch)
    torch.testing.assert_close(losses.total, supervised)
    assert losses.pseudo is None


@pytest.mark.parametrize(
    "net",
    [
        build_model("wrn_28_2", num_classes=4, image_size=8),
        build_segmenter("small_seg", num_classes=4),
        build_segmenter("fpn", num_classes=4, frozen=True),
    ],
    ids=["wrn_28_2", "small_seg", "fpn"],
)
def test_the_twin_has_the_same_backbone_and_another_head(net):
    heads = {id(one) for head in net.heads for one in head.parameters()}
    torch.manual_seed(0)
    twin = with_new_head(net)
    torch.manual_seed(0)
    again = with_new_head(net)
    assert len(heads) < len([*net.parameters()])
    for one, other, same in zip(net.parameters(), twin.parameters(), again.parameters(), strict=True):
        assert one.data_ptr() != other.data_ptr()
        assert one.requires_grad == other.requires_grad
        assert torch.equal(other, same), "another twin of the same seed"
        if id(one) not in heads:
            assert torch.equal(one, other)
        elif one.std() > 0:
            assert not torch.equal(one, other)
            assert torch.equal(one.flatten().sort().values, other.flatten().sort().values)
    for one, other in zip(net.buffers(), twin.buffers(), strict=True):
        assert torch.equal(one, other)


def test_a_network_without_heads_is_named():
    with pytest.raises(UsageError, match=r"Linear does not say what its head is.*`heads`, a tuple of modules"):
        build("cps", Facts(3)).attach(nn.Linear(2, 3))


def test_a_head_without_anything_drawn_is_refused():
    """Of zeros in another order the twin would be the student, and say what it says."""
    net = Tiny(3, dense=True)
    for parameter in net.head.parameters():
        parameter.data.zero_()
    with pytest.raises(UsageError, match=r"head of Tiny begins with constants.*would not differ.*Draw its weights"):
        with_new_head(net)
