"""Small images and folders of them, for the tests of this folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.data import Table, table_from_arrays


def picture(seed: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """Noise, width x height, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def write_folders(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    """`counts` images in each folder, named 0.png, 1.png, ...; no two of one call are equal."""
    seed = first
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write(root / folder / f"{number}.png", picture(seed))
            seed += 1
    return root


def table_of(labels: Sequence[int], split: Sequence[str] | None = None, classes: int | None = None) -> Table:
    """A table of distinct 4 x 4 images with these labels."""
    numbers = np.arange(len(labels), dtype=np.uint32)
    images = np.zeros((len(labels), 4, 4), dtype=np.uint8)
    images[:, 0, :] = numbers[:, None] >> np.array([0, 8, 16, 24]) & 255
    count = classes if classes is not None else max([*labels, 1]) + 1
    return table_from_arrays(
        images, np.array(labels), split=split, classes=[f"class {number}" for number in range(count)]
    )
