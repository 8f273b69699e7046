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

    if as_json:
        about = {
            name: {"paper": entry.paper, "equations": entry.equations, "images_with": entry.trains}
            for name, entry in METHODS.items()
        }
        print_json(about)
        return
    rows = [[name, entry.trains, entry.paper, entry.equations] for name, entry in METHODS.items()]
    print_table("", ("method", "images with", "paper", "equations"), rows, numbers=False)
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
    if found.dense_only or found.classes_only:
        typer.echo(f"for images with {'masks' if found.dense_only else 'one class each'} only\n")
    views = asdict(found.views)
    typer.echo("views: " + ", ".join(f"{key}={value}" for key, value in views.items()) + "\n")
    typer.echo("options:" if found.defaults else "no options")
    for key, value in found.defaults.items():
        typer.echo(f"  {key}={value}")
