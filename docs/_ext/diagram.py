"""One picture a method: what the networks see, and the choices that make a pseudo-label of it, from left to right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap

from sfumato.types import ViewSpec

WIDTH, GAP, LINE, LETTERS = 168, 26, 17, 23  # of a box, between boxes, of a line of text, in a line
TITLES = {
    "refine": "refine", "weigh": "weigh", "target": "target", "divergence": "charge pseudo-labels",
    "charge": "charge labels", "extras": "further losses",
}  # fmt: skip


def _sees(views: ViewSpec) -> str:
    found = ["labelled: weak" + (" and strong" if views.labeled_strong else "")]
    if views.stored:
        found.append("unlabelled: stored labels")
    elif views.weak:
        found.append("unlabelled: weak")
    if views.strong:
        found.append(f"and {views.strong} {views.further}")
    return ", ".join(found)


def _labeler(views: ViewSpec) -> str | None:
    if not views.weak or views.stored:
        return None
    if views.teacher == "ema":
        return "the averaged weights, without gradient"
    return "the student, with gradient" if views.weak_gradient else "the student, without gradient"


def steps(views: ViewSpec, choices: Mapping[str, str]) -> list[tuple[str, str]]:
    """Title and text of each box."""
    labeler = _labeler(views)
    found = [("views", _sees(views)), *([("pseudo-labels from", labeler)] if labeler else [])]
    named = [(TITLES.get(name, name.replace("_", " ")), held) for name, held in choices.items()]
    return found + [(title, held) for title, held in named if held != "NoRefinement"]


def diagram(boxes: Sequence[tuple[str, str]], *, across: int = 4) -> str:
    """SVG of boxes with arrows between them, `across` to a row; colors are those of the page."""
    texts = [
        [line for part in text.split(", ") for line in wrap(part.replace("(", " ("), LETTERS)] for _, text in boxes
    ]
    height = 30 + LINE * max(map(len, texts))
    rows = -(-len(boxes) // across)
    width, total = min(len(boxes), across) * (WIDTH + GAP), rows * (height + GAP)
    drawn = [
        f'<svg viewBox="0 0 {width} {total}" style="max-width:{width}px;width:100%" role="img" '
        f'aria-label="{escape("; ".join(f"{title}: {text}" for title, text in boxes))}" '
        'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="13" fill="currentColor">'
    ]
    for place, ((title, _), lines) in enumerate(zip(boxes, texts, strict=True)):
        x, y = (place % across) * (WIDTH + GAP) + 1, (place // across) * (height + GAP) + 1
        drawn.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="6" fill="none" stroke="currentColor" '
            'stroke-opacity="0.5"/>'
        )
        drawn.append(f'<text x="{x + 9}" y="{y + 19}" opacity="0.65">{escape(title)}</text>')
        for number, line in enumerate(lines):
            drawn.append(f'<text x="{x + 9}" y="{y + 38 + LINE * number}">{escape(line)}</text>')
        if place + 1 < len(boxes) and (place + 1) % across:
            drawn.append(f'<text x="{x + WIDTH + 5}" y="{y + height / 2 + 4}" opacity="0.65">→</text>')
    return "".join([*drawn, "</svg>"])
