"""sfumato table"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Format(Enum):
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


class Split(Enum):
    test = "test"
    val = "val"


def table(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a bench, a demo, or any runs, however deep.")],
    format: Annotated[Format, typer.Option("-f", "--format", help="How it is written.")] = Format.markdown,
    metric: Annotated[
        str | None,
        typer.Option(help="acc, balanced_acc, ece, nll, miou, recall/CLASS, ...; what the task is judged by."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The method that differences are to, or none; the baseline by default.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Held-out images: for choosing settings take val.")] = Split.test,
    per_class: Annotated[bool, typer.Option("--per-class", help="Recall, or IoU, of each class too.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; printed by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the file anew where it is there.")] = False,
) -> None:
    """Make seeds one figure: mean, deviation, 95 % interval, and the paired difference to a baseline with its test."""
    from sfumato.bench.formats import FORMATS
    from sfumato.bench.table import tables
    from sfumato.run.files import refuse_written, write_text

    if out is not None and not force:
        refuse_written(out)
    found = tables(folder, metric=metric, against=against, split=split.value)
    text = FORMATS[format.value](found, per_class=per_class)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_text(out, text)
        typer.echo(out)
