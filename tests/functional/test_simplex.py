import torch

from sfumato.functional.offsets import balanced_cross_entropy, class_offsets
from sfumato.functional.simplex import simplex_offsets, simplex_thresholds
from tests.functional.test_offsets import problem
from tests.functional.test_precision import made


def test_offsets_come_to_the_exact_minimum():
    z, y = problem(200, 4)
    found = simplex_offsets(z, y)
    torch.testing.assert_close(found - found.mean(), class_offsets(z, y, ridge=0.0), rtol=0, atol=2e-3)


def test_bounds_hold_and_bind():
    z, y = problem(tilt=6.0)
    found = simplex_offsets(z, y, bounds=(0.5, 1.5)).exp()
    assert found.max() == 1.5
    assert found.min() == 0.5
    exact = class_offsets(z, y, ridge=0.0)
    assert balanced_cross_entropy(z, y, found.log()) > balanced_cross_entropy(z, y, exact) + 0.1


def test_groups_share_a_value_and_the_last_takes_what_remains():
    z, y = problem(classes=5)
    found = simplex_offsets(z, y, groups=2)
    assert found[0] == found[1]
    assert found[2] == found[3] == found[4] != found[0]


def test_most_calls_end_the_search():
    z, y = problem()
    early, late = simplex_offsets(z, y, most_calls=20), simplex_offsets(z, y)
    assert balanced_cross_entropy(z, y, early) > balanced_cross_entropy(z, y, late) + 1e-3


def test_thresholds_are_zero_where_nothing_is_to_be_searched():
    seen = made()
    assert torch.equal(simplex_thresholds(seen, 0.3), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(simplex_thresholds(made(0), 0.9), torch.zeros(3, dtype=torch.float64))
