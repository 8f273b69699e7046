"""CutOut: boxes of each image are erased, and nothing is to be predicted there.

DeVries and Taylor 2017, arXiv:1708.04552, in the form of ST++ (Yang et al. 2022, arXiv:2106.05095): the box is filled
with noise, and its pixels are void.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.types import Pseudo


@dataclass(frozen=True, slots=True)
class CutOut:
    """Which pixels of N images are erased, and what stands there instead. A `Warp`: called, it erases labels."""

    region: Tensor  # (N, H, W) bool
    noise: Tensor  # (N, channels, H, W)

    def images(self, x: Tensor) -> Tensor:
        """The images (N, channels, H, W) with noise in their boxes."""
        return torch.where(self.region[:, None], self.noise, x)

    def __call__(self, pseudo: Pseudo) -> Pseudo:
        """The pseudo-label with nothing to predict in the boxes."""
        return Pseudo(pseudo.target, pseudo.weight, pseudo.valid.masked_fill(self.region, 0.0))
