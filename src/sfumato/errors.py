"""Errors a user can act on. The message is the whole text shown; `exit_code` is what the command line returns."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches


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


def nearest(name: str, options: Iterable[str]) -> str:
    """A sentence naming the closest of `options`, with a leading space, or every option when none is close."""
    known = sorted(options)
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}."


def nearest_quoted(value: object, text: str) -> str:
    """As `nearest`, of the words that `text` has in quotes; nothing when none is close."""
    close = get_close_matches(str(value), re.findall(r"'([^']*)'", text), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def check_choice(owner: str, key: str, value: object, options: Iterable[str]) -> None:
    """Raise a UsageError unless `value` is one of `options`."""
    known = list(options)
    if value not in known:
        close = get_close_matches(str(value), known, n=1, cutoff=0.6)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise UsageError(f"{owner}({key}={value!r}): expected one of {', '.join(known)}.{hint}")
