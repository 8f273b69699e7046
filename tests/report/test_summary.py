"""Numbers behind the drawings, against loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfumato.criterion import CRITERIA
from sfumato.report import summary, views, wording
from sfumato.report.records import Entry, Finding, Predictions, Run, Series


def predictions(n: int = 400, classes: int = 4, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes)).astype(np.float32)
    labels = np.where(rng.random(n) < 0.7, logits.argmax(1), rng.integers(0, classes, n))
    return Predictions(np.arange(n), tuple(map(str, range(n))), logits, labels)


def run(curves: dict[str, Series] | None = None, held: Predictions | None = None) -> Run:
    return Run(
        folder=Path("run"),
        method="m",
        criterion=CRITERIA["acc"],
        seed=0,
        steps=1,
        seconds=1.0,
        temperature=2.0,
        test={},
        test_calibrated={},
        val={},
        student={},
        best_step=None,
        best={},
        classes=("a", "b", "c", "d"),
        labels=None,
        collapse=None,
        warnings=(),
        curves=curves or {},
        predictions=held,
    )


def series(*points: tuple[float, float]) -> Series:
    steps, values = zip(*points, strict=True)
    return Series(np.array(steps, np.float64), np.array(values, np.float64))


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_reliability_of_two_seeds_counts_both(temperature: float) -> None:
    seeds = [predictions(seed=0), predictions(seed=1)]
    found = summary.reliability([(one, temperature) for one in seeds])
    count, right, told = np.zeros(15), np.zeros(15), np.zeros(15)
    for one in seeds:
        for logits, label in zip(one.logits.astype(np.float64), one.labels, strict=True):
            p = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
            place = min(14, int(p.max() * 15))
            count[place] += 1
            right[place] += p.argmax() == label
            told[place] += p.max()
    np.testing.assert_array_equal(found.count, count)
    held = count > 0
    np.testing.assert_allclose(found.accuracy[held], (right / np.maximum(count, 1))[held])
    assert found.ece == pytest.approx(np.abs(right - told).sum() / count.sum(), abs=1e-6)
    assert np.isnan(found.accuracy[~held]).all()


def test_confused_pairs_are_the_largest() -> None:
    matrix = np.array([[8, 2, 0], [5, 5, 0], [0, 1, 0]])
    assert summary.confused_pairs(matrix) == (
        summary.Pair(1, 0, 5, 0.5),
        summary.Pair(0, 1, 2, 0.2),
        summary.Pair(2, 1, 1, 1.0),
    )
    assert len(summary.confused_pairs(matrix, most=1)) == 1


def test_class_figures_put_the_weakest_first_and_the_absent_last() -> None:
    matrix = np.array([[8, 2, 0], [0, 0, 0], [5, 5, 0]])
    found = summary.class_figures(matrix, None, seeds=2)
    assert [one.place for one in found] == [2, 0, 1]
    assert [one.count for one in found] == [5, 5, 0]
    assert found[1].recall == 0.8
    assert found[1].precision == pytest.approx(8 / 13)
    assert np.isnan(found[2].recall)
    assert np.isnan(found[0].precision)
    assert np.isnan(found[0].baseline_recall)


def test_gallery_is_sorted_as_it_says() -> None:
    held = predictions()
    p = summary.probabilities(held, 2.0).numpy().astype(np.float64)
    wrong = p.argmax(1) != held.labels
    mistakes = summary.mistakes(run(held=held), 5)
    sure = [one.guesses[0][1] for one in mistakes]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] == pytest.approx(p[wrong].max(1).max())
    assert all(wrong[one.row] for one in mistakes)
    entropy = -(p * np.log(p)).sum(1)
    assert [one.row for one in summary.uncertain(run(held=held), 3)] == list(np.argsort(-entropy)[:3])


def test_plane_is_confidence_and_variance_of_the_losers() -> None:
    seeds = [predictions(n=50, seed=0), predictions(n=30, seed=1)]
    found = summary.plane(seeds)
    assert found is not None
    logits = np.concatenate([one.logits for one in seeds]).astype(np.float64)
    labels = np.concatenate([one.labels for one in seeds])
    for n, (row, label) in enumerate(zip(logits, labels, strict=True)):
        p = np.exp(row) / np.exp(row).sum()
        losers = np.delete(p, p.argmax())
        assert found.confidence[n] == pytest.approx(p.max(), abs=1e-6)
        assert found.dispersion[n] == pytest.approx(losers.var(), abs=1e-6)
        assert found.right[n] == (p.argmax() == label)
    assert summary.plane([predictions(classes=2)]) is None
    assert summary.plane([]) is None


def test_class_iou_is_mean_and_range_over_the_seeds_that_have_it() -> None:
    tests = [{"iou/a": 0.2, "iou/b": 0.5}, {"iou/a": 0.6}]
    entry = Entry("m", tuple(replace(run(), test=test) for test in tests), {})
    found = summary.class_iou(entry, ("a", "b", "c"))
    assert found is not None
    np.testing.assert_allclose(found.mean, [0.4, 0.5, np.nan])
    np.testing.assert_allclose(found.low, [0.2, 0.5, np.nan])
    np.testing.assert_allclose(found.high, [0.6, 0.5, np.nan])
    assert summary.class_iou(Entry("m", (run(),), {}), ("a",)) is None
    assert summary.class_iou(None, ("a",)) is None


def test_confusion_of_masks_is_of_all_pixels_and_not_of_the_sample() -> None:
    counts = np.array([[5, 3, 0, 0], [0, 7, 0, 0], [0, 0, 2, 0], [1, 0, 0, 4]])
    held = replace(predictions(n=20), counts=counts)
    np.testing.assert_array_equal(summary.confusion([held, held], 4), 2 * counts)
    assert held.judged
    assert not replace(held, counts=0 * counts).judged
    assert summary.mistakes(run(held=held), 5) == summary.uncertain(run(held=held), 5) == ()


def test_line_is_mean_and_range_over_the_steps_all_seeds_reached() -> None:
    entry = Entry("m", (run({"x": series((0, 0.0), (10, 1.0))}), run({"x": series((0, 1.0), (5, 1.0), (20, 1.0))})), {})
    line = summary.line(entry, "x")
    assert line is not None
    np.testing.assert_allclose(line.steps, [0, 5, 10])
    np.testing.assert_allclose(line.mean, [0.5, 0.75, 1.0])
    np.testing.assert_allclose(line.low, [0, 0.5, 1])
    np.testing.assert_allclose(line.high, [1, 1, 1])
    assert summary.line(entry, "y") is None
    assert summary.line(None, "x") is None


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    steps = np.arange(100_000, dtype=np.float64)
    thin = summary.thinned(steps, 240)
    assert len(thin) <= 240
    assert (thin[0], thin[-1]) == (0, 99_999)


def test_smoothing_keeps_a_constant() -> None:
    np.testing.assert_allclose(summary.smoothed(np.full(9, 3.0), 4), 3.0)


def test_heat_averages_seeds_and_leaves_gaps() -> None:
    first = {"v/a": series((0, 0.2), (10, 0.4)), "v/c": series((10, 1.0))}
    second = {"v/a": series((0, 0.4), (10, 0.8))}
    heat = summary.heat(Entry("m", (run(first), run(second)), {}), "v", ("a", "b", "c"))
    assert heat is not None
    np.testing.assert_allclose(heat.values, [[0.3, 0.6], [np.nan, np.nan], [np.nan, 1.0]])


def test_heat_of_many_classes_keeps_the_lowest() -> None:
    curves = {f"v/{c}": series((0, 1.0), (1, 1.0 - 0.01 * c)) for c in range(60)}
    heat = summary.heat(Entry("m", (run(curves),), {}), "v", [str(c) for c in range(60)], most=10)
    assert heat is not None
    assert heat.classes == tuple(range(50, 60))
    assert heat.left_out == 50


def test_ticks_of_the_interval_are_round_and_inside() -> None:
    for low, high in ((0.002, 0.004), (-0.6, -0.55), (-0.0001, 0.0002), (-1.0, 1.0)):
        drawn = views.interval(Finding("helps", "", low=low, high=high, difference=(low + high) / 2, margin=0.01))
        assert drawn is not None
        assert 2 <= len(drawn.ticks) <= 9
        assert "0" in [tick.text for tick in drawn.ticks]
        places = [tick.at for tick in drawn.ticks] + [drawn.low.at, drawn.high.at, drawn.zero, *(drawn.margin or ())]
        assert all(0 <= place <= 100 for place in places)
        assert len({tick.text for tick in drawn.ticks}) == len(drawn.ticks)


def test_interval_of_no_width() -> None:
    drawn = views.interval(Finding("no difference", "", low=0.0, high=0.0, difference=0.0))
    assert drawn is not None
    assert drawn.low.at == drawn.high.at == drawn.zero == 50


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14159, "3.14\u202fs"), (119, "119\u202fs"), (600, "10\u202fmin"), (9000, "2.5\u202fh")]
)
def test_durations(seconds: float, text: str) -> None:
    assert wording.duration([seconds]) == text


def test_numbers() -> None:
    assert wording.percents([0.9, 0.92]) == "91.0 ± 1.4\u202f%"
    assert wording.percents([0.9]) == "90.0\u202f%"
    assert wording.percents([]) == wording.percent(None) == wording.percent(float("nan")) == "–"
    assert wording.points(-0.0312) == "−3.1"
    assert str(wording.prose("<`x>`")) == "&lt;<code>x&gt;</code>"
