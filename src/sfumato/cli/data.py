"""sfumato data check"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.show import print_json, print_table
from sfumato.errors import DataError, UsageError

if TYPE_CHECKING:
    from sfumato.data import CheckReport
    from sfumato.data.pairs import PairReport

app = typer.Typer(help="Look at data before training.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def main() -> None:
    pass


@app.command("check")
def check(
    source: Annotated[
        str,
        typer.Argument(
            metavar="[DATA]", help="A folder, .parquet or .npz file, or built-in set; a protocol has a place."
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Classes: what a run of these settings would train on."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV: file,label[,split] or image,mask[,split]; blank = unlabelled.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks; an image without one is unlabelled.")] = None,
    lists: Annotated[Path | None, typer.Option(help="Masks: folder of labeled.txt, unlabeled.txt and val.txt.")] = None,
    format: Annotated[str | None, typer.Option(help="Masks: voc, cityscapes, ade20k, folders or coco.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Masks: file of class names, a line each, with colors as name,r,g,b.")
    ] = None,
    mapping: Annotated[
        str | None, typer.Option(help="Masks: stored value: class, such as '{7: 0, 8: 1, 0: 255}'; 255 is void.")
    ] = None,
    void: Annotated[int | None, typer.Option(help="Masks: the value that stands for no class; 255.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Must be this published set, such as cifar10; of masks voc, cityscapes, coco ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything found, as JSON.")] = False,
) -> None:
    """Count classes and images, find broken files, duplicates and leaks. Changes nothing; exits with 3 on errors."""
    from sfumato.config import load
    from sfumato.data.pairs import check_pairs
    from sfumato.data.task import task_of

    found: CheckReport | PairReport
    if "=" in source and not Path(source).exists():
        source, settings = "", [source, *(settings or [])]
    if task_of(source, masks=masks, labels_csv=labels, lists=lists, format=format, protocol=protocol) == "segmentation":
        _refuse_settings(settings)
        given = {"mapping": mapping, "void": void, "protocol": protocol}
        told = [f"data.{key}={value}" for key, value in given.items() if value is not None]
        data = load(overrides=["task=segmentation", *told]).data  # a protocol has its own value of void
        found = check_pairs(
            source, masks=masks, csv=labels, lists=lists, layout=format, classes=classes,
            mapping=data.mapping, void=data.void, protocol=data.protocol,
        )  # fmt: skip
    else:
        _refuse_unused({"--classes": classes is not None, "--mapping": mapping is not None, "--void": void is not None})
        where = {"data": source or None, "labels_csv": labels, "protocol": protocol}
        found = _examined([f"{key}={value}" for key, value in where.items() if value is not None], settings or [])
    if as_json:
        print_json(asdict(found) | {"ok": found.ok})
    else:
        _print(found)
    if not found.ok:
        errors = [problem.message for problem in found.problems if problem.severity == "error"]
        raise DataError("\n".join(f"error: {message}" for message in errors))


def _examined(where: list[str], settings: list[str]) -> CheckReport:
    """What is there; with settings also what a run of them would train on."""
    from sfumato.config import load
    from sfumato.data import check as examine
    from sfumato.run import prepare

    config = prepare.located(load(overrides=["task=classification", *where, *settings]))
    data = config.data
    labels = Path(data.labels_csv) if data.labels_csv else None
    found = examine(prepare.source_of(config), labels=labels, protocol=data.protocol)
    return prepare.with_draw(found, config) if settings and found.ok else found


def _refuse_settings(settings: list[str] | None) -> None:
    if settings:
        raise UsageError(
            f"{' '.join(settings)}: settings are looked at for images with a class each, and these have masks."
        )


def _refuse_unused(given: Mapping[str, bool]) -> None:
    for option, there in given.items():
        if there:
            raise UsageError(f"{option}: nothing would use it: the data has a class for each image, no masks.")


def _print(found: CheckReport | PairReport) -> None:
    from sfumato.data.pairs import PairReport

    typer.echo(f"{found.source}: {found.layout or 'not readable'}")
    if found.images:
        if isinstance(found, PairReport):
            _print_masks(found)
        else:
            _print_classes(found)
        sizes = ", ".join(f"{size} ({count})" for size, count in list(found.sizes.items())[:5])
        modes = ", ".join(f"{mode} ({count})" for mode, count in found.modes.items())
        typer.echo(f"{found.images} images; sizes {sizes}; modes {modes}")
    for problem in found.problems:
        if problem.severity != "error":
            typer.echo(f"{problem.severity}: {problem.message}")
    if found.ok:
        typer.echo("Ready to train.")


def _print_classes(found: CheckReport) -> None:
    splits = list(found.counts)
    rows = [[name, *(str(found.counts[split].get(name, 0)) for split in splits)] for name in found.classes]
    rows.append(["(unlabelled)", str(found.unlabeled), *[""] * (len(splits) - 1)])
    print_table("", ("class", *splits), rows)
    if found.drawn:
        drawn = [[name, *(str(found.drawn[part][name]) for part in found.drawn)] for name in found.classes]
        print_table("With these settings", ("class", *found.drawn), drawn)


def _print_masks(found: PairReport) -> None:
    rows = [[name, f"{100 * found.shares[name]:.1f}", str(found.shown_in[name])] for name in found.classes]
    print_table("", ("class", "pixels %", "masks showing it"), rows)
    splits = ", ".join(f"{part} {images} ({masks} with a mask)" for part, (images, masks) in found.splits.items())
    typer.echo(f"{splits}; void {100 * found.void:.1f} % of the pixels of the masks")
