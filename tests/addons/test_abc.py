"""ABC in a method: what its layer is charged for, and where it ends up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import Facts
from sfumato.train import Result
from sfumato.types import Progress
from tests.addons.cases import joined
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Echo, Tiny, image_batch, logits_batch

COUNTS = (40, 10, 4)


def made(task=CLASSIFICATION, *, name="fixmatch", net=None, counts=COUNTS, **options):
    classes = len(counts)
    case = joined("abc", name, task)
    method = case.make(Facts(classes, 64, task.dense, num_labeled=8, label_counts=counts), options)
    torch.manual_seed(0)
    method.attach(net or Tiny(classes, dense=task.dense))
    return method


def loss_of(method, net, batch, progress=Progress(0, 10)):  # noqa: B008
    return method.loss(nets_of(net), batch, progress)


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda t: t.name)
@pytest.mark.parametrize(("target", "prior"), [("soft", "labeled"), ("hard", "labeled"), ("soft", (1.0, 2.0, 5.0))])
def test_the_loss_is_that_of_the_paper(task, target, prior):
    """Sample by sample, with the numbers that are drawn. Another prior draws pseudo-labels and no labels."""
    net, progress = Tiny(3, dense=task.dense), Progress(6, 9)
    method = made(task, net=net, target=target, threshold=0.5, prior=prior)
    method.views = replace(method.views, strong=2)
    with torch.no_grad():  # so that it says all there is to say
        method.extras[-1].second.head.weight.normal_(generator=torch.Generator().manual_seed(4))
    batch = image_batch(task, method.views)
    got = loss_of(method, net, batch, progress).extras["abc"]

    layer, u = method.extras[-1].second, batch.unlabeled
    chance = 4.0 / torch.tensor(COUNTS)
    chance_u = chance if prior == "labeled" else 1.0 / torch.tensor(prior)
    places = 12 if task.dense else 1
    views = nets_of(net).forward(batch, method.views)

    def rows(out):
        z = layer(out.features)
        return z.movedim(1, -1).reshape(-1, 3)

    y, z = batch.labeled.y.flatten(), rows(views.labeled)
    kept = batch.labeled.draw("abc", places).flatten() < chance[y]
    want = (cross_entropy(z, y) * kept).mean()
    q = probability(rows(views.weak)).detach()
    label = q.argmax(dim=1)
    now = 1 - 6 / 8 * (1 - chance_u[label])
    counted = (u.draw("abc", places).flatten() < now) & (q.max(dim=1).values >= 0.5)
    for strong in views.strong:
        want = want + (cross_entropy(rows(strong), q if target == "soft" else label) * counted).mean()
    torch.testing.assert_close(got, want)
    assert 0 < kept.float().mean() < 1
    assert 0 < counted.float().mean() < 1


def test_a_learned_prior_sees_what_the_method_predicts():
    net = Tiny(3, dense=False)
    method = made(net=net, prior="predicted", momentum=0.0)
    batch = image_batch(CLASSIFICATION, method.views)
    loss_of(method, net, batch)
    predicted = probability(nets_of(net).forward(batch, method.views).weak.logits).mean(dim=0)
    torch.testing.assert_close(method.extras[-1].prior.value, predicted)


def test_a_learned_prior_is_not_for_labels_alone():
    with pytest.raises(
        UsageError, match=r"prior='estimated' is learned from predictions for unlabeled images, and the"
    ):
        made(name="supervised", prior="estimated")


def test_pseudo_labels_are_the_second_layers_own():
    """The network's own layer may say what it will."""
    net = Tiny(3, dense=False)
    method = made(net=net, threshold=0.0)
    batch = image_batch(CLASSIFICATION, method.views)
    before = loss_of(method, net, batch).extras["abc"]
    with torch.no_grad():
        net.head.weight.neg_()
    torch.testing.assert_close(loss_of(method, net, batch).extras["abc"], before)


def test_its_gradient_shapes_the_features_and_not_the_first_layer():
    net = Tiny(3, dense=False)
    method = made(net=net)
    loss_of(method, net, image_batch(CLASSIFICATION, method.views)).extras["abc"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.body.parameters())
    assert net.head.weight.grad is None
    assert method.extras[-1].second.head.weight.grad.abs().sum() > 0


def test_two_strong_views_are_both_charged():
    net = Tiny(3, dense=False)
    method = made(net=net, name="unimatch", threshold=0.0)
    batch = image_batch(CLASSIFICATION, method.views)
    images = [view.clone().requires_grad_() for view in batch.unlabeled.strong]
    batch = replace(batch, unlabeled=replace(batch.unlabeled, strong=tuple(images)))
    loss_of(method, net, batch).extras["abc"].backward()
    assert len(images) == 2
    assert all(image.grad.abs().sum() > 0 for image in images)


