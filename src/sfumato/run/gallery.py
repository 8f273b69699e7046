"""The images behind a run, for its report."""

from __future__ import annotations

from pathlib import Path

from sfumato.config import load
from sfumato.errors import SfumatoError
from sfumato.run import files, prepare


def images_of(folder: Path) -> prepare.Pictures | None:
    """Rows of the run's table to images; None when the data is no longer there, and the report does without."""
    found = next((path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + files.CONFIG))), None)
    if found is None:
        return None
    try:
        table = prepare.open_table(load(found))
    except SfumatoError:
        return None
    return prepare.pictures(table)
