"""A folder of images and a folder of masks, matched by the stem of the file name.

scans/images/1.jpg        scans/images/train/1.jpg       scans/train/images/1.jpg       scans/1.jpg
scans/masks/1.png         scans/masks/train/1.png        scans/train/masks/1.png        scans/masks/1.png

Instead of folders, train.txt, val.txt and test.txt beside images/ may list the stems of each split, one a line.
An image without a mask is unlabelled. ADE20K and the index masks of COCO-Stuff are folders of this kind too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sfumato.data.listing import (
    SPLIT_NAMES,
    Problem,
    did_you_mean,
    examples,
    find_images,
    is_hidden,
    loose_images,
    plural,
)
from sfumato.data.pairs.classes import CAMVID, ClassTable, find_table, table_of
from sfumato.data.pairs.listing import (
    ListFile,
    Pair,
    PairListing,
    bare,
    is_unlabeled,
    relative,
    spare_masks,
    split_of,
    stems_of,
)
from sfumato.errors import DataError
from sfumato.types import VOID

IMAGE_FOLDERS = ("images", "image", "imgs")
MASK_FOLDERS = ("masks", "mask", "labels")
AMBIGUOUS = "labels"  # also holds boxes, as text
LOSSLESS = frozenset({".png", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".pbm"})
ENDING = "_mask"  # of a mask's stem, as in cat.jpg and cat_mask.png
CAMVID_DRIVES = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_\w+")


@dataclass(frozen=True, slots=True)
class _Place:
    images: Path
    masks: Path
    split: str | None = None  # None: the first folder below says it


def folders_of(root: Path) -> list[_Place]:
    """Where images and masks are below `root`: beside each other, or inside each split's folder.

    unlabeled/ beside them holds more images without a mask.
    """
    if (place := _place(root)) is not None:
        return [place, *(_Place(path, path / MASK_FOLDERS[0], "") for path in _pools(root) if place.images != root)]
    inner = [(folder, split_of(folder.name)) for folder in sorted(root.iterdir()) if folder.is_dir()]
    places = [_place(folder, split) for folder, split in inner if split is not None]
    found = [place for place in places if place is not None]
    return found if any(place.masks.is_dir() for place in found) else []


def recognizes(root: Path) -> bool:
    """Whether these are images and masks and no class folders that happen to bear such names."""
    return any(place.masks.is_dir() and _unmistakable(place) for place in folders_of(root))


def read(root: Path) -> PairListing:
    """Images and masks below `root`, wherever `folders_of` finds them."""
    places = folders_of(root)
    if not places:
        raise DataError(f"{root}: no folder images/ with a folder masks/ beside it.")
    return _with_lists(root, _read(root, places, "images and masks by stem"))


def read_apart(images: Path, masks: Path) -> PairListing:
    """Images of one folder, masks of another."""
    if masks.is_file():
        raise DataError(f"{masks}: a file. Expected the folder of the masks, with files of the images' stems.")
    if not masks.is_dir():
        siblings = [entry.name for entry in masks.parent.iterdir()] if masks.parent.is_dir() else []
        raise DataError(f"{masks}: no such folder of masks.{did_you_mean(masks.name, siblings)}")
    return _read(images, [_Place(images, masks)], f"images with masks from {masks.name}/")


def read_ade20k(root: Path) -> PairListing:
    """images/ and annotations/ with training/ and validation/: 0 is void, class k is stored as k + 1."""
    listing = _read(root, [_Place(root / "images", root / "annotations")], "ADE20K")
    names = _ade_names(root / "objectInfo150.txt")
    table = table_of(names or [f"class {number}" for number in range(150)])
    mapping = {0: VOID} | {label + 1: label for label in range(len(table))}
    return replace(listing, table=listing.table or table, mapping=mapping)


def read_stuff(root: Path, images: Path, masks: Path, mapping: Mapping[int, int]) -> PairListing:
    """COCO-Stuff: for each folder of index masks, such as train2017/, the images of the same folder."""
    parts = sorted(folder.name for folder in masks.iterdir() if (images / folder.name).is_dir())
    if not parts:
        raise DataError(f"{masks}: no folder in it, such as train2017/, has one of the same name in {images}.")
    places = [_Place(images / part, masks / part, split_of(part) or "") for part in parts]
    return replace(_read(root, places, "COCO-Stuff with index masks"), mapping=mapping)


def _place(folder: Path, split: str | None = None) -> _Place | None:
    images = [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()]
    masks = [folder / name for name in MASK_FOLDERS if (folder / name).is_dir()]
    if images and (masks or split is not None):
        return _Place(images[0], masks[0] if masks else folder / MASK_FOLDERS[0], split)
    if masks and loose_images(folder) and not _beside(folder, masks[0].name):
        return _Place(folder, masks[0], split)
    return None


def _unmistakable(place: _Place) -> bool:
    """Masks with other folders of images beside them must be lossless and belong, each of them, to an image."""
    inside = place.images == place.masks.parent
    others = [] if inside else _beside(place.masks.parent, place.images.name, place.masks.name)
    masks = find_images(place.masks)
    if not others and place.masks.name != AMBIGUOUS:
        return True
    images = {PurePosixPath(stem).name for stem in stems_of(place.images, place.images)[0]}
    return bool(masks) and all(
        path.suffix.lower() in LOSSLESS and path.stem.removesuffix(ENDING) in images for path in masks
    )


def _pools(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and is_unlabeled(path.name)]


def _beside(folder: Path, *known: str) -> list[Path]:
    """Other folders with images in `folder`, apart from those of unlabelled images."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_hidden(path.name)]
    return [path for path in inner if path.name not in known and not is_unlabeled(path.name) and find_images(path)]


