"""Recipes: settings that go together, kept as YAML beside this file."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

from sfumato.errors import UsageError, nearest


def _folder() -> Traversable:
    return resources.files("sfumato.config") / "recipes"


def recipe_names() -> list[str]:
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a recipe. Raises UsageError with the nearest name."""
    if name not in recipe_names():
        raise UsageError(f"recipe '{name}' is unknown.{nearest(name, [*recipe_names(), 'none'])}")
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def recipe_summary(name: str) -> str:
    """What its opening comment says after the command."""
    lines = [line.lstrip("# ") for line in recipe_text(name).splitlines() if line.startswith("#")]
    return " ".join(lines[1:])
