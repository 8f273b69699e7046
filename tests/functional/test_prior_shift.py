"""Shifted priors are found again, by expectation maximization against SciPy's search for the same likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from sfumato.functional.prior_shift import class_shares, estimate_prior, shifted_sums

CLASSES = 10


def long_tail(gamma: float) -> torch.Tensor:
    shares = gamma ** -torch.linspace(0, 1, CLASSES, dtype=torch.float64)
    return shares / shares.sum()


def world(apart: float = 3.0, learned: torch.Tensor | None = None, seed: int = 0):
    """Gaussian classes, and the exact posterior of a network that learned them under the prior `learned`."""
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn((CLASSES, 20), generator=draw, dtype=torch.float64)
    means *= apart / means.norm(dim=1, keepdim=True)
    learned = long_tail(100) if learned is None else learned

    def predictions(n: int, prior: torch.Tensor) -> torch.Tensor:
        y = torch.multinomial(prior, n, replacement=True, generator=draw)
        x = means[y] + torch.randn((n, 20), generator=draw, dtype=torch.float64)
        return torch.softmax(x @ means.T - means.square().sum(dim=1) / 2 + learned.log(), dim=1)

    return predictions


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().sum()) / 2


SHIFTS = {
    "the same": long_tail(100),
    "reversed": long_tail(100).flip(0),
    "even": torch.full((CLASSES,), 0.1, dtype=torch.float64),
    "one class missing": torch.cat([torch.zeros(1, dtype=torch.float64), long_tail(5)[1:]]) / long_tail(5)[1:].sum(),
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shifted_prior_is_found(shift):
    """Counting predictions finds the prior only where it did not move."""
    p = world()(20_000, SHIFTS[shift])
    counted = torch.bincount(p.argmax(dim=1), minlength=CLASSES) / len(p)
    found = estimate_prior(p, long_tail(100))
    assert distance(found, SHIFTS[shift]) < 0.02
    if shift != "the same":
        assert distance(counted, SHIFTS[shift]) > 5 * distance(found, SHIFTS[shift])


def test_it_is_the_most_likely_prior():
    """The same maximum by another search: log sum_c p_c prior_c / source_c over the softmax of free numbers."""
    source, p = long_tail(100), world(2.0)(400, SHIFTS["reversed"])
    ratio = (p / source).numpy()

    def nll(free):
        prior = np.exp(free - free.max())
        prior /= prior.sum()
        share = ratio * prior / (ratio @ prior)[:, None]
        return -np.log(ratio @ prior).mean(), prior - share.mean(axis=0)

    best = minimize(nll, np.zeros(CLASSES), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9})
    found = estimate_prior(p, source, steps=20_000, tolerance=1e-10)
    assert nll(np.log(found.numpy() + 1e-300))[0] <= best.fun + 1e-7
    np.testing.assert_allclose(found.numpy(), np.exp(best.x) / np.exp(best.x).sum(), atol=2e-3)


def test_without_a_shift_it_stays_where_the_mean_prediction_is():
    """Also of a network that is wrong: compared with what it predicts for the training data it says nothing new."""
    p = torch.softmax(world(1.0)(5000, long_tail(100)).log() * 3, dim=1)
    torch.testing.assert_close(estimate_prior(p, p.mean(dim=0)), p.mean(dim=0))
    even = torch.full((50, CLASSES), 0.1, dtype=torch.float64)
    torch.testing.assert_close(estimate_prior(even, even[0]), even[0])


def test_the_classes_of_predictions_without_doubt_are_counted():
    y = torch.tensor([0, 0, 0, 1])
    p = torch.nn.functional.one_hot(y, 3).double()
    assert estimate_prior(p, torch.tensor([0.2, 0.3, 0.5])).tolist() == pytest.approx([0.75, 0.25, 0.0])


def test_maps_are_their_pixels_and_ignored_ones_do_not_count():
    p = world()(24, SHIFTS["even"])
    maps = p.reshape(2, 3, 4, CLASSES).movedim(-1, 1)
    source = long_tail(100)
    torch.testing.assert_close(estimate_prior(maps, source), estimate_prior(p, source))
    valid = torch.ones(2, 3, 4)
    valid[1] = 0
    torch.testing.assert_close(estimate_prior(maps, source, valid), estimate_prior(p[:12], source))
    torch.testing.assert_close(estimate_prior(maps, source, valid * 0), source)  # nothing to learn from


def test_expected_counts_by_a_loop():
    draw = torch.Generator().manual_seed(1)
    p = torch.softmax(torch.randn((7, 4), generator=draw, dtype=torch.float64), dim=1)
    prior, source = torch.tensor([0.1, 0.2, 0.3, 0.4]).double(), torch.tensor([0.4, 0.4, 0.1, 0.1]).double()
    valid, expected = torch.tensor([1, 1, 0, 1, 1, 1, 0]).double(), [0.0] * 4
    for row, counts in zip(p.tolist(), valid.tolist(), strict=True):
        shifted = [row[c] * float(prior[c]) / float(source[c]) for c in range(4)]
        for c in range(4):
            expected[c] += counts * shifted[c] / sum(shifted)
    assert shifted_sums(p, valid, prior, source, eps=0).tolist() == pytest.approx(expected)
    assert shifted_sums(p, valid, prior, source * 0).isfinite().all()


def test_shares_of_counts():
    assert class_shares(torch.tensor([6.0, 3.0, 1.0])).tolist() == pytest.approx([0.6, 0.3, 0.1])
    assert class_shares(torch.tensor([6.0, 0.0, 2.0])).tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert class_shares(torch.zeros(4)).tolist() == [0.25] * 4
