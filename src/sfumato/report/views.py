"""The parts of the page that are words and tables, ready for the template: verdict, runs, classes, gallery."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.criterion import Criterion
from sfumato.report import summary, wording
from sfumato.report.palette import ANSWERS
from sfumato.report.pictures import Images, Picture, pictures
from sfumato.report.records import FIGURES, Account, Doubts, Entry, Finding, Ints

FULL_MATRIX = 20
"""Up to so many classes the confusion matrix is shown whole."""

_TILES = 12


@dataclass(frozen=True, slots=True)
class Mark:
    at: float  # percent of the width
    text: str


@dataclass(frozen=True, slots=True)
class Interval:
    """The interval of the verdict as places along a line, in percent of its width."""

    low: Mark
    high: Mark
    difference: Mark
    zero: float
    margin: tuple[float, float] | None
    ticks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    headline: str
    sentence: str
    colour: str
    interval: Interval | None
    metric: str = "accuracy"
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    colour: str
    role: str
    cells: tuple[tuple[str, str], ...]  # (column, text)


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    share: float  # of its row
    right: bool


@dataclass(frozen=True, slots=True)
class Region:
    """A class of pixels; IoU is the mean over seeds, NaN where it cannot be said."""

    name: str
    color: str  # of the class in pictures; empty where unknown
    rare: bool
    figures: summary.ClassFigures
    iou: float
    baseline_iou: float


@dataclass(frozen=True, slots=True)
class Tile:
    picture: Picture | None
    name: str
    guesses: tuple[tuple[str, str], ...]  # class and its probability
    truth: str
    wrong: bool


def verdict(account: Account) -> Verdict:
    """The first thing on the page. Without `verdict.json` it says why there is none."""
    finding = account.finding
    if finding is None:
        missing = "no baseline was trained" if account.baseline is None else "the run holds no verdict.json"
        told = f"There is no verdict: {missing}. `sfumato train` compares with labels only unless told not to."
        return Verdict(_fallback(account), told, "unknown", None)
    counted = [
        f"{wording.whole(finding.n)} {'validation' if finding.split == 'val' else 'test'} images" if finding.n else "",
        f"{finding.seeds} seeds" if finding.seeds and finding.seeds > 1 else "",
        f"{wording.percent(finding.confidence, 0)} interval" if finding.confidence else "",
    ]
    return Verdict(
        headline=wording.HEADLINES.get(finding.answer, finding.answer),
        sentence=finding.sentence,
        colour=ANSWERS.get(finding.answer, "unknown"),
        interval=interval(finding),
        metric=wording.METRICS.get(finding.metric, finding.metric),
        basis=", ".join(text for text in counted if text),
    )


def _fallback(account: Account) -> str:
    entry = account.entry(account.focus)
    values = entry.figures.get("score", ()) if entry is not None else ()
    return (
        f"{account.focus}: {wording.percents(values)} {account.criterion.name}."
        if values
        else f"{account.focus}, not yet tested."
    )


def interval(finding: Finding) -> Interval | None:
    """Where low, high, zero and the margin lie on a line that shows all of them with some room."""
    if finding.low is None or finding.high is None:
        return None
    middle = finding.difference if finding.difference is not None else (finding.low + finding.high) / 2
    reach = [0.0, finding.low, finding.high, *((-finding.margin, finding.margin) if finding.margin else ())]
    room = 0.12 * max(max(reach) - min(reach), 1e-3)
    start, end = min(reach) - room, max(reach) + room

    def at(value: float) -> float:
        return round(float(100 * (value - start) / (end - start)), 2)

    width = _tick_width(end - start)
    ticks = np.arange(math.ceil(start / width), math.floor(end / width) + 1) * width
    digits = 0 if width >= 0.01 else 1 if width >= 0.001 else 2
    return Interval(
        low=Mark(at(finding.low), wording.points(finding.low)),
        high=Mark(at(finding.high), wording.points(finding.high)),
        difference=Mark(at(middle), wording.points(middle)),
        zero=at(0.0),
        margin=(at(-finding.margin), at(finding.margin)) if finding.margin else None,
        ticks=tuple(Mark(at(float(t)), wording.points(float(t), digits) if abs(t) > 1e-9 else "0") for t in ticks),
    )


def _tick_width(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that four to eight ticks fit."""
    rough = span / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return float(power * next(step for step in (1, 2, 5, 10) if step * power >= rough))


