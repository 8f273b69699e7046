"""Did the unlabelled data help? A paired comparison on the same held-out labels, answered in one sentence.

What the interval holds. Two trained networks judge the same examples, so only examples on which they differ count, and
drawing other examples could have changed the difference: it is bootstrapped over examples. Training again from another
seed (other labels, start and order) could have changed it too: with several seeds that is measured, the seed being the
unit of a paired t distribution. Both deviations are added. As the examples are the same for every seed, neither
contains the other, while what a seed does to single examples is in both: the interval errs on the wide side.

One seed says nothing about other seeds. Its interval covers the examples only, and the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from sfumato.errors import UsageError

Answer = Literal["helps", "no difference", "hurts", "cannot tell"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST = 30  # held-out labels; below, one image is worth more than 3 points and the bootstrap undercovers
_DRAWS = 20_000  # the Monte Carlo error of a 95 % interval's ends is then about 1 % of its half width


@dataclass(frozen=True, slots=True)
class Verdict:
    """Differences are method minus baseline, as fractions; NaN when there was no held-out label."""

    answer: Answer
    metric: str
    difference: float
    low: float
    high: float
    n: int  # held-out examples
    seeds: int
    sentence: str
    method: str
    baseline: str
    margin: float
    confidence: float


def compare(
    method: Sequence[npt.NDArray[Any]],
    baseline: Sequence[npt.NDArray[Any]],
    *,
    name: str,
    against: str = "supervised_strong",
    margin: float = 0.01,
    confidence: float = 0.95,
    fewest: int = FEWEST,
    seed: int = 0,
) -> Verdict:
    """Accuracy of `method` against that of `baseline` on the same examples.

    method, baseline: one array (n,) per seed, True or 1 where the prediction was right; entry i is the same held-out
    example in all of them. name, against: what the sentence calls them. margin: differences below it do not matter.
    fewest: held-out labels needed for any answer. seed: of the bootstrap; the same input gives the same interval, and
    swapped inputs the negative one.

    Helps: the interval lies above 0. Hurts: below 0. No difference: within +-margin. Otherwise it cannot tell.

    Raises UsageError when the arrays do not pair up, or a value is neither 0 nor 1.
    """
    check_options(margin, confidence)
    right, right_baseline = _paired(method, baseline)
    seeds, n = right.shape
    difference, low, high = math.nan, math.nan, math.nan
    if n:
        difference, low, high = _interval(right - right_baseline, confidence, seed)
    accuracies = (float(right.mean()), float(right_baseline.mean())) if n else (math.nan, math.nan)
    verdict = Verdict("cannot tell", "acc", difference, low, high, n, seeds, "", name, against, margin, confidence)
    return concluded(verdict, accuracies, fewest)


def check_options(margin: float, confidence: float) -> None:
    if not (margin >= 0 and 0 < confidence < 1):
        raise UsageError(
            f"margin={margin}, confidence={confidence}: expected a margin of 0 or more, a confidence between 0 and 1."
        )


def _paired(method: Sequence[npt.NDArray[Any]], baseline: Sequence[npt.NDArray[Any]]) -> tuple[Ints, Ints]:
    """Both as (seeds, n) of 0 and 1."""
    if len(method) != len(baseline) or not method:
        raise UsageError(
            f"{len(method)} seeds of the method against {len(baseline)} of the baseline: "
            "expected one array per seed on both sides, and at least one."
        )
    arrays = [np.asarray(array) for array in (*method, *baseline)]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1 or len(shapes[0]) != 1:
        raise UsageError(
            f"arrays of shapes {', '.join(map(str, shapes))} cannot be paired: expected (n,) for all, one entry for "
            "each of the same held-out examples, in the same order. Evaluate every run on the same split."
        )
    both = np.stack(arrays)
    if not np.isin(both, (0, 1)).all():
        raise UsageError("expected 1 where a prediction was right and 0 where it was wrong, found other values.")
    both = both.astype(np.int64)
    return both[: len(method)], both[len(method) :]


def _interval(difference: Ints, confidence: float, seed: int) -> tuple[float, float, float]:
    """Mean of (seeds, n) differences in -1, 0, 1, and the ends of its interval."""
    seeds, n = difference.shape
    counts = np.bincount(difference.sum(axis=0) + seeds, minlength=2 * seeds + 1)
    mean = float(difference.sum()) / (seeds * n)
    # One orientation for both orders of the arguments, so that swapping them mirrors the interval exactly.
    mirrored = counts[::-1].tolist()
    sign = -1.0 if mirrored > counts.tolist() else 1.0
    rng = np.random.default_rng(seed)
    deviation = _example_deviations(counts if sign > 0 else counts[::-1], rng)
    if seeds > 1:
        spread = float(difference.mean(axis=1).std(ddof=1)) / math.sqrt(seeds)
        deviation = deviation + spread * t_draws(seeds - 1, _DRAWS, rng)
    tail = (1 - confidence) / 2
    # Differences are multiples of 1 / n: an end between two of them moves outwards.
    down = float(np.quantile(deviation, tail, method="lower"))
    up = float(np.quantile(deviation, 1 - tail, method="higher"))
    if mirrored == counts.tolist():
        down, up = (down - up) / 2, (up - down) / 2
    if sign < 0:
        down, up = -up, -down
    return mean, max(-1.0, mean + down), min(1.0, mean + up)


def _example_deviations(counts: Ints, rng: np.random.Generator) -> Floats:
    """What other examples would have changed: resampled means minus their expectation, (draws,).

    counts: (2 k + 1,), examples whose differences over k seeds sum to -k ... k. Resampling n examples depends on these
    counts only, so a multinomial draw is the bootstrap itself. Two examples are supposed beside those seen, one on
    which both agree and one split between the extremes (Agresti and Min 2005): methods that never differed on 30
    examples may still differ on the next.
    """
    seeds, n = len(counts) // 2, int(counts.sum())
    share = counts.astype(np.float64)
    share[[0, -1]] += 0.5
    share[seeds] += 1.0
    share /= share.sum()
    level = np.arange(-seeds, seeds + 1) / seeds
    resampled: Floats = rng.multinomial(n, share, size=_DRAWS) @ level / n
    return resampled - float(share @ level)


def t_draws(freedom: int, draws: int, rng: np.random.Generator) -> Floats:
    """Student's t, one draw from each of equally likely slices: few degrees of freedom have tails too long for luck."""
    return rng.permutation(_t_slices(freedom, draws))


