"""A second last layer beside that of the network, and the average of its weights."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.functional.probability import full_precision

Layer = nn.Linear | nn.Conv2d


class SecondHead(nn.Module):
    """Features to logits by a layer such as the network's own last one, newly initialized.

    Its weights are averaged alike with the network's, so that the average of the network has the average of this layer.
    Logits of coarser maps are brought to the size asked for as `models.Segmenter` does it, which cuts its embedding:
    what was cut off is taken for what lies at the edge. Always in full precision.
    Buffers: `step`, which the average has seen, and `momentum`, of that step.

    Args:
        net: the network; where it does not name its last layer, the layer is linear or, with `dense`, a convolution.
        num_classes: C.
        dense: features are maps.
    """

    step: Tensor
    momentum: Tensor

    def __init__(self, net: nn.Module, num_classes: int, *, dense: bool) -> None:
        super().__init__()
        self.head = _alike(net, num_classes, dense)
        self.averaged = deepcopy(self.head).requires_grad_(False)
        self.multiple, self.stride = getattr(net, "multiple", 1), getattr(net, "stride", 1.0)
        self.register_buffer("step", torch.full((), -1, dtype=torch.int64))
        self.register_buffer("momentum", torch.zeros(()))

    def forward(self, features: Tensor, space: tuple[int, ...] = ()) -> Tensor:
        """(N, D) to (N, C), or maps (N, D, *S) to maps (N, C, *space)."""
        return self._through(self.head, features, space)

    @torch.no_grad()
    def average(self, features: Tensor, space: tuple[int, ...] = ()) -> Tensor:
        """The logits by the averaged weights, without gradient."""
        return self._through(self.averaged, features, space)

    @torch.no_grad()
    def follow(self, step: int, momentum: float | None = None) -> None:
        """Average in the weights that the step before `step` left; to be called before they are used.

        momentum: of the network's average after `step`, 0 where there is none; where it is not known yet, a further
        call in the same step has to say it. Nothing moves when called again in the same step.
        """
        share = (self.step < step).to(self.momentum.dtype) * (1 - self.momentum)
        for old, new in zip(self.averaged.parameters(), self.head.parameters(), strict=True):
            old.lerp_(new, share.to(old.dtype))
        self.step.fill_(step)
        if momentum is not None:
            self.momentum.fill_(momentum)

    @property
    def trained(self) -> bool:
        """Whether there was a step; waits for the device."""
        return bool(self.step >= 0)

    @torch.no_grad()
    def deployed(self) -> Layer:
        """The layer of the averaged network, where there is one: with what the last step left averaged in."""
        layer = deepcopy(self.averaged)
        for old, new in zip(layer.parameters(), self.head.parameters(), strict=True):
            old.lerp_(new, (1 - self.momentum).to(old.dtype))
        return layer

    def _through(self, layer: Layer, features: Tensor, space: tuple[int, ...]) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            x = full_precision(features)
            if isinstance(layer, nn.Conv2d) and x.dim() == 2:  # of a network that takes the mean over the places last
                return cast(Tensor, layer(x[:, :, None, None])).flatten(1)
            logits = cast(Tensor, layer(x))
            return self._enlarged(logits, space) if space and tuple(logits.shape[2:]) != space else logits

    def _enlarged(self, low: Tensor, space: tuple[int, ...]) -> Tensor:
        height, width = (math.ceil(side / self.multiple) * self.multiple for side in space)
        if (height, width) != space:
            missing = round(height / self.stride) - low.shape[2], round(width / self.stride) - low.shape[3]
            low = F.pad(low, (0, missing[1], 0, missing[0]), mode="replicate")
        full = F.interpolate(low, (height, width), mode="bilinear", align_corners=True)
        return full[..., : space[0], : space[1]]


def _alike(net: nn.Module, num_classes: int, dense: bool) -> Layer:
    layer = getattr(net, "output_layer", None)
    if isinstance(layer, nn.Linear | nn.Conv2d):
        made = deepcopy(layer).requires_grad_(True)
        made.reset_parameters()
        return made
    features = net.num_features
    assert isinstance(features, int)
    return nn.Conv2d(features, num_classes, 1) if dense else nn.Linear(features, num_classes)
