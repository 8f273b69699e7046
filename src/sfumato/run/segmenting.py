"""A trained segmenter at work: masks for new images of any size, and its figures on other images with masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from sfumato.config import load
from sfumato.data.decode import BrokenImage, decode_whole
from sfumato.data.images import describe_broken
from sfumato.data.listing import examples
from sfumato.data.pairs import PairTable, load_pairs
from sfumato.data.pairs.classes import read_classes
from sfumato.data.pairs.coding import listed
from sfumato.data.pairs.sources import read as read_source
from sfumato.data.pairs.store import resized
from sfumato.errors import DataError, UsageError
from sfumato.inference import Maps, segment_maps
from sfumato.pair_data import Whole
from sfumato.run import files, mask_files
from sfumato.run.for_pairs import WHOLE
from sfumato.run.labeling import images_in
from sfumato.run.trained import Trained, no_run_metrics
from sfumato.types import Output
from sfumato.views import DenseAugment

LEAST_WINDOW = 512
MAPS = ("confidence", "entropy")
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Segmented:
    """out/NAME.png holds the classes of NAME, and where asked for out/overlay, out/confidence and out/entropy."""

    count: int
    left_out: dict[str, str]  # name -> why it cannot be read


class _Calibrated(nn.Module):
    """Bytes or prepared images (n, channels, H, W) to logits over the temperature, so that confidence is calibrated.

    size: what the net sees of an image is resized to it, and its answer back: the size of images in training.
    """

    def __init__(self, trained: Trained, augment: DenseAugment, size: Size | None = None) -> None:
        super().__init__()
        self.net, self.temperature = trained.model, trained.temperature
        self.augment, self.size = augment, size

    def forward(self, x: Tensor) -> Tensor:
        x = self.augment.evaluation(x) if x.dtype == torch.uint8 else x
        before = x.shape[-2:]
        if self.size is not None:
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        answer: Output = self.net(x)
        logits = answer.logits / self.temperature
        return logits if self.size is None else F.interpolate(logits, before, mode="bilinear")


def segment_folder(
    trained: Trained, images: Path, out: Path, *, overlay: bool = False, maps: bool = False, skip_broken: bool = False
) -> Segmented:
    """A PNG of class numbers for each image, under its name and with the classes' colors as palette; and classes.csv.

    overlay: the image under the colors of the classes too. maps: confidence after temperature scaling, and entropy over
    log C, in grey: 0 is 0 and 255 is 1. skip_broken: leave out images that cannot be read instead of raising DataError.

    Every map has the size of its image. A large image goes through the net in windows, of which a row at a time is held
    in memory. Raises DataError when `out` holds something, or two files would have one name.
    """
    if out.suffix.lower() == ".csv":
        raise UsageError(f"-o {out}: the run gives each image a mask, so this has to be a folder.")
    files.refuse_taken(out)
    names, paths, _ = images_in(images, skip_broken=False)
    masks = [str(Path(name).with_suffix(".png")) for name in names]
    kinds = (*(("overlay",) if overlay else ()), *(MAPS if maps else ()))
    _refuse_twice(images, masks, kinds)
    colors = np.array(trained.card["colors"], dtype=np.uint8)
    left_out: dict[str, str] = {}
    for name, mask, path in zip(names, masks, paths, strict=True):
        try:
            picture = decode_whole(path, trained.card["channels"])
        except BrokenImage as broken:
            left_out[name] = str(broken)
            if skip_broken and len(left_out) < len(paths):
                continue
            raise DataError(describe_broken(left_out if skip_broken else {name: str(broken)})) from broken
        found = _maps(trained, picture)
        labels = found.labels.numpy()
        mask_files.write(out / mask, mask_files.indexed(labels, colors))
        if overlay:
            mask_files.write(out / "overlay" / mask, mask_files.blended(picture, labels, colors))
        for kind in MAPS if maps else ():
            mask_files.write(out / kind / mask, mask_files.grey(getattr(found, kind)))
    mask_files.write_table(out / mask_files.TABLE, trained.classes, colors)
    return Segmented(len(paths) - len(left_out), left_out)


def _refuse_twice(images: Path, masks: Sequence[str], kinds: Sequence[str]) -> None:
    """Nothing is overwritten: cat.jpg and cat.png have one mask, and overlay/cat.png may be the mask of another."""
    every = [*masks, *(f"{kind}/{mask}" for kind in kinds for mask in masks)]
    twice = [name for name, count in Counter(every).items() if count > 1]
    if twice:
        raise DataError(f"{images}: several results would be called {examples(twice)}. Rename one of the images.")


def _maps(trained: Trained, picture: Image.Image) -> Maps:
    """At the scale of training; whole as in the evaluation, unless that is windows or the image is very large."""
    card, augment = trained.card, augment_of(trained.card)
    across, down = (int(n) for n in resized(np.array([picture.size]), _as_resize(card.get("resize")))[0])
    whole, scaled = card["inference"] == "full" and across * down <= WHOLE, (across, down) != picture.size
    if whole and picture.width * picture.height <= WHOLE:
        return segment_maps(_Calibrated(trained, augment, (down, across) if scaled else None), _planes(picture))
    shown = picture.resize((across, down), Image.Resampling.BILINEAR) if scaled else picture
    found = _in_parts(trained, augment, _planes(shown), whole=whole)
    return mask_files.enlarged(found, picture.width, picture.height) if scaled else found


def _in_parts(trained: Trained, augment: DenseAugment, planes: Tensor, *, whole: bool) -> Maps:
    """As bytes, of which each window is prepared alone: a whole image in floats takes four times the memory."""
    net, crop, (down, across) = _Calibrated(trained, augment), trained.card["crop"], planes.shape[1:]
    if whole:
        return segment_maps(net, planes)
    if trained.card["inference"] == "full":
        return segment_maps(net, planes, mode="sliding", crop=_window(crop, (down, across)))
    if down < crop[0] or across < crop[1]:  # padding is the mean color, which only a prepared image can hold
        planes = augment.evaluation(planes[None])[0]
    return segment_maps(net, planes, mode="sliding", crop=(crop[0], crop[1]))


def _window(crop: Sequence[int], size: Size) -> Size:
    """As much as training saw at a time, at least `LEAST_WINDOW`, and not more than there is."""
    return min(max(LEAST_WINDOW, crop[0]), size[0]), min(max(LEAST_WINDOW, crop[1]), size[1])


def _planes(picture: Image.Image) -> Tensor:
    """(channels, H, W) uint8."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)


