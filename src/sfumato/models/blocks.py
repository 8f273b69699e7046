"""What the nets of this package are made of: convolution, norm, ReLU."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["batch", "group"]
GROUPS = 8  # of 2, 4, 8 and 12 channels at widths 16, 32, 64 and 96


def unit(
    before: int, after: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1, norm: Norm = "batch"
) -> nn.Sequential:
    """Convolution, norm and ReLU; the size is kept, or divided by the stride and rounded up."""
    return nn.Sequential(
        conv(before, after, kernel=kernel, stride=stride, dilation=dilation),
        make_norm(after, norm),
        nn.ReLU(inplace=True),
    )


def conv(before: int, after: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """A convolution without bias, since a norm follows."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(before, after, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)


def make_norm(width: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(GROUPS, width)