def facts(account: Account) -> tuple[Fact, ...]:
    """A few figures beside the verdict."""
    entry, base = account.entry(account.focus), account.entry(account.baseline)
    if entry is None:
        return ()

    def against(key: str) -> str:
        values = base.figures.get(key, ()) if base is not None else ()
        return f"{account.baseline}: {wording.percents(values)}" if values else ""

    found = [
        Fact(
            wording.heading(account.criterion.name), wording.percents(entry.figures.get("score", ())), against("score")
        )
    ]
    for label, key in (("mIoU along contours", "boundary"), ("Pixels that are right", "pixels")):
        if entry.figures.get(key):
            found.append(Fact(label, wording.percents(entry.figures[key]), against(key)))
    key = "ece_after" if entry.figures.get("ece_after") else "ece"
    found.append(Fact("Calibration error", wording.percents(entry.figures.get(key, ())), against(key)))
    words, labels = wording.WORDS[account.criterion.key], _labels(entry)
    if labels != wording.DASH:
        classes = len(entry.runs[0].classes)
        found.append(Fact(f"{wording.heading(words.labels)} used", labels, f"{classes} classes" if classes else ""))
    if entry.figures.get("seconds"):
        steps = entry.runs[0].steps if entry.runs else None
        note = f"{wording.whole(steps)} steps" if steps else ""
        found.append(Fact("Time", wording.duration(entry.figures["seconds"]), note))
    return tuple(found)


def _labels(entry: Entry) -> str:
    counts = sorted({run.labels for run in entry.runs if run.labels is not None})
    return " / ".join(wording.whole(count) for count in counts) or wording.DASH


def rows(account: Account, colours: Mapping[str, str]) -> tuple[Row, ...]:
    """One row a method, the reported one and its baseline marked."""
    roles = {account.focus: "this report" if len(account.entries) > 1 else "", account.baseline: "baseline"}
    return tuple(
        Row(entry.name, colours[entry.name], roles.get(entry.name, ""), _cells(entry, account.criterion))
        for entry in account.entries
    )


def _cells(entry: Entry, criterion: Criterion) -> tuple[tuple[str, str], ...]:
    figures = {key: entry.figures.get(key, ()) for key in FIGURES}
    seeds = [str(run.seed) for run in entry.runs if run.seed is not None]
    return (
        (wording.heading(wording.WORDS[criterion.key].labels), _labels(entry)),
        ("Seeds", ", ".join(seeds) or str(len(figures["score"]) or wording.DASH)),
        (wording.heading(criterion.name), wording.percents(figures["score"])),
        (wording.heading(criterion.beside_name), wording.percents(figures["beside"])),
        ("ECE", wording.percents(figures["ece"])),
        ("ECE after T", wording.percents(figures["ece_after"])),
        ("NLL", wording.plain(figures["nll"], 2)),
        ("Time", wording.duration(figures["seconds"])),
    )


def other_networks(entry: Entry | None) -> str:
    """The checkpoint best on validation and the student, beside the network that every other figure is about."""
    runs = entry.runs if entry is not None else ()
    best = [run for run in runs if run.criterion.key in run.best]
    students = [run for run in runs if run.criterion.key in run.student]
    told = []
    if best:
        steps = ", ".join(dict.fromkeys(wording.whole(run.best_step) for run in best))
        score = wording.percents([run.best[run.criterion.key] for run in best])
        told.append(f"The table shows the last checkpoint. The one best on validation (step {steps}) reaches {score}.")
    if students:
        score = wording.percents([run.student[run.criterion.key] for run in students])
        told.append(f"All figures are of the averaged weights; the last weights themselves reach {score}.")
    return " ".join(told)


