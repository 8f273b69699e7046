"""The images behind a run, for its report."""

from __future__ import annotations

from pathlib import Path

from sfumato.config import load
from sfumato.errors import SfumatoError
from sfumato.run import files, prepare


def images_of(folder: Path) -> prepare.Pictures | None:
    """Rows of the run's table to images; None when the data is no longer there, and the report does without.

    None too for a run with masks, which keeps the images it shows: reading all masks again would take minutes.
    """
    found = next((path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + files.CONFIG))), None)
    if found is None:
        return None
    try:
        config = load(found)
        if config.data.task == "segmentation":
            return None
        table = prepare.open_table(config)
    except SfumatoError:
        return None
    return prepare.pictures(table)
