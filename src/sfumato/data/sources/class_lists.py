"""Lists of images with class numbers, a line `image class` each, as Semi-Aves and WebVision come with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfumato.data.listing import Listing
from sfumato.errors import DataError

# file -> (split, whether its classes may be used as labels); the first set whose files are all there is taken
_SETS: tuple[dict[str, tuple[str, bool]], ...] = (
    {"l_train_val.txt": ("", True), "u_train_in.txt": ("", False), "test.txt": ("test", True)},
    {"l_train.txt": ("", True), "val.txt": ("val", True), "u_train_in.txt": ("", False), "test.txt": ("test", True)},
    {
        "train_filelist_google.txt": ("", True),
        "train_filelist_flickr.txt": ("", True),
        "val_filelist.txt": ("val", True),
    },
)
_PLACES = ("", "semi_aves", "info")  # of the lists, below the folder
_BESIDE = ("", "val_images_256", "val_images_resized")  # what may stand before the paths in them


def recognizes(folder: Path) -> bool:
    return _found(folder) is not None


def read(folder: Path) -> Listing:
    """Images of a folder that `recognizes`; of the lists that say so, the classes are not used."""
    found = _found(folder)
    assert found is not None
    where, files = found
    items, labels, split = [], [], []
    for name, (part, known) in files.items():
        lines = _lines(where / name)
        base = _base(folder, where / name, lines[0][0]) if lines else folder
        items += [base / path for path, _ in lines]
        labels += [label if known else -1 for _, label in lines]
        split += [part] * len(lines)
    classes = range(max(labels, default=-1) + 1)
    return Listing(
        items=items,
        names=[path.relative_to(folder).as_posix() for path in items],
        labels=np.array(labels, dtype=np.int64),
        split=np.array(split, dtype="<U5"),
        classes=[str(label) for label in classes],
        layout=f"lists of images with a class number ({', '.join(files)})",
    )


def _found(folder: Path) -> tuple[Path, dict[str, tuple[str, bool]]] | None:
    for place in _PLACES:
        for files in _SETS:
            if all((folder / place / name).is_file() for name in files):
                return folder / place, files
    return None


def _lines(path: Path) -> list[tuple[str, int]]:
    rows = [line.rsplit(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    bad = [number for number, row in enumerate(rows, 1) if len(row) != 2 or not row[1].isdecimal()]
    if bad:
        raise DataError(f"{path}: line {bad[0]} is not `image class`. Expected a path and a class number from 0.")
    return [(row[0], int(row[1])) for row in rows]


def _base(folder: Path, path: Path, first: str) -> Path:
    """The folder that the images of a list lie in."""
    for beside in _BESIDE:
        if (folder / beside / first).is_file():
            return folder / beside
    looked = ", ".join(str(folder / beside / first) for beside in _BESIDE)
    raise DataError(
        f"{path}: its first image is not there. Looked for {looked}: put the images in one of these places."
    )
