"""Predictions of a model, and what they are worth. Nothing here touches training state.

The counts come from one confusion matrix, made by a single bincount. torchmetrics is the oracle in the tests and not
the engine: it counts a class that is predicted but never labelled as recall 0, and under deterministic algorithms its
bincount builds an (N, C^2) table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from sfumato.errors import CollapseError, DataError, UsageError
from sfumato.functional import calibration
from sfumato.functional.confusion import confusion as counted
from sfumato.types import HeldOut, Output

PARTS = ("val", "test")  # the splits that are held out


@dataclass(frozen=True, slots=True)
class Scored:
    """What a network is worth on held-out labels: every metric by name, and predictions to calibrate by."""

    metrics: dict[str, float]  # empty when there were none
    held_out: HeldOut


@dataclass(frozen=True, slots=True)
class Measured:
    """What a network is worth in the end, on the validation and the test split."""

    temperature: float  # fitted on validation labels, 1 without any
    sections: dict[str, dict[str, float]]  # "val", "test" and "test_calibrated": metrics, empty without images
    arrays: dict[str, dict[str, npt.NDArray[Any]]]  # "val" and "test": what predictions/PART.npz keeps


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule has the mode it had, frozen batch norms included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def predict(model: nn.Module, batches: Iterable[Tensor], *, device: torch.device | str) -> Tensor:
    """Logits of all batches in order, (N, C, *S) float32 on the CPU, without gradient.

    batches: image tensors (n, channels, H, W) ready for the model; n may differ and be 1. The model answers with an
    `Output` or with logits. Modes, buffers and the random state of torch (CPU and `device`) are as before afterwards.

    Raises DataError when there is no batch.
    """
    device = torch.device(device)
    parts = []
    with undisturbed(model, device):
        for images in batches:
            answer = model(images.to(device, non_blocking=True))
            logits = answer.logits if isinstance(answer, Output) else answer
            parts.append(logits.float().cpu())
    if not parts:
        raise DataError("nothing to predict: no images were given. Check that the folder or split is not empty.")
    return torch.cat(parts)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Eval mode without gradient inside; afterwards modes and random state (CPU and `device`) are as before.

    A layer that draws in eval mode, or a loader that draws a seed, must not move what training draws next.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        with evaluating(model), torch.no_grad():
            yield


def refuse_broken(logits: Mapping[str, Tensor]) -> None:
    """Raise CollapseError when the predictions on a split are not finite."""
    for part, found in logits.items():
        if not bool(found.isfinite().all()):
            raise CollapseError(
                f"The trained network's predictions on the {part} split are not finite. "
                "Lower the learning rate (lr), clip gradients (clip=1.0), or train in fp32."
            )


def confusion(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How often each class was taken for each, (C, C) int64, rows = label, columns = prediction.

    logits: (N, C, *S), or probabilities; labels: (N, *S), of which `functional.confusion` ignores void and negative
    ones. Of tied classes the first wins.
    """
    return counted(logits.argmax(dim=1), labels, num_classes)


def evaluate(
    logits: Tensor, labels: Tensor, *, classes: Sequence[str], bins: int = 15, temperature: float = 1.0
) -> dict[str, float]:
    """Every metric of one set of predictions, as fractions and nats.

    logits: (N, C, *S); labels: (N, *S) int64, negative ones are ignored; classes: C names; temperature: what the logits
    are divided by before the softmax, which moves calibration metrics only.

    "acc"; "balanced_acc", mean recall over the classes that have labels; "f1_macro", mean F1 over the classes that are
    labelled or predicted; "recall/<class>", "precision/<class>"; "nll" (clipped at 27.6 nats); "brier";
    "ece", "ece_adaptive", "ece_classwise" with `bins` bins (edges: `functional.calibration`).

    What has no denominator is NaN and left out of means: recall of a class without labels, precision of a class never
    predicted, F1 of a class that is neither. With no label at all everything is NaN.

    Raises UsageError when the names, shapes or labels do not fit.
    """
    if logits.dim() < 2 or logits.shape[1] != len(classes):
        raise UsageError(
            f"logits of shape {tuple(logits.shape)} do not fit {len(classes)} class names: "
            f"expected (N, {len(classes)}, *S)."
        )
    if not temperature > 0:
        raise UsageError(f"temperature={temperature}: expected a positive number.")
    # float64 throughout, once per evaluation: float32 softmax moves confidences over bin edges
    p, y = calibration.valid_entries(torch.softmax(logits.double() / temperature, dim=1), labels)
    # Counted on the logits themselves: a small temperature can round two probabilities to the same 1.
    counts = confusion(logits, labels, len(classes))
    scores = {
        "nll": calibration.nll(p, y),
        "brier": calibration.brier(p, y),
        "ece": calibration.ece(p, y, bins=bins),
        "ece_adaptive": calibration.adaptive_ece(p, y, bins=bins),
        "ece_classwise": calibration.classwise_ece(p, y, bins=bins),
    }
    return agreement(counts, classes) | {name: float(value) for name, value in scores.items()}


def agreement(counts: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """The part of `evaluate` that a confusion matrix (C, C), rows = label, decides."""
    recall, precision, f1 = per_class(counts)
    result = {
        "acc": float(counts.diagonal().sum().double() / counts.sum()),
        "balanced_acc": float(recall.nanmean()),
        "f1_macro": float(f1.nanmean()),
    }
    for name, values in (("recall", recall), ("precision", precision)):
        result |= {f"{name}/{label}": value for label, value in zip(classes, values.tolist(), strict=True)}
    return result


def per_class(counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Recall, precision and F1 of each class from a confusion matrix (C, C), each (C,) float64; 0 / 0 is NaN."""
    table = counts.double()
    hit, labeled, predicted = table.diagonal(), table.sum(dim=1), table.sum(dim=0)
    return hit / labeled, hit / predicted, 2 * hit / (labeled + predicted)
