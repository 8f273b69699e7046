"""sfumato data check"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.show import print_json, print_table
from sfumato.errors import DataError

if TYPE_CHECKING:
    from sfumato.data import CheckReport

app = typer.Typer(help="Look at data before training.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def main() -> None:
    pass


@app.command("check")
def check(
    source: Annotated[str, typer.Argument(metavar="DATA", help="A folder, .parquet or .npz file, or built-in set.")],
    labels: Annotated[Path | None, typer.Option(help="CSV with the columns file,label[,split].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything found, as JSON.")] = False,
) -> None:
    """Count classes and images, find broken files, duplicates and leaks. Changes nothing; exits with 3 on errors."""
    from sfumato.data import check as examine

    found = examine(source, labels=labels)
    if as_json:
        print_json(asdict(found) | {"ok": found.ok})
    else:
        _print(found)
    if not found.ok:
        errors = [problem.message for problem in found.problems if problem.severity == "error"]
        raise DataError("\n".join(f"error: {message}" for message in errors))


def _print(found: CheckReport) -> None:
    typer.echo(f"{found.source}: {found.layout or 'not readable'}")
    if found.images:
        splits = list(found.counts)
        rows = [[name, *(str(found.counts[split].get(name, 0)) for split in splits)] for name in found.classes]
        rows.append(["(unlabelled)", str(found.unlabeled), *[""] * (len(splits) - 1)])
        print_table("", ("class", *splits), rows)
        sizes = ", ".join(f"{size} ({count})" for size, count in list(found.sizes.items())[:5])
        modes = ", ".join(f"{mode} ({count})" for mode, count in found.modes.items())
        typer.echo(f"{found.images} images; sizes {sizes}; modes {modes}")
    for problem in found.problems:
        if problem.severity == "warning":
            typer.echo(f"warning: {problem.message}")
    if found.ok:
        typer.echo("Ready to train.")