@lru_cache(maxsize=16)
def _t_slices(freedom: int, draws: int) -> Floats:
    slices: Floats = stdtrit(freedom, (np.arange(draws) + 0.5) / draws)
    return slices


def concluded(verdict: Verdict, values: tuple[float, float], fewest: int) -> Verdict:
    """With the answer and the sentence that follow from the interval. values: the metric of method and baseline."""
    answer: Answer = "cannot tell"
    if verdict.n >= fewest:
        answer = _answer(verdict.low, verdict.high, verdict.margin)
    verdict = replace(verdict, answer=answer)
    return replace(verdict, sentence=_sentence(verdict, values, fewest))


def _answer(low: float, high: float, margin: float) -> Answer:
    if low > 0:
        return "helps"
    if high < 0:
        return "hurts"
    return "no difference" if -margin <= low and high <= margin else "cannot tell"


_BASELINES = {
    "supervised_strong": "labels-only training with the same strong views",
    "supervised": "labels-only training",
}


@dataclass(frozen=True, slots=True)
class _Words:
    """How a metric is spoken of."""

    value: str  # behind two percentages
    points: str
    label: str  # what a held-out image has


_WORDS = {"acc": _Words("right", "points", "label"), "miou": _Words("mIoU", "points of mIoU", "mask")}


def _sentence(verdict: Verdict, values: tuple[float, float], fewest: int) -> str:
    words = _WORDS[verdict.metric]
    if not verdict.n:
        none = f"no held-out image has a {words.label}, {fewest} are needed"
        return f"Cannot tell whether the unlabelled images help: {none}."
    against = _BASELINES.get(verdict.baseline, verdict.baseline)
    shares = f"{_percent(values[0])} against {_percent(values[1])} {words.value}"
    level = f"{100 * verdict.confidence:g} % interval"
    if verdict.answer in ("helps", "hurts"):
        ends = sorted((abs(verdict.low), abs(verdict.high)))
        interval = f"({level} {100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
        side = "above" if verdict.answer == "helps" else "below"
        points = _points(verdict.difference, words)
        finding = f"{verdict.method} is {points} {interval} {side} {against} ({shares})"
    else:
        interval = f"{level} from {_side(verdict.low)} to {_side(verdict.high)}"
        finding = f"{verdict.method} is {_place(verdict.difference, words)} {against} ({shares}, {interval})"
    seeds = f"{verdict.seeds} seeds" if verdict.seeds > 1 else "1 seed (other draws of labels are not covered)"
    return f"{_opening(verdict, fewest)}: {finding}, on the same {_images(verdict.n)}, {seeds}."


def _opening(verdict: Verdict, fewest: int) -> str:
    label = _WORDS[verdict.metric].label
    if verdict.n < fewest:
        there = f"there {'is' if verdict.n == 1 else 'are'} {verdict.n}"
        need = f"at least {fewest} held-out {label}s are needed and {there}"
        return f"Cannot tell whether the unlabelled images help, {need}"
    return {
        "helps": "The unlabelled images help",
        "hurts": "The unlabelled images hurt",
        "no difference": f"The unlabelled images make no difference beyond {100 * verdict.margin:g} % either way",
        "cannot tell": f"Cannot tell whether the unlabelled images help, more held-out {label}s or seeds would show it",
    }[verdict.answer]


def _images(n: int) -> str:
    return "1 held-out image" if n == 1 else f"{n:,} held-out images"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(difference: float, words: _Words = _WORDS["acc"]) -> str:
    return f"{abs(100 * difference):.1f} {words.points}"


def _side(difference: float, words: _Words = _WORDS["acc"]) -> str:
    return f"{_points(difference, words)} {'below' if difference < 0 else 'above'}"


def _place(difference: float, words: _Words) -> str:
    return _side(difference, words) if difference else "level with"
