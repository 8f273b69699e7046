"""Writes the pages that follow from the code: methods, command line and API, into `_generated/` before each build."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import click
import typer
from sphinx.application import Sphinx
from sphinx.config import Config

import sfumato


def api_page() -> str:
    """Every module of the package in the import order of its rooms, private ones left out."""
    rooms = ["types", "errors", "functional", "running", "rules", "methods", "views", "models", "data", "train"]
    names = [m.name for m in pkgutil.walk_packages(sfumato.__path__, "sfumato.")]
    public = [n for n in names if not any(part.startswith("_") for part in n.split(".")) and ".cli" not in n]

    def order(name: str) -> tuple[int, str]:
        room = name.split(".")[1]
        return (rooms.index(room) if room in rooms else len(rooms), name)

    blocks = []
    for name in sorted(public, key=order):
        blocks.append(f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n")
    return "\n".join(blocks)


def option_rows(command: click.Command) -> list[str]:
    """One table row a parameter; text in cells must not contain a bar."""
    rows = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            name = ", ".join([*parameter.opts, *parameter.secondary_opts])
            text = parameter.help or ""
        else:
            name, text = parameter.make_metavar(click.Context(command)), getattr(parameter, "help", "") or ""
        rows.append(f"| `{name.replace('|', '/')}` | {' '.join(text.split()).replace('|', '/')} |")
    return rows


def command_section(path: str, command: click.Command) -> str:
    if isinstance(command, click.Group):
        own = [command_section(f"{path} {name}", sub) for name, sub in sorted(command.commands.items())]
        return "\n".join(own)
    rows = option_rows(command)
    table = ["| option | meaning |", "|---|---|", *rows] if rows else []
    return "\n".join([f"### {path}", "", (command.help or "").strip(), "", *table, ""])


def cli_page() -> str:
    from sfumato.cli import app

    return command_section("sfumato", typer.main.get_command(app))


def write_pages(app: Sphinx, config: Config) -> None:
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    for name, text in {"api.md": api_page(), "cli.md": cli_page()}.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
