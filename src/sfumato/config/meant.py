"""What is wrong with the name of a method or an add-on, where one is given in the place of the other or both in one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sfumato.addons import ADDONS
from sfumato.errors import UsageError, close_name, nearest
from sfumato.methods import METHODS


def check_method_name(given: str) -> None:
    """Raises UsageError for an add-on, or a method with an add-on, in the place of a method's name."""
    if given in METHODS:
        return
    method, plus, addon = given.partition("+")
    if plus:
        if re.search(r"[^\w-]", addon):
            raise UsageError(f"method '{given}': {_one_of(addon)}")
        right = f"method={_likely(method, METHODS)} addon={_likely(addon, ADDONS)}"
        raise UsageError(f"method '{given}': the add-on is a setting of its own: write {right}.")
    if given in ADDONS:
        raise UsageError(f"method '{given}': that is an add-on to a method: write method=NAME addon={given}.")


def check_addon_name(given: str) -> None:
    """Raises UsageError for a method, or several add-ons, in the place of an add-on's name."""
    if given in METHODS and given not in ADDONS:
        raise UsageError(f"add-on '{given}': that is a method: write method={given}.")
    if re.search(r"[^\w-]", given):
        raise UsageError(f"add-on '{given}': {_one_of(given)}")


def check_either_name(given: str) -> None:
    """Raises UsageError unless it is the name of a method or of an add-on, with what is likely to be meant."""
    if given in METHODS or given in ADDONS:
        return
    method, plus, addon = given.partition("+")
    if plus:
        both = f"`sfumato methods show {_likely(method, METHODS)}` and `sfumato methods show {_likely(addon, ADDONS)}`"
        raise UsageError(f"'{given}' is a method with an add-on: {both} tell of them one by one.")
    raise UsageError(
        f"'{given}' is no method and no add-on.{nearest(given, [*METHODS, *ADDONS])} `sfumato methods` lists them."
    )


def _one_of(given: str) -> str:
    names = [word for word in re.findall(r"[\w-]+", given) if word in ADDONS]
    return f"one add-on a run, such as addon={names[0] if names else next(iter(ADDONS))}."


def _likely(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest; NAME where none is."""
    return close_name(name, known) or "NAME"
