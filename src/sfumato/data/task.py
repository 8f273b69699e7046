"""Which of the two tasks a source is for: a class for each image, or a class for each pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sfumato.data.pairs.sources import csv_pairs, recognizes
from sfumato.data.protocols import CLASS_PROTOCOLS
from sfumato.data.sources import csv_labels, parquet

Task = Literal["classification", "segmentation"]


def task_of(
    source: str,
    *,
    masks: str | Path | None = None,
    labels_csv: str | Path | None = None,
    lists: str | Path | None = None,
    format: str | None = None,
    protocol: str | None = None,
) -> Task:
    """What the names of files and folders say; nothing is decoded, and a source that is not there is no mistake yet.

    A table of labels in the folder comes first, then everything that `data.pairs` reads; the rest is classification.
    """
    if protocol in CLASS_PROTOCOLS:
        return "classification"
    if any(given is not None for given in (masks, lists, format, protocol)):
        return "segmentation"
    if labels_csv is not None:
        return "segmentation" if csv_pairs.is_table(Path(labels_csv)) else "classification"
    return "segmentation" if recognizes(source) and not _is_labeled(Path(source)) else "classification"


def _is_labeled(path: Path) -> bool:
    """Whether a folder holds a table of labels of whole images."""
    if not path.is_dir():
        return False
    tables = (path / name for name in csv_labels.FILE_NAMES)
    return any(map(csv_labels.is_label_file, tables)) or bool(parquet.files_of(path))
