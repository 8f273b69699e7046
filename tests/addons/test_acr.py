"""ACR in a method: both branches' targets and weights, the estimate, and what is deployed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.anchors import adjustment
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import Facts
from sfumato.telemetry import Telemetry
from sfumato.types import Progress
from tests.addons.cases import joined
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Tiny, image_batch

COUNTS = (100, 40, 5)
PI = torch.tensor(COUNTS) / 145
tasks = pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda t: t.name)


def made(task=CLASSIFICATION, *, net=None, **options):
    facts = Facts(3, 64, task.dense, num_labeled=8, label_counts=COUNTS)
    method = joined("acr", "fixmatch", task).make(facts, options)
    method.weigh.weigh.threshold = options.get("threshold", 0.95)
    torch.manual_seed(0)
    method.attach(net or Tiny(3, dense=task.dense))
    with torch.no_grad():  # so that it says all there is to say
        method.extras[-1].second.head.weight.normal_(generator=torch.Generator().manual_seed(4))
    return method


def rows(x):
    return x.movedim(1, -1).reshape(-1, 3)


@tasks
def test_the_losses_are_those_of_the_code(task):
    net = Tiny(3, dense=task.dense)
    method = made(task, net=net, threshold=0.6)
    batch = image_batch(task, method.views)
    losses = method.loss(nets_of(net), batch, Progress(0, 100))
    views = nets_of(net).forward(batch, method.views)
    second = method.extras[-1].second
    z, z2 = rows(views.weak.logits), rows(second(views.weak.features))

    def sure(logits):
        return (probability(logits).max(dim=1).values >= 0.6).float()

    label = (z - 2 * PI.log()).argmax(dim=1)  # before the estimate begins tau is tau_1
    weight = sure(z - 2 * PI.log()) + sure(z)
    assert torch.equal(losses.pseudo.target.flatten(), label)
    assert torch.equal(losses.pseudo.weight.flatten(), weight)
    assert {0.0, 1.0, 2.0} >= set(weight.tolist())
    assert len(set(weight.tolist())) > 1

    twice = sure(z - 2 * PI.log()) + sure(z2)
    known = cross_entropy(rows(second(views.labeled.features)) + 2 * PI.log(), batch.labeled.y.flatten()).mean()
    want = known + (cross_entropy(rows(second(views.strong[0].features)), label) * twice).mean()
    torch.testing.assert_close(losses.extras["acr"], want)


@pytest.mark.parametrize("name", ["uda", "softmatch", "dash"])
def test_a_target_is_the_most_probable_class_though_the_methods_own_is_a_distribution(name):
    method = joined("acr", name, CLASSIFICATION).make(Facts(3, 64, num_labeled=8, label_counts=COUNTS), {})
    net = Tiny(3, dense=False)
    torch.manual_seed(0)
    method.attach(net)
    nets, batch = nets_of(net), image_batch(CLASSIFICATION, method.views)
    label = (nets.forward(batch, method.views).weak.logits - 2 * PI.log()).argmax(dim=1)
    target = method.loss(nets, batch, Progress(0, 100)).pseudo.target
    assert torch.equal(target if target.dtype == torch.int64 else target.argmax(dim=1), label)
    assert target.dtype == torch.int64 or bool(((target == 0) | (target == 1)).all())


def test_the_two_targets_are_adjusted_apart():
    net = Tiny(3, dense=False)
    plain, other = (made(net=net, strength=s, threshold=0.4) for s in (2.0, 0.0))
    batch = image_batch(CLASSIFICATION, plain.views)
    a, b = (m.loss(nets_of(net), batch, Progress(0, 100)) for m in (plain, other))
    assert not torch.equal(a.pseudo.target, b.pseudo.target)
    assert torch.equal(b.pseudo.target, net(batch.unlabeled.weak).logits.argmax(dim=1))
    torch.testing.assert_close(a.extras["acr"], b.extras["acr"])


def test_the_estimate_counts_what_the_second_layer_is_sure_of():
    """In the code a class counts once a batch, however often it is predicted."""
    net = Tiny(3, dense=False)
    method = made(net=net, threshold=0.6, start=0.1, momentum=0.9)
    batch, rule = image_batch(CLASSIFICATION, method.views), method.extras[-1]
    q = probability(rule.second(net(batch.unlabeled.weak).features)).detach()
    sure = q.argmax(dim=1)[q.max(dim=1).values >= 0.6]
    share = torch.bincount(sure, minlength=3) / len(sure)
    assert len(sure) > share.count_nonzero()
    method.loss(nets_of(net), batch, Progress(9, 100))
    torch.testing.assert_close(rule.estimate.value, torch.full((3,), 1 / 3))
    assert rule.tau == 2.0
    method.loss(nets_of(net), batch, Progress(10, 100))
    torch.testing.assert_close(rule.estimate.value, 0.9 * torch.full((3,), 1 / 3) + 0.1 * share)
    torch.testing.assert_close(rule.tau, adjustment(rule.estimate.value, PI, 2.0))


def test_reading_changes_nothing_and_observing_learns():
    net = Tiny(3, dense=False)
    method = made(net=net, threshold=0.6, start=0.0, momentum=0.9)
    batch, rule, nets = image_batch(CLASSIFICATION, method.views), method.extras[-1], nets_of(net)
    method.loss(nets, batch, Progress(1, 100))
    before = {key: value.clone() for key, value in rule.state_dict().items()}
    first, second = (rule(nets.forward(batch, method.views), batch, None, nets) for _ in range(2))
    assert torch.equal(first, second)
    for key, value in rule.state_dict().items():
        assert torch.equal(value, before[key]), key


@tasks
def test_labels_alone_teach_the_second_layer(task):
    net = Tiny(3, dense=task.dense)
    method = made(task, net=net, start=0.0)
    batch, rule = replace(image_batch(task, method.views), unlabeled=None), method.extras[-1]
    losses = method.loss(nets_of(net), batch, Progress(5, 100))
    z = rows(rule.second(net(batch.labeled.x).features))
    want = cross_entropy(z + 2 * PI.log(), batch.labeled.y.flatten()).mean()
    torch.testing.assert_close(losses.extras["acr"], want)
    assert rule.tau == 2.0  # nothing was estimated


def test_a_pseudo_label_that_counts_twice_covers_one_image():
    net = Tiny(3, dense=False)
    method = made(net=net, threshold=0.4)
    batch, telemetry = image_batch(CLASSIFICATION, method.views), Telemetry(["a", "b", "c"])
    losses = method.loss(nets_of(net), batch, Progress(0, 100))
    telemetry.observe(losses, torch.zeros_like(batch.unlabeled.index), 0)
    assert losses.pseudo.weight.max() == 2
    share = (losses.pseudo.weight > 0).float().mean().item()
    assert telemetry.read()["pl/coverage"] == pytest.approx(share)


def test_targets_follow_the_estimate():
    method = made()
    rule, p = method.extras[-1], torch.tensor([[0.5, 0.3, 0.2]])
    rule.estimate.average.copy_(PI)
    rule.estimate.batches += 1
    assert method.target(p).item() == 0  # as the labels: hardly adjusted
    rule.estimate.average.copy_(PI.flip(0))
    assert method.target(p).item() == 2  # the reverse: nearly by pi squared


@tasks
def test_the_network_that_is_kept_ends_in_the_second_layer(task):
    net = Tiny(3, dense=task.dense)
    method = made(task, net=net)
    batch = image_batch(task, method.views)
    nets = nets_of(net)
    nets.teacher = None
    method.loss(nets, batch, Progress(0, 10))
    want = method.extras[-1].second(net(batch.labeled.x).features)
    torch.testing.assert_close(probability(method.deployed(net)(batch.labeled.x).logits), probability(want))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threshold": 2.0}, "acr(threshold=2.0, start=0.012): expected numbers between 0 and 1."),
        ({"start": -1.0}, "acr(threshold=0.95, start=-1.0): expected numbers between 0 and 1."),
        ({"label_strength": -1.0}, "expected numbers of at least 0; 0 adjusts nothing"),
        ({"momentum": 1.0}, "momentum=1.0"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UsageError) as error:
        made(**options)
    assert text in str(error.value)


@pytest.mark.parametrize("name", ["pi_model", "mean_teacher", "uncertainty_weighted"])
def test_methods_that_compare_predictions_are_refused(name):
    with pytest.raises(UsageError, match=r"charges predictions, by another measure than the cross-entropy: take fix"):
        joined("acr", name, CLASSIFICATION).make(Facts(3, 64, num_labeled=8, label_counts=COUNTS), {})
