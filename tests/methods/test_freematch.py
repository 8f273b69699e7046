"""Order, options, and what the fairness term does to the marginals of a toy model."""

from __future__ import annotations

import pytest
import torch

from sfumato.functional.probability import entropy, probability
from sfumato.methods import Facts, build
from tests.given import step


def freematch(classes=5, **given):
    return build("freematch", Facts(classes), given)


def test_statistics_are_updated_before_they_are_used():
    """With no memory of the past, the threshold is the mean confidence of this very batch."""
    weak = torch.randn((30, 5), generator=torch.Generator().manual_seed(0)) * 2
    p = probability(weak)
    method = freematch(momentum=0.0)
    losses = step(method, weak, weak)
    prior = p.mean(dim=0)
    thresholds = p.amax(dim=1).mean() * prior / prior.max()
    expected = (p.amax(dim=1) >= thresholds[p.argmax(dim=1)]).float()
    assert 0 < expected.sum() < 30
    assert torch.equal(losses.pseudo.weight, expected)


def test_nearly_all_pass_at_first():
    """The level starts at 1 / C, as in the paper."""
    weak = torch.randn((200, 10), generator=torch.Generator().manual_seed(0))
    assert step(freematch(10), weak, weak).pseudo.weight.mean() > 0.99


def test_labels_are_of_the_raw_prediction_and_losses_over_the_whole_batch():
    draw = torch.Generator().manual_seed(0)
    weak, strong = torch.randn((30, 5), generator=draw) * 2, torch.randn((30, 5), generator=draw)
    losses = step(freematch(momentum=0.0, lambda_fairness=0), weak, strong)
    charge = torch.nn.functional.cross_entropy(strong, weak.argmax(dim=1), reduction="none")
    torch.testing.assert_close(losses.unsupervised, (charge * losses.pseudo.weight).sum() / 30)
    assert not losses.extras


def test_the_fairness_term_has_its_weight():
    weak = torch.randn((30, 5), generator=torch.Generator().manual_seed(0)) * 2
    light, heavy = (step(freematch(lambda_fairness=w), weak, weak).extras["fairness"] for w in (0.001, 1.0))
    torch.testing.assert_close(1000 * light, heavy)
    assert heavy != 0


def marginals(sign, *, apart, seed, steps=150):
    """Gradient descent on `sign` times the fairness term alone, over the bias of a model that leans to its first class.

    apart: how far the evidence for the true class stands out of noise of size 1. Returns the entropy of the mean
    prediction before and after, over log C.
    """
    draw, classes = torch.Generator().manual_seed(seed), 5
    method = freematch(classes, momentum=0.9, lambda_fairness=1.0)
    bias = torch.linspace(1.5, -1.5, classes).requires_grad_()
    optimizer = torch.optim.SGD([bias], lr=1.0)
    trail = []
    for _ in range(steps):
        y = torch.randint(classes, (256,), generator=draw)
        x = torch.randn((256, classes), generator=draw) + apart * torch.nn.functional.one_hot(y, classes)
        losses = step(method, x + bias, x + torch.randn((256, classes), generator=draw) + bias)
        optimizer.zero_grad()
        (sign * losses.extras["fairness"]).backward()
        optimizer.step()
        trail.append(entropy(probability((x + bias).detach()).mean(dim=0, keepdim=True)).item())
    scale = torch.tensor(classes).log().item()
    return sum(trail[:5]) / 5 / scale, sum(trail[-5:]) / 5 / scale


@pytest.mark.parametrize("seed", range(3))
def test_the_papers_sign_evens_the_marginals_of_a_model_that_tells_classes_apart(seed):
    before, after = marginals(1, apart=3.0, seed=seed)
    assert before < 0.96
    assert after > 0.985
    _, opposite = marginals(-1, apart=3.0, seed=seed)
    assert opposite < before


@pytest.mark.parametrize("seed", range(3))
def test_but_a_model_that_hardly_does_leans_further(seed):
    """The term is unbounded below: where a class is hardly ever the argmax, its share is pushed on to nothing."""
    before, after = marginals(1, apart=1.0, seed=seed)
    assert after < before - 0.1
    _, opposite = marginals(-1, apart=1.0, seed=seed)
    assert opposite > before
