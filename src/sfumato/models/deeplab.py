from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.models.blocks import unit
from sfumato.models.segmenter import Decoder, Features
from sfumato.models.timm_encoder import TimmEncoder

REACH = 96  # pixels: the dilation rates 6, 12, 18 of stride 16 in the image


class Pooled(nn.Module):
    """The mean over space as a branch of the pyramid.

    Its norm is over the channels of one image. A batch norm, as in the reference, has a single value per image here and
    therefore fails on a batch of one.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, bias=False)
        self.norm = nn.GroupNorm(1, after)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(self.norm(self.conv(x.mean((2, 3), keepdim=True))))
        return y.expand(-1, -1, *x.shape[-2:])


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, arXiv:1706.05587): 1x1, dilated 3x3 and the mean."""

    def __init__(self, before: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        dilated = [unit(before, width, dilation=rate) for rate in rates]
        self.branches = nn.ModuleList([unit(before, width, kernel=1), *dilated, Pooled(before, width)])
        self.project = unit(len(self.branches) * width, width, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
        return y


class DeepLab(Decoder):
    """The decoder of DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611), as semi-supervised segmentation uses it.

    Full convolutions instead of separable ones, no dropout; the pyramid's output is resized to the skip, so that the
    image may have any size. Dilation rates are 6, 12, 18 at stride 16, and the same reach in the image at any other.

    Features: the skip (stride 4) and the deepest map. Output (N, width, h, w) at the skip's size.
    """

    def __init__(
        self,
        encoder: TimmEncoder,
        *,
        width: int = 256,
        skip_width: int = 48,
        rates: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        skip, deep = encoder.channels
        self.num_features = width
        self.stride = float(encoder.finest)
        self.pyramid = Pyramid(deep, width, rates or [max(1, REACH * k // encoder.deepest) for k in (1, 2, 3)])
        self.reduce = unit(skip, skip_width, kernel=1)
        self.fuse = nn.Sequential(unit(width + skip_width, width), unit(width, width))

    def forward(self, features: Features) -> Tensor:
        skip, deep = features
        up = F.interpolate(self.pyramid(deep), skip.shape[-2:], mode="bilinear", align_corners=True)
        y: Tensor = self.fuse(torch.cat([up, self.reduce(skip)], dim=1))
        return y
