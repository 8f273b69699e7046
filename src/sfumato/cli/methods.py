"""sfumato methods"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from sfumato.cli.show import print_json, print_table

if TYPE_CHECKING:
    from sfumato.addons import Description as AddonDescription
    from sfumato.methods import Description


class Names(TyperGroup):
    """What is no verb of its own is the name to show."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=Names, help="What can be trained: papers, equations, rules, options.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_methods()


@app.command("list")
def list_methods(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """All methods and add-ons with their papers. The same as `sfumato methods` alone."""
    from sfumato.addons import ADDONS
    from sfumato.methods import METHODS

    if as_json:
        methods = {
            name: {"paper": entry.paper, "equations": entry.equations, "images_with": entry.trains}
            for name, entry in METHODS.items()
        }
        addons = {
            name: {"paper": entry.paper, "equations": entry.equations, "changes": entry.changes}
            for name, entry in ADDONS.items()
        }
        print_json({"methods": methods, "addons": addons})
        return
    rows = [[name, entry.trains, entry.paper, entry.equations] for name, entry in METHODS.items()]
    print_table("", ("method", "images with", "paper", "equations"), rows, numbers=False)
    rows = [[name, entry.changes, entry.paper, entry.equations] for name, entry in ADDONS.items()]
    print_table("", ("add-on", "changes of a method", "paper", "equations"), rows, numbers=False)
    typer.echo("`sfumato methods show NAME` tells more; `method=NAME` trains it, `addon=NAME` with an add-on.")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """One method or add-on: paper, equations, views, rules, what fits it, options with their defaults.

    The same as `sfumato methods NAME`.
    """
    from dataclasses import asdict

    from sfumato import addons, methods
    from sfumato.config.meant import check_either_name

    check_either_name(name)
    found = addons.describe(name) if name in addons.ADDONS else methods.describe(name)
    if as_json:
        print_json(asdict(found))
        return
    typer.echo(f"{found.name}: {found.paper} ({found.equations})\n\n{found.about}\n\n{found.summary}\n")
    if isinstance(found, methods.Description):
        _show_method(found)
    else:
        _show_addon(found)
    typer.echo("options:" if found.defaults else "no options")
    for key, value in found.defaults.items():
        literal = ", ".join(f"{whose}: {one}" for whose, one in found.literal.get(key, {}).items())
        typer.echo(f"  {key}={value}" + (f"  ({literal})" if literal else ""))


def _show_method(found: Description) -> None:
    from dataclasses import asdict

    from sfumato.addons import addons_for

    if found.dense_only or found.classes_only:
        typer.echo(f"for images with {'masks' if found.dense_only else 'one class each'} only\n")
    typer.echo("views: " + ", ".join(f"{key}={value}" for key, value in asdict(found.views).items()) + "\n")
    if found.trainings is not None:
        typer.echo(f"takes {found.trainings}\n")
    if found.choices:
        typer.echo("rules:\n" + "".join(f"  {slot}: {held}\n" for slot, held in found.choices.items()))
    fitting = addons_for(found.name, dense=found.dense_only)
    typer.echo(f"add-ons: {', '.join(fitting) or 'none'}\n")


def _show_addon(found: AddonDescription) -> None:
    from sfumato.addons import methods_for

    typer.echo(f"an add-on, `addon={found.name}`; it changes {found.changes}\n")
    for task, dense in (("a class each", False), ("masks", True)):
        typer.echo(
            f"methods it fits, for images with {task}: {', '.join(methods_for(found.name, dense=dense)) or 'none'}"
        )
    typer.echo("")
