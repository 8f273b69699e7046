"""Which of the two tasks a source is for: a class for each image, or a class for each pixel."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

Task = Literal["classification", "segmentation"]

GENERATED = ("shapes",)  # built-in sets of images with masks
MASK_FOLDERS = ("masks", "SegmentationClass", "SegmentationClassAug", "gtFine", "annotations")


def task_of(source: str, masks: str | None = None, labels_csv: str | None = None) -> Task:
    """What the names of files and folders say; nothing is decoded, and a source that is not there is no mistake yet."""
    path = Path(source)
    if masks is not None or (source in GENERATED and not path.exists()):
        return "segmentation"
    if labels_csv is not None:
        return "segmentation" if _names_masks(Path(labels_csv)) else "classification"
    if path.suffix.lower() == ".csv":
        return "segmentation" if _names_masks(path) else "classification"
    return "segmentation" if any((path / name).is_dir() for name in MASK_FOLDERS) else "classification"


def _names_masks(path: Path) -> bool:
    """True for a CSV with a column `mask`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return "mask" in (name.strip().lower() for name in header)