def _as_resize(kept: int | list[int] | None) -> Size | int | None:
    return (kept[0], kept[1]) if isinstance(kept, list) else kept


def augment_of(card: dict[str, Any]) -> DenseAugment:
    crop, mean, std = tuple(card["crop"]), tuple(card["mean"]), tuple(card["std"])
    return DenseAugment(card["preset"], seed=0, crop=crop, mean=mean, std=std)


def evaluate_on(
    trained: Trained, source: str, *, masks: Path | None, csv: Path | None, bins: int = 15
) -> dict[str, Any]:
    """Figures on other images: the test split of `source` if it has one, otherwise all that have a mask.

    The temperature stays that of the run, and masks are read with its classes. Raises DataError when they have others.
    """
    card = trained.card
    table = _table(trained, source, masks, csv)
    known = np.flatnonzero(table.known)
    if not len(known):
        raise DataError(f"{source}: no image has a mask, so there is nothing to measure with.")
    test = known[table.split[known] == "test"]
    rows = test if len(test) else known
    whole = Whole(table, augment_of(card), inference=card["inference"])
    found = whole.scores(trained.model, rows, trained.device, bins=bins, temperature=trained.temperature)
    sections = {"test": found.result(), "test_calibrated": found.calibrated(), "val": {}}
    return no_run_metrics(trained, sections, len(rows))


def _table(trained: Trained, source: str, masks: Path | None, csv: Path | None) -> PairTable:
    """Read as the run read its own images, with the same classes."""
    data, classes = load(trained.folder / files.CONFIG).data, trained.classes
    own = read_source(source, masks=masks, csv=csv).table
    if own is not None and own.names != classes:
        raise DataError(
            f"{source}: its {len(own)} classes are {listed(own.names)}; the {len(classes)} of the run are "
            f"{listed(classes)}. A network can only be measured on its own classes, in the same order."
        )
    given: Path | list[str] | None = None if own is not None else classes
    if own is None and data.classes and Path(data.classes).is_file() and read_classes(data.classes).names == classes:
        given = Path(data.classes)  # it may hold colors
    try:
        channels = trained.card["channels"]
        return load_pairs(
            source, masks=masks, csv=csv, classes=given, mapping=data.mapping, void=data.void, resize=data.resize,
            channels=channels,
        )  # fmt: skip
    except DataError as error:
        told = f"Masks are read with the {len(classes)} classes of the run: {listed(classes)}."
        raise DataError(f"{error}\n{told}") from error
