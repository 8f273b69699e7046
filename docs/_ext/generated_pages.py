"""Writes the pages that follow from the code: methods, command line and API, into `_generated/` before each build."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Literal, Protocol, Union, get_args, get_origin

from diagram import diagram, steps
from sphinx.application import Sphinx
from sphinx.config import Config
from typer.main import get_command

import sfumato
from sfumato import addons
from sfumato.addons import Description as AddonDescription
from sfumato.addons import Entry as AddonEntry
from sfumato.methods import METHODS, Description, Entry, describe
from sfumato.methods.building import type_hints_of
from sfumato.methods.choices import year

Builder = Callable[..., object]
ARGUMENT = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


def prose(text: str) -> str:
    """Plain text with `code` as Markdown that shows the same."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_\[\]<>|$])", r"\\\1", part) for part in parts)


def sections(docstring: str) -> tuple[str, dict[str, str]]:
    """The text before `Args:`, and what is said there of each argument."""
    before, _, rest = inspect.cleandoc(docstring).partition("\nArgs:\n")
    before = before.partition("\nRaises:\n")[0]
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in rest.partition("\nRaises:\n")[0].splitlines():
        if match := ARGUMENT.match(line):
            names = match[1].split(", ")
            meanings |= dict.fromkeys(names, match[2])
        elif line.strip():
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return before, meanings


def seen(method: Description) -> str:
    views = method.views
    found = ["weak views of the labelled images"]
    if views.labeled_strong:
        found.append("strong views of the labelled images")
    if views.weak:
        found.append("a weak view of each unlabelled image" + (" (with gradient)" if views.weak_gradient else ""))
    if views.strong:
        count = "one strong view" if views.strong == 1 else f"{views.strong} strong views"
        found.append(f"{count} of each unlabelled image")
    if views.feature_dropout:
        found.append("its weak view once more, from features with channels dropped")
    if views.complementary:
        found.append("complementary halves of the features in the two")
    if views.pasting:
        found.append("boxes of labelled and of other images in it, where labels are maps")
    return ", ".join(found)


def allowed(annotation: object) -> str:
    """Values of a type hint as a reader would write them."""
    if get_origin(annotation) is Literal:
        return " / ".join(f"`{value}`" for value in get_args(annotation))
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return " or ".join(allowed(part) for part in get_args(annotation))
    name = str(annotation) if get_origin(annotation) else getattr(annotation, "__name__", str(annotation))
    return "none" if annotation is type(None) else name.replace("|", "or")


def option_table(builder: Builder, described: Description | AddonDescription, meanings: dict[str, str]) -> list[str]:
    hints = type_hints_of(builder)
    rows = []
    for option, default in described.defaults.items():
        cells = [f"`{option}`", f"`{default}`", allowed(hints[option])]
        if meanings:
            cells.append(prose(meanings.get(option, "")))
        rows.append(f"| {' | '.join(cells)} |")
    heads = ["option", "default", "values", *(["meaning"] if meanings else [])]
    head = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return [*head, *rows] if rows else ["No options."]


def links(names: Sequence[str], folder: str) -> str:
    return ", ".join(f"[{name}](../{folder}/{name}.md)" for name in names) or "none"


def blocks(text: str) -> list[str]:
    """The head of a file as Markdown: indented paragraphs are formulas, all else is prose."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("    "):
            found += ["```text", inspect.cleandoc("\n" + block), "```", ""]
        else:
            found += [prose(block), ""]
    return found


def literal_facts(described: Description | AddonDescription) -> list[str]:
    """Which options take a formula, or someone's code, to the letter."""
    found: dict[str, list[str]] = {}
    for option, values in described.literal.items():
        for whose, value in values.items():
            found.setdefault(whose, []).append(f"`{option}={value}`")
    return [f"{whose[0].upper()}{whose[1:]}: {', '.join(options)}" for whose, options in found.items()]


def page(
    described: Description | AddonDescription, builder: Builder, facts: Sequence[str], picture: Sequence[str]
) -> str:
    text, meanings = sections(described.summary)
    opening = prose(text)
    if isinstance(builder, partial):
        fixed = ", ".join(f"`{key}={value}`" for key, value in builder.keywords.items())
        name = builder.func.__name__
        opening = f"[{name}]({name}.md) with {fixed}. The text below is of `{name}`, and speaks of its defaults."
    long = blocks(described.about) if "\n\n" in described.about else []
    listed = [f"Paper: {prose(described.paper)}", f"Equations: {prose(described.equations)}", *facts]
    body = [f"# {described.name}", "", opening, "", *picture, *(f"- {fact}" for fact in listed), "", *long]
    return "\n".join([*body, *option_table(builder, described, meanings), ""])


