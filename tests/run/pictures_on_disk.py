"""Small folders of images whose class can be seen: a bright bar at a place of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("left", "middle", "right")
SIZE = 12


def picture(label: int, number: int) -> Image.Image:
    """Grey, 12 x 12; no two alike."""
    rng = np.random.default_rng((label, number))
    pixels = rng.integers(0, 90, (SIZE, SIZE), dtype=np.uint8)
    pixels[:, 1 + 4 * label : 3 + 4 * label] += np.uint8(140)
    return Image.fromarray(pixels)


def save(path: Path, label: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(label, number).save(path)


def class_folders(root: Path, *, each: int = 30, unlabeled: int = 40) -> Path:
    """A folder a class, and unlabeled/ beside them."""
    for label, name in enumerate(CLASSES):
        for number in range(each):
            save(root / name / f"{number:03d}.png", label, number)
    for number in range(unlabeled):
        save(root / "unlabeled" / f"{number:03d}.png", number % len(CLASSES), 1000 + number)
    return root


def with_csv(root: Path, *, each: int = 30, unlabeled: int = 40) -> tuple[Path, Path]:
    """One folder of images, and a table of which the unlabelled lines have no label."""
    lines = ["file,label"]
    for number in range(each * len(CLASSES) + unlabeled):
        label = number % len(CLASSES)
        save(root / f"{number:03d}.png", label, number)
        lines.append(f"{number:03d}.png,{CLASSES[label] if number >= unlabeled else ''}")
    table = root.parent / f"{root.name}.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root, table
