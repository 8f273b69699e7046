"""A CSV `image,mask[,split]`; an empty mask means unlabelled."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.listing import SHOWN, SPLIT_NAMES, UNLABELED_NAMES, Problem, did_you_mean, plural
from sfumato.data.pairs.classes import find_table
from sfumato.data.pairs.listing import Pair, PairListing, relative
from sfumato.errors import DataError

FILE_NAMES = ("pairs.csv", "masks.csv", "images.csv", "labels.csv")
EXPECTED = "Expected the header image,mask or image,mask,split."


@dataclass(frozen=True, slots=True)
class _Row:
    number: int  # line of the file; the header is 1
    image: str
    mask: str
    split: str


def find(root: Path) -> Path | None:
    """A CSV of pairs in `root` under one of the usual names."""
    for name in FILE_NAMES:
        if is_table(root / name):
            return root / name
    return None


def is_table(path: Path) -> bool:
    """Whether `path` is a CSV with the columns this source needs."""
    return path.is_file() and {"image", "mask"} <= set(_header(path))


def read(root: Path, path: Path) -> PairListing:
    """Files are relative to `root`, or else to the folder of the CSV, or absolute."""
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path}: no row. {EXPECTED}")
    problems = _twice(path, rows) + _bad_splits(path, rows) + _without_image(path, rows)
    folders = (root, path.parent)
    problems += _missing(path, root, folders, [(row.number, row.image) for row in rows if row.image], "image")
    problems += _missing(path, root, folders, [(row.number, row.mask) for row in rows if row.mask], "mask")
    kept = {row.image: row for row in rows}.values()
    pairs = [_pair(root, folders, row) for row in kept]
    return PairListing(pairs, f"pairs of {path.name}", table=find_table(root), problems=problems)


def _rows(path: Path) -> list[_Row]:
    if not path.is_file():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file.{did_you_mean(path.name, siblings)}")
    header = _header(path)
    lacking = [name for name in ("image", "mask") if name not in header]
    if lacking:
        what = " and ".join(f"'{name}'" for name in lacking)
        raise DataError(
            f"{path}: no column {what} (its first line has: {', '.join(header) or 'nothing'}). {EXPECTED}"
            f"{did_you_mean(lacking[0], header)}"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=_delimiter(path))
            next(reader)
            records = [
                (reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=False)))
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}). Save it again as CSV UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file ({error}).") from error
    return [
        _Row(
            number,
            record.get("image", "").replace("\\", "/"),
            record.get("mask", "").replace("\\", "/"),
            record.get("split", "").lower(),
        )
        for number, record in records
    ]


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        cells = next(csv.reader([file.readline()], delimiter=_delimiter(path)), [])
    return [cell.strip().lower() for cell in cells]


def _delimiter(path: Path) -> str:
    """The most frequent of comma, semicolon and tab in the header: some spreadsheets write the latter two."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _pair(root: Path, folders: tuple[Path, ...], row: _Row) -> Pair:
    image = _find(row.image, folders) or root / row.image
    mask = _find(row.mask, folders) if row.mask else None
    return Pair(
        image=image,
        name=relative(image, root),
        mask=mask,
        mask_name=relative(mask, root) if mask else "",
        split=SPLIT_NAMES.get(row.split, ""),
        may_label=row.split not in UNLABELED_NAMES,
    )


def _find(name: str, folders: tuple[Path, ...]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _missing(
    path: Path, root: Path, folders: tuple[Path, ...], files: list[tuple[int, str]], what: str
) -> list[Problem]:
    missing = [(number, name) for number, name in files if _find(name, folders) is None]
    if not missing:
        return []
    shown = ", ".join(f"'{name}' (row {number})" for number, name in missing[:SHOWN])
    rest = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    folder = (root / missing[0][1]).parent
    siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    message = (
        f"{path}: {plural(len(missing), what)} named in it cannot be found in {root}: {shown}{rest}. "
        f"Names are relative to {root}.{did_you_mean(Path(missing[0][1]).name, siblings)}"
    )
    return [Problem("error", message)]


def _without_image(path: Path, rows: list[_Row]) -> list[Problem]:
    blank = [row for row in rows if not row.image]
    if not blank:
        return []
    return [
        Problem(
            "error", f"{path}: row {blank[0].number} names no image. Expected image,mask; only the mask may be empty."
        )
    ]


def _twice(path: Path, rows: list[_Row]) -> list[Problem]:
    """Rows that agree are one; rows that differ are an error."""
    first: dict[str, _Row] = {}
    for row in rows:
        before = first.setdefault(row.image, row)
        if row.image and (before.mask, before.split) != (row.mask, row.split):
            message = f"{path}: rows {before.number} and {row.number} disagree on '{row.image}'. Keep one of the rows."
            return [Problem("error", message)]
    return []


def _bad_splits(path: Path, rows: list[_Row]) -> list[Problem]:
    known = {"", *SPLIT_NAMES, *UNLABELED_NAMES}
    bad = [row for row in rows if row.split not in known]
    if not bad:
        return []
    message = (
        f"{path}: row {bad[0].number} has the split '{bad[0].split}'. Expected train, val, test, unlabeled or nothing."
        f"{did_you_mean(bad[0].split, known)}"
    )
    return [Problem("error", message)]
