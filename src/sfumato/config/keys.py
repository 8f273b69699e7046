"""Which keys there are, and which one a user means."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sfumato.addons import ADDONS
from sfumato.config import schema
from sfumato.methods import METHODS, options
from sfumato.methods.building import options_of, type_hints_of
from sfumato.train_config import TrainConfig

SECTIONS: dict[str, type[schema.Section]] = {
    "data": schema.DataSection,
    "model": schema.ModelSection,
    "views": schema.ViewsSection,
    "evaluate": schema.EvaluateSection,
}
SHORT = {
    "data": "data.source", "method": "method.name", "addon": "addon.name", "model": "model.name",
    "views": "views.preset",
}  # fmt: skip
"""A section named without a key means this one."""
OPEN = ("model.options.", "data.mapping.")
"""Settings that hold others, under names of their own."""


@dataclass(frozen=True)
class Keys:
    """All dotted keys that a run of one method, with an add-on or none, has, each with its type."""

    method: str
    types: dict[str, Any]

    @classmethod
    def of(cls, method: str, addon: str | None = None) -> Keys:
        types: dict[str, Any] = {}
        for name, field in schema.Config.model_fields.items():
            if name not in (*SECTIONS, "method", "addon", "train"):
                types[name] = field.annotation
        for section, model in SECTIONS.items():
            types |= {f"{section}.{name}": field.annotation for name, field in model.model_fields.items()}
        hints = get_type_hints(TrainConfig)
        types |= {f"train.{field.name}": hints[field.name] for field in fields(TrainConfig)}
        types["method.name"] = str
        types |= {f"method.{name}": kind for name, kind in _method_types(method).items()}
        types["addon.name"] = str | None
        if addon is not None and addon in ADDONS:
            types |= {f"addon.{name}": kind for name, kind in _option_types(ADDONS[addon].build).items()}
        return cls(method, types)

    def find(self, given: str) -> str:
        """The dotted key that `given` means. Raises LookupError that says what is wrong with it."""
        if given in SHORT:
            return SHORT[given]
        if given in self.types or given.startswith(OPEN):
            return given
        same = [key for key in self.types if _leaf(key) == given]
        if self.method not in METHODS:  # the mistake to tell of is the method's name
            same = [key for key in same if not key.startswith("method.")] or same[:1]
        if any(key.startswith("data.") for key in same):  # what data to train on means the same with any add-on
            same = [key for key in same if not key.startswith("addon.")]
        # A word of the run's own settings stays what it is, whatever the options of an add-on are called.
        own = [key for key in same if not key.startswith("addon.")]
        if len(own) == 1 and not own[0].startswith("method."):
            same = own
        if len(same) == 1:
            return same[0]
        if same:
            raise LookupError(f"'{given}' could be {' or '.join(sorted(same))}: write which.")
        raise LookupError(self._unknown(given))

    def _unknown(self, given: str) -> str:
        section, _, leaf = given.rpartition(".")
        elsewhere = [name for name in METHODS if leaf in options(name)] if section in ("", "method") else []
        if elsewhere:
            return f"'{given}' is an option of {', '.join(elsewhere)}; the method is {self.method}."
        others = [name for name in ADDONS if leaf in options_of(ADDONS[name].build)] if section in ("", "addon") else []
        if others:
            return f"'{given}' is an option of the add-on {' or '.join(others)}: name it, addon={others[0]}."
        inside = {_leaf(key): key for key in self.types if section and key.startswith(f"{section}.")}
        if inside:
            close = get_close_matches(leaf, inside, n=1, cutoff=0.6)
            hint = (
                f"Did you mean '{inside[close[0]]}'?" if close else f"Known in {section}: {', '.join(sorted(inside))}."
            )
        else:
            # Not from a set: of names that are equally close the same one is told every time.
            known = [*SHORT, *self.types, *map(_leaf, self.types)]
            close = get_close_matches(given, known, n=1, cutoff=0.6)
            hint = f"Did you mean '{close[0]}'?" if close else "`sfumato config` prints all keys."
        return f"'{given}' is no known key. {hint}"

    def allows_none(self, key: str) -> bool:
        """Whether "none" is not a word of its own here but means nothing."""
        return key in self.types and _allows_none(self.types[key])


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _method_types(method: str) -> dict[str, Any]:
    """Of an unknown method, the options of all: the error to tell is the method's name."""
    names = [method] if method in METHODS else list(METHODS)
    found: dict[str, Any] = {}
    for name in names:
        found |= _option_types(METHODS[name].build)
    return found


def _option_types(builder: Callable[..., object]) -> dict[str, Any]:
    hints = type_hints_of(builder)
    return {key: hints.get(key, inspect.Parameter.empty) for key in options_of(builder)}


def _allows_none(annotation: Any) -> bool:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation is NoneType
    parts = get_args(annotation)
    words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
    return NoneType in parts and "none" not in words
