"""One file for each kind of source of image-mask pairs; each makes a PairListing without decoding an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfumato.data.listing import did_you_mean
from sfumato.data.pairs.listing import PairListing
from sfumato.data.pairs.sources import cityscapes, coco, csv_pairs, folders, lists, shapes, voc
from sfumato.errors import DataError, UsageError, check_choice

NAMES = ("shapes",)  # built in
EXPECTED = (
    "Expected images/ and masks/ with files of equal stems, a CSV image,mask[,split], lists labeled.txt and "
    "unlabeled.txt, a folder of PASCAL VOC (JPEGImages), Cityscapes (leftImg8bit), ADE20K (images/training, "
    f"annotations/training) or COCO, or a built-in set: {', '.join(NAMES)}."
)


def _is_ade20k(root: Path) -> bool:
    return (root / "images" / "training").is_dir() and (root / "annotations" / "training").is_dir()


# in the order in which they are tried
LAYOUTS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], PairListing]]] = {
    "voc": (voc.matches, voc.read),
    "cityscapes": (cityscapes.matches, cityscapes.read),
    "ade20k": (_is_ade20k, folders.read_ade20k),
    "folders": (lambda root: bool(folders.folders_of(root)), folders.read),
    "coco": (coco.matches, coco.read),
}
# no class of images is called so: where one is there but its companion is not, that is the mistake to tell of
TELLING = (*voc.MASK_FOLDERS, cityscapes.IMAGES, cityscapes.MASKS, coco.STUFF)


def recognizes(source: str | Path) -> bool:
    """Whether a source holds images with masks, by the names of files and folders and the first line of a CSV.

    A class folder that happens to be called `masks` is not taken for masks.
    """
    path = Path(source)
    if not path.is_dir():
        built_in = str(source) in NAMES and not path.exists()
        return built_in or (path.is_file() and _is_table(path))
    if csv_pairs.find(path) is not None or lists.matches(path):
        return True
    others = (matches(path) for name, (matches, _) in LAYOUTS.items() if name != "folders")
    return any((path / name).is_dir() for name in TELLING) or folders.recognizes(path) or any(others)


def _is_table(path: Path) -> bool:
    suffix = path.suffix.lower()
    return (suffix == ".csv" and csv_pairs.is_table(path)) or (suffix == ".json" and coco.is_coco(path))


def read(
    source: str | Path,
    *,
    masks: Path | None = None,
    csv: Path | None = None,
    lists_in: Path | None = None,
    layout: str | None = None,
) -> PairListing:
    """The pairs of `source`, whatever its kind. Raises DataError or UsageError; lesser finds are in `problems`."""
    given = [name for name, value in (("masks", masks), ("csv", csv), ("lists", lists_in)) if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} were both given; expected one of them.")
    if layout is not None:
        check_choice("load_pairs", "layout", layout, LAYOUTS)
    root = Path(source)
    if not given and str(source) in NAMES and not root.exists():
        return shapes.read()
    _must_exist(source)
    if root.is_file():
        return _read_file(root)
    if masks is not None:
        return folders.read_apart(root, Path(masks))
    if csv is not None:
        return csv_pairs.read(root, Path(csv))
    if lists_in is not None:
        return lists.read(root, Path(lists_in))
    if layout is not None:
        matches, read_layout = LAYOUTS[layout]
        if not matches(root):
            raise DataError(f"{root}: its folders are not those of the layout {layout}. {EXPECTED}")
        return read_layout(root)
    return _detect(root)


def _detect(root: Path) -> PairListing:
    if (path := csv_pairs.find(root)) is not None:
        return csv_pairs.read(root, path)
    if lists.matches(root):
        return lists.read(root, root)
    for matches, read_layout in LAYOUTS.values():
        if matches(root):
            return read_layout(root)
    raise DataError(f"{root}: no image-mask pairs were recognized. {EXPECTED}")


def _read_file(path: Path) -> PairListing:
    match path.suffix.lower():
        case ".csv":
            return csv_pairs.read(path.parent, path)
        case ".json":
            return coco.read_json(path.parent, [path])
    raise DataError(f"{path}: a file of this kind holds no image-mask pairs. {EXPECTED}")


def _must_exist(source: str | Path) -> None:
    path = Path(source)
    if path.exists():
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, siblings)
    if near and path.parent != Path():
        near = near.replace("'", f"'{path.parent}/", 1)
    near = near or did_you_mean(str(source), NAMES)
    raise DataError(f"{source}: no such file or folder, and not a built-in set.{near} {EXPECTED}")
