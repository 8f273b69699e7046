"""How results look: rich tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from sfumato.run import Summary
    from sfumato.run.table import Row


def speaks() -> bool:
    """Of several processes the first one does."""
    return os.environ.get("RANK", "0") == "0"


def say(*, err: bool = False, quiet: bool = False) -> Callable[[str], None]:
    """Prints a line, on stderr if `err`; nothing if `quiet`."""
    return lambda line: None if quiet or not speaks() else typer.echo(line, err=err)


def print_json(content: Mapping[str, Any]) -> None:
    if speaks():
        typer.echo(json.dumps(content, indent=1, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True) -> None:
    """The first column is text, the others are numbers unless said otherwise."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not speaks():
        return
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        right = numbers and place > 0
        table.add_column(column, justify="right" if right else "left", no_wrap=right or place == 0)
    for cells in rows:
        table.add_row(*cells)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a file or pipe has no width: leave lines whole
        console = Console(highlight=False, markup=False, width=200)
    with console.capture() as capture:
        console.print(table)
    lines = (line.rstrip() for line in capture.get().splitlines())
    typer.echo("\n".join(line for line in lines if line))


def print_methods(title: str, rows: Sequence[Row]) -> None:
    named = [[row.method + (" (collapsed)" if row.collapsed else ""), *row.cells()] for row in rows]
    print_table(title, ("method", *rows[0].columns()), named)


def print_summary(summary: Summary) -> None:
    """Table, verdict and where everything is."""
    if not speaks():
        return
    print_methods("", summary.rows())
    if summary.verdict is not None:
        typer.echo(summary.verdict["sentence"])
    if summary.report is not None:
        typer.echo(f"Report: {summary.report}")
