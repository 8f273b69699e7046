"""From settings to what training takes: table, splits, method and net."""

from __future__ import annotations

from pathlib import Path

import torch

from sfumato import distributed
from sfumato.config import Config
from sfumato.data import BUILTIN_NAMES, Splits, Table, draw_splits, load_table
from sfumato.errors import UsageError
from sfumato.image_data import ImageData
from sfumato.methods import Facts, Method, build, describe
from sfumato.models import Classifier, build_model
from sfumato.run.ranks import is_first
from sfumato.views import Augment

FAIR_BASELINE = "supervised_strong"
SMALL_SIZE = 64  # pixels up to which "auto" is a net for small images
PHOTO_MODEL = "tf_efficientnet_lite0"


def located(config: Config) -> Config:
    """Paths made absolute, so that the settings mean the same from any folder."""
    data, model = config.data, config.model
    source = data.source
    if source and not (source in BUILTIN_NAMES and not Path(source).exists()):
        source = str(Path(source).absolute())
    csv = str(Path(data.labels_csv).absolute()) if data.labels_csv else None
    weights = str(Path(model.weights).absolute()) if model.weights else None
    return config.model_copy(
        update={
            "data": data.model_copy(update={"source": source, "labels_csv": csv}),
            "model": model.model_copy(update={"weights": weights}),
        }
    )


def open_table(config: Config) -> Table:
    data = config.data
    if not data.source:
        raise UsageError(
            "No data was given. Say where the images are: sfumato train photos/ --labels labels.csv, or data=PATH; "
            f"built in are {' and '.join(BUILTIN_NAMES)}."
        )
    return load_table(
        data.source,
        labels=Path(data.labels_csv) if data.labels_csv else None,
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
    )


def splits_of(config: Config, table: Table, path: Path) -> Splits:
    """The splits kept in `path`, or else drawn and kept there: once there, they are never drawn again."""
    if path.exists():
        splits = Splits.load(path, table)
    else:
        splits = draw(config, table)
        distributed.barrier()  # all ranks have seen that there was none
        if is_first():
            splits.save(path)
    distributed.barrier()
    return splits


def uses_unlabeled(method: str) -> bool:
    return describe(method).views.weak


def make_method(config: Config, data: ImageData) -> Method:
    facts = Facts(num_classes=data.num_classes, num_unlabeled=len(data.splits.unlabeled))
    return build(config.method.name, facts, config.method.options)


def make_model(config: Config, table: Table) -> Classifier:
    """Initialised from the seed alone."""
    torch.manual_seed(config.seed)
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