def matrix(entry: Entry | None) -> Ints | None:
    """Confusion counts of images or pixels over all seeds, or None without predictions."""
    held = [run.predictions for run in entry.runs if run.predictions is not None] if entry is not None else []
    held = [one for one in held if one.judged]
    if entry is None or not held:
        return None
    widths = {one.logits.shape[1] for one in held}
    return summary.confusion(held, widths.pop()) if len(widths) == 1 else None


def cells(counts: Ints, *, shares: bool) -> tuple[tuple[Cell, ...], ...]:
    """shares: percents of the row in place of counts, which are huge where pixels are counted."""
    sizes = np.maximum(1, counts.sum(axis=1))

    def cell(i: int, j: int) -> Cell:
        share = float(counts[i, j] / sizes[i])
        text = wording.share_of_row(share) if shares else str(counts[i, j] or "")
        return Cell(text, round(share, 3), i == j)

    places = range(len(counts))
    return tuple(tuple(cell(i, j) for j in places) for i in places)


def regions(account: Account, counts: Ints | None, baseline: Ints | None) -> tuple[Region, ...]:
    """The classes of a run with masks, the lowest IoU first, absent classes last."""
    entry = account.entry(account.focus)
    if entry is None or not entry.runs or counts is None:
        return ()
    classes = entry.runs[0].classes
    mine, theirs = (summary.class_iou(account.entry(name), classes) for name in (account.focus, account.baseline))
    nothing = np.full(len(classes), np.nan)
    iou, other = (nothing if found is None else found.mean for found in (mine, theirs))
    colors = account.gallery.colors if account.gallery is not None else ()
    rare = {name for run in entry.runs for name in run.rare}
    made = {
        one.place: Region(
            name=classes[one.place],
            color=wording.hex_color(colors[one.place]) if one.place < len(colors) else "",
            rare=classes[one.place] in rare,
            figures=one,
            iou=float(iou[one.place]),
            baseline_iou=float(other[one.place]),
        )
        for one in summary.class_figures(counts, baseline, len(entry.runs))
    }
    return tuple(made[int(place)] for place in np.argsort(iou, kind="stable"))  # NaN goes last


def tiles(
    shown: Sequence[summary.Shown], classes: Sequence[str], images: Images | None, *, wrong: bool
) -> tuple[Tile, ...]:
    """Gallery tiles. A confident mistake tells what was believed; an uncertain image tells both guesses."""
    held = pictures(images, [one.row for one in shown]) if images is not None else {}
    made = []
    for one in shown:
        guesses = tuple((classes[c], wording.percent(p, 0)) for c, p in one.guesses[: 1 if wrong else 2])
        missed = one.guesses[0][0] != one.label
        made.append(Tile(held.get(one.row), one.name, guesses, classes[one.label], missed))
    return tuple(made)


def doubts(entry: Entry | None) -> Doubts | None:
    """The labels to look at, of the first seed that lists any."""
    found = [run.doubts for run in entry.runs if run.doubts is not None] if entry is not None else []
    return next((one for one in found if one.listed), found[0] if found else None)


def trained(entry: Entry | None) -> Mapping[str, tuple[int, ...]]:
    """Labelled and unlabelled images of each class that the first seed was trained on; nothing where it is unknown."""
    counts = entry.runs[0].trained if entry is not None and entry.runs else {}
    return {part: counts[part] for part in ("labeled", "unlabeled") if any(counts.get(part, ()))}


def mistakes(account: Account, images: Images | None) -> tuple[Tile, ...]:
    run = next((run for entry in account.entries if entry.name == account.focus for run in entry.runs), None)
    return () if run is None else tiles(summary.mistakes(run, _TILES), run.classes, images, wrong=True)


def uncertain(account: Account, images: Images | None) -> tuple[Tile, ...]:
    run = next((run for entry in account.entries if entry.name == account.focus for run in entry.runs), None)
    return () if run is None else tiles(summary.uncertain(run, _TILES), run.classes, images, wrong=False)
