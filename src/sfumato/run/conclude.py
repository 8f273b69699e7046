"""The end of a training: its predictions on held-out images, what they are worth, and the files that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from sfumato import __version__
from sfumato.config import Config, nested
from sfumato.errors import CollapseError
from sfumato.evaluate import evaluate
from sfumato.image_data import ImageData
from sfumato.posthoc.temperature import fit_temperature
from sfumato.run import files
from sfumato.run.ranks import is_first
from sfumato.train import Result

PARTS = ("val", "test")
Predicted = Mapping[str, tuple[Tensor, Tensor]]  # part -> logits (N, C), labels (N,)


def conclude(result: Result, data: ImageData, config: Config, folder: Path) -> dict[str, Any]:
    """Evaluate and write everything; metrics.json comes last and says that the run has ended.

    The network is the last one (the averaged weights if there are any). The one that was best on validation is reported
    apart, since choosing it looked at validation labels. The temperature comes from validation labels too.
    """
    last = predicted(result.model, data, result.device)
    temperature = temperature_of(last, folder)
    best, best_temperature = _best(result, data, config, last, folder)
    metrics = {
        "method": config.method.name,
        "seed": config.seed,
        "steps": config.train.steps,
        "seconds": round(result.seconds, 3),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "temperature": temperature,
        **scores(last, data.classes, config.evaluate.bins, temperature),
        "best": best,
        "classes": data.classes,
        "images": counts(data),
        "collapse": result.collapse,
        "warnings": result.warnings,
    }
    if is_first():
        write_predictions(folder, data, last)
        files.write_bytes(folder / files.WEIGHTS, _packed(result.model.state_dict()))
        if result.best_state is not None:
            files.write_bytes(folder / files.BEST_WEIGHTS, _packed(result.best_state))
        card = _card(data, config, metrics, best_temperature)
        files.write_json(folder / files.CARD, card)
        files.write_json(folder / files.METRICS, metrics)
    return dict(files.plain(metrics))


def predicted(model: nn.Module, data: ImageData, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """On the validation and the test split; no images give logits (0, C)."""
    return {part: data.predict(model, getattr(data.splits, part), device) for part in PARTS}


def temperature_of(found: Predicted, folder: Path) -> float:
    """Fitted on the validation labels; 1 when there are none."""
    for part, (logits, _) in found.items():
        if not bool(logits.isfinite().all()):
            raise CollapseError(
                f"{folder}: the trained network's predictions on the {part} split are not finite. "
                "Lower the learning rate (lr), clip gradients (clip=1.0), or train in fp32."
            )
    return fit_temperature(*found["val"])


def scores(found: Predicted, classes: list[str], bins: int, temperature: float) -> dict[str, Any]:
    """The sections "val", "test" and "test_calibrated" of metrics.json; empty for a split without images."""

    def score(part: str, temperature: float = 1.0) -> dict[str, float]:
        logits, labels = found[part]
        return evaluate(logits, labels, classes=classes, bins=bins, temperature=temperature) if len(labels) else {}

    return {"test": score("test"), "test_calibrated": score("test", temperature), "val": score("val")}


def counts(data: ImageData) -> dict[str, int]:
    return {part: len(getattr(data.splits, part)) for part in ("labeled", "unlabeled", *PARTS)}


def write_predictions(folder: Path, data: ImageData, found: Predicted) -> None:
    """predictions/val.npz and test.npz: rows, names, logits (N, C) and labels."""
    for part, (logits, labels) in found.items():
        rows = getattr(data.splits, part)
        names = np.array([data.names[row] for row in rows], dtype=np.str_)
        arrays = {"rows": rows, "names": names, "logits": logits.numpy(), "labels": labels.numpy()}
        files.write_arrays(folder / "predictions" / f"{part}.npz", arrays)


def _best(
    result: Result, data: ImageData, config: Config, last: Predicted, folder: Path
) -> tuple[dict[str, Any] | None, float | None]:
    """Figures of the network that was best on validation, and its temperature; None without a validation split."""
    if result.best_step is None or result.best_state is None:
        return None, None
    found = last
    if result.best_step != config.train.steps:
        model = deepcopy(result.model)
        model.load_state_dict(result.best_state)
        found = predicted(model, data, result.device)
    temperature = temperature_of(found, folder)
    told = scores(found, data.classes, config.evaluate.bins, temperature)
    return {"step": result.best_step, "temperature": temperature, **told}, temperature


def _packed(state: Mapping[str, Tensor]) -> bytes:
    """safetensors; it takes plain memory formats only, and no storage twice."""
    ready = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    return safetensors.torch.save(ready)


def _card(
    data: ImageData, config: Config, metrics: Mapping[str, Any], best_temperature: float | None
) -> dict[str, Any]:
    """What is needed to use the weights, and what to expect of them."""
    settings = nested(config)
    return {
        "sfumato": __version__,
        "classes": data.classes,
        "image_size": data.augment.image_size,
        "channels": data.table.images.channels,
        "mean": list(data.augment.mean),
        "std": list(data.augment.std),
        "preset": config.views.preset,
        "temperature": metrics["temperature"],
        "temperature_best": best_temperature,
        "method": settings["method"],
        "model": {"name": config.model.name, "dropout": config.model.dropout, "options": config.model.options},
        "splits": data.splits.fingerprint,
        "seed": config.seed,
        "steps": config.train.steps,
        "images": metrics["images"],
        "test": metrics["test"],
        "test_calibrated": metrics["test_calibrated"],
    }
