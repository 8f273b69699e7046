"""Numbers as a reader sees them: percent only here, never in files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

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


def whole(value: int | None) -> str:
    return DASH if value is None else f"{value:,}".replace(",", _THIN)
