"""Confusion matrices: how often each class was taken for each. Rows = label, columns = prediction, int64.

Predictions are (N, *S) int64, labels (N, *S) of any integer type. Ignored are negative labels, and 255 (`VOID`) where
there are no more than 255 classes; what was predicted there is in no count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.errors import UsageError
from sfumato.types import VOID

_BLOCK = 1 << 17  # entries at once on a CPU: what is made of them stays in its caches
_LANES = (4, 2)
_INT16 = 2**15


def confusion(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The matrix of all samples together, (C, C).

    Raises UsageError when the shapes differ or a label is C or more.
    """
    _check_shapes(prediction, labels)
    return confusion_each(prediction.reshape(1, -1), labels.reshape(1, -1), num_classes)[0]


def confusion_each(prediction: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The matrix of each sample, (N, C, C), from one bincount for all of them.

    Neighboring pixels mostly fall into one bin, and adding to it has to wait for the addition before: up to four lanes
    count in turn. A CPU numbers bins in 16 bits where they suffice, as reading memory is most of the work.

    Raises UsageError when the shapes differ or a label is C or more.
    """
    _check_shapes(prediction, labels)
    samples, each = len(labels), (num_classes + 1) * num_classes
    lanes = next((n for n in _LANES if samples * n * each <= _INT16), 1)
    size = samples * lanes * each
    total = torch.zeros(size, dtype=torch.int64, device=labels.device)
    if labels.numel():
        prediction, labels = prediction.reshape(samples, -1), labels.reshape(samples, -1)
        span = max(1, _BLOCK // samples) if labels.device.type == "cpu" else labels.shape[1]
        first = _first_bins(samples, min(span, labels.shape[1]), lanes, each, labels.device)
        # Written over and over: asking the system for memory would take longer than the counting.
        bins, rows = torch.empty_like(first), torch.empty_like(first, dtype=_row_type(labels, num_classes))
        for guess, label in zip(torch.split(prediction, span, dim=1), torch.split(labels, span, dim=1), strict=True):
            number, row = bins[:, : label.shape[1]], _rows(label, num_classes, rows[:, : label.shape[1]])
            number.copy_(guess).add_(row, alpha=num_classes).add_(first[:, : label.shape[1]])
            total += torch.bincount(number.flatten(), minlength=size)
    return total.reshape(samples, lanes, num_classes + 1, num_classes).sum(dim=1)[:, 1:]


def _first_bins(samples: int, span: int, lanes: int, each: int, device: torch.device) -> Tensor:
    """Where the matrix that counts an entry begins, (samples, span)."""
    narrow = torch.int64  # of an accelerator, whose bincount multiplies bins by their number
    if device.type == "cpu":
        narrow = torch.int16 if samples * lanes * each <= _INT16 else torch.int32
    lane = (torch.arange(span, device=device) & (lanes - 1)) * each
    sample = torch.arange(samples, device=device).unsqueeze(1) * (lanes * each)
    return sample.to(narrow) + lane.to(narrow)


def ignored(labels: Tensor, num_classes: int) -> Tensor:
    """Where there is nothing to predict, (N, *S) bool."""
    negative = labels < 0
    return negative if num_classes > VOID else negative | (labels == VOID)


def _row_type(labels: Tensor, num_classes: int) -> torch.dtype:
    return torch.uint8 if labels.dtype == torch.uint8 and num_classes <= VOID else torch.int32


def _rows(labels: Tensor, num_classes: int, out: Tensor) -> Tensor:
    """Each label plus 1. Row 0 takes what is ignored, so that nothing has to be sorted out before the counting."""
    row = out.copy_(labels).add_(1)
    if row.dtype == torch.uint8:  # where 255 + 1 is 0
        largest = int(row.max())
    else:
        largest = int(row.clamp_(min=0).max())
        if num_classes <= VOID and largest <= VOID + 1:
            row &= VOID  # takes 256 to 0; a comparison and a fill would take five times as long
            largest = int(row.max())
    if largest > num_classes:
        raise UsageError(
            f"label {largest - 1} found where there are {num_classes} classes, 0 to {num_classes - 1}: "
            f"mark what is to be ignored with {VOID} or a negative label."
        )
    return row


def _check_shapes(prediction: Tensor, labels: Tensor) -> None:
    if prediction.shape != labels.shape:
        raise UsageError(
            f"labels of shape {tuple(labels.shape)} do not fit predictions of shape {tuple(prediction.shape)}: "
            "expected (N, *S) for both."
        )
