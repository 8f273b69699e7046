"""Class tables: names, and the colors that masks are painted or coded with."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import did_you_mean, examples
from sfumato.errors import DataError, UsageError
from sfumato.types import VOID

Color = tuple[int, int, int]
VOID_NAMES = frozenset({"void", "ignore"})  # a row of this name is no class: its color marks pixels without one
FILE_NAMES = ("classes.txt", "classes.csv", "classes.json")
FORMS = "Expected one name a line, or name,r,g,b a line, or JSON: a list of names or an object name -> [r, g, b]."


@dataclass(frozen=True, eq=False)
class ClassTable:
    names: list[str]
    colors: NDArray[np.uint8]  # (C, 3)
    coded: bool = False  # the colors were given, so masks may be coded with them
    void_colors: tuple[Color, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def palette(count: int) -> NDArray[np.uint8]:
    """(count, 3): the colors of the PASCAL VOC palette, distinct up to 256; the first is black.

    The bits of the class number go, three at a time, to the highest free bits of red, green and blue.
    """
    number = np.arange(count)
    colors = np.zeros((count, 3), dtype=np.int64)
    for place in range(8):
        for channel in range(3):
            colors[:, channel] |= (number >> (3 * place + channel) & 1) << (7 - place)
    return colors.astype(np.uint8)


def table_of(names: Sequence[str]) -> ClassTable:
    """These classes in the default colors."""
    return ClassTable(list(names), palette(len(names)))


def numbered(count: int) -> ClassTable:
    """'class 0', 'class 1', ... in the default colors."""
    return table_of([f"class {number}" for number in range(count)])


def read_classes(spec: Path | str | Sequence[str | tuple[str, Color]]) -> ClassTable:
    """The table of a file, of names, or of (name, (r, g, b)). Raises DataError for a file, UsageError otherwise."""
    if isinstance(spec, str | Path):
        return _table(_read_file(Path(spec)), str(spec), DataError)
    rows = [(row, None) if isinstance(row, str) else (str(row[0]), row[1]) for row in spec]
    return _table(rows, "classes", UsageError)


def find_table(root: Path) -> ClassTable | None:
    """The table of a file called classes.txt, .csv or .json in `root`, if there is one."""
    for name in FILE_NAMES:
        if (root / name).is_file():
            return read_classes(root / name)
    return None


Row = tuple[str, Color | None]


def _table(rows: Iterable[Row], where: str, error: type[DataError | UsageError]) -> ClassTable:
    rows = [(name.strip(), color) for name, color in rows]
    void_colors = tuple(color for name, color in rows if name.lower() in VOID_NAMES and color is not None)
    classes = [(name, color) for name, color in rows if name.lower() not in VOID_NAMES]
    names = [name for name, _ in classes]
    colors = [color for _, color in classes]
    if not names:
        raise error(f"{where}: no class. {FORMS}")
    if len(names) > VOID:
        raise error(f"{where}: {len(names)} classes. At most {VOID} are possible.")
    for what, values in (("name", names), ("colour", [*filter(None, colors), *void_colors])):
        twice = [str(value) for value, count in Counter(values).items() if count > 1]
        if twice:
            raise error(f"{where}: the {what} {examples(twice)} occurs more than once. Give each class its own.")
    blank = [name for name, color in classes if color is None]
    if len(blank) == len(names):
        return table_of(names)
    if blank:
        raise error(f"{where}: no colour for {examples(blank)}. Give every class one, or none.")
    return ClassTable(names, np.array(colors, dtype=np.uint8), True, void_colors)


def _read_file(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file of classes.{did_you_mean(path.name, siblings)} {FORMS}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a file of classes ({error}). {FORMS}") from error
    return _read_json(path, text) if path.suffix.lower() == ".json" else _read_lines(path, text)


def _read_lines(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    for number, cells in enumerate(csv.reader(io.StringIO(text)), start=1):
        values = [cell.strip() for cell in cells]
        if not any(values) or (not rows and [value.lower() for value in values] in HEADERS):
            continue
        if len(values) not in (1, 4):
            raise DataError(f"{path}: line {number} has {len(values)} cells. {FORMS}")
        rows.append((values[0], _color(path, f"line {number}", values[1:]) if len(values) == 4 else None))
    return rows


HEADERS = (["name"], ["class"], ["name", "r", "g", "b"], ["class", "r", "g", "b"], ["name", "red", "green", "blue"])


def _read_json(path: Path, text: str) -> list[Row]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}). {FORMS}") from error
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return [(name, None) for name in content]
    if isinstance(content, dict):
        return [(name, _color(path, f"'{name}'", value)) for name, value in content.items()]
    raise DataError(f"{path}: no list of names and no object of colours. {FORMS}")


def _color(path: Path, where: str, value: Any) -> Color:
    try:
        red, green, blue = (int(part) for part in value)
    except (TypeError, ValueError):
        red = -1
        green = blue = 0
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise DataError(f"{path}: {where} has the colour {value}. Expected three whole numbers of 0 to 255.")
    return red, green, blue


# fmt: off
_VOC = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
# fmt: on
VOC = ClassTable(_VOC, palette(21), coded=True, void_colors=((224, 224, 192),))

_CITYSCAPES: dict[str, Color] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
CITYSCAPES = ClassTable(list(_CITYSCAPES), np.array(list(_CITYSCAPES.values()), dtype=np.uint8), coded=True)

_CAMVID: dict[str, Color] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
CAMVID = ClassTable(
    list(_CAMVID), np.array(list(_CAMVID.values()), dtype=np.uint8), coded=True, void_colors=((0, 0, 0),)
)
