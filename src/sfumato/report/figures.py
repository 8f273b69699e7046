"""The drawings of a report, each one inline SVG. Sizes are in page pixels at the width they are drawn for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sfumato.report import svg
from sfumato.report.palette import light
from sfumato.report.records import Floats, Ints
from sfumato.report.summary import Heat, Line, Overlap, Plane, Reliability, smoothed

WIDTH = 350.0
_FADES = 8
"""Steps in which a soft edge fades out."""

_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:.4g} %")


def _step(value: float, _: object = None) -> str:
    return f"{value / 1000:.4g}k" if abs(value) >= 10_000 else f"{value:.6g}"


@dataclass(frozen=True, slots=True)
class Curve:
    """A line with the word that stands at its end."""

    name: str
    line: Line
    colour: str
    dashed: bool = False


def _panel(height: float, *, left: float, right: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; margins in pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    across, up = (width - left - right) / width, (height - 44) / height
    return figure, figure.add_axes((left / width, 34 / height, across, up))


def _step_axis(axes: Axes, steps: Sequence[Floats]) -> None:
    ends = [float(value) for one in steps for value in (one[0], one[-1])]
    low, high = min(ends), max(ends)
    if high <= low:  # a single evaluation
        low, high = low - 1, high + 1
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_step))
    axes.set_xlabel("step", fontsize=8, labelpad=2)


def _spread(axes: Axes, line: Line, colour: str) -> None:
    """The range over seeds as a band with soft edges."""
    if line.seeds < 2:
        return
    for fade in range(1, _FADES + 1):
        inner = fade / _FADES
        low, high = (line.mean + (edge - line.mean) * inner for edge in (line.low, line.high))
        axes.fill_between(line.steps, low, high, color=colour, alpha=0.035, linewidth=0)


def _end_labels(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Texts at the right end of the lines, (value, text, colour), moved apart where they would touch."""
    to_axes = axes.transData + axes.transAxes.inverted()  # through the scale of the axis, linear or not
    gap = 10.5 / axes.get_window_extent().height
    placed: list[float] = []
    for value, _, _ in sorted(labels):
        at = float(np.clip(to_axes.transform((axes.get_xlim()[1], value))[1], 0.0, 1.0))
        placed.append(max(at, placed[-1] + gap) if placed else at)
    overflow = max(0.0, (placed[-1] if placed else 0.0) - 1.0)
    for at, (_, text, colour) in zip(placed, sorted(labels), strict=True):
        axes.text(1.02, at - overflow, text, color=colour, fontsize=8, va="center", transform=axes.transAxes)


def share_over_time(lines: Mapping[str, Line], colours: Mapping[str, str], *, prefix: str, label: str) -> Markup:
    """Shares between 0 and 1, one line a method: accuracy, coverage, precision. Last values stand at the right."""
    with svg.style():
        figure, axes = _panel(210, left=40, right=42)
        for name, line in lines.items():
            colour = light(colours[name])
            _spread(axes, line, colour)
            front = colours[name] == "accent"
            marker = "o" if len(line.steps) == 1 else ""
            axes.plot(line.steps, line.mean, color=colour, lw=2.0 if front else 1.4, marker=marker, zorder=3 + front)
        values = np.concatenate([np.concatenate([line.low, line.high]) for line in lines.values()])
        low, high = max(0.0, float(values.min())), min(1.0, float(values.max()))
        room = max(0.02, 0.06 * (high - low))
        axes.set_ylim(max(0.0, low - room) if low > 0.15 else 0.0, min(1.005, high + room))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(_PERCENT)
        _step_axis(axes, [line.steps for line in lines.values()])
        ends = [(line.mean[-1], f"{100 * line.mean[-1]:.1f} %", light(colours[name])) for name, line in lines.items()]
        _end_labels(axes, ends)
        return svg.inline(figure, prefix=prefix, label=label)


