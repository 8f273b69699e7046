"""The average of the student's weights over the steps, as a network of its own."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sfumato.errors import UsageError, nearest
from sfumato.types import Output

Buffers = Literal["average", "copy"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel and torch.compile, or the network itself."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


class Ema(nn.Module):
    """Exponential moving average of a student (mean teacher: Tarvainen and Valpola 2017, arXiv:1703.01780).

    After the update of step k, counted from 0, each weight is `m * old + (1 - m) * student` with m = `momentum`, or
    m = min(momentum, (1 + k) / (10 + k)) when it ramps: a momentum of 0.999 would otherwise hold on to the random start
    for a thousand steps.

    `module` is a copy of the student made when the average is, always in evaluation mode and without gradient. Storage
    is never swapped with the student's (a weight swapped under autocast would still be read from the cast cache) nor
    replaced: updates are in place. Floating buffers, such as the statistics of batch norm, are averaged like the
    weights, or taken from the student with `buffers="copy"`; integer buffers are always taken. The state is the
    `state_dict` of this module and nothing else.
    """

    def __init__(
        self, student: nn.Module, momentum: float = 0.999, ramp: bool = True, buffers: Buffers = "average"
    ) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise UsageError(f"ema={momentum}: the momentum of the average must be at least 0 and below 1.")
        if buffers not in ("average", "copy"):
            raise UsageError(f"Ema: unknown buffers '{buffers}'." + nearest(buffers, ("average", "copy")))
        self.momentum = momentum
        self.ramp = ramp
        self.buffers_from: Buffers = buffers
        self.module = deepcopy(unwrapped(student)).requires_grad_(False).eval()
        for parameter in self.module.parameters():
            parameter.grad = None

    def forward(self, x: Tensor) -> Output:
        return cast(Output, self.module(x))

    def train(self, mode: bool = True) -> Ema:
        """Stays in evaluation mode whatever is asked, so that putting a tree of modules in training spares it."""
        return super().train(False)

    def momentum_at(self, step: int) -> float:
        return min(self.momentum, (1 + step) / (10 + step)) if self.ramp else self.momentum

    @torch.no_grad()
    def update(self, student: nn.Module, step: int) -> None:
        """Move towards the student; call after the optimizer's step `step`, counted from 0.

        One fused operation over all weights, and nothing that waits for the device.
        """
        mine, my_buffers = _tensors(self.module)
        theirs, their_buffers = _tensors(unwrapped(student))
        copied: tuple[list[Tensor], list[Tensor]] = [], []
        for old, new in zip(my_buffers, their_buffers, strict=True):
            into = (mine, theirs) if self.buffers_from == "average" and old.is_floating_point() else copied
            into[0].append(old)
            into[1].append(new)
        if mine:
            torch._foreach_lerp_(mine, theirs, 1 - self.momentum_at(step))
        if copied[0]:
            torch._foreach_copy_(copied[0], copied[1])


def _tensors(net: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and buffers, shared ones once, in one walk: the public iterators take longer than the averaging."""
    parameters: dict[int, Tensor] = {}
    buffers: dict[int, Tensor] = {}
    for module in net.modules():
        for found, held in ((parameters, module._parameters), (buffers, module._buffers)):
            for tensor in held.values():
                if tensor is not None:
                    found[id(tensor)] = tensor
    return list(parameters.values()), list(buffers.values())
