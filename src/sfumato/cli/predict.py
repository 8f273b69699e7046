"""sfumato predict"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Select(Enum):
    last = "last"
    best = "best"


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder, searched through, or one image.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="CSV file to write; printed by default.")] = None,
    select: Annotated[Select, typer.Option(help="The last network, or the one best on validation.")] = Select.last,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be read, and name them.")
    ] = False,
) -> None:
    """Label new images: CSV with file, label, calibrated probability and the three most probable classes."""
    from sfumato.run.files import write_text
    from sfumato.run.trained import open_trained, predict_folder

    found = predict_folder(open_trained(run, select.value), images, skip_broken=skip_broken)
    for name, reason in found.left_out.items():
        typer.echo(f"left out: '{name}' ({reason})", err=True)
    if out is None:
        typer.echo(found.text, nl=False)
        return
    write_text(out, found.text)
    typer.echo(f"{found.count:,} {'image' if found.count == 1 else 'images'} -> {out}")
