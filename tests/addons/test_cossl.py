"""CoSSL in a method: which features are mixed, who teaches whom, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sfumato.addons import join, methods_for
from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import Facts, build
from sfumato.types import Progress
from sfumato.views.draws import uniform
from tests.addons.cases import joined
from tests.methods.cases import nets_of
from tests.methods.problems import CLASSIFICATION, SEGMENTATION, Tiny, image_batch

COUNTS = (100, 40, 5)


def made(*, net=None, counts=COUNTS, **options):
    method = joined("cossl", "fixmatch", CLASSIFICATION).make(Facts(3, 64, label_counts=counts), options)
    torch.manual_seed(0)
    method.attach(net or Tiny(3, dense=False))
    return method


def mixtures(mu=0.6, counts=COUNTS, *, unlabeled=9, valid=None):
    """Labels of drawn features, how much of each is labeled, and from which unlabeled one the rest is. Labeled features
    are 1 in the first dimension, the unlabeled one k is 1 in the dimension 1 + k.
    """
    rule = made(mu=mu, counts=counts).extras[-1]
    batch = image_batch(CLASSIFICATION, made().views)
    slots = torch.arange(9000)
    labeled = replace(batch.labeled, draw=lambda purpose, count: uniform(0, 0, purpose, slots, count))
    drawn = torch.arange(3).repeat(3000)
    features = torch.zeros(9000, 1 + unlabeled)
    features[:, 0] = 1
    others = torch.eye(1 + unlabeled)[1:]
    u = replace(
        batch.unlabeled,
        valid=torch.ones(unlabeled) if valid is None else valid,
        draw=lambda purpose, count: uniform(0, 0, purpose, torch.arange(unlabeled), count),
    )
    mixed = rule._enhanced(features, drawn, rule._shuffled(others, u), labeled)
    return drawn, mixed[:, 0], mixed[:, 1:]


def test_rare_classes_are_mixed_and_the_largest_is_not():
    """The reference takes the argmax of a single number for the class: always the first, which is never mixed."""
    label, share, _ = mixtures()
    chances = torch.stack([(share[label == c] < 1).float().mean() for c in range(3)])
    assert chances[0] == 0
    torch.testing.assert_close(chances, torch.tensor([0.0, 0.6, 0.95]), rtol=0, atol=0.03)


@pytest.mark.parametrize("mu", [0.6, 0.2])
def test_the_labeled_feature_keeps_at_least_mu(mu):
    label, share, others = mixtures(mu)
    mixed = share[(label == 2) & (share < 1)]
    assert mixed.min() >= mu
    assert mixed.max() <= 1
    torch.testing.assert_close(mixed.mean(), torch.tensor((1 + mu) / 2), rtol=0, atol=0.01)
    torch.testing.assert_close(share + others.sum(dim=1), torch.ones(9000))
    assert ((others > 0).sum(dim=1) <= 1).all()


def test_all_valid_unlabeled_features_are_mixed_in_alike_and_no_other():
    valid = torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 0, 1])
    label, _, others = mixtures(valid=valid)
    used = (others[label == 2] > 0).float().mean(dim=0)
    assert (used[valid == 0] == 0).all()
    torch.testing.assert_close(used[valid > 0], torch.full((6,), 0.95 / 6), rtol=0, atol=0.03)
    _, share, _ = mixtures(valid=torch.zeros(9))
    assert (share == 1).all()


def test_the_head_learns_from_balanced_features_and_nothing_else_does():
    net = Tiny(3, dense=False)
    method = made(net=net, mu=1.0)  # nothing is mixed
    batch = image_batch(CLASSIFICATION, method.views)
    loss = method.loss(nets_of(net), batch, Progress(0, 10)).extras["cossl"]
    rule = method.extras[-1]
    features, label, there = rule.memory.drawn(batch.labeled.draw("cossl samples", 2))
    assert there.all()
    torch.testing.assert_close(loss, cross_entropy(rule.second(features), label).mean())
    loss.backward()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert rule.second.head.weight.grad.abs().sum() > 0


def test_what_is_remembered_are_this_steps_labeled_features():
    net = Tiny(3, dense=False)
    method = made(net=net)
    batch = image_batch(CLASSIFICATION, method.views)
    method.loss(nets_of(net), batch, Progress(0, 10))
    features = net(batch.labeled.x).features
    for c in range(3):
        own = features[batch.labeled.y == c]
        assert method.extras[-1].memory.filled[c] == len(own)
        if len(own):
            torch.testing.assert_close(method.extras[-1].memory.means[c], own.mean(dim=0))


def test_it_teaches_and_is_deployed_from_the_start_on():
    """In the reference pseudo-labels stay those of the network's own layer."""
    net = Tiny(3, dense=False)
    method = made(net=net, start=0.5)
    batch = image_batch(CLASSIFICATION, method.views)
    out, rule = net(batch.unlabeled.weak), method.extras[-1]
    nets = nets_of(net)
    nets.teacher = None
    own, second = (probability(z).detach() for z in (out.logits, rule.second(out.features)))
    assert not torch.equal(own.argmax(dim=1), second.argmax(dim=1))
    for step, p in ((4, own), (5, second)):
        pseudo = method.loss(nets, batch, Progress(step, 10)).pseudo
        assert torch.equal(pseudo.target, p.argmax(dim=1))
        assert torch.equal(pseudo.weight, (p.max(dim=1).values >= 0.95).float())
        kept = method.deployed(net)
        if step == 4:
            assert kept is net
        else:
            torch.testing.assert_close(probability(kept(batch.unlabeled.weak).logits), second)
    assert bool(method.state_dict()["extras.0.used"])


