"""How to train: the options of the loop, and where their values are checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sfumato.errors import UsageError, check_choice
from sfumato.forward import Layout

COUNTS = ("steps", "batch_size", "unlabeled_ratio", "accumulate", "log_every", "eval_every", "save_every", "keep")
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine_half", "cosine_7_16", "poly", "constant"]


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults suit small images, few labels and minutes on a CPU.

    epochs, where given, take the place of steps: each is a pass over the unlabelled samples, or over the labelled ones
    where there are no others. See `counted`.
    batch_size is the number of labelled samples of a step over all ranks, unlabeled_ratio times as many are unlabelled.
    warmup and unlabeled_start are shares of the steps: of rising learning rate, and of labels-only training at first.
    layer_decay: each layer of a timm model learns at that share of the rate of the layer above it; 1: all at one rate.
    accumulate cuts the batch into so many pieces with one step for all: the gradient is that of the whole batch, while
    batch norm and the running statistics of a method see the pieces, one after the other.
    ema is the momentum of the averaged weights that are evaluated and kept, 0 for none.
    ohem is the share of the labelled samples or pixels of a step that are hard enough to count however sure the network
    is of them; beyond it only those with less than 0.7 for the true class count. None: all count.
    """

    steps: int = 500
    epochs: int | None = None
    batch_size: int = 32
    unlabeled_ratio: int = 4
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    backbone_lr_scale: float = 1.0
    layer_decay: float = 1.0
    warmup: float = 0.05
    schedule: Schedule = "cosine_half"
    final_lr: float = 0.02
    ema: float = 0.99
    ema_ramp: bool = True
    unlabeled_start: float = 0.1
    layout: Layout = "split"
    channels_last: bool = True
    clip: float | None = None
    ohem: float | None = None
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    log_every: int = 25
    eval_every: int = 100
    save_every: int = 100
    keep: int = 2
    tensorboard: bool = False
    on_collapse: Literal["warn", "stop"] = "warn"

    def __post_init__(self) -> None:
        for key in COUNTS:
            if getattr(self, key) < 1:
                raise UsageError(f"{key}={getattr(self, key)}: expected a whole number of at least 1.")
        for key in ("warmup", "unlabeled_start", "final_lr"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"{key}={getattr(self, key)}: expected a share between 0 and 1.")
        if not 0 <= self.ema < 1:
            raise UsageError(f"ema={self.ema}: expected 0 for no averaged weights, or a momentum below 1 such as 0.99.")
        for key in ("lr", "weight_decay", "momentum", "backbone_lr_scale"):
            if not getattr(self, key) >= 0:
                raise UsageError(f"{key}={getattr(self, key)}: expected a number of at least 0.")
        if not 0 < self.layer_decay <= 1:
            raise UsageError(f"layer_decay={self.layer_decay}: expected a share above 0 and at most 1 such as 0.65.")
        if self.clip is not None and not self.clip > 0:
            raise UsageError(f"clip={self.clip}: expected a number above 0, or none.")
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"epochs={self.epochs}: expected a whole number of at least 1, or none.")
        if self.ohem is not None and not 0 < self.ohem <= 1:
            raise UsageError(f"ohem={self.ohem}: expected a share above 0 and at most 1 such as 0.08, or none.")
        check_choice("train", "optimizer", self.optimizer, get_args(Optimizer))
        check_choice("train", "schedule", self.schedule, get_args(Schedule))
        check_choice("train", "layout", self.layout, get_args(Layout))
        check_choice("train", "precision", self.precision, ("fp32", "bf16", "fp16"))
        check_choice("train", "on_collapse", self.on_collapse, ("warn", "stop"))

    def counted(self, *, labeled: int, unlabeled: int) -> TrainConfig:
        """The same in steps, for so many samples: epochs times the batches that hold all of them, the last one too."""
        if self.epochs is None:
            return self
        samples, batch = unlabeled, self.batch_size * self.unlabeled_ratio
        if not unlabeled:
            samples, batch = labeled, self.batch_size
        return replace(self, steps=self.epochs * math.ceil(samples / batch), epochs=None)
