"""DASO in a method: of which images the resemblance is, what is counted, and when it begins."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.functional.semantic import blend, heed, resemblance
from sfumato.methods import Facts
from sfumato.rules import Hard, Soft
from sfumato.types import Progress
from tests.addons.cases import joined
from tests.methods.cases import nets_of, steps
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Echo, Tiny, image_batch, logits_batch, rows


def made(*, net=None, soft=True, classes=3, **options):
    case = joined("daso", "fixmatch", CLASSIFICATION)
    method = case.make(Facts(classes, 64), {"start": 0.0, **options})
    if soft:
        method.target.target = Soft()
    method.attach(net or Tiny(classes, dense=False))
    return method


def met(method, net, count=3):
    """The method after some steps, so that there are prototypes and counts."""
    for k in range(count):
        method.loss(nets_of(net), image_batch(CLASSIFICATION, method.views, seed=k), Progress(k, 20))
    return method


def test_targets_are_blended_with_the_resemblance_of_the_same_images():
    """The reference blends in what the images of the step before resembled."""
    net = Tiny(3, dense=False)
    method = met(made(net=net), net)
    prototypes, counts = method.extras[-1].prototypes.clone(), method.target.counts.value.clone()
    batch = image_batch(CLASSIFICATION, method.views, seed=9)
    got = method.loss(nets_of(net), batch, Progress(3, 20)).pseudo.target
    out = net(batch.unlabeled.weak)
    p, similar = probability(out.logits), probability(resemblance(out.features, prototypes, 0.05))
    torch.testing.assert_close(got, blend(p, similar, heed(counts, 1.5)))
    assert (got - p).abs().max() > 0.1


def test_shuffled_images_have_shuffled_targets():
    net = Tiny(3, dense=False)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    targets = []
    for shuffled in (False, True):
        method = met(made(net=net), net)
        batch = image_batch(CLASSIFICATION, method.views, seed=9)
        if shuffled:
            batch = rows(batch, torch.arange(6), order)
        targets.append(method.loss(nets_of(net), batch, Progress(3, 20)).pseudo.target)
    torch.testing.assert_close(targets[1], targets[0][order])


def test_before_the_start_the_method_is_as_ever():
    net = Tiny(3, dense=False)
    method = made(net=net, start=0.5)
    for k in range(10):
        batch = image_batch(CLASSIFICATION, method.views, seed=k)
        losses = method.loss(nets_of(net), batch, Progress(k, 20))
        assert torch.equal(losses.pseudo.target, probability(net(batch.unlabeled.weak).logits).detach())
        assert losses.extras["daso"] == 0
    assert (method.extras[-1].prototypes.norm(dim=1) > 0).all()  # they gather meanwhile
    assert method.target.counts.value.sum() == 10 * 18
    losses = method.loss(nets_of(net), batch, Progress(10, 20))
    assert losses.extras["daso"] > 0
    assert not torch.allclose(losses.pseudo.target, probability(net(batch.unlabeled.weak).logits).detach())


def test_prototypes_gather_from_labels_alone():
    net = Tiny(3, dense=False)
    method = made(net=net)
    for k in range(5):
        batch = replace(image_batch(CLASSIFICATION, method.views, seed=k), unlabeled=None)
        assert method.loss(nets_of(net), batch, Progress(k, 20)).extras["daso"] == 0
    assert (method.extras[-1].prototypes.norm(dim=1) > 0).all()
    assert method.target.counts.value.sum() == 0


def test_nothing_counted_yet_changes_no_target():
    """The reference divides 0 by 0 in the first step."""
    net = Tiny(3, dense=False)
    method = made(net=net)
    batch = image_batch(CLASSIFICATION, method.views)
    losses = method.loss(nets_of(net), batch, Progress(0, 20))
    assert torch.equal(losses.pseudo.target, probability(net(batch.unlabeled.weak).logits).detach())
    assert losses.total.isfinite()


def test_the_weight_is_of_the_prediction_as_it_was():
    method = made(net=Echo(classes=5), soft=False, classes=5)
    assert isinstance(method.target.target, Hard)
    for k, batch in enumerate(logits_batch(CLASSIFICATION, method.views, seed=seed, void=0.0) for seed in range(5)):
        (losses,) = steps(method, [batch], start=k)
        top = probability(batch.unlabeled.weak).max(dim=1).values
        assert torch.equal(losses.pseudo.weight, (top >= 0.95).float())


def test_strong_views_are_aligned_with_what_their_images_resemble():
    net = Tiny(3, dense=False)
    method = met(made(net=net, weight=2.0), net)
    prototypes = method.extras[-1].prototypes.clone()
    batch = image_batch(CLASSIFICATION, method.views, seed=9)
    got = method.loss(nets_of(net), batch, Progress(3, 20)).extras["daso"]
    weak, strong = (
        resemblance(net(x).features, prototypes, 0.05) for x in (batch.unlabeled.weak, batch.unlabeled.strong[0])
    )
    torch.testing.assert_close(got, 2 * cross_entropy(strong, probability(weak).detach()).mean())
    got.backward()
    assert next(net.body.parameters()).grad.abs().sum() > 0


def test_prototypes_are_means_of_the_averages_features():
    net, average = Tiny(3, dense=False), Tiny(3, dense=False)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.mul_(1.3)
    nets = nets_of(net)
    nets.teacher.module = average
    method = made(net=net)
    batch = image_batch(CLASSIFICATION, method.views)
    method.loss(nets, batch, Progress(0, 20))
    features = average(batch.labeled.x).features
    for c in range(3):
        own = features[batch.labeled.y == c]
        want = own.mean(dim=0) if len(own) else torch.zeros(8)
        torch.testing.assert_close(method.extras[-1].prototypes[c], want)


def test_without_an_average_no_image_goes_through_again():
    net, sent = Tiny(3, dense=False), []
    net.register_forward_hook(lambda module, images, out: sent.append(len(images[0])))
    nets = nets_of(net)
    nets.teacher = None
    method = made(net=net)
    batch = image_batch(CLASSIFICATION, method.views)
    method.loss(nets, batch, Progress(0, 20))
    assert sorted(sent) == [18, 24]
    assert (method.extras[-1].prototypes.norm(dim=1) > 0).any()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temperature": 0.0}, "expected numbers above 0, such as 0.05 and 1.5"),
        ({"heed_temperature": -1.0}, "expected numbers above 0, such as 0.05 and 1.5"),
        ({"memory": 0}, "daso(memory=0, window=100): expected at least 1 of each."),
        ({"start": 2.0}, "daso(start=2.0): expected a share of training, 0 to 1."),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UsageError) as error:
        made(**options)
    assert text in str(error.value)


def test_it_is_not_for_masks():
    with pytest.raises(UsageError, match="daso is for one class per image only: its features are of whole images"):
        joined("daso", "fixmatch", SEGMENTATION).make(Facts(3, 64, dense=True), {})
