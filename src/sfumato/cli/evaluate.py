"""sfumato eval"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.predict import Select
from sfumato.cli.show import print_json, print_methods, print_table
from sfumato.errors import UsageError

if TYPE_CHECKING:
    from sfumato.run.trained import Trained


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Other labelled images; the run's by default.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV for DATA, with the columns file,label[,split].")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks for the images of DATA.")] = None,
    select: Annotated[Select, typer.Option(help="The last network, or the one best on validation.")] = Select.last,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON, fractions and nats.")] = False,
) -> None:
    """Measure a trained network again: accuracy, calibration, and every class."""
    from sfumato.run.table import row
    from sfumato.run.trained import evaluate_run, open_trained

    for name, given in (("--labels labels.csv", labels), ("--masks masks/", masks)):
        if given is not None and data is None:
            raise UsageError(f"{name.split()[0]} goes with DATA: sfumato eval RUN DATA {name}.")
    trained = open_trained(run, select.value)
    found = evaluate_run(trained) if data is None else _elsewhere(trained, data, labels, masks)
    if as_json:
        print_json(found)
        return
    print_methods(f"{run} on {data or 'its own splits'}", [row(found["method"], [found])])
    section = found["test"] or found["val"]
    kinds = (
        {"iou": "IoU %", "recall": "recall %"} if trained.dense else {"recall": "recall %", "precision": "precision %"}
    )
    rows = [[name, *(_percent(section.get(f"{kind}/{name}")) for kind in kinds)] for name in trained.classes]
    print_table("", ("class", *kinds.values()), rows)


def _elsewhere(trained: Trained, data: str, labels: Path | None, masks: Path | None) -> dict[str, Any]:
    from sfumato.run import labeling, segmenting

    if trained.dense:
        return segmenting.evaluate_on(trained, data, masks=masks, csv=labels)
    if masks is not None:
        raise UsageError("--masks: the run gives images one label each, no masks.")
    return labeling.evaluate_on(trained, data, labels)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
