"""Means and paired differences, against scipy and numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from sfumato.bench.statistics import difference_of, mean_of

VALUES = some.lists(some.floats(0, 1), min_size=2, max_size=9)


@given(VALUES)
def test_the_mean_and_its_interval(values: list[float]) -> None:
    found = mean_of(values)
    assert (found.n, found.mean) == (len(values), pytest.approx(np.mean(values)))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    if found.sd > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("n", (3, 5, 12))
def test_the_paired_difference_and_its_tests(n: int) -> None:
    rng = np.random.default_rng(n)
    mine, theirs = rng.normal(0.8, 0.1, n), rng.normal(0.7, 0.1, n)
    found = difference_of(dict(enumerate(mine)), dict(enumerate(theirs)))
    reference = stats.ttest_rel(mine, theirs)
    interval = reference.confidence_interval(0.95)
    assert found.mean == pytest.approx((mine - theirs).mean())
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.higher, found.lower) == ((mine > theirs).sum(), (mine < theirs).sum())


def test_the_sign_test_is_exact() -> None:
    def p(higher: int, lower: int, equal: int = 0) -> float:
        values = [1.0] * higher + [-1.0] * lower + [0.0] * equal
        return difference_of(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0)).p_sign

    assert p(3, 0) == pytest.approx(2 * 0.5**3)
    assert p(6, 0) == pytest.approx(2 * 0.5**6)
    assert p(4, 1) == pytest.approx(2 * (1 + 5) * 0.5**5)
    assert p(4, 1, equal=7) == p(4, 1)  # ties say nothing
    assert p(2, 2) == 1
    assert p(0, 0, equal=3) == 1


def test_only_seeds_that_both_have_are_compared() -> None:
    found = difference_of({0: 0.9, 1: 0.8, 5: 0.1}, {0: 0.7, 1: 0.7, 2: 0.0})
    assert (found.n, found.mean) == (2, pytest.approx(0.15))
    alone = difference_of({0: 0.9}, {0: 0.7, 1: 0.6})
    assert (alone.n, alone.mean) == (1, pytest.approx(0.2))
    assert math.isnan(alone.low)
    assert math.isnan(alone.p)
    none = difference_of({0: 0.9}, {1: 0.7})
    assert none.n == 0
    assert math.isnan(none.mean)
    assert math.isnan(none.p_sign)


def test_equal_differences_have_no_t_test() -> None:
    same = difference_of({0: 0.5, 1: 0.7, 2: 0.6}, {0: 0.5, 1: 0.7, 2: 0.6})
    assert (same.mean, same.p, same.higher, same.lower) == (0, 1, 0, 0)
    shifted = difference_of({0: 0.6, 1: 0.8, 2: 0.7}, {0: 0.5, 1: 0.7, 2: 0.6})
    assert shifted.mean == pytest.approx(0.1)
    assert math.isnan(shifted.p)


def test_few_values_have_no_spread() -> None:
    assert math.isnan(mean_of([]).mean)
    one = mean_of([0.25])
    assert (one.n, one.mean) == (1, 0.25)
    assert math.isnan(one.sd)
    assert math.isnan(one.low)
