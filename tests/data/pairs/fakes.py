"""Tiny folders of images and masks, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.data.pairs import PairTable, pairs_from_arrays
from tests.data.pictures import picture, write

SIZE = (8, 6)  # width, height


def mask_of(values: Sequence[int], size: tuple[int, int] = SIZE) -> Image.Image:
    """An 8-bit mask that holds these numbers in stripes."""
    columns = np.resize(np.array(values, dtype=np.uint8), size[0])
    return Image.fromarray(np.tile(np.sort(columns), (size[1], 1)))


def write_pair(image: Path, mask: Path | None, values: Sequence[int], seed: int) -> None:
    write(image, picture(seed, SIZE))
    if mask is not None:
        write(mask, mask_of(values))


def write_plain(root: Path, masks: dict[str, Sequence[int] | None]) -> Path:
    """images/STEM.png and, unless its values are None, masks/STEM.png."""
    for seed, (stem, values) in enumerate(masks.items()):
        mask = None if values is None else root / "masks" / f"{stem}.png"
        write_pair(root / "images" / f"{stem}.png", mask, values or [], seed)
    return root


def table_of(
    masks: Sequence[Sequence[int] | None], split: Sequence[str] | None = None, classes: int | None = None
) -> PairTable:
    """A table of distinct images whose masks hold these classes."""
    images = [np.asarray(picture(seed, SIZE)) for seed in range(len(masks))]
    labels = [None if values is None else np.asarray(mask_of(values)) for values in masks]
    count = classes or max(value for values in masks for value in values or [0] if value < 255) + 1
    return pairs_from_arrays(images, labels, split=split, classes=[f"class {number}" for number in range(count)])
