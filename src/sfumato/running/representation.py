"""A head that turns features into what a contrast compares, and the average of its weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from sfumato.functional.probability import full_precision


class Projection(nn.Sequential):
    """Linear, layer norm, ReLU, linear: features (M, D) to representations (M, dim), each row by itself.

    On maps it is two convolutions of 1 x 1, on the rows that are wanted and no others. A layer norm and not a batch
    norm: padded pixels must not reach the others, and ranks and the average must agree. Always in full precision.
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__(nn.Linear(features, dim), nn.LayerNorm(dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            x = full_precision(features)
            for layer in self:
                x = layer(x)
        return x


class Representation(nn.Module):
    """A `Projection` and the average of its weights.

    `average` is the same head with the average of its weights: what the teacher's features go through. Its parameters
    take no gradient and are saved with the method. Buffer: `step`, which the average has seen.
    """

    step: Tensor

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.head = Projection(features, dim)
        self.averaged = deepcopy(self.head).requires_grad_(False)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.head(features)
        return out

    @torch.no_grad()
    def average(self, features: Tensor) -> Tensor:
        """Of features of the teacher, without gradient."""
        out: Tensor = self.averaged(features)
        return out

    @torch.no_grad()
    def follow(self, step: int, momentum: float) -> None:
        """Average in the weights that the step before `step` left; to be called before they are used.

        momentum: of that step. At the first step, and when called again in the same one, nothing moves.
        """
        share = (self.step < step).to(torch.get_default_dtype()) * (1 - momentum)
        for old, new in zip(self.averaged.parameters(), self.head.parameters(), strict=True):
            old.lerp_(new, share.to(old.dtype))
        self.step.fill_(step)
