"""Whole channels of a net's features set to zero, for chosen images: a perturbation no augmentation of pixels gives.

Nothing is drawn here. The caller passes uniform numbers, so that the masks are a function of seed and step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.distributed import gather_batch
from sfumato.errors import UsageError


@dataclass(frozen=True, slots=True)
class FeatureDropout:
    """Factors on the channels of what a decoder or head takes, for K images of a batch.

    With `again` it sees these images twice, plain and perturbed, in one pass: K outputs follow those of the batch.
    Otherwise the perturbed features take the place of the plain ones. The mean of every factor is 1, so that a net
    evaluated without perturbation sees the scale it was trained with.
    """

    rows: Tensor  # (K,) int64, places in the batch
    masks: tuple[Tensor, ...]  # (K, channels) for each map, in the order of the net's `tap_channels`
    again: bool


def dropped_again(channels: Sequence[int], rows: Tensor, uniform: Tensor, *, rate: float = 0.5) -> FeatureDropout:
    """Each channel dropped with probability `rate`, the others times 1/(1 - rate), as a further output of each image.

    The feature perturbation of UniMatch (Yang et al. 2023, arXiv:2208.09910, section 3.2), there with rate 0.5.

    Args:
        channels: of each map, the net's `tap_channels`.
        rows: (K,) int64, the images to decode again.
        uniform: (K, sum of channels) in [0, 1).
        rate: 0 <= rate < 1.

    """
    if not 0 <= rate < 1:
        raise UsageError(f"rate={rate}: expected the share of channels to drop, 0 <= rate < 1.")
    _check(channels, uniform, len(rows))
    kept = (uniform >= rate).to(torch.float32) / (1 - rate)
    return FeatureDropout(rows, torch.split(kept, list(channels), dim=1), again=True)


def complementary(
    channels: Sequence[int], first: Tensor, second: Tensor, uniform: Tensor, order: Tensor
) -> FeatureDropout:
    """Two views of G images see complementary halves of the channels: factors m and 2 - m, each 0 or 2.

    For half of the images of all ranks, rounded down, those lowest in `order`, both factors are 1. From UniMatch V2
    (Yang et al. 2025, arXiv:2410.10777, section 3.3). Maps of one width, as those of a transformer, share their mask;
    maps of several widths have no channels in common, and each draws its own.

    Args:
        channels: of each map, the net's `tap_channels`.
        first: (G,) int64, places in the batch of the first view of each image.
        second: (G,) int64, those of its second view.
        uniform: (G, sum of channels) in [0, 1).
        order: (G,) uniform numbers; they choose the images that stay whole.

    """
    _check(channels, uniform, len(first))
    m = 2.0 * (uniform >= 0.5)
    everywhere = gather_batch(order)
    lower = (everywhere < order[:, None]).sum(dim=1)
    whole = lower < len(everywhere) // 2
    m = torch.where(whole[:, None], torch.ones_like(m), m)
    both = torch.cat([m, 2.0 - m])
    masks = torch.split(both, list(channels), dim=1)
    if len(set(channels)) == 1:
        masks = masks[:1] * len(channels)
    return FeatureDropout(torch.cat([first, second]), masks, again=False)


def perturbed(features: tuple[Tensor, ...], taps: Sequence[int], dropout: FeatureDropout) -> tuple[Tensor, ...]:
    """The features with the maps at `taps` perturbed; with `again`, every map longer by K images."""
    masks = dict(zip(taps, dropout.masks, strict=True))
    changed = []
    for place, x in enumerate(features):
        mask = masks.get(place)
        if dropout.again:
            more = x.index_select(0, dropout.rows)
            changed.append(torch.cat([x, more if mask is None else more * _over_space(mask, x)]))
        elif mask is None:
            changed.append(x)
        else:
            ones = torch.ones(x.shape[:2], dtype=mask.dtype, device=x.device)
            changed.append(x * _over_space(ones.index_copy(0, dropout.rows, mask), x))
    return tuple(changed)


def _over_space(mask: Tensor, x: Tensor) -> Tensor:
    return mask.to(x.dtype).reshape(*mask.shape, *(1,) * (x.dim() - 2))


def _check(channels: Sequence[int], uniform: Tensor, images: int) -> None:
    expected = (images, sum(channels))
    if tuple(uniform.shape) != expected:
        raise UsageError(
            f"uniform has shape {tuple(uniform.shape)}, expected {expected}: a number for each image and each channel "
            "of the features (the net's tap_channels)."
        )
