"""Small folders of images with masks of two classes that can be seen: a bright square on dark ground."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (32, 32)  # width, height


def scene(number: int, size: tuple[int, int] = SIZE, *, grey: bool = False) -> tuple[Image.Image, Image.Image]:
    """An image and its mask; no two alike."""
    rng = np.random.default_rng(number)
    width, height = size
    pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    side = min(width, height) // 2
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    mask[top : top + side, left : left + side] = 1
    pixels[mask == 1] += np.uint8(130)
    image = Image.fromarray(pixels)
    return image.convert("L") if grey else image, Image.fromarray(mask)


def save(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def with_masks(
    root: Path, *, labeled: int = 14, unlabeled: int = 8, sizes: Sequence[tuple[int, int]] = (SIZE,), grey: bool = False
) -> Path:
    """images/NNN.png, and masks/NNN.png for the first `labeled` of them; the sizes take turns."""
    for number in range(labeled + unlabeled):
        image, mask = scene(number, sizes[number % len(sizes)], grey=grey)
        save(root / "images" / f"{number:03d}.png", image)
        if number < labeled:
            save(root / "masks" / f"{number:03d}.png", mask)
    return root


def values(path: Path) -> set[int]:
    """The numbers that a mask file stores."""
    with Image.open(path) as mask:
        return set(np.unique(np.asarray(mask)).tolist())
