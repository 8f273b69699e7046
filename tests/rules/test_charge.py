"""Charges with a prior: unreduced, on labels and distributions, on both tasks."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from sfumato.functional.divergence import cross_entropy, kl
from sfumato.functional.rebalance import effective_number_weights
from sfumato.rules import Adjusted, AdjustedAfterwards, Charge, ClassWeighted, Prior
from sfumato.rules.prior import Borrowed
from sfumato.types import Output, Sparse
from tests.functional.oracle import SPACES
from tests.given import context

COUNTS = (60, 30, 10)


class Counting(Charge):
    """Tells whether it was asked to observe."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def observe(self, p, valid, context):
        self.seen += 1

    def forward(self, logits, target):
        return cross_entropy(logits, target)


def charges(base=cross_entropy) -> dict[str, Charge]:
    prior = Prior(3, COUNTS)
    return {
        "adjusted": Adjusted(base, prior),
        "of predictions": Adjusted(base, prior, target_tau=1.0),
        "afterwards": AdjustedAfterwards(base, prior),
        "weighted": ClassWeighted(base, prior, 100),
    }


def targets(space: tuple[int, ...]) -> dict[str, torch.Tensor | Sparse]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (4, *space), generator=draw)
    p = torch.softmax(torch.randn((4, 3, *space), generator=draw), dim=1)
    few = torch.softmax(torch.randn((4, 2, *space), generator=draw), dim=1)
    return {"labels": labels, "distributions": p, "few": Sparse(torch.stack([labels, (labels + 1) % 3], 1), few)}


@pytest.mark.parametrize("name", charges())
@pytest.mark.parametrize("form", targets(()))
@pytest.mark.parametrize("space", SPACES)
def test_unreduced_finite_and_with_gradient_to_the_logits_only(name, form, space):
    charge, target = charges()[name], targets(space)[form]
    logits = torch.randn((4, 3, *space), generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = charge(logits, target)
    assert out.shape == (4, *space)
    out.sum().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad.flatten(1).abs().sum(dim=1) > 0).all()
    assert not list(charge.parameters())
    for row in range(4):  # each by itself: no mean is taken inside
        alone = target[row : row + 1] if not isinstance(target, Sparse) else None
        if alone is not None:
            torch.testing.assert_close(charge(logits[row : row + 1], alone), out[row : row + 1])


@pytest.mark.parametrize("name", charges())
def test_one_with_memory_inside_still_observes(name):
    inner, p = Counting(), torch.softmax(torch.randn(4, 3), dim=1)
    charges(inner)[name].observe(p, torch.ones(4), context(p))
    assert inner.seen == 1


def test_adjusted_by_hand():
    z = torch.tensor([[0.2, -0.3, 1.0]])
    moved = z + 0.5 * torch.tensor([[0.6, 0.3, 0.1]]).log()
    target = torch.tensor([[0.2, 0.3, 0.5]])
    for base in (cross_entropy, kl):
        torch.testing.assert_close(Adjusted(base, Prior(3, COUNTS), tau=0.5)(z, target), base(moved, target))
    assert Adjusted(cross_entropy, Prior(3, COUNTS))(z.bfloat16(), target).dtype == torch.float32


def test_predictions_get_the_prior_too_and_labels_do_not():
    z, (y, p, few) = torch.randn((4, 3), generator=torch.Generator().manual_seed(1)), targets(()).values()
    log_pi = torch.tensor([0.6, 0.3, 0.1]).log()
    labels, predictions = (Adjusted(cross_entropy, Prior(3, COUNTS), tau=0.5, target_tau=t) for t in (0.0, 0.8))
    moved = torch.softmax(p.log() + 0.8 * log_pi, dim=1)
    torch.testing.assert_close(labels(z, p), cross_entropy(z + 0.5 * log_pi, p))
    torch.testing.assert_close(predictions(z, p), cross_entropy(z + 0.5 * log_pi, moved))
    assert torch.equal(predictions(z, y), labels(z, y))
    dense = torch.zeros_like(p).scatter_(1, few.labels, few.share)
    torch.testing.assert_close(predictions(z, few), predictions(z, dense))
    around = ClassWeighted(predictions, Prior(3, COUNTS), 100)
    twice = Adjusted(around, Prior(3, COUNTS), tau=0.5, target_tau=0.8)  # weighed by what the prediction is
    moved = torch.softmax(p.log() + 1.6 * log_pi, dim=1)
    torch.testing.assert_close(twice(z, p), (p @ around.weights) * cross_entropy(z + log_pi, moved))


def test_weighted_by_hand():
    z, weights = torch.randn((5, 3), generator=torch.Generator().manual_seed(0)), effective_number_weights
    w = weights(torch.tensor(COUNTS).float())
    y = torch.tensor([0, 1, 2, 2, 0])
    weighted = ClassWeighted(cross_entropy, Prior(3, COUNTS), 100)
    torch.testing.assert_close(weighted.weights, w)
    torch.testing.assert_close(weighted(z, y), w[y] * cross_entropy(z, y))
    soft = torch.softmax(torch.randn((5, 3), generator=torch.Generator().manual_seed(1)), dim=1)
    torch.testing.assert_close(weighted(z, soft), (soft @ w) * cross_entropy(z, soft))


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output_layer = nn.Linear(2, 3)

    def forward(self, x):
        return Output(self.output_layer(x))


def test_afterwards_the_network_is_moved_and_the_one_that_trains_is_not():
    net, x, prior = Linear(), torch.randn(4, 2), Prior(3, COUNTS)
    before = net(x).logits
    kept = AdjustedAfterwards(cross_entropy, prior, tau=0.7).deployed(net)
    torch.testing.assert_close(kept(x).logits, before - 0.7 * prior.value.log())
    assert torch.equal(net(x).logits, before)
    assert Adjusted(cross_entropy, prior).deployed(net) is net


@pytest.mark.parametrize("kind", [Adjusted, AdjustedAfterwards, partial(ClassWeighted, total=100)])
def test_a_prior_of_its_own_that_learns_is_shown_predictions_and_a_borrowed_one_is_not(kind):
    p = torch.softmax(torch.randn((4, 3), generator=torch.Generator().manual_seed(0)), dim=1)
    own, lent = (Prior(3, (), "predicted", momentum=0.0) for _ in range(2))
    kind(cross_entropy, own).observe(p, torch.ones(4), context(p))
    torch.testing.assert_close(own.value, p.mean(dim=0))
    kind(cross_entropy, Borrowed(lent)).observe(p, torch.ones(4), context(p))
    torch.testing.assert_close(lent.value, torch.full((3,), 1 / 3))
