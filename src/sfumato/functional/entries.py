"""What bins and proper scores need of each entry, from logit maps of which no probabilities are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.functional.calibration import NLL_FLOOR

_BLOCK = 1 << 16  # float64 values at once on a CPU, half a megabyte: they stay in its cache


@dataclass(frozen=True, slots=True)
class Entries:
    """One value for each of n labeled entries, float64."""

    top: Tensor  # (n,) the winning probability
    right: Tensor  # (n,) bool
    nll: Tensor  # (n,) nats, clipped at 27.6
    brier: Tensor  # (n,) in [0, 2]


def entries(logits: Tensor, guess: Tensor, labels: Tensor, valid: Tensor, temperature: float = 1.0) -> Entries:
    """The labeled entries of softmax(logits / temperature), computed in float64.

    logits: (N, C, *S); guess, labels: (N, *S) int64; valid: (N, *S) bool, where a label counts. `right` compares
    `guess`, for which `logits.argmax(dim=1)` is meant, since a small temperature can round two probabilities to 1.
    """
    samples, classes = logits.shape[:2]
    z, y = logits.reshape(samples, classes, -1), labels.reshape(samples, -1).clamp(0, classes - 1)
    top, nll, brier = torch.empty((3, *y.shape), dtype=torch.float64, device=z.device).unbind()
    span = max(1, _BLOCK // (samples * classes)) if z.device.type == "cpu" else max(1, z.shape[2])
    for start in range(0, z.shape[2], span):
        part = slice(start, start + span)
        d = z[:, :, part].double() / temperature
        d -= d.amax(dim=1, keepdim=True)
        true = d.gather(1, y[:, part].unsqueeze(1)).squeeze(1)
        e = d.exp_()
        total = e.sum(dim=1)
        top[:, part] = 1 / total
        nll[:, part] = total.log() - true
        brier[:, part] = e.square_().sum(dim=1) / total.square() - 2 * true.exp() / total + 1
    kept = valid.reshape(samples, -1)
    nll = nll[kept].clamp_max(-math.log(NLL_FLOOR))
    return Entries(top[kept], (guess == labels)[valid], nll, brier[kept].clamp_min(0))
