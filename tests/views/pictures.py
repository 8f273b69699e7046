"""Images for the tests of views, and views of them with one operation alone."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.views import Augment, Operation, Preset
from sfumato.views.presets import OPERATIONS
from sfumato.views.slots import Slots


def pictures(count: int = 4, channels: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth fields in every grey value with a little noise, uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    noise = 0.03 * torch.randn(count, channels, side, side, generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).to(torch.uint8)


def slots_of(*rows: tuple[tuple[str, float], ...]) -> Slots:
    """One row of (name, magnitude) pairs for each sample."""
    operation = torch.tensor([[OPERATIONS.index(name) for name, _ in row] for row in rows])
    return Slots(operation, torch.tensor([[magnitude for _, magnitude in row] for row in rows]))


def plain(preset: str | Preset, size: int = 32, channels: int = 3, seed: int = 0) -> Augment:
    """Views in 0..1: normalised by nothing."""
    return Augment(preset, seed=seed, image_size=size, mean=(0.0,) * channels, std=(1.0,) * channels)


def only(name: str, magnitude: float = 0.0, **others: object) -> Preset:
    """The preset whose strong view is this operation alone, at this magnitude."""
    return Preset((Operation(name, magnitude, magnitude),), slots=1, **others)  # type: ignore[arg-type]
