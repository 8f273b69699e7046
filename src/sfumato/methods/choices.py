"""What a method is made of, in words: its rules by the slots that they stand in, and its literal readings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, get_args, get_origin

from torch import nn

from sfumato.methods.base import Method
from sfumato.methods.building import options_of, type_hints_of
from sfumato.rules import Product, Rule, Then

LITERAL = re.compile(r"literal|official|released|peer|printed|paper")
"""How a value of an option is named that takes a paper's formula, or its authors' code, to the letter."""
ORDER = ("refine", "weigh", "target", "divergence", "charge", "extras")


def choices(method: Method) -> dict[str, str]:
    """What stands in each attribute of `method` that holds a rule or a divergence, in the order of a step."""
    found = dict(_attributes(method))
    return {name: found[name] for name in sorted(found, key=_place)}


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else -1


def _attributes(method: Method) -> Iterator[tuple[str, str]]:
    for name in ("charge", "divergence"):
        held = getattr(method, name, None)
        if name in method.slots and held is not None and not isinstance(held, nn.Module):
            yield name, in_words(held)
    for name, child in method.named_children():
        if isinstance(child, Rule):
            yield name, in_words(child)
        elif name == "extras" and len(list(child.children())):
            yield name, ", ".join(in_words(one) for one in child.children())


def in_words(held: object) -> str:
    """A rule or function by its name, with the rules inside it."""
    if isinstance(held, Product):
        return f"{in_words(held.first)} x {in_words(held.second)}"
    if isinstance(held, Then):
        return f"{in_words(held.first)}, then {in_words(held.second)}"
    if isinstance(held, partial):
        return in_words(held.func)
    name: str = getattr(held, "__name__", type(held).__name__)
    inside = [in_words(child) for child in held.children() if isinstance(child, Rule)] if isinstance(held, Rule) else []
    return f"{name}({', '.join(inside)})" if inside else name


def literal_readings(builder: Callable[..., object]) -> dict[str, list[str]]:
    """The options of `builder` with a value that takes a formula to the letter, and these values."""
    hints, found = type_hints_of(builder), {}
    for name in options_of(builder):
        values = [value for value in _words(hints[name]) if LITERAL.search(value)]
        if values:
            found[name] = values
    return found


def _words(hint: object) -> Iterator[str]:
    if get_origin(hint) is Literal:
        yield from (value for value in get_args(hint) if isinstance(value, str))
    else:
        for part in get_args(hint):
            yield from _words(part)


def year(paper: str) -> int | None:
    """The year that a line of the table gives its paper."""
    found = re.search(r"\b(?:19|20)\d\d\b", paper)
    return None if found is None else int(found[0])
