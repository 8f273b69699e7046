"""COCO: annotations in JSON (polygons and run lengths), or the index masks of COCO-Stuff.

Class 0 is the background and the categories follow by their number. Small objects lie on large ones, crowds are void.
An image without an annotation is unlabelled. Polygons and run lengths need the package pycocotools.
"""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import Problem, examples, plural
from sfumato.data.pairs.classes import find_table, table_of
from sfumato.data.pairs.listing import Pair, PairListing, relative, split_of
from sfumato.data.pairs.masks import Drawn
from sfumato.data.pairs.sources import folders
from sfumato.errors import DataError, UsageError
from sfumato.types import VOID

STUFF = "stuffthingmaps"
STUFF_GAPS = frozenset({11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90})  # numbers of 0..181 that COCO never used
STUFF_MAPPING = {value: label for label, value in enumerate(sorted(set(range(182)) - STUFF_GAPS))}


def matches(root: Path) -> bool:
    return (root / STUFF).is_dir() or bool(_json_files(root))


def read(root: Path) -> PairListing:
    """Index masks in stuffthingmaps/, or else every JSON of annotations/ (or of the folder itself)."""
    if (root / STUFF).is_dir():
        images = root / "images" if (root / "images").is_dir() else root
        return folders.read_stuff(root, images, root / STUFF, STUFF_MAPPING)
    return read_json(root, _json_files(root))


def read_json(root: Path, files: Sequence[Path]) -> PairListing:
    """The images that the files name. A file called ...train... or ...val... gives them this split."""
    contents = {path: _load(path) for path in files}
    categories = {int(entry["id"]): str(entry["name"]) for c in contents.values() for entry in c["categories"]}
    label_of = {number: place for place, number in enumerate(sorted(categories), start=1)}
    if not label_of or len(label_of) >= VOID:
        raise DataError(f"{files[0]}: {len(label_of)} categories. Expected 1 to {VOID - 1}.")
    pairs: list[Pair] = []
    missing: list[str] = []
    for path, content in contents.items():
        split = _split(path)
        below = _image_folders(root, path)
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        for entry in content["images"]:
            image = next((f / entry["file_name"] for f in below if (f / entry["file_name"]).is_file()), None)
            if image is None:
                missing.append(str(entry["file_name"]))
            else:
                mask = _mask(entry, annotations[entry["id"]], label_of)
                pairs.append(Pair(image, relative(image, root), mask, f"{path.name}: {image.name}", split))
    if any(pair.mask is not None for pair in pairs):
        _pycocotools()
    problems = [Problem("error", f"{files[0]}: {_missing(missing, root)}")] if missing else []
    table = find_table(root) or table_of(["background", *(categories[number] for number in sorted(categories))])
    return PairListing(pairs, "COCO", table=table, problems=problems)


# of each list that the format has, a key that its entries must have: other JSON has lists of these names too
MARKS = (("images", "file_name"), ("annotations", "image_id"), ("categories", "supercategory"))


def is_coco(path: Path) -> bool:
    """Whether a JSON file is one of annotations, by its beginning: such files are large."""
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(1)
        if start != "{":
            return False
        rest = file.read(1 << 16)
    return any(all(f'"{key}"' in rest for key in keys) for keys in MARKS)


def _json_files(root: Path) -> list[Path]:
    files = sorted((root / "annotations").glob("*.json")) or sorted(root.glob("*.json"))
    return [path for path in files if path.name.startswith("instances")] or [path for path in files if is_coco(path)]


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({error}).") from error
    lacking = [key for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if lacking:
        raise DataError(f"{path}: no list {examples(lacking)}. Expected the COCO format.")
    return dict(content)


def _split(path: Path) -> str:
    parts = path.stem.replace("-", "_").split("_")
    return next((split for part in parts if (split := split_of(part))), "")


def _image_folders(root: Path, path: Path) -> list[Path]:
    """Where the images of a file may be: instances_train2017.json -> train2017/, images/train2017/, ..."""
    name = path.stem.split("_")[-1]
    return [root / name, root / "images" / name, root / "images", root]


def _missing(missing: list[str], root: Path) -> str:
    return f"{plural(len(missing), 'image')} named in it cannot be found in {root}: {examples(missing)}."


def _mask(entry: dict[str, Any], annotations: list[dict[str, Any]], label_of: dict[int, int]) -> Drawn | None:
    if not annotations:
        return None
    height, width = int(entry["height"]), int(entry["width"])
    return Drawn(lambda: draw(height, width, annotations, label_of))


def draw(height: int, width: int, annotations: Sequence[dict[str, Any]], label_of: dict[int, int]) -> NDArray[np.uint8]:
    """The mask (H, W) of one image: crowds first, as void, then objects from the largest to the smallest."""
    coco = _pycocotools()
    mask = np.zeros((height, width), dtype=np.uint8)
    order = sorted(annotations, key=lambda a: (not a.get("iscrowd"), -float(a.get("area") or 0)))
    for annotation in order:
        shape = annotation["segmentation"]
        if isinstance(shape, list):
            runs = coco.merge(coco.frPyObjects(shape, height, width))
        elif isinstance(shape["counts"], list):
            runs = coco.frPyObjects(shape, height, width)
        else:
            runs = shape
        label = VOID if annotation.get("iscrowd") else label_of[annotation["category_id"]]
        mask[coco.decode(runs).astype(bool)] = label
    return mask


def _pycocotools() -> Any:
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise UsageError(
            'COCO polygons and run lengths need the package pycocotools: pip install "sfumato[coco]". '
            "Masks exported as PNG need nothing further."
        ) from error
