"""How a line of a table is built: facts of the problem by the names of its parameters, options by its keywords."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sfumato.errors import UsageError, is_number, nearest, nearest_quoted


@dataclass(frozen=True, slots=True)
class Facts:
    """What a method may need to know of the problem; a builder takes the ones it names as positional parameters."""

    num_classes: int
    num_unlabeled: int = 0
    dense: bool = False  # labels are maps, one class per pixel
    num_labeled: int = 0
    label_counts: tuple[int, ...] = ()  # (C,) of the training labels, in samples or in pixels

    def named_by(self, builder: Callable[..., object]) -> dict[str, Any]:
        """The facts among the positional parameters of `builder`."""
        parameters = inspect.signature(builder).parameters.values()
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        return {name: getattr(self, name) for name in names if hasattr(self, name)}


def options_of(builder: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters, in order."""
    parameters = inspect.signature(builder).parameters
    return {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def type_hints_of(builder: Callable[..., object]) -> dict[str, Any]:
    return get_type_hints(builder.func if isinstance(builder, partial) else builder)


def checked(name: str, builder: Callable[..., object], given: Mapping[str, object]) -> dict[str, Any]:
    """The options `given` for the entry `name`, as its builder takes them.

    Raises:
        UsageError: unknown options, values of the wrong kind or that no option of this name has, all of them in one
            message.
    """
    known, hints, problems = options_of(builder), type_hints_of(builder), []
    right: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            problems.append(f"{name} has no option '{key}'.{nearest(key, known)}")
            continue
        try:
            right[key] = TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            expected = error.errors()[0]["msg"]
            hint = nearest_quoted(value, expected)
            problems.append(f"{name}.{key}={value!r}: {expected[0].lower()}{expected[1:]}.{hint}")
            continue
        named = _named(key, right[key])
        if named is not None:
            problems.append(f"{name}.{key}={value!r}: expected {named}.")
    if problems:
        raise UsageError(" ".join(problems))
    return right


def _named(key: str, value: object) -> str | None:
    """What an option of this name is in every method and add-on, where `value` is not; its builder knows the rest."""
    numbers = [cast(float, one) for one in (value if isinstance(value, tuple) else (value,)) if is_number(one)]
    if any(map(math.isnan, numbers)):
        return "a number, not NaN"
    if (key.startswith("lambda_") or key == "weight") and not all(0 <= one < math.inf for one in numbers):
        return "the weight of a loss, 0 or more; 0 leaves it out"
    if key == "ramp" and not all(0 <= one <= 1 for one in numbers):
        return "a share of training, 0 to 1, such as 0.4"
    return None
