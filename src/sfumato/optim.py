"""Optimisers and learning-rate schedules, each a function of the step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from sfumato.models.groups import part_groups

if TYPE_CHECKING:
    from sfumato.models import Net
    from sfumato.train_config import TrainConfig


def rate(step: int, steps: int, config: TrainConfig) -> float:
    """The factor on the learning rate at `step` (from 0): linear warm-up over the share `warmup`, then the schedule.

    "cosine_half": half a cosine down to `final_lr`. "cosine_7_16": cos(7/16 pi t), FixMatch's, which ends at 0.195.
    "poly": (1 - t)^0.9. "constant": 1.
    """
    rising = round(config.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    t = (step - rising) / max(1, steps - rising)
    if config.schedule == "cosine_half":
        return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * t))
    if config.schedule == "cosine_7_16":
        return math.cos(math.pi * 7 / 16 * t)
    return (1 - t) ** 0.9 if config.schedule == "poly" else 1.0


def make_optimizer(model: Net, config: TrainConfig, method: nn.Module | None = None) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; no decay on norms and biases. Each group keeps its own peak rate.

    What `method` trains beside the model comes last: a network with `parameter_groups` by those, all else like a head.
    """
    groups = _groups(model, config)
    if method is not None:
        groups += _beside(method, config)
    for group in groups:
        group["peak"] = group["lr"]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, foreach=True)
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, foreach=True)


def _groups(net: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    given = {"lr": config.lr, "weight_decay": config.weight_decay, "backbone_lr_scale": config.backbone_lr_scale}
    if config.layer_decay != 1.0:
        given["layer_decay"] = config.layer_decay
    groups: list[dict[str, object]] = net.parameter_groups(**given)  # type: ignore[operator]
    return groups


def _beside(method: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    groups: list[dict[str, object]] = []
    grouped: set[nn.Parameter] = set()
    for net in method.modules():
        if hasattr(net, "parameter_groups") and any(one.requires_grad for one in net.parameters()):
            groups += [{**group, "name": f"method, {group['name']}"} for group in _groups(net, config)]
            grouped.update(net.parameters())
    rest = [(name, one) for name, one in method.named_parameters() if one not in grouped]
    return groups + part_groups("method", rest, lr=config.lr, weight_decay=config.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
