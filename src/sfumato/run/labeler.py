"""The network of an earlier training, to label images with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sfumato.config import Config
from sfumato.functional.probability import probability
from sfumato.image_data import ImageData
from sfumato.models import load_weights
from sfumato.run import files, prepare
from sfumato.run.label_files import Rows


def weights_of(folder: Path, labeler: str) -> Path:
    """labeler: "last" or "best" on validation."""
    return folder / (files.BEST_WEIGHTS if labeler == "best" else files.WEIGHTS)


def loaded(config: Config, table: prepare.AnyTable, path: Path, device: torch.device) -> nn.Module:
    net = prepare.make_model(config, table)
    load_weights(net, path)
    return net.to(device).eval()


def probabilities(data: ImageData, net: nn.Module, rows: Rows, device: torch.device) -> Tensor:
    """(n, C) float32 on the CPU of whole images, as they are without augmentation; every rank gets all."""
    return probability(data.predict(net, rows, device)[0])
