"""Folders that `Dataset.save_to_disk` of Hugging Face `datasets` has written; read by pyarrow alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato.data.listing import SPLIT_NAMES, UNLABELED_NAMES, Listing
from sfumato.data.sources.parquet import EXTRA_NAMES, as_part, read_table, together
from sfumato.errors import DataError, UsageError

_ONE, _SEVERAL = "state.json", "dataset_dict.json"


def recognizes(folder: Path) -> bool:
    return (folder / _SEVERAL).is_file() or ((folder / _ONE).is_file() and (folder / "dataset_info.json").is_file())


def read(folder: Path) -> Listing:
    """All splits as one table. Raises DataError for a folder that is not whole, UsageError without pyarrow."""
    if (folder / _ONE).is_file():
        return read_table(_arrow(folder), folder / "train")
    splits = _json(folder / _SEVERAL).get("splits", [])
    parts = {**SPLIT_NAMES, **dict.fromkeys((*UNLABELED_NAMES, *EXTRA_NAMES), "")}
    unknown = [name for name in splits if name not in parts]
    if unknown or not splits:
        raise DataError(
            f"{folder / _SEVERAL}: the splits are {', '.join(splits) or 'none'}. Expected some of {', '.join(parts)}: "
            "rename them in the data set before it is saved."
        )
    listings = [
        as_part(read_table(_arrow(folder / name), folder / name), parts[name], hidden=name in UNLABELED_NAMES)
        for name in splits
    ]
    return together(listings, f"a saved data set ({', '.join(splits)})")


def _arrow(folder: Path) -> Any:  # a pyarrow.Table; pyarrow ships no types
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError(
            f'{folder}: a saved data set needs the package pyarrow: pip install "sfumato[parquet]"'
        ) from error
    files = [one["filename"] for one in _json(folder / _ONE).get("_data_files", [])]
    try:
        tables = []
        for file in files:
            with pa.memory_map(str(folder / file)) as source:
                tables.append(pa.ipc.open_stream(source).read_all())
        return pa.concat_tables(tables)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{folder}: not a complete data set ({error}). Save it again with `save_to_disk`.") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not readable ({error}). Save the data set again with `save_to_disk`.") from error
