"""Tables as text: Markdown and LaTeX for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.bench.statistics import Mean
from sfumato.bench.table import SCALED, Block, Row, Tables
from sfumato.run import files

NONE = "–"
NAMES = {
    "acc": "accuracy", "balanced_acc": "balanced", "f1_macro": "macro-F1", "ece": "ECE", SCALED: "ECE scaled",
    "ece_adaptive": "adaptive ECE", "ece_classwise": "classwise ECE", "nll": "NLL", "brier": "Brier", "miou": "mIoU",
    "miou_rare": "mIoU, rare", "boundary_iou": "boundary IoU", "seconds": "seconds", "cpu_seconds": "CPU seconds",
    "images": "images seen",
}  # fmt: skip
NO_SHARE = {"nll": 3, "brier": 3, "seconds": 0, "cpu_seconds": 0, "images": 0}  # digits of what is no percentage


@dataclass(frozen=True)
class Grid:
    """What is printed: a title, the heads of the columns and the cells."""

    title: str
    columns: list[str]
    rows: list[list[str]]


# What is said


def full(block: Block) -> Grid:
    """Every column of a block."""
    against = [] if block.against is None else [f"against {block.against}", "95 % interval", "p", "above:below"]
    columns = ["method", "n", title(block.metric), "95 % interval", *against, *map(title, block.beside)]
    rows = []
    for row in block.rows:
        mean = row.means.get(block.metric)
        cells = [_method(row), row.n, spread(mean, block.metric), interval(mean, block.metric)]
        cells += [] if block.against is None else _difference(row, block.metric)
        cells += [spread(row.means.get(key), key) for key in block.beside]
        rows.append([*cells, _plain(row.means.get("seconds"), "seconds"), _plain(row.means.get("images"), "images")])
    return Grid(block.title, [*columns, "seconds", "images seen"], rows)


def short(block: Block) -> Grid:
    """What fits a terminal: the score, how far it is from the baseline, and the seconds."""
    whole = full(block)
    kept = [0, 1, 2, *([] if block.against is None else [4, 5, 6]), len(whole.columns) - 2]
    rows = [[cells[place] for place in kept] for cells in whole.rows]
    return Grid(whole.title, [whole.columns[place] for place in kept], rows)


def of_classes(block: Block) -> Grid:
    """A line for each class, a column for each method."""
    what = "IoU %" if any(key.startswith("iou/") for key in block.classes) else "recall %"
    rows = [[name, *(spread(row.means.get(key), key) for row in block.rows)] for key, name in block.classes.items()]
    return Grid(f"{block.title}: {what} of each class", ["class", *map(_method, block.rows)], rows)


def title(metric: str) -> str:
    name = NAMES.get(metric, metric)
    return name if metric in NO_SHARE else f"{name} %"


def spread(found: Mean | None, metric: str) -> str:
    """Mean, and ± standard deviation where there are several."""
    if found is None or not found.n:
        return NONE
    text = _number(found.mean, metric)
    return text if found.n == 1 else f"{text} ± {_number(found.sd, metric)}"


def interval(found: Mean | None, metric: str) -> str:
    if found is None or found.n < 2:
        return NONE
    low, high = found.low, found.high
    if metric not in NO_SHARE and 0 <= found.mean <= 1:  # t knows no bounds, a share does
        low, high = max(0.0, low), min(1.0, high)
    return f"{_number(low, metric)} to {_number(high, metric)}"


def _method(row: Row) -> str:
    return f"{row.method} (collapsed)" if row.collapsed else row.method


def _difference(row: Row, metric: str) -> list[str]:
    found = row.difference
    if found is None or not found.n:
        return [NONE] * 4
    some = "" if found.n == len(row.ended) else f" (n={found.n})"
    first = _number(found.mean, metric, sign=True) + some
    seeds = f"{found.higher}:{found.lower}"
    if found.n < 2:
        return [first, NONE, NONE, seeds]
    reach = f"{_number(found.low, metric, sign=True)} to {_number(found.high, metric, sign=True)}"
    return [first, reach, p_value(found.p), seeds]


def p_value(p: float) -> str:
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _plain(found: Mean | None, metric: str) -> str:
    return NONE if found is None or not found.n else _number(found.mean, metric)


def _number(value: float, metric: str, *, sign: bool = False) -> str:
    digits = NO_SHARE.get(metric, 1)
    scaled = value if metric in NO_SHARE else 100 * value
    text = f"{scaled:{'+' if sign else ''},.{digits}f}"
    return text.replace("-", "−")


# How it is written


def markdown(tables: Tables, *, per_class: bool = False) -> str:
    parts = []
    for grid in _grids(tables, per_class):
        lines = [grid.columns, ["---", *["---:"] * (len(grid.columns) - 1)], *grid.rows]
        body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)
        parts.append(f"**{grid.title}**\n\n{body}\n")
    return "\n".join([*parts, *(f"Note: {note}\n" for note in tables.notes)])


SPECIAL = {
    "\\": r"\textbackslash{}", "%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$",
}  # fmt: skip


def latex(tables: Tables, *, per_class: bool = False) -> str:
    """One tabular each; needs the package booktabs."""
    parts = ["% \\usepackage{booktabs}"]
    for grid in _grids(tables, per_class):
        lines = [" & ".join(_escaped(cell) for cell in cells) + r" \\" for cells in (grid.columns, *grid.rows)]
        head = rf"\begin{{tabular}}{{l{'r' * (len(grid.columns) - 1)}}}"
        comment = f"% {grid.title}"
        parts.append(
            "\n".join([comment, head, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"])
        )
    return "\n\n".join([*parts, *(f"% {note}" for note in tables.notes)]) + "\n"


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _grids(tables: Tables, per_class: bool) -> Iterator[Grid]:
    for block in tables.blocks:
        yield full(block)
        if per_class and block.classes:
            yield of_classes(block)


def write_both(tables: Tables, folder: Path) -> None:
    """table.md and table.csv in `folder`, with every class in the second."""
    files.write_text(folder / "table.md", markdown(tables))
    files.write_text(folder / "table.csv", as_csv(tables, per_class=True))


def as_csv(tables: Tables, *, per_class: bool = False) -> str:
    """A line a method of each data and labels: fractions, nats, seconds; empty where there is no figure."""
    records = list(_records(tables, per_class))
    columns = list(dict.fromkeys(key for record in records for key in record))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: "" if value is None else value for key, value in record.items()})
    return out.getvalue()


def as_json(tables: Tables, *, per_class: bool = False) -> str:
    """The same, with the notes."""
    content = {"rows": list(_records(tables, per_class)), "notes": tables.notes}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _records(tables: Tables, per_class: bool) -> Iterator[dict[str, Any]]:
    for block in tables.blocks:
        for row in block.rows:
            yield dict(files.plain(_record(block, row, per_class)))


def _record(block: Block, row: Row, per_class: bool) -> Mapping[str, Any]:
    mean, found = row.means.get(block.metric), row.difference
    missing = sorted({*row.asked} - {*row.ended})
    record: dict[str, Any] = {
        "data": block.data, "labels": block.labels, "method": row.method, "images_of": block.part, "n": len(row.ended),
        "seeds": " ".join(map(str, row.ended)), "seeds_missing": " ".join(map(str, missing)),
        "metric": block.metric, "mean": mean and mean.mean, "sd": mean and mean.sd, "low": mean and mean.low,
        "high": mean and mean.high, "against": block.against if found else None, "pairs": found and found.n,
        "difference": found and found.mean, "difference_low": found and found.low,
        "difference_high": found and found.high, "p": found and found.p, "seeds_higher": found and found.higher,
        "seeds_lower": found and found.lower, "p_sign": found and found.p_sign, "collapsed": row.collapsed,
    }  # fmt: skip
    shown = {*block.beside, "seconds", "cpu_seconds", "images", *(block.classes if per_class else ())}
    for key, one in row.means.items():
        if key in shown:
            record |= {key: one.mean, f"{key}_sd": one.sd}
    return record


FORMATS: dict[str, Callable[..., str]] = {"markdown": markdown, "latex": latex, "csv": as_csv, "json": as_json}