def test_a_class_without_labels_is_kept_and_nothing_is_infinite():
    """The reference divides 0 by 0: with such a class it keeps no sample of any."""
    net = Tiny(3, dense=False)
    method = made(net=net, counts=(40, 0, 4))
    torch.testing.assert_close(method.extras[-1].chance, torch.tensor([0.1, 1.0, 1.0]))
    assert loss_of(method, net, image_batch(CLASSIFICATION, method.views)).extras["abc"] > 0


def test_labels_alone_train_it():
    net = Tiny(3, dense=False)
    method = made(net=net, name="supervised")
    assert loss_of(method, net, image_batch(CLASSIFICATION, method.views)).extras["abc"] > 0


@pytest.mark.parametrize("name", ["fixmatch", "comatch", "simmatch", "marginmatch"])
def test_it_is_trained_in_the_warm_start_too(name):
    """What is deployed is the second layer, which is to be as old as the network."""
    net = Tiny(3, dense=False)
    method = made(net=net, name=name)
    batch = replace(image_batch(CLASSIFICATION, method.views), unlabeled=None)
    losses, alone = (loss_of(m, net, batch) for m in (method, made(net=net, name="supervised")))
    torch.testing.assert_close(losses.extras["abc"], alone.extras["abc"])
    losses.extras["abc"].backward()
    assert method.extras[-1].second.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("addon", ["abc", "acr"])
def test_a_layer_that_was_never_trained_is_not_deployed(addon):
    net = Tiny(3, dense=False)
    method = joined(addon, "fixmatch", CLASSIFICATION).make(Facts(3, 64, label_counts=COUNTS), {})
    method.attach(net)
    assert method.deployed(net) is net
    assert method.deployed(net, student=True) is net
    loss_of(method, net, image_batch(CLASSIFICATION, method.views))
    assert method.deployed(net) is not net


@pytest.mark.parametrize("task", [CLASSIFICATION, SEGMENTATION], ids=lambda t: t.name)
def test_the_network_that_is_kept_ends_in_the_second_layer(task):
    net = Tiny(3, dense=task.dense)
    method = made(task, net=net)
    batch = image_batch(task, method.views)
    loss_of(method, net, batch)
    kept, x = method.deployed(net), batch.labeled.x
    second = method.extras[-1].second
    want = probability(second(net(x).features))
    torch.testing.assert_close(probability(kept(x).logits), want)
    assert not torch.allclose(probability(net(x).logits), want)


def test_of_an_average_the_averaged_layer_is_kept():
    net = Tiny(3, dense=False)
    method = made(net=net)
    nets = nets_of(net)  # momentum 0.5 at most, ramped: (1 + k) / (10 + k)
    batch = image_batch(CLASSIFICATION, method.views)
    start = method.extras[-1].second.head.weight.clone()
    method.loss(nets, batch, Progress(0, 10))
    with torch.no_grad():
        method.extras[-1].second.head.weight += 1
    kept = method.deployed(net).head.weight
    torch.testing.assert_close(kept, start + 1 - nets.momentum(0))
    assert 0 < nets.momentum(0) < 1


@pytest.mark.parametrize(("addon", "options"), [("abc", {}), ("acr", {}), ("cossl", {"start": 0.0})])
def test_the_weights_themselves_have_the_layer_itself(addon, options):
    """Not a network of which the body is the student's and the last layer the average's."""
    net = Tiny(3, dense=False)
    method = joined(addon, "fixmatch", CLASSIFICATION).make(Facts(3, 64, label_counts=COUNTS), options)
    method.attach(net)
    nets = nets_of(net)
    method.loss(nets, image_batch(CLASSIFICATION, method.views), Progress(0, 10))
    own = method.extras[-1].second.head.weight
    with torch.no_grad():
        own += 1
    result = Result(nets, method, torch.device("cpu"), [], None, None, None, None, [], 0.0, 0.0, None)
    assert torch.equal(result.student.head.weight, own)
    assert not torch.allclose(result.model.head.weight, own)


def test_a_teachers_features_go_through_the_averaged_layer():
    net = Tiny(3, dense=False)
    method = made(net=net, name="mean_teacher", threshold=0.0)
    assert method.views.teacher == "ema"
    assert method.extras[-1].taught


def test_a_network_without_a_named_last_layer_cannot_be_deployed():
    net = Echo(classes=3)
    method = made(net=net)
    method.loss(nets_of(net), logits_batch(CLASSIFICATION, method.views, classes=3), Progress(0, 10))
    with pytest.raises(UsageError, match="which Echo does not name"):
        method.deployed(net)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"threshold": 1.5}, "abc(threshold=1.5): expected a probability, 0 to 1; 0 takes all."),
        ({"target": "sof"}, "abc.target='sof'"),
        ({"counts": ()}, "label_counts has 0 numbers"),
    ],
)
def test_mistakes(options, text):
    counts = options.pop("counts", COUNTS)
    with pytest.raises(UsageError) as error:
        joined("abc", "fixmatch", CLASSIFICATION).make(Facts(3, 64, label_counts=counts), options)
    assert text in str(error.value)
