import math

import pytest
import torch

from sfumato.functional.fairness import fairness


def loop(predicted, counts, prior, histogram):
    a = [q / h if h > 0 else 0.0 for q, h in zip(prior, histogram, strict=True)]
    b = [q / n if n > 0 else 0.0 for q, n in zip(predicted, counts, strict=True)]
    a, b = [v / sum(a) for v in a], [v / sum(b) for v in b]
    return sum(v * math.log(w + 1e-12) for v, w in zip(a, b, strict=True))


@pytest.mark.parametrize("classes", [2, 7, 1000])
def test_against_a_loop(classes):
    torch.manual_seed(0)
    predicted, prior, histogram = (torch.rand(classes, dtype=torch.float64) for _ in range(3))
    counts = torch.randint(0, 4, (classes,)).double()
    counts[0] = 1
    got = fairness(predicted, counts, prior, histogram)
    assert got.item() == pytest.approx(loop(*(x.tolist() for x in (predicted, counts, prior, histogram))), rel=1e-9)


def test_gradient():
    predicted = torch.rand(5, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([2.0, 1, 3, 0, 1]).double()
    prior, histogram = torch.rand(5).double(), torch.rand(5).double()
    assert torch.autograd.gradcheck(lambda x: fairness(x, counts, prior, histogram), (predicted,))


def test_nothing_selected():
    predicted = torch.zeros(4, requires_grad=True)
    term = fairness(predicted, torch.zeros(4), torch.full((4,), 0.25), torch.full((4,), 0.25))
    term.backward()
    assert term.item() == 0
    assert torch.equal(predicted.grad, torch.zeros(4))


def test_a_class_not_predicted_for_very_long_is_finite():
    """Its histogram has decayed below the least normal number."""
    predicted = torch.tensor([3.0, 1e-3, 1.0], requires_grad=True)
    histogram = torch.tensor([0.7, 1e-41, 0.3])
    term = fairness(predicted, torch.tensor([4.0, 0.0, 1.0]), torch.tensor([0.6, 0.1, 0.3]), histogram)
    term.backward()
    assert term.isfinite()
    assert predicted.grad.isfinite().all()
