"""Cityscapes: leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png and gtFine/SPLIT/CITY/NAME_gtFine_label(Train)Ids.png."""

from __future__ import annotations

from pathlib import Path

from sfumato.data.listing import Problem, find_images
from sfumato.data.pairs.classes import CITYSCAPES, find_table
from sfumato.data.pairs.listing import Pair, PairListing, relative, spare_masks, split_of
from sfumato.errors import DataError
from sfumato.types import VOID

IMAGES, MASKS = "leftImg8bit", "gtFine"
ENDING = "_leftImg8bit"
TRAIN_IDS, LABEL_IDS = "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
OF_LABEL_ID = dict.fromkeys(range(34), VOID) | {value: label for label, value in enumerate(EVALUATED)}


def matches(root: Path) -> bool:
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def read(root: Path) -> PairListing:
    """trainIds if there are any, and else labelIds, translated. The test masks hold no classes and are not used."""
    images = find_images(root / IMAGES)
    if not images:
        raise DataError(f"{root / IMAGES}: no image in it or below it.")
    masks = set((root / MASKS).rglob("*.png"))
    coded = any(path.name.endswith(TRAIN_IDS) for path in masks)
    ending = TRAIN_IDS if coded else LABEL_IDS
    pairs = []
    for path in images:
        inside = path.relative_to(root / IMAGES)
        split = split_of(inside.parts[0]) or ""
        mask = root / MASKS / inside.parent / (path.stem.removesuffix(ENDING) + ending)
        known = mask in masks and split != "test"
        name = relative(path, root)
        pairs.append(Pair(path, name, mask if known else None, relative(mask, root) if known else "", split))
    used = {pair.mask for pair in pairs if isinstance(pair.mask, Path)}
    problems = spare_masks(root, (path for path in sorted(masks) if _counts(path, root, ending)), used)
    if not used:
        message = f"{root / MASKS}: no mask NAME{TRAIN_IDS} or NAME{LABEL_IDS} belongs to an image of {root / IMAGES}."
        problems.append(Problem("error", message))
    table = find_table(root) or CITYSCAPES
    return PairListing(pairs, "Cityscapes", table, None if coded else OF_LABEL_ID, problems)


def _counts(mask: Path, root: Path, ending: str) -> bool:
    return mask.name.endswith(ending) and mask.relative_to(root / MASKS).parts[0] != "test"
