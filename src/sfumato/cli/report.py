"""sfumato report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, of several seeds, or of a demo.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write; RUN/report.html by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write the file of -o anew where it is there.")] = False,
) -> None:
    """Write the report: one HTML file with verdict, curves, calibration, mistakes; it needs no network."""
    from sfumato.report import write_report
    from sfumato.run.files import refuse_written
    from sfumato.run.gallery import images_of

    if out is not None and not force:
        refuse_written(out)
    typer.echo(write_report(run, out, images=images_of(run)))
