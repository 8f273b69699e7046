"""sfumato demo"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.show import print_json, print_methods, say
from sfumato.errors import UsageError


class Scenes(Enum):
    classification = "classification"
    segmentation = "segmentation"


def demo(
    task: Annotated[Scenes, typer.Option(help="A class for each image, or for each pixel.")] = Scenes.classification,
    labels: Annotated[int | None, typer.Option(help="Labelled images in all; 40, or 32 with masks.")] = None,
    seeds: Annotated[str, typer.Option(help="Draws of the labels: 0:3 is 0, 1, 2.")] = "0",
    methods: Annotated[str | None, typer.Option(help="Names with commas; five by default.")] = None,
    short: Annotated[bool, typer.Option("--short", help="Tiny images and few steps, to see that all works.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder; in runs/ by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")] = False,
) -> None:
    """Train five methods, on 40 of 5,000 MNIST digits or on 32 masks of shapes: one table, the verdicts, a report."""
    from sfumato.config.schema import parse_seeds
    from sfumato.run.demo import SCENES, Plan
    from sfumato.run.demo import demo as run

    try:
        drawn = parse_seeds(seeds)
    except ValueError as error:
        raise UsageError(f"--seeds {seeds}: {error}.") from error
    scene = SCENES[task.value]
    names = tuple(methods.split(",")) if methods else scene.methods
    plan = Plan(task.value, labels or scene.labels, drawn, names, short)
    shown = run(plan, out=out, say=say(err=as_json), progress=not as_json)
    if as_json:
        print_json(
            {"folder": str(shown.folder), "rows": [row.as_json() for row in shown.rows], "verdicts": shown.verdicts}
        )
        return
    typer.echo("")
    print_methods("Test images; mean ± standard deviation over seeds" if len(drawn) > 1 else "Test images", shown.rows)
    typer.echo(
        "Validation labels are used for the temperature and the best-checkpoint figures in the report, no more.\n"
    )
    for verdict in shown.verdicts.values():
        typer.echo(verdict["sentence"])
    typer.echo(f"\nReport: {shown.report}")
