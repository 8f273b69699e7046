"""A trained segmenter at work: masks for new images of any size, and its figures on other images with masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from sfumato.data.decode import decode_whole
from sfumato.data.listing import examples
from sfumato.data.pairs import load_pairs
from sfumato.errors import DataError
from sfumato.inference import Maps, Mode, segment_maps
from sfumato.pair_data import Whole
from sfumato.run import files
from sfumato.run.labeling import images_in
from sfumato.run.trained import Trained, no_run_metrics
from sfumato.types import Output
from sfumato.views import DenseAugment

WHOLE = 2**21  # pixels up to which an image goes through the net at once; larger ones in windows
LEAST_WINDOW = 512
BLEND = 0.5  # of the colors in an overlay


@dataclass(frozen=True)
class Segmented:
    """out/NAME.png holds the classes of NAME, and where asked for out/overlay, out/confidence and out/entropy."""

    count: int
    left_out: dict[str, str]  # name -> why it cannot be read


class _Tempered(nn.Module):
    """A net with its logits divided by the temperature: the confidence that is written is the calibrated one."""

    def __init__(self, net: nn.Module, temperature: float) -> None:
        super().__init__()
        self.net, self.temperature = net, temperature

    def forward(self, x: Tensor) -> Tensor:
        answer: Output = self.net(x)
        return answer.logits / self.temperature


def segment_folder(
    trained: Trained, images: Path, out: Path, *, overlay: bool = False, maps: bool = False, skip_broken: bool = False
) -> Segmented:
    """A PNG of class numbers for each image, under its name and with the classes' colors as palette.

    overlay: the image under the colors of the classes too. maps: confidence after temperature scaling, and entropy over
    log C, in grey: 0 is 0 and 255 is 1. skip_broken: leave out images that cannot be read instead of raising DataError.
    Raises DataError when `out` holds something, or two images would have masks of one name.
    """
    files.refuse_taken(out)
    names, paths, left_out = images_in(images, skip_broken=skip_broken)
    masks = [str(Path(name).with_suffix(".png")) for name in names]
    twice = [name for name, count in Counter(masks).items() if count > 1]
    if twice:
        raise DataError(f"{images}: several images would have the mask {examples(twice)}. Rename one of them.")
    card, net = trained.card, _Tempered(trained.model, trained.temperature)
    colors = np.array(card["colors"], dtype=np.uint8)
    augment = augment_of(card)
    for name, path in zip(masks, paths, strict=True):
        picture = decode_whole(path, card["channels"])
        pixels = torch.from_numpy(np.array(picture))
        planes = pixels[None] if card["channels"] == 1 else pixels.permute(2, 0, 1)
        prepared = augment.evaluation(planes[None].contiguous().to(trained.device))[0]
        found = segment_maps(net, prepared, **_windows(card, picture.width * picture.height))
        _write(out / name, indexed(found.labels.numpy(), colors))
        if overlay:
            _write(out / "overlay" / name, blended(picture, found.labels.numpy(), colors))
        if maps:
            _write_maps(out, name, found)
    return Segmented(len(paths), left_out)


def augment_of(card: dict[str, Any]) -> DenseAugment:
    crop, mean, std = tuple(card["crop"]), tuple(card["mean"]), tuple(card["std"])
    return DenseAugment(card["preset"], seed=0, crop=crop, mean=mean, std=std)


def _windows(card: dict[str, Any], pixels: int) -> dict[str, Any]:
    """Whole as in the evaluation, unless that is windows or the image is very large."""
    if card["inference"] == "full" and pixels <= WHOLE:
        return {"mode": "full"}
    mode: Mode = "sliding"
    crop = tuple(card["crop"]) if card["inference"] == mode else tuple(max(LEAST_WINDOW, n) for n in card["crop"])
    return {"mode": mode, "crop": crop}


def indexed(labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> Image.Image:
    """Class numbers as pixels, with the colors of the classes to look at."""
    mask = Image.fromarray(labels).convert("P")
    mask.putpalette(colors.tobytes())
    mask.frombytes(labels.tobytes())  # the conversion may have moved numbers to colors of its own
    return mask


def blended(picture: Image.Image, labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> Image.Image:
    return Image.blend(picture.convert("RGB"), Image.fromarray(colors[labels]), BLEND)


def _write_maps(out: Path, name: str, found: Maps) -> None:
    for kind, values in (("confidence", found.confidence), ("entropy", found.entropy)):
        _write(out / kind / name, Image.fromarray((255 * values.clamp(0, 1)).round().to(torch.uint8).numpy()))


def _write(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def evaluate_on(
    trained: Trained, source: str, *, masks: Path | None, csv: Path | None, bins: int = 15
) -> dict[str, Any]:
    """Figures on other images: the test split of `source` if it has one, otherwise all that have a mask.

    The temperature stays that of the run, and masks are read with its classes. Raises DataError.
    """
    card = trained.card
    table = load_pairs(source, masks=masks, csv=csv, classes=trained.classes, channels=card["channels"])
    known = np.flatnonzero(table.known)
    if not len(known):
        raise DataError(f"{source}: no image has a mask, so there is nothing to measure with.")
    test = known[table.split[known] == "test"]
    rows = test if len(test) else known
    whole = Whole(table, augment_of(card), inference=card["inference"])
    found = whole.scores(trained.model, rows, trained.device, bins=bins, temperature=trained.temperature)
    sections = {"test": found.result(), "test_calibrated": found.calibrated(), "val": {}}
    return no_run_metrics(trained, sections, len(rows))
