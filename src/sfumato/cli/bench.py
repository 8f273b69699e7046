"""sfumato bench"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.show import print_json, print_table, say
from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.bench.run import Plan
    from sfumato.bench.table import Tables


def bench(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML: methods, data, labels, seeds, settings.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="Settings for all runs, or another list for an axis."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; runs/NAME of the file by default. Goes on there.")
    ] = None,
    jobs: Annotated[int | None, typer.Option("-j", "--jobs", help="Runs at a time; one a core by default.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of each run; the cores divided by the runs at a time by default.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try a few steps of each, estimate time and memory; keep nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress, only the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, nothing else there.")] = False,
) -> None:
    """Run a grid of methods, data, labels and seeds, or what is missing of it; ends with a table."""
    from sfumato.bench.file import read_bench
    from sfumato.bench.formats import write_both
    from sfumato.bench.run import bench as run
    from sfumato.bench.run import plan
    from sfumato.bench.table import tables

    for text in settings or []:
        if "=" not in text:
            raise UsageError(f"'{text}': expected key=value here, such as steps=1000 or seeds=0:3.")
    folder = out or Path("runs") / file.stem
    planned = plan(read_bench(file, settings or []), folder, jobs, threads)
    if dry_run:
        _estimate(planned, quiet, as_json)
        return
    again = _again(file, settings or [], folder, jobs)
    tell = say(err=as_json, quiet=quiet)
    outcome = run(planned, say=tell, progress=not (quiet or as_json), again=again)
    found = tables(folder)
    write_both(found, folder)
    _print(found, folder, as_json)
    outcome.raise_failures(again)


def _again(file: Path, settings: list[str], folder: Path, jobs: int | None) -> str:
    words = ["sfumato", "bench", str(file), *settings, "-o", str(folder)]
    return shlex.join([*words, *([] if jobs is None else ["-j", str(jobs)])])


def _print(found: Tables, folder: Path, as_json: bool) -> None:
    from sfumato.bench.formats import FORMATS, short

    if as_json:
        typer.echo(FORMATS["json"](found, per_class=True), nl=False)
        return
    for block in found.blocks:
        grid = short(block)
        typer.echo("")
        print_table(grid.title, grid.columns, grid.rows)
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"\nAll figures: {folder}/table.md, {folder}/table.csv")


def _estimate(planned: Plan, quiet: bool, as_json: bool) -> None:
    from sfumato.bench.estimate import estimate

    found = estimate(planned, say=say(err=True, quiet=quiet))
    if as_json:
        print_json(found.as_json())
        return
    print_table("", found.columns(), found.rows())
    for line in found.totals():
        typer.echo(line)
