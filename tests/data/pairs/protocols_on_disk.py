"""Tiny fakes of the published data sets, with the lists of labelled images that papers come with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.data.pairs import PROTOCOLS
from tests.data.pictures import picture, write

SIZE = (20, 16)
TINY = {"train": 7, "val": 2}


@dataclass(frozen=True)
class Layout:
    """Where the k-th image of a part and its mask are, and the numbers that masks hold."""

    image: str
    mask: str
    values: Sequence[int]
    options: dict[str, Any]


LAYOUTS = {
    "voc": Layout("JPEGImages/{k:04d}.jpg", "SegmentationClassAug/{k:04d}.png", [*range(21), 255], {}),
    "cityscapes": Layout(
        "leftImg8bit/{part}/aachen/a_{k:04d}_leftImg8bit.png",
        "gtFine/{part}/aachen/a_{k:04d}_gtFine_labelTrainIds.png",
        [*range(19), 255],
        {},
    ),
    "coco": Layout("{part}2017/{k:04d}.jpg", "masks/{part}2017/{k:04d}.png", range(81), {}),
    "ade20k": Layout("images/{part}ing/{k:04d}.jpg", "annotations/{part}ing/{k:04d}.png", range(151), {"void": 0}),
}


def make_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocols with as few images as the fakes have: 3 labels of 7, and 5 in the other variant of PASCAL VOC."""
    for name, protocol in PROTOCOLS.items():
        sizes = {variant: ((3,), (5,))[place] for place, variant in enumerate(protocol.subsets)}
        facts = replace(protocol, **TINY, test=None if protocol.test is None else 1, subsets=sizes)
        monkeypatch.setitem(PROTOCOLS, name, facts)


def fake(root: Path, name: str, *, labeled: int = 3, unlabeled: int = 4, val: int = 2) -> Path:
    """The images and masks of a layout, and the folder of its lists, whose last lines do not end."""
    layout = LAYOUTS[name]
    lists = root / "splits" / str(labeled)
    lists.mkdir(parents=True)
    numbers = np.resize(np.array(layout.values, dtype=np.uint8), SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0])
    start = 0
    for part, count in (("labeled", labeled), ("unlabeled", unlabeled), ("val", val)):
        where = "val" if part == "val" else "train"
        lines = []
        for k in range(start, start + count):
            image, mask = layout.image.format(part=where, k=k), layout.mask.format(part=where, k=k)
            write(root / image, picture(k, SIZE))
            write(root / mask, Image.fromarray(numbers))
            lines.append(f"{image} {mask}")
        start += count
        if count:
            (lists / f"{part}.txt").write_text("\n".join(lines))
    return lists
