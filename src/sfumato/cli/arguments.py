"""What several verbs read alike: DATA or a file of settings, then key=value."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.errors import UsageError


@dataclass
class Given:
    """Positional arguments, sorted."""

    file: Path | None = None  # YAML
    overrides: list[str] = field(default_factory=list)


def override(key: str, value: object) -> str:
    """`key=value` that reads back as this very value, whatever characters are in it."""
    return f"{key}={json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)}"


def sort_arguments(arguments: Sequence[str] | None) -> Given:
    """A first argument that names a YAML file holds settings; one without "=" is the data."""
    given = Given()
    for place, text in enumerate(arguments or []):
        is_setting = "=" in text and not (place == 0 and Path(text).exists())
        if is_setting:
            given.overrides.append(text)
        elif place > 0:
            raise UsageError(f"'{text}': expected key=value here, such as steps=1000. The data comes first, and once.")
        elif Path(text).suffix.lower() in (".yaml", ".yml"):
            given.file = Path(text)
        else:
            given.overrides.append(override("data.source", text))
    return given
