"""Labels that a network gave to images, in the folder of the round that it was trained in.

    labels.csv           file,mask or file,label: written last, it says that every label is there
    labels/NAME.png      of images with masks: the class numbers of the pixels, as `sfumato predict` writes them
    distributions.npy    where labels are probabilities: (n, C) in the order of labels.csv
    reliability.csv      file,stability,round: how alike the copies of the network saw an image, and who labels it

Nothing that is there is overwritten. What an interruption left out is added, by the same network and so as it would
have been.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato import distributed
from sfumato.batches import TrainData
from sfumato.data import Table
from sfumato.data.pairs import PairTable
from sfumato.data.pairs.stored import StoredMasks, mask_names
from sfumato.errors import DataError
from sfumato.image_data import Distributions, ImageData
from sfumato.pair_data import PairData
from sfumato.run import files, mask_files
from sfumato.run.ranks import is_first

LIST, MASKS, RELIABILITY, DISTRIBUTIONS = "labels.csv", "labels", "reliability.csv", "distributions.npy"
Rows = NDArray[np.int64]
Share = tuple[Path, Rows]  # the folder of a round, and which images its network labels
Predict = Callable[[Rows], Iterable[tuple[Rows, list[Tensor]]]]
"""Rows of the table to labels, of one network: `TrainData.predictions`. Each rank gives its share."""


def write(folder: Path, table: Table | PairTable, rows: Rows, predict: Predict, device: torch.device) -> None:
    """Label what is not yet labeled."""
    if not (folder / LIST).exists():
        if isinstance(table, PairTable):
            _write_masks(folder, table, rows, predict)
        else:
            _write_labels(folder, table, rows, predict, device)
    distributed.barrier()


def _write_masks(folder: Path, table: PairTable, rows: Rows, predict: Predict) -> None:
    names = mask_names(table.names)
    missing = np.array([row for row in rows.tolist() if not (folder / MASKS / names[row]).exists()], dtype=np.int64)
    distributed.barrier()  # all ranks have seen the same ones missing
    for some, (labels,) in predict(missing):
        for row, mask in zip(some.tolist(), labels.numpy(), strict=True):
            picture = io.BytesIO()
            mask_files.indexed(mask, table.colors).save(picture, format="PNG")
            files.write_bytes(folder / MASKS / names[row], picture.getvalue())
    distributed.barrier()
    if is_first():
        mask_files.write_table(folder / MASKS / mask_files.TABLE, table.classes, table.colors)
        _write_csv(folder / LIST, ("file", "mask"), ((table.names[row], f"{MASKS}/{names[row]}") for row in rows))


def _write_labels(folder: Path, table: Table, rows: Rows, predict: Predict, device: torch.device) -> None:
    mine = [labels for _, (labels,) in predict(rows)] or [torch.zeros(0, dtype=torch.int64)]
    labels = distributed.gather(torch.cat(mine).to(device)).tolist()
    if is_first():
        _write_list(folder, table, rows, labels)


def _write_list(folder: Path, table: Table, rows: Rows, labels: Sequence[int]) -> None:
    pairs = zip(rows.tolist(), labels, strict=True)
    _write_csv(folder / LIST, ("file", "label"), ((table.names[row], table.classes[label]) for row, label in pairs))


def write_distributions(folder: Path, table: Table, rows: Rows, predict: Callable[[], Tensor]) -> None:
    """Label what is not yet labeled, with probabilities. predict: (n, C) float32 of all rows; every rank gets all."""
    missing = not (folder / LIST).exists()
    distributed.barrier()  # all ranks have seen whether it is there
    if missing:
        p = predict()
        if is_first():
            content = io.BytesIO()
            np.save(content, p.numpy())
            files.write_bytes(folder / DISTRIBUTIONS, content.getvalue())
            _write_list(folder, table, rows, p.argmax(dim=1).tolist())
    distributed.barrier()


def read_distributions(folder: Path, rows: Rows, classes: int) -> NDArray[np.float32]:
    """(n, C) of the rows (n,) that were labeled, left in the file. Raises DataError where it is not theirs."""
    path = folder / DISTRIBUTIONS
    mend = f"Delete it and {LIST}, and `sfumato train --resume` makes both anew."
    try:
        p = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable ({error}). {mend}") from error
    if p.shape != (len(rows), classes):
        raise DataError(f"{path}: probabilities {p.shape}, expected {(len(rows), classes)}. {mend}")
    found: NDArray[np.float32] = p
    return found


def with_labels(data: TrainData, shares: Sequence[Share], *, soft: bool = False) -> TrainData:
    """The data with these labels for methods that train on them. Raises DataError naming a file that cannot be used.

    soft: train on their distributions.
    """
    if isinstance(data, PairData):
        return replace(data, stored=_stored_masks(data.table, shares))
    assert isinstance(data, ImageData)
    data = replace(data, stored=_stored_labels(data.table, shares))
    return replace(data, distributions=_distributions(data.table, shares[0][0])) if soft else data


def _stored_masks(table: PairTable, shares: Sequence[Share]) -> StoredMasks:
    names = mask_names(table.names)
    found = {row: folder / MASKS / names[row] for folder, rows in shares for row in rows.tolist()}
    mend = (
        f"If it was changed, put it back; or delete it and {LIST} beside the folder of masks, and "
        "`sfumato train --resume` makes it anew."
    )
    return StoredMasks(found, table.images, len(table.classes), mend=mend)


def _stored_labels(table: Table, shares: Sequence[Share]) -> NDArray[np.int64]:
    """(N,) of the table, -1 where there is none."""
    stored = np.full(len(table), -1, dtype=np.int64)
    classes = {name: number for number, name in enumerate(table.classes)}
    for folder, rows in shares:
        path = folder / LIST
        known = {row["file"]: row["label"] for row in _read_csv(path, ("file", "label"))}
        for row in rows.tolist():
            label = known.get(table.names[row])
            if label not in classes:
                what = "no row" if label is None else f"the label '{label}', which is no class,"
                raise DataError(f"{path}: {what} for '{table.names[row]}'. {_anew(path)}")
            stored[row] = classes[label]
    return stored


def _distributions(table: Table, folder: Path) -> Distributions:
    row_of = {name: row for row, name in enumerate(table.names)}
    rows = np.array([row_of[row["file"]] for row in _read_csv(folder / LIST, ("file", "label"))], dtype=np.int64)
    place = np.full(len(table), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    return Distributions(read_distributions(folder, rows, len(table.classes)), place)


def write_reliability(folder: Path, names: Sequence[str], rows: Rows, stability: Tensor, first: Rows) -> None:
    """stability: (n,) of each of `rows`; first: those of them that this round's network labels."""
    told = zip(rows.tolist(), stability.tolist(), np.where(np.isin(rows, first), 1, 2).tolist(), strict=True)
    lines = ((names[row], repr(value), number) for row, value, number in told)
    _write_csv(folder / RELIABILITY, ("file", "stability", "round"), lines)


def read_reliability(folder: Path, names: Sequence[str], rows: Rows) -> list[Rows]:
    """The rows that the first and the second network label. Raises DataError when the file does not say so of each."""
    path = folder / RELIABILITY
    number = {row["file"]: row["round"] for row in _read_csv(path, ("file", "stability", "round"))}
    told = np.array([number.get(names[row], "") for row in rows.tolist()])
    if not np.isin(told, ("1", "2")).all():
        name = names[rows[~np.isin(told, ("1", "2"))][0]]
        raise DataError(f"{path}: expected round 1 or 2 for '{name}'. {_anew(path)}")
    return [rows[told == "1"], rows[told == "2"]]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable ({error}). {_anew(path)}") from error
    if list(reader.fieldnames or ()) != list(columns):
        raise DataError(f"{path}: expected the columns {','.join(columns)}. {_anew(path)}")
    yield from reader


def _anew(path: Path) -> str:
    return f"Delete {path.name}, and `sfumato train --resume` makes it anew."
