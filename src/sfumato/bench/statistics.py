"""What a few seeds say of a mean, and of a difference between two methods on the same seeds.

A seed draws labels, first weights and batches, and they are the same for every method: differences are taken seed by
seed, which removes what the seeds have in common. Seeds are a handful, so that the t distribution is what counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

NAN = math.nan


@dataclass(frozen=True, slots=True)
class Mean:
    """Of n values; sd is that of a sample, low and high the ends of the interval. NaN where n does not tell."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Of n pairs, one value minus the other.

    p: of the paired t test. higher, lower: pairs in which the first value is the higher or the lower one. p_sign: of
    the exact sign test on these, two-sided; it needs 6 pairs to fall below 0.05.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    higher: int
    lower: int
    p_sign: float


def mean_of(values: Sequence[float], confidence: float = 0.95) -> Mean:
    """Mean, standard deviation and the t interval of the mean, `confidence` wide."""
    found = np.asarray(values, dtype=np.float64)
    n = len(found)
    if not n:
        return Mean(0, NAN, NAN, NAN, NAN)
    mean = float(found.mean())
    if n == 1:
        return Mean(1, mean, NAN, NAN, NAN)
    sd = float(found.std(ddof=1))
    reach = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * sd / math.sqrt(n)
    return Mean(n, mean, sd, mean - reach, mean + reach)


def difference_of(mine: Mapping[int, float], theirs: Mapping[int, float], confidence: float = 0.95) -> Difference:
    """`mine` minus `theirs`, by the keys (seeds) that both have.

    p is NaN when all pairs differ by the same amount other than 0, as then there is no spread to measure it by.
    """
    both = sorted(mine.keys() & theirs.keys())
    each = np.array([mine[key] - theirs[key] for key in both], dtype=np.float64)
    found = mean_of(each.tolist(), confidence)
    higher, lower = int((each > 0).sum()), int((each < 0).sum())
    p_sign = float(stats.binomtest(higher, higher + lower).pvalue) if higher + lower else 1.0
    return Difference(
        found.n, found.mean, found.low, found.high, _t_test(each), higher, lower, p_sign if len(each) else NAN
    )


def _t_test(each: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    if len(each) < 2:
        return NAN
    if np.ptp(each) <= 1e-12 * np.abs(each).max():  # rounding of equal differences is no spread
        return 1.0 if not each.any() else NAN
    return float(stats.ttest_1samp(each, 0.0).pvalue)
