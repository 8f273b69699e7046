"""PASCAL VOC: JPEGImages, SegmentationClassAug or SegmentationClass, and the lists of ImageSets/Segmentation."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.listing import Problem, did_you_mean, examples, plural
from sfumato.data.pairs.classes import VOC, find_table
from sfumato.data.pairs.listing import ListFile, Pair, PairListing, relative, stems_of
from sfumato.errors import DataError

MASK_FOLDERS = ("SegmentationClassAug", "SegmentationClass")  # the first wins where it has the mask
LISTS = Path("ImageSets", "Segmentation")
AUGMENTED = ("trainaug", "train_aug")  # the list of the 10,582 training images with masks of SBD


def matches(root: Path) -> bool:
    return (root / "JPEGImages").is_dir() and any((root / name).is_dir() for name in MASK_FOLDERS)


def read(root: Path) -> PairListing:
    """The split of an image is the list that has it.

    With a list `trainaug` only listed images are taken, as every published protocol does; otherwise all others of
    JPEGImages join as unlabelled. Without any list, every image with a mask may be a label.
    """
    images, problems = stems_of(root / "JPEGImages", root)
    if not images:
        raise DataError(f"{root / 'JPEGImages'}: no image in it or below it.")
    masks: dict[str, Path] = {}
    for name in reversed(MASK_FOLDERS):
        masks |= stems_of(root / name, root)[0] if (root / name).is_dir() else {}
    files = _list_files(root)
    lists = {path.stem: _stems(path) for path in files}
    split: dict[str, str] = {}
    for name in (*AUGMENTED, "train", "val", "test"):
        stems = lists.get(name, [])
        problems += _missing(root, name, stems, images)
        part = name if name in ("val", "test") else "train"
        split |= {stem: part for stem in stems if part == "val" or split.get(stem) != "val"}
    known = [stem for stem in images if stem in split or not any(name in lists for name in AUGMENTED)]
    pairs = [
        Pair(
            image=images[stem],
            name=relative(images[stem], root),
            mask=masks.get(stem),
            mask_name=relative(masks[stem], root) if stem in masks else "",
            split=split.get(stem, ""),
            may_label=stem in split or not lists,
        )
        for stem in known
    ]
    found = tuple(ListFile.read(path) for path in files)
    return PairListing(pairs, "PASCAL VOC", table=find_table(root) or VOC, problems=problems, lists=found)


def _list_files(root: Path) -> list[Path]:
    wanted = {*AUGMENTED, "train", "val", "test"}
    return [path for path in sorted((root / LISTS).glob("*.txt")) if path.stem in wanted]


def _stems(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]


def clean_stems(root: Path) -> frozenset[str]:
    """The images with a mask of the challenge itself, 1,464 of them; masks of SBD are rougher. Empty if not told."""
    path = root / LISTS / "train.txt"
    return frozenset(_stems(path)) if path.is_file() else frozenset()


def _missing(root: Path, name: str, stems: list[str], images: dict[str, Path]) -> list[Problem]:
    missing = [stem for stem in stems if stem not in images]
    if not missing:
        return []
    where = root / LISTS / f"{name}.txt"
    count = plural(len(missing), "image")
    message = f"{where}: {count} not in JPEGImages: {examples(missing)}.{did_you_mean(missing[0], images)}"
    # the images of the test list are a download of their own
    return [Problem("warning" if name == "test" else "error", message)]
