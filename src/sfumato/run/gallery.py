"""The images behind a run, for its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.config import load
from sfumato.errors import SfumatoError
from sfumato.run import files
from sfumato.run.prepare import open_table

Images = Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def images_of(folder: Path) -> Images | None:
    """Rows of the run's table to images; None when the data is no longer there, and the report does without."""
    found = next((path for depth in ("", "*/", "*/*/") for path in sorted(folder.glob(depth + files.CONFIG))), None)
    if found is None:
        return None
    try:
        table = open_table(load(found))
    except SfumatoError:
        return None
    return lambda rows: table.images.load(rows).numpy()
