"""From settings to what training takes, for images with masks."""

from __future__ import annotations

from pathlib import Path

from sfumato.config import Config
from sfumato.data import Splits
from sfumato.data.pairs import PairTable, draw_pair_splits, load_pairs
from sfumato.errors import UsageError
from sfumato.inference import Mode
from sfumato.models.build_segmenter import build_segmenter
from sfumato.models.segmenter import Segmenter
from sfumato.pair_data import PairData
from sfumato.views import DenseAugment

SMALL_SIZE = 96  # pixels of the long side up to which "auto" is a net for small images
PHOTO_MODEL = "fpn"
ENCODER = "tf_efficientnet_lite0"
LARGEST_CROP = 321
WHOLE = 2**21  # pixels that go through the net at once in evaluation; an image with more goes in windows
EVAL_BATCH = 8  # images at a time, if they are small


def open_table(config: Config) -> PairTable:
    data = config.data
    return load_pairs(
        data.source,
        masks=Path(data.masks) if data.masks else None,
        csv=Path(data.labels_csv) if data.labels_csv else None,
        lists=Path(data.lists) if data.lists else None,
        layout=data.format,
        classes=Path(data.classes) if data.classes else None,
        mapping=data.mapping,
        protocol=data.protocol,
        resize=data.resize,
        channels=data.channels,
        void=data.void,
        skip_broken=data.skip_broken,
    )


def settled(config: Config, table: PairTable) -> Config:
    """Every "auto" decided by the images."""
    widest, tallest = (int(side) for side in table.images.sizes(range(len(table))).max(axis=0))
    small = max(widest, tallest) <= SMALL_SIZE
    model, views = config.model, config.views
    name = ("small_seg" if small else PHOTO_MODEL) if model.name == "auto" else model.name
    encoder = model.encoder if model.encoder or name == "small_seg" or name.startswith("smp_") else ENCODER
    crop = views.crop or (min(tallest, LARGEST_CROP), min(widest, LARGEST_CROP))
    height, width = (crop, crop) if isinstance(crop, int) else crop
    if height > tallest and width > widest:
        raise UsageError(
            f"views.crop={[height, width]}: larger than every image ({widest}x{tallest} at most), so that all of them "
            f"would be padded. Take crop={min(tallest, widest)} or less."
        )
    inference = config.evaluate.inference
    if inference == "auto":
        inference = "full" if widest * tallest <= WHOLE else "sliding"
    preset = ("small" if small else "unimatch") if views.preset == "auto" else views.preset
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"channels": table.images.channels}),
            "model": model.model_copy(update={"name": name, "encoder": encoder}),
            "views": views.model_copy(update={"preset": preset, "crop": (height, width)}),
            "evaluate": config.evaluate.model_copy(update={"inference": inference}),
        }
    )


def draw(config: Config, table: PairTable) -> Splits:
    data = config.data
    if data.labels_per_class is not None:
        raise UsageError("labels_per_class: masks hold many classes each. Use labels=NUMBER of masks, or fraction.")
    return draw_pair_splits(
        table,
        labels=data.labels,
        fraction=data.fraction,
        val=data.val,
        test=data.test,
        seed=config.seed,
        split_seed=data.split_seed,
        include_labeled=data.include_labeled,
    )


def make_model(config: Config, table: PairTable) -> Segmenter:
    model = config.model
    options = dict(model.options) | ({"encoder": model.encoder} if model.encoder else {})
    made = build_segmenter(
        model.name,
        num_classes=len(table.classes),
        in_channels=table.images.channels,
        pretrained=model.pretrained,
        weights=model.weights,
        frozen=model.frozen,
        **options,
    )
    _check_crop(made, crop_of(config), table)
    return made


def _check_crop(model: Segmenter, crop: tuple[int, int], table: PairTable) -> None:
    """With what to do where the images themselves are too small for the encoder."""
    try:
        model.check_crop(crop)
    except UsageError as error:
        widest, tallest = (int(side) for side in table.images.sizes(range(len(table))).max(axis=0))
        needed = 2 * model.encoder.deepest
        if min(widest, tallest) >= needed:
            raise
        raise UsageError(
            f"{error} The images are {widest}x{tallest} at most; resize=LONG_SIDE enlarges them."
        ) from error


def make_data(config: Config, table: PairTable, splits: Splits, model: Segmenter) -> PairData:
    mean, std = model.normalization
    augment = DenseAugment(config.views.preset, seed=config.seed, crop=crop_of(config), mean=mean, std=std)
    pixels = int(table.images.sizes(range(len(table))).prod(axis=1).max())
    batch = max(1, min(EVAL_BATCH, config.evaluate.batch, WHOLE // pixels))
    mode: Mode = "full" if config.evaluate.inference == "full" else "sliding"
    return PairData(table, splits, augment, batch, mode)


def crop_of(config: Config) -> tuple[int, int]:
    """(height, width) of a settled configuration."""
    crop = config.views.crop
    assert isinstance(crop, tuple)
    return crop