def losses(curves: Sequence[Curve], *, prefix: str, label: str) -> Markup:
    """Losses over steps: a running mean over the bare values; a log scale where they span decades."""
    with svg.style():
        figure, axes = _panel(210, left=40, right=58)
        ends = []
        for curve in curves:
            line, colour = curve.line, light(curve.colour)
            calm = smoothed(line.mean, max(1, len(line.mean) // 20))
            dash = (0, (3, 1.6)) if curve.dashed else "-"
            axes.plot(line.steps, line.mean, color=colour, lw=0.7, alpha=0.3)
            axes.plot(line.steps, calm, color=colour, lw=1.6, ls=dash, marker="o" if len(line.steps) == 1 else "")
            ends.append((float(calm[-1]), curve.name, colour))
        values = np.concatenate([curve.line.mean for curve in curves])
        if values.min() > 0 and values.max() / values.min() > 50:
            axes.set_yscale("log")
            axes.minorticks_off()
        else:
            axes.set_ylim(min(0.0, float(values.min())), max(float(values.max()) * 1.05, 1e-6))
            axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        _step_axis(axes, [curve.line.steps for curve in curves])
        _end_labels(axes, ends)
        return svg.inline(figure, prefix=prefix, label=label)


def reliability(
    bins: Reliability, other: Reliability | None, colour: str, *, counted: str, prefix: str, label: str
) -> Markup:
    """Accuracy by confidence above, how much each bin holds below. Thinly filled bins are drawn pale.

    Args:
        other: the baseline's, drawn as open dots.
        counted: what the bins hold, "images" or "pixels".
    """
    width, height = WIDTH, 330.0
    with svg.style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes((42 / width, 104 / height, (width - 56) / width, (height - 116) / height))
        below = figure.add_axes((42 / width, 34 / height, (width - 56) / width, 54 / height))
        centre, wide = (np.arange(len(bins.count)) + 0.5) / len(bins.count), 0.86 / len(bins.count)
        axes.plot([0, 1], [0, 1], color=light("muted"), lw=0.9, ls=(0, (1, 2.5)), zorder=1)
        strength = 0.25 + 0.6 * np.minimum(1.0, bins.count / 20)
        held = np.flatnonzero(bins.count)
        x, top, stated = centre[held], bins.accuracy[held], bins.confidence[held]
        fills = [to_rgba(light(colour), float(alpha)) for alpha in strength[held]]
        axes.bar(x, top, wide, color=fills, linewidth=0, zorder=2)
        axes.hlines(stated, x - wide / 2, x + wide / 2, color=light("ink"), lw=1.3, zorder=4)
        axes.vlines(x, top, stated, color=light("ink"), lw=0.7, alpha=0.6, zorder=3)
        if other is not None:
            held = np.flatnonzero(other.count)
            seen = np.minimum(1.0, 0.25 + other.count[held] / 20)
            for size, name in ((49, "paper"), (21, "base")):
                fills = [to_rgba(light(name), float(alpha)) for alpha in seen]
                axes.scatter(other.confidence[held], other.accuracy[held], s=size, c=fills, linewidths=0, zorder=5)
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.tick_params(labelbottom=False)
        axes.set_ylabel("of these, right", fontsize=8)
        _counts(below, bins, centre, wide, colour)
        below.set_ylabel(counted, fontsize=8, labelpad=22)
        return svg.inline(figure, prefix=prefix, label=label)


def _counts(axes: Axes, bins: Reliability, centre: Floats, wide: float, colour: str) -> None:
    axes.bar(centre, bins.count, wide, color=light(colour), alpha=0.55, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, max(1, int(bins.count.max())) * 1.3))
    axes.grid(False)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(_PERCENT)
    axes.set_xlabel("confidence of the prediction", fontsize=8, labelpad=2)
    for x, count in zip(centre, bins.count, strict=True):
        if count:
            text = f"{count / 1000:.1f}k" if count >= 10_000 else str(count)
            axes.text(x, count, text, ha="center", va="bottom", fontsize=6.2, color=light("muted"))


def heatmap(
    heat: Heat, names: Sequence[str], colour: str, *, top: float, power: float = 1.0, prefix: str, label: str
) -> Markup:
    """Classes down, steps across; deeper colour = higher share. A gap means no pseudo-label of that class.

    Args:
        top: the value drawn in full colour.
        power: of the share of `top` that is the depth of the colour; below 1, small values are told apart.
    """
    rows, columns = heat.values.shape
    row = float(np.clip(240 / rows, 11, 24))
    height = rows * row + 78
    left = float(np.clip(12 + 5.0 * max(len(_short(name)) for name in names), 30, 110))
    with svg.style():
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        axes = figure.add_axes((left / WIDTH, 68 / height, (WIDTH - left - 14) / WIDTH, rows * row / height))
        axes.imshow(_tint((heat.values / top) ** power, colour), aspect="auto", interpolation="none")
        axes.set_yticks(range(rows), [_short(name) for name in names], fontsize=8 if row > 12 else 7, parse_math=False)
        axes.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
        axes.grid(False, which="major")
        axes.grid(True, which="minor", axis="y", color=light("sheet"), linewidth=1.2)
        axes.tick_params(which="minor", length=0)
        axes.tick_params(axis="y", length=0)
        axes.spines["bottom"].set_visible(False)
        ticks = MaxNLocator(5, integer=True).tick_values(heat.steps[0], heat.steps[-1]) if columns > 1 else heat.steps
        ticks = np.array([tick for tick in ticks if heat.steps[0] <= tick <= heat.steps[-1]])
        axes.set_xticks(np.interp(ticks, heat.steps, np.arange(columns)), [_step(tick) for tick in ticks])
        axes.set_xlabel("step", fontsize=8, labelpad=2)
        _scale(figure.add_axes((left / WIDTH, 22 / height, 120 / WIDTH, 7 / height)), top, power, colour)
        return svg.inline(figure, prefix=prefix, label=label)


def _scale(axes: Axes, top: float, power: float, colour: str) -> None:
    axes.imshow(_tint(np.linspace(0, 1, 48)[None], colour), aspect="auto", interpolation="none")
    axes.grid(False)
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)
    shown = (0.0, 1.0) if power == 1.0 else (0.0, 0.1, 1.0)
    axes.set_xticks([47 * share**power for share in shown], [f"{100 * top * share:.3g} %" for share in shown])
    axes.tick_params(labelsize=7.5)
    axes.tick_params(length=0)


