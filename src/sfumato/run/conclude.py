"""The end of a training: its predictions on held-out images, what they are worth, and the files that hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from sfumato import __version__
from sfumato.batches import TrainData
from sfumato.config import Config, nested
from sfumato.evaluate import PARTS, Measured
from sfumato.run import files
from sfumato.run.ranks import is_first
from sfumato.run.triage import triage
from sfumato.train import Result

ROUND = (
    "method",
    "seconds",
    "images",
    "joined",
    "val",
    "test",
)  # what metrics.json keeps of each training before the last


def conclude(
    result: Result, data: TrainData, config: Config, folder: Path, *, earlier: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Evaluate and write everything; metrics.json comes last and says that the run has ended.

    The network is the last one (the averaged weights if there are any). The one that was best on validation is reported
    apart, since choosing it looked at validation labels, and so is the student that the average is of. The temperature
    comes from validation labels too.

    earlier: the metrics of the trainings before it, where the run takes several; their seconds are added.
    """
    last = data.measure(result.model, result.device, bins=config.evaluate.bins)
    best = _best(result, data, config, last)
    metrics = {
        "method": config.label,
        "criterion": data.criterion,
        "seed": config.seed,
        "steps": config.train.steps,
        "seconds": round(result.seconds + (earlier[-1]["seconds"] if earlier else 0.0), 3),
        "cpu_seconds": round(result.cpu_seconds + (earlier[-1]["cpu_seconds"] if earlier else 0.0), 3),
        "temperature": last.temperature,
        **last.sections,
        "student": _student(result, data),
        "best": best and {"step": result.best_step, "temperature": best.temperature, **best.sections},
        "classes": data.classes,
        "images": counts(data),
        "protocol": config.data.protocol,
        "lists": data.splits.lists,
        **data.told(),
        "suspects": triage(result.labels, data, folder),
        "collapse": result.collapse,
        "warnings": result.warnings,
        **({"rounds": [{key: one[key] for key in ROUND if key in one} for one in earlier]} if earlier else {}),
    }
    if is_first():
        write_predictions(folder, last)
        files.write_bytes(folder / files.WEIGHTS, _packed(result.model.state_dict()))
        if result.best_state is not None:
            files.write_bytes(folder / files.BEST_WEIGHTS, _packed(result.best_state))
        files.write_json(folder / files.CARD, _card(data, config, metrics, None if best is None else best.temperature))
        files.write_json(folder / files.METRICS, metrics)
    return dict(files.plain(metrics))


def counts(data: TrainData) -> dict[str, int]:
    """Of each part; of the labeled ones without those that a network has labeled."""
    splits = data.splits
    rest = {part: len(getattr(splits, part)) for part in ("unlabeled", *PARTS)}
    return {"labeled": len(data.own_labeled), **rest}


def write_predictions(folder: Path, found: Measured) -> None:
    """predictions/val.npz and test.npz."""
    for part, arrays in found.arrays.items():
        files.write_arrays(folder / "predictions" / f"{part}.npz", arrays)


def _best(result: Result, data: TrainData, config: Config, last: Measured) -> Measured | None:
    """The network that was best on validation; None without a validation split.

    The last one may differ from what was evaluated last: a method may learn from that evaluation what it deploys.
    """
    if result.best_step is None or result.best_state is None:
        return None
    state = result.model.state_dict()
    if all(torch.equal(best.to(state[name].device), state[name]) for name, best in result.best_state.items()):
        return last
    model = deepcopy(result.model)
    model.load_state_dict(result.best_state)
    return data.measure(model, result.device, bins=config.evaluate.bins)


def _student(result: Result, data: TrainData) -> dict[str, dict[str, float]] | None:
    """Figures of the weights themselves on each split; None where no average of them stands in their place."""
    student = result.student
    if student is None:
        return None
    return {part: data.score(student, getattr(data.splits, part), result.device).metrics for part in PARTS}


def _packed(state: Mapping[str, Tensor]) -> bytes:
    """safetensors; it takes plain memory formats only, and no storage twice."""
    ready = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    return safetensors.torch.save(ready)


def _card(
    data: TrainData, config: Config, metrics: Mapping[str, Any], best_temperature: float | None
) -> dict[str, Any]:
    """What is needed to use the weights, and what to expect of them."""
    settings = nested(config)
    return {
        "sfumato": __version__,
        "classes": data.classes,
        **data.card(),
        **_reading(config),
        "preset": config.views.preset,
        "temperature": metrics["temperature"],
        "temperature_best": best_temperature,
        "method": settings["method"],
        "addon": settings["addon"],
        "model": {key: settings["model"][key] for key in ("name", "dropout", "options", *_encoder(config))},
        "splits": data.splits.fingerprint,
        "lists": data.splits.lists,
        "seed": config.seed,
        "steps": config.train.steps,
        "images": metrics["images"],
        "test": metrics["test"],
        "test_calibrated": metrics["test_calibrated"],
    }


def _reading(config: Config) -> dict[str, Any]:
    """How images with masks are read; the size of other images is with the data."""
    return {"resize": nested(config)["data"]["resize"]} if config.data.task == "segmentation" else {}


def _encoder(config: Config) -> tuple[str, ...]:
    return ("encoder",) if config.model.encoder else ()
