"""sfumato methods"""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato.cli.show import print_json, print_table

app = typer.Typer(help="What can be trained: papers, equations, options.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_methods()


@app.command("list")
def list_methods(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """All methods with their papers. The same as `sfumato methods` alone."""
    from sfumato.methods import METHODS

    rows = [[name, entry.paper, entry.equations] for name, entry in METHODS.items()]
    if as_json:
        print_json({name: {"paper": paper, "equations": equations} for name, paper, equations in rows})
        return
    print_table("", ("method", "paper", "equations"), rows, numbers=False)
    typer.echo("`sfumato methods show NAME` tells more; `method=NAME` trains it.")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """One method: paper, equations, views it needs, options with their defaults."""
    from dataclasses import asdict

    from sfumato.methods import describe

    found = describe(name)
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(f"{found.name}: {found.paper} ({found.equations})\n\n{found.about}\n\n{found.summary}\n")
    views = asdict(found.views)
    typer.echo("views: " + ", ".join(f"{key}={value}" for key, value in views.items()) + "\n")
    typer.echo("options:" if found.defaults else "no options")
    for key, value in found.defaults.items():
        typer.echo(f"  {key}={value}")
