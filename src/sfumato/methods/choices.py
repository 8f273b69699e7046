"""What a method is made of, in words: its rules by the slots that they stand in, and its literal readings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from sfumato.methods.base import Method
from sfumato.rules import Product, Rule, Then

ORDER = ("refine", "weigh", "target", "divergence", "charge", "extras")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Options of a line of a table, each with the value that takes a formula, or someone's code, to the letter."""

    printed: Mapping[str, object] = field(default_factory=dict)  # by the paper's formula or text
    released: Mapping[str, object] = field(default_factory=dict)  # by its authors' code
    usb: Mapping[str, object] = field(default_factory=dict)  # by USB, where that is neither

    @property
    def literal(self) -> dict[str, dict[str, object]]:
        """For each option, its values by whose they are: "as printed", "as released" or "USB"."""
        found: dict[str, dict[str, object]] = {}
        for whose, values in (("as printed", self.printed), ("as released", self.released), ("USB", self.usb)):
            for option, value in values.items():
                found.setdefault(option, {})[whose] = value
        return found


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


def year(paper: str) -> int | None:
    """The year that a line of the table gives its paper."""
    found = re.search(r"\b(?:19|20)\d\d\b", paper)
    return None if found is None else int(found[0])
