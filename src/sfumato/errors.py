"""Errors a user can act on. The message is the whole text shown; `exit_code` is what the command line returns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real


class SfumatoError(Exception):
    """A mistake in what the library was given. Names the file, key or row, what was expected, and how to mend it."""

    exit_code = 1


class UsageError(SfumatoError):
    """A wrong option, key, name or combination of settings."""

    exit_code = 2


class DataError(SfumatoError):
    """Input data or a run folder that cannot be used as it is."""

    exit_code = 3


class CollapseError(SfumatoError):
    """Training broke down: the loss is not finite, or the pseudo-labels took over."""

    exit_code = 4


def close_name(name: str, options: Iterable[str]) -> str | None:
    """The closest of `options` whether or not letters are capitals; None when none is close."""
    known: dict[str, str] = {}
    for option in options:
        known.setdefault(option.lower(), option)
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return known[close[0]] if close else None


def nearest(name: str, options: Iterable[str]) -> str:
    """A sentence naming the closest of `options`, with a leading space, or every option when none is close."""
    known = sorted(options)
    close = close_name(name, known)
    if close is not None:
        return f" Did you mean '{close}'?"
    return f" Known: {', '.join(known)}."


def nearest_quoted(value: object, text: str) -> str:
    """As `nearest`, of the words that `text` has in quotes; nothing when none is close."""
    close = close_name(str(value), re.findall(r"'([^']*)'", text))
    return f" Did you mean '{close}'?" if close is not None else ""


def check_choice(owner: str, key: str, value: object, options: Iterable[str]) -> None:
    """Raise a UsageError unless `value` is one of `options`."""
    known = list(options)
    if value not in known:
        close = close_name(str(value), known)
        hint = f" Did you mean '{close}'?" if close is not None else ""
        raise UsageError(f"{owner}({key}={value!r}): expected one of {', '.join(known)}.{hint}")


def is_number(value: object) -> bool:
    """Whether it is one: neither text nor a truth value. NaN and infinity count."""
    return isinstance(value, Real) and not isinstance(value, bool)
