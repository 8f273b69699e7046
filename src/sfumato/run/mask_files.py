"""What `sfumato predict` writes of an image: class numbers with a palette, an overlay, maps in grey."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sfumato.inference import Maps

BLEND = 0.5  # of the colors in an overlay
TABLE = "classes.csv"


def indexed(labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> Image.Image:
    """Class numbers (H, W) as pixels, with the colors (C, 3) of the classes to look at."""
    mask = Image.frombytes("P", (labels.shape[1], labels.shape[0]), labels.tobytes())
    mask.putpalette(colors.tobytes())
    return mask


def blended(picture: Image.Image, labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> Image.Image:
    return Image.blend(picture.convert("RGB"), Image.fromarray(colors[labels]), BLEND)


def grey(values: Tensor) -> Image.Image:
    """Shares (H, W) as 0..255."""
    return Image.fromarray((255 * values.clamp(0, 1)).round().to(torch.uint8).numpy())


def enlarged(found: Maps, width: int, height: int) -> Maps:
    """The maps at another size: classes of the nearest pixel, shares between their neighbors."""

    def shares(values: Tensor) -> Tensor:
        return torch.from_numpy(np.array(Image.fromarray(values.numpy()).resize((width, height), bilinear)))

    nearest, bilinear = Image.Resampling.NEAREST, Image.Resampling.BILINEAR
    labels = np.array(Image.fromarray(found.labels.numpy()).resize((width, height), nearest))
    return Maps(torch.from_numpy(labels), shares(found.confidence), shares(found.entropy))


def write(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def write_table(path: Path, classes: list[str], colors: NDArray[np.uint8]) -> None:
    """name,r,g,b: a class table, so that the folder says what its numbers mean."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["name", "r", "g", "b"])
        writer.writerows([name, *color] for name, color in zip(classes, colors.tolist(), strict=True))