def _read(root: Path, places: list[_Place], layout: str) -> PairListing:
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for place in places:
        found, wrong = _pairs(root, place)
        pairs += found
        problems += wrong
    if not pairs:
        raise DataError(f"{places[0].images}: no image in it or below it.")
    if not any(pair.mask is not None for pair in pairs):
        problems = [_no_match(places[0]), *(problem for problem in problems if problem.severity == "error")]
    return PairListing(pairs, layout, table=find_table(root), problems=problems)


def _pairs(root: Path, place: _Place) -> tuple[list[Pair], list[Problem]]:
    images, masks, problems = _stems(root, place)
    by_name = bare(masks)
    alone = set(bare(images))
    pairs = []
    for stem, path in images.items():
        first = PurePosixPath(stem).parts[0] if "/" in stem else ""
        name = PurePosixPath(stem).name
        mask = masks.get(stem) or (by_name.get(name) if name in alone else None)
        pair = Pair(
            image=path,
            name=relative(path, root),
            mask=mask,
            mask_name=relative(mask, root) if mask else "",
            split=(split_of(first) or "") if place.split is None else place.split,
            may_label=not any(map(is_unlabeled, (first, place.images.name, place.images.parent.name))),
        )
        pairs.append(pair)
    used = {pair.mask for pair in pairs if isinstance(pair.mask, Path)}
    return pairs, [*problems, *spare_masks(root, masks.values(), used)]


def _stems(root: Path, place: _Place) -> tuple[dict[str, Path], dict[str, Path], list[Problem]]:
    """Images and masks by stem. Where both are in one folder, masks are those with the ending."""
    if place.images == place.masks:
        both, problems = stems_of(place.images, root)
        masks = {stem.removesuffix(ENDING): path for stem, path in both.items() if stem.endswith(ENDING)}
        return {stem: path for stem, path in both.items() if not stem.endswith(ENDING)}, masks, problems
    images, problems = stems_of(place.images, root, without=place.masks)
    masks, twice = stems_of(place.masks, root, ENDING) if place.masks.is_dir() else ({}, [])
    return images, masks, [*problems, *twice]


def _no_match(place: _Place) -> Problem:
    images = list(stems_of(place.images, place.images)[0])[:1]
    masks = list(stems_of(place.masks, place.masks)[0])[:1] if place.masks.is_dir() else []
    if not masks:
        return Problem("error", f"{place.masks}: no mask in it. Expected one PNG for each labelled image.")
    return Problem(
        "error",
        f"{place.masks}: no mask has the stem of an image: the first mask is '{masks[0]}', the first image "
        f"'{images[0]}'. Rename them, or give a CSV with the columns image,mask.",
    )


def _with_lists(root: Path, listing: PairListing) -> PairListing:
    """Splits by lists of stems, where there are any. What is in no list is unlabelled."""
    lists = {split: root / f"{name}.txt" for name, split in SPLIT_NAMES.items() if (root / f"{name}.txt").is_file()}
    if not lists:
        return listing
    by_stem = {PurePosixPath(pair.name).stem: place for place, pair in enumerate(listing.pairs)}
    split: dict[int, str] = {}
    problems = list(listing.problems)
    for part, path in lists.items():
        stems = [PurePosixPath(line.strip()).stem for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
        missing = [stem for stem in stems if stem not in by_stem]
        if missing:
            count = plural(len(missing), "name")
            near = did_you_mean(missing[0], by_stem)
            problems.append(Problem("error", f"{path}: {count} without an image: {examples(missing)}.{near}"))
        for place in (by_stem[stem] for stem in stems if stem in by_stem):
            if split.setdefault(place, part) != part:
                name = listing.pairs[place].name
                problems.append(Problem("error", f"{path}: '{name}' is also in {lists[split[place]].name}."))
    pairs = [
        replace(pair, split=split.get(place, ""), may_label=place in split) for place, pair in enumerate(listing.pairs)
    ]
    if len(split) < len(pairs):
        message = f"{root}: {plural(len(pairs) - len(split), 'image')} in no list: taken as unlabelled."
        problems.append(Problem("warning", message))
    listed_as = f"images and masks by stem, splits by {', '.join(path.name for path in lists.values())}"
    camvid = all(CAMVID_DRIVES.fullmatch(PurePosixPath(pair.name).stem) for pair in pairs)
    table: ClassTable | None = listing.table or (CAMVID if camvid else None)
    found = tuple(ListFile.read(path, part) for part, path in lists.items())
    layout = "CamVid" if camvid else listed_as
    return replace(listing, pairs=pairs, layout=layout, table=table, problems=problems, lists=found)


def _ade_names(path: Path) -> list[str]:
    """The last column of ADE20K's own table of classes, the first of several names; nothing where there is no table."""
    if not path.is_file():
        return []
    lines = [line for line in path.read_text("utf-8", errors="replace").splitlines() if line[:1].isdigit()]
    names = [line.split("\t")[-1].split(",")[0].strip() for line in lines]
    return [name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names)]
