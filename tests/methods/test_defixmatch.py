from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from sfumato.methods import Facts, build
from sfumato.rules import DistributionAlignment, Soft
from sfumato.types import Progress
from tests.given import step
from tests.methods.cases import nets_of
from tests.methods.problems import SEGMENTATION, flip, logits_batch

DRAW = torch.Generator().manual_seed(0)
X, WEAK, STRONG = (torch.randn(n, 4, dtype=torch.float64, generator=DRAW) * 5 for n in (12, 20, 20))


def method(**options):
    return build("defixmatch", Facts(4), options).double()


def masked_loss(weak, strong, threshold=0.95):
    p = weak.softmax(1)
    return ((p.amax(1) >= threshold).double() * F.cross_entropy(strong, p.argmax(1), reduction="none")).mean()


def test_the_loss_by_hand():
    y = X.argmax(1).roll(1)
    losses = step(method(lambda_u=0.3), WEAK, STRONG, labeled=X, y=y)
    torch.testing.assert_close(losses.supervised, F.cross_entropy(X, y))
    torch.testing.assert_close(losses.unsupervised, 0.3 * masked_loss(WEAK, STRONG))
    # the labeled strong view is the weak one here
    torch.testing.assert_close(losses.extras["debias"], -0.3 * masked_loss(X, X))


def test_where_labeled_and_unlabeled_images_are_the_same_only_labels_count():
    """Whatever the pseudo-labels are: that is what makes the risk unbiased."""
    for rule in (None, Soft()):
        one = method()
        if rule is not None:
            one.target = rule
        losses = step(one, X, X, labeled=X, y=X.argmax(1).roll(3))
        assert losses.unsupervised > 0
        torch.testing.assert_close(losses.total, losses.supervised)


def test_the_loss_may_be_negative():
    sure = torch.eye(4).repeat(3, 1) * 6
    losses = step(build("defixmatch", Facts(4), {"lambda_u": 50.0}), sure * 0, sure * 0, labeled=sure)
    assert losses.total < 0


def test_rules_learn_from_unlabeled_predictions_alone_and_once():
    """The peer's alignment takes in labeled predictions too."""
    one = method()
    one.refine = DistributionAlignment(4).double()
    step(one, WEAK, STRONG, labeled=X)
    assert one.refine.model.batches.tolist() == [1] * 4
    torch.testing.assert_close(one.refine.model.value, WEAK.softmax(1).mean(0))
    p = one.refine(X.softmax(1))
    want = ((p.amax(1) >= 0.95).double() * F.cross_entropy(X, p.argmax(1), reduction="none")).mean()
    torch.testing.assert_close(step(one, WEAK, STRONG, labeled=X).extras["debias"], -0.5 * want)


def test_labels_follow_the_strong_view_of_labeled_images():
    one = build("defixmatch", Facts(5))
    batch = logits_batch(SEGMENTATION, one.views, void=0.0)

    def charged(batch):
        return one.loss(nets_of(), batch, Progress(4, 8)).extras["debias"]

    plain, turned = batch.labeled, batch.labeled.strong.flip(-1)
    followed = replace(batch, labeled=replace(plain, strong=turned, warp=flip))
    ignored = replace(batch, labeled=replace(plain, strong=turned))
    torch.testing.assert_close(charged(followed), charged(batch))
    assert (charged(ignored) - charged(batch)).abs() > 1e-2
