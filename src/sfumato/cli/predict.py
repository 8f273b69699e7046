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
) -> None:
    """Label new images: CSV with file, label, calibrated probability and the three most probable classes."""
    from sfumato.run.files import write_text
    from sfumato.run.trained import open_trained, predict_folder

    text = predict_folder(open_trained(run, select.value), images)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    typer.echo(f"{text.count(chr(10)) - 1:,} images -> {out}")
