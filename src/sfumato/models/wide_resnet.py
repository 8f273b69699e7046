from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1  # of the leaky ReLU


class Block(nn.Module):
    """Norm and activation before each of two 3x3 convolutions, added to a shortcut.

    Where the width changes, the shortcut is a 1x1 convolution and branches off after the first activation; elsewhere it
    is the input itself.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1 = _norm(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm2 = _norm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride=stride, bias=False) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        active = _activate(self.norm1(x))
        change: Tensor = self.conv2(_activate(self.norm2(self.conv1(active))))
        return change + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """The wide residual net of the classic semi-supervised benchmarks (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

    Depth 28 and width 2 give 1,467,610 parameters with three input channels and a head of ten classes. As in those
    benchmarks: convolutions without bias, Kaiming initialisation (fan out), batch norm with eps 0.001 and momentum
    0.999 (the weight of the old value; 0.001 as torch counts it), leaky ReLU of slope 0.1. With that momentum the
    running statistics need thousands of steps to leave their start: for hundreds of steps give `norm_momentum` 0.9.

    stages: 3 as published, or 4 and with them `first_stride` 2, the net of the same benchmarks for 96 pixels: "37-2".

    Input (N, in_channels, H, W) of any size from 8; output (N, 64 * width), or twice that of four stages.
    """

    smallest = 8  # pixels

    def __init__(
        self,
        in_channels: int = 3,
        *,
        depth: int = 28,
        width: int = 2,
        stages: int = 3,
        first_stride: int = 1,
        norm_momentum: float = 0.999,
    ) -> None:
        super().__init__()
        widths = (16, *(2**stage * 16 * width for stage in range(stages)))
        self.num_features = widths[-1]
        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    Block(before, after, stride), *(Block(after, after, 1) for _ in range((depth - 4) // 6 - 1))
                )
                for before, after, stride in zip(widths, widths[1:], (first_stride, *[2] * (stages - 1)), strict=False)
            )
        )
        self.norm = _norm(widths[-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = round(1 - norm_momentum, 12)  # torch: the weight of the new value

    def forward(self, x: Tensor) -> Tensor:
        return _activate(self.norm(self.stages(self.stem(x)))).mean((2, 3))


def wide_head(num_features: int, num_classes: int) -> nn.Linear:
    """The head of those benchmarks: Xavier initialisation, no bias at the start."""
    head = nn.Linear(num_features, num_classes)
    nn.init.xavier_normal_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=0.001)


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)
