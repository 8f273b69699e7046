"""The verbs together, and what every one of them does with an error."""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato import __version__
from sfumato.cli import bench, config, data, demo, doctor, evaluate, methods, predict, report, table, train
from sfumato.cli.errors import Commands

app = typer.Typer(
    cls=Commands,
    name="sfumato",
    help="Train on images of which a few have a label or a mask, and learn whether the many without helped.",
    epilog="Exit codes: 0 done, 2 usage, 3 data or run folder, 4 training broke down or collapsed, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfumato {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("bench")(bench.bench)
app.command("table")(table.table)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.add_typer(methods.app, name="methods")
app.command("config")(config.config)
