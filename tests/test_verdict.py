"""The interval holds what it promises, by simulation; the answers and the sentence follow from it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from sfumato import verdict as verdicts
from sfumato.errors import UsageError
from sfumato.verdict import compare


def rights(n: int, gained: int, lost: int, *, both: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """A method right on `gained` examples where the baseline is wrong, and the reverse on `lost`."""
    method, baseline = (np.arange(n) < both * n for _ in range(2))
    method[-gained or n :] = True
    baseline[-gained or n :] = False
    method[:lost] = False
    return method, baseline


def pair(method: np.ndarray, baseline: np.ndarray, **options):
    return compare([method], [baseline], name="fixmatch", **options)


def test_helps_with_its_sentence():
    verdict = pair(*rights(1000, 80, 30))
    assert verdict.answer == "helps"
    assert verdict.difference == pytest.approx(0.05)
    assert (verdict.n, verdict.seeds, verdict.metric) == (1000, 1, "acc")
    assert (verdict.method, verdict.baseline, verdict.margin) == ("fixmatch", "supervised_strong", 0.01)
    assert verdict.sentence == (
        f"The unlabelled images help: fixmatch is 5.0 points (95 % interval {100 * verdict.low:.1f} to "
        f"{100 * verdict.high:.1f}) above labels-only training with the same strong views (85.0 % against 80.0 % "
        "right), on the same 1,000 held-out images, 1 seed (other draws of labels are not covered)."
    )


def test_hurts_with_its_sentence():
    seeds = [rights(400, 10 + i, 150 + i) for i in range(3)]
    verdict = compare(*zip(*seeds, strict=True), name="fixmatch", against="supervised")
    assert verdict.answer == "hurts"
    assert verdict.high < -0.25
    accuracies = (100 * np.mean([run[side].mean() for run in seeds]) for side in (0, 1))
    assert verdict.sentence == (
        f"The unlabelled images hurt: fixmatch is 35.0 points (95 % interval {-100 * verdict.high:.1f} to "
        f"{-100 * verdict.low:.1f}) below labels-only training ({next(accuracies):.1f} % against "
        f"{next(accuracies):.1f} % right), on the same 400 held-out images, 3 seeds."
    )


def test_no_difference_with_its_sentence():
    verdict = pair(*rights(5000, 11, 10))
    assert verdict.answer == "no difference"
    assert -0.01 < verdict.low < 0 < verdict.high < 0.01
    start = "The unlabelled images make no difference beyond 1 % either way: fixmatch is 0.0 points above"
    assert verdict.sentence.startswith(start)
    assert "95 % interval from 0.2 points below to 0.2 points above" in verdict.sentence


def test_cannot_tell_with_its_sentence():
    verdict = pair(*rights(200, 20, 17), against="the baseline")
    assert verdict.answer == "cannot tell"
    assert verdict.sentence.startswith(
        "Cannot tell whether the unlabelled images help, more held-out labels or seeds would show it: "
        "fixmatch is 1.5 points above the baseline ("
    )
    assert pair(*rights(200, 20, 17), margin=0.1).answer == "no difference"


@pytest.mark.parametrize("n, said", [(1, "there is 1:"), (29, "there are 29:")])
def test_too_few_labels_never_decide_and_say_how_many_are_needed(n, said):
    right, wrong = np.ones(n, dtype=bool), np.zeros(n, dtype=bool)
    verdict = pair(right, wrong)
    assert verdict.answer == "cannot tell"
    start = "Cannot tell whether the unlabelled images help, at least 30 held-out labels are needed and "
    assert verdict.sentence.startswith(start + said)
    assert pair(right, wrong, fewest=1).answer == ("helps" if n == 29 else "cannot tell")


def test_no_label_at_all():
    nothing = np.zeros(0, dtype=bool)
    verdict = pair(nothing, nothing)
    assert (verdict.answer, verdict.n) == ("cannot tell", 0)
    assert math.isnan(verdict.difference)
    assert verdict.sentence == (
        "Cannot tell whether the unlabelled images help: no held-out image has a label, 30 are needed."
    )


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_equal_predictions_differ_by_exactly_zero_but_few_examples_prove_little(n):
    right = np.arange(n) % 3 > 0
    verdict = pair(right, right)
    assert verdict.difference == 0.0
    assert verdict.low == -verdict.high
    assert 0 < verdict.high < 3 / n
    assert verdict.answer == ("no difference" if n == 1000 else "cannot tell")
    assert "fixmatch is level with" in verdict.sentence


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("case", range(8))
def test_swapping_mirrors_the_interval(seeds, case):
    draw = np.random.default_rng(case)
    method, baseline = ([draw.random(60) < 0.6 + 0.05 * case for _ in range(seeds)] for _ in range(2))
    one, other = compare(method, baseline, name="a"), compare(baseline, method, name="b")
    assert (one.difference, one.low, one.high) == (-other.difference, -other.high, -other.low)
    opposite = {"helps": "hurts", "hurts": "helps"}
    assert opposite.get(one.answer, one.answer) == other.answer


def test_balanced_swaps_are_symmetric_too():
    method, baseline = rights(200, 12, 12)
    verdict = pair(method, baseline)
    assert verdict.difference == 0
    assert verdict.low == -verdict.high


def test_repeatable_and_order_of_examples_or_seeds_is_irrelevant():
    draw = np.random.default_rng(0)
    method, baseline = ([draw.random(100) < 0.7 for _ in range(3)] for _ in range(2))
    first = compare(method, baseline, name="m")
    assert compare(method, baseline, name="m") == first
    order = draw.permutation(100)
    shuffled = compare([m[order] for m in method[::-1]], [b[order] for b in baseline[::-1]], name="m")
    assert (shuffled.low, shuffled.high) == pytest.approx((first.low, first.high), abs=1e-12)
    other = compare(method, baseline, name="m", seed=1)
    assert (other.low, other.high) == pytest.approx((first.low, first.high), abs=0.02)


def test_close_to_the_normal_interval_for_many_examples():
    method, baseline = rights(10_000, 800, 500)
    error = math.sqrt((0.13 - 0.03**2) / 10_000)
    verdict = pair(method, baseline)
    assert (verdict.low, verdict.high) == pytest.approx((0.03 - 1.96 * error, 0.03 + 1.96 * error), abs=0.05 * error)
    wider = pair(method, baseline, confidence=0.99)
    assert wider.low < verdict.low < verdict.high < wider.high


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_disagree_are_no_proof(seeds):
    """Every seed alone is beyond doubt; together they may be an accident, and t with 1 or 2 degrees says so."""
    gains = (200, 600, 300)[:seeds]
    runs = [rights(1000, gained, 0, both=0.3) for gained in gains]
    assert all(pair(*run).answer == "helps" for run in runs)
    verdict = compare(*zip(*runs, strict=True), name="m")
    assert verdict.answer == "cannot tell"
    effects = np.array(gains) / 1000
    half = stats.t.ppf(0.975, seeds - 1) * effects.std(ddof=1) / math.sqrt(seeds)
    assert verdict.low < max(-0.99, effects.mean() - half + 0.02)


@pytest.mark.parametrize("seeds", [2, 3])
def test_seeds_that_agree_are_proof(seeds):
    runs = [rights(1000, 200 + 3 * i, 20, both=0.6) for i in range(seeds)]
    assert compare(*zip(*runs, strict=True), name="m").answer == "helps"


@pytest.mark.parametrize("n, lost, gained", [(30, 0.1, 0.1), (200, 0.02, 0.06), (1000, 0.0, 0.004), (1000, 0.05, 0.1)])
def test_interval_of_one_seed_covers_the_truth(monkeypatch, n, lost, gained):
    monkeypatch.setattr(verdicts, "_DRAWS", 4000)
    draw = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        kind = draw.random(n)
        method, baseline = kind >= lost, (kind < lost) | (kind >= lost + gained)
        verdict = pair(method, baseline)
        covered += verdict.low <= gained - lost <= verdict.high
    assert covered / 300 >= 0.93


@pytest.mark.parametrize("seeds, spread", [(2, 0.0), (2, 0.06), (3, 0.0), (3, 0.06), (5, 0.06)])
def test_interval_over_seeds_covers_the_truth(monkeypatch, seeds, spread):
    """Examples of their own difficulty, the same for all seeds, and seeds of their own effect."""
    monkeypatch.setattr(verdicts, "_DRAWS", 4000)
    draw = np.random.default_rng(2)
    n, truth, covered, widths = 200, 0.1, 0, []
    for _ in range(200):
        hard = draw.normal(0, 0.15, size=n)
        baseline = [draw.random(n) < np.clip(0.6 + hard, 0, 1) for _ in range(seeds)]
        effects = draw.normal(truth, spread, size=seeds)
        method = [draw.random(n) < np.clip(0.6 + hard + effect, 0, 1) for effect in effects]
        verdict = compare(method, baseline, name="m")
        covered += verdict.low <= truth <= verdict.high
        widths.append(verdict.high - verdict.low)
    assert covered / 200 >= 0.93
    assert np.median(widths) < {2: 1.3, 3: 0.5, 5: 0.3}[seeds]  # wide is easy: it must also be of use


def test_is_written_to_json():
    verdict = pair(rights(100, 10, 0)[0].astype(int), rights(100, 10, 0)[1].astype(float))
    assert json.loads(json.dumps(asdict(verdict)))["answer"] == "helps"


def test_says_what_does_not_pair():
    a, b = np.ones(40, dtype=bool), np.ones(41, dtype=bool)
    with pytest.raises(
        UsageError, match=r"arrays of shapes \(40,\), \(41,\) cannot be paired: expected \(n,\) for all"
    ):
        pair(a, b)
    with pytest.raises(UsageError, match="Evaluate every run on the same split"):
        compare([a, b], [a, b], name="m")
    with pytest.raises(UsageError, match="2 seeds of the method against 1 of the baseline"):
        compare([a, a], [a], name="m")
    with pytest.raises(UsageError, match="0 seeds of the method against 0"):
        compare([], [], name="m")
    with pytest.raises(UsageError, match=r"shapes \(40, 2\) cannot be paired"):
        pair(np.ones((40, 2)), np.ones((40, 2)))
    with pytest.raises(UsageError, match="1 where a prediction was right and 0 where it was wrong"):
        pair(a * 2, a)
    with pytest.raises(UsageError, match="confidence=95: expected"):
        pair(a, a, confidence=95)
