"""sfumato eval"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.predict import Select
from sfumato.cli.show import print_json, print_methods, print_table
from sfumato.errors import UsageError


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="Other labelled images; the run's by default.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV for DATA, with the columns file,label[,split].")] = None,
    select: Annotated[Select, typer.Option(help="The last network, or the one best on validation.")] = Select.last,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as JSON, fractions and nats.")] = False,
) -> None:
    """Measure a trained network again: accuracy, calibration, and every class."""
    from sfumato.run.table import row
    from sfumato.run.trained import evaluate_on, evaluate_run, open_trained

    if labels is not None and data is None:
        raise UsageError("--labels goes with DATA: sfumato eval RUN DATA --labels labels.csv.")
    trained = open_trained(run, select.value)
    found = evaluate_run(trained) if data is None else evaluate_on(trained, data, labels)
    if as_json:
        print_json(found)
        return
    print_methods(f"{run} on {data or 'its own splits'}", [row(found["method"], [found])])
    section = found["test"] or found["val"]
    kinds = ("recall", "precision")
    rows = [[name, *(_percent(section.get(f"{kind}/{name}")) for kind in kinds)] for name in trained.classes]
    print_table("", ("class", "recall %", "precision %"), rows)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
