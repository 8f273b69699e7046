"""sfumato train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.arguments import Given, override, sort_arguments
from sfumato.cli.show import print_json, print_summary, say, speaks
from sfumato.errors import CollapseError, UsageError


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA|SETTINGS.yaml key=value",
            help="A folder, .parquet or .npz file, or built-in set; or a file of settings. Keys: `sfumato config`.",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV: file,label[,split] or image,mask[,split]; blank = unlabelled.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks; an image without one is unlabelled.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder to make; runs/NAME by default.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Train once for each: 0:3 is 0, 1, 2.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, exactly where it stopped.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Settings that go together; `sfumato config --recipes`.")] = None,
    no_baseline: Annotated[
        bool, typer.Option("--no-baseline", help="Skip the labels-only run: no verdict then.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print all settings and counts; train nothing.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write report.html.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress, only the result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, nothing else there.")] = False,
) -> None:
    """Train on the labels alone, then by a method that uses all images, and say whether that helped."""
    from sfumato.config import load
    from sfumato.run import experiment, rehearsal, reopened

    given = _given(arguments, {"data.labels_csv": labels, "data.masks": masks}, seeds, no_baseline)
    if resume is not None:
        _refuse_beside_resume(given, out, recipe)
    config = load(given.file, given.overrides, recipe) if resume is None else reopened(resume, given.overrides)
    if dry_run:
        typer.echo(rehearsal(config))
        return
    tell = say(err=as_json, quiet=quiet)
    summary = experiment(config, out=out, resume=resume, say=tell, quiet=quiet or as_json, report=not no_report)
    if as_json:
        print_json(summary.as_json())
    else:
        print_summary(summary)
    if summary.collapsed and speaks():  # an exit code of another rank would end the first before it has printed
        raise CollapseError(f"The pseudo-labels were collapsed at the end. {summary.collapsed}")


def _given(arguments: list[str] | None, files: dict[str, Path | None], seeds: str | None, no_baseline: bool) -> Given:
    given = sort_arguments(arguments)
    given.overrides += [override(key, path) for key, path in files.items() if path is not None]
    if seeds is not None:
        given.overrides.append(override("seeds", seeds))
    if no_baseline:
        given.overrides.append(override("baseline", False))
    return given


def _refuse_beside_resume(given: Given, out: Path | None, recipe: str | None) -> None:
    """A run to go on with brings its data, settings and folder along."""
    if given.file is not None:
        raise UsageError(f"--resume takes the settings of the run; leave out {given.file}.")
    if out is not None or recipe is not None:
        raise UsageError(
            f"--resume goes on in the same folder with the same recipe; leave out {'-o' if out else '--recipe'}."
        )
