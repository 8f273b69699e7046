"""sfumato config"""

from __future__ import annotations

from typing import Annotated

import typer

from sfumato.cli.arguments import sort_arguments
from sfumato.cli.show import print_json, print_table


def config(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="DATA|SETTINGS.yaml key=value", help="As for `sfumato train`."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Settings that go together.")] = None,
    recipes: Annotated[bool, typer.Option("--recipes", help="List the recipes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Check settings and print all of them, as a file that `sfumato train` takes."""
    from sfumato.config import dump, load, nested, recipe_names, recipe_summary

    if recipes:
        print_table(
            "", ("recipe", "what it is"), [[name, recipe_summary(name)] for name in recipe_names()], numbers=False
        )
        return
    given = sort_arguments(arguments)
    found = load(given.file, given.overrides, recipe)
    if as_json:
        print_json(nested(found))
    else:
        typer.echo(dump(found), nl=False)
