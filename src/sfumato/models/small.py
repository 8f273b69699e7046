from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UsageError, nearest

Norm = Literal["batch", "group"]
GROUPS = 8  # of 2, 4 and 8 channels at widths 16, 32 and 64


class Residual(nn.Module):
    """x + two 3x3 convolutions of x, then ReLU."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.first = _unit(width, width, 1, norm)
        self.second = nn.Sequential(_conv(width, width, 1), _norm(width, norm))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Small(nn.Module):
    """A net for images of a few dozen pixels: minutes of training on one processor core.

    Three 3x3 convolutions to 16, 32 and 64 channels, the last two with stride 2, a residual block, a mean over space.
    With one input channel and ten classes, head included: 98,042 parameters and about 5.4 M multiplications at 28 px.
    Convolutions have no bias, since a norm follows each. `norm="group"` takes group instead of batch norm, so that
    the output of an image does not depend on the others of the batch.

    Input (N, in_channels, H, W) with H, W >= 8; output (N, 64).
    """

    num_features = 64
    smallest = 8  # pixels

    def __init__(self, in_channels: int = 3, *, norm: Norm = "batch") -> None:
        super().__init__()
        if norm not in ("batch", "group"):
            raise UsageError(f"Model 'small': unknown norm '{norm}'." + nearest(norm, ("batch", "group")))
        self.layers = nn.Sequential(
            _unit(in_channels, 16, 1, norm),
            _unit(16, 32, 2, norm),
            _unit(32, 64, 2, norm),
            Residual(64, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x).mean((2, 3))
        return features


def _unit(before: int, after: int, stride: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(_conv(before, after, stride), _norm(after, norm), nn.ReLU(inplace=True))


def _conv(before: int, after: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


def _norm(width: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(GROUPS, width)
