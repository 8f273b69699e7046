"""A folder of images and a CSV `file,label[,split]`; an empty label, or no row at all, means unlabelled."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import numpy as np

from sfumato.data.listing import (
    SHOWN,
    SPLIT_NAMES,
    UNLABELED_NAMES,
    Listing,
    Problem,
    did_you_mean,
    encode_labels,
    find_images,
    plural,
)
from sfumato.errors import DataError

FILE_NAMES = ("labels.csv", "metadata.csv")  # found in the folder
FILE_COLUMNS = ("file", "file_name")
NO_LABEL = frozenset({"", "-1"})


@dataclass(frozen=True, slots=True)
class _Row:
    number: int  # line of the file; the header is 1
    file: str  # as written
    label: str  # '' = unlabelled
    split: str


def is_label_file(path: Path) -> bool:
    """Whether `path` is a CSV with the columns this source needs."""
    if not path.is_file():
        return False
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header = _header(next(csv.reader([file.readline()], delimiter=_delimiter(path)), []))
    return bool(set(header) & set(FILE_COLUMNS)) and "label" in header


def read(root: Path, labels: Path) -> Listing:
    """Files are relative to `root`, or else to the folder of the CSV, or absolute."""
    rows = _read_rows(labels)
    images = find_images(root)
    if not images and not rows:
        raise DataError(f"{root}: no image in it or below it, and {labels} names none.")
    paths = {path.relative_to(root).as_posix(): path for path in images}
    known, unknown = _resolve(rows, paths, root, labels)
    entries, problems = _merge(known, labels)
    if unknown:
        problems.append(Problem("error", _unknown_files(unknown, paths, root, labels)))
    problems += _bad_splits(rows, labels)
    names = sorted(paths)
    unlisted = _Row(0, "", "", "")
    found = [entries.get(name, unlisted) for name in names]
    numbers, classes = encode_labels([row.label for row in found])
    return Listing(
        items=[paths[name] for name in names],
        names=names,
        labels=numbers,
        split=np.array([SPLIT_NAMES.get(row.split, "") for row in found], dtype=np.str_),
        classes=classes,
        layout=f"folder with labels from {labels.name}",
        problems=problems,
    )


def _read_rows(labels: Path) -> list[_Row]:
    if not labels.is_file():
        siblings = [entry.name for entry in labels.parent.iterdir()] if labels.parent.is_dir() else []
        raise DataError(f"{labels}: no such file.{did_you_mean(labels.name, siblings)}")
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=_delimiter(labels))
            header = _header(next(reader, []))
            cells = [(reader.line_num, values) for values in reader if any(value.strip() for value in values)]
    except UnicodeDecodeError as error:
        raise DataError(f"{labels}: not UTF-8 text ({error.reason}). Save it again as CSV UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{labels}: not a CSV file ({error}).") from error
    file_column = _columns(header, labels)
    records = [(number, dict(zip(header, values, strict=False))) for number, values in cells]
    return [_row(number, record, file_column) for number, record in records]


def _row(number: int, record: dict[str, str], file_column: str) -> _Row:
    label = record.get("label", "").strip()
    split = record.get("split", "").strip().lower()
    return _Row(number, record.get(file_column, "").strip(), "" if label in NO_LABEL else label, split)


def _delimiter(labels: Path) -> str:
    """The most frequent of comma, semicolon and tab in the header: some spreadsheets write the latter two."""
    with labels.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
    return max(",;\t", key=header.count)


def _header(cells: Iterable[str]) -> list[str]:
    return [cell.strip().lower() for cell in cells]


def _columns(header: list[str], labels: Path) -> str:
    """The name of the file column. Raises DataError when a column is missing."""
    found = [name for name in FILE_COLUMNS if name in header]
    missing = [*([] if found else ["file"]), *([] if "label" in header else ["label"])]
    if missing:
        lacking = " and ".join(f"'{name}'" for name in missing)
        near = {name: close[0] for name in missing if (close := get_close_matches(name, header, n=1))}
        renames = " and ".join(f"'{found}' to '{name}'" for name, found in near.items())
        column = "column" if len(missing) == 1 else "columns"
        raise DataError(
            f"{labels}: no {column} {lacking} (its first line has: {', '.join(header) or 'nothing'}). "
            f"Expected the header file,label or file,label,split." + (f" Rename {renames}?" if renames else "")
        )
    return found[0]


def _resolve(
    rows: list[_Row], paths: dict[str, Path], root: Path, labels: Path
) -> tuple[list[tuple[str, _Row]], list[_Row]]:
    """Rows with the name of their image, adding files outside `root` to `paths`; and rows whose file is not there."""
    known, unknown = [], []
    for row in rows:
        name = PurePosixPath(row.file.replace("\\", "/")).as_posix() if row.file else ""
        if name and name not in paths:
            name = _elsewhere(name, paths, root, labels)
        if name:
            known.append((name, row))
        else:
            unknown.append(row)
    return known, unknown


def _elsewhere(name: str, paths: dict[str, Path], root: Path, labels: Path) -> str:
    """The name of a file written in another way (absolute, beside the CSV, odd suffix), or '' when there is none."""
    for path in (root / name, labels.parent / name):
        if path.is_file():
            inside = path.resolve().is_relative_to(root.resolve())
            name = path.resolve().relative_to(root.resolve()).as_posix() if inside else path.as_posix()
            paths.setdefault(name, path)
            return name
    return ""


def _merge(known: list[tuple[str, _Row]], labels: Path) -> tuple[dict[str, _Row], list[Problem]]:
    """One row for each file. Rows that agree are one; rows that differ are an error."""
    entries: dict[str, _Row] = {}
    problems = []
    repeated = 0
    for name, row in known:
        first = entries.setdefault(name, row)
        if first is row:
            continue
        repeated += 1
        for what, before, now in (("label", first.label, row.label), ("split", first.split, row.split)):
            if before != now:
                message = (
                    f"{labels}: '{name}' has the {what} '{before}' in row {first.number} and '{now}' in row "
                    f"{row.number}. Keep one of the rows."
                )
                problems.append(Problem("error", message))
    if repeated and not problems:
        repeat = "repeats an earlier one and changes" if repeated == 1 else "repeat an earlier one and change"
        message = f"{labels}: {plural(repeated, 'row')} {repeat} nothing."
        problems.append(Problem("warning", message))
    return entries, problems


def _unknown_files(unknown: list[_Row], paths: dict[str, Path], root: Path, labels: Path) -> str:
    shown = ", ".join(f"'{row.file}' (row {row.number})" for row in unknown[:SHOWN])
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    return (
        f"{labels}: {plural(len(unknown), 'file')} named in it cannot be found in {root}: {shown}{more}. "
        f"Names are relative to {root}.{_near_file(unknown[0].file, paths)}"
    )


def _near_file(file: str, paths: dict[str, Path]) -> str:
    """The same base name elsewhere or with another suffix; else a similar name, where there are few to compare."""
    wanted = PurePosixPath(file.replace("\\", "/"))
    for name in paths:
        if PurePosixPath(name).name == wanted.name or PurePosixPath(name).stem == wanted.name:
            return f" Did you mean '{name}'?"
    return did_you_mean(file, paths) if len(paths) <= 2000 else ""


def _bad_splits(rows: list[_Row], labels: Path) -> list[Problem]:
    known = {"": "", **SPLIT_NAMES, **dict.fromkeys(UNLABELED_NAMES, "")}
    bad = [row for row in rows if row.split not in known]
    if not bad:
        return []
    message = (
        f"{labels}: row {bad[0].number} has the split '{bad[0].split}'. Expected train, val, test or nothing."
        f"{did_you_mean(bad[0].split, known)}"
    )
    return [Problem("error", message if len(bad) == 1 else f"{message} ({plural(len(bad) - 1, 'row')} more like it.)")]