def method_page(name: str) -> str:
    method = describe(name)
    facts = [f"Sees: {seen(method)}"]
    if method.dense_only or method.classes_only:
        facts.append(f"For images with {'masks' if method.dense_only else 'one class each'} only")
    if method.trainings is not None:
        facts.append(f"Takes {method.trainings}")
    facts += [f"Add-ons: {links(addons.addons_for(name, dense=method.dense_only), 'addons')}", *literal_facts(method)]
    picture = ["```{raw} html", diagram(steps(method.views, method.choices)), "```", ""]
    return page(method, METHODS[name].build, facts, picture)


def addon_page(name: str) -> str:
    addon = addons.describe(name)
    facts = [
        f"Changes: {addon.changes}",
        f"Fits, for images with a class each: {links(addons.methods_for(name), 'methods')}",
        f"Fits, for images with masks: {links(addons.methods_for(name, dense=True), 'methods')}",
        *literal_facts(addon),
    ]
    return page(addon, addons.ADDONS[name].build, facts, [])


def line(folder: str, name: str, about: str, entry: Entry | AddonEntry) -> str:
    cells = (f"[{name}](_generated/{folder}/{name}.md)", about, str(year(entry.paper) or ""), prose(entry.paper))
    return f"| {' | '.join([*cells, prose(entry.equations)])} |"


def methods_page() -> str:
    """The two tables; the pages of the lines are made beside it."""
    rows = [line("methods", name, entry.trains, entry) for name, entry in METHODS.items()]
    others = [line("addons", name, entry.changes, entry) for name, entry in addons.ADDONS.items()]
    return "\n".join(
        [
            "| method | images with | year | paper | equations |", "|---|---|---|---|---|", *rows, "",
            "## Add-ons", "",
            "An add-on changes a choice of a method, whichever it is: `method=softmatch addon=seval`.", "",
            "| add-on | changes | year | paper | equations |", "|---|---|---|---|---|", *others, "",
        ]
    )  # fmt: skip


def api_pages() -> dict[str, str]:
    """One page for each room of the package, with all its public modules."""
    rooms: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(sfumato.__path__, "sfumato."):
        parts = module.name.split(".")
        if parts[1] != "cli" and not any(part.startswith("_") for part in parts):
            rooms.setdefault(parts[1], []).append(module.name)
    pages = {}
    for room, modules in rooms.items():
        blocks = [f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n" for name in modules]
        pages[f"api/{room}.md"] = "\n".join([f"# {room}\n", *blocks])
    return pages


class Parameter(Protocol):
    """What is read of a parameter: typer has its own copy of click, so the classes differ between versions."""

    name: str
    metavar: str | None
    param_type_name: str
    opts: list[str]
    secondary_opts: list[str]
    help: str | None


def option_rows(parameters: Sequence[Parameter]) -> list[str]:
    """One table row a parameter; text in cells must not contain a bar."""
    rows = []
    for parameter in parameters:
        is_option = parameter.param_type_name == "option"
        shown = (parameter.metavar or parameter.name.upper()).strip("[]").replace("|", " or ")
        name = ", ".join([*parameter.opts, *parameter.secondary_opts]) if is_option else shown
        if name != "--help":
            rows.append(f"| `{name}` | {prose(' '.join((parameter.help or '').split())).replace('|', '/')} |")
    return rows


class Command(Protocol):
    help: str | None
    params: Sequence[Parameter]


def command_section(path: str, command: Command) -> str:
    children: dict[str, Command] = getattr(command, "commands", {})
    if children:
        return "\n".join(command_section(f"{path} {name}", child) for name, child in children.items())
    rows = option_rows(command.params)
    table = ["| argument or option | meaning |", "|---|---|", *rows] if rows else []
    return "\n".join([f"### {path}", "", prose((command.help or "").strip()), "", *table, ""])


def cli_page() -> str:
    from sfumato.cli import app

    return command_section("sfumato", get_command(app))


def write_pages(app: Sphinx, config: Config) -> None:
    folder = Path(app.srcdir) / "_generated"
    pages = {
        "methods.md": methods_page(),
        "cli.md": cli_page(),
        **{f"methods/{name}.md": method_page(name) for name in METHODS},
        **{f"addons/{name}.md": addon_page(name) for name in addons.ADDONS},
        **api_pages(),
    }
    for room in ("api", "methods", "addons"):
        (folder / room).mkdir(parents=True, exist_ok=True)
        for old in (folder / room).glob("*.md"):
            if f"{room}/{old.name}" not in pages:
                old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
