"""What the figures and tables of a report show, computed from predictions and curves. N images, C classes, B bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato import evaluate
from sfumato.functional import calibration, spectral
from sfumato.functional.probability import probability
from sfumato.report.records import Entry, Floats, Ints, Predictions, Run, Series

BINS = 15
POINTS = 240
"""Most points that one line of a chart keeps: more cannot be seen and would only make the file heavy."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Confidence against accuracy in B bins (edges: `functional.calibration`); an empty bin has NaN."""

    count: Ints  # (B,)
    accuracy: Floats  # (B,)
    confidence: Floats  # (B,) mean of the bin
    ece: float


@dataclass(frozen=True, slots=True)
class Line:
    """One value over training: mean over seeds, with the lowest and highest seed."""

    steps: Floats  # (T,)
    mean: Floats  # (T,)
    low: Floats  # (T,)
    high: Floats  # (T,)
    seeds: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A confusion: `count` images or pixels of class `true` were taken for `predicted`, `share` of that class."""

    true: int
    predicted: int
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class on the test split, mean over seeds. NaN where it cannot be said."""

    place: int
    count: int
    share: float  # of all images or pixels
    recall: float
    precision: float
    baseline_recall: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """IoU of each class: mean over seeds, with the lowest and highest seed; NaN where a class does not occur."""

    mean: Floats  # (C,)
    low: Floats  # (C,)
    high: Floats  # (C,)


@dataclass(frozen=True, slots=True)
class Plane:
    """The two features by which CSL tells reliable predictions from others, of M predictions."""

    confidence: Floats  # (M,)
    dispersion: Floats  # (M,) variance of the losing classes
    right: NDArray[np.bool_]  # (M,)
    classes: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One image of the gallery. `guesses` are the two likeliest classes with their calibrated probability."""

    row: int
    name: str
    label: int
    guesses: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Heat:
    """A value per class over training, mean over seeds; NaN where there was none."""

    steps: Floats  # (T,)
    values: Floats  # (K, T)
    classes: tuple[int, ...]  # (K,) places of the classes shown
    left_out: int


def probabilities(predictions: Predictions, temperature: float = 1.0) -> Tensor:
    """(N, C), computed as evaluation computes it."""
    return probability(torch.from_numpy(predictions.logits) / temperature)


def reliability(predictions: Sequence[tuple[Predictions, float]], bins: int = BINS) -> Reliability:
    """Reliability of several seeds together, each with its own temperature. Needs at least one."""
    parts = [
        calibration.bin_sums(probabilities(one, temperature), torch.from_numpy(one.labels), bins=bins)
        for one, temperature in predictions
    ]
    sums = sum(parts[1:], start=parts[0])
    table = calibration.reliability_of(sums)
    return Reliability(
        count=table.count.numpy().astype(np.int64),
        accuracy=table.accuracy.numpy(),
        confidence=table.confidence.numpy(),
        ece=float(calibration.binned_error(sums)),
    )


def confusion(predictions: Sequence[Predictions], classes: int) -> Ints:
    """(C, C) counts of images, or of pixels where there are masks; rows = true class, summed over seeds."""
    total: Ints = np.zeros((classes, classes), np.int64)
    for one in predictions:
        if one.counts is not None:
            total += one.counts
            continue
        total += evaluate.confusion(torch.from_numpy(one.logits), torch.from_numpy(one.labels), classes).numpy()
    return total


def confused_pairs(matrix: Ints, most: int = 15) -> tuple[Pair, ...]:
    """The largest confusions, most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    sizes = matrix.sum(axis=1)
    places = [divmod(int(place), len(matrix)) for place in order]
    return tuple(Pair(i, j, int(wrong[i, j]), float(wrong[i, j] / sizes[i])) for i, j in places if wrong[i, j])


def class_figures(matrix: Ints, baseline: Ints | None, seeds: int) -> tuple[ClassFigures, ...]:
    """Recall and precision of each class, the weakest recall first, absent classes last."""

    def ratio(over: Ints, counts: Ints) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(over > 0, np.diag(counts) / over, np.nan)

    recall, precision = ratio(matrix.sum(axis=1), matrix), ratio(matrix.sum(axis=0), matrix)
    other = np.full(len(matrix), np.nan) if baseline is None else ratio(baseline.sum(axis=1), baseline)
    sizes = matrix.sum(axis=1) // max(1, seeds)
    shares = sizes / max(1, sizes.sum())
    columns = (sizes.tolist(), shares.tolist(), recall.tolist(), precision.tolist(), other.tolist())
    found = [ClassFigures(place, *values) for place, values in enumerate(zip(*columns, strict=True))]
    return tuple(found[place] for place in np.argsort(recall, kind="stable"))  # NaN goes last


def class_iou(entry: Entry | None, classes: Sequence[str]) -> Overlap | None:
    """IoU of each class as its runs measured it on the test split; None where none did."""
    runs = [run.test for run in (entry.runs if entry is not None else ())]
    seeds = np.array([[test.get(f"iou/{name}", np.nan) for name in classes] for test in runs])
    if not np.isfinite(seeds).any():
        return None
    with np.errstate(invalid="ignore"):
        mean = np.nansum(seeds, axis=0) / np.isfinite(seeds).sum(axis=0)
    return Overlap(mean, np.fmin.reduce(seeds), np.fmax.reduce(seeds))


