"""Puts a report together and writes it: one HTML file that needs nothing beside it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TypeGuard

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sfumato.report import charts, palette, stages, summary, views, wording
from sfumato.report.doubts import sentence
from sfumato.report.overlays import overlays
from sfumato.report.pictures import Images
from sfumato.report.read import read_account
from sfumato.report.records import Account, Collapse, Ints

_CLASSES_TOLD = 20
"""At most so many rows in the table of classes; the weakest come first."""


def write_report(folder: Path, out: Path | None = None, *, images: Images | None = None) -> Path:
    """Writes the report of a run folder and returns its path.

    Args:
        folder: a run, a run of several seeds, or a folder with one folder for each method.
        out: the file to write; `report.html` in the folder by default.
        images: rows of the data table (n,) int64 -> uint8 (n, channels, H, W), for the gallery; without it the
            gallery shows names only. `ImageStore.load` does. A run with masks keeps the images it shows.

    Two calls on the same folder write the same bytes. Raises `DataError` naming the file that is missing or broken.
    """
    folder = Path(folder)
    text = render(read_account(folder), images)
    path = folder / "report.html" if out is None else Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)  # a reader never sees half a page
    return path


def render(account: Account, images: Images | None = None) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("sfumato.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=wording.percent, whole=wording.whole, prose=wording.prose)
    environment.globals.update(style=_style(), DASH=wording.DASH)
    return environment.get_template("template.html.j2").render(**_context(account, images))


def _style() -> Markup:
    """The style sheet, with the palette as variables for both papers."""
    sheet = resources.files("sfumato.report").joinpath("style.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme: dark){{:root{{{palette.variables(True)}}}}}"
    return Markup(f":root{{{palette.variables(False)}}}\n{dark}\n{sheet}")


def _context(account: Account, images: Images | None) -> dict[str, object]:
    colours = palette.method_colours([entry.name for entry in account.entries], account.focus, account.baseline)
    entry = account.entry(account.focus)
    counts, baseline_counts = views.matrix(entry), views.matrix(account.entry(account.baseline))
    if counts is not None and baseline_counts is not None and counts.shape != baseline_counts.shape:
        baseline_counts = None
    masks = account.criterion.key == "miou"
    seeds = len(entry.runs) if entry is not None else 1
    doubted = views.doubts(entry)
    classes = () if counts is None else summary.class_figures(counts, baseline_counts, seeds)
    return {
        "account": account,
        "verdict": views.verdict(account),
        "facts": views.facts(account),
        "collapses": _collapses(account),
        "rows": views.rows(account, colours),
        "colours": colours,
        "others": views.other_networks(entry),
        "seeds": charts.seeds(account, colours),
        "training": charts.training(account, colours),
        "calibration": charts.calibration(account),
        "names": entry.runs[0].classes if entry is not None and entry.runs else (),
        "words": wording.WORDS[account.criterion.key],
        "masks": masks,
        "matrix": views.cells(counts, shares=masks) if _is_shown_whole(counts) else None,
        "pairs": () if counts is None else summary.confused_pairs(counts),
        "classes": classes[:_CLASSES_TOLD],
        "regions": views.regions(account, counts, baseline_counts)[:_CLASSES_TOLD] if masks else (),
        "overlap": charts.overlap(account, colours) if masks else None,
        "overlays": overlays(account) if masks else None,
        "plane": charts.plane(account),
        "classes_left": max(0, len(classes) - _CLASSES_TOLD),
        "compared": baseline_counts is not None,
        "several": seeds > 1,
        "per_class": charts.per_class(account),
        "mistakes": views.mistakes(account, images),
        "uncertain": views.uncertain(account, images),
        "predicted": counts is not None,
        "pictured": images is not None,
        "doubts": doubted,
        "doubted": "" if doubted is None else sentence(doubted),
        "trained": views.trained(entry),
        "stages": stages.rows(entry),
    }


def _is_shown_whole(counts: Ints | None) -> TypeGuard[Ints]:
    return counts is not None and len(counts) <= views.FULL_MATRIX


def _collapses(account: Account) -> tuple[tuple[str, Collapse], ...]:
    """Runs that broke down, with the name to call each by."""
    found = []
    for entry in account.entries:
        for run in entry.runs:
            if run.collapse is not None:
                seed = f", seed {run.seed}" if run.seed is not None and len(entry.runs) > 1 else ""
                found.append((f"{entry.name}{seed}", run.collapse))
    return tuple(found)
