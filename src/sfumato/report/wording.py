"""Numbers as a reader sees them: percent only here, never in files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from sfumato.report.summary import final

DASH = "–"
_THIN = "\u202f"

METRICS = {"acc": "accuracy", "balanced_acc": "balanced accuracy", "f1_macro": "macro F1", "miou": "mIoU"}

HEADLINES = {
    "helps": "The unlabelled images help.",
    "no difference": "The unlabelled images make no difference.",
    "hurts": "The unlabelled images hurt.",
    "cannot tell": "Too early to tell whether the unlabelled images help.",
}


@dataclass(frozen=True, slots=True)
class Words:
    """What a page says that depends on what the task is judged by."""

    counted: str  # what predictions are counted in
    labels: str  # what a person gave, several of it
    beside: str  # explains the figure beside the first one, HTML
    validation: str
    precision: str
    shares: str  # how pseudo-labels spread over classes; {even} is an even share


WORDS = {
    "acc": Words(
        counted="images",
        labels="labels",
        beside="<b>Balanced</b> counts every class alike.",
        validation="Share of validation images that are right.",
        precision="Measured on hidden labels, which no method can see.",
        shares="Share of all pseudo-label weight by class; {even} each would be even.",
    ),
    "miou": Words(
        counted="pixels",
        labels="masks",
        beside="<b>mIoU</b> is the mean over the classes of intersection over union; <b>rare</b> is that of the rare "
        "classes alone, those with less than a tenth of an even share of the labelled pixels.",
        validation="Mean over the classes of intersection over union, on validation images.",
        precision="Measured on the pixels of hidden masks, which no method can see.",
        shares="Share of all pseudo-label weight by class. Classes differ in area, so the shares do too.",
    ),
}
"""By the key of the criterion."""


def heading(name: str) -> str:
    """A metric's name at the head of a column; a name with capitals of its own keeps them."""
    return name if any(letter.isupper() for letter in name) else name.capitalize()


def prose(text: str) -> Markup:
    """A sentence as HTML: escaped, with `commands` between back-quotes set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def percent(value: float | None, digits: int = 1) -> str:
    """0.913 -> '91.3 %'; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{100 * value:.{digits}f}{_THIN}%"


def percents(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds: '91.3 ± 0.4 %'."""
    held = final(values)
    if held is None:
        return DASH
    mean, sd = held
    return percent(mean) if math.isnan(sd) else f"{100 * mean:.1f} ± {100 * sd:.1f}{_THIN}%"


def plain(values: Sequence[float], digits: int = 3) -> str:
    held = final(values)
    if held is None:
        return DASH
    mean, sd = held
    return f"{mean:.{digits}f}" if math.isnan(sd) else f"{mean:.{digits}f} ± {sd:.{digits}f}"


def duration(values: Sequence[float]) -> str:
    """Mean seconds, in the unit that reads best."""
    held = final(values)
    if held is None:
        return DASH
    mean = held[0]
    if mean < 120:
        return f"{mean:.3g}{_THIN}s"
    return f"{mean / 60:.3g}{_THIN}min" if mean < 7200 else f"{mean / 3600:.3g}{_THIN}h"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of shares in percentage points: 0.041 -> '+4.1'."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{100 * value:+.{digits}f}".replace("-", "−")


def hex_color(color: Sequence[int]) -> str:
    """(0, 128, 255) -> '#0080ff'."""
    return "#" + "".join(f"{int(part):02x}" for part in color)


def share_of_row(value: float) -> str:
    """A cell of a matrix of shares, in percent without the sign: '', '<1', '7', '100'."""
    if not value:
        return ""
    return f"{100 * value:.0f}" if value >= 0.005 else "<1"


def whole(value: int | None) -> str:
    return DASH if value is None else f"{value:,}".replace(",", _THIN)