def _tint(share: Floats, colour: str) -> Floats:
    """Shares (K, T) as RGBA (K, T, 4): one hue that fades into whatever paper lies below."""
    image = np.empty((*share.shape, 4))
    image[..., :3] = to_rgb(light(colour))
    image[..., 3] = np.where(np.isnan(share), 0.0, 0.05 + 0.95 * np.clip(np.nan_to_num(share), 0.0, 1.0))
    return image


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def seeds(
    values: Mapping[str, Sequence[float]], colours: Mapping[str, str], *, metric: str, prefix: str, label: str
) -> Markup:
    """A dot for each seed's value of the metric and a tick at the mean, one row a method."""
    names = [name for name in values if values[name]]
    width, row = 430.0, 20.0
    left = float(np.clip(14 + 4.9 * max(len(_short(name, 32)) for name in names), 60, 200))
    height = len(names) * row + 44
    with svg.style():
        figure, axes = _panel(height, left=left, right=48, width=width)
        for place, name in enumerate(names):
            held = np.asarray(values[name])
            colour = light(colours[name])
            axes.plot([held.min(), held.max()], [place, place], color=colour, lw=7, alpha=0.14)
            axes.plot(held, np.full(len(held), place), "o", color=colour, ms=5.0, alpha=0.75, mew=0)
            axes.plot([held.mean()] * 2, [place - 0.3, place + 0.3], color=colour, lw=1.8)
            told = axes.text(1.015, place, f"{100 * held.mean():.1f} %", fontsize=8.5, va="center", color=colour)
            told.set_transform(axes.get_yaxis_transform())
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.set_yticks(range(len(names)), [_short(name, 32) for name in names], parse_math=False, fontsize=8.5)
        axes.tick_params(axis="y", labelcolor=light("ink"))
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.set_xlabel(f"test {metric}", fontsize=8, labelpad=2)
        return svg.inline(figure, prefix=prefix, label=label)


@dataclass(frozen=True, slots=True)
class Bars:
    """One method's bars."""

    colour: str
    values: Overlap
    shown: Ints  # (K,) places of the classes


