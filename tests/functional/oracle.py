"""Inputs and slow formulas for the tests of the functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CLASSES = (2, 5, 1000)
SPACES = ((), (2, 3))


def logits_of(*shape: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    total = sum(math.exp(z - top) for z in row)
    return [math.exp(z - top) / total for z in row]