def plane(held: Sequence[Predictions]) -> Plane | None:
    """Where predictions of all seeds lie on the plane that CSL splits. None for 2 classes: one loser is always even."""
    parts = [(probabilities(one), one.labels) for one in held if len(one.labels) and one.logits.shape[1] > 2]
    if not parts:
        return None
    p = torch.cat([part for part, _ in parts])
    top, guess = p.max(dim=1)
    right = guess.numpy() == np.concatenate([labels for _, labels in parts])
    return Plane(top.double().numpy(), spectral.residual_dispersion(p).double().numpy(), right, p.shape[1])


def mistakes(run: Run, most: int) -> tuple[Shown, ...]:
    """Wrong predictions, the most confident first."""
    return _gallery(run, most, wrong=True)


def uncertain(run: Run, most: int) -> tuple[Shown, ...]:
    """Images whose predicted distribution has the largest entropy, right or wrong."""
    return _gallery(run, most, wrong=False)


def _gallery(run: Run, most: int, *, wrong: bool) -> tuple[Shown, ...]:
    held = run.predictions
    if held is None or held.counts is not None or not len(held.labels):
        return ()
    p = probabilities(held, run.temperature or 1.0).numpy().astype(np.float64)
    if wrong:
        score = np.where(p.argmax(axis=1) != held.labels, p.max(axis=1), -1.0)
    else:
        score = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=1)
    places = [int(n) for n in np.argsort(-score, kind="stable")[:most] if score[n] >= 0]
    top = np.argsort(-p, axis=1, kind="stable")[:, :2]
    return tuple(
        Shown(int(held.rows[n]), held.names[n], int(held.labels[n]), tuple((int(c), float(p[n, c])) for c in top[n]))
        for n in places
    )


def line(entry: Entry | None, metric: str) -> Line | None:
    """A metric of `metrics.jsonl` over all seeds of a method; None when no seed has it."""
    found = [run.curves[metric] for run in entry.runs if metric in run.curves] if entry is not None else []
    if not found:
        return None
    steps = _common_steps(found)
    values = np.stack([np.interp(steps, one.steps, one.values) for one in found])  # (seeds, T)
    return Line(steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0), len(found))


def _common_steps(found: Sequence[Series]) -> Floats:
    """Steps that every seed has reached, thinned to `POINTS`; the last one stays."""
    end = min(one.steps[-1] for one in found)
    steps = np.unique(np.concatenate([one.steps for one in found]))
    steps = steps[steps <= end] if (steps <= end).any() else steps[:1]
    return thinned(steps, POINTS)


def thinned(steps: Floats, most: int) -> Floats:
    """At most `most` of the steps, evenly chosen, with the first and the last."""
    if len(steps) <= most:
        return steps
    return steps[np.unique(np.linspace(0, len(steps) - 1, most).round().astype(np.int64))]


def smoothed(values: Floats, window: int) -> Floats:
    """Centred moving mean over `window` values; the ends average what there is."""
    if window <= 1 or len(values) <= 2:
        return values
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def heat(entry: Entry, metric: str, classes: Sequence[str], *, most: int = 40, columns: int = 80) -> Heat | None:
    """`pl/coverage/<class>` or `pl/precision/<class>` over training; None when no class has it.

    With more classes than `most`, those that end lowest are kept: that is where pseudo-labels go wrong.
    """
    found = [(place, _per_class(entry, f"{metric}/{name}")) for place, name in enumerate(classes)]
    known = [series for _, parts in found for series in parts]
    if not known:
        return None
    steps = thinned(np.unique(np.concatenate([series.steps for series in known])), columns)
    values = np.stack([_binned(parts, steps) for _, parts in found])
    order = np.arange(len(classes))
    if len(classes) > most:
        last = np.array([parts[0].values[-1] if parts else np.nan for _, parts in found])
        order = np.sort(np.argsort(last, kind="stable")[:most])
    return Heat(steps, values[order], tuple(int(c) for c in order), len(classes) - len(order))


def _per_class(entry: Entry, metric: str) -> list[Series]:
    return [run.curves[metric] for run in entry.runs if metric in run.curves]


def _binned(parts: Sequence[Series], steps: Floats) -> Floats:
    """Mean of all values whose step lies nearest to each of `steps`; NaN where there is none. -> (T,)"""
    total, count = np.zeros(len(steps)), np.zeros(len(steps))
    edges = (steps[1:] + steps[:-1]) / 2
    for one in parts:
        place = np.searchsorted(edges, one.steps)
        total += np.bincount(place, weights=one.values, minlength=len(steps))
        count += np.bincount(place, minlength=len(steps))
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def final(values: Sequence[float]) -> tuple[float, float] | None:
    """Mean and standard deviation (n - 1); the latter is NaN for one value. None for no value."""
    if not values:
        return None
    held: NDArray[np.float64] = np.asarray(values, np.float64)
    return float(held.mean()), float(held.std(ddof=1)) if len(held) > 1 else float("nan")
