from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import UsageError, nearest
from sfumato.models.blocks import Norm, conv, make_norm, unit


class Residual(nn.Module):
    """x + two 3x3 convolutions of x, then ReLU."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        self.first = unit(width, width, norm=norm)
        self.second = nn.Sequential(conv(width, width), make_norm(width, norm))

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
            unit(in_channels, 16, norm=norm),
            unit(16, 32, stride=2, norm=norm),
            unit(32, 64, stride=2, norm=norm),
            Residual(64, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x).mean((2, 3))
        return features
