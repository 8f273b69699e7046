"""One file for each kind of source; each turns what it finds into a Listing without decoding an image."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.listing import Listing, did_you_mean
from sfumato.data.pairs.sources import NAMES as OF_MASKS
from sfumato.data.protocols import as_published, inner
from sfumato.data.sources import (
    builtin,
    class_lists,
    csv_labels,
    folder,
    npz,
    parquet,
    saved_dataset,
    torchvision_files,
)
from sfumato.errors import DataError, UsageError

EXPECTED = (
    "Expected a folder of class folders, a folder with a CSV of labels, one with images/ and masks/, a .parquet or "
    f".npz file, or one of the built-in sets: {', '.join((*builtin.NAMES, *OF_MASKS))}."
)


def read(source: str | Path, labels: Path | None = None, protocol: str | None = None) -> Listing:
    """The rows of `source`, whatever its kind. Raises DataError or UsageError; lesser finds are in `problems`.

    protocol: the published data set that they must be, with its split; what differs is among the problems.
    """
    if protocol is None:
        return _read(source, labels)
    return as_published(protocol, _read(inner(protocol, Path(source)), labels), str(source))


def _read(source: str | Path, labels: Path | None) -> Listing:
    path = Path(source)
    if labels is not None:
        if not path.is_dir():
            _must_exist(source)
            raise UsageError(f"A CSV of labels ({labels}) goes with a folder of images, and {source} is not a folder.")
        return csv_labels.read(path, Path(labels))
    if str(source) in builtin.NAMES and not path.exists():
        return builtin.read(str(source))
    _must_exist(source)
    if path.is_dir():
        return _read_folder(path)
    match path.suffix.lower():
        case ".parquet":
            return parquet.read_file(path)
        case ".npz":
            return npz.read(path)
        case ".csv":
            return csv_labels.read(path.parent, path)
    raise DataError(f"{source}: a source of this kind cannot be read. {EXPECTED}")


def _read_folder(path: Path) -> Listing:
    if torchvision_files.recognizes(path):
        return torchvision_files.read(path)
    if saved_dataset.recognizes(path):
        return saved_dataset.read(path)
    if class_lists.recognizes(path):
        return class_lists.read(path)
    if parquet.files_of(path):
        return parquet.read_folder(path)
    for name in csv_labels.FILE_NAMES:
        if csv_labels.is_label_file(path / name):
            return csv_labels.read(path, path / name)
    return folder.read(path)


def _must_exist(source: str | Path) -> None:
    path = Path(source)
    if path.exists():
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, siblings)
    if near and path.parent != Path():
        near = near.replace("'", f"'{path.parent}/", 1)
    near = near or did_you_mean(str(source), (*builtin.NAMES, *OF_MASKS))
    raise DataError(f"{source}: no such file or folder, and not a built-in set.{near} {EXPECTED}")
