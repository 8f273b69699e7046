"""A trained network taken from the folder of its run, whatever its task."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sfumato.config import load
from sfumato.data import Splits
from sfumato.errors import DataError
from sfumato.models import Net, build_model, build_segmenter, load_weights
from sfumato.run import files, prepare
from sfumato.run.conclude import write_predictions

Select = Literal["last", "best"]


@dataclass(frozen=True)
class Trained:
    """A network with all that its predictions depend on; the card says how images are prepared for it."""

    folder: Path
    card: dict[str, Any]
    model: Net
    temperature: float
    device: torch.device
    select: Select = "last"

    @property
    def classes(self) -> list[str]:
        return list(self.card["classes"])

    @property
    def dense(self) -> bool:
        """Whether it gives each pixel a class, and not each image."""
        return self.card.get("task") == "segmentation"


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
    model = _rebuilt(card)
    load_weights(model, folder / weights)
    temperature = card["temperature"] if select == "last" else card["temperature_best"]
    return Trained(folder, card, model.to(device).eval(), temperature, device, select)


def _rebuilt(card: dict[str, Any]) -> Net:
    made, options = card["model"], card["model"]["options"]
    common = {"num_classes": len(card["classes"]), "in_channels": card["channels"]}
    if card.get("task") == "segmentation":
        return build_segmenter(made["name"], encoder=made.get("encoder"), **common, **options)
    return build_model(made["name"], image_size=card["image_size"], dropout=made["dropout"], **common, **options)


CARD_KEYS = ("channels", "mean", "std", "preset", "temperature", "method", "model")


def _card(folder: Path) -> dict[str, Any]:
    path = folder / files.CARD
    mend = f"Delete it, and `sfumato train --resume {shlex.quote(str(folder))}` writes it anew."
    card = files.read_json(path, mend)
    needed = ("classes", "crop" if card.get("task") == "segmentation" else "image_size", *CARD_KEYS)
    missing = [key for key in needed if key not in card]
    if missing:
        raise DataError(f"{path}: it has no {', '.join(missing)}. {mend}")
    return card


def evaluate_run(trained: Trained) -> dict[str, Any]:
    """The figures of a run again, on its own splits. The predictions of its last network are written anew."""
    config = load(trained.folder / files.CONFIG)
    table = prepare.open_table(config)
    splits = Splits.load(trained.folder / files.SPLITS, table)
    data = prepare.make_data(config, table, splits, trained.model)
    found = data.measure(trained.model, trained.device, bins=config.evaluate.bins)
    metrics = files.metrics_of(trained.folder) or {}
    if trained.select == "last":
        write_predictions(trained.folder, found)
    return {**metrics, "temperature": found.temperature, **dict(files.plain(found.sections))}


def no_run_metrics(trained: Trained, sections: dict[str, dict[str, float]], images: int) -> dict[str, Any]:
    """Figures on other data than the run's, with the keys of metrics.json."""
    card = trained.card
    counts = {"labeled": 0, "unlabeled": 0, "val": 0, "test": images}
    about = {"method": _label(card), "criterion": "miou" if trained.dense else "acc", "seed": card["seed"]}
    told = {"steps": card["steps"], "seconds": 0.0, "temperature": trained.temperature, **sections}
    return dict(files.plain(about | told | {"images": counts, "collapse": None}))


def _label(card: dict[str, Any]) -> str:
    """What the run trained, as its own metrics.json calls it: with the add-on, where there was one."""
    names = (card["method"]["name"], (card.get("addon") or {}).get("name"))
    return "+".join(name for name in names if name is not None)
