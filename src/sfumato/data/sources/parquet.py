"""Parquet with embedded images, as Hugging Face `datasets` writes it: `image` = struct(bytes, path), `label`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import SPLIT_NAMES, UNLABELED_NAMES, Listing, did_you_mean, encode_labels, order_classes
from sfumato.data.sources.npz import check_numbers
from sfumato.errors import DataError, UsageError

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "labels", "fine_label")
EXTRA_NAMES = ("extra",)  # more of the training images, with their labels: SVHN
SHARD = re.compile(r"(?P<part>[a-z]+)(-\d+-of-\d+)?\.parquet")


def files_of(folder: Path) -> dict[Path, str]:
    """Files that are named after a part (`train.parquet`, `test-00000-of-00002.parquet`), with that part's split."""
    parts = {**SPLIT_NAMES, **dict.fromkeys((*UNLABELED_NAMES, *EXTRA_NAMES), "")}
    matches = {path: SHARD.fullmatch(path.name) for path in sorted(folder.glob("*.parquet"))}
    return {path: parts[match["part"]] for path, match in matches.items() if match and match["part"] in parts}


def read_folder(folder: Path) -> Listing:
    """All parts as one table; a part's name is its split, rows of `unlabeled.parquet` have none."""
    listings = []
    for path, split in files_of(folder).items():
        listings.append(as_part(read_file(path), split, hidden=path.name.startswith(tuple(UNLABELED_NAMES))))
    return together(listings, f"parquet files ({', '.join(path.name for path in files_of(folder))})")


def as_part(listing: Listing, split: str, *, hidden: bool) -> Listing:
    """All rows of one split; hidden: without their labels."""
    listing = replace(listing, split=np.full(len(listing), split))
    return replace(listing, labels=np.full(len(listing), -1, dtype=np.int64)) if hidden else listing


def together(listings: list[Listing], layout: str) -> Listing:
    """One listing of several, their classes united."""
    classes = _common_classes(listings)
    return Listing(
        items=[item for listing in listings for item in listing.items],
        names=[name for listing in listings for name in listing.names],
        labels=np.concatenate([_renumber(listing, classes) for listing in listings]),
        split=np.concatenate([listing.split for listing in listings]),
        classes=classes,
        layout=layout,
    )


def read_file(path: Path) -> Listing:
    return read_table(_load(path), path)


def read_table(table: Any, path: Path) -> Listing:
    """The rows of a pyarrow.Table that was read from `path`."""
    images, paths = _images(table, path)
    labels, classes = _labels(table, path)
    digits = len(str(max(0, len(images) - 1)))
    if any(name is None for name in paths) or len(set(paths)) < len(paths):
        paths = [f"{row:0{digits}d}" for row in range(len(images))]
    return Listing(
        items=images,
        names=[f"{path.stem}/{name}" for name in paths],  # the same path may occur in train and in test
        labels=labels,
        split=np.full(len(images), "", dtype=np.str_),
        classes=classes,
        layout="parquet file",
    )


def _load(path: Path) -> Any:  # a pyarrow.Table; pyarrow ships no types
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(f'{path}: parquet needs the package pyarrow: pip install "sfumato[parquet]"') from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = {*IMAGE_COLUMNS, *LABEL_COLUMNS}
        names = file.schema_arrow.names
        _one_of(IMAGE_COLUMNS, names, path)
        return file.read(columns=[name for name in names if name in wanted])
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a complete parquet file ({error}).") from error


def _one_of(options: tuple[str, ...], names: list[str], path: Path) -> str:
    for name in options:
        if name in names:
            return name
    raise DataError(
        f"{path}: no image column '{options[0]}' (its columns are: {', '.join(names) or 'none'}). "
        f"Expected struct(bytes, path) or encoded bytes, and 'label'.{did_you_mean(options[0], names)}"
    )


def _images(table: Any, path: Path) -> tuple[list[Path | bytes], list[str | None]]:
    """Encoded bytes, or the file named by the path where there are none; and the paths."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table[_one_of(IMAGE_COLUMNS, table.column_names, path)]
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return [value or b"" for value in column.to_pylist()], [None] * len(column)
    if not pa.types.is_struct(column.type) or "bytes" not in {field.name for field in column.type}:
        raise DataError(f"{path}: the image column has the type {column.type}. Expected struct(bytes, path) or bytes.")
    encoded = pc.struct_field(column, "bytes").to_pylist()
    has_path = "path" in {field.name for field in column.type}
    paths = pc.struct_field(column, "path").to_pylist() if has_path else [None] * len(encoded)
    items = [data or (path.parent / name if name else b"") for data, name in zip(encoded, paths, strict=True)]
    return items, paths


def _labels(table: Any, path: Path) -> tuple[NDArray[np.int64], list[str]]:
    column = next((name for name in LABEL_COLUMNS if name in table.column_names), None)
    if column is None:
        return np.full(len(table), -1, dtype=np.int64), []
    values = table[column].to_pylist()
    names = _class_names(table.schema.metadata or {}, column)
    if any(isinstance(value, str) for value in values):
        return encode_labels([value or "" for value in values])
    if not all(value is None or isinstance(value, int) for value in values):
        raise DataError(f"{path}: the column '{column}' is {table[column].type}. Expected class numbers or names.")
    numbers = np.array([-1 if value is None else value for value in values], dtype=np.int64)
    return numbers, check_numbers(numbers, names, str(path))


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str] | None:
    """Names from the schema metadata of `datasets`; None where it says nothing about this column."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return None


def _common_classes(listings: list[Listing]) -> list[str]:
    """The classes of the file that has most, where the others are its beginning; otherwise all names together."""
    longest = max((listing.classes for listing in listings), key=len)
    if all(longest[: len(listing.classes)] == listing.classes for listing in listings):
        return longest
    return order_classes(name for listing in listings for name in listing.classes)


def _renumber(listing: Listing, classes: list[str]) -> NDArray[np.int64]:
    number = [classes.index(name) for name in listing.classes] + [-1]  # the last entry is what -1 finds
    return np.array(number, dtype=np.int64)[listing.labels]