def test_labels_alone_teach_it_and_nothing_is_mixed():
    net = Tiny(3, dense=False)
    method = made(net=net)
    batch = replace(image_batch(CLASSIFICATION, method.views), unlabeled=None)
    loss = method.loss(nets_of(net), batch, Progress(0, 10)).extras["cossl"]
    rule = method.extras[-1]
    features, label, _ = rule.memory.drawn(batch.labeled.draw("cossl samples", 2))
    torch.testing.assert_close(loss, cross_entropy(rule.second(features), label).mean())
    loss.backward()
    assert rule.second.head.weight.grad.abs().sum() > 0


def test_a_teacher_predicts_by_the_average_of_the_step_before():
    """As its features are: of the averaged network with what that step left."""
    net = Tiny(3, dense=False)
    method = joined("cossl", "mean_teacher", CLASSIFICATION).make(Facts(3, 64, label_counts=COUNTS), {"start": 0.0})
    method.attach(net)
    nets, rule = nets_of(net), method.extras[-1]
    method.loss(nets, image_batch(CLASSIFICATION, method.views), Progress(0, 10))
    with torch.no_grad():
        rule.second.head.weight.copy_(torch.randn(rule.second.head.weight.shape) * 5)
    kept, momentum = method.deployed(nets.evaluation), rule.second.momentum.clone()
    assert 1 - momentum > 0
    batch = image_batch(CLASSIFICATION, method.views, seed=1)
    method.loss(nets, batch, Progress(1, 10))
    want = probability(kept(batch.unlabeled.weak).logits).detach()
    torch.testing.assert_close(method.refine.first.predicted, want)


def test_a_class_without_labels_is_as_the_rarest():
    torch.testing.assert_close(made(counts=(100, 0, 5)).extras[-1].chance, torch.tensor([0.0, 0.95, 0.95]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mu": 1.2}, "cossl(mu=1.2, start=0.8): expected shares, 0 to 1."),
        ({"start": -0.1}, "cossl(mu=0.6, start=-0.1): expected shares, 0 to 1."),
        ({"memory": 0}, "cossl(memory=0): expected at least 1 feature of each class."),
        ({"counts": (1, 2)}, "label_counts has 2 numbers"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UsageError) as error:
        made(**options)
    assert text in str(error.value)


def test_it_is_not_for_masks():
    with pytest.raises(UsageError, match="cossl is for one class per image only: it balances and mixes features"):
        joined("cossl", "fixmatch", SEGMENTATION).make(Facts(3, 64, dense=True, label_counts=COUNTS), {})


@pytest.mark.parametrize("name", ["adamatch", "dash"])
def test_it_is_not_for_methods_that_compare_with_the_first_layers_predictions(name):
    with pytest.raises(UsageError) as error:
        joined("cossl", name, CLASSIFICATION).make(Facts(3, 64, label_counts=COUNTS), {})
    text = (
        "addon=cossl does not fit methods that compare pseudo-labels with predictions for labeled images, as adamatch"
    )
    assert text in str(error.value)
    assert "Take a method that does not, such as fixmatch" in str(error.value)
    assert {"fixmatch", "freematch", "softmatch", "uncertainty_weighted"} <= set(methods_for("cossl"))
    assert name not in methods_for("cossl")


def test_an_alignment_with_them_does_not_fit_either():
    method = build("uncertainty_weighted", Facts(3, 64), {"align": "model"})
    with pytest.raises(UsageError, match="addon=cossl does not fit methods that compare"):
        join("cossl", method, Facts(3, 64, label_counts=COUNTS))
