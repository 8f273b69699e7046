"""Docstrings are written as plain text with `code` in single backticks; this turns them into reStructuredText.

Without it `(N, C, *S)` would open an emphasis and an indented list of options a block quote with warnings.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

SPECIAL = re.compile(r"([\\*|]|_(?=\W|$))")
BULLET = re.compile(r"[-*] ")


def inline(line: str) -> str:
    """`code` becomes ``code``; what reStructuredText would read as markup outside of it is escaped."""
    parts = re.split(r"(`+[^`]+`+)", line)
    return "".join(
        f"``{part.strip('`')}``" if part.startswith("`") else SPECIAL.sub(r"\\\1", part).replace("`", "\\`")
        for part in parts
    )


def convert(lines: list[str]) -> list[str]:
    """Flush lines are prose or bullets, indented blocks that follow are shown as they are typed."""
    out: list[str] = []
    block = False  # inside an indented block
    bullet = False  # inside a list item, whose continuation lines are indented too
    for line in lines:
        indented = line.startswith(" ")
        if not line.strip():
            out.append("")
            bullet = False
        elif indented and bullet:
            out.append("  " + inline(line.strip()))
        elif indented:
            if not block:
                out += ["", "::", ""]
            out.append("   " + line)
            block = True
        else:
            starts = bool(BULLET.match(line))
            if block or (starts and not bullet):
                out.append("")
            out.append("- " + inline(line[2:]) if starts else inline(line))
            block, bullet = False, starts
    return [*out, ""]


def on_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = convert(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", on_docstring)
    return {"parallel_read_safe": True}
