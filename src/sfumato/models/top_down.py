"""Decoders for a processor, and a net from scratch that uses one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.errors import check_choice
from sfumato.models.blocks import Norm, unit
from sfumato.models.classifier import halves
from sfumato.models.segmenter import Decoder, Encoder, Features
from sfumato.models.timm_encoder import TimmEncoder


class TopDown(Decoder):
    """From the coarsest map to the finest: resize, add the next map reduced to `width` channels, a 3x3 convolution.

    The pyramid of Lin et al. 2017 (arXiv:1612.03144) with its finest level as the only output. With EfficientNet-lite0
    and 48 channels: 3.07 M parameters, encoder included.

    Features: maps of any number, the finest first. Output (N, width, h, w) at the finest one's size.
    """

    def __init__(self, encoder: TimmEncoder, *, width: int = 48) -> None:
        super().__init__()
        self.num_features = width
        self.stride = float(encoder.finest)
        self.reduce = nn.ModuleList([unit(before, width, kernel=1) for before in encoder.channels])
        self.smooth = nn.ModuleList([unit(width, width) for _ in encoder.channels[1:]])

    def forward(self, features: Features) -> Tensor:
        y: Tensor = self.reduce[-1](features[-1])
        for level in reversed(range(len(features) - 1)):
            side: Tensor = self.reduce[level](features[level])
            y = self.smooth[level](_resized(y, side) + side)
        return y


class SmallEncoder(Encoder):
    """Four levels of two 3x3 convolutions, 16, 32, 64 and 96 channels at strides 1, 2, 4 and 8."""

    widths = (16, 32, 64, 96)
    deepest = 8
    taps = (0, 1, 2, 3)

    def __init__(self, in_channels: int = 3, *, norm: Norm = "batch") -> None:
        super().__init__()
        check_choice("small_seg", "norm", norm, ("batch", "group"))
        self.channels = self.widths
        self.normalization = halves(in_channels)
        before = (in_channels, *self.widths[:-1])
        self.net = nn.ModuleList(
            nn.Sequential(unit(a, b, stride=1 if level == 0 else 2, norm=norm), unit(b, b, norm=norm))
            for level, (a, b) in enumerate(zip(before, self.widths, strict=True))
        )

    def forward(self, x: Tensor) -> Features:
        maps = [x]
        for level in self.net.children():
            maps.append(level(maps[-1]))
        return tuple(maps[1:])


class SmallDecoder(Decoder):
    """Reduce to the width of the next finer map, resize, add that map, a 3x3 convolution: up to the image's size."""

    num_features = SmallEncoder.widths[0]
    stride = 1.0

    def __init__(self, *, norm: Norm = "batch") -> None:
        super().__init__()
        fine, coarse = SmallEncoder.widths[:-1], SmallEncoder.widths[1:]
        self.reduce = nn.ModuleList(unit(b, a, kernel=1, norm=norm) for a, b in zip(fine, coarse, strict=True))
        self.smooth = nn.ModuleList(unit(a, a, norm=norm) for a in fine)

    def forward(self, features: Features) -> Tensor:
        y = features[-1]
        for level in reversed(range(len(features) - 1)):
            y = self.smooth[level](_resized(self.reduce[level](y), features[level]) + features[level])
        return y


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
