"""UniMatch and UniMatch V2 against the released losses, in float64, on images of one label and of many."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from sfumato.addons import join
from sfumato.errors import UsageError
from sfumato.forward import Nets
from sfumato.methods import Facts, build
from sfumato.teacher import Ema
from sfumato.types import Progress, Pseudo, ViewSpec
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Tiny, image_batch, on_images

C = 3
TASKS = pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda task: task.name)
LAYOUTS = pytest.mark.parametrize("layout", ["split", "concat"])


def setting(method, task, layout="split"):
    """Networks, and a batch of which some of the unlabeled is void and the second strong view is turned."""
    net = Tiny(C, dense=task.dense).double()
    batch = on_images(image_batch(task, method.views), torch.Tensor.double)
    u, draw = batch.unlabeled, torch.Generator().manual_seed(1)
    valid = (torch.rand(u.valid.shape, generator=draw) < 0.8).double()

    def turned(pseudo):
        return Pseudo(pseudo.target.flip(-1), pseudo.weight.flip(-1), pseudo.valid.flip(-1))

    if task.dense:
        u = replace(u, strong=(u.strong[0], u.strong[1].flip(-1)), warps=(u.warps[0], turned))
    labeled = replace(batch.labeled, valid=batch.labeled.valid.double())
    return Nets(net, Ema(net, 0.5), layout), replace(batch, labeled=labeled, unlabeled=replace(u, valid=valid))


def body(net, x):
    return net.body(x)


def head(net, features, dense):
    logits = net.head(features)
    return logits if dense else logits.mean(dim=(2, 3))


def term(logits, label, mask, valid):
    """As released: the sum over confident and valid predictions by the number of valid ones."""
    charge = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    return (charge * mask * valid).sum() / valid.sum()


def expected(nets, batch, task, *, tau, labeler, streams):
    """(L_x, L_s1, L_s2): `streams` gives the logits of both strong views."""
    u = batch.unlabeled
    p = labeler(u.weak).softmax(1).detach()
    label, mask = p.argmax(1), (p.amax(1) >= tau).double()
    supervised = torch.nn.functional.cross_entropy(nets.student(batch.labeled.x).logits, batch.labeled.y)
    turn = (lambda x: x.flip(-1)) if task.dense else (lambda x: x)
    first, second = streams
    terms = [term(first, label, mask, u.valid), term(second, turn(label), turn(mask), turn(u.valid))]
    return supervised, terms, (label, mask)


@TASKS
@LAYOUTS
@pytest.mark.parametrize("options", [{}, {"lambda_u": 0.3, "lambda_feature": 0.8, "feature_dropout": 0.75}], ids=str)
def test_unimatch(task, layout, options):
    method = build("unimatch", Facts(C), {"threshold": 0.6, "halve": False, **options}).double()
    nets, batch = setting(method, task, layout)
    net, u, rate = nets.student, batch.unlabeled, options.get("feature_dropout", 0.5)
    losses = method.loss(nets, batch, Progress(3, 9))

    plain = [head(net, body(net, x), task.dense) for x in u.strong]
    supervised, terms, (label, mask) = expected(
        nets, batch, task, tau=0.6, labeler=lambda x: net(x).logits, streams=plain
    )
    kept = (u.draw("feature dropout", 8) >= rate).double() / (1 - rate)
    dropped = head(net, body(net, u.weak) * kept[:, :, None, None], task.dense)
    perturbed = term(dropped, label, mask, u.valid)
    assert 0.1 < mask.mean() < 0.95
    torch.testing.assert_close(losses.supervised, supervised, rtol=1e-9, atol=0)
    lambda_u, lambda_feature = options.get("lambda_u", 0.5), options.get("lambda_feature", 0.5)
    torch.testing.assert_close(losses.unsupervised, lambda_u * sum(terms) / 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses.extras["feature_dropout"], lambda_feature * perturbed, rtol=1e-9, atol=0)
    want = torch.autograd.grad(supervised + lambda_u * sum(terms) / 2 + lambda_feature * perturbed, net.head.weight)
    torch.testing.assert_close(torch.autograd.grad(losses.total, net.head.weight), want, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("addon", ["logit_adjustment", "saw"])
def test_an_add_on_changes_the_loss_of_both_streams(addon):
    """The one of dropped features had a cross-entropy of its own."""
    facts = Facts(C, 64, num_labeled=8, label_counts=(100, *(1,) * (C - 1)))
    method = build("unimatch", facts, {"threshold": 0.6, "halve": False}).double()
    join(addon, method, facts)
    nets, batch = setting(method, CLASSIFICATION)
    losses, u = method.loss(nets, batch, Progress(3, 9)), batch.unlabeled
    pseudo, net, charge = losses.pseudo, nets.student, method.double().divergence
    kept = (u.draw("feature dropout", 8) >= 0.5).double() / 0.5
    dropped = head(net, body(net, u.weak) * kept[:, :, None, None], dense=False)
    want = (charge(dropped, pseudo.target) * pseudo.weight * u.valid).sum() / u.valid.sum()
    torch.testing.assert_close(losses.extras["feature_dropout"], 0.5 * want)
    plain = term(dropped, pseudo.target, pseudo.weight, u.valid)
    assert (want - plain).abs() > 1e-4
    assert not [key for key in method.state_dict() if key.startswith("extras")]
    again = deepcopy(method)
    assert again.extras[0]._method[0] is again


@TASKS
def test_unimatch_as_released(task):
    """(L_x + 0.25 L_s1 + 0.25 L_s2 + 0.5 L_fp) / 2"""
    whole, halved = (build("unimatch", Facts(C), {"halve": halve}).double() for halve in (False, True))
    nets, batch = setting(whole, task)
    a, b = (method.loss(nets, batch, Progress(3, 9)) for method in (whole, halved))
    torch.testing.assert_close(b.total, a.total / 2)
    torch.testing.assert_close(b.supervised, a.supervised / 2)
    assert halved.views == ViewSpec(strong=2, feature_dropout=0.5)
    assert (halved.weigh.threshold, halved.normalize, halved.extras[0].weight) == (0.95, "valid", 0.5)
    assert halved.lambda_u(Progress(0, 1)) == 0.5  # of the mean of two: a quarter each


def test_without_the_feature_stream_nothing_is_dropped():
    for options in ({"lambda_feature": 0.0}, {"feature_dropout": 0.0}):
        method = build("unimatch", Facts(C), options)
        assert method.views == ViewSpec(strong=2)
        assert not list(method.extras)
    with pytest.raises(UsageError, match=r"unimatch\(feature_dropout=1.0\): expected a share of the channels"):
        build("unimatch", Facts(C), {"feature_dropout": 1.0})


@TASKS
@LAYOUTS
def test_unimatch_v2(task, layout):
    method = build("unimatch_v2", Facts(C), {"threshold": 0.6}).double()
    nets, batch = setting(method, task, layout)
    with torch.no_grad():
        for parameter in nets.teacher.parameters():
            parameter.mul_(1.1)  # the teacher is not the student
    net, u, n = nets.student, batch.unlabeled, len(batch.unlabeled.weak)
    losses = method.loss(nets, batch, Progress(3, 9))

    m = 2.0 * (u.draw("complementary dropout", 8) >= 0.5).double()
    order = u.draw("stays whole", 1)[:, 0]
    m[order.argsort()[: n // 2]] = 1.0
    streams = [
        head(net, body(net, x) * factor[:, :, None, None], task.dense)
        for x, factor in zip(u.strong, (m, 2 - m), strict=True)
    ]
    supervised, terms, (label, mask) = expected(
        nets, batch, task, tau=0.6, labeler=lambda x: nets.teacher(x).logits, streams=streams
    )
    assert torch.equal(losses.pseudo.target, label)
    assert 0.1 < mask.mean() < 0.95
    torch.testing.assert_close(losses.supervised, supervised / 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses.unsupervised, sum(terms) / 4, rtol=1e-9, atol=0)
    want = torch.autograd.grad((supervised + sum(terms) / 2) / 2, net.head.weight)
    torch.testing.assert_close(torch.autograd.grad(losses.total, net.head.weight), want, rtol=1e-8, atol=1e-12)


def test_unimatch_v2_declares_what_it_needs():
    views = build("unimatch_v2", Facts(C)).views
    assert views == ViewSpec(strong=2, teacher="ema", complementary=True)
    assert build("unimatch_v2", Facts(C), {"complementary": False}).views == replace(views, complementary=False)
    assert build("unimatch_v2", Facts(C)).weigh.threshold == 0.95
