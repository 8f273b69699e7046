"""A training run on masks small enough to repeat: 20 noisy images of three classes, two of them smaller than a crop.

`python pixels.py FOLDER METHOD STEPS` trains with checkpoints in FOLDER; under torchrun over all ranks.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sfumato.data.pairs import PairTable, draw_pair_splits, pairs_from_arrays
from sfumato.data.pairs.stored import StoredMasks
from sfumato.methods import Facts, Method, build
from sfumato.models import Segmenter, build_segmenter
from sfumato.pair_data import PairData
from sfumato.train import Result, train
from sfumato.train_config import TrainConfig
from sfumato.types import VOID
from sfumato.views import DenseAugment

CROP = (17, 23)  # odd, and no multiple of any stride
CONFIG = TrainConfig(
    steps=3, batch_size=2, unlabeled_ratio=2, lr=0.01, ema=0.9, log_every=1, eval_every=8, save_every=2,
    unlabeled_start=0.0,
)  # fmt: skip


@cache
def table(classes: int = 3) -> PairTable:
    """Blobs of the classes, told by brightness, with a void border between them and a void corner."""
    draw = np.random.default_rng(0)
    images, masks = [], []
    for row in range(20):
        height, width = (15, 29) if row % 10 == 9 else (21 + row % 3, 27 + row % 4)
        coarse = draw.integers(classes, size=(4, 4))
        coarse[:2, 0] = row % classes, (row + 1) % classes
        mask = np.kron(coarse, np.ones((height // 4 + 1, width // 4 + 1), dtype=int))[:height, :width]
        image = 255 * (mask[..., None] + 0.5) / classes + draw.normal(scale=20, size=(height, width, 3))
        mask[:, width // 4 + 1] = VOID
        mask[-4:, -5:] = VOID
        images.append(image.clip(0, 255).astype(np.uint8))
        masks.append(mask.astype(np.uint8))
    names = [f"class {number}" for number in range(classes)]
    return pairs_from_arrays(images, masks, classes=names)


@cache
def stored(classes: int) -> StoredMasks:
    """What an earlier network might have said of the images: the class that their brightness speaks for."""
    folder, known = Path(tempfile.mkdtemp()), table(classes)
    for row in range(len(known)):
        bright = known.images.image(row).float().mean(dim=0) * classes / 256
        Image.fromarray(bright.to(torch.uint8).numpy()).save(folder / f"{row}.png")
    files = {row: folder / f"{row}.png" for row in range(len(known))}
    return StoredMasks(files, known.images, classes, mend="")


def data(classes: int = 3) -> PairData:
    splits = draw_pair_splits(table(classes), labels=6, fraction=None, val=4, test=0, seed=0)
    augment = DenseAugment("small", seed=0, crop=CROP, mean=(0.5,) * 3, std=(0.5,) * 3)
    return PairData(table(classes), splits, augment, stored=stored(classes))


def network(classes: int = 3, norm: str = "batch") -> Segmenter:
    torch.manual_seed(0)
    return build_segmenter("small_seg", num_classes=classes, norm=norm)


def method(name: str, given: PairData, **options: object) -> Method:
    """Ready to use; training attaches it once more."""
    made = build(name, Facts(given.num_classes, len(given.splits.unlabeled), dense=True), options)
    made.attach(network(given.num_classes))
    return made


def run(
    name: str, *, folder: Path | None = None, resume: bool = False, norm: str = "batch", **changes: object
) -> tuple[Result, Method]:
    given = data()
    chosen, settings = method(name, given), replace(CONFIG, **changes)  # type: ignore[arg-type]
    result = train(chosen, network(norm=norm), given, settings, folder=folder, resume=resume, quiet=True)
    return result, chosen


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[2], folder=Path(sys.argv[1]), resume=True, steps=int(sys.argv[3]), norm="group", batch_size=4)
