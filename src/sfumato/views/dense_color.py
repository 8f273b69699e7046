"""Colors of the strong view of images with masks: every sample its own, no pixel moved, nothing waits for the device.

As in torchvision's ColorJitter, the order of brightness, contrast, saturation and hue is drawn for each sample. The hue
costs more than the others together, so it is computed once, between the up to three of them that come before it and
those that come after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sfumato.views import filters, strong, tables
from sfumato.views.dense_presets import Colors
from sfumato.views.presets import OPERATIONS
from sfumato.views.slots import Slots, chosen, on_rows

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_IDENTITY = OPERATIONS.index("identity")
_DRAWS = 12  # three coins, four factors, four for their order, sigma


@dataclass(frozen=True, slots=True)
class Recipe:
    """What happens to the colors of N images, and whose parameters it was drawn from."""

    jitters: Tensor  # (N,) bool
    order: Tensor  # (N, 4) int64, a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE
    factor: Tensor  # (N, 4) float32: three factors, and turns of the hue
    greys: Tensor  # (N,) bool
    blurs: Tensor  # (N,) bool
    sigma: Tensor  # (N,) float32, pixels
    slots: Slots  # (N, K) operations of the pools
    colors: tuple[Colors, ...]

    def unless(self, mask: Tensor, other: Recipe) -> Recipe:
        """The same, but the other where `mask` (N,) is true."""
        column = mask[:, None]
        return Recipe(
            torch.where(mask, other.jitters, self.jitters),
            torch.where(column, other.order, self.order),
            torch.where(column, other.factor, self.factor),
            torch.where(mask, other.greys, self.greys),
            torch.where(mask, other.blurs, self.blurs),
            torch.where(mask, other.sigma, self.sigma),
            Slots(
                torch.cat((_only(~column, self.slots).operation, _only(column, other.slots).operation), 1),
                torch.cat((self.slots.magnitude, other.slots.magnitude), 1),
            ),
            self.colors + other.colors,
        )

    def rows(self, start: int, stop: int) -> Recipe:
        """The recipe of consecutive images."""
        part = slice(start, stop)
        return Recipe(
            self.jitters[part],
            self.order[part],
            self.factor[part],
            self.greys[part],
            self.blurs[part],
            self.sigma[part],
            Slots(self.slots.operation[part], self.slots.magnitude[part]),
            self.colors,
        )


def draws(colors: Colors) -> int:
    """Numbers per sample that `drawn` takes."""
    return _DRAWS + (1 + 2 * colors.most if colors.operations else 0)


def drawn(colors: Colors, draw: Tensor) -> Recipe:
    """The recipe that numbers (N, draws) in [0, 1) stand for."""
    coins, places, order, sigma, pool = draw.tensor_split((3, 7, 11, 12), dim=1)
    lowest, highest = colors.sigma
    spans = zip(colors.jitter, (1, 1, 1, 0), places.unbind(1), strict=True)
    return Recipe(
        jitters=coins[:, 0] < colors.jitter_probability,
        order=order.argsort(dim=1, stable=True),
        factor=torch.stack([middle + reach * (2 * place - 1) for reach, middle, place in spans], 1),
        greys=coins[:, 1] < colors.grey_probability,
        blurs=coins[:, 2] < colors.blur_probability,
        sigma=lowest + (highest - lowest) * sigma[:, 0],
        slots=_from_pool(colors, pool),
        colors=(colors,),
    )


def colored(values: Tensor, recipe: Recipe) -> Tensor:
    """Images (N, channels, H, W) float in 0..255 after the recipe, likewise. May overwrite `values`.

    Without three channels saturation, hue and grey leave an image as it is. The contrast's mean is over the whole crop,
    padding included, as published.
    """
    if any(colors.jitter_probability > 0 for colors in recipe.colors):
        values = _jittered(values, recipe)
    if any(colors.grey_probability > 0 for colors in recipe.colors) and values.shape[1] == len(filters.LUMA):
        values = on_rows(recipe.greys, lambda rows: filters.luma(rows).expand_as(rows), values)
    widest = max((colors.sigma[1] for colors in recipe.colors if colors.blur_probability > 0), default=0.0)
    if widest > 0:
        values = on_rows(recipe.blurs, partial(filters.blur, widest=widest), values, recipe.sigma)
    pool = tuple(operation for colors in recipe.colors for operation in colors.operations)
    if pool:
        pixels = strong.filtered(values, recipe.slots, pool)
        values = tables.composed(pixels, recipe.slots).gather(2, pixels).view_as(values)
    return values


def _jittered(values: Tensor, recipe: Recipe) -> Tensor:
    hue_at = (recipe.order == HUE).int().argmax(1)
    factors = recipe.factor.gather(1, recipe.order)  # in the order of application
    for place in (0, 1, 2):
        before = recipe.jitters & (place < hue_at)
        values = on_rows(before, blended, values, recipe.order[:, place], factors[:, place])
    if any(colors.jitter[HUE] > 0 for colors in recipe.colors):
        values = on_rows(recipe.jitters, filters.turn, values, recipe.factor[:, HUE])
    for place in (1, 2, 3):
        after = recipe.jitters & (place > hue_at)
        values = on_rows(after, blended, values, recipe.order[:, place], factors[:, place])
    return values


def blended(values: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Away from black, from the mean grey or from the grey image, as `kind` (N,) says, by `factor` (N,)."""
    kind, factor = kind.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    grey = filters.luma(values)
    # Rows first: the mean of a single long row might be summed in another order than that of many.
    mean = grey.mean(3, keepdim=True).mean(2, keepdim=True)
    plain = torch.where(kind == CONTRAST, mean, torch.where(kind == SATURATION, grey, 0.0))
    if values.shape[1] != len(filters.LUMA):
        factor = torch.where(kind == SATURATION, 1.0, factor)
    return torch.lerp(plain.expand_as(values), values, factor).clamp_(0, 255)


def _from_pool(colors: Colors, draw: Tensor) -> Slots:
    """From 1 to `most` operations of the pool, the slots that remain left without."""
    if not colors.operations:
        return Slots(draw.new_zeros(len(draw), 0, dtype=torch.int64), draw.new_zeros(len(draw), 0))
    count, choice, place = draw.tensor_split((1, 1 + colors.most), dim=1)
    slots = chosen(colors.operations, choice, place)
    return _only(torch.arange(colors.most, device=draw.device) < 1 + (count * colors.most).long(), slots)


def _only(mask: Tensor, slots: Slots) -> Slots:
    """The slots where `mask` is true, the identity in the others."""
    return Slots(torch.where(mask, slots.operation, _IDENTITY), slots.magnitude)
