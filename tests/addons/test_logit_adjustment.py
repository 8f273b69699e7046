"""The sign, the formula in both losses, the form that changes the network, and whose prior it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sfumato.errors import UsageError
from sfumato.functional.divergence import cross_entropy
from sfumato.functional.probability import probability
from sfumato.methods import METHODS
from sfumato.types import Output
from tests.addons.long_tail import CLASSES, COUNTS, drawn, logits, method_with, recalls, trained
from tests.functional.test_prior_shift import distance
from tests.given import step
from tests.methods.cases import mixes_labels, registered
from tests.methods.problems import CLASSIFICATION

SHARES = torch.tensor(COUNTS) / sum(COUNTS)


def centered(weights: Tensor) -> Tensor:
    """Mean logit of each class on a balanced set, over their mean."""
    z = logits(drawn((500,) * CLASSES, torch.Generator().manual_seed(1))[0], weights).mean(dim=0)
    return z - z.mean()


@pytest.mark.parametrize("name", ["supervised", "fixmatch"])
def test_rare_classes_come_out_higher(name):
    """The peer that adjusts by the inverse frequency pushes their logits down."""
    without, with_it = (trained(method_with(addon, name), steps=100) for addon in (None, "logit_adjustment"))
    assert centered(with_it)[-1] > centered(without)[-1] + 1
    assert centered(with_it)[0] < centered(without)[0] - 1
    assert recalls(with_it)[-1] > recalls(without)[-1] + 0.4
    assert recalls(with_it).mean() > recalls(without).mean() + 0.1


def some(seed: int, n: int = 40) -> Tensor:
    return 3 * torch.randn((n, CLASSES), generator=torch.Generator().manual_seed(seed))


def test_labels_and_pseudo_labels_are_charged_with_the_prior_and_made_without():
    weak, strong, labeled = some(0), some(1), some(2)
    y, tau = labeled.argmax(dim=1), 0.7
    losses = step(method_with("logit_adjustment", tau=tau), weak, strong, labeled=labeled, y=y)
    offset, p = tau * SHARES.log(), probability(weak)
    torch.testing.assert_close(losses.supervised, cross_entropy(labeled + offset, y).mean())
    sure = p.amax(dim=1) >= 0.95
    assert 0 < sure.sum() < len(p)
    assert torch.equal(losses.pseudo.target, p.argmax(dim=1))
    assert torch.equal(losses.pseudo.weight, sure.float())
    charge = cross_entropy(strong + offset, p.argmax(dim=1))
    torch.testing.assert_close(losses.unsupervised, (charge * sure).mean())


def test_the_unlabeled_set_may_have_a_prior_of_its_own_and_the_labels_keep_theirs():
    weak, labeled = some(0), some(2)
    given = (1.0, 2.0, 3.0, 4.0)
    losses = step(method_with("logit_adjustment", prior=given), weak, weak, labeled=labeled)
    torch.testing.assert_close(losses.supervised, cross_entropy(labeled + SHARES.log(), labeled.argmax(dim=1)).mean())
    charge = cross_entropy(weak + torch.tensor(given).log(), weak.argmax(dim=1))
    torch.testing.assert_close(losses.unsupervised, (charge * (probability(weak).amax(dim=1) >= 0.95)).mean())


def test_an_estimated_prior_is_that_of_the_unlabeled_set_while_training():
    """Though it is reversed, the logits are adjusted all along, and the network learns from its own labels."""
    reverse = COUNTS[::-1]
    method = method_with("logit_adjustment", prior="estimated")
    trained(method, unlabeled=reverse, steps=150)
    assert distance(method.divergence.prior.value, torch.tensor(reverse) / sum(reverse)) < 0.2
    assert distance(SHARES, torch.tensor(reverse) / sum(reverse)) > 0.8
    assert distance(method.charge.prior.value, SHARES) < 1e-6


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output_layer = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Output:
        return Output(self.output_layer(x))


def test_afterwards_training_is_as_it_was_and_the_network_is_not():
    weak, labeled = some(0), some(2)
    after = method_with("logit_adjustment", form="afterwards", tau=0.5)
    for name in ("supervised", "unsupervised"):
        plain = getattr(step(method_with(None), weak, weak, labeled=labeled), name)
        assert torch.equal(getattr(step(after, weak, weak, labeled=labeled), name), plain)
    net, x = Linear(), torch.randn(3, 2)
    torch.testing.assert_close(after.deployed(net)(x).logits, net(x).logits - 0.5 * SHARES.log())
    assert method_with("logit_adjustment").deployed(net) is net


def test_afterwards_the_leaning_may_be_what_is_predicted():
    method = method_with("logit_adjustment", form="afterwards", prior="predicted", momentum=0.0)
    weak, net, x = some(0), Linear(), torch.randn(3, 2)
    step(method, weak, weak)
    moved = method.deployed(net)(x).logits - net(x).logits
    torch.testing.assert_close(moved, -probability(weak).mean(dim=0).log().expand(3, -1))


def test_wrong_settings():
    with pytest.raises(UsageError, match=r"^logit_adjustment\.tau=-1\.0: expected a number of 0 or more"):
        method_with("logit_adjustment", tau=-1)
    with pytest.raises(UsageError, match=r"^logit_adjustment\.prior='estimated' is that of unlabeled images"):
        method_with("logit_adjustment", "supervised", prior="estimated")
    with pytest.raises(UsageError, match=r"^prior='estimated' is learned from predictions for unlabeled images"):
        method_with("logit_adjustment", "supervised", prior="estimated", form="afterwards")
    method_with("logit_adjustment", "supervised", prior=(1.0, 1.0, 1.0, 2.0), form="afterwards")


@pytest.mark.parametrize("name", ["mixmatch", "remixmatch"])
def test_mixed_labels_are_not_as_frequent_as_labels(name):
    with pytest.raises(UsageError, match=r"form='training' needs labels that are .* mixes .* form='afterwards'"):
        method_with("logit_adjustment", name)
    method_with("logit_adjustment", name, form="afterwards")


def test_every_method_that_mixes_labels_says_so():
    """As a step shows it: labeled images do not go through the student as they are."""
    for name in METHODS:
        if not METHODS[name].dense_only:
            case = registered(name, CLASSIFICATION)
            assert case.method().mixes_labels == mixes_labels(case), name
