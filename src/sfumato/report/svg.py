"""A matplotlib figure as SVG that can stand in a page beside others: own ids, page colours, page fonts, no links."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from sfumato.report.palette import COLOURS, light

_STYLE: dict[Any, Any] = {  # matplotlib types its settings by a literal of every name
    "svg.fonttype": "none",
    "svg.hashsalt": "sfumato",
    "font.family": ["DejaVu Sans"],  # only for measuring; the page's own font is shown
    "font.size": 8.5,
    "text.color": light("ink"),
    "axes.labelcolor": light("muted"),
    "axes.edgecolor": light("rule"),
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": light("rule"),
    "grid.linewidth": 0.6,
    "xtick.color": light("rule"),
    "xtick.labelcolor": light("muted"),
    "xtick.major.size": 3.0,
    "xtick.labelsize": 8.0,
    "ytick.color": light("rule"),
    "ytick.labelcolor": light("muted"),
    "ytick.major.size": 0.0,
    "ytick.labelsize": 8.0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.solid_capstyle": "round",
}

_VARIABLES = {pair[0]: f"var(--{name})" for name, pair in COLOURS.items()}


@contextmanager
def style() -> Iterator[None]:
    """Draw figures inside this: matplotlib's own defaults and the report's, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def inline(figure: Figure, *, prefix: str, label: str) -> Markup:
    """The figure as one `<svg>` element. Call inside `style`.

    Args:
        prefix: put before every id, since clip paths of two drawings would else share one name in the page.
        label: what a screen reader says in place of the drawing.
    """
    FigureCanvasSVG(figure)
    sheet = io.StringIO()
    figure.savefig(sheet, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = sheet.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)  # it would rule the whole page
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{prefix}-', text).replace("xlink:href=", "href=")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    width, height = (float(length) * 72 for length in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{Markup.escape(label)}">'
    body = re.sub(r"^<svg[^>]*>", head, text, count=1)
    return Markup(re.sub(r">\s*\n\s*<", "><", body).strip())
