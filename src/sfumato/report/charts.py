"""Which drawings a report has, from what its runs hold. A drawing whose data is missing is left out with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from sfumato.report import figures, summary, views, wording
from sfumato.report.records import Account, Entry

_BARS = 40
"""At most so many classes are drawn as bars; the lowest are kept."""


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    text: str
    svg: Markup


def training(account: Account, colours: Mapping[str, str]) -> tuple[Chart, ...]:
    """Losses, validation accuracy, coverage and precision of pseudo-labels; those that were logged."""
    criterion, words = account.criterion, wording.WORDS[account.criterion.key]
    shares = (
        (f"val/{criterion.key}", f"Validation {criterion.name}", words.validation),
        ("pl/coverage", "Pseudo-labels in use", f"Share of the unlabelled {words.counted} that count in the loss."),
        ("pl/precision", "Pseudo-labels that are right", words.precision),
    )
    found = [_losses(account), *(_share(account, colours, *shown) for shown in shares)]
    return tuple(chart for chart in found if chart is not None)


def _share(account: Account, colours: Mapping[str, str], metric: str, title: str, text: str) -> Chart | None:
    lines = {entry.name: found for entry in account.entries if (found := summary.line(entry, metric)) is not None}
    if not lines:
        return None
    told = "; ".join(f"{name} ends at {wording.percent(float(line.mean[-1]))}" for name, line in lines.items())
    prefix = metric.replace("/", "-")
    drawn = figures.share_over_time(lines, colours, prefix=prefix, label=f"{title} over steps. {told}")
    return Chart(title, text, drawn)


def _losses(account: Account) -> Chart | None:
    focus, base = account.entry(account.focus), account.entry(account.baseline)
    parts = (
        ("labelled", summary.line(focus, "train/loss_sup"), "accent", False),
        ("unlabelled", summary.line(focus, "train/loss_unsup"), "accent", True),
        ("baseline", summary.line(base, "train/loss_sup"), "base", False),
    )
    curves = [
        figures.Curve(name, line, colour, dashed)
        for name, line, colour, dashed in parts
        if line is not None and bool((line.mean != 0).any())
    ]
    if not curves:
        return None
    names = {curve.name for curve in curves}
    told = [
        f"the two losses of {account.focus}" if "unlabelled" in names else f"the labelled loss of {account.focus}",
        f"the labelled loss of {account.baseline}" if "baseline" in names else "",
    ]
    text = ", and ".join(part for part in told if part) + "."
    drawn = figures.losses(curves, prefix="loss", label="Training losses over steps")
    return Chart("Training loss", text[0].upper() + text[1:], drawn)


def calibration(account: Account) -> tuple[Chart, ...]:
    """Reliability before temperature, and after where a temperature was fitted."""
    entry, base = account.entry(account.focus), account.entry(account.baseline)
    before, other = _bins(entry, scaled=False), _bins(base, scaled=False)
    if entry is None or before is None:
        return ()
    error = _error(entry, "ece", before)
    label = f"Reliability diagram before temperature, expected calibration error {error}"
    counted = wording.WORDS[account.criterion.key].counted
    drawn = figures.reliability(before, other, "accent", counted=counted, prefix="rel-before", label=label)
    charts = [Chart(f"As trained: ECE {error}", "Probabilities straight from the network.", drawn)]
    after, other = _bins(entry, scaled=True), _bins(base, scaled=True)
    if after is not None:
        error = _error(entry, "ece_after", after)
        label = f"Reliability diagram after temperature, expected calibration error {error}"
        drawn = figures.reliability(after, other, "accent", counted=counted, prefix="rel-after", label=label)
        temperatures = wording.plain([run.temperature for run in entry.runs if run.temperature is not None], 2)
        text = f"Logits divided by T = {temperatures}, fitted on validation labels."
        charts.append(Chart(f"After temperature: ECE {error}", text, drawn))
    return tuple(charts)


def _error(entry: Entry, figure: str, bins: summary.Reliability) -> str:
    """The figure of the table, so that the page never gives two; computed here where the run did not keep it."""
    return wording.percents(entry.figures.get(figure, ()) or (bins.ece,))


def _bins(entry: Entry | None, *, scaled: bool) -> summary.Reliability | None:
    held = [
        (run.predictions, run.temperature if scaled else 1.0)
        for run in (entry.runs if entry is not None else ())
        if run.predictions is not None and len(run.predictions.labels)
    ]
    known = [(predictions, temperature) for predictions, temperature in held if temperature]
    return summary.reliability(known) if known else None


def per_class(account: Account) -> tuple[Chart, ...]:
    """Coverage and precision of each class over training, as heatmaps."""
    entry = account.entry(account.focus)
    classes = entry.runs[0].classes if entry is not None and entry.runs else ()
    if entry is None or not classes:
        return ()
    words, masks = wording.WORDS[account.criterion.key], account.criterion.key == "miou"
    charts = []
    coverage = summary.heat(entry, "pl/coverage", classes)
    if coverage is not None:
        top = max(float(np.nanmax(coverage.values)), 1e-3)
        even = words.shares.format(even=wording.percent(1 / len(classes)))
        names = [classes[place] for place in coverage.classes]
        label = f"Share of pseudo-labels by class over steps, up to {wording.percent(top)}"
        power = 0.5 if masks else 1.0  # beside a class that fills the images, a small one would not be seen
        drawn = figures.heatmap(coverage, names, "slate", top=top, power=power, prefix="heat-coverage", label=label)
        charts.append(Chart("Where the pseudo-labels go", even + _left_out(coverage), drawn))
    precision = summary.heat(entry, "pl/precision", classes)
    if precision is not None:
        text = "Share of each class's pseudo-labels that is right. A gap means there was none." + _left_out(precision)
        names = [classes[place] for place in precision.classes]
        label = "Precision of pseudo-labels by class over steps"
        drawn = figures.heatmap(precision, names, "accent", top=1.0, prefix="heat-precision", label=label)
        charts.append(Chart("How many are right", text, drawn))
    return tuple(charts)


def _left_out(heat: summary.Heat) -> str:
    if not heat.left_out:
        return ""
    return f" The {len(heat.classes)} classes that end lowest; {heat.left_out} more are not shown."


def seeds(account: Account, colours: Mapping[str, str]) -> Chart | None:
    """A dot for each seed, where there are several seeds or more than two methods."""
    values = {entry.name: entry.figures.get("score", ()) for entry in account.entries}
    most = max((len(held) for held in values.values()), default=0)
    if most < 2 and sum(bool(held) for held in values.values()) < 3:
        return None
    name = account.criterion.name
    label = f"Test {name} of each seed, by method"
    drawn = figures.seeds(values, colours, metric=name, prefix="seeds", label=label)
    return Chart("Seed by seed", "", drawn)


def overlap(account: Account, colours: Mapping[str, str]) -> Chart | None:
    """IoU of each class, the reported method beside its baseline, common classes first."""
    entry, base = account.entry(account.focus), account.entry(account.baseline)
    classes = entry.runs[0].classes if entry is not None and entry.runs else ()
    found = summary.class_iou(entry, classes)
    if entry is None or found is None:
        return None
    counts = views.matrix(entry)
    size = np.zeros(len(classes)) if counts is None else counts.sum(axis=1)
    shown = np.argsort(found.mean, kind="stable")[:_BARS]  # NaN goes last
    shown = shown[np.argsort(-size[shown], kind="stable")]
    rare = {name for run in entry.runs for name in run.rare}
    names = [f"{classes[place]} (rare)" if classes[place] in rare else classes[place] for place in shown]
    rows = {account.focus: found, account.baseline: summary.class_iou(base, classes)}
    bars = [figures.Bars(colours[name], held, shown) for name, held in rows.items() if name is not None and held]
    told = "; ".join(f"{classes[place]} {wording.percent(float(found.mean[place]))}" for place in shown)
    drawn = figures.bars(names, bars, prefix="iou", label=f"Intersection over union by class: {told}")
    left = f" The {len(shown)} lowest of {len(classes)} classes." if len(shown) < len(classes) else ""
    order = "From the class with most pixels to the one with fewest." if counts is not None else ""
    grey = f" Grey: {account.baseline}." if len(bars) > 1 else ""
    return Chart("Intersection over union by class", f"{order}{left}{grey}".strip(), drawn)


def plane(account: Account) -> tuple[Chart, ...]:
    """The plane on which CSL tells reliable predictions from others, for the methods that do."""
    entry = account.entry(account.focus)
    if entry is None or not account.focus.startswith("csl"):
        return ()
    found = summary.plane([run.predictions for run in entry.runs if run.predictions is not None])
    if found is None:
        return ()
    counted = wording.WORDS[account.criterion.key].counted
    made = []
    for name, of in (("right", found.right), ("wrong", ~found.right)):
        label = f"Confidence and residual dispersion of the test {counted} that are {name}"
        drawn = figures.plane(found, right=name == "right", prefix=f"plane-{name}", label=label)
        made.append(Chart(f"{name.capitalize()}: {wording.whole(int(of.sum()))} {counted}", "", drawn))
    return tuple(made)
