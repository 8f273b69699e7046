"""Pixel values of any image as float32 in 0..255, and from there to the network's input."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from sfumato.errors import UsageError

CHUNK = 2**19  # values that a CPU works on at a time: what its cache holds


def values(images: Tensor) -> Tensor:
    """uint8 in 0..255 or floating in 0..1 as float32 in 0..255, in memory of their own."""
    return images.float() * 255 if images.is_floating_point() else images.float()


@cache
def scale_and_offset(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """(channels, 1, 1) each: normalized = values in 0..255 * scale + offset. Kept, so that no step waits for a copy."""
    center, spread = (torch.tensor(numbers, device=device).view(-1, 1, 1) for numbers in (mean, std))
    return 1 / (255 * spread), -center / spread


def check_statistics(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if len(mean) != len(std) or min(std, default=0) <= 0:
        raise UsageError(f"mean={mean} and std={std} must hold one number per channel each, std above 0.")


def check_images(images: Tensor, mean: tuple[float, ...], slots: Tensor | None = None) -> None:
    """Raise a UsageError unless the images have a channel for each number of `mean`, and a slot each."""
    known = images.dtype == torch.uint8 or images.is_floating_point()
    if images.ndim != 4 or images.shape[1] != len(mean) or not known:
        raise UsageError(
            f"images must be (N, {len(mean)}, H, W), uint8 in 0..255 or floating in 0..1, one channel for each number "
            f"of mean={mean}; got {tuple(images.shape)} of {images.dtype}."
        )
    if slots is not None and slots.shape != images.shape[:1]:
        raise UsageError(f"slots must be ({len(images)},), one for each image; got {tuple(slots.shape)}.")
