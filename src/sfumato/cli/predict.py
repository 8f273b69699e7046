"""sfumato predict"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.run.trained import Trained


class Select(Enum):
    last = "last"
    best = "best"


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder, searched through, or one image.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="CSV file to write, printed by default; of masks a new folder.")
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Masks: the images under the classes' colors too.")
    ] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Masks: confidence and entropy in grey too.")] = False,
    select: Annotated[Select, typer.Option(help="The last network, or the one best on validation.")] = Select.last,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Leave out images that cannot be read, and name them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write the CSV file anew where it is there.")] = False,
) -> None:
    """Label new images: a CSV of labels with calibrated probabilities, or a mask for each image."""
    from sfumato.run.trained import open_trained

    trained = open_trained(run, select.value)
    if trained.dense:
        if force:
            raise UsageError("--force: the run gives each image a mask, and masks go to a new folder. Leave it out.")
        _masks(trained, images, out, overlay=overlay, maps=maps, skip_broken=skip_broken)
    elif overlay or maps:
        raise UsageError(f"--{'overlay' if overlay else 'maps'}: the run {run} gives images one label each, no masks.")
    else:
        _table(trained, images, out, skip_broken=skip_broken, force=force)


def _masks(trained: Trained, images: Path, out: Path | None, *, overlay: bool, maps: bool, skip_broken: bool) -> None:
    from sfumato.run.segmenting import segment_folder

    if out is None:
        raise UsageError("The run gives each image a mask: say where to put them, -o FOLDER.")
    found = segment_folder(trained, images, out, overlay=overlay, maps=maps, skip_broken=skip_broken)
    _tell(found.left_out, found.count, out)


def _table(trained: Trained, images: Path, out: Path | None, *, skip_broken: bool, force: bool) -> None:
    from sfumato.run.files import refuse_written, write_text
    from sfumato.run.labeling import predict_folder

    if out is not None and not force:
        refuse_written(out)
    found = predict_folder(trained, images, skip_broken=skip_broken)
    if out is not None:
        write_text(out, found.text)
    _tell(found.left_out, found.count, out)
    if out is None:
        typer.echo(found.text, nl=False)


def _tell(left_out: dict[str, str], count: int, out: Path | None) -> None:
    for name, reason in left_out.items():
        typer.echo(f"left out: '{name}' ({reason})", err=True)
    if out is not None:
        typer.echo(f"{count:,} {'image' if count == 1 else 'images'} -> {out}")
