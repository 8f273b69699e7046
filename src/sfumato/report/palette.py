"""The colours of a report: name -> (on light paper, on dark paper).

Figures are drawn with the light value; `svg.inline` replaces it by the variable of that name, so that one drawing
serves light, dark and print.
"""

from __future__ import annotations

from collections.abc import Sequence

COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#f8f3ea", "#1c1916"),
    "sheet": ("#fdfaf4", "#25211d"),
    "ink": ("#2c2620", "#ece4d7"),
    "muted": ("#706657", "#ab9f8e"),
    "rule": ("#e2d8c8", "#3d372f"),
    "accent": ("#a5502a", "#dc9163"),
    "base": ("#8d8273", "#9d9385"),
    "helps": ("#46724f", "#86b592"),
    "same": ("#83702f", "#c9b56a"),
    "hurts": ("#a2362f", "#e2857a"),
    "unknown": ("#67637a", "#aaa5ba"),
    "slate": ("#4a6a80", "#88aabf"),
    "olive": ("#727d3c", "#abb771"),
    "plum": ("#7b5777", "#ba94b6"),
    "teal": ("#3b7b76", "#78b8b2"),
    "ochre": ("#b1832a", "#dab262"),
    "rose": ("#b06d77", "#dd9fa7"),
}

ANSWERS = {"helps": "helps", "no difference": "same", "hurts": "hurts", "cannot tell": "unknown"}
"""The colour of each verdict."""

_OTHERS = ("slate", "olive", "plum", "teal", "ochre", "rose")


def light(name: str) -> str:
    return COLOURS[name][0]


def method_colours(names: Sequence[str], focus: str, baseline: str | None) -> dict[str, str]:
    """A colour name for each method: the accent for the one reported, grey for its baseline, the rest in turn."""
    chosen = {focus: "accent"}
    if baseline is not None:
        chosen[baseline] = "base"
    others = [name for name in names if name not in chosen]
    return chosen | {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(others)}


def variables(dark: bool) -> str:
    """CSS custom properties of one of the two papers."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in COLOURS.items())
