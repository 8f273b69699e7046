"""A trained network taken from the folder of its run: to predict on new images, or to evaluate again."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato.config import load
from sfumato.data import ImageStore, Splits, Table, load_table
from sfumato.data.decode import BrokenImage, attempt_each, digest
from sfumato.data.images import describe_broken
from sfumato.data.listing import find_images
from sfumato.errors import DataError
from sfumato.evaluate import predict
from sfumato.image_data import ImageData, sections
from sfumato.models import Classifier, build_model, load_weights
from sfumato.run import files, prepare
from sfumato.run.conclude import write_predictions
from sfumato.views import Augment

Select = Literal["last", "best"]
BATCH = 256


@dataclass(frozen=True)
class Trained:
    """A network with all that its predictions depend on."""

    folder: Path
    card: dict[str, Any]
    model: Classifier
    augment: Augment
    temperature: float
    device: torch.device
    select: Select = "last"

    @property
    def classes(self) -> list[str]:
        return list(self.card["classes"])

    def logits(self, images: ImageStore, rows: Sequence[int]) -> Tensor:
        """(N, C) float32 on the CPU."""

        def batches() -> Iterator[Tensor]:
            for start in range(0, len(rows), BATCH):
                yield self.augment.evaluation(images.load(rows[start : start + BATCH]).to(self.device))

        return predict(self.model, batches(), device=self.device)


def open_trained(folder: Path, select: Select = "last") -> Trained:
    """The network of a run: its last one, or the one that was best on validation.

    Raises DataError when the run has not ended, has no such network, or a file of it cannot be read.
    """
    weights = files.WEIGHTS if select == "last" else files.BEST_WEIGHTS
    if select == "best" and (folder / files.WEIGHTS).exists() and not (folder / weights).exists():
        raise DataError(f"{folder}: no {weights}: the run had no validation split to choose by. Use --select last.")
    files.one_run(folder, (files.CARD, weights))
    card = _card(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(
        card["model"]["name"],
        num_classes=len(card["classes"]),
        in_channels=card["channels"],
        image_size=card["image_size"],
        dropout=card["model"]["dropout"],
        **card["model"]["options"],
    )
    load_weights(model, folder / weights)
    augment = Augment(
        card["preset"], seed=0, image_size=card["image_size"], mean=tuple(card["mean"]), std=tuple(card["std"])
    )
    temperature = card["temperature"] if select == "last" else card["temperature_best"]
    return Trained(folder, card, model.to(device).eval(), augment, temperature, device, select)


CARD_KEYS = ("classes", "image_size", "channels", "mean", "std", "preset", "temperature", "method", "model")


def _card(folder: Path) -> dict[str, Any]:
    path = folder / files.CARD
    mend = f"Delete it, and `sfumato train --resume {shlex.quote(str(folder))}` writes it anew."
    card = files.read_json(path, mend)
    missing = [key for key in CARD_KEYS if key not in card]
    if missing:
        raise DataError(f"{path}: it has no {', '.join(missing)}. {mend}")
    return card


@dataclass(frozen=True)
class Predicted:
    """`text` is a CSV with the columns file, label, probability and top3, one line an image, ordered by name."""

    text: str
    count: int
    left_out: dict[str, str]  # name -> why it cannot be read


def predict_folder(trained: Trained, images: Path, *, top: int = 3, skip_broken: bool = False) -> Predicted:
    """The labels of new images. Probabilities are after temperature scaling.

    images: a folder, searched through, or one image. skip_broken: leave out images that cannot be read (decodes all of
    them once to find out) instead of raising DataError.
    """
    if not images.exists():
        raise DataError(f"{images}: no such file or folder. Give a folder of images, or one image.")
    paths = find_images(images) if images.is_dir() else [images]
    if not paths:
        raise DataError(f"{images}: no image in it or below it.")
    root = images if images.is_dir() else images.parent
    left_out = _broken(paths, root) if skip_broken else {}
    paths = [path for path in paths if path.relative_to(root).as_posix() not in left_out]
    if not paths:
        raise DataError(describe_broken(left_out))
    names = [path.relative_to(root).as_posix() for path in paths]
    size, channels = trained.card["image_size"], trained.card["channels"]
    store = ImageStore(paths, names, image_size=size, channels=channels, keep_limit=0)
    p = torch.softmax(trained.logits(store, range(len(paths))).double() / trained.temperature, dim=1)
    values, places = p.topk(min(top, p.shape[1]), dim=1)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "probability", f"top{top}"])
    for name, sure, found in zip(names, values.tolist(), places.tolist(), strict=True):
        labels = [trained.classes[place] for place in found]
        ranked = "; ".join(f"{label}:{share:.4f}" for label, share in zip(labels, sure, strict=True))
        writer.writerow([name, labels[0], f"{sure[0]:.4f}", ranked])
    return Predicted(text.getvalue(), len(paths), left_out)


def _broken(paths: Sequence[Path], root: Path) -> dict[str, str]:
    looks = attempt_each(digest, paths)
    found = zip(paths, looks, strict=True)
    return {path.relative_to(root).as_posix(): str(look) for path, look in found if isinstance(look, BrokenImage)}


def evaluate_run(trained: Trained) -> dict[str, Any]:
    """The figures of a run again, on its own splits. The predictions of its last network are written anew."""
    config = load(trained.folder / files.CONFIG)
    table = prepare.open_table(config)
    splits = Splits.load(trained.folder / files.SPLITS, table)
    data = ImageData(table, splits, trained.augment, config.evaluate.batch)
    found = data.measure(trained.model, trained.device, bins=config.evaluate.bins)
    metrics = files.metrics_of(trained.folder) or {}
    if trained.select == "last":
        write_predictions(trained.folder, found)
    return {**metrics, "temperature": found.temperature, **dict(files.plain(found.sections))}


def evaluate_on(trained: Trained, source: str, labels: Path | None, *, bins: int = 15) -> dict[str, Any]:
    """Figures on other labelled images: the test split of `source` if it has one, otherwise all that have a label.

    The temperature stays that of the run. Raises DataError when classes are not those of the run.
    """
    card = trained.card
    table = load_table(source, labels=labels, image_size=card["image_size"], channels=card["channels"])
    rows = _labeled_rows(table)
    place = {name: number for number, name in enumerate(trained.classes)}
    strange = [name for name in table.classes if name not in place]
    if strange:
        raise DataError(
            f"{source}: class '{strange[0]}' is none of the run's classes: {', '.join(trained.classes)}. "
            "Rename the class or leave its images out."
        )
    y = torch.tensor([place[table.classes[table.labels[row]]] for row in rows])
    logits = trained.logits(table.images, rows)
    empty = torch.zeros(0, len(place)), torch.zeros(0, dtype=torch.int64)
    found = sections({"test": (logits, y), "val": empty}, trained.classes, bins, trained.temperature)
    images = {"labeled": 0, "unlabeled": 0, "val": 0, "test": len(rows)}
    about = {"method": card["method"]["name"], "seed": card["seed"], "steps": card["steps"], "seconds": 0.0}
    return dict(files.plain(about | {"temperature": trained.temperature, **found, "images": images, "collapse": None}))


def _labeled_rows(table: Table) -> list[int]:
    known = [row for row in range(len(table)) if table.labels[row] >= 0]
    test = [row for row in known if table.split[row] == "test"]
    if not known:
        raise DataError(f"{table.source}: no image has a label, so there is nothing to measure with.")
    return test or known