def bars(names: Sequence[str], methods: Sequence[Bars], *, prefix: str, label: str) -> Markup:
    """Shares of K classes between 0 and 1, a row each: the first method as a bar, others as thinner ones below it.

    A line spans lowest to highest seed. The value stands at the end of the first bar.
    """
    row = (15.0 if len(names) <= 12 else 8.0) + 7.0 * len(methods)
    left = float(np.clip(12 + 4.7 * max(len(_short(name, 24)) for name in names), 50, 130))
    height = len(names) * row + 44
    with svg.style():
        figure, axes = _panel(height, left=left, right=30)
        depth, at = 0.72 / (len(methods) + 0.6), np.arange(len(names)) - 0.36
        for place, method in enumerate(methods):
            held, thick = method.values, depth * (1.6 if place == 0 else 1.0)
            mean, low, high = (values[method.shown] for values in (held.mean, held.low, held.high))
            centre, known = at + thick / 2, np.isfinite(mean)
            colour = light(method.colour)
            axes.barh(centre[known], mean[known], thick * 0.86, color=colour, alpha=0.85 if place == 0 else 0.5, lw=0)
            spread = known & (high > low)
            axes.hlines(centre[spread], low[spread], high[spread], color=light("ink"), lw=0.9, alpha=0.7)
            at = at + thick
            if place == 0:
                reached = np.where(known, np.maximum(high, mean), 0.0)
                for y, x, value in zip(centre, reached, mean, strict=True):
                    text = f"{100 * value:.1f}" if np.isfinite(value) else "–"
                    axes.text(x + 0.012, y, text, fontsize=7.5, va="center", color=light("ink"))
        axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 1))
        axes.set_yticks(range(len(names)), [_short(name, 24) for name in names], parse_math=False, fontsize=8)
        axes.tick_params(axis="y", labelcolor=light("ink"))
        axes.grid(False, axis="y")
        axes.grid(True, axis="x")
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.set_xlabel("test IoU", fontsize=8, labelpad=2)
        return svg.inline(figure, prefix=prefix, label=label)


_CELLS = 56
"""Cells of the plane along either axis."""


def plane(held: Plane, *, right: bool, prefix: str, label: str) -> Markup:
    """How many of the right or of the wrong predictions lie where; depth of colour: logarithm of the count.

    The axis of the dispersion is drawn in square roots, so that the most uneven losers lie on a straight line.
    """
    height = 240.0
    top = float(np.sqrt(_most_uneven(np.array(0.5), held.classes))) * 1.06
    edges = (np.linspace(0, 1, _CELLS + 1), np.linspace(0, top, _CELLS + 1))
    counts = [
        np.histogram2d(held.confidence[of], np.sqrt(held.dispersion[of]), bins=edges)[0]
        for of in (held.right, ~held.right)
    ]
    most = np.log1p(max(count.max() for count in counts))  # one scale for both drawings
    count = counts[0 if right else 1]
    share = np.where(count > 0, 0.12 + 0.88 * np.log1p(count) / max(most, 1.0), np.nan)
    sure = np.linspace(0.5, 1, 60)
    with svg.style():
        figure, axes = _panel(height, left=44, right=16)
        axes.imshow(
            _tint(share.T, "slate" if right else "accent"), extent=(0, 1, 0, top), origin="lower", aspect="auto"
        )
        axes.plot(sure, np.sqrt(_most_uneven(sure, held.classes)), color=light("muted"), lw=0.9, ls=(0, (1, 2.5)))
        axes.set(xlim=(0, 1), ylim=(0, top))
        axes.xaxis.set_major_formatter(_PERCENT)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value**2:.3g}"))
        axes.set_xlabel("confidence", fontsize=8, labelpad=2)
        axes.set_ylabel("residual dispersion", fontsize=8)
        return svg.inline(figure, prefix=prefix, label=label)


def _most_uneven(confidence: Floats, classes: int) -> Floats:
    """Dispersion of the losing classes where one of them holds all that a winner of at least a half leaves."""
    return (1 - confidence) ** 2 * (classes - 2) / (classes - 1) ** 2
