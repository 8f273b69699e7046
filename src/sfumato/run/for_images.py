"""From settings to what training takes, for images with a class each."""

from __future__ import annotations

from pathlib import Path

from sfumato.config import Config
from sfumato.data import Splits, Table, draw_splits, load_table
from sfumato.image_data import ImageData
from sfumato.models import Classifier, build_model
from sfumato.views import Augment

SMALL_SIZE = 64  # pixels up to which "auto" is a net for small images
PHOTO_MODEL = "tf_efficientnet_lite0"


def open_table(config: Config) -> Table:
    data = config.data
    return load_table(
        data.source,
        labels=Path(data.labels_csv) if data.labels_csv else None,
        protocol=data.protocol,
        image_size=data.image_size,
        channels=data.channels,
        skip_broken=data.skip_broken,
    )


def settled(config: Config, table: Table) -> Config:
    """Every "auto" decided by the images."""
    size, channels = table.images.image_size, table.images.channels
    model, preset = config.model.name, config.views.preset
    if model == "auto":
        model = "small" if size <= SMALL_SIZE else PHOTO_MODEL
    if preset == "auto":
        preset = "digits" if channels == 1 and size <= 32 else "natural32" if size <= SMALL_SIZE else "photos"
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"image_size": size, "channels": channels}),
            "model": config.model.model_copy(update={"name": model}),
            "views": config.views.model_copy(update={"preset": preset}),
        }
    )


def draw(config: Config, table: Table) -> Splits:
    data = config.data
    return draw_splits(
        table,
        labels=data.labels,
        labels_per_class=data.labels_per_class,
        fraction=data.fraction,
        val=data.val,
        test=data.test,
        seed=config.seed,
        split_seed=data.split_seed,
        include_labeled=data.include_labeled,
        long_tail=data.long_tail,
        noise=data.label_noise,
    )


def make_model(config: Config, table: Table) -> Classifier:
    model = config.model
    return build_model(
        model.name,
        num_classes=len(table.classes),
        in_channels=table.images.channels,
        image_size=table.images.image_size,
        pretrained=model.pretrained,
        frozen=model.frozen,
        dropout=model.dropout,
        weights=model.weights,
        **model.options,
    )


def make_data(config: Config, table: Table, splits: Splits, model: Classifier) -> ImageData:
    mean, std = model.normalization
    size = table.images.image_size
    augment = Augment(config.views.preset, seed=config.seed, image_size=size, mean=mean, std=std)
    return ImageData(table, splits, augment, config.evaluate.batch)
